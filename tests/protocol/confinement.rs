//! The program confined: every thread by a filter of its own, files and ports by what its
//! configuration names. All other tests of this folder run so too; here is what they do not ask.

use std::collections::BTreeMap;
use std::path::Path;
use std::process;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::backend::{Backend, Setup, directory, path};
use crate::initiator::{pattern, read, transfer, write};
use crate::persistent::register;
use crate::queue::{Command, PROMPT};
use crate::sys::landlock_version;

/// The number in a line of the `status` of a thread.
fn number(status: &str, key: &str) -> u32 {
    let line = status.lines().find_map(|line| line.strip_prefix(key)).expect(key);
    line.trim_start_matches(':').trim().parse().expect("a number")
}

/// Filters of each thread by its name: how many, and whether they are in force.
fn threads(backend: &Backend) -> BTreeMap<String, (u32, u32)> {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", backend.process())).unwrap();
    let status = |task: std::io::Result<std::fs::DirEntry>| {
        // It may end while we look.
        std::fs::read_to_string(task.ok()?.path().join("status")).ok()
    };
    let thread = |status: String| {
        assert_eq!(number(&status, "NoNewPrivs"), 1, "{status}");
        let name = status.lines().find_map(|line| line.strip_prefix("Name:")).unwrap().trim();
        let filters = (number(&status, "Seccomp"), number(&status, "Seccomp_filters"));
        (name.to_owned(), filters)
    };
    tasks.filter_map(status).map(thread).collect()
}

