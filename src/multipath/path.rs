//! One path, as the core knows it: its state, what it said of itself, and when it is asked again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::check::Check;
use super::groups::{GroupKey, Member, Rank};
use super::health::Health;
use super::load::Load;
use super::probe::{Identity, Question, Scope};
use super::state::PathState;
use super::table::Entry;
use super::transition::Transition;
use crate::ids::{PathId, Version};
use crate::limits::BLOCKED_HOPE;
use crate::scsi::alua::{AccessState, Report};
use crate::scsi::capacity::Capacity;
use crate::scsi::designator::{Port, Wwid};

/// The bit of TPGS that says that the array takes SET TARGET PORT GROUPS.
const EXPLICIT: u8 = 0x2;

/// What the configuration says of a path, for arrays that do not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// Its group.
    pub group: Option<u16>,
    /// Its group goes before others of the same access state.
    pub preferred: bool,
}

/// One path.
#[derive(Debug)]
pub struct Path {
    /// Its place in the table.
    pub id: PathId,
    /// Its name.
    pub name: String,
    /// Its state.
    pub state: PathState,
    /// Since when.
    pub since: Instant,
    /// Why, in words.
    pub reason: String,
    /// What the last probe found that did not bring it back, in words.
    pub last_finding: Option<String>,
    /// The transport says that there is no link.
    pub link_down: bool,
    /// The host's transport holds its commands back: whatever state it is in, nothing is sent.
    pub held_back: bool,
    /// Its port's access state.
    pub access: AccessState,
    /// Between two access states: since when.
    pub transition: Transition,
    /// The array (PREF) or the configuration prefers it.
    pub preferred: bool,
    placement: Placement,
    /// The array says that no logical unit of ours is behind its port.
    pub unmapped: bool,
    /// The array takes SET TARGET PORT GROUPS.
    pub explicit: bool,
    /// Its port.
    pub port: Port,
    /// The name of the logical unit behind it, once told.
    pub wwid: Option<Wwid>,
    /// The most bytes that one command may move over its transport, where that is a bound.
    pub bytes_max: Option<u32>,
    /// Its unit attentions may not reach us: each check asks everything.
    pub hides_attentions: bool,
    /// The memory node of the host's end, where it has one.
    pub numa_node: Option<u16>,
    /// The size that it told last, in blocks.
    pub blocks: Option<u64>,
    /// What it carries.
    pub load: Arc<Load>,
    /// Its probes.
    pub check: Check,
    /// How well it does.
    pub health: Health,
    /// It could be used, and waits to be admitted, for this reason.
    pub applies: Option<&'static str>,
    /// The version from which on it is known to drain.
    pub drains_since: Option<Version>,
    /// The version that was published after its last attempt had ended.
    pub quiet_since: Option<Version>,
}

impl Path {
    /// A path that was just opened, to be asked at once.
    pub fn new(
        id: PathId,
        name: String,
        placement: Placement,
        load: Arc<Load>,
        now: Instant,
    ) -> Self {
        Path {
            id,
            name,
            state: PathState::Checking,
            since: now,
            reason: "just added".to_owned(),
            last_finding: None,
            link_down: false,
            held_back: false,
            access: AccessState::Unknown,
            transition: Transition::default(),
            preferred: placement.preferred,
            placement,
            unmapped: false,
            explicit: false,
            port: Port::default(),
            wwid: None,
            bytes_max: None,
            hides_attentions: false,
            numa_node: None,
            blocks: None,
            load,
            check: Check::new(now),
            health: Health::default(),
            applies: None,
            drains_since: None,
            quiet_since: None,
        }
    }

    /// True when commands that touch blocks may be sent.
    pub fn is_usable(&self) -> bool {
        self.state.is_usable() && self.access.allows_media_access()
    }

    /// True when it is as usable as any.
    pub fn is_up(&self) -> bool {
        self.state == PathState::Up && self.is_usable()
    }

    /// True when commands are or were just sent over it.
    pub fn in_use(&self) -> bool {
        matches!(self.state, PathState::Up | PathState::Shaky | PathState::Blocked)
    }

    /// True where it is asked now and then whether it is alive. Questions to a path whose commands
    /// are held back would be held back too.
    pub fn is_asked(&self) -> bool {
        !self.held_back && !matches!(self.state, PathState::Disabled | PathState::Draining)
    }

