//! Groups of paths: which of them are in use. Among the groups with a usable path the best rank
//! counts; groups of the same rank share the work. A group stays what it is when its state changes:
//! it is the array's target port group, or where the array has none, the configuration's.
//!
//! | rank | paths |
//! |---|---|
//! | 0, 1 | active/optimized: preferred ones (PREF, or `preferred` in the configuration), then others |
//! | 2, 3 | active/non-optimized and lba-dependent: preferred ones, then others |
//! | none | standby, unavailable, offline, transitioning: no command that touches blocks |
//!
//! An array that tells no access state has rank 0 and 1 only. A group without a path that is `up`
//! comes after all groups that have one: its shaky paths are the last resort.
//!
//! When a group that is better than the one in use becomes usable, *failback* decides:
//!
//! | failback | it is used |
//! |---|---|
//! | immediate | at once |
//! | manual | when an admin says so |
//! | followover | at once if it comes back from having no path at all; never because the array (for another host's sake) has made it better |
//! | a time | when it has been the better one for so long |
//!
//! Whatever the policy: a group that is seen for the first time and is better is used at once, as
//! at the start, when paths answer one after the other; and when the group in use has no usable
//! path left, the best of the others is. Where the groups in use have nothing but shaky paths and
//! failback keeps them nevertheless, the best of the others stand in: commands go over those, by
//! their rank, until one of the group's own paths is up again.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::{Duration, Instant};

use crate::scsi::alua::AccessState;

/// When to go back to a better group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Failback {
    /// At once.
    #[default]
    Immediate,
    /// When an admin says so.
    Manual,
    /// When it came back from having no path.
    Followover,
    /// When it has been better for so long.
    After(Duration),
}

/// Which group a path is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupKey {
    /// The target port group, or the configuration's number.
    pub id: Option<u16>,
    /// The configuration prefers its paths.
    pub preferred: bool,
}

impl fmt::Display for GroupKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.id, self.preferred) {
            (Some(id), _) => write!(f, "group {id}"),
            (None, true) => f.write_str("preferred paths"),
            (None, false) => f.write_str("other paths"),
        }
    }
}

/// How good a path is; the least is the best.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank(u8);

impl Rank {
    /// Of an access state, with the preferred ones first within it; `None` where nothing that
    /// touches blocks may be sent.
    pub fn of(access: AccessState, preferred: bool) -> Option<Self> {
        let class = match access {
            AccessState::ActiveOptimized | AccessState::Unknown => 0,
            AccessState::ActiveNonOptimized | AccessState::LbaDependent => 2,
            AccessState::Standby
            | AccessState::Unavailable
            | AccessState::Offline
            | AccessState::Transitioning => return None,
        };
        Some(Rank(class + u8::from(!preferred)))
    }

    /// True for active/optimized, and for what does not tell.
    pub fn is_optimized(self) -> bool {
        self.0 < 2
    }
}

/// One path, as far as the choice of groups looks at it.
#[derive(Clone, Copy, Debug)]
pub struct Member {
    /// Its group.
    pub group: GroupKey,
    /// It answers; its access state is another matter.
    pub alive: bool,
    /// It is alive, and the last resort.
    pub shaky: bool,
    /// How good it is.
    pub rank: Option<Rank>,
}

/// A group's worth: no path that is up, then the rank.
type Worth = (bool, Rank);

/// The groups in use, and what is remembered of the others.
#[derive(Debug, Default)]
pub struct Choice {
    policy: Failback,
    /// The groups in use. They stay when their last path goes, until another group is usable.
    current: BTreeSet<GroupKey>,
    worth: Option<Worth>,
    /// Groups of this rank that carry what the groups in use, all of them shaky, should not.
    stand_ins: Option<(Rank, BTreeSet<GroupKey>)>,
    /// Groups that have had a path that is alive, and whether they have one now.
    known: BTreeMap<GroupKey, bool>,
    /// Since when a better group than those in use is usable.
    better_since: Option<Instant>,
    ordered: bool,
}

