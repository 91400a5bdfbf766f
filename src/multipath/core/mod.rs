//! All of a LUN's paths: events in, actions out.
//!
//! [`Core`] is owned by the manager's thread, which feeds it one event after the other and carries
//! out what it returns. Each event changes what it must; then one function, [`Core::settle`],
//! restores what must always hold: the LUN's state follows from its paths', what waits is released
//! when its time has come, and what the lanes read is what is true. The design costs a copy of the
//! path table for each change; changes are rare, reads are not.
//!
//! | file | what |
//! |---|---|
//! | [`events`] | the nouns: events, actions, news |
//! | `paths` | what happens to one path |
//! | `health` | which of them are worse than their siblings |
//! | `lun` | what follows for the LUN, and what the lanes are told |
//! | `access` | access states and groups, and what follows from them |
//! | `registers` | paths that are registered before they are used |
//! | `capacity` | when the guest is told of another size |
//! | `aftermath` | what a process before this one may have left under way |

mod access;
mod aftermath;
mod capacity;
mod events;
mod health;
mod lun;
mod paths;
mod registers;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_health;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use self::health::Watch;
use super::explicit::Explicit;
use super::gone::Gone;
use super::groups::Choice;
use super::hold::{Attempt, Hold, Ledger, Wait};
use super::path::Path;
use super::state::PathState;
use super::table::{NoPath, Reserved};
use crate::ids::{LaneId, PathId, Version};
use crate::limits::PATHS_MAX;
use crate::lun::Face;
use crate::lun::attention::Broker;

pub use events::{Action, Event, LunState, News, NoPathRetry, Settings};

/// The paths of one LUN.
#[derive(Debug)]
pub struct Core {
    settings: Settings,
    epoch: Instant,
    paths: BTreeMap<PathId, Path>,
    /// Ids of removed paths, free once all lanes have seen the version without them.
    leaving: Vec<(PathId, Version)>,
    face: Option<Arc<Face>>,
    broker: Broker,
    ledger: Ledger,
    heard: BTreeMap<LaneId, u64>,
    lun_state: LunState,
    /// Since when no path is usable.
    no_path_since: Option<Instant>,
    no_path: NoPath,
    /// Under [`NoPathRetry::Fail`]: commands wait until then, because blocked paths may return.
    hope_until: Option<Instant>,
    choice: Choice,
    explicit: Explicit,
    gone: Gone,
    /// Paths are registered before they are used.
    registers: bool,
    reserved: Reserved,
    aftermath: aftermath::Watch,
    /// The path over which a reservation command is under way.
    conversing: Option<PathId>,
    version: Version,
    watch: Watch,
    dirty: bool,
    actions: Vec<Action>,
}

impl Core {
    /// A LUN without paths.
    pub fn new(settings: Settings, now: Instant) -> Self {
        Core {
            choice: Choice::new(settings.failback),
            explicit: Explicit::default(),
            gone: Gone::default(),
            settings,
            epoch: now,
            paths: BTreeMap::new(),
            leaving: Vec::new(),
            face: None,
            broker: Broker::default(),
            ledger: Ledger::default(),
            heard: BTreeMap::new(),
            lun_state: LunState::NoPath,
            no_path_since: Some(now),
            no_path: NoPath::Hold,
            hope_until: None,
            registers: false,
            reserved: Reserved::default(),
            aftermath: aftermath::Watch::default(),
            conversing: None,
            version: Version(0),
            watch: Watch::new(now),
            dirty: true,
            actions: Vec::new(),
        }
    }

