//! Commands that do not come back.

use super::*;
use crate::limits::SG_THREADS_MAX;

fn recalled(reach: Reach) -> Fate {
    Fate::Failed(Failure::Recalled, reach)
}

#[test]
fn recalled_read_gives_its_memory_back_at_once_and_for_good() {
    for fake in [Fake::new(Kind::Generic), Fake::ring()] {
        let scene = Scene::with(fake, false);
        let mut lane = scene.client(false);
        scene.fake.set(|knobs| (knobs.stuck, knobs.content) = (Some(opcode::READ_10), 9));
        let data = OwnedBuffer::from_vec(vec![7; 512]);
        let read = lane.read(&data);
        scene.fake.wait("the read is in the kernel", |knobs| knobs.inside == 1);
        lane.channel.recall(read);
        let end = lane.end(read);
        assert_eq!((end.fate, end.session), (recalled(Reach::Parked), 1));
        // Other commands go on.
        let other = lane.ask();
        assert_eq!(lane.fate(other), GOOD());
        scene.fake.set(|knobs| knobs.stuck = None);
        scene.fake.wait("the read comes back", |knobs| knobs.seen.contains(&9));
        let last = lane.ask();
        assert_eq!(lane.fate(last), GOOD());
        assert_eq!(data.to_vec(), [7; 512]);
    }
}

#[test]
fn parked_write_is_proven_when_the_kernel_returns_it() {
    for fake in [Fake::new(Kind::Disk), Fake::ring()] {
        let mut scene = Scene::with(fake, false);
        let mut lane = scene.client(false);
        for (number, host, doubt) in [(1, 0x00, false), (2, 0x0F, true), (3, 0x08, false)] {
            scene.fake.set(|knobs| {
                knobs.stuck = Some(opcode::WRITE_10);
                if let Ok(done) = &mut knobs.end {
                    done.host = host;
                }
            });
            let data = OwnedBuffer::zeroed(512);
            let write = lane.write(&data);
            scene.fake.wait("the write is in the kernel", |knobs| knobs.inside == 1);
            lane.channel.recall(write);
            assert_eq!(lane.end(write).session, number);
            let tells = |news: &TransportEvent| {
                matches!(news, TransportEvent::Proven { .. } | TransportEvent::Returned { .. })
            };
            assert!(!scene.shared.take_news().iter().any(tells), "not before it is back");
            scene.fake.set(|knobs| knobs.stuck = None);
            scene.hears(|news| match news {
                TransportEvent::Proven { session } => !doubt && *session == number,
                TransportEvent::Returned { session } => doubt && *session == number,
                _ => false,
            });
        }
    }
}

#[test]
fn attempt_behind_stuck_threads_was_never_sent() {
    let scene = Scene::new(Kind::Bsg);
    let mut lane = scene.client(false);
    scene.fake.set(|knobs| knobs.stuck = Some(0));
    let stuck: Vec<_> = (0..SG_THREADS_MAX).map(|_| lane.ask()).collect();
    scene.fake.wait("all threads are in the kernel", |knobs| knobs.inside == SG_THREADS_MAX);
    let data = OwnedBuffer::zeroed(512);
    let waiting = lane.read(&data);
    lane.channel.recall(waiting);
    assert_eq!(lane.fate(waiting), recalled(Reach::NotSent));
    scene.fake.set(|knobs| knobs.stuck = None);
    assert!(stuck.into_iter().all(|attempt| lane.fate(attempt) == GOOD()));
    let next = lane.ask();
    assert_eq!(lane.fate(next), GOOD());
    assert!(!scene.fake.knobs().seen.contains(&opcode::READ_10));
}

#[test]
fn recall_of_direct_io_waits_for_the_kernel() {
    for fake in [Fake::new(Kind::Disk), Fake::ring()] {
        let scene = Scene::with(fake, true);
        let mut lane = scene.client(false);
        scene.fake.set(|knobs| (knobs.stuck, knobs.content) = (Some(opcode::READ_10), 9));
        let data = OwnedBuffer::zeroed(512);
        let read = lane.read(&data);
        scene.fake.wait("the read is in the kernel", |knobs| knobs.inside == 1);
        lane.channel.recall(read);
        assert!(!lane.has_ended(read));
        scene.fake.set(|knobs| knobs.stuck = None);
        assert_eq!(lane.fate(read), GOOD());
        assert_eq!(data.to_vec(), [9; 512]);
    }
}

#[test]
fn channel_that_is_dropped_leaves_no_lent_memory_behind() {
    for fake in [Fake::new(Kind::Generic), Fake::ring()] {
        let scene = Scene::with(fake, false);
        let mut lane = scene.client(false);
        scene.fake.set(|knobs| (knobs.stuck, knobs.content) = (Some(opcode::READ_10), 9));
        let data = OwnedBuffer::zeroed(512);
        lane.read(&data);
        scene.fake.wait("the read is in the kernel", |knobs| knobs.inside == 1);
        drop(lane);
        scene.fake.set(|knobs| knobs.stuck = None);
        let mut other = scene.client(false);
        scene.fake.wait("the read comes back", |knobs| knobs.seen == [9]);
        let next = other.ask();
        assert_eq!(other.fate(next), GOOD());
        assert_eq!(data.to_vec(), [0; 512]);
    }
}
