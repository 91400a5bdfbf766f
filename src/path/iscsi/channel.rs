//! A lane's end of the session.

use std::io;
use std::mem;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Instant;

use super::mailbox::{ChannelId, Gate, Job, Mailbox, Message};
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
    /// Submitted and not flushed.
    batch: Vec<Job>,
    /// Ended without the thread's help.
    ended: Vec<Ended>,
    now: Instant,
}

impl IscsiChannel {
    pub(super) fn open(mailbox: &Arc<Mailbox>) -> io::Result<Self> {
        let outbox = Arc::new(Outbox::new()?);
        let id = mailbox.new_channel();
        // A thread that has ended lets every attempt fail; see `flush`.
        let _ = mailbox.post(Message::Open(id, Arc::clone(&outbox)));
        Ok(IscsiChannel {
            id,
            mailbox: Arc::clone(mailbox),
            outbox,
            batch: Vec::new(),
            ended: Vec::new(),
            now: Instant::now(),
        })
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
        let batch = Message::Jobs(mem::take(&mut self.batch));
        if let Some(Message::Jobs(jobs)) = self.mailbox.post(batch) {
            jobs.iter().for_each(|job| self.fail(job.attempt, Failure::Disconnected));
        }
    }

    fn reap(&mut self, now: Instant, ended: &mut Vec<Ended>) {
        self.now = now;
        ended.append(&mut self.ended);
        self.outbox.take(ended);
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
        Some(self.outbox.fd())
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
