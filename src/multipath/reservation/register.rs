//! One path's registration: what is known of it, and how it is changed without undoing what another
//! initiator did meanwhile.
//!
//! REGISTER names the key that the nexus has; where another initiator took that one it is refused.
//! So it is sent wherever the key is known, and REGISTER AND IGNORE EXISTING KEY where it is not. A
//! registration of the second kind whose end was lost is a risk: it may have been executed after
//! another initiator had taken all of ours, and then the list shows a key of ours that ought not to
//! be there. Such a path is unregistered before the list is believed.

use super::events::{Action, Command, End};
use super::orders::copies;
use super::record::Registration;
use super::script::{Member, Script, Step};
use crate::ids::PathId;
use crate::scsi::reservation::{Key, Out, OutAction, Parameters, parameters};

/// What is known of the registration of a path's nexus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// It has the one key of [`Member::keys`], or none where that is empty; unless another initiator
    /// took it since.
    Sure,
    /// It has one of those keys, or another one, or none.
    Unknown,
    /// As `Unknown`, and it may have got its key after another initiator had taken the guest's.
    Risky,
}

impl Member {
    /// The nexus has this key now, or none.
    pub fn has(&mut self, key: Key) {
        self.known = Known::Sure;
        self.keys.clear();
        self.keys.extend((!key.is_none()).then_some(key));
    }

    /// The nexus has none of the keys for which `stands` is false.
    pub fn retain(&mut self, stands: impl Fn(Key) -> bool) {
        self.keys.retain(|key| stands(*key));
        if self.keys.is_empty() && self.known == Known::Risky {
            self.known = Known::Unknown;
        }
    }
}

