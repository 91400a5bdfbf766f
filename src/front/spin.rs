//! Looking at the rings for a moment before going to sleep.
//!
//! To sleep and to be woken costs both sides a system call or two, and the driver a wait. A driver
//! that gives its next request a few microseconds after an answer is better waited for awake. How
//! long the thread looks adapts, as in QEMU's event loop and in KVM: the time grows while sleeps
//! turn out to be short, up to a bound, and falls to nothing when they are long.
//!
//! That a sleep was short does not yet mean that looking would have helped: where the driver runs
//! on this very processor, it is the sleep that lets it go on, and looking only keeps it from that.
//! So a thread that has looked in vain again and again leaves it for a number of sleeps, and for
//! more of them each time until a look finds something.
//!
//! Only the driver is waited for so. While commands are on paths, who works on them may need this
//! very processor. At most half of the processors are kept busy by looking, however many lanes
//! there are; with one processor nobody looks.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::limits::{SPIN_FIRST, SPIN_REST_FIRST, SPIN_REST_MOST, SPIN_VAIN_MAX};

/// Looks between two readings of the clock.
const LOOKS: u32 = 8;

/// Threads that are looking now.
static LOOKING: AtomicUsize = AtomicUsize::new(0);

/// Processors that this process may use, by its affinity and its quota. To be asked once before
/// threads are confined: a lane may not read what its quota is.
pub fn processors() -> usize {
    static PROCESSORS: OnceLock<usize> = OnceLock::new();
    *PROCESSORS.get_or_init(|| thread::available_parallelism().map_or(1, usize::from))
}

/// How long one thread looks before it sleeps.
#[derive(Debug)]
pub struct Spin {
    /// Never longer.
    most: Duration,
    /// For so long at present.
    now: Duration,
    /// For so long before the sleep that is now.
    looked: Duration,
    /// Looks in vain since one found something.
    in_vain: u32,
    /// Sleeps for which nobody looks.
    rest: u32,
    /// Sleeps of the next rest.
    next_rest: u32,
    /// How many threads may look at the same time.
    threads: usize,
}

impl Spin {
    /// For `most` at most; not at all where that is zero, or where there is one processor.
    pub fn new(most: Duration) -> Self {
        Spin {
            most,
            now: Duration::ZERO,
            looked: Duration::ZERO,
            in_vain: 0,
            rest: 0,
            next_rest: SPIN_REST_FIRST,
            threads: processors() / 2,
        }
    }

    /// Looks until `is_there` or the time is up; true when it is there.
    pub fn look(&mut self, is_there: impl Fn() -> bool) -> bool {
        self.looked = Duration::ZERO;
        if self.now.is_zero() {
            return false;
        }
        let found = LOOKING.fetch_add(1, Ordering::Relaxed) < self.threads && {
            self.looked = self.now;
            let end = Instant::now() + self.now;
            loop {
                if (0..LOOKS).any(|_| sees(&is_there)) {
                    break true;
                }
                if Instant::now() >= end {
                    break false;
                }
            }
        };
        LOOKING.fetch_sub(1, Ordering::Relaxed);
        if found {
            self.in_vain = 0;
            self.next_rest = SPIN_REST_FIRST;
        }
        found
    }

    /// The thread has looked in vain, or not at all, and then was woken after it had slept for
    /// `time`.
    pub fn slept(&mut self, time: Duration) {
        if self.rest > 0 {
            self.rest -= 1;
            return;
        }
        if !self.looked.is_zero() {
            self.in_vain += 1;
        }
        if self.in_vain == SPIN_VAIN_MAX {
            self.in_vain = 0;
            self.rest = self.next_rest;
            self.next_rest = (2 * self.next_rest).min(SPIN_REST_MOST);
            self.now = Duration::ZERO;
            return;
        }
        let grown = (2 * self.now).max(SPIN_FIRST).min(self.most);
        let shrunk = Some(self.now / 2).filter(|half| *half >= SPIN_FIRST);
        let is_short = self.looked + time <= self.most;
        self.now = if is_short { grown } else { shrunk.unwrap_or_default() };
    }
}

/// Looks once; a moment's rest for the processor where nothing is there.
fn sees(is_there: &impl Fn() -> bool) -> bool {
    let there = is_there();
    if !there {
        std::hint::spin_loop();
    }
    there
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: Duration = Duration::from_micros(32);

    fn spin(now: Duration) -> Spin {
        Spin { now, threads: usize::MAX, ..Spin::new(MOST) }
    }

    /// One look in vain, and a sleep.
    fn in_vain(spin: &mut Spin, time: Duration) -> u128 {
        assert!(!spin.look(|| false));
        spin.slept(time);
        spin.now.as_micros()
    }

    #[test]
    fn time_grows_with_short_sleeps_up_to_the_bound_and_ends_with_long_ones() {
        let mut spin = spin(Duration::ZERO);
        let short: Vec<_> = (0..5).map(|_| in_vain(&mut spin, Duration::ZERO)).collect();
        assert_eq!(short, [4, 8, 16, 32, 32]);
        assert!(spin.look(|| true));
        let long: Vec<_> = (0..5).map(|_| in_vain(&mut spin, MOST)).collect();
        assert_eq!(long, [16, 8, 4, 0, 4], "the last one would have been found in time");
    }

    #[test]
    fn time_grows_no_more_when_a_look_is_not_short_enough() {
        let mut spin = spin(MOST / 2);
        assert_eq!(in_vain(&mut spin, MOST / 2), 32, "together as long as may be");
        assert_eq!(in_vain(&mut spin, Duration::from_nanos(1)), 16);
    }

    #[test]
    fn look_rests_after_many_in_vain_and_longer_each_time_until_one_finds_something() {
        let mut spin = spin(Duration::ZERO);
        let rests = |spin: &mut Spin| {
            while spin.rest == 0 {
                in_vain(spin, Duration::ZERO);
            }
            let rest = spin.rest;
            (0..rest).for_each(|_| assert_eq!(in_vain(spin, Duration::ZERO), 0));
            rest
        };
        let first = rests(&mut spin);
        assert_eq!(first, SPIN_REST_FIRST);
        assert_eq!(rests(&mut spin), 2 * first);
        let last = (0..20).map(|_| rests(&mut spin)).last();
        assert_eq!(last, Some(SPIN_REST_MOST));
        in_vain(&mut spin, Duration::ZERO);
        assert!(spin.look(|| true));
        assert_eq!(rests(&mut spin), first);
    }

    #[test]
    fn look_is_over_when_it_is_there_or_the_time_is_up() {
        assert!(spin(MOST).look(|| true));
        let start = Instant::now();
        assert!(!spin(MOST).look(|| false));
        assert!(start.elapsed() >= MOST);
        assert!(!spin(Duration::ZERO).look(|| true), "there is no time to look");
    }

    #[test]
    fn look_is_not_for_more_threads_than_may() {
        let mut spin = spin(MOST);
        spin.threads = 0;
        assert!(!spin.look(|| true));
        (0..2 * SPIN_VAIN_MAX).for_each(|_| spin.slept(Duration::ZERO));
        assert_eq!((spin.rest, spin.now), (0, MOST), "nobody has looked in vain");
        let mut off = Spin::new(Duration::ZERO);
        off.slept(Duration::ZERO);
        assert_eq!(off.now, Duration::ZERO);
    }
}
