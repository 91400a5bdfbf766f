//! A driver that puts nonsense on its rings. The request gets its error or the connection ends;
//! other rings and the next connection are served as ever, and the log stays short.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::backend::{Backend, Setup};
use crate::driver::{Config, Device, feature};
use crate::handshake::exercise;
use crate::initiator::{read, write};
use crate::memory::GuestMemory;
use crate::ring::{Descriptor, INDIRECT, NEXT, Ring, WRITE};
use crate::sys::readable;
use std::os::fd::AsRawFd;

/// How long the device has to show what it makes of it.
const REACTION: Duration = Duration::from_secs(2);

/// A ring to misuse, with buffers for one request that are in order by themselves: the header of
/// a READ(10) of 8 blocks, and room for response and data.
struct Stage<'a> {
    ring: &'a mut Ring,
    memory: Arc<GuestMemory>,
    header: u64,
    response: u64,
    data: u64,
    table: u64,
}

const UNTOUCHED: [u8; 2] = [0xEE; 2];

impl<'a> Stage<'a> {
    fn new(ring: &'a mut Ring, cdb: &[u8]) -> Self {
        let memory = ring.memory.clone();
        let [header, response, data, table] = [0; 4].map(|_| memory.allocate(32768));
        let mut request = [0; 51];
        request[0..4].copy_from_slice(&[1, 0, 0x40, 0]);
        request[19..19 + cdb.len()].copy_from_slice(cdb);
        memory.write(header, &request);
        memory.write(response, &[0xEE; 108]);
        Stage { ring, memory, header, response, data, table }
    }

    /// Writes descriptors 0.. of the ring, each followed by the next, and publishes the first.
    fn chain(&mut self, parts: &[(u64, u32, u16)]) {
        for (at, (addr, len, flags)) in parts.iter().enumerate() {
            let last = at + 1 == parts.len();
            let flags = flags | if last { 0 } else { NEXT };
            let next = at as u16 + 1;
            let descriptor = Descriptor { addr: *addr, len: *len, flags, next };
            self.ring.write_descriptor(at as u16, descriptor);
        }
        self.ring.publish(0);
    }

    /// The same in an indirect table, with these exact descriptors.
    fn indirect(&mut self, descriptors: &[Descriptor], len: u32) {
        for (at, descriptor) in descriptors.iter().enumerate() {
            self.memory.write(self.table + 16 * at as u64, &descriptor.bytes());
        }
        self.chain(&[(self.table, len, INDIRECT)]);
    }

    /// Status and response, if the device wrote them.
    fn answer(&self) -> [u8; 2] {
        let bytes = self.memory.read(self.response + 10, 2);
        [bytes[0], bytes[1]]
    }
}

type Build = fn(&mut Stage);

/// Chains that can be given back: with an error where the device finds the response, else with
/// nothing written, unless the connection ends.
const ANSWERABLE: &[(&str, Build)] = &[
    ("data in a hole", |s| good_but_data(s, 64 << 20, 4096)),
    ("data at the top of the address space", |s| good_but_data(s, u64::MAX - 100, 4096)),
    ("data over the end of memory", |s| good_but_data(s, (4096 << 20) + (16 << 20) - 512, 4096)),
    ("data of 4 GiB", |s| good_but_data(s, s.data, u32::MAX)),
    ("data of no bytes", |s| good_but_data(s, s.data, 0)),
    ("header of 1 byte", |s| {
        s.chain(&[(s.header, 1, 0), (s.response, 108, WRITE), (s.data, 4096, WRITE)]);
    }),
    ("header of 50 bytes", |s| {
        s.chain(&[(s.header, 50, 0), (s.response, 108, WRITE), (s.data, 4096, WRITE)]);
    }),
    ("no header", |s| s.chain(&[(s.response, 108, WRITE), (s.data, 4096, WRITE)])),
    ("header in a hole", |s| {
        s.chain(&[(64 << 20, 51, 0), (s.response, 108, WRITE), (s.data, 4096, WRITE)]);
    }),
    ("header behind the response", |s| {
        s.chain(&[(s.response, 108, WRITE), (s.header, 51, 0), (s.data, 4096, WRITE)]);
    }),
    ("both directions at once", |s| {
        let data = s.data;
        s.chain(&[
            (s.header, 51, 0),
            (data, 4096, 0),
            (s.response, 108, WRITE),
            (data + 8192, 4096, WRITE),
        ]);
    }),
    ("data in the wrong direction", |s| {
        s.chain(&[(s.header, 51, 0), (s.data, 4096, 0), (s.response, 108, WRITE)]);
    }),
    ("more data than any command may have", |s| {
        let huge = (16 << 20, 16 << 20, WRITE);
        let mut parts = vec![(s.header, 51, 0), (s.response, 108, WRITE)];
        parts.extend([huge; 60]);
        s.chain(&parts);
    }),
];

