//! What happens to the core, what it has others do, and what people are told.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::ids::{HoldId, LaneId, PathId, Version};
use crate::lun::Extent;
use crate::multipath::classify::Executed;
use crate::multipath::groups::{Failback, Switch};
use crate::multipath::hold::Wait;
use crate::multipath::path::Placement;
use crate::multipath::probe::Question;
use crate::multipath::retry::Problem;
use crate::multipath::select::Policy;
use crate::multipath::state::PathState;
use crate::multipath::table::{Aftermath, Reserved, Table};
use crate::path::Fate;
use crate::scsi::Asc;

/// What to do with commands while there is no path.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum NoPathRetry {
    /// They wait for ever.
    #[default]
    Queue,
    /// They fail.
    Fail,
    /// They wait so long, counted from the loss of the last path.
    For(Duration),
}

/// What an admin chose.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The LUN's name, in either way of writing it; `None`: the first path's.
    pub wwid: Option<String>,
    /// How paths are chosen.
    pub policy: Policy,
    /// What to do without a path.
    pub no_path_retry: NoPathRetry,
    /// How long an unproven write may still land.
    pub write_quiesce: Duration,
    /// When to go back to a better group.
    pub failback: Failback,
    /// Tell the array which group is to be the better one, where it takes that.
    pub explicit_alua: bool,
}

/// Something happened.
#[derive(Debug)]
pub enum Event {
    /// A path was opened.
    Added {
        /// The id that [`Core::free_id`] gave.
        path: PathId,
        /// Its name.
        name: String,
        /// Its group, where the array does not say.
        placement: Placement,
        /// One command may move so many bytes over it, as far as that is known.
        bytes_max: Option<u32>,
        /// Its unit attentions may not reach us.
        hides_attentions: bool,
    },
    /// An admin wants the path removed.
    Remove(PathId),
    /// An admin takes the path out of use.
    Disable(PathId),
    /// An admin brings it back.
    Reinstate(PathId),
    /// The transport says the link is gone.
    LinkDown(PathId, String),
    /// The transport says the link is there, and where its nexus is a new one, since when at the
    /// earliest.
    LinkUp(PathId, Option<Instant>),
    /// The host's transport holds the path's commands back, for this reason.
    Blocked(PathId, String),
    /// It lets them go again.
    Unblocked(PathId),
    /// Somebody else has seen that what the path said of itself may have changed.
    Changed(PathId),
    /// Somebody else has seen that the path may lead elsewhere by now, for this reason.
    Doubted(PathId, String),
    /// The transport says to which memory node the host's end of the path is near.
    Placed(PathId, Option<u16>),
    /// The last question to the path has been answered, or was given up.
    Answered {
        /// Which path.
        path: PathId,
        /// How the question ended.
        fate: Fate,
        /// The data that came.
        data: Vec<u8>,
    },
    /// A lane runs from now on.
    LaneUp(LaneId),
    /// A lane is gone.
    LaneDown(LaneId),
    /// A lane saw a problem with a path; its `number`th report.
    Reported {
        /// Which lane.
        lane: LaneId,
        /// Counts the lane's reports.
        number: u64,
        /// Which path.
        path: PathId,
        /// What it saw.
        problem: Problem,
    },
    /// A lane met a unit attention that the guest must hear of. Each one counts, so none is left out
    /// as a report would be that the manager has not answered to yet.
    Attention {
        /// Over which path.
        path: PathId,
        /// Which.
        code: Asc,
        /// When the attempt that met it was sent, or earlier.
        sent: Instant,
    },
    /// A lane is about to send a command of the guest's own over the path, of which the array tells
    /// all other nexuses when it has executed it ([`crate::lun::Row::makes`]).
    Making {
        /// Over which path.
        path: PathId,
        /// What the others are told.
        code: Asc,
    },
    /// That attempt has ended.
    Made {
        /// The path.
        path: PathId,
        /// What the others are told.
        code: Asc,
        /// Whether it was executed, and changed something then.
        executed: Executed,
        /// When it ended.
        ended: Instant,
    },
    /// A lane has seen this version and has no attempt left that a hold of it waits for.
    Honoured(LaneId, Version),
    /// A write's attempt ended and nobody knows how.
    Unproven {
        /// The hold it asks for.
        hold: HoldId,
        /// Its blocks.
        extent: Extent,
        /// When the attempt ended.
        ended: Instant,
        /// What makes it certain that it cannot land any more.
        wait: Wait,
        /// The path that carried it.
        path: PathId,
        /// The transport's session that carried it, 0 without one.
        session: u32,
    },
    /// No attempt of this session of the path, or of an earlier one, can land any more.
    Proven(PathId, u32),
    /// No attempt of this session of the path, or of an earlier one, waits in the host any more.
    Returned(PathId, u32),
    /// One command may move so many bytes over the path.
    Limited(PathId, Option<u32>),
    /// A hold's owner has its answer.
    Settled(HoldId),
    /// A hold's owner gave up.
    Orphaned(HoldId),
    /// A hold's owner went back to the guest's in-flight region.
    GivenBack(HoldId),
    /// An admin chose another policy.
    SetPolicy(Policy),
    /// An admin chose what to do without a path.
    SetNoPathRetry(NoPathRetry),
    /// An admin chose when to go back to a better group.
    SetFailback(Failback),
    /// An admin wants the best group now.
    Failback,
    /// An admin calls the path something else.
    Rename(PathId, String),
    /// An admin chose how long an unproven write may still land; for writes from now on.
    SetWriteQuiesce(Duration),
    /// Paths are registered before they are used, from now on: each one that could be used is
    /// [`Action::Admission`], and is used when it was [`Event::Admitted`].
    Registers,
    /// The path may be used.
    Admitted(PathId),
    /// That takes a while: the path's key is being registered.
    Registering(PathId),
    /// The path may not be used until it is admitted again.
    Expelled(PathId),
    /// What the guest's reservations mean for its commands has changed.
    Reserved(Reserved),
    /// A reservation command is under way over this path, or over none.
    Conversing(Option<PathId>),
    /// A process before this one has ended; what it had sent may be executed for so long from now.
    Aftermath(Aftermath, Duration),
    /// Nothing but time.
    Tick,
}

