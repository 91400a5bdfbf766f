//! What happens to one path: it comes and goes, lanes report, probes find out.

use std::sync::Arc;
use std::time::Instant;

use super::Core;
use super::events::{Action, News};
use crate::ids::{LaneId, PathId};
use crate::lun::Face;
use crate::lun::attention::Made;
use crate::multipath::admission::{Admission, judge};
use crate::multipath::classify::Executed;
use crate::multipath::health::Health;
use crate::multipath::load::Load;
use crate::multipath::path::{Path, Placement};
use crate::multipath::probe::{self, Finding, Identity, Step};
use crate::multipath::retry::Problem;
use crate::multipath::state::PathState;
use crate::path::Fate;
use crate::scsi::Asc;
use crate::scsi::alua::AccessState;

impl Core {
    pub(super) fn add(&mut self, id: PathId, name: String, placement: Placement, now: Instant) {
        debug_assert!(!self.paths.contains_key(&id), "{id} is taken");
        // The id may have been another path's: what was proven or will be is not this one's.
        self.ledger.forget_path(id);
        self.broker.added(id, now);
        let load = Arc::new(Load::new(self.epoch));
        self.paths.insert(id, Path::new(id, name, placement, load, now));
        self.dirty = true;
    }

    pub(super) fn reinstate(&mut self, id: PathId, now: Instant) {
        // A path that is in use needs no reinstating.
        if self.paths.get(&id).is_some_and(|path| !path.in_use()) {
            self.change(id, PathState::Checking, "reinstated by an admin", now);
            // Whoever brings it back knows more of it than its past tells.
            if let Some(path) = self.paths.get_mut(&id) {
                path.health = Health { seen: path.load.counts(), ..Health::default() };
            }
            self.check_now(id, now);
            if self.paths.get(&id).is_some_and(|path| path.held_back) {
                self.change(id, PathState::Blocked, "the host still holds its commands back", now);
            }
        }
    }

    pub(super) fn link_down(&mut self, id: PathId, why: String, now: Instant) {
        self.fail(id, &why, now);
        if let Some(path) = self.paths.get_mut(&id) {
            path.link_down = true;
            // Without a link commands fail at once.
            path.held_back = false;
            path.unmapped = false;
            if path.reason != why {
                path.last_finding = Some(why);
            }
        }
    }

    /// What one command may move over the path has become known.
    pub(super) fn limited(&mut self, id: PathId, bytes_max: Option<u32>, now: Instant) {
        let Some(path) = self.paths.get_mut(&id) else { return };
        if path.bytes_max != bytes_max {
            path.bytes_max = bytes_max;
            // What the guest is told follows at the end of the next full probe.
            if path.in_use() {
                path.check.full_soon(now);
            }
        }
    }

    pub(super) fn link_up(&mut self, id: PathId, nexus_since: Option<Instant>, now: Instant) {
        if let Some(begun) = nexus_since {
            self.broker.renewed(id, begun);
        }
        if let Some(path) = self.paths.get_mut(&id) {
            path.link_down = false;
        }
        if self.paths.get(&id).is_some_and(|path| path.state == PathState::Failed) {
            self.check_now(id, now);
        }
    }

    /// Nothing is sent over it from now on, and what is under way is taken back: how long the host
    /// keeps it nobody knows.
    pub(super) fn blocked(&mut self, id: PathId, why: &str, now: Instant) {
        let Some(path) = self.paths.get_mut(&id) else { return };
        path.held_back = true;
        match path.state.may_become(PathState::Blocked) {
            true => self.change(id, PathState::Blocked, why, now),
            false => path.last_finding = Some(why.to_owned()),
        }
    }

    /// It may be used again once it has told who it is: much may have changed meanwhile.
    pub(super) fn unblocked(&mut self, id: PathId, now: Instant) {
        let Some(path) = self.paths.get_mut(&id) else { return };
        path.held_back = false;
        path.link_down = false;
        path.check.full_soon(now);
        if path.state == PathState::Blocked {
            self.change(id, PathState::Checking, "the host lets its commands go again", now);
        }
    }

    pub(super) fn changed(&mut self, id: PathId, now: Instant) {
        if let Some(path) = self.paths.get_mut(&id) {
            path.check.full_soon(now);
        }
    }

    pub(super) fn placed(&mut self, id: PathId, node: Option<u16>) {
        if let Some(path) = self.paths.get_mut(&id) {
            self.dirty |= path.numa_node != node;
            path.numa_node = node;
        }
    }

    pub(super) fn check_now(&mut self, id: PathId, now: Instant) {
        if let Some(path) = self.paths.get_mut(&id) {
            path.check.soon(now);
        }
    }

