//! The dirty log as a front end sees it, and rings that stop because the guest goes on elsewhere.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::thread;
use std::time::Duration;

use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserDirtyLogRegion, VhostUserMemoryRegionInfo};

use super::device::*;
use crate::buffer::Segments;
use crate::completion::Outcome;
use crate::engine::{Guest, Leftovers, Request};
use crate::front::features::{EVENT_IDX, INDIRECT_DESC, LOG_ALL, VERSION_1};
use crate::front::inflight::{Region, Shape};
use crate::front::rings::Rings;
use crate::front::testing::{NEXT, TestMemory, TestRing, WRITE};
use crate::ids::RingIndex;
use crate::virtio_scsi::request::RESPONSE_LEN;

const PAGE: u64 = 4096;
/// Bytes of a log for [`TestMemory`].
const LOG_LEN: u64 = (TestMemory::GUEST + TestMemory::LEN) / PAGE / 8;

const NONE: [u64; 0] = [];

struct Log(File);

impl Log {
    fn new(len: u64) -> Self {
        let file = tempfile::tempfile().unwrap();
        file.set_len(len).unwrap();
        Log(file)
    }

    fn region(&self) -> VhostUserDirtyLogRegion {
        let mmap_size = self.0.metadata().unwrap().len();
        VhostUserDirtyLogRegion { mmap_size, mmap_offset: 0, mmap_handle: self.0.as_raw_fd() }
    }

    /// The front end brings it.
    fn bring(&self, front: &Frontend) -> vhost::Result<()> {
        front.set_log_base(0, Some(self.region()))
    }

    /// Takes the bits: pages by number.
    fn take(&self) -> Vec<u64> {
        let mut bytes = vec![0; self.0.metadata().unwrap().len() as usize];
        self.0.read_exact_at(&mut bytes, 0).unwrap();
        self.0.write_all_at(&vec![0; bytes.len()], 0).unwrap();
        let is_set = |page: &u64| bytes[(page / 8) as usize] & 1 << (page % 8) != 0;
        (0..bytes.len() as u64 * 8).filter(is_set).collect()
    }
}

/// Pages of guest memory, to see which of them change.
struct Before(Vec<u8>);

impl Before {
    fn of(memory: &TestMemory) -> Self {
        Before(memory.read(TestMemory::GUEST, TestMemory::LEN as usize))
    }

    fn changed(&self, memory: &TestMemory) -> Vec<u64> {
        let after = memory.read(TestMemory::GUEST, TestMemory::LEN as usize);
        let pages = self.0.chunks(PAGE as usize).zip(after.chunks(PAGE as usize)).enumerate();
        let first = TestMemory::GUEST / PAGE;
        pages.filter(|(_, (old, new))| old != new).map(|(at, _)| first + at as u64).collect()
    }
}

/// A ring whose parts, and whose requests' buffers, share no page with anything else.
fn lonely_ring(memory: &std::rc::Rc<TestMemory>) -> TestRing {
    let mut ring = TestRing::new(memory, 16);
    for part in [&mut ring.table, &mut ring.available, &mut ring.used] {
        let at = memory.allocate(2 * PAGE);
        *part = at.next_multiple_of(PAGE);
    }
    ring
}

/// A request of which response and data are on pages of their own, not offered yet: these two.
fn prepare(ring: &TestRing, data: u32) -> (u64, u64) {
    let page = || ring.memory.allocate(2 * PAGE).next_multiple_of(PAGE);
    let (header, response, room) = (page(), page(), page());
    let mut bytes = [0; 51];
    bytes[..4].copy_from_slice(&[1, 0, 0x40, 0]);
    bytes[19] = 0x28;
    ring.memory.write(header, &bytes);
    ring.memory.write(response, &[0xFF; RESPONSE_LEN]);
    ring.describe(0, header, 51, NEXT, 1);
    ring.describe(1, response, RESPONSE_LEN as u32, NEXT | WRITE, 2);
    ring.describe(2, room, data, WRITE, 0);
    (response / PAGE, room / PAGE)
}

