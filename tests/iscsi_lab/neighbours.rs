//! Backends that look alike to the target do not disturb each other.

use std::time::{Duration, Instant};

use crate::array::Array;
use crate::load::Load;
use crate::scene::{SLACK, Scene, Settings, UP, sleep, wait_state};

/// Runs a load on two backends of one initiator name, on the disks given, and holds both to it
/// that nobody lost a session.
fn side_by_side(array: Array, disks: [usize; 2]) {
    let settings = [(); 2].map(|()| Settings::new("the-same", "", ""));
    let paths = disks.map(|disk| [0, 1].map(|proxy| array.address(proxy, "", disk)));
    let backends = [0, 1].map(|at: usize| settings[at].backend(&paths[at]));
    for backend in &backends {
        let mut qmp = backend.qmp();
        for proxy in &array.proxies {
            wait_state(&mut qmp, proxy.address().port(), "up", UP);
        }
    }
    let logins = array.proxies.each_ref().map(|proxy| proxy.accepted());
    assert_eq!(logins, [2, 2], "one session a backend and path");
    let mut devices = backends.each_ref().map(|backend| backend.guest(1));
    // Both write to the same blocks of a disk that they share, so there only one of them does.
    let loads = if disks[0] == disks[1] { 1 } else { 2 };
    let loads: Vec<Load> = devices[..loads]
        .iter_mut()
        .map(|device| {
            device.queue().settle();
            Load::start(std::mem::take(&mut device.queues), 4)
        })
        .collect();
    sleep(2000);
    for load in loads {
        let (_queues, report) = load.stop();
        report.assert_clean();
        assert!(report.longest_write < SLACK, "{report:?}");
    }
    assert_eq!(array.proxies.each_ref().map(|proxy| proxy.accepted()), logins, "a new login");
    drop(devices);
}

#[test]
fn tgtd_serves_two_luns_to_one_initiator_name() {
    side_by_side(Array::tgtd_with(2), [0, 1]);
}

#[test]
fn lio_serves_two_luns_to_one_initiator_name() {
    side_by_side(Array::lio_with(2), [0, 1]);
}

#[test]
fn tgtd_serves_one_lun_to_two_backends_of_one_initiator_name() {
    side_by_side(Array::tgtd(), [0, 0]);
}

#[test]
fn lio_serves_one_lun_to_two_backends_of_one_initiator_name() {
    side_by_side(Array::lio(), [0, 0]);
}

fn check_beside(array: Array) {
    let mut scene = Scene::start(array);
    scene.qmp.forget_events();
    let paths = scene.array.paths();
    for _ in 0..3 {
        let began = Instant::now();
        let output = scene.settings.check(&paths);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert!(began.elapsed() < UP, "{:?}", began.elapsed());
    }
    let event = scene.qmp.event("PATH_STATE_CHANGED", Duration::from_millis(500), |_| true);
    assert!(event.is_none(), "{event:?}");
    scene.finish("none, --check beside it", SLACK, SLACK);
}

#[test]
fn tgtd_check_does_not_disturb_a_running_backend() {
    check_beside(Array::tgtd());
}

#[test]
fn lio_check_does_not_disturb_a_running_backend() {
    check_beside(Array::lio());
}
