//! One ring's part of the in-flight region.
//!
//! It is written by the ring's worker alone, with plain stores: no lock, no allocation, no system
//! call. The order of the stores is what counts, since the process may be killed between any two
//! of them; what it had stored by then its successor finds.
//!
//! ```text
//!   a request is taken     counter, then inflight = 1
//!   it is answered         next = last_batch_head, then last_batch_head = it        (again and again)
//!   a batch is published   the ring's used index; then inflight = 0 for each of the batch; then used_idx
//! ```
//!
//! Every head that is taken is marked, also one that is answered in the same moment: the successor
//! finds its place in the available ring by counting them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU64, Ordering};

use thiserror::Error;
use vm_memory::mmap::MmapRegion;
use vm_memory::{AtomicInteger, VolatileMemory};

use super::{HEADER_LEN, STATE_LEN};

/// The layout's version.
const VERSION: u16 = 1;

/// Offsets of the fields of a ring's part...
mod header {
    pub const VERSION: usize = 8;
    pub const DESC_NUM: usize = 10;
    pub const LAST_BATCH_HEAD: usize = 12;
    pub const USED_IDX: usize = 14;
}

/// ...and of a descriptor's state.
mod state {
    pub const INFLIGHT: usize = 0;
    pub const NEXT: usize = 6;
    pub const COUNTER: usize = 8;
}

/// What a ring's part says that cannot be.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum RecordError {
    /// A layout that we do not know.
    #[error("its version is {0}, not {VERSION}")]
    Version(u16),
    /// It was made for another ring.
    #[error("it was written for {has} entries, the region has {wants}")]
    Entries {
        /// What it says.
        has: u16,
        /// What the front end says.
        wants: u16,
    },
    /// More was used since it was written than the ring holds.
    #[error("the ring's used index is {used}, it knows of {known}")]
    Used {
        /// The ring's used index.
        used: u16,
        /// The one written down.
        known: u16,
    },
    /// A head that is no descriptor of the ring.
    #[error("it names descriptor {0}")]
    Head(u16),
    /// Neither 0 nor 1.
    #[error("it says {state} of descriptor {head}, where 0 or 1 is expected")]
    State {
        /// Which descriptor.
        head: u16,
        /// What stands there.
        state: u8,
    },
}

/// What a predecessor has left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Left {
    /// The number of the next entry of the available ring.
    pub base: u16,
    /// The heads that were taken and not answered, in the order in which they had been taken.
    pub heads: Vec<u16>,
}

/// One ring's part. Owned by the ring's worker.
#[derive(Debug)]
pub struct Record {
    region: Arc<MmapRegion>,
    /// Where in the region it begins.
    at: usize,
    /// Descriptors' states in it.
    entries: u16,
    /// Of the next request.
    counter: u64,
    /// The ring's used index up to which requests are not in flight.
    used: u16,
}

impl Record {
    /// The part at `at` in `region`, which the caller has checked to have room for `entries`.
    pub(super) fn new(region: Arc<MmapRegion>, at: usize, entries: u16) -> Self {
        Record { region, at, entries, counter: 0, used: 0 }
    }

    /// Reads what is left of the last process on a ring of `size` entries, whose used index is
    /// `used`, and goes on from there. A part that was never written is begun, and then the ring's
    /// next entry is number `base`.
    pub fn recover(&mut self, size: u16, used: u16, base: u16) -> Result<Left, RecordError> {
        match self.header(header::VERSION) {
            0 => {
                self.begin(used);
                return Ok(Left { base, heads: Vec::new() });
            }
            VERSION => {}
            other => return Err(RecordError::Version(other)),
        }
        let has = self.header(header::DESC_NUM);
        if has != self.entries {
            return Err(RecordError::Entries { has, wants: self.entries });
        }
        self.end_last_batch(size, used)?;
        let mut heads: Vec<(u64, u16)> = Vec::new();
        for head in 0..self.entries {
            match self.load::<AtomicU8>(self.state(head) + state::INFLIGHT) {
                0 => {}
                1 if head < size => {
                    heads.push((self.order(head), head));
                }
                1 => return Err(RecordError::Head(head)),
                state => return Err(RecordError::State { head, state }),
            }
        }
        heads.sort_unstable();
        self.counter = heads.last().map_or(0, |(counter, _)| counter.wrapping_add(1));
        let base = used.wrapping_add(heads.len() as u16);
        Ok(Left { base, heads: heads.into_iter().map(|(_, head)| head).collect() })
    }

