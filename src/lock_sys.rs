//! The lock on a file that one process has at a time, and who holds it.
//!
//! `flock` and not a record lock: it belongs to the open file, so that closing another
//! descriptor of the same file does not lose it, and the kernel's list says which process took it
//! (which it does not for open file description locks).
//!
//! A process that was killed may leave I/O behind that the kernel had taken over an io_uring: it
//! goes on without the process, and the open file with it, and the lock. So who gets the lock knows
//! that nothing of its predecessor is under way; and who does not, though no process is to be seen
//! that has it, may wait a moment.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::thread;
use std::time::{Duration, Instant};

/// How often the lock is tried while it is waited for.
const STEP: Duration = Duration::from_millis(5);

/// Why there is no lock.
pub(crate) enum LockError {
    /// Somebody has it: a process, as text.
    Held(String),
    /// The host has none to give.
    Host(io::Error),
}

/// Takes the lock for as long as this open file lives. Waits for `patience` where no living process
/// is known to have it.
pub(crate) fn lock(file: &File, patience: Duration) -> Result<(), LockError> {
    let deadline = Instant::now() + patience;
    loop {
        // SAFETY: no memory is passed.
        if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::WouldBlock {
            return Err(LockError::Host(error));
        }
        match holder(file) {
            Some(holder) => return Err(LockError::Held(holder)),
            None if Instant::now() < deadline => thread::sleep(STEP),
            None => return Err(LockError::Held("another process".to_owned())),
        }
    }
}

/// The process that holds the lock, as far as the host lets us see.
fn holder(file: &File) -> Option<String> {
    let metadata = file.metadata().ok()?;
    let (major, minor) = (libc::major(metadata.dev()), libc::minor(metadata.dev()));
    let locks = fs::read_to_string("/proc/locks").ok()?;
    let pid = find_holder(&locks, major, minor, metadata.ino())?;
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    Some(format!("{} (process {pid})", name.trim_end()))
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
        assert!(lock(image.as_file(), Duration::ZERO).is_ok());
        let second = File::open(image.path()).unwrap();
        let begin = Instant::now();
        let Err(LockError::Held(holder)) = lock(&second, Duration::from_secs(60)) else {
            panic!("not held")
        };
        assert!(begin.elapsed() < Duration::from_secs(30), "a living holder is not waited for");
        assert!(holder.contains(&std::process::id().to_string()), "{holder}");
    }

    #[test]
    fn lock_that_a_dead_process_has_left_is_waited_for() {
        use std::process::{Command, Stdio};
        let image = tempfile::NamedTempFile::new().unwrap();
        // The child locks the file that we have open, and ends: as the kernel's own I/O would do.
        let first = File::open(image.path()).unwrap();
        let stdin = Stdio::from(first.try_clone().unwrap());
        assert!(Command::new("flock").args(["-x", "0"]).stdin(stdin).status().unwrap().success());
        let second = File::open(image.path()).unwrap();
        assert!(matches!(lock(&second, Duration::ZERO), Err(LockError::Held(_))));
        let let_go = thread::spawn(move || {
            thread::sleep(Duration::from_millis(50));
            drop(first);
        });
        assert!(lock(&second, Duration::from_secs(60)).is_ok());
        let_go.join().unwrap();
    }
}
