//! The path whose nexus holds the reservation: nobody could release it when that path is dead, so it
//! moves to a living one, which preempts the guest's own key.

use super::events::{Command, End};
use super::orders::{MOVES_MAX, copies};
use super::record::Holding;
use super::register::Known;
use super::script::{Script, Step};
use crate::scsi::reservation::{Out, OutAction, Parameters, parameters};

impl Script<'_> {
    pub(super) fn holder_is_dead(&self) -> bool {
        let held = self.state.record.reservation.as_ref();
        held.is_some_and(|held| held.holder.is_some()) && self.holder().is_none()
    }

    /// Where the holder's path is dead the reservation moves to a living one, by preempting our own
    /// key from there: nobody could release it otherwise.
    pub(super) fn keep_holder_alive(&mut self) -> Step<()> {
        let moves = self.state.record.key.is_some() && self.holder_is_dead();
        if !moves || self.registered().is_empty() {
            return Ok(());
        }
        // Until it is known where it is: over another path the guest would meet its own reservation.
        self.hold();
        self.move_holder()?;
        self.resume();
        Ok(())
    }

    fn move_holder(&mut self) -> Step<()> {
        let Some(key) = self.state.record.key else { return Ok(()) };
        let Some(held) = self.state.record.reservation.clone() else { return Ok(()) };
        if !self.holder_is_dead() {
            return Ok(());
        }
        for _ in 0..MOVES_MAX {
            let Some(path) = self.registered().first().copied() else { return Ok(()) };
            let Some(before) = self.before()? else { return Ok(()) };
            let stands = before.reservation.held;
            if stands.is_none_or(|stands| stands.key != key || stands.kind() != Some(held.kind)) {
                self.state.record.reservation = None;
                self.heed_fence(&before.keys);
                return Ok(());
            }
            let out = Out::new(OutAction::Preempt, Some(held.kind), parameters::BASIC as u32);
            let given = Parameters { key, action_key: key, ..Parameters::default() };
            let end = self.send(path, Command::Out(out, given))?;
            if matches!(end, End::Good(_)) {
                let holder = self.name(path);
                self.state.record.reservation = Some(Holding { kind: held.kind, holder });
                self.restore_siblings(path, key)?;
                return Ok(());
            }
            if end == End::Lost {
                self.doubt_siblings(path);
                // The one that held it does, or this one: whoever is there next takes it from both.
                self.state.record.reservation =
                    Some(Holding { kind: held.kind, holder: Some(String::new()) });
            }
            if matches!(end, End::Conflict | End::Refused(..)) {
                let keys = self.keys()?;
                if let Some(keys) = &keys {
                    self.heed_fence(keys);
                }
                if keys.is_some_and(|keys| copies(&keys, key) > 0) {
                    // Only the dead one is registered: the others lost it by its own PREEMPT.
                    self.doubt_siblings(path);
                    self.state.members.entry(path).and_modify(|one| one.known = Known::Unknown);
                    self.register(path, key)?;
                } else {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}
