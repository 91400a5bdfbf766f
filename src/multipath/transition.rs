//! A port between two access states: commands for it are held, and the array is asked again and
//! again, up to the time that it names itself as the longest.

use std::time::{Duration, Instant};

use crate::limits::TRANSITION_TIME_DEFAULT;

/// Since when a port is between two states, and how long that may take.
#[derive(Clone, Copy, Debug, Default)]
pub struct Transition {
    since: Option<Instant>,
    limit: Option<Duration>,
}

impl Transition {
    /// The port is in transition, or not.
    pub fn follow(&mut self, is_on: bool, now: Instant) {
        match is_on {
            true => _ = self.since.get_or_insert(now),
            false => self.since = None,
        }
    }

    /// The array's own word on how long it takes at most.
    pub fn told_limit(&mut self, limit: Option<Duration>) {
        self.limit = limit.or(self.limit);
    }

    /// How long it may take.
    pub fn limit(&self) -> Duration {
        self.limit.unwrap_or(TRANSITION_TIME_DEFAULT)
    }

    /// When it has taken too long, if it is on.
    pub fn ends(&self) -> Option<Instant> {
        self.since.map(|since| since + self.limit())
    }

    /// True when it has taken too long.
    pub fn is_over(&self, now: Instant) -> bool {
        self.ends().is_some_and(|end| end <= now)
    }

    /// In words, when it has taken too long.
    pub fn complaint(&self) -> String {
        let whose = if self.limit.is_some() { "the array's own limit" } else { "the limit" };
        let seconds = self.limit().as_secs();
        format!("its port is between two access states for longer than {seconds} s, {whose}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transition_is_over_by_the_arrays_own_limit() {
        let now = Instant::now();
        let at = |seconds| now + Duration::from_secs(seconds);
        let mut transition = Transition::default();
        assert!(!transition.is_over(at(1000)));
        transition.follow(true, now);
        assert_eq!(transition.ends(), Some(now + TRANSITION_TIME_DEFAULT));
        transition.told_limit(Some(Duration::from_secs(12)));
        transition.told_limit(None);
        transition.follow(true, at(5));
        assert!(!transition.is_over(at(11)));
        assert!(transition.is_over(at(12)), "seen again is not begun again");
        transition.follow(false, at(12));
        assert!(!transition.is_over(at(100)));
    }
}
