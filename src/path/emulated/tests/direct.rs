//! `cache=none`: what goes straight to the kernel, what goes through memory of our own, and that
//! nothing is left in the page cache.

#![allow(clippy::single_range_in_vec_init, reason = "a list of pieces may have one")]

use super::engines::{array_on, direct, disk_file};
use super::*;
use crate::buffer::Segments;
use crate::path::emulated::engine::Engine;
use crate::path::emulated::store::Store;
use crate::scsi::opcode::*;
use std::fs::File;

const BLOCKS: u64 = 4096;

/// A unit past the page cache, and its file as any other program has it open.
fn unit() -> Option<(Arc<Array>, File)> {
    let file = disk_file(BLOCKS * 512)?;
    let name = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
    let beside = File::open(name).unwrap();
    Some((array_on(direct(file)?, BLOCKS), beside))
}

/// Memory with an address that all direct I/O takes at the place returned.
fn memory(len: usize) -> (OwnedBuffer, usize) {
    let memory = OwnedBuffer::from_vec(vec![0xEE; len + 4096]);
    let base = memory.segments().as_iovecs()[0].iov_base as usize;
    (memory, base.next_multiple_of(4096) - base)
}

/// Sends one command with data in `list`; true when the ring has it, false when the helper has.
fn run(disk: &mut Initiator<PortChannel>, cdb: &[u8], list: &Segments, out: bool) -> bool {
    let attempt = AttemptId { slot: Slot(7), generation: 7 };
    let (cdb, none) = (Cdb::new(cdb), Segments::new());
    let (data_out, data_in) = if out { (list, &none) } else { (&none, list) };
    disk.channel.submit(attempt, Task { cdb: &cdb, data_out, data_in }, Instant::now());
    disk.channel.flush();
    let by_ring = matches!(&disk.channel.engine, Engine::Ring(engine) if engine.ring.flying() == 1);
    assert_ne!(by_ring, !disk.channel.jobs.is_empty());
    let sent = Sent { attempt, data_out: OwnedBuffer::zeroed(0), data_in: OwnedBuffer::zeroed(0) };
    let Fate::Answered(answer) = disk.wait(&sent) else { panic!("no answer") };
    assert_eq!(answer.status, Status::GOOD, "{cdb:?}");
    by_ring
}

#[test]
fn aligned_memory_goes_to_the_kernel_and_odd_memory_through_the_helper() {
    let Some((array, _)) = unit() else { return };
    let port = port(&array, 1);
    let mut disk = initiator(&port);
    if matches!(disk.channel.engine, Engine::Helper) {
        return eprintln!("not run: no io_uring");
    }
    let (memory, at) = memory(64 << 10);
    for (pieces, by_ring, what) in [
        (vec![at..at + 4096], true, "a page"),
        (vec![at + 512..at + 1024, at + 4096..at + 7680], true, "blocks"),
        (vec![at + 1..at + 4097], false, "an odd address"),
        (vec![at..at + 511, at + 1024..at + 4609], false, "odd lengths"),
        (vec![at..at + 2048, at + 4097..at + 6145], false, "an odd address of the second piece"),
    ] {
        let list = memory_sys::scattered(&memory, &pieces);
        assert_eq!(list.len(), 4096);
        let data = pattern(pieces[0].start as u8, 4096);
        list.write_at(0, &data);
        assert_eq!(run(&mut disk, &cdb16(WRITE_16, 0, 9, 8), &list, true), by_ring, "{what}");
        let mut there = vec![0; 4096];
        array.peek(9, &mut there).unwrap();
        assert!(there == data, "written from {what}");
        list.zero_at(0, 4096);
        assert_eq!(run(&mut disk, &cdb16(READ_16, 0, 9, 8), &list, false), by_ring, "{what}");
        assert!(list.to_vec() == data, "read into {what}");
    }
}

