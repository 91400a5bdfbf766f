//! Task management (SAM-5 7): this lane's part of each function, and for the first lane the guest's
//! questions and answers.
//!
//! A function is answered when every lane has ended what it is about, and has made those ends
//! visible to the guest. What is on a path is taken back first; a write that may still land is
//! waited for.

use std::time::Instant;

use super::Lane;
use super::commands::{Command, Doom, State};
use crate::completion::{Outcome, Owed, Response};
use crate::engine::guest::Guest;
use crate::engine::messages::{Task, ToManager};
use crate::ids::Slot;
use crate::path::Transport;
use crate::scsi::Asc;
use crate::virtio_scsi::{Address, ControlRequest, ControlResponse, TaskManagementFunction};

/// A function that this lane has begun.
#[derive(Debug)]
struct Begun {
    number: u64,
    /// Serial numbers of the commands that must end first.
    left: Vec<u64>,
    found: bool,
}

/// A lane's task management.
#[derive(Debug, Default)]
pub struct Tasks {
    begun: Vec<Begun>,
    /// The guest's questions that wait for all lanes: only the first lane has some.
    asked: Vec<(u64, Owed, ControlRequest)>,
    numbers: u64,
    /// When those that are asked must be answered: the control ring stops.
    deadline: Option<Instant>,
}

impl Tasks {
    /// The command with this serial number has been answered.
    pub fn ended(&mut self, serial: u64) {
        for task in &mut self.begun {
            task.left.retain(|left| *left != serial);
        }
    }

    /// True when the guest waits for nothing here.
    pub fn is_empty(&self) -> bool {
        self.asked.is_empty()
    }

    /// The control ring stops: what is asked is answered by `deadline`.
    pub fn drain(&mut self, deadline: Instant) {
        let earlier = self.deadline.unwrap_or(deadline);
        self.deadline = (!self.asked.is_empty()).then_some(earlier.min(deadline));
    }

    /// When [`Tasks::drain`] wants the guest's questions to be answered.
    pub fn next_timer(&self) -> Option<Instant> {
        self.deadline
    }

    /// The connection is gone.
    pub fn abandon(&mut self) {
        self.deadline = None;
        for (_, owed, _) in self.asked.drain(..) {
            owed.abandon();
        }
    }
}

/// What to do about a control request: answer it, or have all lanes do it first.
enum Plan {
    Answer(ControlResponse),
    Ask(Task, Option<Asc>),
}

impl<T: Transport> Lane<T> {
    /// Takes what the guest has put on the control ring.
    pub(super) fn take_control_requests<G: Guest>(&mut self, guest: &mut G) {
        while let Some((owed, request)) = guest.next_control() {
            match plan(&request) {
                Plan::Answer(response) => guest.answer_control(owed, &request, response),
                Plan::Ask(task, attention) => {
                    self.tasks.numbers += 1;
                    let number = self.tasks.numbers;
                    self.tasks.asked.push((number, owed, request));
                    let lane = self.id;
                    self.manager.send(ToManager::Task { lane, number, task, attention });
                }
            }
        }
    }

    /// All lanes are done: the guest gets its answer.
    pub(super) fn answer_task<G: Guest>(
        &mut self,
        guest: &mut G,
        number: u64,
        response: ControlResponse,
    ) {
        if let Some(at) = self.tasks.asked.iter().position(|(asked, ..)| *asked == number) {
            let (_, owed, request) = self.tasks.asked.swap_remove(at);
            self.tasks.deadline = self.tasks.deadline.filter(|_| !self.tasks.asked.is_empty());
            guest.answer_control(owed, &request, response);
        }
    }

    /// The drain's time is up: the guest's questions are not answered any more by what they ask.
    pub(super) fn fail_tasks<G: Guest>(&mut self, guest: &mut G) {
        self.tasks.deadline = None;
        for (_, owed, request) in self.tasks.asked.drain(..) {
            guest.answer_control(owed, &request, ControlResponse::Failure);
        }
    }

