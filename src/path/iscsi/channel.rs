//! A lane's end of the session.

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::time::Instant;

use super::helm::Helm;
use super::mailbox::{ChannelId, Door, Gate, Job, Mailbox, Message};
use super::ready::Ready;
use crate::ids::AttemptId;
use crate::limits::{ISCSI_CDB_MAX, ISCSI_TRANSFER_MAX};
use crate::path::outbox::Outbox;
use crate::path::{Channel, Ended, Failure, Fate, Reach, Task};

/// A lane's end of the session. Dropping it waits until the path's thread has let go of what was
/// lent: that ends the session if something is under way.
#[derive(Debug)]
pub struct IscsiChannel {
    id: ChannelId,
    mailbox: Arc<Mailbox>,
    outbox: Arc<Outbox>,
    /// A lane's own way to the connection.
    lane: Option<LaneEnd>,
    /// Submitted and not flushed.
    batch: Vec<Job>,
    /// Ended without the thread's help.
    ended: Vec<Ended>,
    now: Instant,
}

/// What a lane needs to serve the connection itself.
#[derive(Debug)]
struct LaneEnd {
    helm: Arc<Helm>,
    ready: Arc<Ready>,
    /// It reads, as far as it knows.
    reads: bool,
    /// Nothing can be there that has not been looked for, or would wake the lane.
    looked: bool,
}

impl IscsiChannel {
    /// A channel that serves the connection itself where it can.
    pub(super) fn for_lane(mailbox: &Arc<Mailbox>, helm: &Arc<Helm>) -> io::Result<Self> {
        Self::open(mailbox, Some(helm))
    }

    /// A channel that leaves everything to the path's thread where no helm is given.
    pub(super) fn open(mailbox: &Arc<Mailbox>, helm: Option<&Arc<Helm>>) -> io::Result<Self> {
        let outbox = Arc::new(Outbox::new()?);
        let lane = match helm {
            None => None,
            Some(helm) => {
                let (helm, ready) = (Arc::clone(helm), Arc::new(Ready::new(outbox.fd())?));
                Some(LaneEnd { helm, ready, reads: false, looked: false })
            }
        };
        let id = mailbox.new_channel();
        let ready = lane.as_ref().map(|lane| Arc::clone(&lane.ready));
        // A thread that has ended lets every attempt fail; see `flush`.
        let _ = mailbox.post(Message::Open(id, Door { outbox: Arc::clone(&outbox), ready }));
        Ok(IscsiChannel {
            id,
            mailbox: Arc::clone(mailbox),
            outbox,
            lane,
            batch: Vec::new(),
            ended: Vec::new(),
            now: Instant::now(),
        })
    }

    /// Sends the batch itself; false where the thread has to do that.
    fn send(&mut self) -> bool {
        let Some(lane) = &mut self.lane else { return false };
        let Some(mut held) = lane.helm.try_hold() else { return false };
        let Some(driver) = &mut *held else { return false };
        match driver.submit(self.id, &mut self.batch, self.now, &mut self.ended) {
            // An answer that is there already wakes the lane; to look for it is mostly in vain.
            Some(reads) => (lane.reads, lane.looked) = (reads, true),
            None => return false,
        }
        true
    }

    /// Reads what has come, where that is this lane's part.
    fn read(&mut self, ended: &mut Vec<Ended>) {
        let Some(lane) = &mut self.lane else { return };
        // A lane asks again in the same turn, after it has sent or been given something.
        if !lane.reads || mem::take(&mut lane.looked) {
            return;
        }
        let Some(mut held) = lane.helm.try_hold() else { return };
        let Some(driver) = &mut *held else { return lane.reads = false };
        let before = ended.len();
        lane.reads = driver.read(self.id, self.now, ended);
        lane.looked = ended.len() > before;
    }

    fn fail(&mut self, attempt: AttemptId, failure: Failure) {
        let fate = Fate::Failed(failure, Reach::NotSent);
        self.ended.push(Ended { attempt, fate, session: 0 });
    }
}

/// A PDU without additional headers carries so much; libiscsi knows one direction at a time.
fn can_carry(task: &Task<'_>) -> bool {
    let (to_device, to_host) = (task.data_out.len(), task.data_in.len());
    task.cdb.bytes().len() <= ISCSI_CDB_MAX
        && !task.cdb.bytes().is_empty()
        && (to_device == 0 || to_host == 0)
        && to_device.max(to_host) <= ISCSI_TRANSFER_MAX as usize
}

impl Channel for IscsiChannel {
    fn submit(&mut self, attempt: AttemptId, task: Task<'_>, now: Instant) {
        self.now = now;
        if !can_carry(&task) {
            return self.fail(attempt, Failure::Unsupported);
        }
        self.batch.push(Job {
            channel: self.id,
            attempt,
            cdb: *task.cdb,
            data_out: task.data_out.clone(),
            data_in: task.data_in.clone(),
        });
    }

    fn flush(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        if self.send() {
            return;
        }
        let batch = Message::Jobs(mem::take(&mut self.batch));
        if let Some(Message::Jobs(jobs)) = self.mailbox.post(batch) {
            jobs.iter().for_each(|job| self.fail(job.attempt, Failure::Disconnected));
        }
    }

    fn reap(&mut self, now: Instant, ended: &mut Vec<Ended>) {
        self.now = now;
        ended.append(&mut self.ended);
        self.outbox.take(ended);
        self.read(ended);
    }

    fn recall(&mut self, attempt: AttemptId) {
        if let Some(at) = self.batch.iter().position(|job| job.attempt == attempt) {
            self.batch.swap_remove(at);
            return self.fail(attempt, Failure::Recalled);
        }
        // A thread that has ended has ended every attempt.
        let _ = self.mailbox.post(Message::Recall(self.id, attempt));
    }

    fn ready_fd(&self) -> Option<RawFd> {
        let ready = self.lane.as_ref().map(|lane| lane.ready.as_raw_fd());
        Some(ready.unwrap_or_else(|| self.outbox.fd()))
    }

    fn next_timer(&self) -> Option<Instant> {
        (!self.ended.is_empty()).then_some(self.now)
    }
}

impl Drop for IscsiChannel {
    fn drop(&mut self) {
        let gate = Arc::new(Gate::default());
        if self.mailbox.post(Message::Close(self.id, Arc::clone(&gate))).is_none() {
            gate.wait();
        }
    }
}
