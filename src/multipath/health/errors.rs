//! How often a path errs although it works: commands that the link aborted, commands that took
//! suspiciously long.

use std::collections::VecDeque;
use std::fmt;
use std::time::Instant;

use crate::limits::{ERROR_WINDOW, ERRORS_MAX, ERRORS_PER_SUSPICION};

/// The errors of one path within the last [`ERROR_WINDOW`].
#[derive(Debug, Default)]
pub struct Errors {
    recent: VecDeque<(Instant, ErrorCounts)>,
}

/// Errors of a path that works, by their kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ErrorCounts {
    aborted: u32,
    slow: u32,
}

impl ErrorCounts {
    /// What they weigh together: a command that took suspiciously long as much as several that
    /// were aborted.
    pub fn weight(self) -> u32 {
        self.aborted.saturating_add(self.slow.saturating_mul(ERRORS_PER_SUSPICION))
    }
}

impl fmt::Display for ErrorCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let aborted = format!("{} aborted command{}", self.aborted, plural(self.aborted));
        let slow = format!("{} that took suspiciously long", self.slow);
        match (self.aborted, self.slow) {
            (_, 0) => f.write_str(&aborted),
            (0, count) => {
                write!(f, "{count} command{} that took suspiciously long", plural(count))
            }
            _ => write!(f, "{aborted} and {slow}"),
        }
    }
}

fn plural(count: u32) -> &'static str {
    if count == 1 { "" } else { "s" }
}

impl Errors {
    /// `count` commands more were aborted. Called at most once per tick, so the list stays short.
    pub fn aborted(&mut self, count: u32, now: Instant) {
        if count > 0 {
            self.recent.push_back((now, ErrorCounts { aborted: count, slow: 0 }));
        }
    }

    /// A command took suspiciously long, on a path that answers. Called once per suspicion.
    pub fn slow(&mut self, now: Instant) {
        self.recent.push_back((now, ErrorCounts { aborted: 0, slow: 1 }));
    }

    /// What there was.
    pub fn sum(&mut self, now: Instant) -> ErrorCounts {
        let old = |at: Instant| now.saturating_duration_since(at) > ERROR_WINDOW;
        while self.recent.front().is_some_and(|(at, _)| old(*at)) {
            self.recent.pop_front();
        }
        self.recent.iter().fold(ErrorCounts::default(), |sum, (_, more)| ErrorCounts {
            aborted: sum.aborted.saturating_add(more.aborted),
            slow: sum.slow.saturating_add(more.slow),
        })
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
        errors.aborted(7, now);
        errors.slow(now + Duration::from_secs(3));
        let both = errors.sum(now + ERROR_WINDOW);
        assert_eq!(both.weight(), 7 + ERRORS_PER_SUSPICION);
        assert_eq!(both.to_string(), "7 aborted commands and 1 that took suspiciously long");
        let slow = errors.sum(now + ERROR_WINDOW + Duration::from_secs(1));
        assert_eq!(slow.to_string(), "1 command that took suspiciously long");
    }

    #[test]
    fn too_many_is_a_matter_of_the_siblings() {
        assert!(!too_many(ERRORS_MAX - 1, 0));
        assert!(too_many(ERRORS_MAX, 0));
        assert!(!too_many(ERRORS_MAX, ERRORS_MAX), "the array's errors, not the path's");
        assert!(too_many(4 * ERRORS_MAX, ERRORS_MAX));
    }
}