    /// True while it is being asked who it is.
    pub fn is_checking(&self) -> bool {
        matches!(self.state, PathState::Checking | PathState::Registering)
    }

    /// A path that has just been blocked may return by itself, until then.
    pub fn hope_ends(&self) -> Option<Instant> {
        (self.state == PathState::Blocked).then(|| self.since + BLOCKED_HOPE)
    }

    /// Why it is in its state, what was found since, and how long a hold-down still lasts.
    pub fn explanation(&self, now: Instant) -> String {
        let held = self.health.setbacks.held_until().filter(|_| self.state == PathState::Shaky);
        let left = held.map(|until| until.saturating_duration_since(now).as_secs_f64());
        match (&self.last_finding, left) {
            (Some(finding), _) if *finding != self.reason => {
                format!("{}; since then: {finding}", self.reason)
            }
            (_, Some(left)) if left > 0.0 => format!("{}; {left:.1} s left", self.reason),
            _ => self.reason.clone(),
        }
    }

    /// When it last answered anything, a question or a command.
    pub fn sign_of_life(&self) -> Option<Instant> {
        self.health.answered.max(self.load.last_answer())
    }

    /// How long a command takes over it, by what was measured last.
    pub fn pace(&self, now: Instant) -> Option<Duration> {
        self.health.pace.reading(now).or_else(|| self.load.latency())
    }

    /// Goes over to `state`. The core has looked at the transition table.
    pub fn enter(&mut self, state: PathState, reason: &str, now: Instant) {
        match (self.state.is_usable(), state) {
            (true, PathState::Failed) => self.health.failed(now),
            (true, state) if !state.is_usable() => self.health.left(),
            _ => {}
        }
        self.state = state;
        self.since = now;
        reason.clone_into(&mut self.reason);
        self.last_finding = None;
        if state == PathState::Failed {
            self.check.unhealthy(now);
        }
    }

    /// Keeps what a probe found out of the logical unit and the port.
    pub fn learn(&mut self, identity: &Identity, now: Instant) {
        self.port = identity.facts.port();
        self.wwid = identity.facts.wwid();
        self.unmapped = false;
        self.explicit = identity.facts.inquiry.tpgs() & EXPLICIT != 0;
        let blocks = identity.facts.capacity.map(|capacity| capacity.blocks);
        self.blocks = blocks.or(self.blocks);
        match identity.access {
            Some(access) => self.enter_access(access, now),
            // A port that has been read from is not one that cannot be.
            None if blocks.is_some() && !self.access.allows_media_access() => {
                self.enter_access(AccessState::Unknown, now);
            }
            None => {}
        }
        if identity.access == Some(AccessState::Unknown) {
            self.preferred = self.placement.preferred;
        }
    }

    /// Keeps what the array said of the path's group; false where it said nothing new of it.
    pub fn learn_group(&mut self, report: &Report, now: Instant) -> bool {
        let Some(group) = report.group_of(self.port.group, self.port.relative_port) else {
            return false;
        };
        let before = (self.access, self.preferred);
        self.enter_access(group.state, now);
        self.preferred = group.preferred || self.placement.preferred;
        self.transition.told_limit(report.transition_time);
        (self.access, self.preferred) != before
    }

    /// Its port is in this access state.
    pub fn enter_access(&mut self, access: AccessState, now: Instant) {
        self.access = access;
        self.transition.follow(access == AccessState::Transitioning, now);
    }

    /// Its group: the array's, or for an array without asymmetric access the configuration's.
    pub fn group(&self) -> GroupKey {
        let id = match self.access {
            AccessState::Unknown => self.placement.group.or(self.port.group),
            _ => self.port.group.or(self.placement.group),
        };
        GroupKey { id, preferred: self.placement.preferred }
    }

    /// How good it is, whatever its state.
    pub fn rank(&self) -> Option<Rank> {
        Rank::of(self.access, self.preferred)
    }

    /// What the choice of groups sees of it.
    pub fn member(&self) -> Member {
        Member {
            group: self.group(),
            alive: self.state.is_usable(),
            shaky: self.state == PathState::Shaky,
            rank: self.rank(),
        }
    }

    /// True while its port is between two access states, and that may go well.
    pub fn is_in_transition(&self, now: Instant) -> bool {
        self.state.is_usable()
            && self.access == AccessState::Transitioning
            && !self.transition.is_over(now)
    }

