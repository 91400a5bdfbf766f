//! What a command came to, and the guard that must carry it back.
//!
//! [`Owed`] is the duty to answer one request. It is made when the request is taken from its ring
//! and it is consumed by answering: there is no other way to get rid of it but
//! [`Owed::abandon`], for the one case in which nobody is left to hear the answer. Dropping it is
//! a bug, and a loud one: it panics where a test can see it.

use crate::ids::RingIndex;
use crate::scsi::{Sense, SenseKey, Status, sense::Asc};

/// The virtio-scsi response code (virtio 1.3, 5.6.6.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Response {
    /// The command ran its course; the status byte tells how.
    Ok = 0,
    /// The CDB asks for more data than the buffers hold.
    Overrun = 1,
    /// Ended by ABORT TASK or ABORT TASK SET.
    Aborted = 2,
    /// No such target.
    BadTarget = 3,
    /// Ended by a reset.
    Reset = 4,
    /// Try again on the same path.
    Busy = 5,
    /// The link to the logical unit is severed.
    TransportFailure = 6,
    /// The target is damaged; another path will not help.
    TargetFailure = 7,
    /// The nexus failed; another path may help.
    NexusFailure = 8,
    /// Anything else.
    Failure = 9,
}

/// How one command ended, as the guest will see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The transport's view; with [`Response::Ok`] the status below is valid.
    pub response: Response,
    /// The device server's view.
    pub status: Status,
    /// Sense data for the guest, with CHECK CONDITION.
    pub sense: Option<Box<Sense>>,
    /// Bytes of the guest's buffers that were not used (virtio `resid`).
    pub residual: u32,
    /// Bytes stored in the guest's data-in buffers.
    pub stored: u32,
}

impl Outcome {
    /// GOOD, with `stored` bytes for the guest out of `room`.
    pub fn good(stored: u32, room: u32) -> Self {
        Outcome {
            response: Response::Ok,
            status: Status::GOOD,
            sense: None,
            residual: room.saturating_sub(stored),
            stored,
        }
    }

    /// A status without data or sense, such as BUSY.
    pub fn status(status: Status, room: u32) -> Self {
        Outcome { response: Response::Ok, status, sense: None, residual: room, stored: 0 }
    }

    /// CHECK CONDITION of our own making.
    pub fn check(key: SenseKey, asc: Asc, room: u32) -> Self {
        Self::sense(Sense::fixed(key, asc), room)
    }

    /// CHECK CONDITION with `sense`.
    pub fn sense(sense: Sense, room: u32) -> Self {
        Outcome { sense: Some(Box::new(sense)), ..Self::status(Status::CHECK_CONDITION, room) }
    }

    /// No status: the transport's own answer.
    pub fn response(response: Response, room: u32) -> Self {
        Outcome { response, ..Self::status(Status::GOOD, room) }
    }
}

/// The duty to answer the request that came in at `head` of `ring`.
#[derive(Debug)]
#[must_use = "a request must be answered"]
pub struct Owed {
    ring: RingIndex,
    head: u16,
    settled: bool,
}

impl Owed {
    /// Takes on the duty. Called once per request, by the side that took it from its ring.
    pub fn new(ring: RingIndex, head: u16) -> Self {
        Owed { ring, head, settled: false }
    }

    /// The ring the request came from.
    pub fn ring(&self) -> RingIndex {
        self.ring
    }

    /// The head of the request's descriptor chain: its name on its ring.
    pub fn head(&self) -> u16 {
        self.head
    }

    /// Ends the duty. Only the side that publishes the answer calls this, and it does so at the
    /// moment of publishing.
    pub fn settle(mut self) -> u16 {
        self.settled = true;
        self.head
    }

    /// Ends the duty without an answer, because the connection that owed it is gone.
    pub fn abandon(mut self) {
        self.settled = true;
    }
}

impl Drop for Owed {
    fn drop(&mut self) {
        if !self.settled && !std::thread::panicking() {
            panic!("request {} of ring {} was dropped without an answer", self.head, self.ring.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settle_consumes_the_duty() {
        assert_eq!(Owed::new(RingIndex(2), 7).settle(), 7);
    }

    #[test]
    #[should_panic(expected = "request 7 of ring 2 was dropped without an answer")]
    fn drop_unanswered_panics() {
        drop(Owed::new(RingIndex(2), 7));
    }
}
