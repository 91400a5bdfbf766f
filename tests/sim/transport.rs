//! A path, as the engine knows it: everything goes to the scene.

use std::borrow::Cow;
use std::io;
use std::os::fd::RawFd;
use std::time::Instant;

use vhost_user_scsi_mpath::ids::{AttemptId, LaneId};
use vhost_user_scsi_mpath::path::{
    Channel, Ended, Task, TransferLimits, Transport, TransportEvent,
};

use crate::scene::Shared;

/// The path over one port.
pub struct SimPath {
    scene: Shared,
    port: usize,
}

/// One client's end of it.
pub struct SimChannel {
    scene: Shared,
    port: usize,
    client: LaneId,
}

impl SimPath {
    /// The path over `port`.
    pub fn new(scene: Shared, port: usize) -> Self {
        SimPath { scene, port }
    }
}

impl Transport for SimPath {
    type Channel = SimChannel;

    fn channel(&self) -> io::Result<SimChannel> {
        // Lanes open channels in their own turns or when they are made, the manager in its own.
        let client = self.scene.lock().view.as_ref().map_or(LaneId::MANAGER, |view| view.lane);
        Ok(SimChannel { scene: self.scene.clone(), port: self.port, client })
    }

    fn events(&self) -> Vec<TransportEvent> {
        std::mem::take(&mut self.scene.lock().ports[self.port].news)
    }

    fn limits(&self) -> TransferLimits {
        TransferLimits { bytes_max: None }
    }

    fn engine(&self) -> Cow<'static, str> {
        "simulated".into()
    }
}

impl Channel for SimChannel {
    fn submit(&mut self, attempt: AttemptId, task: Task<'_>, _now: Instant) {
        self.scene.lock().submit(self.port, self.client, attempt, task);
    }

    fn flush(&mut self) {}

    fn reap(&mut self, _now: Instant, ended: &mut Vec<Ended>) {
        self.scene.lock().reap(self.port, self.client, ended);
    }

    fn recall(&mut self, attempt: AttemptId) {
        self.scene.lock().recall(self.port, self.client, attempt);
    }

    fn ready_fd(&self) -> Option<RawFd> {
        // The world wakes whoever has ends to take.
        None
    }

    fn next_timer(&self) -> Option<Instant> {
        None
    }
}
