//! Task management, asynchronous notification, and what becomes of the commands they end.
//!
//! Commands are held by a port that takes them and never answers.

use std::time::Duration;

use serde_json::json;

use crate::backend::{Backend, Setup, path_name};
use crate::control::function::*;
use crate::driver::Device;
use crate::initiator::{pattern, read, test_unit_ready, write};
use crate::qmp::Qmp;
use crate::queue::{CANARY, Completion, LUN0, PROMPT, Ticket, response};

const LUN0_PERIPHERAL: [u8; 8] = [1, 0, 0, 0, 0, 0, 0, 0];
const ABSENT_LUN: [u8; 8] = [1, 0, 0x40, 1, 0, 0, 0, 0];
const ABSENT_TARGET: [u8; 8] = [1, 9, 0x40, 0, 0, 0, 0, 0];
/// A tag that no command has.
const NO_TAG: u64 = u64::MAX;

/// A guest whose commands are held from now on.
struct Held {
    device: Device,
    qmp: Qmp,
    _backend: Backend,
}

fn hold(queues: usize) -> Held {
    let backend = Setup::ports(1).start();
    let mut qmp = backend.qmp();
    let mut device = backend.guest(queues);
    device.queue().settle();
    let path = path_name(&mut qmp, 1);
    qmp.execute("inject-fault", json!({"path": path, "fault": "hang"}));
    Held { device, qmp, _backend: backend }
}

impl Held {
    /// Sends a read on each queue; none is answered by itself.
    fn submit(&mut self) -> Vec<Ticket> {
        let queues = self.device.queues.iter_mut();
        let tickets: Vec<Ticket> = queues.map(|queue| queue.submit(&read(0, 8))).collect();
        self.qmp.wait_until_held(tickets.len());
        tickets
    }

    /// The answer that must be there already, because the function was answered.
    fn ended(&mut self, queue: usize, ticket: Ticket) -> Completion {
        let completion = self.device.queues[queue].take(ticket);
        completion.expect("the function was answered before the command that it ended")
    }

    fn release(&mut self) {
        self.qmp.execute("clear-faults", json!({}));
    }
}

#[test]
fn query_task_finds_a_held_command_and_no_other() {
    let mut held = hold(1);
    let tag = held.submit()[0].0;
    let control = held.device.control();
    assert_eq!(control.manage(QUERY_TASK, LUN0, tag), response::FUNCTION_SUCCEEDED);
    assert_eq!(control.manage(QUERY_TASK, LUN0, NO_TAG), response::OK);
    assert_eq!(held.device.queue().outstanding(), 1);
}

#[test]
fn query_task_set_tells_whether_any_command_is_there() {
    let mut held = hold(2);
    assert_eq!(held.device.control().manage(QUERY_TASK_SET, LUN0, 0), response::OK);
    held.submit();
    let answer = held.device.control().manage(QUERY_TASK_SET, LUN0, 0);
    assert_eq!(answer, response::FUNCTION_SUCCEEDED);
}

#[test]
fn abort_task_ends_the_command_before_its_answer() {
    let mut held = hold(2);
    let tickets = held.submit();
    // The command is on the second queue: abort reaches every queue.
    assert_eq!(held.device.control().manage(ABORT_TASK, LUN0, tickets[1].0), response::OK);
    let completion = held.ended(1, tickets[1]);
    assert_eq!(completion.response, response::ABORTED, "{completion:?}");
    assert_eq!(held.device.queues[0].outstanding(), 1, "another command was ended too");
    let gone = held.device.control().manage(QUERY_TASK, LUN0, tickets[1].0);
    assert_eq!(gone, response::OK);
}

