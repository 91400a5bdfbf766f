//! A lane's rings, as the lane sees them: requests in, answers out.
//!
//! What is malformed is dealt with here. If there is room for a response the request is answered
//! FAILURE, else it is given back with nothing written; the log hears of it, within bounds.

use std::sync::Arc;

use thiserror::Error;

use super::chain::{Chain, ChainError};
use super::dirty::DirtyLog;
use super::events::Events;
use super::memory::GuestMemory;
use super::queue::{Queue, Taken};
use crate::buffer::Segments;
use crate::completion::{Outcome, Owed, Response};
use crate::engine::{Guest, Leftovers, Request};
use crate::ids::RingIndex;
use crate::virtio_scsi::request::{HEADER_LEN, RESPONSE_LEN, response};
use crate::virtio_scsi::task_management::REQUEST_MAX;
use crate::virtio_scsi::{ControlRequest, ControlResponse, Event, RequestHeader};

/// Bytes of the longest answer on the control ring.
const CONTROL_RESPONSE_MAX: usize = 5;

/// What is wrong with a request.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum RequestError {
    /// Its chain.
    #[error("{0}")]
    Chain(#[from] ChainError),
    /// Its header.
    #[error("only {0} bytes of request header")]
    ShortHeader(usize),
    /// Its response.
    #[error("only {0} bytes of room for the response")]
    ShortResponse(usize),
    /// Its data: INOUT is not offered.
    #[error("data in both directions")]
    BothDirections,
}

/// The rings of one lane. Only lane 0 has more than a request ring.
#[derive(Debug)]
pub struct Rings {
    request: Option<Queue>,
    control: Option<Queue>,
    event: Option<Queue>,
    events: Events,
    chain: Chain,
    /// The lane has looked at the request ring since the turn began...
    asked: bool,
    /// ...and at the control ring.
    asked_control: bool,
    /// The front end is gone: what is answered now is heard by nobody, and the used index must
    /// stay what the front end last saw.
    gone: bool,
}

impl Rings {
    /// No rings yet.
    pub fn new() -> Self {
        Rings {
            request: None,
            control: None,
            event: None,
            events: Events::default(),
            chain: Chain::default(),
            asked: false,
            asked_control: false,
            gone: false,
        }
    }

    fn place(&mut self, ring: RingIndex) -> &mut Option<Queue> {
        match ring {
            RingIndex::CONTROL => &mut self.control,
            RingIndex::EVENT => &mut self.event,
            _ => &mut self.request,
        }
    }

    /// A ring starts.
    pub fn start(&mut self, queue: Queue) {
        let index = queue.index();
        *self.place(index) = Some(queue);
        self.gone = false;
    }

    /// A running ring.
    pub fn queue(&mut self, ring: RingIndex) -> Option<&mut Queue> {
        self.place(ring).as_mut().filter(|queue| queue.index() == ring)
    }

    /// All running rings.
    pub fn queues(&mut self) -> impl Iterator<Item = &mut Queue> {
        [&mut self.request, &mut self.control, &mut self.event].into_iter().flatten()
    }

    /// Takes a ring out that has stopped; its memory is not touched again.
    pub fn remove(&mut self, ring: RingIndex) -> Option<Queue> {
        if ring == RingIndex::EVENT {
            self.events = Events::default();
        }
        self.place(ring).take_if(|queue| queue.index() == ring)
    }

    /// The front end is gone. Nothing is taken and nothing published from now on.
    pub fn disconnect(&mut self) {
        self.gone = true;
        self.queues().for_each(Queue::stop);
    }

    /// Forgets all rings.
    pub fn clear(&mut self) {
        (self.request, self.control, self.event) = (None, None, None);
        self.events = Events::default();
    }

    /// Goes on in another memory table.
    pub fn set_memory(&mut self, memory: &Arc<GuestMemory>) {
        self.queues().for_each(|queue| queue.set_memory(memory));
    }

    /// Marks in `log` what is written to guest memory from now on, or nowhere.
    pub fn set_log(&mut self, log: &Option<Arc<DirtyLog>>) {
        self.queues().for_each(|queue| queue.set_log(log.clone()));
    }

