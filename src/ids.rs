//! A type of its own for every index, so that a path can never be used where a lane was meant.

use std::fmt;

/// A path of the LUN: its place in the path table. Free again when the path has been removed and
/// no lane knows it any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PathId(pub u16);

/// A lane: the loop that owns one request virtqueue. The manager is a client of the paths too; it
/// has [`LaneId::MANAGER`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LaneId(pub u16);

impl LaneId {
    /// The one that serves the control and event queues as well.
    pub const FIRST: LaneId = LaneId(0);
    /// The manager's own number as a client of a path.
    pub const MANAGER: LaneId = LaneId(u16::MAX);
}

/// A virtqueue as virtio numbers it: 0 control, 1 event, 2 and up request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RingIndex(pub u16);

impl RingIndex {
    /// The control virtqueue (virtio 1.3, 5.6.2).
    pub const CONTROL: RingIndex = RingIndex(0);
    /// The event virtqueue (virtio 1.3, 5.6.2).
    pub const EVENT: RingIndex = RingIndex(1);
    /// The first request virtqueue (virtio 1.3, 5.6.2).
    pub const FIRST_REQUEST: RingIndex = RingIndex(2);
}

/// A command's place in its lane's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot(pub u16);

/// One sending of one command over one path. The slot is reused, the generation is not: an end
/// that comes late can never be taken for the end of a newer attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AttemptId {
    /// Where the command stands in its lane's table.
    pub slot: Slot,
    /// Counts the attempts that this slot has seen, wrapping.
    pub generation: u32,
}

/// Names a hold: a write whose outcome nobody knows, and the blocks that wait for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HoldId {
    /// The lane that owns the write.
    pub lane: LaneId,
    /// Counts that lane's holds.
    pub number: u64,
}

/// A version of the path table, rising with each publication.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Version(pub u64);

impl fmt::Display for PathId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "path {}", self.0)
    }
}

impl fmt::Display for LaneId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == LaneId::MANAGER { f.write_str("manager") } else { write!(f, "lane {}", self.0) }
    }
}
