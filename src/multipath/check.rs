//! When a path is asked, and the probe under way.

use std::time::{Duration, Instant};

use super::probe::{Finding, Probe, Question, Scope, Step};
use crate::limits::{
    DOUBT_WINDOW, DOUBTS_MAX, PROBE_INTERVAL_FAILED, PROBE_INTERVAL_FAILED_MAX,
    PROBE_INTERVAL_HEALTHY, PROBE_INTERVAL_HEALTHY_MAX, PROBE_PATIENCE_FAILED,
};
use crate::path::Fate;
use crate::scsi::Asc;
use crate::scsi::capacity::Capacity;

/// When a path is asked, and the probe under way.
#[derive(Debug)]
pub struct Check {
    running: Option<Probe>,
    due: Instant,
    interval: Duration,
    /// The wait after the next good answer.
    calm: Duration,
    /// A block is to be read, instead of asking whether it is ready.
    reads: bool,
    /// The probe under way only reads a block.
    reading: bool,
    /// When the question under way was asked.
    asked: Instant,
    /// The shortest time that a question of this probe took.
    fastest: Option<Duration>,
    /// The end of the question under way was asked for.
    given_up: bool,
    /// How much is asked next.
    scope: Scope,
    /// Something happened since the probe under way began: what it finds may be out of date.
    outdated: bool,
    /// Doubts in a row, and the last one.
    doubts: u32,
    doubted: Option<Instant>,
}

impl Check {
    /// A path that is to be asked at once.
    pub fn new(now: Instant) -> Self {
        Check {
            running: None,
            due: now,
            interval: PROBE_INTERVAL_FAILED,
            calm: PROBE_INTERVAL_HEALTHY,
            reads: false,
            reading: false,
            asked: now,
            fastest: None,
            given_up: false,
            scope: Scope::Full,
            outdated: false,
            doubts: 0,
            doubted: None,
        }
    }

    /// When the next probe starts; `None` while one is under way.
    pub fn due(&self) -> Option<Instant> {
        self.running.is_none().then_some(self.due)
    }

    /// True while a question is under way.
    pub fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// The path answered well: ask again, less and less often.
    pub fn healthy(&mut self, now: Instant) {
        self.interval = PROBE_INTERVAL_FAILED;
        self.due = now + self.calm;
        self.calm = (self.calm * 2).min(PROBE_INTERVAL_HEALTHY_MAX);
        self.scope = Scope::Ready;
    }

    /// The path failed, or did not answer as it should: ask again, less and less often.
    pub fn unhealthy(&mut self, now: Instant) {
        self.due = now + self.interval;
        self.interval = (self.interval * 2).min(PROBE_INTERVAL_FAILED_MAX);
        self.calm = PROBE_INTERVAL_HEALTHY;
        self.scope = Scope::Full;
    }

    /// Ask now; a probe that is under way does not count.
    pub fn soon(&mut self, now: Instant) {
        self.outdated = true;
        self.due = now;
        self.interval = PROBE_INTERVAL_FAILED;
        self.calm = PROBE_INTERVAL_HEALTHY;
    }

    /// Read a block now, if nothing else is to be asked. What is under way counts as well.
    pub fn read_soon(&mut self, now: Instant) {
        self.reads = true;
        self.due = self.due.min(now);
    }

    /// True when a block is to be read next.
    pub fn wants_reading(&self) -> bool {
        self.reads && self.scope == Scope::Ready
    }

    /// When the question under way was asked.
    pub fn asked(&self) -> Option<Instant> {
        self.running.is_some().then_some(self.asked)
    }

    /// True when the last probe was to read a block.
    pub fn was_reading(&self) -> bool {
        self.reading
    }

    /// How long the fastest question of the last probe took.
    pub fn fastest(&self) -> Option<Duration> {
        self.fastest
    }

    /// When the question under way to a failed path is given up, unless that was done.
    pub fn patience_ends(&self) -> Option<Instant> {
        let patience = self.interval.max(PROBE_PATIENCE_FAILED);
        (self.running.is_some() && !self.given_up).then(|| self.asked + patience)
    }

    /// The end of the question under way is to be asked for; false when that was done, or none is.
    pub fn give_up(&mut self) -> bool {
        self.running.is_some() && !std::mem::replace(&mut self.given_up, true)
    }

