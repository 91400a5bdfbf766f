//! Keeps writes of one block apart, and reads from half of a write, where data is copied by us and
//! not by the kernel.
//!
//! Each page belongs to a stripe, by its address; several pages share one. A write holds the stripes
//! of its pages for as long as it copies: it makes their numbers odd, and even again, and higher, at
//! its end. A read looks at the numbers before and after its copy, and copies again where one was odd
//! or has changed: it writes nothing, so that reads of many lanes cost each other nothing. Where it is
//! unlucky several times it holds the stripes as a write does.
//!
//! A block is no larger than a page, so each is before or after a write as a whole. Of several blocks
//! nothing is promised; SCSI does not.
//!
//! What is done under a stripe is a copy or one call into the kernel that waits for no disk (for
//! memory it may). Who finds one taken looks again some times and then sleeps between its looks, as the
//! other may have no processor.

use std::hint;
use std::sync::atomic::{AtomicU32, Ordering, fence};
use std::thread;
use std::time::Duration;

/// Bytes that have one stripe: no less than a block.
const PAGE: u64 = 4096;
/// So many that a read of some pages rarely meets a write of others.
const STRIPES: usize = 1024;
/// Bytes of one call into the kernel at most: others wait for no more.
pub(super) const HELD_MAX: usize = 1 << 20;
/// Copies of a read before it holds the stripes.
const TRIES: u32 = 4;
/// Looks at a stripe before sleeping between them.
const SPINS: u32 = 100;
/// How long to sleep.
const WAIT: Duration = Duration::from_micros(50);

/// The stripes of one image.
#[derive(Debug)]
pub(super) struct Stripes(Box<[AtomicU32]>);

impl Default for Stripes {
    fn default() -> Self {
        Stripes((0..STRIPES).map(|_| AtomicU32::new(0)).collect())
    }
}

impl Stripes {
    /// Runs a write of `len` bytes at `offset`, alone on its pages.
    pub(super) fn write<T>(&self, offset: u64, len: usize, run: impl FnOnce() -> T) -> T {
        let held = Held::take(self, Span::of(offset, len));
        let result = run();
        drop(held);
        result
    }

    /// Runs a read of `len` bytes at `offset`, again where a write came between.
    pub(super) fn read<T>(&self, offset: u64, len: usize, mut run: impl FnMut() -> T) -> T {
        let span = Span::of(offset, len);
        for _ in 0..TRIES {
            if let Some(before) = self.state(span) {
                let result = run();
                // The data is read before the numbers are once more.
                fence(Ordering::Acquire);
                if self.state(span) == Some(before) {
                    return result;
                }
            }
        }
        self.write(offset, len, run)
    }

    /// What is another number after each write; `None` while one is under way. Numbers only grow, and
    /// the sum has room for them all.
    fn state(&self, span: Span) -> Option<u64> {
        let mut sum = 0;
        for at in span.stripes() {
            let number = self.0[at].load(Ordering::Acquire);
            if number & 1 != 0 {
                return None;
            }
            sum += u64::from(number);
        }
        Some(sum)
    }
}

/// The stripes of a range: a run of them, which may go on at the beginning.
#[derive(Clone, Copy)]
struct Span {
    first: usize,
    count: usize,
}

impl Span {
    fn of(offset: u64, len: usize) -> Self {
        let (first, last) = (offset / PAGE, (offset + (len as u64).max(1) - 1) / PAGE);
        let count = usize::try_from(last - first + 1).unwrap_or(STRIPES).min(STRIPES);
        Span { first: first as usize % STRIPES, count }
    }

    /// In ascending order: so that nobody waits for one that waits for it.
    fn stripes(self) -> impl Iterator<Item = usize> {
        let end = self.first + self.count;
        (0..end.saturating_sub(STRIPES)).chain(self.first..end.min(STRIPES))
    }
}

/// Stripes that are held.
struct Held<'a>(&'a Stripes, Span);

