//! What follows for the LUN: its state, which paths are asked, which can be closed, and what the
//! lanes are told.

use std::sync::Arc;
use std::time::Instant;

use super::Core;
use super::events::{Action, LunState, News, NoPathRetry};
use crate::ids::{PathId, Version};
use crate::multipath::gone::{self, Said};
use crate::multipath::path::Path;
use crate::multipath::state::PathState;
use crate::multipath::table::{NoPath, Table};
use crate::multipath::words::paths_in_words;
use crate::scsi::Asc;

impl Core {
    pub(super) fn close_drained(&mut self) {
        let seen = self.ledger.honoured_by_all();
        let version = self.version;
        let by_all = |since: Version| seen.is_none_or(|seen| since <= seen);
        // A lane that has honoured a version from after a path's last end has told what that end
        // leaves to be proven, and only the path can prove it.
        let drained = |path: &Path| {
            path.state == PathState::Draining
                && path.quiet_since.is_some_and(by_all)
                && self.conversing != Some(path.id)
                && !self.ledger.waits_for(path.id)
        };
        for path in self.paths.values_mut().filter(|path| path.state == PathState::Draining) {
            if path.drains_since.is_none() && !self.dirty {
                path.drains_since = Some(version);
            }
            let is_quiet = path.load.commands() == 0
                && !path.check.is_running()
                && !self.explicit.is_answer(path.id)
                && self.conversing != Some(path.id);
            if is_quiet && path.quiet_since.is_none() && path.drains_since.is_some_and(by_all) {
                path.quiet_since = Some(Version(version.0 + 1));
                self.dirty = true;
            }
        }
        let gone: Vec<PathId> =
            self.paths.values().filter(|path| drained(path)).map(|path| path.id).collect();
        for id in gone {
            self.paths.remove(&id);
            self.broker.removed(id);
            self.leaving.push((id, Version(self.version.0 + 1)));
            self.dirty = true;
            self.actions.push(Action::Close(id));
        }
    }

    pub(super) fn start_due_probes(&mut self, now: Instant) {
        let capacity = self.face.as_ref().map(|face| face.capacity);
        for path in self.paths.values_mut() {
            if path.is_asked()
                && !self.explicit.is_answer(path.id)
                && let Some(question) = path.start_check(capacity, now)
            {
                self.actions.push(Action::Ask(path.id, question));
            }
        }
    }

    pub(super) fn update_lun_state(&mut self, now: Instant) {
        let usable = self.paths.values().any(Path::is_usable);
        let transition = self.paths.values().any(|path| path.is_in_transition(now));
        if usable {
            self.no_path_since = None;
        } else if transition {
            // The array is at it: this is not the time without a path that an admin has bounded.
            self.no_path_since = Some(now);
        }
        self.follow_gone(usable, now);
        let since = (!usable).then(|| *self.no_path_since.get_or_insert(now));
        // While a path is being asked who it is, there may be one in a moment: after a reset of the
        // array all of them are, and none has failed. And a switch that is started anew blocks all
        // of them for some seconds.
        self.hope_until = match (self.settings.no_path_retry, usable) {
            (NoPathRetry::Fail, false) => self.paths.values().filter_map(Path::hope_ends).max(),
            _ => None,
        };
        self.hope_until = self.hope_until.filter(|end| now < *end);
        let hope =
            transition || self.hope_until.is_some() || self.paths.values().any(Path::is_checking);
        let no_path = match (self.settings.no_path_retry, since) {
            (_, None) => NoPath::Hold,
            (_, Some(_)) if self.gone.is_gone() => NoPath::Gone,
            (NoPathRetry::Queue, _) => NoPath::Hold,
            (NoPathRetry::Fail, Some(_)) if hope => NoPath::Hold,
            (NoPathRetry::Fail, Some(_)) => NoPath::Fail,
            (NoPathRetry::For(limit), Some(since)) if now < since + limit => NoPath::Hold,
            (NoPathRetry::For(_), Some(_)) => NoPath::Fail,
        };
        if no_path != self.no_path {
            self.no_path = no_path;
            self.dirty = true;
        }
        let counted = || self.paths.values().filter(|path| path.state != PathState::Draining);
        let state = match (usable, no_path) {
            (true, _) if counted().all(Path::is_up) => LunState::Healthy,
            (true, _) => LunState::Degraded,
            (false, NoPath::Hold) => LunState::NoPath,
            (false, NoPath::Fail | NoPath::Gone) => LunState::Lost,
        };
        if state != self.lun_state {
            let from = std::mem::replace(&mut self.lun_state, state);
            let paths: Vec<&Path> = self.paths.values().collect();
            let reason = paths_in_words(&paths);
            self.actions.push(Action::Tell(News::Lun { from, to: state, reason }));
        }
    }

    /// Does the array say that there is no such logical unit, and has it come back?
    fn follow_gone(&mut self, usable: bool, now: Instant) {
        // A blocked path has said nothing, and may lead to the unit when the host lets it.
        let unused = |path: &&Path| matches!(path.state, PathState::Disabled | PathState::Draining);
        let counted = || self.paths.values().filter(|path| !unused(path));
        let nowhere = self.face.is_some()
            && counted().any(|path| path.unmapped)
            && counted().all(|path| path.unmapped || path.state == PathState::WrongLun);
        let said = match (usable, nowhere) {
            (true, _) => Said::Here,
            (_, true) => Said::Nowhere,
            _ => Said::Nothing,
        };
        if let Some(step) = self.gone.follow(said, now) {
            match step {
                gone::Step::Gone => self.actions.push(Action::Tell(News::Gone)),
                gone::Step::Removed => self.actions.push(Action::Removed),
                gone::Step::Back { removed } => {
                    // What a target tells when a logical unit has appeared (SPC-5 5.14).
                    self.actions.push(Action::Attention(Asc::REPORTED_LUNS_CHANGED));
                    self.actions.extend(removed.then_some(Action::Returned));
                }
            }
        }
    }

    pub(super) fn publish(&mut self) {
        self.dirty = false;
        self.version.0 += 1;
        self.ledger.published(self.version);
        let entry = |path: &Path| path.entry(self.choice.prefers(path.group(), path.rank()));
        let table = Table {
            version: self.version,
            entries: self.paths.values().map(entry).collect(),
            policy: self.settings.policy,
            no_path: self.no_path,
            face: self.face.clone(),
            holds: self.ledger.holds(),
            heard: self.heard.iter().map(|(lane, count)| (*lane, *count)).collect(),
            reserved: self.reserved,
            aftermath: self.aftermath.kind(),
        };
        for path in self.paths.values_mut() {
            if path.state == PathState::Draining && path.drains_since.is_none() {
                path.drains_since = Some(self.version);
            }
        }
        self.actions.push(Action::Publish(Arc::new(table)));
    }
}
