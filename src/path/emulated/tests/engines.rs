//! The engines give the same results, and keep exclusive commands exclusive.

use super::*;
use crate::buffer::Segments;
use crate::path::emulated::direct::Direct;
use crate::path::emulated::engine::Engine;
use crate::path::emulated::store::Store;
use crate::path::waker::Waker;
use crate::path::{Failure, Reach};
use crate::scsi::opcode::*;
use std::fs::File;

/// A file that does not live in memory, if the host has such a place.
pub(super) fn disk_file(bytes: u64) -> Option<File> {
    let file = tempfile::tempfile_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    file.set_len(bytes).unwrap();
    if Store::file(file.try_clone().unwrap()).is_memory() {
        eprintln!("not run: the source directory is on a memory-backed file system");
        return None;
    }
    Some(file)
}

pub(super) fn array_on(store: Store, blocks: u64) -> Arc<Array> {
    use crate::path::emulated::array::Identity;
    use crate::path::emulated::reservations::{Keep, Reservations, State};
    let product = b"VIRTUAL-DISK    ";
    let reservations = Reservations::new(Keep::WithUnit, State::default());
    let (name, block_size) = (NAME, 512);
    let identity = Identity { name, product, block_size, blocks, read_only: false, reservations };
    Array::new(store, identity, None)
}

/// The same past the page cache, if that is possible there.
pub(super) fn direct(file: File) -> Option<Store> {
    match Direct::begin(&file, 512).unwrap() {
        Ok(direct) => Some(Store::direct(file, direct)),
        Err(error) => {
            eprintln!("not run: no direct I/O in the source directory: {error:?}");
            None
        }
    }
}

/// A unit for each engine that runs here, with its name.
fn all_engines(blocks: u64) -> Vec<(&'static str, Arc<Array>)> {
    let mut all = vec![("inline", array(blocks))];
    for name in ["ring", "helper"] {
        if let Some(file) = disk_file(blocks * 512) {
            all.push((name, array_on(Store::file(file), blocks)));
        }
    }
    for name in ["direct ring", "direct helper"] {
        if let Some(store) = disk_file(blocks * 512).and_then(direct) {
            all.push((name, array_on(store, blocks)));
        }
    }
    all
}

fn channel(engine: &str, port: &Port) -> PortChannel {
    if engine.ends_with("helper") {
        let waker = Arc::new(Waker::new().unwrap());
        return PortChannel::with_engine(port.state().clone(), Engine::Helper, waker);
    }
    port.channel().unwrap()
}

#[test]
fn engines_agree() {
    let mut results = Vec::new();
    for (engine, array) in all_engines(4096) {
        let port = port(&array, 1);
        let mut disk = Initiator::new(channel(engine, &port)).settle();
        let mut seen = Vec::new();
        let big = pattern(1, 1 << 20);
        for (cdb, out, room) in [
            (cdb16(WRITE_16, 0, 5, 2048), &big[..], 0),
            (cdb16(WRITE_16, 0x08, 7, 1), &[9; 512], 0),
            (cdb16(READ_16, 0, 4, 2050), &[], 2050 * 512),
            (cdb16(READ_16, 0, 4, 2050), &[], 1000),
            (cdb16(READ_16, 0, 4095, 2), &[], 1024),
            (cdb16(COMPARE_AND_WRITE, 0, 7, 1), &[9; 1024], 0),
            (cdb16(ORWRITE_16, 0, 8, 2), &[0x11; 1024], 0),
            (cdb16(WRITE_SAME_16, 1, 100, 100), &[], 0),
            (cdb16(SYNCHRONIZE_CACHE_16, 0, 0, 0), &[], 0),
            (cdb16(VERIFY_16, 2, 5, 1), &big[..512], 0),
            (cdb16(VERIFY_16, 2, 6, 1), &big[..512], 0),
            (cdb16(READ_16, 0, 0, 4096), &[], 4096 * 512),
        ] {
            seen.push(disk.run(&cdb, out, room));
        }
        results.push((engine, seen));
    }
    for (engine, seen) in &results[1..] {
        assert!(*seen == results[0].1, "{engine} differs from {}", results[0].0);
    }
}

