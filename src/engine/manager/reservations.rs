//! The manager's part in the guest's persistent reservations: what the machine wants is sent, kept,
//! published and answered ([`crate::multipath::reservation`] decides what that is).
//!
//! ```text
//!   guest's PR IN, PR OUT -- lane --+                       +--> PR commands over a path
//!   a path could be used -- core ---+--> Machine::apply ----+--> records to keep
//!   ends, kept records -------------+                       +--> admissions and the lanes' table
//!                                                           +--> the guest's answer
//! ```
//!
//! What is sent has the manager's own channel of a path, beside the core's questions
//! ([`super::conversation`]). An attempt that was lost is told as lost only when it cannot be executed
//! any more: then another path is asked what stands, and what it says is true.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Instant;

use super::conversation::Sending;
use super::{Manager, Notice};
use crate::engine::messages::ToLane;
use crate::ids::{LaneId, PathId, Version};
use crate::multipath::path::Path;
use crate::multipath::reservation::{
    Action, Answer, End, Event, Machine, Record, Request, Standing, Ticket,
};
use crate::multipath::{self, Remains, Reserved};
use crate::path::Transport;
use crate::scsi::{Asc, SenseKey};

/// See the module's text.
#[derive(Debug, Default)]
pub struct Reservations {
    pub(super) machine: Machine,
    /// Paths are admitted by the machine.
    active: bool,
    /// What it is to be told: the core's own actions are carried out first.
    news: VecDeque<Event>,
    /// Paths that have asked whether they may be used.
    applicants: Vec<PathId>,
    /// What the machine wants done and is not done yet.
    wanted: VecDeque<Action>,
    working: bool,
    pub(super) sending: Option<Sending>,
    /// Of each path the last session of which nothing will be executed any more, and the last of
    /// which nothing waits in the host any more: that may be told before the command's end is.
    pub(super) over: BTreeMap<PathId, (u32, u32)>,
    /// When the last command was sent.
    pub(super) last_sent: Option<Instant>,
    /// Whose answers are owed: a lane, and its serial number of the command.
    asked: Vec<(Ticket, LaneId, u64)>,
    tickets: u64,
    /// Why PERSISTENT RESERVE OUT is refused now, whatever the machine would say.
    refusal: Option<String>,
    keeps: Vec<Record>,
    /// Paths of which the machine was told that their port lets no data through.
    pub(super) passive: BTreeSet<PathId>,
    reserved: Reserved,
    /// A guest is to come from another host, with reservations that are taken over then.
    expected: bool,
    /// They are being taken over.
    taking_over: bool,
    /// What lanes send is held back since this table: before every lane reads it, one may still send
    /// over a path that the reservation is about to leave.
    hold: Option<Version>,
    /// The running lanes, and up to which fence each has ended what was begun before.
    lanes: BTreeMap<LaneId, u64>,
}

impl Reservations {
    /// True when nothing is asked, to be asked or to be thought about.
    fn is_idle(&self) -> bool {
        self.machine.is_idle() && self.wanted.is_empty() && self.sending.is_none()
    }

    /// A lane runs from now on, and says next which fences it knows of.
    pub fn lane_up(&mut self, lane: LaneId) {
        self.lanes.insert(lane, 0);
    }

    /// A lane is gone, and nobody hears its answers: a front end that comes and goes must not make
    /// the machine's queue grow.
    pub fn lane_down(&mut self, lane: LaneId) {
        self.lanes.remove(&lane);
        for (ticket, ..) in self.asked.extract_if(.., |(_, asker, _)| *asker == lane) {
            self.news.push_back(Event::Forgotten(ticket));
        }
    }

    /// The machine is to be told this.
    pub fn tell(&mut self, event: Event) {
        if let Event::Up { path, .. } = event {
            self.applicants.push(path);
        }
        self.news.push_back(event);
    }

    /// The machine is to be told something.
    pub fn has_news(&self) -> bool {
        !self.working && !self.news.is_empty()
    }

    /// The machine speaks of a path that is no more.
    pub fn is_removed(&self, path: PathId) -> bool {
        self.machine.is_removed(path)
    }

