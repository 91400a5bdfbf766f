//! Connecting, negotiating, starting, stopping and coming back.

use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use vhost::vhost_user::VhostUserFrontend;
use vhost::vhost_user::message::VhostUserProtocolFeatures;

use crate::backend::{Setup, directory};
use crate::driver::{Config, Device, Session, connect, feature};
use crate::initiator::{pattern, read, test_unit_ready, write};
use crate::memory::BORDER;
use crate::queue::{Layout, PROMPT};
use crate::ring::Segment;
use crate::wire::{Message, receive, request};

/// Writes and reads back over every queue of `device`, with blocks that depend on `seed`.
pub fn exercise(device: &mut Device, seed: u8) {
    device.queue().settle();
    for (at, queue) in device.queues.iter_mut().enumerate() {
        let data = pattern(seed ^ at as u8, 16);
        queue.good(&write(at as u32 * 16, data.clone()));
        assert_eq!(queue.good(&read(at as u32 * 16, 16)).data, data, "queue {at}");
    }
}

#[test]
fn features_offered_are_exactly_those_that_work() {
    use feature::*;
    let backend = Setup::ports(1).start();
    let stream = connect(&backend.socket()).expect("the backend listens");
    let session = Session::open(stream).expect("the backend answers");
    let wanted =
        HOTPLUG | CHANGE | LOG_ALL | ANY_LAYOUT | INDIRECT | EVENT_IDX | PROTOCOL | VERSION_1;
    assert_eq!(session.features, wanted, "{:#x} for {wanted:#x}", session.features);
    let wanted = VhostUserProtocolFeatures::MQ
        | VhostUserProtocolFeatures::LOG_SHMFD
        | VhostUserProtocolFeatures::REPLY_ACK
        | VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS
        | VhostUserProtocolFeatures::RESET_DEVICE
        | VhostUserProtocolFeatures::INFLIGHT_SHMFD;
    assert_eq!(session.protocol, wanted);
}

#[test]
fn queue_number_covers_the_default_of_64_request_queues() {
    // QEMU compares its request queues with this number, and then uses two rings more.
    let backend = Setup::ports(1).start();
    let mut device = backend.guest(1);
    let queues = device.session.frontend.get_queue_num().expect("MQ was negotiated");
    assert!(queues >= 66, "{queues} rings");
    assert!(device.session.frontend.get_max_mem_slots().expect("it was negotiated") >= 32);
}

#[test]
fn request_queues_1_2_4_and_8_all_serve() {
    let backend = Setup::ports(1).start();
    for queues in [1, 2, 4, 8] {
        exercise(&mut backend.guest(queues), queues as u8);
    }
}

#[test]
fn ring_features_in_every_combination_serve() {
    let backend = Setup::ports(1).start();
    for bits in [0, feature::EVENT_IDX, feature::INDIRECT, feature::EVENT_IDX | feature::INDIRECT] {
        let config = Config { features: feature::VERSION_1 | bits, ..Config::queues(2) };
        exercise(&mut Device::start(&backend.socket(), &config), bits.to_le_bytes()[3]);
    }
}

#[test]
fn ring_sizes_from_8_to_1024_serve_and_wrap() {
    let backend = Setup::ports(1).start();
    for ring_size in [8, 256, 1024] {
        let config = Config { ring_size, ..Config::default() };
        let mut device = Device::start(&backend.socket(), &config);
        for round in 0..64 {
            exercise(&mut device, round);
        }
    }
}

#[test]
fn seabios_set_up_with_one_ring_and_no_feature_serves() {
    let backend = Setup::ports(1).start();
    let config = Config { features: feature::VERSION_1, control: false, ..Config::default() };
    exercise(&mut Device::start(&backend.socket(), &config), 1);
}

#[test]
fn front_end_without_reply_ack_serves() {
    let backend = Setup::ports(1).start();
    let protocol = VhostUserProtocolFeatures::MQ;
    let config = Config { protocol, add_regions: false, ..Config::queues(2) };
    exercise(&mut Device::start(&backend.socket(), &config), 1);
}

#[test]
fn memory_table_in_one_message_serves() {
    let backend = Setup::ports(1).start();
    let config = Config { add_regions: false, ..Config::default() };
    exercise(&mut Device::start(&backend.socket(), &config), 1);
}

#[test]
fn descriptors_cut_anywhere_carry_the_same_data() {
    let backend = Setup::ports(1).start();
    let mut device = backend.guest(1);
    let queue = device.queue();
    queue.settle();
    for (at, layout) in [Layout::Plain, Layout::Pieces(512), Layout::Odd].into_iter().enumerate() {
        let data = pattern(at as u8 + 1, 40);
        queue.good(&write(0, data.clone()).cut(layout));
        assert!(queue.good(&read(0, 40).cut(layout)).data == data, "{layout:?}");
    }
}

#[test]
fn data_across_a_region_border_arrives_whole() {
    let backend = Setup::ports(1).start();
    let mut device = backend.guest(1);
    device.queue().settle();
    let data = pattern(3, 8);
    device.queue().good(&write(0, data.clone()));
    // By hand: the allocator does not place a buffer across a border.
    let memory = device.memory.clone();
    let header = memory.allocate(4096);
    let mut request = [0; 51];
    request[0..4].copy_from_slice(&[1, 0, 0x40, 0]);
    request[19..29].copy_from_slice(&read(0, 8).cdb[..10]);
    memory.write(header, &request);
    let segments = [
        Segment { addr: header, len: 51, write: false },
        Segment { addr: header + 1024, len: 108, write: true },
        Segment { addr: BORDER - 2048, len: 4096, write: true },
    ];
    let ring = &mut device.queue().ring;
    ring.add(&segments).expect("the ring is empty");
    ring.kick();
    assert!(ring.wait(PROMPT), "no answer");
    ring.pop();
    assert_eq!(memory.read(header + 1024 + 10, 2), [0, 0], "status and response");
    assert!(memory.read(BORDER - 2048, 4096) == data);
}

