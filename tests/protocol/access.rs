//! Asymmetric access, sizes, and a logical unit that goes away, over ports of the built-in array.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::backend::{Backend, IMAGE_BLOCKS, IMAGE_BYTES, Setup, path_name};
use crate::control::Event;
use crate::driver::Device;
use crate::initiator::*;
use crate::load::Load;
use crate::qmp::Qmp;
use crate::queue::PROMPT;

const QUEUES: usize = 2;
const DEPTH: usize = 8;
/// Room for a busy machine.
const SLACK: Duration = Duration::from_secs(3);
/// The longest time between two probes of a path that is well.
const PROBED: Duration = Duration::from_secs(5);
/// VIRTIO_SCSI_T_PARAM_CHANGE with the code of CAPACITY DATA HAS CHANGED.
const RESIZED: (u32, u32) = (3, 0x092A);
/// VIRTIO_SCSI_T_TRANSPORT_RESET, removed and rescan.
const REMOVED: (u32, u32) = (1, 2);
const RESCAN: (u32, u32) = (1, 1);

/// A port of group 1, and one of group 2 that is non-optimized.
struct Scene {
    backend: Backend,
    qmp: Qmp,
    device: Device,
    names: [String; 2],
}

impl Scene {
    fn start(lun: &str) -> Self {
        let backend = Setup::ports(1).lun(lun).start();
        let mut qmp = backend.qmp();
        let address = format!("{}&group=2&state=active/non-optimized", backend.address(2));
        qmp.execute("path-add", json!({"address": address, "name": "second"}));
        let names = [path_name(&mut qmp, 1), "second".to_owned()];
        let mut device = backend.guest(QUEUES);
        device.queues.iter_mut().for_each(|queue| drop(queue.settle()));
        let mut scene = Scene { backend, qmp, device, names };
        scene.wait_for("both paths", |paths| {
            paths.iter().all(|path| path["state"] == "up" && path["access-state"] != "unknown")
        });
        scene
    }

    fn paths(&mut self) -> Vec<Value> {
        let paths = self.qmp.execute("query-paths", json!({}));
        paths.as_array().expect("a list").clone()
    }