/// The groups in use have changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Switch {
    /// Those before; empty at the start.
    pub from: BTreeSet<GroupKey>,
    /// Those now.
    pub to: BTreeSet<GroupKey>,
}

impl Choice {
    /// Nothing in use yet.
    pub fn new(policy: Failback) -> Self {
        Choice { policy, ..Choice::default() }
    }

    /// The policy.
    pub fn policy(&self) -> Failback {
        self.policy
    }

    /// From now on by this policy.
    pub fn set_policy(&mut self, policy: Failback) {
        self.policy = policy;
    }

    /// An admin wants the best group, once.
    pub fn order(&mut self) {
        self.ordered = true;
    }

    /// True when commands go first over a path of this group and rank, by its own merits and the
    /// groups in use.
    pub fn prefers(&self, group: GroupKey, rank: Option<Rank>) -> bool {
        let (Some((_, current)), Some(rank)) = (self.worth, rank) else { return false };
        let of = |groups: &BTreeSet<GroupKey>, least| groups.contains(&group) && rank <= least;
        of(&self.current, current)
            || self.stand_ins.as_ref().is_some_and(|(least, groups)| of(groups, *least))
    }

    /// True when `group` is in use.
    pub fn is_current(&self, group: GroupKey) -> bool {
        self.current.contains(&group)
    }

    /// When time alone changes the choice.
    pub fn next_timer(&self) -> Option<Instant> {
        match self.policy {
            Failback::After(wait) => self.better_since.map(|since| since + wait),
            _ => None,
        }
    }

    /// The paths are these now. Returns the switch when other groups are in use than before.
    pub fn update(&mut self, members: &[Member], now: Instant) -> Option<Switch> {
        let worths = worths(members);
        let returned = self.note_alive(members);
        let ordered = std::mem::take(&mut self.ordered);
        let Some(best) = worths.values().min().copied() else {
            self.better_since = None;
            return None;
        };
        let kept = self.current.iter().filter_map(|group| worths.get(group)).min().copied();
        let worth = match kept {
            None => best,
            Some(kept) if kept <= best => kept,
            Some(kept) => {
                let since = *self.better_since.get_or_insert(now);
                let is_best = |group: &GroupKey| worths.get(group) == Some(&best);
                let first = returned.iter().any(|(group, first)| *first && is_best(group));
                let back = returned.iter().any(|(group, _)| is_best(group));
                let switches = match self.policy {
                    Failback::Immediate => true,
                    Failback::Manual => false,
                    Failback::Followover => back,
                    Failback::After(wait) => now.saturating_duration_since(since) >= wait,
                };
                if switches || ordered || first { best } else { kept }
            }
        };
        if worth == best {
            self.better_since = None;
        }
        self.worth = Some(worth);
        let of = |worth| {
            let groups = worths.iter().filter(move |(_, its)| **its == worth);
            groups.map(|(group, _)| *group).collect::<BTreeSet<_>>()
        };
        self.stand_ins = match (worth, best) {
            ((true, _), (false, rank)) => Some((rank, of(best))),
            _ => None,
        };
        let chosen = of(worth);
        if chosen == self.current {
            return None;
        }
        let from = std::mem::replace(&mut self.current, chosen.clone());
        Some(Switch { from, to: chosen })
    }

    /// The groups that have a path that is alive and had none before, and whether that is for the
    /// first time.
    fn note_alive(&mut self, members: &[Member]) -> Vec<(GroupKey, bool)> {
        let mut returned = Vec::new();
        for (group, alive) in &mut self.known {
            *alive = *alive && members.iter().any(|one| one.group == *group && one.alive);
        }
        for member in members.iter().filter(|member| member.alive) {
            match self.known.insert(member.group, true) {
                Some(true) => {}
                before => returned.push((member.group, before.is_none())),
            }
        }
        self.known.retain(|group, _| members.iter().any(|one| one.group == *group));
        returned
    }
}

