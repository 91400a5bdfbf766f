//! Devices that go, come back, or are not there.

use super::*;

impl Scene {
    fn is_down(&mut self) {
        self.hears(|news| matches!(news, TransportEvent::Down(_)));
    }

    /// The host removes the device, and a command finds out.
    fn loses_its_device(&mut self, lane: &mut Client) {
        self.fake.set(|knobs| knobs.token = 0);
        let lost = lane.ask();
        let fate = lane.fate(lost);
        assert!(matches!(fate, Fate::Failed(Failure::Disconnected, _)), "{fate:?}");
        self.is_down();
    }
}

#[test]
fn device_that_comes_back_is_used_again() {
    for fake in Fake::each() {
        let mut scene = Scene::with(fake, false);
        let mut lane = scene.client(false);
        let first = lane.ask();
        assert_eq!(lane.fate(first), GOOD());
        scene.loses_its_device(&mut lane);
        let meanwhile = lane.ask();
        assert_eq!(lane.fate(meanwhile), NOT_SENT);
        scene.fake.set(|knobs| knobs.token = 2);
        scene.is_up();
        let again = lane.ask();
        assert_eq!(lane.fate(again), GOOD());
    }
}

#[test]
fn another_unit_under_the_same_name_is_seen_by_the_manager_alone() {
    let mut scene = Scene::new(Kind::Generic);
    let (mut lane, mut manager) = (scene.client(false), scene.client(true));
    let first = lane.ask();
    assert_eq!(lane.fate(first), GOOD());
    scene.loses_its_device(&mut lane);
    scene.fake.set(|knobs| (knobs.token, knobs.name) = (2, 0xB2));
    scene.is_up();
    let (refused, asked) = (lane.ask(), manager.ask());
    assert_eq!((lane.fate(refused), manager.fate(asked)), (NOT_SENT, GOOD()));
    scene.loses_its_device(&mut manager);
    scene.fake.set(|knobs| (knobs.token, knobs.name) = (3, 0xA1));
    scene.is_up();
    let again = lane.ask();
    assert_eq!(lane.fate(again), GOOD(), "the right one is back");
}

#[test]
fn unit_that_no_lane_has_used_may_become_another() {
    let mut scene = Scene::new(Kind::Disk);
    let (mut lane, mut manager) = (scene.client(false), scene.client(true));
    let asked = manager.ask();
    assert_eq!(manager.fate(asked), GOOD());
    scene.loses_its_device(&mut manager);
    scene.fake.set(|knobs| (knobs.token, knobs.name) = (2, 0xB2));
    scene.is_up();
    let first = lane.ask();
    assert_eq!(lane.fate(first), GOOD());
}

#[test]
fn device_that_is_not_there_fails_what_waits_for_it_and_may_come() {
    let fake = Fake::new(Kind::Generic);
    fake.set(|knobs| knobs.token = 0);
    let mut scene = Scene::with(fake, false);
    let mut lane = scene.client(false);
    let early = lane.ask();
    assert_eq!(lane.fate(early), NOT_SENT);
    scene.is_down();
    scene.fake.set(|knobs| knobs.token = 1);
    scene.is_up();
    let first = lane.ask();
    assert_eq!(lane.fate(first), GOOD());
}

#[test]
fn thread_never_sends_to_a_device_that_took_the_place_of_the_known_one() {
    // One thread has a descriptor of the old device; the next one would open the new one.
    let mut scene = Scene::new(Kind::Generic);
    let mut lane = scene.client(false);
    let first = lane.ask();
    assert_eq!(lane.fate(first), GOOD());
    scene.fake.set(|knobs| knobs.stuck = Some(0));
    let stuck = lane.ask();
    scene.fake.wait("one is in the kernel", |knobs| knobs.inside == 1);
    scene.fake.set(|knobs| (knobs.token, knobs.name) = (2, 0xB2));
    let data = OwnedBuffer::from_vec(vec![7; 512]);
    let write = lane.write(&data);
    assert!(matches!(lane.fate(write), Fate::Failed(Failure::Disconnected, _)));
    scene.is_down();
    scene.is_up();
    let refused = lane.write(&data);
    assert_eq!(lane.fate(refused), NOT_SENT);
    scene.fake.set(|knobs| knobs.stuck = None);
    assert_eq!(lane.fate(stuck), GOOD());
    assert!(!scene.fake.knobs().seen.contains(&7));
}

#[test]
fn device_that_is_gone_is_not_kept_open() {
    let mut scene = Scene::new(Kind::Generic);
    let mut lane = scene.client(false);
    scene.fake.set(|knobs| knobs.stuck = Some(0));
    let attempts: Vec<_> = (0..3).map(|_| lane.ask()).collect();
    scene.fake.wait("three commands in the kernel", |knobs| knobs.inside == 3);
    scene.fake.set(|knobs| knobs.stuck = None);
    assert!(attempts.into_iter().all(|attempt| lane.fate(attempt) == GOOD()));
    scene.loses_its_device(&mut lane);
    scene.fake.wait("nothing is open", |knobs| knobs.open == 0);
}
