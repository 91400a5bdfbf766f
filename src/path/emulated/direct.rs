//! An image past the host's page cache: `cache=none`, O_DIRECT.
//!
//! The kernel then moves data between the disk and the memory that it is given, and both have to be
//! aligned: how much, it says (statx, Linux 6.1), or a try does. Of the unit it takes that blocks are
//! no smaller than that; a smaller one would be read, changed and written, with nothing that keeps
//! its neighbours' writes out meanwhile. So such an image is refused. Memory of a guest is aligned as a rule; what is not goes
//! through memory of our own, in the helper, a piece at a time.
//!
//! *All* that we read and write of such an image goes by the one descriptor that has O_DIRECT, also
//! what the helper does. A write through the page cache beside it would bring a whole page into
//! memory, with the blocks beside the written one as they are now, and put all of it back later: over
//! a neighbour that was written past the cache and answered meanwhile. What the kernel zeroes by
//! itself (`fallocate`) it does behind direct I/O that is under way, and what it has in its cache
//! then it writes before it lets direct I/O at it.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use super::store_sys;
use crate::buffer::Segments;

/// Bytes of our own memory that a transfer goes through at most, one after the other.
const BOUNCE: usize = 256 << 10;
/// What is tried where the kernel does not say how it wants it. Larger than the largest block is of
/// no use.
const TRIED: [usize; 2] = [512, 4096];

/// Why an image is not opened so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DirectError {
    /// There is nothing to go past: the page cache is all there is of a file in memory.
    Memory,
    /// The file system has no such thing.
    Unsupported,
    /// Offsets and lengths are multiples of so many bytes.
    Blocks(usize),
}

/// What direct I/O on a file wants. Powers of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Direct {
    /// Of the address of each piece of memory.
    memory: usize,
    /// Of offsets, and of the length of each piece.
    length: usize,
}

impl Direct {
    /// From here on `file` is read and written past the page cache, in blocks of `block` bytes.
    pub(super) fn begin(file: &File, block: u32) -> io::Result<Result<Self, DirectError>> {
        if store_sys::is_memory_backed(file.as_fd()) {
            return Ok(Err(DirectError::Memory));
        }
        match store_sys::set_direct(file.as_fd()) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                return Ok(Err(DirectError::Unsupported));
            }
            Err(error) => return Err(error),
        }
        let direct = match store_sys::direct_alignment(file.as_fd()) {
            Some((0, _) | (_, 0)) => return Ok(Err(DirectError::Unsupported)),
            Some((memory, length)) => Direct { memory, length },
            None => match Direct::tried(file)? {
                Some(direct) => direct,
                None => return Ok(Err(DirectError::Unsupported)),
            },
        };
        Ok(direct.for_blocks(block))
    }

    /// The same, if a unit with blocks of so many bytes asks for nothing smaller.
    fn for_blocks(self, block: u32) -> Result<Self, DirectError> {
        let fits = (block as usize).is_multiple_of(self.length);
        if fits { Ok(self) } else { Err(DirectError::Blocks(self.length)) }
    }

    /// The smallest that a read of the file's beginning may have.
    fn tried(file: &File) -> io::Result<Option<Self>> {
        for bytes in TRIED {
            let direct = Direct { memory: bytes, length: bytes };
            let mut memory = Bounce::new(direct, bytes);
            match file.read_at(memory.bytes(bytes), 0) {
                Ok(_) => return Ok(Some(direct)),
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Whether the kernel takes this memory as it is. Offset and length are in whole blocks anyway.
    pub(super) fn takes(self, memory: &Segments) -> bool {
        let (address, length) = (self.memory - 1, self.length - 1);
        memory
            .as_iovecs()
            .iter()
            .all(|piece| (piece.iov_base as usize & address) | (piece.iov_len & length) == 0)
    }

    /// Reads `len` bytes from `offset` on, and gives them away piece by piece, with their place.
    pub(super) fn read(
        self,
        file: &File,
        offset: u64,
        len: usize,
        mut give: impl FnMut(usize, &[u8]),
    ) -> io::Result<()> {
        let mut memory = Bounce::new(self, len.min(BOUNCE));
        let mut done = 0;
        while done < len {
            let piece = memory.bytes((len - done).min(BOUNCE));
            file.read_exact_at(piece, offset + done as u64)?;
            give(done, piece);
            done += piece.len();
        }
        Ok(())
    }

    /// Writes `len` bytes at `offset`, each piece as it is put into place.
    pub(super) fn write(
        self,
        file: &File,
        offset: u64,
        len: usize,
        mut put: impl FnMut(usize, &mut [u8]),
    ) -> io::Result<()> {
        let mut memory = Bounce::new(self, len.min(BOUNCE));
        let mut done = 0;
        while done < len {
            let piece = memory.bytes((len - done).min(BOUNCE));
            put(done, piece);
            file.write_all_at(piece, offset + done as u64)?;
            done += piece.len();
        }
        Ok(())
    }
}

/// Memory of our own that is aligned.
struct Bounce {
    memory: Vec<u8>,
    begin: usize,
}

impl Bounce {
    fn new(direct: Direct, len: usize) -> Self {
        let memory = vec![0; len + direct.memory];
        let past = memory.as_ptr() as usize & (direct.memory - 1);
        Bounce { begin: (direct.memory - past) & (direct.memory - 1), memory }
    }

    fn bytes(&mut self, len: usize) -> &mut [u8] {
        &mut self.memory[self.begin..self.begin + len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffer::OwnedBuffer;

    #[test]
    fn blocks_that_are_smaller_than_the_disks_are_refused() {
        let large = Direct { memory: 4096, length: 4096 };
        assert_eq!(large.for_blocks(512), Err(DirectError::Blocks(4096)));
        assert_eq!(large.for_blocks(4096), Ok(large));
        let small = Direct { memory: 4, length: 512 };
        assert_eq!((small.for_blocks(512), small.for_blocks(4096)), (Ok(small), Ok(small)));
    }

    #[test]
    fn memory_is_taken_by_the_address_and_the_length_of_each_piece() {
        let memory = OwnedBuffer::zeroed(16 << 10);
        let base = memory.segments().as_iovecs()[0].iov_base as usize;
        let at = base.next_multiple_of(4096) - base;
        let mut list = Segments::new();
        let mut takes = |direct: Direct, from: usize, len| {
            list.assign_range(memory.segments(), at + from, len);
            direct.takes(&list)
        };
        let usual = Direct { memory: 512, length: 512 };
        assert!(takes(usual, 0, 4096) && takes(usual, 512, 1024));
        assert!(!takes(usual, 1, 512) && !takes(usual, 0, 511) && !takes(usual, 256, 512));
        let lax = Direct { memory: 4, length: 512 };
        assert!(takes(lax, 4, 512) && !takes(lax, 2, 512) && !takes(lax, 4, 516));
    }

    #[test]
    fn a_file_in_memory_has_nothing_to_go_past() {
        let file = store_sys::memory_file("direct-test").unwrap();
        assert_eq!(Direct::begin(&file, 512).unwrap(), Err(DirectError::Memory));
    }

    #[test]
    fn memory_of_our_own_is_aligned() {
        for memory in [1, 4, 512, 4096] {
            let direct = Direct { memory, length: 512 };
            let mut bounce = Bounce::new(direct, 1024);
            assert_eq!(bounce.bytes(1024).as_ptr() as usize % memory, 0);
        }
    }
}
