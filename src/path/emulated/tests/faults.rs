//! What faults do to attempts, and how recalled attempts end.

use super::*;
use crate::path::emulated::{Fault, FaultKind};
use crate::path::{Failure, Reach, TransportEvent};

const READ: [u8; 10] = [0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0];
const WRITE: [u8; 10] = [0x2A, 0, 0, 0, 0, 0, 0, 0, 1, 0];

fn failed(failure: Failure, reach: Reach) -> Option<Fate> {
    Some(Fate::Failed(failure, reach))
}

fn set_up(kind: FaultKind) -> (Port, Initiator<PortChannel>) {
    let port = port(&array(64), 1);
    let disk = initiator(&port);
    port.inject(Fault::new(kind)).unwrap();
    (port, disk)
}

fn first_byte(port: &Port) -> u8 {
    let mut block = [0; 512];
    port.array().peek(0, &mut block).unwrap();
    block[0]
}

#[test]
fn drop_loses_the_command_for_good() {
    let (port, mut disk) = set_up(FaultKind::Drop);
    let sent = disk.send(&WRITE, &[1; 512], 0);
    assert_eq!(disk.poll(sent.attempt), None);
    port.clear_faults();
    assert_eq!(disk.poll(sent.attempt), None);
    disk.channel.recall(sent.attempt);
    assert_eq!(disk.poll(sent.attempt), failed(Failure::Recalled, Reach::Unknown));
    assert_eq!(first_byte(&port), 0);
    disk.channel.recall(sent.attempt);
    assert_eq!(disk.poll(sent.attempt), None);
}

#[test]
fn hang_executes_and_withholds_the_answer() {
    let (port, mut disk) = set_up(FaultKind::Hang);
    let first = disk.send(&WRITE, &[1; 512], 0);
    let second = disk.send(&READ, &[], 512);
    assert_eq!(disk.poll(first.attempt), None);
    assert_eq!(first_byte(&port), 1);
    disk.channel.recall(first.attempt);
    assert_eq!(disk.poll(first.attempt), failed(Failure::Recalled, Reach::Unknown));
    // From another thread, while the lane sleeps.
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(30));
            port.clear_faults();
        });
        assert!(matches!(disk.wait(&second), Fate::Answered(_)));
    });
    assert_eq!(second.data_in.to_vec()[0], 1);
}

#[test]
fn a_held_read_does_not_touch_memory_after_its_recall() {
    let (port, mut disk) = set_up(FaultKind::Hang);
    let sent = disk.send(&READ, &[], 512);
    disk.channel.recall(sent.attempt);
    assert_eq!(disk.poll(sent.attempt), failed(Failure::Recalled, Reach::Unknown));
    let before = sent.data_in.to_vec();
    port.array().poke(0, &[7; 512]).unwrap();
    port.clear_faults();
    assert_eq!(disk.poll(sent.attempt), None);
    assert_eq!(sent.data_in.to_vec(), before);
}

#[test]
fn recall_after_a_cut_does_not_hide_what_the_cut_has_proven() {
    for kind in [FaultKind::Hang, FaultKind::Drop] {
        let (port, mut disk) = set_up(kind);
        let sent = disk.send(&WRITE, &[1; 512], 0);
        port.inject(Fault::new(FaultKind::Disconnect)).unwrap();
        disk.channel.recall(sent.attempt);
        assert_eq!(disk.poll(sent.attempt), failed(Failure::Disconnected, Reach::Terminated));
        assert_eq!(disk.poll(sent.attempt), None);
    }
}

