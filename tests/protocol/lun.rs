//! What the guest sees of the logical unit, and of those that are not there.

use serde_json::{Value, json};

use crate::backend::{IMAGE_BLOCKS, Setup, path_name};
use crate::initiator::*;
use crate::qmp::Qmp;
use crate::queue::{CANARY, Command, LUN0, PROMPT, Queue, response};

/// LUN 0 in the peripheral form, as Windows sends it in resets.
const LUN0_PERIPHERAL: [u8; 8] = [1, 0, 0, 0, 0, 0, 0, 0];
const ABSENT_LUN: [u8; 8] = [1, 0, 0x40, 1, 0, 0, 0, 0];
const ABSENT_TARGET: [u8; 8] = [1, 1, 0x40, 0, 0, 0, 0, 0];
/// The REPORT LUNS well-known logical unit, as virtio says and in its place within the target.
const REPORT_LUNS: [[u8; 8]; 2] = [[0xC1, 1, 0, 0, 0, 0, 0, 0], [1, 0, 0xC1, 1, 0, 0, 0, 0]];

#[test]
fn lun_0_answers_under_both_address_forms() {
    let backend = Setup::ports(1).start();
    let mut device = backend.guest(1);
    let queue = device.queue();
    queue.settle();
    let flat = queue.fetch(&inquiry(255).to(LUN0));
    assert_eq!(flat, queue.fetch(&inquiry(255).to(LUN0_PERIPHERAL)));
    assert!(queue.run(&test_unit_ready().to(LUN0_PERIPHERAL)).is_good());
}

#[test]
fn report_luns_lists_lun_0_alone() {
    let backend = Setup::ports(1).start();
    let mut device = backend.guest(1);
    let queue = device.queue();
    queue.settle();
    let expected = [[0, 0, 0, 8, 0, 0, 0, 0], [0; 8]].concat();
    assert_eq!(queue.fetch(&report_luns(0)), expected);
    for lun in REPORT_LUNS {
        assert_eq!(queue.fetch(&report_luns(0).to(lun)), expected, "{lun:x?}");
    }
}

#[test]
fn report_luns_lists_the_well_known_unit_when_asked() {
    let backend = Setup::ports(1).start();
    let mut device = backend.guest(1);
    let queue = device.queue();
    queue.settle();
    let list = queue.fetch(&report_luns(1));
    assert_eq!(list[0..4], [0, 0, 0, 8]);
    assert_eq!(list[8..10], [0xC1, 0x01]);
    assert_eq!(queue.fetch(&report_luns(2))[0..4], [0, 0, 0, 16]);
}

#[test]
fn report_luns_well_known_unit_says_what_it_is() {
    let backend = Setup::ports(1).start();
    let mut device = backend.guest(1);
    let queue = device.queue();
    for lun in REPORT_LUNS {
        let data = queue.fetch(&inquiry(36).to(lun));
        assert_eq!(data[0], 0x1E, "peripheral device type of {lun:x?}");
    }
}

#[test]
fn absent_target_is_bad_target() {
    let backend = Setup::ports(1).start();
    let mut device = backend.guest(1);
    for command in [inquiry(36), test_unit_ready(), read(0, 1), write(0, pattern(0, 1))] {
        let completion = device.queue().run(&command.to(ABSENT_TARGET));
        assert_eq!(completion.response, response::BAD_TARGET, "{completion:?}");
        assert!(completion.sense.is_empty());
    }
}

#[test]
fn unreadable_lun_field_is_answered() {
    let backend = Setup::ports(1).start();
    let mut device = backend.guest(1);
    for lun in [[0; 8], [0xFF; 8], [1, 0, 0x80, 0, 0, 0, 0, 0], [1, 0, 0x40, 0, 0, 0, 0, 9]] {
        let completion = device.queue().run(&read(0, 1).to(lun));
        assert!(!completion.is_good(), "{lun:x?}: {completion:?}");
    }
}

#[test]
fn absent_lun_answers_inquiry_with_no_device() {
    let backend = Setup::ports(1).start();
    let mut device = backend.guest(1);
    assert_eq!(device.queue().fetch(&inquiry(36).to(ABSENT_LUN))[0], 0x7F);
}

#[test]
fn absent_lun_refuses_all_else() {
    let backend = Setup::ports(1).start();
    let mut device = backend.guest(1);
    for command in [test_unit_ready(), read(0, 1), write(0, pattern(0, 1)), read_capacity_10()] {
        let completion = device.queue().run(&command.to(ABSENT_LUN));
        assert_eq!((completion.response, completion.status), (response::OK, 2));
        assert_eq!(completion.sense_code(), Some(LUN_NOT_SUPPORTED));
    }
}

