//! The layout, held against the numbers of the vhost-user specification, and what a successor reads.

use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

use super::record::{Left, RecordError};
use super::*;

const RING: RingIndex = RingIndex(1);
const SIZE: u16 = 4;

/// A region for three rings of four entries, and the file behind it.
struct Scene {
    file: File,
    region: Region,
}

impl Scene {
    fn new() -> Self {
        let shape = Shape::new(3, SIZE).unwrap();
        let file = shape.make().unwrap();
        let region =
            Region::map(shape, file.try_clone().unwrap(), 0, shape.bytes() as u64).unwrap();
        Scene { file, region }
    }

    /// Where the part of [`RING`] begins: 16 bytes and four states of 16 are 80, which makes 128.
    const AT: u64 = 128;

    fn record(&self) -> Record {
        self.region.record(RING, SIZE).unwrap()
    }

    /// A record of a ring that starts for the first time.
    fn begun(&self) -> Record {
        let mut record = self.record();
        assert_eq!(record.recover(SIZE, 0, 0).unwrap(), Left::default());
        record
    }

    fn bytes(&self, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.file.read_exact_at(&mut bytes, Self::AT + at).unwrap();
        bytes
    }

    fn u16(&self, at: u64) -> u16 {
        u16::from_ne_bytes(self.bytes(at, 2).try_into().unwrap())
    }

    fn write(&self, at: u64, bytes: &[u8]) {
        self.file.write_all_at(bytes, Self::AT + at).unwrap();
    }

    fn inflight(&self) -> Vec<u8> {
        (0..4).map(|head| self.bytes(16 + 16 * head, 1)[0]).collect()
    }
}

#[test]
fn shape_of_qemus_default_is_the_size_that_other_implementations_compute() {
    // 16 + 16 * 128 is 2064; the next multiple of 64 is 2112. Four rings: two requests, by two vCPUs.
    assert_eq!(Shape::new(4, 128).unwrap().bytes(), 4 * 2112);
    // 16 + 16 * 3 is 64 already.
    assert_eq!(Shape::new(1, 3).unwrap().bytes(), 64);
}

#[test]
fn shape_without_rings_or_with_too_many_is_refused() {
    assert!(matches!(Shape::new(0, 128), Err(RegionError::Rings(0))));
    assert!(matches!(Shape::new(RINGS_MAX + 1, 128), Err(RegionError::Rings(_))));
    assert!(matches!(Shape::new(3, 0), Err(RegionError::RingSize(0))));
    assert!(matches!(Shape::new(3, RING_SIZE_MAX + 1), Err(RegionError::RingSize(_))));
}

#[test]
fn made_region_keeps_its_size() {
    let file = Shape::new(3, SIZE).unwrap().make().unwrap();
    assert_eq!(file.metadata().unwrap().len(), 3 * 128);
    assert!(file.set_len(1).is_err(), "{} can be cut", file.as_raw_fd());
}

#[test]
fn begun_record_has_version_and_entries_where_the_specification_has_them() {
    let scene = Scene::new();
    let mut record = scene.record();
    assert_eq!(record.recover(SIZE, 9, 9).unwrap(), Left { base: 9, heads: vec![] });
    assert_eq!(scene.bytes(0, 8), [0; 8], "features");
    let header: Vec<u16> = [8, 10, 12, 14].into_iter().map(|at| scene.u16(at)).collect();
    assert_eq!(header, [1, 4, 0, 9], "version, desc_num, last_batch_head, used_idx");
}

#[test]
fn taken_request_has_its_counter_and_its_mark() {
    let scene = Scene::new();
    let mut record = scene.begun();
    record.taken(2);
    record.taken(0);
    assert_eq!(scene.inflight(), [1, 0, 1, 0]);
    let counter = |head: u64| scene.bytes(16 + 16 * head + 8, 8);
    assert_eq!(counter(2), 0u64.to_ne_bytes());
    assert_eq!(counter(0), 1u64.to_ne_bytes());
    assert_eq!(scene.bytes(16 + 16 * 2, 8), [1, 0, 0, 0, 0, 0, 0, 0], "inflight, padding, next");
}

#[test]
fn answered_batch_is_a_list_and_published_ends_it() {
    let scene = Scene::new();
    let mut record = scene.begun();
    (0..3).for_each(|head| record.taken(head));
    record.answered(2);
    record.answered(1);
    assert_eq!((scene.u16(12), scene.u16(16 + 16 + 6)), (1, 2), "last_batch_head, its next");
    assert_eq!(scene.inflight(), [1, 1, 1, 0], "not before the driver sees it");
    record.published(2);
    assert_eq!((scene.inflight(), scene.u16(14)), (vec![1, 0, 0, 0], 2));
}

#[test]
fn recover_returns_what_was_taken_in_the_order_in_which_it_was() {
    let scene = Scene::new();
    let mut record = scene.begun();
    for head in [3, 0, 2, 1] {
        record.taken(head);
    }
    record.answered(0);
    record.published(1);
    let left = scene.record().recover(SIZE, 1, 1).unwrap();
    assert_eq!(left, Left { base: 4, heads: vec![3, 2, 1] });
}

