//! The clock that a reload is dated by.

use std::io;
use std::time::Duration;

/// Since the machine was started: CLOCK_MONOTONIC, as systemd reckons.
pub(super) fn monotonic() -> io::Result<Duration> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call writes to a live object of ours.
    if unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Duration::new(time.tv_sec as u64, time.tv_nsec as u32))
}