    /// A ring stops, and the driver goes on elsewhere. What is left of before on the control and the
    /// event ring is ended here: the lane may have stopped taking anything with its request ring.
    pub fn stop_to_move(&mut self, ring: RingIndex) {
        let Some(queue) = self.queue(ring) else { return };
        queue.stop_to_move();
        match ring {
            RingIndex::CONTROL => {
                if let Some(queue) = &mut self.control {
                    while queue.is_left() && take_control(queue, &mut self.chain).is_some() {}
                }
            }
            RingIndex::EVENT => {
                if let Some(queue) = &mut self.event {
                    self.events.give_up_left(queue, &mut self.chain);
                }
            }
            _ => {}
        }
    }

    /// A turn begins. Tells the driver of lost events, if it has made room for that.
    pub fn begin_turn(&mut self) {
        self.asked = false;
        self.asked_control = false;
        if let Some(queue) = &mut self.event {
            self.events.catch_up(queue, &mut self.chain);
        }
    }

    /// Asks for kicks; true when there is something to take already. A lane that did not look for
    /// requests has reasons, and will look when those have passed.
    pub fn arm(&mut self) -> bool {
        let mut more = false;
        let looked_at = [(&mut self.request, self.asked), (&mut self.control, self.asked_control)];
        for (queue, asked) in looked_at {
            more |= queue.as_mut().is_some_and(Queue::arm) && asked;
        }
        // An event buffer is only of interest while a lost event is owed.
        if let Some(queue) = &mut self.event {
            more |= queue.arm() && self.events.lost();
        }
        more
    }

    /// True when there is something to take; as for [`Rings::arm`], only where the lane looks. The
    /// rings are left as they are.
    pub fn has_new(&self) -> bool {
        let looked_at = [(&self.request, self.asked), (&self.control, self.asked_control)];
        looked_at
            .into_iter()
            .any(|(queue, asked)| asked && queue.as_ref().is_some_and(Queue::has_new))
    }

    /// Needs no kicks while awake.
    pub fn disarm(&mut self) {
        self.queues().for_each(Queue::disarm);
    }
}

impl Default for Rings {
    fn default() -> Self {
        Self::new()
    }
}

impl Guest for Rings {
    fn next(&mut self, request: &mut Request) -> Option<Owed> {
        self.asked = true;
        let queue = self.request.as_mut()?;
        // A bound, since a driver can make malformed requests faster than they are refused.
        for _ in 0..queue.size() {
            let Taken { head, again, walked } = queue.take(&mut self.chain)?;
            match walked.map_err(RequestError::from).and_then(|()| read(&self.chain, request)) {
                Ok(()) => {
                    request.again = again;
                    queue.hold(head, &self.chain, RESPONSE_LEN);
                    return Some(Owed::new(queue.index(), head));
                }
                Err(error) => refuse(queue, head, &self.chain, error),
            }
        }
        None
    }

    fn complete(&mut self, owed: Owed, outcome: &Outcome, data_in: &Segments) {
        let ring = owed.ring();
        let head = owed.settle();
        if self.gone {
            return;
        }
        if let Some(queue) = self.queue(ring) {
            queue.answer(head, &response(outcome), outcome.stored, data_in);
        }
    }

    fn leftovers(&self) -> Leftovers {
        // They stop one after the other, and to go on elsewhere all of them do.
        match [&self.request, &self.control].into_iter().flatten().any(Queue::is_moving) {
            true => Leftovers::Resend,
            false => self.request.as_ref().map_or(Leftovers::Fail, Queue::leftovers),
        }
    }

    fn give_back(&mut self, owed: Owed, data_in: &Segments) {
        let ring = owed.ring();
        let head = owed.head();
        owed.abandon();
        if let Some(queue) = self.queue(ring) {
            queue.give_back(head, data_in);
        }
    }

