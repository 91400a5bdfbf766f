//! The guest's memory: a memfd in several regions, addressed by guest-physical address.
//!
//! The regions lie in the file in another order than in the guest's address space, and the first
//! two touch each other in the guest only: a buffer across their border is one piece to the driver
//! and two to the device.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex};

use vhost::VhostUserMemoryRegionInfo;

use crate::sys::{Mapping, memfd};

const MIB: u64 = 1 << 20;

/// What `Config` takes unless told otherwise: two adjacent regions and one above 4 GiB.
pub const LAYOUT: &[(u64, u64)] = &[(0, 16 * MIB), (16 * MIB, 16 * MIB), (4096 * MIB, 16 * MIB)];

/// The border between the first two regions of [`LAYOUT`].
pub const BORDER: u64 = 16 * MIB;

#[derive(Clone, Copy)]
struct Region {
    gpa: u64,
    len: u64,
    offset: u64,
}

/// Guest memory with an allocator for the driver's buffers.
pub struct GuestMemory {
    file: File,
    mapping: Mapping,
    regions: Vec<Region>,
    /// Free ranges, start to length. Rings and buffers come from here.
    free: Mutex<BTreeMap<u64, u64>>,
    /// The memory as it would be without the device's writes, while somebody wants to know.
    undisturbed: Mutex<Option<Vec<u8>>>,
}

/// Bytes of a page, as the dirty log counts.
pub const PAGE: u64 = 4096;

impl GuestMemory {
    /// Memory at these `(address, length)` ranges, zeroed.
    pub fn new(layout: &[(u64, u64)]) -> Arc<Self> {
        let total: u64 = layout.iter().map(|(_, len)| len).sum();
        let mut offset = total;
        let regions = layout.iter().map(|&(gpa, len)| {
            offset -= len;
            Region { gpa, len, offset }
        });
        let regions: Vec<Region> = regions.collect();
        let file = memfd(total as usize);
        // The last 4 KiB below each border stay free of the allocator, for tests that place
        // something across the border themselves.
        let free = layout.iter().map(|&(gpa, len)| (gpa + 4096, len - 8192)).collect();
        let mapping = Mapping::new(&file, total as usize);
        let (free, undisturbed) = (Mutex::new(free), Mutex::default());
        Arc::new(GuestMemory { file, mapping, regions, free, undisturbed })
    }

    /// The regions as SET_MEM_TABLE and ADD_MEM_REG take them.
    pub fn table(&self) -> Vec<VhostUserMemoryRegionInfo> {
        let region = |region: &Region| VhostUserMemoryRegionInfo {
            guest_phys_addr: region.gpa,
            memory_size: region.len,
            userspace_addr: self.mapping.address(region.offset as usize),
            mmap_offset: region.offset,
            mmap_handle: self.file.as_raw_fd(),
        };
        self.regions.iter().map(region).collect()
    }

    /// The end of the last region.
    pub fn end(&self) -> u64 {
        self.regions.iter().map(|region| region.gpa + region.len).max().unwrap_or(0)
    }

    /// Makes a copy of all memory, in which from now on the driver's writes are repeated, and nobody
    /// else's.
    pub fn watch(&self) {
        let total = self.regions.iter().map(|region| region.len as usize).sum();
        let mut bytes = vec![0; total];
        // What is written meanwhile waits for this to write it to the copy too.
        let mut copy = self.undisturbed.lock().expect("no test fails while it writes");
        self.mapping.read(0, &mut bytes);
        *copy = Some(bytes);
    }

    /// Copies these pages, which may be no memory at all, once more.
    pub fn copy_again(&self, pages: impl IntoIterator<Item = u64>) {
        for gpa in pages.into_iter().map(|page| page * PAGE) {
            if self
                .regions
                .iter()
                .any(|region| (region.gpa..region.gpa + region.len).contains(&gpa))
            {
                self.repeat(gpa, &self.read(gpa, PAGE as usize));
            }
        }
    }

