//! A conversation with the array, written as if each command were answered at once.
//!
//! A script is run from its beginning whenever one more answer has come in: with the answers so
//! far it comes to the next question, or to its end. So it may only depend on the state at its
//! beginning and on the answers. What it wants done is done when it comes there first. Reservation
//! commands are rare and their scripts are short; a state for each place where one may wait is
//! what was tried before, and a path's death in each of them could not be followed any more.

use std::collections::{BTreeMap, BTreeSet};

use super::attentions::made;
use super::events::{Action, Command, End};
use super::fold;
use super::record::{Record, Registration};
use super::register::Known;
use crate::ids::PathId;
use crate::scsi::Asc;
use crate::scsi::reservation::{InAction, Key, Keys, OutAction, Reservation, TransportId};

/// Unit attentions that one command may meet on one path.
const ATTENTIONS_MAX: usize = 8;

/// A path.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub name: String,
    pub up: bool,
    pub registration: Registration,
    pub nexus: Option<(TransportId, u16)>,
    /// The keys that its nexus may have in the array's list: one, or two where an outcome is not
    /// known.
    pub keys: Vec<Key>,
    /// How much is known of that.
    pub known: Known,
}

/// What the machine knows.
#[derive(Clone, Debug, Default)]
pub(super) struct State {
    pub record: Record,
    pub members: BTreeMap<PathId, Member>,
    /// Paths whose port lets no data through: the holder should not be one of them.
    pub passive: BTreeSet<PathId>,
    /// Paths that are no more, and could not be unregistered.
    pub removed: Vec<Member>,
    pub others: Vec<Key>,
    /// All registrants hold what was last seen to be reserved.
    pub for_all: bool,
    /// Where the guest's commands go.
    pub pinned: Option<PathId>,
    /// The record is of a process before, and the array has not been asked yet.
    pub unverified: bool,
}

impl State {
    /// The path is no more. Its registration may still stand.
    pub fn remove(&mut self, path: PathId) {
        let gone = self.members.remove(&path).filter(|member| !member.keys.is_empty());
        self.removed.extend(gone.map(|member| Member { up: false, ..member }));
    }

    /// True while the guest holds a reservation, alone or with all registrants.
    pub fn holds(&self) -> bool {
        self.record.reservation.is_some() || (self.for_all && self.record.key.is_some())
    }

    /// The paths, those that are no more as well.
    pub fn all(&self) -> impl Iterator<Item = &Member> {
        self.members.values().chain(&self.removed)
    }

    /// Of the registrations of paths that are no more, none is left but with these keys.
    pub fn retain_removed(&mut self, stands: impl Fn(Key) -> bool) {
        self.removed.iter_mut().for_each(|member| member.retain(&stands));
        self.removed.retain(|member| !member.keys.is_empty());
    }
}

/// An answer.
#[derive(Clone, Debug)]
pub(super) enum Reply {
    End(End),
    Kept(bool),
}

/// The script stops here until the next answer.
#[derive(Debug)]
pub(super) struct Waiting;

/// A step of a script.
pub(super) type Step<T> = Result<T, Waiting>;

/// PRGENERATION as this script has read it.
#[derive(Clone, Copy, Debug)]
struct Generations {
    /// The guest's count at the first time.
    guest: u32,
    first: u32,
    last: u32,
}

/// One run.
#[derive(Debug)]
pub(super) struct Script<'a> {
    pub state: State,
    replies: &'a [Reply],
    at: usize,
    pub actions: Vec<Action>,
    /// Commands of ours that PRGENERATION has counted.
    pub counted: u32,
    /// What PRGENERATION counts for the guest of what was done.
    pub visible: u32,
    generations: Option<Generations>,
    /// The path over which something was changed last.
    changed_over: Option<PathId>,
    /// What the command that was sent last may make for other nexuses.
    pub makes: &'static [Asc],
    /// What the last change may have made.
    made: &'static [Asc],
    /// The path that was registered last had not that key before, for sure.
    pub had_none: bool,
    /// How many of us want the guest's commands held.
    holds: u32,
    /// Nothing was changed since it was made: what was answered stands, with all that it means.
    closed: bool,
    /// What is on the medium.
    kept: Record,
}

impl<'a> Script<'a> {
    pub fn new(state: State, replies: &'a [Reply]) -> Self {
        let kept = state.record.clone();
        Script {
            state,
            replies,
            at: 0,
            actions: Vec::new(),
            counted: 0,
            visible: 0,
            generations: None,
            changed_over: None,
            makes: &[],
            made: &[],
            had_none: false,
            holds: 0,
            closed: false,
            kept,
        }
    }

