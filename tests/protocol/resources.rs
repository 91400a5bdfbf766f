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
    let row = format!("failures | {times} | {before:?} | {after:?}\n");
    let _ = std::io::stderr().write_all(row.as_bytes());
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

/// Memory of a backend with so many queues and paths, in KiB.
fn memory(queues: usize, paths: usize) -> u64 {
    let backend: Backend = Setup::ports(paths).start();
    let mut device = backend.guest(queues);
    use_all(&mut device);
    Holdings::now(&backend).anonymous_kib
}

/// What one more costs at most, in KiB: docs/robustness.md says what it was measured to be.
const QUEUE_KIB: u64 = 256;
const PATH_KIB: u64 = 96;

#[test]
fn queues_and_paths_cost_so_much_memory_and_no_more() {
    let mut row = String::new();
    let mut measure = |queues, paths| {
        let kib = memory(queues, paths);
        row += &format!("memory | {queues} queues | {paths} paths | {kib} KiB\n");
        kib
    };
    let least = measure(1, 1);
    let queues = measure(8, 1);
    let paths = measure(1, 8);
    let both = measure(8, 8);
    let _ = std::io::stderr().write_all(row.as_bytes());
    assert!(least < 4 << 10, "{least} KiB");
    assert!(queues < least + 7 * QUEUE_KIB, "{queues} KiB, {least} KiB with one queue");
    assert!(paths < least + 7 * PATH_KIB, "{paths} KiB, {least} KiB with one path");
    assert!(both < least + 7 * (QUEUE_KIB + PATH_KIB) + 49 * 64, "{both} KiB");
}
