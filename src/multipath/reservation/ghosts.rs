//! Registrations of paths that are away: everybody sees them in the array's list, and nobody but a
//! PREEMPT from another path can end them.

use std::collections::BTreeSet;

use super::events::{Command, End};
use super::record::Registration;
use super::script::{Script, Step};
use crate::ids::PathId;
use crate::scsi::reservation::{Key, Keys, Out, OutAction, Parameters, Type, parameters};

/// Tries to end them: each may cost a path its life.
const ROUNDS_MAX: usize = 16;

impl Script<'_> {
    /// A path that is removed leaves no registration behind, but for the guest's last one: that is
    /// the guest's.
    pub(super) fn leave(&mut self, path: PathId) -> Step<()> {
        self.is_down(path);
        self.keep_holder_alive()?;
        let owes = self.state.members.get(&path).is_some_and(|member| !member.keys.is_empty());
        if owes && !self.registered().is_empty() && !self.holder_is_dead() {
            self.register(path, Key::NONE)?;
        }
        Ok(())
    }

    /// A path that is away keeps the guest's old key in the array, for everybody to see, and with
    /// the types of all registrants it even holds the reservation. A path with another key can take
    /// it away by PREEMPT, and touches nothing else.
    pub(super) fn lay_ghosts(&mut self, path: PathId, key: Key) -> Step<()> {
        let keys = self.ghosts().into_iter().flatten();
        let victims: BTreeSet<Key> = keys.filter(|one| *one != key).collect();
        for victim in victims {
            if !self.registered().contains(&path) {
                return Ok(());
            }
            let kind = self.state.record.reservation.as_ref().map(|held| held.kind);
            let kind = kind.unwrap_or(Type::WriteExclusive);
            let out = Out::new(OutAction::Preempt, Some(kind), parameters::BASIC as u32);
            let given = Parameters { key, action_key: victim, ..Parameters::default() };
            let end = self.send(path, Command::Out(out, given))?;
            if !matches!(end, End::Good(_) | End::Conflict) {
                return Ok(());
            }
            // Nobody has it; or this path's own key was taken meanwhile.
            let listed = |keys: Keys| keys.keys.contains(&victim);
            if end == End::Conflict && self.keys()?.is_none_or(listed) {
                return Ok(());
            }
            self.state.retain_removed(|one| one != victim);
            for member in self.state.members.values_mut() {
                member.retain(|one| one != victim);
                if member.keys.is_empty() && member.registration == Registration::Pending {
                    member.registration = Registration::None;
                }
            }
        }
        Ok(())
    }

    /// As [`Script::lay_ghosts`], over whichever path with `key` can do it.
    pub(super) fn lay_ghosts_somehow(&mut self, key: Key) -> Step<()> {
        for _ in 0..ROUNDS_MAX {
            let Some(path) = self.registered().first().copied() else { return Ok(()) };
            self.lay_ghosts(path, key)?;
            if self.registered().contains(&path) {
                return Ok(());
            }
        }
        Ok(())
    }

    /// As [`Script::lay_ghosts`], when the guest's registration has ended: a path gets a key that
    /// nobody has, for that moment.
    pub(super) fn leave_no_ghost(&mut self) -> Step<()> {
        for _ in 0..ROUNDS_MAX {
            if self.ghosts().is_empty() {
                return Ok(());
            }
            let Some(listed) = self.keys()? else { return Ok(()) };
            let Some(path) = self.up().first().copied() else { return Ok(()) };
            let mut free = (1..=u64::MAX).map(Key).filter(|key| !listed.keys.contains(key));
            let Some(key) = free.next() else { return Ok(()) };
            if matches!(self.register(path, key)?, End::Good(_)) {
                self.lay_ghosts(path, key)?;
                if self.registered().contains(&path) {
                    self.register(path, Key::NONE)?;
                }
            }
        }
        Ok(())
    }
}
