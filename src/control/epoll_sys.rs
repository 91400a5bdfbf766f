//! An epoll instance that is closed with its owner.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use epoll::{ControlOptions, Events};

/// An epoll instance that is closed with its owner.
#[derive(Debug)]
pub(super) struct Epoll(OwnedFd);

impl Epoll {
    pub fn new() -> io::Result<Self> {
        let fd = epoll::create(true)?;
        // SAFETY: `create` has just returned this descriptor, and nobody else has it.
        Ok(Epoll(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    pub fn ctl(&self, op: ControlOptions, fd: RawFd, events: Events, data: u64) -> io::Result<()> {
        epoll::ctl(self.0.as_raw_fd(), op, fd, epoll::Event::new(events, data))
    }

    /// Waits, without end where no time is given.
    pub fn wait(&self, timeout: Option<Duration>, ready: &mut [epoll::Event]) -> io::Result<usize> {
        // Rounded up, or the last millisecond would be spent spinning.
        let timeout_ms =
            timeout.map_or(-1, |time| i32::try_from(time.as_millis() + 1).unwrap_or(-1));
        epoll::wait(self.0.as_raw_fd(), timeout_ms, ready)
    }
}