fn offer_head(ring: &mut TestRing) {
    ring.offer(0);
    ring.kick.write(1).unwrap();
}

/// The same, offered.
fn lonely_request(ring: &mut TestRing, data: u32) -> (u64, u64) {
    let pages = prepare(ring, data);
    offer_head(ring);
    pages
}

/// SET_VRING_ADDR of a running ring, as QEMU does it when it turns the log on and off.
fn mark_used_ring(front: &Frontend, index: usize, ring: &TestRing, on: bool) {
    let mut addresses = addresses(ring);
    if on {
        (addresses.flags, addresses.log_addr) = (1, Some(ring.used));
    }
    front.set_vring_addr(index, &addresses).unwrap();
}

fn log_on(front: &Frontend, log: &Log, index: usize, ring: &TestRing) {
    log.bring(front).unwrap();
    front.set_features(LINUX | LOG_ALL).unwrap();
    mark_used_ring(front, index, ring, true);
}

fn log_off(front: &Frontend, index: usize, ring: &TestRing) {
    front.set_features(LINUX).unwrap();
    mark_used_ring(front, index, ring, false);
}

fn wait_served(ring: &mut TestRing) {
    wait_used(ring);
    // What is written after the answer: the wish to be kicked.
    thread::sleep(Duration::from_millis(20));
}

#[test]
fn log_that_comes_and_goes_while_the_ring_runs_has_what_is_written_meanwhile() {
    let (device, memory) = (Device::new(), TestMemory::new());
    let mut front = device.connect(LINUX, &memory);
    let (log, mut ring) = (Log::new(LOG_LEN), lonely_ring(&memory));
    start(&mut front, 2, &ring, 0);
    log.bring(&front).unwrap();
    lonely_request(&mut ring, 64);
    wait_served(&mut ring);
    assert_eq!(log.take(), NONE, "LOG_ALL is not accepted");
    log_on(&front, &log, 2, &ring);
    let used = ring.used / PAGE;
    assert_eq!(log.take(), [used], "what was written before may be in no log");
    for _ in 0..3 {
        let (response, data) = prepare(&ring, 9000);
        let before = Before::of(&memory);
        offer_head(&mut ring);
        wait_served(&mut ring);
        let driver = ring.available / PAGE;
        let changed = before.changed(&memory).into_iter().filter(|page| *page != driver);
        let mut expected = vec![used, response, data, data + 1, data + 2];
        expected.sort_unstable();
        assert_eq!(changed.collect::<Vec<u64>>(), expected);
        assert_eq!(log.take(), expected);
    }
    log_off(&front, 2, &ring);
    lonely_request(&mut ring, 64);
    wait_served(&mut ring);
    assert_eq!(log.take(), NONE, "it is off");
}

/// True while this process has the file in its address space.
fn is_mapped(file: &File) -> bool {
    let inode = file.metadata().unwrap().ino().to_string();
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    maps.lines().any(|line| line.split_whitespace().nth(4) == Some(&inode))
}

#[test]
fn log_is_let_go_of_when_the_move_is_called_off() {
    let (device, memory) = (Device::new(), TestMemory::new());
    let mut front = device.connect(LINUX, &memory);
    let mut ring = lonely_ring(&memory);
    start(&mut front, 2, &ring, 0);
    for _ in 0..2 {
        let log = Log::new(LOG_LEN);
        log_on(&front, &log, 2, &ring);
        lonely_request(&mut ring, 64);
        wait_served(&mut ring);
        assert!(is_mapped(&log.0) && !log.take().is_empty());
        log_off(&front, 2, &ring);
        assert!(!is_mapped(&log.0), "nobody marks in it any more");
    }
    // A front end that believes it to be there still would copy too little.
    assert!(front.set_features(LINUX | LOG_ALL).is_err());
}

