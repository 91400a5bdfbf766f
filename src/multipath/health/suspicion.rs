//! A command on a path is overdue. Does the path say nothing any more, or is it (or the command, or
//! the array) only slow? The path is asked, and so are its siblings. It is given up when it has
//! been silent for [`SUSPECT_PATIENCE`] while a sibling answered all the time: not at the end only,
//! for an array that pauses is silent on all paths and comes back on one of them first.

use std::time::Instant;

use crate::limits::{SUSPECT_LOOK, SUSPECT_PATIENCE, SUSPECT_SIGN};

/// A path under suspicion.
#[derive(Clone, Copy, Debug)]
pub struct Suspicion {
    since: Instant,
    /// Since when a sibling has answered without a pause.
    vouched: Option<Instant>,
}

/// What to do about a suspect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// Nothing is known yet: look again then.
    Wait(Instant),
    /// It is silent, and it alone.
    Silent,
    /// It has answered.
    Alive,
}

impl Suspicion {
    /// A command was reported to be overdue.
    pub fn new(now: Instant) -> Self {
        Suspicion { since: now, vouched: None }
    }

    /// Since when.
    pub fn since(&self) -> Instant {
        self.since
    }

    /// Judges, from the last time at which the path itself answered anything, and a sibling.
    pub fn judge(
        &mut self,
        own: Option<Instant>,
        sibling: Option<Instant>,
        now: Instant,
    ) -> Judgement {
        if own.is_some_and(|own| own > self.since) {
            return Judgement::Alive;
        }
        let lately =
            |at: &Instant| *at > self.since && now.saturating_duration_since(*at) <= SUSPECT_SIGN;
        let Some(sign) = sibling.filter(lately) else {
            self.vouched = None;
            return Judgement::Wait(now + SUSPECT_LOOK);
        };
        let due = *self.vouched.get_or_insert(sign) + SUSPECT_PATIENCE;
        if now >= due { Judgement::Silent } else { Judgement::Wait(due.min(now + SUSPECT_LOOK)) }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const START: Duration = Duration::from_secs(1);

    /// Looks at a suspect every 50 ms; `own` and `sibling` say whether they answer at that time (in
    /// milliseconds since the suspicion). The time of the verdict, and the verdict.
    fn verdict(own: impl Fn(u64) -> bool, sibling: impl Fn(u64) -> bool) -> (u64, Judgement) {
        let start = Instant::now() + START;
        let mut suspicion = Suspicion::new(start);
        let (mut last_own, mut last_sibling) = (None, Some(start - START));
        for at in (0..10_000).step_by(10) {
            let now = start + Duration::from_millis(at);
            last_own = if own(at) { Some(now) } else { last_own };
            last_sibling = if sibling(at) { Some(now) } else { last_sibling };
            match suspicion.judge(last_own, last_sibling, now) {
                Judgement::Wait(until) => assert!(until > now),
                judgement => return (at, judgement),
            }
        }
        (10_000, Judgement::Wait(start))
    }

    #[test]
    fn silent_path_is_given_up_while_its_sibling_answers() {
        let patience = SUSPECT_PATIENCE.as_millis() as u64;
        let (at, judgement) = verdict(|_| false, |at| at > 0);
        assert_eq!(judgement, Judgement::Silent);
        assert!((patience..=patience + 50).contains(&at), "{at}");
    }

    #[test]
    fn answer_ends_the_suspicion() {
        assert_eq!(verdict(|at| at == 390, |at| at > 0), (390, Judgement::Alive));
    }

    #[test]
    fn nobody_is_given_up_while_all_are_silent() {
        // Two seconds in which nobody answers; then the sibling does, a moment before the suspect.
        let (at, judgement) = verdict(|at| at >= 2300, |at| at >= 2000);
        assert_eq!((at, judgement), (2300, Judgement::Alive));
        assert_eq!(verdict(|_| false, |_| false).0, 10_000);
    }

    #[test]
    fn pause_of_the_sibling_begins_the_patience_anew() {
        let (at, judgement) = verdict(|_| false, |at| at <= 150 || at >= 1000);
        assert_eq!(judgement, Judgement::Silent);
        assert!(at >= 1400, "{at}");
    }
}
