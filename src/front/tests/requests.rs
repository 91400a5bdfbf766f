//! Requests, control requests and events, as a lane sees them.

use std::sync::Arc;

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::buffer::Segments;
use crate::completion::{Outcome, Owed, Response};
use crate::engine::{Guest, Request};
use crate::front::features::{CHANGE, EVENT_IDX, HOTPLUG, INDIRECT_DESC};
use crate::front::rings::Rings;
use crate::front::testing::{INDIRECT, NEXT, TestMemory, TestRing, WRITE, descriptor, event_file};
use crate::ids::RingIndex;
use crate::virtio_scsi::request::{HEADER_LEN, RESPONSE_LEN};
use crate::virtio_scsi::{Address, ControlRequest, ControlResponse, Event, TaskManagementFunction};

const FEATURES: u64 = INDIRECT_DESC | EVENT_IDX | HOTPLUG | CHANGE;
const REQUEST: RingIndex = RingIndex::FIRST_REQUEST;

fn start(size: u16) -> (TestRing, Rings) {
    let memory = TestMemory::new();
    let driver = TestRing::new(&memory, size);
    let mut rings = Rings::new();
    rings.start(driver.open(REQUEST, FEATURES));
    (driver, rings)
}

fn take(rings: &mut Rings) -> (Owed, Request) {
    let mut request = Request::default();
    let owed = rings.next(&mut request).unwrap();
    (owed, request)
}

#[test]
fn next_reads_header_and_room() {
    let (mut driver, mut rings) = start(8);
    driver.read_request(2, 512);
    driver.offer(2);
    let (owed, request) = take(&mut rings);
    assert_eq!((owed.ring(), owed.head()), (REQUEST, 2));
    let header = request.header.unwrap();
    assert_eq!(header.address, Address::LogicalUnit { target: 0, lun: 0 });
    assert_eq!((header.tag, header.cdb.bytes()[0]), (2, 0x28));
    assert_eq!((request.data_in.len(), request.data_out.len()), (512, 0));
    rings.complete(owed, &Outcome::good(0, 512), &Segments::new());
    assert!(rings.next(&mut Request::default()).is_none());
}

#[test]
fn set_call_notifies_the_new_descriptor_of_what_the_old_one_was_told() {
    // QEMU changes the descriptor when the guest unmasks its interrupt, and looks once whether the
    // old one was signalled meanwhile. What is signalled after that look, and before this side has
    // read the message, would be heard by nobody.
    let (mut driver, mut rings) = start(8);
    driver.read_request(0, 512);
    driver.offer(0);
    let (owed, _) = take(&mut rings);
    rings.complete(owed, &Outcome::good(0, 512), &Segments::new());
    rings.flush();
    let unmasked = EventFd::new(EFD_NONBLOCK).unwrap();
    let queue = rings.queue(REQUEST).unwrap();
    queue.set_call(Some(Arc::new(event_file(&unmasked))));
    assert!(unmasked.read().is_ok());
}

#[test]
fn open_in_the_middle_of_a_ring_notifies_the_driver() {
    // The process before this one may have died between its last used entry and the notification.
    let memory = TestMemory::new();
    let mut driver = TestRing::new(&memory, 8);
    driver.start_at(5);
    let _queue = driver.open(REQUEST, FEATURES);
    assert!(driver.was_called());
}

#[test]
fn complete_stores_response_and_length_and_flush_shows_them() {
    let (mut driver, mut rings) = start(8);
    let test = driver.read_request(0, 512);
    driver.offer(0);
    let (owed, request) = take(&mut rings);
    request.data_in.write_at(0, &[7; 100]);
    rings.complete(owed, &Outcome::good(100, 512), &Segments::new());
    assert_eq!(driver.take_used(), [], "not before the flush");
    rings.flush();
    assert!(driver.was_called());
    assert_eq!(driver.take_used(), [(0, RESPONSE_LEN as u32 + 100)]);
    let response = driver.memory.read(test.response, RESPONSE_LEN);
    assert_eq!(response[4..8], 412u32.to_le_bytes());
    assert_eq!((response[10], response[11]), (0, 0));
    assert_eq!(driver.memory.read(test.data, 101)[99..], [7, 0]);
}

