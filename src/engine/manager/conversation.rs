//! The manager's conversation with the array about reservations: one command at a time, over the
//! path that the machine names.
//!
//! ```text
//!   Ready -- a fence is settled --> Flying --+--> its end is told
//!     ^                                      +--> Unproven -- proof, or its time is over --> lost
//!     '---------- Resting <-- BUSY ----------'
//! ```

use std::time::Instant;

use super::Manager;
use super::links::{Answered, Asker};
use crate::ids::PathId;
use crate::limits::{BUSY_BACKOFF, BUSY_TRIES_MAX};
use crate::multipath;
use crate::multipath::classify::{Class, Executed, classify};
use crate::multipath::probe::Question;
use crate::multipath::reservation::{Command, End, Event};
use crate::path::{Answer, Fate, Residual, Transport};
use crate::scsi::alua::AccessState;
use crate::scsi::reservation::In;
use crate::scsi::{Asc, Sense, SenseKey, Status};

/// Bytes of room for the answer to PERSISTENT RESERVE IN.
const ROOM: u16 = 0xF000;

/// A command of the machine's.
#[derive(Debug)]
pub struct Sending {
    path: PathId,
    command: Command,
    /// BUSY and the like in a row.
    tries: u8,
    at: At,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// To be sent as soon as nothing of before the guest was fenced is left.
    Ready,
    /// To be sent again then.
    Resting(Instant),
    Flying,
    /// Its end says nothing, and it may still be executed: until this time, or until the transport
    /// speaks of this session of the path.
    Unproven {
        session: u32,
        safe_at: Option<Instant>,
    },
}

impl Sending {
    /// A command that is to be sent.
    pub fn new(path: PathId, command: Command) -> Self {
        Sending { path, command, tries: 0, at: At::Ready }
    }

    /// True when nothing but a fence holds it back.
    pub fn is_ready(&self) -> bool {
        self.at == At::Ready
    }

    /// True for a registration of a key: a guest's write of before a fence must not land under it.
    pub fn registers(&self) -> bool {
        match &self.command {
            Command::Out(out, given) => out.action.registers() && !given.action_key.is_none(),
            Command::In(_) => false,
        }
    }

    /// True while it is on a path, or may be, and changes what is reserved.
    pub fn may_change(&self) -> bool {
        let sent = matches!(self.at, At::Flying | At::Unproven { .. });
        sent && matches!(self.command, Command::Out(..))
    }

    /// When something is due, if nothing happens before.
    pub fn due(&self) -> Option<Instant> {
        match self.at {
            At::Resting(until) => Some(until),
            At::Unproven { safe_at, .. } => safe_at,
            At::Ready | At::Flying => None,
        }
    }
}

impl<T: Transport> Manager<T> {
    /// Looks after what waits for time.
    pub(super) fn look_after_reservations(&mut self, now: Instant) {
        let due = self.reservations.next_timer().is_some_and(|due| due <= now);
        if let Some(sending) = self.reservations.sending.as_mut().filter(|_| due) {
            match sending.at {
                At::Resting(_) => sending.at = At::Ready,
                At::Unproven { .. } => self.conversation_ends(End::Lost, now),
                At::Ready | At::Flying => {}
            }
        }
        self.work_on_reservations(now);
    }

    /// Nothing of `session` of `path`, or of an earlier one, waits in the host any more; where it is
    /// `proven`, nothing of it will be executed either.
    pub(super) fn conversation_is_over(
        &mut self,
        path: PathId,
        session: u32,
        proven: bool,
        now: Instant,
    ) {
        let over = self.reservations.over.entry(path).or_default();
        let last = if proven { &mut over.0 } else { &mut over.1 };
        *last = session.max(*last);
        self.look_at_proofs(now);
    }

    /// What is known to be over may be over for the command whose end said nothing.
    fn look_at_proofs(&mut self, now: Instant) {
        let quiesce = self.core.settings().write_quiesce;
        let Some(sending) = self.reservations.sending.as_mut() else { return };
        let At::Unproven { session, safe_at } = &mut sending.at else { return };
        let over = self.reservations.over.get(&sending.path);
        let (proven, returned) = over.copied().unwrap_or_default();
        if (1..=proven).contains(session) {
            return self.conversation_ends(End::Lost, now);
        }
        if (1..=returned).contains(session) && safe_at.is_none() {
            *safe_at = Some(now + quiesce);
            self.apply(multipath::Event::Conversing(None), now);
        }
    }

    /// The path is no more: what was sent over it may be executed for as long as any lost write.
    pub(super) fn conversation_partner_left(&mut self, path: PathId, now: Instant) {
        self.reservations.over.remove(&path);
        let quiesce = self.core.settings().write_quiesce;
        if let Some(sending) = self.reservations.sending.as_mut().filter(|one| one.path == path)
            && let At::Unproven { safe_at, .. } = &mut sending.at
        {
            safe_at.get_or_insert(now + quiesce);
        }
    }

