//! The backend as a service: what a service manager is told, the socket that it makes, and the
//! configuration read again while a guest goes on. The service manager is a socket here.

use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::backend::{Backend, Setup, directory, path};
use crate::initiator::{pattern, read, write};
use crate::qmp::Qmp;
use crate::sys::SIGHUP;

/// For what is to come in a moment, on a machine that has other things to do.
const PATIENCE: Duration = Duration::from_secs(20);

/// Hears what services tell.
struct Manager {
    socket: UnixDatagram,
    directory: TempDir,
}

impl Manager {
    fn new() -> Self {
        let directory = directory();
        let socket = UnixDatagram::bind(directory.path().join("notify")).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Manager { socket, directory }
    }

    fn of(&self, setup: Setup) -> Setup {
        let socket = self.directory.path().join("notify");
        setup.variable("NOTIFY_SOCKET", socket.to_str().unwrap())
    }

    /// What comes up to the first message that `is_it` says yes to.
    fn until(&self, is_it: impl Fn(&str) -> bool) -> Vec<String> {
        let mut heard: Vec<String> = Vec::new();
        loop {
            let mut bytes = [0; 4096];
            let Ok(size) = self.socket.recv(&mut bytes) else { panic!("heard only {heard:?}") };
            heard.push(String::from_utf8(bytes[..size].to_vec()).unwrap());
            if heard.last().is_some_and(|last| is_it(last)) {
                return heard;
            }
        }
    }
}

#[test]
fn service_is_ready_with_its_first_path_and_tells_how_the_paths_are() {
    let manager = Manager::new();
    let mut backend = manager.of(Setup::ports(2)).start();
    let heard = manager.until(|told| told == "READY=1");
    let status = |told: &str| told.starts_with("STATUS=") && told.contains("disk.img:1 up");
    assert!(heard.iter().any(|told| status(told)), "{heard:?}");
    let mut qmp = backend.qmp();
    qmp.execute("inject-fault", json!({"path": "disk.img:1", "fault": "disconnect"}));
    let failed = "STATUS=degraded, no guest: disk.img:1 failed (a fault cut the link), \
                  disk.img:2 up";
    manager.until(|told| told == failed);
    let guest = backend.guest(1);
    manager.until(|told| told.starts_with("STATUS=degraded, guest connected: "));
    drop(guest);
    backend.terminate();
    manager.until(|told| told == "STOPPING=1");
    assert!(backend.wait_end(PATIENCE).is_some());
}

#[test]
fn service_gives_signs_of_life_as_long_as_the_manager_turns() {
    let manager = Manager::new();
    let _backend = manager.of(Setup::ports(1)).variable("WATCHDOG_USEC", "100000").start();
    for _ in 0..5 {
        manager.until(|told| told == "WATCHDOG=1");
    }
}

#[test]
fn socket_of_a_service_manager_is_served_and_left_behind() {
    let directory = directory();
    let file = directory.path().join("lun0.sock");
    let socket = UnixListener::bind(&file).unwrap();
    // Whoever comes before the service waits.
    let mut backend = Setup::ports(2).start_activated(socket.as_raw_fd());
    let mut device = crate::driver::Device::start(&file, &crate::driver::Config::queues(1));
    let queue = device.queue();
    queue.settle();
    queue.good(&write(0, pattern(1, 8)));
    drop(device);
    backend.terminate();
    assert!(backend.wait_end(PATIENCE).is_some());
    assert!(file.exists(), "it is the service manager's");
}

fn names(qmp: &mut Qmp) -> Vec<String> {
    let paths = qmp.execute("query-paths", json!({}));
    let name = |path: &Value| path["name"].as_str().unwrap().to_owned();
    paths.as_array().unwrap().iter().map(name).collect()
}

