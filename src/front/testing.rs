//! The other side, for tests: a driver that builds its rings by hand in a file that stands for
//! guest memory, and a lane that does what it is told. The driver writes the file, never the
//! mapping, so it needs no unsafe code.

use std::cell::Cell;
use std::fs::File;
use std::os::fd::RawFd;
use std::os::unix::fs::FileExt;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::features::Features;
use super::inflight::record::Record;
use super::memory::{GuestMemory, Region};
use super::queue::{Queue, RingStart};
use super::ring::{Layout, RingError};
use crate::buffer::Segments;
use crate::completion::{Outcome, Owed, Response};
use crate::engine::{Driven, Guest, Lanes, Request, Turn};
use crate::ids::{LaneId, RingIndex};
use crate::virtio_scsi::ControlResponse;
use crate::virtio_scsi::request::{HEADER_LEN, RESPONSE_LEN};

pub const NEXT: u16 = 1;
pub const WRITE: u16 = 2;
pub const INDIRECT: u16 = 4;

/// What the fake lane stores as data.
pub const PATTERN: u8 = 0xA5;

/// Guest memory in a file.
pub struct TestMemory {
    pub file: File,
    free: Cell<u64>,
}

impl TestMemory {
    pub const GUEST: u64 = 0x10_0000;
    pub const USER: u64 = 0x7000_0000;
    pub const LEN: u64 = 1 << 20;

    pub fn new() -> Rc<Self> {
        let file = tempfile::tempfile().unwrap();
        file.set_len(Self::LEN).unwrap();
        Rc::new(TestMemory { file, free: Cell::new(Self::GUEST) })
    }

    pub fn table(&self) -> Arc<GuestMemory> {
        let file = self.file.try_clone().unwrap();
        let region = Region::map(Self::GUEST, Self::USER, Self::LEN, file, 0).unwrap();
        Arc::new(GuestMemory::new(vec![region]).unwrap())
    }

    /// The guest-physical address of `len` fresh bytes.
    pub fn allocate(&self, len: u64) -> u64 {
        let at = self.free.get();
        self.free.set((at + len).next_multiple_of(64));
        assert!(self.free.get() <= Self::GUEST + Self::LEN, "test memory is full");
        at
    }

    pub fn store(&self, bytes: &[u8]) -> u64 {
        let at = self.allocate(bytes.len() as u64);
        self.write(at, bytes);
        at
    }

    pub fn write(&self, at: u64, bytes: &[u8]) {
        self.file.write_all_at(bytes, at - Self::GUEST).unwrap();
    }

    pub fn read(&self, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.file.read_exact_at(&mut bytes, at - Self::GUEST).unwrap();
        bytes
    }

    pub fn read16(&self, at: u64) -> u16 {
        u16::from_le_bytes(self.read(at, 2).try_into().unwrap())
    }

    fn read32(&self, at: u64) -> u32 {
        u32::from_le_bytes(self.read(at, 4).try_into().unwrap())
    }
}

/// A descriptor's bytes.
pub fn descriptor(address: u64, len: u32, flags: u16, next: u16) -> [u8; 16] {
    let rest = u64::from(len) | u64::from(flags) << 32 | u64::from(next) << 48;
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&address.to_le_bytes());
    bytes[8..].copy_from_slice(&rest.to_le_bytes());
    bytes
}

/// A request that a test has made.
#[derive(Clone, Copy)]
pub struct TestRequest {
    pub response: u64,
    pub data: u64,
}

/// A driver's view of one ring.
pub struct TestRing {
    pub memory: Rc<TestMemory>,
    pub size: u16,
    pub table: u64,
    pub available: u64,
    pub used: u64,
    pub index: u16,
    seen: u16,
    pub kick: EventFd,
    pub call: EventFd,
}

impl TestRing {
    pub fn new(memory: &Rc<TestMemory>, size: u16) -> Self {
        let entries = u64::from(size);
        TestRing {
            memory: memory.clone(),
            size,
            table: memory.allocate(16 * entries),
            available: memory.allocate(6 + 2 * entries),
            used: memory.allocate(6 + 8 * entries),
            index: 0,
            seen: 0,
            kick: EventFd::new(EFD_NONBLOCK).unwrap(),
            call: EventFd::new(EFD_NONBLOCK).unwrap(),
        }
    }

