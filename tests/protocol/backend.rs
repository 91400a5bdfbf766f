//! The program under test: started in a directory of its own, watched, and ended.
//!
//! Dropping a [`Backend`] ends the process and holds it to a clean end: exit code 0 and no panic.
//! Its log is shown when a test fails.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::RawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::driver::{Config, Device};
use crate::qmp::Qmp;
use crate::sys::{self, Inherited};

/// Bytes of the image.
pub const IMAGE_BYTES: u64 = 64 << 20;
/// Blocks of the image.
pub const IMAGE_BLOCKS: u64 = IMAGE_BYTES / 512;
/// No test has a backend for longer: then it is killed, and every wait of the test ends.
const WATCHDOG: Duration = Duration::from_secs(50);
/// From SIGTERM to the end. Longer than the default deadline for stopping.
const GRACE: Duration = Duration::from_secs(8);

/// No test makes a backend log more lines, whatever its guest does.
const LOG_MAX: usize = 300;

/// How to start a backend.
#[derive(Clone, Default)]
pub struct Setup {
    ports: usize,
    lun: String,
    backend: String,
    metrics: String,
    confinement: String,
    arguments: Vec<String>,
    variables: Vec<(String, String)>,
    listed: bool,
}

impl Setup {
    /// A logical unit behind so many ports, all else as the program's defaults have it.
    pub fn ports(ports: usize) -> Self {
        Setup { ports, ..Setup::default() }
    }

    /// With a line of the configuration's `[lun]`.
    pub fn lun(mut self, line: &str) -> Self {
        writeln!(self.lun, "{line}").expect("a string takes a line");
        self
    }

    /// With a line of the configuration's `[backend]`.
    pub fn backend(mut self, line: &str) -> Self {
        writeln!(self.backend, "{line}").expect("a string takes a line");
        self
    }

    /// With metrics served there.
    pub fn metrics(mut self, listen: &str) -> Self {
        self.metrics = format!("[metrics]\nlisten = \"{listen}\"\n");
        self
    }

    /// With lines of the configuration's `[confinement]`.
    pub fn confinement(mut self, lines: &str) -> Self {
        self.confinement = format!("[confinement]\n{lines}\n");
        self
    }

    /// With an option of the command line.
    pub fn option(mut self, name: &str, value: &str) -> Self {
        self.arguments.extend([name.to_owned(), value.to_owned()]);
        self
    }

    /// With a variable of the environment.
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With the paths in the configuration, called p1, p2 and so on, not in options.
    pub fn listed(mut self) -> Self {
        self.listed = true;
        self
    }

    /// Starts it as a service manager does that has made the socket.
    pub fn start_activated(&self, fd: RawFd) -> Backend {
        Backend::start(self, Some(Inherited::First(fd)))
    }

    /// Starts it, listening on a path.
    pub fn start(&self) -> Backend {
        Backend::start(self, None)
    }

    /// Starts it on an inherited descriptor.
    pub fn start_on(&self, fd: RawFd) -> Backend {
        Backend::start(self, Some(Inherited::Same(fd)))
    }
}

/// A running backend.
pub struct Backend {
    child: Child,
    setup: Setup,
    dir: TempDir,
    log: Arc<Mutex<Vec<String>>>,
    reader: Option<JoinHandle<()>>,
    watchdog: Option<(Sender<()>, JoinHandle<()>)>,
    ended: Option<ExitStatus>,
}

/// A directory for sockets and image: in memory where the machine has such a place.
pub fn directory() -> TempDir {
    let shm = Path::new("/dev/shm");
    let made = if shm.is_dir() { tempfile::tempdir_in(shm) } else { tempfile::tempdir() };
    made.expect("a temporary directory can be made")
}

impl Backend {
    fn start(setup: &Setup, inherited: Option<Inherited>) -> Self {
        let dir = directory();
        let log = Arc::new(Mutex::new(Vec::new()));
        let (child, reader) = spawn(setup, inherited, dir.path(), &log);
        let watchdog = Some(watch(child.id()));
        let (setup, reader) = (setup.clone(), Some(reader));
        let mut backend = Backend { child, setup, dir, log, reader, watchdog, ended: None };
        backend.wait_until_it_serves();
        backend
    }

    /// Kills the process in the middle of whatever it does, and waits until nothing is left of it.
    pub fn kill(&mut self) {
        self.stop_watchdog();
        self.child.kill().expect("it has not been waited for");
        self.child.wait().expect("it is our child");
        if let Some(reader) = self.reader.take() {
            reader.join().expect("the log's reader does not fail");
        }
    }