#[test]
fn next_takes_a_request_in_any_layout() {
    let (mut driver, mut rings) = start(8);
    let memory = driver.memory.clone();
    let mut bytes = vec![0; HEADER_LEN + 600];
    (bytes[0], bytes[19], bytes[HEADER_LEN]) = (1, 0x2A, 0x77);
    let readable = memory.store(&bytes);
    let writable = memory.allocate(RESPONSE_LEN as u64);
    let mut table = Vec::new();
    for (at, len) in [(0, 1), (1, 18), (19, 40), (59, 592)] {
        table.push(descriptor(readable + at, len, NEXT, table.len() as u16 + 1));
    }
    table.push(descriptor(writable, 100, NEXT | WRITE, 5));
    table.push(descriptor(writable + 100, 8, WRITE, 0));
    driver.describe(0, memory.store(&table.concat()), 16 * 6, INDIRECT, 0);
    driver.offer(0);
    let (owed, request) = take(&mut rings);
    assert_eq!(request.header.unwrap().cdb.bytes()[0], 0x2A);
    assert_eq!(request.data_out.len(), 600);
    assert_eq!(request.data_out.to_vec()[0], 0x77);
    rings.complete(owed, &Outcome::good(0, 600), &Segments::new());
    rings.flush();
    assert_eq!(memory.read(writable, RESPONSE_LEN)[4..8], 600u32.to_le_bytes());
    assert_eq!(driver.take_used(), [(0, RESPONSE_LEN as u32)]);
}

#[test]
fn complete_out_of_order_answers_the_right_requests() {
    let (mut driver, mut rings) = start(8);
    let (a, b) = (driver.read_request(0, 8), driver.read_request(4, 8));
    driver.offer(0);
    driver.offer(4);
    let ((first, _), (second, _)) = (take(&mut rings), take(&mut rings));
    rings.complete(second, &Outcome::response(Response::Busy, 8), &Segments::new());
    rings.complete(first, &Outcome::response(Response::Aborted, 8), &Segments::new());
    rings.flush();
    assert_eq!((driver.response_code(a), driver.response_code(b)), (2, 5));
    assert_eq!(driver.take_used(), [(4, 108), (0, 108)]);
}

#[test]
fn flush_notifies_once_per_batch() {
    let (mut driver, mut rings) = start(8);
    driver.read_request(0, 8);
    driver.read_request(4, 8);
    driver.offer(0);
    driver.offer(4);
    let ((first, _), (second, _)) = (take(&mut rings), take(&mut rings));
    rings.complete(first, &Outcome::good(0, 8), &Segments::new());
    rings.complete(second, &Outcome::good(0, 8), &Segments::new());
    rings.flush();
    assert_eq!(driver.call.read().unwrap(), 1);
}

#[test]
fn memory_change_keeps_requests_in_flight_where_they_were() {
    let (mut driver, mut rings) = start(8);
    let test = driver.read_request(0, 8);
    driver.offer(0);
    let (owed, request) = take(&mut rings);
    rings.set_memory(&driver.memory.table());
    assert!(driver.was_called(), "the driver is notified again");
    request.data_in.write_at(0, &[1; 8]);
    rings.complete(owed, &Outcome::good(8, 8), &Segments::new());
    rings.flush();
    assert_eq!(driver.take_used(), [(0, 116)]);
    assert_eq!(driver.memory.read(test.data, 8), [1; 8]);
}

#[test]
fn disconnect_publishes_nothing_any_more() {
    let (mut driver, mut rings) = start(8);
    let test = driver.read_request(0, 8);
    driver.offer(0);
    let (owed, _) = take(&mut rings);
    rings.disconnect();
    driver.offer(4);
    assert!(rings.next(&mut Request::default()).is_none());
    rings.complete(owed, &Outcome::good(0, 8), &Segments::new());
    rings.flush();
    assert_eq!(driver.take_used(), []);
    assert_eq!(driver.response_code(test), 0xFF);
}

/// A control request of these bytes, with room for an answer.
fn control(driver: &mut TestRing, bytes: &[u8], room: u32) -> u64 {
    let answer = driver.memory.store(&[0xEE; 8]);
    driver.describe(0, driver.memory.store(bytes), bytes.len() as u32, NEXT, 1);
    driver.describe(1, answer, room, WRITE, 0);
    driver.offer(0);
    answer
}

fn start_control() -> (TestRing, Rings) {
    let driver = TestRing::new(&TestMemory::new(), 4);
    let mut rings = Rings::new();
    rings.start(driver.open(RingIndex::CONTROL, FEATURES));
    (driver, rings)
}

#[test]
fn control_reset_is_parsed_and_answered() {
    let (mut driver, mut rings) = start_control();
    let mut bytes = [0; 24];
    (bytes[4], bytes[8]) = (5, 1);
    let answer = control(&mut driver, &bytes, 1);
    let (owed, request) = rings.next_control().unwrap();
    let function = TaskManagementFunction::LogicalUnitReset;
    let address = Address::LogicalUnit { target: 0, lun: 0 };
    assert_eq!(request, ControlRequest::TaskManagement { function, address, tag: 0 });
    rings.answer_control(owed, &request, ControlResponse::IncorrectLun);
    rings.flush();
    assert_eq!(driver.take_used(), [(0, 1)]);
    assert_eq!(driver.memory.read(answer, 2), [12, 0xEE]);
}

