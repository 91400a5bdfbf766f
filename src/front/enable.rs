//! How rings are enabled: the control ring last.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::session::{Result, Session};
use super::worker::Command;
use super::workers::Line;
use crate::engine::Lanes;
use crate::ids::RingIndex;

/// Enables a ring when all others are so far: when the last of them lets go of this.
#[derive(Debug)]
pub struct EnableLast {
    /// To the worker of the ring.
    line: Line,
    ring: RingIndex,
    /// False when the front end does not want it any more.
    wanted: Arc<AtomicBool>,
}

impl Drop for EnableLast {
    fn drop(&mut self) {
        self.line.send(Command::EnableIf(self.ring, self.wanted.clone()));
    }
}

/// The front end wants the control ring to be enabled. Dropped, it does not any more, and an
/// [`EnableLast`] that comes late does nothing.
#[derive(Debug)]
pub(super) struct Wish(Arc<AtomicBool>);

impl Drop for Wish {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl<F: Lanes> Session<F> {
    /// SET_VRING_ENABLE. It may come before all else, and for rings that are never set up.
    pub fn set_ring_enable(&mut self, index: u32, enabled: bool) -> Result<()> {
        let (at, ring) = self.ring(index)?;
        ring.enabled = enabled;
        let running = ring.running;
        if at == RingIndex::CONTROL && !enabled {
            self.wish = None;
        }
        if running {
            if at != RingIndex::CONTROL || !enabled {
                self.tell(at, Command::Enable(at, enabled));
            }
            self.enable_control();
            return Ok(());
        }
        if enabled { self.start(at) } else { Ok(()) }
    }

    /// Has requests be taken from the control ring, if that was asked for and all request rings
    /// that run are so far. A task management function may have waited in its ring for a device, and
    /// what it is about in theirs: taken first, it would find nothing to end.
    pub(super) fn enable_control(&mut self) {
        let control = &self.rings[usize::from(RingIndex::CONTROL.0)];
        let requests = self.running().into_iter().filter(|at| *at >= RingIndex::FIRST_REQUEST);
        let requests: Vec<RingIndex> = requests.collect();
        let enabled = |at: &RingIndex| self.rings[usize::from(at.0)].enabled;
        let worker = self.workers.get(RingIndex::CONTROL).filter(|_| control.running);
        if let Some(worker) = worker
            && control.enabled
            && requests.iter().all(enabled)
        {
            let (line, wanted) = (worker.line().clone(), Arc::new(AtomicBool::new(true)));
            self.wish = Some(Wish(wanted.clone()));
            let last = Arc::new(EnableLast { line, ring: RingIndex::CONTROL, wanted });
            for at in requests {
                self.tell(at, Command::Passed(last.clone()));
            }
        }
    }
}
