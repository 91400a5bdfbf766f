//! What a hostile driver gets: its request's failure, or its ring's end, and no more.

use crate::buffer::Segments;
use crate::completion::Outcome;
use crate::engine::{Guest, Request};
use crate::front::features::INDIRECT_DESC;
use crate::front::rings::Rings;
use crate::front::testing::{NEXT, TestMemory, TestRing, WRITE};
use crate::ids::RingIndex;
use crate::virtio_scsi::request::{HEADER_LEN, RESPONSE_LEN};

fn start(size: u16) -> (TestRing, Rings) {
    let driver = TestRing::new(&TestMemory::new(), size);
    let mut rings = Rings::new();
    rings.start(driver.open(RingIndex::FIRST_REQUEST, INDIRECT_DESC));
    (driver, rings)
}

/// The lane sees nothing of what was offered; what the driver got for it.
fn refused(driver: &mut TestRing, rings: &mut Rings) -> Vec<(u32, u32)> {
    assert!(rings.next(&mut Request::default()).is_none());
    rings.flush();
    driver.take_used()
}

const FAILURE: u8 = 9;
const ANSWERED: u32 = RESPONSE_LEN as u32;

#[test]
fn wild_data_address_is_answered_failure() {
    let (mut driver, mut rings) = start(8);
    let test = driver.read_request(0, 8);
    driver.describe(2, 0xDEAD_0000_0000, 8, WRITE, 0);
    driver.offer(0);
    assert_eq!(refused(&mut driver, &mut rings), [(0, ANSWERED)]);
    assert_eq!(driver.response_code(test), FAILURE);
}

#[test]
fn wild_response_address_is_given_back() {
    let (mut driver, mut rings) = start(8);
    driver.read_request(0, 8);
    driver.describe(1, u64::MAX - 200, ANSWERED, NEXT | WRITE, 2);
    driver.offer(0);
    assert_eq!(refused(&mut driver, &mut rings), [(0, 0)]);
}

#[test]
fn short_header_is_answered_failure() {
    let (mut driver, mut rings) = start(8);
    let test = driver.read_request(0, 8);
    driver.describe(0, driver.memory.allocate(64), HEADER_LEN as u32 - 1, NEXT, 1);
    driver.offer(0);
    assert_eq!(refused(&mut driver, &mut rings), [(0, ANSWERED)]);
    assert_eq!(driver.response_code(test), FAILURE);
}

#[test]
fn no_room_for_a_response_is_given_back() {
    let (mut driver, mut rings) = start(8);
    let test = driver.read_request(0, 8);
    driver.describe(1, test.response, ANSWERED - 1, WRITE, 0);
    driver.offer(0);
    assert_eq!(refused(&mut driver, &mut rings), [(0, 0)]);
    assert_eq!(driver.response_code(test), 0xFF, "nothing was written");
}

#[test]
fn data_in_both_directions_is_answered_failure() {
    let (mut driver, mut rings) = start(8);
    let test = driver.read_request(0, 8);
    driver.describe(0, driver.memory.allocate(64), HEADER_LEN as u32 + 1, NEXT, 1);
    driver.offer(0);
    assert_eq!(refused(&mut driver, &mut rings), [(0, ANSWERED)]);
    assert_eq!(driver.response_code(test), FAILURE);
}

#[test]
fn wrong_direction_is_answered_failure() {
    let (mut driver, mut rings) = start(8);
    let test = driver.read_request(0, 8);
    driver.describe(2, test.data, 8, 0, 0);
    driver.offer(0);
    assert_eq!(refused(&mut driver, &mut rings), [(0, ANSWERED)]);
    assert_eq!(driver.response_code(test), FAILURE);
}

#[test]
fn nothing_but_empty_descriptors_is_given_back() {
    let (mut driver, mut rings) = start(8);
    driver.describe(0, 0, 0, 0, 0);
    driver.offer(0);
    assert_eq!(refused(&mut driver, &mut rings), [(0, 0)]);
}

#[test]
fn loop_costs_its_request_and_the_next_one_works() {
    let (mut driver, mut rings) = start(8);
    driver.describe(7, driver.memory.allocate(8), 8, NEXT, 7);
    driver.offer(7);
    driver.read_request(0, 8);
    driver.offer(0);
    let owed = rings.next(&mut Request::default()).unwrap();
    rings.complete(owed, &Outcome::good(0, 8), &Segments::new());
    rings.flush();
    assert_eq!(driver.take_used(), [(7, 0), (0, ANSWERED)]);
}

#[test]
fn same_head_twice_breaks_the_ring_and_the_first_is_answered() {
    let (mut driver, mut rings) = start(8);
    driver.read_request(0, 8);
    driver.read_request(4, 8);
    driver.offer(0);
    driver.offer(0);
    driver.offer(4);
    let owed = rings.next(&mut Request::default()).unwrap();
    assert!(rings.next(&mut Request::default()).is_none());
    assert!(rings.next(&mut Request::default()).is_none(), "it stays broken");
    rings.complete(owed, &Outcome::good(0, 8), &Segments::new());
    rings.flush();
    assert_eq!(driver.take_used(), [(0, ANSWERED)]);
    let queue = rings.queue(RingIndex::FIRST_REQUEST).unwrap();
    queue.stop();
    assert!(queue.stopped().is_some(), "and it can be stopped");
}

#[test]
fn jumping_index_breaks_the_ring() {
    let (mut driver, mut rings) = start(8);
    driver.read_request(0, 8);
    driver.set_available_index(300);
    assert_eq!(refused(&mut driver, &mut rings), []);
    driver.set_available_index(0);
    driver.offer(0);
    assert_eq!(refused(&mut driver, &mut rings), [], "it stays broken");
    assert!(!rings.arm());
}

#[test]
fn flood_of_bad_requests_is_taken_in_bounded_bites() {
    let (mut driver, mut rings) = start(4);
    driver.describe(0, 0, 0, 0, 0);
    for _ in 0..3 {
        for _ in 0..4 {
            driver.offer(0);
        }
        assert_eq!(refused(&mut driver, &mut rings).len(), 4);
    }
}

#[test]
fn ring_that_leaves_memory_is_broken_and_answers_where_it_was() {
    let (mut driver, mut rings) = start(8);
    driver.read_request(0, 8);
    driver.offer(0);
    let owed = rings.next(&mut Request::default()).unwrap();
    rings.set_memory(&Default::default());
    rings.complete(owed, &Outcome::good(0, 8), &Segments::new());
    rings.flush();
    assert_eq!(driver.take_used(), [(0, ANSWERED)]);
    driver.offer(4);
    assert_eq!(refused(&mut driver, &mut rings), []);
}
