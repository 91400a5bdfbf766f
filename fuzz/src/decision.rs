//! A guest's command, and what the virtual LUN makes of it.

use std::collections::BTreeMap;

use vhost_user_scsi_mpath::buffer::OwnedBuffer;
use vhost_user_scsi_mpath::completion::{Outcome, Response};
use vhost_user_scsi_mpath::lun::{Decision, Face, Facts, Question, Route, Unit, commands, decide};
use vhost_user_scsi_mpath::scsi::capacity::Capacity;
use vhost_user_scsi_mpath::scsi::inquiry::{Standard, vpd_page};
use vhost_user_scsi_mpath::scsi::{Asc, Cdb, Status, opcode};

use super::Bytes;

/// Bytes beside the guest's room, which nobody may touch.
const BESIDE: usize = 64;
const UNTOUCHED: u8 = 0xEE;

/// A unit with all pages, and with the list of commands that `codes` holds.
fn face(codes: &[u8]) -> Face {
    let mut standard = vec![0; 96];
    (standard[4], standard[5]) = (91, 0x10);
    standard[8..36].copy_from_slice(b"ACME    FUZZED DISK     1.0 ");
    let naa = [&[0x01, 0x03, 0, 16, 0x60], &[0x11; 15][..]].concat();
    let mut capacity = [0; 32];
    capacity[4..8].copy_from_slice(&0x3FFF_u32.to_be_bytes());
    capacity[10] = 2;
    let list = [&(codes.len() as u32).to_be_bytes()[..], codes].concat();
    let facts = Facts {
        inquiry: Standard::parse(&standard).expect("it is long enough"),
        pages: BTreeMap::from([
            (0x80, vpd_page(0x80, b"serial-1")),
            (0x83, vpd_page(0x83, &naa)),
            (0xB0, vpd_page(0xB0, &[0; 60])),
        ]),
        capacity: Capacity::parse_16(&capacity),
        operation_codes: (!codes.is_empty()).then_some(list),
    };
    Face::new(&facts).expect("it has a name and a size")
}

/// Asks; the decision, and the data that were stored.
fn ask(
    unit: Unit,
    cdb: &Cdb,
    room: usize,
    face: Option<&Face>,
    attention: &mut Option<Asc>,
) -> (Decision, Vec<u8>) {
    let memory = OwnedBuffer::from_vec(vec![UNTOUCHED; room + BESIDE]);
    let mut data_in = memory.segments().clone();
    data_in.assign_range(memory.segments(), 0, room);
    let question = Question { unit, cdb, data_in: &data_in, room: room as u32 };
    let decision = decide(&question, face, attention);
    let bytes = memory.to_vec();
    assert!(bytes[room..].iter().all(|byte| *byte == UNTOUCHED), "{cdb:?}");
    let stored = match &decision {
        Decision::Done(outcome) => {
            check(cdb, outcome, room);
            let stored = outcome.stored as usize;
            assert!(bytes[stored..].iter().all(|byte| *byte == UNTOUCHED), "{cdb:?}");
            bytes[..stored].to_vec()
        }
        _ => Vec::new(),
    };
    (decision, stored)
}

fn check(cdb: &Cdb, outcome: &Outcome, room: usize) {
    assert!(outcome.stored as usize <= room && outcome.residual as usize <= room, "{cdb:?}");
    assert_eq!(outcome.stored + outcome.residual, room as u32, "{cdb:?} {outcome:?}");
    assert_eq!(outcome.sense.is_some(), outcome.status == Status::CHECK_CONDITION, "{cdb:?}");
    if let Some(allocation) = allocation(cdb) {
        assert!(outcome.stored as usize <= allocation, "{cdb:?} {outcome:?}");
    }
}

