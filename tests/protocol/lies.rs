//! Paths to an array that lies: one of two portals says what cannot be. The guest's data stay what
//! they are, the other path goes on, and what is wrong is said.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::backend::{Backend, Setup};
use crate::initiator::{pattern, read, write};
use crate::liar::{Portal, Said, portals};
use crate::load::{Load, Mix};
use crate::qmp::Qmp;
use crate::queue::{Completion, PROMPT};

/// How long a lie lasts under load.
const WHILE: Duration = Duration::from_millis(400);
/// Until a path that was lost is used again: a failed one is held down for longer each time.
const BACK: Duration = Duration::from_secs(20);

fn start(portals: &[Portal]) -> Backend {
    let setup = portals
        .iter()
        .fold(Setup::ports(0), |setup, portal| setup.option("--path", &portal.address()));
    setup.lun("path_timeout = 1.0").lun("write_quiesce = 0.2").start()
}

fn path(qmp: &mut Qmp, portal: &Portal) -> Value {
    let paths = qmp.execute("query-paths", json!({}));
    let is_it = |path: &&Value| path["address"].as_str().is_some_and(|it| it == portal.address());
    let paths = paths.as_array().expect("a list").iter().find(is_it);
    paths.unwrap_or_else(|| panic!("no path to {}", portal.address())).clone()
}

