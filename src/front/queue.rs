//! A running virtqueue: the ring, the descriptors that belong to it, and what is in flight.
//!
//! A request in flight has the slot of its head. The slot remembers where the response goes and
//! keeps the memory that the request was taken from, so that an answer needs the head alone, even
//! after the memory table has changed.

use std::cmp::Reverse;
use std::fs::File;
use std::sync::Arc;

use super::chain::{Chain, ChainError};
use super::dirty::DirtyLog;
use super::features::Features;
use super::inflight::record::Record;
use super::memory::{GuestMemory, Lease};
use super::poller::signal;
use super::ring::{Layout, Ring, RingError, UsedLog};
use crate::buffer::Segments;
use crate::engine::Leftovers;
use crate::ids::RingIndex;

/// Everything that a worker needs to run a ring.
#[derive(Debug)]
pub struct RingStart {
    /// Which one.
    pub index: RingIndex,
    /// Where it is.
    pub layout: Layout,
    /// The number of the next available entry.
    pub base: u16,
    /// What the driver and the front end accepted.
    pub features: Features,
    /// The memory table.
    pub memory: Arc<GuestMemory>,
    /// Where what is written to guest memory is marked, while the front end wants that.
    pub log: Option<Arc<DirtyLog>>,
    /// The guest-physical address at which writes to the used ring are marked, if they are.
    pub used_address: Option<u64>,
    /// Where requests in flight are written down, if the front end keeps such a place.
    pub record: Option<Record>,
    /// May requests be taken yet?
    pub enabled: bool,
    /// Becomes readable when the driver has added requests.
    pub kick: File,
    /// Takes notifications for the driver; without it the driver polls.
    pub call: Option<Arc<File>>,
    /// Takes the news that the ring is broken.
    pub err: Option<Arc<File>>,
}

/// A head that was taken.
#[derive(Clone, Copy, Debug)]
pub struct Taken {
    /// The head.
    pub head: u16,
    /// It was taken before, and may have been sent.
    pub again: bool,
    /// What became of walking its chain.
    pub walked: Result<(), ChainError>,
}

/// One request in flight, or the room for one.
#[derive(Debug, Default)]
struct Slot {
    /// Held while in flight.
    memory: Option<Lease>,
    response: Segments,
}

/// A running virtqueue.
#[derive(Debug)]
pub struct Queue {
    index: RingIndex,
    ring: Ring,
    features: Features,
    slots: Vec<Slot>,
    in_flight: u16,
    log: Option<Arc<DirtyLog>>,
    used_address: Option<u64>,
    record: Option<Record>,
    /// What a predecessor has left, or the lane has given back; the next one last.
    again: Vec<u16>,
    enabled: bool,
    stopping: bool,
    /// The driver goes on elsewhere, where nothing is known of the record.
    moving: bool,
    broken: bool,
    kick: File,
    call: Option<Arc<File>>,
    err: Option<Arc<File>>,
}

impl Queue {
    /// Opens the ring. In the middle of one the driver is notified: who served it before may have
    /// ended between its last used entry and the notification. What it has left unanswered comes
    /// first, and the front end's idea of the next entry counts for nothing then: it knows only of
    /// the answers.
    pub fn open(mut start: RingStart) -> Result<Self, RingError> {
        let event_index = start.features.event_index();
        let mut ring = Ring::open(start.layout, start.memory, event_index, start.base)?;
        let mut again = Vec::new();
        if let Some(record) = &mut start.record {
            let left = record.recover(ring.size(), ring.used(), start.base)?;
            ring.resume_at(left.base);
            again = left.heads.into_iter().rev().collect();
        }
        // A guest that was paused on another host, with requests given back there, and moved then.
        let again_is_unknown = again.is_empty() && ring.base() != ring.used();
        let slots = (0..ring.size()).map(|_| Slot::default()).collect();
        let mut queue = Queue {
            index: start.index,
            ring,
            features: start.features,
            slots,
            in_flight: 0,
            log: None,
            used_address: start.used_address,
            record: start.record,
            again,
            enabled: start.enabled,
            stopping: false,
            moving: false,
            broken: false,
            kick: start.kick,
            call: start.call,
            err: start.err,
        };
        queue.set_log(start.log);
        if again_is_unknown {
            let (ring, taken) = (start.index.0, queue.ring.base().wrapping_sub(queue.ring.used()));
            log::warn!(
                ring;
                "ring {ring}: {taken} requests were taken before and not answered, and nothing tells \
                 which: they are lost"
            );
        }
        if queue.ring.base() != 0 {
            queue.notify();
        }
        Ok(queue)
    }

