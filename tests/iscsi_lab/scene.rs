//! A backend on two paths to an array, and what tests do to it and ask of it.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::array::{Array, Kind};
use crate::backend::{Backend, Setup, directory};
use crate::driver::Device;
use crate::load::{Load, Report};
use crate::qmp::Qmp;

const QUEUES: usize = 2;
const DEPTH: usize = 4;
/// The default `path_timeout` and `write_quiesce`.
pub const PATH_TIMEOUT: Duration = Duration::from_secs(5);
pub const WRITE_QUIESCE: Duration = Duration::from_secs(1);
/// Room for a busy machine, and for an array that is a slow one.
pub const SLACK: Duration = Duration::from_secs(2);
/// For a path to come up that nothing is in the way of: also where the wait between two logins has
/// grown meanwhile.
pub const UP: Duration = Duration::from_secs(15);

/// A configuration file, which is there as long as this.
pub struct Settings {
    dir: TempDir,
}

impl Settings {
    /// Settings of an initiator of the name `initiator`; `iscsi` and `lun` are further lines.
    pub fn new(initiator: &str, iscsi: &str, lun: &str) -> Self {
        let dir = directory();
        let mut text = String::new();
        let name = format!("initiator_name = \"iqn.2003-01.org.example:{initiator}\"");
        writeln!(text, "[iscsi]\n{name}\n{iscsi}\n[lun]\n{lun}").expect("a string takes lines");
        std::fs::write(dir.path().join("config.toml"), text).expect("a file can be written");
        Settings { dir }
    }

    /// The file.
    pub fn file(&self) -> PathBuf {
        self.dir.path().join("config.toml")
    }

    /// What `--check` of `paths` with these settings says, with the most talkative of logs.
    pub fn check(&self, paths: &[String]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vhost-user-scsi-mpath"));
        command.arg("--check").arg("--config").arg(self.file()).env("RUST_LOG", "trace");
        for path in paths {
            command.args(["--path", path]);
        }
        command.output().expect("the program can be started")
    }

    /// The process whose command line names these settings' file.
    pub fn process(&self) -> (u32, String) {
        let file = self.file().display().to_string();
        let numbers = std::fs::read_dir("/proc").expect("/proc can be read").flatten();
        let mut named = numbers.filter_map(|entry| {
            let number = entry.file_name().to_str()?.parse().ok()?;
            // A process may end while it is being looked at.
            let line = std::fs::read(entry.path().join("cmdline")).ok()?;
            Some((number, String::from_utf8_lossy(&line).replace('\0', " ")))
        });
        named.find(|(_, line)| line.contains(&file)).expect("the backend runs")
    }

    /// A backend on `paths` with these settings.
    pub fn backend(&self, paths: &[String]) -> Backend {
        let mut setup = Setup::ports(0).option("--config", &self.file().display().to_string());
        for path in paths {
            setup = setup.option("--path", path);
        }
        setup.start()
    }
}

/// What `query-paths` says of the path through `port`.
pub fn path(qmp: &mut Qmp, port: u16) -> Value {
    let paths = qmp.execute("query-paths", json!({}));
    let place = format!(":{port}/");
    let is_it = |path: &&Value| path["address"].as_str().is_some_and(|at| at.contains(&place));
    let path = paths.as_array().and_then(|paths| paths.iter().find(is_it));
    path.unwrap_or_else(|| panic!("no path through {place} in {paths}")).clone()
}

/// Waits until the path through `port` is in `state`; returns what `query-paths` says of it.
pub fn wait_state(qmp: &mut Qmp, port: u16, state: &str, timeout: Duration) -> Value {
    let deadline = Instant::now() + timeout;
    loop {
        let path = path(qmp, port);
        if path["state"] == state {
            return path;
        }
        assert!(Instant::now() < deadline, "not {state} within {timeout:?}: {path}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub fn sleep(milliseconds: u64) {
    std::thread::sleep(Duration::from_millis(milliseconds));
}

/// Two paths, and a load that runs over them. What comes first is dropped first.
pub struct Scene {
    load: Load,
    device: Device,
    pub qmp: Qmp,
    _backend: Backend,
    pub settings: Settings,
    pub array: Array,
}

impl Scene {
    /// The load runs when this returns.
    pub fn start(array: Array) -> Self {
        Scene::with(array, "")
    }

    /// The same with lines of the configuration's `[lun]`.
    pub fn with(array: Array, lun: &str) -> Self {
        let paths = array.paths();
        Scene::of(array, Settings::new("scene", "", lun), &paths)
    }

    /// The same with settings and paths of its own, one path through each proxy.
    pub fn of(array: Array, settings: Settings, paths: &[String; 2]) -> Self {
        let backend = settings.backend(paths);
        let mut qmp = backend.qmp();
        for proxy in &array.proxies {
            wait_state(&mut qmp, proxy.address().port(), "up", UP);
        }
        let mut device = backend.guest(QUEUES);
        for queue in &mut device.queues {
            queue.settle();
        }
        // Both paths are used, so that a fault meets commands under way.
        qmp.execute("set-iopolicy", json!({"iopolicy": "round-robin"}));
        let load = Load::start(std::mem::take(&mut device.queues), DEPTH);
        // Until most slots have been written once: before that there is little to read. LIO is slow.
        sleep(if matches!(array.kind, Kind::Lio(_)) { 2500 } else { 500 });
        Scene { load, device, qmp, _backend: backend, settings, array }
    }

    /// Waits until a path, counted from 0, is in `state`.
    pub fn expect(&mut self, path: usize, state: &str, timeout: Duration) {
        let port = self.array.proxies[path].address().port();
        wait_state(&mut self.qmp, port, state, timeout);
    }

    /// Ends the load, reports its stalls under `fault`, and holds it to no error.
    pub fn finish(self, fault: &str, read_bound: Duration, write_bound: Duration) -> Report {
        let (queues, report) = self.load.stop();
        drop((queues, self.device));
        let kind = match self.array.kind {
            Kind::Tgtd(_) => "tgtd",
            Kind::Lio(_) => "LIO",
        };
        let milliseconds = |time: Duration| format!("{:8.1} ms", time.as_secs_f64() * 1000.0);
        let fault = format!("{kind}: {fault}");
        let row = format!(
            "stall | {fault:34} | read {} | write {} | machine {} | {} reads, {} writes, \
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
        report
    }
}
