//! A front end and a driver that do anything, mostly in a way that makes sense: each round of a
//! storm is a connection with random messages, ring contents and descriptors, from a seed. What the
//! process shows to others stays as it is meanwhile.
//!
//! A failure prints the seed of its round; `STORM_SEED=N` begins with that one.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;
use vhost::vhost_user::message::VhostUserProtocolFeatures;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::backend::{Backend, Setup, directory};
use crate::driver::{Config, Device, connect, feature};
use crate::handshake::exercise;
use crate::holdings::Holdings;
use crate::qmp::Qmp;
use crate::ring::{Descriptor, INDIRECT, NEXT, Ring, WRITE};
use crate::sys::{memfd, owned};
use crate::wire::{Message, request::*, words32, words64};

/// splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// One of `from`, sometimes with a bit more or less.
    fn near(&mut self, from: &[u64]) -> u64 {
        let one = from[self.below(from.len() as u64) as usize];
        match self.below(8) {
            0 => one.wrapping_add(self.below(64)),
            1 => one.wrapping_sub(self.below(64)),
            2 => one ^ 1 << self.below(64),
            _ => one,
        }
    }
}

/// Descriptors of every kind that can be passed.
struct Descriptors(Vec<OwnedFd>);

impl Descriptors {
    fn new(folder: &Path) -> Self {
        let (reader, writer) = std::io::pipe().expect("a pipe can be made");
        let (one, other) = UnixStream::pair().expect("sockets can be made");
        // The other end is closed: it is readable, and at its end.
        let (closed, _) = UnixStream::pair().expect("sockets can be made");
        let open = |path: &str| OwnedFd::from(File::open(path).expect("it is there"));
        let eventfd = || {
            let event = EventFd::new(EFD_NONBLOCK).expect("an eventfd can be made");
            owned(&event)
        };
        Descriptors(vec![
            eventfd(),
            eventfd(),
            memfd(48 << 20).into(),
            memfd(4096).into(),
            reader.into(),
            writer.into(),
            one.into(),
            other.into(),
            closed.into(),
            open("/dev/zero"),
            open("/dev/null"),
            open("/"),
            open(folder.to_str().expect("it is text")),
        ])
    }

    fn any(&self, random: &mut Random) -> RawFd {
        // Mostly what belongs there.
        let end = if random.chance(60) { 3 } else { self.0.len() as u64 };
        self.0[random.below(end) as usize].as_raw_fd()
    }
}

/// Sizes, indexes and addresses that something may hang on.
const NUMBERS: [u64; 14] =
    [0, 1, 2, 3, 8, 16, 127, 128, 1024, 4096, 0xFFFF, 0x1_0000, 0x7FFF_FFFF, u64::MAX];