#[test]
fn each_thread_has_a_filter_of_its_own() {
    let directory = directory();
    let metrics = format!("unix:{}", directory.path().join("metrics").display());
    let backend = Setup::ports(2).metrics(&metrics).start();
    let mut device = backend.guest(2);
    device.queue().settle();
    // A thread that has just begun may not have come to it.
    let deadline = Instant::now() + Duration::from_secs(20);
    let threads = loop {
        let threads = threads(&backend);
        let count = |name| threads.get(name).map_or(0, |(_, count): &(u32, u32)| *count);
        let own = threads.values().all(|(_, count)| *count >= 3);
        if own && count("lane-1") > count("vhost-user") || Instant::now() > deadline {
            break threads;
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    for name in ["lane-0", "lane-1", "manager", "control", "metrics", "emulated-array", "foreman"] {
        assert!(threads.contains_key(name), "no {name} in {threads:?}");
    }
    for (name, (mode, count)) in &threads {
        assert_eq!(*mode, 2, "{name}: not filtered: {threads:?}");
        // Clone, all kinds together, its own; and main's own for those that main starts later.
        assert!(*count >= 3, "{name}: only {count} filters: {threads:?}");
    }
    assert!(threads["lane-0"].1 > threads["manager"].1, "a lane has those of its starter too");
}

#[test]
fn confinement_can_be_turned_off_and_only_told() {
    let off = Setup::ports(1).confinement("seccomp = \"off\"\nlandlock = \"off\"").start();
    let status = std::fs::read_to_string(format!("/proc/{}/status", off.process())).unwrap();
    assert_eq!(number(&status, "Seccomp"), 0);
    // Nothing is outside then.
    let elsewhere = directory();
    let image = format!("emulated:{}/x.img?size=1M", elsewhere.path().display());
    off.qmp().execute("path-add", json!({"address": image, "name": "x"}));
    let log = Setup::ports(1).confinement("seccomp = \"log\"").start();
    let mut device = log.guest(1);
    let queue = device.queue();
    queue.settle();
    queue.good(&write(0, pattern(1, 8)));
    assert_eq!(queue.fetch(&read(0, 8)), pattern(1, 8));
}

fn refusal(backend: &Backend, address: &str) -> String {
    let added = backend.qmp().try_execute("path-add", json!({"address": address, "name": "new"}));
    added.expect_err("it is outside")
}

#[test]
fn path_outside_of_the_configuration_is_refused_with_the_setting_that_allows_it() {
    let elsewhere = directory();
    let elsewhere = elsewhere.path().display();
    let image = format!("emulated:{elsewhere}/x.img?size=1M");
    let backend = Setup::ports(1).start();
    let version = landlock_version();
    if version < 1 {
        // Nothing is refused then.
        eprintln!("skipped: this kernel has no Landlock");
        return;
    }
    let error = refusal(&backend, &image);
    assert!(error.contains(&format!("confinement.allow_files = [\"{elsewhere}\"]")), "{error}");
    let error = refusal(&backend, "/dev/sg0");
    assert!(error.contains("confinement.allow_files = [\"/dev\"]"), "{error}");
    if cfg!(feature = "iscsi") {
        let port = "iscsi://127.0.0.1:3261/iqn.2003-01.org.example:a/0";
        match version {
            ..4 => {
                backend.qmp().execute("path-add", json!({"address": port, "name": "any"}));
            }
            _ => assert!(refusal(&backend, port).contains("confinement.allow_ports = [3261]")),
        }
        let error = refusal(&backend, "iscsi://array.example/iqn.2003-01.org.example:a/0");
        assert!(error.contains("array.example cannot be looked up"), "{error}");
    }
    // Beside the image that it has, it may have others.
    let beside = backend.address(1).replace("disk.img", "beside.img");
    backend.qmp().execute("path-add", json!({"address": beside, "name": "beside"}));
    // Not a word, but the kernel's own: the same file opened by the process is refused.
    let allowed = Setup::ports(1).confinement(&format!("allow_files = [\"{elsewhere}\"]")).start();
    allowed.qmp().execute("path-add", json!({"address": image, "name": "new"}));
}

#[test]
fn reload_with_a_path_outside_changes_nothing() {
    let elsewhere = directory();
    let image = format!("emulated:{}/x.img?size=1M", elsewhere.path().display());
    let backend = Setup::ports(1).listed().start();
    if landlock_version() < 1 {
        eprintln!("skipped: this kernel has no Landlock");
        return;
    }
    let text = std::fs::read_to_string(backend.config_file()).unwrap();
    std::fs::write(backend.config_file(), text + &path("new", &image)).unwrap();
    let mut qmp = backend.qmp();
    let error = qmp.try_execute("reload", json!({})).unwrap_err();
    assert!(error.contains("confinement.allow_files"), "{error}");
    assert_eq!(qmp.execute("query-paths", json!({})).as_array().unwrap().len(), 1);
}

#[test]
fn check_is_confined_and_sees_what_the_backend_would() {
    let directory = directory();
    let image = directory.path().join("disk.img");
    std::fs::write(&image, vec![0; 1 << 20]).unwrap();
    let check = |landlock: &str| {
        let file = directory.path().join("config.toml");
        let address = format!("emulated:{}", image.display());
        let text = format!("[confinement]\nlandlock = \"{landlock}\"\n{}", path("p1", &address));
        std::fs::write(&file, text).unwrap();
        let mut program = process::Command::new(env!("CARGO_BIN_EXE_vhost-user-scsi-mpath"));
        program.arg("--config").arg(&file).arg("--check").output().unwrap()
    };
    for landlock in ["auto", "off"] {
        let output = check(landlock);
        assert!(output.status.success(), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stdout).contains("path p1: up"), "{output:?}");
    }
}

/// Other tests' images are in memory and need no ring: here each way from a lane to a disk is gone.
#[test]
fn image_on_a_disk_is_served_by_rings_and_by_the_helper() {
    serve_from_a_disk("");
}

/// The same past the page cache; and such an image is opened while all runs, by the thread that
/// opens paths.
#[test]
fn image_on_a_disk_is_served_past_the_page_cache() {
    let Some((backend, _disk)) = serve_from_a_disk("&cache=none") else { return };
    let mut qmp = backend.qmp();
    let first = qmp.execute("query-paths", json!({}))[0].take();
    assert_eq!(first["engine"], "io_uring, O_DIRECT");
    let address = first["address"].as_str().unwrap();
    let beside = address.replace("disk.img", "beside.img");
    let second = address.replace("port=1", "port=2");
    for (name, address, state) in [("beside", beside, "wrong-lun"), ("second", second, "up")] {
        qmp.execute("path-add", json!({"address": address, "name": name}));
        let there = |data: &Value| data["name"] == name && data["to"] == state;
        assert!(qmp.event("PATH_STATE_CHANGED", PROMPT, there).is_some(), "{name}");
    }
}

/// Serves an image on a disk, and uses it. `None` where there is no such disk.
fn serve_from_a_disk(settings: &str) -> Option<(Backend, TempDir)> {
    let disk = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let state = disk.path().join("state").join("deeper");
    let image = format!("emulated:{}?size=1M{settings}", disk.path().join("disk.img").display());
    let setup = Setup::ports(0).backend(&format!("state_dir = \"{}\"", state.display()));
    let backend = setup.option("--path", &image).start();
    let engine = backend.qmp().execute("query-paths", json!({}))[0]["engine"].take();
    if engine == "mapped" {
        eprintln!("skipped: the target directory is in memory");
        return None;
    }
    let mut device = backend.guest(2);
    let queue = device.queue();
    queue.settle();
    queue.good(&write(0, pattern(1, 8)));
    // SYNCHRONIZE CACHE, then UNMAP of a block, then a registration, which is kept.
    queue.good(&Command::reading(&transfer(0x35, 0, 0), 0));
    let unmap = [&[0, 22, 0, 16, 0, 0, 0, 0], &[0; 7][..], &[16], &[0, 0, 0, 1], &[0; 4]].concat();
    queue.good(&Command::writing(&[0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0], unmap));
    queue.good(&register(0, 7));
    assert_eq!(queue.fetch(&read(0, 8)), pattern(1, 8));
    assert_eq!(queue.fetch(&read(16, 1)), [0; 512]);
    assert!(state.read_dir().unwrap().count() > 0, "nothing was kept");
    Some((backend, disk))
}

/// Where the kernel has all of it, "required" is as good as "auto"; where it has not, there is no
/// start.
#[test]
fn landlock_that_is_required_is_there_or_there_is_no_start() {
    let directory = directory();
    let file = directory.path().join("config.toml");
    std::fs::write(&file, "[confinement]\nlandlock = \"required\"\n").unwrap();
    let mut program = process::Command::new(env!("CARGO_BIN_EXE_vhost-user-scsi-mpath"));
    program.arg("--check").arg("--config").arg(&file).args(["--path", "null:1M"]);
    let output = program.env("RUST_LOG", "info").output().unwrap();
    let words = String::from_utf8_lossy(&output.stderr);
    match output.status.success() {
        true => assert!(words.contains("is in force\n"), "{words}"),
        false => assert!(words.contains("this kernel cannot restrict"), "{words}"),
    }
}

/// What the next start knows of a crash by is not taken away by one that fails.
#[test]
fn start_that_fails_after_a_crash_leaves_the_trace_of_it() {
    let mut backend = Setup::ports(1).start();
    backend.kill();
    let socket = backend.socket();
    assert!(socket.exists());
    let fails = |socket: &Path| {
        let mut program = process::Command::new(env!("CARGO_BIN_EXE_vhost-user-scsi-mpath"));
        program.arg("--socket-path").arg(socket);
        program.args(["--path", &backend.address(1), "--path", "null:1G"]).output().unwrap()
    };
    let output = fails(&socket);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("say which is meant"), "{output:?}");
    assert!(socket.exists(), "the next start would not know of the crash");
    // One that fails for itself leaves nothing behind.
    let fresh = socket.with_file_name("fresh.sock");
    assert_eq!(fails(&fresh).status.code(), Some(1));
    assert!(!fresh.exists());
    backend.start_again();
}