impl Script<'_> {
    /// Registers `path` with `key`, or ends its registration, with what the guest said of APTPL.
    ///
    /// RESERVATION CONFLICT: another initiator has taken its key. It has none now, and is still in
    /// use.
    pub fn register(&mut self, path: PathId, key: Key) -> Step<End> {
        self.had_none = false;
        let before = self.state.members.get(&path).cloned();
        let guess = |one: &Member| match key.is_none() {
            true => one.keys.first().copied(),
            false => Some(key),
        };
        let may_guess = |one: &Member| match one.known {
            Known::Sure => false,
            Known::Unknown => true,
            // What may have come too late is not taken for what stands.
            Known::Risky => key.is_none(),
        };
        let unknown = before.filter(may_guess);
        if let Some((before, own)) = unknown.and_then(|one| guess(&one).map(|own| (one, own))) {
            // It may have this one: then nothing that others did is undone, and it is counted.
            let end = self.change(path, Some(own), key)?;
            self.had_none = end == End::Conflict;
            if end != End::Conflict {
                return Ok(end);
            }
            if let Some(member) = self.state.members.get_mut(&path) {
                member.keys = before.keys;
                member.keys.retain(|one| *one != own);
                member.known = Known::Unknown;
            }
        }
        let Some(member) = self.state.members.get(&path) else { return Ok(End::NotExecuted) };
        let own = match (member.known, member.keys.as_slice()) {
            (Known::Sure, [own]) => Some(*own),
            (Known::Sure, []) => Some(Key::NONE),
            _ => None,
        };
        self.had_none |= own == Some(Key::NONE);
        let end = self.change(path, own, key)?;
        if end == End::Conflict && key.is_none() {
            if let Some(member) = self.state.members.get_mut(&path) {
                member.registration = Registration::None;
            }
            return Ok(End::Good(Vec::new()));
        }
        Ok(end)
    }

    /// Sends REGISTER where the path's `own` key is known, or REGISTER AND IGNORE EXISTING KEY.
    fn change(&mut self, path: PathId, own: Option<Key>, key: Key) -> Step<End> {
        if !self.has_counted() {
            // What it counts is told from what others do by what was there before.
            self.keys()?;
        }
        if own == Some(Key::NONE) && key.is_none() {
            // Nothing to do, and PRGENERATION would not count it.
            return Ok(End::Good(Vec::new()));
        }
        let action = match own {
            Some(_) => OutAction::Register,
            None => OutAction::RegisterAndIgnoreExistingKey,
        };
        let aptpl = self.state.record.aptpl;
        let given = Parameters {
            key: own.unwrap_or(Key::NONE),
            action_key: key,
            aptpl,
            ..Parameters::default()
        };
        let out = Out::new(action, None, parameters::BASIC as u32);
        let unsure = own.is_none() && key.is_none();
        let end = self.send(path, Command::Out(out, given))?;
        if unsure && matches!(end, End::Good(_)) {
            // It is counted only where there was something to end; rather one too many is shown.
            self.counted -= 1;
        }
        let Some(member) = self.state.members.get_mut(&path) else { return Ok(end) };
        match end {
            End::Good(_) => member.has(key),
            End::Conflict if own == Some(Key::NONE) => member.known = Known::Unknown,
            End::Conflict => member.has(Key::NONE),
            End::Lost => {
                let new = !key.is_none() && !member.keys.contains(&key);
                member.keys.extend(new.then_some(key));
                // From no key to one: whatever happened in between, it may have been executed last.
                let from_one = own.is_some_and(|own| !own.is_none());
                member.known = match !from_one && !key.is_none() {
                    true => Known::Risky,
                    false => Known::Unknown,
                };
            }
            _ => {}
        }
        let done = matches!(end, End::Good(_));
        member.registration = match (done, key.is_none()) {
            (true, true) => Registration::None,
            (true, false) => Registration::Registered,
            (false, _) => Registration::Pending,
        };
        if !matches!(end, End::Good(_) | End::Conflict) && self.is_up(path) {
            self.lose(path);
        }
        Ok(end)
    }

    /// After a PREEMPT of the guest's own key over `path`, which has taken it from all the others:
    /// they are registered again, unless another initiator has taken the guest's key meanwhile.
    pub fn restore_siblings(&mut self, path: PathId, key: Key) -> Step<()> {
        self.state.retain_removed(|one| one != key);
        let others = self.state.members.iter_mut().filter(|(id, _)| **id != path);
        others.for_each(|(_, member)| member.retain(|one| one != key));
        for other in self.up() {
            if other != path && !matches!(self.register(other, key)?, End::Good(_)) {
                self.lose(other);
            }
        }
        self.look_for_a_fence(key, &[path], 1)
    }

    /// A PREEMPT of the guest's own key over `path` may have been executed.
    pub fn doubt_siblings(&mut self, path: PathId) {
        for (_, member) in self.state.members.iter_mut().filter(|(id, _)| **id != path) {
            if member.known == Known::Sure {
                member.known = Known::Unknown;
            }
        }
    }

    /// Paths were registered with `key`. Where another initiator took it in between, those that were
    /// registered after that have to lose it as well. A `witness` was registered before all of them:
    /// its REGISTER is executed only where nobody has taken the key since.
    ///
    /// With nobody's interference there are `least` registrations.
    pub fn look_for_a_fence(&mut self, key: Key, witnesses: &[PathId], least: usize) -> Step<()> {
        let Some(after) = self.keys()? else { return Ok(()) };
        let sure = |one: &&Member| one.known == Known::Sure && one.keys == [key];
        // Of paths that are no more nothing is sure: one of them may be another path by now.
        let sure = self.state.members.values().filter(sure).count();
        if copies(&after, key) >= least.max(sure) {
            return Ok(());
        }
        for witness in witnesses {
            if matches!(self.register(*witness, key)?, End::Good(_)) {
                return Ok(());
            }
        }
        let ours = self.registered();
        self.withdraw(&ours)
    }

    /// The path may have got its key after another initiator had taken the guest's.
    pub fn doubt(&mut self, path: PathId) {
        if let Some(member) = self.state.members.get_mut(&path) {
            member.known = Known::Risky;
        }
    }

    /// Paths in use that have this key for sure.
    pub fn sure(&self, key: Key) -> Vec<PathId> {
        let has = |one: &Member| one.up && one.known == Known::Sure && one.keys == [key];
        self.state.members.iter().filter(|(_, one)| has(one)).map(|(id, _)| *id).collect()
    }

    /// Takes back registrations that were made after another initiator took the guest's key.
    pub fn withdraw(&mut self, paths: &[PathId]) -> Step<()> {
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
}
