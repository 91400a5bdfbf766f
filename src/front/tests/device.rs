//! A whole backend for tests, and what the `vhost` crate's front end tells it.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use vhost::vhost_user::message::VhostUserHeaderFlag;
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::front::features::{self, EVENT_IDX, INDIRECT_DESC, PROTOCOL_FEATURES, VERSION_1};
use crate::front::testing::{FakeLanes, PATTERN, TestMemory, TestRequest, TestRing};
use crate::front::{End, Endpoint, FrontConfig, Listener, serve};

pub const LINUX: u64 = VERSION_1 | INDIRECT_DESC | EVENT_IDX | PROTOCOL_FEATURES;
pub const FIRMWARE: u64 = VERSION_1 | PROTOCOL_FEATURES;
pub const DEADLINE: Duration = Duration::from_millis(300);
/// Long enough for a loaded machine.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// A backend that serves front ends until dropped.
pub struct Device {
    pub path: PathBuf,
    pub lanes: Arc<FakeLanes>,
    stop: EventFd,
    pub server: Option<JoinHandle<io::Result<End>>>,
    _dir: TempDir,
}

impl Device {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let endpoint = Endpoint::Path { path: path.clone(), mode: 0o600, group: None };
        let listener = Listener::open(&endpoint).unwrap();
        let mut device = Device {
            path,
            lanes: Arc::default(),
            stop: EventFd::new(EFD_NONBLOCK).unwrap(),
            server: None,
            _dir: dir,
        };
        device.server = Some(device.serve(listener));
        device
    }

    pub fn serve(&self, listener: Listener) -> JoinHandle<io::Result<End>> {
        let config = FrontConfig {
            request_queues: 4,
            stop_deadline: DEADLINE,
            busy_poll: crate::limits::BUSY_POLL_DEFAULT,
        };
        let (lanes, stop) = (self.lanes.clone(), self.stop.try_clone().unwrap());
        thread::spawn(move || {
            let stop = crate::front::testing::event_file(&stop);
            serve(&listener, &config, lanes, stop.as_fd())
        })
    }

    pub fn connect(&self, acked: u64, memory: &TestMemory) -> Frontend {
        greet(Frontend::connect(&self.path, 8).unwrap(), acked, memory)
    }

    pub fn hold(&self, hold: bool) {
        self.lanes.hold.store(hold, Ordering::SeqCst);
    }

    /// Tells the backend to stop and waits until it has.
    pub fn finish(mut self) -> io::Result<End> {
        self.stop.write(1).unwrap();
        self.server.take().unwrap().join().unwrap()
    }
}

/// The messages up to the memory table, each one acknowledged.
pub fn greet(mut front: Frontend, acked: u64, memory: &TestMemory) -> Frontend {
    assert_eq!(front.get_features().unwrap(), features::OFFERED);
    assert_eq!(front.get_protocol_features().unwrap(), features::PROTOCOL_OFFERED);
    front.set_protocol_features(features::PROTOCOL_OFFERED).unwrap();
    assert_eq!(front.get_queue_num().unwrap(), 6);
    assert_eq!(front.get_max_mem_slots().unwrap(), 509);
    front.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
    front.set_owner().unwrap();
    // QEMU sends them twice.
    front.set_features(acked).unwrap();
    front.set_features(acked).unwrap();
    front.set_mem_table(&[region(memory)]).unwrap();
    front
}

pub fn region(memory: &TestMemory) -> VhostUserMemoryRegionInfo {
    VhostUserMemoryRegionInfo {
        guest_phys_addr: TestMemory::GUEST,
        memory_size: TestMemory::LEN,
        userspace_addr: TestMemory::USER,
        mmap_offset: 0,
        mmap_handle: memory.file.as_raw_fd(),
    }
}

pub fn addresses(ring: &TestRing) -> VringConfigData {
    let layout = ring.layout();
    VringConfigData {
        queue_max_size: ring.size,
        queue_size: ring.size,
        flags: 0,
        desc_table_addr: layout.descriptors,
        used_ring_addr: layout.used,
        avail_ring_addr: layout.available,
        log_addr: None,
    }
}

pub fn set_up(front: &Frontend, index: usize, ring: &TestRing, base: u16) {
    front.set_vring_num(index, ring.size).unwrap();
    front.set_vring_base(index, base).unwrap();
    front.set_vring_addr(index, &addresses(ring)).unwrap();
    front.set_vring_call(index, &ring.call).unwrap();
    front.set_vring_kick(index, &ring.kick).unwrap();
}

pub fn start(front: &mut Frontend, index: usize, ring: &TestRing, base: u16) {
    set_up(front, index, ring, base);
    front.set_vring_enable(index, true).unwrap();
}

pub fn offer(ring: &mut TestRing) -> TestRequest {
    let test = ring.read_request(0, 64);
    ring.offer(0);
    ring.kick.write(1).unwrap();
    test
}

pub fn wait_used(ring: &mut TestRing) -> Vec<(u32, u32)> {
    let end = Instant::now() + PATIENCE;
    loop {
        let used = ring.take_used();
        if !used.is_empty() {
            return used;
        }
        assert!(Instant::now() < end, "no answer");
        thread::yield_now();
    }
}

pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < end, "{what}");
        thread::sleep(Duration::from_millis(1));
    }
}

pub fn round_trip(ring: &mut TestRing) {
    let test = offer(ring);
    assert_eq!(wait_used(ring), [(0, 108 + 64)]);
    assert_eq!(ring.response_code(test), 0);
    assert_eq!(ring.memory.read(test.data, 64), [PATTERN; 64]);
}

pub fn rings(memory: &Rc<TestMemory>, count: usize) -> Vec<TestRing> {
    (0..count).map(|_| TestRing::new(memory, 16)).collect()
}
