//! The I/O policies. Each is a few lines over the same buckets: the optimized paths, the others
//! only where there is no optimized one at all, however loaded those are, and paths that are shaky
//! last. `numa`, `round-robin` and `queue-depth` are the kernel's, as its NVMe multipath and the
//! native SCSI multipath series have them.
//!
//! | policy | among the usable paths of the best bucket |
//! |---|---|
//! | `numa` | the one nearest to the node that the lane runs on, the first of equally near ones; chosen anew when the paths or the node have changed, so for each node one path |
//! | `round-robin` | each in turn, from the first on; each lane by itself. Without an optimized path the turns go backwards, as in the kernel |
//! | `queue-depth` | the one with the fewest commands under way, the first of equals, all lanes' commands counted; they are counted whatever the policy is, so that a change finds them right |
//! | `service-time` | the one on which the command would be done first, see [`super::fastest`]; those that come to about the same in turn. An idle path is measured anew now and then |
//!
//! A choice reads the snapshot once and takes no lock; it allocates nothing, but with the first choice
//! of `service-time` after paths have changed.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Instant;

use super::fastest::Fastest;
use super::nodes::Nodes;
use super::table::{Entry, Table};
use crate::ids::{PathId, Version};
use crate::limits::PATHS_MAX;

/// How the path is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// `numa`.
    Numa,
    /// `round-robin`.
    RoundRobin,
    /// `queue-depth`.
    QueueDepth,
    /// `service-time`.
    #[default]
    ServiceTime,
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Policy::Numa => "numa",
            Policy::RoundRobin => "round-robin",
            Policy::QueueDepth => "queue-depth",
            Policy::ServiceTime => "service-time",
        })
    }
}

impl FromStr for Policy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Policy::Numa, Policy::RoundRobin, Policy::QueueDepth, Policy::ServiceTime]
            .into_iter()
            .find(|policy| policy.to_string() == text)
            .ok_or_else(|| {
                format!("\"{text}\" is none of numa, round-robin, queue-depth, service-time")
            })
    }
}

/// A set of paths, one bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PathSet([u64; PATHS_MAX / 64]);

impl PathSet {
    /// Adds `path`.
    pub fn insert(&mut self, path: PathId) {
        let (word, bit) = Self::place(path);
        self.0[word] |= bit;
    }

    /// Takes `path` out.
    pub fn remove(&mut self, path: PathId) {
        let (word, bit) = Self::place(path);
        self.0[word] &= !bit;
    }

    /// True when `path` is in it.
    pub fn contains(&self, path: PathId) -> bool {
        let (word, bit) = Self::place(path);
        self.0[word] & bit != 0
    }

    /// True when nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.0 == Self::default().0
    }

    /// Everything that is in either.
    pub fn union(&self, other: &PathSet) -> PathSet {
        PathSet(std::array::from_fn(|word| self.0[word] | other.0[word]))
    }

    fn place(path: PathId) -> (usize, u64) {
        (usize::from(path.0) / 64 % (PATHS_MAX / 64), 1 << (path.0 % 64))
    }
}

/// One lane's choice, with what it remembers from one choice to the next.
#[derive(Debug, Default)]
pub struct Selector {
    /// Where `round-robin` was last: a place in the table, and what was there.
    cursor: Option<(usize, PathId)>,
    /// The place of the path that `numa` chose, and what it was chosen for.
    nearest: Option<(Version, Option<u16>, Option<usize>)>,
    /// The memory node that the lane runs on.
    pub numa_node: Option<u16>,
    nodes: Arc<Nodes>,
    /// For `service-time`.
    fastest: Fastest,
}

impl Selector {
    /// For a host with these memory nodes.
    pub fn new(nodes: Arc<Nodes>) -> Self {
        Selector { nodes, ..Selector::default() }
    }

    /// The path for the next command, of `bytes`, none of `without`. `None` when no other is
    /// usable.
    pub fn select(
        &mut self,
        table: &Table,
        without: &PathSet,
        bytes: u32,
        now: Instant,
    ) -> Option<PathId> {
        if let [only] = &table.entries[..] {
            // No policy has anything to say.
            return may(only, without).then_some(only.id);
        }
        let chosen = match table.policy {
            Policy::ServiceTime => return self.fastest.choose(table, without, bytes, now),
            Policy::Numa => self.numa(table, without),
            Policy::RoundRobin => self.round_robin(table, without),
            Policy::QueueDepth => least(usable(table, without), |entry| entry.load.commands()),
        };
        chosen.map(|entry| entry.id)
    }

