//! The guest's reservation commands, which the manager answers; and what a reservation means for
//! its other commands.
//!
//! RESERVATION CONFLICT over one path may be that path's affair: its registration went, and those
//! of the others stand. So with a guest that is registered another path is tried. Where that one
//! does it, the first is registered again; where none does, the guest has its answer.

use std::time::Instant;

use super::Lane;
use super::commands::{Command, Commands, State};
use crate::completion::{Outcome, Response};
use crate::engine::guest::{Guest, Request};
use crate::engine::messages::ToManager;
use crate::ids::{PathId, Slot};
use crate::limits::ROUND_BACKOFF;
use crate::lun::{Repeat, Route};
use crate::multipath::classify::Class;
use crate::multipath::reservation as machine;
use crate::multipath::retry::Problem;
use crate::path::Transport;
use crate::scsi::reservation::{In, ListError, Out, OutAction, Parameters, parameters};
use crate::scsi::{Asc, SenseKey, Status, opcode};

/// Bytes of a parameter list at most: SPEC_I_PT with more is refused as any of it is.
const LIST_MAX: u32 = 4096;

/// What was begun before the guest was fenced, and must end before it can register again: a write
/// that is sent once more would land under the new key.
#[derive(Debug, Default)]
pub struct Fence {
    seen: u64,
    /// The last command that was begun before; `None` when the manager has heard that all ended.
    owed: Option<u64>,
}

impl Fence {
    /// The table counts `fences`; `last` is the last command that was begun.
    pub fn adopt(&mut self, fences: u64, last: u64) {
        if fences > self.seen {
            (self.seen, self.owed) = (fences, Some(last));
        }
    }

    /// What to report, when nothing of before is left that changes something.
    pub fn settled(&mut self, commands: &Commands) -> Option<u64> {
        let last = self.owed?;
        let old = |command: &Command| {
            command.state != State::Free
                && command.serial <= last
                && command.row.repeat != Repeat::Freely
                && command.row.route != Route::Reserve
        };
        if commands.iter().any(|(_, command)| old(command)) {
            return None;
        }
        self.owed = None;
        Some(self.seen)
    }
}

impl<T: Transport> Lane<T> {
    /// The manager is to speak with the array.
    pub(super) fn ask_reservations<G: Guest>(&mut self, guest: &mut G, slot: Slot, now: Instant) {
        if !self.snapshot.table.has_usable() {
            return self.without_path(guest, slot, now);
        }
        let command = &mut self.commands[slot];
        match request(&command.request) {
            Ok(request) => {
                command.state = State::Asked;
                let (lane, serial) = (self.id, command.serial);
                self.manager.send(ToManager::Reserve { lane, serial, request });
            }
            Err(code) => {
                let room = command.request.room();
                let outcome = Outcome::check(SenseKey::IllegalRequest, code, room);
                self.complete(guest, slot, &outcome);
            }
        }
    }

    /// The manager's answer to the reservation command of this serial number.
    pub(super) fn reserved<G: Guest>(
        &mut self,
        guest: &mut G,
        serial: u64,
        answer: machine::Answer,
        now: Instant,
    ) {
        let asked = |command: &Command| command.serial == serial && command.state == State::Asked;
        let slot = self.commands.iter().find(|(_, command)| asked(command)).map(|(slot, _)| slot);
        let Some(slot) = slot else { return };
        let command = &mut self.commands[slot];
        let room = command.request.room();
        let outcome = match answer {
            machine::Answer::Good(data) => given(&command.request, &data),
            machine::Answer::Conflict => Outcome::status(Status::RESERVATION_CONFLICT, room),
            machine::Answer::Check(key, code) => Outcome::check(key, code, room),
            // No path could do it: it tries again until its time is up.
            machine::Answer::Busy if command.doom.is_none() => {
                return self.rest(slot, now + ROUND_BACKOFF);
            }
            machine::Answer::Busy => return self.drive(guest, slot, now),
        };
        self.complete(guest, slot, &outcome);
    }

    /// After RESERVATION CONFLICT over `path`: is it worth asking another one?
    pub(super) fn another_may_do(&self, slot: Slot, path: PathId) -> bool {
        let (table, command) = (&self.snapshot.table, &self.commands[slot]);
        let suspects = self.paths.suspects();
        let fits = |id: PathId| {
            id != path
                && !command.tried.contains(id)
                && !suspects.contains(id)
                && table.reserved.pin.is_none_or(|pin| pin == id)
        };
        table.reserved.registered
            && command.doom.is_none()
            && table.entries.iter().any(|entry| entry.is_usable() && fits(entry.id))
    }

    /// A command has met RESERVATION CONFLICT, or has not: of a path that is alone with it the
    /// manager hears.
    pub(super) fn compare_conflict(&mut self, slot: Slot, path: PathId, class: Class) {
        let command = &mut self.commands[slot];
        match class {
            Class::Conflict => command.conflicted = Some(path),
            Class::Done => {
                if let Some(alone) = command.conflicted.take() {
                    self.report(alone, Problem::Conflicted);
                }
            }
            _ => {}
        }
    }
}

/// What the guest asks for; the error is the additional sense code of ILLEGAL REQUEST.
fn request(request: &Request) -> Result<machine::Request, Asc> {
    let cdb = request.header.as_ref().map(|header| &header.cdb).ok_or(Asc::INVALID_FIELD_IN_CDB)?;
    if cdb.opcode() == opcode::PERSISTENT_RESERVE_IN {
        return In::parse(cdb).map(machine::Request::In).ok_or(Asc::INVALID_FIELD_IN_CDB);
    }
    let out = Out::parse(cdb).ok_or(Asc::INVALID_FIELD_IN_CDB)?;
    if matches!(out.action, OutAction::RegisterAndMove | OutAction::ReplaceLostReservation) {
        // Refused whatever the list says; it has another form.
        return Ok(machine::Request::Out(out, Parameters::default()));
    }
    if out.length < parameters::BASIC as u32 || out.length > LIST_MAX {
        return Err(Asc::PARAMETER_LIST_LENGTH_ERROR);
    }
    let mut list = request.data_out.to_vec();
    if list.len() < out.length as usize {
        return Err(Asc::PARAMETER_LIST_LENGTH_ERROR);
    }
    list.truncate(out.length as usize);
    match Parameters::parse(&list) {
        Ok(given) => Ok(machine::Request::Out(out, given)),
        Err(ListError::Length) => Err(Asc::PARAMETER_LIST_LENGTH_ERROR),
        Err(ListError::Field(_)) => Err(Asc::INVALID_FIELD_IN_PARAMETER_LIST),
    }
}

/// GOOD with data, as much of it as there is room for.
fn given(request: &Request, data: &[u8]) -> Outcome {
    let room = request.room();
    let into = request.data_in.len();
    let stored = data.len().min(into);
    request.data_in.write_at(0, &data[..stored]);
    // Parameter lists have been read whole.
    let used = if request.data_out.is_empty() { stored as u32 } else { room };
    Outcome {
        response: Response::Ok,
        status: Status::GOOD,
        sense: None,
        residual: room - used.min(room),
        stored: stored as u32,
    }
}
