//! The bytes of the logical unit: a file or block device, memory, or nothing at all.
//!
//! Everything here may wait for the disk. It is called in the lane only where the store is memory.

use std::fs::{File, Metadata};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::fs::FileExt;

use super::direct::Direct;
use super::mapped_sys::Mapped;
use super::store_sys::{self, Direction};
use super::stripes::HELD_MAX;
use crate::buffer::Segments;
use crate::path::address::Cache;

/// Bytes handled at once where data goes through memory of our own.
pub(super) const CHUNK: usize = 64 << 10;
/// Bytes of a mapped file that are zeroed at once: others wait for no more.
const ZERO_MAX: u64 = 4 << 20;

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
    /// Where the file is in memory: copied without a system call.
    mapped: Option<Mapped>,
    /// Where it is read and written past the page cache: what that wants.
    direct: Option<Direct>,
}

impl Store {
    /// Blocks in `file`.
    pub(super) fn file(file: File) -> Self {
        let memory = store_sys::is_memory_backed(file.as_fd());
        let mapped = memory.then(|| Mapped::new(&file)).flatten();
        if memory && mapped.is_none() {
            log::info!("the image is read and written by system calls: it cannot be mapped");
        }
        Store::File(FileStore { file, memory, mapped, direct: None })
    }

    /// Blocks in `file`, which direct I/O has begun on. Offsets and lengths are whole blocks then,
    /// here and in all that follows.
    pub(super) fn direct(file: File, direct: Direct) -> Self {
        Store::File(FileStore { file, memory: false, mapped: None, direct: Some(direct) })
    }

    /// What there is between the unit and its image.
    pub(super) fn cache(&self) -> Cache {
        match self {
            Store::File(FileStore { direct: Some(_), .. }) => Cache::None,
            _ => Cache::Writeback,
        }
    }

