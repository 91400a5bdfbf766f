//! REPORT SUPPORTED OPERATION CODES (SPC-5 6.34): the array's list, minus what the table of
//! commands refuses. What is answered here is reported by the array too, since every array has
//! these commands.

use super::Face;
use super::answer::{give, invalid_field};
use super::commands::{self, Answered, Route};
use super::decide::Question;
use crate::completion::Outcome;
use crate::scsi::{Asc, Cdb, SenseKey};

/// REPORTING OPTIONS values.
const ALL: u8 = 0;
const ONE: u8 = 1;
const ONE_SERVICE_ACTION: u8 = 2;
const ONE_OF_EITHER: u8 = 3;

/// Bytes of a command descriptor, and of the timeouts descriptor that may follow it.
const DESCRIPTOR_LEN: usize = 8;
const TIMEOUTS_LEN: usize = 12;

/// CDB usage data of the commands that are answered here, for the one-command format: which bits
/// of the CDB have a meaning.
fn usage(what: Answered) -> &'static [u8] {
    match what {
        Answered::Inquiry => &[0x12, 0x01, 0xFF, 0xFF, 0xFF, 0],
        Answered::ReportLuns => &[0xA0, 0, 0xFF, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0],
        Answered::RequestSense => &[0x03, 0x01, 0, 0, 0xFF, 0],
        Answered::ReadCapacity10 => &[0x25, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0x01, 0],
        Answered::ReadCapacity16 => {
            &[0x9E, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0]
        }
        Answered::SupportedOperationCodes => {
            &[0xA3, 0x0C, 0x87, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0]
        }
        Answered::SupportedTaskManagement => {
            &[0xA3, 0x0D, 0x80, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0]
        }
    }
}

/// Answers the command.
pub fn report(question: &Question<'_>, face: &Face) -> Outcome {
    let Some(all) = face.operation_codes() else {
        // An array without this command has none of its own to tell of.
        return Outcome::check(SenseKey::IllegalRequest, Asc::INVALID_FIELD_IN_CDB, question.room);
    };
    let cdb = question.cdb.padded();
    let allocation = question.cdb.be32(6) as usize;
    if allocation < 4 {
        return invalid_field(question, 6);
    }
    let timeouts = cdb[2] & 0x80 != 0;
    match cdb[2] & 7 {
        ALL => give(question, &list(all, timeouts), allocation),
        option @ (ONE | ONE_SERVICE_ACTION)
            if has_service_actions(all, cdb[3]) != (option == ONE_SERVICE_ACTION) =>
        {
            invalid_field(question, 2)
        }
        ONE | ONE_SERVICE_ACTION | ONE_OF_EITHER => {
            give(question, &one(all, question.cdb, timeouts), allocation)
        }
        _ => invalid_field(question, 2),
    }
}

/// The all-commands format. A timeouts descriptor says "no indicated timeout" throughout: what the
/// array takes is not what the guest waits when a path fails on the way.
fn list(all: &[u8], timeouts: bool) -> Vec<u8> {
    let mut data = vec![0; 4];
    for descriptor in descriptors(all).filter(|descriptor| shown(descriptor)) {
        let mut descriptor = *descriptor;
        const CTDP: u8 = 0x02;
        descriptor[5] = descriptor[5] & !CTDP | if timeouts { CTDP } else { 0 };
        data.extend_from_slice(&descriptor);
        if timeouts {
            data.extend_from_slice(&no_timeouts());
        }
    }
    let len = (data.len() - 4) as u32;
    data[0..4].copy_from_slice(&len.to_be_bytes());
    data
}