    /// Wants `action` done, once.
    pub fn act(&mut self, action: Action) {
        if self.at == self.replies.len() {
            self.actions.push(action);
        }
    }

    /// The guest's commands are held from here on.
    pub fn hold(&mut self) {
        self.holds += 1;
        if self.holds == 1 {
            self.act(Action::Hold);
        }
    }

    /// They go on, as far as this one is concerned who held them.
    pub fn resume(&mut self) {
        self.holds -= 1;
        if self.holds == 0 {
            self.pin();
            self.act(Action::Resume);
        }
    }

    /// With the two types that know one nexus only, the guest's commands go where the holder is.
    pub fn pin(&mut self) {
        let held = self.state.record.reservation.as_ref();
        let held = held.filter(|held| !held.kind.is_for_registrants());
        let name = held.and_then(|held| held.holder.as_ref());
        let mut members = self.state.members.iter();
        let holder = members.find(|(_, one)| Some(&one.name) == name).map(|(id, _)| *id);
        if name.is_some() && holder.is_none() {
            // Which of ours it is nobody knows: no path is the right one until it has moved.
            return;
        }
        if self.state.pinned != holder {
            self.state.pinned = holder;
            self.act(Action::Pin(holder));
        }
    }

    fn reply(&mut self, question: Action) -> Step<Reply> {
        self.act(question);
        let reply = self.replies.get(self.at).cloned().ok_or(Waiting)?;
        self.at += 1;
        Ok(reply)
    }

    /// Keeps the record; false where that cannot be.
    pub fn keep(&mut self) -> Step<bool> {
        let question = Action::Keep(self.state.record.clone());
        let kept = matches!(self.reply(question)?, Reply::Kept(true));
        if kept {
            self.kept = self.state.record.clone();
        }
        Ok(kept)
    }

    /// The end: the guest's count is what it should be, and what has changed is kept. False where
    /// that cannot be.
    ///
    /// The list is read over the path that has changed something, so that an echo of it comes now.
    pub fn close(&mut self) -> Step<bool> {
        if self.closed && self.kept == self.state.record {
            return Ok(true);
        }
        if self.counted > 0 || self.changed_over.is_some() {
            self.keys()?;
        }
        self.count();
        let kept = self.kept == self.state.record || self.keep()?;
        self.closed = true;
        Ok(kept)
    }

    /// Sends a command. A path that does not answer is out of use from here on.
    pub fn send(&mut self, path: PathId, command: Command) -> Step<End> {
        for _ in 0..ATTENTIONS_MAX {
            self.makes = made(&command, self.state.holds());
            let reply = self.reply(Action::Send(path, command.clone()))?;
            let end = if let Reply::End(end) = reply { end } else { End::Lost };
            match end {
                End::Attention(code) if self.is_echo(path, code) => {}
                End::Attention(code) => self.act(Action::Attention(path, code)),
                End::NotExecuted | End::Lost => {
                    self.lose(path);
                    return Ok(end);
                }
                end => {
                    let good = matches!(end, End::Good(_));
                    self.counted += u32::from(good && counts(&command));
                    if good && matches!(command, Command::Out(..)) {
                        self.changed_over = Some(path);
                        self.closed = false;
                        self.made = self.makes;
                    }
                    return Ok(end);
                }
            }
        }
        self.lose(path);
        Ok(End::NotExecuted)
    }

    /// There are arrays that tell the nexus that has changed something of it as well, against SPC-5
    /// 5.14.11: tgtd does, once for each of our other paths, and LIO, where another path of the same
    /// initiator name has the same port.
    fn is_echo(&self, path: PathId, code: Asc) -> bool {
        self.changed_over == Some(path) && self.made.contains(&code)
    }

    /// `path` is out of use until it is up again.
    pub fn lose(&mut self, path: PathId) {
        self.is_down(path);
        self.act(Action::Expel(path));
    }

    /// As [`Script::lose`], where others have said so.
    pub fn is_down(&mut self, path: PathId) {
        if let Some(member) = self.state.members.get_mut(&path) {
            member.up = false;
            if member.registration == Registration::Registered {
                member.registration = Registration::Pending;
            }
        }
    }

    /// Paths that answer, those that are registered first.
    pub fn up(&self) -> Vec<PathId> {
        let mut paths = self.registered();
        let others = self.state.members.iter().filter(|(id, one)| one.up && !paths.contains(id));
        let others: Vec<PathId> = others.map(|(id, _)| *id).collect();
        paths.extend(others);
        paths
    }

