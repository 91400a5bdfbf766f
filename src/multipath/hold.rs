//! Writes whose outcome nobody knows, and the blocks that wait for them.
//!
//! ```text
//!   a lane lost a write's answer --> Ledger::unproven --> the hold is published in the table
//!                                                          each lane keeps new overlapping commands
//!                                                          back, and honours the hold when those it
//!                                                          had sent before have ended
//!   all lanes honour it, and the time is up (or it was proven) --> released: the owner sends again
//!                                                          (proven: by the end itself, or later by
//!                                                          its path, for all of a session; a
//!                                                          parked write only so)
//!   the owner answered the guest --> settled: the hold is gone
//! ```
//!
//! Why all this: the first copy of the write may land late. If the second copy were sent, answered,
//! and the block written again before that, the late copy would overwrite newer data, silently.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::classify::Executed;
use crate::ids::{HoldId, LaneId, PathId, Version};
use crate::lun::Extent;

/// Blocks that wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hold {
    /// Which write they wait for.
    pub id: HoldId,
    /// Its blocks.
    pub extent: Extent,
}

/// What must come before a write whose first attempt may have been executed is sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Nothing: the attempt will not be executed any more.
    Nothing,
    /// The time in which it could still land.
    Quiesce,
    /// Its path's word that it waits in the host no longer; no time bounds it.
    Proof,
}

impl Wait {
    /// What follows from what is known of an attempt.
    pub fn after(executed: Executed) -> Self {
        match executed {
            Executed::Yes | Executed::No | Executed::Perhaps => Wait::Nothing,
            Executed::Unknown => Wait::Quiesce,
            Executed::Parked => Wait::Proof,
        }
    }
}

/// An attempt that ended with its outcome unknown.
#[derive(Clone, Copy, Debug)]
pub struct Attempt {
    /// The path that carried it.
    pub path: PathId,
    /// The session of the path's transport, 0 without one.
    pub session: u32,
    /// When it ended.
    pub ended: Instant,
    /// It cannot land after this time; `None` while only its path can say.
    pub safe_at: Option<Instant>,
}

impl Attempt {
    /// It may land until `safe_at`. What is proven of later ones says nothing about it.
    fn return_by(&mut self, safe_at: Instant) {
        if self.safe_at.is_none() {
            self.safe_at = Some(safe_at);
            self.session = 0;
        }
    }
}

#[derive(Debug)]
struct Entry {
    hold: Hold,
    /// Order of arrival: of two that overlap, the older goes first.
    order: u64,
    /// Its write's attempts whose outcome nobody knows.
    attempts: Vec<Attempt>,
    /// Published since this version; `None` until it is.
    since: Option<Version>,
    /// That time has come: only lanes and older holds are waited for now.
    ripe: bool,
    /// The owner has been told to go on.
    released: bool,
    /// The owner gave the command up: the hold lasts until `safe_at` and nobody waits to be told.
    orphan: bool,
    /// The command is in the guest's in-flight region, unless a lane has run since.
    given_back: bool,
}

/// What is left of commands at the end of the process: attempts that may still land.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remains {
    /// None.
    Nothing,
    /// Of commands that were given back: who takes these again knows of them.
    GivenBack,
    /// Of others, which nobody will know of.
    Unknown,
}

impl Entry {
    /// None of its attempts can land after this time; `None` while no time says so.
    fn safe_at(&self) -> Option<Instant> {
        let times: Option<Vec<Instant>> =
            self.attempts.iter().map(|attempt| attempt.safe_at).collect();
        times.and_then(|times| times.into_iter().max())
    }

    fn is_safe(&self, now: Instant) -> bool {
        self.attempts.iter().all(|attempt| attempt.safe_at.is_some_and(|safe_at| safe_at <= now))
    }
}

/// All holds of a LUN, and which lanes honour what.
#[derive(Debug, Default)]
pub struct Ledger {
    entries: Vec<Entry>,
    orders: u64,
    /// The version that each running lane honours all holds of.
    honoured: BTreeMap<LaneId, Version>,
    /// The last session of each path of which nothing can land any more.
    proven: BTreeMap<PathId, u32>,
    /// The last session of each path of which nothing waits in the host any more, and until when
    /// what was sent of it may land.
    returned: BTreeMap<PathId, (u32, Instant)>,
}

impl Ledger {
    /// A lane runs from now on; it starts with the table of `version`.
    pub fn lane_up(&mut self, lane: LaneId, version: Version) {
        self.honoured.insert(lane, version);
        // Its guest may be another, with another region, or have been answered since.
        self.entries.iter_mut().for_each(|entry| entry.given_back = false);
    }

