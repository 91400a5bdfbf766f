//! The three kinds of virtio-scsi virtqueue (virtio 1.3, 5.6.6) on the driver's side.
//!
//! Buffers that the device writes to are filled with [`CANARY`] first, so that a test can tell
//! what the device has touched, during the request and after it.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::ring::{Ring, Segment};

/// Target 0, LUN 0 in the flat form, as Linux sends it.
pub const LUN0: [u8; 8] = [1, 0, 0x40, 0, 0, 0, 0, 0];
/// What stands in a buffer before the device writes to it.
pub const CANARY: u8 = 0xA5;
/// How long anything may take that nothing is in the way of.
pub const PROMPT: Duration = Duration::from_secs(5);

const HEADER: usize = 51;
const RESPONSE: usize = 108;
/// Data begins here in a buffer, so that it is aligned and the header lies right before it.
const DATA_AT: usize = 512;

/// The response codes that tests name (virtio 1.3, 5.6.6.1.1).
pub mod response {
    pub const OK: u8 = 0;
    pub const OVERRUN: u8 = 1;
    pub const ABORTED: u8 = 2;
    pub const BAD_TARGET: u8 = 3;
    pub const RESET: u8 = 4;
    pub const TRANSPORT_FAILURE: u8 = 6;
    pub const FAILURE: u8 = 9;
    pub const FUNCTION_SUCCEEDED: u8 = 10;
    pub const FUNCTION_REJECTED: u8 = 11;
    pub const INCORRECT_LUN: u8 = 12;
}

/// How a request's bytes are cut into descriptors. The two directions never share one.
#[derive(Clone, Copy, Debug, Default)]
pub enum Layout {
    /// Header, data out, response, data in: one descriptor each, as Linux does for small requests.
    #[default]
    Plain,
    /// As `Plain`, and the data in pieces of so many bytes.
    Pieces(usize),
    /// Cut without regard to what the bytes mean, as ANY_LAYOUT and VERSION_1 allow.
    Odd,
}

impl Layout {
    /// Where to cut `total` bytes of which the first `fixed` are header or response.
    fn cuts(self, fixed: usize, total: usize) -> Vec<usize> {
        let mut cuts = match self {
            Layout::Plain => vec![fixed],
            Layout::Pieces(size) => (fixed..total).step_by(size).collect(),
            Layout::Odd => vec![1, 3, fixed - 7, fixed + 5, fixed + 517],
        };
        cuts.retain(|cut| *cut < total);
        cuts.push(total);
        cuts
    }
}

/// A request before it is sent.
#[derive(Clone, Debug)]
pub struct Command {
    pub lun: [u8; 8],
    /// The driver's name for the command; `None` for one of its own.
    pub tag: Option<u64>,
    pub cdb: [u8; 32],
    pub data_out: Vec<u8>,
    pub data_in: usize,
    pub layout: Layout,
}

impl Command {
    fn new(cdb: &[u8], data_out: Vec<u8>, data_in: usize) -> Self {
        let mut padded = [0; 32];
        padded[..cdb.len()].copy_from_slice(cdb);
        let layout = Layout::default();
        Command { lun: LUN0, tag: None, cdb: padded, data_out, data_in, layout }
    }

    /// A command without data.
    pub fn bare(cdb: &[u8]) -> Self {
        Command::new(cdb, Vec::new(), 0)
    }

    /// A command with room for `room` bytes of answer.
    pub fn reading(cdb: &[u8], room: usize) -> Self {
        Command::new(cdb, Vec::new(), room)
    }

    /// A command that brings data.
    pub fn writing(cdb: &[u8], data: Vec<u8>) -> Self {
        Command::new(cdb, data, 0)
    }

    /// The same to another logical unit.
    pub fn to(self, lun: [u8; 8]) -> Self {
        Command { lun, ..self }
    }

    /// The same under this tag.
    pub fn tagged(self, tag: u64) -> Self {
        Command { tag: Some(tag), ..self }
    }

    /// The same, cut this way.
    pub fn cut(self, layout: Layout) -> Self {
        Command { layout, ..self }
    }
}

/// The driver's name for a request that it sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket(pub u64);

/// A request's answer.
#[derive(Clone, Debug)]
pub struct Completion {
    pub response: u8,
    pub status: u8,
    pub sense: Vec<u8>,
    pub residual: u32,
    /// All of the room for data, also what the device did not write.
    pub data: Vec<u8>,
    /// Where the room for data lies in guest memory.
    pub data_gpa: u64,
    /// What the used element says: bytes written, response included.
    pub used: u32,
    pub elapsed: Duration,
}

impl Completion {
    /// Key and code of the sense data.
    pub fn sense_code(&self) -> Option<(u8, u8, u8)> {
        let at = |at: usize| self.sense.get(at).copied().unwrap_or(0);
        match self.sense.first()? & 0x7F {
            0x70 | 0x71 => Some((at(2) & 0xF, at(12), at(13))),
            0x72 | 0x73 => Some((at(1) & 0xF, at(2), at(3))),
            _ => None,
        }
    }

    /// GOOD status, and nothing that says otherwise.
    pub fn is_good(&self) -> bool {
        (self.response, self.status) == (response::OK, 0)
    }
}

