//! Explicit asymmetric access: when the array is told, by SET TARGET PORT GROUPS, to make another
//! group the optimized one. Only where the configuration wants it (`explicit_alua`) and the array
//! takes it (TPGS).
//!
//! It is told so when no optimized path is left and a path of a lesser group answers, and when the
//! array's own preferred group (PREF) is there and failback brings commands back to it. What keeps
//! two hosts from taking the groups from each other:
//!
//! | rule | bound |
//! |---|---|
//! | never more often than | `EXPLICIT_INTERVAL` |
//! | not while the groups are changing for somebody else's sake | `EXPLICIT_QUIET` since the last change |
//! | not any more when what we asked for was undone again and again | `EXPLICIT_UNDONE_MAX`; the `failback` command begins anew |
//! | not while a port is between two states | |

use std::time::Instant;

use crate::ids::PathId;
use crate::limits::{EXPLICIT_INTERVAL, EXPLICIT_QUIET, EXPLICIT_UNDONE_MAX};

/// What was asked of the array, and what became of it.
#[derive(Debug, Default)]
pub struct Explicit {
    /// Under way: over which path, and for which group.
    asked: Option<(PathId, u16)>,
    /// When the array was last asked.
    last: Option<Instant>,
    /// The group that it made optimized for us, as long as that is so.
    ours: Option<u16>,
    /// When the groups last changed without us.
    foreign: Option<Instant>,
    /// How often what it did for us was undone.
    undone: u32,
    given_up: bool,
    ordered: bool,
    waits_until: Option<Instant>,
}

impl Explicit {
    /// True while the answer of `path` is awaited.
    pub fn is_answer(&self, path: PathId) -> bool {
        self.asked.is_some_and(|(asked, _)| asked == path)
    }

    /// When the array was last asked.
    pub fn last(&self) -> Option<Instant> {
        self.last
    }

    /// An admin wants it, once: what has been undone before is forgotten.
    pub fn order(&mut self) {
        (self.ordered, self.given_up, self.undone) = (true, false, 0);
    }

    /// True until the array was asked as an admin wants it, or there was nothing to ask for.
    pub fn is_ordered(&self) -> bool {
        self.ordered
    }

    /// The array's groups have changed; `optimized` are those that are optimized now. True when
    /// that was the last time: it is not asked any more.
    pub fn groups_changed(&mut self, optimized: &[u16], now: Instant) -> bool {
        match self.ours {
            // What we have asked for, or what came of it.
            Some(ours) if optimized.contains(&ours) => false,
            None if self.asked.is_some() => false,
            ours => {
                self.foreign = Some(now);
                self.ours = None;
                self.undone += u32::from(ours.is_some());
                let gives_up = self.undone >= EXPLICIT_UNDONE_MAX;
                gives_up && !std::mem::replace(&mut self.given_up, true)
            }
        }
    }

    /// May the array be asked now? Otherwise says when to look again, where time alone helps.
    pub fn may_ask(&mut self, now: Instant) -> bool {
        if self.given_up || self.asked.is_some() {
            self.waits_until = None;
            return false;
        }
        let rested = self.last.map(|last| last + EXPLICIT_INTERVAL);
        let quiet = self.foreign.map(|foreign| foreign + EXPLICIT_QUIET);
        let free = rested.max(quiet);
        self.waits_until = free.filter(|free| *free > now);
        self.waits_until.is_none()
    }

    /// Only news of the paths can tell whether there is something to ask for.
    pub fn wait_for_news(&mut self) {
        self.waits_until = None;
    }

    /// There is nothing to ask for.
    pub fn content(&mut self) {
        (self.waits_until, self.ordered) = (None, false);
    }

    /// When to look again.
    pub fn next_timer(&self) -> Option<Instant> {
        self.waits_until
    }

    /// The array is asked over `path` for `group`.
    pub fn ask(&mut self, path: PathId, group: u16, now: Instant) {
        self.asked = Some((path, group));
        self.last = Some(now);
        self.ordered = false;
    }

    /// The array has answered; returns the group it was asked for.
    pub fn answered(&mut self, done: bool) -> Option<u16> {
        let (_, group) = self.asked.take()?;
        self.ours = done.then_some(group).or(self.ours);
        Some(group)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const PATH: PathId = PathId(3);

    fn asked_for(explicit: &mut Explicit, group: u16, now: Instant) {
        assert!(explicit.may_ask(now));
        explicit.ask(PATH, group, now);
        assert!(explicit.is_answer(PATH) && !explicit.may_ask(now));
        assert_eq!(explicit.answered(true), Some(group));
    }

    #[test]
    fn may_ask_not_more_often_than_the_bound() {
        let now = Instant::now();
        let mut explicit = Explicit::default();
        asked_for(&mut explicit, 2, now);
        assert!(!explicit.may_ask(now));
        assert_eq!(explicit.next_timer(), Some(now + EXPLICIT_INTERVAL));
        assert!(explicit.may_ask(now + EXPLICIT_INTERVAL));
    }

    #[test]
    fn may_ask_not_while_somebody_else_changes_the_groups() {
        let now = Instant::now();
        let mut explicit = Explicit::default();
        assert!(!explicit.groups_changed(&[2], now));
        assert!(!explicit.may_ask(now));
        assert!(explicit.may_ask(now + EXPLICIT_QUIET));
    }

    #[test]
    fn may_ask_ends_when_it_is_undone_again_and_again() {
        let mut now = Instant::now();
        let mut explicit = Explicit::default();
        for round in 1..=EXPLICIT_UNDONE_MAX {
            asked_for(&mut explicit, 2, now);
            assert!(!explicit.groups_changed(&[2], now), "that is what was asked for");
            now += Duration::from_secs(60);
            assert_eq!(explicit.groups_changed(&[1], now), round == EXPLICIT_UNDONE_MAX);
            now += Duration::from_secs(60);
        }
        assert!(!explicit.may_ask(now + Duration::from_secs(3600)));
        assert_eq!(explicit.next_timer(), None);
        explicit.order();
        assert!(explicit.may_ask(now) && explicit.is_ordered());
        asked_for(&mut explicit, 2, now);
        assert!(!explicit.is_ordered(), "once");
    }

    #[test]
    fn answered_badly_is_nothing_to_undo() {
        let now = Instant::now();
        let mut explicit = Explicit::default();
        explicit.ask(PATH, 2, now);
        assert_eq!(explicit.answered(false), Some(2));
        for _ in 0..100 {
            assert!(!explicit.groups_changed(&[1], now));
        }
    }
}
