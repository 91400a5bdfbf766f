//! A lane's end of a port.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::engine::Engine;
use super::exclusion::Gauge;
use super::execute::Call;
use super::faults_state::Verdict;
use super::helper::Mailbox;
use super::port::PortState;
use super::ring_sys::{Landed, Op};
use crate::buffer::Segments;
use crate::ids::AttemptId;
use crate::path::waker::Waker;
use crate::path::{Answer, Channel, Ended, Failure, Fate, Reach, Task};
use crate::scsi::Cdb;

/// How soon a ring that did not take everything is asked again.
const STUCK_RETRY: Duration = Duration::from_millis(1);

/// What an attempt was when it began. Goes with it through engine and helper.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ticket {
    pub(super) attempt: AttemptId,
    /// Times the link had been cut.
    cuts: u32,
    /// Its answer is withheld until faults are cleared once more than so many times.
    hang: Option<u32>,
}

/// A command that a fault keeps from the device server.
struct Parked {
    ticket: Ticket,
    cdb: Cdb,
    data_out: Segments,
    data_in: Segments,
    /// When it goes on; never, if it is lost.
    until: Option<Instant>,
}

/// A lane's end of a port.
///
/// It owns its engine and the attempts that it was given; what it shares with other channels
/// (port, array) is looked at through atomics on the way of a command. Dropping it waits for the
/// kernel and the helper, since lent memory must not be touched afterwards.
pub struct PortChannel {
    // Before the port, so that the ring goes before the file.
    pub(super) engine: Engine,
    pub(super) port: Arc<PortState>,
    waker: Arc<Waker>,
    pub(super) gauge: Arc<Gauge>,
    pub(super) mailbox: Arc<Mailbox>,
    pub(super) jobs: Vec<Ticket>,
    ended: Vec<Ended>,
    parked: Vec<Parked>,
    held: Vec<(AttemptId, Answer)>,
    /// Recalled while they were in the kernel and their answer is to be withheld.
    recalled: Vec<AttemptId>,
    pub(super) landed: Vec<Landed>,
    cuts: u32,
    clears: u32,
    now: Instant,
}

impl PortChannel {
    pub(super) fn new(port: Arc<PortState>) -> io::Result<Self> {
        let waker = Arc::new(Waker::new()?);
        let engine = Engine::choose(&port.array.store, &waker)?;
        Ok(Self::with_engine(port, engine, waker))
    }

    /// With an engine of the caller's choice.
    pub(super) fn with_engine(port: Arc<PortState>, engine: Engine, waker: Arc<Waker>) -> Self {
        let gauge = port.array.exclusion.gauge();
        port.add_waker(&waker);
        let (cuts, clears) = port.faults.epochs();
        PortChannel {
            engine,
            mailbox: Mailbox::new(waker.clone()),
            waker,
            gauge,
            jobs: Vec::new(),
            ended: Vec::new(),
            parked: Vec::new(),
            held: Vec::new(),
            recalled: Vec::new(),
            landed: Vec::new(),
            cuts,
            clears,
            now: Instant::now(),
            port,
        }
    }

    /// The device server has answered; faults have the last word on what comes back.
    pub(super) fn land(&mut self, ticket: Ticket, answer: Answer) {
        let attempt = ticket.attempt;
        let (cuts, clears) = self.port.faults.epochs();
        let recalled = self.recalled.iter().position(|recalled| *recalled == attempt);
        if let Some(at) = recalled {
            self.recalled.swap_remove(at);
        }
        if ticket.cuts != cuts {
            return self.fail(attempt, Failure::Disconnected, Reach::Terminated);
        }
        if ticket.hang == Some(clears) {
            return match recalled {
                None => self.held.push((attempt, answer)),
                Some(_) => self.fail(attempt, Failure::Recalled, Reach::Unknown),
            };
        }
        self.ended.push(Ended { attempt, fate: Fate::Answered(answer), session: 0 });
    }

    pub(super) fn fail(&mut self, attempt: AttemptId, failure: Failure, reach: Reach) {
        self.ended.push(Ended { attempt, fate: Fate::Failed(failure, reach), session: 0 });
    }

    /// News from other threads: answers of the helper, faults set or cleared.
    fn take_news(&mut self) {
        for (attempt, answer) in self.mailbox.take() {
            let Some(at) = self.jobs.iter().position(|job| job.attempt == attempt) else {
                debug_assert!(false, "an answer to no job");
                continue;
            };
            let ticket = self.jobs.swap_remove(at);
            self.land(ticket, answer);
        }
        let (cuts, clears) = self.port.faults.epochs();
        if std::mem::replace(&mut self.cuts, cuts) != cuts {
            // What is in the kernel ends when the kernel returns; see `land`.
            for parked in std::mem::take(&mut self.parked) {
                self.fail(parked.ticket.attempt, Failure::Disconnected, Reach::Terminated);
            }
            for (attempt, _) in std::mem::take(&mut self.held) {
                self.fail(attempt, Failure::Disconnected, Reach::Terminated);
            }
        }
        if std::mem::replace(&mut self.clears, clears) != clears {
            for (attempt, answer) in std::mem::take(&mut self.held) {
                self.ended.push(Ended { attempt, fate: Fate::Answered(answer), session: 0 });
            }
            self.resume(|_| true);
        }
    }