    fn is_fenced_off(&self) -> bool {
        self.lanes.values().all(|settled| *settled >= self.reserved.fences)
    }

    /// When something is due, if nothing happens before.
    pub fn next_timer(&self) -> Option<Instant> {
        self.sending.as_ref().and_then(Sending::due)
    }
}

impl<T: Transport> Manager<T> {
    /// From now on a path is used only when the machine admits it. Comes before the first path.
    pub fn register_paths(&mut self, now: Instant) {
        self.reservations.active = true;
        self.apply(multipath::Event::Registers, now);
    }

    /// Tells the machine whose port lets data through now.
    pub(super) fn tell_access(&mut self) {
        let Reservations { active: true, passive, news, .. } = &mut self.reservations else {
            return;
        };
        for path in self.core.paths() {
            let (path, active) = (path.id, path.access.allows_media_access());
            if active == passive.contains(&path) {
                if active {
                    passive.remove(&path)
                } else {
                    passive.insert(path)
                };
                news.push_back(Event::Access { path, active });
            }
        }
    }

    /// True while a guest's rings run.
    pub fn has_guest(&self) -> bool {
        !self.reservations.lanes.is_empty()
    }

    /// Tells who waits for it that nothing can be executed any more that was sent from here and whose
    /// outcome is not known: neither a write of the guest's, nor what it wanted to reserve.
    pub(super) fn tell_of_landing(&mut self, now: Instant) {
        if self.core.has_landed(now) && self.reservations.is_idle() {
            // Nobody waits any more where the deadline has passed meanwhile.
            for post in self.landing.drain(..) {
                let _ = post.send(());
            }
        }
    }

    /// What would be left on the paths if the process ended now.
    pub fn remains(&self) -> Remains {
        match self.reservations.sending.as_ref().is_some_and(Sending::may_change) {
            true => Remains::Unknown,
            false => self.core.remains(),
        }
    }

    /// A guest is to come, or not, with reservations of which [`Event::Imported`] tells when it is
    /// there. Until that is dealt with nothing of it is sent: it would meet its own reservation.
    pub fn expect_guest(&mut self, expected: bool, now: Instant) {
        if self.reservations.expected != expected {
            self.reservations.expected = expected;
            self.follow_arrival(now);
        }
    }

    fn follow_arrival(&mut self, now: Instant) {
        let ours = &mut self.reservations;
        ours.taking_over &= !ours.is_idle();
        let arriving = ours.expected || ours.taking_over;
        let reserved = Reserved { arriving, ..ours.reserved };
        self.publish_reserved(reserved, now);
    }

    /// Tells the machine.
    pub fn reservation(&mut self, event: Event, now: Instant) {
        self.reservations.taking_over |= matches!(event, Event::Imported(_));
        self.reservations.tell(event);
        self.work_on_reservations(now);
    }

    /// PERSISTENT RESERVE OUT is refused, for this reason, or is not.
    pub fn refuse_reservations(&mut self, refusal: Option<String>) {
        self.reservations.refusal = refusal;
    }

    /// Records to keep, the latest last; each is to be answered by [`Event::Kept`].
    pub fn take_keeps(&mut self) -> Vec<Record> {
        std::mem::take(&mut self.reservations.keeps)
    }

    /// What stands, for reports.
    pub fn standing(&self) -> Standing {
        self.reservations.machine.standing()
    }

    /// A lane's guest asks.
    pub(super) fn ask_reservations(
        &mut self,
        (lane, serial): (LaneId, u64),
        request: Request,
        now: Instant,
    ) {
        let ours = &mut self.reservations;
        let refusal = ours.refusal.as_ref().filter(|_| matches!(request, Request::Out(..)));
        if let (Some(reason), true) = (refusal, ours.active) {
            self.notices.push(Notice::ReservationRefused(reason.clone()));
        }
        if refusal.is_some() || !ours.active {
            let answer = Answer::Check(SenseKey::IllegalRequest, Asc::INVALID_OPCODE);
            return self.hub.send(lane, ToLane::Reserved { serial, answer });
        }
        ours.tickets += 1;
        let ticket = Ticket(ours.tickets);
        ours.asked.push((ticket, lane, serial));
        self.reservation(Event::Asked(ticket, request), now);
    }