/// The one-command format (SPC-5 6.34.3).
fn one(all: &[u8], cdb: &Cdb, timeouts: bool) -> Vec<u8> {
    const NOT_SUPPORTED: u8 = 1;
    const STANDARD: u8 = 3;
    let asked = asked_for(cdb);
    let row = commands::row(&asked);
    let listed = descriptors(all).any(|descriptor| {
        let same_action = descriptor[5] & 1 == 0
            || asked.service_action() == Some(u16::from_be_bytes([descriptor[2], descriptor[3]]));
        descriptor[0] == asked.opcode() && same_action
    });
    let mut data = vec![0, NOT_SUPPORTED, 0, 0];
    if !listed || commands::is_refused(&asked) {
        return data;
    }
    data[1] = STANDARD;
    let bits = match row.route {
        Route::Answer(what) => usage(what).to_vec(),
        _ => generic_usage(&asked),
    };
    data[2..4].copy_from_slice(&(bits.len() as u16).to_be_bytes());
    data.extend_from_slice(&bits);
    if timeouts {
        data[1] |= 0x80;
        data.extend_from_slice(&no_timeouts());
    }
    data
}

/// SPC-5 6.34: asking for one command without its service action where it has some, or with one
/// where it has none, is an error. An operation code that the array does not list has whichever.
fn has_service_actions(all: &[u8], opcode: u8) -> bool {
    const SERVACTV: u8 = 0x01;
    match descriptors(all).find(|descriptor| descriptor[0] == opcode) {
        Some(descriptor) => descriptor[5] & SERVACTV != 0,
        None => Cdb::new(&[opcode]).service_action().is_some(),
    }
}

/// The command that a one-command request asks about, as a CDB that the table can look up.
fn asked_for(cdb: &Cdb) -> Cdb {
    let asked = cdb.padded();
    let mut bytes = [0; crate::scsi::cdb::CDB_MAX];
    bytes[0] = asked[3];
    if asked[3] == crate::scsi::opcode::VARIABLE_LENGTH {
        bytes[8..10].copy_from_slice(&asked[4..6]);
    } else if asked[2] & 7 != ONE {
        bytes[1] = asked[5] & 0x1F;
    }
    Cdb::from_padded(bytes)
}

/// CDB usage data of a forwarded command: every bit may have a meaning, the array decides. The
/// service action, where there is one, is fixed.
fn generic_usage(asked: &Cdb) -> Vec<u8> {
    let mut bits = vec![0xFF; asked.bytes().len()];
    bits[0] = asked.opcode();
    if asked.service_action().is_some() && asked.opcode() != crate::scsi::opcode::VARIABLE_LENGTH {
        bits[1] = asked.padded()[1] | 0xE0;
    }
    if let Some(control) = bits.last_mut() {
        *control = 0;
    }
    bits
}

/// True when the guest may know of the command that `descriptor` describes.
fn shown(descriptor: &[u8; DESCRIPTOR_LEN]) -> bool {
    let mut bytes = [0; crate::scsi::cdb::CDB_MAX];
    bytes[0] = descriptor[0];
    if descriptor[5] & 1 == 1 {
        bytes[1] = descriptor[3] & 0x1F;
        bytes[8..10].copy_from_slice(&descriptor[2..4]);
    }
    !commands::is_refused(&Cdb::from_padded(bytes))
}

/// The command descriptors of the array's own all-commands data.
fn descriptors(all: &[u8]) -> impl Iterator<Item = &[u8; DESCRIPTOR_LEN]> {
    let told = all.first_chunk::<4>().map_or(0, |len| u32::from_be_bytes(*len) as usize);
    let mut rest = all.get(4..all.len().min(told.saturating_add(4))).unwrap_or(&[]);
    std::iter::from_fn(move || {
        let descriptor = rest.first_chunk::<DESCRIPTOR_LEN>()?;
        let skip = DESCRIPTOR_LEN + if descriptor[5] & 2 == 2 { TIMEOUTS_LEN } else { 0 };
        rest = rest.get(skip..).unwrap_or(&[]);
        Some(descriptor)
    })
}