    /// Starts another in the place of one that was killed, or that has ended.
    pub fn start_again(&mut self) {
        self.ended = None;
        let (child, reader) = spawn(&self.setup, None, self.dir.path(), &self.log);
        (self.watchdog, self.reader) = (Some(watch(child.id())), Some(reader));
        self.child = child;
        self.wait_until_it_serves();
    }

    /// The control socket is served last: once it greets, front ends are listened for too. That
    /// a socket is there would not do, since it is there before anybody listens on it.
    fn wait_until_it_serves(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(10);
        let socket = self.control_socket();
        while !greets(&socket) {
            if let Some(status) = self.wait_end(Duration::from_millis(5)) {
                panic!("the backend ended at its start: {status}");
            }
            assert!(Instant::now() < deadline, "nobody greets on {socket:?}");
        }
    }

    /// The configuration file, where there is one.
    pub fn config_file(&self) -> PathBuf {
        self.dir.path().join("config.toml")
    }

    /// Sends a signal.
    pub fn signal(&self, signal: i32) {
        sys::signal(self.child.id(), signal);
    }

    /// The vhost-user socket.
    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("guest.sock")
    }

    /// The control socket.
    pub fn control_socket(&self) -> PathBuf {
        self.dir.path().join("control.sock")
    }

    /// The address of port `port`, counted from 1, whether it was given at the start or not.
    pub fn address(&self, port: usize) -> String {
        address(self.dir.path(), port)
    }

    /// A front end like a Linux guest's under QEMU.
    pub fn guest(&self, queues: usize) -> Device {
        Device::start(&self.socket(), &Config::queues(queues))
    }

    /// A client of the control socket.
    pub fn qmp(&self) -> Qmp {
        Qmp::connect(&self.control_socket())
    }

    /// The log so far.
    pub fn log(&self) -> Vec<String> {
        self.log.lock().expect("the log's reader does not fail").clone()
    }

    /// Starts another that takes its place. Returns when the first has ended and the other serves.
    pub fn hand_over(&mut self) {
        let control = self.control_socket().display().to_string();
        let setup = self.setup.clone().option("--takeover", &control);
        let (child, reader) = spawn(&setup, None, self.dir.path(), &self.log);
        let status = self.wait_end(WATCHDOG).expect("the first one ends");
        assert_eq!(status.code(), Some(0), "the end of the first one");
        if let Some(reader) = self.reader.take() {
            reader.join().expect("the log's reader does not fail");
        }
        (self.watchdog, self.reader) = (Some(watch(child.id())), Some(reader));
        (self.child, self.ended) = (child, None);
        self.wait_until_it_serves();
    }

    /// The number of the process.
    pub fn process(&self) -> u32 {
        self.child.id()
    }

    /// The processor time that all its threads have taken.
    pub fn cpu(&self) -> Duration {
        cpu(self.child.id())
    }

    /// Asks the process to end.
    pub fn terminate(&mut self) {
        sys::signal(self.child.id(), sys::SIGTERM);
    }

    /// Waits until the process has ended by itself.
    pub fn wait_end(&mut self, timeout: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + timeout;
        while self.ended.is_none() && Instant::now() < deadline {
            if !sys::has_ended(self.child.id()) {
                std::thread::sleep(Duration::from_millis(5));
                continue;
            }
            self.stop_watchdog();
            self.ended = self.child.try_wait().expect("the child can be asked");
        }
        self.ended
    }

    /// Must come before the child is reaped: its number may then be another process's.
    fn stop_watchdog(&mut self) {
        if let Some((stop, thread)) = self.watchdog.take() {
            drop(stop);
            thread.join().expect("the watchdog does not fail");
        }
    }

    /// Ends the process, by force if it does not end by itself. Returns what was wrong.
    fn end(&mut self) -> Result<(), String> {
        if self.ended.is_none() {
            sys::signal(self.child.id(), sys::SIGTERM);
        }
        let status = self.wait_end(GRACE);
        if status.is_none() {
            self.stop_watchdog();
            // Nothing is left to do about a child that cannot be killed.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        if self.log().iter().any(|line| line.contains("panicked at")) {
            return Err("the backend panicked".to_owned());
        }
        let lines = self.log().len();
        if lines > LOG_MAX {
            return Err(format!("the backend logged {lines} lines"));
        }
        match status {
            None => Err(format!("the backend did not end within {GRACE:?} of SIGTERM")),
            Some(status) if status.code() == Some(0) => Ok(()),
            Some(status) => Err(format!("the backend ended with {status}")),
        }
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        let end = self.end();
        if end.is_err() || std::thread::panicking() {
            eprintln!("--- the backend's log, last 100 lines ---");
            let log = self.log();
            for line in log.iter().skip(log.len().saturating_sub(100)) {
                eprintln!("{line}");
            }
        }
        match end {
            Err(why) if !std::thread::panicking() => panic!("{why}"),
            Err(why) => eprintln!("{why}"),
            Ok(()) => {}
        }
    }
}

