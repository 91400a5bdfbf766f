//! The way of a command back: an attempt has ended, and the command is answered, goes on, or waits
//! for a proof; and the ways in which an attempt is made to end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::commands::{Doom, State};
use super::{Lane, Mode, overdue};
use crate::buffer::Segments;
use crate::completion::{Outcome, Owed, Response};
use crate::engine::guest::{Guest, Request};
use crate::engine::messages::ToManager;
use crate::ids::{AttemptId, PathId, Slot};
use crate::lun::Repeat;
use crate::multipath::classify::{Class, Executed, Verdict, classify};
use crate::multipath::hold::Wait;
use crate::multipath::retry::{Next, Problem, Where, rule};
use crate::multipath::{Event, NoPath};
use crate::path::{Answer, Ended, Fate, Residual, Transport};
use crate::scsi::alua::AccessState;
use crate::scsi::{Asc, SenseKey, Status};

/// The end of an attempt, as far as it decides what next.
struct After {
    path: PathId,
    session: u32,
    fate: Fate,
    executed: Executed,
    now: Instant,
}

impl<T: Transport> Lane<T> {
    /// An attempt has ended; its memory is ours again.
    pub(super) fn ended<G: Guest>(
        &mut self,
        guest: &mut G,
        path: PathId,
        ended: Ended,
        now: Instant,
    ) {
        let slot = ended.attempt.slot;
        if self.hedges.is_some() && self.second_ended(guest, &ended, now) {
            return;
        }
        let Some(command) = self.commands.of_attempt(ended.attempt) else {
            debug_assert!(false, "an end without an attempt: {:?}", ended.attempt);
            return;
        };
        let State::Flying { sent, .. } = command.state else { return };
        let verdict = classify(&ended.fate);
        self.account(slot, path, &ended.fate, verdict, sent, now);
        let command = &mut self.commands[slot];
        command.state = State::Waiting;
        let mut ruling = rule(verdict, command.row.repeat, &mut command.tries);
        if verdict.class == Class::Conflict && self.another_may_do(slot, path) {
            let (place, after) = (Where::Elsewhere, None);
            ruling.next = Next::Again { place, after };
        }
        self.compare_conflict(slot, path, verdict.class);
        if let Some(problem) = ruling.problem {
            self.report(path, problem);
        }
        self.pass_on_attention(path, verdict.class, sent);
        self.pass_on_own_doing(slot, path, &ended.fate, verdict, now);
        let Ended { fate, session, .. } = ended;
        let after = After { path, session, fate, executed: verdict.executed, now };
        if self.mode == Mode::Disconnected {
            self.outlive(slot, &after);
            return self.abandon(slot, |owed, _| owed.abandon());
        }
        if self.mode == Mode::Leaving && ruling.next != Next::Deliver {
            self.outlive(slot, &after);
            return self.abandon(slot, |owed, data_in| guest.give_back(owed, data_in));
        }
        if ruling.next != Next::Deliver && self.promote(slot, path) {
            return;
        }
        self.follow(guest, slot, ruling.next, after);
    }

    fn follow<G: Guest>(&mut self, guest: &mut G, slot: Slot, next: Next, after: After) {
        let After { path, session, now, .. } = after;
        let command = &mut self.commands[slot];
        let room = command.request.room();
        match next {
            Next::Deliver => {
                let outcome = match after.fate {
                    Fate::Answered(answer) => outcome_of(answer, &command.request),
                    Fate::Failed(..) => Outcome::response(Response::Failure, room),
                };
                self.hand_over(slot, outcome.stored);
                self.complete(guest, slot, &outcome);
            }
            _ if command.doom.as_ref().is_some_and(|doom| !doom.patient) => {
                self.outlive(slot, &after);
                self.drive(guest, slot, now);
            }
            Next::Again { place, after: delay } => {
                match place {
                    Where::Same => command.prefer_last = true,
                    Where::Elsewhere => command.tried.insert(path),
                    Where::Anywhere => command.tried = Default::default(),
                }
                match delay {
                    Some(delay) if command.doom.is_none() => self.rest(slot, now + delay),
                    _ => self.drive(guest, slot, now),
                }
            }
            Next::Prove(wait) => {
                command.tried.insert(path);
                self.ask_for_hold(slot, wait, (path, session), now);
            }
            Next::Abort => {
                let outcome = Outcome::check(SenseKey::AbortedCommand, Asc::NONE, room);
                command.doom.get_or_insert(Doom { outcome, patient: true });
                match after.executed {
                    // The guest must not act on the answer while the attempt may still land.
                    Executed::Unknown | Executed::Parked => {
                        let wait = Wait::after(after.executed);
                        self.ask_for_hold(slot, wait, (path, session), now);
                    }
                    _ => self.drive(guest, slot, now),
                }
            }
            Next::Unsupported => {
                let code = Asc::INVALID_FIELD_IN_CDB;
                let outcome = Outcome::check(SenseKey::IllegalRequest, code, room);
                self.complete(guest, slot, &outcome);
            }
            Next::Exhausted => self.give_up(guest, slot),
        }
    }