    pub(super) fn reported(
        &mut self,
        lane: LaneId,
        number: u64,
        id: PathId,
        problem: Problem,
        now: Instant,
    ) {
        if let Some(heard) = self.heard.get_mut(&lane) {
            *heard = number.max(*heard);
            self.dirty |= problem != Problem::Overdue;
        }
        match problem {
            // The host has a reason for it, and will say when it is over.
            Problem::Failed(_) if self.paths.get(&id).is_some_and(|path| path.held_back) => {}
            Problem::Failed(failure) => self.fail(id, probe::words(failure), now),
            Problem::Unmapped => {
                self.unmapped(id, "no logical unit behind this port (05h/25h/00h)", now);
            }
            Problem::Access(state) => self.met_access(id, state, now),
            Problem::AccessChanged => self.ask_groups(id, now),
            Problem::SizeChanged => self.changed(id, now),
            Problem::Doubt(code) => self.doubt(id, &format!("unit attention {code}"), now),
            Problem::Overdue => self.overdue(id, now),
            Problem::Conflicted => self.actions.push(Action::Conflicted(id)),
        }
    }

    /// The path brought a unit attention for something that was sent at `sent` or later.
    pub(super) fn attention(&mut self, id: PathId, code: Asc, sent: Instant, now: Instant) {
        if self.broker.arrived(id, code, sent, now) {
            self.actions.push(Action::Attention(code));
        }
    }

    /// A command of the guest's own that makes a unit attention of the other paths has ended.
    pub(super) fn made(
        &mut self,
        id: PathId,
        code: Asc,
        (executed, ended): (Executed, Instant),
        now: Instant,
    ) {
        let made = match executed {
            Executed::Yes => Made::Event(ended),
            _ => Made::Nothing,
        };
        if self.broker.made(id, code, made, now) {
            self.actions.push(Action::Attention(code));
        }
    }

    /// The path may lead somewhere else by now: nothing is sent until it has told who it is.
    pub(super) fn doubt(&mut self, id: PathId, why: &str, now: Instant) {
        // One that waits to be registered has answered before that: it begins anew.
        if self.paths.get(&id).is_some_and(|path| path.applies.is_some()) {
            self.fail(id, why, now);
            if let Some(path) = self.paths.get_mut(&id) {
                path.check.doubtful(now);
            }
            return;
        }
        if self.paths.get(&id).is_some_and(|path| path.in_use() && !path.held_back) {
            self.change(id, PathState::Checking, why, now);
            if let Some(path) = self.paths.get_mut(&id) {
                path.check.doubtful(now);
            }
        }
    }

    pub(super) fn fail(&mut self, id: PathId, why: &str, now: Instant) {
        if self.paths.get(&id).is_some_and(|path| path.in_use() || path.is_checking()) {
            self.change(id, PathState::Failed, why, now);
        }
    }

    /// The array says that no logical unit is behind the path's port.
    pub(super) fn unmapped(&mut self, id: PathId, why: &str, now: Instant) {
        self.refuse(id, why.to_owned(), now);
        if let Some(path) = self.paths.get_mut(&id) {
            path.unmapped = path.state == PathState::Failed && !path.link_down;
        }
    }

    /// Goes over to `to` if the transition table allows it, and tells people.
    pub(super) fn change(&mut self, id: PathId, to: PathState, reason: &str, now: Instant) {
        let Some(path) = self.paths.get_mut(&id) else { return };
        let from = path.state;
        if !from.may_become(to) {
            return;
        }
        path.enter(to, reason, now);
        self.dirty = true;
        let name = path.name.clone();
        self.leaves_use(id, from);
        self.actions.push(Action::Tell(News::Path { name, from, to, reason: reason.to_owned() }));
    }

    pub(super) fn answered(&mut self, id: PathId, fate: &Fate, data: &[u8], now: Instant) {
        if self.explicit.is_answer(id) {
            return self.explicit_answered(id, fate, now);
        }
        if let Fate::Answered(answer) = fate {
            self.heard_from(id, answer.status, now);
        }
        let Some(path) = self.paths.get_mut(&id) else { return };
        let asked = path.check.asked().unwrap_or(now);
        if path.check.is_clear(fate) {
            self.broker.clear(id, asked, now);
        }
        let (mut step, attentions) = path.check.feed(fate, data, now);
        // The probe goes on, and says in the end whether it was right. Until then no command may
        // find out: this nexus has been told, and no command will be told again.
        let doubt = path.check.take_doubt().filter(|_| path.in_use() && !path.held_back);
        if path.held_back && matches!(step, Some(Step::Ask(_))) {
            // The probe began before that was known; everything is asked anew afterwards.
            path.check.break_off();
            step = None;
        }
        if let Some(code) = doubt {
            self.change(id, PathState::Checking, &format!("unit attention {code}"), now);
        }
        for code in attentions {
            if self.broker.asked(id, code, asked, now) {
                self.actions.push(Action::Attention(code));
            }
        }
        match step {
            Some(Step::Ask(question)) => self.actions.push(Action::Ask(id, question)),
            Some(Step::Found(finding)) => self.found(id, finding, now),
            None => {}
        }
    }

