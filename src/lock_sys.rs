//! The lock on a file that one process has at a time, and who holds it.
//!
//! `flock` and not a record lock: it belongs to the open file, so that closing another
//! descriptor of the same file does not lose it, and the kernel's list says which process took it
//! (which it does not for open file description locks).
//!
//! A process that was killed may leave I/O behind that the kernel had taken over an io_uring: it
//! goes on without the process, and the open file with it, and the lock. So who gets the lock knows
//! that nothing of its predecessor is under way; and who does not, though no process is to be seen
//! that has it, may wait a moment. One that is on its way out is as good as gone: it lets go of its
//! files last.

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
    let mut seen_alive = false;
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
            // Twice: between its last signal and its end nothing tells that a process ends.
            Some(holder) if seen_alive => return Err(LockError::Held(holder)),
            Some(_) if !patience.is_zero() => {
                seen_alive = true;
                thread::sleep(STEP);
            }
            Some(holder) => return Err(LockError::Held(holder)),
            None if Instant::now() < deadline => thread::sleep(STEP),
            None => return Err(LockError::Held("another process".to_owned())),
        }
    }
}

/// The process that holds the lock, as far as the host lets us see; `None` for one that is ending.
fn holder(file: &File) -> Option<String> {
    let metadata = file.metadata().ok()?;
    let (major, minor) = (libc::major(metadata.dev()), libc::minor(metadata.dev()));
    let locks = fs::read_to_string("/proc/locks").ok()?;
    let pid = find_holder(&locks, major, minor, metadata.ino())?;
    let read = |file| fs::read_to_string(format!("/proc/{pid}/{file}"));
    if is_ending(&read("stat").ok()?, &read("status").ok()?) {
        return None;
    }
    let name = read("comm").ok()?;
    Some(format!("{} (process {pid})", name.trim_end()))
}

/// Whether a process is on its way out, from its `stat` and `status` (proc_pid_stat(5)): dead and
/// not waited for, or ending, or about to, by a SIGKILL that it has not noticed yet.
fn is_ending(stat: &str, status: &str) -> bool {
    const PF_EXITING: u64 = 0x4;
    const SIGKILL: u64 = 1 << (libc::SIGKILL - 1);
    // Behind the name, in which there may be anything: state, parent, group, session, terminal, its
    // group, flags.
    let mut words = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let dead = words.next().is_some_and(|state| matches!(state, "Z" | "X" | "x"));
    let exiting =
        words.nth(5).and_then(|flags| flags.parse().ok()).is_some_and(|f: u64| f & PF_EXITING != 0);
    let pending = |line: &str| {
        let mask = line.strip_prefix("SigPnd:").or(line.strip_prefix("ShdPnd:"))?;
        u64::from_str_radix(mask.trim(), 16).ok()
    };
    dead || exiting || status.lines().filter_map(pending).any(|mask| mask & SIGKILL != 0)
}

/// Opens a device that nobody else may have open in this way, and waits for `patience` where
/// somebody has: I/O of a process that was killed keeps it open a little longer.
pub(crate) fn open_alone(
    mut open: impl FnMut() -> io::Result<File>,
    patience: Duration,
) -> io::Result<File> {
    let deadline = Instant::now() + patience;
    loop {
        match open() {
            Err(error)
                if error.raw_os_error() == Some(libc::EBUSY) && Instant::now() < deadline =>
            {
                thread::sleep(STEP);
            }
            result => return result,
        }
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
    fn is_ending_knows_the_dead_the_ending_and_the_doomed() {
        let stat = |state, flags| format!("42 (a) b) {state} 1 42 42 0 -1 {flags} 0 0");
        let status = "Name:\ta\nSigPnd:\t0000000000000000\nShdPnd:\t0000000000000000\n";
        assert!(!is_ending(&stat("S", "4194560"), status));
        assert!(is_ending(&stat("Z", "4194560"), status));
        assert!(is_ending(&stat("D", "4194564"), status));
        let doomed = status.replace("ShdPnd:\t0000000000000000", "ShdPnd:\t0000000000000100");
        assert!(is_ending(&stat("D", "4194560"), &doomed));
        let own = |file| fs::read_to_string(format!("/proc/self/{file}")).unwrap();
        assert!(!is_ending(&own("stat"), &own("status")));
    }

    #[test]
    fn lock_of_a_zombie_is_waited_for() {
        use std::process::{Command, Stdio};
        let image = tempfile::NamedTempFile::new().unwrap();
        // The child locks the file that we have open, and ends, and is not waited for.
        let first = File::open(image.path()).unwrap();
        let stdin = Stdio::from(first.try_clone().unwrap());
        let mut child = Command::new("flock").args(["-x", "0"]).stdin(stdin).spawn().unwrap();
        let stat = format!("/proc/{}/stat", child.id());
        while !fs::read_to_string(&stat).unwrap().contains(") Z ") {
            thread::sleep(STEP);
        }
        let second = File::open(image.path()).unwrap();
        let let_go = thread::spawn(move || {
            thread::sleep(Duration::from_millis(50));
            drop(first);
        });
        assert!(lock(&second, Duration::from_secs(60)).is_ok());
        let_go.join().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn open_alone_waits_for_who_is_about_to_let_go() {
        let busy = || io::Error::from_raw_os_error(libc::EBUSY);
        let mut left = 3;
        let open = || match left {
            0 => tempfile::tempfile(),
            _ => {
                left -= 1;
                Err(busy())
            }
        };
        assert!(open_alone(open, Duration::from_secs(60)).is_ok());
        let error = open_alone(|| Err(busy()), Duration::from_millis(20)).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EBUSY));
        let missing = || Err(io::Error::from_raw_os_error(libc::ENOENT));
        let begin = Instant::now();
        assert!(open_alone(missing, Duration::from_secs(60)).is_err());
        assert!(begin.elapsed() < Duration::from_secs(30), "only EBUSY is waited for");
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
