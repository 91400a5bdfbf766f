//! The lock on a file that one process has at a time, and who holds it.
//!
//! `flock` and not a record lock: it belongs to the open file, so that closing another
//! descriptor of the same file does not lose it, and the kernel's list says which process took it
//! (which it does not for open file description locks).

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;

/// Why there is no lock.
pub(crate) enum LockError {
    /// Somebody has it: a process, as text.
    Held(String),
    /// The host has none to give.
    Host(io::Error),
}

/// Takes the lock for as long as this open file lives.
pub(crate) fn lock(file: &File) -> Result<(), LockError> {
    // SAFETY: no memory is passed.
    if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    match error.kind() {
        io::ErrorKind::WouldBlock => Err(LockError::Held(holder(file))),
        _ => Err(LockError::Host(error)),
    }
}

/// The process that holds the lock, as far as the host lets us see.
fn holder(file: &File) -> String {
    let unknown = || "another process".to_owned();
    let Ok(metadata) = file.metadata() else { return unknown() };
    let (major, minor) = (libc::major(metadata.dev()), libc::minor(metadata.dev()));
    let Ok(locks) = fs::read_to_string("/proc/locks") else { return unknown() };
    let Some(pid) = find_holder(&locks, major, minor, metadata.ino()) else { return unknown() };
    match fs::read_to_string(format!("/proc/{pid}/comm")) {
        Ok(name) => format!("{} (process {pid})", name.trim_end()),
        Err(_) => format!("process {pid}"),
    }
}

/// The owner's id in the kernel's list. The inode counts most: some file systems show another
/// device number to their users than to the kernel.
fn find_holder(locks: &str, major: u32, minor: u32, inode: u64) -> Option<u32> {
    let place = format!("{major:02x}:{minor:02x}:{inode}");
    let loose = format!(":{inode}");
    let owner = |matches: &dyn Fn(&str) -> bool| {
        locks.lines().find_map(|line| {
            let mut words = line.split_whitespace().skip(1).skip_while(|word| *word == "->");
            let (kind, _, _) = (words.next()?, words.next()?, words.next()?);
            let (pid, file) = (words.next()?, words.next()?);
            // Zero is a process that cannot be seen from here.
            let pid = pid.parse().ok().filter(|pid| *pid > 0)?;
            (kind == "FLOCK" && matches(file)).then_some(pid)
        })
    };
    owner(&|file| file == place).or_else(|| owner(&|file| file.ends_with(&loose)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCKS: &str = "1: POSIX  ADVISORY  WRITE 7 fe:00:42 0 EOF\n\
                         2: FLOCK  ADVISORY  WRITE 1234 fe:00:42 0 EOF\n\
                         2: -> FLOCK  ADVISORY  WRITE 99 fe:00:42 0 EOF\n\
                         3: OFDLCK ADVISORY  READ -1 fe:00:43 0 EOF\n";

    #[test]
    fn find_holder_reads_the_kernels_list() {
        assert_eq!(find_holder(LOCKS, 0xFE, 0, 42), Some(1234));
        assert_eq!(find_holder(LOCKS, 0, 0x31, 42), Some(1234));
        assert_eq!(find_holder(LOCKS, 0xFE, 0, 43), None);
        assert_eq!(find_holder("nonsense", 0, 0, 1), None);
    }

    #[test]
    fn lock_names_the_holder() {
        let image = tempfile::NamedTempFile::new().unwrap();
        assert!(lock(image.as_file()).is_ok());
        let second = File::open(image.path()).unwrap();
        let Err(LockError::Held(holder)) = lock(&second) else { panic!("not held") };
        assert!(holder.contains(&std::process::id().to_string()), "{holder}");
    }
}
