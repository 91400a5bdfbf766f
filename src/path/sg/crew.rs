//! The threads that wait in the kernel for a path's commands, one each, where they go by `SG_IO`.
//!
//! One command, one thread: the call returns when the command has ended, and in a blocked device
//! that may be never. So there is always one more thread than are in the kernel, up to
//! [`SG_THREADS_MAX`]: who takes a command sees to it that somebody is there for the next. Threads
//! are not sent home again; those without work sleep, and cost their stacks.
//!
//! One of them that is on its way, woken or new, is enough, and nobody else is called before it has
//! looked at the queue. So a device that answers at once is served by the threads that are awake:
//! to wake one for each command was a quarter of its instructions. Where calls wait, each that
//! comes calls the next.

use std::sync::{Arc, PoisonError};

use super::bounce_sys::Bounce;
use super::command::{Command, End};
use super::errand::{Errand, GONE};
use super::flight::{Flight, Stage};
use super::ioctl_sys;
use super::kernel::{Engine, Kernel};
use super::node::Kind;
use super::shared::{Device, Link, Shared};
use crate::confine::{self, Class};
use crate::limits::{SG_STACK, SG_THREADS_MAX};
use crate::path::outbox::lock;
use crate::path::{Failure, Fate, Reach};

/// Starts the first thread of the path.
pub(super) fn hire<K: Kernel>(shared: &Arc<Shared<K>>) -> std::io::Result<()> {
    start(shared, || confine::enter(Class::SgHand))
}

/// Starts a thread that begins with `confined`.
fn start<K: Kernel>(shared: &Arc<Shared<K>>, confined: fn()) -> std::io::Result<()> {
    let inside = Arc::clone(shared);
    // The kernel keeps fifteen bytes of a thread's name.
    let leaf = shared.node.file_name().unwrap_or_default().to_string_lossy();
    let name = format!("sg {leaf}").chars().take(15).collect();
    {
        let mut state = lock(&shared.state);
        state.threads += 1;
        state.coming = true;
    }
    let spawned = std::thread::Builder::new().name(name).stack_size(SG_STACK).spawn(move || {
        confined();
        Hand { shared: inside, bounce: Bounce::default(), own: None }.work();
    });
    if spawned.is_err() {
        let mut state = lock(&shared.state);
        state.threads -= 1;
        // Who relied on the new one has called nobody.
        state.coming = state.idle > 0 && !state.queue.is_empty();
        if state.coming {
            shared.work.notify_one();
        }
    }
    spawned.map(drop)
}

/// One thread.
struct Hand<K: Kernel> {
    shared: Arc<Shared<K>>,
    bounce: Bounce,
    /// Its own descriptor of an sg node, and of which opening's device.
    own: Option<(u64, K::Handle)>,
}

impl<K: Kernel> Hand<K> {
    fn work(mut self) {
        ioctl_sys::block_signals();
        lock(&self.shared.state).coming = false;
        while let Some((flight, device, alone)) = self.next() {
            // It inherits the filter of this one: a second of the same would only cost time.
            if alone && let Err(error) = start(&self.shared, || ()) {
                self.shared.say_short(&error);
            }
            self.carry(flight, &device);
        }
        lock(&self.shared.state).threads -= 1;
    }

    /// The next attempt, and whether nobody is left to take the one after it; `None` when the path
    /// is closed.
    fn next(&mut self) -> Option<(Arc<Flight>, Arc<Device<K>>, bool)> {
        let shared = Arc::clone(&self.shared);
        let mut state = lock(&shared.state);
        loop {
            match &state.link {
                Link::Over => return None,
                Link::Up(device) if device.engine != Engine::Ring => {
                    let device = Arc::clone(device);
                    if let Some(flight) = state.queue.pop_front() {
                        let nobody = !state.coming;
                        let alone = nobody && state.idle == 0 && state.threads < SG_THREADS_MAX;
                        let wake = nobody && state.idle > 0 && !state.queue.is_empty();
                        state.coming |= alone || wake;
                        drop(state);
                        if wake {
                            shared.work.notify_one();
                        }
                        return Some((flight, device, alone));
                    }
                }
                Link::Opening | Link::Up(_) | Link::Down => {
                    // Closed by the last who uses it, and that may wait: not by a lane.
                    if self.own.is_some() {
                        drop(state);
                        self.own = None;
                        state = lock(&shared.state);
                        continue;
                    }
                }
            }
            state.idle += 1;
            state = shared.work.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.idle -= 1;
            state.coming = false;
        }
    }

    /// Sends one attempt and brings its end.
    fn carry(&mut self, flight: Arc<Flight>, device: &Device<K>) {
        if !flight.step(Stage::Queued, Stage::Loading) {
            return;
        }
        if let Err((failure, why)) = self.own_handle(device) {
            flight.end(Fate::Failed(failure, Reach::NotSent));
            if let Some(why) = why {
                self.shared.lose(device.serial, why);
            }
            return;
        }
        let bounce = std::mem::take(&mut self.bounce);
        self.bounce = match Errand::load(flight, bounce, &self.shared, device) {
            Ok(errand) => {
                let end = self.execute(&errand.command(), device);
                errand.end(&self.shared, device, &end)
            }
            Err(bounce) => bounce,
        };
    }

    /// Threads that share a descriptor of an sg node share its wait queue too: each end wakes all.
    fn own_handle(&mut self, device: &Device<K>) -> Result<(), (Failure, Option<&'static str>)> {
        let is_mine = self.own.as_ref().is_some_and(|(serial, _)| *serial == device.serial);
        if is_mine || device.found.kind != Kind::Generic {
            return Ok(());
        }
        match self.shared.kernel.open(&self.shared.node) {
            // Opened before it was looked at, and still the same: this is what was opened.
            Ok((handle, found)) if found == device.found => {
                self.own = Some((device.serial, handle));
                Ok(())
            }
            Ok(_) => Err((Failure::Disconnected, Some("the node leads to another device"))),
            Err(_) if self.shared.kernel.is_there(&device.found) => Err((Failure::HostBusy, None)),
            Err(_) => Err((Failure::Disconnected, Some(GONE))),
        }
    }

    fn execute(&self, command: &Command<'_>, device: &Device<K>) -> End {
        let handle = match &self.own {
            Some((serial, handle)) if *serial == device.serial => handle,
            _ => &device.handle,
        };
        self.shared.kernel.execute(handle, device.found.kind, command)
    }
}