    /// The most blocks that one command may move over this path.
    pub fn transfer_limit(&self, identity: &Identity) -> Option<u32> {
        let array = identity.facts.maximum_transfer();
        let block_size = identity.facts.capacity.map(|capacity| capacity.block_size);
        let transport = self.bytes_max.zip(block_size).map(|(bytes, block)| bytes / block.max(1));
        [array, transport].into_iter().flatten().min()
    }

    /// Starts a probe if it is time; the first question. `capacity` is the logical unit's.
    ///
    /// Commands that are answered tell that the path is alive, but not that it still leads to the
    /// same unit: a path in use is asked for the name now and then, however busy it is.
    pub fn start_check(&mut self, capacity: Option<Capacity>, now: Instant) -> Option<Question> {
        let least = match self.state.is_usable() {
            // Where a block is to be read for a comparison, everything is asked the next time.
            _ if self.hides_attentions && !self.check.wants_reading() => Scope::Full,
            _ if self.is_usable() => Scope::Ready,
            true if self.is_in_transition(now) => Scope::Groups,
            // A port that could not be used may have changed its access state without a word.
            _ => Scope::Full,
        };
        self.check.start(least, capacity, now)
    }

    /// Why it cannot be used, if its port has been between two access states for too long.
    pub fn endless_transition(&self, now: Instant) -> Option<String> {
        let over = self.access == AccessState::Transitioning && self.transition.is_over(now);
        over.then(|| self.transition.complaint())
    }

    /// When a transition that may go well has taken too long.
    pub fn transition_ends(&self) -> Option<Instant> {
        self.transition.ends().filter(|_| self.state.is_usable())
    }

    /// What the lanes see of it; `optimized` when they send over it first.
    pub fn entry(&self, optimized: bool) -> Entry {
        Entry {
            id: self.id,
            state: self.state,
            access: self.access,
            optimized,
            numa_node: self.numa_node,
            load: Arc::clone(&self.load),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::PROBE_INTERVAL_HEALTHY;
    use crate::lun::face::samples;
    use crate::multipath::probe::Step;
    use crate::path::{Answer, Fate, Residual};
    use crate::scsi::inquiry::page;
    use crate::scsi::{Status, opcode};

    fn path(now: Instant) -> Path {
        Path::new(PathId(1), "p".into(), Placement::default(), Arc::new(Load::new(now)), now)
    }

    #[test]
    fn transfer_limit_is_the_least_of_array_and_transport() {
        let mut path = path(Instant::now());
        let identity = Identity {
            facts: samples::facts(),
            access: Some(AccessState::ActiveOptimized),
            report: None,
        };
        assert_eq!(path.transfer_limit(&identity), None);
        path.bytes_max = Some(64 << 10);
        assert_eq!(path.transfer_limit(&identity), Some(128), "in blocks of 512 bytes");
    }

    #[test]
    fn block_is_read_where_attentions_are_hidden_when_paths_are_compared() {
        let now = Instant::now();
        let mut path = path(now);
        (path.state, path.hides_attentions) = (PathState::Up, true);
        path.check.healthy(now);
        path.check.read_soon(now);
        let question = path.start_check(samples::facts().capacity, now).unwrap();
        assert_eq!(question.cdb.opcode(), opcode::READ_16);
        assert!(path.check.was_reading());
    }

    #[test]
    fn healthy_path_is_asked_everything_where_attentions_are_hidden() {
        let now = Instant::now();
        let good = Answer { status: Status::GOOD, sense: None, residual: Residual::None };
        for hides in [false, true] {
            let mut path = path(now);
            (path.state, path.hides_attentions) = (PathState::Up, hides);
            path.check.healthy(now);
            assert!(path.start_check(None, now + PROBE_INTERVAL_HEALTHY).is_some());
            // It is ready, and tells its name, or all that there is to tell.
            let told = match hides {
                false => samples::facts().pages[&page::DEVICE_IDENTIFICATION].clone(),
                true => samples::facts().inquiry.for_guest(),
            };
            path.check.feed(&Fate::Answered(good.clone()), &[], now);
            let (step, _) = path.check.feed(&Fate::Answered(good.clone()), &told, now);
            assert_eq!(matches!(step, Some(Step::Ask(_))), hides, "what else?");
        }
    }
}
