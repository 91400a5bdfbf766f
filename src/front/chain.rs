//! A descriptor chain, walked into what the device may read and what it may write.
//!
//! The walker is our own because it must tell a chain's end from a broken chain: a request that
//! was cut short by a bad descriptor would otherwise look like a shorter request. Each descriptor
//! is read once and judged by that copy.

use thiserror::Error;
use virtio_bindings::bindings::virtio_ring::{
    VRING_DESC_F_INDIRECT, VRING_DESC_F_NEXT, VRING_DESC_F_WRITE,
};

use super::memory::{GuestMemory, Unmapped};
use super::ring::{DESCRIPTOR_LEN, Ring};
use crate::buffer::Segments;
use crate::limits::{SEGMENTS_MAX, TRANSFER_MAX};
use crate::virtio_scsi::request::{HEADER_LEN, RESPONSE_LEN};

/// Bytes of one chain at most.
const CHAIN_BYTES_MAX: u64 = TRANSFER_MAX as u64 + HEADER_LEN as u64 + RESPONSE_LEN as u64;

/// What is wrong with a chain.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum ChainError {
    /// A buffer, or an indirect table, that is not in guest memory.
    #[error("{0}")]
    Unmapped(#[from] Unmapped),
    /// The chain comes back to where it was.
    #[error("the descriptors form a loop")]
    Loop,
    /// More descriptors, or pieces of memory, than a request may have.
    #[error("more than {SEGMENTS_MAX} segments")]
    TooManySegments,
    /// More data than a request may have.
    #[error("more than {CHAIN_BYTES_MAX} bytes")]
    TooLong,
    /// A link to a descriptor that does not exist.
    #[error("descriptor {0} is not in its table")]
    Index(u16),
    /// Virtio wants everything for the device before everything from it.
    #[error("a device-readable descriptor follows a device-writable one")]
    Order,
    /// An indirect descriptor though the driver did not negotiate them.
    #[error("an indirect descriptor was not negotiated")]
    IndirectNotNegotiated,
    /// An indirect table inside another one.
    #[error("an indirect descriptor in an indirect table")]
    IndirectInIndirect,
    /// A link behind an indirect descriptor.
    #[error("an indirect descriptor that links to another")]
    IndirectWithNext,
    /// An indirect table that is no whole number of descriptors.
    #[error("an indirect table of {0} bytes")]
    IndirectLength(u32),
}

/// A descriptor, copied out of guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptor {
    address: u64,
    len: u32,
    flags: u16,
    next: u16,
}

impl Descriptor {
    /// From its two words: the address, and everything else.
    pub fn new(address: u64, rest: u64) -> Self {
        Descriptor {
            address,
            len: rest as u32,
            flags: (rest >> 32) as u16,
            next: (rest >> 48) as u16,
        }
    }

    fn has(&self, flag: u32) -> bool {
        u32::from(self.flags) & flag != 0
    }
}

/// The table that is being walked.
enum Table<'a> {
    Ring(&'a Ring),
    /// An indirect one, as drivers make it: aligned, and in one piece of memory.
    Whole {
        base: *const u8,
        entries: u32,
    },
    /// An indirect one that lies otherwise.
    Pieces {
        memory: &'a GuestMemory,
        address: u64,
        entries: u32,
    },
}

impl Table<'_> {
    fn entries(&self) -> u32 {
        match self {
            Table::Ring(ring) => ring.size().into(),
            Table::Whole { entries, .. } | Table::Pieces { entries, .. } => *entries,
        }
    }

    fn read(&self, index: u16) -> Result<Descriptor, ChainError> {
        match self {
            _ if u32::from(index) >= self.entries() => Err(ChainError::Index(index)),
            Table::Ring(ring) => Ok(ring.descriptor(index)),
            Table::Whole { base, .. } => {
                let at = base.wrapping_add(usize::from(index) * DESCRIPTOR_LEN);
                // SAFETY: the table was found whole and aligned in the memory of the ring's lease,
                // which outlives the walk, and the index is in it.
                let words = unsafe { at.cast::<[u64; 2]>().read_volatile() };
                Ok(Descriptor::new(u64::from_le(words[0]), u64::from_le(words[1])))
            }
            Table::Pieces { memory, address, .. } => {
                let at = address.wrapping_add(u64::from(index) * DESCRIPTOR_LEN as u64);
                let bytes = u128::from_le_bytes(memory.read(at)?);
                Ok(Descriptor::new(bytes as u64, (bytes >> 64) as u64))
            }
        }
    }
}

