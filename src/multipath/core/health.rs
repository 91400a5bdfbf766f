//! Which of the paths in use are worse than their siblings, and what becomes of them. What is
//! remembered of each stands in [`crate::multipath::health`]; here the paths are compared.
//!
//! A path that limps, or is held down, stays in use as the last resort (`shaky`): no policy chooses
//! it while another path is up. Commands that are on it are not taken back: their answers are on
//! the way, and where taking one back ends a session, all of them would pay for it.

use std::time::{Duration, Instant};

use super::Core;
use super::events::Action;
use crate::ids::PathId;
use crate::limits::{
    ERROR_HOLD, ERROR_WINDOW, HEALTH_TICK, HEALTH_TICK_IDLE, LIMP_FLOOR_ALONE, LIMP_READING_AGE,
    SUSPECT_LOOK,
};
use crate::multipath::health::errors::too_many;
use crate::multipath::health::pace::{Outcome, limps};
use crate::multipath::health::suspicion::{Judgement, Suspicion};
use crate::multipath::load::Counts;
use crate::multipath::path::Path;
use crate::multipath::probe::Finding;
use crate::multipath::state::PathState;
use crate::scsi::Status;
use crate::scsi::alua::AccessState;

/// When the paths are looked at.
#[derive(Debug)]
pub(super) struct Watch {
    /// The next tick.
    due: Instant,
    /// The time between two ticks.
    interval: Duration,
    /// Something is open that needs a look before the tick.
    look: Option<Instant>,
    /// Lanes have reported overdue commands and were not told yet that they were heard: that waits
    /// for the tick, so that a slow array costs a few tables a second and not one for each command.
    unheard: bool,
}

impl Watch {
    pub(super) fn new(now: Instant) -> Self {
        Watch { due: now, interval: HEALTH_TICK, look: None, unheard: false }
    }
}

impl Core {
    /// Looks at what is open. Called once after each event.
    pub(super) fn keep_health(&mut self, now: Instant) {
        self.watch.look = None;
        self.judge_suspects(now);
        if self.watch.due <= now && self.usable().count() > 1 {
            self.tick(now);
        }
        self.judge_trials(now);
        self.judge_unreadable(now);
        self.give_up_late(now);
        self.name_last_resorts(now);
    }

    /// When [`Core::keep_health`] has something to do by time alone.
    pub(super) fn health_timer(&self) -> Option<Instant> {
        let tick = (self.usable().count() > 1).then_some(self.watch.due);
        let holds = self.paths.values().filter(|path| path.state == PathState::Shaky);
        let holds = holds.filter_map(|path| path.health.setbacks.held_until());
        let failed = self.paths.values().filter(|path| path.state == PathState::Failed);
        let patience = failed.filter_map(|path| path.check.patience_ends());
        holds.chain(patience).chain(tick).chain(self.watch.look).min()
    }

    /// A command has been under way over the path for suspiciously long.
    pub(super) fn overdue(&mut self, id: PathId, now: Instant) {
        self.watch.unheard = true;
        if let Some(path) = self.paths.get_mut(&id).filter(|path| path.is_usable()) {
            path.health.suspicion.get_or_insert(Suspicion::new(now));
        }
    }

    /// The path has answered a question.
    pub(super) fn heard_from(&mut self, id: PathId, status: Status, now: Instant) {
        let Some(path) = self.paths.get_mut(&id) else { return };
        path.health.answered = Some(now);
        path.health.answered_well = status == Status::GOOD;
        let Some(took) = path.check.took(now) else { return };
        path.health.pace.read(took, now);
        let over_sibling = |path: &&mut Path| path.health.pace.tried_against() == Some(id);
        for path in self.paths.values_mut().filter(over_sibling) {
            path.health.pace.read_over_sibling(took);
        }
        let theirs = self.siblings(id).filter_map(|path| path.health.pace.reading(now)).min();
        if let Some(path) = self.paths.get_mut(&id)
            && path.health.pace.recovers(took, theirs)
        {
            path.health.setbacks.hold_down(now);
        }
    }

    /// A block was read over the path, or could not be.
    pub(super) fn read_over(&mut self, id: PathId, finding: &Finding, now: Instant) {
        let Some(path) = self.paths.get_mut(&id) else { return };
        match finding {
            Finding::Unreadable(why) => {
                path.health.unreadable = Some((now, why.clone()));
                self.usable_mut().for_each(|path| path_reads(Some(path), now));
            }
            // A refusal (BUSY, a reservation) says nothing of the block.
            _ if path.check.was_reading() && path.health.answered_well => {
                path.health.readable = Some(now);
                path.health.unreadable = None;
            }
            _ => {}
        }
    }