    /// This lane's part.
    pub(super) fn begin_task<G: Guest>(&mut self, guest: &mut G, number: u64, task: Task) {
        let about = |command: &Command| match task {
            Task::Abort(tag) | Task::Query(tag) => command.tag() == Some(tag),
            Task::AbortAll | Task::ResetAll | Task::QueryAny => true,
        };
        let slots: Vec<Slot> = self
            .commands
            .iter()
            .filter(|(_, command)| about(command))
            .map(|(slot, _)| slot)
            .collect();
        let found = !slots.is_empty();
        let response = match task {
            Task::Abort(_) | Task::AbortAll => Some(Response::Aborted),
            Task::ResetAll => Some(Response::Reset),
            Task::Query(_) | Task::QueryAny => None,
        };
        let mut left = Vec::new();
        if let Some(response) = response {
            left.extend(slots.iter().map(|slot| self.commands[*slot].serial));
            self.tasks.begun.push(Begun { number, left, found });
            for slot in slots {
                let room = self.commands[slot].request.room();
                self.doom(guest, slot, Outcome::response(response, room), true);
            }
        } else {
            self.tasks.begun.push(Begun { number, left, found });
        }
    }

    /// Ends a command with `outcome` as soon as that can be.
    pub(super) fn doom<G: Guest>(
        &mut self,
        guest: &mut G,
        slot: Slot,
        outcome: Outcome,
        patient: bool,
    ) {
        if self.leave(slot) {
            return self.complete(guest, slot, &outcome);
        }
        if patient && self.waits_for_the_dead(&self.commands[slot]) {
            self.commands[slot].doom = Some(Doom { outcome, patient });
            return;
        }
        let command = &mut self.commands[slot];
        match command.state {
            State::Free => {}
            State::Flying { .. } => {
                command.doom = Some(Doom { outcome, patient });
                self.recall(slot);
            }
            State::Unproven | State::Asked if patient => {
                command.doom = Some(Doom { outcome, patient })
            }
            State::Unproven | State::Asked | State::Waiting | State::Resting(_) | State::Held => {
                command.doom = None;
                self.complete(guest, slot, &outcome);
            }
        }
    }

    /// Tells the manager which functions this lane has done.
    pub(super) fn report_finished_tasks(&mut self) {
        let (lane, manager) = (self.id, &self.manager);
        self.tasks.begun.retain(|task| {
            if task.left.is_empty() {
                let (number, found) = (task.number, task.found);
                manager.send(ToManager::TaskDone { lane, number, found });
            }
            !task.left.is_empty()
        });
    }
}

/// The table of functions (SAM-5 7; virtio 1.3 5.6.6.2).
fn plan(request: &ControlRequest) -> Plan {
    use TaskManagementFunction::*;
    let (function, address, tag) = match *request {
        // A block device offers no event to subscribe to.
        ControlRequest::AsynchronousNotification => {
            return Plan::Answer(ControlResponse::FunctionComplete);
        }
        ControlRequest::Unknown => return Plan::Answer(ControlResponse::FunctionRejected),
        ControlRequest::TaskManagement { function, address, tag } => (function, address, tag),
    };
    match (address, function) {
        (Address::LogicalUnit { target: 0, .. }, ITNexusReset) => {
            return Plan::Ask(Task::ResetAll, Some(Asc::I_T_NEXUS_LOSS));
        }
        (Address::LogicalUnit { target: 0, lun: 0 }, _) => {}
        (Address::LogicalUnit { target: 0, .. } | Address::ReportLunsOf { target: 0 }, _)
        | (Address::ReportLuns, _) => return Plan::Answer(ControlResponse::IncorrectLun),
        _ => return Plan::Answer(ControlResponse::BadTarget),
    }
    match function {
        AbortTask => Plan::Ask(Task::Abort(tag), None),
        AbortTaskSet | ClearTaskSet => Plan::Ask(Task::AbortAll, None),
        ITNexusReset => Plan::Ask(Task::ResetAll, Some(Asc::I_T_NEXUS_LOSS)),
        LogicalUnitReset => Plan::Ask(Task::ResetAll, Some(Asc::BUS_DEVICE_RESET)),
        QueryTask => Plan::Ask(Task::Query(tag), None),
        QueryTaskSet => Plan::Ask(Task::QueryAny, None),
        ClearAca | Unknown(_) => Plan::Answer(ControlResponse::FunctionRejected),
    }
}
