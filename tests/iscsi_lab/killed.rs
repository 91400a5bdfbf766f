//! A backend that is killed, or ends, while a write of its is on the wire, and the one that takes its
//! place.

use std::io::Write as _;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::array::Array;
use crate::backend::Backend;
use crate::driver::{Device, RingPlace};
use crate::initiator::{pattern, read, write};
use crate::load::Load;
use crate::proxy::{Door, Way, Whom};
use crate::queue::Ticket;
use crate::scene::{SLACK, Settings, UP, WRITE_QUIESCE, sleep, wait_state};

const LBA: u32 = 2048;
const BLOCKS: u16 = 8;
const LOST: Duration = Duration::from_secs(20);

/// A backend whose predecessor was killed with write 1 in path 0, which holds it and lets nobody
/// log in any more.
struct Killed {
    device: Device,
    _backend: Backend,
    _settings: Settings,
    array: Array,
    first: Ticket,
    /// When the new backend had its sockets, at the latest.
    since: Instant,
}

impl Killed {
    fn new(lun: &str) -> Self {
        Killed::after(lun, Backend::kill)
    }

    /// The same after another end.
    fn after(lun: &str, end: fn(&mut Backend)) -> Self {
        let array = Array::tgtd();
        let settings = Settings::new("killed", "", lun);
        let mut backend = settings.backend(&array.paths());
        let mut qmp = backend.qmp();
        for proxy in &array.proxies {
            wait_state(&mut qmp, proxy.address().port(), "up", UP);
        }
        let other =
            wait_state(&mut qmp, array.proxies[1].address().port(), "up", UP)["name"].clone();
        qmp.execute("path-fail", json!({"name": other}));
        let mut device = backend.guest(1);
        let queue = device.queue();
        queue.settle();
        queue.good(&write(LBA, pattern(0, BLOCKS.into())));
        let wire = &array.proxies[0];
        wire.hold(Way::Requests, Whom::Old);
        wire.shut();
        let first = queue.submit(&write(LBA, pattern(1, BLOCKS.into())));
        let begin = Instant::now();
        // More than a header: the data is on the wire.
        while wire.waiting(Way::Requests) < usize::from(BLOCKS) * 512 {
            assert!(begin.elapsed() < SLACK, "the write did not reach the wire");
            sleep(5);
        }
        let rings = device.places();
        end(&mut backend);
        backend.start_again();
        let since = Instant::now();
        device.reconnect(&backend.socket(), &rings).expect("the device starts again");
        Killed { device, _backend: backend, _settings: settings, array, first, since }
    }
}

#[test]
fn write_of_a_killed_backend_that_arrives_within_the_quiesce_time_does_no_harm() {
    let mut killed = Killed::new("write_quiesce = 4.0");
    let queue = killed.device.queue();
    // Reads do not wait.
    assert_eq!(queue.good(&read(LBA, BLOCKS)).data, pattern(0, BLOCKS.into()));
    sleep(500);
    assert!(queue.take(killed.first).is_none(), "sent again before write_quiesce was over");
    killed.array.proxies[0].restore();
    let queue = killed.device.queue();
    assert!(queue.wait(killed.first, LOST).is_good());
    let waited = killed.since.elapsed();
    assert!(waited > Duration::from_secs(3), "sent again after {waited:?}");
    queue.good(&write(LBA, pattern(2, BLOCKS.into())));
    sleep(1500);
    assert_eq!(queue.good(&read(LBA, BLOCKS)).data, pattern(2, BLOCKS.into()));
}

#[test]
fn write_of_a_killed_backend_lands_where_nothing_is_waited_for() {
    // Shows that the test above would see it.
    let mut killed = Killed::new("write_quiesce = 0.0");
    let queue = killed.device.queue();
    assert!(queue.wait(killed.first, LOST).is_good());
    queue.good(&write(LBA, pattern(2, BLOCKS.into())));
    killed.array.proxies[0].restore();
    sleep(1500);
    let data = killed.device.queue().good(&read(LBA, BLOCKS)).data;
    assert_eq!(data, pattern(1, BLOCKS.into()), "the late write was expected to land");
}

