//! `service-time`: the path on which a command would be done first, see [`super::service`].

use std::sync::Arc;
use std::time::Instant;

use super::load::Load;
use super::select::{PathSet, best_bucket, least, usable};
use super::service::Cost;
use super::table::{Entry, Table};
use crate::ids::{PathId, Version};
use crate::limits::{SERVICE_LOOK, SERVICE_PROBE_SHARE, SERVICE_STALE};

/// One lane's choice by `service-time`.
///
/// Most often several paths are about as good. So a choice is one of a round: what each path costs is
/// looked up once, and those that come to about the same as the least get a command each, in turn;
/// several each where all come to about the same, and will afterwards. A round is of one moment, and
/// of commands of one size.
#[derive(Debug, Default)]
pub struct Fastest {
    /// Which snapshot `rivals` is of.
    version: Option<Version>,
    /// The usable paths of the best bucket, in the table's order. They change with the snapshot,
    /// and what they cost with each command.
    rivals: Vec<Rival>,
    /// Behind the last one that had its turn.
    next: usize,
    round: Option<Round>,
    /// Choices since a command was sent only to measure a path, or a few less than it takes where
    /// there was none to measure.
    since_measuring: u32,
    /// When paths are looked through again for one that has to be measured.
    look_at: Option<Instant>,
    /// Behind the last one that was measured so.
    next_measured: usize,
}

#[derive(Debug)]
struct Rival {
    id: PathId,
    load: Arc<Load>,
    /// In this round; [`Cost::MAX`] where it is not to be chosen.
    cost: Cost,
}

#[derive(Clone, Copy, Debug)]
struct Round {
    now: Instant,
    bytes: u32,
    /// The most that one of those costs that are about as good as the best.
    most: Cost,
    /// Turns that are left, of one path each.
    left: usize,
    /// One of the paths was never measured.
    unmeasured: bool,
}

/// Turns of each path in a round where all paths come to about the same.
const TURNS: u32 = 8;

/// Choices until it is seen again whether there is a path to be measured, where there was none or it
/// was not time to look.
const LOOK_SHARE: u32 = 64;

impl Fastest {
    /// The path for the next command, of `bytes`, none of `without`.
    pub fn choose(
        &mut self,
        table: &Table,
        without: &PathSet,
        bytes: u32,
        now: Instant,
    ) -> Option<PathId> {
        if self.version != Some(table.version) {
            self.read(table);
        }
        self.since_measuring = self.since_measuring.saturating_add(1);
        let found = match self.round {
            Some(round) if (round.now, round.bytes) == (now, bytes) && without.is_empty() => {
                self.take_turn(round)
            }
            _ => None,
        };
        let Some((at, unmeasured)) = found.or_else(|| self.begin_round(without, bytes, now)) else {
            // All of the best bucket have failed this command: any other, then.
            return least(usable(table, without), |entry| entry.load.cost(bytes)).map(|it| it.id);
        };
        if (unmeasured || self.since_measuring >= SERVICE_PROBE_SHARE)
            && let Some(path) = self.next_to_measure(without, now)
        {
            return Some(path);
        }
        Some(self.rivals[at].id)
    }

    /// The place of the next one in turn that is as good as any.
    #[inline]
    fn take_turn(&mut self, mut round: Round) -> Option<(usize, bool)> {
        let found = loop {
            round.left = round.left.checked_sub(1)?;
            let at = if self.next < self.rivals.len() { self.next } else { 0 };
            self.next = at + 1;
            if self.rivals[at].cost <= round.most {
                break at;
            }
        };
        self.round = Some(round);
        Some((found, round.unmeasured))
    }

    /// `None` where no path is allowed.
    #[inline(never)]
    fn begin_round(
        &mut self,
        without: &PathSet,
        bytes: u32,
        now: Instant,
    ) -> Option<(usize, bool)> {
        let (mut costs, mut costs_after) = (Spread::EMPTY, Spread::EMPTY);
        for rival in &mut self.rivals {
            if without.contains(rival.id) {
                rival.cost = Cost::MAX;
                continue;
            }
            rival.cost = rival.load.cost(bytes);
            costs.include(rival.cost);
            costs_after.include(rival.load.cost_behind(TURNS, bytes));
        }
        if costs.least == Cost::MAX {
            return None;
        }
        let unmeasured = costs.greatest.is_unmeasured();
        // Paths of which one is slower come to the same while that one carries less, and to another
        // with every command more.
        let alike = costs.is_about_one() && costs_after.is_about_one() && !unmeasured;
        let turns = if alike { TURNS as usize } else { 1 };
        let (most, left) = (costs.least.about(), self.rivals.len() * turns);
        let found = self.take_turn(Round { now, bytes, most, left, unmeasured });
        if !without.is_empty() {
            // Of this command alone.
            self.round = None;
        }
        found
    }

    /// A path that was slow once would never be chosen again, and so never measured again.
    #[cold]
    fn next_to_measure(&mut self, without: &PathSet, now: Instant) -> Option<PathId> {
        let share = self.since_measuring >= SERVICE_PROBE_SHARE;
        let looks = share && self.look_at.is_none_or(|look_at| now >= look_at);
        let count = self.rivals.len();
        for turn in 0..count {
            let at = (self.next_measured + turn) % count;
            let Rival { id, load, .. } = &self.rivals[at];
            if !without.contains(*id)
                && (looks || load.is_unmeasured())
                && load.take_turn_to_measure(now, SERVICE_STALE)
            {
                (self.since_measuring, self.next_measured) = (0, at + 1);
                return Some(*id);
            }
        }
        if looks {
            self.look_at = Some(now + SERVICE_LOOK);
        }
        if share {
            self.since_measuring = SERVICE_PROBE_SHARE - LOOK_SHARE;
        }
        None
    }

    #[cold]
    fn read(&mut self, table: &Table) {
        let last = self.next.checked_sub(1).and_then(|at| self.rivals.get(at)).map(|it| it.id);
        let rival = |entry: &Entry| {
            let load = Arc::clone(&entry.load);
            Rival { id: entry.id, load, cost: Cost::MAX }
        };
        self.rivals.clear();
        self.rivals.extend(best_bucket(table).map(rival));
        let place = self.rivals.iter().position(|rival| Some(rival.id) == last);
        self.next = place.map_or(0, |at| at + 1);
        (self.version, self.round) = (Some(table.version), None);
    }
}

/// The least and the greatest of some costs.
struct Spread {
    least: Cost,
    greatest: Cost,
}

impl Spread {
    const EMPTY: Spread = Spread { least: Cost::MAX, greatest: Cost::MIN };

    fn include(&mut self, cost: Cost) {
        self.least = self.least.min(cost);
        self.greatest = self.greatest.max(cost);
    }

    fn is_about_one(&self) -> bool {
        self.greatest <= self.least.about()
    }
}