/// All that makes up the unit's identity in the eyes of a guest.
fn identity(queue: &mut Queue) -> Vec<(String, Vec<u8>)> {
    let pages = [0x00, 0x80, 0x83, 0xB0, 0xB1, 0xB2];
    let page = |page: u8| (format!("VPD {page:02X}h"), vital_product_data(page, 512));
    let mut commands: Vec<(String, Command)> = pages.into_iter().map(page).collect();
    commands.push(("INQUIRY".to_owned(), inquiry(255)));
    commands.push(("READ CAPACITY(10)".to_owned(), read_capacity_10()));
    commands.push(("READ CAPACITY(16)".to_owned(), read_capacity_16()));
    commands.push(("REPORT LUNS".to_owned(), report_luns(0)));
    let codes = report_supported_operation_codes();
    commands.push(("REPORT SUPPORTED OPERATION CODES".to_owned(), codes));
    commands.into_iter().map(|(name, command)| (name, queue.fetch(&command))).collect()
}

#[test]
fn identity_is_the_same_on_whichever_path_serves() {
    let backend = Setup::ports(3).start();
    let mut qmp = backend.qmp();
    let mut device = backend.guest(1);
    device.queue().settle();
    let names: Vec<String> = (1..=3).map(|port| path_name(&mut qmp, port)).collect();
    let before = identity(device.queue());
    assert!(before.iter().all(|(_, data)| !data.is_empty()), "{before:x?}");
    for serving in 0..3 {
        for (at, name) in names.iter().enumerate() {
            let command = if at == serving { "path-reinstate" } else { "path-fail" };
            qmp.execute(command, json!({"name": name}));
        }
        device.queue().settle();
        assert_eq!(identity(device.queue()), before, "over {}", names[serving]);
    }
}

#[test]
fn device_identification_names_the_unit_and_no_port() {
    let backend = Setup::ports(2).start();
    let mut device = backend.guest(1);
    let queue = device.queue();
    queue.settle();
    let page = queue.fetch(&vital_product_data(0x83, 512));
    let length = usize::from(u16::from_be_bytes([page[2], page[3]]));
    assert_eq!(length + 4, page.len());
    let mut designators = &page[4..];
    let mut names = 0;
    while let [_, kind, _, len, rest @ ..] = designators {
        let association = kind >> 4 & 3;
        assert_ne!(association, 1, "a target port's designator reached the guest: {page:02x?}");
        names += usize::from(association == 0 && kind & 0xF == 3);
        designators = &rest[usize::from(*len)..];
    }
    assert!(names >= 1, "no NAA designator: {page:02x?}");
}

#[test]
fn asymmetric_access_is_hidden() {
    let backend = Setup::ports(2).start();
    let mut device = backend.guest(1);
    let queue = device.queue();
    queue.settle();
    let data = queue.fetch(&inquiry(255));
    assert_eq!(data[5] & 0x30, 0, "TPGS");
    let mut cdb = [0; 12];
    (cdb[0], cdb[1], cdb[8]) = (0xA3, 0x0A, 1);
    let completion = queue.run(&Command::reading(&cdb, 256));
    assert_eq!(completion.status, 2, "REPORT TARGET PORT GROUPS: {completion:?}");
}

#[test]
fn capacity_is_the_images() {
    let backend = Setup::ports(1).start();
    let mut device = backend.guest(1);
    let queue = device.queue();
    queue.settle();
    let short = queue.fetch(&read_capacity_10());
    assert_eq!(short[0..4], (IMAGE_BLOCKS as u32 - 1).to_be_bytes());
    assert_eq!(short[4..8], 512u32.to_be_bytes());
    let long = queue.fetch(&read_capacity_16());
    assert_eq!(long[0..8], (IMAGE_BLOCKS - 1).to_be_bytes());
}

#[test]
fn allocation_length_cuts_and_residual_counts() {
    let backend = Setup::ports(1).start();
    let mut device = backend.guest(1);
    let queue = device.queue();
    queue.settle();
    let whole = queue.fetch(&inquiry(255));
    for allocated in [0usize, 1, 5, 36] {
        // More room than the CDB asks for: the rest is neither written nor counted.
        let mut command = inquiry(allocated as u16);
        command.data_in = 512;
        let completion = queue.good(&command);
        assert_eq!(completion.residual as usize, 512 - allocated);
        assert_eq!(completion.data[..allocated], whole[..allocated]);
        assert!(completion.data[allocated..].iter().all(|byte| *byte == CANARY));
    }
}

#[test]
fn used_length_covers_response_and_data() {
    let backend = Setup::ports(1).start();
    let mut device = backend.guest(1);
    let queue = device.queue();
    queue.settle();
    assert_eq!(queue.good(&read(0, 4)).used, 108 + 2048);
    assert_eq!(queue.good(&test_unit_ready()).used, 108);
    assert_eq!(queue.good(&write(0, pattern(0, 4))).used, 108);
}

