//! What ten thousand path failures leave behind, and what a queue and a path cost.

use std::io::Write as _;
use std::time::Duration;

use serde_json::json;

use crate::backend::{Backend, Setup, path_name};
use crate::driver::Device;
use crate::holdings::Holdings;
use crate::initiator::{pattern, read, write};
use crate::load::{Load, Mix};
use crate::qmp::Qmp;
use crate::queue::PROMPT;

/// Between two commands of a worker, so that there is time for other things.
const REST: Duration = Duration::from_micros(500);
const LOST: Duration = Duration::from_secs(20);

/// Has the two paths fail by turns, each time when the other is up: by an admin, and by a fault.
fn fail_by_turns(qmp: &mut Qmp, names: &[String; 2], times: usize) {
    let wait = |qmp: &mut Qmp, name: &str, state: &str| {
        let is = |path: &serde_json::Value| path["name"] == name && path["state"] == state;
        let there =
            |paths: serde_json::Value| paths.as_array().is_some_and(|paths| paths.iter().any(is));
        let begin = std::time::Instant::now();
        while !there(qmp.execute("query-paths", json!({}))) {
            assert!(begin.elapsed() < PROMPT, "{name} does not become {state}");
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    for turn in 0..times {
        let name = &names[turn % 2];
        if turn % 8 < 7 {
            qmp.execute("path-fail", json!({"name": name}));
            wait(qmp, name, "disabled");
            qmp.execute("path-reinstate", json!({"name": name}));
        } else {
            qmp.execute("inject-fault", json!({"path": name, "fault": "disconnect"}));
            wait(qmp, name, "failed");
            qmp.execute("clear-faults", json!({"path": name}));
            // What failed is held down for longer each time; an admin knows better.
            qmp.execute("path-fail", json!({"name": name}));
            qmp.execute("path-reinstate", json!({"name": name}));
        }
        wait(qmp, name, "up");
        qmp.forget_events();
    }
}

fn failures_leave_nothing_behind(times: usize) {
    let patience = Duration::from_secs(60 + times as u64 / 20);
    let backend = Setup::ports(2).patience(patience).start();
    let mut device = backend.guest(2);
    for queue in &mut device.queues {
        queue.settle();
    }
    let mut qmp = backend.qmp();
    let names = [1, 2].map(|port| path_name(&mut qmp, port));
    qmp.execute("set-iopolicy", json!({"iopolicy": "round-robin"}));
    let queues = std::mem::take(&mut device.queues);
    let load = Load::with(queues, 4, Mix::Mixed, LOST, REST);
    // The history keeps so many events; before that it grows, as it may.
    fail_by_turns(&mut qmp, &names, 150.min(times));
    let before = Holdings::now(&backend);
    fail_by_turns(&mut qmp, &names, times);
    let after = Holdings::now(&backend);
    let (queues, report) = load.stop();
    device.queues = queues;
    report.assert_clean();
    show(&format!("failures | {times} | {before:?} | {after:?}\n"));
    after.assert_no_more_than(&before);
}

#[test]
fn path_that_fails_three_hundred_times_under_load_leaves_nothing_behind() {
    failures_leave_nothing_behind(300);
}

#[test]
#[ignore = "long"]
fn path_that_fails_ten_thousand_times_under_load_leaves_nothing_behind() {
    failures_leave_nothing_behind(10_000);
}

/// Every queue has had its ring full of commands.
fn use_all(device: &mut Device) {
    for queue in &mut device.queues {
        queue.settle();
        for lba in 0..4 {
            let tickets: Vec<_> = (0..40)
                .map(|at| match at % 2 {
                    0 => queue.submit(&write(lba * 8, pattern(at, 8))),
                    _ => queue.submit(&read(lba * 8, 8)),
                })
                .collect();
            for ticket in tickets {
                assert!(queue.wait(ticket, PROMPT).is_good());
            }
        }
    }
}

/// Memory of a backend with so many queues, in KiB, when each has been used.
fn memory(setup: &Setup, queues: usize) -> u64 {
    let backend: Backend = setup.start();
    let mut device = backend.guest(queues);
    use_all(&mut device);
    Holdings::now(&backend).anonymous_kib
}

/// What one more costs at most, in KiB: docs/robustness.md says what it was measured to be.
const QUEUE_KIB: u64 = 256;
const PATH_KIB: u64 = 96;
#[cfg(feature = "iscsi")]
const ISCSI_PATH_KIB: u64 = 512;

fn show(row: &str) {
    // Not `eprint!`, which the harness keeps to itself. A closed stderr is no test failure.
    let _ = std::io::stderr().write_all(row.as_bytes());
}

#[test]
fn queues_and_paths_cost_so_much_memory_and_no_more() {
    let measure = |queues: u64, paths: u64| {
        let kib = memory(&Setup::ports(paths as usize), queues as usize);
        show(&format!("memory | {queues} queues | {paths} emulated paths | {kib} KiB\n"));
        kib
    };
    let least = measure(1, 1);
    assert!(least < 4 << 10, "{least} KiB");
    for (queues, paths) in [(8, 1), (64, 1), (1, 8), (1, 32), (8, 8)] {
        let kib = measure(queues, paths);
        // Each queue has a channel to each path.
        let channels = 16 * (queues - 1) * (paths - 1);
        let bound = least + (queues - 1) * QUEUE_KIB + (paths - 1) * PATH_KIB + channels;
        assert!(kib < bound, "{queues} queues, {paths} paths: {kib} KiB, not {bound}");
    }
}

#[cfg(feature = "iscsi")]
#[test]
fn iscsi_paths_cost_so_much_memory_and_no_more() {
    let portals = crate::liar::portals::<8>();
    let measure = |paths: usize| {
        let address =
            |setup: Setup, portal: &crate::liar::Portal| setup.option("--path", &portal.address());
        let kib = memory(&portals[..paths].iter().fold(Setup::ports(0), address), 1);
        show(&format!("memory | 1 queues | {paths} iscsi paths | {kib} KiB\n"));
        kib
    };
    let (least, most) = (measure(1), measure(8));
    assert!(most < least + 7 * ISCSI_PATH_KIB, "{most} KiB, {least} KiB with one path");
}