#[test]
fn function_covers_what_was_sent_right_before_it() {
    // A driver that gets the answer takes all buffers back: also those of requests that the
    // device had not looked at when it was asked.
    let mut held = hold(4);
    for round in 0..200 {
        let queues = held.device.queues.iter_mut();
        let tickets: Vec<Ticket> = queues.map(|queue| queue.submit(&read(0, 8))).collect();
        assert_eq!(held.device.control().manage(ABORT_TASK_SET, LUN0, 0), response::OK);
        for (queue, ticket) in tickets.into_iter().enumerate() {
            let ended = held.device.queues[queue].take(ticket);
            let ended = ended.unwrap_or_else(|| panic!("round {round}: queue {queue} goes on"));
            assert_eq!(ended.response, response::ABORTED, "{ended:?}");
        }
    }
}

#[test]
fn abort_task_of_no_command_is_complete() {
    let mut held = hold(1);
    let tag = held.submit()[0].0;
    assert_eq!(held.device.control().manage(ABORT_TASK, LUN0, NO_TAG), response::OK);
    let present = held.device.control().manage(QUERY_TASK, LUN0, tag);
    assert_eq!(present, response::FUNCTION_SUCCEEDED);
}

#[test]
fn aborted_commands_memory_is_not_touched_after() {
    let mut held = hold(1);
    let ticket = held.submit()[0];
    assert_eq!(held.device.control().manage(ABORT_TASK, LUN0, ticket.0), response::OK);
    let gpa = held.ended(0, ticket).data_gpa;
    held.device.memory.write(gpa, &[CANARY; 4096]);
    held.release();
    std::thread::sleep(Duration::from_millis(500));
    let data = held.device.memory.read(gpa, 4096);
    assert!(data.iter().all(|byte| *byte == CANARY), "memory was written after the abort");
}

#[test]
fn commands_that_the_guest_ends_are_no_fault_of_the_path() {
    // Slow, and far from its time limit.
    let backend = Setup::ports(1).backend("stop_deadline = 0.5").start();
    let mut qmp = backend.qmp();
    let path = path_name(&mut qmp, 1);
    let mut device = backend.guest(2);
    device.queue().settle();
    qmp.execute("inject-fault", json!({"path": path, "fault": "delay", "milliseconds": 2000}));
    for function in [ABORT_TASK, ABORT_TASK_SET, LOGICAL_UNIT_RESET] {
        let ticket = device.queues[1].submit(&read(0, 8));
        qmp.wait_until_held(1);
        assert_eq!(device.control().manage(function, LUN0, ticket.0), response::OK);
        assert!(device.queues[1].take(ticket).is_some());
    }
    // The reset's unit attention is answered without the path.
    assert!(!device.queues[1].run(&test_unit_ready()).is_good());
    device.queues[1].submit(&write(0, pattern(1, 8)));
    qmp.wait_until_held(1);
    device.stop().expect("the rings stop");
    device.start_rings().expect("the rings start again");
    device.queues[1].submit(&read(0, 8));
    qmp.wait_until_held(1);
    drop(device);
    let gone = qmp.event("FRONTEND_DISCONNECTED", PROMPT, |_| true);
    assert!(gone.is_some(), "the backend sees the end");
    std::thread::sleep(Duration::from_millis(100));
    let paths = qmp.execute("query-paths", json!({}));
    assert_eq!(paths[0]["state"], "up", "{paths}");
    let log = backend.log();
    assert!(!log.iter().any(|line| line.contains("failed")), "{log:#?}");
}

#[test]
fn abort_and_clear_task_set_end_every_command() {
    for function in [ABORT_TASK_SET, CLEAR_TASK_SET] {
        let mut held = hold(3);
        let tickets = held.submit();
        assert_eq!(held.device.control().manage(function, LUN0, 0), response::OK);
        for (queue, ticket) in tickets.into_iter().enumerate() {
            let completion = held.ended(queue, ticket);
            assert_eq!(completion.response, response::ABORTED, "function {function}");
        }
    }
}