    /// The path is about to come into use: state and reason. A path that is slow already is not
    /// tried on the guest's commands first.
    pub(super) fn welcome(&mut self, id: PathId, good: &str, now: Instant) -> (PathState, String) {
        let fastest = self.paths.get(&id).and_then(|path| path.check.fastest());
        let sibling = self.siblings(id).filter_map(|path| Some((path, path.pace(now)?)));
        let sibling = sibling.min_by_key(|(_, pace)| *pace);
        let sibling = sibling.map(|(path, pace)| (path.name.clone(), pace));
        let Some(path) = self.paths.get_mut(&id) else { return (PathState::Up, good.to_owned()) };
        let health = &mut path.health;
        if let Some(own) = fastest {
            health.pace.read(own, now);
            if let Some((name, theirs)) = sibling
                && own >= LIMP_FLOOR_ALONE
                && limps(own, theirs)
            {
                health.pace.limp(own, theirs, &name);
            }
        }
        health.setbacks.returned(now);
        match health.complaint(now) {
            Some(why) => (PathState::Shaky, why),
            None => (PathState::Up, good.to_owned()),
        }
    }

    fn usable(&self) -> impl Iterator<Item = &Path> {
        self.paths.values().filter(|path| path.is_usable())
    }

    fn usable_mut(&mut self) -> impl Iterator<Item = &mut Path> {
        self.paths.values_mut().filter(|path| path.is_usable())
    }

    /// The other paths in full use that are as good by their access state.
    fn siblings(&self, id: PathId) -> impl Iterator<Item = &Path> {
        // Where the array does not tell access states, the configuration says which are the better.
        let class = |path: &Path| match path.access {
            AccessState::Unknown => (false, path.preferred),
            state => (true, state.is_optimized()),
        };
        let own = self.paths.get(&id).map(class);
        self.paths
            .values()
            .filter(move |path| path.id != id && path.is_up() && Some(class(path)) == own)
    }

    fn judge_suspects(&mut self, now: Instant) {
        let suspects = self.paths.values().filter(|path| path.health.suspicion.is_some());
        let suspects: Vec<PathId> = suspects.map(|path| path.id).collect();
        for id in suspects {
            let others = self.usable().filter(|path| path.id != id);
            let sibling = others.filter_map(|path| Some((path.sign_of_life()?, path.name.clone())));
            // While it is told to make its group the better one, it is asked nothing else.
            let sibling = sibling.max().filter(|_| !self.explicit.is_answer(id));
            let (sign, name) = sibling.unzip();
            let Some(path) = self.paths.get_mut(&id) else { continue };
            let own = path.sign_of_life();
            let Some(suspicion) = &mut path.health.suspicion else { continue };
            match suspicion.judge(own, sign, now) {
                Judgement::Alive => {
                    path.health.suspicion = None;
                    path.health.errors.slow(now);
                }
                Judgement::Silent => {
                    let name = name.unwrap_or_default();
                    self.fail(id, &format!("does not answer, and {name} does"), now);
                }
                Judgement::Wait(until) => {
                    self.look_again(until);
                    path_reads(self.paths.get_mut(&id), now);
                    self.read_over_siblings(id, now);
                }
            }
        }
    }

    /// Has every other path in use show whether it answers, unless it just did.
    fn read_over_siblings(&mut self, id: PathId, now: Instant) {
        for path in self.usable_mut().filter(|path| path.id != id) {
            let silent = |sign| now.saturating_duration_since(sign) >= SUSPECT_LOOK;
            if path.sign_of_life().is_none_or(silent) {
                path_reads(Some(path), now);
            }
        }
    }

    fn tick(&mut self, now: Instant) {
        let mut windows: Vec<(PathId, Counts)> = Vec::new();
        let mut idle = true;
        for path in self.usable_mut() {
            let counts = path.load.counts();
            let window = counts.since(&std::mem::replace(&mut path.health.seen, counts));
            idle &= window.answered == 0 && path.load.commands() == 0;
            path.health.errors.aborted(window.aborted, now);
            windows.push((path.id, window));
        }
        for (id, window) in &windows {
            self.compare_pace(*id, &windows, now);
            self.compare_errors(*id, now);
            if window.unreadable > 0 {
                self.usable_mut().for_each(|path| path_reads(Some(path), now));
            }
            if self.paths.get(id).is_some_and(|path| path.health.pace.is_limping()) {
                path_reads(self.paths.get_mut(id), now);
                let sibling = self.siblings(*id).map(|path| path.id).next();
                path_reads(sibling.and_then(|id| self.paths.get_mut(&id)), now);
                idle = false;
            }
        }
        self.watch.interval = match idle {
            true => (self.watch.interval * 2).min(HEALTH_TICK_IDLE),
            false => HEALTH_TICK,
        };
        self.watch.due = now + self.watch.interval;
        self.dirty |= std::mem::take(&mut self.watch.unheard);
    }

    fn compare_pace(&mut self, id: PathId, windows: &[(PathId, Counts)], now: Instant) {
        let mean = |id: PathId| {
            let (_, window) = windows.iter().find(|(of, _)| *of == id)?;
            window.mean()
        };
        let pace = |path: &Path| mean(path.id).or_else(|| path.health.pace.reading(now));
        let best = self.siblings(id).filter_map(pace).min();
        let sibling = self.siblings(id).min_by_key(|path| pace(path).unwrap_or(Duration::MAX));
        let Some(sibling) = sibling.map(|path| path.id) else { return };
        if let Some(path) = self.paths.get_mut(&id)
            && path.state == PathState::Up
            && path.health.pace.tick(mean(id), best, now)
        {
            path.health.pace.accuse(sibling);
        }
    }

