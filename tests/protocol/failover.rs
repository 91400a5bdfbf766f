//! Paths break while verified I/O runs. The guest sees no error, and a bounded stall.
//!
//! Each fault reports the longest time that one command took, reads and writes apart; the rows go
//! to stderr past the test harness, so that a run shows them whether it passes or not.

use std::io::Write as _;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use vhost_user_scsi_mpath::limits::LIMP_FLOOR;

use crate::backend::{Backend, Setup, path_name};
use crate::driver::Device;
use crate::initiator::{pattern, read, write};
use crate::load::{Load, Report};
use crate::qmp::Qmp;
use crate::queue::{PROMPT, response};

const QUEUES: usize = 2;
const DEPTH: usize = 8;
/// The default `path_timeout` and `write_quiesce`.
const PATH_TIMEOUT: Duration = Duration::from_secs(5);
const WRITE_QUIESCE: Duration = Duration::from_secs(1);
/// Until the path that says nothing is given up, and reads go on over its sibling. A machine that
/// is busy with other things may let both of them wait.
const SILENT: Duration = Duration::from_millis(2000);
/// Room for a busy machine on top of every bound.
const SLACK: Duration = Duration::from_millis(500);

/// Two paths, and a load that runs over them.
struct Scene {
    load: Load,
    device: Device,
    qmp: Qmp,
    names: [String; 2],
    _backend: Backend,
}

fn sleep(milliseconds: u64) {
    std::thread::sleep(Duration::from_millis(milliseconds));
}

impl Scene {
    fn start(setup: Setup) -> Self {
        let backend = setup.start();
        let mut qmp = backend.qmp();
        let names = [1, 2].map(|port| path_name(&mut qmp, port));
        let mut device = backend.guest(QUEUES);
        for queue in &mut device.queues {
            queue.settle();
        }
        // Both paths are used, so that the fault meets commands under way.
        qmp.execute("set-iopolicy", json!({"iopolicy": "round-robin"}));
        let load = Load::start(std::mem::take(&mut device.queues), DEPTH);
        sleep(300);
        qmp.forget_events();
        Scene { load, device, qmp, names, _backend: backend }
    }

    /// Breaks the first path.
    fn inject(&mut self, mut fault: Value) {
        fault["path"] = json!(self.names[0]);
        self.qmp.execute("inject-fault", fault);
    }

    fn clear(&mut self) {
        self.qmp.execute("clear-faults", json!({}));
    }

    /// Waits until the first path has come to `state`.
    fn expect_state(&mut self, state: &str, timeout: Duration) {
        let name = self.names[0].clone();
        let wanted = |data: &Value| data["name"] == name.as_str() && data["to"] == state;
        if self.qmp.event("PATH_STATE_CHANGED", timeout, wanted).is_none() {
            let paths = self.qmp.execute("query-paths", json!({}));
            panic!("the path did not become {state} within {timeout:?}: {paths:#}");
        }
    }

    /// Ends the load, reports its stalls under `fault`, and holds it to no error.
    fn finish(self, fault: &str, read_bound: Duration, write_bound: Duration) -> (Report, Device) {
        let (queues, report) = self.load.stop();
        let mut device = self.device;
        device.queues = queues;
        let milliseconds = |time: Duration| format!("{:8.1} ms", time.as_secs_f64() * 1000.0);
        let row = format!(
            "stall | {fault:28} | read {} | write {} | machine {} | {} reads, {} writes, \
             {} errors\n",
            milliseconds(report.longest_read),
            milliseconds(report.longest_write),
            milliseconds(report.longest_pause),
            report.reads,
            report.writes,
            report.errors.len(),
        );
        // Not `eprint!`, which the harness keeps to itself. A closed stderr is no test failure.
        let _ = std::io::stderr().write_all(row.as_bytes());
        report.assert_clean();
        // An answer goes through a few threads, and each of them may have had to wait so long.
        let busy = 4 * report.longest_pause;
        assert!(report.longest_read < read_bound + busy, "{fault}: a read took {report:?}");
        assert!(report.longest_write < write_bound + busy, "{fault}: a write took {report:?}");
        (report, device)
    }
}

