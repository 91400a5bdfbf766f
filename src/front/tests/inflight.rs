//! Rings whose predecessor died, as a lane sees them.

use crate::buffer::Segments;
use crate::completion::Outcome;
use crate::engine::{Guest, Request};
use crate::front::features::{CHANGE, EVENT_IDX, HOTPLUG, INDIRECT_DESC};
use crate::front::inflight::{Region, Shape};
use crate::front::rings::Rings;
use crate::front::testing::{TestMemory, TestRing};
use crate::ids::RingIndex;
use crate::virtio_scsi::request::RESPONSE_LEN;

const FEATURES: u64 = INDIRECT_DESC | EVENT_IDX | HOTPLUG | CHANGE;
const REQUEST: RingIndex = RingIndex::FIRST_REQUEST;
const SIZE: u16 = 16;

struct Scene {
    driver: TestRing,
    region: Region,
}

impl Scene {
    fn new() -> Self {
        let shape = Shape::new(3, SIZE).unwrap();
        let region = Region::map(shape, shape.make().unwrap(), 0, shape.bytes() as u64).unwrap();
        Scene { driver: TestRing::new(&TestMemory::new(), SIZE), region }
    }

    /// Another process: what the one before it knew is gone.
    fn start(&self, ring: RingIndex) -> Rings {
        let record = self.region.record(ring, SIZE).unwrap();
        let mut rings = Rings::new();
        rings.start(self.driver.reopen(ring, FEATURES, record).unwrap());
        rings
    }

    /// Requests of three descriptors each, with these heads.
    fn offer(&mut self, heads: &[u16]) {
        for head in heads {
            self.driver.read_request(*head, 512);
            self.driver.offer(*head);
        }
    }
}

/// Takes all there is: the head, and whether it is taken again.
fn take_all(rings: &mut Rings) -> Vec<(u16, bool)> {
    let mut request = Request::default();
    let mut taken = Vec::new();
    while let Some(owed) = rings.next(&mut request) {
        taken.push((owed.head(), request.again));
        owed.abandon();
    }
    taken
}

#[test]
fn requests_that_were_taken_come_again_in_their_order_and_then_the_new_ones() {
    let mut scene = Scene::new();
    scene.offer(&[6, 0, 3]);
    assert_eq!(take_all(&mut scene.start(REQUEST)), [(6, false), (0, false), (3, false)]);
    scene.offer(&[9]);
    let again = [(6, true), (0, true), (3, true), (9, false)];
    assert_eq!(take_all(&mut scene.start(REQUEST)), again);
    let again = again.map(|(head, _)| (head, true));
    assert_eq!(take_all(&mut scene.start(REQUEST)), again, "and once more");
}

#[test]
fn requests_that_were_answered_do_not_come_again() {
    let mut scene = Scene::new();
    scene.offer(&[0, 3, 6]);
    let mut rings = scene.start(REQUEST);
    let mut request = Request::default();
    let owed: Vec<_> = (0..3).map(|_| rings.next(&mut request).unwrap()).collect();
    let mut owed = owed.into_iter();
    owed.next().unwrap().abandon();
    rings.complete(owed.next().unwrap(), &Outcome::good(0, 512), &Segments::new());
    rings.flush();
    // Stored, and the process dies before the driver can see it.
    rings.complete(owed.next().unwrap(), &Outcome::good(0, 512), &Segments::new());
    assert_eq!(scene.driver.take_used(), [(3, RESPONSE_LEN as u32)]);
    assert_eq!(take_all(&mut scene.start(REQUEST)), [(0, true), (6, true)]);
}

#[test]
fn malformed_request_that_was_refused_unseen_is_refused_once_more() {
    let mut scene = Scene::new();
    let at = scene.driver.memory.allocate(8);
    scene.driver.describe(12, at, 8, 0, 0);
    scene.driver.offer(12);
    scene.offer(&[0]);
    let mut rings = scene.start(REQUEST);
    assert_eq!(take_all(&mut rings), [(0, false)]);
    // Both were taken, neither was published: the place in the available ring is behind both.
    let mut rings = scene.start(REQUEST);
    assert_eq!(take_all(&mut rings), [(0, true)]);
    rings.flush();
    assert_eq!(scene.driver.take_used(), [(12, 0)]);
}

#[test]
fn ring_with_something_left_does_not_sleep_before_it_is_taken() {
    let mut scene = Scene::new();
    scene.offer(&[0]);
    take_all(&mut scene.start(REQUEST));
    let mut rings = scene.start(REQUEST);
    let queue = rings.queue(REQUEST).unwrap();
    assert!(queue.arm(), "nobody kicks for it");
    take_all(&mut rings);
    assert!(!rings.queue(REQUEST).unwrap().arm());
}

/// A LOGICAL UNIT RESET that a dead process had taken; where its answer goes.
fn leave_a_reset(scene: &mut Scene) -> u64 {
    let response = scene.driver.reset_request(0);
    scene.driver.offer(0);
    let (owed, _) = scene.start(RingIndex::CONTROL).next_control().unwrap();
    owed.abandon();
    response
}

#[test]
fn control_request_that_was_under_way_is_answered_failure() {
    let mut scene = Scene::new();
    let response = leave_a_reset(&mut scene);
    let mut rings = scene.start(RingIndex::CONTROL);
    assert!(rings.next_control().is_none());
    rings.flush();
    assert_eq!(scene.driver.take_used(), [(0, 1)]);
    assert_eq!(scene.driver.memory.read(response, 1), [9]);
}

#[test]
fn control_request_that_was_under_way_needs_no_lane_to_be_answered_when_the_driver_moves() {
    let mut scene = Scene::new();
    let response = leave_a_reset(&mut scene);
    let mut rings = scene.start(RingIndex::CONTROL);
    let queue = rings.queue(RingIndex::CONTROL).unwrap();
    queue.set_enabled(false);
    rings.stop_to_move(RingIndex::CONTROL);
    rings.flush();
    assert_eq!(rings.queue(RingIndex::CONTROL).unwrap().stopped(), Some(1));
    assert_eq!(scene.driver.take_used(), [(0, 1)]);
    assert_eq!(scene.driver.memory.read(response, 1), [9]);
}
