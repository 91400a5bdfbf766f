//! Counters. Each lane writes its own, without a lock and without sharing; who reads adds them up.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use crate::ids::PathId;
use crate::limits::PATHS_MAX;
use crate::multipath::classify::Class;
use crate::scsi::opcode;

/// Latency buckets: the first up to 1 us, each next one twice as far, the last without an end.
pub const BUCKETS: usize = 28;

/// Kinds of ends that are counted as errors, in the order of [`PathCounters::errors`].
pub const ERROR_CLASSES: [&str; 7] =
    ["path-failed", "busy", "access-state", "unit-attention", "unmapped", "aborted", "other"];

/// What one lane did over one path.
#[derive(Debug, Default)]
pub struct PathCounters {
    /// Commands that read blocks.
    pub reads: AtomicU64,
    /// Commands that wrote blocks.
    pub writes: AtomicU64,
    /// All other commands.
    pub other: AtomicU64,
    /// Bytes to the guest.
    pub read_bytes: AtomicU64,
    /// Bytes from the guest.
    pub write_bytes: AtomicU64,
    /// Attempts that ended without a last word, by [`ERROR_CLASSES`].
    pub errors: [AtomicU64; ERROR_CLASSES.len()],
    /// Attempts that were not a command's first.
    pub retries: AtomicU64,
    /// Commands that went on over another path.
    pub failovers: AtomicU64,
    /// Time from sending to the end, of attempts that were answered.
    pub latency: [AtomicU64; BUCKETS],
    /// The sum of these times, in microseconds.
    pub latency_sum_us: AtomicU64,
}

impl PathCounters {
    /// An attempt of a command of `opcode` was answered for good.
    pub fn answered(&self, opcode: u8, bytes_in: u64, bytes_out: u64, took: Duration) {
        let kind = match opcode {
            opcode if opcode::is_read(opcode) => &self.reads,
            opcode if opcode::is_write(opcode) => &self.writes,
            _ => &self.other,
        };
        bump(kind, 1);
        bump(&self.read_bytes, bytes_in);
        bump(&self.write_bytes, bytes_out);
        let us = microseconds(took);
        bump(&self.latency[bucket(us)], 1);
        bump(&self.latency_sum_us, us);
    }

    /// An attempt ended otherwise.
    pub fn error(&self, class: Class) {
        let at = match class {
            Class::PathFailed(_) => 0,
            Class::Load | Class::HostBusy => 1,
            Class::Access(_) | Class::AccessChanged(_) => 2,
            Class::Doubt(_) | Class::SizeChanged | Class::Attention(_) => 3,
            Class::Unmapped => 4,
            Class::Aborted | Class::Disturbed => 5,
            Class::Done | Class::Conflict | Class::Unsupported => 6,
        };
        bump(&self.errors[at], 1);
    }
}

/// Adds without a locked instruction: only one thread writes a counter.
pub fn bump(counter: &AtomicU64, by: u64) {
    counter.store(counter.load(Relaxed).wrapping_add(by), Relaxed);
}

/// As many as fit.
fn microseconds(time: Duration) -> u64 {
    time.as_secs().saturating_mul(1_000_000).saturating_add(time.subsec_micros().into())
}

fn bucket(us: u64) -> usize {
    let above = us.saturating_sub(1);
    ((u64::BITS - above.leading_zeros()) as usize).min(BUCKETS - 1)
}

/// The upper end of a latency bucket in microseconds; `None` for the last.
pub fn bucket_end_us(bucket: usize) -> Option<u64> {
    (bucket + 1 < BUCKETS).then(|| 1 << bucket)
}

/// What one lane did about slow reads.
#[derive(Debug, Default)]
pub struct HedgeCounters {
    /// Reads that were cloned.
    pub sent: AtomicU64,
    /// Clones that were first.
    pub won: AtomicU64,
    /// Slow reads that were not cloned, for want of budget or memory.
    pub denied: AtomicU64,
    /// Times that cloning was given up for a while because it did not help.
    pub pauses: AtomicU64,
}