    /// Paths that answer and are registered, those that let data through first.
    pub fn registered(&self) -> Vec<PathId> {
        let fit = |one: &Member| one.up && one.registration == Registration::Registered;
        let members = self.state.members.iter().filter(|(_, one)| fit(one));
        let mut paths: Vec<PathId> = members.map(|(id, _)| *id).collect();
        paths.sort_by_key(|path| self.state.passive.contains(path));
        paths
    }

    pub fn is_up(&self, path: PathId) -> bool {
        self.state.members.get(&path).is_some_and(|member| member.up)
    }

    /// The path that the record names as the holder, where it answers and is registered, and lets
    /// data through if any does.
    pub fn holder(&self) -> Option<PathId> {
        let name = self.state.record.reservation.as_ref()?.holder.as_ref()?;
        let registered = self.registered();
        let passive = |id: &PathId| self.state.passive.contains(id);
        let best = registered.first().is_some_and(passive);
        registered
            .into_iter()
            .find(|id| self.state.members[id].name == *name && passive(id) == best)
    }

    /// The keys of each path that may be in the array's list.
    pub fn own_keys(&self) -> Vec<Vec<Key>> {
        self.state.all().map(|member| member.keys.clone()).collect()
    }

    /// Registrations of paths that are out of use or no more: the keys that each of them may have.
    pub fn ghosts(&self) -> Vec<Vec<Key>> {
        let away = self.state.all().filter(|one| !one.up && !one.keys.is_empty());
        away.map(|one| one.keys.clone()).collect()
    }

    pub fn name(&self, path: PathId) -> Option<String> {
        self.state.members.get(&path).map(|member| member.name.clone())
    }

    /// Reads over the first path that answers; `None` when none does.
    pub fn read(&mut self, what: InAction) -> Step<Option<End>> {
        let mut paths = self.up();
        paths.sort_by_key(|path| Some(*path) != self.changed_over);
        for path in paths {
            let end = self.send(path, Command::In(what))?;
            if !matches!(end, End::Busy | End::NotExecuted | End::Lost) {
                return Ok(Some(end));
            }
        }
        Ok(None)
    }

    /// True when this script has read PRGENERATION.
    pub fn has_counted(&self) -> bool {
        self.generations.is_some()
    }

    /// READ KEYS; `None` when nobody answers it.
    pub fn keys(&mut self) -> Step<Option<Keys>> {
        let end = self.read(InAction::ReadKeys)?;
        let Some(End::Good(data)) = end else { return Ok(None) };
        let Some(keys) = Keys::parse(&data) else { return Ok(None) };
        let now = keys.generation;
        let guest = self.state.record.guest_generation(now);
        let started = Generations { guest, first: now, last: now };
        self.generations.get_or_insert(started).last = now;
        for member in self.state.members.values_mut().filter(|member| !member.up) {
            member.retain(|key| keys.keys.contains(&key));
        }
        self.state.retain_removed(|key| keys.keys.contains(&key));
        self.state.others = fold::without_ours(&keys.keys, &self.own_keys());
        Ok(Some(keys))
    }

    /// READ RESERVATION; `None` when nobody answers it.
    pub fn reservation(&mut self) -> Step<Option<Reservation>> {
        let end = self.read(InAction::ReadReservation)?;
        let Some(End::Good(data)) = end else { return Ok(None) };
        let now = Reservation::parse(&data);
        let held = now.as_ref().and_then(|now| now.held);
        self.state.for_all = held.is_some_and(|held| held.is_all_registrants());
        Ok(now)
    }

    /// The guest's count goes on from where it was when this script first read PRGENERATION: by
    /// what is visible of its own command, and by what others did until it was last read. Where the
    /// outcome of one of ours was lost, what was counted for it is not told from what others did,
    /// and the guest may be shown one too many.
    fn count(&mut self) {
        let Some(Generations { guest, first, last }) = self.generations else {
            // Nobody could be asked: what others did is seen when somebody can.
            let record = &mut self.state.record;
            record.generation = record.generation.wrapping_add(self.visible);
            record.array_generation = record.array_generation.wrapping_add(self.counted);
            return;
        };
        let seen = last.wrapping_sub(first);
        let others = seen.saturating_sub(self.counted);
        // Nobody could be asked after the last of them: it was counted all the same.
        let last = first.wrapping_add(seen.max(self.counted));
        let record = &mut self.state.record;
        record.generation = guest.wrapping_add(self.visible).wrapping_add(others);
        record.array_generation = last;
    }
}

/// Does PRGENERATION count it?
pub(super) fn counts(command: &Command) -> bool {
    match command {
        Command::In(_) => false,
        Command::Out(out, _) => !matches!(out.action, OutAction::Reserve | OutAction::Release),
    }
}
