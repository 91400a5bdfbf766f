//! The parts together, over a kernel that does as it is told.

mod fake;
mod gone;
mod memory_sys;
mod ring;
mod stuck;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use self::fake::{Fake, done};
use super::channel::Inner;
use super::node::Kind;
use super::shared::Shared;
use crate::buffer::{OwnedBuffer, Segments};
use crate::ids::{AttemptId, Slot};
use crate::path::outbox::lock;
use crate::path::{Answer, Channel, Ended, Failure, Fate, Reach, Residual, Task, TransportEvent};
use crate::scsi::{Cdb, Status, opcode};

/// A path over a fake kernel.
struct Scene {
    fake: Fake,
    shared: Arc<Shared<Fake>>,
    news: Vec<TransportEvent>,
}

/// One client of it.
struct Client {
    channel: Inner<Fake>,
    attempts: u32,
    came: Vec<Ended>,
}

impl Scene {
    fn new(kind: Kind) -> Self {
        Scene::with(Fake::new(kind), false)
    }

    fn with(fake: Fake, direct: bool) -> Self {
        let timeout = Duration::from_secs(7);
        let shared = Shared::new(fake.clone(), PathBuf::from("/dev/fake"), timeout, direct);
        Scene { fake, shared: super::start(shared).unwrap(), news: Vec::new() }
    }

    fn client(&self, probe: bool) -> Client {
        let channel = Inner::open(&self.shared, probe).unwrap();
        Client { channel, attempts: 0, came: Vec::new() }
    }