    /// Pages of which the copy has another content.
    pub fn stale(&self) -> Vec<u64> {
        let copy = self.undisturbed.lock().expect("no test fails while it writes");
        let copy = copy.as_ref().expect("it is watched");
        let pages = self.regions.iter().flat_map(|r| r.gpa / PAGE..(r.gpa + r.len) / PAGE);
        let is_stale = |page: &u64| {
            let (at, _) = self.locate(page * PAGE);
            self.read(page * PAGE, PAGE as usize) != copy[at..at + PAGE as usize]
        };
        pages.filter(is_stale).collect()
    }

    fn repeat(&self, gpa: u64, bytes: &[u8]) {
        let mut copy = self.undisturbed.lock().expect("no test fails while it writes");
        let Some(copy) = copy.as_mut() else { return };
        let mut done = 0;
        while done < bytes.len() {
            let (at, have) = self.locate(gpa + done as u64);
            let part = have.min(bytes.len() - done);
            copy[at..at + part].copy_from_slice(&bytes[done..done + part]);
            done += part;
        }
    }

    /// Takes `len` bytes at a multiple of 4096.
    pub fn allocate(&self, len: usize) -> u64 {
        let len = (len as u64).next_multiple_of(4096);
        let mut free = self.free.lock().expect("no test fails while it allocates");
        let (&start, &have) =
            free.iter().find(|(_, have)| **have >= len).expect("guest memory is large enough");
        free.remove(&start);
        if have > len {
            free.insert(start + len, have - len);
        }
        start
    }

    /// Gives back what [`GuestMemory::allocate`] gave out. The content stays as it is.
    pub fn release(&self, gpa: u64, len: usize) {
        let mut len = (len as u64).next_multiple_of(4096);
        let mut start = gpa;
        let mut free = self.free.lock().expect("no test fails while it releases");
        if let Some(after) = free.remove(&(start + len)) {
            len += after;
        }
        let before = free.range(..start).next_back().map(|(start, len)| (*start, *len));
        if let Some((before, before_len)) = before.filter(|(at, len)| at + len == start) {
            free.remove(&before);
            (start, len) = (before, before_len + len);
        }
        free.insert(start, len);
    }

    /// Where `gpa` lies in the mapping, and how many bytes follow in the same region.
    fn locate(&self, gpa: u64) -> (usize, usize) {
        let inside = |region: &&Region| (region.gpa..region.gpa + region.len).contains(&gpa);
        let region = self.regions.iter().find(inside);
        let region = region.unwrap_or_else(|| panic!("{gpa:#x} is not guest memory"));
        let into = gpa - region.gpa;
        ((region.offset + into) as usize, (region.len - into) as usize)
    }

    /// The user address of `gpa`, by which rings are told to the device.
    pub fn user_address(&self, gpa: u64) -> u64 {
        self.mapping.address(self.locate(gpa).0)
    }

    /// Copies out `len` bytes at `gpa`, across region borders.
    pub fn read(&self, gpa: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        let mut done = 0;
        while done < len {
            let (at, have) = self.locate(gpa + done as u64);
            let part = have.min(len - done);
            self.mapping.read(at, &mut bytes[done..done + part]);
            done += part;
        }
        bytes
    }

    /// Copies in `bytes` at `gpa`, across region borders.
    pub fn write(&self, gpa: u64, bytes: &[u8]) {
        let mut done = 0;
        while done < bytes.len() {
            let (at, have) = self.locate(gpa + done as u64);
            let part = have.min(bytes.len() - done);
            self.mapping.write(at, &bytes[done..done + part]);
            done += part;
        }
        self.repeat(gpa, bytes);
    }

    /// Reads a ring index.
    pub fn load(&self, gpa: u64) -> u16 {
        self.mapping.load(self.locate(gpa).0)
    }

    /// Writes a ring index.
    pub fn store(&self, gpa: u64, value: u16) {
        self.mapping.store(self.locate(gpa).0, value);
        self.repeat(gpa, &value.to_le_bytes());
    }
}