#[test]
fn odd_memory_of_many_pieces_of_our_own_is_moved_in_order() {
    let Some((array, _)) = unit() else { return };
    let port = port(&array, 1);
    let mut disk = initiator(&port);
    // More than is bounced at once, and not a multiple of it; and FUA.
    let blocks = 2 * 512 + 3;
    let (memory, at) = memory(blocks * 512 + 1);
    let list = memory_sys::scattered(&memory, &[at + 1..at + 1 + blocks * 512]);
    let data: Vec<u8> = (0..blocks * 512).map(|at| (at / 7) as u8 ^ (at >> 12) as u8).collect();
    list.write_at(0, &data);
    run(&mut disk, &cdb16(WRITE_16, 0x08, 5, blocks as u32), &list, true);
    list.zero_at(0, data.len());
    run(&mut disk, &cdb16(READ_16, 0, 5, blocks as u32), &list, false);
    assert!(list.to_vec() == data);
    let mut beside = [0; 512];
    for lba in [4, 5 + blocks as u64] {
        array.peek(lba, &mut beside).unwrap();
        assert_eq!(beside, [0; 512], "block {lba} is not ours");
    }
}

#[test]
fn nothing_is_left_in_the_page_cache() {
    let (Some((array, file)), Some(other)) = (unit(), disk_file(BLOCKS * 512)) else { return };
    let beside = other.try_clone().unwrap();
    let cached = array_on(Store::file(other), BLOCKS);
    let through = |array: &Arc<Array>| {
        let port = port(array, 1);
        let mut disk = initiator(&port);
        let data = pattern(3, 4096);
        disk.good(&cdb16(WRITE_16, 0, 8, 8), &data, 0);
        disk.good(&cdb16(READ_16, 0, 8, 8), &[], 4096);
        disk.good(&cdb16(COMPARE_AND_WRITE, 0, 8, 1), &[&data[..512], &[4; 512]].concat(), 0);
        disk.good(&cdb16(ORWRITE_16, 0, 9, 2), &[0x11; 1024], 0);
        disk.good(&cdb16(WRITE_SAME_16, 0, 12, 2), &[5; 512], 0);
        disk.good(&cdb16(VERIFY_16, 2, 15, 1), &data[7 * 512..], 0);
    };
    through(&cached);
    match memory_sys::is_cached(&beside, 4096) {
        Ok(true) => {}
        told => return eprintln!("not run: the source directory does not tell: {told:?}"),
    }
    through(&array);
    assert!(!memory_sys::is_cached(&file, 4096).unwrap());
}

/// Blocks of one page, each with a writer of its own, one through the ring and one by commands of
/// the helper. Through the page cache beside direct I/O, one's block would come back old.
#[test]
fn neighbours_in_a_page_keep_what_they_were_given() {
    const ROUNDS: u32 = 300;
    let Some((array, _)) = unit() else { return };
    std::thread::scope(|scope| {
        for lba in 0..4_u64 {
            let port = port(&array, lba as u16 + 1);
            scope.spawn(move || {
                let mut disk = initiator(&port);
                let (memory, at) = memory(512);
                let list = memory_sys::scattered(&memory, &[at..at + 512]);
                for round in 0..ROUNDS {
                    let bytes = [lba as u8 ^ round as u8; 512];
                    match lba {
                        0 => drop(disk.good(&cdb16(WRITE_SAME_16, 0, 0, 1), &bytes, 0)),
                        1 if round % 2 == 0 => {
                            // UNMAP: zeroes, by the kernel.
                            disk.good(&cdb16(WRITE_SAME_16, 0x09, 1, 1), &[], 0);
                            let there = disk.good(&cdb16(READ_16, 0, 1, 1), &[], 512);
                            assert_eq!(there, [0; 512], "round {round}");
                            continue;
                        }
                        _ => {
                            list.write_at(0, &bytes);
                            run(&mut disk, &cdb16(WRITE_16, 0, lba, 1), &list, true);
                        }
                    }
                    let there = disk.good(&cdb16(READ_16, 0, lba, 1), &[], 512);
                    assert_eq!(there, bytes, "block {lba}, round {round}");
                }
            });
        }
    });
}
