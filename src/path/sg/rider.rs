//! The thread that sends a path's commands over io_uring, where the node takes them.
//!
//! It alone writes to the ring: the kernel reads an entry more than once, and nobody may change it
//! in between. What came together goes to the kernel together, with one system call, and in the
//! same call it waits for the next end. It outlives its device until the kernel has returned all
//! that it was given.

use std::io;
use std::sync::Arc;

use super::bounce_sys::Bounce;
use super::errand::Errand;
use super::flight::{Flight, Stage};
use super::ioctl_sys;
use super::kernel::{Kernel, Ring};
use super::shared::{Device, Shared};
use crate::confine::{self, Class};
use crate::limits::{SG_RING_DEPTH, SG_STACK, SG_THREADS_MAX};

/// Starts the thread of a device that has just been installed.
pub(super) fn hire<K: Kernel>(
    shared: &Arc<Shared<K>>,
    device: &Arc<Device<K>>,
    ring: K::Ring,
) -> io::Result<()> {
    let (shared, device) = (Arc::clone(shared), Arc::clone(device));
    let rider = Rider { shared, device, ring, riding: 0, spare: Vec::new() };
    let thread = std::thread::Builder::new().name("sg ring".to_owned()).stack_size(SG_STACK);
    let life = move || {
        confine::enter(Class::SgRing);
        rider.work();
    };
    thread.spawn(life).map(drop)
}

struct Rider<K: Kernel> {
    shared: Arc<Shared<K>>,
    device: Arc<Device<K>>,
    ring: K::Ring,
    /// Errands that the ring has.
    riding: usize,
    /// Bounce memory without a command. As much as so many threads would have is kept.
    spare: Vec<Bounce>,
}

impl<K: Kernel> Rider<K> {
    fn work(mut self) {
        ioctl_sys::block_signals();
        let (mut batch, mut ended) = (Vec::new(), Vec::new());
        while self.next(&mut batch) || self.riding > 0 {
            let took = !batch.is_empty();
            batch.drain(..).for_each(|flight| self.begin(flight));
            // All of them were recalled: more may be in the queue.
            if took && self.riding == 0 {
                continue;
            }
            self.ring.wait(&mut ended);
            self.riding -= ended.len();
            for (errand, end) in ended.drain(..) {
                let bounce = errand.end(&self.shared, &self.device, &end);
                self.keep(bounce);
            }
        }
    }

    /// Takes what the ring has room for; false when the device is no longer the path's.
    fn next(&self, batch: &mut Vec<Arc<Flight>>) -> bool {
        let room = SG_RING_DEPTH - self.riding;
        self.shared.take_queued(self.device.serial, room, self.ring.bell(), batch)
    }

    fn begin(&mut self, flight: Arc<Flight>) {
        if !flight.step(Stage::Queued, Stage::Loading) {
            return;
        }
        let bounce = self.spare.pop().unwrap_or_default();
        match Errand::load(flight, bounce, &self.shared, &self.device) {
            Ok(errand) => {
                self.ring.begin(errand);
                self.riding += 1;
            }
            Err(bounce) => self.keep(bounce),
        }
    }

    fn keep(&mut self, bounce: Bounce) {
        if self.spare.len() < SG_THREADS_MAX {
            self.spare.push(bounce);
        }
    }
}
