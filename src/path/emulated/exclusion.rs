//! Keeps plain writes out of COMPARE AND WRITE and ORWRITE, whichever port they come through.
//!
//! Those two read, decide and write, and SBC-4 wants nothing to come in between (4.24, 5.3). Plain
//! writes are the hot path and must not take a lock for their sake. So each channel counts its
//! own writes under way in a [`Gauge`] nobody else writes to; an exclusive command closes the gate
//! and waits until all gauges are at zero. A plain write that finds the gate closed steps back and
//! goes in turn, behind the lock. Block ranges are not looked at: the exclusive commands are rare
//! (a cluster's heartbeat) and short, and a table of ranges would put a lock into every write.
//!
//! A read beside them sees each block of an image in memory before or after (`stripes.rs`); on a disk,
//! what the kernel lets it see, which on some file systems may be half of each. SBC asks no more.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::lock;
use crate::limits::EMULATED_EXCLUSIVE_WAIT;

/// How long an exclusive command sleeps between two looks at the gauges, once looking often has
/// not helped.
const WAIT: Duration = Duration::from_micros(50);
/// Looks before it sleeps.
const SPINS: u32 = 100;

/// The gate of one array.
#[derive(Debug, Default)]
pub(super) struct Exclusion {
    closed: AtomicBool,
    turn: Mutex<()>,
    gauges: Mutex<Vec<Arc<Gauge>>>,
}

/// Writes under way in one channel. In a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct Gauge(AtomicU32);

impl Exclusion {
    /// A gauge for a new channel.
    pub(super) fn gauge(&self) -> Arc<Gauge> {
        let gauge = Arc::new(Gauge::default());
        let mut gauges = lock(&self.gauges);
        // Those that only the list still holds belong to channels that are gone.
        gauges.retain(|gauge| Arc::strong_count(gauge) > 1);
        gauges.push(gauge.clone());
        gauge
    }

    /// Begins a plain write; false when it has to go [in turn](Exclusion::in_turn).
    pub(super) fn enter(&self, gauge: &Gauge) -> bool {
        // Count first and look second, both sequentially consistent, as `alone` closes first and
        // looks second: at least one of the two sees the other.
        gauge.0.fetch_add(1, Ordering::SeqCst);
        if self.closed.load(Ordering::SeqCst) {
            gauge.0.fetch_sub(1, Ordering::SeqCst);
            return false;
        }
        true
    }

    /// Ends a plain write.
    pub(super) fn leave(&self, gauge: &Gauge) {
        let before = gauge.0.fetch_sub(1, Ordering::SeqCst);
        debug_assert!(before > 0, "a write left that had not entered");
    }

    /// Runs a write that may wait, when no exclusive command is under way.
    pub(super) fn in_turn<T>(&self, run: impl FnOnce() -> T) -> T {
        let _turn = lock(&self.turn);
        run()
    }

    /// Runs an exclusive command, when no write is under way; `None` when one does not end in
    /// time. The wait has a bound because a write counts until its lane has seen its end, and
    /// that lane may be busy closing a channel whose exclusive command waits here.
    pub(super) fn alone<T>(&self, run: impl FnOnce() -> T) -> Option<T> {
        let _turn = lock(&self.turn);
        self.closed.store(true, Ordering::SeqCst);
        // A copy: a channel that comes now finds the gate closed, and must not have to wait for
        // the list, since its thread may be one that has writes to end.
        let gauges = lock(&self.gauges).clone();
        let deadline = Instant::now() + EMULATED_EXCLUSIVE_WAIT;
        let idle = gauges.iter().all(|gauge| gauge.is_idle_by(deadline));
        let result = idle.then(run);
        self.closed.store(false, Ordering::SeqCst);
        result
    }
}

impl Gauge {
    fn is_idle_by(&self, deadline: Instant) -> bool {
        let mut looks = 0;
        while self.0.load(Ordering::SeqCst) != 0 {
            looks += 1;
            if looks < SPINS {
                std::thread::yield_now();
            } else if Instant::now() < deadline {
                std::thread::sleep(WAIT);
            } else {
                return false;
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU64;

    #[test]
    fn alone_keeps_writes_out() {
        let exclusion = Exclusion::default();
        let (value, wrong) = (AtomicU64::new(0), AtomicU32::new(0));
        std::thread::scope(|scope| {
            for _ in 0..2 {
                let gauge = exclusion.gauge();
                let (exclusion, value) = (&exclusion, &value);
                scope.spawn(move || {
                    for _ in 0..2000 {
                        let write = || value.fetch_add(1, Ordering::Relaxed);
                        if exclusion.enter(&gauge) {
                            write();
                            exclusion.leave(&gauge);
                        } else {
                            exclusion.in_turn(write);
                        }
                    }
                });
            }
            for _ in 0..200 {
                let ran = exclusion.alone(|| {
                    let before = value.load(Ordering::Relaxed);
                    std::thread::yield_now();
                    if value.load(Ordering::Relaxed) != before {
                        wrong.fetch_add(1, Ordering::Relaxed);
                    }
                });
                assert!(ran.is_some());
            }
        });
        assert_eq!(wrong.into_inner(), 0);
        assert_eq!(value.into_inner(), 4000);
    }

    #[test]
    fn alone_gives_up_on_a_write_that_does_not_end() {
        let exclusion = Exclusion::default();
        let gauge = exclusion.gauge();
        assert!(exclusion.enter(&gauge));
        assert_eq!(exclusion.alone(|| ()), None);
        exclusion.leave(&gauge);
        assert_eq!(exclusion.alone(|| ()), Some(()));
        assert!(exclusion.enter(&gauge));
    }
}
