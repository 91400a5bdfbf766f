//! A front end that sends nonsense over the socket. Its connection may end; the process goes on,
//! the next connection is served as ever, and the log stays short.

use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use crate::backend::{Backend, Setup};
use crate::driver::{Session, connect, eventfd, feature};
use crate::handshake::exercise;
use crate::memory::{GuestMemory, LAYOUT};
use crate::sys;
use crate::wire::{self, Message, NEED_REPLY, VERSION, receive, request::*, words32, words64};

/// The connection must show within this time that it lives or that it has ended.
const REACTION: Duration = Duration::from_secs(3);

/// A message of so many body bytes, all zero.
fn zeroes(request: u32, len: usize) -> Message {
    Message::new(request, vec![0; len])
}

/// SET_VRING_* with an index and a number.
fn ring(request: u32, index: u32, number: u32) -> Message {
    Message::new(request, words32(&[index, number]))
}

/// SET_VRING_ADDR with descriptor, used and available addresses.
fn addresses(index: u32, [descriptors, used, available]: [u64; 3]) -> Message {
    let mut body = words32(&[index, 0]);
    body.extend(words64(&[descriptors, used, available, 0]));
    Message::new(SET_VRING_ADDR, body)
}

/// SET_MEM_TABLE with regions of (address, length, user address, offset).
fn table(count: u32, regions: &[[u64; 4]], fd: RawFd) -> Message {
    let mut body = words32(&[count, 0]);
    body.extend(words64(&regions.concat()));
    Message::new(SET_MEM_TABLE, body).with(&vec![fd; regions.len()])
}

/// ADD_MEM_REG or REM_MEM_REG.
fn region(request: u32, region: [u64; 4], fds: &[RawFd]) -> Message {
    let mut body = words64(&[0]);
    body.extend(words64(&region));
    Message::new(request, body).with(fds)
}

/// Messages with a wrong body, size or number.
fn malformed() -> Vec<(&'static str, Message)> {
    let sized = |request, size, len| Message { size, ..zeroes(request, len) };
    let flagged = |flags| Message { flags, ..zeroes(GET_FEATURES, 0) };
    vec![
        ("request 0", zeroes(0, 0)),
        ("unknown request", zeroes(9999, 8)),
        (
            "unknown request that wants a reply",
            Message { flags: VERSION | NEED_REPLY, ..zeroes(200, 0) },
        ),
        ("version 0", flagged(0)),
        ("version 3", flagged(3)),
        ("a reply", flagged(VERSION | 4)),
        ("every flag", flagged(u32::MAX)),
        ("GET_FEATURES with a body", zeroes(GET_FEATURES, 64)),
        ("SET_FEATURES without a body", zeroes(SET_FEATURES, 0)),
        ("SET_FEATURES with half a body", zeroes(SET_FEATURES, 4)),
        ("SET_FEATURES with every bit", Message::new(SET_FEATURES, words64(&[u64::MAX]))),
        ("body of 4 GiB announced", sized(SET_FEATURES, u32::MAX, 8)),
        ("body of 5000 bytes", zeroes(SET_MEM_TABLE, 5000)),
        ("SET_OWNER again", zeroes(SET_OWNER, 0)),
        ("GET_CONFIG, not negotiated", zeroes(GET_CONFIG, 12)),
        ("GET_INFLIGHT_FD, not negotiated", zeroes(GET_INFLIGHT_FD, 24)),
        ("SET_INFLIGHT_FD, not negotiated", zeroes(SET_INFLIGHT_FD, 24)),
        ("SET_LOG_BASE, not negotiated", zeroes(SET_LOG_BASE, 16)),
        ("GET_STATUS, not negotiated", zeroes(GET_STATUS, 0)),
        ("SET_VRING_NUM of half a body", zeroes(SET_VRING_NUM, 4)),
        ("GET_QUEUE_NUM with a body", zeroes(GET_QUEUE_NUM, 8)),
    ]
}

