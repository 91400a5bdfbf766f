//! Whole connections, against the `vhost` crate's front end.

use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{Ordering, fence};
use std::thread;
use std::time::Duration;

use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::device::*;
use crate::front::features::VERSION_1;
use crate::front::testing::{TestMemory, TestRing};

#[test]
fn round_trip_on_one_and_on_four_queues() {
    let device = Device::new();
    for count in [1, 4] {
        let memory = TestMemory::new();
        let mut front = device.connect(LINUX, &memory);
        let mut rings = rings(&memory, count + 2);
        for (index, ring) in rings.iter().enumerate() {
            start(&mut front, index, ring, 0);
        }
        for _ in 0..3 {
            rings[2..].iter_mut().for_each(round_trip);
        }
    }
    device.finish().unwrap();
}

#[test]
fn firmware_with_one_ring_and_fewer_features_then_linux() {
    let (device, memory) = (Device::new(), TestMemory::new());
    let mut front = device.connect(FIRMWARE, &memory);
    let mut ring = TestRing::new(&memory, 16);
    set_up(&front, 2, &ring, 0);
    for index in 0..3 {
        front.set_vring_enable(index, true).unwrap();
    }
    round_trip(&mut ring);
    for index in 0..3 {
        front.set_vring_enable(index, false).unwrap();
    }
    assert_eq!(front.get_vring_base(2).unwrap(), 1);
    front.reset_device().unwrap();
    front.set_features(LINUX).unwrap();
    let mut rings = rings(&memory, 3);
    for (index, ring) in rings.iter().enumerate() {
        start(&mut front, index, ring, 0);
    }
    round_trip(&mut rings[2]);
    device.finish().unwrap();
}

#[test]
fn second_connection_works_as_the_first() {
    let (device, memory) = (Device::new(), TestMemory::new());
    for _ in 0..3 {
        let mut front = device.connect(LINUX, &memory);
        let mut ring = TestRing::new(&memory, 16);
        start(&mut front, 2, &ring, 0);
        round_trip(&mut ring);
        assert_eq!(device.lanes.connected.load(Ordering::SeqCst), 1);
    }
    wait_until("gone", || device.lanes.connected.load(Ordering::SeqCst) == 0);
}

#[test]
fn packed_ring_ends_the_connection_and_nothing_else() {
    let (device, memory) = (Device::new(), TestMemory::new());
    let front = Frontend::connect(&device.path, 8).unwrap();
    front.get_features().unwrap();
    front.set_features(LINUX | 1 << 34).unwrap();
    assert!(front.get_features().is_err(), "the connection has ended");
    let mut front = device.connect(LINUX, &memory);
    let mut ring = TestRing::new(&memory, 16);
    start(&mut front, 2, &ring, 0);
    round_trip(&mut ring);
}

/// A message that the crate's front end would not send.
fn send(stream: &mut UnixStream, request: u32, body: &[u8]) {
    let mut message = Vec::new();
    for word in [request, 1, body.len() as u32] {
        message.extend(word.to_le_bytes());
    }
    message.extend(body);
    stream.write_all(&message).unwrap();
}

#[test]
fn messages_that_make_no_sense_end_their_connection_only() {
    let (device, memory) = (Device::new(), TestMemory::new());
    let state = |index: u32, num: u32| [index.to_le_bytes(), num.to_le_bytes()].concat();
    let hostile: [(u32, Vec<u8>); 8] = [
        (8, state(2, 3)),                      // SET_VRING_NUM, no power of two
        (8, state(9, 16)),                     // of a ring that is not configured
        (10, state(2, 65536)),                 // SET_VRING_BASE, too large
        (12, 0x102u64.to_le_bytes().to_vec()), // SET_VRING_KICK, polling
        (11, state(u32::MAX, 0)),              // GET_VRING_BASE
        (9, [0xFF; 40].to_vec()),              // SET_VRING_ADDR
        (31, [1; 24].to_vec()),                // GET_INFLIGHT_FD, not offered
        (0xFFFF, vec![]),
    ];
    for (request, body) in hostile {
        let mut stream = UnixStream::connect(&device.path).unwrap();
        send(&mut stream, request, &body);
        let mut rest = Vec::new();
        // The end, or a reset where something was left unread.
        let _ = io::Read::read_to_end(&mut stream, &mut rest);
        assert!(rest.is_empty(), "message {request}");
    }
    let mut front = device.connect(LINUX, &memory);
    let mut ring = TestRing::new(&memory, 16);
    start(&mut front, 2, &ring, 0);
    round_trip(&mut ring);
}

#[test]
fn running_ring_cannot_be_moved() {
    let (device, memory) = (Device::new(), TestMemory::new());
    let mut front = device.connect(LINUX, &memory);
    let (ring, other) = (TestRing::new(&memory, 16), TestRing::new(&memory, 16));
    start(&mut front, 2, &ring, 0);
    front.set_vring_addr(2, &addresses(&ring)).unwrap();
    assert!(front.set_vring_addr(2, &addresses(&other)).is_err());
}

