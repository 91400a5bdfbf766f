//! The data of a command: pieces of memory that somebody else owns, lent for one attempt.
//!
//! A [`Segments`] is a list of address ranges, nothing more. It can be passed on to the kernel as
//! it is (the layout is `struct iovec`) or copied from and to. What it points to is the guest's
//! memory, a path's bounce memory or a probe's own buffer; the lender promises that the memory
//! stays mapped until the attempt has ended (see [`crate::path`]), and the borrower that it
//! touches nothing after that. Bytes may change at any time under our eyes, since the guest runs
//! on: so they are read and written as raw memory, never through a reference.

use std::ptr;

/// One contiguous piece. Layout compatible with `struct iovec`.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub struct Segment(libc::iovec);

// SAFETY: a segment is an address and a length; sending it between threads moves no data. Who
// reads or writes through it answers for the access (see the unsafe methods of `Segments`).
unsafe impl Send for Segment {}
// SAFETY: as above; no method reads the memory through a shared reference without `unsafe` inside
// that is bounded by the lender's promise.
unsafe impl Sync for Segment {}

impl std::fmt::Debug for Segment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:p}+{}", self.0.iov_base, self.0.iov_len)
    }
}

/// A list of pieces, in the order in which the data runs through them.
#[derive(Clone, Debug, Default)]
pub struct Segments {
    pieces: Vec<Segment>,
    len: usize,
}

impl Segments {
    /// No data.
    pub const fn new() -> Self {
        Segments { pieces: Vec::new(), len: 0 }
    }

    /// Forgets the pieces and keeps the list's own memory for the next command.
    pub fn clear(&mut self) {
        self.pieces.clear();
        self.len = 0;
    }

    /// Adds `len` bytes at `base`. An empty piece is left out.
    ///
    /// # Safety
    /// The memory must be mapped, readable and (where data will be stored) writable until every
    /// attempt that was lent these segments has ended, and no Rust reference to it may exist
    /// meanwhile.
    pub unsafe fn push(&mut self, base: *mut u8, len: usize) {
        if len > 0 {
            self.pieces.push(Segment(libc::iovec { iov_base: base.cast(), iov_len: len }));
            self.len += len;
        }
    }

    /// Bytes in all pieces together.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True when there is not a single byte.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Number of pieces.
    pub fn pieces(&self) -> usize {
        self.pieces.len()
    }

    /// The pieces as the kernel's `struct iovec` array, for `preadv2` and the like.
    pub fn as_iovecs(&self) -> &[libc::iovec] {
        // SAFETY: `Segment` is `repr(transparent)` over `libc::iovec`.
        unsafe { std::slice::from_raw_parts(self.pieces.as_ptr().cast(), self.pieces.len()) }
    }

    /// Makes `self` the first `len` bytes of `whole` from `offset` on; shorter when `whole` ends.
    pub fn assign_range(&mut self, whole: &Segments, offset: usize, len: usize) {
        self.clear();
        let (mut skip, mut left) = (offset, len);
        for piece in &whole.pieces {
            if left == 0 {
                break;
            }
            if skip >= piece.0.iov_len {
                skip -= piece.0.iov_len;
                continue;
            }
            let take = (piece.0.iov_len - skip).min(left);
            // `skip` is less than the piece's length, so the address stays inside the piece.
            let base = piece.0.iov_base.cast::<u8>().wrapping_add(skip);
            self.pieces.push(Segment(libc::iovec { iov_base: base.cast(), iov_len: take }));
            self.len += take;
            left -= take;
            skip = 0;
        }
    }

    /// Copies `from` into the segments from byte `offset` on; returns how much found room.
    pub fn write_at(&self, offset: usize, from: &[u8]) -> usize {
        let mut done = 0;
        self.walk(offset, from.len(), |address, take| {
            // SAFETY: the lender promises that the piece is mapped and writable; `walk` stays
            // inside it; `from` is ordinary memory that cannot be part of lent memory, to which
            // no reference exists.
            unsafe { ptr::copy_nonoverlapping(from[done..].as_ptr(), address, take) };
            done += take;
        });
        done
    }

    /// Copies `len` bytes from `from` on to byte `offset`, as far as there is room.
    ///
    /// # Safety
    /// `len` bytes at `from` must be readable during the call. They may change meanwhile.
    pub unsafe fn write_from(&self, offset: usize, from: *const u8, len: usize) {
        let mut from = from;
        self.walk(offset, len, |address, take| {
            // SAFETY: the lender promises that the piece is mapped and writable, the caller that
            // what it is filled from is readable; `walk` stays inside both. They may be the same
            // memory.
            unsafe { ptr::copy(from, address, take) };
            from = from.wrapping_add(take);
        });
    }

    /// Copies `len` bytes from byte `offset` on to `into`, as far as there are any.
    ///
    /// # Safety
    /// `len` bytes at `into` must be writable during the call, and no reference to them may exist.
    pub unsafe fn read_into(&self, offset: usize, into: *mut u8, len: usize) {
        let mut into = into;
        self.walk(offset, len, |address, take| {
            // SAFETY: as in `write_from`, with the directions changed.
            unsafe { ptr::copy(address, into, take) };
            into = into.wrapping_add(take);
        });
    }