/// Chains that cannot be answered in the response, because there is none to be found.
const UNANSWERABLE: &[(&str, Build)] = &[
    ("head beyond the ring", |s| s.ring.publish(60_000)),
    ("head at the ring's size", |s| s.ring.publish(s.ring.size)),
    ("empty descriptor", |s| s.chain(&[(0, 0, 0)])),
    ("empty writable descriptor", |s| s.chain(&[(0, 0, WRITE)])),
    ("no response", |s| s.chain(&[(s.header, 51, 0)])),
    ("room for half a response", |s| s.chain(&[(s.header, 51, 0), (s.response, 54, WRITE)])),
    ("response in a hole", |s| s.chain(&[(s.header, 51, 0), (64 << 20, 108, WRITE)])),
    ("response at the top of the address space", |s| {
        s.chain(&[(s.header, 51, 0), (u64::MAX - 3, 108, WRITE)]);
    }),
    ("descriptor that is its own next", |s| {
        let d = Descriptor { addr: s.header, len: 51, flags: NEXT, next: 0 };
        s.ring.write_descriptor(0, d);
        s.ring.publish(0);
    }),
    ("loop of two descriptors", |s| {
        let (header, response) = (s.header, s.response);
        s.ring.write_descriptor(0, Descriptor { addr: header, len: 51, flags: NEXT, next: 1 });
        let flags = NEXT | WRITE;
        s.ring.write_descriptor(1, Descriptor { addr: response, len: 108, flags, next: 0 });
        s.ring.publish(0);
    }),
    ("next beyond the ring", |s| {
        let d = Descriptor { addr: s.header, len: 51, flags: NEXT, next: 50_000 };
        s.ring.write_descriptor(0, d);
        s.ring.publish(0);
    }),
    ("every flag at once", |s| {
        let d = Descriptor { addr: s.table, len: 64, flags: 0xFFFF, next: 1 };
        s.ring.write_descriptor(0, d);
        s.ring.publish(0);
    }),
    ("indirect table of no bytes", |s| s.chain(&[(s.table, 0, INDIRECT)])),
    ("indirect table of 17 bytes", |s| s.chain(&[(s.table, 17, INDIRECT)])),
    ("indirect table in a hole", |s| s.chain(&[(64 << 20, 64, INDIRECT)])),
    ("indirect table of 4 GiB", |s| s.chain(&[(s.table, u32::MAX - 15, INDIRECT)])),
    ("indirect table that the device may write", |s| {
        s.chain(&[(s.table, 32, INDIRECT | WRITE)]);
    }),
    ("indirect table in an indirect table", |s| {
        let (addr, response) = (s.table, s.response);
        let inner = Descriptor { addr, len: 32, flags: INDIRECT | NEXT, next: 1 };
        let outer = Descriptor { addr: response, len: 108, flags: WRITE, next: 0 };
        s.indirect(&[inner, outer], 32);
    }),
    ("loop in an indirect table", |s| {
        let d = Descriptor { addr: s.header, len: 51, flags: NEXT, next: 0 };
        s.indirect(&[d], 16);
    }),
    ("next beyond an indirect table", |s| {
        let d = Descriptor { addr: s.header, len: 51, flags: NEXT, next: 9 };
        s.indirect(&[d], 16);
    }),
    ("indirect and next in one descriptor", |s| {
        let parts = [(s.table, 32, INDIRECT), (s.response, 108, WRITE)];
        s.chain(&parts);
    }),
    ("available index 1000 ahead", |s| s.ring.jump(s.ring.position().wrapping_add(1000))),
    ("available index behind", |s| s.ring.jump(s.ring.position().wrapping_sub(1))),
    ("available index half a round ahead", |s| s.ring.jump(s.ring.position() ^ 0x8000)),
];