/// A chain's segments. Kept and filled again, so that the lists keep their memory.
#[derive(Debug, Default)]
pub struct Chain {
    /// What the driver has for the device, in order.
    pub readable: Segments,
    /// Room for what the device has for the driver, in order.
    pub writable: Segments,
}

impl Chain {
    /// Walks the chain of `head`. After an error the segments are those before the bad
    /// descriptor: they can still tell where a response would go.
    pub fn walk(&mut self, ring: &Ring, indirect: bool, head: u16) -> Result<(), ChainError> {
        self.readable.clear();
        self.writable.clear();
        let memory: &GuestMemory = ring.memory();
        let mut table = Table::Ring(ring);
        let (mut index, mut walked, mut walked_in_table) = (head, 0, 0);
        loop {
            let descriptor = table.read(index)?;
            if walked_in_table == table.entries() {
                return Err(ChainError::Loop);
            }
            if walked == SEGMENTS_MAX {
                return Err(ChainError::TooManySegments);
            }
            (walked, walked_in_table) = (walked + 1, walked_in_table + 1);
            if descriptor.has(VRING_DESC_F_INDIRECT) {
                match table {
                    Table::Ring(_) if !indirect => return Err(ChainError::IndirectNotNegotiated),
                    Table::Ring(_) => table = enter(memory, descriptor)?,
                    _ => return Err(ChainError::IndirectInIndirect),
                }
                (index, walked_in_table) = (0, 0);
                continue;
            }
            self.add(memory, descriptor)?;
            if !descriptor.has(VRING_DESC_F_NEXT) {
                return Ok(());
            }
            index = descriptor.next;
        }
    }

    /// Adds one buffer. An empty one counts for nothing, wherever it points.
    fn add(&mut self, memory: &GuestMemory, descriptor: Descriptor) -> Result<(), ChainError> {
        let write = descriptor.has(VRING_DESC_F_WRITE);
        if !write && !self.writable.is_empty() {
            return Err(ChainError::Order);
        }
        let len = self.readable.len() + self.writable.len();
        if len as u64 + u64::from(descriptor.len) > CHAIN_BYTES_MAX {
            return Err(ChainError::TooLong);
        }
        let into = if write { &mut self.writable } else { &mut self.readable };
        // SAFETY: the ring's owner keeps a lease of the ring's memory with each request that it
        // takes from here, until the request is answered or nobody holds its segments any more.
        unsafe { memory.lend(descriptor.address, descriptor.len, into) }?;
        if self.readable.pieces() + self.writable.pieces() > SEGMENTS_MAX {
            return Err(ChainError::TooManySegments);
        }
        Ok(())
    }
}

/// The table behind an indirect descriptor.
fn enter(memory: &GuestMemory, descriptor: Descriptor) -> Result<Table<'_>, ChainError> {
    if descriptor.has(VRING_DESC_F_NEXT) {
        return Err(ChainError::IndirectWithNext);
    }
    let entries = descriptor.len / DESCRIPTOR_LEN as u32;
    if entries == 0 || !descriptor.len.is_multiple_of(DESCRIPTOR_LEN as u32) {
        return Err(ChainError::IndirectLength(descriptor.len));
    }
    let address = descriptor.address;
    match memory.whole(address, descriptor.len.into()) {
        Some(base) if (base as usize).is_multiple_of(8) => Ok(Table::Whole { base, entries }),
        _ => Ok(Table::Pieces { memory, address, entries }),
    }
}