#[test]
fn no_fault_no_error() {
    let scene = Scene::start(Setup::ports(2));
    sleep(1000);
    scene.finish("none", PATH_TIMEOUT, PATH_TIMEOUT);
}

#[test]
fn disconnect_is_not_seen_by_the_guest() {
    let mut scene = Scene::start(Setup::ports(2));
    scene.inject(json!({"fault": "disconnect"}));
    scene.expect_state("failed", PROMPT);
    sleep(1000);
    scene.clear();
    scene.expect_state("up", 3 * PROMPT);
    sleep(300);
    let bound = Duration::from_millis(200);
    // Writes too: what was under way on a port that was cut is known to be over.
    scene.finish("disconnect", bound, bound);
}

#[test]
fn disconnect_is_told_by_a_failover_event() {
    let mut scene = Scene::start(Setup::ports(2));
    // Held first: of a path that is cut between two commands there is nothing to tell.
    scene.inject(json!({"fault": "hang"}));
    sleep(200);
    scene.inject(json!({"fault": "disconnect"}));
    let from = scene.names[0].clone();
    let event = scene.qmp.event("FAILOVER", PROMPT, |data| data["from"] == from.as_str());
    let event = event.expect("a FAILOVER event");
    assert_eq!(event["to"], scene.names[1].as_str(), "{event}");
    assert!(event["commands"].as_u64() > Some(0), "{event}");
    // Writes too: what a port held that was cut is known to be over.
    scene.finish("hang, then disconnect", 2 * SLACK, 2 * SLACK);
}

#[test]
fn disconnect_again_and_again_is_not_seen_by_the_guest() {
    let mut scene = Scene::start(Setup::ports(2));
    for _ in 0..5 {
        scene.inject(json!({"fault": "disconnect"}));
        sleep(400);
        scene.clear();
        sleep(400);
    }
    scene.finish("disconnect, five times", PATH_TIMEOUT, PATH_TIMEOUT);
}

#[test]
fn drop_stalls_reads_for_less_than_a_second() {
    let mut scene = Scene::start(Setup::ports(2));
    scene.inject(json!({"fault": "drop"}));
    scene.expect_state("failed", SILENT);
    sleep(1500);
    scene.clear();
    scene.expect_state("up", 3 * PROMPT);
    scene.finish("drop", SILENT, SILENT + WRITE_QUIESCE);
}

#[test]
fn hang_stalls_reads_for_less_than_a_second() {
    let mut scene = Scene::start(Setup::ports(2));
    scene.inject(json!({"fault": "hang"}));
    scene.expect_state("failed", SILENT);
    sleep(1500);
    scene.clear();
    scene.expect_state("up", 3 * PROMPT);
    scene.finish("hang", SILENT, SILENT + WRITE_QUIESCE);
}

#[test]
fn both_paths_hanging_for_two_seconds_are_no_paths_fault() {
    let mut scene = Scene::start(Setup::ports(2));
    for name in scene.names.clone() {
        scene.qmp.execute("inject-fault", json!({"path": name, "fault": "hang"}));
    }
    sleep(2000);
    scene.clear();
    sleep(500);
    for path in scene.qmp.execute("query-paths", json!({})).as_array().expect("a list") {
        assert_eq!(path["state"], "up", "{path}");
    }
    let bound = Duration::from_secs(2) + SLACK;
    scene.finish("both hang for 2 s", bound, bound);
}

#[test]
fn hang_under_a_shorter_path_timeout_stalls_for_less() {
    let mut scene = Scene::start(Setup::ports(2).lun("path_timeout = 1.0"));
    scene.inject(json!({"fault": "hang"}));
    let bound = Duration::from_secs(1) + SLACK;
    scene.expect_state("failed", bound);
    sleep(1500);
    scene.clear();
    scene.finish("hang, path_timeout 1 s", bound, bound + WRITE_QUIESCE);
}

#[test]
fn hang_that_ends_by_itself_brings_no_late_write() {
    // Cleared before the time is up: what the path held goes on, and nothing was sent twice.
    let mut scene = Scene::start(Setup::ports(2));
    scene.inject(json!({"fault": "hang"}));
    sleep(1500);
    scene.clear();
    sleep(500);
    let bound = PATH_TIMEOUT + SLACK;
    scene.finish("hang, 1.5 s", bound, bound + WRITE_QUIESCE);
}

