//! The program is killed with requests in flight, and another takes its place: every request is
//! answered, once, and the data is what was written.

use std::io::Write as _;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::backend::{Backend, IMAGE_BYTES, Setup, path_name};
use crate::driver::{Device, RingPlace};
use crate::initiator::{pattern, read, write};
use crate::load::Load;
use crate::queue::{Command, LUN0, PROMPT, Queue, Ticket, response};

const QUEUES: usize = 2;
const DEPTH: usize = 8;
/// Room for a busy machine on top of every bound.
const SLACK: Duration = Duration::from_millis(500);

/// ABORTED COMMAND, I_T NEXUS LOSS OCCURRED.
const LOST: (u8, u8, u8) = (0xB, 0x29, 0x07);

/// Kills the program, starts it again and connects to it.
fn crash(backend: &mut Backend, device: &mut Device, rings: &[RingPlace]) {
    backend.kill();
    backend.start_again();
    device.reconnect(&backend.socket(), rings).expect("the device starts again");
}

/// Has commands be under way at any time, and answered in another order than they came in.
fn slow_down_one_path(backend: &Backend) {
    let mut qmp = backend.qmp();
    let name = path_name(&mut qmp, 1);
    let delay = json!({"path": name, "fault": "delay", "milliseconds": 10});
    qmp.execute("inject-fault", delay);
}

#[test]
fn killed_again_and_again_under_load_is_not_seen_by_the_guest() {
    let mut backend = Setup::ports(2).option("--iopolicy", "round-robin").start();
    slow_down_one_path(&backend);
    let mut device = backend.guest(QUEUES);
    device.queue().settle();
    let rings = device.places();
    let load = Load::start(std::mem::take(&mut device.queues), DEPTH);
    let mut away = Duration::ZERO;
    for turn in 0..10u64 {
        // Not always at the same point of what it does.
        std::thread::sleep(Duration::from_millis(200 + 7 * turn));
        let begin = Instant::now();
        backend.kill();
        backend.start_again();
        slow_down_one_path(&backend);
        device.reconnect(&backend.socket(), &rings).expect("the device starts again");
        away = away.max(begin.elapsed());
    }
    std::thread::sleep(Duration::from_millis(200));
    let (_, report) = load.stop();
    let row = format!(
        "stall | killed, ten times | longest read {:.1?} | longest write {:.1?} | away {away:.1?}\n",
        report.longest_read, report.longest_write
    );
    let _ = std::io::stderr().write_all(row.as_bytes());
    report.assert_clean();
    let bound = away + SLACK + 4 * report.longest_pause;
    assert!(report.longest_read < bound && report.longest_write < bound, "{row}");
}

/// Commands that the only path keeps to itself.
fn held(backend: &Backend, device: &mut Device, commands: &[Command]) -> Vec<Ticket> {
    let mut qmp = backend.qmp();
    let name = path_name(&mut qmp, 1);
    qmp.execute("inject-fault", json!({"path": name, "fault": "hang"}));
    let tickets = commands.iter().map(|command| device.queue().submit(command)).collect();
    qmp.wait_until_held(commands.len());
    tickets
}

/// COMPARE AND WRITE of one block.
fn compare_and_write(lba: u32, data: Vec<u8>) -> Command {
    let mut cdb = [0; 16];
    cdb[0] = 0x89;
    cdb[6..10].copy_from_slice(&lba.to_be_bytes());
    cdb[13] = 1;
    Command::writing(&cdb, data)
}

