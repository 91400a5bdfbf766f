//! The few system calls that the standard library has no words for. All `unsafe` code of these
//! tests is here.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

/// An anonymous file of `len` bytes that another process can map.
pub fn memfd(len: usize) -> File {
    // SAFETY: the name is a constant C string; the result is checked.
    let fd = unsafe { libc::memfd_create(c"guest-memory".as_ptr(), libc::MFD_CLOEXEC) };
    assert!(fd >= 0, "memfd_create: {}", io::Error::last_os_error());
    // SAFETY: `fd` was just opened and nobody else owns it.
    let file = unsafe { File::from_raw_fd(fd) };
    file.set_len(len as u64).expect("a memfd grows");
    file
}

/// A shared mapping of a file. Another process writes to the same pages, so no reference to them
/// is ever made: bytes are copied in and out.
pub struct Mapping {
    base: *mut u8,
    len: usize,
}

// SAFETY: the pointer is only used for copies and atomic accesses, which any thread may do; two
// threads of a test never use the same buffer, and the device is another process anyway.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps the first `len` bytes of `file`.
    pub fn new(file: &File, len: usize) -> Self {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let null = std::ptr::null_mut();
        // SAFETY: a new mapping at an address of the kernel's choice touches no existing memory.
        let base =
            unsafe { libc::mmap(null, len, protection, libc::MAP_SHARED, file.as_raw_fd(), 0) };
        assert!(base != libc::MAP_FAILED, "mmap: {}", io::Error::last_os_error());
        Mapping { base: base.cast(), len }
    }

    /// The address of byte `at`, as the protocol's "user address".
    pub fn address(&self, at: usize) -> u64 {
        assert!(at <= self.len);
        self.base as u64 + at as u64
    }

    /// Copies out.
    pub fn read(&self, at: usize, bytes: &mut [u8]) {
        assert!(at + bytes.len() <= self.len);
        // SAFETY: the range lies in the mapping, and `bytes` is memory of our own beside it.
        unsafe {
            std::ptr::copy_nonoverlapping(self.base.add(at), bytes.as_mut_ptr(), bytes.len());
        }
    }

    /// Copies in.
    pub fn write(&self, at: usize, bytes: &[u8]) {
        assert!(at + bytes.len() <= self.len);
        // SAFETY: as for `read`, the other way round.
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.base.add(at), bytes.len());
        }
    }

    fn atomic(&self, at: usize) -> &AtomicU16 {
        assert!(at.is_multiple_of(2) && at + 2 <= self.len);
        // SAFETY: aligned and inside the mapping, which lives as long as `self`.
        unsafe { AtomicU16::from_ptr(self.base.add(at).cast()) }
    }

    /// Reads a ring index; what the other side wrote before it is visible after this.
    pub fn load(&self, at: usize) -> u16 {
        u16::from_le(self.atomic(at).load(Ordering::Acquire))
    }

    /// Writes a ring index; the other side that sees it sees all that was written before.
    pub fn store(&self, at: usize, value: u16) {
        self.atomic(at).store(value.to_le(), Ordering::Release);
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `new` with this length and nothing points into it.
        unsafe { libc::munmap(self.base.cast(), self.len) };
    }
}

/// A descriptor of its own for what `of` is a descriptor for.
pub fn owned(of: &impl AsRawFd) -> OwnedFd {
    // SAFETY: the descriptor is open for as long as `of` is borrowed.
    let borrowed = unsafe { BorrowedFd::borrow_raw(of.as_raw_fd()) };
    borrowed.try_clone_to_owned().expect("a descriptor can be cloned")
}

/// Waits until `fd` is readable or closed by the other side.
pub fn readable(fd: RawFd, timeout: Duration) -> bool {
    let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    // Rounded up, so that a wait for less than a millisecond does not become a busy loop.
    let milliseconds = timeout.as_micros().div_ceil(1000) as i32;
    // SAFETY: one valid pollfd.
    let count = unsafe { libc::poll(&mut poll, 1, milliseconds) };
    count > 0
}

/// True when the peer has closed `fd`. Bytes that are still to be read stay.
pub fn is_closed(fd: RawFd, timeout: Duration) -> bool {
    if !readable(fd, timeout) {
        return false;
    }
    let mut byte = 0u8;
    // SAFETY: one byte of room of our own.
    let got =
        unsafe { libc::recv(fd, (&raw mut byte).cast(), 1, libc::MSG_PEEK | libc::MSG_DONTWAIT) };
    let reset = got < 0 && io::Error::last_os_error().raw_os_error() == Some(libc::ECONNRESET);
    got == 0 || reset
}

/// A descriptor that a child inherits.
#[derive(Clone, Copy)]
pub enum Inherited {
    /// Under its own number.
    Same(RawFd),
    /// As the first behind the standard ones.
    First(RawFd),
}

/// Starts `command`, which inherits a descriptor where one is given, and which dies with the thread
/// that started it: a test run that is killed leaves nothing behind.
pub fn spawn(command: &mut Command, inherited: Option<Inherited>) -> io::Result<Child> {
    let before_exec = move || {
        // SAFETY: prctl with constant arguments, async-signal-safe as pre_exec asks.
        if unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } < 0 {
            return Err(io::Error::last_os_error());
        }
        let result = match inherited {
            None => 0,
            // SAFETY: makes a descriptor of the child; async-signal-safe.
            Some(Inherited::First(fd)) if fd != 3 => unsafe { libc::dup2(fd, 3) },
            // SAFETY: changes a flag of a descriptor of the child; async-signal-safe.
            Some(Inherited::Same(fd) | Inherited::First(fd)) => unsafe {
                libc::fcntl(fd, libc::F_SETFD, 0)
            },
        };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    };
    // SAFETY: the closure allocates nothing and makes two async-signal-safe calls.
    unsafe { command.pre_exec(before_exec) };
    command.spawn()
}

/// True when a child has ended, which leaves it to be waited for.
pub fn has_ended(pid: u32) -> bool {
    // SAFETY: siginfo_t is plain data, for which zeroes are a value.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: `info` is room of our own, and WNOWAIT leaves the child as it is.
    let result = unsafe { libc::waitid(libc::P_PID, pid, &mut info, options) };
    assert_eq!(result, 0, "waitid: {}", io::Error::last_os_error());
    // SAFETY: waitid filled in the fields of a child's end, or left the zeroes.
    unsafe { info.si_pid() != 0 }
}

/// Sends `signal` to a child that has not been waited for.
pub fn signal(pid: u32, signal: i32) {
    // SAFETY: the child is ours and not reaped yet, so the number cannot name another process.
    unsafe { libc::kill(pid as i32, signal) };
}

#[allow(
    unused_imports,
    reason = "not every test program that shares this file sends all of them"
)]
pub use libc::{SIGHUP, SIGKILL, SIGTERM};

/// The version of the kernel's Landlock (landlock_create_ruleset(2)); less than 1 where it has none.
#[allow(dead_code)]
pub fn landlock_version() -> i64 {
    const VERSION: u32 = 1; // LANDLOCK_CREATE_RULESET_VERSION
    let (nothing, size) = (std::ptr::null::<libc::c_void>(), 0_usize);
    // SAFETY: with this flag no memory is looked at.
    unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, nothing, size, VERSION) }
}
