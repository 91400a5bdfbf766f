//! The guest's memory: which of its addresses are mapped where, as one snapshot.
//!
//! A table never changes. A new one is made from the messages of the front end and handed to the
//! workers; whoever still uses the old one keeps it, and with it the mappings, so that a request
//! that was taken before the change ends in the memory that it was taken from.
//!
//! The guest runs on while we look, so no Rust reference to its memory ever exists: what is read
//! is copied out once, by volatile loads, and the copy is judged.
//!
//! What this cannot defend against: a front end that truncates the file behind a mapping kills
//! this process by SIGBUS. A guest cannot do that, and a front end has no need to.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::rc::Rc;
use std::sync::Arc;

use thiserror::Error;
use vm_memory::FileOffset;
use vm_memory::mmap::{MmapRegion, MmapRegionError};

use super::dirty::DirtyLog;
use crate::buffer::Segments;
use crate::limits::MEMORY_SLOTS_MAX;

/// A snapshot kept by one thread. Each request in flight keeps one: the inner count is shared by
/// all lanes and would bounce between their processors, the outer one is this thread's alone.
pub type Lease = Rc<Arc<GuestMemory>>;

/// What is wrong with a memory table.
#[derive(Debug, Error)]
pub enum MemoryError {
    /// The region cannot be mapped.
    #[error("guest memory at {guest:#x} cannot be mapped: {source}")]
    Map {
        /// Its guest-physical address.
        guest: u64,
        /// Why.
        source: MmapRegionError,
    },
    /// The file is shorter than the region: touching it would be fatal.
    #[error("the file behind guest memory at {0:#x} ends before the region does")]
    Short(u64),
    /// The region wraps around or is empty.
    #[error("guest memory at {0:#x} has an impossible size")]
    Size(u64),
    /// Two regions claim one address.
    #[error("two regions of guest memory overlap at {0:#x}")]
    Overlap(u64),
    /// More regions than slots.
    #[error("more than {MEMORY_SLOTS_MAX} regions of guest memory")]
    TooMany,
    /// REM_MEM_REG of something that was never added.
    #[error("there is no region of guest memory at {0:#x} to remove")]
    Unknown(u64),
}

/// An address that no region covers, or not for as long as was asked.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("{len} bytes at {address:#x} are not in guest memory")]
pub struct Unmapped {
    /// Where.
    pub address: u64,
    /// How many bytes.
    pub len: u64,
}

/// One piece of guest memory, mapped.
#[derive(Clone, Debug)]
pub struct Region {
    guest: u64,
    user: u64,
    len: u64,
    mapping: Arc<MmapRegion>,
}

impl Region {
    /// Maps `len` bytes of `file` from `offset` on, which the guest sees at `guest` and the front
    /// end at `user`.
    pub fn map(
        guest: u64,
        user: u64,
        len: u64,
        file: File,
        offset: u64,
    ) -> Result<Self, MemoryError> {
        let end = offset.checked_add(len).ok_or(MemoryError::Size(guest))?;
        let fits = guest.checked_add(len).is_some() && user.checked_add(len).is_some();
        let size = usize::try_from(len).map_err(|_| MemoryError::Size(guest))?;
        if !fits || size == 0 {
            return Err(MemoryError::Size(guest));
        }
        let regular = file.metadata().is_ok_and(|m| m.mode() & libc::S_IFMT == libc::S_IFREG);
        if regular && file.metadata().is_ok_and(|m| m.len() < end) {
            return Err(MemoryError::Short(guest));
        }
        let mapping = MmapRegion::build(
            Some(FileOffset::new(file, offset)),
            size,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_NORESERVE,
        )
        .map_err(|source| MemoryError::Map { guest, source })?;
        Ok(Region { guest, user, len, mapping: Arc::new(mapping) })
    }

    /// The host address of byte `offset`, which the caller has checked to be inside.
    fn host(&self, offset: u64) -> *mut u8 {
        debug_assert!(offset < self.len);
        self.mapping.as_ptr().wrapping_add(offset as usize)
    }
}

/// The memory table: regions in the order of their guest-physical addresses.
#[derive(Debug, Default)]
pub struct GuestMemory {
    regions: Vec<Region>,
}

impl GuestMemory {
    /// A table of these regions, in any order.
    pub fn new(mut regions: Vec<Region>) -> Result<Self, MemoryError> {
        if regions.len() as u64 > MEMORY_SLOTS_MAX {
            return Err(MemoryError::TooMany);
        }
        regions.sort_by_key(|region| region.user);
        if let Some(pair) = regions.windows(2).find(|p| p[0].user + p[0].len > p[1].user) {
            return Err(MemoryError::Overlap(pair[1].guest));
        }
        regions.sort_by_key(|region| region.guest);
        if let Some(pair) = regions.windows(2).find(|p| p[0].guest + p[0].len > p[1].guest) {
            return Err(MemoryError::Overlap(pair[1].guest));
        }
        Ok(GuestMemory { regions })
    }

