//! How rings, connections and the whole backend come to their end.

use std::io::Write;
use std::os::fd::IntoRawFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use vhost::VhostBackend;
use vhost::vhost_user::Frontend;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::device::*;
use crate::front::testing::{TestMemory, TestRing};
use crate::front::{Endpoint, Listener};

#[test]
fn get_vring_base_tells_the_next_entry_and_the_ring_goes_on_from_there() {
    let (device, memory) = (Device::new(), TestMemory::new());
    let mut front = device.connect(LINUX, &memory);
    let mut ring = TestRing::new(&memory, 4);
    start(&mut front, 2, &ring, 0);
    for _ in 0..5 {
        round_trip(&mut ring);
    }
    assert_eq!(front.get_vring_base(2).unwrap(), 5);
    offer(&mut ring);
    thread::sleep(Duration::from_millis(20));
    assert_eq!(ring.take_used(), [], "a stopped ring is left alone");
    start(&mut front, 2, &ring, 5);
    assert_eq!(wait_used(&mut ring), [(0, 172)]);
    assert_eq!(front.get_vring_base(2).unwrap(), 6);
    assert_eq!(front.get_vring_base(3).unwrap(), 0, "a ring that never ran");
}

#[test]
fn front_end_that_leaves_with_requests_held_does_not_hurt_the_next() {
    let (device, memory) = (Device::new(), TestMemory::new());
    let mut ring = TestRing::new(&memory, 16);
    device.hold(true);
    let mut front = device.connect(LINUX, &memory);
    start(&mut front, 2, &ring, 0);
    offer(&mut ring);
    thread::sleep(Duration::from_millis(20));
    drop(front);
    wait_until("gone", || device.lanes.connected.load(Ordering::SeqCst) == 0);
    device.hold(false);
    // As QEMU does it: the next entry is taken to be what the used index says.
    let mut front = device.connect(LINUX, &memory);
    start(&mut front, 2, &ring, 0);
    assert_eq!(wait_used(&mut ring), [(0, 172)]);
    round_trip(&mut ring);
}

#[test]
fn stopping_rings_share_one_deadline_and_answer_failure() {
    let (device, memory) = (Device::new(), TestMemory::new());
    device.hold(true);
    let mut front = device.connect(LINUX, &memory);
    let mut rings = rings(&memory, 6);
    for (index, ring) in rings.iter().enumerate() {
        start(&mut front, index, ring, 0);
    }
    let requests: Vec<_> = rings[2..].iter_mut().map(offer).collect();
    thread::sleep(Duration::from_millis(50));
    let begin = Instant::now();
    for index in 0..6 {
        front.get_vring_base(index).unwrap();
    }
    let took = begin.elapsed();
    assert!(took >= DEADLINE && took < 2 * DEADLINE, "{took:?}");
    for (ring, request) in rings[2..].iter_mut().zip(requests) {
        assert_eq!(ring.take_used(), [(0, 108)]);
        assert_eq!(ring.response_code(request), 9);
    }
}

#[test]
fn stop_while_connected_drains_and_returns() {
    let (device, memory) = (Device::new(), TestMemory::new());
    device.hold(true);
    let mut front = device.connect(LINUX, &memory);
    let mut ring = TestRing::new(&memory, 16);
    start(&mut front, 2, &ring, 0);
    let request = offer(&mut ring);
    thread::sleep(Duration::from_millis(20));
    let path = device.path.clone();
    device.finish().unwrap();
    assert_eq!(ring.take_used(), [(0, 108)]);
    assert_eq!(ring.response_code(request), 9);
    assert!(!path.exists());
}

#[test]
fn stop_while_a_message_is_half_sent_returns() {
    let device = Device::new();
    let mut stream = UnixStream::connect(&device.path).unwrap();
    stream.write_all(&[1, 0, 0]).unwrap();
    wait_until("connected", || device.lanes.connected.load(Ordering::SeqCst) == 1);
    device.finish().unwrap();
}

#[test]
fn broken_ring_tells_the_front_end_and_can_be_stopped() {
    let (device, memory) = (Device::new(), TestMemory::new());
    let mut front = device.connect(LINUX, &memory);
    let mut ring = TestRing::new(&memory, 16);
    let err = EventFd::new(EFD_NONBLOCK).unwrap();
    front.set_vring_err(2, &err).unwrap();
    start(&mut front, 2, &ring, 0);
    ring.set_available_index(1000);
    ring.kick.write(1).unwrap();
    wait_until("told", || err.read().is_ok());
    assert_eq!(front.get_vring_base(2).unwrap(), 0);
    ring.set_available_index(0);
    start(&mut front, 2, &ring, 0);
    round_trip(&mut ring);
}

#[test]
fn inherited_connection_is_served_until_it_closes() {
    let (mut device, memory) = (Device::new(), TestMemory::new());
    let (ours, theirs) = UnixStream::pair().unwrap();
    let listener = Listener::open(&Endpoint::Fd(ours.into_raw_fd())).unwrap();
    let server = device.serve(listener);
    let mut front = greet(Frontend::from_stream(theirs, 8), LINUX, &memory);
    let mut ring = TestRing::new(&memory, 16);
    start(&mut front, 2, &ring, 0);
    round_trip(&mut ring);
    drop(front);
    server.join().unwrap().unwrap();
    device.server.take();
}