/// Sums of [`HedgeCounters`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HedgeTotals {
    /// As [`HedgeCounters::sent`].
    pub sent: u64,
    /// As [`HedgeCounters::won`].
    pub won: u64,
    /// As [`HedgeCounters::denied`].
    pub denied: u64,
    /// As [`HedgeCounters::pauses`].
    pub pauses: u64,
}

/// One lane's counters; a path's are made when the lane first uses it.
#[derive(Debug)]
pub struct LaneCounters {
    /// Commands in the lane's table now: on a path or waiting for one.
    pub held: AtomicU64,
    /// Slow reads.
    pub hedges: HedgeCounters,
    paths: Vec<OnceLock<Box<PathCounters>>>,
}

impl Default for LaneCounters {
    fn default() -> Self {
        LaneCounters {
            held: AtomicU64::new(0),
            hedges: HedgeCounters::default(),
            paths: (0..PATHS_MAX).map(|_| OnceLock::new()).collect(),
        }
    }
}

impl LaneCounters {
    /// The counters of `path`.
    pub fn path(&self, path: PathId) -> &PathCounters {
        self.paths[usize::from(path.0) % PATHS_MAX].get_or_init(Box::default)
    }

    fn known(&self, path: PathId) -> Option<&PathCounters> {
        self.paths[usize::from(path.0) % PATHS_MAX].get().map(Box::as_ref)
    }
}

/// All lanes' counters.
#[derive(Clone, Debug, Default)]
pub struct Registry(Arc<Mutex<Sums>>);

#[derive(Debug, Default)]
struct Sums {
    lanes: Vec<Arc<LaneCounters>>,
    /// What the counters of an id showed when its last path was removed.
    before: BTreeMap<PathId, Totals>,
    /// What removed paths did.
    removed: Totals,
}

impl Sums {
    /// What the counters of `path` show, its predecessors' share included.
    fn shown(&self, path: PathId) -> Totals {
        let mut totals = Totals::default();
        for counters in self.lanes.iter().filter_map(|lane| lane.known(path)) {
            totals.add(counters);
        }
        totals
    }

    fn path(&self, path: PathId) -> Totals {
        let mut totals = self.shown(path);
        if let Some(before) = self.before.get(&path) {
            totals.take_away(before);
        }
        totals
    }
}

impl Registry {
    /// Counters for a new lane.
    pub fn lane(&self) -> Arc<LaneCounters> {
        let counters = Arc::new(LaneCounters::default());
        self.sums().lanes.push(Arc::clone(&counters));
        counters
    }

    /// The sums of all lanes for `path`.
    pub fn path(&self, path: PathId) -> Totals {
        self.sums().path(path)
    }

    /// The sums of paths that were removed.
    pub fn removed(&self) -> Totals {
        self.sums().removed.clone()
    }

    /// `path` has been removed; the next one with its id begins with nothing.
    pub fn retire(&self, path: PathId) {
        let mut sums = self.sums();
        let done = sums.path(path);
        let shown = sums.shown(path);
        sums.removed.merge(&done);
        sums.before.insert(path, shown);
    }

    /// Commands in all lanes' tables now.
    pub fn held(&self) -> u64 {
        self.sums().lanes.iter().map(|lane| lane.held.load(Relaxed)).sum()
    }

    /// What all lanes did about slow reads.
    pub fn hedges(&self) -> HedgeTotals {
        let mut totals = HedgeTotals::default();
        for lane in &self.sums().lanes {
            let HedgeCounters { sent, won, denied, pauses } = &lane.hedges;
            totals.sent += sent.load(Relaxed);
            totals.won += won.load(Relaxed);
            totals.denied += denied.load(Relaxed);
            totals.pauses += pauses.load(Relaxed);
        }
        totals
    }