/// What the manager has to do.
#[derive(Debug)]
pub enum Action {
    /// Send this question over the path, and bring [`Event::Answered`].
    Ask(PathId, Question),
    /// End the question under way over the path: nobody waits for its answer any longer.
    GiveUp(PathId),
    /// Give the lanes this table.
    Publish(Arc<Table>),
    /// Tell the hold's lane to go on.
    Release(HoldId),
    /// The guest has a unit attention.
    Attention(Asc),
    /// The path is out of the table and nobody uses it: close it.
    Close(PathId),
    /// The guest's driver is told that the LUN has another size.
    Resized,
    /// The guest's driver is told that the LUN was removed.
    Removed,
    /// The guest's driver is told that the LUN is there again.
    Returned,
    /// The path could be used: may it? Only after [`Event::Registers`].
    Admission(PathId),
    /// The path is out of use, and wants to be admitted again when it is back.
    Out(PathId),
    /// As that, and it does not come back: it is being removed.
    Leaving(PathId),
    /// A command of the guest's, who is registered, met RESERVATION CONFLICT over this path and none
    /// over another one.
    Conflicted(PathId),
    /// Tell people.
    Tell(News),
}

/// What people are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// A path changed its state.
    Path {
        /// Its name.
        name: String,
        /// The old state.
        from: PathState,
        /// The new state.
        to: PathState,
        /// Why, in words.
        reason: String,
    },
    /// The LUN changed its state.
    Lun {
        /// The old state.
        from: LunState,
        /// The new state.
        to: LunState,
        /// How its paths were then, in words.
        reason: String,
    },
    /// The LUN has another size, for the guest too.
    Resized {
        /// The new size.
        blocks: u64,
    },
    /// Other groups are in use.
    Groups(Switch),
    /// The array was told to make a group the better one, or will not be told any more. In words.
    Explicit(String),
    /// The array says over every path that there is no such logical unit.
    Gone,
    /// The logical unit has grown; the guest sees the old size until all paths have told the new.
    Grown {
        /// Over which path it was seen.
        name: String,
        /// The new size.
        blocks: u64,
    },
}

/// The state of the LUN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LunState {
    /// Every path is up.
    Healthy,
    /// Some are not.
    Degraded,
    /// None is usable; commands wait.
    NoPath,
    /// None is usable; commands fail.
    Lost,
}
