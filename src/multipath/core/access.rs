//! Access states: what one answer of the array tells of all paths, ports between two states, the
//! groups in use, and the array being told which group is to be the better one.

use std::time::Instant;

use super::Core;
use super::events::{Action, News};
use crate::ids::PathId;
use crate::limits::TRANSITION_POLL;
use crate::multipath::classify::{Class, classify};
use crate::multipath::groups::{Failback, Rank, Switch};
use crate::multipath::path::Path;
use crate::multipath::probe::Question;
use crate::multipath::state::PathState;
use crate::path::Fate;
use crate::scsi::Status;
use crate::scsi::alua::{AccessState, Report};

impl Core {
    /// A command met a port in another access state than we thought.
    pub(super) fn met_access(&mut self, id: PathId, state: AccessState, now: Instant) {
        let Some(path) = self.paths.get_mut(&id) else { return };
        path.enter_access(state, now);
        if state != AccessState::Transitioning {
            path.check.groups_soon(now);
        }
    }

    /// The access states of the array have changed: one question over this path tells of all.
    pub(super) fn ask_groups(&mut self, id: PathId, now: Instant) {
        if let Some(path) = self.paths.get_mut(&id) {
            path.check.groups_soon(now);
        }
    }

    /// What the array said over one path is true of all that lead to the LUN.
    pub(super) fn learn_groups(&mut self, report: &Report, now: Instant) {
        let mut changed = false;
        for path in self.paths.values_mut() {
            if path.wwid.is_some() && path.state != PathState::WrongLun {
                changed |= path.learn_group(report, now);
            }
        }
        if !changed {
            return;
        }
        self.dirty = true;
        let optimized = |access| access == AccessState::ActiveOptimized;
        let groups = report.groups.iter().filter(|group| optimized(group.state));
        let optimized: Vec<u16> = groups.map(|group| group.id).collect();
        let settled = report.groups.iter().all(|one| one.state != AccessState::Transitioning);
        if settled && self.explicit.groups_changed(&optimized, now) {
            let text = "the array has undone again and again what it was told by SET TARGET PORT \
                        GROUPS, perhaps for another host: it is not told any more";
            self.actions.push(Action::Tell(News::Explicit(text.to_owned())));
        }
    }

    /// Ports between two states: asked often, and given up when the array's own limit is over.
    pub(super) fn heed_transitions(&mut self, now: Instant) {
        let on = |path: &&mut Path| path.is_in_transition(now);
        let count = self.paths.values_mut().filter(on).count() as u32;
        // All of them take part, so that one that does not answer holds up none of the others.
        let next = now + TRANSITION_POLL * count;
        let mut over = Vec::new();
        for path in self.paths.values_mut() {
            if path.is_in_transition(now) {
                if path.check.due().is_some_and(|due| due > next) {
                    path.check.groups_at(next);
                }
            } else if path.state.is_usable()
                && let Some(why) = path.endless_transition(now)
            {
                over.push((path.id, why));
            }
        }
        for (id, why) in over {
            self.fail(id, &why, now);
        }
    }

    /// Which groups are in use now.
    pub(super) fn update_groups(&mut self, now: Instant) {
        let there = self.paths.values().filter(|path| path.state != PathState::Draining);
        let members: Vec<_> = there.map(Path::member).collect();
        if let Some(switch) = self.choice.update(&members, now) {
            self.dirty = true;
            let Switch { from, .. } = &switch;
            if !from.is_empty() {
                self.actions.push(Action::Tell(News::Groups(switch)));
            }
        }
        if self.settings.explicit_alua {
            self.tell_array(now);
        }
    }

    /// Tells the array which group is to be the optimized one, if there is a reason to.
    fn tell_array(&mut self, now: Instant) {
        let in_transition =
            |path: &Path| path.state.is_usable() && path.access == AccessState::Transitioning;
        if self.paths.values().any(in_transition) {
            return self.explicit.wait_for_news();
        }
        let Some(group) = self.wanted_group() else { return self.explicit.content() };
        let free = |path: &&Path| path.port.group == Some(group) && is_settable(path);
        let free = self.paths.values().filter(free).find(|path| !path.check.is_running());
        let Some(id) = free.map(|path| path.id) else { return self.explicit.wait_for_news() };
        if !self.explicit.may_ask(now) {
            return;
        }
        let Some(path) = self.paths.get(&id) else { return };
        let text = format!("group {group} is to be active/optimized, told over path {}", path.name);
        self.explicit.ask(id, group, now);
        self.actions.push(Action::Ask(id, Question::make_optimized(group)));
        self.actions.push(Action::Tell(News::Explicit(text)));
    }

    /// The group that should be optimized and is not, and has a path that answers.
    fn wanted_group(&self) -> Option<u16> {
        let alive = || self.paths.values().filter(|path| path.state.is_usable());
        let is_optimized = |path: &Path| path.rank().is_some_and(Rank::is_optimized);
        let goes_back = self.explicit.is_ordered() || self.settings.failback == Failback::Immediate;
        let wanted = |path: &&Path| match alive().any(is_optimized) {
            false => true,
            // PREF of the array, where nothing that is preferred is optimized.
            true => {
                let held = alive().any(|path| is_optimized(path) && path.preferred);
                goes_back && path.preferred && !held
            }
        };
        let candidates = alive().filter(|path| is_settable(path)).filter(wanted);
        // Standby has no rank and goes last.
        let best = candidates.min_by_key(|path| {
            (!path.preferred, path.rank().is_none(), path.rank(), path.group())
        })?;
        best.port.group
    }

    /// The array has answered to SET TARGET PORT GROUPS, or has not.
    pub(super) fn explicit_answered(&mut self, id: PathId, fate: &Fate, now: Instant) {
        let done = matches!(fate, Fate::Answered(answer) if answer.status == Status::GOOD);
        let sent = self.explicit.last().unwrap_or(now);
        let group = self.explicit.answered(done);
        // The array tells each nexus of an event once, whatever it was asked.
        match classify(fate).class {
            Class::Attention(code) => self.attention(id, code, sent, now),
            Class::Doubt(code) => self.doubt(id, &format!("unit attention {code}"), now),
            Class::SizeChanged => self.changed(id, now),
            _ => {}
        }
        if let (false, Some(group)) = (done, group) {
            let text = format!("the array did not make group {group} active/optimized: {fate:?}");
            self.actions.push(Action::Tell(News::Explicit(text)));
        }
        self.ask_groups(id, now);
    }
}

/// True where the array can be told over `path` to make the path's group optimized.
fn is_settable(path: &Path) -> bool {
    use AccessState::*;
    let settable = matches!(path.access, ActiveNonOptimized | LbaDependent | Standby);
    path.explicit && path.state.is_usable() && settable
}