impl<'a> Held<'a> {
    fn take(stripes: &'a Stripes, span: Span) -> Self {
        for at in span.stripes() {
            let stripe = &stripes.0[at];
            let mut looks = 0;
            loop {
                let number = stripe.load(Ordering::Relaxed);
                let free = number & 1 == 0;
                let take = |from| {
                    stripe.compare_exchange_weak(
                        from,
                        from + 1,
                        Ordering::Acquire,
                        Ordering::Relaxed,
                    )
                };
                if free && take(number).is_ok() {
                    break;
                }
                looks += 1;
                if looks < SPINS { hint::spin_loop() } else { thread::sleep(WAIT) }
            }
        }
        // The numbers are odd before the data changes.
        fence(Ordering::Release);
        Held(stripes, span)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        for at in self.1.stripes() {
            // Nobody else changes a number that is odd.
            let stripe = &self.0.0[at];
            stripe.store(stripe.load(Ordering::Relaxed).wrapping_add(1), Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    fn span(offset: u64, len: usize) -> Vec<usize> {
        Span::of(offset, len).stripes().collect()
    }

    #[test]
    fn stripes_of_a_range_are_its_pages_in_ascending_order() {
        assert_eq!(span(0, 512), [0]);
        assert_eq!(span(4096, 4096), [1]);
        assert_eq!(span(4096 + 512, 4096), [1, 2]);
        let last = (STRIPES as u64 - 1) * PAGE;
        assert_eq!(span(last, 3 * 4096), [0, 1, STRIPES - 1]);
        assert_eq!(span(last + 5 * STRIPES as u64 * PAGE, 1), [STRIPES - 1]);
        assert_eq!(span(7 * PAGE, 32 << 20), (0..STRIPES).collect::<Vec<_>>());
    }

    #[test]
    fn read_is_done_again_after_a_write_came_between() {
        let stripes = Stripes::default();
        let runs = Cell::new(0);
        let read = |offset: u64| {
            runs.set(0);
            stripes.read(0, 512, || {
                runs.set(runs.get() + 1);
                if runs.get() == 1 {
                    stripes.write(offset, 512, || ());
                }
            });
            runs.get()
        };
        assert_eq!(read(512), 2, "of the same page");
        assert_eq!(read(4096), 1, "of another one");
        let mut tries = 0;
        stripes.read(0, 512, || {
            tries += 1;
            if tries <= TRIES {
                stripes.write(0, 512, || ());
            }
        });
        assert_eq!(tries, TRIES + 1, "at last it holds the stripe");
    }

    /// Writers of one block, some with more beside it, and a reader: each gives way in the middle of
    /// its copy. The words are what is copied.
    #[test]
    fn writes_do_not_mix_and_reads_see_none_of_them_by_half() {
        use std::sync::atomic::AtomicU64;
        const ROUNDS: usize = 60;
        let stripes = Stripes::default();
        let block: Vec<AtomicU64> = (0..64).map(|_| AtomicU64::new(0)).collect();
        let (stripes, block) = (&stripes, &block[..]);
        let halves = || {
            let (first, second) = block.split_at(block.len() / 2);
            [first, second].into_iter().inspect(|_| thread::yield_now())
        };
        std::thread::scope(|scope| {
            for writer in 1..=2_u64 {
                scope.spawn(move || {
                    for round in 0..ROUNDS {
                        let len = if round % 2 == 0 { 512 } else { HELD_MAX };
                        stripes.write(0, len, || {
                            for words in halves() {
                                words.iter().for_each(|word| word.store(writer, Ordering::Relaxed));
                            }
                            let ours = |word: &AtomicU64| word.load(Ordering::Relaxed) == writer;
                            assert!(block.iter().all(ours), "another write in the middle of ours");
                        });
                    }
                });
            }
            scope.spawn(move || {
                for _ in 0..ROUNDS {
                    let mut seen = Vec::new();
                    stripes.read(0, 512, || {
                        seen.clear();
                        for words in halves() {
                            seen.extend(words.iter().map(|word| word.load(Ordering::Relaxed)));
                        }
                    });
                    assert!(seen.iter().all(|word| *word == seen[0]), "{seen:?}");
                }
            });
        });
    }
}
