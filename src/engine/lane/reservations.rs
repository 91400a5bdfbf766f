//! The guest's reservation commands, which the manager answers; and what a reservation means for
//! its other commands.
//!
//! RESERVATION CONFLICT over one path may be that path's affair: its registration went, and those
//! of the others stand. So with a guest that is registered another path is tried. Where that one
//! does it, the first is registered again; where none does, the guest has its answer.

use std::sync::Arc;
use std::time::Instant;

use super::Lane;
use super::commands::{Command, Commands, State};
use crate::completion::{Outcome, Response};
use crate::engine::guest::{Guest, Request};
use crate::engine::messages::ToManager;
use crate::ids::{PathId, Slot};
use crate::limits::ROUND_BACKOFF;
use crate::lun::{Repeat, Route};
use crate::multipath::Entry;
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
#[derive(Debug)]
pub struct Fence {
    seen: u64,
    /// The last command that was begun before; `None` when the manager has heard that all ended.
    owed: Option<u64>,
}

impl Fence {
    /// Of a lane that begins with a table of so many fences.
    pub fn new(fences: u64) -> Self {
        Fence { seen: fences, owed: None }
    }

    /// Those that it knows of.
    pub fn seen(&self) -> u64 {
        self.seen
    }

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
        if !table.reserved.registered || command.doom.is_some() {
            return false;
        }
        let may = |id: PathId| table.reserved.pin.is_none_or(|pin| pin == id);
        let usable = |id: PathId| table.entry(id).is_some_and(Entry::is_usable) && may(id);
        // The reservation has left this path while the command was on it.
        if !usable(path) {
            return true;
        }
        let suspects = self.paths.suspects();
        let fits = |id: PathId| {
            id != path && usable(id) && !command.conflicted.contains(id) && !suspects.contains(id)
        };
        table.entries.iter().any(|entry| fits(entry.id))
    }

    /// A command has met RESERVATION CONFLICT, or has not: of a path that is alone with it the
    /// manager hears.
    pub(super) fn compare_conflict(&mut self, slot: Slot, path: PathId, class: Class) {
        let command = &mut self.commands[slot];
        match class {
            // What it has tried for other reasons may do it now.
            Class::Conflict => {
                command.conflicted.insert(path);
                command.tried = command.conflicted;
            }
            Class::Done if !command.conflicted.is_empty() => {
                let conflicted = std::mem::take(&mut command.conflicted);
                let table = Arc::clone(&self.snapshot.table);
                for entry in table.entries.iter().filter(|entry| conflicted.contains(entry.id)) {
                    self.report(entry.id, Problem::Conflicted);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffer::OwnedBuffer;
    use crate::completion::Owed;
    use crate::ids::RingIndex;
    use crate::lun::commands::row;
    use crate::scsi::Cdb;
    use crate::virtio_scsi::{Address, RequestHeader, TaskAttribute};

    fn begun(commands: &mut Commands, opcode: u8) -> Slot {
        let cdb = Cdb::new(&[opcode, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
        let owed = Owed::new(RingIndex::CONTROL, 0);
        let slot = commands.claim(owed, &mut Request::default(), row(&cdb));
        commands[slot].state = State::Waiting;
        slot
    }

    fn ended(commands: &mut Commands, slot: Slot) {
        commands.release(slot).expect("it was owed").abandon();
    }

    #[test]
    fn fence_waits_for_what_changes_something_and_was_begun_before() {
        let (mut fence, mut commands) = (Fence::new(0), Commands::default());
        let (read, write) = (begun(&mut commands, 0x28), begun(&mut commands, 0x2A));
        let asked = begun(&mut commands, opcode::PERSISTENT_RESERVE_OUT);
        assert_eq!(fence.settled(&commands), None, "there was none");
        fence.adopt(1, commands.last_serial());
        let later = begun(&mut commands, 0x2A);
        assert_eq!(fence.settled(&commands), None, "a write of before");
        ended(&mut commands, write);
        assert_eq!(fence.settled(&commands), Some(1));
        assert_eq!(fence.settled(&commands), None, "told once");
        fence.adopt(1, commands.last_serial());
        assert_eq!(fence.settled(&commands), None, "the same fence");
        for slot in [read, asked, later] {
            ended(&mut commands, slot);
        }
    }

    fn asks(cdb: &[u8], list: Vec<u8>) -> Result<machine::Request, Asc> {
        let list = OwnedBuffer::from_vec(list);
        let address = Address::LogicalUnit { target: 0, lun: 0 };
        let attribute = TaskAttribute::Simple;
        let header = RequestHeader { address, tag: 0, attribute, cdb: Cdb::new(cdb) };
        let mut asked = Request { header: Some(header), ..Request::default() };
        asked.data_out = list.segments().clone();
        request(&asked)
    }

    #[test]
    fn request_is_refused_as_the_standard_says() {
        let out = |action, length: u8| [0x5F, action, 0, 0, 0, 0, 0, 0, length, 0];
        assert!(asks(&out(0, 24), vec![0; 24]).is_ok());
        assert_eq!(asks(&out(0, 20), vec![0; 20]), Err(Asc::PARAMETER_LIST_LENGTH_ERROR));
        assert_eq!(asks(&out(0, 24), vec![0; 20]), Err(Asc::PARAMETER_LIST_LENGTH_ERROR));
        assert_eq!(asks(&out(0, 28), vec![0; 28]), Err(Asc::PARAMETER_LIST_LENGTH_ERROR));
        assert_eq!(asks(&out(0x1F, 24), vec![0; 24]), Err(Asc::INVALID_FIELD_IN_CDB));
        assert!(
            asks(&out(7, 24), vec![0; 24]).is_ok(),
            "the machine refuses it, whatever its list"
        );
    }
}
