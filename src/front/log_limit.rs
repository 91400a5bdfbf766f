//! A bound on what a guest can write into the log.

use std::time::Instant;

use crate::limits::{GUEST_LOG_BURST, GUEST_LOG_INTERVAL};

/// Counts the lines about one subject.
#[derive(Debug, Default)]
pub struct LogLimit {
    since: Option<Instant>,
    lines: u32,
}

impl LogLimit {
    /// True when this line may be written, with [`LogLimit::note`] behind it.
    pub fn allow(&mut self, now: Instant) -> bool {
        if self.since.is_none_or(|since| now.duration_since(since) >= GUEST_LOG_INTERVAL) {
            (self.since, self.lines) = (Some(now), 0);
        }
        self.lines = self.lines.saturating_add(1);
        self.lines <= GUEST_LOG_BURST
    }

    /// What the last line before the silence should say as well.
    pub fn note(&self) -> &'static str {
        if self.lines == GUEST_LOG_BURST {
            " (more of them will not be logged for a while)"
        } else {
            ""
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allow_stops_after_the_burst_and_starts_again_later() {
        let (mut limit, start) = (LogLimit::default(), Instant::now());
        let allowed = (0..100).filter(|_| limit.allow(start)).count();
        assert_eq!(allowed, GUEST_LOG_BURST as usize);
        assert!(limit.allow(start + GUEST_LOG_INTERVAL));
    }
}
