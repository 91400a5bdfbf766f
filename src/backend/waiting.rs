//! Waiting for descriptors and for time, as the threads of this folder do it.

use std::io;
use std::os::fd::RawFd;
use std::time::{Duration, Instant};

use epoll::{ControlOptions, Events};

/// Events fetched at once.
const EVENTS: usize = 16;

/// An epoll set with a fixed part, the first of which ends the thread, and a changing part.
pub struct Waiting {
    epoll: RawFd,
    stop: RawFd,
    following: Vec<RawFd>,
    version: Option<u64>,
}

impl Waiting {
    /// Waits on `fixed`.
    pub fn new(fixed: &[RawFd]) -> io::Result<Self> {
        let epoll = epoll::create(true)?;
        let waiting = Waiting { epoll, stop: fixed[0], following: Vec::new(), version: None };
        for fd in fixed {
            waiting.add(*fd)?;
        }
        Ok(waiting)
    }

    fn add(&self, fd: RawFd) -> io::Result<()> {
        let event = epoll::Event::new(Events::EPOLLIN, fd as u64);
        epoll::ctl(self.epoll, ControlOptions::EPOLL_CTL_ADD, fd, event)
    }

    /// Waits on `fds` from now on, if `version` says that they have changed.
    pub fn follow(&mut self, fds: &[RawFd], version: u64) -> io::Result<()> {
        if self.version == Some(version) {
            return Ok(());
        }
        for fd in self.following.drain(..) {
            // One that was closed has left the set by itself.
            let none = epoll::Event::new(Events::empty(), 0);
            let _ = epoll::ctl(self.epoll, ControlOptions::EPOLL_CTL_DEL, fd, none);
        }
        for fd in fds {
            self.add(*fd)?;
        }
        self.following = fds.to_vec();
        self.version = Some(version);
        Ok(())
    }

    /// True when the thread is to end.
    pub fn wait(&self, until: Option<Instant>) -> io::Result<bool> {
        let mut events = [epoll::Event::new(Events::empty(), 0); EVENTS];
        let count = match epoll::wait(self.epoll, timeout_ms(until), &mut events) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            result => result?,
        };
        Ok(events[..count].iter().any(|event| event.data == self.stop as u64))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        // Nothing is left to do about an error.
        let _ = epoll::close(self.epoll);
    }
}

/// Rounded up, so that the thread does not spin through the last part of a millisecond.
fn timeout_ms(until: Option<Instant>) -> i32 {
    let Some(until) = until else { return -1 };
    let left = until.saturating_duration_since(Instant::now());
    let ms = (left + Duration::from_micros(999)).as_millis();
    i32::try_from(ms).unwrap_or(i32::MAX)
}
