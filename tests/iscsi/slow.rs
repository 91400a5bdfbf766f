//! A target that is alive and answers no command for a while is not given up for that: how long a
//! command may take is its lane's to say. One whose host is gone is. And one that always has more
//! waiting for it than it takes is no other than one that has not.

use std::process::Command;
use std::time::{Duration, Instant};

use vhost_user_scsi_mpath::buffer::{OwnedBuffer, Segments};
use vhost_user_scsi_mpath::path::{Fate, Transport};
use vhost_user_scsi_mpath::scsi::Status;

use crate::puppet::Puppet;
use crate::session::{Session, settings, transfer};

/// Longer than a silent target is given.
const LONG: Duration = Duration::from_secs(4);
/// TCP takes 3 s to give up, on a machine that has time.
const GONE: Duration = Duration::from_secs(6);

/// Sends `commands` TEST UNIT READYs, of which `taken` reach the target, and has all answered late.
fn all_are_answered_late(puppet: &Puppet, commands: usize, taken: usize) {
    let mut session = Session::open(&puppet.address(), &settings());
    session.up();
    for _ in 0..commands {
        session.submit(&[0; 6], &Segments::new(), &Segments::new());
    }
    let begin = Instant::now();
    while begin.elapsed() < LONG {
        session.look();
        let news = session.path.events();
        assert!(news.is_empty(), "after {:?}: {news:?}", begin.elapsed());
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(puppet.held(), taken);
    let mut answered = 0;
    while answered < commands {
        puppet.answer_all();
        session.look();
        for end in session.take_ends() {
            let Fate::Answered(answer) = &end.fate else { panic!("{end:?}") };
            assert_eq!(answer.status, Status::GOOD);
            answered += 1;
        }
        assert!(begin.elapsed() < 2 * LONG, "{answered} of {commands}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn slow_target_is_asked_and_stays() {
    let puppet = Puppet::start(8);
    all_are_answered_late(&puppet, 3, 3);
    assert!(puppet.nops() >= 2);
}

#[test]
fn slow_target_that_takes_no_more_commands_stays() {
    let puppet = Puppet::start(8);
    all_are_answered_late(&puppet, 20, 8);
    assert!(puppet.nops() <= 1, "{}", puppet.nops());
}

#[test]
fn slow_target_that_takes_just_the_commands_there_are_stays() {
    let puppet = Puppet::start(8);
    all_are_answered_late(&puppet, 8, 8);
    assert!(puppet.nops() <= 1, "{}", puppet.nops());
}

/// Keeps `depth` writes under way until `commands` were answered. Those that have ended must not be
/// kept for longer than something of them may be sent: the path's thread sees to that itself.
fn write_without_pause(puppet: &Puppet, commands: usize, depth: usize, bytes: usize) {
    // Before the session, which it is lent to.
    let (buffer, none) = (OwnedBuffer::zeroed(bytes), Segments::new());
    let mut session = Session::open(&puppet.address(), &settings());
    session.up();
    let (mut sent, mut done, begin) = (0, 0, Instant::now());
    while done < commands {
        while sent < commands && sent - done < depth {
            session.submit(&transfer(0x2A, 0, bytes), buffer.segments(), &none);
            sent += 1;
        }
        session.look();
        for end in session.take_ends() {
            let good = matches!(&end.fate, Fate::Answered(answer) if answer.status == Status::GOOD);
            assert!(good, "after {done}: {end:?}, {:?}", session.path.events());
            done += 1;
        }
        assert!(begin.elapsed() < 5 * LONG, "{done} of {commands}");
    }
}

#[test]
fn writes_that_never_cease_to_wait_for_the_window_are_answered() {
    write_without_pause(&Puppet::prompt(8, Duration::ZERO), 3000, 60, 512);
}

#[test]
fn writes_that_never_cease_to_wait_for_the_socket_are_answered() {
    let puppet = Puppet::prompt(4096, Duration::from_micros(200));
    write_without_pause(&puppet, 4000, 1500, 8192);
}

#[test]
fn writes_that_are_answered_before_their_data_is_there_end_once() {
    write_without_pause(&Puppet::hasty(64), 2000, 32, 65536);
}

/// Runs itself under valgrind, which sees when libiscsi reads what was freed.
#[test]
fn request_for_data_of_a_command_without_any_is_no_ones_end_but_the_sessions() {
    const NAME: &str =
        "slow::request_for_data_of_a_command_without_any_is_no_ones_end_but_the_sessions";
    if is_inside() {
        return data_is_asked_for_in_vain();
    }
    if Command::new("valgrind").arg("--version").output().is_err() {
        return println!("skipped: valgrind is not installed");
    }
    run_inside(&["valgrind", "-q", "--fair-sched=yes", "--error-exitcode=9"], NAME);
}

fn data_is_asked_for_in_vain() {
    let puppet = Puppet::hasty(64);
    let mut session = Session::open(&puppet.address(), &settings());
    session.up();
    for _ in 0..20 {
        session.submit(&[0; 6], &Segments::new(), &Segments::new());
    }
    assert_eq!(session.ends(20).len(), 20);
}

#[test]
fn target_that_reads_no_more_is_given_up() {
    let puppet = Puppet::prompt(4096, LONG);
    let (buffer, none) = (OwnedBuffer::zeroed(8192), Segments::new());
    let mut session = Session::open(&puppet.address(), &settings());
    session.up();
    // More than fits into the connection: no NOP-Out does either.
    for _ in 0..1500 {
        session.submit(&transfer(0x2A, 0, 8192), buffer.segments(), &none);
    }
    let (took, why) = session.down();
    println!("down after {took:?}: {why}");
    assert!(took < GONE, "{took:?}");
}

/// Runs itself as a process in a network of its own, whose loopback can be taken down.
#[test]
fn host_that_is_gone_is_noticed_also_while_it_takes_no_more_commands() {
    const NAME: &str = "slow::host_that_is_gone_is_noticed_also_while_it_takes_no_more_commands";
    if is_inside() {
        return host_is_gone();
    }
    let network = Command::new("unshare").args(["--net", "--", "ip", "link"]).output();
    if !network.is_ok_and(|output| output.status.success()) {
        return println!("skipped: it wants to make a network, and ip (Debian package iproute2)");
    }
    run_inside(&["unshare", "--net", "--"], NAME);
}

fn host_is_gone() {
    loopback("up");
    let puppet = Puppet::start(8);
    let mut session = Session::open(&puppet.address(), &settings());
    session.up();
    for _ in 0..20 {
        session.submit(&[0; 6], &Segments::new(), &Segments::new());
    }
    // By then it would have been asked.
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(puppet.held(), 8);
    loopback("down");
    let (took, why) = session.down();
    println!("down after {took:?}: {why}");
    assert!(took < GONE, "{took:?}");
    assert_eq!(session.ends(20).len(), 20);
}

/// Tells the process that [`run_inside`] has started.
const INSIDE: &str = "INSIDE_OF_ANOTHER_TEST";

fn is_inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// Runs the test `name` as a process of its own, started by `tool`, and holds it to its success.
fn run_inside(tool: &[&str], name: &str) {
    let output = Command::new(tool[0])
        .args(&tool[1..])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    println!("{}", String::from_utf8_lossy(&output.stdout));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn loopback(state: &str) {
    let set = Command::new("ip").args(["link", "set", "lo", state]).status();
    assert!(set.unwrap().success(), "ip link set lo {state}");
}