    /// Its identity is in doubt: ask now, unless that has been so again and again.
    pub fn doubtful(&mut self, now: Instant) {
        let in_a_row =
            self.doubted.is_some_and(|last| now.saturating_duration_since(last) < DOUBT_WINDOW);
        self.doubts = if in_a_row { self.doubts.saturating_add(1) } else { 1 };
        self.doubted = Some(now);
        self.soon(now);
        if self.doubts > DOUBTS_MAX {
            let wait = PROBE_INTERVAL_FAILED * (self.doubts - DOUBTS_MAX);
            self.due = now + wait.min(PROBE_INTERVAL_FAILED_MAX);
        }
    }

    /// Ask everything now, whatever state the path is in.
    pub fn full_soon(&mut self, now: Instant) {
        self.soon(now);
        self.scope = Scope::Full;
    }

    /// No further question of the probe under way is asked.
    pub fn break_off(&mut self) {
        self.running = None;
        self.scope = Scope::Full;
    }

    /// Ask for the groups' access states now.
    pub fn groups_soon(&mut self, now: Instant) {
        self.soon(now);
        self.scope = self.scope.max(Scope::Groups);
    }

    /// Ask for the groups' access states at `when`, and for nothing before that.
    pub fn groups_at(&mut self, when: Instant) {
        self.due = when;
        self.scope = self.scope.max(Scope::Groups);
    }

    /// Starts a probe if it is time, one that asks so much at least; the first question. `capacity`
    /// is the logical unit's, where it is known.
    pub fn start(
        &mut self,
        least: Scope,
        capacity: Option<Capacity>,
        now: Instant,
    ) -> Option<Question> {
        if self.running.is_some() || now < self.due {
            return None;
        }
        let scope = self.scope.max(least);
        let reads = std::mem::take(&mut self.reads) && scope == Scope::Ready;
        self.reading = reads && capacity.is_some();
        let probe = match capacity {
            Some(capacity) if reads => Probe::read(capacity),
            _ => Probe::of(scope),
        };
        (self.asked, self.fastest, self.given_up) = (now, None, false);
        self.scope = Scope::Ready;
        let question = probe.question();
        self.outdated = false;
        self.running = Some(probe);
        Some(question)
    }

    /// The last question was answered: how long that took, where it was to read a block.
    pub fn took(&mut self, now: Instant) -> Option<Duration> {
        let took = now.saturating_duration_since(self.asked);
        self.fastest = Some(self.fastest.map_or(took, |fastest| fastest.min(took)));
        self.reading.then_some(took)
    }

    /// A doubt about the path's identity that the probe under way has met.
    pub fn take_doubt(&mut self) -> Option<Asc> {
        self.running.as_mut()?.take_doubt()
    }

    /// True when the end of the question under way says that its nexus had no unit attention left.
    pub fn is_clear(&self, fate: &Fate) -> bool {
        self.running.as_ref().is_some_and(|probe| probe.is_clear(fate))
    }

    /// Takes the end of the last question. The second value is what the guest must hear of.
    pub fn feed(&mut self, fate: &Fate, data: &[u8], now: Instant) -> (Option<Step>, Vec<Asc>) {
        let Some(probe) = &mut self.running else { return (None, Vec::new()) };
        self.asked = now;
        let step = probe.feed(fate, data);
        let scope = probe.scope();
        let attentions = probe.take_attentions();
        if matches!(step, Step::Found(_)) {
            self.running = None;
            let bad = matches!(step, Step::Found(Finding::Dead(_) | Finding::Unmapped(_)));
            if self.outdated && !bad {
                // The next probe is due already; it asks as much at least.
                self.scope = self.scope.max(scope);
                return (None, attentions);
            }
        }
        (Some(step), attentions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubtful_again_and_again_has_to_wait() {
        let start = Instant::now();
        let mut check = Check::new(start);
        for _ in 0..DOUBTS_MAX {
            check.doubtful(start);
            assert_eq!(check.due(), Some(start), "the first ones are followed up at once");
        }
        let mut before = start;
        for _ in 0..100 {
            check.doubtful(start);
            let due = check.due().unwrap();
            assert!(due >= before && due > start && due <= start + PROBE_INTERVAL_FAILED_MAX);
            before = due;
        }
        let later = start + DOUBT_WINDOW;
        check.doubtful(later);
        assert_eq!(check.due(), Some(later), "and so is one after a quiet time");
    }
}