#[test]
fn log_is_looked_up_when_the_request_ends() {
    let (device, memory) = (Device::new(), TestMemory::new());
    device.hold(true);
    let mut front = device.connect(LINUX, &memory);
    let (log, mut ring) = (Log::new(LOG_LEN), lonely_ring(&memory));
    start(&mut front, 2, &ring, 0);
    let (response, data) = lonely_request(&mut ring, 64);
    thread::sleep(Duration::from_millis(20));
    log_on(&front, &log, 2, &ring);
    log.take();
    front.get_vring_base(2).unwrap();
    let marked = log.take();
    assert!([response, data, ring.used / PAGE].iter().all(|page| marked.contains(page)));
}

#[test]
fn log_that_is_replaced_has_no_bit_any_more() {
    let (device, memory) = (Device::new(), TestMemory::new());
    let mut front = device.connect(LINUX, &memory);
    let (old, new) = (Log::new(LOG_LEN), Log::new(2 * LOG_LEN));
    let mut ring = lonely_ring(&memory);
    start(&mut front, 2, &ring, 0);
    log_on(&front, &old, 2, &ring);
    new.bring(&front).unwrap();
    old.take();
    new.take();
    let (response, data) = lonely_request(&mut ring, 64);
    wait_served(&mut ring);
    assert_eq!(old.take(), NONE);
    let marked = new.take();
    assert!([response, data, ring.used / PAGE].iter().all(|page| marked.contains(page)));
}

#[test]
fn used_ring_is_marked_only_where_the_front_end_wants_that() {
    let (device, memory) = (Device::new(), TestMemory::new());
    let mut front = device.connect(LINUX, &memory);
    let (log, mut ring) = (Log::new(LOG_LEN), lonely_ring(&memory));
    start(&mut front, 2, &ring, 0);
    log.bring(&front).unwrap();
    front.set_features(LINUX | LOG_ALL).unwrap();
    let (response, data) = lonely_request(&mut ring, 64);
    wait_served(&mut ring);
    let mut expected = [response, data];
    expected.sort_unstable();
    assert_eq!(log.take(), expected);
}

#[test]
fn ring_that_starts_with_the_log_on_is_marked_as_a_whole() {
    let (device, memory) = (Device::new(), TestMemory::new());
    let mut front = device.connect(LINUX, &memory);
    let (log, ring) = (Log::new(LOG_LEN), lonely_ring(&memory));
    front.set_features(LINUX | LOG_ALL).unwrap();
    front.set_vring_num(2, ring.size).unwrap();
    mark_used_ring(&front, 2, &ring, true);
    front.set_vring_call(2, &ring.call).unwrap();
    front.set_vring_kick(2, &ring.kick).unwrap();
    // QEMU brings the log after it has started the rings, and then enables them.
    log.bring(&front).unwrap();
    front.set_vring_enable(2, true).unwrap();
    assert!(log.take().contains(&(ring.used / PAGE)));
}

#[test]
fn log_that_is_too_small_ends_the_connection() {
    let (device, memory) = (Device::new(), TestMemory::new());
    let front = device.connect(LINUX, &memory);
    assert!(Log::new(LOG_LEN - 1).bring(&front).is_err());
    assert!(front.get_features().is_err());
    // The next one is served.
    let mut front = device.connect(LINUX, &memory);
    let mut ring = TestRing::new(&memory, 16);
    start(&mut front, 2, &ring, 0);
    round_trip(&mut ring);
}

#[test]
fn memory_beyond_the_log_is_refused_while_rings_are_marked() {
    let (device, memory) = (Device::new(), TestMemory::new());
    let more = TestMemory::new();
    let slot = VhostUserMemoryRegionInfo {
        guest_phys_addr: TestMemory::GUEST + TestMemory::LEN,
        userspace_addr: TestMemory::USER + TestMemory::LEN,
        ..region(&more)
    };
    let mut front = device.connect(LINUX, &memory);
    let (log, ring) = (Log::new(LOG_LEN), lonely_ring(&memory));
    start(&mut front, 2, &ring, 0);
    log_on(&front, &log, 2, &ring);
    let larger = Log::new(LOG_LEN + TestMemory::LEN / PAGE / 8);
    larger.bring(&front).unwrap();
    front.add_mem_region(&slot).unwrap();
    front.remove_mem_region(&slot).unwrap();
    log.bring(&front).unwrap();
    assert!(front.add_mem_region(&slot).is_err());
}