    /// A lane is gone; it holds nothing and nobody waits for it.
    pub fn lane_down(&mut self, lane: LaneId) {
        self.honoured.remove(&lane);
    }

    /// `lane` has seen the table of `version` and has no overlapping attempt left.
    pub fn honoured(&mut self, lane: LaneId, version: Version) {
        if let Some(known) = self.honoured.get_mut(&lane) {
            *known = version.max(*known);
        }
    }

    /// The version that every running lane has seen and honours; `None` without lanes.
    pub fn honoured_by_all(&self) -> Option<Version> {
        self.honoured.values().min().copied()
    }

    /// A write's attempt ended with its outcome unknown.
    pub fn unproven(&mut self, hold: Hold, mut attempt: Attempt) {
        let proven = self.proven.get(&attempt.path).copied().unwrap_or(0);
        match self.returned.get(&attempt.path) {
            Some((last, safe_at)) if (1..=*last).contains(&attempt.session) => {
                attempt.return_by(*safe_at);
            }
            _ if (1..=proven).contains(&attempt.session) => {
                attempt.safe_at = Some(attempt.ended);
            }
            _ => {}
        }
        if let Some(entry) = self.entries.iter_mut().find(|entry| entry.hold.id == hold.id) {
            // What could not land any more when this attempt ended has no say.
            entry
                .attempts
                .retain(|earlier| earlier.safe_at.is_none_or(|safe_at| safe_at > attempt.ended));
            entry.attempts.push(attempt);
            entry.ripe = false;
            entry.released = false;
            return;
        }
        self.orders += 1;
        self.entries.push(Entry {
            hold,
            order: self.orders,
            attempts: vec![attempt],
            since: None,
            ripe: false,
            released: false,
            orphan: false,
            given_back: false,
        });
    }

    /// Nothing of `session` of `path`, or of an earlier one, can land any more. Holds for the end
    /// of an attempt on it that is heard of only later as well.
    pub fn proven(&mut self, path: PathId, session: u32, now: Instant) {
        let known = self.proven.entry(path).or_default();
        *known = session.max(*known);
        for attempt in self.entries.iter_mut().flat_map(|entry| &mut entry.attempts) {
            if attempt.path == path && (1..=session).contains(&attempt.session) {
                attempt.safe_at = Some(attempt.safe_at.map_or(now, |safe_at| safe_at.min(now)));
            }
        }
    }

    /// Nothing of `session` of `path`, or of an earlier one, waits in the host any more; what was
    /// sent of it may land until `safe_at`. Holds for what is heard of only later as well.
    pub fn returned(&mut self, path: PathId, session: u32, safe_at: Instant) {
        self.returned.insert(path, (session, safe_at));
        for attempt in self.entries.iter_mut().flat_map(|entry| &mut entry.attempts) {
            if attempt.path == path && (1..=session).contains(&attempt.session) {
                attempt.return_by(safe_at);
            }
        }
    }

    /// True while a hold waits for the word of `path`.
    pub fn waits_for(&self, path: PathId) -> bool {
        let mut attempts = self.entries.iter().flat_map(|entry| &entry.attempts);
        attempts.any(|attempt| attempt.path == path && attempt.safe_at.is_none())
    }

    /// From now on `path` names another path: what is proven of it says nothing about attempts on
    /// the one that had the id before.
    pub fn forget_path(&mut self, path: PathId) {
        debug_assert!(!self.waits_for(path), "nobody is left to speak for {path}");
        self.proven.remove(&path);
        self.returned.remove(&path);
        for attempt in self.entries.iter_mut().flat_map(|entry| &mut entry.attempts) {
            if attempt.path == path {
                attempt.session = 0;
            }
        }
    }

    /// The owner has answered the guest, after its last attempt ended with an answer.
    pub fn settled(&mut self, id: HoldId) {
        self.entries.retain(|entry| entry.hold.id != id);
    }

    /// The owner gave the command up while an attempt may still land.
    pub fn orphaned(&mut self, id: HoldId) {
        if let Some(entry) = self.entries.iter_mut().find(|entry| entry.hold.id == id) {
            entry.orphan = true;
        }
    }

    /// The same, and its command is in the guest's in-flight region.
    pub fn given_back(&mut self, id: HoldId) {
        if let Some(entry) = self.entries.iter_mut().find(|entry| entry.hold.id == id) {
            (entry.orphan, entry.given_back) = (true, true);
        }
    }

