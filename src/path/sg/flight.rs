//! One attempt: who may touch the guest's memory now, and who ends it.
//!
//! ```text
//!   queued --> loading --> sent --> storing --> over     the thread's steps
//!     |           |          |
//!     v           v          v                           a recall
//!    over     cancelled  abandoned                       (sent from the guest's memory: none)
//! ```
//!
//! Each step is one exchange of the stage: of thread and lane exactly one ends the attempt, and the
//! thread touches lent memory only while it is loading or storing, which takes as long as a copy.

use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use super::parked::Parked;
use crate::buffer::Segments;
use crate::ids::AttemptId;
use crate::path::outbox::{Outbox, lock};
use crate::path::{Ended, Failure, Fate, Reach, Task};
use crate::scsi::Cdb;

/// Where an attempt is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Stage {
    /// No thread has it.
    Queued,
    /// Its data is being copied from the guest's memory.
    Loading,
    /// As that; its end is wanted.
    Cancelled,
    /// The kernel has it, with memory of our own.
    Sent,
    /// The kernel has it, with the guest's memory.
    SentLent,
    /// As sent; the lane has its end, and what the kernel says concerns nobody but [`Parked`].
    Abandoned,
    /// Its data is being copied to the guest's memory.
    Storing,
    /// It has ended.
    Over,
}

/// One attempt.
#[derive(Debug)]
pub(super) struct Flight {
    stage: AtomicU8,
    /// Its number once it is abandoned.
    number: AtomicU32,
    pub(super) attempt: AttemptId,
    pub(super) cdb: Cdb,
    pub(super) data_out: Segments,
    pub(super) data_in: Segments,
    outbox: Arc<Outbox>,
}

impl Flight {
    pub(super) fn new(attempt: AttemptId, task: &Task<'_>, outbox: &Arc<Outbox>) -> Self {
        Flight {
            stage: AtomicU8::new(Stage::Queued as u8),
            number: AtomicU32::new(0),
            attempt,
            cdb: *task.cdb,
            data_out: task.data_out.clone(),
            data_in: task.data_in.clone(),
            outbox: Arc::clone(outbox),
        }
    }

    /// Bytes of data.
    pub(super) fn room(&self) -> u32 {
        (self.data_out.len() + self.data_in.len()) as u32
    }

    /// Goes from one stage to the next; false when a recall was faster.
    pub(super) fn step(&self, from: Stage, to: Stage) -> bool {
        let (acquire, order) = (Ordering::Acquire, Ordering::AcqRel);
        self.stage.compare_exchange(from as u8, to as u8, order, acquire).is_ok()
    }

    /// True when the attempt is in this stage.
    pub(super) fn is(&self, stage: Stage) -> bool {
        self.stage.load(Ordering::Acquire) == stage as u8
    }

    /// The number under which it was given up.
    pub(super) fn number(&self) -> u32 {
        self.number.load(Ordering::Acquire)
    }

    /// Ends the attempt: the thread has let go of the lent memory.
    pub(super) fn end(&self, fate: Fate) {
        self.outbox.put_one(Ended { attempt: self.attempt, fate, session: 0 });
        self.stage.store(Stage::Over as u8, Ordering::Release);
    }

    /// Ends the attempt if no thread has it yet.
    pub(super) fn end_queued(&self, failure: Failure) {
        if self.step(Stage::Queued, Stage::Loading) {
            self.end(Fate::Failed(failure, Reach::NotSent));
        }
    }

    /// The lane wants the end. It is returned if it is the lane's to give; else it comes, at once
    /// or (with the guest's memory in the kernel) when the kernel is done.
    pub(super) fn recall(&self, parked: &Mutex<Parked>) -> Option<Ended> {
        if self.step(Stage::Queued, Stage::Over) {
            return Some(self.recalled(Reach::NotSent, 0));
        }
        if self.step(Stage::Loading, Stage::Cancelled) || !self.is(Stage::Sent) {
            return None;
        }
        let mut parked = lock(parked);
        // The number first: when the thread sees that it was given up, the number is there.
        let number = parked.park();
        self.number.store(number, Ordering::Release);
        if self.step(Stage::Sent, Stage::Abandoned) {
            return Some(self.recalled(Reach::Parked, number));
        }
        parked.forget(number);
        None
    }

    fn recalled(&self, reach: Reach, session: u32) -> Ended {
        let fate = Fate::Failed(Failure::Recalled, reach);
        Ended { attempt: self.attempt, fate, session }
    }
}
