//! Stopping rings while commands are held by a dead path: one deadline for the whole device, and no
//! memory touched after. Every command is answered, or where the front end has an in-flight region,
//! goes on when the rings start again.

use std::time::{Duration, Instant};

use serde_json::json;

use vhost::VhostBackend;

use crate::backend::{Setup, path_name};
use crate::control::function::ABORT_TASK;
use crate::driver::{Config, Device};
use crate::initiator::{pattern, read, write};
use crate::load::Load;
use crate::memory::GuestMemory;
use crate::qmp::Qmp;
use crate::queue::{CANARY, Completion, LUN0, PROMPT, Queue, Ticket, response};

const SLACK: Duration = Duration::from_millis(500);
/// What the tests set where the default would only make them slower.
const DEADLINE: Duration = Duration::from_secs(1);

/// The only path executes commands and keeps their answers to itself.
pub fn hang(qmp: &mut Qmp) {
    let path = path_name(qmp, 1);
    qmp.execute("inject-fault", json!({"path": path, "fault": "hang"}));
}

/// Four reads and four writes on every queue.
pub fn submit(device: &mut Device) -> Vec<Vec<Ticket>> {
    let each = |(at, queue): (usize, &mut Queue)| {
        let lba = |command: usize| (at * 64 + command * 8) as u32;
        let mut tickets: Vec<Ticket> =
            (0..4).map(|command| queue.submit(&read(lba(command), 8))).collect();
        tickets.extend(
            (4..8).map(|command| queue.submit(&write(lba(command), pattern(command as u8, 8)))),
        );
        tickets
    };
    device.queues.iter_mut().enumerate().map(each).collect()
}

/// The answers, all of which must be there.
fn answers(device: &mut Device, tickets: &[Vec<Ticket>]) -> Vec<Completion> {
    let mut answers = Vec::new();
    for (queue, tickets) in device.queues.iter_mut().zip(tickets) {
        for ticket in tickets {
            answers.push(queue.take(*ticket).expect("a ring that stopped owes no answer"));
        }
    }
    answers
}

/// Fills the buffers that reads were given, lets the path go on, and looks whether what it still
/// held reached them.
fn assert_untouched(memory: &GuestMemory, answers: &[Completion], qmp: &mut Qmp) {
    for answer in answers {
        memory.write(answer.data_gpa, &vec![CANARY; answer.data.len()]);
    }
    qmp.execute("clear-faults", json!({}));
    std::thread::sleep(Duration::from_millis(700));
    for answer in answers {
        let data = memory.read(answer.data_gpa, answer.data.len());
        assert!(data.iter().all(|byte| *byte == CANARY), "memory was written after the stop");
    }
}

#[test]
fn stop_with_held_commands_ends_within_one_deadline_for_all_rings() {
    let backend = Setup::ports(1).backend("stop_deadline = 1.0").start();
    let mut qmp = backend.qmp();
    let mut device = Device::start(&backend.socket(), &Config::forgetful(4));
    device.queue().settle();
    hang(&mut qmp);
    let tickets = submit(&mut device);
    qmp.wait_until_held(4 * 8);
    let start = Instant::now();
    let positions = device.stop().expect("the rings stop");
    let took = start.elapsed();
    assert!(took < DEADLINE + SLACK, "6 rings took {took:?}");
    for (ring, position) in device.rings().iter().map(|(_, ring)| ring).zip(positions).skip(2) {
        assert_eq!(u32::from(ring.position()), position, "a request was not taken");
    }
    let answers = answers(&mut device, &tickets);
    for answer in &answers {
        assert_eq!(answer.response, response::FAILURE, "{answer:?}");
    }
    assert_untouched(&device.memory, &answers, &mut qmp);
}