    /// True when an engine of its own can give this memory to the kernel.
    pub(super) fn takes(&self, memory: &Segments) -> bool {
        match self {
            Store::File(FileStore { direct: Some(direct), .. }) => direct.takes(memory),
            _ => true,
        }
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
            Store::File(FileStore { mapped: Some(mapped), .. })
                if mapped.read(offset, into, len) =>
            {
                Ok(())
            }
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
            // The page is the medium: there is nothing to wait for, if it is one of the image's.
            Store::File(FileStore { mapped: Some(mapped), file, .. })
                if mapped.write(offset, from, len)
                    && (!durable || mapped.is_whole(file.metadata()?.len())) =>
            {
                Ok(())
            }
            Store::File(store) => store.transfer(Direction::Write, offset, from, len, durable),
            Store::Null => Ok(()),
        }
    }

    /// Reads into memory of our own.
    pub(super) fn read_bytes(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        match self {
            Store::File(FileStore { file, direct: Some(direct), .. }) => {
                let len = into.len();
                let give =
                    |at: usize, piece: &[u8]| into[at..at + piece.len()].copy_from_slice(piece);
                direct.read(file, offset, len, give)
            }
            Store::File(store) => {
                let len = into.len();
                let read = || store.file.read_exact_at(into, offset);
                store.apart(Direction::Read, offset, len, read)
            }
            Store::Null => {
                into.fill(0);
                Ok(())
            }
        }
    }

    /// Writes from memory of our own.
    pub(super) fn write_bytes(&self, offset: u64, from: &[u8]) -> io::Result<()> {
        match self {
            Store::File(FileStore { file, direct: Some(direct), .. }) => {
                let put = |at: usize, piece: &mut [u8]| {
                    piece.copy_from_slice(&from[at..at + piece.len()])
                };
                direct.write(file, offset, from.len(), put)
            }
            Store::File(store) => {
                let write = || {
                    store.file.write_all_at(from, offset)?;
                    store.note_written(offset, from.len());
                    Ok(())
                };
                store.apart(Direction::Write, offset, from.len(), write)
            }
            Store::Null => Ok(()),
        }
    }

    /// The file has `len` bytes now.
    pub(super) fn note_len(&self, len: u64) {
        if let Store::File(FileStore { mapped: Some(mapped), .. }) = self {
            mapped.note_len(len);
        }
    }

    /// True when transfers need no system call.
    pub(super) fn is_mapped(&self) -> bool {
        matches!(self, Store::File(FileStore { mapped: Some(_), .. }))
    }

    /// Makes a range read as zeroes; `deallocate` gives its space back where that is possible.
    pub(super) fn zero(&self, offset: u64, len: u64, deallocate: bool) -> io::Result<()> {
        let Store::File(store) = self else { return Ok(()) };
        let mut done = 0;
        while done < len {
            let at = offset + done;
            let most = if store.mapped.is_some() { ZERO_MAX - at % ZERO_MAX } else { len };
            let take = (len - done).min(most);
            let zeroed = store.apart(Direction::Write, at, take as usize, || {
                if let Some(mapped) = &store.mapped {
                    mapped.note_hole(at, take);
                }
                store_sys::zero_range(store.fd(), at, take, deallocate)
            });
            if zeroed.is_err() {
                // Not every file system can: then as any other data.
                return self.write_zeroes(at, len - done);
            }
            done += take;
        }
        Ok(())
    }

    fn write_zeroes(&self, offset: u64, len: u64) -> io::Result<()> {
        let zeroes = [0; CHUNK];
        let mut done = 0;
        while done < len {
            let take = (len - done).min(CHUNK as u64);
            self.write_bytes(offset + done, &zeroes[..take as usize])?;
            done += take;
        }
        Ok(())
    }

    /// Returns when everything written so far is on the medium, for a command of the guest's: it
    /// fails where something is not.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.write_back()?;
        let Store::File(FileStore { mapped: Some(mapped), file, .. }) = self else { return Ok(()) };
        // A copy to the rest of a page in which the image ends now was taken by nobody.
        if !mapped.is_whole(file.metadata()?.len()) && mapped.is_to_tell_guest() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }

    /// The same for nobody in particular.
    pub(super) fn write_back(&self) -> io::Result<()> {
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
    /// Called before others may make a hole of it again.
    fn note_written(&self, offset: u64, len: usize) {
        if let Some(mapped) = &self.mapped {
            mapped.note_written(offset, len);
        }
    }

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
        if let Some(direct) = self.direct.filter(|direct| !direct.takes(memory)) {
            return self.bounce(direct, direction, offset, memory, len, durable);
        }
        let mut done = 0;
        let mut rest = Segments::new();
        while done < len {
            let most = if self.mapped.is_some() { HELD_MAX } else { usize::MAX };
            let take = (len - done).min(most);
            // The usual case is one call with the list as it was lent.
            let whole = done == 0 && take == memory.len();
            if !whole {
                rest.assign_range(memory, done, take);
            }
            let list = if whole { memory } else { &rest };
            let at = offset + done as u64;
            let call = || -> io::Result<usize> {
                let moved = store_sys::transfer(self.fd(), direction, at, list, durable)?;
                if direction == Direction::Write {
                    self.note_written(at, moved);
                }
                Ok(moved)
            };
            match self.apart(direction, at, take, call) {
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

    /// Runs one call into the kernel apart from copies of the same blocks.
    fn apart<T>(
        &self,
        direction: Direction,
        offset: u64,
        len: usize,
        mut run: impl FnMut() -> T,
    ) -> T {
        match (&self.mapped, direction) {
            (None, _) => run(),
            (Some(mapped), Direction::Read) => mapped.stripes.read(offset, len, run),
            (Some(mapped), Direction::Write) => mapped.stripes.write(offset, len, run),
        }
    }

    /// A transfer through memory of our own.
    fn bounce(
        &self,
        direct: Direct,
        direction: Direction,
        offset: u64,
        memory: &Segments,
        len: usize,
        durable: bool,
    ) -> io::Result<()> {
        match direction {
            Direction::Read => direct.read(&self.file, offset, len, |at, piece| {
                memory.write_at(at, piece);
            }),
            Direction::Write => {
                direct.write(&self.file, offset, len, |at, piece| {
                    memory.read_at(at, piece);
                })?;
                if durable { self.file.sync_data() } else { Ok(()) }
            }
        }
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
    fn read_of_a_mapped_store_is_what_was_written_and_no_more_room_is_taken() {
        let store = Store::file({
            let file = store_sys::memory_file("store-test").unwrap();
            file.set_len(1 << 20).unwrap();
            file
        });
        assert!(store.is_mapped());
        let back = |offset| {
            let back = OwnedBuffer::from_vec(vec![0xA5; 1024]);
            store.read(offset, back.segments(), 1024).unwrap();
            back.to_vec()
        };
        assert_eq!(back(3584), [0; 1024]);
        let data = OwnedBuffer::from_vec(vec![3; 512]);
        store.write(4096, data.segments(), 512, false).unwrap();
        assert_eq!(back(3584), [[0; 512], [3; 512]].concat());
        assert_eq!(back(4096), [[3; 512], [0; 512]].concat());
        store.zero(4096, 4096, true).unwrap();
        assert_eq!(back(4096), [0; 1024]);
        assert_eq!(store.allocation(0, 1 << 20), (false, 1 << 20));
    }

    #[test]
    fn read_of_a_mapped_store_that_was_cut_fails() {
        let file = store_sys::memory_file("store-test").unwrap();
        file.set_len(1 << 20).unwrap();
        let store = Store::file(file.try_clone().unwrap());
        let data = OwnedBuffer::from_vec(vec![3; 8192]);
        store.write(0, data.segments(), 8192, false).unwrap();
        let read = |offset| {
            let back = OwnedBuffer::zeroed(4096);
            store.read(offset, back.segments(), 4096).map(|()| back.to_vec())
        };
        assert!(read(4096).is_ok());
        file.set_len(4096).unwrap();
        assert!(read(4096).is_err());
        assert_eq!(read(0).unwrap(), [3; 4096]);
    }

    /// One writes by a copy, one by system calls, one makes holes: who reads sees one of them.
    #[test]
    fn writes_of_one_block_of_a_mapped_store_do_not_mix() {
        const ROUNDS: usize = 1000;
        let file = store_sys::memory_file("store-test").unwrap();
        file.set_len(1 << 20).unwrap();
        let store = &Store::file(file);
        store.write_bytes(0, &[2; 4096]).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let data = OwnedBuffer::from_vec(vec![1; 4096]);
                (0..ROUNDS).for_each(|_| store.write(0, data.segments(), 4096, false).unwrap());
            });
            scope.spawn(|| {
                for round in 0..ROUNDS {
                    store.write_bytes(0, &[2; 4096]).unwrap();
                    if round % 16 == 0 {
                        store.zero(0, 4096, true).unwrap();
                    }
                }
            });
            let back = OwnedBuffer::zeroed(4096);
            for _ in 0..ROUNDS {
                store.read(0, back.segments(), 4096).unwrap();
                let seen = back.to_vec();
                assert!(seen[0] <= 2 && seen.iter().all(|byte| *byte == seen[0]), "{seen:?}");
            }
        });
    }

    /// The kernel raises no SIGBUS there, and nobody has looked at the length since.
    #[test]
    fn sync_fails_where_the_image_was_cut_within_a_page() {
        let file = store_sys::memory_file("store-test").unwrap();
        file.set_len(1 << 20).unwrap();
        let store = Store::file(file.try_clone().unwrap());
        let data = OwnedBuffer::from_vec(vec![3; 4096]);
        let write = || store.write(0, data.segments(), 4096, false);
        write().unwrap();
        store.sync().unwrap();
        file.set_len(512).unwrap();
        write().unwrap();
        assert!(store.sync().is_err(), "what was written is not there");
        write().unwrap();
        assert_eq!(file.metadata().unwrap().len(), 4096, "by a system call now");
        store.sync().unwrap();
    }

    #[test]
    fn durable_write_goes_into_the_image_that_was_cut_within_a_page() {
        let file = store_sys::memory_file("store-test").unwrap();
        file.set_len(1 << 20).unwrap();
        let store = Store::file(file.try_clone().unwrap());
        let data = OwnedBuffer::from_vec(vec![3; 4096]);
        let write = || store.write(0, data.segments(), 4096, true);
        write().unwrap();
        file.set_len(512).unwrap();
        write().unwrap();
        assert_eq!(file.metadata().unwrap().len(), 4096, "by a system call");
        file.set_len(1 << 20).unwrap();
        assert!(store.sync().is_err(), "what was copied before is not there, however long it is");
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