    /// Sends on the parked commands that were only delayed, where `due` says so.
    fn resume(&mut self, due: impl Fn(Instant) -> bool) {
        let (go, stay) = std::mem::take(&mut self.parked)
            .into_iter()
            .partition(|parked: &Parked| parked.until.is_some_and(&due));
        self.parked = stay;
        let go: Vec<Parked> = go;
        for Parked { ticket, cdb, data_out, data_in, .. } in go {
            self.begin(ticket, Task { cdb: &cdb, data_out: &data_out, data_in: &data_in });
        }
    }

    fn park(&mut self, ticket: Ticket, task: Task<'_>, until: Option<Instant>) {
        self.parked.push(Parked {
            ticket,
            cdb: *task.cdb,
            data_out: task.data_out.clone(),
            data_in: task.data_in.clone(),
            until,
        });
    }
}

impl Channel for PortChannel {
    fn submit(&mut self, attempt: AttemptId, task: Task<'_>, now: Instant) {
        self.now = now;
        let (cuts, clears) = self.port.faults.epochs();
        let mut ticket = Ticket { attempt, cuts, hang: None };
        if self.port.faults.is_armed() {
            let bytes = task.data_in.len() + task.data_out.len();
            match self.port.faults.decide(bytes as u64, now) {
                Verdict::Pass => {}
                Verdict::Lose => return self.park(ticket, task, None),
                Verdict::Wait(until) => return self.park(ticket, task, Some(until)),
                Verdict::Hang => ticket.hang = Some(clears),
                Verdict::Refuse(refusal) => {
                    let answer = Call::new(&self.port, &task).answer(Err(refusal));
                    return self.land(ticket, answer);
                }
                Verdict::Down => {
                    return self.fail(attempt, Failure::Disconnected, Reach::NotSent);
                }
            }
        }
        self.begin(ticket, task);
    }

    fn flush(&mut self) {
        if let Engine::Ring(engine) = &mut self.engine {
            engine.ring.flush();
        }
    }

    fn reap(&mut self, now: Instant, ended: &mut Vec<Ended>) {
        self.now = now;
        if self.waker.take() {
            self.take_news();
        }
        self.take_landed();
        if !self.parked.is_empty() {
            self.resume(|until| until <= now);
        }
        // What went on by itself has no batch to be flushed with.
        self.flush();
        ended.append(&mut self.ended);
    }

    fn recall(&mut self, attempt: AttemptId) {
        // What had happened before counts: the manager may have heard of a cut first, and has the
        // attempts recalled whose end the cut has proven.
        if self.port.faults.epochs() != (self.cuts, self.clears) {
            self.take_news();
        }
        if let Some(at) = self.parked.iter().position(|parked| parked.ticket.attempt == attempt) {
            let parked = self.parked.swap_remove(at);
            // Lost on the way, the initiator cannot know where; delayed, it has not left.
            let lost = parked.until.is_none();
            let reach = if lost { Reach::Unknown } else { Reach::Terminated };
            self.fail(attempt, Failure::Recalled, reach);
        } else if let Some(at) = self.held.iter().position(|held| held.0 == attempt) {
            self.held.swap_remove(at);
            self.fail(attempt, Failure::Recalled, Reach::Unknown);
        } else if self.is_withheld(attempt) && !self.recalled.contains(&attempt) {
            self.recalled.push(attempt);
        }
        // Anything else is in the kernel or the helper, ends with what happens there, and soon.
    }

    fn ready_fd(&self) -> Option<RawFd> {
        Some(match &self.engine {
            Engine::Ring(engine) => engine.ready_fd(),
            Engine::Inline | Engine::Helper => self.waker.as_raw_fd(),
        })
    }

    fn next_timer(&self) -> Option<Instant> {
        if !self.ended.is_empty() {
            return Some(self.now);
        }
        let stuck = match &self.engine {
            Engine::Ring(engine) if engine.ring.is_stuck() => Some(self.now + STUCK_RETRY),
            _ => None,
        };
        self.parked.iter().filter_map(|parked| parked.until).chain(stuck).min()
    }
}

impl PortChannel {
    /// True for an attempt under way whose answer is going to be withheld.
    fn is_withheld(&self, attempt: AttemptId) -> bool {
        let withheld = |ticket: &Ticket| ticket.attempt == attempt && ticket.hang.is_some();
        let flying = match &self.engine {
            Engine::Ring(engine) => engine.ring.tickets().any(withheld),
            Engine::Inline | Engine::Helper => false,
        };
        flying || self.jobs.iter().any(withheld)
    }
}

impl Drop for PortChannel {
    fn drop(&mut self) {
        if let Engine::Ring(engine) = &mut self.engine {
            engine.ring.drain(&mut self.landed);
            for _ in self.landed.drain(..).filter(|landed| landed.op == Op::Write) {
                self.port.array.exclusion.leave(&self.gauge);
            }
        }
        self.mailbox.drain();
    }
}