    fn wait_for(&mut self, what: &str, wanted: impl Fn(&[Value]) -> bool) {
        let deadline = Instant::now() + 2 * PROBED + SLACK;
        loop {
            let paths = self.paths();
            if wanted(&paths) {
                return;
            }
            assert!(Instant::now() < deadline, "not {what}: {paths:#?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The groups in use.
    fn current(&mut self) -> Vec<u64> {
        let paths = self.paths();
        let current = paths.iter().filter(|path| path["current"] == true);
        current.filter_map(|path| path["group"].as_u64()).collect()
    }

    fn access(&mut self, path: usize, state: &str, milliseconds: Option<u64>) {
        let name = &self.names[path];
        let mut fault = json!({"path": name, "fault": "access", "access-state": state});
        if let Some(milliseconds) = milliseconds {
            fault["milliseconds"] = json!(milliseconds);
        }
        self.qmp.execute("inject-fault", fault);
    }

    fn wait_current(&mut self, group: u64) {
        let deadline = Instant::now() + 2 * PROBED + SLACK;
        while self.current() != [group] {
            assert!(Instant::now() < deadline, "group {group} is not in use: {:?}", self.paths());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn told(event: Option<Event>) -> Option<(u32, u32)> {
    // What Linux takes for number 0, see src/virtio_scsi/event.rs.
    let lun_0 = [1, 0, 0, 0, 0, 0, 0, 0];
    event.inspect(|event| assert_eq!(event.lun, lun_0)).map(|event| (event.kind, event.reason))
}

#[test]
fn transition_of_all_groups_is_held_and_brings_no_error() {
    let mut scene = Scene::start("no_path_retry = \"fail\"");
    let load = Load::start(std::mem::take(&mut scene.device.queues), DEPTH);
    std::thread::sleep(Duration::from_millis(300));
    let length = Duration::from_secs(10);
    for path in [0, 1] {
        scene.access(path, "transitioning", Some(length.as_millis() as u64));
    }
    std::thread::sleep(length + Duration::from_millis(1500));
    let (queues, report) = load.stop();
    scene.device.queues = queues;
    let (read, write) = (report.longest_read, report.longest_write);
    let row = format!(
        "stall | {:28} | read {:8.1} ms | write {:8.1} ms | machine {:8.1} ms | {} errors\n",
        "ALUA transition, 10 s",
        read.as_secs_f64() * 1000.0,
        write.as_secs_f64() * 1000.0,
        report.longest_pause.as_secs_f64() * 1000.0,
        report.errors.len(),
    );
    // Not `eprint!`, which the harness keeps to itself. A closed stderr is no test failure.
    let _ = std::io::Write::write_all(&mut std::io::stderr(), row.as_bytes());
    report.assert_clean();
    assert!(read.max(write) >= length - Duration::from_millis(500), "nothing was held: {row}");
    assert!(read.max(write) < length + SLACK + 4 * report.longest_pause, "{row}");
}

#[test]
fn groups_follow_the_arrays_states_and_failback_is_live() {
    let mut scene = Scene::start("failback = \"manual\"");
    scene.wait_current(1);
    scene.access(0, "standby", None);
    // One command or probe meets it, and one answer tells of both groups.
    scene.device.queue().good(&read(0, 8));
    scene.wait_current(2);
    scene.qmp.execute("clear-faults", json!({}));
    scene.wait_for("optimized again", |paths| paths[0]["access-state"] == "active/optimized");
    scene.device.queue().good(&read(0, 8));
    assert_eq!(scene.current(), [2], "manual");
    scene.qmp.forget_events();
    scene.qmp.execute("failback", json!({}));
    scene.wait_current(1);
    let failover = scene.qmp.event("FAILOVER", PROMPT, |data| data["to"] == "group 1");
    assert_eq!(failover.expect("an event")["from"], "group 2");
    scene.qmp.execute("set-failback", json!({"failback": "immediate"}));
    assert_eq!(scene.qmp.execute("query-lun", json!({}))["failback"], "immediate");
}

#[test]
fn explicit_access_makes_the_remaining_group_optimized() {
    let mut scene = Scene::start("explicit_alua = true");
    let name = scene.names[0].clone();
    scene.qmp.execute("path-fail", json!({"name": name}));
    scene.wait_for("optimized", |paths| paths[1]["access-state"] == "active/optimized");
    scene.device.queue().good(&write(0, pattern(3, 8)));
    assert!(scene.backend.log().iter().any(|line| line.contains("group 2 is to be active")));
}

#[test]
fn grown_image_is_told_once_as_event_and_as_attention() {
    let mut scene = Scene::start("");
    let last = |data: &[u8]| u64::from_be_bytes(data[..8].try_into().expect("8 bytes"));
    assert_eq!(last(&scene.device.queue().fetch(&read_capacity_16())), IMAGE_BLOCKS - 1);
    let image = scene.backend.socket().with_file_name("disk.img");
    let file = std::fs::OpenOptions::new().write(true).open(&image).expect("the image is there");
    file.set_len(2 * IMAGE_BYTES).expect("it can be made longer");
    let resized = scene.qmp.event("LUN_RESIZED", 2 * PROBED + SLACK, |_| true);
    assert_eq!(resized.expect("an event")["blocks"], 2 * IMAGE_BLOCKS);
    assert_eq!(told(scene.device.events().next(PROMPT)), Some(RESIZED));
    let queue = scene.device.queue();
    assert_eq!(queue.run(&test_unit_ready()).sense_code(), Some((UNIT_ATTENTION, 0x2A, 0x09)));
    assert!(queue.settle().is_empty(), "once");
    assert_eq!(last(&queue.fetch(&read_capacity_16())), 2 * IMAGE_BLOCKS - 1);
    queue.good(&write(2 * IMAGE_BLOCKS as u32 - 8, pattern(7, 8)));
    assert_eq!(queue.fetch(&read(2 * IMAGE_BLOCKS as u32 - 8, 8)), pattern(7, 8));
    assert_eq!(told(scene.device.events().next(Duration::from_millis(200))), None);
}

#[test]
fn unit_that_is_gone_fails_fast_is_removed_and_comes_back() {
    let mut scene = Scene::start("");
    for name in scene.names.clone() {
        let gone = json!({"path": name, "fault": "sense", "sense": "5/25/00"});
        scene.qmp.execute("inject-fault", gone);
    }
    // Held until it is sure that no path leads there, then the array's own word.
    let completion = scene.device.queue().run(&read(0, 8));
    assert_eq!(completion.sense_code(), Some(LUN_NOT_SUPPORTED), "{completion:?}");
    assert!(completion.elapsed < 2 * PROBED + SLACK, "{completion:?}");
    let again = scene.device.queue().run(&write(0, pattern(1, 8)));
    assert_eq!(again.sense_code(), Some(LUN_NOT_SUPPORTED), "{again:?}");
    assert!(again.elapsed < SLACK, "{again:?}");
    assert_eq!(scene.qmp.execute("query-lun", json!({}))["state"], "lost");
    let removal = Duration::from_secs(30) + SLACK;
    assert_eq!(told(scene.device.events().next(removal)), Some(REMOVED));
    scene.qmp.execute("clear-faults", json!({}));
    assert_eq!(told(scene.device.events().next(PROBED + SLACK)), Some(RESCAN));
    let back = scene.device.queue().run(&test_unit_ready()).sense_code();
    assert_eq!(back, Some((UNIT_ATTENTION, 0x3F, 0x0E)));
    assert!(scene.device.queue().settle().is_empty(), "once");
    scene.device.queue().good(&read(0, 8));
}
