//! Looking at the rings for a moment before going to sleep.
//!
//! To sleep and to be woken costs both sides a system call or two, and the driver a wait. A driver
//! that gives its next request a few microseconds after an answer is better waited for awake. How
//! long the thread looks adapts, as in QEMU's event loop and in KVM: the time grows while sleeps
//! turn out to be short, up to a bound, and falls to nothing when one was long. The bound is about
//! what a sleep costs, so that it cannot cost more than twice what the better choice would have.
//!
//! Only the driver is waited for so. While commands are on paths, who works on them may need this
//! very processor. At most half of the processors are kept busy by looking, however many lanes
//! there are; with one processor nobody looks.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::limits::SPIN_FIRST;

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
    /// How many threads may look at the same time.
    threads: usize,
}

impl Spin {
    /// For `most` at most; not at all where that is zero, or where there is one processor.
    pub fn new(most: Duration) -> Self {
        Spin { most, now: Duration::ZERO, threads: processors() / 2 }
    }

    /// Looks until `is_there` or the time is up; true when it is there.
    pub fn look(&self, is_there: impl Fn() -> bool) -> bool {
        if self.now.is_zero() {
            return false;
        }
        let found = LOOKING.fetch_add(1, Ordering::Relaxed) < self.threads && {
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
        found
    }

    /// The thread has looked in vain, and then was woken after it had slept for `time`.
    pub fn slept(&mut self, time: Duration) {
        self.now = match self.now + time > self.most {
            true => Duration::ZERO,
            false => (2 * self.now).max(SPIN_FIRST).min(self.most),
        };
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
        Spin { most: MOST, now, threads: usize::MAX }
    }

    #[test]
    fn time_grows_with_short_sleeps_up_to_the_bound_and_ends_with_a_long_one() {
        let mut spin = spin(Duration::ZERO);
        let mut times = Vec::new();
        for _ in 0..5 {
            spin.slept(Duration::ZERO);
            times.push(spin.now.as_micros());
        }
        assert_eq!(times, [4, 8, 16, 32, 32]);
        spin.slept(Duration::from_nanos(1));
        assert_eq!(spin.now, Duration::ZERO);
        spin.slept(MOST + Duration::from_nanos(1));
        assert_eq!(spin.now, Duration::ZERO);
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
        let mut off = Spin::new(Duration::ZERO);
        off.slept(Duration::ZERO);
        assert_eq!(off.now, Duration::ZERO);
    }
}
