//! A virtqueue with its requests on raw memory (virtio 1.3, 2.7). All `unsafe` code of the load
//! generator is here.
//!
//! ```text
//!   for each slot:  table of 3 descriptors | header | response      and apart: data
//! ```
//!
//! A slot is the ring's descriptor of the same number, which is indirect where the device takes
//! that. Else a slot has three descriptors of the ring.

use std::os::fd::AsRawFd;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering, fence};
use std::time::Duration;

use vmm_sys_util::eventfd::EventFd;

use crate::driver::{Device, feature};
use crate::memory::GuestMemory;
use crate::queue::LUN0;
use crate::ring::{Descriptor, INDIRECT, NEXT, WRITE};
use crate::sys::readable;
use crate::work::Ask;

const HEADER: usize = 51;
const RESPONSE: usize = 108;
/// Where things are in a slot.
const TABLE_AT: usize = 0;
const HEADER_AT: usize = 64;
const RESPONSE_AT: usize = 128;
const SLOT: usize = 256;

/// Guest memory that the requests of one queue take.
pub fn bytes(depth: u16, size: usize) -> usize {
    let (slots, data) = parts(depth, size);
    slots + data
}

fn parts(depth: u16, size: usize) -> (usize, usize) {
    let depth = usize::from(depth);
    ((depth * SLOT).next_multiple_of(4096), (depth * size).next_multiple_of(4096))
}

/// What passed between driver and device.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Times that the device was notified.
    pub kicks: u64,
    /// Times that the driver was.
    pub notifications: u64,
}

impl Tally {
    /// Both together.
    pub fn add(&mut self, other: &Tally) {
        self.kicks += other.kicks;
        self.notifications += other.notifications;
    }
}

/// One queue.
pub struct FastRing {
    /// Keeps the memory that everything below points into.
    _memory: Arc<GuestMemory>,
    size: u16,
    descriptors: *mut u8,
    available: *mut u8,
    used: *mut u8,
    slots: *mut u8,
    slots_gpa: u64,
    data_gpa: u64,
    data_len: usize,
    event_index: bool,
    indirect: bool,
    kick: EventFd,
    call: EventFd,
    next_available: u16,
    published: u16,
    last_used: u16,
    pub tally: Tally,
}

// SAFETY: the pointers lead into the shared mapping that `_memory` keeps; one thread has the queue,
// and other queues have memory of their own.
unsafe impl Send for FastRing {}

impl FastRing {
    /// Request queue `at` of a device, on which nothing is under way.
    pub fn new(device: &Device, at: usize, depth: u16, size: usize) -> Self {
        let (ring, memory) = (&device.queues[at].ring, &device.memory);
        assert_eq!(ring.outstanding(), 0);
        let (slots, data) = parts(depth, size);
        let (slots_gpa, data_gpa) = (memory.allocate(slots), memory.allocate(data));
        memory.write(slots_gpa, &vec![0; slots]);
        // Touched now, not while it is measured.
        memory.write(data_gpa, &vec![0x5A; data]);
        let has = |bit| device.config.features & bit != 0;
        let host = |gpa| memory.user_address(gpa) as *mut u8;
        let clone = |event: &EventFd| event.try_clone().expect("a descriptor can be cloned");
        let indirect = has(feature::INDIRECT);
        let most = if indirect { ring.size } else { ring.size / 3 };
        assert!(depth <= most, "without indirect descriptors the depth is at most {most}");
        let mut fast = FastRing {
            _memory: memory.clone(),
            size: ring.size,
            descriptors: host(ring.descriptors),
            available: host(ring.available),
            used: host(ring.used),
            slots: host(slots_gpa),
            slots_gpa,
            data_gpa,
            data_len: size,
            event_index: has(feature::EVENT_IDX),
            indirect,
            kick: clone(&ring.kick),
            call: clone(&ring.call),
            next_available: ring.position(),
            published: ring.position(),
            last_used: ring.used_index(),
            tally: Tally::default(),
        };
        (0..depth).for_each(|slot| fast.begin(slot));
        fast
    }

    /// Where byte `at` of a slot is, for us.
    fn slot(&self, slot: u16, at: usize) -> *mut u8 {
        self.slots.wrapping_add(usize::from(slot) * SLOT + at)
    }

    /// What never changes in a slot.
    fn begin(&mut self, slot: u16) {
        let mut header = [0; HEADER];
        header[..8].copy_from_slice(&LUN0);
        // SAFETY: the header lies in the slot, which is in the mapping and still only ours.
        unsafe { ptr::copy_nonoverlapping(header.as_ptr(), self.slot(slot, HEADER_AT), HEADER) };
        if self.indirect {
            let addr = self.slots_gpa + (usize::from(slot) * SLOT + TABLE_AT) as u64;
            let table = Descriptor { addr, len: 48, flags: INDIRECT, next: 0 };
            // SAFETY: a descriptor of the ring, of which there are at least as many as slots.
            unsafe { self.store(self.descriptors.wrapping_add(16 * usize::from(slot)), table) };
        }
    }

    /// # Safety
    /// `at` must have room for 16 bytes in the mapping.
    unsafe fn store(&self, at: *mut u8, descriptor: Descriptor) {
        let bytes = descriptor.bytes();
        // SAFETY: as the caller promises.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), at, bytes.len()) };
    }

