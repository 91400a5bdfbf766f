//! What a lane needs of the guest's side. `front` implements it over virtqueues, the simulator
//! over a model of a guest.

use crate::buffer::Segments;
use crate::completion::{Outcome, Owed};
use crate::virtio_scsi::{ControlRequest, ControlResponse, Event, RequestHeader};

/// A request as taken from a ring. The lane keeps these and hands them out again, so that the
/// lists inside keep their memory.
#[derive(Debug, Default)]
pub struct Request {
    /// The header, read. `None` only before the first use.
    pub header: Option<RequestHeader>,
    /// Data from the guest.
    pub data_out: Segments,
    /// Room for data to the guest.
    pub data_in: Segments,
    /// A process that died had taken it before, and may have sent it.
    pub again: bool,
}

impl Request {
    /// Bytes of room for data in either direction: what `residual` counts down from.
    pub fn room(&self) -> u32 {
        u32::try_from(self.data_in.len() + self.data_out.len()).unwrap_or(u32::MAX)
    }
}

/// What becomes of requests that have not ended when their ring stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leftovers {
    /// They fail: the driver is not there any more, or expects it.
    Fail,
    /// They are given back: the driver's side keeps them for whoever serves the ring next.
    GiveBack,
    /// The driver goes on elsewhere, and is told to send them again there.
    Resend,
}

/// One guest, as seen by one lane. Used by the lane's thread alone.
///
/// What cannot be a request (a chain without room for a response, a wild address, both directions
/// at once) is dealt with behind this trait: the lane only ever sees well-formed requests.
pub trait Guest {
    /// Takes the next request from the lane's ring into `request`, whose old content is
    /// overwritten. `None` when the ring is empty or stopped. Called until `None`, once per turn.
    fn next(&mut self, request: &mut Request) -> Option<Owed>;

    /// Stores the answer and marks the request used. Data has been stored in the request's `data_in`
    /// before: `outcome` says how much of it counts, and of the rest any part may have been
    /// overwritten as well. After this call nobody touches the request's memory.
    fn complete(&mut self, owed: Owed, outcome: &Outcome, data_in: &Segments);

    /// What becomes of requests that have not ended, now that the ring stops.
    fn leftovers(&self) -> Leftovers {
        Leftovers::Fail
    }

    /// Gives a request back without an answer. It comes from [`Guest::next`] again, marked, when
    /// requests are taken again, here or in another process. Any part of the request's `data_in`
    /// may have been overwritten.
    fn give_back(&mut self, owed: Owed, data_in: &Segments) {
        let _ = data_in;
        owed.abandon();
    }

    /// Takes the next request from the control ring; only the first lane has one.
    fn next_control(&mut self) -> Option<(Owed, ControlRequest)>;

    /// Answers a request of the control ring. Whatever was completed before is visible to the
    /// driver before this answer is.
    fn answer_control(&mut self, owed: Owed, request: &ControlRequest, response: ControlResponse);

    /// Sends an event, if the driver negotiated it; remembers that one was lost where no buffer
    /// is free. Only the first lane has an event ring.
    fn post_event(&mut self, event: Event);

    /// Makes all that was completed since the last call visible and notifies the driver, once.
    fn flush(&mut self);
}