fn good_but_data(stage: &mut Stage, addr: u64, len: u32) {
    let (header, response) = (stage.header, stage.response);
    stage.chain(&[(header, 51, 0), (response, 108, WRITE), (addr, len, WRITE)]);
}

/// Waits until the device has used an entry of the ring beyond `before` or has ended the
/// connection. Returns whether it has used one.
fn reaction(device: &Device, before: u16) -> bool {
    let deadline = Instant::now() + REACTION;
    let ring = &device.queues[0].ring;
    while Instant::now() < deadline {
        if ring.used_index() != before {
            return true;
        }
        if device.is_closed(Duration::from_millis(2)) {
            return false;
        }
    }
    panic!("no answer, and the connection goes on");
}

/// After nonsense on the first request ring: the second one serves, or the connection has ended.
fn assert_not_stuck(device: &mut Device) {
    let queue = &mut device.queues[1];
    let ticket = queue.submit(&read(0, 8));
    let deadline = Instant::now() + REACTION;
    while Instant::now() < deadline {
        if queue.take(ticket).is_some() || device.session.stream_closed() {
            return;
        }
        readable(queue.ring.call.as_raw_fd(), Duration::from_millis(5));
    }
    panic!("the other ring is not served, and the connection goes on");
}

fn play(backend: &Backend, name: &str, cdb: &[u8], build: Build, answerable: bool) {
    // The harness keeps this to itself unless the test fails: the last line tells which case.
    eprintln!("{name}");
    let mut device = backend.guest(2);
    device.queue().settle();
    let before = device.queue().ring.used_index();
    let mut stage = Stage::new(&mut device.queues[0].ring, cdb);
    build(&mut stage);
    stage.ring.kick_always();
    let (memory, response) = (stage.memory.clone(), stage.response);
    if answerable && reaction(&device, before) {
        let answer = memory.read(response + 10, 2);
        assert_ne!(answer, [0, 0], "answered with GOOD");
        let used = memory.read(device.queues[0].ring.used_element(before) + 4, 4);
        assert!(answer != UNTOUCHED || used == [0; 4], "used, but not written");
    }
    assert_not_stuck(&mut device);
    drop(device);
    exercise(&mut backend.guest(1), 1);
}

#[test]
fn chains_with_a_wrong_part_are_answered_with_an_error() {
    let backend = Setup::ports(1).start();
    let cdb = &read(0, 8).cdb[..10];
    for (name, build) in ANSWERABLE {
        play(&backend, name, cdb, *build, true);
    }
    assert!(backend.log().len() < 50 + 4 * ANSWERABLE.len(), "{} lines", backend.log().len());
}

#[test]
fn chains_without_a_response_harm_nobody() {
    let backend = Setup::ports(1).start();
    let cdb = &read(0, 8).cdb[..10];
    for (name, build) in UNANSWERABLE {
        play(&backend, name, cdb, *build, false);
    }
    assert!(backend.log().len() < 50 + 4 * UNANSWERABLE.len(), "{} lines", backend.log().len());
}