/// A message that may make sense.
fn message(random: &mut Random, device: &Device, fds: &Descriptors) -> Message {
    let table = device.memory.table();
    let user: Vec<u64> = table.iter().map(|region| region.userspace_addr).collect();
    let index = if random.chance(90) { random.below(5) } else { random.near(&NUMBERS) } as u32;
    let number = random.near(&NUMBERS) as u32;
    let address = |random: &mut Random| match random.chance(70) {
        true => random.near(&user) & !15,
        false => random.near(&NUMBERS),
    };
    let region = |random: &mut Random| {
        let one = &table[random.below(table.len() as u64) as usize];
        let values = [one.guest_phys_addr, one.memory_size, one.userspace_addr, one.mmap_offset];
        values.map(|value| if random.chance(85) { value } else { random.near(&NUMBERS) })
    };
    let mut message = match random.below(16) {
        0 => Message::new(SET_VRING_NUM, words32(&[index, number])),
        1 => Message::new(SET_VRING_BASE, words32(&[index, number])),
        2 => Message::new(GET_VRING_BASE, words32(&[index, 0])),
        3 | 4 => Message::new(SET_VRING_ENABLE, words32(&[index, number & 1])),
        5 => {
            let mut body = words32(&[index, 0]);
            body.extend(words64(&[address(random), address(random), address(random), 0]));
            Message::new(SET_VRING_ADDR, body)
        }
        6 => Message::new(SET_VRING_KICK, words64(&[index.into()])).with(&[fds.any(random)]),
        7 => Message::new(SET_VRING_CALL, words64(&[index.into()])).with(&[fds.any(random)]),
        8 => Message::new(SET_VRING_ERR, words64(&[index.into()])).with(&[fds.any(random)]),
        9 => {
            let count = 1 + random.below(3) as usize;
            let mut body = words32(&[count as u32, 0]);
            (0..count).for_each(|_| body.extend(words64(&region(random))));
            let fds: Vec<RawFd> = (0..count).map(|_| fds.any(random)).collect();
            Message::new(SET_MEM_TABLE, body).with(&fds)
        }
        10 | 11 => {
            let request = if random.chance(50) { ADD_MEM_REG } else { REM_MEM_REG };
            let body = words64(&[&[0][..], &region(random)].concat());
            let message = Message::new(request, body);
            if request == ADD_MEM_REG { message.with(&[fds.any(random)]) } else { message }
        }
        12 => {
            let bits = feature::VERSION_1 | feature::PROTOCOL | random.next() & feature::INDIRECT;
            Message::new(SET_FEATURES, words64(&[random.near(&[bits])]))
        }
        13 => {
            let mut body = words64(&[random.near(&NUMBERS), random.near(&NUMBERS)]);
            body.extend((index as u16).to_ne_bytes());
            body.extend((number as u16).to_ne_bytes());
            body.extend([0; 4]);
            let request = if random.chance(50) { GET_INFLIGHT_FD } else { SET_INFLIGHT_FD };
            Message::new(request, body).with(&[fds.any(random)])
        }
        14 => Message::new(RESET_DEVICE, Vec::new()),
        _ => {
            let len = random.below(80) as usize;
            let body = (0..len).map(|_| random.next() as u8).collect();
            Message::new(random.below(48) as u32, body)
        }
    };
    if random.chance(4) {
        message.size = random.near(&[message.size.into(), 0, 4096]) as u32;
    }
    if random.chance(4) {
        message.flags = random.next() as u32;
    }
    if random.chance(4) {
        message.fds = (0..random.below(9)).map(|_| fds.any(random)).collect();
    }
    message
}

/// Something on a ring: a chain that is in order but for a part of it, or any bytes.
fn scribble(random: &mut Random, ring: &mut Ring) {
    let memory = ring.memory.clone();
    let buffer = memory.allocate(8192);
    let cdb = match random.below(4) {
        0 => random.next() as u8,
        1 => 0x2A,
        2 => [0x12, 0x5E, 0x5F, 0x42, 0x89, 0x15, 0x1A, 0xA3][random.below(8) as usize],
        _ => 0x28,
    };
    let mut header = [0; 51];
    header[..4].copy_from_slice(&[1, 0, 0x40, 0]);
    (header[19], header[27]) = (cdb, 1);
    if random.chance(20) {
        header[random.below(51) as usize] = random.next() as u8;
    }
    memory.write(buffer, &header);
    let size = u64::from(ring.size);
    let reads = cdb != 0x2A;
    let [write, data] = [WRITE, if reads { WRITE } else { 0 }];
    let mut parts = vec![(buffer, 51, 0)];
    let (response, bytes) = ((buffer + 1024, 108, write), (buffer + 4096, 512, data));
    parts.extend(if reads { [response, bytes] } else { [bytes, response] });
    let first = random.below(size);
    for (at, (addr, len, flags)) in parts.iter().enumerate() {
        let index = ((first + at as u64) % size) as u16;
        let last = at + 1 == parts.len();
        let flags = flags | if last { 0 } else { NEXT };
        let next = ((first + at as u64 + 1) % size) as u16;
        let mut descriptor = Descriptor { addr: *addr, len: *len, flags, next };
        if random.chance(10) {
            match random.below(4) {
                0 => descriptor.addr = random.near(&NUMBERS),
                1 => descriptor.len = random.near(&NUMBERS) as u32,
                2 => descriptor.flags ^= [NEXT, WRITE, INDIRECT][random.below(3) as usize],
                _ => descriptor.next = random.next() as u16,
            }
        }
        ring.write_descriptor(index, descriptor);
    }
    match random.below(20) {
        0 => ring.publish(random.next() as u16),
        1 => ring.jump(random.next() as u16),
        2 => memory.write(ring.available, &random.next().to_le_bytes()),
        3 => memory.write(ring.used, &random.next().to_le_bytes()),
        _ => ring.publish(first as u16),
    }
    ring.kick_always();
    if random.chance(50) {
        // The device may write there still: it is the guest's own memory.
        memory.release(buffer, 8192);
    }
}

