//! What is different where commands go over a ring.

use super::*;
use crate::limits::SG_RING_DEPTH;
use crate::path::outbox::lock;
use crate::path::sg::kernel::Engine;
use crate::path::sg::shared::Link;

impl Scene {
    fn engine(&self) -> Engine {
        match &lock(&self.shared.state).link {
            Link::Up(device) => device.engine.clone(),
            _ => panic!("no device is open"),
        }
    }

    /// Fills the ring with commands that do not come back.
    fn stuff(&self, lane: &mut Client) -> Vec<AttemptId> {
        self.fake.set(|knobs| knobs.stuck = Some(0));
        let stuck = (0..SG_RING_DEPTH).map(|_| lane.ask()).collect();
        self.fake.wait("the ring is full", |knobs| knobs.inside == SG_RING_DEPTH);
        stuck
    }
}

#[test]
fn refusal_of_the_first_command_makes_it_threads() {
    let fake = Fake::ring();
    fake.set(|knobs| knobs.ring = Some(Err(libc::EOPNOTSUPP)));
    let mut scene = Scene::with(fake, false);
    scene.is_up();
    let engine = scene.engine().describe(Kind::Bsg, 1);
    assert_eq!(engine, "bsg (1 thread; no io_uring: Operation not supported (os error 95))");
    let mut lane = scene.client(false);
    let first = lane.ask();
    assert_eq!(lane.fate(first), GOOD());
}

#[test]
fn one_thread_has_many_commands_in_the_kernel() {
    let mut scene = Scene::with(Fake::ring(), false);
    scene.is_up();
    assert_eq!(scene.engine(), Engine::Ring);
    let mut lane = scene.client(false);
    let stuck = scene.stuff(&mut lane);
    assert_eq!(lock(&scene.shared.state).threads, 1, "the one that waits for an SG_IO node");
    scene.fake.set(|knobs| knobs.stuck = None);
    assert!(stuck.into_iter().all(|attempt| lane.fate(attempt) == GOOD()));
}

#[test]
fn attempt_behind_a_full_ring_was_never_sent() {
    let scene = Scene::with(Fake::ring(), false);
    let mut lane = scene.client(false);
    let stuck = scene.stuff(&mut lane);
    let data = OwnedBuffer::zeroed(512);
    let (recalled, waiting) = (lane.read(&data), lane.ask());
    lane.channel.recall(recalled);
    let not_sent = Fate::Failed(Failure::Recalled, Reach::NotSent);
    assert_eq!(lane.fate(recalled), not_sent);
    scene.fake.set(|knobs| knobs.stuck = None);
    assert!(stuck.into_iter().all(|attempt| lane.fate(attempt) == GOOD()));
    assert_eq!(lane.fate(waiting), GOOD());
    assert!(!scene.fake.knobs().seen.contains(&opcode::READ_10));
}

#[test]
fn write_parked_in_a_lost_device_is_proven_by_the_ring_that_has_it() {
    let mut scene = Scene::with(Fake::ring(), false);
    let mut lane = scene.client(false);
    scene.fake.set(|knobs| knobs.stuck = Some(opcode::WRITE_10));
    let write = lane.write(&OwnedBuffer::zeroed(512));
    scene.fake.wait("the write is in the kernel", |knobs| knobs.inside == 1);
    lane.channel.recall(write);
    assert_eq!(lane.end(write).session, 1);
    scene.fake.set(|knobs| knobs.token = 0);
    let lost = lane.ask();
    assert!(matches!(lane.fate(lost), Fate::Failed(Failure::Disconnected, _)));
    // Another opening, and another ring.
    scene.fake.set(|knobs| knobs.token = 2);
    scene.hears(|news| matches!(news, TransportEvent::Down(_)));
    scene.is_up();
    let next = lane.ask();
    assert_eq!(lane.fate(next), GOOD());
    scene.fake.set(|knobs| knobs.stuck = None);
    scene.hears(|news| *news == TransportEvent::Proven { session: 1 });
}

#[test]
fn ring_without_a_path_is_gone_when_the_kernel_has_returned_all() {
    let scene = Scene::with(Fake::ring(), false);
    let mut lane = scene.client(false);
    scene.fake.set(|knobs| knobs.stuck = Some(0));
    lane.ask();
    scene.fake.wait("it is in the kernel", |knobs| knobs.inside == 1);
    let fake = scene.fake.clone();
    drop(lane);
    scene.shared.close();
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(fake.knobs().open, 1, "the node stays open with what the kernel has");
    fake.set(|knobs| knobs.stuck = None);
    fake.wait("nothing is open", |knobs| knobs.open == 0);
}