#[test]
fn stop_with_no_path_ends_within_the_default_deadline() {
    let backend = Setup::ports(1).start();
    let mut qmp = backend.qmp();
    let mut device = Device::start(&backend.socket(), &Config::forgetful(3));
    device.queue().settle();
    let name = path_name(&mut qmp, 1);
    qmp.execute("path-fail", json!({"name": name}));
    let tickets = submit(&mut device);
    qmp.wait_until_held(3 * 8);
    let start = Instant::now();
    device.stop().expect("the rings stop");
    let took = start.elapsed();
    assert!(took < Duration::from_secs(5) + SLACK, "5 rings took {took:?}");
    for answer in answers(&mut device, &tickets) {
        assert_eq!(answer.response, response::FAILURE, "{answer:?}");
    }
}

/// Waits for the answers to [`submit`], which must be good, and looks at what was written.
fn assert_done(device: &mut Device, tickets: &[Vec<Ticket>]) {
    for (at, (queue, tickets)) in device.queues.iter_mut().zip(tickets).enumerate() {
        for ticket in tickets {
            let answer = queue.wait(*ticket, PROMPT);
            assert!(answer.is_good(), "{answer:?}");
        }
        for command in 4..8 {
            let written = queue.good(&read((at * 64 + command * 8) as u32, 8)).data;
            assert_eq!(written, pattern(command as u8, 8));
        }
    }
}

fn assert_unanswered(device: &mut Device, tickets: &[Vec<Ticket>]) {
    for (queue, tickets) in device.queues.iter_mut().zip(tickets) {
        for ticket in tickets {
            let answer = queue.take(*ticket);
            assert!(answer.is_none(), "{answer:?}");
        }
    }
}

#[test]
fn stop_with_held_commands_keeps_them_for_the_next_start() {
    let backend = Setup::ports(1).backend("stop_deadline = 1.0").start();
    let mut qmp = backend.qmp();
    let mut device = backend.guest(4);
    device.queue().settle();
    hang(&mut qmp);
    let tickets = submit(&mut device);
    qmp.wait_until_held(4 * 8);
    let start = Instant::now();
    device.stop().expect("the rings stop");
    let took = start.elapsed();
    assert!(took < DEADLINE + SLACK, "6 rings took {took:?}");
    assert_unanswered(&mut device, &tickets);
    qmp.execute("clear-faults", json!({}));
    std::thread::sleep(Duration::from_millis(700));
    assert_unanswered(&mut device, &tickets);
    device.resume().expect("the rings start again");
    assert_done(&mut device, &tickets);
}

#[test]
fn stop_with_no_path_keeps_the_commands_and_waits_for_nothing() {
    let backend = Setup::ports(1).start();
    let mut qmp = backend.qmp();
    let mut device = backend.guest(3);
    device.queue().settle();
    let name = path_name(&mut qmp, 1);
    qmp.execute("path-fail", json!({"name": name}));
    let tickets = submit(&mut device);
    qmp.wait_until_held(3 * 8);
    let start = Instant::now();
    device.stop().expect("the rings stop");
    let took = start.elapsed();
    assert!(took < SLACK, "5 rings took {took:?}");
    assert_unanswered(&mut device, &tickets);
    qmp.execute("path-reinstate", json!({"name": name}));
    device.resume().expect("the rings start again");
    assert_done(&mut device, &tickets);
}

#[test]
fn function_about_a_command_that_a_stopped_ring_keeps_fails() {
    let backend = Setup::ports(1).start();
    let mut qmp = backend.qmp();
    let mut device = backend.guest(2);
    device.queue().settle();
    let name = path_name(&mut qmp, 1);
    qmp.execute("path-fail", json!({"name": name}));
    let ticket = device.queues[1].submit(&read(0, 8));
    qmp.wait_until_held(1);
    device.session.frontend.get_vring_base(3).expect("the ring stops");
    let answer = device.control().manage(ABORT_TASK, LUN0, ticket.0);
    assert_eq!(answer, response::FAILURE, "it goes on at the next start, aborted or not");
    qmp.execute("path-reinstate", json!({"name": name}));
    device.stop().expect("the rings stop");
    device.resume().expect("the rings start again");
    assert!(device.queues[1].wait(ticket, PROMPT).is_good());
    assert_eq!(device.control().manage(ABORT_TASK, LUN0, ticket.0), response::OK);
}

