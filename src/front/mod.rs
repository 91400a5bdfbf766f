//! The guest's side: vhost-user, the memory table, and the rings.
//!
//! ```text
//!  front end (QEMU)                                                          guest
//!    | messages                                             kicks, notifications, memory
//!    v                                                                         |
//!  serve -> listener   (one front end after another)                           |
//!    | one thread per connection                                               |
//!    v                    commands                                             v
//!  handler -> session  --------------->  workers -> worker  (a thread per lane; calls its turn)
//!             (set-up of               (one per     |
//!              rings, memory;            lane)      v
//!              stop: the deadline)                rings     (what the lane sees: engine::Guest)
//!                                                   |
//!                                                   v
//!                                                 queue     (requests in flight, by head)
//!                                               /   |   \
//!                                          chain  ring  inflight::record  (descriptors; the two
//!                                              \    |               indexes; what a successor reads)
//!                                                memory     (which address is mapped where)
//! ```
//!
//! | noun | is |
//! |---|---|
//! | front end | the program at the other end of the socket, which passes the guest's rings on |
//! | driver | the guest's own virtio-scsi driver, at the other end of the rings |
//! | session | one connection: what a front end has set up, and what it may still do |
//! | worker | the thread that runs one lane; it lives on when the front end goes |
//! | ring, queue | a virtqueue: as a structure in memory, and with its requests in flight |
//! | head | the first descriptor of a request: its name while it is in flight |
//! | in-flight region | memory that the front end keeps: which requests were taken and not answered |
//! | dirty log | memory of the front end's: which pages of guest memory were written, during a migration |
//! | lease | a memory table that is kept because something in flight still points into it |
//!
//! The request handler is our own, on the `vhost` crate's message layer. `vhost-user-backend`'s
//! daemon was tried on paper and lost: it serves one connection per life, locks its rings on each
//! call, stops ring by ring without a common deadline, cannot carry the messages for restarts,
//! and its chain walker takes a broken chain for a short one.
//!
//! A driver or a front end that breaks the rules loses the request, the ring or the connection,
//! in this order of severity, and the log says which. The process goes on.

pub mod chain;
pub mod dirty;
mod enable;
mod events;
pub mod features;
mod handler;
pub mod inflight;
pub mod listener;
pub mod memory;
mod migration;
mod poller;
pub mod queue;
pub mod ring;
pub mod rings;
pub mod serve;
pub mod session;
mod socket_sys;
pub mod spin;
mod stop;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
pub mod worker;
pub mod workers;

use std::time::Duration;

pub use listener::{Endpoint, ListenError, Listener};
pub use serve::{End, serve};

use crate::limits::RINGS_MAX;

/// What the front needs to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrontConfig {
    /// Request rings at most, `REQUEST_QUEUES_MAX` of them at most.
    pub request_queues: u16,
    /// How long a stop of the whole device may take.
    pub stop_deadline: Duration,
    /// How long a lane's thread looks for new requests at most before it sleeps.
    pub busy_poll: Duration,
}

impl FrontConfig {
    /// What GET_QUEUE_NUM answers: the request rings, the control and the event ring.
    pub fn queue_num(&self) -> u16 {
        self.request_queues.saturating_add(2).min(RINGS_MAX)
    }

    /// Rings that are accepted. QEMU compares its number of *request* rings with what
    /// GET_QUEUE_NUM answers, so it may bring two more than that.
    pub fn rings(&self) -> u16 {
        self.queue_num().saturating_add(2).min(RINGS_MAX)
    }
}