#[test]
fn delay_below_the_path_timeout_is_no_error() {
    let mut scene = Scene::start(Setup::ports(2));
    scene.inject(json!({"fault": "delay", "milliseconds": 200}));
    sleep(1500);
    scene.clear();
    scene.finish("delay, 200 ms", PATH_TIMEOUT, PATH_TIMEOUT);
}

#[test]
fn path_a_hundred_times_slower_is_left_alone_after_two_seconds() {
    let mut scene = Scene::start(Setup::ports(2));
    let began = Instant::now();
    sleep(3000);
    let healthy = scene.qmp.execute("query-paths", json!({}));
    let usual = healthy[1]["latency-us"].as_u64().expect("a path that carries commands");
    // On a fast machine a hundred times may still be less than any path is blamed for, and on a slow
    // one so much that the path would be given up instead of left alone.
    let delay = (usual / 10).clamp(2 * LIMP_FLOOR.as_millis() as u64, 200);
    let slowed = Instant::now();
    scene.inject(json!({"fault": "delay", "milliseconds": delay}));
    sleep(6000);
    let ended = Instant::now();
    let limping = scene.qmp.execute("query-paths", json!({}))[0].clone();
    scene.clear();
    scene.expect_state("up", 3 * PROMPT);
    let (report, _) = scene.finish("delay, 100 times", PATH_TIMEOUT, PATH_TIMEOUT);
    let before = report.read_p99(began, slowed);
    let after = report.read_p99(slowed + Duration::from_secs(2), ended);
    let row = format!(
        "p99   | a path slower by {delay} ms, usually {usual} us | reads before {before:.1?} | \
         from 2 s after on {after:.1?} | {} {}\n",
        limping["state"], limping["reason"]
    );
    let _ = std::io::stderr().write_all(row.as_bytes());
    // Half of the reads would go over that path, and each of them wait.
    let busy = 4 * report.longest_pause;
    assert!(after < before + Duration::from_millis(delay) / 2 + busy, "{row}");
}

#[test]
fn status_busy_is_not_seen_by_the_guest() {
    let mut scene = Scene::start(Setup::ports(2));
    scene.inject(json!({"fault": "status", "status": 8, "probability": 0.2}));
    sleep(1500);
    scene.clear();
    scene.finish("status BUSY, 1 in 5", PATH_TIMEOUT, PATH_TIMEOUT);
}

#[test]
fn sense_of_a_path_fault_is_not_seen_by_the_guest() {
    // NOT READY, LOGICAL UNIT NOT ACCESSIBLE, TARGET PORT IN UNAVAILABLE STATE: the port's matter.
    let mut scene = Scene::start(Setup::ports(2));
    scene.inject(json!({"fault": "sense", "sense": "2/04/0c"}));
    sleep(1500);
    scene.clear();
    scene.finish("sense 2/04/0C", PATH_TIMEOUT, PATH_TIMEOUT);
}

#[test]
fn unit_attention_of_a_path_is_not_seen_by_the_guest() {
    // UNIT ATTENTION, I_T NEXUS LOSS OCCURRED: of our nexus, not of the guest's.
    let mut scene = Scene::start(Setup::ports(2));
    scene.inject(json!({"fault": "sense", "sense": "6/29/07", "count": 3}));
    sleep(500);
    scene.clear();
    scene.finish("sense 6/29/07, three times", PATH_TIMEOUT, PATH_TIMEOUT);
}

#[test]
fn path_fail_and_reinstate_are_not_seen_by_the_guest() {
    let mut scene = Scene::start(Setup::ports(2));
    let names = scene.names.clone();
    for name in names.iter().cycle().take(6) {
        scene.qmp.execute("path-fail", json!({"name": name}));
        sleep(200);
        scene.qmp.execute("path-reinstate", json!({"name": name}));
        sleep(200);
    }
    let (_, mut device) = scene.finish("path-fail, path-reinstate", PATH_TIMEOUT, PATH_TIMEOUT);
    let event = device.events().next(Duration::from_millis(100));
    assert!(event.is_none(), "the guest was told of a path: {event:?}");
}

