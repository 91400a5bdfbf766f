//! The faults that are set on a port, and what they decide about a command.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::faults::{Fault, FaultKind};
use super::lock;
use super::reply::{Detail, Refusal};

/// The longest a command waits on a slow line: behind that it is as good as lost.
const LINE_MAX: Duration = Duration::from_secs(3600);

/// A port's faults. Without one, a command costs one relaxed load.
#[derive(Debug)]
pub(super) struct Faults {
    armed: AtomicBool,
    down: AtomicBool,
    /// Times the link has been cut.
    cuts: AtomicU32,
    /// Times the faults have been cleared.
    clears: AtomicU32,
    script: Mutex<Script>,
}

#[derive(Debug)]
struct Script {
    /// At most one of each kind.
    active: Vec<Fault>,
    random: u64,
    /// When the slow line has carried everything that was given to it.
    line_free: Option<Instant>,
}

/// What becomes of a command.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing special.
    Pass,
    /// It is lost.
    Lose,
    /// It begins then.
    Wait(Instant),
    /// It is executed, and its answer withheld.
    Hang,
    /// It is refused.
    Refuse(Refusal),
    /// There is no link.
    Down,
}

impl Faults {
    pub(super) fn new(seed: u64) -> Self {
        Faults {
            armed: AtomicBool::new(false),
            down: AtomicBool::new(false),
            cuts: AtomicU32::new(0),
            clears: AtomicU32::new(0),
            script: Mutex::new(Script { active: Vec::new(), random: seed, line_free: None }),
        }
    }

    /// True when [`Faults::decide`] has anything to say.
    pub(super) fn is_armed(&self) -> bool {
        self.armed.load(Ordering::Relaxed)
    }

    /// True while the link is cut.
    pub(super) fn is_down(&self) -> bool {
        self.down.load(Ordering::Relaxed)
    }

    /// How often the link has been cut, and faults cleared.
    pub(super) fn epochs(&self) -> (u32, u32) {
        (self.cuts.load(Ordering::Acquire), self.clears.load(Ordering::Acquire))
    }

    pub(super) fn seed(&self, seed: u64) {
        lock(&self.script).random = seed;
    }

    /// Sets a fault. True when it cut the link.
    pub(super) fn set(&self, fault: Fault) -> bool {
        let mut script = lock(&self.script);
        let cut = fault.kind == FaultKind::Disconnect;
        if cut {
            self.down.store(true, Ordering::Relaxed);
            self.cuts.fetch_add(1, Ordering::Release);
        } else {
            script.active.retain(|set| set.kind.name() != fault.kind.name());
            script.active.push(fault);
        }
        self.armed.store(true, Ordering::Relaxed);
        cut
    }

    /// Ends all faults. True when the link had been cut.
    pub(super) fn clear(&self) -> bool {
        let mut script = lock(&self.script);
        script.active.clear();
        script.line_free = None;
        let was_down = self.down.swap(false, Ordering::Relaxed);
        self.armed.store(false, Ordering::Relaxed);
        self.clears.fetch_add(1, Ordering::Release);
        was_down
    }

    /// What becomes of a command that moves `bytes`.
    pub(super) fn decide(&self, bytes: u64, now: Instant) -> Verdict {
        let mut script = lock(&self.script);
        if self.is_down() {
            return Verdict::Down;
        }
        let Script { active, random, line_free } = &mut *script;
        let Some(at) = active.iter().position(|fault| strikes(fault.probability, random)) else {
            return Verdict::Pass;
        };
        let kind = active[at].kind;
        if let Some(count) = &mut active[at].count {
            *count -= 1;
            if *count == 0 {
                active.remove(at);
                self.armed.store(!active.is_empty(), Ordering::Relaxed);
            }
        }
        match kind {
            FaultKind::Drop => Verdict::Lose,
            FaultKind::Hang => Verdict::Hang,
            FaultKind::Delay { milliseconds } => {
                Verdict::Wait(now + Duration::from_millis(milliseconds))
            }
            FaultKind::Rate { bytes_per_second } => {
                let free = line_free.map_or(now, |free| free.max(now));
                let seconds = bytes as f64 / bytes_per_second as f64;
                let cost = Duration::try_from_secs_f64(seconds).unwrap_or(LINE_MAX);
                let until = (free + cost.min(LINE_MAX)).min(now + LINE_MAX);
                *line_free = Some(until);
                Verdict::Wait(until)
            }
            FaultKind::Status(status) => Verdict::Refuse(Refusal::Status(status)),
            FaultKind::Sense(key, asc) => Verdict::Refuse(Refusal::Check(key, asc, Detail::None)),
            // Never in the list: `set` keeps it apart.
            FaultKind::Disconnect => Verdict::Down,
            // The group's matter, not the wire's.
            FaultKind::Access { .. } => Verdict::Pass,
        }
    }
}

/// Draws once, where there is anything to draw. The generator is splitmix64.
fn strikes(probability: f64, random: &mut u64) -> bool {
    if probability >= 1.0 {
        return true;
    }
    *random = random.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut value = *random;
    value = (value ^ value >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    value = (value ^ value >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^= value >> 31;
    // The upper 53 bits are a fraction that a double holds exactly.
    ((value >> 11) as f64 / (1_u64 << 53) as f64) < probability
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scsi::Status;

    fn strikes_of(seed: u64, fault: Fault) -> Vec<bool> {
        let faults = Faults::new(seed);
        faults.set(fault);
        let now = Instant::now();
        (0..1000).map(|_| faults.decide(0, now) != Verdict::Pass).collect()
    }

    #[test]
    fn probability_strikes_about_so_often_and_repeats_by_seed() {
        let fault = Fault { probability: 0.25, ..Fault::new(FaultKind::Drop) };
        let first = strikes_of(7, fault);
        assert_eq!(first, strikes_of(7, fault));
        assert_ne!(first, strikes_of(8, fault));
        let count = first.iter().filter(|struck| **struck).count();
        assert!((200..300).contains(&count), "{count}");
    }

    #[test]
    fn count_ends_a_fault_and_disarms() {
        let faults = Faults::new(1);
        let busy = FaultKind::Status(Status::BUSY);
        faults.set(Fault { count: Some(2), ..Fault::new(busy) });
        let now = Instant::now();
        for _ in 0..2 {
            let refusal = Verdict::Refuse(Refusal::Status(Status::BUSY));
            assert_eq!(faults.decide(0, now), refusal);
        }
        assert_eq!(faults.decide(0, now), Verdict::Pass);
        assert!(!faults.is_armed());
    }

    #[test]
    fn rate_queues_commands_behind_each_other() {
        let faults = Faults::new(1);
        faults.set(Fault::new(FaultKind::Rate { bytes_per_second: 1000 }));
        let now = Instant::now();
        let second = Duration::from_secs(1);
        assert_eq!(faults.decide(1000, now), Verdict::Wait(now + second));
        assert_eq!(faults.decide(500, now), Verdict::Wait(now + second * 3 / 2));
        let later = now + 4 * second;
        assert_eq!(faults.decide(0, later), Verdict::Wait(later));
        assert_eq!(faults.decide(u64::MAX, now), Verdict::Wait(now + LINE_MAX));
    }

    #[test]
    fn clear_tells_whether_the_link_comes_back() {
        let faults = Faults::new(1);
        assert!(!faults.clear());
        assert!(faults.set(Fault::new(FaultKind::Disconnect)));
        assert_eq!(faults.decide(0, Instant::now()), Verdict::Down);
        assert!(faults.clear());
        assert!(!faults.is_armed());
        assert_eq!(faults.epochs(), (1, 2));
    }
}
