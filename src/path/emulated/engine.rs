//! Which way a channel's transfers go: chosen once, when the channel is made.

use std::io;
use std::os::fd::{AsRawFd, RawFd};

use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

use super::ring_sys::Ring;
use super::store::Store;
use crate::path::address::Cache;
use crate::path::waker::Waker;

/// A channel's engine.
pub(super) enum Engine {
    /// In the lane itself: the store is memory.
    Inline,
    /// In the kernel.
    Ring(Box<RingEngine>),
    /// In the helper: the store may wait, and there is no io_uring.
    Helper,
}

/// A ring, and the one descriptor for it and the waker together.
pub(super) struct RingEngine {
    pub(super) ring: Ring,
    ready: Epoll,
}

impl Engine {
    /// The best one for `store`.
    pub(super) fn choose(store: &Store, waker: &Waker) -> io::Result<Self> {
        let (Some(file), false) = (store.raw_fd(), store.is_memory()) else {
            return Ok(Engine::Inline);
        };
        match Ring::new(file, store.cache() == Cache::None) {
            Ok(ring) => Ok(Engine::Ring(Box::new(RingEngine::new(ring, waker)?))),
            Err(error) => {
                log::info!("no io_uring ({error}): the image is read and written by a thread");
                Ok(Engine::Helper)
            }
        }
    }

    /// The name in `query-paths`: what [`Engine::choose`] chooses. Asks the host, so ask once.
    pub(super) fn name(store: &Store) -> &'static str {
        let (Some(file), false) = (store.raw_fd(), store.is_memory()) else {
            return if store.is_mapped() { "mapped" } else { "preadv2" };
        };
        let cache = store.cache();
        match (Ring::new(file, cache == Cache::None), cache) {
            (Ok(_), Cache::Writeback) => "io_uring",
            (Ok(_), Cache::None) => "io_uring, O_DIRECT",
            (Err(_), Cache::Writeback) => "preadv2-thread",
            (Err(_), Cache::None) => "preadv2-thread, O_DIRECT",
        }
    }
}

impl RingEngine {
    fn new(ring: Ring, waker: &Waker) -> io::Result<Self> {
        // A ring is readable as long as it has completions, so nothing has to be read to make it
        // quiet again; an event descriptor registered with it would have to be.
        let ready = Epoll::new()?;
        for fd in [ring.fd(), waker.as_raw_fd()] {
            ready.ctl(ControlOperation::Add, fd, EpollEvent::new(EventSet::IN, fd as u64))?;
        }
        Ok(RingEngine { ring, ready })
    }

    /// Readable when the ring or the waker is.
    pub(super) fn ready_fd(&self) -> RawFd {
        self.ready.as_raw_fd()
    }
}
