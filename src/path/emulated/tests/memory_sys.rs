//! Memory in pieces.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;

use crate::buffer::{OwnedBuffer, Segments};

/// The pieces of `memory` at `places`, as one list. It must not be used after `memory` is gone.
pub(super) fn scattered(memory: &OwnedBuffer, places: &[Range<usize>]) -> Segments {
    let (mut list, mut part) = (Segments::new(), Segments::new());
    for place in places {
        part.assign_range(memory.segments(), place.start, place.len());
        for piece in part.as_iovecs() {
            // SAFETY: the piece is part of `memory`, which the caller keeps.
            unsafe { list.push(piece.iov_base.cast(), piece.iov_len) };
        }
    }
    list
}

/// Whether the page of `file` at `offset` is in the page cache: a read that must not wait finds it
/// or not. An error where the file system cannot tell.
pub(super) fn is_cached(file: &File, offset: u64) -> io::Result<bool> {
    let mut bytes = [0_u8; 512];
    let piece = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    let (fd, offset) = (file.as_raw_fd(), offset as libc::off_t);
    // SAFETY: one piece, which is ours and lives across the call.
    let read = unsafe { libc::preadv2(fd, &raw const piece, 1, offset, libc::RWF_NOWAIT) };
    let error = io::Error::last_os_error();
    match read {
        0.. => Ok(true),
        _ if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        _ => Err(error),
    }
}
