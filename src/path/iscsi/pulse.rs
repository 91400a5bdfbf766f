//! Is the target alive, and when is the next login due? Pure: time comes in.

use std::time::{Duration, Instant};

use crate::limits::{
    ISCSI_LOGIN_BACKOFF, ISCSI_LOGIN_BACKOFF_MAX, ISCSI_NOP_AFTER, ISCSI_NOP_PATIENCE, ISCSI_STABLE,
};

/// What to do about a target's silence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Beat {
    /// Look again then.
    Wait(Instant),
    /// Ask it.
    Ask,
    /// It is dead.
    Dead,
}

/// When anything was last heard, and whether the target has been asked since.
///
/// Any byte counts: a target that is busy sending data is alive however late its NOP-In is. A
/// command alone may take as long as it likes; its own time limit is the lane's.
#[derive(Debug)]
pub(super) struct Pulse {
    /// When something was heard, or the target could not be asked although nothing was.
    heard: Instant,
    asked: Option<Instant>,
}

impl Pulse {
    pub(super) fn new(now: Instant) -> Self {
        Pulse { heard: now, asked: None }
    }

    /// Something came in.
    pub(super) fn heard(&mut self, now: Instant) {
        self.heard = now;
        self.asked = None;
    }

    /// A NOP-Out was sent.
    pub(super) fn asked(&mut self, now: Instant) {
        self.asked = Some(now);
    }

    /// It cannot be asked now: silence counts from here on.
    pub(super) fn put_off(&mut self, now: Instant) {
        self.heard = now;
    }

    /// The target owes an answer to a NOP-Out.
    pub(super) fn is_asked(&self) -> bool {
        self.asked.is_some()
    }

    pub(super) fn beat(&self, now: Instant) -> Beat {
        let (due, then) = match self.asked {
            Some(asked) => (asked + ISCSI_NOP_PATIENCE, Beat::Dead),
            None => (self.heard + ISCSI_NOP_AFTER, Beat::Ask),
        };
        if now >= due { then } else { Beat::Wait(due) }
    }
}

/// When the next login is tried: at once after a session that lasted, then less and less often.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// A login failed, or a session has ended after `lasted`; how long to wait.
    pub(super) fn next(&mut self, lasted: Option<Duration>) -> Duration {
        if lasted.is_some_and(|lasted| lasted >= ISCSI_STABLE) {
            self.failures = 0;
        }
        self.failures += 1;
        match self.failures {
            1 => Duration::ZERO,
            // Six doublings pass the longest wait.
            more => (ISCSI_LOGIN_BACKOFF * (1 << (more - 2).min(6))).min(ISCSI_LOGIN_BACKOFF_MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silent_target_is_asked_and_then_given_up_within_three_seconds() {
        let start = Instant::now();
        let mut pulse = Pulse::new(start);
        assert_eq!(pulse.beat(start), Beat::Wait(start + ISCSI_NOP_AFTER));
        let asked = start + ISCSI_NOP_AFTER;
        assert_eq!(pulse.beat(asked), Beat::Ask);
        pulse.asked(asked);
        assert_eq!(pulse.beat(asked), Beat::Wait(asked + ISCSI_NOP_PATIENCE));
        assert_eq!(pulse.beat(start + Duration::from_secs(3)), Beat::Dead);
    }

    #[test]
    fn any_byte_keeps_the_target_alive() {
        let start = Instant::now();
        let mut pulse = Pulse::new(start);
        pulse.asked(start + ISCSI_NOP_AFTER);
        let heard = start + Duration::from_secs(2);
        pulse.heard(heard);
        assert_eq!(
            pulse.beat(start + Duration::from_millis(2600)),
            Beat::Wait(heard + ISCSI_NOP_AFTER)
        );
    }

    #[test]
    fn backoff_begins_at_once_and_grows_to_its_bound() {
        let mut backoff = Backoff::default();
        let mut next = |lasted| backoff.next(lasted).as_millis();
        assert_eq!([next(None), next(None), next(None)], [0, 100, 200]);
        (0..100).for_each(|_| assert!(next(None) > 0));
        assert_eq!(next(Some(Duration::from_secs(1))), ISCSI_LOGIN_BACKOFF_MAX.as_millis());
        assert_eq!(next(Some(ISCSI_STABLE)), 0);
        assert_eq!(next(Some(Duration::ZERO)), 100);
    }
}
