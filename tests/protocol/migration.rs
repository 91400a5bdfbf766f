//! The guest goes on elsewhere: its memory is copied by the marks in the dirty log, and the rings stop
//! with nothing left under way.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;
use vhost::vhost_user::VhostUserFrontend;
use vhost::{VhostBackend, VhostUserDirtyLogRegion};

use crate::backend::{Setup, path_name};
use crate::control::function;
use crate::driver::{Config, Device, RingPlace, feature};
use crate::initiator::{inquiry, pattern, read, read_capacity_16, vital_product_data, write};
use crate::load::Load;
use crate::memory::{GuestMemory, PAGE};
use crate::qmp::Qmp;
use crate::queue::{Command, Completion, LUN0, PROMPT, Ticket, response};
use crate::stop::{hang, submit};
use crate::sys::memfd;

const SLACK: Duration = Duration::from_millis(500);
const DEADLINE: Duration = Duration::from_secs(1);
/// The status BUSY.
const BUSY: u8 = 8;
/// ABORTED COMMAND, I_T NEXUS LOSS OCCURRED.
const LOST: (u8, u8, u8) = (0xB, 0x29, 0x07);

/// A dirty log for all of a guest's memory.
struct Log(File, usize);

impl Log {
    fn new(memory: &GuestMemory) -> Self {
        let len = memory.end().div_ceil(PAGE).div_ceil(8) as usize;
        Log(memfd(len), len)
    }

    /// The pages that are marked.
    fn marked(&self) -> BTreeSet<u64> {
        let mut bytes = vec![0; self.1];
        self.0.read_exact_at(&mut bytes, 0).expect("a memfd can be read");
        let is_set = |page: &u64| bytes[(page / 8) as usize] & 1 << (page % 8) != 0;
        (0..self.1 as u64 * 8).filter(is_set).collect()
    }
}

impl Device {
    /// As QEMU turns the log on: the log, LOG_ALL, and the used rings' addresses.
    fn log_on(&mut self) -> Log {
        let places = self.places();
        self.log_on_at(&places)
    }

    /// The same of rings that are with other threads.
    fn log_on_at(&mut self, places: &[RingPlace]) -> Log {
        let log = Log::new(&self.memory);
        let (mmap_size, mmap_handle) = (log.1 as u64, log.0.as_raw_fd());
        let region = VhostUserDirtyLogRegion { mmap_size, mmap_offset: 0, mmap_handle };
        self.session.frontend.set_log_base(0, Some(region)).expect("the log is taken");
        self.set_log(places, true);
        log
    }

    fn log_off(&mut self) {
        let places = self.places();
        self.set_log(&places, false);
    }

    fn set_log(&mut self, places: &[RingPlace], on: bool) {
        let log_all = if on { feature::LOG_ALL } else { 0 };
        let features = self.config.features | feature::PROTOCOL | log_all;
        self.session.frontend.set_features(features).expect("LOG_ALL is taken");
        for place in places {
            let addresses = place.addresses(on);
            let told = self.session.frontend.set_vring_addr(place.index, &addresses);
            told.expect("it may be told again");
        }
    }
}

/// Commands of all kinds: data, data that is shorter than the room for it, sense, none.
fn all_kinds(seed: u32) -> Vec<Command> {
    let lba = seed * 64;
    let mut commands = vec![inquiry(255), vital_product_data(0x83, 4096), read_capacity_16()];
    commands.extend([1, 8, 17, 120].map(|blocks| read(lba, blocks)));
    commands.push(read(u32::MAX, 8));
    commands.push(write(lba, pattern(seed as u8 + 1, 120)));
    commands.push(read(lba, 120));
    commands.push(Command::reading(&[0xC1; 10], 5000));
    commands
}

/// Runs all kinds of commands and a task management function.
fn exercise(device: &mut Device) {
    for seed in 0..4 {
        for command in all_kinds(seed) {
            device.queue().run(&command);
        }
    }
    device.control().manage(function::QUERY_TASK_SET, LUN0, 0);
    // What is written after the last answer: the wish to be kicked.
    std::thread::sleep(Duration::from_millis(50));
}

