//! The workers of the process, one per lane. A lane and its thread live from the first start of
//! its ring to the end of the process, over any number of front ends.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Instant;

use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::worker::{Command, Worker};
use crate::confine::{self, Class};
use crate::engine::Lanes;
use crate::ids::{LaneId, RingIndex};
use crate::limits::RINGS_MAX;

/// The way to a worker.
#[derive(Clone, Debug)]
pub struct Line {
    commands: Sender<Command>,
    wake: Arc<EventFd>,
}

impl Line {
    /// Has the worker obey `command` soon. Where the thread has ended, the command and the sender
    /// of its answer are dropped, which whoever waits for the answer notices.
    pub fn send(&self, command: Command) {
        if self.commands.send(command).is_ok() {
            // Not blocking; a full counter wakes the thread just as well.
            let _ = self.wake.write(1);
        }
    }
}

/// A worker as the protocol thread sees it.
#[derive(Debug)]
pub struct Handle {
    line: Line,
    /// Nothing ever comes through it: it is closed when the thread ends.
    ended: Receiver<()>,
}

impl Handle {
    /// The way to it.
    pub fn line(&self) -> &Line {
        &self.line
    }
}

/// All workers.
#[derive(Debug)]
pub struct Workers<F> {
    lanes: Arc<F>,
    handles: Vec<Option<Handle>>,
}

/// The lane that serves a ring: the first one has the control and the event ring as well.
pub fn lane_of(ring: RingIndex) -> LaneId {
    LaneId(ring.0.saturating_sub(RingIndex::FIRST_REQUEST.0))
}

impl<F: Lanes> Workers<F> {
    /// No worker yet.
    pub fn new(lanes: Arc<F>) -> Self {
        let mut handles = Vec::new();
        handles.resize_with(usize::from(RINGS_MAX), || None);
        Workers { lanes, handles }
    }

    /// The lanes' maker.
    pub fn lanes(&self) -> &Arc<F> {
        &self.lanes
    }

    /// The worker of a ring, if the ring has ever run.
    pub fn get(&self, ring: RingIndex) -> Option<&Handle> {
        self.handles.get(usize::from(lane_of(ring).0))?.as_ref()
    }

    /// The worker of a ring, which is made if there is none.
    pub fn get_or_start(&mut self, ring: RingIndex) -> io::Result<&Handle> {
        let lane = lane_of(ring);
        let slot = self
            .handles
            .get_mut(usize::from(lane.0))
            .ok_or_else(|| io::Error::other("no such lane"))?;
        match slot {
            Some(handle) => Ok(handle),
            None => Ok(slot.insert(spawn(&*self.lanes, lane)?)),
        }
    }

    /// Ends all threads. False when some of them could not let go of the guest's memory by
    /// `deadline`; those are left behind.
    pub fn quit(self, deadline: Instant) -> bool {
        let handles: Vec<Handle> = self.handles.into_iter().flatten().collect();
        handles.iter().for_each(|handle| handle.line.send(Command::Quit));
        handles.iter().fold(true, |all, handle| {
            let left = deadline.saturating_duration_since(Instant::now());
            let ended = handle.ended.recv_timeout(left);
            all && ended == Err(RecvTimeoutError::Disconnected)
        })
    }
}

/// Starts the thread of a lane.
fn spawn<F: Lanes>(lanes: &F, lane: LaneId) -> io::Result<Handle> {
    let (commands, receiver) = channel();
    let (alive, ended) = channel();
    let wake = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?;
    let (driven, woken) = (lanes.lane(lane)?, wake.try_clone()?);
    // The worker is made in its thread: it counts leases without atomics. A failure comes back.
    let (result, made) = channel();
    thread::Builder::new().name(format!("lane-{}", lane.0)).spawn(move || {
        confine::enter(Class::Lane);
        let _alive: Sender<()> = alive;
        match Worker::new(driven, receiver, woken) {
            Ok(worker) => {
                let _ = result.send(Ok(()));
                worker.run();
            }
            Err(error) => {
                let _ = result.send(Err(error));
            }
        }
    })?;
    made.recv().map_err(|_| io::Error::other("the lane's thread ended at once"))??;
    Ok(Handle { line: Line { commands, wake: Arc::new(wake) }, ended })
}
