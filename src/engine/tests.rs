//! A lane and its manager, each turned by hand.

use std::time::{Duration, Instant};

use super::driven::Driven;
use super::guest::{Guest, Leftovers, Request};
use super::{Deadlines, Lane, Manager};
use crate::buffer::Segments;
use crate::completion::{Outcome, Owed, Response};
use crate::ids::{LaneId, RingIndex};
use crate::limits::{MAIL_PAUSE, MAIL_UNREAD_MAX, RING_SIZE_MAX, TRIES_MAX};
use crate::multipath::{Failback, NoPathRetry, Placement, Policy, Settings};
use crate::path::address::Naa6;
use crate::path::emulated::{Array, Fault, FaultKind, Port};
use crate::scsi::alua::AccessState;
use crate::scsi::{Asc, Cdb, SenseKey, Status};
use crate::virtio_scsi::{
    Address, ControlRequest, ControlResponse, Event, RequestHeader, TaskAttribute,
};

/// A guest that never runs out of TEST UNIT READY.
#[derive(Default)]
struct Greedy {
    taken: usize,
    answered: usize,
    last: Option<Outcome>,
}

impl Guest for Greedy {
    fn next(&mut self, request: &mut Request) -> Option<Owed> {
        let head = (self.taken % usize::from(RING_SIZE_MAX)) as u16;
        if self.taken - self.answered >= usize::from(RING_SIZE_MAX) {
            return None;
        }
        self.taken += 1;
        request.header = Some(RequestHeader {
            address: Address::LogicalUnit { target: 0, lun: 0 },
            tag: 0,
            attribute: TaskAttribute::Simple,
            cdb: Cdb::new(&[0; 6]),
        });
        Some(Owed::new(RingIndex::FIRST_REQUEST, head))
    }

    fn complete(&mut self, owed: Owed, outcome: &Outcome, _: &Segments) {
        owed.settle();
        self.answered += 1;
        self.last = Some(outcome.clone());
    }

    fn next_control(&mut self) -> Option<(Owed, ControlRequest)> {
        None
    }

    fn answer_control(&mut self, owed: Owed, _: &ControlRequest, _: ControlResponse) {
        owed.settle();
    }

    fn post_event(&mut self, _: Event) {}

    fn flush(&mut self) {}
}

/// A guest that goes on elsewhere, with these commands left of before.
#[derive(Default)]
struct Moving {
    left: Vec<Cdb>,
    moves: bool,
    answers: Vec<Outcome>,
}

impl Guest for Moving {
    fn next(&mut self, request: &mut Request) -> Option<Owed> {
        let cdb = self.left.pop()?;
        let address = Address::LogicalUnit { target: 0, lun: 0 };
        let attribute = TaskAttribute::Simple;
        request.header = Some(RequestHeader { address, tag: 0, attribute, cdb });
        request.again = true;
        Some(Owed::new(RingIndex::FIRST_REQUEST, self.left.len() as u16))
    }

    fn complete(&mut self, owed: Owed, outcome: &Outcome, _: &Segments) {
        owed.settle();
        self.answers.push(outcome.clone());
    }

    fn leftovers(&self) -> Leftovers {
        if self.moves { Leftovers::Resend } else { Leftovers::Fail }
    }

    fn next_control(&mut self) -> Option<(Owed, ControlRequest)> {
        None
    }

    fn answer_control(&mut self, owed: Owed, _: &ControlRequest, _: ControlResponse) {
        owed.settle();
    }

    fn post_event(&mut self, _: Event) {}

    fn flush(&mut self) {}
}

/// A manager, its only path and a lane that serves.
fn served(now: Instant) -> (Manager<Port>, Port, Lane<Port>) {
    let mut manager = manager(now);
    let array = Array::in_memory(1 << 20, 512, Naa6::local([1; 12])).unwrap();
    let port = Port::on(&array, 1, 1, AccessState::ActiveOptimized).unwrap();
    let transport = std::sync::Arc::new(port.clone());
    manager.add("one".to_owned(), Placement::default(), transport, now).unwrap();
    let mut lane = manager.hub().lane_at(LaneId::FIRST, now).unwrap();
    lane.resume();
    (manager, port, lane)
}

/// Turns both until the guest has so many answers.
fn turn_until(
    manager: &mut Manager<Port>,
    lane: &mut Lane<Port>,
    guest: &mut Moving,
    count: usize,
) {
    let begin = Instant::now();
    while guest.answers.len() < count {
        assert!(begin.elapsed() < Duration::from_secs(10), "{count} answers: {:?}", guest.answers);
        manager.turn(Instant::now());
        lane.turn(guest, Instant::now());
    }
}

/// TEST UNIT READY.
fn ready() -> Cdb {
    Cdb::new(&[0; 6])
}

