//! What `service-time` knows of a path: how long a command takes on it, and what its next one would
//! take.
//!
//! A command of `b` bytes on a path that carries `n` commands with `B` bytes is expected to take
//!
//! ```text
//!   unit * (1 + n / PARALLEL + (B + b) / UNIT_BYTES)
//! ```
//!
//! where `unit` is the average of what its commands took lately, each divided by
//! `1 + b / UNIT_BYTES`. In words: a command costs as much as [`UNIT_BYTES`] of data; the data of
//! all commands goes over one wire, one after the other; of everything else a path does
//! [`PARALLEL`] commands at once before the next one has to wait as long again.
//!
//! What is under way counts at once, whichever lane sent it: so lanes that choose at the same
//! moment do not all choose the same path, although the average is news of yesterday.
//!
//! What was tried: the time between two ends (the more a path carries, the better it looks, so
//! that a path that was idle stays idle); the average multiplied with the commands under way (a
//! path four times slower gets a share of the commands from the first queued one on, and they are
//! the slowest percent); two averages, per command and per byte, by regression (both walk away
//! where all commands have one size).

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::limits::{SERVICE_PARALLEL, SERVICE_UNIT_BYTES};

/// A new measurement counts 1/8 in the average.
const AVERAGE_SHIFT: u32 = 3;
const UNIT_BYTES: u64 = SERVICE_UNIT_BYTES as u64;
const PARALLEL: u64 = SERVICE_PARALLEL as u64;

/// The averages of one path. Times are nanoseconds since an epoch of the owner's.
#[derive(Debug, Default)]
pub struct Service {
    /// See the module's text; 0 before the first measurement.
    unit_ns: AtomicU64,
    /// When that was last measured.
    measured_ns: AtomicU64,
    /// When a command was last sent only to measure.
    asked_ns: AtomicU64,
}

impl Service {
    /// A command of `bytes` was answered, `took_ns` after it was sent.
    pub fn measured(&self, bytes: u32, took_ns: u64, now_ns: u64) {
        // Three days are as good as longer, and fit.
        let whole = took_ns.min(u64::MAX / UNIT_BYTES) * UNIT_BYTES;
        let sample = whole / (UNIT_BYTES + u64::from(bytes));
        let old = self.unit_ns.load(Relaxed);
        // Lanes may lose an update to each other; the average stands that.
        let new = match old {
            0 => sample,
            _ => old - (old >> AVERAGE_SHIFT) + (sample >> AVERAGE_SHIFT),
        };
        self.unit_ns.store(new.max(1), Relaxed);
        self.measured_ns.store(now_ns, Relaxed);
    }

    /// What the next command, of `bytes`, would take; of a path that was never measured something
    /// that only compares with others like it.
    pub fn cost(&self, bytes: u32, commands: u32, bytes_ahead: u64) -> Cost {
        let unit = self.unit_ns.load(Relaxed);
        let waiting = u64::from(commands) * (UNIT_BYTES / PARALLEL);
        let units = UNIT_BYTES + u64::from(bytes) + waiting + bytes_ahead;
        let ns = unit.max(1).saturating_mul(units) / UNIT_BYTES;
        Cost(if unit == 0 { Cost::UNMEASURED | ns } else { ns })
    }

    /// True for one caller when nothing was measured for `stale_ns`: it is to send a command here,
    /// whatever that costs.
    pub fn take_turn_to_measure(&self, now_ns: u64, stale_ns: u64) -> bool {
        let unmeasured = self.unit_ns.load(Relaxed) == 0;
        let old = |at: u64| now_ns.saturating_sub(at) > stale_ns;
        let asked = self.asked_ns.load(Relaxed);
        if !(unmeasured || old(self.measured_ns.load(Relaxed))) || !(asked == 0 || old(asked)) {
            return false;
        }
        self.asked_ns.compare_exchange(asked, now_ns.max(1), Relaxed, Relaxed).is_ok()
    }

    /// True before the first measurement.
    pub fn is_unmeasured(&self) -> bool {
        self.unit_ns.load(Relaxed) == 0
    }
}

/// An expectation: nanoseconds. What was never measured comes after what was, by a bit above them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cost(u64);

impl Cost {
    /// Far above the nanoseconds, which are a product of 64 bits divided by [`UNIT_BYTES`].
    const UNMEASURED: u64 = 1 << 63;
    /// Less than any path's.
    pub const MIN: Cost = Cost(0);
    /// More than any path's.
    pub const MAX: Cost = Cost(u64::MAX);

    /// Nothing is known yet: the nanoseconds only compare with others of this kind.
    pub fn is_unmeasured(self) -> bool {
        self.0 & Self::UNMEASURED != 0
    }

    /// The last one that comes to about the same: averages are not better than that.
    pub fn about(self) -> Cost {
        Cost(self.0 + (self.0 & !Self::UNMEASURED) / 8)
    }
}

const _: () = assert!(u64::MAX / UNIT_BYTES / 8 * 9 < Cost::UNMEASURED);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cost_of_mixed_sizes_is_one_average() {
        let service = Service::default();
        // A path that takes 100 us and 100 us more for each 64 KiB.
        for (bytes, us) in [(0, 100), (65_536, 200), (1 << 20, 1700)].repeat(20) {
            service.measured(bytes, us * 1000, 1);
        }
        for (bytes, us) in [(0, 100), (65_536, 200), (1 << 20, 1700)] {
            let ns = service.cost(bytes, 0, 0).0 / 1000;
            assert!((us - 3..us + 3).contains(&ns), "{bytes}: {ns} us");
        }
    }

    #[test]
    fn cost_counts_what_is_under_way() {
        let service = Service::default();
        service.measured(0, 1_000_000, 1);
        let base = service.cost(0, 0, 0).0;
        assert_eq!(service.cost(0, SERVICE_PARALLEL, 0).0, 2 * base);
        assert_eq!(service.cost(0, 0, UNIT_BYTES).0, 2 * base);
    }

    #[test]
    fn unmeasured_comes_after_measured() {
        let (one, other) = (Service::default(), Service::default());
        one.measured(0, 5_000_000_000, 1);
        assert!(one.cost(0, 1000, 0) < other.cost(0, 0, 0));
        assert!(other.cost(0, 0, 0) < other.cost(0, 8, 0));
    }

    #[test]
    fn turn_to_measure_is_one_callers_at_a_time() {
        let service = Service::default();
        assert!(service.take_turn_to_measure(5, 100));
        assert!(!service.take_turn_to_measure(5, 100), "asked a moment ago");
        service.measured(0, 10, 50);
        assert!(!service.take_turn_to_measure(140, 100), "measured a moment ago");
        assert!(service.take_turn_to_measure(151, 100));
        assert!(!service.take_turn_to_measure(152, 100));
    }
}