/// ALLOCATION LENGTH of the commands that are answered here.
fn allocation(cdb: &Cdb) -> Option<usize> {
    Some(match (cdb.opcode(), cdb.service_action()) {
        (opcode::INQUIRY, _) => cdb.be16(3).into(),
        (opcode::REQUEST_SENSE, _) => cdb.padded()[4].into(),
        (opcode::REPORT_LUNS, _) => cdb.be32(6) as usize,
        (opcode::READ_CAPACITY_10, _) => 8,
        (opcode::SERVICE_ACTION_IN_16, Some(0x10)) => cdb.be32(10) as usize,
        (opcode::MAINTENANCE_IN, Some(0x0C | 0x0D)) => cdb.be32(6) as usize,
        _ => return None,
    })
}

/// Unit, room, a pending unit attention, a CDB, and the array's list of commands.
pub fn decision(data: &[u8]) {
    let mut bytes = Bytes::new(data);
    let flags = bytes.u8();
    let unit = [Unit::Ours, Unit::Ours, Unit::Absent, Unit::ReportLuns, Unit::Nowhere]
        [usize::from(flags) % 5];
    let room = usize::from(bytes.u16() % 1024);
    let mut attention = (flags & 0x80 != 0).then(|| Asc(bytes.u8(), bytes.u8()));
    let cdb = Cdb::from_padded(bytes.array());
    // Whole descriptors, mostly: each byte stands for a command that the array has.
    let list: Vec<u8> = match flags & 0x40 {
        0 => bytes.rest().to_vec(),
        _ => bytes.rest().iter().take(64).flat_map(|code| [*code, 0, 0, 0, 0, 0, 0, 16]).collect(),
    };
    let face = face(&list);
    let pending = attention;
    let row = commands::row(&cdb);
    match ask(unit, &cdb, room, Some(&face), &mut attention).0 {
        Decision::Done(outcome) => {
            let told = attention.is_none() && pending.is_some();
            let speaks = unit == Unit::Ours && outcome.response == Response::Ok;
            assert!(!told || speaks, "nobody else's answer tells of an attention");
        }
        Decision::Forward(forwarded) => {
            assert_eq!((unit, forwarded), (Unit::Ours, row));
            assert_eq!(attention, None, "it would have been told");
            assert!(!matches!(row.route, Route::Refuse | Route::Answer(_)));
            let _ = row.extent(&cdb);
        }
        Decision::NeedsFace(_) => panic!("there is a face"),
    }
    // Without a face it is answered as well, or waits.
    let _ = ask(unit, &cdb, room, None, &mut None);
    agrees_with_the_list(&cdb, &face);
}

/// What REPORT SUPPORTED OPERATION CODES says of a command that is in its list is what happens to
/// it, in the one-command format too.
fn agrees_with_the_list(cdb: &Cdb, face: &Face) {
    let all = ask(Unit::Ours, &report(0, 0, 0), 4096, Some(face), &mut None).1;
    if all.len() < 4 {
        return;
    }
    for descriptor in all[4..].chunks_exact(8) {
        let mut bytes = [0; 32];
        bytes[0] = descriptor[0];
        if descriptor[5] & 1 == 1 {
            bytes[1] = descriptor[3] & 0x1F;
            bytes[8..10].copy_from_slice(&descriptor[2..4]);
        }
        let listed = Cdb::from_padded(bytes);
        assert!(!commands::is_refused(&listed), "{listed:?} is listed and refused");
    }
    let action = cdb.service_action().unwrap_or(0) as u8;
    let one = ask(Unit::Ours, &report(3, cdb.opcode(), action), 4096, Some(face), &mut None);
    if let (Decision::Done(outcome), data) = one
        && outcome.status == Status::GOOD
        && data.get(1).is_some_and(|support| support & 7 == 3)
    {
        assert!(!commands::is_refused(cdb) || cdb.opcode() == opcode::VARIABLE_LENGTH, "{cdb:?}");
        assert_eq!(data[4], cdb.opcode(), "CDB USAGE DATA begins with the operation code");
    }
}

fn report(options: u8, opcode: u8, action: u8) -> Cdb {
    Cdb::new(&[0xA3, 0x0C, options, opcode, 0, action, 0, 0, 0x10, 0, 0, 0])
}
