//! The logical unit itself is gone: the array says over every path that there is none of that
//! number (ILLEGAL REQUEST, LOGICAL UNIT NOT SUPPORTED), or another one. That is no outage that
//! waiting mends, so commands fail whatever `no_path_retry` says, and after a while the guest's
//! driver is told that the LUN was removed.
//!
//! ```text
//!   every path says so ---GONE_CONFIRMATION---> gone ---GONE_REMOVAL---> removed
//!          ^  one does not                        |                         |
//!          '------- (forgotten)                   '--- a path is usable: back, and told so
//! ```
//!
//! A path is usable only when its WWID has been verified: another unit in the place of the lost one
//! never brings it back.

use std::time::Instant;

use crate::limits::{GONE_CONFIRMATION, GONE_REMOVAL};

/// What the paths say of the logical unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// A path is usable.
    Here,
    /// Every path says that it is not there.
    Nowhere,
    /// Some say nothing at all.
    Nothing,
}

/// What follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It is gone: commands fail.
    Gone,
    /// The guest's driver is told.
    Removed,
    /// It is back.
    Back {
        /// The guest's driver was told that it was removed.
        removed: bool,
    },
}

/// How gone it is.
#[derive(Clone, Copy, Debug, Default)]
enum State {
    #[default]
    Here,
    /// Every path says so since then.
    Said(Instant),
    /// Since then it is.
    Gone(Instant),
    /// And the guest's driver knows.
    Removed,
}

/// Is the logical unit gone?
#[derive(Debug, Default)]
pub struct Gone(State);

impl Gone {
    /// True when commands fail.
    pub fn is_gone(&self) -> bool {
        matches!(self.0, State::Gone(_) | State::Removed)
    }

    /// When time alone changes something.
    pub fn next_timer(&self) -> Option<Instant> {
        match self.0 {
            State::Here | State::Removed => None,
            State::Said(since) => Some(since + GONE_CONFIRMATION),
            State::Gone(since) => Some(since + GONE_REMOVAL),
        }
    }

    /// The paths say this now. Once it is gone only a usable path brings it back: paths that have
    /// lost their links meanwhile say nothing new.
    pub fn follow(&mut self, said: Said, now: Instant) -> Option<Step> {
        let (state, step) = match (self.0, said) {
            (State::Gone(_), Said::Here) => (State::Here, Some(Step::Back { removed: false })),
            (State::Removed, Said::Here) => (State::Here, Some(Step::Back { removed: true })),
            (State::Here | State::Said(_), Said::Here | Said::Nothing) => (State::Here, None),
            (State::Here, Said::Nowhere) => (State::Said(now), None),
            (State::Said(since), Said::Nowhere) if now >= since + GONE_CONFIRMATION => {
                (State::Gone(now), Some(Step::Gone))
            }
            (State::Gone(since), _) if now >= since + GONE_REMOVAL => {
                (State::Removed, Some(Step::Removed))
            }
            (same, _) => (same, None),
        };
        self.0 = state;
        step
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn follow_says_each_step_once() {
        let start = Instant::now();
        let mut gone = Gone::default();
        assert_eq!(gone.follow(Said::Nowhere, start), None);
        assert!(!gone.is_gone());
        let confirmed = start + GONE_CONFIRMATION;
        assert_eq!(gone.next_timer(), Some(confirmed));
        assert_eq!(gone.follow(Said::Nowhere, confirmed), Some(Step::Gone));
        assert_eq!(gone.follow(Said::Nowhere, confirmed), None);
        assert!(gone.is_gone());
        let removed = confirmed + GONE_REMOVAL;
        assert_eq!(gone.next_timer(), Some(removed));
        assert_eq!(gone.follow(Said::Nothing, removed), Some(Step::Removed));
        assert_eq!(gone.follow(Said::Nowhere, removed), None);
        assert_eq!(gone.follow(Said::Here, removed), Some(Step::Back { removed: true }));
        assert!(!gone.is_gone());
    }

    #[test]
    fn follow_takes_nothing_back_but_by_a_usable_path() {
        let start = Instant::now();
        let mut gone = Gone::default();
        gone.follow(Said::Nowhere, start);
        gone.follow(Said::Nowhere, start + GONE_CONFIRMATION);
        gone.follow(Said::Nothing, start + GONE_CONFIRMATION);
        assert!(gone.is_gone());
        let back = gone.follow(Said::Here, start + GONE_CONFIRMATION);
        assert_eq!(back, Some(Step::Back { removed: false }));
    }

    #[test]
    fn follow_forgets_what_was_said_for_a_moment() {
        let start = Instant::now();
        let mut gone = Gone::default();
        gone.follow(Said::Nowhere, start);
        gone.follow(Said::Nothing, start + Duration::from_millis(10));
        assert_eq!(gone.follow(Said::Nowhere, start + GONE_CONFIRMATION), None);
        assert!(!gone.is_gone());
    }
}