/// A request that is with the device.
struct Sent {
    ticket: Ticket,
    since: Instant,
    readable: (u64, usize),
    writable: (u64, usize),
}

/// One request queue.
pub struct Queue {
    pub ring: Ring,
    sent: HashMap<u16, Sent>,
    done: VecDeque<(Ticket, Completion)>,
}

/// Tickets are unique over all queues, so that they can serve as tags.
static NEXT_TICKET: AtomicU64 = AtomicU64::new(1);

impl Queue {
    /// A queue over `ring`.
    pub fn new(ring: Ring) -> Self {
        Queue { ring, sent: HashMap::new(), done: VecDeque::new() }
    }

    /// Sends `command`. A full ring is the test's mistake.
    pub fn submit(&mut self, command: &Command) -> Ticket {
        let ticket = Ticket(NEXT_TICKET.fetch_add(1, Ordering::Relaxed));
        let memory = self.ring.memory.clone();
        let mut bytes = vec![0; HEADER];
        bytes[0..8].copy_from_slice(&command.lun);
        bytes[8..16].copy_from_slice(&command.tag.unwrap_or(ticket.0).to_le_bytes());
        bytes[19..51].copy_from_slice(&command.cdb);
        bytes.extend_from_slice(&command.data_out);
        let readable = (memory.allocate(DATA_AT + bytes.len()), DATA_AT + bytes.len());
        memory.write(readable.0 + (DATA_AT - HEADER) as u64, &bytes);
        let room = RESPONSE + command.data_in;
        let writable = (memory.allocate(DATA_AT + room), DATA_AT + room);
        memory.write(writable.0 + (DATA_AT - RESPONSE) as u64, &vec![CANARY; room]);

        let mut segments = Vec::new();
        let out = (readable.0, HEADER, bytes.len(), false);
        let back = (writable.0, RESPONSE, room, true);
        for (base, fixed, total, write) in [out, back] {
            let start = base + (DATA_AT - fixed) as u64;
            let mut from = 0;
            for cut in command.layout.cuts(fixed, total) {
                let len = (cut - from) as u32;
                segments.push(Segment { addr: start + from as u64, len, write });
                from = cut;
            }
        }
        let head = self.ring.add(&segments).expect("the ring has room");
        self.sent.insert(head, Sent { ticket, since: Instant::now(), readable, writable });
        self.ring.kick();
        ticket
    }

    /// Takes what the device has used, without waiting.
    pub fn poll(&mut self) {
        while let Some((head, used)) = self.ring.pop() {
            let sent = self.sent.remove(&head).expect("the ring returned what was sent");
            let memory = &self.ring.memory;
            let (base, len) = sent.writable;
            let answer = memory.read(base + (DATA_AT - RESPONSE) as u64, RESPONSE);
            let word = |at: usize| {
                u32::from_le_bytes([answer[at], answer[at + 1], answer[at + 2], answer[at + 3]])
            };
            let sense_len = word(0) as usize;
            assert!(sense_len <= 96, "sense_len {sense_len}, used {used}");
            let data_gpa = base + DATA_AT as u64;
            let completion = Completion {
                response: answer[11],
                status: answer[10],
                sense: answer[12..12 + sense_len].to_vec(),
                residual: word(4),
                data: memory.read(data_gpa, len - DATA_AT - RESPONSE),
                data_gpa,
                used,
                elapsed: sent.since.elapsed(),
            };
            memory.release(sent.readable.0, sent.readable.1);
            memory.release(base, len);
            self.done.push_back((sent.ticket, completion));
        }
    }

    /// An answer that is there already.
    pub fn take(&mut self, ticket: Ticket) -> Option<Completion> {
        self.poll();
        let at = self.done.iter().position(|(done, _)| *done == ticket)?;
        self.done.remove(at).map(|(_, completion)| completion)
    }

    /// The next answer to any request, `None` when there is none by `timeout`.
    pub fn next(&mut self, timeout: Duration) -> Option<(Ticket, Completion)> {
        if self.done.is_empty() && self.ring.wait(timeout) {
            self.poll();
        }
        self.done.pop_front()
    }

    /// The answer to one request, `None` when it has not come by `timeout`.
    pub fn try_wait(&mut self, ticket: Ticket, timeout: Duration) -> Option<Completion> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(completion) = self.take(ticket) {
                return Some(completion);
            }
            if !self.ring.wait(deadline.saturating_duration_since(Instant::now())) {
                return None;
            }
        }
    }

    /// The answer to one request, which must come within `timeout`.
    pub fn wait(&mut self, ticket: Ticket, timeout: Duration) -> Completion {
        self.try_wait(ticket, timeout)
            .unwrap_or_else(|| panic!("no answer to {ticket:?} within {timeout:?}"))
    }

    /// Sends one command and waits for its answer.
    pub fn run(&mut self, command: &Command) -> Completion {
        let ticket = self.submit(command);
        self.wait(ticket, PROMPT)
    }

    /// Requests without an answer.
    pub fn outstanding(&self) -> usize {
        self.ring.outstanding()
    }
}
