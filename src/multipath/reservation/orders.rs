//! PERSISTENT RESERVE OUT of the guest, service action by service action.
//!
//! | service action | goes to | and then |
//! |---|---|---|
//! | REGISTER, REGISTER AND IGNORE EXISTING KEY | one registered path, as the guest sent it: its result is the guest's; the holder first | each other path is registered with the new key, whatever it had. One that fails is out of use until it is registered |
//! | RESERVE, RELEASE | the holder's path, else a registered one | |
//! | PREEMPT, PREEMPT AND ABORT | the same | paths whose registration went with the victims' are registered again, under a hold |
//! | CLEAR | the same | |
//! | REGISTER AND MOVE, REPLACE LOST RESERVATION, SPEC_I_PT, ALL_TG_PT | refused | |

use super::attempt::Outcome;
use super::events::{Action, Answer, End};
use super::record::{Holding, Registration};
use super::register::Known;
use super::script::{Script, Step};
use crate::ids::PathId;
use crate::scsi::reservation::{Key, Keys, Out, OutAction, Parameters};
use crate::scsi::{Asc, SenseKey};

/// Tries to move a reservation from a dead path: each may cost a path its life.
pub(super) const MOVES_MAX: usize = 16;

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
        if self.state.unverified && !self.take_up()? {
            return Ok(Answer::Busy);
        }
        self.keep_holder_alive()?;
        let Some(before) = self.before()? else { return Ok(Answer::Busy) };
        self.heed_fence(&before.keys);
        let holds = self.holds_commands(out, given);
        if holds {
            self.hold();
        }
        let answer = match out.action {
            OutAction::Register | OutAction::RegisterAndIgnoreExistingKey => {
                self.order_register(out, given)?
            }
            OutAction::Reserve | OutAction::Release => self.order_holder(out, given)?,
            _ => self.order_preempt(out, given)?,
        };
        if holds {
            self.resume();
        }
        Ok(answer)
    }

    /// A command that may take what our other paths have: the guest's commands must not meet that
    /// over one of them.
    fn holds_commands(&self, out: &Out, given: &Parameters) -> bool {
        let (reserves, preempts) = match out.action {
            OutAction::Reserve => (true, false),
            OutAction::Preempt | OutAction::PreemptAndAbort => (true, true),
            _ => (false, false),
        };
        let victim = given.action_key;
        let own = self.state.record.key;
        if out.action.registers() {
            // The types for all registrants end with the last of our paths only.
            return own.is_some() && victim.is_none();
        }
        let ours = victim.is_none() || Some(victim) == own;
        let for_one = out.kind().is_some_and(|kind| !kind.is_for_registrants());
        reserves && for_one || preempts && ours
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
    pub(super) fn lose_key(&mut self, key: Key, registration: Registration) {
        self.state.record.key = None;
        self.state.record.reservation = None;
        self.state.retain_removed(|one| one != key);
        for member in self.state.members.values_mut() {
            member.retain(|one| one != key);
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
        self.state.removed.clear();
        for member in self.state.members.values_mut() {
            member.registration = registration;
            member.has(Key::NONE);
        }
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
            // Twice is as good as once.
            (old, false) if old == Some(new) => false,
            (_, false) => copies(keys, new) > copies(&before.keys, new),
        })?;
        let first = match first {
            Outcome::Done(path, _) => path,
            Outcome::Answer(answer) => {
                self.state.record.coming = None;
                return Ok(answer);
            }
            // Which key stands is read when a path is back: both are ours.
            Outcome::Unknown(path) => {
                let needs = out.action == OutAction::Register;
                if needs && given.key != old.unwrap_or(Key::NONE) {
                    // It could only be refused.
                    self.state.record.coming = None;
                    return Ok(self.lost_from_sight());
                }
                if let Some(member) = self.state.members.get_mut(&path) {
                    let more = !new.is_none() && !member.keys.contains(&new);
                    member.keys.extend(more.then_some(new));
                    member.known = Known::Unknown;
                }
                return Ok(self.lost_from_sight());
            }
        };
        self.state.record.aptpl = given.aptpl;
        self.registered_first(first, new);
        let others: Vec<PathId> = self.up().into_iter().filter(|path| *path != first).collect();
        if old.is_some() || !new.is_none() {
            for path in others {
                if self.register(path, new)? == End::Conflict && !self.go_along(out, path, new)? {
                    return Ok(Answer::Conflict);
                }
            }
        }
        if new.is_none() {
            self.leave_no_ghost()?;
        } else {
            self.lay_ghosts_somehow(new)?;
        }
        // To remove what is not there changes nothing that would be counted (SPC-5 5.14.7).
        let visible = u32::from(old.is_some() || !new.is_none());
        self.counted = self.counted.saturating_sub(1 - visible);
        self.close_register(first, new, visible)
    }

    /// Another initiator has taken the guest's old key from `path` after the guest's own command had
    /// changed the first one's: as if it had been there before that. Then REGISTER is refused, and
    /// what was changed is taken back; REGISTER AND IGNORE EXISTING KEY is not. False where it is
    /// refused.
    fn go_along(&mut self, out: &Out, path: PathId, new: Key) -> Step<bool> {
        if out.action == OutAction::Register {
            self.state.record.coming = None;
            let ours = self.registered();
            self.withdraw(&ours)?;
            return Ok(false);
        }
        if !matches!(self.register(path, new)?, End::Good(_)) {
            self.lose(path);
        }
        Ok(true)
    }

    /// The path that carried the guest's own command; where it died of it, it has to be registered
    /// again anyway.
    fn registered_first(&mut self, path: PathId, key: Key) {
        let Some(member) = self.state.members.get_mut(&path) else { return };
        member.has(key);
        member.registration = match (member.up, key.is_none()) {
            (false, _) => Registration::Pending,
            (true, true) => Registration::None,
            (true, false) => Registration::Registered,
        };
    }

    fn close_register(&mut self, first: PathId, new: Key, visible: u32) -> Step<Answer> {
        self.state.record.coming = None;
        self.state.record.key = (!new.is_none()).then_some(new);
        if new.is_none() {
            self.state.record.reservation = None;
        }
        if !new.is_none() {
            self.look_for_a_fence(new, &[first], 1)?;
        }
        self.visible = visible;
        Ok(Answer::Good(Vec::new()))
    }

    fn order_holder(&mut self, out: &Out, given: &Parameters) -> Step<Answer> {
        let key = self.state.record.key;
        let reserves = out.action == OutAction::Reserve;
        let outcome = self.attempt(out, given, |before, keys, now| match reserves {
            // It could only be refused.
            _ if key != Some(given.key) => false,
            true => {
                let ours = |key: Key| key.is_none() || key == given.key;
                before.reservation.held.is_none()
                    && now.held.is_some_and(|now| now.kind() == out.kind() && ours(now.key))
            }
            // Where the key is gone as well another initiator ended it.
            false => {
                let ended = before.reservation.held.is_some() && now.held.is_none();
                ended && copies(keys, given.key) > 0
            }
        })?;
        let path = match outcome {
            Outcome::Done(path, _) => path,
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
}
