//! Guest memory, and what is in it.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use vhost_user_scsi_mpath::buffer::Segments;
use vhost_user_scsi_mpath::completion::{Outcome, Owed};
use vhost_user_scsi_mpath::engine::{Guest, Leftovers, Request};
use vhost_user_scsi_mpath::front::features::{Features, OFFERED};
use vhost_user_scsi_mpath::front::inflight::{Region as InflightRegion, Shape};
use vhost_user_scsi_mpath::front::memory::{GuestMemory, Region};
use vhost_user_scsi_mpath::front::queue::{Queue, RingStart};
use vhost_user_scsi_mpath::front::ring::Layout;
use vhost_user_scsi_mpath::front::rings::Rings;
use vhost_user_scsi_mpath::ids::RingIndex;
use vhost_user_scsi_mpath::limits::{SEGMENTS_MAX, TRANSFER_MAX};
use vhost_user_scsi_mpath::scsi::{Asc, SenseKey};
use vhost_user_scsi_mpath::virtio_scsi::request::RESPONSE_LEN;
use vhost_user_scsi_mpath::virtio_scsi::{ControlRequest, ControlResponse, Event};

use super::Bytes;

/// Two regions that touch, and behind a hole a third one, by guest-physical address and length;
/// their places in the file follow each other. They begin at 0, so that small numbers are addresses.
const REGIONS: [(u64, u64); 3] = [(0, 0x4000), (0x4000, 0x1000), (0x8000, 0x1000)];
/// Bytes of the file.
const MEMORY: u64 = 0x6000;
/// Where the front end sees guest address 0.
const USER: u64 = 0x7000_0000;
/// Bytes from one ring's parts to the next one's: 16 entries at most.
const RING: u64 = 0x400;
/// Rings: control, event, and the first request ring.
const RINGS: u64 = 3;
/// Steps of the device at most.
const STEPS: usize = 64;

/// A file of `bytes`, then zeroes, in memory.
fn file(bytes: &[u8], len: u64) -> File {
    let file = tempfile::tempfile_in("/dev/shm").expect("a file can be made");
    file.set_len(len).expect("it grows");
    let bytes = &bytes[..bytes.len().min(len as usize)];
    file.write_all_at(bytes, 0).expect("it takes bytes");
    file
}

fn clone(file: &File) -> File {
    File::from(file.as_fd().try_clone_to_owned().expect("a descriptor can be cloned"))
}

/// The first `count` regions.
fn memory(file: &File, count: usize) -> Arc<GuestMemory> {
    let mut offset = 0;
    let regions = REGIONS[..count].iter().map(|(guest, len)| {
        let region = Region::map(*guest, USER + guest, *len, clone(file), offset);
        offset += len;
        region.expect("it is in the file")
    });
    Arc::new(GuestMemory::new(regions.collect()).expect("the table makes sense"))
}

/// A ring's parts, the first in the memory's order of rings.
fn layout(index: RingIndex, size: u16) -> Layout {
    let at = USER + RING * u64::from(index.0);
    Layout { size, descriptors: at, available: at + 0x100, used: at + 0x200 }
}

/// All that is lent lies in guest memory.
struct Bounds(Vec<(usize, usize)>);

impl Bounds {
    fn of(memory: &GuestMemory) -> Self {
        let host = |(guest, len): &(u64, u64)| {
            let base = memory.user(USER + guest, *len as usize).expect("it is mapped") as usize;
            (base, base + *len as usize)
        };
        Bounds(REGIONS.iter().map(host).collect())
    }

    fn hold(&self, segments: &Segments) {
        assert!(segments.pieces() <= SEGMENTS_MAX);
        let mut sum = 0;
        for piece in segments.as_iovecs() {
            let (from, to) = (piece.iov_base as usize, piece.iov_base as usize + piece.iov_len);
            assert!(self.0.iter().any(|(begin, end)| *begin <= from && to <= *end), "{piece:?}");
            sum += piece.iov_len;
        }
        assert_eq!(sum, segments.len());
    }
}

/// The device's side of one run.
struct Device {
    rings: Rings,
    bounds: Bounds,
    owed: Vec<(Owed, Request)>,
    control: Vec<(Owed, ControlRequest)>,
    /// Heads that were answered on the request ring, and on the control ring.
    answered: [usize; 2],
}

impl Device {
    fn take(&mut self) {
        let mut request = Request::default();
        if let Some(owed) = self.rings.next(&mut request) {
            self.bounds.hold(&request.data_in);
            self.bounds.hold(&request.data_out);
            assert!(request.data_in.is_empty() || request.data_out.is_empty());
            assert!(request.room() <= TRANSFER_MAX + RESPONSE_LEN as u32);
            assert!(request.header.is_some());
            request.data_in.write_at(0, &[0xA5; 64]);
            request.data_out.to_vec();
            self.owed.push((owed, request));
        }
    }

    fn answer(&mut self, which: u8) {
        if let Some((owed, request)) = self.owed.pop() {
            let room = request.room();
            let outcome = match which % 3 {
                0 => Outcome::good(room.min(512), room),
                1 => Outcome::check(SenseKey::MediumError, Asc(0x11, 0), room),
                _ => Outcome::good(0, room),
            };
            self.answered[0] += 1;
            self.rings.complete(owed, &outcome, &request.data_in);
        }
        if let Some((owed, request)) = self.control.pop() {
            self.answered[1] += 1;
            self.rings.answer_control(owed, &request, ControlResponse::FunctionComplete);
        }
    }
}

