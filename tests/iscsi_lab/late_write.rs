//! A write that the wire held back and delivers later.
//!
//! Its first attempt is in the proxy's old connection, in front of the target; the backend has given
//! it up, sent it again, and the guest has written newer data since. If the old connection still
//! counts at the target, the late write lands on top of the newer one: corruption without an error.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::array::{Array, Kind};
use crate::backend::Backend;
use crate::driver::Device;
use crate::initiator::{pattern, read, write};
use crate::proxy::{Door, Way, Whom};
use crate::scene::{PATH_TIMEOUT, SLACK, Settings, UP, WRITE_QUIESCE, sleep, wait_state};

const LBA: u32 = 2048;
const BLOCKS: u16 = 8;
const LOST: Duration = Duration::from_secs(20);

/// A backend whose commands all take path 0 as long as it has one.
struct Late {
    device: Device,
    backend: Backend,
    _settings: Settings,
    array: Array,
    /// How long the first write took.
    elapsed: Duration,
}

impl Late {
    /// Writes 1 into a path that holds it, and waits until it has been written over another session
    /// nevertheless; then writes 2. With the door `Shut` nobody can log in through that path again.
    fn write_twice(array: Array, door: Door, lun: &str) -> Self {
        let settings = Settings::new("late", "", lun);
        let backend = settings.backend(&array.paths());
        let mut qmp = backend.qmp();
        let [first, second] = [0, 1].map(|path| array.proxies[path].address().port());
        for port in [first, second] {
            wait_state(&mut qmp, port, "up", UP);
        }
        let other = wait_state(&mut qmp, second, "up", UP)["name"].clone();
        qmp.execute("path-fail", json!({"name": other}));
        let mut device = backend.guest(1);
        let queue = device.queue();
        queue.settle();
        queue.good(&write(LBA, pattern(0, BLOCKS.into())));

        let wire = &array.proxies[0];
        wire.hold(Way::Requests, Whom::Old);
        if door == Door::Shut {
            wire.shut();
        }
        let since = Instant::now();
        let late = queue.submit(&write(LBA, pattern(1, BLOCKS.into())));
        // More than a header: the data is on the wire.
        while wire.waiting(Way::Requests) < usize::from(BLOCKS) * 512 {
            assert!(since.elapsed() < SLACK, "the write did not reach the wire");
            sleep(5);
        }
        qmp.execute("path-reinstate", json!({"name": other}));
        let completion = queue.wait(late, LOST);
        assert!(completion.is_good(), "{completion:?}");
        let elapsed = since.elapsed();
        queue.good(&write(LBA, pattern(2, BLOCKS.into())));
        assert!(wire.waiting(Way::Requests) > 0, "the first attempt is not on the wire any more");
        Late { device, backend, _settings: settings, array, elapsed }
    }

    /// Waits until the path that holds the first attempt has logged in again.
    fn wait_login(&self) {
        let wire = &self.array.proxies[0];
        let deadline = Instant::now() + UP;
        // The state alone may still be that of the first session.
        while wire.accepted() < 2 {
            assert!(Instant::now() < deadline, "no new login through the portal");
            sleep(5);
        }
        wait_state(&mut self.backend.qmp(), wire.address().port(), "up", UP);
    }

    /// Delivers the first attempt, and says which write is on the disk.
    fn release(&mut self) -> Option<u8> {
        self.array.proxies[0].restore();
        sleep(1500);
        let data = self.device.queue().good(&read(LBA, BLOCKS)).data;
        (0..3).find(|seed| data == pattern(*seed, BLOCKS.into()))
    }
}

#[test]
fn late_write_after_a_relogin_does_not_land() {
    // Nothing but the login through the same portal stands between the two writes. Without a quiesce
    // time nobody waits for it, so the wire does: before the login the late write would land.
    let mut late = Late::write_twice(Array::lio(), Door::Open, "write_quiesce = 0.0");
    late.wait_login();
    assert_eq!(late.release(), Some(2), "the late write has landed");
}

#[test]
fn late_write_lands_where_neither_login_nor_time_protects() {
    // Shows that the test above would see it: no login is possible and nothing is waited for.
    let mut late = Late::write_twice(Array::lio(), Door::Shut, "write_quiesce = 0.0");
    assert_eq!(late.release(), Some(1), "the late write was expected to land");
}

#[test]
fn late_write_that_arrives_within_the_quiesce_time_does_not_land_on_newer_data() {
    // What write_quiesce is for: the late one arrives before the second attempt is sent.
    let array = Array::lio();
    let settings = Settings::new("late", "", "write_quiesce = 4.0");
    let backend = settings.backend(&array.paths());
    let mut qmp = backend.qmp();
    for proxy in &array.proxies {
        wait_state(&mut qmp, proxy.address().port(), "up", UP);
    }
    let other = wait_state(&mut qmp, array.proxies[1].address().port(), "up", UP)["name"].clone();
    qmp.execute("path-fail", json!({"name": other}));
    let mut device = backend.guest(1);
    let queue = device.queue();
    queue.settle();
    array.proxies[0].hold(Way::Requests, Whom::Old);
    array.proxies[0].shut();
    let ticket = queue.submit(&write(LBA, pattern(1, BLOCKS.into())));
    qmp.execute("path-reinstate", json!({"name": other}));
    wait_state(&mut qmp, array.proxies[0].address().port(), "failed", PATH_TIMEOUT + SLACK);
    sleep(500);
    assert!(queue.take(ticket).is_none(), "answered before write_quiesce was over");
    array.proxies[0].restore();
    assert!(queue.wait(ticket, LOST).is_good());
    queue.good(&write(LBA, pattern(2, BLOCKS.into())));
    sleep(1500);
    assert_eq!(queue.good(&read(LBA, BLOCKS)).data, pattern(2, BLOCKS.into()));
}

#[test]
fn write_waits_for_write_quiesce_where_a_relogin_proves_nothing() {
    let late = Late::write_twice(Array::tgtd(), Door::Open, "write_quiesce = 3.0");
    assert!(matches!(late.array.kind, Kind::Tgtd(_)));
    assert!(late.elapsed > Duration::from_secs(3), "{:?}", late.elapsed);
}

#[test]
fn write_does_not_wait_for_write_quiesce_where_a_relogin_is_proof() {
    let late = Late::write_twice(Array::lio(), Door::Open, "write_quiesce = 10.0");
    assert!(late.elapsed < PATH_TIMEOUT + SLACK + WRITE_QUIESCE, "{:?}", late.elapsed);
}