    /// The path for commands that stay together: the first of the best, whatever the policy.
    pub fn pinned(table: &Table, without: &PathSet) -> Option<PathId> {
        least(usable(table, without), |_| 0).map(|entry| entry.id)
    }

    /// The path for a second attempt of a command of `bytes` that is on `first`: the one that would
    /// answer first, of those that are as good, and are well.
    pub fn second<'a>(
        table: &'a Table,
        without: &PathSet,
        first: PathId,
        bytes: u32,
    ) -> Option<&'a Entry> {
        let bar = table.entry(first).map_or(BEST, |entry| (false, bucket(entry).1));
        let as_good = usable(table, without).filter(|entry| bucket(entry) <= bar);
        as_good.min_by_key(|entry| entry.load.cost(bytes))
    }

    fn numa<'a>(&mut self, table: &'a Table, without: &PathSet) -> Option<&'a Entry> {
        let at = match self.nearest {
            Some((version, node, at)) if (version, node) == (table.version, self.numa_node) => at,
            _ => {
                let chosen = nearest(table, &PathSet::default(), &self.nodes, self.numa_node);
                let at = chosen.and_then(|chosen| place(table, chosen.id));
                self.nearest = Some((table.version, self.numa_node, at));
                at
            }
        };
        match at.and_then(|at| table.entries.get(at)) {
            Some(entry) if !without.contains(entry.id) => Some(entry),
            _ => nearest(table, without, &self.nodes, self.numa_node),
        }
    }

    fn round_robin<'a>(&mut self, table: &'a Table, without: &PathSet) -> Option<&'a Entry> {
        let Some(old) = self.cursor_place(table) else {
            let first = place(table, least(usable(table, without), |_| 0)?.id)?;
            return self.move_to(table, first);
        };
        let mut found: Option<(Bucket, usize)> = None;
        for at in (old + 1..table.entries.len()).chain(0..old) {
            let entry = &table.entries[at];
            if !may(entry, without) {
                continue;
            }
            let bucket = bucket(entry);
            if bucket == BEST {
                return self.move_to(table, at);
            }
            // The last one of them, not the first.
            if found.is_none_or(|(least, _)| bucket <= least) {
                found = Some((bucket, at));
            }
        }
        let old = table.entries.get(old).filter(|entry| may(entry, without));
        match (old, found) {
            (Some(old), Some((other, _))) if bucket(old) < other => Some(old),
            (_, Some((_, at))) => self.move_to(table, at),
            (old, None) => old,
        }
    }

    fn cursor_place(&mut self, table: &Table) -> Option<usize> {
        let (at, id) = self.cursor?;
        if table.entries.get(at).is_some_and(|entry| entry.id == id) {
            return Some(at);
        }
        let at = place(table, id)?;
        self.cursor = Some((at, id));
        Some(at)
    }

    fn move_to<'a>(&mut self, table: &'a Table, at: usize) -> Option<&'a Entry> {
        let entry = table.entries.get(at)?;
        self.cursor = Some((at, entry.id));
        Some(entry)
    }
}

/// The path of `numa` for commands from `node`.
pub fn nearest<'a>(
    table: &'a Table,
    without: &PathSet,
    nodes: &Nodes,
    node: Option<u16>,
) -> Option<&'a Entry> {
    least(usable(table, without), |entry| nodes.distance(node, entry.numa_node))
}

/// Paths of a lower bucket are used before all others: shaky, then not optimized.
type Bucket = (bool, bool);
const BEST: Bucket = (false, false);

fn bucket(entry: &Entry) -> Bucket {
    (entry.state == super::PathState::Shaky, !entry.optimized)
}

fn may(entry: &Entry, without: &PathSet) -> bool {
    entry.is_usable() && !without.contains(entry.id)
}

/// The paths that a command may be sent over, none of `without`.
pub(super) fn usable<'a>(table: &'a Table, without: &PathSet) -> impl Iterator<Item = &'a Entry> {
    table.entries.iter().filter(|entry| may(entry, without))
}

fn place(table: &Table, id: PathId) -> Option<usize> {
    table.entries.iter().position(|entry| entry.id == id)
}

