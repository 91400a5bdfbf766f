//! tgtd, the user-space target: one process a test, its management socket and data in a directory
//! of its own.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::array::{DISK_BYTES, IQN};
use crate::backend::directory;
use crate::sys;

/// Debian has both where a user without rights does not look.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";
/// From start to listening; the machine may be busy.
const START: Duration = Duration::from_secs(10);

/// A running tgtd with one target: an administrative LUN 0, and one disk from LUN 1 on.
pub struct Tgtd {
    dir: TempDir,
    port: u16,
    /// `None` after [`Tgtd::kill`].
    child: Option<Child>,
    disks: usize,
    /// What was set up by [`Tgtd::admin`], to be said again after a start.
    said: Vec<Vec<String>>,
}

/// Ports below those that the kernel gives to connections, a different one for every caller.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Test programs that run side by side begin at different places.
    let base = 20_000 + (std::process::id() % 500) as u16 * 20;
    for _ in 0..1000 {
        let port = base + NEXT.fetch_add(1, Ordering::Relaxed) % 2000;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("no port is free");
}

impl Tgtd {
    /// A target with so many disks.
    pub fn start(disks: usize) -> Self {
        let dir = directory();
        for disk in 1..=disks {
            let file = std::fs::File::create(dir.path().join(format!("disk{disk}")));
            file.and_then(|file| file.set_len(DISK_BYTES)).expect("a disk can be made");
        }
        let port = free_port();
        let child = Some(Tgtd::spawn(&dir, port));
        let mut tgtd = Tgtd { dir, port, child, disks, said: Vec::new() };
        tgtd.set_up();
        tgtd
    }

    fn spawn(dir: &TempDir, port: u16) -> Child {
        let log = std::fs::File::create(dir.path().join("log")).expect("a log can be made");
        let mut command = Command::new("tgtd");
        command.args(["-f", "--iscsi", &format!("portal=127.0.0.1:{port}")]);
        command.env("PATH", PATH).env("TGT_IPC_SOCKET", dir.path().join("ipc"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        sys::spawn(&mut command, None).expect("tgtd starts; tests/install iscsi installs it")
    }

    fn set_up(&mut self) {
        let deadline = Instant::now() + START;
        while !self.says(&words("--op show --mode system")) {
            assert!(Instant::now() < deadline, "tgtd does not start: {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
        self.must(&words(&format!("--lld iscsi --op new --mode target --tid 1 -T {IQN}")));
        for disk in 1..=self.disks {
            let file = self.dir.path().join(format!("disk{disk}"));
            let new = "--lld iscsi --op new --mode logicalunit --tid 1";
            self.must(&words(&format!("{new} --lun {disk} -b {}", file.display())));
        }
        self.must(&words("--lld iscsi --op bind --mode target --tid 1 -I ALL"));
        for arguments in self.said.clone() {
            self.must(&arguments);
        }
        let listens = || TcpStream::connect(self.address()).is_ok();
        while !listens() {
            assert!(Instant::now() < deadline, "tgtd does not listen: {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The portal.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// Who may log in; with a second account, what the target answers with.
    pub fn chap(&mut self, incoming: (&str, &str), outgoing: Option<(&str, &str)>) {
        let mut account = |(user, secret): (&str, &str), way: &str| {
            let new = "--lld iscsi --mode account --op new";
            self.admin(&format!("{new} --user {user} --password {secret}"));
            let bind = "--lld iscsi --mode account --op bind --tid 1";
            self.admin(&format!("{bind} --user {user}{way}"));
        };
        account(incoming, "");
        if let Some(outgoing) = outgoing {
            account(outgoing, " --outgoing");
        }
    }

    /// A setting that outlives [`Tgtd::restart`].
    pub fn admin(&mut self, arguments: &str) {
        let arguments = words(arguments);
        self.must(&arguments);
        self.said.push(arguments);
    }

    /// Ends the process as a crash does.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().and_then(|()| child.wait()).expect("a child can be killed");
        }
    }

    /// Starts it again after [`Tgtd::kill`], with the same data and settings.
    pub fn restart(&mut self) {
        for file in ["ipc.0", "ipc.0.lock"] {
            // It may have left none.
            let _ = std::fs::remove_file(self.dir.path().join(file));
        }
        self.child = Some(Tgtd::spawn(&self.dir, self.port));
        self.set_up();
    }

    fn must(&self, arguments: &[String]) {
        assert!(self.says(arguments), "tgtadm {arguments:?}: {}", self.log());
    }

    fn says(&self, arguments: &[String]) -> bool {
        let mut command = Command::new("tgtadm");
        command.args(arguments).env("PATH", PATH);
        command.env("TGT_IPC_SOCKET", self.dir.path().join("ipc"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().expect("tgtadm starts").success()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Tgtd {
    /// By force: while it has sessions it does not heed SIGTERM.
    fn drop(&mut self) {
        self.kill();
    }
}

fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}