#[test]
fn killed_with_commands_under_way_answers_each_as_it_may_be_repeated() {
    let mut backend = Setup::ports(1).start();
    let mut device = backend.guest(1);
    device.queue().settle();
    let commands = [
        write(0, pattern(1, 8)),
        compare_and_write(64, vec![0; 1024]),
        read(64, 8),
        Command::bare(&[0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
    ];
    let tickets = held(&backend, &mut device, &commands);
    let rings = device.places();
    crash(&mut backend, &mut device, &rings);
    let queue = device.queue();
    let answers: Vec<_> = tickets.iter().map(|ticket| queue.wait(*ticket, PROMPT)).collect();
    assert!(answers[0].is_good(), "{:?}", answers[0]);
    assert_eq!(answers[1].sense_code(), Some(LOST), "{:?}", answers[1]);
    assert!(answers[2].is_good() && answers[3].is_good(), "{answers:?}");
    assert_eq!(queue.good(&read(0, 8)).data, pattern(1, 8));
    assert_eq!(queue.outstanding(), 0);
}

#[test]
fn killed_with_commands_under_way_repeats_them_in_the_order_in_which_they_came() {
    if !Path::new("/dev/shm").is_dir() {
        // Elsewhere the array executes commands side by side, and their order shows in nothing.
        eprintln!("skipped: no /dev/shm");
        return;
    }
    let mut backend = Setup::ports(1).start();
    let mut device = backend.guest(1);
    device.queue().settle();
    // The driver's free heads are in no order after this.
    for _ in 0..3 {
        let tickets: Vec<_> = (0..8).map(|lba| device.queue().submit(&read(lba, 1))).collect();
        tickets
            .into_iter()
            .for_each(|ticket| assert!(device.queue().wait(ticket, PROMPT).is_good()));
    }
    let writes: Vec<Command> = (0..8).map(|seed| write(0, pattern(seed, 8))).collect();
    let tickets = held(&backend, &mut device, &writes);
    let rings = device.places();
    crash(&mut backend, &mut device, &rings);
    let queue = device.queue();
    for ticket in tickets {
        assert!(queue.wait(ticket, PROMPT).is_good());
    }
    // The array of a directory in memory executes one command after the other.
    assert_eq!(queue.good(&read(0, 8)).data, pattern(7, 8), "the last write was not the last");
}

#[test]
fn killed_twice_before_the_first_answer_repeats_the_commands_again() {
    let mut backend = Setup::ports(1).start();
    let mut device = backend.guest(1);
    device.queue().settle();
    let tickets = held(&backend, &mut device, &[write(8, pattern(3, 8)), read(64, 8)]);
    let rings = device.places();
    backend.kill();
    backend.start_again();
    backend.kill();
    backend.start_again();
    device.reconnect(&backend.socket(), &rings).expect("the device starts again");
    for ticket in tickets {
        assert!(device.queue().wait(ticket, PROMPT).is_good());
    }
    assert_eq!(device.queue().good(&read(8, 8)).data, pattern(3, 8));
}

#[test]
fn repeated_write_does_not_tell_a_unit_attention() {
    let mut backend = Setup::ports(1).start();
    let mut device = backend.guest(1);
    device.queue().settle();
    let rings = device.places();
    let tickets = held(&backend, &mut device, &[write(8, pattern(6, 8))]);
    backend.kill();
    backend.start_again();
    let image = backend.socket().with_file_name("disk.img");
    let file = std::fs::OpenOptions::new().write(true).open(&image).expect("the image is there");
    file.set_len(2 * IMAGE_BYTES).expect("it can be made longer");
    let deadline = Instant::now() + 3 * PROMPT;
    while !backend.log().iter().any(|line| line.contains("and the guest is told so")) {
        assert!(Instant::now() < deadline, "the new size is not seen");
        std::thread::sleep(Duration::from_millis(5));
    }
    device.reconnect(&backend.socket(), &rings).expect("the device starts again");
    for ticket in tickets {
        let answer = device.queue().wait(ticket, PROMPT);
        assert!(answer.is_good(), "{answer:?}");
    }
    let next = device.queue().run(&read(8, 8));
    assert!(!next.is_good(), "nobody was told of the new size: {next:?}");
}

#[test]
fn event_buffers_are_used_by_the_successor() {
    let mut backend = Setup::ports(2).start();
    let mut device = backend.guest(1);
    device.queue().settle();
    let rings = device.places();
    for _ in 0..2 {
        crash(&mut backend, &mut device, &rings);
        device.queue().settle();
    }
    let image = backend.socket().with_file_name("disk.img");
    let file = std::fs::OpenOptions::new().write(true).open(&image).expect("the image is there");
    file.set_len(2 * IMAGE_BYTES).expect("it can be made longer");
    assert!(device.events().next(3 * PROMPT).is_some(), "no event");
}

#[test]
fn front_end_that_connects_again_to_the_same_program_gets_every_answer() {
    let backend = Setup::ports(1).start();
    let mut device = backend.guest(1);
    device.queue().settle();
    let tickets = held(&backend, &mut device, &[write(16, pattern(4, 8)), read(64, 8)]);
    let rings = device.places();
    backend.qmp().execute("clear-faults", json!({}));
    device.reconnect(&backend.socket(), &rings).expect("the device starts again");
    for ticket in tickets {
        assert!(device.queue().wait(ticket, PROMPT).is_good());
    }
    assert_eq!(device.queue().good(&read(16, 8)).data, pattern(4, 8));
}

#[test]
fn task_management_that_waited_for_a_device_ends_what_waited_as_well() {
    let mut backend = Setup::ports(1).start();
    let mut device = backend.guest(4);
    device.queues.iter_mut().for_each(|queue| _ = queue.settle());
    let rings = device.places();
    for turn in 0..5 {
        backend.kill();
        let each = |queue: &mut Queue| queue.submit(&write(8 * turn, pattern(turn as u8, 8)));
        let tickets: Vec<Ticket> = device.queues.iter_mut().map(each).collect();
        let mut control = device.control.take().expect("there is a control queue");
        let reset = std::thread::spawn(move || (control.manage(5, LUN0, 0), control));
        backend.start_again();
        device.reconnect(&backend.socket(), &rings).expect("the device starts again");
        let (answer, control) = reset.join().expect("LOGICAL UNIT RESET is answered");
        assert_eq!(answer, response::OK, "FUNCTION COMPLETE");
        device.control = Some(control);
        for (queue, ticket) in device.queues.iter_mut().zip(tickets) {
            let answer = queue.take(ticket).expect("it ended before the reset was complete");
            assert!(answer.is_good() || answer.response == response::RESET, "{answer:?}");
        }
        device.queues.iter_mut().for_each(|queue| _ = queue.settle());
    }
}

/// A region that is changed while the program is dead, and what its successor says of it.
fn complaint(change: impl FnOnce(&mut Device)) -> String {
    let mut backend = Setup::ports(1).start();
    let mut device = backend.guest(1);
    device.queue().settle();
    let rings = device.places();
    backend.kill();
    change(&mut device);
    backend.start_again();
    // Whether it says so in the answer to a message, or ends the ring, is its own affair.
    let _ = device.reconnect(&backend.socket(), &rings);
    let deadline = Instant::now() + PROMPT;
    let complaint = loop {
        let log = backend.log();
        if let Some(line) = log.iter().find(|line| line.contains("in-flight region")) {
            break line.clone();
        }
        assert!(Instant::now() < deadline, "no complaint in {log:#?}");
        std::thread::sleep(Duration::from_millis(5));
    };
    drop(device);
    crate::handshake::exercise(&mut backend.guest(1), 3);
    complaint
}

/// Where the first request ring's part begins, with rings of 128 entries.
const PART: u64 = 2 * 2112;

#[test]
fn region_that_makes_no_sense_is_refused_and_the_next_front_end_is_served() {
    let poke = |at: u64, bytes: &'static [u8]| {
        move |device: &mut Device| {
            let (_, file) = device.region.as_ref().expect("there is a region");
            file.write_all_at(bytes, PART + at).expect("it can be written");
        }
    };
    let line = complaint(poke(8, &[7, 0]));
    assert!(line.contains("ring 2 does not start") && line.contains("version is 7"), "{line}");
    let line = complaint(poke(10, &[1, 0]));
    assert!(line.contains("written for 1 entries, the region has 128"), "{line}");
    let line = complaint(poke(14, &[0, 0x80]));
    assert!(line.contains("used index"), "{line}");
    let line = complaint(poke(16, &[9]));
    assert!(line.contains("it says 9 of descriptor 0"), "{line}");
}

#[test]
fn region_that_is_too_small_is_refused_and_the_next_front_end_is_served() {
    let shape = |change: fn(&mut vhost::vhost_user::message::VhostUserInflight)| {
        move |device: &mut Device| {
            change(&mut device.region.as_mut().expect("there is a region").0);
        }
    };
    let line = complaint(shape(|shape| shape.mmap_size = 64));
    assert!(line.contains("has 64 bytes and needs 6336"), "{line}");
    let line = complaint(shape(|shape| shape.mmap_offset = 1 << 40));
    assert!(line.contains("ends before the region does"), "{line}");
    let line = complaint(shape(|shape| shape.num_queues = 2));
    assert!(line.contains("is for 2 rings of 128 entries, this is ring 2"), "{line}");
    let line = complaint(shape(|shape| shape.queue_size = 0x4000));
    assert!(line.contains("rings of 16384 entries"), "{line}");
}
