//! The machine: one conversation with the array at a time, what else comes waits in order.

use std::collections::VecDeque;
use std::mem;

use super::events::{Action, Answer, End, Event, Request, Ticket};
use super::fold;
use super::record::{Record, Registration, Standing};
use super::register::Known;
use super::script::{Member, Reply, Script, State, Step};
use crate::ids::PathId;
use crate::scsi::reservation::{Capabilities, FullStatus, In, InAction, Keys, Reservation};
use crate::scsi::{Asc, SenseKey};

/// May anything be asked, and what may be kept?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Store {
    /// Not told yet: everything waits.
    Unknown,
    Kept,
    Stateless,
}

/// Speaks for all paths as one initiator. Owned by the manager, who carries out what it returns.
///
/// It has no clock: what takes too long on a path is ended by whoever sends.
#[derive(Debug)]
pub struct Machine {
    state: State,
    store: Store,
    waiting: VecDeque<Event>,
    /// What is under way, with its answers so far.
    now: Option<(Event, Vec<Reply>)>,
    actions: Vec<Action>,
    makes: &'static [Asc],
}

impl Default for Machine {
    fn default() -> Self {
        Machine {
            state: State::default(),
            store: Store::Unknown,
            waiting: VecDeque::new(),
            now: None,
            actions: Vec::new(),
            makes: &[],
        }
    }
}

impl Machine {
    /// Takes one event; the returned actions are carried out in their order.
    pub fn apply(&mut self, event: Event) -> Vec<Action> {
        match event {
            Event::Restored(record) => {
                self.store = Store::Kept;
                self.state.unverified = record.as_ref().is_some_and(|one| !one.is_empty());
                self.state.record = record.unwrap_or_default();
            }
            Event::Stateless => self.store = Store::Stateless,
            Event::Kept(kept) => self.reply(Reply::Kept(kept)),
            Event::Ended(end) => self.reply(Reply::End(end)),
            Event::Forgotten(ticket) => {
                let asks =
                    |event: &Event| matches!(event, Event::Asked(asked, _) if *asked == ticket);
                self.waiting.retain(|event| !asks(event));
            }
            // It says no more when it is said again.
            Event::Conflicted(_) if self.waiting.contains(&event) => {}
            event => self.waiting.push_back(event),
        }
        self.go_on();
        mem::take(&mut self.actions)
    }

    /// True once it was told what was kept, or that nothing can be: then what waits is spoken of
    /// with the array.
    pub fn has_begun(&self) -> bool {
        self.store != Store::Unknown
    }

    /// True for a path that is no more, of which the machine has yet to hear: what it wants of that
    /// one must not be done to another path that is called so by now.
    pub fn is_removed(&self, path: PathId) -> bool {
        self.waiting.contains(&Event::Removed(path))
    }

    /// True when all that it was told is dealt with.
    pub fn is_idle(&self) -> bool {
        self.now.is_none() && self.waiting.is_empty()
    }

    /// True while the guest is registered.
    pub fn is_registered(&self) -> bool {
        self.state.record.key.is_some()
    }

    /// The unit attentions that the command that was sent last may make for other nexuses.
    pub fn made(&self) -> &'static [Asc] {
        self.makes
    }

    /// What stands, for reports.
    pub fn standing(&self) -> Standing {
        let members = self.state.members.values();
        Standing {
            record: self.state.record.clone(),
            is_kept: self.store == Store::Kept,
            paths: members.map(|one| (one.name.clone(), one.registration)).collect(),
            under_way: self.now.as_ref().map(|(event, _)| words(event)),
            others: self.state.others.clone(),
        }
    }

    fn reply(&mut self, reply: Reply) {
        if let Some((_, replies)) = &mut self.now {
            replies.push(reply);
            self.run();
        }
    }

    fn go_on(&mut self) {
        while self.now.is_none() && self.store != Store::Unknown {
            let Some(event) = self.waiting.pop_front() else { return };
            self.now = Some((event, Vec::new()));
            self.run();
        }
    }

    /// Runs what is under way as far as its answers reach.
    fn run(&mut self) {
        let Some((event, replies)) = self.now.take() else { return };
        let mut script = Script::new(self.state.clone(), &replies);
        let ended = script.play(&event, self.store == Store::Stateless);
        let Script { state, actions, makes, .. } = script;
        self.makes = makes;
        self.actions.extend(actions);
        if ended.is_err() {
            self.now = Some((event, replies));
            return;
        }
        self.state = state;
    }
}

