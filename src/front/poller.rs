//! An epoll instance: wait for any of some descriptors, each with a number. And the other side:
//! waking whoever waits for one.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use epoll::{ControlOptions, Event, Events};

/// Events taken from the kernel at once; what is left comes with the next call.
const BATCH: usize = 16;

/// Waits for descriptors to become readable, level-triggered.
#[derive(Debug)]
pub struct Poller {
    epoll: RawFd,
}

impl Poller {
    /// Waits for nothing yet.
    pub fn new() -> io::Result<Self> {
        Ok(Poller { epoll: epoll::create(true)? })
    }

    /// Waits for `fd` as well, which is called `token`.
    pub fn add(&self, fd: &impl AsRawFd, token: u64) -> io::Result<()> {
        let event = Event::new(Events::EPOLLIN, token);
        epoll::ctl(self.epoll, ControlOptions::EPOLL_CTL_ADD, fd.as_raw_fd(), event)
    }

    /// Waits for `fd` no longer. This must come before it is closed: where another process holds
    /// the same eventfd, the kernel would go on reporting it.
    pub fn remove(&self, fd: &impl AsRawFd) {
        let event = Event::new(Events::empty(), 0);
        // It fails for a descriptor that is not there, which is what was asked for.
        let _ = epoll::ctl(self.epoll, ControlOptions::EPOLL_CTL_DEL, fd.as_raw_fd(), event);
    }

    /// Sleeps until something is readable, `timeout` has passed, or a signal came. Returns the
    /// numbers of what is readable.
    pub fn wait(&self, timeout: Option<Duration>) -> io::Result<impl Iterator<Item = u64> + use<>> {
        // Rounded up: waking early would mean to spin until the time has come.
        let milliseconds = timeout.map_or(-1, |timeout| {
            i32::try_from(timeout.as_micros().div_ceil(1000)).unwrap_or(i32::MAX)
        });
        let mut events = [Event { events: 0, data: 0 }; BATCH];
        let count = match epoll::wait(self.epoll, milliseconds, &mut events) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            Err(error) => return Err(error),
        };
        Ok(events.into_iter().take(count).map(|event| event.data))
    }

    /// Sleeps until something is readable, and returns the lowest number of that.
    pub fn wait_for_any(&self) -> io::Result<u64> {
        loop {
            if let Some(token) = self.wait(None)?.min() {
                return Ok(token);
            }
        }
    }
}

impl Drop for Poller {
    fn drop(&mut self) {
        // Nothing can be done about a failure, and none is known.
        let _ = epoll::close(self.epoll);
    }
}

/// Adds one to an eventfd. It is not blocking, and when its count is full the other side has
/// reason enough to wake up.
pub fn signal(mut event: &File) {
    match event.write(&1u64.to_ne_bytes()) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
        Err(error) => log::debug!("a driver cannot be notified: {error}"),
    }
}
