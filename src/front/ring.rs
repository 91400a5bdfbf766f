//! A split virtqueue (virtio 1.3, 2.7): heads come out of it, used entries go in.
//!
//! ```text
//!   available ring   --pop-->   head   ...   (head, len)   --push, publish-->   used ring
//! ```
//!
//! Used entries are stored one by one and published together, by one store of the used index; so
//! the driver sees a batch, and is notified once. The indexes that the driver writes are checked
//! as they are read: a driver that breaks its own ring loses it, and nothing else.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering, fence};

use thiserror::Error;
use virtio_bindings::bindings::virtio_ring::{VRING_AVAIL_F_NO_INTERRUPT, VRING_USED_F_NO_NOTIFY};

use super::chain::Descriptor;
use super::dirty::DirtyLog;
use super::inflight::record::RecordError;
use super::memory::{GuestMemory, Lease, Unmapped};
use crate::limits::RING_SIZE_MAX;

/// Bytes of a descriptor.
pub const DESCRIPTOR_LEN: usize = 16;

/// Where a ring is, by the front end's own addresses, and how large.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Entries.
    pub size: u16,
    /// The descriptor table.
    pub descriptors: u64,
    /// The available ring, which the driver writes.
    pub available: u64,
    /// The used ring, which the device writes.
    pub used: u64,
}