    /// Waits for news that `wanted` takes.
    fn hears(&mut self, wanted: impl Fn(&TransportEvent) -> bool) {
        let late = Instant::now() + Duration::from_secs(60);
        loop {
            self.news.extend(self.shared.take_news());
            if let Some(at) = self.news.iter().position(&wanted) {
                self.news.drain(..=at);
                return;
            }
            assert!(Instant::now() < late, "not heard: {:?}", self.news);
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn is_up(&mut self) {
        self.hears(|news| *news == TransportEvent::Up { nexus_since: None });
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.fake.set(|knobs| knobs.stuck = None);
        self.shared.close();
    }
}

impl Client {
    fn send(&mut self, cdb: &[u8], data_out: &Segments, data_in: &Segments) -> AttemptId {
        self.attempts += 1;
        let slot = Slot(self.attempts as u16);
        let attempt = AttemptId { slot, generation: self.attempts };
        let cdb = Cdb::new(cdb);
        let task = Task { cdb: &cdb, data_out, data_in };
        self.channel.submit(attempt, task, Instant::now());
        self.channel.flush();
        attempt
    }

    fn read(&mut self, into: &OwnedBuffer) -> AttemptId {
        self.send(&[opcode::READ_10; 10], &Segments::new(), into.segments())
    }

    fn write(&mut self, from: &OwnedBuffer) -> AttemptId {
        self.send(&[opcode::WRITE_10; 10], from.segments(), &Segments::new())
    }

    /// Asks whether it is ready.
    fn ask(&mut self) -> AttemptId {
        self.send(&[0; 6], &Segments::new(), &Segments::new())
    }

    fn end(&mut self, attempt: AttemptId) -> Ended {
        let late = Instant::now() + Duration::from_secs(60);
        loop {
            self.channel.reap(Instant::now(), &mut self.came);
            if let Some(at) = self.came.iter().position(|end| end.attempt == attempt) {
                return self.came.swap_remove(at);
            }
            assert!(Instant::now() < late, "{attempt:?} does not end");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn fate(&mut self, attempt: AttemptId) -> Fate {
        self.end(attempt).fate
    }

    /// What has ended by now.
    fn has_ended(&mut self, attempt: AttemptId) -> bool {
        self.channel.reap(Instant::now(), &mut self.came);
        self.came.iter().any(|end| end.attempt == attempt)
    }
}

fn good(residual: Residual) -> Fate {
    Fate::Answered(Answer { status: Status::GOOD, sense: None, residual })
}

const GOOD: fn() -> Fate = || good(Residual::None);
const NOT_SENT: Fate = Fate::Failed(Failure::Disconnected, Reach::NotSent);

#[test]
fn data_goes_through_memory_of_our_own_both_ways() {
    for fake in Fake::each() {
        let mut scene = Scene::with(fake, false);
        let mut lane = scene.client(false);
        let data = OwnedBuffer::from_vec(vec![7; 9000]);
        let write = lane.write(&data);
        assert_eq!(lane.fate(write), GOOD());
        assert_eq!(scene.fake.knobs().seen, [7]);
        scene.fake.set(|knobs| {
            knobs.content = 9;
            knobs.end = Ok(fake::done());
            if let Ok(done) = &mut knobs.end {
                done.residual = 1000;
            }
        });
        let read = lane.read(&data);
        assert_eq!(lane.fate(read), good(Residual::Under(1000)));
        assert_eq!(data.to_vec(), [vec![9; 8000], vec![7; 1000]].concat());
        scene.is_up();
        assert_eq!(scene.shared.bytes_max.load(Ordering::Acquire), 65536);
    }
}

#[test]
fn threads_of_an_sg_node_have_a_descriptor_each() {
    for (kind, each) in [(Kind::Generic, 1), (Kind::Disk, 0), (Kind::Bsg, 0)] {
        let scene = Scene::new(kind);
        let mut lane = scene.client(false);
        scene.fake.set(|knobs| knobs.stuck = Some(0));
        let attempts: Vec<_> = (0..3).map(|_| lane.ask()).collect();
        scene.fake.wait("three commands in the kernel", |knobs| knobs.inside == 3);
        assert_eq!(scene.fake.knobs().opened, 1 + 3 * each, "{kind:?}");
        scene.fake.set(|knobs| knobs.stuck = None);
        assert!(attempts.into_iter().all(|attempt| lane.fate(attempt) == GOOD()));
    }
}

#[test]
fn thread_on_its_way_is_not_called_again() {
    let scene = Scene::new(Kind::Disk);
    let mut lane = scene.client(false);
    let first = lane.ask();
    assert_eq!(lane.fate(first), GOOD());
    let late = Instant::now() + Duration::from_secs(60);
    loop {
        let mut state = lock(&scene.shared.state);
        if (state.threads, state.idle, state.coming) == (2, 2, false) {
            state.coming = true;
            break;
        }
        assert!(Instant::now() < late, "the second thread does not come, or the two do not rest");
        drop(state);
        std::thread::sleep(Duration::from_millis(1));
    }
    let next = lane.ask();
    std::thread::sleep(Duration::from_millis(50));
    assert!(!lane.has_ended(next), "somebody was called");
    scene.shared.work.notify_one();
    assert_eq!(lane.fate(next), GOOD());
}

#[test]
fn privilege_that_is_missing_is_no_fault_of_the_path() {
    let mut scene = Scene::new(Kind::Disk);
    let mut lane = scene.client(false);
    scene.fake.set(|knobs| knobs.end = Err(libc::EPERM));
    let refused = lane.ask();
    assert_eq!(lane.fate(refused), Fate::Failed(Failure::Unsupported, Reach::NotSent));
    scene.fake.set(|knobs| knobs.end = Ok(done()));
    let next = lane.ask();
    assert_eq!(lane.fate(next), GOOD());
    scene.is_up();
    assert_eq!(scene.news, []);
}

#[test]
fn what_the_kernel_cannot_carry_is_not_sent() {
    let scene = Scene::new(Kind::Generic);
    let mut lane = scene.client(false);
    let data = OwnedBuffer::zeroed(512);
    let both = lane.send(&[opcode::WRITE_10; 10], data.segments(), data.segments());
    let short = lane.send(&[0; 4], &Segments::new(), &Segments::new());
    for attempt in [both, short] {
        assert_eq!(lane.fate(attempt), Fate::Failed(Failure::Unsupported, Reach::NotSent));
    }
    assert!(scene.fake.knobs().seen.is_empty());
}