/// Ring messages that are well formed and make no sense. `fd` is any descriptor.
fn rings(fd: RawFd) -> Vec<(&'static str, Message)> {
    let kick = |index: u64| Message::new(SET_VRING_KICK, words64(&[index]));
    let call = |index: u64| Message::new(SET_VRING_CALL, words64(&[index]));
    vec![
        ("size of a ring that is not there", ring(SET_VRING_NUM, 5000, 128)),
        ("size of the last ring there could be", ring(SET_VRING_NUM, u32::MAX, 128)),
        ("ring of no entries", ring(SET_VRING_NUM, 2, 0)),
        ("ring of 3 entries", ring(SET_VRING_NUM, 2, 3)),
        ("ring of 65536 entries", ring(SET_VRING_NUM, 2, 65_536)),
        ("ring of 2^32 - 1 entries", ring(SET_VRING_NUM, 2, u32::MAX)),
        ("base beyond 16 bits", ring(SET_VRING_BASE, 2, 0x1_0000)),
        ("base of a ring that is not there", ring(SET_VRING_BASE, 9999, 0)),
        ("stop of a ring that is not there", ring(GET_VRING_BASE, 9999, 0)),
        ("stop of a ring that never started", ring(GET_VRING_BASE, 2, 0)),
        ("enable of a ring that is not there", ring(SET_VRING_ENABLE, 9999, 1)),
        ("enable by 77", ring(SET_VRING_ENABLE, 2, 77)),
        ("enable of a ring without addresses", ring(SET_VRING_ENABLE, 2, 1)),
        ("addresses before memory", addresses(2, [0x1000, 0x2000, 0x3000])),
        ("addresses of a ring that is not there", addresses(9999, [0; 3])),
        ("addresses at the top", addresses(2, [u64::MAX - 15; 3])),
        ("misaligned addresses", addresses(2, [0x1001, 0x2001, 0x3001])),
        ("kick without a descriptor", kick(2)),
        ("kick with two descriptors", kick(2).with(&[fd, fd])),
        ("kick that is no eventfd", kick(2).with(&[fd])),
        ("kick of a ring that is not there", kick(0xFE).with(&[fd])),
        ("kick by polling", kick(0x102)),
        ("call without a descriptor", call(2)),
        ("call that is no eventfd", call(2).with(&[fd])),
        ("error descriptor of nothing", Message::new(SET_VRING_ERR, words64(&[2]))),
        ("descriptors where none belong", zeroes(GET_FEATURES, 0).with(&[fd; 16])),
    ]
}

/// Memory tables that make no sense. `fd` is a file of 48 MiB.
fn tables(fd: RawFd) -> Vec<(&'static str, Message)> {
    const M: u64 = 1 << 20;
    let one = |region: [u64; 4]| table(1, &[region], fd);
    vec![
        ("empty table", table(0, &[], fd)),
        ("table of 255 regions announced", table(255, &[[0, M, M, 0]], fd)),
        ("table of 2^32 - 1 regions announced", table(u32::MAX, &[[0, M, M, 0]], fd)),
        ("table without descriptors", Message { fds: Vec::new(), ..one([0, M, M, 0]) }),
        ("table with too many descriptors", one([0, M, M, 0]).with(&[fd; 5])),
        ("region of no bytes", one([0, 0, M, 0])),
        ("region of 2^64 - 1 bytes", one([0, u64::MAX, M, 0])),
        ("region over the top of guest memory", one([u64::MAX - 4096, M, M, 0])),
        ("region over the top of user memory", one([0, M, u64::MAX - 4096, 0])),
        ("region past the end of its file", one([0, M, M, 1 << 40])),
        ("region with an offset over the top", one([0, M, M, u64::MAX - 4096])),
        ("region at an odd offset", one([0, M, M, 123])),
        ("overlapping regions", table(2, &[[0, 2 * M, M, 0], [M, 2 * M, 8 * M, 0]], fd)),
        ("one region twice", table(2, &[[0, M, M, 0], [0, M, M, 0]], fd)),
        ("add without a descriptor", region(ADD_MEM_REG, [0, M, M, 0], &[])),
        ("add with two descriptors", region(ADD_MEM_REG, [0, M, M, 0], &[fd, fd])),
        ("add of no bytes", region(ADD_MEM_REG, [0, 0, M, 0], &[fd])),
        ("add over the top", region(ADD_MEM_REG, [u64::MAX - 1, M, M, 0], &[fd])),
        ("remove of what is not there", region(REM_MEM_REG, [M, M, M, 0], &[])),
        ("remove with a descriptor", region(REM_MEM_REG, [M, M, M, 0], &[fd])),
    ]
}

/// A connection on which features are negotiated.
fn negotiated(backend: &Backend) -> Session {
    use vhost::VhostBackend;
    use vhost::vhost_user::message::VhostUserProtocolFeatures;
    let stream = connect(&backend.socket()).expect("the backend listens");
    let mut session = Session::open(stream).expect("the backend answers");
    let protocol = VhostUserProtocolFeatures::MQ | VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS;
    session.claim(protocol).expect("the session is free");
    let features = feature::VERSION_1 | feature::PROTOCOL;
    session.frontend.set_features(features).expect("both are offered");
    session
}

/// The connection answers, or it has ended. One that does neither is stuck.
fn assert_lives_or_ended(session: &mut Session) {
    let stream = &mut session.stream;
    stream.set_read_timeout(Some(REACTION)).expect("a timeout can be set");
    if !zeroes(GET_FEATURES, 0).send(stream) {
        return;
    }
    // Answers to what came before may be read first; a few at most.
    for _ in 0..4 {
        match receive(stream) {
            Some((GET_FEATURES, _, _)) => return,
            Some(_) => {}
            None => break,
        }
    }
    let closed =
        sys::is_closed(stream.as_raw_fd(), REACTION) || !zeroes(GET_FEATURES, 0).send(stream);
    assert!(closed, "the connection neither answers nor ends");
}