#[test]
fn control_notification_is_answered_in_five_bytes() {
    let (mut driver, mut rings) = start_control();
    let mut bytes = [0; 20];
    bytes[0] = 1;
    let answer = control(&mut driver, &bytes, 5);
    let (owed, request) = rings.next_control().unwrap();
    rings.answer_control(owed, &request, ControlResponse::FunctionComplete);
    rings.flush();
    assert_eq!(driver.take_used(), [(0, 5)]);
    assert_eq!(driver.memory.read(answer, 6), [0, 0, 0, 0, 0, 0xEE]);
}

#[test]
fn control_request_that_is_malformed_is_given_back() {
    let (mut driver, mut rings) = start_control();
    control(&mut driver, &[0; 7], 1);
    assert!(rings.next_control().is_none());
    control(&mut driver, &[0; 24], 0);
    assert!(rings.next_control().is_none());
    rings.flush();
    assert_eq!(driver.take_used(), [(0, 0), (0, 0)]);
}

#[test]
fn control_answer_comes_after_the_completions_before_it() {
    let (mut driver, mut rings) = start(8);
    let mut controls = TestRing::new(&driver.memory.clone(), 4);
    rings.start(controls.open(RingIndex::CONTROL, FEATURES));
    driver.read_request(0, 8);
    driver.offer(0);
    control(&mut controls, &[0; 24], 1);
    let (owed, _) = take(&mut rings);
    let (owed_control, request) = rings.next_control().unwrap();
    rings.complete(owed, &Outcome::response(Response::Aborted, 8), &Segments::new());
    rings.answer_control(owed_control, &request, ControlResponse::FunctionComplete);
    assert_eq!(driver.take_used().len(), 1, "visible before the flush");
    assert_eq!(controls.take_used(), []);
    rings.flush();
    assert_eq!(controls.take_used(), [(0, 1)]);
}

fn start_events(features: u64) -> (TestRing, Rings) {
    let driver = TestRing::new(&TestMemory::new(), 4);
    let mut rings = Rings::new();
    rings.start(driver.open(RingIndex::EVENT, features));
    (driver, rings)
}

fn offer_event_buffer(driver: &mut TestRing, head: u16, len: u32) -> u64 {
    let buffer = driver.memory.allocate(16);
    driver.describe(head, buffer, len, WRITE, 0);
    driver.offer(head);
    buffer
}

#[test]
fn event_without_a_buffer_is_told_later_as_missed() {
    let (mut driver, mut rings) = start_events(FEATURES);
    rings.post_event(Event::Rescan);
    let buffer = offer_event_buffer(&mut driver, 0, 16);
    rings.begin_turn();
    rings.flush();
    assert_eq!(driver.take_used(), [(0, 16)]);
    assert_eq!(driver.memory.read(buffer, 4), [0, 0, 0, 0x80]);
    let buffer = offer_event_buffer(&mut driver, 1, 16);
    rings.begin_turn();
    rings.flush();
    assert_eq!(driver.take_used(), [], "told once");
    rings.post_event(Event::Rescan);
    rings.flush();
    assert_eq!(driver.memory.read(buffer, 4), [1, 0, 0, 0]);
}

#[test]
fn event_buffers_stay_in_the_ring_until_needed() {
    let (mut driver, mut rings) = start_events(FEATURES);
    offer_event_buffer(&mut driver, 0, 16);
    offer_event_buffer(&mut driver, 1, 16);
    rings.begin_turn();
    rings.post_event(Event::Removed);
    rings.flush();
    assert_eq!(driver.take_used(), [(0, 16)]);
    let queue = rings.queue(RingIndex::EVENT).unwrap();
    queue.stop();
    assert_eq!(queue.stopped(), Some(1));
}

#[test]
fn event_that_was_not_negotiated_is_not_sent() {
    let (mut driver, mut rings) = start_events(CHANGE);
    offer_event_buffer(&mut driver, 0, 16);
    rings.post_event(Event::Rescan);
    rings.flush();
    assert_eq!(driver.take_used(), []);
}

#[test]
fn event_buffer_that_is_too_small_is_given_back() {
    let (mut driver, mut rings) = start_events(FEATURES);
    offer_event_buffer(&mut driver, 0, 15);
    offer_event_buffer(&mut driver, 1, 16);
    rings.post_event(Event::Removed);
    rings.flush();
    assert_eq!(driver.take_used(), [(0, 0), (1, 16)]);
}
