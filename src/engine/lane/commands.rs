//! The table of commands and their states.

use std::time::{Duration, Instant};

use super::hedge::memory::Lent;
use crate::completion::{Outcome, Owed};
use crate::engine::guest::Request;
use crate::ids::{AttemptId, HoldId, PathId, Slot};
use crate::limits::RING_SIZE_MAX;
use crate::lun::commands::UNKNOWN;
use crate::lun::{Extent, Row};
use crate::multipath::retry::Tries;
use crate::multipath::select::PathSet;

/// Where a command is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The slot is empty.
    Free,
    /// On a path; its memory is lent.
    Flying {
        /// Which path.
        path: PathId,
        /// Since when.
        sent: Instant,
        /// Its end has been asked for.
        recalled: bool,
    },
    /// No path is there for it.
    Waiting,
    /// Until this time.
    Resting(Instant),
    /// Another write's blocks overlap its own.
    Held,
    /// A write whose outcome nobody knows: until the manager releases it.
    Unproven,
    /// A reservation command: the manager speaks with the array.
    Asked,
}

/// How a command is to end, whatever else happens to it.
#[derive(Clone, Debug)]
pub struct Doom {
    /// The answer.
    pub outcome: Outcome,
    /// Wait until an attempt that may still be executed is proven dead.
    pub patient: bool,
}

/// One command.
#[derive(Debug)]
pub struct Command {
    /// Where it is.
    pub state: State,
    /// The duty to answer it; `None` only in a free slot.
    pub owed: Option<Owed>,
    /// The request and its memory.
    pub request: Request,
    /// The rules for it.
    pub row: &'static Row,
    /// Its blocks.
    pub extent: Extent,
    /// The main attempt's: the one that `state` speaks of.
    pub generation: u32,
    /// Counts this slot's attempts, main ones and others.
    generations: u32,
    /// The memory that the main attempt writes to, where that is not the guest's.
    pub own: Option<Lent>,
    /// The clone under way.
    pub second: Option<u32>,
    /// It has been cloned: once is enough.
    pub hedged: bool,
    /// What it has been through.
    pub tries: Tries,
    /// Paths tried in this round.
    pub tried: PathSet,
    /// Paths over which it met RESERVATION CONFLICT.
    pub conflicted: PathSet,
    /// The last path it was on.
    pub last: Option<PathId>,
    /// The manager was told that the attempt under way takes long.
    pub overdue: bool,
    /// Go over the last path again, if it is usable.
    pub prefer_last: bool,
    /// The trying clock's reading when it came.
    pub began: Duration,
    /// It is to end so.
    pub doom: Option<Doom>,
    /// The hold that it owns.
    pub hold: Option<HoldId>,
    /// Counts the lane's commands: names this one for task management.
    pub serial: u64,
}

impl Command {
    fn empty() -> Self {
        Command {
            state: State::Free,
            owed: None,
            request: Request::default(),
            row: &UNKNOWN,
            extent: Extent::Nothing,
            generation: 0,
            generations: 0,
            own: None,
            second: None,
            hedged: false,
            tries: Tries::default(),
            tried: PathSet::default(),
            conflicted: PathSet::default(),
            last: None,
            overdue: false,
            prefer_last: false,
            began: Duration::ZERO,
            doom: None,
            hold: None,
            serial: 0,
        }
    }

    /// A number for another attempt.
    pub fn next_generation(&mut self) -> u32 {
        self.generations = self.generations.wrapping_add(1);
        self.generations
    }

    /// The driver's name for it.
    pub fn tag(&self) -> Option<u64> {
        self.request.header.map(|header| header.tag)
    }
}

/// All commands of a lane. A slot is used again, with its lists' memory.
#[derive(Debug, Default)]
pub struct Commands {
    slots: Vec<Command>,
    free: Vec<Slot>,
    serials: u64,
}

impl Commands {
    /// A slot for a new command.
    pub fn claim(&mut self, owed: Owed, spare: &mut Request, row: &'static Row) -> Slot {
        let slot = self.free.pop().unwrap_or_else(|| {
            // A head is on its ring once, so there are never more commands than ring entries.
            debug_assert!(self.slots.len() < usize::from(RING_SIZE_MAX));
            self.slots.push(Command::empty());
            Slot((self.slots.len() - 1) as u16)
        });
        self.serials += 1;
        let command = &mut self.slots[usize::from(slot.0)];
        debug_assert_eq!(command.state, State::Free);
        debug_assert!(command.own.is_none() && command.second.is_none());
        command.hedged = false;
        std::mem::swap(&mut command.request, spare);
        command.owed = Some(owed);
        command.row = row;
        command.extent =
            command.request.header.map_or(Extent::Nothing, |header| row.extent(&header.cdb));
        command.tries = Tries::default();
        command.tried = PathSet::default();
        command.conflicted = PathSet::default();
        command.last = None;
        command.prefer_last = false;
        command.doom = None;
        command.hold = None;
        command.serial = self.serials;
        slot
    }

    /// The number of the last command that was begun.
    pub fn last_serial(&self) -> u64 {
        self.serials
    }

    /// Empties the slot; the duty to answer comes back.
    pub fn release(&mut self, slot: Slot) -> Option<Owed> {
        let command = &mut self.slots[usize::from(slot.0)];
        debug_assert!(!matches!(command.state, State::Flying { .. }), "memory is still lent");
        command.state = State::Free;
        self.free.push(slot);
        command.owed.take()
    }

    /// The command of an attempt, if that attempt is the one under way.
    pub fn of_attempt(&self, attempt: AttemptId) -> Option<&Command> {
        let command = self.slots.get(usize::from(attempt.slot.0))?;
        let flying = matches!(command.state, State::Flying { .. });
        (flying && command.generation == attempt.generation).then_some(command)
    }

    /// True when the slot's command is still the one with this serial number, and in this state:
    /// lists of slots may outlive what they were made for.
    pub fn is_still(&self, slot: Slot, serial: u64, state: State) -> bool {
        self[slot].serial == serial && self[slot].state == state
    }

    /// The slots in use, with their commands.
    pub fn iter(&self) -> impl Iterator<Item = (Slot, &Command)> {
        let slots = self.slots.iter().enumerate();
        slots
            .filter(|(_, command)| command.state != State::Free)
            .map(|(at, command)| (Slot(at as u16), command))
    }

    /// All slots of now, the free ones too; for loops that change them.
    pub fn slots(&self) -> impl Iterator<Item = Slot> + use<> {
        (0..self.slots.len() as u16).map(Slot)
    }

    /// True without any command.
    pub fn is_empty(&self) -> bool {
        self.free.len() == self.slots.len()
    }

    /// Commands in the table.
    pub fn len(&self) -> u64 {
        (self.slots.len() - self.free.len()) as u64
    }

    /// What must always hold between two turns.
    pub fn are_consistent(&self) -> bool {
        self.slots.iter().all(|command| (command.state == State::Free) == command.owed.is_none())
    }
}

impl std::ops::Index<Slot> for Commands {
    type Output = Command;

    fn index(&self, slot: Slot) -> &Command {
        &self.slots[usize::from(slot.0)]
    }
}

impl std::ops::IndexMut<Slot> for Commands {
    fn index_mut(&mut self, slot: Slot) -> &mut Command {
        &mut self.slots[usize::from(slot.0)]
    }
}
