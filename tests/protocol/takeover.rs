//! A new program takes the place of one that serves.

use std::io::Write as _;
use std::os::unix::net::UnixListener;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::backend::{Backend, Setup, directory, path_name};
use crate::driver::{Device, RingPlace};
use crate::initiator::{pattern, read, write};
use crate::load::Load;
use crate::queue::PROMPT;

/// Room for a busy machine on top of every bound.
const SLACK: Duration = Duration::from_secs(1);

/// Hands over, and connects again; how long the front end was without a device.
fn hand_over(backend: &mut Backend, device: &mut Device, rings: &[RingPlace]) -> Duration {
    let socket = backend.socket();
    std::thread::scope(|scope| {
        let front_end = scope.spawn(|| {
            assert!(device.is_closed(PROMPT), "the first one has not let go");
            let begin = Instant::now();
            device.reconnect(&socket, rings).expect("the device starts again");
            begin.elapsed()
        });
        backend.hand_over();
        front_end.join().expect("the front end does not fail")
    })
}

#[test]
fn takeover_under_load_is_not_seen_by_the_guest() {
    let mut backend = Setup::ports(2).start();
    let mut device = backend.guest(2);
    device.queue().settle();
    let rings = device.places();
    let load = Load::start(std::mem::take(&mut device.queues), 8);
    let mut away = Duration::ZERO;
    for _ in 0..3 {
        std::thread::sleep(Duration::from_millis(300));
        away = away.max(hand_over(&mut backend, &mut device, &rings));
    }
    std::thread::sleep(Duration::from_millis(300));
    let (_, report) = load.stop();
    let row = format!(
        "stall | taken over, three times | longest read {:.1?} | longest write {:.1?} | \
         away {away:.1?}\n",
        report.longest_read, report.longest_write
    );
    let _ = std::io::stderr().write_all(row.as_bytes());
    report.assert_clean();
    let bound = SLACK + 4 * report.longest_pause;
    assert!(report.longest_read < bound && report.longest_write < bound, "{row}");
}

#[test]
fn takeover_with_commands_that_no_path_answers_keeps_them() {
    let mut backend = Setup::ports(1).backend("stop_deadline = 0.5").start();
    let mut device = backend.guest(1);
    device.queue().settle();
    let mut qmp = backend.qmp();
    let name = path_name(&mut qmp, 1);
    qmp.execute("inject-fault", json!({"path": name, "fault": "hang"}));
    let commands = [write(8, pattern(5, 8)), read(64, 8)];
    let tickets = commands.map(|command| device.queue().submit(&command));
    qmp.wait_until_held(2);
    let rings = device.places();
    hand_over(&mut backend, &mut device, &rings);
    for ticket in tickets {
        assert!(device.queue().wait(ticket, PROMPT).is_good());
    }
    assert_eq!(device.queue().good(&read(8, 8)).data, pattern(5, 8));
}

#[test]
fn takeover_without_a_front_end_leaves_a_backend_that_serves() {
    let mut backend = Setup::ports(1).start();
    backend.hand_over();
    crate::handshake::exercise(&mut backend.guest(1), 9);
    // The file is the second one's now, and goes with it.
    backend.terminate();
    assert!(backend.wait_end(PROMPT).is_some_and(|status| status.code() == Some(0)));
    assert!(!backend.socket().exists(), "the socket was left behind");
}

/// A program that should refuse to take the place of the one behind `control`.
fn refused(backend: &Backend, socket: &str, path: &str, control: &str) -> String {
    let program = env!("CARGO_BIN_EXE_vhost-user-scsi-mpath");
    let arguments = ["--socket-path", socket, "--path", path, "--takeover", control];
    let Output { status, stderr, .. } =
        Command::new(program).args(arguments).output().expect("it can be started");
    assert_eq!(status.code(), Some(1));
    crate::handshake::exercise(&mut backend.guest(1), 7);
    String::from_utf8(stderr).expect("it is text")
}

#[test]
fn takeover_that_cannot_be_leaves_the_first_one_alone() {
    let backend = Setup::ports(1).start();
    let (socket, control) = (backend.socket(), backend.control_socket());
    let (socket, control) = (socket.display().to_string(), control.display().to_string());
    let path = backend.address(1);
    let said = refused(&backend, "/tmp/another.sock", &path, &control);
    assert!(
        said.contains(&format!("that backend serves {socket}, not /tmp/another.sock")),
        "{said}"
    );
    let said = refused(&backend, &socket, "emulated:/nowhere/disk.img", &control);
    assert!(said.contains("/nowhere/disk.img"), "{said}");
    let said = refused(&backend, &socket, &path, "/nowhere.ctl");
    assert!(said.contains("/nowhere.ctl: there is no such socket"), "{said}");
}

#[test]
fn takeover_of_an_inherited_socket_is_refused() {
    let dir = directory();
    let listener = UnixListener::bind(dir.path().join("guest.sock")).expect("a socket");
    let backend = Setup::ports(1).start_on(std::os::fd::AsRawFd::as_raw_fd(&listener));
    let refusal = backend.qmp().try_execute("takeover", json!({}));
    let refusal = refusal.expect_err("it is not its own");
    assert!(refusal.contains("belongs to whoever started this backend"), "{refusal}");
}