fn start(
    index: RingIndex,
    size: u16,
    base: u16,
    features: Features,
    memory: &Arc<GuestMemory>,
) -> RingStart {
    let null = || File::options().write(true).open("/dev/null").expect("there is one");
    RingStart {
        index,
        layout: layout(index, size),
        base,
        features,
        memory: memory.clone(),
        log: None,
        used_address: None,
        record: None,
        enabled: true,
        kick: null(),
        call: Some(Arc::new(null())),
        err: Some(Arc::new(null())),
    }
}

/// Guest memory with three rings in it; then what the device does with them.
///
/// Features, size and base of the rings, a number of steps and the steps, then the memory.
pub fn rings(data: &[u8]) {
    let mut bytes = Bytes::new(data);
    let flags = bytes.u8();
    let mut bits = OFFERED;
    for (bit, feature) in [28, 29, 1, 2].into_iter().enumerate() {
        bits &= !(u64::from(flags >> bit & 1) << feature);
    }
    let features = Features::accept(bits).expect("all of them are offered");
    let (size, base) = (1 << (bytes.u8() % 5), bytes.u16());
    let count = usize::from(bytes.u8()) % STEPS;
    let steps = bytes.take(count);
    let file = file(bytes.rest(), MEMORY);
    let table = memory(&file, REGIONS.len());
    let mut device = Device {
        rings: Rings::new(),
        bounds: Bounds::of(&table),
        owed: Vec::new(),
        control: Vec::new(),
        answered: [0; 2],
    };
    let used = |ring: u64| {
        let mut index = [0; 2];
        file.read_exact_at(&mut index, RING * ring + 0x202).expect("it is in the file");
        u16::from_le_bytes(index)
    };
    let before: Vec<u16> = (0..RINGS).map(used).collect();
    for index in 0..RINGS as u16 {
        let start = start(RingIndex(index), size, base, features, &table);
        device.rings.start(Queue::open(start).expect("the ring is in memory"));
    }
    for step in steps {
        match step % 8 {
            0 | 1 => device.take(),
            2 => device.control.extend(device.rings.next_control()),
            3 => device.answer(step / 8),
            4 => device.rings.flush(),
            5 => {
                device.rings.arm();
                device.rings.begin_turn();
                device.rings.disarm();
            }
            6 => device.rings.post_event(Event::Rescan),
            _ => {
                let memory = memory(&file, 1 + usize::from(step / 8) % REGIONS.len());
                // What was lent before stays where it was, and what is lent from now on is here.
                device.rings.set_memory(&memory);
                let host = |(guest, len): &(u64, u64)| {
                    let base = memory.user(USER + guest, *len as usize).ok()? as usize;
                    Some((base, base + *len as usize))
                };
                device.bounds.0.extend(REGIONS.iter().filter_map(host));
            }
        }
    }
    let held = device.owed.len() + device.control.len();
    for _ in 0..held {
        device.answer(0);
    }
    assert!(device.owed.is_empty() && device.control.is_empty());
    device.rings.flush();
    // A step takes what the ring holds at most, whatever its driver says.
    for ring in 0..RINGS {
        let advance = used(ring).wrapping_sub(before[ring as usize]);
        assert!(usize::from(advance) <= (STEPS + 2) * usize::from(size), "ring {ring}: {advance}");
    }
    device.rings.queues().for_each(Queue::stop);
    let all_stopped = device.rings.queues().all(|queue| queue.stopped().is_some());
    assert!(all_stopped, "nothing is in flight");
}

/// An in-flight region, and the ring that it belongs to.
///
/// Sizes, base, then the region; what is left is the ring's memory.
pub fn region(data: &[u8]) {
    let mut bytes = Bytes::new(data);
    let (size, more) = (1 << (bytes.u8() % 5), u16::from(bytes.u8() % 3));
    let base = bytes.u16();
    let shape = Shape::new(RINGS as u16, size + more).expect("such rings are served");
    let region_bytes = bytes.take(shape.bytes());
    let file_of_region = file(region_bytes, shape.bytes() as u64);
    let file = file(bytes.rest(), MEMORY);
    let table = memory(&file, REGIONS.len());
    let index = RingIndex::FIRST_REQUEST;
    let features = Features::accept(OFFERED).expect("all of them are offered");
    let open = || {
        let bytes = shape.bytes() as u64;
        let region = InflightRegion::map(shape, clone(&file_of_region), 0, bytes).expect("it fits");
        let record = region.record(index, size).expect("there is a part for it");
        let start =
            RingStart { record: Some(record), ..start(index, size, base, features, &table) };
        Queue::open(start)
    };
    let Ok(queue) = open() else { return };
    let mut rings = Rings::new();
    rings.start(queue);
    let mut request = Request::default();
    let mut given_back = Vec::new();
    let mut again = 0;
    for turn in 0..3 {
        while let Some(owed) = rings.next(&mut request) {
            let head = owed.head();
            assert!(head < size && !given_back.contains(&head), "it is taken once");
            again += usize::from(request.again);
            match head % 2 {
                0 if turn < 2
                    && rings.leftovers() == Leftovers::GiveBack
                    && given_back.len() < usize::from(size) =>
                {
                    given_back.push(head);
                    rings.give_back(owed, &request.data_in);
                    break;
                }
                _ => rings.complete(owed, &Outcome::good(0, request.room()), &request.data_in),
            }
        }
        given_back.clear();
        rings.flush();
    }
    assert!(again <= 2 * usize::from(size), "more was given back than there is");
    // A successor finds what is left, and nothing that cannot be.
    drop(rings);
    if let Err(error) = open() {
        panic!("what we wrote makes no sense to a successor: {error}");
    }
}
