//! LIO, Linux's own target, in a virtual machine: one for all tests of a run, a target for each.
//!
//! The machine is images/build's kernel with `images/lio/init`, driven over its console. QEMU's user
//! networking puts its two portals on two ports of loopback.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use crate::array::DISK_BYTES;
use crate::sys;
use crate::tgtd::free_port;

/// From QEMU's start to `lio: ready`. Without KVM and on a busy machine it takes a while.
const BOOT: Duration = Duration::from_secs(120);
/// For one command.
const ANSWER: Duration = Duration::from_secs(30);

/// The machine.
struct Lio {
    ports: [u16; 2],
    console: Mutex<Console>,
}

struct Console {
    stdin: ChildStdin,
    lines: Receiver<String>,
    commands: usize,
}

impl Console {
    fn run(&mut self, command: &str) -> Vec<String> {
        self.commands += 1;
        let number = self.commands;
        writeln!(self.stdin, "{number} {command}").expect("the array takes a command");
        let end = format!("lio: {number} ");
        let mut output = Vec::new();
        loop {
            let line = self.lines.recv_timeout(ANSWER);
            let line = line.unwrap_or_else(|_| panic!("`{command}` does not end: {output:?}"));
            match line.strip_prefix(&end) {
                Some("0") => return output,
                Some(code) => panic!("`{command}` ended with {code}: {output:?}"),
                None => output.push(line),
            }
        }
    }
}

/// The only one: it takes a processor's whole attention for seconds to boot another.
fn lio() -> &'static Lio {
    static LIO: OnceLock<Lio> = OnceLock::new();
    LIO.get_or_init(Lio::boot)
}

impl Lio {
    fn boot() -> Self {
        let images = Path::new(env!("CARGO_MANIFEST_DIR")).join("images/out");
        let ports = [free_port(), free_port()];
        let (sender, receiver) = channel();
        // A child dies with the thread that started it: this one lives as long as the tests do.
        std::thread::spawn(move || {
            let mut child = sys::spawn(&mut machine(&images, ports), None)
                .expect("QEMU starts; tests/install iscsi installs it");
            let ends = child.stdin.take().zip(child.stdout.take());
            // The tests may be over.
            let _ = sender.send(ends.expect("both are pipes"));
            let _ = child.wait();
        });
        let (stdin, stdout) = receiver.recv().expect("the machine was started");
        let lines = read_lines(stdout);
        let mut seen = Vec::new();
        while seen.last().is_none_or(|line| line != "lio: ready") {
            let line = lines.recv_timeout(BOOT);
            seen.push(line.unwrap_or_else(|_| panic!("LIO does not boot: {seen:#?}")));
        }
        Lio { ports, console: Mutex::new(Console { stdin, lines, commands: 0 }) }
    }
}

fn machine(images: &Path, ports: [u16; 2]) -> Command {
    assert!(images.join("lio").exists(), "no LIO in {images:?}: images/build makes it");
    let mut command = Command::new("qemu-system-x86_64");
    // Never KVM: some machines have it and it does not work, and the array need not be fast.
    command.args(["-accel", "tcg,thread=multi", "-cpu", "max"]);
    command.args("-nodefaults -no-user-config -no-reboot -display none".split(' '));
    command.args("-machine q35 -smp 2 -m 768".split(' '));
    command.arg("-kernel").arg(images.join("vmlinuz"));
    command.arg("-initrd").arg(images.join("lio"));
    // On a busy host the kernel does not see its timer tick in time, and gives up.
    let kernel = "console=ttyS0 quiet loglevel=1 panic=-1 mitigations=off no_timer_check";
    command.args(["-append", kernel]);
    command.args(["-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"]);
    let forward = |port: u16, to: u16| format!("hostfwd=tcp:127.0.0.1:{port}-10.0.2.15:{to}");
    let forwards = [forward(ports[0], 3260), forward(ports[1], 3261)].join(",");
    command.args(["-netdev", &format!("user,id=net,restrict=on,{forwards}")]);
    command.args(["-device", "virtio-net-pci,netdev=net"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    command
}

fn read_lines(stdout: ChildStdout) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            // The firmware and the terminal have their own idea of a line's end.
            let _ = sender.send(line.trim_end_matches('\r').to_owned());
        }
    });
    receiver
}

/// One target of the machine's, with its disks as LUN 0 and on.
pub struct Target {
    pub iqn: String,
}

impl Target {
    /// A new one.
    pub fn new(disks: usize) -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let iqn = format!("iqn.2003-01.org.example:lio{number}");
        let names: Vec<String> = (0..disks).map(|disk| format!("t{number}d{disk}")).collect();
        let target = Target { iqn: iqn.clone() };
        for name in &names {
            target.run(&format!("disk {name} {}", DISK_BYTES >> 20));
        }
        target.run(&format!("target {iqn} {}", names.join(" ")));
        target
    }

    /// Runs one of the functions of `images/lio/init`, or any other shell command.
    pub fn run(&self, command: &str) -> Vec<String> {
        lio().console.lock().expect("a command of another test failed").run(command)
    }

    /// A portal, counted from 0.
    pub fn portal(&self, portal: usize) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, lio().ports[portal]).into()
    }

    /// Who may log in; with a second account, what the target answers with.
    pub fn chap(&self, incoming: (&str, &str), outgoing: Option<(&str, &str)>) {
        let (user, secret) = outgoing.unwrap_or_default();
        let (name, word) = incoming;
        self.run(&format!("chap {} {name} {word} {user} {secret}", self.iqn));
    }

    /// Ends the sessions of a portal, counted from 0, and takes no new ones; or takes them again.
    pub fn switch(&self, portal: usize, on: bool) {
        let state = if on { "on" } else { "off" };
        self.run(&format!("portal {} {} {state}", self.iqn, portal + 1));
    }
}