#[test]
fn delay_begins_later_and_its_recall_is_proof() {
    let (port, mut disk) = set_up(FaultKind::Delay { milliseconds: 50 });
    let begun = Instant::now();
    let sent = disk.send(&WRITE, &[1; 512], 0);
    assert_eq!(first_byte(&port), 0);
    assert!(disk.channel.next_timer().is_some());
    assert!(matches!(disk.wait(&sent), Fate::Answered(_)));
    assert!(begun.elapsed() >= Duration::from_millis(50));
    let sent = disk.send(&WRITE, &[2; 512], 0);
    disk.channel.recall(sent.attempt);
    assert_eq!(disk.poll(sent.attempt), failed(Failure::Recalled, Reach::Terminated));
    std::thread::sleep(Duration::from_millis(60));
    assert_eq!(disk.poll(sent.attempt), None);
    assert_eq!(first_byte(&port), 1);
}

#[test]
fn clearing_sends_delayed_commands_on_at_once() {
    let (port, mut disk) = set_up(FaultKind::Delay { milliseconds: 60_000 });
    let sent = disk.send(&WRITE, &[1; 512], 0);
    port.clear_faults();
    assert!(matches!(disk.poll(sent.attempt), Some(Fate::Answered(_))));
    assert_eq!(first_byte(&port), 1);
}

#[test]
fn rate_takes_its_time() {
    let (_port, mut disk) = set_up(FaultKind::Rate { bytes_per_second: 20_480 });
    let begun = Instant::now();
    let all: Vec<_> = (0..4).map(|_| disk.send(&READ, &[], 512)).collect();
    for sent in &all {
        assert!(matches!(disk.wait(sent), Fate::Answered(_)));
    }
    assert!(begun.elapsed() >= Duration::from_millis(100));
}

#[test]
fn status_and_sense_refuse_without_executing() {
    let (port, mut disk) = set_up(FaultKind::Status(Status::TASK_SET_FULL));
    let (answer, _) = disk.run(&WRITE, &[1; 512], 0);
    assert_eq!((answer.status, answer.sense), (Status::TASK_SET_FULL, None));
    port.clear_faults();
    let medium = (SenseKey::MediumError, Asc::UNRECOVERED_READ_ERROR);
    let sense = FaultKind::Sense(medium.0, medium.1);
    port.inject(Fault { count: Some(1), ..Fault::new(sense) }).unwrap();
    assert_eq!(disk.check(&WRITE, &[1; 512], 0), medium);
    assert_eq!(first_byte(&port), 0);
    disk.good(&WRITE, &[1; 512], 0);
}

#[test]
fn disconnect_ends_everything_and_clearing_brings_the_link_back() {
    let (port, mut disk) = set_up(FaultKind::Hang);
    let held = disk.send(&WRITE, &[1; 512], 0);
    port.inject(Fault { count: Some(1), ..Fault::new(FaultKind::Drop) }).unwrap();
    let mut asleep = initiator_unsettled(&port);
    let parked = asleep.send(&READ, &[], 512);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(30));
            port.inject(Fault::new(FaultKind::Disconnect)).unwrap();
        });
        let cut = Fate::Failed(Failure::Disconnected, Reach::Terminated);
        assert_eq!(asleep.wait(&parked), cut);
        assert_eq!(disk.wait(&held), cut);
    });
    assert!(port.is_disconnected());
    let sent = disk.send(&READ, &[], 512);
    assert_eq!(disk.wait(&sent), Fate::Failed(Failure::Disconnected, Reach::NotSent));
    port.clear_faults();
    disk.good(&READ, &[], 512);
    let events = port.events();
    assert!(
        matches!(events[..], [TransportEvent::Down(_), TransportEvent::Up { nexus_since: None }]),
        "{events:?}"
    );
    assert!(port.events().is_empty());
}

fn initiator_unsettled(port: &Port) -> Initiator<PortChannel> {
    Initiator::new(port.channel().unwrap())
}

#[test]
fn faults_of_one_port_leave_the_other_alone() {
    let array = array(64);
    let (first, second) = (port(&array, 1), port(&array, 2));
    let mut disk = initiator(&second);
    first.inject(Fault::new(FaultKind::Disconnect)).unwrap();
    disk.good(&READ, &[], 512);
    assert!(second.events().is_empty());
}