/// One connection, and one that waits until it is over.
fn round(backend: &Backend, fds: &Descriptors, seed: u64) {
    let mut random = Random(seed);
    let mut config = Config::queues(1 + random.below(3) as usize);
    config.ring_size = 8 << random.below(5);
    config.add_regions = random.chance(50);
    if random.chance(50) {
        config.features &= !(feature::EVENT_IDX | feature::INDIRECT) | random.next();
    }
    if random.chance(40) {
        config.protocol -= VhostUserProtocolFeatures::INFLIGHT_SHMFD;
    }
    let stream = connect(&backend.socket()).expect("the backend listens");
    let mut device = Device::start_on(stream, &config).expect("it begins in order");
    let next = (seed.is_multiple_of(16)).then(|| connect(&backend.socket()).expect("it may wait"));
    let stream = device.session.stream.try_clone().expect("a descriptor can be cloned");
    stream.set_nonblocking(true).expect("it is a socket");
    for _ in 0..random.below(60) {
        match random.below(10) {
            0..=2 => {
                // Gone, or not read by a connection that has to wait for something.
                let _ = message(&mut random, &device, fds).send(&stream);
            }
            3 => scribble(&mut random, &mut device.control().ring),
            4 => scribble(&mut random, &mut device.events().ring),
            _ => {
                let at = random.below(device.queues.len() as u64) as usize;
                scribble(&mut random, &mut device.queues[at].ring);
            }
        }
        // Answers are taken, so that nobody waits for us.
        let _ = (&stream).read(&mut [0; 4096]);
    }
    if random.chance(30) {
        std::thread::sleep(Duration::from_millis(random.below(20)));
    }
    drop((device, stream));
    if let Some(next) = next {
        let mut device = Device::start_on(next, &Config::queues(1)).expect("its turn has come");
        exercise(&mut device, seed as u8);
    }
}

/// What others see of the process.
struct Others {
    qmp: Qmp,
    metrics: std::path::PathBuf,
}

impl Others {
    /// The control socket and the metrics answer at once.
    fn look(&mut self) {
        let begin = Instant::now();
        let paths = self.qmp.execute("query-paths", json!({}));
        assert_eq!(paths.as_array().map(Vec::len), Some(2));
        assert!(paths.to_string().matches("\"up\"").count() == 2, "{paths:#}");
        let mut stream = UnixStream::connect(&self.metrics).expect("metrics are served");
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").expect("it takes a request");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        assert!(answer.starts_with("HTTP/1.") && answer.contains(" 200 "), "{answer}");
        assert!(begin.elapsed() < Duration::from_secs(3), "after {:?}", begin.elapsed());
    }
}

fn storm(time: Duration) {
    let folder = directory();
    let metrics = folder.path().join("metrics");
    let setup = Setup::ports(2).metrics(&format!("unix:{}", metrics.display()));
    let backend = setup.backend("stop_deadline = 0.5").patience(2 * time).start();
    let fds = Descriptors::new(folder.path());
    let mut others = Others { qmp: backend.qmp(), metrics };
    let first = std::env::var("STORM_SEED").map_or(1, |seed| seed.parse().expect("a number"));
    let begin = Instant::now();
    let (mut seed, mut before) = (first, None);
    while begin.elapsed() < time {
        // The harness keeps this to itself unless the test fails: the last line tells which.
        eprintln!("STORM_SEED={seed}");
        round(&backend, &fds, seed);
        if seed.is_multiple_of(16) {
            others.look();
            others.qmp.forget_events();
        }
        if seed == first + 32 {
            before = Some(Holdings::of(&backend));
        }
        seed += 1;
    }
    others.look();
    exercise(&mut backend.guest(2), 7);
    let rounds = seed - first;
    let after = Holdings::of(&backend);
    let time = begin.elapsed();
    let row = format!("storm | {rounds} connections in {time:?} | {before:?} | {after:?}\n");
    let _ = std::io::stderr().write_all(row.as_bytes());
    let before = before.unwrap_or_else(|| panic!("only {rounds} connections in {time:?}"));
    let anonymous_kib = before.anonymous_kib + 3072;
    after.assert_no_more_than(&Holdings { anonymous_kib, ..before });
    // Each place in the source has so many lines in each interval, whatever happens.
    let intervals = 2 + begin.elapsed().as_secs() / 10;
    let lines = backend.log().len() as u64;
    assert!(lines < 120 * intervals, "{lines} lines in {intervals} intervals");
}

#[test]
fn storm_of_messages_and_ring_contents_harms_nobody() {
    storm(Duration::from_secs(8));
}

#[test]
#[ignore = "long"]
fn long_storm_harms_nobody() {
    storm(Duration::from_secs(180));
}
