//! What the lanes read: an immutable snapshot of the paths, published by the manager.

use std::sync::Arc;

use super::hold::Hold;
use super::load::Load;
use super::select::Policy;
use super::state::PathState;
use crate::ids::{LaneId, PathId, Version};
use crate::lun::Face;
use crate::scsi::alua::AccessState;

/// What to do with a command for which there is no path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoPath {
    /// It waits: a path may return.
    Hold,
    /// It fails.
    Fail,
    /// It fails, and the guest is told what the array says: there is no such logical unit.
    Gone,
}

/// One path, as a lane sees it.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Which path.
    pub id: PathId,
    /// Its state.
    pub state: PathState,
    /// Its port's access state.
    pub access: AccessState,
    /// Of a group in use, and of its rank: chosen before those that are not.
    pub optimized: bool,
    /// The NUMA node of its host adapter, where it has one.
    pub numa_node: Option<u16>,
    /// What it carries.
    pub load: Arc<Load>,
}

impl Entry {
    /// True when a command that touches blocks may be sent.
    pub fn is_usable(&self) -> bool {
        self.state.is_usable() && self.access.allows_media_access()
    }
}

/// What the guest's reservations mean for its commands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reserved {
    /// The guest is registered: RESERVATION CONFLICT over one path may be that path's affair.
    pub registered: bool,
    /// The path whose nexus alone may do what the guest may.
    pub pin: Option<PathId>,
    /// The reservation moves to another path: for that moment nothing is sent.
    pub hold: bool,
    /// The guest is to come from another host, or has come and what it holds is not taken over yet:
    /// nothing is sent.
    pub arriving: bool,
    /// Counts how often another initiator took the guest's key. What was begun before and changes
    /// something must have ended before the guest can register again.
    pub fences: u64,
}

/// What a process before this one may have left under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Aftermath {
    /// Nothing, or not any more.
    #[default]
    Over,
    /// It ended in good order: at most the commands that it had taken and not answered.
    Orderly,
    /// It may have died at any moment: anything, also what was given up with its blocks on hold.
    /// Nothing that changes something is sent.
    Crash,
}

/// The snapshot.
#[derive(Clone, Debug)]
pub struct Table {
    /// Rises with each publication.
    pub version: Version,
    /// All paths, in the order in which they were added.
    pub entries: Vec<Entry>,
    /// How to choose among them.
    pub policy: Policy,
    /// What to do without one.
    pub no_path: NoPath,
    /// Who the LUN is, once a path has told.
    pub face: Option<Arc<Face>>,
    /// Blocks that wait for a write whose outcome nobody knows. Empty but for moments.
    pub holds: Vec<Hold>,
    /// For each lane, how many of its reports this snapshot takes into account.
    pub heard: Vec<(LaneId, u64)>,
    /// The guest's reservations.
    pub reserved: Reserved,
    /// What a process before this one may have left under way.
    pub aftermath: Aftermath,
}

impl Table {
    /// A table without paths, from before the manager's first publication.
    pub fn empty(policy: Policy) -> Self {
        Table {
            version: Version(0),
            entries: Vec::new(),
            policy,
            no_path: NoPath::Hold,
            face: None,
            holds: Vec::new(),
            heard: Vec::new(),
            reserved: Reserved::default(),
            aftermath: Aftermath::Over,
        }
    }

    /// The entry of `path`.
    pub fn entry(&self, path: PathId) -> Option<&Entry> {
        // Ids are given in turn: until a path was removed, each is at the place of its number.
        match self.entries.get(usize::from(path.0)) {
            Some(entry) if entry.id == path => Some(entry),
            _ => self.entries.iter().find(|entry| entry.id == path),
        }
    }

    /// True when a command that was on `path` may stay there: not on the last resort, while another
    /// path is up.
    pub fn keeps(&self, path: PathId) -> bool {
        let up = |entry: &Entry| entry.is_usable() && entry.state == PathState::Up;
        match self.entry(path) {
            Some(entry) if entry.is_usable() => up(entry) || !self.entries.iter().any(up),
            _ => false,
        }
    }

    /// True when at least one path may carry a command.
    pub fn has_usable(&self) -> bool {
        self.entries.iter().any(Entry::is_usable)
    }

    /// Does the time count that a command may be tried for?
    pub fn tries(&self) -> bool {
        self.has_usable() && self.aftermath == Aftermath::Over
    }

    /// How many of `lane`'s reports are taken into account.
    pub fn heard(&self, lane: LaneId) -> u64 {
        self.heard.iter().find(|(known, _)| *known == lane).map_or(0, |(_, count)| *count)
    }
}