#[test]
fn logical_unit_reset_ends_every_command_and_leaves_one_unit_attention() {
    // Linux sends the flat form, Windows the other one.
    for lun in [LUN0, LUN0_PERIPHERAL] {
        let mut held = hold(3);
        let tickets = held.submit();
        assert_eq!(held.device.control().manage(LOGICAL_UNIT_RESET, lun, 0), response::OK);
        for (queue, ticket) in tickets.into_iter().enumerate() {
            assert_eq!(held.ended(queue, ticket).response, response::RESET);
        }
        held.release();
        let attentions = held.device.queue().settle();
        assert_eq!(attentions.len(), 1, "{attentions:x?}");
        assert_eq!((attentions[0].0, attentions[0].1), (6, 0x29), "{attentions:x?}");
    }
}

#[test]
fn nexus_reset_ends_every_command() {
    let mut held = hold(2);
    let tickets = held.submit();
    // The LUN field is without meaning here but for its target.
    assert_eq!(held.device.control().manage(I_T_NEXUS_RESET, LUN0, 0), response::OK);
    for (queue, ticket) in tickets.into_iter().enumerate() {
        assert_eq!(held.ended(queue, ticket).response, response::RESET);
    }
}

#[test]
fn commands_after_a_reset_work() {
    let mut held = hold(2);
    held.submit();
    assert_eq!(held.device.control().manage(LOGICAL_UNIT_RESET, LUN0, 0), response::OK);
    held.release();
    crate::handshake::exercise(&mut held.device, 7);
}

#[test]
fn clear_aca_and_unknown_functions_are_rejected() {
    let backend = Setup::ports(1).start();
    let mut device = backend.guest(1);
    for function in [CLEAR_ACA, 8, 0xFFFF_FFFF] {
        let answer = device.control().manage(function, LUN0, 0);
        assert_eq!(answer, response::FUNCTION_REJECTED, "function {function}");
    }
}

#[test]
fn functions_to_absent_units_say_what_is_absent() {
    let backend = Setup::ports(1).start();
    let mut device = backend.guest(1);
    let control = device.control();
    for function in [ABORT_TASK, ABORT_TASK_SET, LOGICAL_UNIT_RESET, QUERY_TASK] {
        assert_eq!(control.manage(function, ABSENT_LUN, 1), response::INCORRECT_LUN);
        assert_eq!(control.manage(function, ABSENT_TARGET, 1), response::BAD_TARGET);
    }
}

#[test]
fn function_without_commands_is_complete() {
    let backend = Setup::ports(1).start();
    let mut device = backend.guest(1);
    device.queue().settle();
    for function in [ABORT_TASK_SET, CLEAR_TASK_SET, I_T_NEXUS_RESET, LOGICAL_UNIT_RESET] {
        assert_eq!(device.control().manage(function, LUN0, 0), response::OK);
    }
}

#[test]
fn asynchronous_notification_offers_no_event() {
    let backend = Setup::ports(1).start();
    let mut device = backend.guest(1);
    for kind in [1, 2] {
        assert_eq!(device.control().notify(kind, LUN0, 0x7E), (0, response::OK));
    }
}

#[test]
fn unknown_control_request_is_given_back() {
    let backend = Setup::ports(1).start();
    let mut device = backend.guest(1);
    assert_ne!(device.control().unknown(77), response::OK);
    assert_eq!(device.control().manage(QUERY_TASK, LUN0, NO_TAG), response::OK);
}

#[test]
fn control_queue_is_answered_while_every_ring_is_full() {
    let mut held = hold(1);
    let room = usize::from(held.device.config.ring_size);
    for at in 0..room {
        let lba = 8 * at as u32;
        let command = if at % 2 == 0 { read(lba, 8) } else { write(lba, pattern(1, 8)) };
        held.device.queue().submit(&command);
    }
    assert_eq!(held.device.control().manage(ABORT_TASK_SET, LUN0, 0), response::OK);
    held.device.queue().poll();
    assert_eq!(held.device.queue().outstanding(), 0);
    held.release();
    assert!(held.device.queue().run(&test_unit_ready()).response == response::OK);
    assert!(held.device.queue().next(PROMPT).is_some());
}
