//! A backend that has nothing to do does nothing: no descriptor that stays readable, no timer that
//! stays due.

use std::time::Duration;

use crate::backend::{Backend, Setup};
use crate::initiator::{pattern, write};

/// How long it is looked at.
const WATCHED: Duration = Duration::from_secs(2);
/// What it may take of the processor meanwhile, for probes: far above those, and below what a
/// thread that spins gets of a machine on which a dozen others do.
const MOST: Duration = Duration::from_millis(80);

fn assert_idle(backend: &Backend, when: &str) {
    std::thread::sleep(Duration::from_millis(500));
    let before = backend.cpu();
    std::thread::sleep(WATCHED);
    let taken = backend.cpu() - before;
    assert!(taken < MOST, "{when}: {taken:?} of the processor in {WATCHED:?}");
}

fn assert_idle_throughout(setup: &Setup) {
    let backend = setup.start();
    assert_idle(&backend, "before a guest comes");
    let mut guest = backend.guest(2);
    assert_idle(&backend, "with a guest that asks for nothing");
    let queue = guest.queue();
    queue.settle();
    queue.good(&write(0, pattern(1, 8)));
    assert_idle(&backend, "with a guest that has written");
    let path = crate::backend::path_name(&mut backend.qmp(), 1);
    backend.qmp().execute("inject-fault", serde_json::json!({"path": path, "fault": "disconnect"}));
    assert_idle(&backend, "with a path that has failed");
    drop(guest);
    assert_idle(&backend, "after the guest has gone");
}

#[test]
fn backend_without_a_file_takes_no_processor_time_while_idle() {
    assert_idle_throughout(&Setup::ports(2));
}

#[test]
fn backend_with_a_file_takes_no_processor_time_while_idle() {
    assert_idle_throughout(&Setup::ports(2).listed());
}
