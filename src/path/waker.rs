//! Wakes a channel whose lane sleeps, from another thread.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

/// An event descriptor and the word that it has been written, so that a turn of the lane's loop
/// without news costs a load and no system call.
#[derive(Debug)]
pub(crate) struct Waker {
    event: EventFd,
    raised: AtomicBool,
}

impl Waker {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Waker {
            event: EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?,
            raised: AtomicBool::new(false),
        })
    }

    /// To be called after the news has been put where the channel looks.
    pub(crate) fn raise(&self) {
        // The word first: who is woken by the descriptor finds it. Where it stands already, the
        // channel has not looked yet, and will be woken or is awake.
        if !self.raised.swap(true, Ordering::AcqRel) {
            // Fails only when the counter is full, and then the descriptor is readable anyway.
            let _ = self.event.write(1);
        }
    }

    /// True when there may be news; to be called before looking for it.
    pub(crate) fn take(&self) -> bool {
        if !self.raised.load(Ordering::Acquire) {
            return false;
        }
        // The word goes only together with what was written. Between the two in `raise` there is
        // nothing to read yet: the word stays, and with it the wake-up that is still to come.
        if self.event.read().is_ok() {
            self.raised.swap(false, Ordering::AcqRel);
        }
        true
    }
}

impl AsRawFd for Waker {
    fn as_raw_fd(&self) -> RawFd {
        self.event.as_raw_fd()
    }
}