    /// The command ends now although its last attempt may still land: its blocks wait without it.
    fn outlive(&mut self, slot: Slot, after: &After) {
        let changes = self.commands[slot].row.repeat != Repeat::Freely;
        if matches!(after.executed, Executed::Unknown | Executed::Parked) && changes {
            let wait = Wait::after(after.executed);
            self.ask_for_hold(slot, wait, (after.path, after.session), after.now);
        }
    }

    fn account(
        &mut self,
        slot: Slot,
        path: PathId,
        fate: &Fate,
        verdict: Verdict,
        sent: Instant,
        now: Instant,
    ) {
        let request = &self.commands[slot].request;
        // A device server that refuses does so in no time: that must not make its path attractive.
        let answered = verdict.class == Class::Done && matches!(fate, Fate::Answered(_));
        let took = now.saturating_duration_since(sent);
        if let Some(entry) = self.snapshot.table.entry(path) {
            entry.load.ended(request.room(), took, now, answered);
            overdue::note_errors(&entry.load, verdict.class, fate);
        }
        if answered && self.hedges.is_some() {
            self.measure_read(slot, path, sent, now);
        }
        let request = &self.commands[slot].request;
        let counters = self.counters.path(path);
        match (verdict.class, fate, &request.header) {
            (Class::Done, Fate::Answered(_), Some(header)) => {
                let (data_in, data_out) = (request.data_in.len(), request.data_out.len());
                counters.answered(header.cdb.opcode(), data_in as u64, data_out as u64, took);
            }
            (class, ..) => counters.error(class),
        }
    }

    /// Passes a unit attention on that the guest must hear of.
    pub(super) fn pass_on_attention(&self, path: PathId, class: Class, sent: Instant) {
        if let Class::Attention(code) = class {
            self.manager.send(ToManager::Core(Event::Attention { path, code, sent }));
        }
    }

    /// An attempt of a command has ended that makes a unit attention of the other paths.
    fn pass_on_own_doing(
        &self,
        slot: Slot,
        path: PathId,
        fate: &Fate,
        verdict: Verdict,
        now: Instant,
    ) {
        let Some(code) = self.commands[slot].row.makes else { return };
        let executed = match fate {
            // A device server that has refused the command has changed nothing.
            Fate::Answered(answer) if verdict.class == Class::Done && !is_success(answer) => {
                Executed::No
            }
            _ => verdict.executed,
        };
        let made = Event::Made { path, code, executed, ended: now };
        self.manager.send(ToManager::Core(made));
    }

    /// Tells the manager, and stops using the path at once where the problem says that nothing
    /// should be sent over it; then the first report is enough.
    pub(super) fn report(&mut self, path: PathId, problem: Problem) {
        let stops = match problem {
            Problem::Failed(_) | Problem::Unmapped | Problem::Doubt(_) => true,
            Problem::Access(state) => {
                !state.allows_media_access() || state == AccessState::Transitioning
            }
            Problem::AccessChanged
            | Problem::SizeChanged
            | Problem::Overdue
            | Problem::Conflicted => false,
        };
        if stops && self.paths.is_suspect(path) {
            return;
        }
        let Some(number) = self.paths.next_report(path, problem) else { return };
        if stops {
            self.paths.suspect(path, number);
        }
        let event = Event::Reported { lane: self.id, number, path, problem };
        self.manager.send(ToManager::Core(event));
    }

    pub(super) fn give_up<G: Guest>(&mut self, guest: &mut G, slot: Slot) {
        let outcome = exhausted(self.snapshot.table.no_path, self.commands[slot].request.room());
        self.complete(guest, slot, &outcome);
    }

    /// Answers the guest. The command is over, and nothing of it is lent.
    pub(super) fn complete<G: Guest>(&mut self, guest: &mut G, slot: Slot, outcome: &Outcome) {
        if self.hedges.is_some() {
            self.part_with_seconds(slot);
        }
        self.settle_hold(slot);
        self.tasks.ended(self.commands[slot].serial);
        if let Some(owed) = self.commands.release(slot) {
            guest.complete(owed, outcome, &self.commands[slot].request.data_in);
        }
    }

    /// Gives a command up without an answer: the connection is gone, or keeps it.
    pub(super) fn abandon(&mut self, slot: Slot, get_rid: impl FnOnce(Owed, &Segments)) {
        if self.hedges.is_some() {
            self.part_with_seconds(slot);
        }
        self.settle_hold(slot);
        self.tasks.ended(self.commands[slot].serial);
        if let Some(owed) = self.commands.release(slot) {
            get_rid(owed, &self.commands[slot].request.data_in);
        }
    }