    /// Takes one event; the returned actions are carried out in their order.
    pub fn apply(&mut self, event: Event, now: Instant) -> Vec<Action> {
        self.broker.advance(now);
        match event {
            Event::Added { path, name, placement, bytes_max, hides_attentions } => {
                self.add(path, name, placement, now);
                if let Some(path) = self.paths.get_mut(&path) {
                    path.bytes_max = bytes_max;
                    path.hides_attentions = hides_attentions;
                }
            }
            Event::Remove(path) => self.change(path, PathState::Draining, "being removed", now),
            Event::Disable(path) => self.change(path, PathState::Disabled, "by an admin", now),
            Event::Reinstate(path) => self.reinstate(path, now),
            Event::LinkDown(path, why) => self.link_down(path, why, now),
            Event::LinkUp(path, nexus_since) => self.link_up(path, nexus_since, now),
            Event::Blocked(path, why) => self.blocked(path, &why, now),
            Event::Unblocked(path) => self.unblocked(path, now),
            Event::Changed(path) => self.changed(path, now),
            Event::Doubted(path, why) => self.doubt(path, &why, now),
            Event::Placed(path, node) => self.placed(path, node),
            Event::Answered { path, fate, data } => self.answered(path, &fate, &data, now),
            Event::LaneUp(lane) => {
                self.ledger.lane_up(lane, Version(0));
                self.heard.insert(lane, 0);
                self.dirty = true;
            }
            Event::LaneDown(lane) => {
                self.ledger.lane_down(lane);
                self.heard.remove(&lane);
            }
            Event::Reported { lane, number, path, problem } => {
                self.reported(lane, number, path, problem, now);
            }
            Event::Attention { path, code, sent } => self.attention(path, code, sent, now),
            Event::Making { path, code } => self.broker.making(path, code, now),
            Event::Made { path, code, executed, ended } => {
                self.made(path, code, (executed, ended), now);
            }
            Event::Honoured(lane, version) => self.ledger.honoured(lane, version),
            Event::Unproven { hold, extent, ended, wait, path, session } => {
                let safe_at = match wait {
                    Wait::Nothing => Some(ended),
                    Wait::Quiesce => Some(ended + self.settings.write_quiesce),
                    Wait::Proof => None,
                };
                let attempt = Attempt { path, session, ended, safe_at };
                self.ledger.unproven(Hold { id: hold, extent }, attempt);
                self.dirty = true;
            }
            Event::Proven(path, session) => self.ledger.proven(path, session, now),
            Event::Returned(path, session) => {
                self.ledger.returned(path, session, now + self.settings.write_quiesce);
            }
            Event::Limited(path, bytes_max) => self.limited(path, bytes_max, now),
            Event::Settled(hold) => {
                self.ledger.settled(hold);
                self.dirty = true;
            }
            Event::Orphaned(hold) => self.ledger.orphaned(hold),
            Event::GivenBack(hold) => self.ledger.given_back(hold),
            Event::SetPolicy(policy) => {
                self.settings.policy = policy;
                self.dirty = true;
            }
            Event::SetNoPathRetry(retry) => self.settings.no_path_retry = retry,
            Event::SetFailback(failback) => {
                self.settings.failback = failback;
                self.choice.set_policy(failback);
            }
            Event::Failback => {
                self.choice.order();
                self.explicit.order();
            }
            Event::Rename(path, name) => {
                if let Some(path) = self.paths.get_mut(&path) {
                    path.name = name;
                }
            }
            Event::SetWriteQuiesce(time) => self.settings.write_quiesce = time,
            Event::Registers => self.registers = true,
            Event::Admitted(path) => self.admitted(path, now),
            Event::Registering(path) => self.registering(path, now),
            Event::Expelled(path) => self.expelled(path, now),
            Event::Reserved(reserved) => {
                self.dirty |= reserved != self.reserved;
                self.reserved = reserved;
            }
            Event::Conversing(path) => self.conversing = path,
            Event::Aftermath(kind, time) => self.begin_aftermath(kind, time, now),
            Event::Tick => {}
        }
        self.settle(now);
        std::mem::take(&mut self.actions)
    }

    /// When [`Event::Tick`] should come, if nothing else does.
    pub fn next_timer(&self) -> Option<Instant> {
        // One that is answering to SET TARGET PORT GROUPS is not asked anything else meanwhile.
        let free = |path: &&Path| path.is_asked() && !self.explicit.is_answer(path.id);
        let asked = self.paths.values().filter(free);
        let probes = asked.filter_map(|path| path.check.due());
        let no_path = match self.settings.no_path_retry {
            NoPathRetry::For(limit) if self.no_path == NoPath::Hold => {
                self.no_path_since.map(|since| since + limit)
            }
            _ => None,
        };
        let transitions = self.paths.values().filter_map(Path::transition_ends);
        let others = [
            no_path,
            self.hope_until,
            self.ledger.next_timer(),
            self.health_timer(),
            self.choice.next_timer(),
            self.explicit.next_timer(),
            self.gone.next_timer(),
            self.aftermath.next_timer(),
        ];
        probes.chain(transitions).chain(others.into_iter().flatten()).min()
    }

    /// An id for a new path; `None` when there are too many.
    pub fn free_id(&mut self) -> Option<PathId> {
        let seen = self.ledger.honoured_by_all();
        self.leaving.retain(|(_, gone)| seen.is_some_and(|seen| seen < *gone));
        (0..PATHS_MAX as u16).map(PathId).find(|id| {
            !self.paths.contains_key(id) && self.leaving.iter().all(|(leaving, _)| leaving != id)
        })
    }

    /// The paths, for reports.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.paths.values()
    }

    /// The path called `name`.
    pub fn path_named(&self, name: &str) -> Option<&Path> {
        self.paths.values().find(|path| path.name == name)
    }

    /// Who the LUN is, once a path has told.
    pub fn face(&self) -> Option<&Arc<Face>> {
        self.face.as_ref()
    }

    /// The version of the last table.
    pub fn version(&self) -> Version {
        self.version
    }

    /// True when every running lane reads the table of `version`, or a later one.
    pub fn is_honoured(&self, version: Version) -> bool {
        self.ledger.honoured_by_all().is_none_or(|seen| seen >= version)
    }

    /// The groups in use.
    pub fn choice(&self) -> &Choice {
        &self.choice
    }

    /// The LUN's state.
    pub fn lun_state(&self) -> LunState {
        self.lun_state
    }

    /// What an admin chose, as it is now.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Restores what must always hold. Called once after each event.
    fn settle(&mut self, now: Instant) {
        self.close_drained();
        self.follow_aftermath(now);
        self.keep_health(now);
        self.heed_transitions(now);
        self.agree_on_size();
        self.doubt_short_paths(now);
        self.update_groups(now);
        self.start_due_probes(now);
        self.update_lun_state(now);
        let (released, dropped) = self.ledger.release(now);
        self.actions.extend(released.into_iter().map(Action::Release));
        if self.dirty || dropped {
            self.publish();
        }
        debug_assert!(self.invariants_hold());
    }

    fn invariants_hold(&self) -> bool {
        let usable = self.paths.values().any(Path::is_usable);
        usable == self.no_path_since.is_none()
            && (!usable || self.face.is_some())
            && (usable || matches!(self.lun_state, LunState::NoPath | LunState::Lost))
    }
}

#[cfg(test)]
mod tests_blocked;