/// What a driver did to break its ring, or a front end to set it up wrongly.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum RingError {
    /// The size is not a power of two, or too large.
    #[error("{0} is no size for a virtqueue: a power of two up to {RING_SIZE_MAX}")]
    Size(u32),
    /// A part of the ring is not in guest memory.
    #[error("the ring is not in guest memory: {0}")]
    Unmapped(#[from] Unmapped),
    /// A part of the ring is not aligned as virtio asks.
    #[error("the ring is not aligned: {0:#x}")]
    Alignment(u64),
    /// The available index ran ahead by more than the ring holds.
    #[error("the available index jumped from {from} to {to}")]
    AvailableIndex {
        /// What it was.
        from: u16,
        /// What it is.
        to: u16,
    },
    /// A head that is no descriptor of the table.
    #[error("head {0} is not in the descriptor table")]
    Head(u16),
    /// A head that came again before it was used.
    #[error("head {0} was made available again while its request is in flight")]
    Duplicate(u16),
    /// What a predecessor has left of the ring makes no sense.
    #[error("the in-flight region: {0}")]
    Record(#[from] RecordError),
}

impl Layout {
    /// Checks what can be checked without memory.
    pub fn check_size(size: u32) -> Result<u16, RingError> {
        match u16::try_from(size) {
            Ok(size) if size.is_power_of_two() && size <= RING_SIZE_MAX => Ok(size),
            _ => Err(RingError::Size(size)),
        }
    }

    /// Bytes of the used ring: flags, index, the ring, and the event index whether negotiated or not.
    pub fn used_len(&self) -> u64 {
        6 + 8 * u64::from(self.size)
    }

    /// Finds the three parts in `memory`.
    fn locate(&self, memory: &GuestMemory) -> Result<Parts, RingError> {
        let size = usize::from(self.size);
        let part = |address: u64, len: usize, alignment: usize| {
            let host = memory.user(address, len)?;
            match (host as usize).is_multiple_of(alignment) {
                true => Ok(host),
                false => Err(RingError::Alignment(address)),
            }
        };
        Ok(Parts {
            descriptors: part(self.descriptors, DESCRIPTOR_LEN * size, DESCRIPTOR_LEN)?,
            // Flags, index, the ring, and the event index whether negotiated or not.
            available: part(self.available, 6 + 2 * size, 2)?,
            used: part(self.used, self.used_len() as usize, 4)?,
        })
    }

    /// Checks that all parts are in `memory`.
    pub fn check(&self, memory: &GuestMemory) -> Result<(), RingError> {
        self.locate(memory).map(drop)
    }
}

/// Where writes to the used ring are marked.
#[derive(Clone, Debug)]
pub struct UsedLog {
    /// The log.
    pub log: Arc<DirtyLog>,
    /// The guest-physical address of the used ring, as the front end says.
    pub address: u64,
}

/// Host addresses of a ring's parts.
#[derive(Clone, Copy, Debug)]
struct Parts {
    descriptors: *mut u8,
    available: *mut u8,
    used: *mut u8,
}

/// A running ring. Owned by one worker.
///
/// The host addresses in it are good for as long as the lease beside them is kept; both are
/// replaced together.
#[derive(Debug)]
pub struct Ring {
    layout: Layout,
    memory: Lease,
    parts: Parts,
    event_index: bool,
    next_available: u16,
    available_seen: u16,
    next_used: u16,
    published: u16,
    log: Option<UsedLog>,
}

impl Ring {
    /// Opens the ring, whose next available entry is number `base`. What has been used so far is
    /// read from the ring itself, as vhost-user asks.
    pub fn open(
        layout: Layout,
        memory: Arc<GuestMemory>,
        event_index: bool,
        base: u16,
    ) -> Result<Self, RingError> {
        let parts = layout.locate(&memory)?;
        let mut ring = Ring {
            layout,
            memory: Lease::new(memory),
            parts,
            event_index,
            next_available: base,
            available_seen: base,
            next_used: 0,
            published: 0,
            log: None,
        };
        ring.next_used = ring.load(ring.parts.used, 2, Ordering::Acquire);
        ring.published = ring.next_used;
        Ok(ring)
    }

    /// Goes on in another memory table. When the ring is not in it, the ring stays where it was.
    pub fn rebase(&mut self, memory: &Arc<GuestMemory>) -> Result<(), RingError> {
        self.parts = self.layout.locate(memory)?;
        self.memory = Lease::new(memory.clone());
        Ok(())
    }

    /// Marks writes to the used ring from now on, or no longer. All of it is marked once: what was
    /// written before may be in no log, where another process died before it had marked it.
    pub fn set_log(&mut self, log: Option<UsedLog>) {
        self.log = log;
        self.mark(0, self.layout.used_len() as usize);
    }

    /// The used ring's `len` bytes from `offset` on have been written.
    fn mark(&self, offset: usize, len: usize) {
        if let Some(UsedLog { log, address }) = &self.log {
            log.mark(address.saturating_add(offset as u64), len as u64);
        }
    }

    /// The used entries from `old` to `new` have been written, and the index.
    fn mark_entries(&self, old: u16, new: u16) {
        let (size, mask) = (usize::from(self.layout.size), self.layout.size - 1);
        let (first, count) = (usize::from(old & mask), usize::from(new.wrapping_sub(old)));
        let before_the_end = count.min(size - first);
        self.mark(0, 4);
        self.mark(4 + 8 * first, 8 * before_the_end);
        self.mark(4, 8 * (count - before_the_end));
    }

    /// Entries.
    pub fn size(&self) -> u16 {
        self.layout.size
    }

    /// Goes on with another entry of the available ring than it was opened with.
    pub fn resume_at(&mut self, base: u16) {
        (self.next_available, self.available_seen) = (base, base);
    }

    /// The used index, as the driver sees it.
    pub fn used(&self) -> u16 {
        self.published
    }

    /// The memory that the ring and its requests are in.
    pub fn memory(&self) -> &Lease {
        &self.memory
    }

    /// The number of the next entry to be taken: what GET_VRING_BASE answers.
    pub fn base(&self) -> u16 {
        self.next_available
    }

    /// Takes the next head.
    pub fn pop(&mut self) -> Result<Option<u16>, RingError> {
        if self.next_available == self.available_seen && !self.look()? {
            return Ok(None);
        }
        let slot = usize::from(self.next_available & (self.layout.size - 1));
        let head = self.load(self.parts.available, 4 + 2 * slot, Ordering::Relaxed);
        if head >= self.layout.size {
            return Err(RingError::Head(head));
        }
        self.next_available = self.next_available.wrapping_add(1);
        Ok(Some(head))
    }

    /// True when entries wait, or something is wrong with the index: [`Ring::pop`] finds out.
    pub fn has_new(&self) -> bool {
        self.load(self.parts.available, 2, Ordering::Relaxed) != self.next_available
    }

    /// Reads the available index; true when entries wait.
    fn look(&mut self) -> Result<bool, RingError> {
        // Acquire: what the driver stored before the index is seen after it.
        let index = self.load(self.parts.available, 2, Ordering::Acquire);
        if index.wrapping_sub(self.next_available) > self.layout.size {
            return Err(RingError::AvailableIndex { from: self.next_available, to: index });
        }
        self.available_seen = index;
        Ok(index != self.next_available)
    }

    /// Descriptor `index` of the table, read once.
    pub fn descriptor(&self, index: u16) -> Descriptor {
        debug_assert!(index < self.layout.size);
        let at = self.parts.descriptors.wrapping_add(usize::from(index) * DESCRIPTOR_LEN);
        // SAFETY: the table was found in the memory that the lease keeps, the index is in it, and
        // the address is a multiple of 16.
        let words = unsafe { at.cast::<[u64; 2]>().read_volatile() };
        Descriptor::new(u64::from_le(words[0]), u64::from_le(words[1]))
    }

    /// Stores a used entry, not visible yet.
    pub fn push(&mut self, head: u16, len: u32) {
        let slot = usize::from(self.next_used & (self.layout.size - 1));
        let at = self.parts.used.wrapping_add(4 + 8 * slot);
        for (at, value) in [(at, u32::from(head)), (at.wrapping_add(4), len)] {
            // SAFETY: inside the used ring, which was found in the memory that the lease keeps,
            // and a multiple of 4.
            unsafe { AtomicU32::from_ptr(at.cast()) }.store(value.to_le(), Ordering::Relaxed);
        }
        self.next_used = self.next_used.wrapping_add(1);
    }

    /// Makes all stored entries visible; true when the driver wants to be notified of them.
    pub fn publish(&mut self) -> bool {
        let (old, new) = (self.published, self.next_used);
        if old == new {
            return false;
        }
        self.store(self.parts.used, 2, new, Ordering::Release);
        self.published = new;
        if self.log.is_some() {
            self.mark_entries(old, new);
        }
        // The index must be visible before the driver's wish is read (virtio 1.3, 2.7.7.2).
        fence(Ordering::SeqCst);
        if self.event_index {
            let at = 4 + 2 * usize::from(self.layout.size);
            let event = self.load(self.parts.available, at, Ordering::Relaxed);
            return need_event(event, new, old);
        }
        let flags = self.load(self.parts.available, 0, Ordering::Relaxed);
        u32::from(flags) & VRING_AVAIL_F_NO_INTERRUPT == 0
    }

    /// Asks the driver to kick at its next request, before going to sleep. True when requests
    /// came meanwhile: there may be no kick for them.
    pub fn arm(&mut self) -> Result<bool, RingError> {
        if self.event_index {
            let at = 4 + 8 * usize::from(self.layout.size);
            self.store(self.parts.used, at, self.next_available, Ordering::Relaxed);
            self.mark(at, 2);
        } else {
            self.store(self.parts.used, 0, 0, Ordering::Relaxed);
            self.mark(0, 2);
        }
        // The wish must be visible before the index is read for the last time.
        fence(Ordering::SeqCst);
        self.look()
    }

    /// Tells the driver that it need not kick: the ring is being looked at. With the event index
    /// nothing needs to be said, the old wish has passed.
    pub fn disarm(&mut self) {
        if !self.event_index {
            self.store(self.parts.used, 0, VRING_USED_F_NO_NOTIFY as u16, Ordering::Relaxed);
            self.mark(0, 2);
        }
    }

    fn load(&self, part: *mut u8, offset: usize, order: Ordering) -> u16 {
        // SAFETY: callers stay inside the part, which was found in the memory that the lease
        // keeps; parts are even and so are all offsets.
        let word = unsafe { AtomicU16::from_ptr(part.wrapping_add(offset).cast()) };
        u16::from_le(word.load(order))
    }

    fn store(&self, part: *mut u8, offset: usize, value: u16, order: Ordering) {
        // SAFETY: as in `load`.
        let word = unsafe { AtomicU16::from_ptr(part.wrapping_add(offset).cast()) };
        word.store(value.to_le(), order);
    }
}

/// Did the index pass `event` on its way from `old` to `new` (virtio 1.3, 2.7.10)?
fn need_event(event: u16, new: u16, old: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}
