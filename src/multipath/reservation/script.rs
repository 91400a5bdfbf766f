//! A conversation with the array, written as if each command were answered at once.
//!
//! A script is run from its beginning whenever one more answer has come in: with the answers so
//! far it comes to the next question, or to its end. So it may only depend on the state at its
//! beginning and on the answers. What it wants done is done when it comes there first. Reservation
//! commands are rare and their scripts are short; a state for each place where one may wait is
//! what was tried before, and a path's death in each of them could not be followed any more.

use std::collections::BTreeMap;

use super::attentions::made;
use super::events::{Action, Command, End};
use super::fold;
use super::record::{Record, Registration};
use crate::ids::PathId;
use crate::scsi::Asc;
use crate::scsi::reservation::{
    InAction, Key, Keys, Out, OutAction, Parameters, Reservation, TransportId, parameters,
};

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
}

/// What the machine knows.
#[derive(Clone, Debug, Default)]
pub(super) struct State {
    pub record: Record,
    pub members: BTreeMap<PathId, Member>,
    pub others: Vec<Key>,
    /// The record is of a process before, and the array has not been asked yet.
    pub unverified: bool,
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
    /// What that may have made for other nexuses.
    made: &'static [Asc],
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
            made: &[],
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
                        self.made = made(&command, self.state.record.reservation.is_some());
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

    /// REGISTER AND IGNORE EXISTING KEY, with what the guest said of APTPL.
    pub fn register(&mut self, path: PathId, key: Key) -> Step<End> {
        let aptpl = self.state.record.aptpl;
        let given = Parameters { action_key: key, aptpl, ..Parameters::default() };
        let out = Out::new(OutAction::RegisterAndIgnoreExistingKey, None, parameters::BASIC as u32);
        let end = self.send(path, Command::Out(out, given))?;
        let done = matches!(end, End::Good(_));
        if let Some(member) = self.state.members.get_mut(&path) {
            if done {
                member.keys.clear();
            }
            if !key.is_none() && matches!(end, End::Good(_) | End::Lost) {
                member.keys.push(key);
            }
            member.registration = match (done, key.is_none()) {
                (true, true) => Registration::None,
                (true, false) => Registration::Registered,
                (false, _) => Registration::Pending,
            };
        }
        if !done && self.is_up(path) {
            self.lose(path);
        }
        Ok(end)
    }

    /// Paths that answer, those that are registered first.
    pub fn up(&self) -> Vec<PathId> {
        let mut paths = self.registered();
        let others = self.state.members.iter().filter(|(id, one)| one.up && !paths.contains(id));
        let others: Vec<PathId> = others.map(|(id, _)| *id).collect();
        paths.extend(others);
        paths
    }

    /// Paths that answer and are registered.
    pub fn registered(&self) -> Vec<PathId> {
        let fit = |one: &Member| one.up && one.registration == Registration::Registered;
        self.state.members.iter().filter(|(_, one)| fit(one)).map(|(id, _)| *id).collect()
    }

    fn is_up(&self, path: PathId) -> bool {
        self.state.members.get(&path).is_some_and(|member| member.up)
    }

    /// The path that the record names as the holder, where it answers and is registered.
    pub fn holder(&self) -> Option<PathId> {
        let name = self.state.record.reservation.as_ref()?.holder.as_ref()?;
        self.registered().into_iter().find(|id| self.state.members[id].name == *name)
    }

    /// The keys of each path that may be in the array's list.
    pub fn own_keys(&self) -> Vec<Vec<Key>> {
        self.state.members.values().map(|member| member.keys.clone()).collect()
    }

    /// Paths that are out of use and may still be registered.
    pub fn ghosts(&self) -> Vec<PathId> {
        let fit = |one: &Member| !one.up && !one.keys.is_empty();
        self.state.members.iter().filter(|(_, one)| fit(one)).map(|(id, _)| *id).collect()
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
            member.keys.retain(|key| keys.keys.contains(key));
        }
        self.state.others = fold::without_ours(&keys.keys, &self.own_keys());
        Ok(Some(keys))
    }

    /// READ RESERVATION; `None` when nobody answers it.
    pub fn reservation(&mut self) -> Step<Option<Reservation>> {
        let end = self.read(InAction::ReadReservation)?;
        let Some(End::Good(data)) = end else { return Ok(None) };
        Ok(Reservation::parse(&data))
    }

    /// The guest's count goes on from where it was when this script first read PRGENERATION: by
    /// what is visible of its own command, and by what others did until it was last read. Where the
    /// outcome of one of ours was lost, what was counted for it is not told from what others did,
    /// and the guest may be shown one too many.
    fn count(&mut self) {
        let Some(Generations { guest, first, last }) = self.generations else { return };
        let others = last.wrapping_sub(first).saturating_sub(self.counted);
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
