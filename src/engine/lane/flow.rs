//! The way of a command to a path: begun, driven, submitted. A retry takes the same way as a first
//! try: [`Lane::drive`] is the only place from which anything is sent.

use std::time::Instant;

use super::Lane;
use super::commands::{Command, Doom, State};
use super::hedge::memory::Lent;
use crate::completion::{Outcome, Owed, Response};
use crate::engine::guest::{Guest, Request};
use crate::engine::messages::ToManager;
use crate::ids::{AttemptId, PathId, Slot};
use crate::limits::{MAIL_PAUSE, MAIL_UNREAD_MAX, RING_SIZE_MAX, ROUND_BACKOFF};
use crate::lun::{Decision, Question, Repeat, Route, Unit, decide};
use crate::multipath::{Aftermath, Entry, Event, NoPath, Selector};
use crate::path::{Task, Transport};
use crate::scsi::{Asc, SenseKey};
use crate::virtio_scsi::Address;

impl<T: Transport> Lane<T> {
    /// Takes requests, unless the manager is so far behind with what lanes tell it that it has to
    /// catch up first. What is under way ends, and is tried again so many times: that is its bound.
    pub(super) fn take_requests<G: Guest>(&mut self, guest: &mut G, now: Instant) -> bool {
        let is_ahead = self.manager.unread() >= MAIL_UNREAD_MAX;
        self.clock.pause = is_ahead.then(|| now + MAIL_PAUSE);
        !is_ahead && self.intake(guest, now)
    }

    /// A request was taken from the ring (it is in `spare`).
    pub(super) fn begin<G: Guest>(&mut self, guest: &mut G, owed: Owed, now: Instant) {
        match self.decide() {
            Some(Decision::Done(outcome)) => guest.complete(owed, &outcome, &self.spare.data_in),
            Some(Decision::Forward(row) | Decision::NeedsFace(row)) => {
                if let Some(outcome) = self.too_late(row.repeat, now) {
                    return guest.complete(owed, &outcome, &self.spare.data_in);
                }
                let slot = self.commands.claim(owed, &mut self.spare, row);
                let command = &mut self.commands[slot];
                if command.request.again && row.repeat == Repeat::Never {
                    let outcome = lost(command.request.room());
                    command.doom = Some(Doom { outcome, patient: true });
                }
                self.commands[slot].began = self.clock.read(now);
                self.drive(guest, slot, now);
            }
            None => {
                let outcome = Outcome::response(Response::Failure, self.spare.room());
                guest.complete(owed, &outcome, &self.spare.data_in);
            }
        }
    }

    fn decide(&mut self) -> Option<Decision> {
        let header = self.spare.header.as_ref()?;
        let question = question(&self.spare, header.address)?;
        let face = self.snapshot.table.face.as_deref();
        let pending = self.attention.peek();
        if pending.is_some() && self.spare.again {
            // A unit attention says that it was not executed, and it may have been.
            match decide(&question, face, &mut None) {
                Decision::Forward(row) if row.repeat != Repeat::Freely => {
                    return Some(Decision::Forward(row));
                }
                _ => {}
            }
        }
        let mut told = pending;
        let decision = decide(&question, face, &mut told);
        match pending {
            // Another lane's command has told the guest at the same moment: this one does not.
            Some(code) if told.is_none() && !self.attention.consume(code) => {
                Some(decide(&question, face, &mut None))
            }
            _ => Some(decision),
        }
    }

    /// Does the next thing for a command that is not on a path: send, hold, or fail.
    pub(super) fn drive<G: Guest>(&mut self, guest: &mut G, slot: Slot, now: Instant) {
        let tried = self.clock.read(now);
        let command = &self.commands[slot];
        if self.waits_for_the_dead(command) {
            return self.wait(slot);
        }
        if let Some(doom) = &command.doom {
            let outcome = doom.outcome.clone();
            return self.complete(guest, slot, &outcome);
        }
        if tried.saturating_sub(command.began) >= self.deadlines.command_deadline {
            return self.give_up(guest, slot);
        }
        if matches!(command.row.route, Route::Answer(_)) {
            return self.answer_late(guest, slot);
        }
        let crash = self.snapshot.table.aftermath == Aftermath::Crash;
        if crash && command.row.repeat != Repeat::Freely {
            return self.wait(slot);
        }
        if self.snapshot.table.reserved.arriving {
            return self.wait(slot);
        }
        if command.row.route == Route::Reserve {
            return self.ask_reservations(guest, slot, now);
        }
        if self.snapshot.table.reserved.hold {
            return self.wait(slot);
        }
        if self.holds.keeps_back(&self.snapshot.table, command) {
            let serial = command.serial;
            self.commands[slot].state = State::Held;
            return self.holds.keep(slot, serial, &self.commands);
        }
        match self.choose(slot, now) {
            Some(path) => self.submit(slot, path, now),
            None => self.without_path(guest, slot, now),
        }
    }

    /// A process before this one may have sent it, and that attempt may still be executed: until it
    /// cannot, no answer is given that would have the guest believe that it is over.
    pub(super) fn waits_for_the_dead(&self, command: &Command) -> bool {
        let patient = command.doom.as_ref().is_none_or(|doom| doom.patient);
        self.snapshot.table.aftermath != Aftermath::Over
            && command.request.again
            && command.row.repeat != Repeat::Freely
            && patient
    }