#[test]
fn path_remove_and_add_are_not_seen_by_the_guest() {
    let mut scene = Scene::start(Setup::ports(2));
    let address = scene._backend.address(1);
    scene.qmp.execute("path-remove", json!({"name": scene.names[0]}));
    sleep(500);
    scene.qmp.execute("path-add", json!({"address": address, "name": "again"}));
    let up = |data: &Value| data["name"] == "again" && data["to"] == "up";
    assert!(scene.qmp.event("PATH_STATE_CHANGED", PROMPT, up).is_some(), "not up again");
    scene.qmp.execute("path-remove", json!({"name": scene.names[1]}));
    sleep(500);
    scene.finish("path-remove, path-add", PATH_TIMEOUT, PATH_TIMEOUT);
}

#[test]
fn iopolicy_is_switched_under_load() {
    let mut scene = Scene::start(Setup::ports(2));
    for policy in ["numa", "queue-depth", "service-time", "round-robin"] {
        scene.qmp.execute("set-iopolicy", json!({"iopolicy": policy}));
        assert_eq!(scene.qmp.execute("query-lun", json!({}))["iopolicy"], policy);
        sleep(200);
    }
    assert!(scene.qmp.try_execute("set-iopolicy", json!({"iopolicy": "best"})).is_err());
    scene.finish("set-iopolicy", PATH_TIMEOUT, PATH_TIMEOUT);
}

#[test]
fn no_path_for_two_seconds_under_queue_is_no_error() {
    let mut scene = Scene::start(Setup::ports(2));
    for name in scene.names.clone() {
        scene.qmp.execute("path-fail", json!({"name": name}));
    }
    let lost = |data: &Value| data["to"] == "no-path";
    let event = scene.qmp.event("LUN_STATE_CHANGED", PROMPT, lost).expect("no event");
    let reason = event["reason"].as_str().expect("it has a reason");
    for name in &scene.names {
        assert!(reason.contains(&format!("{name} disabled")), "{reason}");
    }
    sleep(2000);
    assert!(scene.qmp.execute("query-lun", json!({}))["queued"].as_u64() > Some(0));
    for name in scene.names.clone() {
        scene.qmp.execute("path-reinstate", json!({"name": name}));
    }
    sleep(500);
    let bound = Duration::from_secs(2) + PATH_TIMEOUT;
    scene.finish("no path for 2 s", bound, bound);
}

#[test]
fn both_paths_disconnected_for_two_seconds_under_queue_is_no_error() {
    let mut scene = Scene::start(Setup::ports(2));
    for name in scene.names.clone() {
        scene.qmp.execute("inject-fault", json!({"path": name, "fault": "disconnect"}));
    }
    sleep(2000);
    scene.clear();
    scene.expect_state("up", 3 * PROMPT);
    let bound = Duration::from_secs(2) + PATH_TIMEOUT + WRITE_QUIESCE;
    scene.finish("both disconnected for 2 s", bound, bound);
}

#[test]
fn no_path_under_fail_is_transport_failure() {
    let backend = Setup::ports(2).option("--no-path-retry", "fail").start();
    let mut qmp = backend.qmp();
    let mut device = backend.guest(1);
    device.queue().settle();
    for port in [1, 2] {
        let name = path_name(&mut qmp, port);
        qmp.execute("path-fail", json!({"name": name}));
    }
    for command in [read(0, 8), write(0, pattern(1, 8))] {
        let completion = device.queue().run(&command);
        assert_eq!(completion.response, response::TRANSPORT_FAILURE, "{completion:?}");
        assert!(completion.elapsed < SLACK, "{completion:?}");
    }
}

#[test]
fn no_path_retry_of_a_second_fails_after_a_second() {
    let backend = Setup::ports(1).start();
    let mut qmp = backend.qmp();
    let mut device = backend.guest(1);
    device.queue().settle();
    qmp.execute("set-no-path-retry", json!({"no-path-retry": 1}));
    let name = path_name(&mut qmp, 1);
    qmp.execute("path-fail", json!({"name": name}));
    let completion = device.queue().run(&read(0, 8));
    assert_eq!(completion.response, response::TRANSPORT_FAILURE, "{completion:?}");
    let expected = Duration::from_millis(700)..Duration::from_secs(1) + 2 * SLACK;
    assert!(expected.contains(&completion.elapsed), "{completion:?}");
}
