//! A split virtqueue as a driver sees it (virtio 1.3, 2.7).
//!
//! It notifies the device only when the device asked for it, and it sleeps until the device
//! notifies: an answer that comes without the notification it owes is a failed test.

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::time::{Duration, Instant};

use vhost::VringConfigData;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::memory::GuestMemory;
use crate::sys::readable;
use std::os::fd::AsRawFd;

/// Another descriptor follows.
pub const NEXT: u16 = 1;
/// The device writes to it.
pub const WRITE: u16 = 2;
/// It points to a table of descriptors.
pub const INDIRECT: u16 = 4;

/// One descriptor, any content.
#[derive(Clone, Copy, Debug, Default)]
pub struct Descriptor {
    pub addr: u64,
    pub len: u32,
    pub flags: u16,
    pub next: u16,
}

impl Descriptor {
    /// As it lies in memory.
    pub fn bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[0..8].copy_from_slice(&self.addr.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.len.to_le_bytes());
        bytes[12..14].copy_from_slice(&self.flags.to_le_bytes());
        bytes[14..16].copy_from_slice(&self.next.to_le_bytes());
        bytes
    }
}

/// A piece of a buffer: address, length, and whether the device writes to it.
#[derive(Clone, Copy, Debug)]
pub struct Segment {
    pub addr: u64,
    pub len: u32,
    pub write: bool,
}

/// The descriptors of one request that is with the device.
struct Chain {
    descriptors: Vec<u16>,
    table: Option<(u64, usize)>,
}

/// One virtqueue.
pub struct Ring {
    pub memory: Arc<GuestMemory>,
    pub size: u16,
    pub descriptors: u64,
    pub available: u64,
    pub used: u64,
    pub kick: EventFd,
    pub call: EventFd,
    event_idx: bool,
    indirect: bool,
    free: Vec<u16>,
    chains: Vec<Option<Chain>>,
    next_available: u16,
    kicked: u16,
    last_used: u16,
}

impl Ring {
    /// A ring of `size` entries, empty.
    pub fn new(memory: &Arc<GuestMemory>, size: u16, event_idx: bool, indirect: bool) -> Self {
        let entries = usize::from(size);
        let eventfd = || EventFd::new(EFD_NONBLOCK).expect("an eventfd can be made");
        // The memory may have been a buffer before, and a device believes what stands in a ring.
        let zeroed = |len: usize| {
            let at = memory.allocate(len);
            memory.write(at, &vec![0; len]);
            at
        };
        Ring {
            memory: memory.clone(),
            size,
            descriptors: zeroed(16 * entries),
            available: zeroed(6 + 2 * entries),
            used: zeroed(6 + 8 * entries),
            kick: eventfd(),
            call: eventfd(),
            event_idx,
            indirect,
            free: (0..size).rev().collect(),
            chains: (0..size).map(|_| None).collect(),
            next_available: 0,
            kicked: 0,
            last_used: 0,
        }
    }

    /// As SET_VRING_ADDR takes it.
    pub fn addresses(&self) -> VringConfigData {
        VringConfigData {
            queue_max_size: self.size,
            queue_size: self.size,
            flags: 0,
            desc_table_addr: self.memory.user_address(self.descriptors),
            used_ring_addr: self.memory.user_address(self.used),
            avail_ring_addr: self.memory.user_address(self.available),
            log_addr: None,
        }
    }

    /// Requests made available so far, which is where a device stops that has taken them all.
    pub fn position(&self) -> u16 {
        self.next_available
    }

    /// Requests that are with the device.
    pub fn outstanding(&self) -> usize {
        self.chains.iter().flatten().count()
    }

