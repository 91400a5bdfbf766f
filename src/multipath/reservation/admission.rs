//! A path wants to be used: with a guest that is registered it must be registered first.
//!
//! It is registered only if the guest's key still stands in the array's list. Else another
//! initiator took it while the path was away: the guest was fenced, and must stay so. That may
//! happen between the look and the registration as well, so the list is read again afterwards, and
//! what was done is taken back where others of our registrations are gone.

use super::events::{Action, End};
use super::script::{Script, Step};
use crate::ids::PathId;
use crate::scsi::reservation::Key;

impl Script<'_> {
    /// Registers `path` where it has to be, and admits it. Where that cannot be it is out of use, and
    /// comes again.
    pub(super) fn admit(&mut self, path: PathId) -> Step<()> {
        if !self.is_fit(path)? {
            self.lose(path);
            return Ok(());
        }
        self.act(Action::Admit(path));
        self.keep_holder_alive()
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
        }
        Ok(true)
    }

    /// With a key that stands: false where the path cannot be used now.
    fn look(&mut self, path: PathId) -> Step<bool> {
        let Some(before) = self.keys()? else { return Ok(false) };
        self.heed_fence(&before);
        let Some(key) = self.state.record.key else {
            return Ok(true);
        };
        if !matches!(self.register(path, key)?, End::Good(_)) {
            return Ok(false);
        }
        let Some(after) = self.keys()? else { return Ok(false) };
        let ours = self.registered();
        if after.keys.iter().filter(|one| **one == key).count() < ours.len() {
            self.withdraw(&ours)?;
        }
        Ok(true)
    }

    /// After a restart: what does the array still have of the record? False where nobody tells.
    fn take_up(&mut self) -> Step<bool> {
        let Some(keys) = self.keys()? else { return Ok(false) };
        let Some(now) = self.reservation()? else { return Ok(false) };
        let record = &mut self.state.record;
        let stands = |key: &Key| keys.keys.contains(key);
        let had_key = record.key;
        let coming = record.coming.take().filter(|key| !key.is_none() && stands(key));
        record.key = coming.or(had_key.filter(stands));
        let had = record.reservation.take();
        record.reservation = had.filter(|had| {
            now.held.is_some_and(|held| {
                let ours = held.is_all_registrants() || Some(held.key) == record.key;
                held.kind() == Some(had.kind) && ours && record.key.is_some()
            })
        });
        self.state.unverified = false;
        if let (Some(gone), None) = (had_key, self.state.record.key) {
            self.act(Action::Fenced(gone));
        }
        Ok(true)
    }
}
