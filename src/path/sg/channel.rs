//! A lane's end of the path.

use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::flight::{Flight, Stage};
use super::kernel::{Kernel, Linux};
use super::shared::Shared;
use crate::ids::AttemptId;
use crate::limits::{SG_CDB_MAX, SG_FLIGHTS_MAX, SG_TRANSFER_MAX};
use crate::path::outbox::Outbox;
use crate::path::{Channel, Ended, Failure, Fate, Reach, Task};

/// The shortest command there is; the kernel sends none that is shorter.
const CDB_MIN: usize = 6;
/// How often a channel that is dropped looks whether its memory has been let go of.
const DROP_STEP: Duration = Duration::from_micros(100);

/// A lane's end of a host device.
pub struct SgChannel(Inner<Linux>);

impl SgChannel {
    pub(super) fn open(shared: &Arc<Shared<Linux>>, probe: bool) -> io::Result<Self> {
        Inner::open(shared, probe).map(SgChannel)
    }
}

/// The same over any kernel. Dropping it waits until the threads have let go of what was lent:
/// that takes as long as a copy, or with the guest's memory in the kernel, as the kernel likes.
pub(super) struct Inner<K: Kernel> {
    shared: Arc<Shared<K>>,
    outbox: Arc<Outbox>,
    /// The manager's: it may see a logical unit that the lanes may not use.
    probe: bool,
    /// Submitted and not flushed.
    batch: Vec<Arc<Flight>>,
    /// Under way, by slot.
    flights: Vec<Option<Arc<Flight>>>,
    flying: usize,
    /// Ended without a thread's help.
    ended: Vec<Ended>,
    now: Instant,
}

impl<K: Kernel> Inner<K> {
    pub(super) fn open(shared: &Arc<Shared<K>>, probe: bool) -> io::Result<Self> {
        let outbox = Arc::new(Outbox::new()?);
        shared.welcome(&outbox);
        Ok(Inner {
            shared: Arc::clone(shared),
            outbox,
            probe,
            batch: Vec::new(),
            flights: Vec::new(),
            flying: 0,
            ended: Vec::new(),
            now: Instant::now(),
        })
    }

    fn fail(&mut self, attempt: AttemptId, failure: Failure) {
        let fate = Fate::Failed(failure, Reach::NotSent);
        self.ended.push(Ended { attempt, fate, session: 0 });
    }

    fn place(&mut self, attempt: AttemptId) -> &mut Option<Arc<Flight>> {
        let at = usize::from(attempt.slot.0);
        if at >= self.flights.len() {
            self.flights.resize(at + 1, None);
        }
        &mut self.flights[at]
    }

    fn forget(&mut self, attempt: AttemptId) {
        let place = self.place(attempt);
        if place.as_ref().is_some_and(|flight| flight.attempt == attempt) {
            *place = None;
            self.flying -= 1;
        }
    }
}

/// The kernel knows one direction at a time.
fn can_carry(task: &Task<'_>) -> bool {
    let (to_device, to_host) = (task.data_out.len(), task.data_in.len());
    (CDB_MIN..=SG_CDB_MAX).contains(&task.cdb.bytes().len())
        && (to_device == 0 || to_host == 0)
        && to_device.max(to_host) <= SG_TRANSFER_MAX as usize
}

impl<K: Kernel> Channel for Inner<K> {
    fn submit(&mut self, attempt: AttemptId, task: Task<'_>, now: Instant) {
        self.now = now;
        if !can_carry(&task) {
            return self.fail(attempt, Failure::Unsupported);
        }
        if self.flying == SG_FLIGHTS_MAX {
            return self.fail(attempt, Failure::HostBusy);
        }
        let flight = Arc::new(Flight::new(attempt, &task, &self.outbox));
        *self.place(attempt) = Some(Arc::clone(&flight));
        self.flying += 1;
        self.batch.push(flight);
    }

    fn flush(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        if let Err(failure) = self.shared.queue(&mut self.batch, self.probe) {
            for flight in std::mem::take(&mut self.batch) {
                self.forget(flight.attempt);
                self.fail(flight.attempt, failure);
            }
        }
    }

    fn reap(&mut self, now: Instant, ended: &mut Vec<Ended>) {
        self.now = now;
        let before = ended.len();
        self.outbox.take(ended);
        for end in &ended[before..] {
            self.forget(end.attempt);
        }
        ended.append(&mut self.ended);
    }

    fn recall(&mut self, attempt: AttemptId) {
        let Some(flight) = self.place(attempt).clone() else { return };
        if flight.attempt != attempt {
            return;
        }
        if let Some(end) = flight.recall(&self.shared.parked) {
            self.batch.retain(|other| other.attempt != attempt);
            self.forget(attempt);
            self.ended.push(end);
        }
    }

    fn ready_fd(&self) -> Option<RawFd> {
        Some(self.outbox.fd())
    }

    fn next_timer(&self) -> Option<Instant> {
        (!self.ended.is_empty()).then_some(self.now)
    }
}

impl<K: Kernel> Drop for Inner<K> {
    fn drop(&mut self) {
        for flight in self.flights.iter().flatten() {
            if flight.recall(&self.shared.parked).is_none() {
                while !flight.is(Stage::Over) {
                    std::thread::sleep(DROP_STEP);
                }
            }
        }
    }
}

impl Channel for SgChannel {
    fn submit(&mut self, attempt: AttemptId, task: Task<'_>, now: Instant) {
        self.0.submit(attempt, task, now);
    }

    fn flush(&mut self) {
        self.0.flush();
    }

    fn reap(&mut self, now: Instant, ended: &mut Vec<Ended>) {
        self.0.reap(now, ended);
    }

    fn recall(&mut self, attempt: AttemptId) {
        self.0.recall(attempt);
    }

    fn ready_fd(&self) -> Option<RawFd> {
        self.0.ready_fd()
    }

    fn next_timer(&self) -> Option<Instant> {
        self.0.next_timer()
    }
}