fn assert_all_marked(setup: Setup) {
    let backend = setup.start();
    let mut device = backend.guest(1);
    device.queue().settle();
    let memory = device.memory.clone();
    let log = device.log_on();
    memory.watch();
    exercise(&mut device);
    let (written, marked) = (memory.stale(), log.marked());
    assert!(written.len() > 15, "the test shows nothing: {written:?}");
    let missing = written.iter().filter(|page| !marked.contains(page));
    assert_eq!(missing.collect::<Vec<_>>(), [&0; 0], "pages that were written and not marked");
    device.log_off();
    let before = log.marked();
    exercise(&mut device);
    assert_eq!(log.marked(), before, "marked although LOG_ALL is off");
}

#[test]
fn every_page_that_is_written_is_marked_on_an_image_in_memory() {
    assert_all_marked(Setup::ports(2));
}

#[test]
fn every_page_that_is_written_is_marked_on_an_image_on_a_disk() {
    let dir = tempfile::tempdir_in(Path::new(env!("CARGO_TARGET_TMPDIR"))).expect("a directory");
    let image = dir.path().join("disk.img");
    let port = format!("emulated:{}?port=1&size=64M", image.display());
    assert_all_marked(Setup::ports(0).option("--path", &port));
}

#[test]
fn every_page_that_is_written_is_marked_on_a_null_path() {
    assert_all_marked(Setup::ports(0).option("--path", "null:64M"));
}

#[test]
fn every_page_that_is_written_is_marked_where_reads_are_hedged() {
    assert_all_marked(Setup::ports(2).lun("hedged_reads = true"));
}

#[test]
fn memory_that_is_copied_by_its_marks_under_load_is_the_guests() {
    let backend = Setup::ports(2).start();
    let mut device = backend.guest(2);
    device.queue().settle();
    let memory = device.memory.clone();
    let places = device.places();
    let (control, events) = (device.control.take(), device.events.take());
    let load = Load::start(std::mem::take(&mut device.queues), 8);
    std::thread::sleep(Duration::from_millis(100));
    // The rings are with the load's threads: their addresses are told by where they are.
    let log = device.log_on_at(&places);
    memory.watch();
    std::thread::sleep(Duration::from_millis(300));
    for ring in 0..4 {
        device.session.frontend.get_vring_base(ring).expect("the ring stops");
    }
    // Until the load's threads have nothing to send any more.
    std::thread::sleep(Duration::from_millis(200));
    assert!(memory.stale().len() > 15, "the test shows nothing");
    memory.copy_again(log.marked());
    assert_eq!(memory.stale(), [0; 0], "pages that were written and not marked");
    (device.control, device.events) = (control, events);
    device.run_again(&places).expect("the rings start again");
    std::thread::sleep(Duration::from_millis(200));
    load.stop().1.assert_clean();
}

/// Stops the rings to move, and sees that nothing is left of them; the answers.
fn stop_to_move(device: &mut Device, tickets: &[Vec<Ticket>], bound: Duration) -> Vec<Completion> {
    let start = Instant::now();
    let positions = device.stop().expect("the rings stop");
    let took = start.elapsed();
    assert!(took < bound, "the rings took {took:?}");
    for ((_, ring), position) in device.rings().into_iter().zip(positions).skip(2) {
        assert_eq!(u32::from(ring.used_index()), position, "a request is lost");
    }
    let queues = device.queues.iter_mut().zip(tickets);
    queues
        .flat_map(|(queue, tickets)| {
            tickets.iter().map(|ticket| queue.take(*ticket)).collect::<Vec<_>>()
        })
        .map(|answer| answer.expect("a guest that moves is owed no answer"))
        .collect()
}

fn assert_busy(answers: &[Completion]) {
    for answer in answers {
        assert_eq!((answer.response, answer.status), (response::OK, BUSY), "{answer:?}");
    }
}

#[test]
fn move_with_no_path_waits_for_nothing_and_keeps_nothing() {
    let backend = Setup::ports(1).start();
    let mut qmp = backend.qmp();
    let mut device = backend.guest(3);
    device.queue().settle();
    let name = path_name(&mut qmp, 1);
    qmp.execute("path-fail", json!({"name": name}));
    let tickets = submit(&mut device);
    qmp.wait_until_held(3 * 8);
    device.log_on();
    assert_busy(&stop_to_move(&mut device, &tickets, SLACK));
}