#[test]
fn command_left_of_before_does_not_begin_when_the_time_to_move_is_up() {
    let now = Instant::now();
    let (mut manager, _port, mut lane) = served(now);
    let mut guest = Moving { left: vec![ready()], ..Moving::default() };
    turn_until(&mut manager, &mut lane, &mut guest, 1);
    assert_eq!(guest.answers.pop().unwrap().status, Status::GOOD, "the path works");
    guest.moves = true;
    lane.drain(Instant::now());
    // Of the two, MODE SELECT may not be executed twice.
    guest.left = vec![Cdb::new(&[0x55, 0x10, 0, 0, 0, 0, 0, 0, 0, 0]), ready()];
    turn_until(&mut manager, &mut lane, &mut guest, 2);
    assert_eq!(guest.answers[0].status, Status::BUSY, "the array has answered");
    let sense = guest.answers[1].sense.as_ref().and_then(|sense| sense.decode());
    assert_eq!(sense, Some((SenseKey::AbortedCommand, Asc::I_T_NEXUS_LOSS)));
    assert!(lane.is_idle());
}

#[test]
fn command_that_waits_does_not_begin_when_a_path_returns_as_the_time_is_up() {
    let now = Instant::now();
    let (mut manager, port, mut lane) = served(now);
    let mut guest = Moving { left: vec![ready()], ..Moving::default() };
    turn_until(&mut manager, &mut lane, &mut guest, 1);
    port.inject(Fault::new(FaultKind::Disconnect)).unwrap();
    guest.left = vec![ready()];
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_millis(50) {
        manager.turn(Instant::now());
        lane.turn(&mut guest, Instant::now());
    }
    assert_eq!(guest.answers.len(), 1, "it waits");
    port.clear_faults();
    let version = manager.hub().snapshot().table.version;
    while !manager.hub().snapshot().table.has_usable() {
        assert!(begin.elapsed() < Duration::from_secs(10), "the path does not return");
        manager.turn(Instant::now());
    }
    assert!(manager.hub().snapshot().table.version > version);
    lane.drain(Instant::now());
    lane.turn(&mut guest, Instant::now());
    assert_eq!(guest.answers[1].response, Response::Failure, "the array has answered");
}

fn manager(now: Instant) -> Manager<Port> {
    let settings = Settings {
        wwid: None,
        policy: Policy::RoundRobin,
        no_path_retry: NoPathRetry::Queue,
        write_quiesce: Duration::from_secs(1),
        failback: Failback::Immediate,
        explicit_alua: false,
    };
    let (path_timeout, command_deadline) = (Duration::from_secs(5), Duration::from_secs(30));
    let deadlines = Deadlines { path_timeout, command_deadline, hedging: None };
    Manager::new(settings, deadlines, now).unwrap()
}

#[test]
fn array_that_has_a_unit_attention_for_every_command_fills_no_memory() {
    let now = Instant::now();
    let mut manager = manager(now);
    let array = Array::in_memory(1 << 20, 512, Naa6::local([1; 12])).unwrap();
    let port = Port::on(&array, 1, 1, AccessState::ActiveOptimized).unwrap();
    let transport = std::sync::Arc::new(port.clone());
    manager.add("one".to_owned(), Placement::default(), transport, now).unwrap();
    let mut lane: Lane<Port> = manager.hub().lane_at(LaneId::FIRST, now).unwrap();
    let mut guest = Greedy::default();
    lane.resume();
    while guest.answered == 0 {
        assert!(now.elapsed() < Duration::from_secs(10), "the path does not come up");
        manager.turn(Instant::now());
        lane.turn(&mut guest, Instant::now());
    }
    port.inject(Fault::new(FaultKind::Sense(SenseKey::UnitAttention, Asc(0x2A, 0x01)))).unwrap();
    // The manager is at something else meanwhile.
    let before = guest.taken;
    let mut turn = lane.turn(&mut guest, Instant::now());
    for _ in 0..2000 {
        turn = lane.turn(&mut guest, Instant::now());
    }
    let taken = guest.taken - before;
    let most = MAIL_UNREAD_MAX + usize::from(RING_SIZE_MAX) * usize::from(TRIES_MAX);
    assert!(taken <= most, "{taken} commands");
    assert!(!turn.again, "it does not spin");
    assert!(turn.timer.is_some_and(|timer| timer <= Instant::now() + 2 * MAIL_PAUSE));
    port.clear_faults();
    let before = guest.answered;
    while guest.answered < before + 100 || guest.last.as_ref().unwrap().status != Status::GOOD {
        assert!(now.elapsed() < Duration::from_secs(20), "it does not go on");
        manager.turn(Instant::now());
        lane.turn(&mut guest, Instant::now());
    }
    lane.disconnect();
    while !lane.is_idle() {
        assert!(now.elapsed() < Duration::from_secs(20), "it does not end");
        lane.turn(&mut guest, Instant::now());
    }
}