#[test]
fn write_with_wild_data_writes_nothing() {
    let backend = Setup::ports(1).start();
    let mut device = backend.guest(2);
    device.queue().settle();
    let before = crate::initiator::pattern(5, 8);
    device.queue().good(&write(0, before.clone()));
    let used = device.queue().ring.used_index();
    let cdb = crate::initiator::transfer(0x2A, 0, 8);
    let mut stage = Stage::new(&mut device.queues[0].ring, &cdb);
    let (header, response, data) = (stage.header, stage.response, stage.data);
    let parts = [(header, 51, 0), (data, 2048, 0), (64 << 20, 2048, 0), (response, 108, WRITE)];
    stage.chain(&parts);
    stage.ring.kick_always();
    if reaction(&device, used) {
        let answer = device.memory.read(response + 10, 2);
        assert_ne!(answer, [0, 0], "answered with GOOD");
    }
    drop(device);
    let mut device = backend.guest(1);
    device.queue().settle();
    assert!(device.queue().good(&read(0, 8)).data == before, "half of it was written");
}

#[test]
fn one_head_twice_is_answered_twice_or_ends_the_connection() {
    let backend = Setup::ports(1).start();
    let mut device = backend.guest(2);
    device.queue().settle();
    let before = device.queue().ring.used_index();
    let mut stage = Stage::new(&mut device.queues[0].ring, &read(0, 8).cdb[..10]);
    let parts = [(stage.header, 51, 0), (stage.response, 108, WRITE), (stage.data, 4096, WRITE)];
    stage.chain(&parts);
    stage.ring.publish(0);
    stage.ring.kick_always();
    let answered = stage.answer() != UNTOUCHED;
    assert!(reaction(&device, before) || !answered);
    assert_not_stuck(&mut device);
    drop(device);
    exercise(&mut backend.guest(1), 1);
}

#[test]
fn control_and_event_rings_take_nonsense_too() {
    let backend = Setup::ports(1).start();
    let cases: &[(u32, u32)] = &[(0, 1), (3, 1), (8, 1), (24, 0), (15, 5), (4, 0), (60_000, 1)];
    for (out, back) in cases {
        let mut device = backend.guest(2);
        device.queue().settle();
        let memory = device.memory.clone();
        let buffer = memory.allocate(65536);
        let ring = &mut device.control().ring;
        let d = Descriptor { addr: buffer, len: *out, flags: NEXT, next: 1 };
        ring.write_descriptor(0, d);
        let d = Descriptor { addr: buffer + 61_440, len: *back, flags: WRITE, next: 0 };
        ring.write_descriptor(1, d);
        ring.publish(0);
        ring.kick_always();
        let ring = &mut device.events().ring;
        ring.publish(9999);
        ring.jump(ring.position().wrapping_add(777));
        ring.kick_always();
        assert_not_stuck(&mut device);
    }
    exercise(&mut backend.guest(1), 1);
}

#[test]
fn thousands_of_wrong_requests_leave_a_short_log() {
    let backend = Setup::ports(1).start();
    let config = Config { features: feature::VERSION_1, ..Config::queues(1) };
    let mut device = Device::start(&backend.socket(), &config);
    device.queue().settle();
    let mut stage = Stage::new(&mut device.queues[0].ring, &[0x12, 0, 0, 0, 36, 0]);
    let before = stage.ring.used_index();
    let parts = [(stage.header, 51, 0), (stage.response, 108, WRITE), (64 << 20, 36, WRITE)];
    stage.chain(&parts);
    let deadline = Instant::now() + REACTION;
    for sent in 1..3000u16 {
        stage.ring.kick_always();
        while stage.ring.used_index() == before.wrapping_add(sent - 1) && Instant::now() < deadline
        {
            std::thread::yield_now();
        }
        stage.ring.publish(0);
    }
    stage.ring.kick_always();
    drop(device);
    exercise(&mut backend.guest(1), 1);
    assert!(backend.log().len() < 200, "{} lines", backend.log().len());
}
