//! What channels, threads and keeper of a path share.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, Weak};
use std::time::Duration;

use super::flight::Flight;
use super::kernel::{Engine, Kernel};
use super::node::Found;
use super::parked::Parked;
use crate::limits::SG_EVENTS_MAX;
use crate::path::outbox::{Outbox, lock};
use crate::path::waker::Waker;
use crate::path::{Failure, TransportEvent};
use crate::scsi::designator::Wwid;

/// The device behind an open node.
pub(super) struct Device<K: Kernel> {
    /// Counts the path's openings.
    pub(super) serial: u64,
    pub(super) handle: K::Handle,
    pub(super) found: Found,
    pub(super) engine: Engine,
    /// What its logical unit calls itself.
    pub(super) wwid: Option<Wwid>,
}

/// What there is to send to.
pub(super) enum Link<K: Kernel> {
    /// Being opened for the first time: commands wait for it.
    Opening,
    /// A device.
    Up(Arc<Device<K>>),
    /// None.
    Down,
    /// The path is closed.
    Over,
}

/// What the lock protects.
pub(super) struct State<K: Kernel> {
    pub(super) link: Link<K>,
    /// The lanes may use the device, and not the manager alone.
    pub(super) open_to_lanes: bool,
    /// The name of the logical unit that the lanes have used: the only one they will ever use.
    pub(super) used: Option<Option<Wwid>>,
    pub(super) queue: VecDeque<Arc<Flight>>,
    /// Attempts that were recalled stay in the queue until it is this long.
    sweep_at: usize,
    pub(super) threads: usize,
    pub(super) idle: usize,
    /// One of them was woken, or is new, and has not looked at the queue yet.
    pub(super) coming: bool,
    /// Wakes the thread of the ring, if it has found the queue empty.
    bell: Option<Arc<Waker>>,
    pub(super) openings: u64,
    outboxes: Vec<Weak<Outbox>>,
}

/// News for the manager. What was proven is never dropped, so it is kept apart from the rest.
#[derive(Debug, Default)]
struct News {
    returned: Option<TransportEvent>,
    proven: Option<TransportEvent>,
    link: VecDeque<TransportEvent>,
}

/// What channels, threads and keeper of a path share.
pub(super) struct Shared<K: Kernel> {
    pub(super) kernel: K,
    pub(super) node: PathBuf,
    pub(super) timeout_ms: u32,
    pub(super) direct: bool,
    pub(super) state: Mutex<State<K>>,
    /// For threads: there is something in the queue, or the path is closed.
    pub(super) work: Condvar,
    /// For the keeper: the device is lost, or the path is closed.
    pub(super) care: Condvar,
    pub(super) parked: Mutex<Parked>,
    news: Mutex<News>,
    pub(super) bytes_max: AtomicU32,
    /// The log has been told that a privilege is missing.
    refused: AtomicBool,
    /// The log has been told that no thread could be started.
    short: AtomicBool,
}