    pub(super) fn found(&mut self, id: PathId, finding: Finding, now: Instant) {
        self.read_over(id, &finding, now);
        let Some(path) = self.paths.get_mut(&id) else { return };
        match finding {
            _ if path.held_back => {}
            Finding::Named(wwid) if path.in_use() && path.wwid.as_ref() != Some(&wwid) => {
                self.doubt(id, &format!("it tells another name, {wwid}"), now);
            }
            Finding::Ready | Finding::Named(_) | Finding::Unreadable(_) if path.in_use() => {
                path.check.healthy(now);
            }
            // It failed while it was only asked whether it is ready.
            Finding::Ready | Finding::Named(_) | Finding::Unreadable(_) => {
                path.check.full_soon(now);
            }
            // What it is is known; only the news must wait.
            Finding::Loaded if path.in_use() => path.check.unhealthy(now),
            Finding::Loaded => self.refuse(id, "overloaded".to_owned(), now),
            Finding::Groups(report) => {
                self.learn_groups(&report, now);
                self.answers(id, now);
            }
            Finding::AccessChanged => path.check.groups_soon(now),
            Finding::Changed => path.check.full_soon(now),
            Finding::Unmapped(why) => self.unmapped(id, &why, now),
            Finding::Doubtful => self.doubt(id, "its identity may have changed", now),
            Finding::Dead(why) => self.refuse(id, why, now),
            Finding::Alive(identity) => self.alive(id, *identity, now),
        }
    }

    pub(super) fn alive(&mut self, id: PathId, identity: Identity, now: Instant) {
        let wanted = self.settings.wwid.as_deref();
        let admission = judge(&identity.facts, wanted, self.face.as_deref());
        let Some(path) = self.paths.get_mut(&id) else { return };
        let told_before = path.blocks;
        path.learn(&identity, now);
        self.dirty = true;
        if let Admission::WrongLun(why) = admission {
            path.check.unhealthy(now);
            return self.change(id, PathState::WrongLun, &why, now);
        }
        // Only now: another unit's groups are not ours.
        if let Some(report) = &identity.report {
            self.learn_groups(report, now);
        }
        match admission {
            Admission::KeptOut(why) => self.refuse(id, why, now),
            Admission::Grown(blocks) => {
                if told_before != Some(blocks) {
                    self.grown(id, blocks, now);
                }
                self.admit(id, &identity, now);
            }
            _ => self.admit(id, &identity, now),
        }
    }

    /// The path does not answer as it should: out of use, or still out of use.
    pub(super) fn refuse(&mut self, id: PathId, why: String, now: Instant) {
        let Some(path) = self.paths.get_mut(&id) else { return };
        path.unmapped = false;
        if path.in_use() || path.is_checking() {
            self.fail(id, &why, now);
        } else {
            path.check.unhealthy(now);
            // Without a link no answer is no news: the link's own reason says more.
            if !path.link_down {
                path.last_finding = Some(why);
            }
        }
    }

    pub(super) fn admit(&mut self, id: PathId, identity: &Identity, now: Instant) {
        if let Some(why) = self.paths.get(&id).and_then(|path| path.endless_transition(now)) {
            return self.refuse(id, why, now);
        }
        let limit = self.paths.get(&id).and_then(|path| path.transfer_limit(identity));
        let mut face = match &self.face {
            Some(face) => Face::clone(face),
            None => match Face::new(&identity.facts) {
                Some(face) => face,
                None => return,
            },
        };
        face.limit_transfer(limit);
        if self.face.as_deref() != Some(&face) {
            self.face = Some(Arc::new(face));
        }
        self.answers(id, now);
        let Some(path) = self.paths.get(&id) else { return };
        let back = matches!(path.state, PathState::Failed | PathState::WrongLun);
        if back || path.state == PathState::Checking {
            let good = if back { "it answers again" } else { "all questions answered" };
            self.change(id, PathState::Checking, good, now);
            self.may_be_used(id, good, now);
        }
    }

    /// The path answers: asked again later, and where its port takes no commands, everything.
    fn answers(&mut self, id: PathId, now: Instant) {
        let Some(path) = self.paths.get_mut(&id) else { return };
        // One in transition is asked for its groups soon, and for nothing else.
        match path.access.allows_media_access() || path.access == AccessState::Transitioning {
            true => path.check.healthy(now),
            false => path.check.unhealthy(now),
        }
    }
}