#[test]
fn engine_names_are_honest() {
    assert_eq!(port(&array(8), 1).engine(), "mapped");
    if let Some(file) = disk_file(4096) {
        let port = port(&array_on(Store::file(file), 8), 1);
        assert!(["io_uring", "preadv2-thread"].contains(&&*port.engine()));
    }
    if let Some(store) = disk_file(4096).and_then(direct) {
        let port = port(&array_on(store, 8), 1);
        assert!(["io_uring, O_DIRECT", "preadv2-thread, O_DIRECT"].contains(&&*port.engine()));
    }
}

#[test]
fn odd_segments_are_filled_in_order() {
    for (engine, array) in all_engines(64) {
        let port = port(&array, 1);
        let mut disk = Initiator::new(channel(engine, &port)).settle();
        let data = pattern(3, 2048);
        array.poke(1, &data).unwrap();
        let memory = OwnedBuffer::from_vec(vec![0xEE; 4096]);
        // Pieces of odd lengths at odd places, with gaps between them.
        let places = [1..2, 5..516, 700..703, 1001..2534];
        let list = memory_sys::scattered(&memory, &places);
        assert_eq!(list.len(), 2048);
        let attempt = AttemptId { slot: Slot(9), generation: 9 };
        let (cdb, none) = (Cdb::new(&cdb10(READ_10, 0, 1, 4)), Segments::new());
        let task = Task { cdb: &cdb, data_out: &none, data_in: &list };
        disk.channel.submit(attempt, task, Instant::now());
        disk.channel.flush();
        let sent =
            Sent { attempt, data_out: OwnedBuffer::zeroed(0), data_in: OwnedBuffer::zeroed(0) };
        assert!(matches!(disk.wait(&sent), Fate::Answered(_)), "{engine}");
        assert_eq!(list.to_vec(), data, "{engine}");
        let inside = |at| places.iter().any(|place| place.contains(&at));
        for (at, byte) in memory.to_vec().into_iter().enumerate() {
            assert!(inside(at) || byte == 0xEE, "{engine}: byte {at}");
        }
    }
}

#[test]
fn many_commands_at_once_all_end() {
    for (engine, array) in all_engines(1024) {
        let port = port(&array, 1);
        let mut disk = Initiator::new(channel(engine, &port)).settle();
        let all: Vec<_> = (0..600)
            .map(|n| {
                let lba = n % 1024;
                disk.send(&cdb10(WRITE_10, 0, lba, 1), &pattern(n as u8, 512), 0)
            })
            .collect();
        for sent in &all {
            assert!(
                matches!(disk.wait(sent), Fate::Answered(answer)
                if answer.status == Status::GOOD),
                "{engine}"
            );
        }
    }
}

#[test]
fn compare_and_write_is_atomic_among_ports() {
    const ROUNDS: u32 = 150;
    for (engine, array) in all_engines(64) {
        let ports = [port(&array, 1), port(&array, 2)];
        std::thread::scope(|scope| {
            for port in &ports {
                scope.spawn(move || {
                    let mut disk = Initiator::new(channel(engine, port)).settle();
                    let mut counted = 0;
                    while counted < ROUNDS {
                        let old = disk.good(&cdb10(READ_10, 0, 0, 1), &[], 512);
                        let mut new = old.clone();
                        let mut bytes = [0; 4];
                        bytes.copy_from_slice(&old[..4]);
                        let next = u32::from_be_bytes(bytes) + 1;
                        new[..4].copy_from_slice(&next.to_be_bytes());
                        let cdb = cdb16(COMPARE_AND_WRITE, 0, 0, 1);
                        let (answer, _) = disk.run(&cdb, &[old, new].concat(), 0);
                        counted += u32::from(answer.status == Status::GOOD);
                        // Plain writes beside it, which the exclusive ones wait for.
                        disk.good(&cdb10(WRITE_10, 0, 8, 8), &[1; 4096], 0);
                    }
                });
            }
        });
        let mut block = [0; 512];
        array.peek(0, &mut block).unwrap();
        assert_eq!(block[..4], (2 * ROUNDS).to_be_bytes(), "{engine}");
    }
}

#[test]
fn dropping_a_channel_waits_for_its_memory() {
    for (engine, array) in all_engines(2048) {
        let port = port(&array, 1);
        let mut disk = Initiator::new(channel(engine, &port)).settle();
        let sent: Vec<_> =
            (0..20).map(|_| disk.send(&cdb16(READ_16, 0, 0, 2048), &[], 1 << 20)).collect();
        let exclusive = disk.send(&cdb16(COMPARE_AND_WRITE, 0, 0, 1), &[0; 1024], 0);
        drop(disk);
        drop((sent, exclusive));
        // The gauge is back at zero: an exclusive command does not wait for the dead channel.
        let mut disk = Initiator::new(channel(engine, &port));
        disk.good(&cdb16(COMPARE_AND_WRITE, 0, 0, 1), &[0; 1024], 0);
    }
}