    pub(super) fn send_reservation(&mut self, now: Instant) {
        let Some(path) = self.reservations.sending.as_ref().map(|one| one.path) else { return };
        if self.reservations.is_removed(path) || !self.core.may_be_spoken_over(path) {
            return self.conversation_ends(End::NotExecuted, now);
        }
        let Some(sending) = &mut self.reservations.sending else { return };
        sending.at = At::Flying;
        self.reservations.last_sent = Some(now);
        let question = question(&sending.command);
        for code in self.reservations.machine.made() {
            self.apply(multipath::Event::Making { path, code: *code }, now);
        }
        self.apply(multipath::Event::Conversing(Some(path)), now);
        if !self.links.ask(path, Asker::Reservations, question, now) {
            self.conversation_made(Executed::No, now);
            self.conversation_ends(End::NotExecuted, now);
        }
    }

    /// The unit attentions of the command that was sent: made, or not.
    fn conversation_made(&mut self, executed: Executed, now: Instant) {
        let Some(sending) = &self.reservations.sending else { return };
        let path = sending.path;
        for code in self.reservations.machine.made() {
            self.apply(multipath::Event::Made { path, code: *code, executed, ended: now }, now);
        }
    }

    /// A command over a path has ended.
    pub(super) fn conversation_answered(&mut self, answered: Answered, now: Instant) {
        let Answered { fate, session, data, .. } = answered;
        let verdict = classify(&fate);
        let good = matches!(&fate, Fate::Answered(answer) if answer.status == Status::GOOD);
        let refused = verdict.class == Class::Done && !good;
        self.conversation_made(if refused { Executed::No } else { verdict.executed }, now);
        let quiesce = self.core.settings().write_quiesce;
        let Some(sending) = &mut self.reservations.sending else { return };
        let changes = matches!(sending.command, Command::Out(..));
        let end = match verdict.class {
            Class::Done if good => End::Good(data),
            Class::Done => refusal(&fate),
            Class::Conflict => End::Conflict,
            Class::Unsupported => End::Refused(SenseKey::IllegalRequest, Asc::INVALID_FIELD_IN_CDB),
            class => match (attention(class), verdict.executed) {
                (Some(code), _) => End::Attention(code),
                (None, Executed::Yes | Executed::No)
                    if matches!(class, Class::Load | Class::HostBusy)
                        && sending.tries < BUSY_TRIES_MAX =>
                {
                    sending.tries += 1;
                    sending.at = At::Resting(now + BUSY_BACKOFF);
                    return self.apply(multipath::Event::Conversing(None), now);
                }
                (None, Executed::Yes | Executed::No) => match class {
                    Class::Load | Class::HostBusy | Class::Access(AccessState::Transitioning) => {
                        End::Busy
                    }
                    _ => End::NotExecuted,
                },
                (None, Executed::Unknown) if changes => {
                    sending.at = At::Unproven { session, safe_at: Some(now + quiesce) };
                    self.apply(multipath::Event::Conversing(None), now);
                    return self.look_at_proofs(now);
                }
                // Only its path can say that it is over: until then the path is not closed.
                (None, Executed::Parked) if changes => {
                    sending.at = At::Unproven { session, safe_at: None };
                    return self.look_at_proofs(now);
                }
                (None, _) => End::Lost,
            },
        };
        self.conversation_ends(end, now);
    }

    /// The path brought a unit attention with the last command: it is judged as one that a guest's
    /// command has met.
    pub(super) fn judge_attention(&mut self, path: PathId, code: Asc, now: Instant) {
        let sent = self.reservations.last_sent.unwrap_or(now);
        let sense = Some(Box::new(Sense::fixed(SenseKey::UnitAttention, code)));
        let (status, residual) = (Status::CHECK_CONDITION, Residual::None);
        let event = match classify(&Fate::Answered(Answer { status, sense, residual })).class {
            Class::Attention(code) => multipath::Event::Attention { path, code, sent },
            Class::Doubt(code) => multipath::Event::Doubted(path, format!("unit attention {code}")),
            _ => multipath::Event::Changed(path),
        };
        self.apply(event, now);
    }

    pub(super) fn conversation_ends(&mut self, end: End, now: Instant) {
        self.reservations.sending = None;
        self.apply(multipath::Event::Conversing(None), now);
        self.reservation(Event::Ended(end), now);
    }
}

fn question(command: &Command) -> Question {
    match command {
        Command::Out(out, given) => Question { cdb: out.cdb(), room: 0, data_out: given.bytes() },
        Command::In(action) => {
            let asked = In { action: *action, allocation: ROOM };
            Question { cdb: asked.cdb(), room: usize::from(ROOM), data_out: Vec::new() }
        }
    }
}

fn refusal(fate: &Fate) -> End {
    let sense = match fate {
        Fate::Answered(answer) => answer.sense.as_ref().and_then(|sense| sense.decode()),
        Fate::Failed(..) => None,
    };
    let (key, code) = sense.unwrap_or((SenseKey::AbortedCommand, Asc::NONE));
    End::Refused(key, code)
}

fn attention(class: Class) -> Option<Asc> {
    match class {
        Class::Attention(code) | Class::Doubt(code) | Class::AccessChanged(code) => Some(code),
        Class::SizeChanged => Some(Asc::CAPACITY_DATA_HAS_CHANGED),
        _ => None,
    }
}
