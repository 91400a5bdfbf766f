//! The dirty log: one bit for each page of guest memory, shared with the front end, which says that
//! the device has written there (vhost-user, "Migration").
//!
//! ```text
//!   a page is written  -->  its bit is set  -->  the front end takes the bits, and copies the pages
//! ```
//!
//! In this order: were the bit set first, the front end might take it and copy the page before it is
//! written. So data is marked when its command has ended, before it is answered, and a ring when it
//! was written. What an attempt writes while the log comes or goes needs no care: it is looked up at
//! the end of the command, and the front end copies all of memory after it has given us a log.
//!
//! The log is our own and not vm-memory's bitmap: that one is set by its accessors, and here paths,
//! libraries and the kernel write through bare pointers, so each place that lends or writes has to
//! say so anyhow. A log that is replaced is kept by whoever still marks in it.
//!
//! What this cannot defend against is what [`super::memory`] cannot either: a front end that
//! truncates the file behind the mapping.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicU8, Ordering};

use thiserror::Error;
use vm_memory::mmap::{MmapRegion, MmapRegionError};
use vm_memory::{FileOffset, VolatileMemory};

/// Bytes of a page, whatever the host's or the guest's are: vhost-user says so.
const PAGE: u64 = 4096;
/// Pages of one byte of the log.
const PAGES_OF_BYTE: u64 = 8;

/// What is wrong with a log.
#[derive(Debug, Error)]
pub enum LogError {
    /// It does not reach to the end of guest memory.
    #[error(
        "the dirty log has {has} bytes, and guest memory, which ends at {end:#x}, needs {needs}"
    )]
    Small {
        /// Its size.
        has: u64,
        /// The end of guest memory.
        end: u64,
        /// What that needs.
        needs: u64,
    },
    /// The file is shorter than the log: touching it would be fatal.
    #[error("the file behind the dirty log ends before the log does")]
    Short,
    /// There is none, and rings run: what they write would be marked nowhere.
    #[error("LOG_ALL is accepted while rings run, and no dirty log was brought for it")]
    Missing,
    /// Its size makes no sense.
    #[error("the dirty log has an impossible size")]
    Size,
    /// The file says nothing about itself.
    #[error("the file behind the dirty log cannot be looked at: {0}")]
    File(#[from] io::Error),
    /// It cannot be mapped.
    #[error("the dirty log cannot be mapped: {0}")]
    Map(#[from] MmapRegionError),
}

/// A mapped log. Any thread may mark in it.
#[derive(Debug)]
pub struct DirtyLog {
    mapping: MmapRegion,
    bytes: u64,
}

impl DirtyLog {
    /// Maps the `bytes` of `file` from `offset` on.
    pub fn map(file: File, offset: u64, bytes: u64) -> Result<Self, LogError> {
        let end = offset.checked_add(bytes).ok_or(LogError::Size)?;
        let size = usize::try_from(bytes).map_err(|_| LogError::Size)?;
        if size == 0 {
            return Err(LogError::Size);
        }
        let metadata = file.metadata()?;
        if metadata.mode() & libc::S_IFMT == libc::S_IFREG && metadata.len() < end {
            return Err(LogError::Short);
        }
        let mapping = MmapRegion::build(
            Some(FileOffset::new(file, offset)),
            size,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED,
        )?;
        Ok(DirtyLog { mapping, bytes })
    }

    /// Checks that there is a bit for every page below `end`.
    pub fn check_covers(&self, end: u64) -> Result<(), LogError> {
        let needs = end.div_ceil(PAGE).div_ceil(PAGES_OF_BYTE);
        match needs <= self.bytes {
            true => Ok(()),
            false => Err(LogError::Small { has: self.bytes, end, needs }),
        }
    }

    /// `len` bytes at guest-physical `address` have been written. Pages beyond the log have no bit:
    /// they belong to memory that the front end took away, or that it brings before a larger log.
    pub fn mark(&self, address: u64, len: u64) {
        let Some(last) = len.checked_sub(1) else { return };
        let (mut page, last) = (address / PAGE, address.saturating_add(last) / PAGE);
        while page <= last {
            let (byte, bit) = (page / PAGES_OF_BYTE, page % PAGES_OF_BYTE);
            let count = (PAGES_OF_BYTE - bit).min(last - page + 1);
            if byte >= self.bytes {
                return;
            }
            self.set(byte as usize, (0xFF >> (PAGES_OF_BYTE - count)) << bit);
            page += count;
        }
    }

    fn set(&self, byte: usize, bits: u8) {
        let cell = self.mapping.get_atomic_ref::<AtomicU8>(byte);
        debug_assert!(cell.is_ok(), "{byte} is in the log");
        if let Ok(cell) = cell {
            // Release: who takes the bit sees what was written before. Without a look at the bit
            // first: it may be taken between the look and the page's new content.
            cell.fetch_or(bits, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    fn log(bytes: u64) -> (File, DirtyLog) {
        let file = tempfile::tempfile().unwrap();
        file.set_len(bytes).unwrap();
        let log = DirtyLog::map(file.try_clone().unwrap(), 0, bytes).unwrap();
        (file, log)
    }

    fn pages(file: &File) -> Vec<u64> {
        let mut bytes = vec![0; file.metadata().unwrap().len() as usize];
        file.read_exact_at(&mut bytes, 0).unwrap();
        let is_set = |page: &u64| bytes[(page / 8) as usize] & 1 << (page % 8) != 0;
        (0..bytes.len() as u64 * 8).filter(is_set).collect()
    }

    #[test]
    fn mark_sets_the_bit_of_each_page_that_is_touched_and_no_other() {
        let (file, log) = log(8);
        log.mark(0x3FFF, 1);
        log.mark(0x5FFF, 2);
        log.mark(0x9000, 0);
        assert_eq!(pages(&file), [3, 5, 6]);
        log.mark(0x6_800, 12 * PAGE);
        assert_eq!(pages(&file), (3..=18).filter(|page| *page != 4).collect::<Vec<_>>());
    }

    #[test]
    fn mark_beyond_the_log_stays_inside() {
        let (file, log) = log(2);
        log.mark(15 * PAGE, 100 * PAGE);
        log.mark(u64::MAX, 1);
        log.mark(u64::MAX - 1, 100);
        assert_eq!(pages(&file), [15]);
    }

    #[test]
    fn check_covers_names_what_is_missing() {
        let (_file, log) = log(2);
        assert!(log.check_covers(16 * PAGE).is_ok());
        let error = log.check_covers(16 * PAGE + 1).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the dirty log has 2 bytes, and guest memory, which ends at 0x10001, needs 3"
        );
    }

    #[test]
    fn map_refuses_a_log_that_would_be_fatal_to_touch() {
        let file = || {
            let file = tempfile::tempfile().unwrap();
            file.set_len(PAGE).unwrap();
            file
        };
        assert!(matches!(DirtyLog::map(file(), 0, PAGE + 1), Err(LogError::Short)));
        assert!(matches!(DirtyLog::map(file(), PAGE, 1), Err(LogError::Short)));
        assert!(matches!(DirtyLog::map(file(), u64::MAX, 2), Err(LogError::Size)));
        assert!(matches!(DirtyLog::map(file(), 0, 0), Err(LogError::Size)));
        assert!(matches!(DirtyLog::map(file(), 1, 64), Err(LogError::Map(_))));
    }
}
