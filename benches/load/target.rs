//! Connects to a backend as QEMU does, ours or another one's: what it does not offer is done without.

use std::path::Path;

use crate::driver::{Config, Device, Session, connect};
use crate::initiator::{read, read_capacity_10};
use crate::memory::GuestMemory;
use crate::queue::Queue;
use crate::ring_sys;

/// Entries of each ring: QEMU's default.
const RING: u16 = 128;
/// Guest memory beside the requests: rings, and the buffers of the first commands.
const BESIDE: u64 = 4 << 20;

/// A running device, and the blocks of 512 bytes that it has.
pub fn start(socket: &Path, queues: usize, depth: u16, size: usize) -> (Device, u32) {
    assert!((1..=RING).contains(&depth), "a depth is 1 to {RING}");
    let requests = queues as u64 * ring_sys::bytes(depth, size) as u64;
    let layout: &'static [(u64, u64)] = Box::leak(Box::new([(0, BESIDE + requests)]));
    let stream = connect(socket).unwrap_or_else(|error| panic!("{socket:?}: {error}"));
    let mut session = Session::open(stream).expect("the device says what it offers");
    let wanted = Config { ring_size: RING, layout, ..Config::queues(queues) };
    let config = Config { features: wanted.features & session.features, ..wanted };
    session.claim(config.protocol).expect("the device takes protocol features");
    let memory = GuestMemory::new(config.layout);
    let (control, events, queues, region) = (None, None, Vec::new(), None);
    let mut device = Device { session, config, memory, region, control, events, queues };
    device.negotiate().expect("the device takes features");
    device.bring_memory().expect("the device takes memory");
    device.start_rings().expect("the rings start");
    for queue in &mut device.queues {
        queue.settle();
    }
    let capacity = device.queue().fetch(&read_capacity_10());
    let last = u32::from_be_bytes([0, 1, 2, 3].map(|at| capacity[at]));
    assert_eq!(capacity[4..8], 512u32.to_be_bytes(), "blocks of 512 bytes");
    touch(device.queue(), last);
    (device, last.saturating_add(1))
}

/// Reads the unit once, as far as benches/run fills one: what a first access costs is not measured.
fn touch(queue: &mut Queue, last: u32) {
    const BLOCKS: u16 = 256;
    const MOST: u32 = 1 << 19;
    let end = last.min(MOST).saturating_sub(BLOCKS.into());
    for lba in (0..end).step_by(BLOCKS.into()) {
        queue.good(&read(lba, BLOCKS));
    }
}