/// Starts the program in `dir`; what it logs is added to `log`.
fn spawn(
    setup: &Setup,
    inherited: Option<Inherited>,
    dir: &Path,
    log: &Arc<Mutex<Vec<String>>>,
) -> (Child, JoinHandle<()>) {
    let mut command = command(setup, inherited, dir);
    let mut child = sys::spawn(&mut command, inherited).expect("the program can be started");
    let stderr = child.stderr.take().expect("stderr is a pipe");
    let lines = log.clone();
    let reader = std::thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            lines.lock().expect("the log has no other writer").push(line);
        }
    });
    (child, reader)
}

fn command(setup: &Setup, inherited: Option<Inherited>, dir: &Path) -> Command {
    let program = env!("CARGO_BIN_EXE_vhost-user-scsi-mpath");
    let mut command = match inherited {
        // The variable names the process, which a shell knows and keeps.
        Some(Inherited::First(_)) => Command::new("/bin/sh"),
        _ => Command::new(program),
    };
    match inherited {
        Some(Inherited::First(_)) => {
            command.args(["-c", "LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" \"$@\"", program])
        }
        Some(Inherited::Same(fd)) => command.args(["--fd", &fd.to_string()]),
        None => command.arg("--socket-path").arg(dir.join("guest.sock")),
    };
    command.arg("--control").arg(dir.join("control.sock"));
    let mut paths = String::new();
    for port in 1..=setup.ports {
        let address = address(dir, port);
        match setup.listed {
            true => paths.push_str(&path(&format!("p{port}"), &address)),
            false => _ = command.args(["--path", &address]),
        }
    }
    let settings = [&setup.backend, &setup.lun, &setup.metrics, &setup.confinement, &paths];
    if settings.iter().any(|text| !text.is_empty()) {
        let file = dir.join("config.toml");
        let [backend, lun, metrics, confinement, paths] = settings;
        let text = format!("[backend]\n{backend}\n[lun]\n{lun}\n{metrics}{confinement}{paths}");
        std::fs::write(&file, text).expect("the configuration can be written");
        command.arg("--config").arg(file);
    }
    command.args(&setup.arguments).env_remove("RUST_LOG").env("RUST_BACKTRACE", "1");
    command.envs(setup.variables.iter().cloned());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

/// Kills the process `pid` when it is still there after [`WATCHDOG`].
fn watch(pid: u32) -> (Sender<()>, JoinHandle<()>) {
    let (stop, stopped) = channel();
    let thread = std::thread::spawn(move || {
        if stopped.recv_timeout(WATCHDOG) == Err(RecvTimeoutError::Timeout) {
            eprintln!("watchdog: the backend is killed after {WATCHDOG:?}");
            sys::signal(pid, sys::SIGKILL);
        }
    });
    (stop, thread)
}

/// Processor time of a process so far, in its own code and in the kernel, to 10 ms.
pub fn cpu(process: u32) -> Duration {
    let line = std::fs::read_to_string(format!("/proc/{process}/stat")).expect("it runs");
    // The name, which comes second, may have anything in it.
    let fields = line.rsplit_once(") ").expect("proc(5)").1;
    let ticks = fields.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<u64>());
    Duration::from_millis(10 * ticks.map(|ticks| ticks.expect("a number")).sum::<u64>())
}

/// True when a client of the control socket is greeted.
fn greets(socket: &Path) -> bool {
    let Ok(mut stream) = UnixStream::connect(socket) else { return false };
    let bounded = stream.set_read_timeout(Some(Duration::from_secs(5)));
    bounded.is_ok() && stream.read_exact(&mut [0]).is_ok()
}

/// A `[[path]]` of the configuration.
pub fn path(name: &str, address: &str) -> String {
    format!("[[path]]\nname = \"{name}\"\naddress = \"{address}\"\n")
}

fn address(dir: &Path, port: usize) -> String {
    let image = dir.join("disk.img");
    format!("emulated:{}?port={port}&size={IMAGE_BYTES}", image.display())
}

/// The name under which `query-paths` lists port `port`. By number: the list may spell an address
/// in another way than it was given.
pub fn path_name(qmp: &mut Qmp, port: usize) -> String {
    let paths = qmp.execute("query-paths", json!({}));
    let paths = paths.as_array().expect("query-paths returns a list");
    let setting = format!("port={port}");
    let is_it = |path: &&Value| {
        let address = path["address"].as_str().expect("a path has an address");
        address.split(['?', '&']).any(|part| part == setting)
    };
    let path = paths.iter().find(is_it);
    let path = path.unwrap_or_else(|| panic!("port {port} is not in {paths:?}"));
    path["name"].as_str().expect("a path has a name").to_owned()
}
