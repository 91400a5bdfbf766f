//! The event ring's device side: buffers stay in the ring until there is something to say.
//!
//! A buffer that was taken and not used would be lost when the ring stops, since GET_VRING_BASE
//! tells one number only; so none is taken before it is needed.

use super::chain::Chain;
use super::features::{CHANGE, Features, HOTPLUG};
use super::queue::{Queue, Taken};
use crate::virtio_scsi::Event;
use crate::virtio_scsi::event::EVENT_LEN;

/// What the driver has not been told.
#[derive(Debug, Default)]
pub struct Events {
    lost: bool,
}

impl Events {
    /// Is there a lost event that the driver does not know of?
    pub fn lost(&self) -> bool {
        self.lost
    }

    /// Tells the driver, if it asked for this kind of event; a driver without a free buffer is
    /// told later that it missed something.
    pub fn post(&mut self, queue: &mut Queue, chain: &mut Chain, event: Event) {
        if wanted(queue.features(), event) {
            self.lost = !store(queue, chain, event.encode(self.lost));
        }
    }

    /// Uses the buffers that a process before this one took and did not use.
    pub fn give_up_left(&mut self, queue: &mut Queue, chain: &mut Chain) {
        while queue.is_left() && store(queue, chain, Event::NoEvent.encode(true)) {}
    }

    /// Tells the driver that it missed something, if it did and has a free buffer.
    pub fn catch_up(&mut self, queue: &mut Queue, chain: &mut Chain) {
        if self.lost && store(queue, chain, Event::NoEvent.encode(true)) {
            self.lost = false;
        }
    }
}

fn wanted(features: Features, event: Event) -> bool {
    match event {
        Event::NoEvent => features.has(HOTPLUG) || features.has(CHANGE),
        Event::Rescan | Event::Removed => features.has(HOTPLUG),
        Event::ParameterChange(_) => features.has(CHANGE),
    }
}

/// Stores an event in the next buffer that is fit for it. Gives back those that are not.
fn store(queue: &mut Queue, chain: &mut Chain, event: [u8; EVENT_LEN]) -> bool {
    for _ in 0..queue.size() {
        let Some(Taken { head, walked, .. }) = queue.take(chain) else { return false };
        let stored = if walked.is_ok() { chain.writable.write_at(0, &event) } else { 0 };
        if stored > 0 {
            queue.mark(chain);
        }
        if stored == EVENT_LEN {
            queue.finish(head, EVENT_LEN as u32);
            return true;
        }
        queue.complain(head, &"no room for an event");
        queue.finish(head, 0);
    }
    false
}