#[test]
fn move_with_commands_on_a_dead_path_ends_by_the_deadline() {
    let backend = Setup::ports(1).backend("stop_deadline = 1.0").lun("write_quiesce = 0.3").start();
    let mut qmp = backend.qmp();
    let mut device = backend.guest(2);
    device.queue().settle();
    hang(&mut qmp);
    let tickets = submit(&mut device);
    let mut cdb = [0; 16];
    (cdb[0], cdb[9], cdb[13]) = (0x89, 200, 1);
    let compare = device.queue().submit(&Command::writing(&cdb, vec![0; 1024]));
    qmp.wait_until_held(2 * 8 + 1);
    device.log_on();
    assert_busy(&stop_to_move(&mut device, &tickets, DEADLINE + SLACK));
    let compared = device.queue().take(compare).expect("it is answered");
    assert_eq!(compared.sense_code(), Some(LOST), "it may have been executed");
}

#[test]
fn move_after_a_pause_answers_what_was_given_back() {
    let backend = Setup::ports(1).start();
    let mut qmp = backend.qmp();
    let mut device = backend.guest(2);
    device.queue().settle();
    let name = path_name(&mut qmp, 1);
    qmp.execute("path-fail", json!({"name": name}));
    let tickets = submit(&mut device);
    qmp.wait_until_held(2 * 8);
    device.stop().expect("the rings stop");
    let queue = device.queue();
    assert!(queue.take(tickets[0][0]).is_none(), "it is in the in-flight region");
    device.resume().expect("the rings start again");
    device.log_on();
    assert_busy(&stop_to_move(&mut device, &tickets, SLACK));
}

/// Marks a request as taken, as a process that died leaves it.
fn take_and_die(device: &Device, ring: usize, head: u16) {
    let (shape, file) = device.region.as_ref().expect("the device has a region");
    let part = (16 + 16 * u64::from(shape.queue_size)).next_multiple_of(64);
    let state = ring as u64 * part + 16 + 16 * u64::from(head);
    file.write_all_at(&[1], state).expect("a memfd can be written");
}

/// All rings stop in this order, LOG_ALL being turned on before the one of this number. The path is
/// dead, and on the control and the event ring there is something left of a process that died.
fn assert_stops_in_time(device: &mut Device, qmp: &mut Qmp, order: [usize; 3], logged: usize) {
    device.session.frontend.set_vring_enable(0, false).expect("it may come at any time");
    device.stop().expect("the rings stop");
    let reset = device.control().leave_reset();
    take_and_die(device, 0, reset);
    let event = device.events().next_head();
    take_and_die(device, 1, event);
    device.config.enable_control = false;
    device.resume().expect("the rings start again");
    hang(qmp);
    let tickets: Vec<Ticket> = (0..4).map(|lba| device.queue().submit(&read(lba * 8, 8))).collect();
    qmp.wait_until_held(tickets.len());
    let start = Instant::now();
    let mut log = None;
    for (at, ring) in order.into_iter().enumerate() {
        if at == logged {
            log = Some(device.log_on());
        }
        let stopped = device.session.frontend.get_vring_base(ring);
        stopped.unwrap_or_else(|error| panic!("ring {ring} of {order:?}, {logged}: {error}"));
    }
    let took = start.elapsed();
    assert!(took < SHORT + SLACK, "{order:?}, logged from {logged} on: {took:?}");
    drop(log);
    qmp.execute("clear-faults", json!({}));
    device.config.enable_control = true;
    device.resume().expect("the rings start again");
    for ticket in tickets {
        device.queue().wait(ticket, PROMPT);
    }
    assert!(device.control().ring.wait(PROMPT), "{order:?}, logged from {logged} on: no answer");
    device.control().ring.pop().expect("wait saw a used request");
    while device.events().next(Duration::ZERO).is_some() {}
    device.queue().settle();
}

/// The shortest deadline of a stop in these tests.
const SHORT: Duration = Duration::from_millis(300);