impl<K: Kernel> Shared<K> {
    pub(super) fn new(kernel: K, node: PathBuf, timeout: Duration, direct: bool) -> Self {
        Shared {
            kernel,
            node,
            timeout_ms: u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX),
            direct,
            state: Mutex::new(State {
                link: Link::Opening,
                open_to_lanes: true,
                used: None,
                queue: VecDeque::new(),
                sweep_at: SWEEP,
                threads: 0,
                idle: 0,
                coming: false,
                bell: None,
                openings: 0,
                outboxes: Vec::new(),
            }),
            work: Condvar::new(),
            care: Condvar::new(),
            parked: Mutex::default(),
            news: Mutex::default(),
            bytes_max: AtomicU32::new(0),
            refused: AtomicBool::new(false),
            short: AtomicBool::new(false),
        }
    }

    /// A channel is there.
    pub(super) fn welcome(&self, outbox: &Arc<Outbox>) {
        let mut state = lock(&self.state);
        state.outboxes.retain(|outbox| outbox.strong_count() > 0);
        state.outboxes.push(Arc::downgrade(outbox));
    }

    /// Queues a batch, and wakes one thread for all of it: it sees to it that another comes for
    /// the next. The batch comes back where there is nothing to send to.
    pub(super) fn queue(&self, batch: &mut Vec<Arc<Flight>>, probe: bool) -> Result<(), Failure> {
        let mut state = lock(&self.state);
        match &state.link {
            Link::Up(device) if !probe => {
                if !state.open_to_lanes {
                    return Err(Failure::Disconnected);
                }
                if state.used.is_none() {
                    state.used = Some(device.wwid.clone());
                }
            }
            Link::Up(_) | Link::Opening => {}
            Link::Down | Link::Over => return Err(Failure::Disconnected),
        }
        if state.queue.len() >= state.sweep_at {
            state.queue.retain(|flight| !flight.is(super::flight::Stage::Over));
            state.sweep_at = 2 * state.queue.len() + SWEEP;
        }
        state.queue.extend(batch.drain(..));
        let by_ring = matches!(&state.link, Link::Up(device) if device.engine == Engine::Ring);
        let (wake, bell) = (state.idle > 0 && !state.coming && !by_ring, state.bell.take());
        state.coming |= wake;
        if wake {
            // Before another lane can rely on it.
            self.work.notify_one();
        }
        drop(state);
        if let Some(bell) = bell {
            bell.raise();
        }
        Ok(())
    }

    /// Moves up to `room` attempts to `batch`, and has `bell` raised for those that come when there
    /// is none left. False when the device that was opened as the `serial`th is no longer the path's.
    pub(super) fn take_queued(
        &self,
        serial: u64,
        room: usize,
        bell: &Arc<Waker>,
        batch: &mut Vec<Arc<Flight>>,
    ) -> bool {
        let mut state = lock(&self.state);
        if !matches!(&state.link, Link::Up(device) if device.serial == serial) {
            return false;
        }
        let count = room.min(state.queue.len());
        batch.extend(state.queue.drain(..count));
        state.bell = state.queue.is_empty().then(|| Arc::clone(bell));
        true
    }

    /// The node leads to `device` from now on.
    pub(super) fn install(&self, device: Arc<Device<K>>, bytes_max: u32) {
        let mut state = lock(&self.state);
        if matches!(state.link, Link::Over) {
            return;
        }
        state.open_to_lanes = state.used.as_ref().is_none_or(|used| *used == device.wwid);
        state.link = Link::Up(device);
        drop(state);
        self.bytes_max.store(bytes_max, Ordering::Release);
        self.work.notify_all();
        self.tell(TransportEvent::Up { nexus_since: None });
    }

    /// The device that was opened as the `serial`th is gone, if it is still the one.
    pub(super) fn lose(&self, serial: u64, why: &str) {
        let mut state = lock(&self.state);
        if !matches!(&state.link, Link::Up(device) if device.serial == serial) {
            return;
        }
        state.link = Link::Down;
        let bell = state.bell.take();
        drop(state);
        self.tell(TransportEvent::Down(why.to_owned()));
        self.fail_queued();
        self.care.notify_all();
        if let Some(bell) = bell {
            bell.raise();
        }
        // Threads without work close what they have of it: an sg node that somebody has open keeps
        // its number, and the device that comes back would get another name.
        self.work.notify_all();
    }

    /// There is no device to open.
    pub(super) fn not_opened(&self, why: &str, news: bool) {
        let mut state = lock(&self.state);
        if !matches!(state.link, Link::Over) {
            state.link = Link::Down;
        }
        drop(state);
        // The reason first, then the ends: see the manager's turn.
        if news {
            self.tell(TransportEvent::Down(why.to_owned()));
        }
        self.fail_queued();
    }

    /// The path is closed: nothing is sent any more. What the kernel has stays with its threads.
    pub(super) fn close(&self) {
        let mut state = lock(&self.state);
        state.link = Link::Over;
        let bell = state.bell.take();
        drop(state);
        self.fail_queued();
        if let Some(bell) = bell {
            bell.raise();
        }
        self.work.notify_all();
        self.care.notify_all();
    }

    fn fail_queued(&self) {
        let queue = std::mem::take(&mut lock(&self.state).queue);
        queue.iter().for_each(|flight| flight.end_queued(Failure::Disconnected));
    }

    /// News; any channel may be the manager's, so all are woken.
    pub(super) fn tell(&self, event: TransportEvent) {
        let mut news = lock(&self.news);
        match event {
            TransportEvent::Returned { .. } => news.returned = Some(event),
            TransportEvent::Proven { .. } => news.proven = Some(event),
            _ => {
                if news.link.len() == SG_EVENTS_MAX {
                    news.link.pop_front();
                }
                news.link.push_back(event);
            }
        }
        drop(news);
        let outboxes: Vec<_> =
            lock(&self.state).outboxes.iter().filter_map(Weak::upgrade).collect();
        outboxes.iter().for_each(|outbox| outbox.put(&mut Vec::new()));
    }

    /// The news since the last call. Doubt goes before proof: what came back in doubt is not
    /// covered by what is proven of later attempts.
    pub(super) fn take_news(&self) -> Vec<TransportEvent> {
        let News { returned, proven, link } = std::mem::take(&mut *lock(&self.news));
        link.into_iter().chain(returned).chain(proven).collect()
    }

    /// Says once that a thread could not be started.
    pub(super) fn say_short(&self, error: &std::io::Error) {
        if !self.short.swap(true, Ordering::Relaxed) {
            log::warn!("{}: cannot start a thread: {error}", self.node.display());
        }
    }

    /// Says once that the kernel refuses a command for want of a privilege.
    pub(super) fn say_refused(&self, opcode: u8) {
        if !self.refused.swap(true, Ordering::Relaxed) {
            log::warn!(
                "{}: the kernel refuses operation code {opcode:#04x} on this node; it lets a \
                 process with CAP_SYS_RAWIO send it, and anyone over the device's /dev/sgN",
                self.node.display()
            );
        }
    }
}

/// See [`State::sweep_at`].
const SWEEP: usize = 1024;
