//! A lock that goes with the open file, and with its process.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// Takes it; an error of the kind `WouldBlock` where another open file has it.
pub(super) fn lock(file: &File) -> io::Result<()> {
    // SAFETY: no memory is passed.
    match unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