    /// As if the ring had been in use up to entry `index` when it starts.
    pub fn start_at(&mut self, index: u16) {
        (self.index, self.seen) = (index, index);
        self.memory.write(self.available + 2, &index.to_le_bytes());
        self.memory.write(self.used + 2, &index.to_le_bytes());
    }

    pub fn layout(&self) -> Layout {
        let user = |address| address - TestMemory::GUEST + TestMemory::USER;
        Layout {
            size: self.size,
            descriptors: user(self.table),
            available: user(self.available),
            used: user(self.used),
        }
    }

    /// The ring, started.
    pub fn open(&self, index: RingIndex, features: u64) -> Queue {
        Queue::open(self.setup(index, features, self.index, None)).unwrap()
    }

    /// The ring, started by a process of which the front end knows no more than what the last one
    /// has answered.
    pub fn reopen(
        &self,
        index: RingIndex,
        features: u64,
        record: Record,
    ) -> Result<Queue, RingError> {
        let used = self.memory.read16(self.used + 2);
        Queue::open(self.setup(index, features, used, Some(record)))
    }

    fn setup(
        &self,
        index: RingIndex,
        features: u64,
        base: u16,
        record: Option<Record>,
    ) -> RingStart {
        RingStart {
            index,
            layout: self.layout(),
            base,
            features: Features::accept(features).unwrap(),
            memory: self.memory.table(),
            log: None,
            used_address: None,
            record,
            enabled: true,
            kick: event_file(&self.kick),
            call: Some(Arc::new(event_file(&self.call))),
            err: None,
        }
    }

    pub fn describe(&self, index: u16, address: u64, len: u32, flags: u16, next: u16) {
        let at = self.table + 16 * u64::from(index);
        self.memory.write(at, &descriptor(address, len, flags, next));
    }

    /// Adds a head to the available ring.
    pub fn offer(&mut self, head: u16) {
        let slot = u64::from(self.index % self.size);
        self.memory.write(self.available + 4 + 2 * slot, &head.to_le_bytes());
        self.index = self.index.wrapping_add(1);
        self.set_available_index(self.index);
    }

    pub fn set_available_index(&self, index: u16) {
        self.memory.write(self.available + 2, &index.to_le_bytes());
    }

    pub fn set_available_flags(&self, flags: u16) {
        self.memory.write(self.available, &flags.to_le_bytes());
    }

    pub fn set_used_event(&self, index: u16) {
        let at = self.available + 4 + 2 * u64::from(self.size);
        self.memory.write(at, &index.to_le_bytes());
    }

    pub fn available_event(&self) -> u16 {
        self.memory.read16(self.used + 4 + 8 * u64::from(self.size))
    }

    pub fn used_flags(&self) -> u16 {
        self.memory.read16(self.used)
    }

    /// What has been used since the last look: head and length.
    pub fn take_used(&mut self) -> Vec<(u32, u32)> {
        let mut entries = Vec::new();
        while self.seen != self.memory.read16(self.used + 2) {
            let at = self.used + 4 + 8 * u64::from(self.seen % self.size);
            entries.push((self.memory.read32(at), self.memory.read32(at + 4)));
            self.seen = self.seen.wrapping_add(1);
        }
        entries
    }

    /// True when the driver was notified since the last look.
    pub fn was_called(&self) -> bool {
        self.call.read().is_ok()
    }

    /// A READ-like request in the three descriptors from `head` on, not offered yet.
    pub fn read_request(&self, head: u16, data: u32) -> TestRequest {
        let mut header = [0; HEADER_LEN];
        header[0..4].copy_from_slice(&[1, 0, 0x40, 0]);
        header[8..10].copy_from_slice(&head.to_le_bytes());
        header[19] = 0x28;
        let header = self.memory.store(&header);
        let response = self.memory.store(&[0xFF; RESPONSE_LEN]);
        let room = self.memory.allocate(data.into());
        self.describe(head, header, HEADER_LEN as u32, NEXT, head + 1);
        self.describe(head + 1, response, RESPONSE_LEN as u32, NEXT | WRITE, head + 2);
        self.describe(head + 2, room, data, WRITE, 0);
        TestRequest { response, data: room }
    }

