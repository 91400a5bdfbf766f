//! The nouns of the machine: what it is told, what it wants done.

use super::record::Record;
use crate::ids::PathId;
use crate::scsi::reservation::{In, InAction, Key, Out, Parameters, TransportId};
use crate::scsi::{Asc, SenseKey};

/// Names a command of the guest, for its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket(pub u64);

/// What the guest asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// PERSISTENT RESERVE OUT, whose list could be read.
    Out(Out, Parameters),
    /// PERSISTENT RESERVE IN.
    In(In),
}

/// What a path is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// PERSISTENT RESERVE OUT.
    Out(Out, Parameters),
    /// PERSISTENT RESERVE IN, with room for the whole answer.
    In(InAction),
}

/// How a command over a path ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// GOOD, with the data of PERSISTENT RESERVE IN.
    Good(Vec<u8>),
    /// RESERVATION CONFLICT.
    Conflict,
    /// A unit attention. The command was not executed.
    Attention(Asc),
    /// CHECK CONDITION of another kind: the device server's last word.
    Refused(SenseKey, Asc),
    /// The array, or the host, is loaded or between two states. Not executed; the path is well.
    Busy,
    /// The path failed. The command was not executed and will not be.
    NotExecuted,
    /// The path failed. The command was executed or not, and will not be from now on: this may be
    /// told only when that is proven, or `write_quiesce` has passed.
    Lost,
}

/// The guest's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// GOOD, with data.
    Good(Vec<u8>),
    /// RESERVATION CONFLICT.
    Conflict,
    /// CHECK CONDITION.
    Check(SenseKey, Asc),
    /// BUSY: no path can do it now.
    Busy,
}

/// What the machine is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// What was kept by the process before; comes before anything else.
    Restored(Option<Record>),
    /// Nothing can be kept: PERSISTENT RESERVE OUT is refused from now on.
    Stateless,
    /// The guest comes from another host, and this was kept there: it is taken up as after a
    /// restart.
    Imported(Record),
    /// The record of the last [`Action::Keep`] is on the medium, or cannot be.
    Kept(bool),
    /// The path answers and wants to be used.
    Up {
        /// Which.
        path: PathId,
        /// Its name, by which a record knows it.
        name: String,
        /// Its nexus as the array calls it, where that is known.
        nexus: Option<(TransportId, u16)>,
    },
    /// The path is out of use, and wants to be used only when it is [`Event::Up`] again.
    Down(PathId),
    /// The path is out of use for good, and can still be spoken over: it is being removed.
    Leaving(PathId),
    /// The access state of the path's port lets data through, or does not. It does as long as
    /// nothing else was said.
    Access {
        /// Which.
        path: PathId,
        /// True where it does.
        active: bool,
    },
    /// A command of the guest's got RESERVATION CONFLICT over this path.
    Conflicted(PathId),
    /// The path is no more.
    Removed(PathId),
    /// The guest asks.
    Asked(Ticket, Request),
    /// Nobody waits for the answer any more. What is under way goes on; what waits is dropped.
    Forgotten(Ticket),
    /// The command that was sent last has ended. There is one under way at most.
    Ended(End),
}

/// What the machine wants done, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send this, and tell [`Event::Ended`].
    Send(PathId, Command),
    /// Keep this, and tell [`Event::Kept`].
    Keep(Record),
    /// The path may carry commands.
    Admit(PathId),
    /// The path may not carry commands until it is admitted again; it is to be probed.
    Expel(PathId),
    /// No new command of the guest's goes to any path, and those under way end first.
    Hold,
    /// They go on.
    Resume,
    /// Commands of the guest's go over this path only, or over any.
    Pin(Option<PathId>),
    /// A path brought a unit attention, which is judged as any other one is.
    Attention(PathId, Asc),
    /// The guest's answer.
    Answer(Ticket, Answer),
    /// The guest's key is gone from the array: another initiator took it, or the array lost it.
    Fenced(Key),
}