#[test]
fn write_that_a_backend_gave_back_at_its_end_waits_and_others_do_not() {
    let mut killed = Killed::after("write_quiesce = 4.0", |backend| {
        backend.terminate();
        let status = backend.wait_end(LOST).expect("it ends when stop_deadline is over");
        assert_eq!(status.code(), Some(0));
    });
    let queue = killed.device.queue();
    let other = queue.good(&write(LBA + 64, pattern(3, BLOCKS.into())));
    assert!(other.elapsed < SLACK, "another write waited: {other:?}");
    assert!(queue.take(killed.first).is_none(), "sent again before write_quiesce was over");
    killed.array.proxies[0].restore();
    let queue = killed.device.queue();
    assert!(queue.wait(killed.first, LOST).is_good());
    let waited = killed.since.elapsed();
    assert!(waited > Duration::from_secs(3), "sent again after {waited:?}");
    queue.good(&write(LBA, pattern(2, BLOCKS.into())));
    sleep(1500);
    assert_eq!(queue.good(&read(LBA, BLOCKS)).data, pattern(2, BLOCKS.into()));
}

#[test]
fn killed_with_every_path_dead_goes_on_when_they_return() {
    let array = Array::tgtd();
    let settings = Settings::new("killed", "", "");
    let mut backend = settings.backend(&array.paths());
    let mut device = backend.guest(2);
    device.queue().settle();
    let rings = device.places();
    let load = Load::start(std::mem::take(&mut device.queues), 4);
    for turn in 0..2u64 {
        // Writes begin when what another process may have left cannot land any more.
        sleep(1700);
        array.proxies.iter().for_each(|proxy| proxy.cut(Door::Shut));
        // Before the backend knows of it, and when all commands wait for a path.
        sleep(200 * turn);
        backend.kill();
        backend.start_again();
        device.reconnect(&backend.socket(), &rings).expect("the device starts again");
        let lun = backend.qmp().execute("query-lun", json!({}));
        assert_eq!(lun["state"], "no-path", "{lun}");
        // Once more, while it has nothing to send over.
        sleep(200);
        backend.kill();
        array.proxies.iter().for_each(|proxy| proxy.restore());
        backend.start_again();
        device.reconnect(&backend.socket(), &rings).expect("the device starts again");
    }
    sleep(1700);
    load.stop().1.assert_clean();
}

#[test]
fn killed_under_load_on_tgtd_is_not_seen_by_the_guest() {
    let array = Array::tgtd();
    let settings = Settings::new("killed", "", "");
    let mut backend = settings.backend(&array.paths());
    let mut device = backend.guest(2);
    device.queue().settle();
    let rings: Vec<RingPlace> = device.places();
    let load = Load::start(std::mem::take(&mut device.queues), 4);
    let mut away = Duration::ZERO;
    for _ in 0..3 {
        sleep(1000);
        let begin = Instant::now();
        backend.kill();
        backend.start_again();
        device.reconnect(&backend.socket(), &rings).expect("the device starts again");
        away = away.max(begin.elapsed());
    }
    sleep(1000 + WRITE_QUIESCE.as_millis() as u64);
    let (_, report) = load.stop();
    let row = format!(
        "stall | tgtd: killed, three times | longest read {:.1?} | longest write {:.1?}\n",
        report.longest_read, report.longest_write
    );
    // Not `eprint!`, which the harness keeps to itself. A closed stderr is no test failure.
    let _ = std::io::stderr().write_all(row.as_bytes());
    report.assert_clean();
    let bound = away + SLACK + 4 * report.longest_pause;
    assert!(report.longest_read < bound, "{row}");
    assert!(report.longest_write < bound + WRITE_QUIESCE, "{row}");
}
