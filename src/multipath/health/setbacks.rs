//! How often a path has failed lately, and how long it must be well before it is used like any
//! other: the first time not at all, then a second, then twice as long each time, up to a minute.

use std::time::{Duration, Instant};

use crate::limits::{HOLD_DOWN, HOLD_DOWN_FORGET, HOLD_DOWN_MAX};

/// The faults of one path, and its hold-down.
#[derive(Debug, Default)]
pub struct Setbacks {
    count: u32,
    first: Option<Instant>,
    last: Option<Instant>,
    /// It has failed and not come back yet.
    down: bool,
    hold: Option<Hold>,
}

#[derive(Debug)]
struct Hold {
    until: Instant,
    why: String,
}

impl Setbacks {
    /// One more fault.
    pub fn add(&mut self, now: Instant) {
        let forgotten =
            self.last.is_none_or(|last| now.saturating_duration_since(last) >= HOLD_DOWN_FORGET);
        if forgotten {
            (self.count, self.first) = (0, Some(now));
        }
        self.count = self.count.saturating_add(1);
        self.last = Some(now);
    }

    /// It has failed.
    pub fn failed(&mut self, now: Instant) {
        self.add(now);
        (self.down, self.hold) = (true, None);
    }

    /// It is in use again; where it had failed, the hold-down begins.
    pub fn returned(&mut self, now: Instant) {
        if std::mem::take(&mut self.down) {
            self.hold_down(now);
        }
    }

    /// The hold-down begins, where there is one yet.
    pub fn hold_down(&mut self, now: Instant) {
        let longest = HOLD_DOWN_MAX.as_secs() / HOLD_DOWN.as_secs();
        let times = match self.count.checked_sub(2) {
            None => return,
            Some(doublings) => {
                1_u64.checked_shl(doublings).map_or(longest, |times| times.min(longest))
            }
        };
        let span = self.first.map_or(Duration::ZERO, |first| now.saturating_duration_since(first));
        let span = span.as_secs_f64().ceil();
        let why = format!("after {} faults within {span:.0} s", self.count);
        self.hold_for(HOLD_DOWN * times as u32, why, now);
    }

    /// Holds the path down for `time`, unless it is held down longer already.
    pub fn hold_for(&mut self, time: Duration, why: String, now: Instant) {
        let until = now + time;
        if self.hold.as_ref().is_none_or(|hold| hold.until < until) {
            let why = format!("held down for {:.0} s {why}", time.as_secs_f64());
            self.hold = Some(Hold { until, why });
        }
    }

    /// Ends a hold-down whose time is over.
    pub fn expire(&mut self, now: Instant) {
        self.hold.take_if(|hold| hold.until <= now);
    }

    /// Until when it is held down.
    pub fn held_until(&self) -> Option<Instant> {
        self.hold.as_ref().map(|hold| hold.until)
    }

    /// Why it is to be the last resort, in words.
    pub fn complaint(&self, now: Instant) -> Option<String> {
        self.hold.as_ref().filter(|hold| hold.until > now).map(|hold| hold.why.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn hold_of(setbacks: &mut Setbacks, now: Instant) -> Duration {
        setbacks.failed(now);
        setbacks.returned(now);
        setbacks.held_until().map_or(Duration::ZERO, |until| until - now)
    }

    #[test]
    fn hold_down_grows_to_its_bound() {
        let (mut setbacks, now) = (Setbacks::default(), Instant::now());
        let seconds: Vec<u64> = (0..80).map(|_| hold_of(&mut setbacks, now).as_secs()).collect();
        assert_eq!(seconds[..8], [0, 1, 2, 4, 8, 16, 32, 60]);
        assert!(seconds[8..].iter().all(|seconds| *seconds == 60));
    }

    #[test]
    fn hold_down_is_forgotten_after_a_quiet_time() {
        let (mut setbacks, now) = (Setbacks::default(), Instant::now());
        (0..4).for_each(|_| assert!(hold_of(&mut setbacks, now) < 8 * SECOND));
        assert_eq!(hold_of(&mut setbacks, now + HOLD_DOWN_FORGET - SECOND), 8 * SECOND);
        assert_eq!(hold_of(&mut setbacks, now + 2 * HOLD_DOWN_FORGET), Duration::ZERO);
    }

    #[test]
    fn complaint_names_the_reason_and_ends_with_the_hold_down() {
        let (mut setbacks, start) = (Setbacks::default(), Instant::now());
        hold_of(&mut setbacks, start);
        hold_of(&mut setbacks, start + 7 * SECOND);
        let now = start + 20 * SECOND;
        hold_of(&mut setbacks, now);
        let complaint = setbacks.complaint(now + SECOND);
        assert_eq!(complaint.as_deref(), Some("held down for 2 s after 3 faults within 20 s"));
        assert_eq!(setbacks.complaint(now + 2 * SECOND), None);
        setbacks.expire(now + SECOND);
        assert_eq!(setbacks.held_until(), Some(now + 2 * SECOND));
        setbacks.expire(now + 2 * SECOND);
        assert_eq!(setbacks.held_until(), None);
    }

    #[test]
    fn returning_without_a_failure_holds_nothing_down() {
        let (mut setbacks, now) = (Setbacks::default(), Instant::now());
        setbacks.add(now);
        setbacks.add(now);
        setbacks.returned(now);
        assert_eq!(setbacks.complaint(now), None);
    }
}