#[test]
fn stops_in_any_order_and_moving_from_any_of_them_on_end_by_the_deadline() {
    let backend = Setup::ports(1).backend("stop_deadline = 0.3").start();
    let mut qmp = backend.qmp();
    let mut device = backend.guest(1);
    device.queue().settle();
    let orders = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
    for (order, logged) in orders.into_iter().flat_map(|order| (0..4).map(move |at| (order, at))) {
        assert_stops_in_time(&mut device, &mut qmp, order, logged);
    }
}

#[test]
fn move_that_is_called_off_goes_on_where_it_was() {
    let backend = Setup::ports(1).start();
    let mut qmp = backend.qmp();
    let mut device = backend.guest(2);
    device.queue().settle();
    let name = path_name(&mut qmp, 1);
    qmp.execute("path-fail", json!({"name": name}));
    let tickets = submit(&mut device);
    qmp.wait_until_held(2 * 8);
    device.log_on();
    stop_to_move(&mut device, &tickets, SLACK);
    device.resume().expect("the rings start again");
    device.log_off();
    qmp.execute("path-reinstate", json!({"name": name}));
    for queue in &mut device.queues {
        let ticket = queue.submit(&write(512, pattern(9, 8)));
        assert!(queue.wait(ticket, 3 * PROMPT).is_good());
    }
}

#[test]
fn end_of_the_backend_in_a_migration_keeps_commands_for_the_next_one() {
    let mut backend = Setup::ports(1).backend("stop_deadline = 0.5").start();
    let mut qmp = backend.qmp();
    let mut device = backend.guest(1);
    device.queue().settle();
    let name = path_name(&mut qmp, 1);
    qmp.execute("path-fail", json!({"name": name}));
    let tickets = submit(&mut device);
    qmp.wait_until_held(8);
    device.log_on();
    let rings = device.places();
    backend.terminate();
    assert!(backend.wait_end(PROMPT).is_some_and(|status| status.code() == Some(0)));
    assert!(device.queue().take(tickets[0][0]).is_none(), "QEMU comes back with its region");
    backend.start_again();
    device.reconnect(&backend.socket(), &rings).expect("the device starts again");
    for ticket in &tickets[0] {
        assert!(device.queue().wait(*ticket, PROMPT).is_good());
    }
}

#[test]
fn rings_that_come_from_elsewhere_go_on_where_they_were() {
    // Two backends on paths that remember nothing: all that the guest has is in its memory.
    let setup = Setup::ports(0).option("--path", "null:64M");
    let (source, destination) = (setup.start(), setup.start());
    let mut device = source.guest(2);
    device.queue().settle();
    for _ in 0..3 {
        let tickets = submit(&mut device);
        device.log_on();
        device.stop().expect("the rings stop");
        let rings = device.places();
        // A new connection, and an in-flight region that nobody has written to.
        device.region = None;
        device.reconnect(&destination.socket(), &rings).expect("the device starts there");
        for (queue, tickets) in device.queues.iter_mut().zip(&tickets) {
            for ticket in tickets {
                assert!(queue.wait(*ticket, PROMPT).is_good());
            }
        }
        device.reconnect(&source.socket(), &rings).expect("the device starts here again");
    }
    let complaints: Vec<String> =
        destination.log().into_iter().filter(|line| line.contains("are lost")).collect();
    assert!(complaints.is_empty(), "{complaints:?}");
}

#[test]
fn rings_that_were_left_in_the_middle_elsewhere_are_reported() {
    let setup = Setup::ports(1);
    let source = setup.start();
    let destination = Setup::ports(0).option("--path", "null:64M").start();
    let mut qmp = source.qmp();
    let mut device = Device::start(&source.socket(), &Config::queues(1));
    device.queue().settle();
    let name = path_name(&mut qmp, 1);
    qmp.execute("path-fail", json!({"name": name}));
    submit(&mut device);
    qmp.wait_until_held(8);
    // Paused, not migrated: they are given back.
    let positions = device.stop().expect("the rings stop");
    device.region = None;
    let rings = device.places();
    device
        .reconnect_at(&destination.socket(), &rings, &positions)
        .expect("the device starts there");
    let begin = Instant::now();
    while !destination.log().iter().any(|line| line.contains("8 requests were taken before")) {
        assert!(begin.elapsed() < PROMPT, "{:?}", destination.log());
        std::thread::sleep(Duration::from_millis(10));
    }
}