    /// This table and one region more.
    pub fn with(&self, region: Region) -> Result<Self, MemoryError> {
        let mut regions = self.regions.clone();
        regions.push(region);
        Self::new(regions)
    }

    /// This table without the region that has these addresses and this size.
    pub fn without(&self, guest: u64, user: u64, len: u64) -> Result<Self, MemoryError> {
        let is = |r: &Region| (r.guest, r.user, r.len) == (guest, user, len);
        let at = self.regions.iter().position(is).ok_or(MemoryError::Unknown(guest))?;
        let mut regions = self.regions.clone();
        regions.remove(at);
        Self::new(regions)
    }

    /// True before the front end has sent any.
    pub fn is_empty(&self) -> bool {
        self.regions.is_empty()
    }

    /// The region of guest-physical `address` and the offset in it.
    fn find(&self, address: u64) -> Option<(&Region, u64)> {
        let after = self.regions.partition_point(|region| region.guest <= address);
        let region = self.regions[..after].last()?;
        let offset = address - region.guest;
        (offset < region.len).then_some((region, offset))
    }

    /// Walks over `len` bytes at guest-physical `address`, one call per contiguous piece.
    fn pieces(
        &self,
        address: u64,
        len: u64,
        mut visit: impl FnMut(*mut u8, usize),
    ) -> Result<(), Unmapped> {
        let (mut at, mut left) = (address, len);
        while left > 0 {
            let (region, offset) = self.find(at).ok_or(Unmapped { address, len })?;
            let take = left.min(region.len - offset);
            visit(region.host(offset), take as usize);
            left -= take;
            // Cannot overflow: a region's end was checked when it was mapped.
            at += take;
        }
        Ok(())
    }

    /// Adds `len` bytes at guest-physical `address` to `into`, as many pieces as it takes. After
    /// an error a part of them may have been added.
    ///
    /// # Safety
    /// The caller must keep this table until nobody uses the segments any more.
    pub unsafe fn lend(&self, address: u64, len: u32, into: &mut Segments) -> Result<(), Unmapped> {
        self.pieces(address, len.into(), |base, len| {
            // SAFETY: the piece lies inside a mapping that is readable and writable and that this
            // table keeps alive; the caller keeps the table. No reference into it is ever made.
            unsafe { into.push(base, len) }
        })
    }

    /// Where `len` bytes at guest-physical `address` are mapped, if they are in one piece. The
    /// pointer is good for as long as this table is kept.
    pub fn whole(&self, address: u64, len: u64) -> Option<*const u8> {
        let (region, offset) = self.find(address)?;
        (len <= region.len - offset).then(|| region.host(offset).cast_const())
    }

    /// Copies the `N` bytes at guest-physical `address` out, each read once.
    pub fn read<const N: usize>(&self, address: u64) -> Result<[u8; N], Unmapped> {
        let (mut bytes, mut done) = ([0; N], 0);
        self.pieces(address, N as u64, |base, len| {
            let into = &mut bytes[done..done + len];
            // Nearly always all of it: drivers align their tables.
            let words = if (base as usize).is_multiple_of(8) { len / 8 } else { 0 };
            for (word, at) in into.chunks_exact_mut(8).take(words).zip((0..).step_by(8)) {
                // SAFETY: the word lies inside the piece, which lies inside a mapping that `self`
                // keeps alive, and it is aligned.
                let value = unsafe { base.wrapping_add(at).cast::<u64>().read_volatile() };
                word.copy_from_slice(&value.to_ne_bytes());
            }
            for (byte, at) in into.iter_mut().zip(0..).skip(8 * words) {
                // SAFETY: the byte lies inside the piece, as above.
                *byte = unsafe { base.wrapping_add(at).read_volatile() };
            }
            done += len;
        })?;
        Ok(bytes)
    }

    /// The first guest-physical address above all regions.
    pub fn end(&self) -> u64 {
        self.regions.last().map_or(0, |region| region.guest + region.len)
    }

    /// Marks in `log` that all of `segments` has been written, which this table has lent.
    pub fn mark(&self, segments: &Segments, log: &DirtyLog) {
        for piece in segments.as_iovecs() {
            let offset = |r: &Region| {
                let offset = (piece.iov_base as usize).wrapping_sub(r.mapping.as_ptr() as usize);
                (offset < r.mapping.size()).then_some(r.guest + offset as u64)
            };
            let address = self.regions.iter().find_map(offset);
            debug_assert!(address.is_some(), "{piece:?} was not lent by this table");
            if let Some(address) = address {
                log.mark(address, piece.iov_len as u64);
            }
        }
    }