    /// The ring's number.
    pub fn index(&self) -> RingIndex {
        self.index
    }

    /// Entries of the ring.
    pub fn size(&self) -> u16 {
        self.ring.size()
    }

    /// What was negotiated when the ring started.
    pub fn features(&self) -> Features {
        self.features
    }

    /// What the worker waits on.
    pub fn kick(&self) -> &File {
        &self.kick
    }

    /// Replaces the descriptor that the driver kicks.
    pub fn set_kick(&mut self, kick: File) {
        self.kick = kick;
    }

    /// Replaces the descriptor that takes notifications, and notifies the driver by the new one:
    /// what the old one was told a moment ago, the front end may have stopped listening to. A
    /// notification too many costs the driver a look at the ring, one too few hangs it.
    pub fn set_call(&mut self, call: Option<Arc<File>>) {
        self.call = call;
        self.notify();
    }

    /// Replaces the descriptor that takes errors.
    pub fn set_err(&mut self, err: Option<Arc<File>>) {
        self.err = err;
    }

    /// Marks in `log` what is written to guest memory from now on, or nowhere.
    pub fn set_log(&mut self, log: Option<Arc<DirtyLog>>) {
        self.log = log;
        self.log_used_ring();
    }

    /// Marks writes to the used ring as being at this guest-physical address, or not at all.
    pub fn set_used_address(&mut self, address: Option<u64>) {
        self.used_address = address;
        self.log_used_ring();
    }

    fn log_used_ring(&mut self) {
        let log = self.log.clone().zip(self.used_address);
        self.ring.set_log(log.map(|(log, address)| UsedLog { log, address }));
    }

    /// What the device may write of `chain`, which was just taken, has been written.
    pub fn mark(&self, chain: &Chain) {
        if let Some(log) = &self.log {
            self.ring.memory().mark(&chain.writable, log);
        }
    }

    /// Lets requests be taken, or not. Those in flight go on.
    pub fn set_enabled(&mut self, enabled: bool) {
        self.enabled = enabled;
    }

    /// No request is taken any more.
    pub fn stop(&mut self) {
        self.stopping = true;
    }

    /// The same, and the driver goes on elsewhere: what is left of before is taken still.
    pub fn stop_to_move(&mut self) {
        self.stopping = true;
        self.moving = true;
    }

    /// The number of the next entry, once the ring has stopped and nothing of it is in flight.
    pub fn stopped(&self) -> Option<u16> {
        let ended = self.in_flight == 0 && !(self.moving && self.is_left());
        (self.stopping && ended).then(|| self.ring.base())
    }

    /// True while there is something that was taken before, and neither answered nor taken again.
    pub fn is_left(&self) -> bool {
        !self.again.is_empty() && !self.broken
    }

    /// True while requests of this ring are in flight.
    pub fn is_busy(&self) -> bool {
        self.in_flight > 0
    }

    /// Goes on in another memory table, and notifies the driver in case that it missed something
    /// meanwhile.
    pub fn set_memory(&mut self, memory: &Arc<GuestMemory>) {
        if let Err(error) = self.ring.rebase(memory) {
            self.break_off::<()>(error);
        }
        self.notify();
    }

    /// Takes the next head and walks its chain into `chain`.
    pub fn take(&mut self, chain: &mut Chain) -> Option<Taken> {
        let takes_new = self.enabled && !self.stopping;
        if self.broken || !(takes_new || self.moving) {
            return None;
        }
        let (head, again) = match self.again.pop() {
            Some(head) => (head, true),
            None if !takes_new => return None,
            None => match self.ring.pop() {
                Ok(head) => (head?, false),
                Err(error) => return self.break_off(error),
            },
        };
        if self.slots[usize::from(head)].memory.is_some() {
            return self.break_off(RingError::Duplicate(head));
        }
        if let Some(record) = self.record.as_mut().filter(|_| !again) {
            record.taken(head);
        }
        let walked = chain.walk(&self.ring, self.features.indirect(), head);
        Some(Taken { head, again, walked })
    }