/// Removed paths leave when their last command has ended.
fn wait_for_names(qmp: &mut Qmp, wanted: &[&str]) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut names = names(qmp);
        names.sort();
        if names == wanted {
            return;
        }
        assert!(Instant::now() < deadline, "{names:?} instead of {wanted:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The log is read by another thread.
fn wait_for_lines(backend: &Backend, part: &str, count: usize) {
    let deadline = Instant::now() + PATIENCE;
    while backend.log().iter().filter(|line| line.contains(part)).count() != count {
        assert!(Instant::now() < deadline, "not {count} times {part}: {:?}", backend.log());
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn rewrite(backend: &Backend, text: &str) {
    std::fs::write(backend.config_file(), text).unwrap();
}

#[test]
fn reload_changes_paths_and_settings_under_a_guest() {
    let manager = Manager::new();
    let backend = manager.of(Setup::ports(2).listed()).start();
    manager.until(|told| told == "READY=1");
    let mut device = backend.guest(1);
    let queue = device.queue();
    queue.settle();
    queue.good(&write(0, pattern(1, 8)));
    let mut qmp = backend.qmp();
    // One renamed, one gone, one new; a policy, a limit, and two settings that have to wait.
    let lun = "[lun]\niopolicy = \"round-robin\"\npath_timeout = 2.0\nexplicit_alua = true\n";
    let paths = path("one", &backend.address(1)) + &path("three", &backend.address(3));
    rewrite(&backend, &format!("[backend]\nidentity = \"x\"\n{lun}{paths}"));
    backend.signal(SIGHUP);
    let heard = manager.until(|told| told == "READY=1");
    let reloading = |told: &String| told.starts_with("RELOADING=1\nMONOTONIC_USEC=");
    assert!(heard.iter().any(reloading), "{heard:?}");
    wait_for_names(&mut qmp, &["one", "three"]);
    assert_eq!(qmp.execute("query-lun", json!({}))["iopolicy"], "round-robin");
    let line = "reload: added: three; removed: p2; renamed: p1 to one; changed: lun.iopolicy, \
                lun.path_timeout; kept until the backend is started again: backend.identity, \
                lun.explicit_alua";
    wait_for_lines(&backend, line, 1);
    queue.good(&write(8, pattern(2, 8)));
    assert_eq!(queue.fetch(&read(0, 8)), pattern(1, 8));
    // A path of another address under a name that is still in use, by order this time.
    rewrite(&backend, &format!("{lun}{}", path("one", &backend.address(2))));
    let report = qmp.execute("reload", json!({}));
    assert_eq!(report["added"], json!(["one"]));
    assert_eq!(report["removed"], json!(["one", "three"]));
    wait_for_names(&mut qmp, &["one"]);
    assert_eq!(qmp.execute("query-paths", json!({}))[0]["address"], backend.address(2));
    assert_eq!(queue.fetch(&read(8, 8)), pattern(2, 8));
}

#[test]
fn reload_of_a_file_with_an_error_changes_nothing() {
    let backend = Setup::ports(2).listed().start();
    let mut qmp = backend.qmp();
    let good = std::fs::read_to_string(backend.config_file()).unwrap();
    let third = path("p3", &backend.address(3));
    let cases = [
        (good.replace("[lun]", "[lun]\niopolicy = \"rr\""), "lun.iopolicy: unknown variant `rr`"),
        ("[lun]\n".to_owned(), "no path is configured"),
        (format!("{good}{third}{}", path("p4", "null:nonsense")), "null:nonsense"),
        (format!("{good}{}", third.replace("p3", "p1")), "given twice"),
        (format!("{good}{third}{}", path("p4", "emulated:/nowhere/x?port=1&size=1M")), "/nowhere"),
    ];
    for (text, expected) in cases {
        rewrite(&backend, &text);
        let error = qmp.try_execute("reload", json!({})).unwrap_err();
        assert!(error.contains(expected), "{error}");
        assert_eq!(names(&mut qmp), ["p1", "p2"]);
    }
    wait_for_lines(&backend, "stays as it was", 5);
    rewrite(&backend, &good);
    let report = qmp.execute("reload", json!({}));
    assert!(report.as_object().unwrap().values().all(|list| list == &json!([])), "{report}");
    // Without a file there is nothing to read.
    let other = Setup::ports(1).start();
    let error = other.qmp().try_execute("reload", json!({})).unwrap_err();
    assert!(error.contains("without a configuration file"), "{error}");
}

#[test]
fn reload_shortens_the_wait_for_a_path_that_hangs() {
    let slow = "command_deadline = 900.0\npath_timeout = 600.0";
    let backend = Setup::ports(1).listed().lun(slow).start();
    let mut qmp = backend.qmp();
    qmp.execute("inject-fault", json!({"path": "p1", "fault": "hang"}));
    let text = std::fs::read_to_string(backend.config_file()).unwrap();
    rewrite(&backend, &text.replace("path_timeout = 600.0", "path_timeout = 0.5"));
    let report = qmp.execute("reload", json!({}));
    assert_eq!(report["changed"], json!(["lun.path_timeout"]));
    let deadline = Instant::now() + PATIENCE;
    while qmp.execute("query-paths", json!({}))[0]["state"] != "failed" {
        assert!(Instant::now() < deadline, "the path still hangs");
        std::thread::sleep(Duration::from_millis(10));
    }
    qmp.execute("clear-faults", json!({}));
}
