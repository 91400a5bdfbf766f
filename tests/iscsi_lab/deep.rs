//! More commands than a target takes at once, for long.

use crate::array::Array;
use crate::load::Load;
use crate::scene::{Settings, UP, sleep, wait_state};

/// LIO takes 64.
const QUEUES: usize = 4;
const DEPTH: usize = 28;

#[test]
fn lio_that_always_has_more_than_it_takes_loses_no_session() {
    let array = Array::lio();
    let settings = Settings::new("deep", "", "");
    let backend = settings.backend(&array.paths()[..1]);
    wait_state(&mut backend.qmp(), array.proxies[0].address().port(), "up", UP);
    let logins = array.proxies[0].accepted();
    let mut device = backend.guest(QUEUES);
    device.queues.iter_mut().for_each(|queue| drop(queue.settle()));
    let load = Load::start(std::mem::take(&mut device.queues), DEPTH);
    sleep(6000);
    let (_queues, report) = load.stop();
    drop(device);
    println!("{} reads, {} writes", report.reads, report.writes);
    report.assert_clean();
    assert!(report.writes > 500, "too few to tell: {report:?}");
    assert_eq!(array.proxies[0].accepted(), logins, "a new login");
}
