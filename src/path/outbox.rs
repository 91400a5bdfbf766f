//! Where a channel finds the ends that a thread of its path puts there.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::Ended;
use super::waker::Waker;

/// The ends of one channel's attempts.
#[derive(Debug)]
pub(super) struct Outbox {
    ends: Mutex<Vec<Ended>>,
    waker: Waker,
}

impl Outbox {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Outbox { ends: Mutex::default(), waker: Waker::new()? })
    }

    /// Adds ends and wakes the lane, or wakes it only.
    pub(super) fn put(&self, ends: &mut Vec<Ended>) {
        if !ends.is_empty() {
            lock(&self.ends).append(ends);
        }
        self.waker.raise();
    }

    /// Adds one end and wakes the lane.
    pub(super) fn put_one(&self, end: Ended) {
        lock(&self.ends).push(end);
        self.waker.raise();
    }

    /// Moves what is there to `ends`.
    pub(super) fn take(&self, ends: &mut Vec<Ended>) {
        if self.waker.take() {
            ends.append(&mut lock(&self.ends));
        }
    }

    /// Readable when there may be something.
    pub(super) fn fd(&self) -> RawFd {
        self.waker.as_raw_fd()
    }
}

/// None of the paths' threads panics while it holds a lock.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
