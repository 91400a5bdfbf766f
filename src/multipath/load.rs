//! What a path carries now, and how fast it was. Written by all lanes, read by all selectors: plain
//! counters, each of them right on its own; nobody needs them to agree with each other.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::service::{Cost, Service};
use crate::limits::LIMP_PIECE;

/// A new measurement counts 1/8 in the average.
const AVERAGE_SHIFT: u32 = 3;

/// The load of one path, shared by all lanes.
#[derive(Debug)]
pub struct Load {
    epoch: Instant,
    commands: AtomicU32,
    bytes: AtomicU64,
    /// Average latency of a command, in nanoseconds.
    latency_ns: AtomicU64,
    /// For `service-time`.
    service: Service,
    /// When the last command ended, in nanoseconds since `epoch`.
    ended_ns: AtomicU64,
    /// Commands that were answered.
    answered: AtomicU64,
    /// The time that they took, each per piece of its data, in nanoseconds.
    spent_ns: AtomicU64,
    /// Commands that the link's own errors aborted.
    aborted: AtomicU32,
    /// Commands that the medium or the hardware behind the path failed.
    unreadable: AtomicU32,
}

/// What a path has counted up to some time. Two of them tell of the time between.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Commands that were answered.
    pub answered: u64,
    /// The time that they took, in nanoseconds, each per piece of [`LIMP_PIECE`] bytes: that a long
    /// transfer takes long says nothing of the path.
    pub spent_ns: u64,
    /// Commands that the link's own errors aborted.
    pub aborted: u32,
    /// Commands that the medium or the hardware behind the path failed.
    pub unreadable: u32,
}

impl Counts {
    /// What was counted since `before`.
    pub fn since(&self, before: &Counts) -> Counts {
        Counts {
            answered: self.answered.wrapping_sub(before.answered),
            spent_ns: self.spent_ns.wrapping_sub(before.spent_ns),
            aborted: self.aborted.wrapping_sub(before.aborted),
            unreadable: self.unreadable.wrapping_sub(before.unreadable),
        }
    }

    /// The average time of a command; `None` without any.
    pub fn mean(&self) -> Option<Duration> {
        self.spent_ns.checked_div(self.answered).map(Duration::from_nanos)
    }
}

impl Load {
    /// A path that carries nothing and has never been measured.
    pub fn new(epoch: Instant) -> Self {
        Load {
            epoch,
            commands: AtomicU32::new(0),
            bytes: AtomicU64::new(0),
            latency_ns: AtomicU64::new(0),
            service: Service::default(),
            ended_ns: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            spent_ns: AtomicU64::new(0),
            aborted: AtomicU32::new(0),
            unreadable: AtomicU32::new(0),
        }
    }

    /// A command of `bytes` was sent.
    pub fn started(&self, bytes: u32) {
        self.commands.fetch_add(1, Relaxed);
        self.bytes.fetch_add(u64::from(bytes), Relaxed);
    }

    /// A command of `bytes` has ended, `took` after it was sent; `answered` for good by the device,
    /// so that its time says something of the path. (How fast a device server refuses does not.)
    pub fn ended(&self, bytes: u32, took: Duration, now: Instant, answered: bool) {
        let before = self.commands.fetch_sub(1, Relaxed);
        debug_assert!(before > 0, "more ends than starts");
        self.bytes.fetch_sub(u64::from(bytes), Relaxed);
        if !answered {
            return;
        }
        let now_ns = self.since_epoch(now);
        let took = nanoseconds(took);
        self.ended_ns.store(now_ns, Relaxed);
        self.answered.fetch_add(1, Relaxed);
        self.spent_ns.fetch_add(took / u64::from(1 + bytes / LIMP_PIECE), Relaxed);
        average(&self.latency_ns, took);
        self.service.measured(bytes, took, now_ns);
    }

    /// A command was aborted by an error of the link.
    pub fn aborted(&self) {
        self.aborted.fetch_add(1, Relaxed);
    }

    /// The medium or the hardware behind the path failed a command.
    pub fn unreadable(&self) {
        self.unreadable.fetch_add(1, Relaxed);
    }