    /// Where `len` bytes at the front end's own address `user` are mapped, if they are in one
    /// piece. The pointer is good for as long as this table is kept.
    pub fn user(&self, user: u64, len: usize) -> Result<*mut u8, Unmapped> {
        let len = len as u64;
        let inside = |r: &&Region| {
            user.checked_sub(r.user).is_some_and(|offset| offset < r.len && len <= r.len - offset)
        };
        let region = self.regions.iter().find(inside).ok_or(Unmapped { address: user, len })?;
        Ok(region.host(user - region.user))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    fn region(guest: u64, user: u64, len: u64) -> (File, Region) {
        let file = tempfile::tempfile().unwrap();
        file.set_len(len).unwrap();
        let region = Region::map(guest, user, len, file.try_clone().unwrap(), 0).unwrap();
        (file, region)
    }

    #[test]
    fn lend_crosses_the_border_of_two_regions() {
        let (low, a) = region(0x1000, 0x10_0000, 0x1000);
        let (high, b) = region(0x2000, 0x90_0000, 0x1000);
        let memory = GuestMemory::new(vec![b, a]).unwrap();
        let mut segments = Segments::new();
        // SAFETY: `memory` outlives `segments`' use.
        unsafe { memory.lend(0x1FFE, 4, &mut segments) }.unwrap();
        assert_eq!(segments.pieces(), 2);
        segments.write_at(0, &[1, 2, 3, 4]);
        let mut bytes = [0; 2];
        low.read_exact_at(&mut bytes, 0xFFE).unwrap();
        assert_eq!(bytes, [1, 2]);
        high.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(bytes, [3, 4]);
        assert_eq!(memory.read::<4>(0x1FFE).unwrap(), [1, 2, 3, 4]);
    }

    #[test]
    fn lend_outside_is_unmapped() {
        let (_file, a) = region(0x1000, 0x1000, 0x1000);
        let memory = GuestMemory::new(vec![a]).unwrap();
        let mut segments = Segments::new();
        for (address, len) in [(0, 1), (0xFFF, 1), (0x2000, 1), (0x1FFF, 2), (u64::MAX, 2)] {
            // SAFETY: `memory` outlives `segments`' use.
            let result = unsafe { memory.lend(address, len, &mut segments) };
            assert_eq!(result, Err(Unmapped { address, len: len.into() }));
        }
    }

    #[test]
    fn new_refuses_overlap_in_either_address_space() {
        let ((_, a), (_, b)) = (region(0x1000, 0x1000, 0x2000), region(0x2000, 0x9000, 0x1000));
        assert!(matches!(GuestMemory::new(vec![a, b]), Err(MemoryError::Overlap(0x2000))));
        let ((_, a), (_, b)) = (region(0x1000, 0x1000, 0x2000), region(0x8000, 0x2000, 0x1000));
        assert!(matches!(GuestMemory::new(vec![a, b]), Err(MemoryError::Overlap(0x8000))));
    }

    #[test]
    fn map_of_a_short_file_is_refused() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(0x1000).unwrap();
        let result = Region::map(0, 0, 0x2000, file, 0);
        assert!(matches!(result, Err(MemoryError::Short(0))));
    }

    #[test]
    fn map_of_a_wrapping_region_is_refused() {
        let file = tempfile::tempfile().unwrap();
        let result = Region::map(u64::MAX - 1, 0, 0x2000, file, 0);
        assert!(matches!(result, Err(MemoryError::Size(_))));
    }

    #[test]
    fn without_removes_only_the_very_region() {
        let (_file, a) = region(0x1000, 0x5000, 0x1000);
        let memory = GuestMemory::new(vec![a]).unwrap();
        let wrong = memory.without(0x1000, 0x5000, 0x2000);
        assert!(matches!(wrong, Err(MemoryError::Unknown(0x1000))));
        assert!(memory.without(0x1000, 0x5000, 0x1000).unwrap().is_empty());
    }

    #[test]
    fn user_address_must_lie_in_one_region() {
        let ((_f, a), (_g, b)) = (region(0, 0x5000, 0x1000), region(0x1000, 0x6000, 0x1000));
        let memory = GuestMemory::new(vec![a, b]).unwrap();
        assert!(memory.user(0x5000, 0x1000).is_ok());
        assert!(memory.user(0x5001, 0x1000).is_err());
        assert!(memory.user(0x4FFF, 1).is_err());
        assert!(memory.user(u64::MAX, 1).is_err());
    }
}
