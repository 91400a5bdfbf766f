//! The guest goes on elsewhere while a write of its is on the wire: the source lets it go only when
//! that write can land no more, since over there newer data is written at once.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;
use vhost::{VhostBackend, VhostUserDirtyLogRegion};

use crate::array::Array;
use crate::backend::directory;
use crate::driver::{Device, feature};
use crate::initiator::{pattern, read, write};
use crate::memory::PAGE;
use crate::proxy::{Way, Whom};
use crate::queue::Command;
use crate::scene::{SLACK, Settings, UP, sleep, wait_state};
use crate::sys::memfd;

const LBA: u32 = 2048;
const BLOCKS: u16 = 8;

/// Turns the dirty log on, as far as it matters here.
fn begin_to_move(device: &Device) {
    use std::os::fd::AsRawFd;
    let len = device.memory.end().div_ceil(PAGE).div_ceil(8);
    let log = memfd(len as usize);
    let (mmap_size, mmap_handle) = (len, log.as_raw_fd());
    let region = VhostUserDirtyLogRegion { mmap_size, mmap_offset: 0, mmap_handle };
    device.session.frontend.set_log_base(0, Some(region)).expect("the log is taken");
    let features = device.config.features | feature::PROTOCOL | feature::LOG_ALL;
    device.session.frontend.set_features(features).expect("LOG_ALL is taken");
}

/// Write 1 is held by the wire, and the guest moves; over there it writes 2. The wire delivers write
/// 1 so long after the stop began. Says how long the stop took, and which write is on the disk.
fn moved(quiesce: &str, deliver: Duration) -> (Duration, Option<u8>) {
    let array = Array::tgtd();
    let source_settings = Settings::new("source", "", &format!("write_quiesce = {quiesce}"));
    let source = source_settings.backend(&array.paths()[..1]);
    let other_settings = Settings::new("destination", "", "");
    let destination = other_settings.backend(&array.paths()[1..]);
    let ports = [0, 1].map(|path| array.proxies[path].address().port());
    wait_state(&mut source.qmp(), ports[0], "up", UP);
    wait_state(&mut destination.qmp(), ports[1], "up", UP);
    let mut device = source.guest(1);
    device.queue().settle();
    device.queue().good(&write(LBA, pattern(0, BLOCKS.into())));
    let wire = &array.proxies[0];
    wire.hold(Way::Requests, Whom::Old);
    wire.shut();
    let first = device.queue().submit(&write(LBA, pattern(1, BLOCKS.into())));
    let begin = Instant::now();
    // More than a header: the data is on the wire.
    while wire.waiting(Way::Requests) < usize::from(BLOCKS) * 512 {
        assert!(begin.elapsed() < SLACK, "the write did not reach the wire");
        sleep(5);
    }
    begin_to_move(&device);
    let begin = Instant::now();
    let (took, answer, seed) = thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep((begin + deliver).saturating_duration_since(Instant::now()));
            wire.restore();
        });
        device.stop().expect("the rings stop");
        let took = begin.elapsed();
        let answer = device.queue().take(first).expect("a guest that moves is owed no answer");
        let mut there = destination.guest(1);
        there.queue().settle();
        there.queue().good(&write(LBA, pattern(2, BLOCKS.into())));
        thread::sleep((begin + deliver).saturating_duration_since(Instant::now()));
        sleep(1500);
        let data = there.queue().good(&read(LBA, BLOCKS)).data;
        (took, answer, (0..3).find(|seed| data == pattern(*seed, BLOCKS.into())))
    });
    assert_eq!(answer.status, 8, "BUSY: {answer:?}");
    source.qmp().execute("query-lun", json!({}));
    (took, seed)
}

#[test]
fn guest_does_not_move_before_its_late_write_has_landed() {
    // The lanes get half of the 5 s, and the write its 3 s from then on.
    let (took, seed) = moved("3.0", Duration::from_millis(4000));
    assert!(took > Duration::from_millis(4800), "it was let go after {took:?}");
    assert!(took < Duration::from_secs(6) + SLACK, "the monitor waited for {took:?}");
    assert_eq!(seed, Some(2), "the late write has landed on newer data");
}

#[test]
fn late_write_lands_on_what_is_written_elsewhere_where_nothing_is_waited_for() {
    // Shows that the test above would see it.
    let (took, seed) = moved("0.0", Duration::from_millis(6500));
    assert!(took < Duration::from_secs(6), "the monitor waited for {took:?}");
    assert_eq!(seed, Some(1), "the late write was expected to land");
}

/// PERSISTENT RESERVE OUT.
fn reserve_out(action: u8, kind: u8, key: u64, new_key: u64) -> Command {
    let mut list = vec![0; 24];
    list[..8].copy_from_slice(&key.to_be_bytes());
    list[8..16].copy_from_slice(&new_key.to_be_bytes());
    Command::writing(&[0x5F, action, kind, 0, 0, 0, 0, 0, 24, 0], list)
}

const KEY: u64 = 0xABC;

/// The guest runs on the source with a reservation of `kind`; the destination is told before it moves,
/// at its arrival or at once, and the guest writes on both sides.
fn reservation_moves(kind: u8, at_arrival: bool) -> (u8, u8) {
    let array = Array::tgtd();
    let states = [directory(), directory()];
    let settings = ["source", "destination"].map(|name| {
        let state = &states[usize::from(name == "destination")];
        let lines = format!("[backend]\nstate_dir = \"{}\"", state.path().display());
        Settings::new(name, "", &lines)
    });
    let source = settings[0].backend(&array.paths()[..1]);
    let destination = settings[1].backend(&array.paths()[1..]);
    let ports = [0, 1].map(|path| array.proxies[path].address().port());
    wait_state(&mut source.qmp(), ports[0], "up", UP);
    wait_state(&mut destination.qmp(), ports[1], "up", UP);
    let mut device = source.guest(1);
    device.queue().settle();
    device.queue().good(&reserve_out(0, 0, 0, KEY));
    device.queue().good(&reserve_out(1, kind, KEY, 0));
    let exported = source.qmp().execute("reservation-export", json!({}));
    let import = json!({"reservation": exported, "at-arrival": at_arrival});
    destination.qmp().execute("reservation-import", import);
    sleep(500);
    let here = device.queue().run(&write(LBA, pattern(1, BLOCKS.into()))).status;
    begin_to_move(&device);
    device.stop().expect("the rings stop");
    let mut there = destination.guest(1);
    // At once, and a unit attention is no conflict.
    let mut answers =
        (0..4).map(|_| there.queue().run(&write(LBA, pattern(2, BLOCKS.into()))).status);
    let after = answers.find(|status| *status != 2).unwrap_or(2);
    assert_eq!(destination.qmp().execute("query-reservation", json!({}))["holder"], "guest");
    (here, after)
}

#[test]
fn reservation_moves_with_the_guest_and_not_before() {
    // Write Exclusive, for one nexus and for all registrants.
    for kind in [1, 5] {
        assert_eq!(reservation_moves(kind, true), (0, 0), "type {kind}");
    }
}

#[test]
fn reservation_that_is_imported_too_early_shuts_the_guest_out_where_it_runs() {
    // Shows that the test above would see it.
    assert_eq!(reservation_moves(1, false).0, 0x18);
}
