//! The helper: a thread that runs what may wait for a disk, so that no lane does.
//!
//! One per array, begun and gone with it. One is enough: plain reads and writes go around it, and
//! what comes here is rare. Work on memory never comes here, but for what is kept in a file.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex};

use super::array::Array;
use super::execute::{Call, Transfer, store_refusal};
use super::lock;
use super::port::PortState;
use super::table::Command;
use crate::buffer::Segments;
use crate::confine::{self, Class};
use crate::ids::AttemptId;
use crate::path::Answer;
use crate::path::waker::Waker;
use crate::scsi::Cdb;

/// What the helper can be asked for. Its memory is bounded by the channels: each has at most
/// [`EMULATED_FLIGHTS_MAX`](crate::limits::EMULATED_FLIGHTS_MAX) commands under way.
pub(super) enum Work {
    /// A command, for a channel that waits for its answer.
    Command(Job),
    /// A flush that nobody waits for.
    Sync(std::sync::Weak<Array>),
}

/// A command with everything it needs, and where its answer goes.
pub(super) struct Job {
    pub(super) port: Arc<PortState>,
    pub(super) cdb: Cdb,
    pub(super) data_out: Segments,
    pub(super) data_in: Segments,
    pub(super) task: JobTask,
    pub(super) attempt: AttemptId,
    pub(super) mailbox: Arc<Mailbox>,
}

/// Which part of the command is left to do.
pub(super) enum JobTask {
    /// All of it.
    Work(&'static Command),
    /// A plain read, where the channel has no ring.
    Read(Transfer),
    /// A plain write that waits for an exclusive command, or where the channel has no ring.
    Write(Transfer),
    /// A flush, where the channel has no ring.
    Sync,
}

/// Answers on their way back to one channel.
pub(super) struct Mailbox {
    waker: Arc<Waker>,
    state: Mutex<Mail>,
    changed: Condvar,
}

#[derive(Default)]
struct Mail {
    answers: Vec<(AttemptId, Answer)>,
    outstanding: usize,
}

impl Mailbox {
    pub(super) fn new(waker: Arc<Waker>) -> Arc<Self> {
        Arc::new(Mailbox { waker, state: Mutex::default(), changed: Condvar::new() })
    }

    /// The answers that have come in.
    pub(super) fn take(&self) -> Vec<(AttemptId, Answer)> {
        std::mem::take(&mut lock(&self.state).answers)
    }

    /// Waits until the helper touches nothing more for this channel.
    pub(super) fn drain(&self) {
        let state = lock(&self.state);
        let idle = self.changed.wait_while(state, |state| state.outstanding > 0);
        drop(idle);
    }

    fn begin(&self) {
        lock(&self.state).outstanding += 1;
    }

    fn end(&self, attempt: AttemptId, answer: Option<Answer>) {
        let mut state = lock(&self.state);
        state.outstanding -= 1;
        state.answers.extend(answer.map(|answer| (attempt, answer)));
        drop(state);
        self.changed.notify_all();
        self.waker.raise();
    }
}

/// The array's end of its helper.
#[derive(Debug)]
pub(super) struct Helper(Option<Sender<Work>>);

impl Default for Helper {
    /// Starts the thread: those who need it later may start none.
    fn default() -> Self {
        let (to, from) = channel();
        let thread = std::thread::Builder::new().name("emulated-array".to_owned());
        let started = thread.spawn(move || {
            confine::enter(Class::Array);
            serve(&from);
        });
        Helper(started.is_ok().then_some(to))
    }
}

impl Helper {
    /// Hands a job over. False when the host has no thread for it.
    pub(super) fn run(&self, job: Job) -> bool {
        let (mailbox, attempt) = (job.mailbox.clone(), job.attempt);
        mailbox.begin();
        let sent = self.send(Work::Command(job));
        if !sent {
            mailbox.end(attempt, None);
        }
        sent
    }

    /// Begins a flush and does not wait for it.
    pub(super) fn sync_soon(&self, array: &Arc<Array>) {
        // Where there is no thread, the next SYNCHRONIZE CACHE is as good.
        let _ = self.send(Work::Sync(Arc::downgrade(array)));
    }

    fn send(&self, work: Work) -> bool {
        self.0.as_ref().is_some_and(|helper| helper.send(work).is_ok())
    }
}

/// Runs until the array, which holds the other end, is gone.
fn serve(work: &Receiver<Work>) {
    while let Ok(work) = work.recv() {
        match work {
            Work::Command(job) => {
                let (answer, mailbox, attempt) = (job.run(), job.mailbox.clone(), job.attempt);
                // What keeps port and array alive goes before the answer: who sees the answer may
                // open the image again.
                drop(job);
                mailbox.end(attempt, Some(answer));
            }
            Work::Sync(array) => {
                if let Some(array) = array.upgrade()
                    && let Err(error) = array.store.write_back()
                {
                    log::warn!("flushing the image of {} failed: {error}", array.wwid());
                }
            }
        }
    }
}

impl Job {
    fn run(&self) -> Answer {
        let call = Call {
            port: &self.port,
            cdb: &self.cdb,
            data_out: &self.data_out,
            data_in: &self.data_in,
        };
        match &self.task {
            JobTask::Work(command) => call.work(command),
            JobTask::Read(transfer) => call.read_now(transfer),
            JobTask::Write(transfer) => call.write_in_turn(transfer),
            JobTask::Sync => call.sync_now(),
        }
    }
}

impl Call<'_> {
    /// Moves the data of a plain read, and waits for it.
    pub(super) fn read_now(&self, transfer: &Transfer) -> Answer {
        let moved = self.array().store.read(transfer.offset, self.data_in, transfer.bytes);
        let reply = moved.map(|()| transfer.done).map_err(|error| store_refusal(&error, false));
        self.answer(reply)
    }

    /// Moves the data of a plain write that has entered the exclusion, and waits for it.
    pub(super) fn write_now(&self, transfer: &Transfer) -> Answer {
        let Transfer { offset, bytes, durable, done } = *transfer;
        let moved = self.array().store.write(offset, self.data_out, bytes, durable);
        self.answer(moved.map(|()| done).map_err(|error| store_refusal(&error, true)))
    }

    /// Moves the data of a plain write behind the exclusive commands that are under way.
    pub(super) fn write_in_turn(&self, transfer: &Transfer) -> Answer {
        let answer = self.in_turn(|| Ok(self.write_now(transfer)));
        answer.unwrap_or_else(|refusal| self.answer(Err(refusal)))
    }

    /// SYNCHRONIZE CACHE, waiting for it.
    pub(super) fn sync_now(&self) -> Answer {
        let synced = self.array().store.sync();
        let reply = synced.map(|()| super::reply::Done::good(0));
        self.answer(reply.map_err(|error| store_refusal(&error, true)))
    }
}
