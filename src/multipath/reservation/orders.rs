//! PERSISTENT RESERVE OUT of the guest, service action by service action.
//!
//! | service action | goes to | and then |
//! |---|---|---|
//! | REGISTER, REGISTER AND IGNORE EXISTING KEY | one registered path, as the guest sent it: its result is the guest's; the holder first | each other path is registered with the new key, whatever it had. One that fails is out of use until it is registered |
//! | RESERVE, RELEASE | the holder's path, else a registered one | |
//! | PREEMPT, PREEMPT AND ABORT | the same | paths whose registration went with the victims' are registered again, under a hold |
//! | CLEAR | the same | |
//! | REGISTER AND MOVE, REPLACE LOST RESERVATION, SPEC_I_PT, ALL_TG_PT | refused | |
//!
//! Where a path dies and nobody knows whether the command was executed, another path is asked what
//! stands; the command is sent again only where that says that it was not executed.

use super::events::{Action, Answer, Command, End};
use super::record::{Holding, Registration};
use super::script::{Script, Step, counts};
use crate::ids::PathId;
use crate::scsi::reservation::{Key, Keys, Out, OutAction, Parameters, Reservation, Type};
use crate::scsi::{Asc, SenseKey};

/// Tries to move a reservation from a dead path: each may cost a path its life.
pub(super) const MOVES_MAX: usize = 16;

/// What stood before a command, to see whether it was executed.
pub(super) struct Before {
    pub keys: Keys,
    pub reservation: Reservation,
}

/// How the guest's own command ended.
enum Outcome {
    /// It was executed, over this path.
    Done(PathId),
    /// The guest is told this, and nothing has changed.
    Answer(Answer),
    /// It was lost with this path, and nobody is left to be asked: it must not be sent again.
    Unknown(PathId),
}

/// The guest's answer to what is not there.
fn refused(code: Asc) -> Answer {
    Answer::Check(SenseKey::IllegalRequest, code)
}

pub(super) fn copies(keys: &Keys, key: Key) -> usize {
    keys.keys.iter().filter(|one| **one == key).count()
}