fn wait(qmp: &mut Qmp, portal: &Portal, timeout: Duration, states: &[&str]) -> Value {
    let begin = Instant::now();
    loop {
        let path = path(qmp, portal);
        if states.iter().any(|state| path["state"] == *state) {
            return path;
        }
        assert!(begin.elapsed() < timeout, "not {states:?}: {path:#}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

type Change = fn(&mut Said);

/// What is said of a task of its own, or not of one at all: the session cannot go on.
const BREAK: &[(&str, Change)] = &[
    ("data for another task", |said| said.tag = Some(0x0BAD_7A65)),
    ("an answer for another task", |said| {
        (said.tag, said.data) = (Some(0x0BAD_7A65), Vec::new());
    }),
    ("every answer twice", |said| said.times = 2),
    ("data beyond the buffer", |said| said.data.extend(vec![0xBB; 100_000])),
    ("data far beyond the buffer", |said| said.offset = 0x7FFF_0000),
    ("a request for data that nobody sends", |said| said.before = vec![r2t(0, 4096)]),
    ("a request for data beyond all data", |said| said.before = vec![r2t(0xFFFF_0000, 65_536)]),
    ("a PDU that does not exist", |said| said.before = vec![raw(0x3C, 0)]),
    ("a PDU of 16 MiB that does not come", |said| said.before = vec![raw(0x25, 0xFF_FFFF)]),
    ("a reject of nothing", |said| said.before = vec![raw(0x3F, 0)]),
    ("no answer but silence", |said| (said.times, said.data) = (0, Vec::new())),
];

/// Sense and status that say something else than they should: each costs a command a try.
const GARBLE: &[(&str, Change)] = &[
    ("sense of no bytes", |said| sense(said, &[], Some(0))),
    ("sense of no bytes that says 96", |said| sense(said, &[], Some(96))),
    ("sense of one byte", |said| sense(said, &[0x70], None)),
    ("sense of two bytes that says 65535", |said| sense(said, &[0x70, 0], Some(0xFFFF))),
    ("sense of 4000 bytes", |said| sense(said, &[0xFF; 4000], None)),
    ("sense of a format that does not exist", |said| sense(said, &[0x00; 18], None)),
    ("descriptors that end after the sense", |said| {
        sense(said, &[0x72, 0xB, 0x47, 0, 0, 0, 0, 0xFF, 0, 0xFF], None);
    }),
    ("a response code", |said| said.response = 0x81),
];

fn sense(said: &mut Said, bytes: &[u8], length: Option<u16>) {
    (said.status, said.data, said.residual) = (2, Vec::new(), 0);
    (said.sense, said.sense_length) = (bytes.to_vec(), length);
}

/// A PDU whose header says that it has so many bytes of data, and has none. Its task is the
/// command's.
fn raw(opcode: u8, length: u32) -> Vec<u8> {
    let mut pdu = vec![0; 48];
    (pdu[0], pdu[1]) = (opcode, 0x80);
    pdu[5..8].copy_from_slice(&length.to_be_bytes()[1..]);
    pdu
}

fn r2t(offset: u32, length: u32) -> Vec<u8> {
    let mut pdu = raw(0x31, 0);
    pdu[40..44].copy_from_slice(&offset.to_be_bytes());
    pdu[44..48].copy_from_slice(&length.to_be_bytes());
    pdu
}

/// Verified I/O over both paths, while one of them tells each of `lies` for a while, of one command
/// in eight. Every command ends with GOOD.
fn under_load(lies: &[(&str, Change)]) {
    let portals = portals::<2>();
    let backend = start(&portals);
    let mut qmp = backend.qmp();
    for portal in &portals {
        wait(&mut qmp, portal, PROMPT, &["up"]);
    }
    qmp.execute("set-iopolicy", json!({"iopolicy": "round-robin"}));
    let mut device = backend.guest(2);
    for queue in &mut device.queues {
        queue.settle();
    }
    let queues = std::mem::take(&mut device.queues);
    let rest = Duration::from_micros(200);
    let load = Load::with(queues, 4, Mix::Mixed, Duration::from_secs(15), rest);
    for (name, change) in lies {
        // The harness keeps this to itself unless the test fails: the last line tells which lie.
        eprintln!("{name}");
        let count = std::sync::atomic::AtomicU32::new(0);
        let change = *change;
        portals[1].lie(move |cdb, said| {
            let counted = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            if matches!(cdb.opcode(), 0x28 | 0x2A) && counted % 8 == 7 {
                change(said);
            }
        });
        std::thread::sleep(WHILE);
        portals[1].repent();
        // It is used again, by an admin who knows better than to wait.
        let name = path(&mut qmp, &portals[1])["name"].clone();
        qmp.execute("path-fail", json!({"name": name}));
        qmp.execute("path-reinstate", json!({"name": name}));
        wait(&mut qmp, &portals[1], BACK, &["up", "shaky"]);
        assert_eq!(path(&mut qmp, &portals[0])["state"], "up", "the honest one");
    }
    let (_, report) = load.stop();
    report.assert_clean();
}

#[test]
fn answers_that_belong_to_nothing_cost_the_session_and_no_data() {
    under_load(BREAK);
}

#[test]
fn garbled_sense_costs_a_try_and_no_data() {
    under_load(GARBLE);
}

/// One command over the lying path alone.
fn alone(lie: Change) -> (Completion, Completion) {
    let portals = portals::<2>();
    let backend = start(&portals[1..]);
    wait(&mut backend.qmp(), &portals[1], PROMPT, &["up"]);
    let mut device = backend.guest(1);
    device.queue().settle();
    let data = pattern(1, 8);
    device.queue().good(&write(64, data.clone()));
    portals[1].lie(move |cdb, said| {
        if matches!(cdb.opcode(), 0x28 | 0x2A) {
            lie(said);
        }
    });
    let told = (device.queue().run(&read(64, 8)), device.queue().run(&write(128, data.clone())));
    portals[1].repent();
    assert_eq!(device.queue().good(&read(64, 8)).data, data);
    told
}

#[test]
fn status_that_does_not_exist_fails_the_path_until_it_is_over() {
    let portals = portals::<2>();
    let backend = start(&portals[1..]);
    let mut qmp = backend.qmp();
    wait(&mut qmp, &portals[1], PROMPT, &["up"]);
    let mut device = backend.guest(1);
    device.queue().settle();
    portals[1].lie(|cdb, said| {
        if cdb.opcode() == 0x2A {
            (said.status, said.data) = (0x77, Vec::new());
        }
    });
    let written = device.queue().submit(&write(128, pattern(1, 8)));
    let failed = wait(&mut qmp, &portals[1], PROMPT, &["failed"]);
    assert!(failed["reason"].as_str().is_some_and(|it| it.contains("iscsi")), "{failed:#}");
    portals[1].repent();
    assert!(device.queue().wait(written, BACK).is_good());
    assert_eq!(device.queue().good(&read(128, 8)).data, pattern(1, 8));
}

#[test]
fn residual_that_cannot_be_is_cut_to_what_there_was() {
    for residual in [-0xFFFF_FFFF_i64, -4097, -4096] {
        let lie: Change = match residual {
            -4096 => |said| said.residual = -4096,
            -4097 => |said| said.residual = -4097,
            _ => |said| said.residual = -0xFFFF_FFFF,
        };
        let (read, write) = alone(lie);
        assert_eq!((read.residual, write.residual), (4096, 4096));
        assert!(read.used <= 108, "nothing is said to be stored: {}", read.used);
    }
    let (read, write) = alone(|said| said.residual = 0x7FFF_FFFF);
    for told in [read, write] {
        assert!(!told.is_good(), "more than was asked for is no success: {told:?}");
    }
}

/// Tells `lie` on one path of a backend whose guest knows the LUN by the other one; the state and
/// the reason of that path then.
fn second(
    lie: impl Fn(&vhost_user_scsi_mpath::scsi::Cdb, &mut Said) + Send + Sync + 'static,
) -> (String, String) {
    let portals = portals::<2>();
    let backend = start(&portals);
    let mut qmp = backend.qmp();
    for portal in &portals {
        wait(&mut qmp, portal, PROMPT, &["up"]);
    }
    let before = qmp.execute("query-lun", json!({}));
    portals[1].lie(lie);
    let name = path(&mut qmp, &portals[1])["name"].clone();
    qmp.execute("path-fail", json!({"name": name}));
    qmp.execute("path-reinstate", json!({"name": name}));
    let path = wait(&mut qmp, &portals[1], PROMPT, &["failed", "wrong-lun", "checking"]);
    let path = match path["state"].as_str() {
        Some("checking") => wait(&mut qmp, &portals[1], PROMPT, &["failed", "wrong-lun"]),
        _ => path,
    };
    let after = qmp.execute("query-lun", json!({}));
    for key in ["wwid", "serial", "block-size", "blocks", "vendor"] {
        assert_eq!(before[key], after[key], "a path has changed what the LUN is");
    }
    let mut device = backend.guest(1);
    device.queue().settle();
    device.queue().good(&write(0, pattern(9, 8)));
    portals[1].repent();
    wait(&mut qmp, &portals[1], BACK, &["up", "shaky"]);
    let word = |key: &str| path[key].as_str().expect("words").to_owned();
    (word("state"), word("reason"))
}

#[test]
fn path_with_another_name_is_not_used() {
    let (state, reason) = second(|cdb, said| {
        if cdb.opcode() == 0x12 && cdb.padded()[2] == 0x83 {
            said.data[15] ^= 0xFF;
        }
    });
    assert_eq!(state, "wrong-lun");
    assert!(reason.contains("the LUN is naa."), "{reason}");
}

#[test]
fn path_with_another_size_is_not_used() {
    let capacity = |blocks: u64, block: u32| {
        move |cdb: &vhost_user_scsi_mpath::scsi::Cdb, said: &mut Said| {
            if (cdb.opcode(), cdb.padded()[1]) == (0x9E, 0x10) {
                said.data[..8].copy_from_slice(&blocks.wrapping_sub(1).to_be_bytes());
                said.data[8..12].copy_from_slice(&block.to_be_bytes());
            }
        }
    };
    for (blocks, block, state, word) in [
        (0, 512, "failed", "READ CAPACITY told nonsense"),
        (0x8000, 0, "failed", "READ CAPACITY told nonsense"),
        (0x8000, 520, "failed", "READ CAPACITY told nonsense"),
        (0x8000, 1 << 31, "failed", "READ CAPACITY told nonsense"),
        (0x8000, 4096, "wrong-lun", "its blocks have 4096 bytes"),
        (0x7FFF, 512, "failed", "it has 32767 blocks"),
    ] {
        let (found, reason) = second(capacity(blocks, block));
        assert_eq!(found, state, "{reason}");
        assert!(reason.contains(word), "{reason}");
    }
}

#[test]
fn path_that_says_nothing_of_itself_is_not_used() {
    for page in [None, Some(0x83)] {
        let (state, reason) = second(move |cdb, said| {
            let evpd = (cdb.padded()[1] & 1 != 0).then(|| cdb.padded()[2]);
            if cdb.opcode() == 0x12 && evpd == page {
                said.data.truncate(3);
                said.residual = 0;
            }
        });
        assert_eq!(state, "failed", "{reason}");
        assert!(!reason.is_empty());
    }
}