#[test]
fn too_little_room_for_the_data_is_overrun() {
    let backend = Setup::ports(1).start();
    let mut device = backend.guest(1);
    let queue = device.queue();
    queue.settle();
    let mut command = read(0, 8);
    command.data_in = 512;
    assert_eq!(queue.run(&command).response, response::OVERRUN);
    let mut command = write(0, pattern(0, 1));
    command.cdb[8] = 8;
    assert_eq!(queue.run(&command).response, response::OVERRUN);
}

#[test]
fn unknown_operation_code_is_refused_by_name() {
    let backend = Setup::ports(1).start();
    let mut device = backend.guest(1);
    let queue = device.queue();
    queue.settle();
    for opcode in [0x02, 0x2D, 0xC5, 0xFF] {
        let completion = queue.run(&Command::bare(&[opcode; 1]));
        assert_eq!(completion.sense_code(), Some(INVALID_OPCODE), "{opcode:#x}: {completion:?}");
    }
}

#[test]
fn blocks_past_the_end_are_out_of_range() {
    let backend = Setup::ports(1).start();
    let mut device = backend.guest(1);
    let queue = device.queue();
    queue.settle();
    let last = IMAGE_BLOCKS as u32 - 1;
    queue.good(&write(last, pattern(1, 1)));
    queue.good(&read(last, 1));
    for command in [read(last, 2), write(last, pattern(1, 2)), read(u32::MAX, 1)] {
        let completion = queue.run(&command);
        assert_eq!(completion.sense_code(), Some(LBA_OUT_OF_RANGE), "{completion:?}");
        assert_eq!(completion.residual as usize, command.data_in + command.data_out.len());
    }
}

#[test]
fn sense_of_the_array_reaches_the_guest_unchanged() {
    let backend = Setup::ports(1).start();
    let mut qmp = backend.qmp();
    let mut device = backend.guest(1);
    device.queue().settle();
    let path = path_name(&mut qmp, 1);
    // MEDIUM ERROR, UNRECOVERED READ ERROR: the medium's fault, which no other path mends.
    let fault = json!({"path": path, "fault": "sense", "sense": "3/11/00", "count": 1});
    qmp.execute("inject-fault", fault);
    let completion = device.queue().run(&read(0, 8));
    assert_eq!((completion.response, completion.status), (response::OK, 2));
    assert_eq!(completion.sense_code(), Some((3, 0x11, 0x00)));
    assert!(device.queue().run(&read(0, 8)).is_good(), "the fault was for one command");
}

#[test]
fn commands_under_one_tag_are_all_answered() {
    let backend = Setup::ports(1).start();
    let mut device = backend.guest(1);
    let queue = device.queue();
    queue.settle();
    let tickets: Vec<_> = (0..16).map(|at| queue.submit(&read(at * 8, 8).tagged(0))).collect();
    for ticket in tickets {
        assert!(queue.wait(ticket, PROMPT).is_good());
    }
}

#[test]
fn large_transfers_arrive_whole() {
    let backend = Setup::ports(2).start();
    let mut device = backend.guest(1);
    let queue = device.queue();
    queue.settle();
    let data = pattern(9, 4096);
    let ticket = queue.submit(&write(100, data.clone()).cut(crate::queue::Layout::Pieces(65536)));
    assert!(queue.wait(ticket, PROMPT).is_good());
    let completion = queue.good(&read(100, 4096).cut(crate::queue::Layout::Pieces(32768)));
    assert!(completion.data == data);
}

#[test]
fn numa_names_the_nodes_whose_commands_go_over_each_path() {
    let backend = Setup::ports(2).option("--iopolicy", "numa").start();
    let mut qmp = backend.qmp();
    let _device = backend.guest(1);
    let nodes = |qmp: &mut Qmp| {
        let paths = qmp.execute("query-paths", json!({}));
        let of = |path: &Value| path["numa-nodes"].as_array().expect("a list").len();
        paths.as_array().expect("a list").iter().map(of).collect::<Vec<usize>>()
    };
    let is_node = |name: &str| {
        name.strip_prefix("node").is_some_and(|id| id.bytes().all(|one| one.is_ascii_digit()))
    };
    let host = std::fs::read_dir("/sys/devices/system/node").into_iter().flatten();
    let host = host
        .filter(|entry| entry.as_ref().is_ok_and(|e| is_node(&e.file_name().to_string_lossy())));
    // Neither port is nearer to any node, so all of them take the first.
    assert_eq!(nodes(&mut qmp), [host.count(), 0]);
    qmp.execute("set-iopolicy", json!({"iopolicy": "queue-depth"}));
    assert_eq!(nodes(&mut qmp), [0, 0], "only numa has a path for each node");
}