#[test]
fn a_hung_command_in_the_kernel_ends_when_recalled() {
    use crate::path::emulated::{Fault, FaultKind};
    for (engine, array) in all_engines(64) {
        let port = port(&array, 1);
        let mut disk = Initiator::new(channel(engine, &port)).settle();
        port.inject(Fault::new(FaultKind::Hang)).unwrap();
        let sent = disk.send(&cdb10(WRITE_10, 0, 0, 8), &[1; 4096], 0);
        disk.channel.recall(sent.attempt);
        let fate = disk.wait(&sent);
        assert_eq!(fate, Fate::Failed(Failure::Recalled, Reach::Unknown), "{engine}");
        let sent = disk.send(&cdb10(WRITE_10, 0, 0, 8), &[2; 4096], 0);
        port.clear_faults();
        assert!(matches!(disk.wait(&sent), Fate::Answered(_)), "{engine}");
    }
}

/// Two initiators with a key each, the first one's reservation shutting out who has none.
fn fenced(engine: &str, array: &Arc<Array>) -> [Initiator<PortChannel>; 2] {
    use super::reservations::{other_initiator, out};
    use crate::scsi::reservation::{OutAction, Type};
    [1, 2].map(|key| {
        let port = other_initiator(array, key, 1);
        let mut disk = Initiator::new(channel(engine, &port)).settle();
        assert_eq!(out(&mut disk, OutAction::Register, None, 0, key).status, Status::GOOD);
        if key == 1 {
            let kind = Some(Type::WriteExclusiveRegistrantsOnly);
            assert_eq!(out(&mut disk, OutAction::Reserve, kind, 1, 0).status, Status::GOOD);
        }
        disk
    })
}

/// Whose write came to `first` gets its unit attention and nothing but conflicts else.
fn stays_out(victim: &mut Initiator<PortChannel>, cdb: &[u8], first: Status) {
    let deadline = Instant::now() + Duration::from_secs(20);
    let (mut told, mut last) = (first == Status::CHECK_CONDITION, first);
    while !(told && last == Status::RESERVATION_CONFLICT) {
        assert!(Instant::now() < deadline, "told: {told}, last: {last}");
        last = victim.run(cdb, &[0; 512], 0).0.status;
        told |= last == Status::CHECK_CONDITION;
        assert_ne!(last, Status::GOOD);
    }
}

/// The victim writes as fast as it can, plain writes and others; from the answer of PREEMPT AND
/// ABORT on nothing of it may land.
#[test]
fn preempt_and_abort_lets_no_write_land_after_it() {
    use super::reservations::out;
    use crate::scsi::reservation::{OutAction, Type};
    use std::sync::atomic::{AtomicU8, Ordering};
    for (engine, array) in all_engines(64) {
        for round in 0..20_u8 {
            array.power_cycle();
            let [mut winner, mut victim] = fenced(engine, &array);
            let landed = AtomicU8::new(0);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    for stamp in 1..=u8::MAX {
                        let cdb = match stamp % 3 {
                            0 => cdb16(ORWRITE_16, 0, 3, 1),
                            1 => cdb16(WRITE_SAME_16, 0, 3, 1),
                            _ => cdb16(WRITE_16, 0, 3, 1),
                        };
                        let (answer, _) = victim.run(&cdb, &[stamp; 512], 0);
                        if answer.status != Status::GOOD {
                            return stays_out(&mut victim, &cdb, answer.status);
                        }
                        landed.store(stamp, Ordering::Relaxed);
                    }
                });
                while landed.load(Ordering::Relaxed) < round {
                    std::thread::yield_now();
                }
                let kind = Some(Type::WriteExclusiveRegistrantsOnly);
                let answer = out(&mut winner, OutAction::PreemptAndAbort, kind, 1, 2);
                assert_eq!(answer.status, Status::GOOD, "{engine}");
                let mut before = [0; 512];
                array.peek(3, &mut before).unwrap();
                for _ in 0..20 {
                    std::thread::yield_now();
                    let mut after = [0; 512];
                    array.peek(3, &mut after).unwrap();
                    assert_eq!(before, after, "{engine}: a write landed behind the fence");
                }
            });
        }
    }
}
