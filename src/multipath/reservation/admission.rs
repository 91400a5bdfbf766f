//! A path wants to be used: with a guest that is registered it must be registered first.
//!
//! It is registered only if the guest's key still stands in the array's list. Else another
//! initiator took it while the path was away: the guest was fenced, and must stay so. That may
//! happen between the look and the registration as well, so the list is read again afterwards, and
//! what was done is taken back where others of our registrations are gone.

use super::events::{Action, End};
use super::orders::copies;
use super::record::{Holding, Registration};
use super::register::Known;
use super::script::{Member, Script, Step};
use crate::ids::PathId;
use crate::scsi::reservation::{Held, Key};

impl Script<'_> {
    /// Registers `path` where it has to be, and admits it. Where that cannot be it is out of use, and
    /// comes again.
    pub(super) fn admit(&mut self, path: PathId) -> Step<()> {
        if !self.is_fit(path)? {
            self.lose(path);
            return Ok(());
        }
        // First the reservation is where commands may go.
        self.keep_holder_alive()?;
        if self.is_up(path) {
            self.act(Action::Admit(path));
        }
        Ok(())
    }

    fn is_fit(&mut self, path: PathId) -> Step<bool> {
        if self.state.unverified && !self.take_up()? {
            return Ok(false);
        }
        if self.state.record.key.is_some() && !self.look(path)? {
            return Ok(false);
        }
        if self.state.record.key.is_none() {
            let owes = self.state.members.get(&path).is_some_and(|member| !member.keys.is_empty());
            // It was away when the guest's registration ended.
            if owes && !matches!(self.register(path, Key::NONE)?, End::Good(_)) {
                return Ok(false);
            }
            self.leave_no_ghost()?;
        }
        Ok(true)
    }

    /// With a key that stands: false where the path cannot be used now.
    fn look(&mut self, path: PathId) -> Step<bool> {
        let mut taken = false;
        // Where the key that this path had is gone, that of the others may stand.
        for _ in 0..2 {
            if !self.may_stand(path, taken)? {
                return Ok(false);
            }
            let Some(key) = self.state.record.key else {
                return Ok(true);
            };
            let mut witnesses = self.sure(key);
            let itself = witnesses.contains(&path);
            witnesses.retain(|one| itself || *one != path);
            match self.register(path, key)? {
                End::Good(_) => {
                    // The key stood, so another nexus than this one has it.
                    let had_none = self.had_none;
                    self.look_for_a_fence(key, &witnesses, 1 + usize::from(had_none))?;
                    if had_none && !self.is_up(path) {
                        // Nobody could be asked: it is when this one comes back.
                        self.doubt(path);
                        return Ok(false);
                    }
                    if self.state.record.key.is_some() {
                        self.lay_ghosts_somehow(key)?;
                    }
                    return Ok(true);
                }
                End::Conflict => taken = true,
                _ => return Ok(false),
            }
        }
        Ok(false)
    }

    /// Looks whether the guest's key still stands, before `path` is registered with it; `taken` says
    /// that it was taken from this one. False where nobody can tell now.
    fn may_stand(&mut self, path: PathId, taken: bool) -> Step<bool> {
        let known = self.state.members.get(&path).map(|member| member.known);
        if known == Some(Known::Risky) && !matches!(self.register(path, Key::NONE)?, End::Good(_)) {
            return Ok(false);
        }
        let Some(keys) = self.keys()? else { return Ok(false) };
        self.heed_fence(&keys);
        let Some(key) = self.state.record.key else { return Ok(true) };
        let risky = |one: &&Member| one.known == Known::Risky && one.keys.contains(&key);
        let has = |one: &Member| one.known == Known::Sure && one.keys == [key];
        let itself = self.state.members.get(&path).is_some_and(has);
        if itself || copies(&keys, key) > self.state.all().filter(risky).count() {
            return Ok(true);
        }
        self.ask_the_sure(key, taken)
    }

    /// All that is listed of `key` may be registrations of ours that came too late. A path that has
    /// it for sure knows: its REGISTER with this key is executed only where nobody has taken it.
    fn ask_the_sure(&mut self, key: Key, mut taken: bool) -> Step<bool> {
        let has = |one: &Member| one.known == Known::Sure && one.keys == [key];
        let known = self.state.members.values().any(has);
        for other in self.sure(key) {
            match self.register(other, key)? {
                End::Good(_) => return Ok(true),
                End::Conflict => {
                    taken = true;
                    self.lose(other);
                }
                _ => {}
            }
        }
        if !taken && known {
            // One that is away will tell.
            return Ok(false);
        }
        if !taken {
            // Nobody ever had it for sure: it is of the process before.
            return Ok(true);
        }
        self.lose_key(key, Registration::Fenced);
        self.act(Action::Fenced(key));
        Ok(true)
    }

    /// After a restart: what does the array still have of the record? False where nobody tells.
    pub(super) fn take_up(&mut self) -> Step<bool> {
        let Some(keys) = self.keys()? else { return Ok(false) };
        let Some(now) = self.reservation()? else { return Ok(false) };
        let known = self.state.all().any(|member| !member.keys.is_empty());
        let record = &mut self.state.record;
        let stands = |key: &Key| keys.keys.contains(key);
        let had_key = record.key;
        let coming = record.coming.take();
        // The guest's registration was about to end, and its path's may have ended: then the others'
        // do as well. What a process before has begun is not known so well.
        let ends = coming == Some(Key::NONE) && known;
        let coming = coming.filter(|key| !key.is_none() && stands(key));
        record.key = coming.or(had_key.filter(|key| !ends && stands(key)));
        let had = record.reservation.take();
        let ours = |held: &Held| {
            record.key.is_some() && (held.is_all_registrants() || Some(held.key) == record.key)
        };
        record.reservation = now.held.filter(ours).and_then(|held| {
            let kind = held.kind()?;
            let holder = had.filter(|had| had.kind == kind).and_then(|had| had.holder);
            // Where it is not known which of ours that is, whoever is there takes it.
            let holder = (!kind.is_all_registrants()).then(|| holder.unwrap_or_default());
            Some(Holding { kind, holder })
        });
        self.state.unverified = false;
        if ends && had_key.is_some() {
            self.visible = 1;
        }
        if let (Some(gone), None) = (had_key, self.state.record.key) {
            self.act(Action::Fenced(gone));
        }
        Ok(true)
    }
}