fn play(backend: &Backend, name: &str, message: &Message) {
    // The harness keeps this to itself unless the test fails: the last line tells which case.
    eprintln!("{name}");
    let mut session = negotiated(backend);
    let announced = message.size as usize;
    message.send(&session.stream);
    if announced > message.body.len() {
        // The device may rightly wait for the rest of the body. Hang up instead.
        drop(session);
    } else {
        assert_lives_or_ended(&mut session);
    }
}

fn play_all(cases: &[(&'static str, Message)]) {
    let backend = Setup::ports(1).start();
    for (name, message) in cases {
        play(&backend, name, message);
        exercise(&mut backend.guest(1), 1);
    }
    let lines = backend.log().len();
    assert!(lines < 50 + 4 * cases.len(), "{lines} lines of log");
}

#[test]
fn malformed_messages_harm_nobody() {
    play_all(&malformed());
}

#[test]
fn ring_messages_without_sense_harm_nobody() {
    let memory = sys::memfd(4096);
    play_all(&rings(memory.as_raw_fd()));
}

#[test]
fn memory_tables_without_sense_harm_nobody() {
    let memory = sys::memfd(48 << 20);
    play_all(&tables(memory.as_raw_fd()));
}

#[test]
fn file_shorter_than_its_region_harms_nobody() {
    // The pages behind the file's end do not exist: who touches them gets SIGBUS.
    let backend = Setup::ports(1).start();
    let short = sys::memfd(4096);
    let mut session = negotiated(&backend);
    table(1, &[[0, 1 << 20, 1 << 20, 0]], short.as_raw_fd()).send(&session.stream);
    let base = 1 << 20;
    addresses(2, [base + 0x10000, base + 0x20000, base + 0x30000]).send(&session.stream);
    let kick = eventfd();
    let message = Message::new(SET_VRING_KICK, words64(&[2])).with(&[kick.as_raw_fd()]);
    message.send(&session.stream);
    ring(SET_VRING_ENABLE, 2, 1).send(&session.stream);
    assert_lives_or_ended(&mut session);
    drop(session);
    exercise(&mut backend.guest(1), 1);
}

#[test]
fn rings_before_memory_harm_nobody() {
    let backend = Setup::ports(1).start();
    let mut session = negotiated(&backend);
    let memory = GuestMemory::new(LAYOUT);
    let kick = eventfd();
    let user = memory.table()[0].userspace_addr;
    let messages = [
        ring(SET_VRING_NUM, 2, 128),
        ring(SET_VRING_BASE, 2, 0),
        addresses(2, [user + 0x1000, user + 0x2000, user + 0x3000]),
        Message::new(SET_VRING_KICK, words64(&[2])).with(&[kick.as_raw_fd()]),
        ring(SET_VRING_ENABLE, 2, 1),
    ];
    for message in messages {
        message.send(&session.stream);
    }
    kick.write(1).expect("an eventfd takes a count");
    assert_lives_or_ended(&mut session);
    drop(session);
    exercise(&mut backend.guest(1), 1);
}

#[test]
fn memory_removed_under_running_rings_harms_nobody() {
    use vhost::vhost_user::VhostUserFrontend;
    let backend = Setup::ports(1).start();
    let mut device = backend.guest(2);
    exercise(&mut device, 1);
    for region in device.memory.table() {
        // Refused or obeyed; with the last one the rings themselves are gone.
        let _ = device.session.frontend.remove_mem_region(&region);
    }
    for queue in &device.queues {
        queue.ring.kick_always();
    }
    std::thread::sleep(Duration::from_millis(50));
    drop(device);
    exercise(&mut backend.guest(1), 2);
}

#[test]
fn connections_that_say_nothing_or_half_a_message_harm_nobody() {
    let backend = Setup::ports(1).start();
    let whole = Message::new(SET_FEATURES, words64(&[0])).bytes();
    for length in 0..whole.len() {
        let stream = connect(&backend.socket()).expect("the backend listens");
        if length > 0 {
            wire::send(&stream, &whole[..length], &[]);
        }
        drop(stream);
    }
    exercise(&mut backend.guest(1), 1);
    assert!(backend.log().len() < 100, "{} lines of log", backend.log().len());
}

#[test]
fn random_bytes_harm_nobody() {
    let backend = Setup::ports(1).start();
    let memory = sys::memfd(4096);
    let mut random = 0x5EED_0001_u64;
    let mut next = || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    for round in 0..150 {
        let session = negotiated(&backend);
        for _ in 0..8 {
            // Mostly known requests, so that the bodies are looked at.
            let request = (next() % 46) as u32;
            let len = (next() % 72) as usize / 4 * 4;
            let body = (0..len).map(|_| (next() >> 32) as u8 & next() as u8).collect();
            let fds = vec![memory.as_raw_fd(); (next() % 8).saturating_sub(5) as usize];
            let message = Message::new(request, body).with(&fds);
            if !message.send(&session.stream) {
                break;
            }
        }
        drop(session);
        if round % 25 == 0 {
            exercise(&mut backend.guest(1), round as u8);
        }
    }
    exercise(&mut backend.guest(1), 1);
    assert!(backend.log().len() < 1000, "{} lines of log", backend.log().len());
}
