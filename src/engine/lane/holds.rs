//! Blocks that wait for a write whose outcome nobody knows: this lane's part of
//! [`crate::multipath::hold`].

use std::time::Instant;

use super::commands::{Command, Commands, State};
use super::{Lane, Mode};
use crate::engine::guest::Guest;
use crate::engine::messages::ToManager;
use crate::ids::{HoldId, LaneId, PathId, Slot, Version};
use crate::limits::RING_SIZE_MAX;
use crate::multipath::hold::{Hold, Wait};
use crate::multipath::{Event, Table};
use crate::path::Transport;

#[derive(Debug)]
struct Own {
    hold: Hold,
    /// Its command was given up: from the table's showing it on, the table keeps it.
    orphan: bool,
}

/// A lane's holds, its own and the others'.
#[derive(Debug)]
pub struct Holds {
    lane: LaneId,
    numbers: u64,
    /// This lane's own: they count before the table shows them.
    own: Vec<Own>,
    /// Commands that wait.
    held: Vec<(Slot, u64)>,
    /// The version that the manager must hear is honoured; `None` when it has heard.
    owed: Option<Version>,
}

impl Holds {
    /// None yet.
    pub fn new(lane: LaneId) -> Self {
        Holds { lane, numbers: 0, own: Vec::new(), held: Vec::new(), owed: None }
    }

    /// A new table has come.
    pub fn adopt(&mut self, table: &Table) {
        self.owed = Some(table.version);
        self.own.retain(|own| !own.orphan || table.holds.iter().all(|hold| hold.id != own.hold.id));
    }

    /// True when the table shows all holds without which the lane's blocks would be free although
    /// a write may still land on them.
    pub fn are_known(&self) -> bool {
        self.own.iter().all(|own| !own.orphan)
    }

    /// The manager has forgotten this lane meanwhile: it hears of the current version again.
    pub fn acknowledge_again(&mut self) {
        self.owed = self.owed.or(Some(Version(0)));
    }

    /// True when `command` touches blocks that wait for another write. A command with a hold of
    /// its own was released by the manager, which lets overlapping ones go one after the other:
    /// would it look at the others here, two of them would wait for each other.
    pub fn keeps_back(&self, table: &Table, command: &Command) -> bool {
        let blocks = |hold: &Hold| hold.extent.overlaps(command.extent);
        command.hold.is_none()
            && (table.holds.iter().any(blocks) || self.own.iter().any(|own| blocks(&own.hold)))
    }

    /// `slot` waits until the holds change.
    pub fn keep(&mut self, slot: Slot, serial: u64, commands: &Commands) {
        if self.held.len() > 2 * usize::from(RING_SIZE_MAX) {
            self.held.retain(|(slot, serial)| commands.is_still(*slot, *serial, State::Held));
        }
        self.held.push((slot, serial));
    }

    /// All that waits, to be driven again.
    pub fn take_held(&mut self) -> Vec<(Slot, u64)> {
        std::mem::take(&mut self.held)
    }

    /// Nothing waits any more.
    pub fn clear_held(&mut self) {
        self.held.clear();
    }

    /// The version to report, when none of the lane's attempts overlaps another's hold of it.
    pub fn honoured(&mut self, table: &Table, commands: &Commands) -> Option<Version> {
        self.owed?;
        let in_the_way = |command: &Command| {
            matches!(command.state, State::Flying { .. })
                && table.holds.iter().any(|hold| {
                    Some(hold.id) != command.hold && hold.extent.overlaps(command.extent)
                })
        };
        if !table.holds.is_empty() && commands.iter().any(|(_, command)| in_the_way(command)) {
            return None;
        }
        self.owed = None;
        Some(table.version)
    }

    fn next_id(&mut self) -> HoldId {
        self.numbers += 1;
        HoldId { lane: self.lane, number: self.numbers }
    }
}

impl<T: Transport> Lane<T> {
    /// The outcome of a write's last attempt is not known: its blocks wait, and so does it.
    /// `by` is the path that carried that attempt, and the session.
    pub(super) fn ask_for_hold(&mut self, slot: Slot, wait: Wait, by: (PathId, u32), now: Instant) {
        let command = &mut self.commands[slot];
        command.state = State::Unproven;
        let id = match command.hold {
            Some(id) => id,
            None => {
                let id = self.holds.next_id();
                let hold = Hold { id, extent: command.extent };
                self.holds.own.push(Own { hold, orphan: false });
                command.hold = Some(id);
                id
            }
        };
        let extent = command.extent;
        let (path, session) = by;
        let event = Event::Unproven { hold: id, extent, ended: now, wait, path, session };
        self.manager.send(ToManager::Core(event));
    }

    /// The write of `hold` may go on.
    pub(super) fn released<G: Guest>(&mut self, guest: &mut G, hold: HoldId, now: Instant) {
        let owner = self
            .commands
            .iter()
            .find(|(_, command)| command.hold == Some(hold) && command.state == State::Unproven);
        if let Some((slot, _)) = owner {
            self.drive(guest, slot, now);
        }
    }

    /// A command ends: its hold, if it has one, ends too; or lasts without it, where an attempt
    /// may still land.
    pub(super) fn settle_hold(&mut self, slot: Slot) {
        let Some(id) = self.commands[slot].hold.take() else { return };
        let orphan = self.commands[slot].state == State::Unproven;
        let known = self.snapshot.table.holds.iter().any(|hold| hold.id == id);
        self.holds.own.retain_mut(|own| {
            own.orphan |= own.hold.id == id && orphan;
            own.hold.id != id || orphan && !known
        });
        let event = match (orphan, self.mode) {
            (true, Mode::Leaving) => Event::GivenBack(id),
            (true, _) => Event::Orphaned(id),
            (false, _) => Event::Settled(id),
        };
        self.manager.send(ToManager::Core(event));
    }
}