#[test]
fn control_ring_that_stops_alone_fails_its_function_in_time_and_leaves_requests_alone() {
    let backend = Setup::ports(1).backend("stop_deadline = 0.5").start();
    let mut qmp = backend.qmp();
    let mut device = backend.guest(1);
    device.queue().settle();
    hang(&mut qmp);
    let ticket = device.queue().submit(&write(0, pattern(1, 8)));
    qmp.wait_until_held(1);
    let mut control = device.control.take().expect("there is one");
    // Answered when the write cannot land any more, after write_quiesce.
    let asked = std::thread::spawn(move || control.manage(ABORT_TASK, LUN0, ticket.0));
    std::thread::sleep(Duration::from_millis(100));
    let start = Instant::now();
    device.session.frontend.get_vring_base(0).expect("the ring stops");
    let took = start.elapsed();
    assert!(took < Duration::from_millis(500) + SLACK, "{took:?}");
    assert_eq!(asked.join().expect("it is answered"), response::FAILURE);
    qmp.execute("clear-faults", json!({}));
    device.queue().good(&read(8, 8));
    assert_eq!(device.queue().wait(ticket, PROMPT).response, response::ABORTED);
}

#[test]
fn sigterm_with_held_commands_keeps_them_for_the_next_process() {
    let mut backend = Setup::ports(1).backend("stop_deadline = 1.0").start();
    let mut qmp = backend.qmp();
    let mut device = backend.guest(2);
    device.queue().settle();
    hang(&mut qmp);
    let tickets = submit(&mut device);
    qmp.wait_until_held(2 * 8);
    let rings = device.places();
    backend.terminate();
    let status = backend.wait_end(DEADLINE + 2 * SLACK).expect("the process ends in time");
    assert_eq!(status.code(), Some(0));
    assert_unanswered(&mut device, &tickets);
    backend.start_again();
    device.reconnect(&backend.socket(), &rings).expect("the device starts again");
    assert_done(&mut device, &tickets);
}

#[test]
fn stop_and_start_under_load_with_the_path_lost_again_and_again_is_no_error() {
    let backend = Setup::ports(1).backend("stop_deadline = 0.3").start();
    let mut qmp = backend.qmp();
    let mut device = backend.guest(2);
    device.queue().settle();
    let name = path_name(&mut qmp, 1);
    let rings = device.places();
    let load = Load::start(std::mem::take(&mut device.queues), 8);
    for _ in 0..5 {
        std::thread::sleep(Duration::from_millis(100));
        qmp.execute("path-fail", json!({"name": name}));
        std::thread::sleep(Duration::from_millis(50));
        for ring in 0..4 {
            device.session.frontend.get_vring_base(ring).expect("the ring stops");
        }
        qmp.execute("path-reinstate", json!({"name": name}));
        device.run_again(&rings).expect("the rings start again");
    }
    std::thread::sleep(Duration::from_millis(200));
    load.stop().1.assert_clean();
}

#[test]
fn stop_of_a_healthy_device_loses_nothing() {
    let backend = Setup::ports(2).start();
    let mut device = backend.guest(3);
    device.queue().settle();
    for _ in 0..20 {
        let tickets = submit(&mut device);
        let start = Instant::now();
        device.stop().expect("the rings stop");
        assert!(start.elapsed() < DEADLINE, "nothing was in the way");
        // What was not taken is still in the ring, for who starts it again.
        for (queue, tickets) in device.queues.iter_mut().zip(&tickets) {
            let done = tickets.iter().filter_map(|ticket| queue.take(*ticket));
            assert!(done.inspect(|answer| assert!(answer.is_good(), "{answer:?}")).count() <= 8);
        }
        device.start_rings().expect("the rings start again");
    }
}

