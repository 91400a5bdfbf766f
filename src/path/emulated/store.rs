//! The bytes of the logical unit: a file or block device, memory, or nothing at all.
//!
//! Everything here may wait for the disk. It is called in the lane only where the store is memory.

use std::fs::{File, Metadata};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::fs::FileExt;

use super::store_sys::{self, Direction};
use crate::buffer::Segments;

/// Bytes handled at once where data goes through memory of our own.
pub(super) const CHUNK: usize = 64 << 10;

/// Where the blocks are.
#[derive(Debug)]
pub(super) enum Store {
    /// A file that the kernel reads and writes.
    File(FileStore),
    /// Zeroes; takes every write.
    Null,
}

/// A file or block device.
#[derive(Debug)]
pub(super) struct FileStore {
    file: File,
    memory: bool,
}

impl Store {
    /// Blocks in `file`.
    pub(super) fn file(file: File) -> Self {
        let memory = store_sys::is_memory_backed(file.as_fd());
        Store::File(FileStore { file, memory })
    }

    /// True when reading and writing never waits for a disk.
    pub(super) fn is_memory(&self) -> bool {
        match self {
            Store::File(store) => store.memory,
            Store::Null => true,
        }
    }

    /// The descriptor for an engine of its own, if there is a file.
    pub(super) fn raw_fd(&self) -> Option<RawFd> {
        match self {
            Store::File(store) => Some(store.file.as_raw_fd()),
            Store::Null => None,
        }
    }

    /// Bytes of the file now; `None` without a file that can become longer.
    pub(super) fn len(&self) -> Option<u64> {
        match self {
            Store::File(store) => {
                store.file.metadata().ok().filter(Metadata::is_file).map(|metadata| metadata.len())
            }
            Store::Null => None,
        }
    }

    /// Reads the first `len` bytes of `into` from `offset` on.
    pub(super) fn read(&self, offset: u64, into: &Segments, len: usize) -> io::Result<()> {
        match self {
            Store::File(store) => store.transfer(Direction::Read, offset, into, len, false),
            Store::Null => {
                into.zero_at(0, len);
                Ok(())
            }
        }
    }

    /// Writes the first `len` bytes of `from` at `offset`; `durable` waits for the medium.
    pub(super) fn write(
        &self,
        offset: u64,
        from: &Segments,
        len: usize,
        durable: bool,
    ) -> io::Result<()> {
        match self {
            Store::File(store) => store.transfer(Direction::Write, offset, from, len, durable),
            Store::Null => Ok(()),
        }
    }

    /// Reads into memory of our own.
    pub(super) fn read_bytes(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        match self {
            Store::File(store) => store.file.read_exact_at(into, offset),
            Store::Null => {
                into.fill(0);
                Ok(())
            }
        }
    }

    /// Writes from memory of our own.
    pub(super) fn write_bytes(&self, offset: u64, from: &[u8]) -> io::Result<()> {
        match self {
            Store::File(store) => store.file.write_all_at(from, offset),
            Store::Null => Ok(()),
        }
    }

    /// Makes a range read as zeroes; `deallocate` gives its space back where that is possible.
    pub(super) fn zero(&self, offset: u64, len: u64, deallocate: bool) -> io::Result<()> {
        let Store::File(store) = self else { return Ok(()) };
        if store_sys::zero_range(store.fd(), offset, len, deallocate).is_ok() {
            return Ok(());
        }
        // Not every file system can: then as any other data.
        let zeroes = [0; CHUNK];
        let mut done = 0;
        while done < len {
            let take = (len - done).min(CHUNK as u64);
            self.write_bytes(offset + done, &zeroes[..take as usize])?;
            done += take;
        }
        Ok(())
    }

    /// Returns when everything written so far is on the medium.
    pub(super) fn sync(&self) -> io::Result<()> {
        match self {
            Store::File(store) => store.file.sync_data(),
            Store::Null => Ok(()),
        }
    }

    /// Makes room for `bytes`, if there is less.
    pub(super) fn grow(&self, bytes: u64) -> io::Result<()> {
        match self {
            Store::File(store) if store.file.metadata()?.is_file() => {
                if store.file.metadata()?.len() < bytes {
                    store.file.set_len(bytes)
                } else {
                    Ok(())
                }
            }
            Store::File(_) => Err(io::ErrorKind::Unsupported.into()),
            Store::Null => Ok(()),
        }
    }

    /// Whether `offset` lies in allocated space, and where that changes, at most at `end`.
    pub(super) fn allocation(&self, offset: u64, end: u64) -> (bool, u64) {
        match self {
            Store::File(store) => store_sys::allocation(store.fd(), offset, end),
            Store::Null => (false, end),
        }
    }
}

impl FileStore {
    fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    fn transfer(
        &self,
        direction: Direction,
        offset: u64,
        memory: &Segments,
        len: usize,
        durable: bool,
    ) -> io::Result<()> {
        let mut done = 0;
        let mut rest = Segments::new();
        while done < len {
            // The usual case is one call with the list as it was lent.
            let whole = done == 0 && len == memory.len();
            if !whole {
                rest.assign_range(memory, done, len - done);
            }
            let list = if whole { memory } else { &rest };
            let at = offset + done as u64;
            match store_sys::transfer(self.fd(), direction, at, list, durable) {
                Ok(0) if direction == Direction::Read => {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(moved) => done += moved,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffer::OwnedBuffer;

    fn store() -> Store {
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 20).unwrap();
        Store::file(file)
    }

    #[test]
    fn read_returns_what_write_stored() {
        let store = store();
        let data = OwnedBuffer::from_vec((0..1000u32).map(|n| n as u8).collect());
        store.write(777, data.segments(), 999, true).unwrap();
        let back = OwnedBuffer::zeroed(1000);
        store.read(777, back.segments(), 1000).unwrap();
        assert_eq!(back.to_vec()[..999], data.to_vec()[..999]);
        assert_eq!(back.to_vec()[999], 0);
    }

    #[test]
    fn read_behind_the_end_fails() {
        let back = OwnedBuffer::zeroed(512);
        assert!(store().read((1 << 20) - 256, back.segments(), 512).is_err());
    }

    #[test]
    fn zero_deallocates_and_allocation_tells() {
        let store = Store::file(store_sys::memory_file("store-test").unwrap());
        assert!(store.is_memory());
        let Store::File(file) = &store else { unreachable!() };
        file.file.set_len(1 << 20).unwrap();
        store.write_bytes(0, &[7; 128 << 10]).unwrap();
        assert_eq!(store.allocation(0, 1 << 20), (true, 128 << 10));
        store.zero(0, 64 << 10, true).unwrap();
        assert_eq!(store.allocation(0, 1 << 20), (false, 64 << 10));
        let mut byte = [9];
        store.read_bytes(10, &mut byte).unwrap();
        assert_eq!(byte, [0]);
        assert_eq!(Store::Null.allocation(0, 512), (false, 512));
    }
}
