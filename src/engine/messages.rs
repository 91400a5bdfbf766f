//! What lanes and manager say to each other.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::mpsc::Sender;
use std::time::Duration;

use crate::ids::{HoldId, LaneId, PathId};
use crate::multipath::reservation::{Answer, Request};
use crate::multipath::{Event, Table};
use crate::scsi::Asc;
use crate::virtio_scsi::ControlResponse;

/// What a lane reads: the paths' states, and the paths.
#[derive(Debug)]
pub struct Snapshot<T> {
    /// The core's table.
    pub table: Arc<Table>,
    /// For each path of the table, what makes channels.
    pub transports: Vec<(PathId, Arc<T>)>,
}

impl<T> Snapshot<T> {
    /// The transport of `path`.
    pub fn transport(&self, path: PathId) -> Option<&Arc<T>> {
        self.transports.iter().find(|(id, _)| *id == path).map(|(_, transport)| transport)
    }
}

/// Which reads are cloned, where they are; see [`crate::engine::lane::hedge`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hedging {
    /// Clones per read, in the long run.
    pub budget: f64,
    /// A read is slow when so many of a thousand were faster.
    pub permille: u32,
    /// Reads that must have been measured before one is slow.
    pub samples_min: u32,
}

/// Time limits of the commands, and what is done about slow reads before they are reached.
#[derive(Clone, Copy, Debug)]
pub struct Deadlines {
    /// Until one attempt is given up.
    pub path_timeout: Duration,
    /// Of trying, per command; stands still while no path exists.
    pub command_deadline: Duration,
    /// Slow reads are cloned, if they are.
    pub hedging: Option<Hedging>,
}

/// A task management function, as every lane carries out its part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// End the command with this tag.
    Abort(u64),
    /// End all commands, as aborted by another task management function.
    AbortAll,
    /// End all commands, as ended by a reset.
    ResetAll,
    /// Is the command with this tag there?
    Query(u64),
    /// Is there any?
    QueryAny,
}

/// To a lane.
#[derive(Debug)]
pub enum ToLane<T> {
    /// A new snapshot.
    Snapshot(Arc<Snapshot<T>>),
    /// The write of this hold may be sent again.
    Release(HoldId),
    /// A task management function; answered by [`ToManager::TaskDone`].
    Task {
        /// Its number.
        number: u64,
        /// Which of the lane's runs it is about: one that comes late is not about the next guest's
        /// commands.
        run: u64,
        /// What to do.
        task: Task,
    },
    /// All lanes have done it: the guest can be answered. Only to the first lane.
    TaskAnswer {
        /// Its number.
        number: u64,
        /// The answer.
        response: ControlResponse,
    },
    /// A reservation command is done.
    Reserved {
        /// The lane's number of the command.
        serial: u64,
        /// The answer.
        answer: Answer,
    },
    /// Other time limits. Whether reads are hedged stays as it is.
    Deadlines(Deadlines),
    /// Post an event, if the guest wants events. Only to the first lane.
    Event(crate::virtio_scsi::Event),
}

/// To the manager.
#[derive(Debug)]
pub enum ToManager {
    /// For the core.
    Core(Event),
    /// The first lane got a task management function.
    Task {
        /// Who asks.
        lane: LaneId,
        /// Its number, chosen by the lane.
        number: u64,
        /// What to do.
        task: Task,
        /// The unit attention that the guest gets when it is done.
        attention: Option<Asc>,
    },
    /// A lane has done its part; what it ended is visible to the guest.
    TaskDone {
        /// Which lane.
        lane: LaneId,
        /// The function's number.
        number: u64,
        /// It found what the function was about.
        found: bool,
    },
    /// A lane that stops has given a command back: nobody can end that before it is taken again,
    /// when the lane comes up the next time.
    GaveBack(LaneId),
    /// The guest sent a reservation command; answered by [`ToLane::Reserved`].
    Reserve {
        /// Who asks.
        lane: LaneId,
        /// Its number of the command.
        serial: u64,
        /// The command.
        request: Request,
    },
    /// All that was begun before the guest was fenced so many times, and changes something, has
    /// ended.
    FenceSettled {
        /// Which lane.
        lane: LaneId,
        /// [`crate::multipath::Reserved::fences`].
        fences: u64,
    },
    /// Commands went on over another path.
    Moved {
        /// The path they were on.
        from: PathId,
        /// The path they went to.
        to: PathId,
        /// How many.
        commands: u64,
    },
    /// A front end has connected or gone.
    Frontend(bool),
    /// A guest is about to go on elsewhere; answered when nothing that was sent before can be
    /// executed any more.
    Landing(Sender<()>),
}

/// The guest's pending unit attention: one nexus, one place. Lanes take it, the manager puts it.
#[derive(Debug, Default)]
pub struct Attention(AtomicU32);

const PENDING: u32 = 1 << 16;

impl Attention {
    /// Puts `code` where nothing is pending; false when something is.
    pub fn offer(&self, code: Asc) -> bool {
        self.0.compare_exchange(0, pack(code), Relaxed, Relaxed).is_ok()
    }

    /// Puts `code`, over what is pending: a reset says all that came before.
    pub fn replace(&self, code: Asc) {
        self.0.store(pack(code), Relaxed);
    }

    /// The pending one, left in its place: one plain load.
    pub fn peek(&self) -> Option<Asc> {
        match self.0.load(Relaxed) {
            0 => None,
            packed => Some(Asc((packed >> 8) as u8, packed as u8)),
        }
    }

    /// The guest has been told `code`: its place is free. False when another was told it first, or
    /// a later one has taken its place.
    pub fn consume(&self, code: Asc) -> bool {
        self.0.compare_exchange(pack(code), 0, Relaxed, Relaxed).is_ok()
    }
}

fn pack(code: Asc) -> u32 {
    PENDING | u32::from(code.0) << 8 | u32::from(code.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attention_is_taken_once() {
        let attention = Attention::default();
        assert!(attention.offer(Asc(0x2A, 0x09)));
        assert!(!attention.offer(Asc(0x29, 0x00)));
        attention.replace(Asc(0x29, 0x03));
        assert_eq!(attention.peek(), Some(Asc(0x29, 0x03)));
        assert!(!attention.consume(Asc(0x2A, 0x09)));
        assert!(attention.consume(Asc(0x29, 0x03)));
        assert!(!attention.consume(Asc(0x29, 0x03)));
        assert_eq!(attention.peek(), None);
    }
}