    /// What was counted so far.
    pub fn counts(&self) -> Counts {
        Counts {
            answered: self.answered.load(Relaxed),
            spent_ns: self.spent_ns.load(Relaxed),
            aborted: self.aborted.load(Relaxed),
            unreadable: self.unreadable.load(Relaxed),
        }
    }

    /// When a command was last answered.
    pub fn last_answer(&self) -> Option<Instant> {
        let ns = Some(self.ended_ns.load(Relaxed)).filter(|ns| *ns > 0)?;
        Some(self.epoch + Duration::from_nanos(ns))
    }

    /// Commands under way.
    pub fn commands(&self) -> u32 {
        self.commands.load(Relaxed)
    }

    /// Bytes under way.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    /// Average latency of a command; `None` before the first.
    pub fn latency(&self) -> Option<Duration> {
        Some(self.latency_ns.load(Relaxed)).filter(|ns| *ns > 0).map(Duration::from_nanos)
    }

    /// How long a new command of `bytes` is expected to take; see [`super::service`].
    pub fn cost(&self, bytes: u32) -> Cost {
        self.service.cost(bytes, self.commands(), self.bytes())
    }

    /// The same, with `more` commands of `bytes` each sent before it.
    pub fn cost_behind(&self, more: u32, bytes: u32) -> Cost {
        let bytes_ahead = self.bytes() + u64::from(more) * u64::from(bytes);
        self.service.cost(bytes, self.commands() + more, bytes_ahead)
    }

    /// True before a command was answered.
    pub fn is_unmeasured(&self) -> bool {
        self.service.is_unmeasured()
    }

    /// True for one caller when the path carries nothing, and nothing was measured for so long
    /// that the average may no longer hold: it is to send a command here.
    pub fn take_turn_to_measure(&self, now: Instant, stale: Duration) -> bool {
        self.commands() == 0
            && self.service.take_turn_to_measure(self.since_epoch(now), stale.as_nanos() as u64)
    }

    fn since_epoch(&self, at: Instant) -> u64 {
        nanoseconds(at.saturating_duration_since(self.epoch))
    }
}

/// As many as fit: some 580 years.
fn nanoseconds(time: Duration) -> u64 {
    time.as_secs().saturating_mul(1_000_000_000).saturating_add(time.subsec_nanos().into())
}

/// Lanes may lose an update to each other; the average stands that.
fn average(cell: &AtomicU64, sample: u64) {
    let old = cell.load(Relaxed);
    let new = if old == 0 {
        sample.max(1)
    } else {
        old - (old >> AVERAGE_SHIFT) + (sample >> AVERAGE_SHIFT)
    };
    cell.store(new.max(1), Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ended_gives_back_what_started_took() {
        let epoch = Instant::now();
        let load = Load::new(epoch);
        load.started(4096);
        load.started(512);
        assert_eq!((load.commands(), load.bytes()), (2, 4608));
        let took = Duration::from_millis(2);
        load.ended(4096, took, epoch + took, true);
        load.ended(512, Duration::ZERO, epoch, false);
        assert_eq!((load.commands(), load.bytes()), (0, 0));
        assert_eq!(load.latency(), Some(Duration::from_millis(2)));
    }

    #[test]
    fn counts_tell_of_the_time_between() {
        let epoch = Instant::now();
        let (load, ms) = (Load::new(epoch), Duration::from_millis);
        assert_eq!((load.last_answer(), load.counts().mean()), (None, None));
        let command = |bytes, took| {
            load.started(bytes);
            load.ended(bytes, took, epoch + ms(10) + took, true);
        };
        command(4096, ms(900));
        let before = load.counts();
        command(4096, ms(2));
        // A megabyte is five pieces: its time counts by the piece.
        command(1 << 20, ms(20));
        let window = load.counts().since(&before);
        assert_eq!((window.answered, window.mean()), (2, Some(ms(3))));
        assert_eq!(load.last_answer(), Some(epoch + ms(30)));
    }

    #[test]
    fn take_turn_to_measure_only_when_idle() {
        let epoch = Instant::now();
        let (load, later) = (Load::new(epoch), epoch + Duration::from_secs(9));
        load.started(0);
        assert!(!load.take_turn_to_measure(later, Duration::from_secs(1)));
        load.ended(0, Duration::ZERO, epoch, false);
        assert!(load.take_turn_to_measure(later, Duration::from_secs(1)));
    }
}
