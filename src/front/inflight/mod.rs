//! The in-flight region: memory that outlives this process and says which requests it had taken and
//! not answered (vhost-user, "Inflight I/O tracking"; split virtqueues).
//!
//! ```text
//!   GET_INFLIGHT_FD   we make it, all zeroes     --> the front end keeps it, and resets it with the device
//!   SET_INFLIGHT_FD   before the rings start     <-- it comes back: to us, or to who is started after us
//!
//!   one ring's part, aligned to 64 bytes          one descriptor's state, 16 bytes
//!   +--------------------------------------+      +-----------------------------------------+
//!   | features  u64    0                   |      | inflight u8   1 from taken to answered  |
//!   | version   u16    1, or 0 when unused |      | padding  5 bytes                        |
//!   | desc_num  u16    entries             |      | next     u16  before it in its batch    |
//!   | last_batch_head  u16                 |      | counter  u64  order in which it came    |
//!   | used_idx  u16    as last seen used   |      +-----------------------------------------+
//!   | desc[desc_num]                       |
//!   +--------------------------------------+
//! ```
//!
//! | file | what |
//! |---|---|
//! | this one | the region as a whole: made, taken back, checked |
//! | [`record`] | one ring's part of it: written with each request, read once after a restart |
//!
//! All numbers are the host's own, as in the other implementations: a region never leaves its
//! host. What this cannot defend against is what [`super::memory`] cannot either: a front end that
//! truncates the file behind the mapping.

mod memfd_sys;
pub mod record;

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use thiserror::Error;
use vm_memory::FileOffset;
use vm_memory::mmap::{MmapRegion, MmapRegionError};

use self::record::Record;
use crate::ids::RingIndex;
use crate::limits::{RING_SIZE_MAX, RINGS_MAX};

/// Bytes before the descriptors' states in a ring's part.
const HEADER_LEN: usize = 16;
/// Bytes of a descriptor's state.
const STATE_LEN: usize = 16;
/// What each ring's part is aligned to.
const PART_ALIGN: usize = 64;

/// What is wrong with a region.
#[derive(Debug, Error)]
pub enum RegionError {
    /// More rings than are served, or none.
    #[error("the in-flight region is for {0} rings; 1 to {RINGS_MAX} are served")]
    Rings(u16),
    /// Larger rings than there are, or empty ones.
    #[error("the in-flight region is for rings of {0} entries; they have 1 to {RING_SIZE_MAX}")]
    RingSize(u16),
    /// There is not room for all rings.
    #[error("the in-flight region has {has} bytes and needs {needs}")]
    Small {
        /// Its size.
        has: u64,
        /// What its rings need.
        needs: u64,
    },
    /// The file is shorter than the region: touching it would be fatal.
    #[error("the file behind the in-flight region ends before the region does")]
    Short,
    /// It cannot be made.
    #[error("an in-flight region cannot be made: {0}")]
    Make(#[from] io::Error),
    /// It cannot be mapped.
    #[error("the in-flight region cannot be mapped: {0}")]
    Map(#[from] MmapRegionError),
    /// A ring for which there is no part.
    #[error(
        "the in-flight region is for {rings} rings of {entries} entries, this is ring {ring} with {size}"
    )]
    NoPart {
        /// Which ring.
        ring: u16,
        /// Its entries.
        size: u16,
        /// Rings of the region.
        rings: u16,
        /// Their entries.
        entries: u16,
    },
}

/// How large a region is, and for which rings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Rings, the control and the event ring among them.
    pub rings: u16,
    /// Entries of each ring at most.
    pub ring_size: u16,
}

impl Shape {
    /// Checks what a front end asks for.
    pub fn new(rings: u16, ring_size: u16) -> Result<Self, RegionError> {
        if !(1..=RINGS_MAX).contains(&rings) {
            return Err(RegionError::Rings(rings));
        }
        if !(1..=RING_SIZE_MAX).contains(&ring_size) {
            return Err(RegionError::RingSize(ring_size));
        }
        Ok(Shape { rings, ring_size })
    }

    /// Bytes from one ring's part to the next.
    fn part(self) -> usize {
        (HEADER_LEN + STATE_LEN * usize::from(self.ring_size)).next_multiple_of(PART_ALIGN)
    }

    /// Bytes of the region.
    pub fn bytes(self) -> usize {
        self.part() * usize::from(self.rings)
    }

    /// A new region: zeroes, in a file that can neither shrink nor grow.
    pub fn make(self) -> Result<File, RegionError> {
        Ok(memfd_sys::sealed(self.bytes() as u64)?)
    }
}

/// A region that came back from the front end.
#[derive(Clone, Debug)]
pub struct Region {
    shape: Shape,
    mapping: Arc<MmapRegion>,
}

impl Region {
    /// Maps the `bytes` of `file` from `offset` on, which must be enough for all of `shape`.
    pub fn map(shape: Shape, file: File, offset: u64, bytes: u64) -> Result<Self, RegionError> {
        let needs = shape.bytes() as u64;
        if bytes < needs {
            return Err(RegionError::Small { has: bytes, needs });
        }
        let end = offset.checked_add(needs).ok_or(RegionError::Short)?;
        let regular = file.metadata()?;
        if regular.mode() & libc::S_IFMT == libc::S_IFREG && regular.len() < end {
            return Err(RegionError::Short);
        }
        let mapping = MmapRegion::build(
            Some(FileOffset::new(file, offset)),
            shape.bytes(),
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED,
        )?;
        Ok(Region { shape, mapping: Arc::new(mapping) })
    }

    /// The part of a ring with `size` entries.
    pub fn record(&self, ring: RingIndex, size: u16) -> Result<Record, RegionError> {
        let Shape { rings, ring_size } = self.shape;
        if ring.0 >= rings || size > ring_size {
            return Err(RegionError::NoPart { ring: ring.0, size, rings, entries: ring_size });
        }
        let at = self.shape.part() * usize::from(ring.0);
        Ok(Record::new(self.mapping.clone(), at, ring_size))
    }
}

#[cfg(test)]
mod tests;