#[test]
fn malformed_request_and_its_answer_are_marked() {
    let (device, memory) = (Device::new(), TestMemory::new());
    let mut front = device.connect(LINUX, &memory);
    let (log, mut ring) = (Log::new(LOG_LEN), lonely_ring(&memory));
    start(&mut front, 2, &ring, 0);
    log_on(&front, &log, 2, &ring);
    log.take();
    let response = memory.allocate(2 * PAGE).next_multiple_of(PAGE);
    let header = memory.allocate(8);
    // A header of 8 bytes.
    ring.describe(0, header, 8, NEXT, 1);
    ring.describe(1, response, RESPONSE_LEN as u32, WRITE, 0);
    ring.offer(0);
    ring.kick.write(1).unwrap();
    wait_served(&mut ring);
    assert!(log.take().contains(&(response / PAGE)));
}

/// Rings of a process that follows one which has taken these heads and not answered them.
fn after_a_crash(driver: &mut TestRing, index: RingIndex, heads: &[u16]) -> Rings {
    let shape = Shape::new(3, driver.size).unwrap();
    let region = Region::map(shape, shape.make().unwrap(), 0, shape.bytes() as u64).unwrap();
    let record = || region.record(index, driver.size).unwrap();
    let features = VERSION_1 | INDIRECT_DESC | EVENT_IDX;
    let mut first = Rings::new();
    first.start(driver.reopen(index, features, record()).unwrap());
    for head in heads {
        driver.read_request(*head, 64);
        driver.offer(*head);
    }
    let mut request = Request::default();
    std::iter::from_fn(|| first.next(&mut request)).for_each(|owed| owed.abandon());
    let record = region.record(index, driver.size).unwrap();
    let mut rings = Rings::new();
    rings.start(driver.reopen(index, features, record).unwrap());
    rings
}

#[test]
fn ring_that_stops_to_move_is_not_stopped_before_what_was_left_is_answered() {
    let memory = TestMemory::new();
    let mut driver = TestRing::new(&memory, 16);
    let ring = RingIndex::FIRST_REQUEST;
    let mut rings = after_a_crash(&mut driver, ring, &[3, 0]);
    driver.read_request(6, 64);
    driver.offer(6);
    assert_eq!(rings.leftovers(), Leftovers::GiveBack);
    rings.stop_to_move(ring);
    assert_eq!(rings.leftovers(), Leftovers::Resend);
    let mut request = Request::default();
    for head in [3, 0] {
        assert_eq!(rings.queue(ring).unwrap().stopped(), None, "{head} is left");
        let owed = rings.next(&mut request).unwrap();
        assert!(owed.head() == head && request.again);
        rings.complete(owed, &Outcome::good(0, 64), &Segments::new());
    }
    assert!(rings.next(&mut request).is_none(), "what is new is for whoever comes next");
    rings.flush();
    assert_eq!(rings.queue(ring).unwrap().stopped(), Some(2));
}

#[test]
fn ring_that_stops_without_moving_leaves_what_was_left() {
    let memory = TestMemory::new();
    let mut driver = TestRing::new(&memory, 16);
    let ring = RingIndex::FIRST_REQUEST;
    let mut rings = after_a_crash(&mut driver, ring, &[3]);
    rings.queue(ring).unwrap().stop();
    assert!(rings.next(&mut Request::default()).is_none());
    assert_eq!(rings.queue(ring).unwrap().stopped(), Some(1));
}