    fn next_control(&mut self) -> Option<(Owed, ControlRequest)> {
        self.asked_control = true;
        let queue = self.control.as_mut()?;
        for _ in 0..queue.size() {
            if let Some((head, request)) = take_control(queue, &mut self.chain)? {
                queue.hold(head, &self.chain, CONTROL_RESPONSE_MAX);
                return Some((Owed::new(queue.index(), head), request));
            }
        }
        None
    }

    fn answer_control(&mut self, owed: Owed, request: &ControlRequest, response: ControlResponse) {
        let ring = owed.ring();
        let head = owed.settle();
        if self.gone {
            return;
        }
        // The driver may take an aborted command's buffers back when it reads this answer.
        if let Some(queue) = &mut self.request {
            queue.publish();
        }
        let (bytes, len) = request.response(response);
        if let Some(queue) = self.queue(ring) {
            queue.answer(head, &bytes[..len], 0, &Segments::new());
        }
    }

    fn post_event(&mut self, event: Event) {
        if self.gone {
            return;
        }
        if let Some(queue) = &mut self.event {
            self.events.post(queue, &mut self.chain, event);
        }
    }

    fn flush(&mut self) {
        if !self.gone {
            self.queues().for_each(Queue::publish);
        }
    }
}

/// Reads a request out of its chain, in whatever pieces it comes.
fn read(chain: &Chain, request: &mut Request) -> Result<(), RequestError> {
    let mut header = [0; HEADER_LEN];
    let room = chain.writable.len();
    if room < RESPONSE_LEN {
        return Err(RequestError::ShortResponse(room));
    }
    let len = chain.readable.read_at(0, &mut header);
    if len < HEADER_LEN {
        return Err(RequestError::ShortHeader(len));
    }
    request.data_out.assign_range(&chain.readable, HEADER_LEN, usize::MAX);
    request.data_in.assign_range(&chain.writable, RESPONSE_LEN, usize::MAX);
    if !request.data_out.is_empty() && !request.data_in.is_empty() {
        request.data_out.clear();
        request.data_in.clear();
        return Err(RequestError::BothDirections);
    }
    request.header = Some(RequestHeader::parse(&header));
    Ok(())
}

/// Reads a request of the control ring out of its chain.
fn read_control(chain: &Chain) -> Result<ControlRequest, RequestError> {
    let mut bytes = [0; REQUEST_MAX];
    let len = chain.readable.read_at(0, &mut bytes);
    let request = ControlRequest::parse(&bytes[..len]).ok_or(RequestError::ShortHeader(len))?;
    let room = chain.writable.len();
    let (_, needed) = request.response(ControlResponse::Failure);
    if room < needed {
        return Err(RequestError::ShortResponse(room));
    }
    Ok(request)
}

/// Takes a request from the control ring. `Some(None)`: it was dealt with here.
fn take_control(queue: &mut Queue, chain: &mut Chain) -> Option<Option<(u16, ControlRequest)>> {
    let Taken { head, again, walked } = queue.take(chain)?;
    match walked.map_err(RequestError::from).and_then(|()| read_control(chain)) {
        // What it was about may not have been taken again yet, and a part of it is done.
        Ok(request) if again => {
            let (bytes, len) = request.response(ControlResponse::Failure);
            chain.writable.write_at(0, &bytes[..len]);
            queue.mark(chain);
            queue.finish(head, len as u32);
        }
        Ok(request) => return Some(Some((head, request))),
        Err(error) => {
            queue.complain(head, &error);
            queue.finish(head, 0);
        }
    }
    Some(None)
}

/// Answers a malformed request at once, as well as it can be.
fn refuse(queue: &mut Queue, head: u16, chain: &Chain, error: RequestError) {
    queue.complain(head, &error);
    if chain.writable.len() < RESPONSE_LEN {
        return queue.finish(head, 0);
    }
    let room = chain.readable.len().saturating_sub(HEADER_LEN)
        + chain.writable.len().saturating_sub(RESPONSE_LEN);
    let outcome = Outcome::response(Response::Failure, room as u32);
    chain.writable.write_at(0, &response(&outcome));
    queue.mark(chain);
    queue.finish(head, RESPONSE_LEN as u32);
}
