//! How rings are enabled: the control ring last.

use std::sync::Arc;

use super::session::{Result, Session};
use super::worker::{Command, EnableLast};
use crate::engine::Lanes;
use crate::ids::RingIndex;

impl<F: Lanes> Session<F> {
    /// SET_VRING_ENABLE. It may come before all else, and for rings that are never set up.
    pub fn set_ring_enable(&mut self, index: u32, enabled: bool) -> Result<()> {
        let (at, ring) = self.ring(index)?;
        ring.enabled = enabled;
        if ring.running {
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
    pub(super) fn enable_control(&self) {
        let control = &self.rings[usize::from(RingIndex::CONTROL.0)];
        let requests = self.running().into_iter().filter(|at| *at >= RingIndex::FIRST_REQUEST);
        let requests: Vec<RingIndex> = requests.collect();
        let enabled = |at: &RingIndex| self.rings[usize::from(at.0)].enabled;
        let worker = self.workers.get(RingIndex::CONTROL).filter(|_| control.running);
        if let Some(worker) = worker
            && control.enabled
            && requests.iter().all(enabled)
        {
            let line = worker.line().clone();
            let last = Arc::new(EnableLast { line, ring: RingIndex::CONTROL });
            for at in requests {
                self.tell(at, Command::Passed(last.clone()));
            }
        }
    }
}