#[test]
fn disabled_ring_takes_nothing_until_enabled() {
    let (device, memory) = (Device::new(), TestMemory::new());
    let mut front = device.connect(LINUX, &memory);
    let mut ring = TestRing::new(&memory, 16);
    set_up(&front, 2, &ring, 0);
    offer(&mut ring);
    thread::sleep(Duration::from_millis(20));
    assert_eq!(ring.take_used(), []);
    front.set_vring_enable(2, true).unwrap();
    assert_eq!(wait_used(&mut ring), [(0, 172)]);
}

#[test]
fn memory_slots_change_while_a_ring_runs() {
    let (device, memory) = (Device::new(), TestMemory::new());
    let mut front = device.connect(LINUX, &memory);
    let mut ring = TestRing::new(&memory, 16);
    start(&mut front, 2, &ring, 0);
    round_trip(&mut ring);
    ring.was_called();
    let extra = TestMemory::new();
    let slot = VhostUserMemoryRegionInfo {
        guest_phys_addr: 1 << 32,
        userspace_addr: 1 << 40,
        ..region(&extra)
    };
    front.add_mem_region(&slot).unwrap();
    assert!(ring.was_called(), "signalled again");
    round_trip(&mut ring);
    front.remove_mem_region(&slot).unwrap();
    round_trip(&mut ring);
    assert!(front.remove_mem_region(&slot).is_err());
}

#[test]
fn call_descriptor_may_change_while_the_ring_runs() {
    let (device, memory) = (Device::new(), TestMemory::new());
    let mut front = device.connect(LINUX, &memory);
    let mut ring = TestRing::new(&memory, 16);
    start(&mut front, 2, &ring, 0);
    let other = EventFd::new(EFD_NONBLOCK).unwrap();
    front.set_vring_call(2, &other).unwrap();
    round_trip(&mut ring);
    wait_until("the new one is used", || other.read().is_ok());
    assert!(!ring.was_called());
}

#[test]
fn control_ring_that_was_disabled_meanwhile_is_not_enabled_by_the_last_of_the_others() {
    let (device, memory) = (Device::new(), TestMemory::new());
    let stall = device.lanes.stall.clone();
    let mut front = device.connect(LINUX, &memory);
    let mut rings = rings(&memory, 4);
    for index in [2, 3] {
        start(&mut front, index, &rings[index], 0);
    }
    let busy = stall.lock().unwrap();
    // The second lane has something to do, and is stalled before it looks at what it is told.
    rings[3].kick.write(1).unwrap();
    thread::sleep(Duration::from_millis(50));
    start(&mut front, 0, &rings[0], 0);
    front.set_vring_enable(0, false).unwrap();
    drop(busy);
    let response = rings[0].reset_request(0);
    rings[0].offer(0);
    rings[0].kick.write(1).unwrap();
    thread::sleep(Duration::from_millis(50));
    assert_eq!(rings[0].take_used(), [], "the ring is disabled");
    front.set_vring_enable(0, true).unwrap();
    assert_eq!(wait_used(&mut rings[0]), [(0, 1)]);
    assert_eq!(memory.read(response, 1), [0]);
}

#[test]
fn ring_without_protocol_features_is_enabled_at_its_start() {
    let (device, memory) = (Device::new(), TestMemory::new());
    let front = device.connect(VERSION_1, &memory);
    let mut ring = TestRing::new(&memory, 16);
    set_up(&front, 2, &ring, 0);
    round_trip(&mut ring);
}

#[test]
fn two_rings_more_than_get_queue_num_says_are_accepted() {
    let device = Device::new();
    let mut stream = UnixStream::connect(&device.path).unwrap();
    for index in [6u32, 7] {
        send(&mut stream, 8, &[index.to_le_bytes(), 16u32.to_le_bytes()].concat());
    }
    // GET_FEATURES is answered: the connection lives.
    send(&mut stream, 1, &[]);
    let mut reply = [0; 20];
    io::Read::read_exact(&mut stream, &mut reply).unwrap();
}

#[test]
fn driver_that_kicks_only_when_asked_is_always_answered() {
    for acked in [LINUX, FIRMWARE] {
        let (device, memory) = (Device::new(), TestMemory::new());
        let mut front = device.connect(acked, &memory);
        let mut ring = TestRing::new(&memory, 8);
        ring.read_request(0, 8);
        start(&mut front, 2, &ring, 0);
        for _ in 0..3000 {
            let index = ring.index;
            ring.offer(0);
            fence(Ordering::SeqCst);
            let asked = match acked {
                LINUX => ring.available_event() == index,
                _ => ring.used_flags() == 0,
            };
            if asked {
                ring.kick.write(1).unwrap();
            }
            assert_eq!(wait_used(&mut ring).len(), 1);
        }
    }
}