    /// The path for a command, none that it has tried in this round and none that just failed.
    fn choose(&mut self, slot: Slot, now: Instant) -> Option<PathId> {
        let command = &mut self.commands[slot];
        let table = &self.snapshot.table;
        let prefers_last = std::mem::take(&mut command.prefer_last);
        if let Some(last) = command.last.filter(|_| prefers_last)
            && !self.paths.is_suspect(last)
            && table.keeps(last)
            && table.reserved.pin.is_none_or(|pin| pin == last)
        {
            return Some(last);
        }
        let without = command.tried.union(&self.paths.suspects());
        if let Some(pin) = table.reserved.pin {
            let usable = table.entry(pin).is_some_and(Entry::is_usable);
            return (usable && !without.contains(pin)).then_some(pin);
        }
        match command.row.route {
            Route::Pin => Selector::pinned(table, &without),
            _ => self.selector.select(table, &without, command.request.room(), now),
        }
    }

    fn submit(&mut self, slot: Slot, path: PathId, now: Instant) {
        let table = &self.snapshot.table;
        let command = &mut self.commands[slot];
        command.generation = command.next_generation();
        if let Some(hedges) = &mut self.hedges {
            hedges.prepare(slot, command, path, now);
        }
        command.state = State::Flying { path, sent: now, recalled: false };
        command.overdue = false;
        if let Some(entry) = table.entry(path) {
            entry.load.started(command.request.room());
        }
        if let Some(last) = command.last {
            let counters = self.counters.path(path);
            crate::stats::bump(&counters.retries, 1);
            if last != path {
                crate::stats::bump(&self.counters.path(last).failovers, 1);
                self.paths.moved(last, path);
            }
        }
        command.last = Some(path);
        let attempt = AttemptId { slot, generation: command.generation };
        let Some(header) = &command.request.header else { return };
        if let Some(code) = command.row.makes {
            // Before another path can bring it.
            self.manager.send(ToManager::Core(Event::Making { path, code }));
        }
        let task = Task {
            cdb: &header.cdb,
            data_out: &command.request.data_out,
            data_in: command.own.as_ref().map_or(&command.request.data_in, Lent::room),
        };
        self.paths.submit(path, attempt, task, now);
    }

    /// Nothing to send it over: it waits, rests, or fails.
    pub(super) fn without_path<G: Guest>(&mut self, guest: &mut G, slot: Slot, now: Instant) {
        let table = &self.snapshot.table;
        let suspects = self.paths.suspects();
        let untried_later =
            table.entries.iter().any(|entry| entry.is_usable() && !suspects.contains(entry.id));
        if untried_later {
            // There are paths, and it has tried them all: a new round, a little later.
            self.commands[slot].tried = Default::default();
            return self.rest(slot, now + ROUND_BACKOFF);
        }
        if table.no_path != NoPath::Hold && !table.has_usable() {
            return self.give_up(guest, slot);
        }
        self.commands[slot].tried = Default::default();
        self.wait(slot);
    }

    pub(super) fn wait(&mut self, slot: Slot) {
        if self.waiting.len() > 2 * usize::from(RING_SIZE_MAX) {
            // Entries of commands that were aborted meanwhile: without a path nothing else ends them.
            let commands = &self.commands;
            self.waiting.retain(|(slot, serial)| commands.is_still(*slot, *serial, State::Waiting));
        }
        self.commands[slot].state = State::Waiting;
        self.waiting.push_back((slot, self.commands[slot].serial));
    }

    pub(super) fn rest(&mut self, slot: Slot, until: Instant) {
        self.commands[slot].state = State::Resting(until);
        self.rests.add(until, slot, self.commands[slot].serial);
    }

    /// A command that the virtual LUN answers itself, and could not before a path told who it is.
    fn answer_late<G: Guest>(&mut self, guest: &mut G, slot: Slot) {
        let command = &self.commands[slot];
        let address = command.request.header.map(|header| header.address);
        let question = address.and_then(|address| question(&command.request, address));
        let table = &self.snapshot.table;
        match question.map(|question| decide(&question, table.face.as_deref(), &mut None)) {
            Some(Decision::Done(outcome)) => self.complete(guest, slot, &outcome),
            _ if table.no_path != NoPath::Hold => self.give_up(guest, slot),
            _ => self.wait(slot),
        }
    }
}

/// The answer to a command that may have been executed and must not be twice: whoever sent it
/// decides.
pub(super) fn lost(room: u32) -> Outcome {
    Outcome::check(SenseKey::AbortedCommand, Asc::I_T_NEXUS_LOSS, room)
}

/// The question to the virtual LUN; `None` for a request without a header, which the guest's side
/// never passes on.
fn question(request: &Request, address: Address) -> Option<Question<'_>> {
    let unit = match address {
        Address::LogicalUnit { target: 0, lun: 0 } => Unit::Ours,
        Address::LogicalUnit { target: 0, .. } => Unit::Absent,
        Address::ReportLuns | Address::ReportLunsOf { target: 0 } => Unit::ReportLuns,
        Address::LogicalUnit { .. } | Address::ReportLunsOf { .. } | Address::Unknown => {
            Unit::Nowhere
        }
    };
    Some(Question {
        unit,
        cdb: &request.header.as_ref()?.cdb,
        data_in: &request.data_in,
        room: request.room(),
    })
}