    /// Nothing was ever written here.
    fn begin(&mut self, used: u16) {
        (0..self.entries).for_each(|head| self.set_inflight(head, false));
        self.used = used;
        self.set_header(header::DESC_NUM, self.entries);
        self.set_header(header::LAST_BATCH_HEAD, 0);
        self.set_header(header::USED_IDX, used);
        self.set_header(header::VERSION, VERSION);
    }

    /// The last process may have died after it had published a batch, and before it had written
    /// that down.
    fn end_last_batch(&mut self, size: u16, used: u16) -> Result<(), RecordError> {
        let known = self.header(header::USED_IDX);
        let batch = used.wrapping_sub(known);
        if batch > size {
            return Err(RecordError::Used { used, known });
        }
        self.clear(batch)?;
        self.used = used;
        self.set_header(header::USED_IDX, used);
        Ok(())
    }

    /// The last `count` requests that were answered are not in flight.
    fn clear(&self, count: u16) -> Result<(), RecordError> {
        let mut head = self.header(header::LAST_BATCH_HEAD);
        for _ in 0..count {
            if head >= self.entries {
                return Err(RecordError::Head(head));
            }
            self.set_inflight(head, false);
            head = self.load::<AtomicU16>(self.state(head) + state::NEXT);
        }
        Ok(())
    }

    /// Rises from one request that was taken to the next.
    pub fn order(&self, head: u16) -> u64 {
        self.load::<AtomicU64>(self.state(head) + state::COUNTER)
    }

    /// A request was taken.
    pub fn taken(&mut self, head: u16) {
        debug_assert!(head < self.entries);
        self.store::<AtomicU64>(self.state(head) + state::COUNTER, self.counter);
        self.counter = self.counter.wrapping_add(1);
        self.set_inflight(head, true);
    }

    /// Its answer is stored, and not visible yet.
    pub fn answered(&mut self, head: u16) {
        let last = self.header(header::LAST_BATCH_HEAD);
        self.store::<AtomicU16>(self.state(head) + state::NEXT, last);
        self.set_header(header::LAST_BATCH_HEAD, head);
    }

    /// All that was answered is visible by the ring's used index, which is `used` now.
    pub fn published(&mut self, used: u16) {
        let batch = used.wrapping_sub(self.used);
        if batch == 0 {
            return;
        }
        // The list is our own. A front end that writes over it harms the guest after a restart only.
        let _ = self.clear(batch);
        self.used = used;
        self.set_header(header::USED_IDX, used);
    }

    fn header(&self, field: usize) -> u16 {
        self.load::<AtomicU16>(self.at + field)
    }

    fn set_header(&self, field: usize, value: u16) {
        self.store::<AtomicU16>(self.at + field, value);
    }

    fn set_inflight(&self, head: u16, inflight: bool) {
        self.store::<AtomicU8>(self.state(head) + state::INFLIGHT, inflight.into());
    }

    fn state(&self, head: u16) -> usize {
        self.at + HEADER_LEN + STATE_LEN * usize::from(head)
    }

    fn load<A: AtomicInteger>(&self, at: usize) -> A::V
    where
        A::V: Default,
    {
        let cell = self.region.get_atomic_ref::<A>(at);
        debug_assert!(cell.is_ok(), "{at} is in the region, and aligned");
        cell.map(|cell| cell.load(Ordering::Acquire)).unwrap_or_default()
    }

    /// Not before what was stored earlier: that order is what a successor relies on.
    fn store<A: AtomicInteger>(&self, at: usize, value: A::V) {
        let cell = self.region.get_atomic_ref::<A>(at);
        debug_assert!(cell.is_ok(), "{at} is in the region, and aligned");
        if let Ok(cell) = cell {
            cell.store(value, Ordering::Release);
        }
    }
}