    /// Copies from byte `offset` on into `into`; returns how much there was.
    pub fn read_at(&self, offset: usize, into: &mut [u8]) -> usize {
        let mut done = 0;
        let room = into.len();
        self.walk(offset, room, |address, take| {
            // SAFETY: as in `write_at`, with the directions changed.
            unsafe { ptr::copy_nonoverlapping(address, into[done..].as_mut_ptr(), take) };
            done += take;
        });
        done
    }

    /// Stores `len` zero bytes from byte `offset` on; returns how many found room.
    pub fn zero_at(&self, offset: usize, len: usize) -> usize {
        let mut done = 0;
        self.walk(offset, len, |address, take| {
            // SAFETY: the lender promises that the piece is mapped and writable; `walk` stays
            // inside it.
            unsafe { ptr::write_bytes(address, 0, take) };
            done += take;
        });
        done
    }

    /// Copies the first `len` bytes to the beginning of `to`; returns how many there were and found
    /// room.
    pub fn copy_to(&self, to: &Segments, len: usize) -> usize {
        let mut done = 0;
        self.walk(0, len, |address, take| {
            let mut from = address;
            to.walk(done, take, |into, part| {
                // SAFETY: the lenders of both promise that their pieces are mapped and `to` is
                // writable; `walk` stays inside the pieces. The two may be the same memory.
                unsafe { ptr::copy(from, into, part) };
                from = from.wrapping_add(part);
                done += part;
            });
        });
        done
    }

    /// A copy of everything, for data that is looked at (a parameter list, never bulk data).
    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.len];
        self.read_at(0, &mut bytes);
        bytes
    }

    fn walk(&self, offset: usize, len: usize, mut visit: impl FnMut(*mut u8, usize)) {
        let (mut skip, mut left) = (offset, len);
        for piece in &self.pieces {
            if left == 0 {
                return;
            }
            if skip >= piece.0.iov_len {
                skip -= piece.0.iov_len;
                continue;
            }
            let take = (piece.0.iov_len - skip).min(left);
            visit(piece.0.iov_base.cast::<u8>().wrapping_add(skip), take);
            left -= take;
            skip = 0;
        }
    }
}

/// Memory of our own that can be lent like a guest's: for probes, bounces and tests.
#[derive(Debug)]
pub struct OwnedBuffer {
    bytes: Box<[u8]>,
    segments: Segments,
}

impl OwnedBuffer {
    /// `len` zero bytes.
    pub fn zeroed(len: usize) -> Self {
        Self::from_vec(vec![0; len])
    }

    /// Takes over `bytes`.
    pub fn from_vec(bytes: Vec<u8>) -> Self {
        let mut bytes = bytes.into_boxed_slice();
        let mut segments = Segments::new();
        // SAFETY: the box lives as long as this value and does not move its content; who lends
        // the segments keeps the value until the attempt has ended. `to_vec` is the only access.
        unsafe { segments.push(bytes.as_mut_ptr(), bytes.len()) };
        OwnedBuffer { bytes, segments }
    }

    /// The whole buffer as lendable segments.
    pub fn segments(&self) -> &Segments {
        &self.segments
    }

    /// The content, copied out; only after the attempt has ended.
    pub fn to_vec(&self) -> Vec<u8> {
        debug_assert_eq!(self.bytes.len(), self.segments.len());
        self.segments.to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(buffers: &[&OwnedBuffer]) -> Segments {
        let mut all = Segments::new();
        for buffer in buffers {
            all.pieces.extend_from_slice(&buffer.segments.pieces);
            all.len += buffer.segments.len;
        }
        all
    }

    #[test]
    fn write_at_crosses_pieces() {
        let (a, b) = (OwnedBuffer::zeroed(3), OwnedBuffer::zeroed(4));
        let all = pieces(&[&a, &b]);
        assert_eq!(all.write_at(2, &[1, 2, 3]), 3);
        assert_eq!(all.to_vec(), [0, 0, 1, 2, 3, 0, 0]);
        assert_eq!(all.write_at(6, &[9, 9]), 1);
    }

    #[test]
    fn copy_to_crosses_pieces_on_both_sides() {
        let (a, b) =
            (OwnedBuffer::from_vec(vec![1, 2, 3]), OwnedBuffer::from_vec(vec![4, 5, 6, 7]));
        let (c, d) = (OwnedBuffer::zeroed(5), OwnedBuffer::zeroed(9));
        let (from, to) = (pieces(&[&a, &b]), pieces(&[&c, &d]));
        assert_eq!(from.copy_to(&to, 6), 6);
        assert_eq!(to.to_vec(), [1, 2, 3, 4, 5, 6, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(from.copy_to(&to, 100), 7, "there is no more");
        assert_eq!(to.copy_to(c.segments(), 100), 5, "there is no more room");
    }

    #[test]
    fn assign_range_takes_the_middle() {
        let a = OwnedBuffer::from_vec(vec![1, 2, 3]);
        let b = OwnedBuffer::from_vec(vec![4, 5, 6, 7]);
        let all = pieces(&[&a, &b]);
        let mut part = Segments::new();
        part.assign_range(&all, 2, 3);
        assert_eq!(part.to_vec(), [3, 4, 5]);
        part.assign_range(&all, 6, 100);
        assert_eq!(part.to_vec(), [7]);
    }

    #[test]
    fn zero_at_stops_at_the_end() {
        let a = OwnedBuffer::from_vec(vec![1; 4]);
        assert_eq!(a.segments().zero_at(1, 9), 3);
        assert_eq!(a.to_vec(), [1, 0, 0, 0]);
    }
}
