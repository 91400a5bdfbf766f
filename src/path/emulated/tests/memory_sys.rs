//! Memory in pieces.

use std::ops::Range;

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