    fn sums(&self) -> std::sync::MutexGuard<'_, Sums> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Sums, read at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// As [`PathCounters::reads`].
    pub reads: u64,
    /// As [`PathCounters::writes`].
    pub writes: u64,
    /// As [`PathCounters::other`].
    pub other: u64,
    /// As [`PathCounters::read_bytes`].
    pub read_bytes: u64,
    /// As [`PathCounters::write_bytes`].
    pub write_bytes: u64,
    /// As [`PathCounters::errors`].
    pub errors: [u64; ERROR_CLASSES.len()],
    /// As [`PathCounters::retries`].
    pub retries: u64,
    /// As [`PathCounters::failovers`].
    pub failovers: u64,
    /// As [`PathCounters::latency`].
    pub latency: [u64; BUCKETS],
    /// As [`PathCounters::latency_sum_us`].
    pub latency_sum_us: u64,
}

impl Totals {
    /// Adds `other`.
    pub fn merge(&mut self, other: &Totals) {
        self.each(other, |sum, value| *sum += value);
    }

    fn take_away(&mut self, other: &Totals) {
        self.each(other, |sum, value| *sum = sum.saturating_sub(value));
    }

    fn each(&mut self, other: &Totals, change: impl Fn(&mut u64, u64)) {
        change(&mut self.reads, other.reads);
        change(&mut self.writes, other.writes);
        change(&mut self.other, other.other);
        change(&mut self.read_bytes, other.read_bytes);
        change(&mut self.write_bytes, other.write_bytes);
        change(&mut self.retries, other.retries);
        change(&mut self.failovers, other.failovers);
        change(&mut self.latency_sum_us, other.latency_sum_us);
        self.errors.iter_mut().zip(other.errors).for_each(|(sum, value)| change(sum, value));
        self.latency.iter_mut().zip(other.latency).for_each(|(sum, value)| change(sum, value));
    }

    fn add(&mut self, counters: &PathCounters) {
        let get = |counter: &AtomicU64| counter.load(Relaxed);
        self.reads += get(&counters.reads);
        self.writes += get(&counters.writes);
        self.other += get(&counters.other);
        self.read_bytes += get(&counters.read_bytes);
        self.write_bytes += get(&counters.write_bytes);
        self.retries += get(&counters.retries);
        self.failovers += get(&counters.failovers);
        self.latency_sum_us += get(&counters.latency_sum_us);
        for (sum, counter) in self.errors.iter_mut().zip(&counters.errors) {
            *sum += get(counter);
        }
        for (sum, counter) in self.latency.iter_mut().zip(&counters.latency) {
            *sum += get(counter);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bucket_ends_are_inclusive() {
        for (us, expected) in [(0, 0), (1, 0), (2, 1), (3, 2), (4, 2), (5, 3), (1024, 10)] {
            assert_eq!(bucket(us), expected, "{us} us");
            assert!(bucket_end_us(expected).is_some_and(|end| us <= end));
        }
        assert_eq!(bucket(microseconds(Duration::MAX)), BUCKETS - 1);
        assert_eq!(bucket_end_us(BUCKETS - 1), None);
    }

    #[test]
    fn registry_adds_up_the_lanes() {
        let registry = Registry::default();
        for lane in [registry.lane(), registry.lane()] {
            lane.path(PathId(3)).answered(opcode::READ_10, 4096, 0, Duration::from_micros(7));
            lane.path(PathId(3)).error(Class::Load);
        }
        let totals = registry.path(PathId(3));
        assert_eq!((totals.reads, totals.read_bytes, totals.errors[1]), (2, 8192, 2));
        assert_eq!(totals.latency_sum_us, 14);
        assert_eq!(registry.path(PathId(4)), Totals::default());
    }

    #[test]
    fn registry_forgets_a_removed_path_and_keeps_what_it_did() {
        let registry = Registry::default();
        let lane = registry.lane();
        let read = || lane.path(PathId(0)).answered(opcode::READ_10, 512, 0, Duration::ZERO);
        read();
        registry.retire(PathId(0));
        assert_eq!(registry.path(PathId(0)), Totals::default());
        read();
        assert_eq!(registry.path(PathId(0)).reads, 1);
        registry.retire(PathId(0));
        assert_eq!(registry.removed().reads, 2);
    }
}