    /// The driver has broken the ring: nothing is taken from it any more, what is in flight is
    /// still answered.
    fn break_off<T>(&mut self, error: RingError) -> Option<T> {
        if !self.broken {
            let ring = self.index.0;
            log::error!(ring; "ring {ring}: {error}; the ring is not served any more");
            self.broken = true;
            if let Some(err) = &self.err {
                signal(err);
            }
        }
        None
    }

    /// Logs what is wrong with a request.
    pub fn complain(&self, head: u16, error: &dyn std::fmt::Display) {
        let ring = self.index.0;
        log::warn!(ring; "ring {ring}, request {head}: {error}");
    }

    /// The request of `head` is in flight from now on; its response goes to the first bytes of
    /// the chain's writable part, `response` of them at most.
    pub fn hold(&mut self, head: u16, chain: &Chain, response: usize) {
        let slot = &mut self.slots[usize::from(head)];
        debug_assert!(slot.memory.is_none(), "a head is taken once");
        slot.response.assign_range(&chain.writable, 0, response);
        slot.memory = Some(self.ring.memory().clone());
        self.in_flight += 1;
    }

    /// Stores the response of a request in flight and marks it used, with `stored` bytes besides
    /// the response in `data`, of which any part may have been written. Not visible to the driver
    /// before [`Queue::publish`].
    pub fn answer(&mut self, head: u16, response: &[u8], stored: u32, data: &Segments) {
        let Some(slot) = self.slots.get_mut(usize::from(head)) else { return };
        let Some(memory) = slot.memory.take() else {
            debug_assert!(false, "ring {}: {head} is not in flight", self.index.0);
            return;
        };
        let written = slot.response.write_at(0, response);
        if let Some(log) = &self.log {
            memory.mark(&slot.response, log);
            memory.mark(data, log);
        }
        slot.response.clear();
        self.in_flight -= 1;
        self.finish(head, (written as u32).saturating_add(stored));
    }

    /// True when the driver goes on elsewhere.
    pub fn is_moving(&self) -> bool {
        self.moving
    }

    /// What becomes of requests that have not ended. They can be given back where it is written down
    /// that they are in flight, for somebody who will read it.
    pub fn leftovers(&self) -> Leftovers {
        match &self.record {
            Some(_) => Leftovers::GiveBack,
            None => Leftovers::Fail,
        }
    }

    /// Lets go of a request in flight; it is taken again with the next ones. Any part of `data` may
    /// have been written.
    pub fn give_back(&mut self, head: u16, data: &Segments) {
        let Some((slot, record)) = self.slots.get_mut(usize::from(head)).zip(self.record.as_ref())
        else {
            return;
        };
        debug_assert!(slot.memory.is_some(), "ring {}: {head} is not in flight", self.index.0);
        if let Some(memory) = slot.memory.take() {
            if let Some(log) = &self.log {
                memory.mark(data, log);
            }
            slot.response.clear();
            self.in_flight -= 1;
            self.again.push(head);
            self.again.sort_unstable_by_key(|head| Reverse(record.order(*head)));
        }
    }

    /// Marks a request used that is not held any more, or never was, with `len` bytes written.
    pub fn finish(&mut self, head: u16, len: u32) {
        if let Some(record) = &mut self.record {
            record.answered(head);
        }
        self.ring.push(head, len);
    }

    /// Makes used entries visible and notifies the driver if it wants that.
    pub fn publish(&mut self) {
        let wanted = self.ring.publish();
        if let Some(record) = &mut self.record {
            record.published(self.ring.used());
        }
        if wanted {
            self.notify();
        }
    }

    fn notify(&self) {
        if let Some(call) = &self.call {
            signal(call);
        }
    }

    /// True when there is something to take.
    pub fn has_new(&self) -> bool {
        let takes = self.enabled && !self.stopping && !self.broken;
        takes && (self.ring.has_new() || !self.again.is_empty())
    }

    /// Asks for a kick; true when there is something to take already.
    pub fn arm(&mut self) -> bool {
        if self.broken || self.stopping || !self.enabled {
            return false;
        }
        match self.ring.arm() {
            Ok(more) => more || !self.again.is_empty(),
            Err(error) => self.break_off(error).unwrap_or(false),
        }
    }

    /// Needs no kicks while awake.
    pub fn disarm(&mut self) {
        if !self.broken && !self.stopping {
            self.ring.disarm();
        }
    }
}
