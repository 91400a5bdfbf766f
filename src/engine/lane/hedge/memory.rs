//! Memory of our own for reads that may be cloned.
//!
//! A [`Lent`] is memory that an attempt may be writing to. It cannot be freed by accident: dropped
//! in any other way than by [`Pool::take_back`], it is lost for good, which is the lesser evil
//! beside a path that writes to memory that somebody else has by then. Only the attempt's end may
//! give it back; see the rule of lent memory in [`crate::path`].

use std::mem::ManuallyDrop;

use crate::buffer::{OwnedBuffer, Segments};
use crate::limits::{HEDGE_POOL_BYTES, HEDGE_SIZES};

/// Memory that is lent, or may be.
#[derive(Debug)]
pub struct Lent(ManuallyDrop<Block>);

#[derive(Debug)]
struct Block {
    buffer: OwnedBuffer,
    /// The first bytes of the buffer: as many as the read has room for.
    room: Segments,
}

impl Lent {
    /// The memory, as long as the read that it was taken for.
    pub fn room(&self) -> &Segments {
        &self.0.room
    }
}

/// Which of [`HEDGE_SIZES`] a read of `bytes` belongs to; `None` for one that is too long.
pub fn size_class(bytes: usize) -> Option<usize> {
    HEDGE_SIZES.iter().position(|size| bytes <= *size)
}

/// A lane's memory, of [`HEDGE_POOL_BYTES`] at most. What was used once is used again.
#[derive(Debug, Default)]
pub struct Pool {
    free: [Vec<Block>; HEDGE_SIZES.len()],
    /// Bytes of all buffers, the lent ones too.
    bytes: usize,
}

impl Pool {
    /// Memory for a read of `bytes`; `None` when too much is lent.
    pub fn take(&mut self, bytes: usize) -> Option<Lent> {
        let class = size_class(bytes)?;
        let mut block = match self.free[class].pop() {
            Some(block) => block,
            None => {
                let size = HEDGE_SIZES[class];
                if self.bytes + size > HEDGE_POOL_BYTES {
                    return None;
                }
                self.bytes += size;
                Block { buffer: OwnedBuffer::zeroed(size), room: Segments::new() }
            }
        };
        block.room.assign_range(block.buffer.segments(), 0, bytes);
        Some(Lent(ManuallyDrop::new(block)))
    }

    /// The attempt has ended.
    pub fn take_back(&mut self, memory: Lent) {
        let block = ManuallyDrop::into_inner(memory.0);
        if let Some(class) = size_class(block.buffer.segments().len()) {
            self.free[class].push(block);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pool_is_bounded_and_uses_its_memory_again() {
        let mut pool = Pool::default();
        let largest = *HEDGE_SIZES.last().unwrap();
        let all: Vec<Lent> = std::iter::from_fn(|| pool.take(largest)).collect();
        assert_eq!(all.len(), HEDGE_POOL_BYTES / largest);
        assert!(pool.take(512).is_none(), "all of it is lent");
        let address = |lent: &Lent| lent.room().as_iovecs()[0].iov_base as usize;
        let known: Vec<usize> = all.iter().map(address).collect();
        all.into_iter().for_each(|lent| pool.take_back(lent));
        let again = pool.take(largest - 1).unwrap();
        assert!(known.contains(&address(&again)));
        assert_eq!(again.room().len(), largest - 1);
        assert!(pool.take(largest + 1).is_none(), "longer than any");
        pool.take_back(again);
    }
}
