//! What a lane waits on: its outbox and, while it serves the connection, that.

use std::io;
use std::os::fd::{AsRawFd, RawFd};

use epoll::{ControlOptions, Event, Events};

/// An epoll instance that a lane waits on as on any descriptor; the same for the channel's life,
/// while connections come and go. The kernel forgets a connection here when it is closed, so no
/// number of one that is gone is ever taken for another's.
#[derive(Debug)]
pub(super) struct Ready(RawFd);

impl Ready {
    /// Readable when `outbox` is.
    pub(super) fn new(outbox: RawFd) -> io::Result<Self> {
        let ready = Ready(epoll::create(true)?);
        ready.control(ControlOptions::EPOLL_CTL_ADD, outbox, libc::POLLIN)?;
        Ok(ready)
    }

    /// Readable from now on when `connection` has one of `events` as well, which are poll's.
    pub(super) fn watch(&self, connection: RawFd, events: i16) -> io::Result<()> {
        self.control(ControlOptions::EPOLL_CTL_ADD, connection, events)
    }

    /// It is to have one of these `events` instead.
    pub(super) fn change(&self, connection: RawFd, events: i16) -> io::Result<()> {
        self.control(ControlOptions::EPOLL_CTL_MOD, connection, events)
    }

    /// Not for `connection` any more.
    pub(super) fn forget(&self, connection: RawFd) {
        // It fails where the connection is gone, and with it what was to be forgotten.
        let _ = self.control(ControlOptions::EPOLL_CTL_DEL, connection, 0);
    }

    fn control(&self, what: ControlOptions, fd: RawFd, events: i16) -> io::Result<()> {
        let one = |poll: i16, event: Events| match events & poll {
            0 => Events::empty(),
            _ => event,
        };
        let events = one(libc::POLLIN, Events::EPOLLIN) | one(libc::POLLOUT, Events::EPOLLOUT);
        epoll::ctl(self.0, what, fd, Event::new(events, 0))
    }
}

impl AsRawFd for Ready {
    fn as_raw_fd(&self) -> RawFd {
        self.0
    }
}

impl Drop for Ready {
    fn drop(&mut self) {
        // Nothing can be done about a failure, and none is known.
        let _ = epoll::close(self.0);
    }
}