#[test]
fn recover_goes_on_counting_where_its_predecessor_stopped() {
    let scene = Scene::new();
    scene.begun().taken(3);
    let mut record = scene.record();
    record.recover(SIZE, 0, 0).unwrap();
    record.taken(0);
    assert_eq!(scene.record().recover(SIZE, 0, 0).unwrap().heads, [3, 0]);
}

#[test]
fn recover_knows_a_batch_that_was_published_and_not_written_down() {
    let scene = Scene::new();
    let mut record = scene.begun();
    (0..4).for_each(|head| record.taken(head));
    record.answered(3);
    record.published(1);
    // Two more became visible to the driver, and the process died.
    record.answered(0);
    record.answered(2);
    let left = scene.record().recover(SIZE, 3, 3).unwrap();
    assert_eq!(left, Left { base: 4, heads: vec![1] });
    assert_eq!((scene.inflight(), scene.u16(14)), (vec![0, 1, 0, 0], 3));
}

#[test]
fn recover_takes_answers_that_were_never_published_for_none() {
    let scene = Scene::new();
    let mut record = scene.begun();
    (0..2).for_each(|head| record.taken(head));
    record.answered(1);
    assert_eq!(scene.record().recover(SIZE, 0, 0).unwrap().heads, [0, 1]);
}

#[test]
fn recover_works_across_the_end_of_the_index() {
    let scene = Scene::new();
    let mut record = scene.record();
    record.recover(SIZE, 0xFFFF, 0xFFFF).unwrap();
    (0..3).for_each(|head| record.taken(head));
    record.answered(0);
    record.answered(1);
    let left = scene.record().recover(SIZE, 1, 1).unwrap();
    assert_eq!(left, Left { base: 2, heads: vec![2] });
}

#[test]
fn recover_of_what_cannot_be_is_refused() {
    let error = |change: &dyn Fn(&Scene)| {
        let scene = Scene::new();
        scene.begun();
        change(&scene);
        scene.record().recover(2, 0, 0).unwrap_err()
    };
    assert_eq!(error(&|scene| scene.write(8, &2u16.to_ne_bytes())), RecordError::Version(2));
    let entries = RecordError::Entries { has: 5, wants: 4 };
    assert_eq!(error(&|scene| scene.write(10, &5u16.to_ne_bytes())), entries);
    let used = RecordError::Used { used: 0, known: 9 };
    assert_eq!(error(&|scene| scene.write(14, &9u16.to_ne_bytes())), used);
    let state = RecordError::State { head: 1, state: 7 };
    assert_eq!(error(&|scene| scene.write(32, &[7])), state);
    // The region has four states, the ring two descriptors.
    assert_eq!(error(&|scene| scene.write(48, &[1])), RecordError::Head(2));
    let list = |scene: &Scene| {
        scene.write(14, &0xFFFFu16.to_ne_bytes());
        scene.write(12, &400u16.to_ne_bytes());
    };
    assert_eq!(error(&list), RecordError::Head(400));
}

#[test]
fn map_of_too_little_is_refused() {
    let shape = Shape::new(3, SIZE).unwrap();
    let map = |offset, bytes| Region::map(shape, shape.make().unwrap(), offset, bytes);
    assert!(matches!(map(0, 383), Err(RegionError::Small { has: 383, needs: 384 })));
    assert!(matches!(map(4096, 384), Err(RegionError::Short)));
    assert!(matches!(map(u64::MAX, 384), Err(RegionError::Short)));
    let not_a_file = File::open("/dev/null").unwrap();
    assert!(matches!(Region::map(shape, not_a_file, 0, 384), Err(RegionError::Map(_))));
    let region = map(0, 384).unwrap();
    assert!(matches!(region.record(RingIndex(3), SIZE), Err(RegionError::NoPart { .. })));
    assert!(matches!(region.record(RING, 8), Err(RegionError::NoPart { .. })));
}

#[test]
fn recover_of_any_bytes_is_an_error_or_a_ring_that_can_go_on() {
    // xorshift64*: the same bytes in every run.
    let mut random = 0x9E37_79B9_7F4A_7C15_u64;
    let mut byte = || {
        random ^= random >> 12;
        random ^= random << 25;
        random ^= random >> 27;
        (random.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 56) as u8
    };
    let mut recovered = 0;
    for _ in 0..20_000 {
        let scene = Scene::new();
        let mut bytes: Vec<u8> = (0..80).map(|_| byte()).collect();
        // Without these most of it would not be looked at.
        bytes[8..12].copy_from_slice(&[1, 0, 4, 0]);
        (0..4).for_each(|head| bytes[16 + 16 * head] &= 1);
        if byte() < 128 {
            bytes[12..16].copy_from_slice(&[byte() & 3, 0, byte() & 3, 0]);
        }
        scene.write(0, &bytes);
        let mut record = scene.record();
        let used = u16::from(byte() & 7);
        let Ok(left) = record.recover(SIZE, used, 0) else { continue };
        recovered += 1;
        assert_eq!(usize::from(left.base.wrapping_sub(used)), left.heads.len());
        assert!(left.heads.iter().all(|head| *head < SIZE));
        for head in 0..SIZE {
            record.taken(head);
            record.answered(head);
        }
        record.published(used + SIZE);
    }
    assert!((1000..19_000).contains(&recovered), "{recovered}");
}