    /// Makes one request available; `None` when the ring is full. The device is not notified.
    pub fn add(&mut self, segments: &[Segment]) -> Option<u16> {
        let flags = |last: bool, write: bool| u16::from(!last) * NEXT + u16::from(write) * WRITE;
        let build = |at: usize, next: u16| {
            let Segment { addr, len, write } = segments[at];
            Descriptor { addr, len, flags: flags(at + 1 == segments.len(), write), next }
        };
        let needed = if self.indirect { 1 } else { segments.len() };
        if self.free.len() < needed {
            return None;
        }
        let descriptors: Vec<u16> = (0..needed).filter_map(|_| self.free.pop()).collect();
        let head = descriptors[0];
        let table = self.indirect.then(|| {
            let len = 16 * segments.len();
            let table = self.memory.allocate(len);
            for at in 0..segments.len() {
                self.memory.write(table + 16 * at as u64, &build(at, at as u16 + 1).bytes());
            }
            let len32 = len as u32;
            self.write_descriptor(
                head,
                Descriptor { addr: table, len: len32, flags: INDIRECT, next: 0 },
            );
            (table, len)
        });
        if table.is_none() {
            for (at, index) in descriptors.iter().enumerate() {
                let next = descriptors.get(at + 1).copied().unwrap_or(0);
                self.write_descriptor(*index, build(at, next));
            }
        }
        self.chains[usize::from(head)] = Some(Chain { descriptors, table });
        self.publish(head);
        Some(head)
    }

    /// Writes a descriptor of the ring's own table.
    pub fn write_descriptor(&self, index: u16, descriptor: Descriptor) {
        self.memory.write(self.descriptors + 16 * u64::from(index), &descriptor.bytes());
    }

    /// Puts `head` on the available ring, whatever it is.
    pub fn publish(&mut self, head: u16) {
        let slot = u64::from(self.next_available % self.size);
        self.memory.write(self.available + 4 + 2 * slot, &head.to_le_bytes());
        self.next_available = self.next_available.wrapping_add(1);
        self.memory.store(self.available + 2, self.next_available);
    }

    /// Sets the available index to anything.
    pub fn jump(&mut self, index: u16) {
        self.next_available = index;
        self.memory.store(self.available + 2, index);
    }

    /// Notifies the device if it asked for it.
    pub fn kick(&mut self) {
        fence(Ordering::SeqCst);
        let (old, new) = (self.kicked, self.next_available);
        self.kicked = new;
        let wanted = if self.event_idx {
            let event = self.memory.load(self.used + 4 + 8 * u64::from(self.size));
            new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
        } else {
            self.memory.load(self.used) & 1 == 0
        };
        if wanted && new != old {
            self.kick_always();
        }
    }

    /// Notifies the device.
    pub fn kick_always(&self) {
        self.kick.write(1).expect("the kick descriptor takes a count");
    }

    /// The device's used index.
    pub fn used_index(&self) -> u16 {
        self.memory.load(self.used + 2)
    }

    /// Where the device's answer number `at` lies: a head and a length, 32 bits each.
    pub fn used_element(&self, at: u16) -> u64 {
        self.used + 4 + 8 * u64::from(at % self.size)
    }

    /// Takes the next used request: its head and how many bytes the device wrote.
    pub fn pop(&mut self) -> Option<(u16, u32)> {
        if self.used_index() == self.last_used {
            return None;
        }
        let element = self.memory.read(self.used_element(self.last_used), 8);
        let word = |at: usize| {
            u32::from_le_bytes([element[at], element[at + 1], element[at + 2], element[at + 3]])
        };
        let (id, len) = (word(0), word(4));
        self.last_used = self.last_used.wrapping_add(1);
        let chain = self.chains.get_mut(id as usize).and_then(Option::take);
        let chain = chain.unwrap_or_else(|| panic!("the device returned head {id}: it has none"));
        if let Some((table, bytes)) = chain.table {
            self.memory.release(table, bytes);
        }
        self.free.extend(&chain.descriptors);
        Some((id as u16, len))
    }

    /// Sleeps until the device has used a request, `false` if it has not by `timeout`.
    pub fn wait(&mut self, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        loop {
            if self.event_idx {
                let used_event = self.available + 4 + 2 * u64::from(self.size);
                self.memory.store(used_event, self.last_used);
            }
            fence(Ordering::SeqCst);
            if self.used_index() != self.last_used {
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if !readable(self.call.as_raw_fd(), left) {
                let late = self.used_index() != self.last_used;
                assert!(!late, "a request was used and the driver was not notified");
                return false;
            }
            // An error is another reader's success; there is none, and the loop looks again.
            let _ = self.call.read();
        }
    }
}