    /// What would be left if the process ended now.
    pub fn remains(&self) -> Remains {
        match self.entries.iter().all(|entry| entry.given_back) {
            _ if self.entries.is_empty() => Remains::Nothing,
            true => Remains::GivenBack,
            false => Remains::Unknown,
        }
    }

    /// True when no attempt of these writes can land any more.
    pub fn has_landed(&self, now: Instant) -> bool {
        self.entries.iter().all(|entry| entry.is_safe(now))
    }

    /// What to publish.
    pub fn holds(&self) -> Vec<Hold> {
        self.entries.iter().map(|entry| entry.hold).collect()
    }

    /// All holds of now were published with `version`.
    pub fn published(&mut self, version: Version) {
        for entry in self.entries.iter_mut().filter(|entry| entry.since.is_none()) {
            entry.since = Some(version);
        }
    }

    /// Takes the holds whose owner may go on now. Holds that nobody owns and that are over are
    /// dropped; the second value tells that there were some.
    pub fn release(&mut self, now: Instant) -> (Vec<HoldId>, bool) {
        let before = self.entries.len();
        self.entries.retain(|entry| !(entry.orphan && entry.is_safe(now)));
        let dropped = self.entries.len() != before;
        for entry in &mut self.entries {
            entry.ripe = entry.is_safe(now);
        }
        let seen = self.honoured_by_all();
        let ready: BTreeSet<HoldId> = self
            .entries
            .iter()
            .filter(|entry| !entry.released && !entry.orphan && entry.ripe)
            .filter(|entry| entry.since.zip(seen).is_some_and(|(since, seen)| since <= seen))
            .filter(|entry| !self.waits_for_an_older(entry))
            .map(|entry| entry.hold.id)
            .collect();
        for entry in self.entries.iter_mut().filter(|entry| ready.contains(&entry.hold.id)) {
            entry.released = true;
        }
        (ready.into_iter().collect(), dropped)
    }

    /// When time alone may change something. A hold whose time has come waits for lanes, and they
    /// bring an event when they are done: until then there is nothing to wake up for.
    pub fn next_timer(&self) -> Option<Instant> {
        self.entries.iter().filter(|entry| !entry.ripe).filter_map(Entry::safe_at).min()
    }

    /// True without any hold.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn waits_for_an_older(&self, entry: &Entry) -> bool {
        self.entries
            .iter()
            .any(|other| other.order < entry.order && other.hold.extent.overlaps(entry.hold.extent))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn hold(lane: u16, number: u64, first: u64) -> Hold {
        let id = HoldId { lane: LaneId(lane), number };
        Hold { id, extent: Extent::Blocks { first, count: 8 } }
    }

    fn on(path: u16, session: u32, ended: Instant, safe_at: Instant) -> Attempt {
        Attempt { path: PathId(path), session, ended, safe_at: Some(safe_at) }
    }

    fn parked(path: u16, session: u32, ended: Instant) -> Attempt {
        Attempt { path: PathId(path), session, ended, safe_at: None }
    }

    fn ledger() -> (Ledger, Instant) {
        let mut ledger = Ledger::default();
        ledger.lane_up(LaneId(0), Version(1));
        ledger.lane_up(LaneId(1), Version(1));
        (ledger, Instant::now())
    }

    fn all_honour(ledger: &mut Ledger, version: u64) {
        ledger.published(Version(version));
        ledger.honoured(LaneId(0), Version(version));
        ledger.honoured(LaneId(1), Version(version));
    }

    #[test]
    fn remains_are_known_to_the_region_until_a_lane_runs_again() {
        let (mut ledger, now) = ledger();
        assert_eq!(ledger.remains(), Remains::Nothing);
        ledger.unproven(hold(0, 1, 0), on(1, 0, now, now + SECOND));
        ledger.given_back(hold(0, 1, 0).id);
        assert_eq!(ledger.remains(), Remains::GivenBack);
        ledger.lane_up(LaneId(1), Version(2));
        assert_eq!(ledger.remains(), Remains::Unknown);
        ledger.release(now + SECOND);
        assert_eq!(ledger.remains(), Remains::Nothing);
    }

    #[test]
    fn remains_of_a_command_that_was_answered_are_known_to_nobody() {
        let (mut ledger, now) = ledger();
        ledger.unproven(hold(0, 1, 0), on(1, 0, now, now + SECOND));
        ledger.given_back(hold(0, 1, 0).id);
        ledger.unproven(hold(0, 2, 8), on(1, 0, now, now + SECOND));
        ledger.orphaned(hold(0, 2, 8).id);
        assert_eq!(ledger.remains(), Remains::Unknown);
    }