fn no_timeouts() -> [u8; TIMEOUTS_LEN] {
    let mut bytes = [0; TIMEOUTS_LEN];
    bytes[1] = TIMEOUTS_LEN as u8 - 2;
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffer::OwnedBuffer;
    use crate::lun::decide::Unit;
    use crate::lun::face::samples;
    use crate::scsi::Status;

    /// An array that has READ(10), PERSISTENT RESERVE OUT with REGISTER AND MOVE, REPORT TARGET PORT
    /// GROUPS, INQUIRY.
    fn face() -> Face {
        let mut facts = samples::facts();
        let mut all = vec![0, 0, 0, 32];
        all.extend_from_slice(&[0x28, 0, 0, 0, 0, 0, 0, 10]);
        all.extend_from_slice(&[0x5F, 0, 0, 7, 0, 1, 0, 10]);
        all.extend_from_slice(&[0xA3, 0, 0, 0x0A, 0, 1, 0, 12]);
        all.extend_from_slice(&[0x12, 0, 0, 0, 0, 0, 0, 6]);
        facts.operation_codes = Some(all);
        Face::new(&facts).unwrap()
    }

    fn ask(face: &Face, options: u8, opcode: u8, action: u8) -> (Outcome, Vec<u8>) {
        let cdb = Cdb::new(&[0xA3, 0x0C, options, opcode, 0, action, 0, 0, 1, 0, 0, 0]);
        let buffer = OwnedBuffer::zeroed(256);
        let question =
            Question { unit: Unit::Ours, cdb: &cdb, data_in: buffer.segments(), room: 256 };
        let outcome = report(&question, face);
        let data = buffer.to_vec()[..outcome.stored as usize].to_vec();
        (outcome, data)
    }

    #[test]
    fn report_all_leaves_out_what_is_refused() {
        let (_, data) = ask(&face(), 0, 0, 0);
        assert_eq!(data[0..4], [0, 0, 0, 16]);
        assert_eq!((data[4], data[12]), (0x28, 0x12));
    }

    #[test]
    fn report_all_with_timeouts_adds_a_descriptor_to_each() {
        let (_, data) = ask(&face(), 0x80, 0, 0);
        assert_eq!(data.len(), 4 + 2 * (8 + 12));
        assert_eq!(data[9] & 2, 2);
    }

    #[test]
    fn report_one_agrees_with_the_table() {
        assert_eq!(ask(&face(), 1, 0x28, 0).1[1] & 7, 3);
        assert_eq!(ask(&face(), 1, 0x2A, 0).1[1] & 7, 1, "the array has no WRITE(10)");
        assert_eq!(ask(&face(), 3, 0xA3, 0x0A).1[1] & 7, 1, "port groups are hidden");
        assert_eq!(ask(&face(), 3, 0x5F, 7).1[1] & 7, 1, "nothing moves to other nexuses");
        assert_eq!(ask(&face(), 3, 0x12, 0).1[4..], *usage(Answered::Inquiry));
    }

    #[test]
    fn report_one_with_the_wrong_option_is_refused() {
        for (option, opcode) in [(1, 0x5F), (1, 0x9E), (2, 0x28), (2, 0x2A)] {
            let outcome = ask(&face(), option, opcode, 0).0;
            assert_eq!(outcome.status, Status::CHECK_CONDITION, "{option} {opcode:02x}");
        }
        assert_eq!(ask(&face(), 2, 0xA3, 0x0A).0.status, Status::GOOD);
    }

    #[test]
    fn report_without_the_arrays_list_is_not_supported() {
        let face = Face::new(&samples::facts()).unwrap();
        assert_eq!(ask(&face, 0, 0, 0).0.status, Status::CHECK_CONDITION);
    }

    #[test]
    fn descriptors_take_any_bytes() {
        for len in 0..64 {
            for fill in [0, 2, 0xFF] {
                assert!(descriptors(&vec![fill; len]).count() <= len);
            }
        }
    }
}