    /// Fills a slot and puts it on the ring, not visible yet.
    pub fn prepare(&mut self, slot: u16, ask: &Ask) {
        let place = self.slots_gpa + (usize::from(slot) * SLOT) as u64;
        let data = self.data_gpa + (usize::from(slot) * self.data_len) as u64;
        let write = |is: bool| if is { WRITE } else { 0 };
        let header = (place + HEADER_AT as u64, HEADER, false);
        let response = (place + RESPONSE_AT as u64, RESPONSE, true);
        let data = (data, self.data_len, !ask.writes);
        let order = if ask.writes { [header, data, response] } else { [header, response, data] };
        let base = if self.indirect { 0 } else { 3 * slot };
        let table = match self.indirect {
            true => self.slot(slot, TABLE_AT),
            false => self.descriptors.wrapping_add(16 * usize::from(base)),
        };
        for (at, (addr, len, writes)) in (0u16..).zip(order) {
            let follows = if at < 2 { NEXT } else { 0 };
            let flags = write(writes) | follows;
            let descriptor = Descriptor { addr, len: len as u32, flags, next: base + at + 1 };
            // SAFETY: one of three descriptors of the slot's own table, or of the ring's that are
            // the slot's; the device does not look at them before they are published.
            unsafe { self.store(table.wrapping_add(16 * usize::from(at)), descriptor) };
        }
        let mut cdb = [0; 10];
        cdb[0] = if ask.writes { 0x2A } else { 0x28 };
        cdb[2..6].copy_from_slice(&ask.lba.to_be_bytes());
        cdb[7..9].copy_from_slice(&ask.blocks.to_be_bytes());
        // SAFETY: header and response lie in the slot, which the device does not have now. The
        // response is made to be none, so that a stale one is noticed.
        unsafe {
            let header = self.slot(slot, HEADER_AT);
            let tag = u64::from(slot);
            ptr::copy_nonoverlapping(tag.to_le_bytes().as_ptr(), header.wrapping_add(8), 8);
            ptr::copy_nonoverlapping(cdb.as_ptr(), header.wrapping_add(19), cdb.len());
            self.slot(slot, RESPONSE_AT + 11).write(0xFF);
        }
        let entry = usize::from(self.next_available % self.size);
        self.word(self.available, 4 + 2 * entry)
            .store(if self.indirect { slot } else { base }, Ordering::Relaxed);
        self.next_available = self.next_available.wrapping_add(1);
    }

    fn word(&self, part: *mut u8, at: usize) -> &AtomicU16 {
        // SAFETY: callers stay inside the ring's part, which is in the mapping and aligned; the
        // other side reads and writes such words atomically too.
        unsafe { AtomicU16::from_ptr(part.wrapping_add(at).cast()) }
    }

    /// Makes everything prepared visible, and notifies the device if it wants that.
    pub fn publish(&mut self) {
        let (old, new) = (self.published, self.next_available);
        if old == new {
            return;
        }
        self.word(self.available, 2).store(new, Ordering::Release);
        self.published = new;
        fence(Ordering::SeqCst);
        let wanted = if self.event_index {
            let event =
                self.word(self.used, 4 + 8 * usize::from(self.size)).load(Ordering::Relaxed);
            new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
        } else {
            self.word(self.used, 0).load(Ordering::Relaxed) & 1 == 0
        };
        if wanted {
            self.tally.kicks += 1;
            self.kick.write(1).expect("the kick descriptor takes a count");
        }
    }

    /// True when there is an answer.
    pub fn has_used(&self) -> bool {
        self.word(self.used, 2).load(Ordering::Acquire) != self.last_used
    }

    /// Asks for no notification. To be said again now and then: see below.
    pub fn want_no_notification(&mut self) {
        if self.event_index {
            // An index that is behind: it is passed once in 65,536 answers.
            let behind = self.last_used.wrapping_sub(1);
            self.word(self.available, 4 + 2 * usize::from(self.size))
                .store(behind, Ordering::Relaxed);
        } else {
            self.word(self.available, 0).store(1, Ordering::Relaxed);
        }
    }

    /// Sleeps until there is an answer; false when there is none by `timeout`.
    pub fn sleep(&mut self, timeout: Duration) -> bool {
        loop {
            if self.event_index {
                let event = self.word(self.available, 4 + 2 * usize::from(self.size));
                event.store(self.last_used, Ordering::Relaxed);
            } else {
                self.word(self.available, 0).store(0, Ordering::Relaxed);
            }
            fence(Ordering::SeqCst);
            if self.has_used() {
                return true;
            }
            if !readable(self.call.as_raw_fd(), timeout) {
                return false;
            }
            self.tally.notifications += 1;
            let _ = self.call.read();
        }
    }

    /// Takes the next answer: its slot.
    pub fn pop(&mut self) -> Option<u16> {
        if !self.has_used() {
            return None;
        }
        let entry = usize::from(self.last_used % self.size);
        // The upper half of the 32 bits is zero: a head is a descriptor's number.
        let head = self.word(self.used, 4 + 8 * entry).load(Ordering::Relaxed);
        self.last_used = self.last_used.wrapping_add(1);
        Some(if self.indirect { head } else { head / 3 })
    }

    /// Ends the program unless the slot's command went well.
    pub fn check(&self, slot: u16) {
        let response = self.slot(slot, RESPONSE_AT);
        // SAFETY: the response lies in the slot, which the device has given back.
        let (status, code) =
            unsafe { (response.wrapping_add(10).read(), response.wrapping_add(11).read()) };
        assert!((status, code) == (0, 0), "slot {slot}: status {status:#x}, response {code:#x}");
    }
}