impl Script<'_> {
    /// Carries out the guest's command.
    pub(super) fn order(&mut self, out: &Out, given: &Parameters) -> Step<Answer> {
        let everywhere = out.action.registers() && given.all_target_ports;
        if matches!(out.action, OutAction::RegisterAndMove | OutAction::ReplaceLostReservation) {
            return Ok(refused(Asc::INVALID_FIELD_IN_CDB));
        }
        if given.initiator_ports.is_some() || everywhere {
            return Ok(refused(Asc::INVALID_FIELD_IN_PARAMETER_LIST));
        }
        self.keep_holder_alive()?;
        let Some(before) = self.before()? else { return Ok(Answer::Busy) };
        self.heed_fence(&before.keys);
        match out.action {
            OutAction::Register | OutAction::RegisterAndIgnoreExistingKey => {
                self.order_register(out, given)
            }
            OutAction::Reserve | OutAction::Release => self.order_holder(out, given),
            _ => self.order_preempt(out, given),
        }
    }

    pub(super) fn before(&mut self) -> Step<Option<Before>> {
        let Some(keys) = self.keys()? else { return Ok(None) };
        let Some(reservation) = self.reservation()? else { return Ok(None) };
        Ok(Some(Before { keys, reservation }))
    }

    /// The guest's key is not in the array's list any more: another initiator took it.
    pub(super) fn heed_fence(&mut self, keys: &Keys) {
        let Some(key) = self.state.record.key else { return };
        if copies(keys, key) > 0 {
            return;
        }
        self.lose_key(key, Registration::Fenced);
        self.act(Action::Fenced(key));
    }

    /// The guest's key has left the array's list. A path that is away may have an older one there.
    fn lose_key(&mut self, key: Key, registration: Registration) {
        self.state.record.key = None;
        self.state.record.reservation = None;
        for member in self.state.members.values_mut() {
            member.keys.retain(|one| *one != key);
            member.registration = match member.keys.is_empty() {
                true => registration,
                false => Registration::Pending,
            };
        }
    }

    /// No path is registered any more.
    pub(super) fn forget(&mut self, registration: Registration) {
        self.state.record.key = None;
        self.state.record.reservation = None;
        for member in self.state.members.values_mut() {
            member.registration = registration;
            member.keys.clear();
        }
    }

    /// The paths that answer, in the order in which the guest's command tries them.
    fn in_order(&self) -> Vec<PathId> {
        let mut paths = self.up();
        if let Some(holder) = self.holder() {
            paths.retain(|path| *path != holder);
            paths.insert(0, holder);
        }
        paths
    }

    /// Sends the guest's command over one path after the other until it is known what became of it.
    fn attempt(
        &mut self,
        out: &Out,
        given: &Parameters,
        executed: impl Fn(&Before, &Keys, &Reservation) -> bool,
    ) -> Step<Outcome> {
        for _ in 0..MOVES_MAX {
            self.keep_holder_alive()?;
            let Some(before) = self.before()? else { break };
            // Whatever was begun before must be over before the guest's next registration.
            self.heed_fence(&before.keys);
            let Some(path) = self.in_order().first().copied() else { break };
            if self.holder_is_dead() {
                continue;
            }
            match self.send(path, Command::Out(*out, given.clone()))? {
                End::Good(_) => return Ok(Outcome::Done(path)),
                End::Conflict => return Ok(Outcome::Answer(Answer::Conflict)),
                End::Refused(key, code) => return Ok(Outcome::Answer(Answer::Check(key, code))),
                End::Busy => break,
                End::Attention(_) | End::NotExecuted => {}
                End::Lost => {
                    let Some(keys) = self.keys()? else { return Ok(Outcome::Unknown(path)) };
                    let Some(reservation) = self.reservation()? else {
                        return Ok(Outcome::Unknown(path));
                    };
                    if executed(&before, &keys, &reservation) {
                        self.counted += u32::from(counts(&Command::Out(*out, given.clone())));
                        return Ok(Outcome::Done(path));
                    }
                }
            }
        }
        Ok(Outcome::Answer(Answer::Busy))
    }

    fn order_register(&mut self, out: &Out, given: &Parameters) -> Step<Answer> {
        let new = given.action_key;
        let old = self.state.record.key;
        self.state.record.coming = Some(new);
        if !self.keep()? {
            self.state.record.coming = None;
            return Ok(Answer::Check(SenseKey::HardwareError, Asc::INTERNAL_TARGET_FAILURE));
        }
        let first = self.attempt(out, given, |before, keys, _| match (old, new.is_none()) {
            (Some(old), true) => copies(keys, old) < copies(&before.keys, old),
            (None, true) => false,
            (old, false) if old == Some(new) => keys.generation != before.keys.generation,
            (_, false) => copies(keys, new) > copies(&before.keys, new),
        })?;
        let first = match first {
            Outcome::Done(path) => path,
            Outcome::Answer(answer) => {
                self.state.record.coming = None;
                return Ok(answer);
            }
            // Which key stands is read when a path is back: both are ours.
            Outcome::Unknown(path) => {
                if let Some(member) = self.state.members.get_mut(&path).filter(|_| !new.is_none()) {
                    member.keys.push(new);
                }
                return Ok(self.lost_from_sight());
            }
        };
        self.state.record.aptpl = given.aptpl;
        self.registered_first(first, new);
        let others: Vec<PathId> = self.up().into_iter().filter(|path| *path != first).collect();
        if old.is_some() || !new.is_none() {
            for path in others {
                self.register(path, new)?;
            }
        }
        if new.is_none() {
            self.leave_no_ghost()?;
        } else if let Some(path) = self.registered().first().copied() {
            self.lay_ghosts(path, new)?;
        }
        // To remove what is not there changes nothing that would be counted (SPC-5 5.14.7).
        let visible = u32::from(old.is_some() || !new.is_none());
        self.counted *= visible;
        self.close_register(new, visible)
    }

    /// The path that carried the guest's own command; where it died of it, it has to be registered
    /// again anyway.
    fn registered_first(&mut self, path: PathId, key: Key) {
        let Some(member) = self.state.members.get_mut(&path) else { return };
        member.keys.clear();
        if !key.is_none() {
            member.keys.push(key);
        }
        member.registration = match (member.up, key.is_none()) {
            (false, _) => Registration::Pending,
            (true, true) => Registration::None,
            (true, false) => Registration::Registered,
        };
    }

    fn close_register(&mut self, new: Key, visible: u32) -> Step<Answer> {
        self.state.record.coming = None;
        self.state.record.key = (!new.is_none()).then_some(new);
        if new.is_none() {
            self.state.record.reservation = None;
        }
        if let Some(after) = self.keys()? {
            let ours = self.registered();
            if copies(&after, new) < ours.len() {
                // Preempted in the middle: a path that was registered after that has to lose it.
                self.withdraw(&ours)?;
            }
        }
        self.visible = visible;
        Ok(Answer::Good(Vec::new()))
    }

    /// Takes back registrations that were made after another initiator took the guest's key.
    pub(super) fn withdraw(&mut self, paths: &[PathId]) -> Step<()> {
        for path in paths {
            self.register(*path, Key::NONE)?;
        }
        let key = self.state.record.key.take();
        self.state.record.reservation = None;
        for member in self.state.members.values_mut() {
            if member.registration != Registration::Pending {
                member.registration = Registration::Fenced;
            }
        }
        if let Some(key) = key {
            self.act(Action::Fenced(key));
        }
        Ok(())
    }

    fn order_holder(&mut self, out: &Out, given: &Parameters) -> Step<Answer> {
        let key = self.state.record.key;
        let reserves = out.action == OutAction::Reserve;
        let outcome = self.attempt(out, given, |before, _, now| match reserves {
            true => {
                let ours = |key: Key| key.is_none() || Some(key) == given_key(given);
                before.reservation.held.is_none()
                    && now.held.is_some_and(|now| now.kind() == out.kind() && ours(now.key))
            }
            false => before.reservation.held.is_some() && now.held.is_none(),
        })?;
        let path = match outcome {
            Outcome::Done(path) => path,
            Outcome::Answer(answer) => return Ok(answer),
            Outcome::Unknown(_) => return Ok(self.lost_from_sight()),
        };
        let standing = &mut self.state.record.reservation;
        if !reserves {
            *standing = standing.take().filter(|held| Some(held.kind) != out.kind());
        } else if let (Some(kind), Some(_)) = (out.kind(), key) {
            let name = self.name(path).filter(|_| !kind.is_all_registrants());
            self.state.record.reservation = Some(Holding { kind, holder: name });
        }
        self.keep_holder_alive()?;
        Ok(Answer::Good(Vec::new()))
    }

    fn order_preempt(&mut self, out: &Out, given: &Parameters) -> Step<Answer> {
        let victim = given.action_key;
        let clears = out.action == OutAction::Clear;
        let own = self.state.record.key;
        let outcome = self.attempt(out, given, |before, keys, now| {
            let takes = before.reservation.held.is_some_and(|held| held.key == victim);
            let gone = match (clears, victim) {
                (true, _) => own.is_none_or(|own| copies(keys, own) == 0),
                // The reservation goes to who sent it, and its key stays.
                (false, victim) if takes => {
                    let others = Some(victim) == own || copies(keys, victim) == 0;
                    others && now.held.is_some_and(|held| held.kind() == out.kind())
                }
                (false, victim) => copies(keys, victim) == 0,
            };
            gone && keys.generation != before.keys.generation
        })?;
        let path = match outcome {
            Outcome::Done(path) => path,
            Outcome::Answer(answer) => return Ok(answer),
            Outcome::Unknown(_) => return Ok(self.lost_from_sight()),
        };
        if clears {
            self.forget(Registration::None);
        } else {
            self.take_stock(path, victim, out.kind())?;
        }
        self.visible = 1;
        Ok(Answer::Good(Vec::new()))
    }

    /// The guest's command may have been executed, and no path is there to ask: the guest must look,
    /// and what stands is read when a path is back.
    fn lost_from_sight(&mut self) -> Answer {
        self.state.unverified = true;
        Answer::Check(SenseKey::AbortedCommand, Asc::NONE)
    }

    /// After a PREEMPT of `victim` over `path`: what is left of ours?
    fn take_stock(&mut self, path: PathId, victim: Key, asked: Option<Type>) -> Step<()> {
        let Some(key) = self.state.record.key else { return Ok(()) };
        let Some(keys) = self.keys()? else { return Ok(()) };
        let left = copies(&keys, key);
        if left == 0 {
            self.lose_key(key, Registration::None);
            if victim != key {
                self.act(Action::Fenced(key));
            }
            return Ok(());
        }
        let away = self.ghosts().into_iter();
        let away = away.filter(|id| self.state.members[id].keys.contains(&key)).count();
        if left < self.registered().len() + away {
            self.act(Action::Hold);
            self.restore_siblings(path, key)?;
            self.act(Action::Resume);
        }
        let Some(now) = self.reservation()? else { return Ok(()) };
        self.state.record.reservation = now.held.and_then(|held| {
            let all = held.is_all_registrants();
            let holder = self.name(path).filter(|_| !all);
            // Where the array tells of no type that exists, it was this one that was asked for.
            let kind = held.kind().or(asked).filter(|_| all || held.key == key)?;
            Some(Holding { kind, holder })
        });
        self.keep_holder_alive()
    }

    /// Registers the other paths again, whose registrations a PREEMPT over `path` took.
    pub(super) fn restore_siblings(&mut self, path: PathId, key: Key) -> Step<()> {
        for other in self.up() {
            if other != path {
                self.register(other, key)?;
            }
        }
        Ok(())
    }
}

fn given_key(given: &Parameters) -> Option<Key> {
    Some(given.key)
}