    /// Gives up everything that is not on a path, and asks for the end of what is.
    pub(super) fn abandon_all(&mut self, get_rid: &mut dyn FnMut(Owed, &Segments)) {
        for slot in self.commands.slots() {
            match self.commands[slot].state {
                State::Free => {}
                State::Flying { .. } => match self.leave(slot) {
                    true => self.abandon(slot, &mut *get_rid),
                    false => self.recall(slot),
                },
                _ => self.abandon(slot, &mut *get_rid),
            }
        }
        self.waiting.clear();
        self.rests.clear();
        self.holds.clear_held();
        if self.mode == Mode::Disconnected {
            self.tasks.abandon();
        }
    }

    /// Asks for the end of a command's attempt, once.
    pub(super) fn recall(&mut self, slot: Slot) {
        let command = &mut self.commands[slot];
        if let State::Flying { path, ref mut recalled, .. } = command.state
            && !std::mem::replace(recalled, true)
        {
            let attempt = AttemptId { slot, generation: command.generation };
            self.paths.recall(path, attempt);
        }
    }

    /// Takes back what is under way on paths from which nothing is to be hoped.
    pub(super) fn recall_from_dead_paths(&mut self) {
        let table = Arc::clone(&self.snapshot.table);
        let dead = |path| table.entry(path).is_none_or(|entry| entry.state.recalls());
        let all_alive = table.entries.iter().all(|entry| !entry.state.recalls());
        if all_alive && !self.paths.has_leaving(&self.snapshot) {
            return;
        }
        for slot in self.commands.slots() {
            if matches!(self.commands[slot].state, State::Flying { path, .. } if dead(path)) {
                self.recall(slot);
            }
        }
        self.recall_seconds_from(dead);
    }

    /// One attempt has taken too long: it is taken back, and the path is not used for now.
    pub(super) fn timed_out(&mut self, slot: Slot, path: PathId) {
        self.report(path, Problem::Failed(crate::path::Failure::TimedOut));
        self.recall(slot);
    }

    /// How long a command has been tried, on the clock that stands still without paths.
    pub(super) fn tried_for(&self, slot: Slot, now: Instant) -> Duration {
        self.clock.trying(now).saturating_sub(self.commands[slot].began)
    }
}

/// The answer to a command for which all that may be tried has been tried.
fn exhausted(no_path: NoPath, room: u32) -> Outcome {
    match no_path {
        NoPath::Hold => Outcome::status(Status::BUSY, room),
        NoPath::Fail => Outcome::response(Response::TransportFailure, room),
        // The array's own word: no driver tries that again.
        NoPath::Gone => Outcome::check(SenseKey::IllegalRequest, Asc::LUN_NOT_SUPPORTED, room),
    }
}

/// GOOD, or RECOVERED ERROR.
fn is_success(answer: &Answer) -> bool {
    let sense = answer.sense.as_ref().and_then(|sense| sense.decode());
    answer.status == Status::GOOD || sense.is_some_and(|(key, _)| key == SenseKey::RecoveredError)
}

/// The device server's answer, as the guest gets it.
pub(super) fn outcome_of(answer: Answer, request: &Request) -> Outcome {
    let room = request.room();
    let (residual, over) = match answer.residual {
        Residual::None => (0, None),
        Residual::Under(bytes) => (bytes.min(room), None),
        // LIO misses the data of the blocks, of which there is none: it would be the guest's error.
        Residual::Over(_) if verifies_medium(request) => (0, None),
        Residual::Over(bytes) => (0, Some(bytes)),
    };
    let data_in = request.data_in.len() as u32;
    let stored = if request.data_out.is_empty() { data_in.saturating_sub(residual) } else { 0 };
    let response = match over {
        Some(_) if answer.status == Status::GOOD => Response::Overrun,
        _ => Response::Ok,
    };
    let residual = over.unwrap_or(residual);
    Outcome { response, status: answer.status, sense: answer.sense, residual, stored }
}

fn verifies_medium(request: &Request) -> bool {
    request.header.as_ref().is_some_and(|header| header.cdb.verifies_medium())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scsi::Cdb;
    use crate::virtio_scsi::{Address, RequestHeader, TaskAttribute};

    fn asked(cdb: &[u8]) -> Request {
        let address = Address::LogicalUnit { target: 0, lun: 0 };
        let attribute = TaskAttribute::Simple;
        let header = RequestHeader { address, tag: 0, attribute, cdb: Cdb::new(cdb) };
        Request { header: Some(header), ..Request::default() }
    }

    #[test]
    fn overrun_of_a_verify_that_moves_nothing_is_the_arrays_slip() {
        let outcome = |cdb: &[u8]| {
            let residual = Residual::Over(512);
            let answer = Answer { status: Status::GOOD, sense: None, residual };
            let outcome = outcome_of(answer, &asked(cdb));
            (outcome.response, outcome.residual)
        };
        let verify = |flags| [0x2F, flags, 0, 0, 0, 0, 0, 0, 1, 0];
        assert_eq!(outcome(&verify(0x10)), (Response::Ok, 0));
        assert_eq!(outcome(&verify(0x02)), (Response::Overrun, 512));
        assert_eq!(outcome(&[0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0]), (Response::Overrun, 512));
    }
}