    fn compare_errors(&mut self, id: PathId, now: Instant) {
        let others = self.usable_mut().filter(|path| path.id != id);
        let of = |path: &mut Path| (path.health.errors.sum(now).weight(), path.name.clone());
        let Some((least, name)) = others.map(of).min() else { return };
        let Some(path) = self.paths.get_mut(&id) else { return };
        let own = path.health.errors.sum(now);
        if path.state == PathState::Up && too_many(own.weight(), least) {
            let seconds = ERROR_WINDOW.as_secs();
            let theirs = if least == 0 { "none" } else { "fewer" };
            let why = format!("after {own} within {seconds} s, {theirs} over {name}");
            path.health.setbacks.add(now);
            path.health.setbacks.hold_down(now);
            path.health.setbacks.hold_for(ERROR_HOLD, why, now);
            path.health.errors.clear();
        }
    }

    fn judge_trials(&mut self, now: Instant) {
        let tried = |path: &Path| path.health.pace.tried_against().map(|by| (path.id, by));
        let trials: Vec<(PathId, PathId)> = self.paths.values().filter_map(tried).collect();
        for (id, by) in trials {
            let sibling = self.paths.get(&by).filter(|path| path.is_usable());
            let name = sibling.map(|path| path.name.clone());
            let Some(path) = self.paths.get_mut(&id) else { continue };
            let waiting = path.check.asked().map(|asked| now.saturating_duration_since(asked));
            match (name, path.health.pace.verdict(waiting)) {
                // Without blocks to read there is nothing to compare.
                _ if !path.is_usable() => path.health.pace.acquit(now),
                (None, _) | (_, Outcome::Well) => path.health.pace.acquit(now),
                (Some(name), Outcome::Limps { own, theirs }) => {
                    path.health.setbacks.add(now);
                    path.health.pace.limp(own, theirs, &name);
                }
                (Some(_), Outcome::Open) => {
                    let (own, theirs) = path.health.pace.wants();
                    path_reads(Some(path).filter(|_| own), now);
                    path_reads(self.paths.get_mut(&by).filter(|_| theirs), now);
                    self.look_again(now + SUSPECT_LOOK);
                }
            }
        }
    }

    /// A block that can be read over another path is no fault of the medium's.
    fn judge_unreadable(&mut self, now: Instant) {
        let unreadable =
            |path: &Path| path.health.unreadable.clone().map(|(at, why)| (path.id, at, why));
        let found: Vec<_> = self.usable().filter_map(unreadable).collect();
        for (id, at, why) in found {
            let well = |path: &&Path| {
                let apart = |readable: Instant| at.max(readable) - at.min(readable);
                path.health.readable.is_some_and(|readable| apart(readable) <= LIMP_READING_AGE)
            };
            let sibling = self.usable().filter(|path| path.id != id).find(well);
            if let Some(name) = sibling.map(|path| path.name.clone()) {
                self.fail(id, &format!("{why}; over {name} it can be read"), now);
            }
        }
    }

    /// Questions to failed paths end before `path_timeout`: a path that was silent may be back.
    fn give_up_late(&mut self, now: Instant) {
        for path in self.paths.values_mut().filter(|path| path.state == PathState::Failed) {
            if path.check.patience_ends().is_some_and(|ends| ends <= now) && path.check.give_up() {
                self.actions.push(Action::GiveUp(path.id));
            }
        }
    }

    fn name_last_resorts(&mut self, now: Instant) {
        let judged = |path: &mut Path| {
            path.health.setbacks.expire(now);
            (path.id, path.state, path.health.complaint(now))
        };
        let in_use = self.paths.values_mut().filter(|path| path.state.is_usable());
        let complaints: Vec<_> = in_use.map(judged).collect();
        for (id, state, complaint) in complaints {
            match (state, complaint) {
                (PathState::Up, Some(why)) => self.change(id, PathState::Shaky, &why, now),
                (PathState::Shaky, None) => self.change(id, PathState::Up, "well again", now),
                (PathState::Shaky, Some(why)) => {
                    if let Some(path) = self.paths.get_mut(&id).filter(|path| path.reason != why) {
                        path.reason = why;
                    }
                }
                _ => {}
            }
        }
    }

    fn look_again(&mut self, at: Instant) {
        self.watch.look = Some(self.watch.look.map_or(at, |look| look.min(at)));
    }
}

/// Has a block read over `path`, unless it is being asked something already.
fn path_reads(path: Option<&mut Path>, now: Instant) {
    if let Some(path) = path.filter(|path| !path.check.is_running()) {
        path.check.read_soon(now);
    }
}