    #[test]
    fn release_waits_for_the_time() {
        let (mut ledger, now) = ledger();
        ledger.unproven(hold(0, 1, 0), on(1, 0, now, now + SECOND));
        all_honour(&mut ledger, 2);
        assert_eq!(ledger.release(now).0, []);
        assert_eq!(ledger.next_timer(), Some(now + SECOND));
        assert_eq!(ledger.release(now + SECOND).0, [hold(0, 1, 0).id]);
        assert_eq!(ledger.release(now + SECOND).0, [], "once");
    }

    #[test]
    fn next_timer_is_not_in_the_past_while_a_lane_is_waited_for() {
        let (mut ledger, now) = ledger();
        ledger.unproven(hold(0, 1, 0), on(1, 0, now, now));
        ledger.published(Version(2));
        assert_eq!(ledger.release(now).0, []);
        assert_eq!(ledger.next_timer(), None);
    }

    #[test]
    fn release_waits_for_every_lane() {
        let (mut ledger, now) = ledger();
        ledger.unproven(hold(0, 1, 0), on(1, 0, now, now));
        assert_eq!(ledger.release(now).0, [], "not even published");
        ledger.published(Version(2));
        ledger.honoured(LaneId(0), Version(2));
        assert_eq!(ledger.release(now).0, []);
        ledger.honoured(LaneId(1), Version(2));
        assert_eq!(ledger.release(now).0.len(), 1);
    }

    #[test]
    fn release_does_not_wait_for_a_lane_that_is_gone() {
        let (mut ledger, now) = ledger();
        ledger.unproven(hold(0, 1, 0), on(1, 0, now, now));
        ledger.published(Version(2));
        ledger.honoured(LaneId(0), Version(2));
        ledger.lane_down(LaneId(1));
        assert_eq!(ledger.release(now).0.len(), 1);
    }

    #[test]
    fn release_of_overlapping_writes_is_one_after_the_other() {
        let (mut ledger, now) = ledger();
        ledger.unproven(hold(0, 1, 0), on(1, 0, now, now));
        ledger.unproven(hold(1, 1, 4), on(1, 0, now, now));
        ledger.unproven(hold(1, 2, 100), on(1, 0, now, now));
        all_honour(&mut ledger, 2);
        assert_eq!(ledger.release(now).0, [hold(0, 1, 0).id, hold(1, 2, 100).id]);
        ledger.settled(hold(0, 1, 0).id);
        assert_eq!(ledger.release(now).0, [hold(1, 1, 4).id]);
    }

    #[test]
    fn unproven_again_starts_again_and_keeps_its_place() {
        let (mut ledger, now) = ledger();
        ledger.unproven(hold(0, 1, 0), on(1, 0, now, now));
        ledger.unproven(hold(1, 1, 0), on(1, 0, now, now));
        all_honour(&mut ledger, 2);
        assert_eq!(ledger.release(now).0, [hold(0, 1, 0).id]);
        ledger.unproven(hold(0, 1, 0), on(1, 0, now, now + SECOND));
        assert_eq!(ledger.release(now).0, []);
        assert_eq!(ledger.release(now + SECOND).0, [hold(0, 1, 0).id]);
    }

    #[test]
    fn orphaned_hold_lasts_until_its_write_cannot_land() {
        let (mut ledger, now) = ledger();
        ledger.unproven(hold(0, 1, 0), on(1, 0, now, now + SECOND));
        ledger.orphaned(hold(0, 1, 0).id);
        all_honour(&mut ledger, 2);
        assert_eq!(ledger.release(now), (vec![], false));
        assert_eq!(ledger.holds().len(), 1);
        assert_eq!(ledger.release(now + SECOND), (vec![], true));
        assert!(ledger.is_empty());
    }

    #[test]
    fn proof_after_the_end_releases_its_sessions_at_once() {
        let (mut ledger, now) = ledger();
        ledger.unproven(hold(0, 1, 0), on(1, 3, now, now + SECOND));
        ledger.unproven(hold(0, 2, 100), on(1, 4, now, now + SECOND));
        ledger.unproven(hold(0, 3, 200), on(2, 3, now, now + SECOND));
        ledger.unproven(hold(0, 4, 300), on(1, 0, now, now + SECOND));
        all_honour(&mut ledger, 2);
        ledger.proven(PathId(1), 3, now);
        assert_eq!(ledger.release(now).0, [hold(0, 1, 0).id]);
    }

