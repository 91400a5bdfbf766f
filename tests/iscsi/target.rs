//! A tgtd of our own on loopback: one target with one disk as LUN 1.

use std::fs::File;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// The target's name.
pub const TARGET: &str = "iqn.2003-01.org.example:disk";
/// Bytes of the disk.
pub const SIZE: u64 = 64 << 20;

/// A running tgtd. Ended when dropped.
pub struct Tgt {
    folder: TempDir,
    control: String,
    port: u16,
    chap: Vec<String>,
    process: Child,
}

impl Tgt {
    /// One that lets everybody in, or `None` (with a line that says why) where there is none.
    pub fn start() -> Option<Self> {
        Self::with_chap(&[])
    }

    /// One that lets users in that are given as `user:secret`; one more as `user:secret:outgoing` is
    /// the target's own.
    pub fn with_chap(chap: &[&str]) -> Option<Self> {
        if Command::new("tgtd").arg("--version").output().is_err() {
            println!("skipped: tgtd is not installed (Debian package tgt)");
            return None;
        }
        if !is_root() {
            println!("skipped: tgtd wants root");
            return None;
        }
        static NEXT: AtomicU32 = AtomicU32::new(0);
        // Control numbers are the machine's: other tests may run tgtd as well.
        let number = std::process::id() % 300 * 100 + NEXT.fetch_add(1, Ordering::Relaxed) % 100;
        let folder = tempfile::tempdir().unwrap();
        File::create(folder.path().join("disk")).unwrap().set_len(SIZE).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let control = number.to_string();
        let process = spawn(&control, port);
        let chap = chap.iter().map(|one| (*one).to_owned()).collect();
        let mut tgt = Tgt { folder, control, port, chap, process };
        tgt.set_up();
        Some(tgt)
    }

    /// The address of LUN `lun`, with `user` before the host.
    pub fn address(&self, user: &str, lun: u16) -> String {
        format!("iscsi://{user}127.0.0.1:{}/{TARGET}/{lun}", self.port)
    }

    /// Kills it and waits until it is gone.
    pub fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Starts it again after [`Tgt::kill`], on the same port and disk.
    pub fn start_again(&mut self) {
        self.process = spawn(&self.control, self.port);
        self.set_up();
    }

    /// It does nothing any more, and its connections stay.
    pub fn freeze(&self) {
        self.signal("-STOP");
    }

    /// It goes on.
    pub fn thaw(&self) {
        self.signal("-CONT");
    }

    /// Sessions that it knows of.
    pub fn sessions(&self) -> usize {
        let shown = self.admin(&["--op", "show", "--mode", "target"]).unwrap();
        shown.matches("I_T nexus: ").count()
    }

    fn signal(&self, signal: &str) {
        let pid = self.process.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    fn set_up(&mut self) {
        let until = Instant::now() + Duration::from_secs(10);
        let target = ["--op", "new", "--mode", "target", "--tid", "1", "-T", TARGET];
        while let Err(error) = self.admin(&target) {
            assert!(Instant::now() < until, "tgtd does not answer: {error}");
            sleep(Duration::from_millis(20));
        }
        let disk = self.folder.path().join("disk").display().to_string();
        let unit =
            ["--op", "new", "--mode", "logicalunit", "--tid", "1", "--lun", "1", "-b", &disk];
        self.admin(&unit).unwrap();
        for account in self.chap.clone() {
            let parts: Vec<&str> = account.split(':').collect();
            let new =
                ["--op", "new", "--mode", "account", "--user", parts[0], "--password", parts[1]];
            self.admin(&new).unwrap();
            let bind = ["--op", "bind", "--mode", "account", "--tid", "1", "--user", parts[0]];
            let outgoing: &[&str] = if parts.len() > 2 { &["--outgoing"] } else { &[] };
            self.admin(&[&bind[..], outgoing].concat()).unwrap();
        }
        self.admin(&["--op", "bind", "--mode", "target", "--tid", "1", "-I", "ALL"]).unwrap();
    }

    fn admin(&self, arguments: &[&str]) -> Result<String, String> {
        let output = Command::new("tgtadm")
            .args(["-C", &self.control, "--lld", "iscsi"])
            .args(arguments)
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        match output.status.success() {
            true => Ok(text(&output.stdout)),
            false => Err(text(&output.stderr)),
        }
    }
}

impl Drop for Tgt {
    fn drop(&mut self) {
        // A frozen one dies as well.
        let _ = self.process.kill();
        let _ = self.process.wait();
        for file in ["", ".lock"] {
            let _ = std::fs::remove_file(format!("/var/run/tgtd/socket.{}{file}", self.control));
        }
    }
}

fn spawn(control: &str, port: u16) -> Child {
    Command::new("tgtd")
        .args(["-f", "-C", control, "--iscsi", &format!("portal=127.0.0.1:{port}")])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn is_root() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    status.lines().any(|line| line.starts_with("Uid:\t0\t"))
}