fn words(event: &Event) -> String {
    match event {
        Event::Asked(_, Request::Out(out, _)) => out.action.to_string(),
        Event::Asked(_, Request::In(asked)) => asked.action.to_string(),
        _ => "registering a path".to_owned(),
    }
}

impl Script<'_> {
    fn play(&mut self, event: &Event, stateless: bool) -> Step<()> {
        match event {
            Event::Up { path, name, nexus } => {
                let nexus = nexus.clone();
                // It is there again: what was left of it is its own.
                self.state.removed.retain(|one| one.name != *name);
                let member = self.state.members.entry(*path).or_insert(Member {
                    name: name.clone(),
                    up: true,
                    registration: Registration::None,
                    nexus: None,
                    keys: Vec::new(),
                    known: Known::Unknown,
                });
                (member.up, member.nexus) = (true, nexus);
                self.admit(*path)
            }
            Event::Conflicted(path) => self.admit(*path),
            Event::Access { path, active } => {
                let passive = &mut self.state.passive;
                let changed = if *active { passive.remove(path) } else { passive.insert(*path) };
                if changed { self.keep_holder_alive() } else { Ok(()) }
            }
            Event::Down(path) => {
                self.is_down(*path);
                self.keep_holder_alive()
            }
            Event::Leaving(path) => self.leave(*path),
            Event::Imported(record) => {
                self.import(record);
                self.up().into_iter().try_for_each(|path| self.admit(path))
            }
            Event::Removed(path) => {
                self.state.passive.remove(path);
                self.state.remove(*path);
                self.keep_holder_alive()
            }
            Event::Asked(ticket, request) => self.answer(*ticket, request, stateless),
            _ => Ok(()),
        }?;
        self.close()?;
        self.pin();
        Ok(())
    }

    /// The holder's path is the other host's, whatever its name.
    fn import(&mut self, record: &Record) {
        self.state.record = record.clone();
        if let Some(held) = &mut self.state.record.reservation {
            held.holder = held.holder.take().map(|_| String::new());
        }
        self.state.unverified = !record.is_empty();
    }

    fn answer(&mut self, ticket: Ticket, request: &Request, stateless: bool) -> Step<()> {
        let mut answer = match request {
            Request::Out(..) if stateless => {
                Answer::Check(SenseKey::IllegalRequest, Asc::INVALID_OPCODE)
            }
            Request::Out(out, given) => self.order(out, given)?,
            Request::In(asked) => self.answer_in(*asked)?,
        };
        // It is done and cannot be undone; the guest has to look.
        if !self.close()? && matches!(answer, Answer::Good(_)) {
            answer = Answer::Check(SenseKey::HardwareError, Asc::INTERNAL_TARGET_FAILURE);
        }
        self.act(Action::Answer(ticket, answer));
        Ok(())
    }

    fn answer_in(&mut self, asked: In) -> Step<Answer> {
        let data = match self.read(asked.action)? {
            None => return Ok(Answer::Busy),
            Some(End::Good(data)) => data,
            Some(End::Refused(key, code)) => return Ok(Answer::Check(key, code)),
            Some(_) => return Ok(Answer::Conflict),
        };
        // What cannot be read cannot be folded, and as it is it would be wrong.
        let Some(mut data) = self.folded(asked.action, &data) else {
            return Ok(Answer::Check(SenseKey::HardwareError, Asc::INTERNAL_TARGET_FAILURE));
        };
        data.truncate(usize::from(asked.allocation));
        Ok(Answer::Good(data))
    }

    fn folded(&self, action: InAction, data: &[u8]) -> Option<Vec<u8>> {
        let record: &Record = &self.state.record;
        Some(match action {
            InAction::ReadKeys => fold::keys(&Keys::parse(data)?, record, &self.own_keys()).bytes(),
            InAction::ReadReservation => {
                fold::reservation(&Reservation::parse(data)?, record).bytes()
            }
            InAction::ReadFullStatus => {
                let told = FullStatus::parse(data)?;
                let nexuses = self.state.members.values().map(|member| member.nexus.clone());
                let ours = fold::Ours::among(&told, nexuses.collect(), self.registered().len());
                fold::full_status(&told, record, &ours).bytes()
            }
            InAction::ReportCapabilities => {
                fold::capabilities(&Capabilities::parse(data)?).bytes().to_vec()
            }
        })
    }
}