#[test]
fn second_connection_after_a_disconnect_works_as_the_first() {
    let backend = Setup::ports(1).start();
    for round in 0..10 {
        exercise(&mut backend.guest(2), round);
    }
}

#[test]
fn disconnect_with_requests_under_way_leaves_the_next_connection_whole() {
    let backend = Setup::ports(1).start();
    for round in 0..5 {
        let mut device = backend.guest(2);
        device.queue().settle();
        for at in 0..32 {
            device.queues[at % 2].submit(&write(1024 + 64 * at as u32, pattern(round, 64)));
        }
        drop(device);
        exercise(&mut backend.guest(2), round);
    }
}

#[test]
fn stop_and_start_of_the_rings_serves_again() {
    let backend = Setup::ports(1).start();
    let mut device = backend.guest(2);
    exercise(&mut device, 1);
    let expected: Vec<u32> =
        device.rings().iter().map(|(_, ring)| u32::from(ring.position())).collect();
    let stopped = device.stop().expect("the rings stop");
    // Event buffers count as taken or as not taken: either is right.
    assert_eq!((stopped[0], &stopped[2..]), (expected[0], &expected[2..]));
    device.start_rings().expect("the rings start again");
    exercise(&mut device, 2);
}

#[test]
fn reset_device_and_start_serves_again() {
    let backend = Setup::ports(1).start();
    let mut device = backend.guest(2);
    for round in 0..3 {
        exercise(&mut device, round);
        device.stop().expect("the rings stop");
        device.session.frontend.reset_device().expect("it was negotiated");
        // What changed hands is the feature set: firmware first, then the kernel.
        let firmware = round % 2 == 0;
        device.config.features =
            if firmware { feature::VERSION_1 } else { Config::default().features };
        device.config.control = !firmware;
        device.negotiate().expect("features can be set again");
        device.start_rings().expect("the rings start again");
    }
}

#[test]
fn second_front_end_waits_until_the_first_has_gone() {
    let backend = Setup::ports(1).start();
    let mut first = backend.guest(1);
    exercise(&mut first, 1);
    let mut second = connect(&backend.socket()).expect("the connection waits in the backlog");
    assert!(Message::new(request::GET_FEATURES, Vec::new()).send(&second));
    second.set_read_timeout(Some(Duration::from_millis(300))).expect("a timeout can be set");
    assert!(receive(&mut second).is_none(), "two front ends at once");
    exercise(&mut first, 2);
    drop(first);
    second.set_read_timeout(Some(PROMPT)).expect("a timeout can be set");
    assert!(receive(&mut second).is_some(), "the second front end is not served");
}

#[test]
fn packed_ring_feature_is_refused_and_the_next_connection_works() {
    let backend = Setup::ports(1).start();
    let config = Config { features: feature::VERSION_1 | feature::PACKED, ..Config::default() };
    let stream = connect(&backend.socket()).expect("the backend listens");
    assert!(Device::start_on(stream, &config).is_err(), "packed rings were accepted");
    exercise(&mut backend.guest(1), 1);
    let named = backend.log().iter().any(|line| line.to_lowercase().contains("packed"));
    assert!(named, "the log does not say what was refused: {:?}", backend.log());
}

#[test]
fn connected_descriptor_serves_and_its_end_ends_the_process() {
    let (ours, theirs) = UnixStream::pair().expect("a pair of sockets can be made");
    let mut backend = Setup::ports(1).start_on(theirs.as_raw_fd());
    drop(theirs);
    let mut device = Device::start_on(ours, &Config::default()).expect("the device starts");
    exercise(&mut device, 1);
    drop(device);
    let status = backend.wait_end(PROMPT).expect("the process ends with its connection");
    assert_eq!(status.code(), Some(0));
}

#[test]
fn listening_descriptor_serves_one_connection_after_another() {
    let dir = directory();
    let socket = dir.path().join("inherited.sock");
    let listener = UnixListener::bind(&socket).expect("the socket can be made");
    let backend = Setup::ports(1).start_on(listener.as_raw_fd());
    drop(listener);
    for round in 0..3 {
        exercise(&mut Device::start(&socket, &Config::default()), round);
    }
    drop(backend);
}

#[test]
fn control_socket_tells_whether_a_front_end_is_connected() {
    let backend = Setup::ports(1).start();
    let mut qmp = backend.qmp();
    let connected = |lun: serde_json::Value| lun["connected"].as_bool().expect("a boolean");
    assert!(!connected(qmp.execute("query-lun", serde_json::json!({}))));
    let mut device = backend.guest(1);
    assert!(device.queue().run(&test_unit_ready()).response == 0);
    assert!(qmp.event("FRONTEND_CONNECTED", PROMPT, |_| true).is_some());
    assert!(connected(qmp.execute("query-lun", serde_json::json!({}))));
    drop(device);
    assert!(qmp.event("FRONTEND_DISCONNECTED", PROMPT, |_| true).is_some());
    assert!(!connected(qmp.execute("query-lun", serde_json::json!({}))));
}