fn worths(members: &[Member]) -> BTreeMap<GroupKey, Worth> {
    let mut worths = BTreeMap::new();
    for member in members.iter().filter(|member| member.alive) {
        let Some(rank) = member.rank else { continue };
        let worth = (member.shaky, rank);
        let best: &mut Worth = worths.entry(member.group).or_insert(worth);
        *best = worth.min(*best);
    }
    worths
}

#[cfg(test)]
mod tests {
    use super::AccessState::{ActiveNonOptimized as An, ActiveOptimized as Ao, Standby};
    use super::*;

    const fn key(id: u16) -> GroupKey {
        GroupKey { id: Some(id), preferred: false }
    }

    fn member(group: u16, access: AccessState) -> Member {
        Member { group: key(group), alive: true, shaky: false, rank: Rank::of(access, false) }
    }

    fn dead(group: u16) -> Member {
        Member { alive: false, ..member(group, Ao) }
    }

    fn set(groups: &[u16]) -> BTreeSet<GroupKey> {
        groups.iter().map(|group| key(*group)).collect()
    }

    /// Group 1 is the better one, and is lost.
    fn failed_over(policy: Failback, now: Instant) -> Choice {
        let mut choice = Choice::new(policy);
        choice.update(&[member(1, Ao), member(2, An)], now);
        assert_eq!(choice.current, set(&[1]));
        let switch = choice.update(&[dead(1), member(2, An)], now);
        assert_eq!(switch, Some(Switch { from: set(&[1]), to: set(&[2]) }), "{policy:?}");
        choice
    }

    #[test]
    fn rank_puts_the_preferred_first_within_a_state_only() {
        let ranks = [(Ao, true), (Ao, false), (An, true), (An, false)];
        let ranks = ranks.map(|(access, preferred)| Rank::of(access, preferred).unwrap());
        assert!(ranks.is_sorted());
        assert_eq!(ranks.map(Rank::is_optimized), [true, true, false, false]);
        assert_eq!(Rank::of(Standby, true), None);
        assert_eq!(Rank::of(AccessState::Unknown, false), Rank::of(Ao, false));
    }

    #[test]
    fn update_uses_all_groups_of_the_best_rank() {
        let mut choice = Choice::default();
        choice.update(&[member(1, Ao), member(2, Ao), member(3, An)], Instant::now());
        assert_eq!(choice.current, set(&[1, 2]));
        assert!(choice.prefers(key(2), Rank::of(Ao, false)));
        assert!(!choice.prefers(key(2), Rank::of(An, false)), "a path that lags behind its group");
        assert!(!choice.prefers(key(3), Rank::of(An, false)));
    }

    #[test]
    fn update_goes_back_as_the_policy_says() {
        let now = Instant::now();
        let back = [member(1, Ao), member(2, An)];
        for (policy, goes_back) in [
            (Failback::Immediate, true),
            (Failback::Manual, false),
            (Failback::Followover, true),
            (Failback::After(Duration::from_secs(5)), false),
        ] {
            let mut choice = failed_over(policy, now);
            choice.update(&back, now);
            assert_eq!(choice.is_current(key(1)), goes_back, "{policy:?}");
        }
    }

    #[test]
    fn manual_goes_back_on_order_and_never_else() {
        let now = Instant::now();
        let mut choice = failed_over(Failback::Manual, now);
        let back = [member(1, Ao), member(2, An)];
        for hours in 0..100 {
            assert_eq!(choice.update(&back, now + Duration::from_secs(3600 * hours)), None);
        }
        choice.order();
        assert!(choice.update(&back, now).is_some());
        assert_eq!(choice.current, set(&[1]));
    }