/// The usable paths of the best bucket that has any.
pub(super) fn best_bucket(table: &Table) -> impl Iterator<Item = &Entry> {
    let everyone = PathSet::default();
    let best = usable(table, &everyone).map(bucket).min();
    table.entries.iter().filter(move |entry| entry.is_usable() && Some(bucket(entry)) == best)
}

/// The first entry of the best bucket with the smallest `cost`.
pub(super) fn least<'a, C: Ord>(
    entries: impl Iterator<Item = &'a Entry>,
    cost: impl Fn(&Entry) -> C,
) -> Option<&'a Entry> {
    entries.min_by_key(|entry| (bucket(entry), cost(entry)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::limits::{SERVICE_PROBE_SHARE, SERVICE_STALE};
    use crate::multipath::load::Load;
    use crate::multipath::state::PathState;
    use crate::scsi::alua::AccessState;

    fn table(policy: Policy, optimized: &[bool]) -> (Table, Instant) {
        let now = Instant::now();
        let mut table = Table::empty(policy);
        table.entries = optimized
            .iter()
            .enumerate()
            .map(|(id, optimized)| Entry {
                id: PathId(id as u16),
                state: PathState::Up,
                access: AccessState::ActiveOptimized,
                optimized: *optimized,
                numa_node: None,
                load: Arc::new(Load::new(now)),
            })
            .collect();
        (table, now)
    }

    fn picks(selector: &mut Selector, table: &Table, now: Instant, count: usize) -> Vec<u16> {
        let pick = |_| selector.select(table, &PathSet::default(), 4096, now).unwrap().0;
        (0..count).map(pick).collect()
    }

    #[test]
    fn select_never_takes_an_unusable_path() {
        for policy in [Policy::Numa, Policy::RoundRobin, Policy::QueueDepth, Policy::ServiceTime] {
            let (mut table, now) = table(policy, &[true, true, true]);
            table.entries[0].state = PathState::Failed;
            table.entries[1].access = AccessState::Standby;
            assert_eq!(picks(&mut Selector::default(), &table, now, 5), [2; 5], "{policy}");
            table.entries[2].state = PathState::Checking;
            let none = Selector::default().select(&table, &PathSet::default(), 0, now);
            assert_eq!(none, None, "{policy}");
        }
    }

    #[test]
    fn select_prefers_optimized_however_loaded() {
        for policy in [Policy::Numa, Policy::RoundRobin, Policy::QueueDepth, Policy::ServiceTime] {
            let (table, now) = table(policy, &[false, true, false]);
            (0..9).for_each(|_| table.entries[1].load.started(4096));
            assert_eq!(picks(&mut Selector::default(), &table, now, 4), [1; 4], "{policy}");
        }
    }

    #[test]
    fn select_leaves_out_what_was_tried() {
        for policy in [Policy::Numa, Policy::RoundRobin, Policy::QueueDepth, Policy::ServiceTime] {
            let (table, now) = table(policy, &[true, true]);
            let mut tried = PathSet::default();
            tried.insert(PathId(0));
            assert_eq!(Selector::default().select(&table, &tried, 0, now), Some(PathId(1)));
            tried.insert(PathId(1));
            assert_eq!(Selector::default().select(&table, &tried, 0, now), None);
        }
    }

    #[test]
    fn round_robin_takes_turns() {
        let (table, now) = table(Policy::RoundRobin, &[true, false, true]);
        assert_eq!(picks(&mut Selector::default(), &table, now, 5), [0, 2, 0, 2, 0]);
    }

    #[test]
    fn queue_depth_takes_the_shortest_and_the_first_of_equals() {
        let (table, now) = table(Policy::QueueDepth, &[true, true]);
        let mut selector = Selector::default();
        assert_eq!(picks(&mut selector, &table, now, 2), [0, 0]);
        table.entries[0].load.started(1);
        assert_eq!(picks(&mut selector, &table, now, 1), [1]);
    }

    #[test]
    fn round_robin_stays_on_the_only_optimized_path() {
        let (mut table, now) = table(Policy::RoundRobin, &[false, true, false]);
        let mut selector = Selector::default();
        assert_eq!(picks(&mut selector, &table, now, 3), [1, 1, 1]);
        table.entries[1].state = PathState::Failed;
        assert_eq!(picks(&mut selector, &table, now, 3), [0, 2, 0], "the others take turns");
        table.entries[1].state = PathState::Up;
        assert_eq!(picks(&mut selector, &table, now, 2), [1, 1]);
    }

    #[test]
    fn round_robin_goes_backwards_where_no_path_is_optimized() {
        let (table, now) = table(Policy::RoundRobin, &[false; 4]);
        assert_eq!(picks(&mut Selector::default(), &table, now, 6), [0, 3, 2, 1, 0, 3]);
    }

    #[test]
    fn round_robin_begins_anew_when_its_last_path_is_gone() {
        let (mut table, now) = table(Policy::RoundRobin, &[true; 4]);
        let mut selector = Selector::default();
        assert_eq!(picks(&mut selector, &table, now, 3), [0, 1, 2]);
        table.entries.remove(0);
        assert_eq!(picks(&mut selector, &table, now, 1), [3], "another place, the same path");
        table.entries.remove(2);
        assert_eq!(picks(&mut selector, &table, now, 2), [1, 2]);
    }

    #[test]
    fn queue_depth_never_spills_to_a_path_that_is_not_optimized() {
        let (table, now) = table(Policy::QueueDepth, &[false, true]);
        (0..1000).for_each(|_| table.entries[1].load.started(4096));
        assert_eq!(picks(&mut Selector::default(), &table, now, 2), [1, 1]);
    }

    #[test]
    fn queue_depth_counts_what_began_under_another_policy() {
        let (mut table, now) = table(Policy::RoundRobin, &[true, true]);
        let mut selector = Selector::default();
        for path in picks(&mut selector, &table, now, 5) {
            table.entries[usize::from(path)].load.started(4096);
        }
        table.policy = Policy::QueueDepth;
        assert_eq!(picks(&mut selector, &table, now, 1), [1], "three on the first, two on it");
        (0..2).for_each(|_| table.entries[0].load.ended(4096, Duration::ZERO, now, true));
        assert_eq!(picks(&mut selector, &table, now, 1), [0]);
    }

    fn near(table: &mut Table, nodes: &[Option<u16>]) {
        for (entry, node) in table.entries.iter_mut().zip(nodes) {
            entry.numa_node = *node;
        }
    }

    /// Four nodes in a row, each ten further.
    fn row_of_nodes() -> Arc<Nodes> {
        let mut nodes = Nodes::default();
        for (from, to) in (0..4).flat_map(|from| (0..4).map(move |to| (from, to))) {
            nodes.set(from, to, 10 + 10 * u32::from(from.abs_diff(to)));
        }
        Arc::new(nodes)
    }

    #[test]
    fn second_attempt_goes_over_a_path_that_is_as_good() {
        let (mut table, now) = table(Policy::RoundRobin, &[true, false, true, true]);
        let second = |table: &Table, first: u16| {
            let mut without = PathSet::default();
            without.insert(PathId(first));
            Selector::second(table, &without, PathId(first), 0).map(|entry| entry.id.0)
        };
        for (path, us) in [(0, 100), (1, 10), (2, 300), (3, 200)] {
            let load = &table.entries[path].load;
            load.started(0);
            load.ended(0, Duration::from_micros(us), now + Duration::from_micros(us), true);
        }
        assert_eq!(second(&table, 0), Some(3), "the faster one of the optimized");
        assert_eq!(second(&table, 1), Some(0), "a better one is as good");
        table.entries[3].state = PathState::Shaky;
        assert_eq!(second(&table, 0), Some(2));
        table.entries[2].state = PathState::Failed;
        assert_eq!(second(&table, 0), None);
    }

    #[test]
    fn numa_takes_the_nearest_to_the_lanes_node() {
        let (mut table, now) = table(Policy::Numa, &[true, true, true]);
        near(&mut table, &[Some(0), Some(2), Some(3)]);
        let mut selector = Selector::new(row_of_nodes());
        for (node, path) in [(Some(0), 0), (Some(1), 0), (Some(2), 1), (Some(3), 2), (None, 0)] {
            selector.numa_node = node;
            assert_eq!(picks(&mut selector, &table, now, 2), [path; 2], "{node:?}");
        }
        // A path without a node is as near as can be.
        near(&mut table, &[Some(0), None, Some(3)]);
        table.version.0 += 1;
        selector.numa_node = Some(3);
        assert_eq!(picks(&mut selector, &table, now, 1), [1], "the first of equals");
    }

    #[test]
    fn numa_looks_again_when_a_path_comes_or_goes() {
        let (mut table, now) = table(Policy::Numa, &[true, true, false]);
        near(&mut table, &[Some(0), Some(1), Some(1)]);
        let mut selector = Selector { numa_node: Some(1), ..Selector::default() };
        assert_eq!(picks(&mut selector, &table, now, 2), [1, 1]);
        table.entries[1].state = PathState::Failed;
        table.version.0 += 1;
        assert_eq!(picks(&mut selector, &table, now, 1), [0], "far, and optimized");
        table.entries[1].state = PathState::Up;
        table.version.0 += 1;
        assert_eq!(picks(&mut selector, &table, now, 1), [1], "the kernel looks again as well");
    }

    #[test]
    fn numa_goes_elsewhere_with_what_its_path_has_failed() {
        let (table, now) = table(Policy::Numa, &[true, true]);
        let mut selector = Selector::default();
        let mut tried = PathSet::default();
        assert_eq!(selector.select(&table, &tried, 0, now), Some(PathId(0)));
        tried.insert(PathId(0));
        assert_eq!(selector.select(&table, &tried, 0, now), Some(PathId(1)));
        assert_eq!(picks(&mut selector, &table, now, 1), [0], "only that command");
    }

    #[test]
    fn service_time_takes_the_faster_and_measures_the_idle_one_again() {
        let (table, now) = table(Policy::ServiceTime, &[true, true]);
        let ms = Duration::from_millis;
        for (path, took) in [(0, 10), (1, 1)] {
            let load = &table.entries[path].load;
            load.started(4096);
            load.ended(4096, ms(took), now + ms(took), true);
        }
        let mut selector = Selector::default();
        let later = now + ms(5000);
        let share = SERVICE_PROBE_SHARE as usize;
        let first = picks(&mut selector, &table, later, share - 1);
        assert!(first.iter().all(|path| *path == 1), "not before enough others");
        assert_eq!(picks(&mut selector, &table, later, 2), [0, 1], "one, and only one");
        assert!(!picks(&mut selector, &table, later, 2 * share).contains(&0), "asked just now");
    }

    #[test]
    fn service_time_sends_one_command_to_a_path_without_a_measurement() {
        let (table, now) = table(Policy::ServiceTime, &[true, true, true]);
        for path in [0, 1] {
            let load = &table.entries[path].load;
            load.started(4096);
            load.ended(4096, Duration::from_millis(1), now + Duration::from_millis(1), true);
        }
        let mut selector = Selector::default();
        let first = picks(&mut selector, &table, now, 20);
        assert_eq!(first.iter().filter(|path| **path == 2).count(), 1, "{first:?}");
        assert_eq!(first[0], 2);
    }

    #[test]
    fn service_time_looks_anew_after_a_round_in_another_moment_and_for_another_size() {
        let (us, third) = (Duration::from_micros, [0, 1, 2].repeat(8));
        for (later, bytes) in [(us(0), 4096), (us(1), 4096), (us(0), 8192)] {
            let (table, now) = table(Policy::ServiceTime, &[true, true, true]);
            for path in &table.entries {
                path.load.started(4096);
                path.load.ended(4096, us(100), now, true);
            }
            let mut selector = Selector::default();
            let whole = (later, bytes) == (us(0), 4096);
            let first = if whole { 24 } else { 4 };
            assert_eq!(picks(&mut selector, &table, now, first), third[..first]);
            (0..99).for_each(|_| table.entries[1].load.started(4096));
            let mut next = || selector.select(&table, &PathSet::default(), bytes, now + later);
            let then: Vec<_> = (0..4).map(|_| next().unwrap().0).collect();
            assert!(!then.contains(&1), "{then:?} after {first}");
        }
    }

    /// They come to the same only while the slower one carries less.
    #[test]
    fn service_time_divides_a_burst_by_what_paths_can_do() {
        for bytes in [4096, 65_536, 1 << 20] {
            let (table, now) = table(Policy::ServiceTime, &[true, true]);
            let us = Duration::from_micros;
            for (path, took) in [(0, 100), (1, 400)] {
                let load = &table.entries[path].load;
                load.started(0);
                load.ended(0, us(took), now + us(took), true);
            }
            let load = |at: usize| &table.entries[at].load;
            while load(0).cost(bytes) < load(1).cost(bytes) {
                load(0).started(bytes);
            }
            let mut selector = Selector::default();
            let mut sent = [0; 2];
            for _ in 0..16 {
                let path = selector.select(&table, &PathSet::default(), bytes, now).unwrap();
                load(path.0.into()).started(bytes);
                sent[usize::from(path.0)] += 1;
            }
            assert!((11..=14).contains(&sent[0]), "{sent:?} of {bytes} bytes each");
        }
    }

    #[test]
    fn service_time_takes_turns_and_measures_where_a_path_is_left_out() {
        let (table, now) = table(Policy::ServiceTime, &[true; 4]);
        let measured = |path: usize, us| {
            let load = &table.entries[path].load;
            load.started(4096);
            load.ended(4096, Duration::from_micros(us), now, true);
        };
        (0..3).for_each(|path| measured(path, 100));
        let mut without = PathSet::default();
        without.insert(PathId(0));
        let mut selector = Selector::default();
        let mut next = || selector.select(&table, &without, 4096, now).unwrap().0;
        assert_eq!(next(), 3, "the one that was never measured");
        measured(3, 100_000);
        let others: Vec<_> = (0..4).map(|_| next()).collect();
        assert_eq!(others.iter().filter(|path| **path == 1).count(), 2, "{others:?}");
        assert_eq!(others.iter().filter(|path| **path == 2).count(), 2, "{others:?}");
        let later = now + 2 * SERVICE_STALE;
        let found = (0..3 * SERVICE_PROBE_SHARE)
            .filter(|_| selector.select(&table, &without, 4096, later) == Some(PathId(3)))
            .count();
        assert_eq!(found, 1, "measured again, as the others are that are left");
    }

    #[test]
    fn service_time_measures_all_slow_paths_in_turn() {
        let (table, now) = table(Policy::ServiceTime, &[true; 8]);
        for (path, entry) in table.entries.iter().enumerate() {
            entry.load.started(4096);
            let us = if path == 0 { 100 } else { 100_000 };
            entry.load.ended(4096, Duration::from_micros(us), now, true);
        }
        let mut selector = Selector::default();
        let mut seen = std::collections::BTreeSet::new();
        // A path is stale again before all others had their turn.
        for turn in 0..14 * SERVICE_PROBE_SHARE {
            let now = now + SERVICE_STALE + turn * SERVICE_STALE / (2 * SERVICE_PROBE_SHARE);
            let path = selector.select(&table, &PathSet::default(), 4096, now).unwrap();
            let load = &table.entries[usize::from(path.0)].load;
            load.started(4096);
            let us = if path.0 == 0 { 100 } else { 100_000 };
            load.ended(4096, Duration::from_micros(us), now, true);
            seen.insert(path.0);
        }
        assert_eq!(seen.len(), 8, "{seen:?}");
    }

    #[test]
    fn service_time_goes_on_in_turn_when_paths_have_changed() {
        let (mut table, now) = table(Policy::ServiceTime, &[true, true, true, false]);
        for path in &table.entries {
            path.load.started(4096);
            path.load.ended(4096, Duration::from_micros(100), now, true);
        }
        let mut selector = Selector::default();
        assert_eq!(picks(&mut selector, &table, now, 2), [0, 1]);
        table.entries[0].state = PathState::Failed;
        table.version.0 += 1;
        assert_eq!(picks(&mut selector, &table, now, 3), [2, 1, 2]);
        table.entries[1].optimized = false;
        table.entries[2].optimized = false;
        table.version.0 += 1;
        assert_eq!(picks(&mut selector, &table, now, 3), [3, 1, 2], "all alike again");
    }

    #[test]
    fn shaky_path_is_the_last_resort() {
        for policy in [Policy::Numa, Policy::RoundRobin, Policy::QueueDepth, Policy::ServiceTime] {
            let (mut table, now) = table(policy, &[true, false]);
            let mut selector = Selector::default();
            assert_eq!(picks(&mut selector, &table, now, 1), [0], "{policy}");
            table.entries[0].state = PathState::Shaky;
            table.version.0 += 1;
            let later = now + 2 * SERVICE_STALE;
            assert_eq!(picks(&mut selector, &table, later, 4), [1; 4], "{policy}");
            table.entries[1].state = PathState::Failed;
            table.version.0 += 1;
            assert_eq!(picks(&mut selector, &table, now, 1), [0], "{policy}");
        }
    }

    #[test]
    fn policy_names_read_back() {
        for policy in [Policy::Numa, Policy::RoundRobin, Policy::QueueDepth, Policy::ServiceTime] {
            assert_eq!(policy.to_string().parse(), Ok(policy));
        }
        assert!("fastest".parse::<Policy>().is_err());
    }
}