    /// A LOGICAL UNIT RESET in the two descriptors from `head` on, not offered yet; where its answer
    /// goes.
    pub fn reset_request(&self, head: u16) -> u64 {
        let mut request = [0; 24];
        (request[4], request[8], request[10]) = (5, 1, 0x40);
        let request = self.memory.store(&request);
        let response = self.memory.store(&[0xFF]);
        self.describe(head, request, 24, NEXT, head + 1);
        self.describe(head + 1, response, 1, WRITE, 0);
        response
    }

    /// The response code that a request got.
    pub fn response_code(&self, request: TestRequest) -> u8 {
        self.memory.read(request.response, RESPONSE_LEN)[11]
    }
}

/// An eventfd as vhost-user brings it.
pub fn event_file(event: &EventFd) -> File {
    use std::os::fd::{AsRawFd, BorrowedFd};
    // SAFETY: the eventfd is open while it is borrowed.
    let borrowed = unsafe { BorrowedFd::borrow_raw(event.as_raw_fd()) };
    File::from(borrowed.try_clone_to_owned().unwrap())
}

/// Steers the fake lanes, all of them at once.
#[derive(Debug, Default)]
pub struct FakeLanes {
    /// Requests are taken and not answered.
    pub hold: Arc<AtomicBool>,
    /// While somebody has this, the lanes but the first get nowhere.
    pub stall: Arc<Mutex<()>>,
    /// Front ends connected.
    pub connected: AtomicI32,
}

impl Lanes for FakeLanes {
    type Lane = FakeLane;

    fn lane(&self, id: LaneId) -> std::io::Result<FakeLane> {
        let stall = (id != LaneId::FIRST).then(|| self.stall.clone());
        Ok(FakeLane { hold: self.hold.clone(), stall, ..FakeLane::default() })
    }

    fn connected(&self, connected: bool) {
        self.connected.fetch_add(if connected { 1 } else { -1 }, Ordering::SeqCst);
    }
}

/// Answers each read with [`PATTERN`], or holds it until the ring stops.
#[derive(Debug, Default)]
pub struct FakeLane {
    hold: Arc<AtomicBool>,
    stall: Option<Arc<Mutex<()>>>,
    held: Vec<(Owed, u32, Segments)>,
    request: Request,
    deadline: Option<Instant>,
    gone: bool,
}

impl Driven for FakeLane {
    fn turn<G: Guest>(&mut self, guest: &mut G, now: Instant) -> Turn {
        drop(self.stall.as_ref().map(|stall| stall.lock()));
        if self.gone {
            self.held.drain(..).for_each(|(owed, ..)| owed.abandon());
        }
        if self.deadline.is_some_and(|deadline| now >= deadline) {
            for (owed, room, data) in self.held.drain(..) {
                guest.complete(owed, &Outcome::response(Response::Failure, room), &data);
            }
        }
        while self.deadline.is_none() {
            let Some(owed) = guest.next(&mut self.request) else { break };
            let room = self.request.room();
            if self.hold.load(Ordering::SeqCst) {
                self.held.push((owed, room, self.request.data_in.clone()));
                continue;
            }
            let data = &self.request.data_in;
            let stored = data.write_at(0, &vec![PATTERN; data.len()]) as u32;
            guest.complete(owed, &Outcome::good(stored, room), data);
        }
        while let Some((owed, request)) = guest.next_control() {
            guest.answer_control(owed, &request, ControlResponse::FunctionComplete);
        }
        guest.flush();
        let timer = self.deadline.filter(|_| !self.held.is_empty());
        Turn { again: false, timer }
    }

    fn wait_fds(&self) -> &[RawFd] {
        &[]
    }

    fn wait_fds_version(&self) -> u64 {
        0
    }

    fn drain(&mut self, deadline: Instant) {
        self.deadline = Some(self.deadline.map_or(deadline, |earlier| earlier.min(deadline)));
    }

    /// It answers at once.
    fn drain_tasks(&mut self, _: Instant) {}

    fn disconnect(&mut self) {
        self.gone = true;
    }

    fn is_idle(&self) -> bool {
        self.held.is_empty()
    }

    fn resume(&mut self) {
        (self.deadline, self.gone) = (None, false);
    }
}