#[test]
fn rings_stopped_under_held_commands_start_again() {
    let backend = Setup::ports(1).backend("stop_deadline = 0.5").start();
    let mut qmp = backend.qmp();
    let mut device = backend.guest(2);
    device.queue().settle();
    hang(&mut qmp);
    submit(&mut device);
    qmp.wait_until_held(2 * 8);
    device.stop().expect("the rings stop");
    qmp.execute("clear-faults", json!({}));
    device.start_rings().expect("the rings start again");
    for (at, queue) in device.queues.iter_mut().enumerate() {
        let data = pattern(0x40 + at as u8, 8);
        let ticket = queue.submit(&write(at as u32 * 64 + 32, data.clone()));
        assert!(queue.wait(ticket, 3 * PROMPT).is_good());
        assert!(queue.good(&read(at as u32 * 64 + 32, 8)).data == data, "a late write came");
    }
}

#[test]
fn disconnect_with_held_commands_leaves_memory_alone() {
    let backend = Setup::ports(1).start();
    let mut qmp = backend.qmp();
    let mut device = backend.guest(2);
    device.queue().settle();
    hang(&mut qmp);
    submit(&mut device);
    qmp.wait_until_held(2 * 8);
    // Only the connection ends; the memory stays ours, and is looked at from here.
    let Device { session, queues, .. } = device;
    drop(session);
    qmp.event("FRONTEND_DISCONNECTED", PROMPT, |_| true).expect("the backend sees the end");
    let used: Vec<u16> = queues.iter().map(|queue| queue.ring.used_index()).collect();
    qmp.execute("clear-faults", json!({}));
    std::thread::sleep(Duration::from_millis(700));
    let after: Vec<u16> = queues.iter().map(|queue| queue.ring.used_index()).collect();
    assert_eq!(used, after, "a ring was used after its connection had ended");
    crate::handshake::exercise(&mut backend.guest(2), 3);
}

#[test]
fn sigterm_with_held_commands_is_a_clean_end() {
    let mut backend = Setup::ports(1).backend("stop_deadline = 1.0").start();
    let mut qmp = backend.qmp();
    let mut device = Device::start(&backend.socket(), &Config::forgetful(2));
    device.queue().settle();
    hang(&mut qmp);
    let tickets = submit(&mut device);
    qmp.wait_until_held(2 * 8);
    let start = Instant::now();
    backend.terminate();
    let status = backend.wait_end(DEADLINE + 2 * SLACK).expect("the process ends in time");
    assert_eq!(status.code(), Some(0), "after {:?}", start.elapsed());
    for answer in answers(&mut device, &tickets) {
        assert_eq!(answer.response, response::FAILURE, "{answer:?}");
    }
}

#[test]
fn quit_ends_the_process_cleanly() {
    let mut backend = Setup::ports(1).start();
    let mut device = backend.guest(1);
    crate::handshake::exercise(&mut device, 1);
    backend.qmp().execute("quit", json!({}));
    assert_eq!(backend.wait_end(PROMPT).and_then(|status| status.code()), Some(0));
    assert!(!backend.socket().exists(), "the socket was left behind");
}

#[test]
fn end_with_a_write_that_may_still_land_leaves_the_socket_as_a_crash_does() {
    let mut backend = Setup::ports(1).backend("stop_deadline = 0.5").start();
    let mut qmp = backend.qmp();
    let mut device = Device::start(&backend.socket(), &Config::forgetful(1));
    device.queue().settle();
    hang(&mut qmp);
    device.queue().submit(&write(8, pattern(1, 8)));
    qmp.wait_until_held(1);
    backend.terminate();
    assert!(backend.wait_end(PROMPT).is_some_and(|status| status.code() == Some(0)));
    assert!(backend.socket().exists(), "the next start would wait for nothing");
    backend.start_again();
    crate::handshake::exercise(&mut backend.guest(1), 9);
    backend.terminate();
    assert!(backend.wait_end(PROMPT).is_some_and(|status| status.code() == Some(0)));
    assert!(!backend.socket().exists(), "the socket was left behind");
}
