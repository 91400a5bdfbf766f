//! How rings stop: by one deadline for all of them.
//!
//! QEMU stops rings one after the other and waits for each, with its monitor and all virtual
//! processors waiting too. So a stop has one deadline, from the first GET_VRING_BASE on, and the
//! rings that are asked later have what is left of it. The answer itself waits for as long as
//! anybody may still touch the ring or its requests' memory: the deadline is for the lane, which
//! fails its commands then, and cannot be for a host path that still writes to guest memory.
//!
//! While LOG_ALL is on a stop is the last step of a migration, as far as anybody can know: the guest
//! goes on elsewhere, over sessions of its own, with what is in memory and without the in-flight
//! region. So nothing is given back; what cannot end the driver is told to send again. And the answer
//! waits until no write whose outcome is unknown can be executed any more: there, newer data may be
//! written to its blocks at once. The lanes get less time, so that this fits into the deadline.

use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Instant;

use super::features::Features;
use super::session::{Result, Session};
use super::worker::{Command, Stop};
use crate::engine::Lanes;
use crate::ids::RingIndex;
use crate::limits::{STOP_GAP, STOP_MARGIN};

/// The deadline that the rings of one stop share.
#[derive(Clone, Copy, Debug)]
pub(super) struct StopWindow {
    deadline: Instant,
    last: Instant,
}

impl<F: Lanes> Session<F> {
    /// GET_VRING_BASE: stops the ring and tells where it stands. Returns when the ring and the
    /// memory of its requests are not touched any more, whatever the deadline says.
    pub fn stop_ring(&mut self, index: u32) -> Result<u16> {
        let (at, ring) = self.ring(index)?;
        if !ring.running {
            return Ok(ring.base);
        }
        let moves = self.features.log_all();
        let deadline = self.shared_deadline(Instant::now());
        let landing = self.workers.lanes().landing_time().min(self.stop_deadline / 2);
        let stop = match moves {
            true => self.send_stop(at, deadline - landing, true),
            false => self.send_stop(at, deadline, false),
        };
        self.await_stop(at, deadline, &stop);
        if moves && at >= RingIndex::FIRST_REQUEST {
            self.await_landing(deadline);
        }
        if let Some(window) = &mut self.stop {
            window.last = Instant::now();
        }
        Ok(self.rings[usize::from(at.0)].base)
    }

    /// The deadline of the stop that is under way, or of a new one.
    fn shared_deadline(&mut self, now: Instant) -> Instant {
        let under_way = |window: &StopWindow| {
            now < window.deadline || now.duration_since(window.last) < STOP_GAP
        };
        let window = self
            .stop
            .filter(under_way)
            .unwrap_or(StopWindow { deadline: now + self.stop_deadline, last: now });
        self.stop = Some(window);
        window.deadline
    }

    fn send_stop(&self, ring: RingIndex, deadline: Instant, moves: bool) -> Receiver<u16> {
        let (reply, stopped) = channel();
        self.tell(ring, Command::Stop(Stop { ring, deadline, moves, reply }));
        stopped
    }

    fn await_landing(&self, deadline: Instant) {
        if !self.workers.lanes().await_landing(deadline + STOP_MARGIN) {
            log::error!(
                "the guest is about to go on elsewhere, and a write of its own may still be executed \
                 from here: what it writes to the same blocks may be overwritten"
            );
        }
    }

    fn await_stop(&mut self, at: RingIndex, deadline: Instant, stopped: &Receiver<u16>) {
        let patience = (deadline + STOP_MARGIN).saturating_duration_since(Instant::now());
        let base = match stopped.recv_timeout(patience) {
            Err(RecvTimeoutError::Timeout) => {
                log::warn!(
                    "ring {} has not stopped by its deadline: a path still holds guest memory",
                    at.0
                );
                stopped.recv().ok()
            }
            result => result.ok(),
        };
        if at == RingIndex::CONTROL {
            self.wish = None;
        }
        let ring = &mut self.rings[usize::from(at.0)];
        ring.running = false;
        // Where the worker could not start the ring, nothing was taken from it.
        ring.base = base.unwrap_or(ring.base);
    }

    /// Stops all rings, by one deadline, at the same time.
    pub(super) fn stop_all(&mut self, deadline: Instant) {
        let running = self.running();
        let stops: Vec<_> =
            running.iter().map(|at| (*at, self.send_stop(*at, deadline, false))).collect();
        for (at, stop) in stops {
            self.await_stop(at, deadline, &stop);
        }
    }

    /// RESET_DEVICE: as at the beginning, but for the descriptors, which QEMU does not send again.
    pub fn reset(&mut self) {
        let deadline = self.shared_deadline(Instant::now());
        self.stop_all(deadline);
        self.features = Features::default();
        (self.region, self.log) = (None, None);
        for ring in &mut self.rings {
            ring.reset();
        }
    }
}