    /// A lane has ended all that was begun before the guest was fenced so many times.
    pub(super) fn fence_settled(&mut self, lane: LaneId, fences: u64, now: Instant) {
        if let Some(settled) = self.reservations.lanes.get_mut(&lane) {
            *settled = fences.max(*settled);
        }
        self.work_on_reservations(now);
    }

    pub(super) fn work_on_reservations(&mut self, now: Instant) {
        if std::mem::replace(&mut self.reservations.working, true) {
            // Whoever is at it goes on with what has come.
            return;
        }
        let mut answers = Vec::new();
        loop {
            let ours = &mut self.reservations;
            while let Some(event) = ours.news.pop_front() {
                let actions = ours.machine.apply(event);
                ours.wanted.extend(actions);
            }
            if let Some(sending) = &ours.sending {
                let known = ours.hold.is_none_or(|hold| self.core.is_honoured(hold));
                if !sending.is_ready() || !known {
                    break;
                }
                if sending.registers() && !ours.is_fenced_off() {
                    // What it waits for waits for a path, and the paths may wait for this.
                    if self.core.paths().any(Path::is_usable) {
                        break;
                    }
                    self.conversation_ends(End::NotExecuted, now);
                    continue;
                }
                self.send_reservation(now);
                continue;
            }
            match ours.wanted.pop_front() {
                None => break,
                Some(Action::Answer(ticket, answer)) => answers.push((ticket, answer)),
                Some(action) => self.do_for_reservations(action, now),
            }
        }
        // First every lane has the table that goes with an answer.
        let registered = self.reservations.machine.is_registered();
        self.publish_reserved(Reserved { registered, ..self.reservations.reserved }, now);
        for (ticket, answer) in answers {
            let ours = &mut self.reservations;
            if let Some(at) = ours.asked.iter().position(|(asked, ..)| *asked == ticket) {
                let (_, lane, serial) = ours.asked.swap_remove(at);
                self.hub.send(lane, ToLane::Reserved { serial, answer });
            }
        }
        // Where that takes a while, people may know.
        let begun = self.reservations.machine.has_begun();
        for path in std::mem::take(&mut self.reservations.applicants) {
            if begun {
                self.apply(multipath::Event::Registering(path), now);
            }
        }
        self.reservations.working = false;
        self.follow_arrival(now);
        if self.reservations.has_news() {
            self.work_on_reservations(now);
        }
    }

    fn do_for_reservations(&mut self, action: Action, now: Instant) {
        let reserved = self.reservations.reserved;
        match action {
            Action::Admit(path) | Action::Expel(path) if self.reservations.is_removed(path) => {}
            Action::Send(path, command) => {
                self.reservations.sending = Some(Sending::new(path, command));
            }
            Action::Keep(record) => self.reservations.keeps.push(record),
            Action::Admit(path) => self.apply(multipath::Event::Admitted(path), now),
            Action::Expel(path) => self.apply(multipath::Event::Expelled(path), now),
            Action::Hold => {
                self.publish_reserved(Reserved { hold: true, ..reserved }, now);
                self.reservations.hold = Some(self.core.version());
            }
            Action::Resume => {
                self.publish_reserved(Reserved { hold: false, ..reserved }, now);
                self.reservations.hold = None;
            }
            Action::Pin(pin) => self.publish_reserved(Reserved { pin, ..reserved }, now),
            Action::Fenced(key) => {
                self.notices.push(Notice::Fenced(key));
                let fences = reserved.fences + 1;
                let fenced =
                    Reserved { registered: false, pin: None, hold: false, fences, ..reserved };
                self.publish_reserved(fenced, now);
            }
            Action::Attention(path, code) => self.judge_attention(path, code, now),
            Action::Answer(..) => debug_assert!(false, "answers come after the table"),
        }
    }

    fn publish_reserved(&mut self, reserved: Reserved, now: Instant) {
        if std::mem::replace(&mut self.reservations.reserved, reserved) != reserved {
            self.apply(multipath::Event::Reserved(reserved), now);
        }
    }
}
