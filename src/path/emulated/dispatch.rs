//! From a channel to whoever does the work (lane, kernel, helper), and back from the kernel.

use super::channel::{PortChannel, Ticket};
use super::engine::Engine;
use super::exclusion::Gauge;
use super::execute::{Call, Start, Transfer, store_refusal};
use super::helper::{Job, JobTask};
use super::reply::{self, Done, Refusal};
use super::ring_sys::{Landed, Op};
use crate::limits::EMULATED_FLIGHTS_MAX;
use crate::path::{Answer, Failure, Reach, Task};
use crate::scsi::Status;

impl PortChannel {
    /// Sends a command to the device server.
    pub(super) fn begin(&mut self, ticket: Ticket, task: Task<'_>) {
        let call = Call::new(&self.port, &task);
        let answer = match call.start() {
            Start::Ended(answer) => answer,
            start => match &mut self.engine {
                Engine::Inline if call.may_keep(&start) => {
                    return self.delegate(ticket, task, start);
                }
                Engine::Inline => run_here(&call, &start, &self.gauge),
                Engine::Ring(engine) => {
                    let ring = &mut engine.ring;
                    let full = ring.flying() + self.jobs.len() >= EMULATED_FLIGHTS_MAX;
                    let exclusion = &self.port.array.exclusion;
                    let store = &self.port.array.store;
                    let done = Done::good(0);
                    let flush = Transfer { offset: 0, bytes: 0, done, durable: false };
                    match start {
                        _ if full => call.answer(Err(Refusal::Status(Status::TASK_SET_FULL))),
                        Start::Read(transfer) if store.takes(task.data_in) => {
                            return ring.start(ticket, Op::Read, transfer, task.data_in);
                        }
                        Start::Sync => return ring.start(ticket, Op::Sync, flush, task.data_in),
                        Start::Write(transfer)
                            if store.takes(task.data_out) && exclusion.enter(&self.gauge) =>
                        {
                            match call.may_still_write() {
                                Ok(()) => {
                                    return ring.start(ticket, Op::Write, transfer, task.data_out);
                                }
                                Err(refusal) => {
                                    exclusion.leave(&self.gauge);
                                    call.answer(Err(refusal))
                                }
                            }
                        }
                        start => return self.delegate(ticket, task, start),
                    }
                }
                Engine::Helper if self.jobs.len() >= EMULATED_FLIGHTS_MAX => {
                    call.answer(Err(Refusal::Status(Status::TASK_SET_FULL)))
                }
                Engine::Helper => return self.delegate(ticket, task, start),
            },
        };
        self.land(ticket, answer);
    }

    /// Gives the rest of a command to the helper.
    fn delegate(&mut self, ticket: Ticket, task: Task<'_>, start: Start) {
        let job_task = match start {
            Start::Read(transfer) => JobTask::Read(transfer),
            Start::Write(transfer) => JobTask::Write(transfer),
            Start::Work(command) => JobTask::Work(command),
            Start::Sync => JobTask::Sync,
            Start::Ended(answer) => return self.land(ticket, answer),
        };
        let job = Job {
            port: self.port.clone(),
            cdb: *task.cdb,
            data_out: task.data_out.clone(),
            data_in: task.data_in.clone(),
            task: job_task,
            attempt: ticket.attempt,
            mailbox: self.mailbox.clone(),
        };
        if self.port.array.helper.run(job) {
            self.jobs.push(ticket);
        } else {
            self.fail(ticket.attempt, Failure::HostBusy, Reach::NotSent);
        }
    }

    /// Takes in what the kernel has ended.
    pub(super) fn take_landed(&mut self) {
        let Engine::Ring(engine) = &mut self.engine else { return };
        if engine.ring.flying() == 0 {
            return;
        }
        engine.ring.reap(&mut self.landed);
        let mut landed = std::mem::take(&mut self.landed);
        for Landed { ticket, op, done, room, result } in landed.drain(..) {
            if op == Op::Write {
                self.port.array.exclusion.leave(&self.gauge);
            }
            let reply = result.map(|()| done);
            let reply = reply.map_err(|error| store_refusal(&error, op != Op::Read));
            let descriptor = self.port.array.modes.descriptor_sense();
            self.land(ticket, reply::answer(reply, room, descriptor));
        }
        self.landed = landed;
    }
}

/// Runs a command in the lane, where the store is memory.
fn run_here(call: &Call<'_>, start: &Start, gauge: &Gauge) -> Answer {
    match start {
        Start::Ended(answer) => answer.clone(),
        Start::Read(transfer) => call.read_now(transfer),
        Start::Write(transfer) => {
            let exclusion = &call.array().exclusion;
            if !exclusion.enter(gauge) {
                return call.write_in_turn(transfer);
            }
            let answer = match call.may_still_write() {
                Ok(()) => call.write_now(transfer),
                Err(refusal) => call.answer(Err(refusal)),
            };
            exclusion.leave(gauge);
            answer
        }
        Start::Sync => call.sync_now(),
        Start::Work(command) => call.work(command),
    }
}