    #[test]
    fn proof_before_the_end_is_heard_counts_as_well() {
        let (mut ledger, now) = ledger();
        ledger.proven(PathId(1), 3, now);
        ledger.unproven(hold(0, 1, 0), on(1, 3, now, now + SECOND));
        ledger.unproven(hold(0, 2, 100), on(1, 4, now, now + SECOND));
        ledger.unproven(hold(0, 3, 200), on(1, 0, now, now + SECOND));
        all_honour(&mut ledger, 2);
        assert_eq!(ledger.release(now).0, [hold(0, 1, 0).id]);
    }

    #[test]
    fn proof_of_one_attempt_leaves_the_other_unproven() {
        let (mut ledger, now) = ledger();
        ledger.unproven(hold(0, 1, 0), on(1, 3, now, now + SECOND));
        ledger.unproven(hold(0, 1, 0), on(2, 9, now, now + SECOND));
        all_honour(&mut ledger, 2);
        ledger.proven(PathId(2), 9, now);
        assert_eq!(ledger.release(now).0, []);
        ledger.proven(PathId(1), 3, now);
        assert_eq!(ledger.release(now).0, [hold(0, 1, 0).id]);
    }

    #[test]
    fn proof_of_a_path_says_nothing_about_the_one_that_had_its_id_before() {
        let (mut ledger, now) = ledger();
        ledger.unproven(hold(0, 1, 0), on(1, 3, now, now + SECOND));
        ledger.proven(PathId(1), 2, now);
        ledger.forget_path(PathId(1));
        ledger.proven(PathId(1), 7, now);
        ledger.unproven(hold(0, 2, 100), on(1, 8, now, now + SECOND));
        all_honour(&mut ledger, 2);
        assert_eq!(ledger.release(now).0, []);
        assert_eq!(ledger.release(now + SECOND).0.len(), 2);
    }

    #[test]
    fn parked_write_is_released_by_proof_alone() {
        let (mut ledger, now) = ledger();
        ledger.unproven(hold(0, 1, 0), parked(1, 3, now));
        all_honour(&mut ledger, 2);
        assert_eq!(ledger.release(now + 1000 * SECOND).0, []);
        assert_eq!(ledger.next_timer(), None);
        assert!(ledger.waits_for(PathId(1)) && !ledger.waits_for(PathId(2)));
        ledger.proven(PathId(1), 2, now);
        assert_eq!(ledger.release(now + 1000 * SECOND).0, []);
        ledger.proven(PathId(1), 3, now);
        assert_eq!(ledger.release(now).0, [hold(0, 1, 0).id]);
    }

    #[test]
    fn orphaned_hold_of_a_parked_write_lasts_until_the_proof() {
        let (mut ledger, now) = ledger();
        ledger.unproven(hold(0, 1, 0), parked(1, 1, now));
        ledger.orphaned(hold(0, 1, 0).id);
        all_honour(&mut ledger, 2);
        assert_eq!(ledger.release(now + 1000 * SECOND), (vec![], false));
        ledger.proven(PathId(1), 1, now);
        assert_eq!(ledger.release(now), (vec![], true));
    }

    #[test]
    fn returned_write_may_land_for_the_quiesce_time_whatever_is_proven_of_later_ones() {
        let (mut ledger, now) = ledger();
        ledger.unproven(hold(0, 1, 0), parked(1, 1, now));
        ledger.unproven(hold(0, 2, 100), parked(1, 2, now));
        all_honour(&mut ledger, 2);
        ledger.returned(PathId(1), 1, now + SECOND);
        ledger.proven(PathId(1), 2, now);
        assert_eq!(ledger.release(now).0, [hold(0, 2, 100).id]);
        assert_eq!(ledger.next_timer(), Some(now + SECOND));
        assert_eq!(ledger.release(now + SECOND).0, [hold(0, 1, 0).id]);
    }

    #[test]
    fn return_before_the_end_is_heard_counts_as_well() {
        let (mut ledger, now) = ledger();
        ledger.returned(PathId(1), 1, now + SECOND);
        ledger.proven(PathId(1), 2, now);
        ledger.unproven(hold(0, 1, 0), parked(1, 1, now));
        ledger.unproven(hold(0, 2, 100), parked(1, 2, now));
        ledger.unproven(hold(0, 3, 200), parked(1, 3, now));
        all_honour(&mut ledger, 2);
        assert_eq!(ledger.release(now).0, [hold(0, 2, 100).id]);
        assert_eq!(ledger.release(now + SECOND).0, [hold(0, 1, 0).id]);
        assert_eq!(ledger.release(now + 1000 * SECOND).0, []);
    }
}
