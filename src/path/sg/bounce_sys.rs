//! Memory of a thread's own, between the guest's and the kernel's.
//!
//! The kernel may go on using it long after the guest's command was given up, so it belongs to the
//! thread that made the call, and not to the command.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::ptr::NonNull;

use crate::buffer::Segments;
use crate::limits::{SG_BOUNCE_ALIGN, SG_BOUNCE_KEEP};

/// A block of memory on page boundaries, made larger when a command needs it.
#[derive(Debug, Default)]
pub(super) struct Bounce {
    block: Option<(NonNull<u8>, Layout)>,
    /// Bytes of the command that uses it.
    len: usize,
}

// SAFETY: the block is owned by this value alone, and plain bytes mean the same in every thread.
unsafe impl Send for Bounce {}

impl Bounce {
    /// Room for `len` bytes, whose content means nothing.
    pub(super) fn prepare(&mut self, len: usize) {
        let size = len.max(1).next_multiple_of(SG_BOUNCE_ALIGN);
        let has = self.block.map_or(0, |(_, layout)| layout.size());
        // What one large command needed is not kept for the small ones that follow.
        if size > has || (has > SG_BOUNCE_KEEP && size <= SG_BOUNCE_KEEP) {
            self.free();
            self.block = Some(allocate(size));
        }
        self.len = len;
    }

    /// Copies the guest's data in.
    pub(super) fn load(&mut self, from: &Segments) {
        let len = self.len;
        if let Some((base, _)) = self.block {
            // SAFETY: `prepare` has allocated at least `len` bytes at `base`; the kernel uses them
            // only inside calls of the thread that holds this value, which is here.
            let bytes = unsafe { std::slice::from_raw_parts_mut(base.as_ptr(), len) };
            from.read_at(0, bytes);
        }
    }

    /// Copies the first `len` bytes to the guest.
    pub(super) fn store(&self, to: &Segments, len: usize) {
        to.write_at(0, self.bytes(len));
    }

    /// The first `len` bytes of what came.
    pub(super) fn bytes(&self, len: usize) -> &[u8] {
        let len = len.min(self.len);
        match self.block {
            // SAFETY: as in `load`; allocated zeroed, so that every byte has a value.
            Some((base, _)) => unsafe { std::slice::from_raw_parts(base.as_ptr(), len) },
            None => &[],
        }
    }

    /// Where it is, for the kernel.
    pub(super) fn address(&self) -> *mut u8 {
        self.block.map_or(std::ptr::null_mut(), |(base, _)| base.as_ptr())
    }

    fn free(&mut self) {
        if let Some((base, layout)) = self.block.take() {
            // SAFETY: `base` came from `allocate` with this layout, and is forgotten here.
            unsafe { dealloc(base.as_ptr(), layout) };
        }
    }
}

impl Drop for Bounce {
    fn drop(&mut self) {
        self.free();
    }
}

fn allocate(size: usize) -> (NonNull<u8>, Layout) {
    // SAFETY: `size` is not zero, and a multiple of the alignment, which is a power of two; a
    // command's data is bounded far below `isize::MAX`.
    unsafe {
        let layout = Layout::from_size_align_unchecked(size, SG_BOUNCE_ALIGN);
        let Some(base) = NonNull::new(alloc(layout)) else { handle_alloc_error(layout) };
        std::ptr::write_bytes(base.as_ptr(), 0, size);
        (base, layout)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffer::OwnedBuffer;

    #[test]
    fn bounce_is_aligned_and_carries_data_both_ways() {
        let mut bounce = Bounce::default();
        let guest = OwnedBuffer::from_vec((0..100).collect());
        bounce.prepare(100);
        assert_eq!(bounce.address() as usize % SG_BOUNCE_ALIGN, 0);
        bounce.load(guest.segments());
        let back = OwnedBuffer::zeroed(100);
        bounce.store(back.segments(), 60);
        assert_eq!(back.to_vec()[..60], guest.to_vec()[..60]);
        assert_eq!(back.to_vec()[60..], [0; 40]);
    }

    #[test]
    fn bounce_keeps_little_of_what_a_large_command_needed() {
        let mut bounce = Bounce::default();
        bounce.prepare(4 * SG_BOUNCE_KEEP);
        bounce.prepare(512);
        assert_eq!(bounce.block.map(|(_, layout)| layout.size()), Some(SG_BOUNCE_ALIGN));
        bounce.prepare(0);
        assert!(bounce.bytes(100).is_empty());
    }
}