    #[test]
    fn followover_stays_where_the_array_moved_the_better_group() {
        let now = Instant::now();
        let mut choice = Choice::new(Failback::Followover);
        choice.update(&[member(1, Ao), member(2, An)], now);
        // Another host had the array move: both groups have been alive all the time.
        assert_eq!(choice.update(&[member(1, An), member(2, Ao)], now), None);
        assert_eq!(choice.current, set(&[1]));
        let mut choice = failed_over(Failback::Followover, now);
        // It comes back, not yet better; when the array makes it better that is another matter.
        choice.update(&[member(1, Standby), member(2, An)], now);
        assert_eq!(choice.update(&[member(1, Ao), member(2, An)], now), None);
    }

    #[test]
    fn after_a_time_counts_from_when_it_became_better_without_a_break() {
        let now = Instant::now();
        let at = |seconds| now + Duration::from_secs(seconds);
        let mut choice = failed_over(Failback::After(Duration::from_secs(5)), now);
        let back = [member(1, Ao), member(2, An)];
        assert_eq!(choice.update(&back, at(0)), None);
        assert_eq!(choice.next_timer(), Some(at(5)));
        assert_eq!(choice.update(&[dead(1), member(2, An)], at(4)), None);
        assert_eq!(choice.next_timer(), None);
        assert_eq!(choice.update(&back, at(5)), None);
        assert_eq!(choice.update(&back, at(9)), None);
        assert!(choice.update(&back, at(10)).is_some());
        assert_eq!(choice.next_timer(), None);
    }

    #[test]
    fn group_seen_for_the_first_time_is_used_at_once() {
        let now = Instant::now();
        let mut choice = Choice::new(Failback::Manual);
        choice.update(&[dead(1), member(2, An)], now);
        assert_eq!(choice.current, set(&[2]));
        choice.update(&[member(1, Ao), member(2, An)], now);
        assert_eq!(choice.current, set(&[1]));
    }

    #[test]
    fn group_of_the_same_rank_comes_back_whatever_the_policy() {
        let now = Instant::now();
        let mut choice = Choice::new(Failback::Manual);
        choice.update(&[member(1, Ao), member(2, Ao)], now);
        choice.update(&[dead(1), member(2, Ao)], now);
        choice.update(&[member(1, Ao), member(2, Ao)], now);
        assert_eq!(choice.current, set(&[1, 2]));
    }

    #[test]
    fn group_of_shaky_paths_comes_last() {
        let now = Instant::now();
        let mut choice = Choice::default();
        let shaky = Member { shaky: true, ..member(1, Ao) };
        choice.update(&[shaky, member(2, An)], now);
        assert_eq!(choice.current, set(&[2]));
        choice.update(&[shaky, dead(2)], now);
        assert_eq!(choice.current, set(&[1]));
    }

    #[test]
    fn best_of_the_others_stand_in_for_a_group_that_is_kept_and_shaky() {
        let now = Instant::now();
        let mut choice = failed_over(Failback::Manual, now);
        let shaky = Member { shaky: true, ..member(2, An) };
        choice.update(&[member(1, Ao), shaky, member(3, An)], now);
        let is_preferred =
            |choice: &Choice, group, access| choice.prefers(key(group), Rank::of(access, false));
        assert_eq!(choice.current, set(&[2]), "nobody has ordered it back");
        assert!(is_preferred(&choice, 1, Ao) && is_preferred(&choice, 2, An));
        assert!(!is_preferred(&choice, 3, An), "group 1 is better");
        choice.update(&[member(1, Ao), member(2, An), member(3, An)], now);
        assert!(is_preferred(&choice, 2, An) && !is_preferred(&choice, 1, Ao));
    }

    #[test]
    fn no_usable_group_keeps_what_was_in_use() {
        let now = Instant::now();
        let mut choice = failed_over(Failback::Manual, now);
        assert_eq!(choice.update(&[dead(1), dead(2)], now), None);
        choice.update(&[dead(1), member(2, An)], now);
        assert_eq!(choice.current, set(&[2]));
    }
}
