//! The control queue and the event queue (virtio 1.3, 5.6.6.2 and 5.6.6.3) on the driver's side.

use std::collections::HashMap;
use std::time::Duration;

use crate::queue::{LUN0, PROMPT};
use crate::ring::{Ring, Segment};

/// Task management functions by their subtype.
pub mod function {
    pub const ABORT_TASK: u32 = 0;
    pub const ABORT_TASK_SET: u32 = 1;
    pub const CLEAR_ACA: u32 = 2;
    pub const CLEAR_TASK_SET: u32 = 3;
    pub const I_T_NEXUS_RESET: u32 = 4;
    pub const LOGICAL_UNIT_RESET: u32 = 5;
    pub const QUERY_TASK: u32 = 6;
    pub const QUERY_TASK_SET: u32 = 7;
}

/// The control queue.
pub struct ControlQueue {
    pub ring: Ring,
}

impl ControlQueue {
    /// Sends `request`, with `room` bytes for the answer, and waits for it.
    fn exchange(&mut self, request: &[u8], room: usize) -> Vec<u8> {
        let memory = self.ring.memory.clone();
        let buffer = memory.allocate(4096);
        memory.write(buffer, request);
        let answer = buffer + 2048;
        memory.write(answer, &vec![0xEE; room]);
        let segments = [
            Segment { addr: buffer, len: request.len() as u32, write: false },
            Segment { addr: answer, len: room as u32, write: true },
        ];
        self.ring.add(&segments).expect("one request at a time");
        self.ring.kick();
        assert!(self.ring.wait(PROMPT), "no answer on the control queue");
        let (_, used) = self.ring.pop().expect("wait saw a used request");
        assert_eq!(used as usize, room, "bytes written, as the used element says");
        let bytes = memory.read(answer, room);
        memory.release(buffer, 4096);
        bytes
    }

    /// Puts a LOGICAL UNIT RESET into the ring and tells nobody; its head.
    pub fn leave_reset(&mut self) -> u16 {
        let memory = self.ring.memory.clone();
        let buffer = memory.allocate(4096);
        let mut request = [0; 24];
        request[4] = function::LOGICAL_UNIT_RESET as u8;
        request[8..16].copy_from_slice(&LUN0);
        memory.write(buffer, &request);
        let segments = [
            Segment { addr: buffer, len: 24, write: false },
            Segment { addr: buffer + 2048, len: 1, write: true },
        ];
        self.ring.add(&segments).expect("one request at a time")
    }

    /// A task management function and its answer.
    pub fn manage(&mut self, subtype: u32, lun: [u8; 8], tag: u64) -> u8 {
        let mut request = [0; 24];
        request[4..8].copy_from_slice(&subtype.to_le_bytes());
        request[8..16].copy_from_slice(&lun);
        request[16..24].copy_from_slice(&tag.to_le_bytes());
        self.exchange(&request, 1)[0]
    }

    /// Asks for asynchronous notifications (`type` 1: query, 2: subscribe). Returns
    /// `event_actual` and the response.
    pub fn notify(&mut self, kind: u32, lun: [u8; 8], requested: u32) -> (u32, u8) {
        let mut request = [0; 16];
        request[0..4].copy_from_slice(&kind.to_le_bytes());
        request[4..12].copy_from_slice(&lun);
        request[12..16].copy_from_slice(&requested.to_le_bytes());
        let answer = self.exchange(&request, 5);
        (u32::from_le_bytes([answer[0], answer[1], answer[2], answer[3]]), answer[4])
    }

    /// A request of a type that virtio does not know; only that it comes back matters.
    pub fn unknown(&mut self, kind: u32) -> u8 {
        let mut request = [0; 24];
        request[0..4].copy_from_slice(&kind.to_le_bytes());
        self.exchange(&request, 1)[0]
    }
}

/// What the device said without having been asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    pub kind: u32,
    pub lun: [u8; 8],
    pub reason: u32,
}

/// The event queue, with buffers posted as Linux posts them.
pub struct EventQueue {
    pub ring: Ring,
    buffers: HashMap<u16, u64>,
}

impl EventQueue {
    /// Posts 8 buffers.
    pub fn new(mut ring: Ring) -> Self {
        let mut buffers = HashMap::new();
        for _ in 0..8 {
            let addr = ring.memory.allocate(16);
            let head = ring.add(&[Segment { addr, len: 16, write: true }]);
            buffers.insert(head.expect("8 buffers fit"), addr);
        }
        EventQueue { ring, buffers }
    }

    /// The buffer that the next event goes to.
    pub fn next_head(&self) -> u16 {
        let slot = u64::from(self.ring.used_index() % self.ring.size);
        self.ring.memory.load(self.ring.available + 4 + 2 * slot)
    }

    /// The next event, `None` when there is none by `timeout`. Its buffer is posted again.
    pub fn next(&mut self, timeout: Duration) -> Option<Event> {
        if !self.ring.wait(timeout) {
            return None;
        }
        let (head, used) = self.ring.pop()?;
        assert_eq!(used, 16, "an event is 16 bytes");
        let addr = self.buffers.remove(&head).expect("the ring returned what was posted");
        let bytes = self.ring.memory.read(addr, 16);
        let head = self.ring.add(&[Segment { addr, len: 16, write: true }]);
        self.buffers.insert(head.expect("it was there before"), addr);
        self.ring.kick();
        let word = |at: usize| {
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        let mut lun = [0; 8];
        lun.copy_from_slice(&bytes[4..12]);
        Some(Event { kind: word(0), lun, reason: word(12) })
    }
}
