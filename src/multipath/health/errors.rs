//! How often a path errs although it works: commands that the link aborted, commands that took
//! suspiciously long.

use std::collections::VecDeque;
use std::time::Instant;

use crate::limits::{ERROR_WINDOW, ERRORS_MAX};

/// The errors of one path within the last [`ERROR_WINDOW`].
#[derive(Debug, Default)]
pub struct Errors {
    recent: VecDeque<(Instant, u32)>,
}

impl Errors {
    /// `count` more. Called at most once per tick and suspicion, so the list stays short.
    pub fn add(&mut self, count: u32, now: Instant) {
        if count > 0 {
            self.recent.push_back((now, count));
        }
    }

    /// How many there are.
    pub fn sum(&mut self, now: Instant) -> u32 {
        let old = |at: Instant| now.saturating_duration_since(at) > ERROR_WINDOW;
        while self.recent.front().is_some_and(|(at, _)| old(*at)) {
            self.recent.pop_front();
        }
        self.recent.iter().fold(0, |sum, (_, count)| sum.saturating_add(*count))
    }

    /// Begins anew.
    pub fn clear(&mut self) {
        self.recent.clear();
    }
}

/// True when a path with `own` errors is worse than its best sibling with `least`: what befalls
/// all paths alike is no fault of one.
pub fn too_many(own: u32, least: u32) -> bool {
    own >= ERRORS_MAX && own / 4 >= least
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn errors_are_forgotten_after_their_window() {
        let (mut errors, now) = (Errors::default(), Instant::now());
        errors.add(7, now);
        errors.add(2, now + Duration::from_secs(3));
        assert_eq!(errors.sum(now + ERROR_WINDOW), 9);
        assert_eq!(errors.sum(now + ERROR_WINDOW + Duration::from_secs(1)), 2);
    }

    #[test]
    fn too_many_is_a_matter_of_the_siblings() {
        assert!(!too_many(ERRORS_MAX - 1, 0));
        assert!(too_many(ERRORS_MAX, 0));
        assert!(!too_many(ERRORS_MAX, ERRORS_MAX), "the array's errors, not the path's");
        assert!(too_many(4 * ERRORS_MAX, ERRORS_MAX));
    }
}
