//! The commands that the virtual LUN answers itself.

use super::Face;
use super::commands::{Answered, Row};
use super::decide::Question;
use super::operation_codes;
use crate::completion::Outcome;
use crate::scsi::capacity::LEN_16;
use crate::scsi::opcode;
use crate::scsi::sense::Sense;
use crate::scsi::{Asc, Cdb, SenseKey};

/// INQUIRY data where no logical unit is (SPC-5 table 151): PQ 011b, type 1Fh.
const NO_LOGICAL_UNIT: u8 = 0x7F;
/// Peripheral device type of well-known logical units.
const WELL_KNOWN: u8 = 0x1E;
/// The REPORT LUNS well-known logical unit, as REPORT LUNS lists it.
const REPORT_LUNS_W_LUN: [u8; 8] = [0xC1, 0x01, 0, 0, 0, 0, 0, 0];

/// Answers `question`, a command of ours. `None` while nobody knows yet who the LUN is.
pub fn answer(
    what: Answered,
    question: &Question<'_>,
    face: Option<&Face>,
    attention: &mut Option<Asc>,
) -> Option<Outcome> {
    Some(match what {
        Answered::Inquiry => inquiry(question, face?),
        Answered::ReportLuns => report_luns(question),
        Answered::RequestSense => request_sense(question, attention.take()),
        Answered::ReadCapacity10 => read_capacity_10(question, face?),
        Answered::ReadCapacity16 => read_capacity_16(question, face?),
        Answered::SupportedOperationCodes => operation_codes::report(question, face?),
        Answered::SupportedTaskManagement => supported_task_management(question),
    })
}

/// A command that the virtual LUN does not have.
pub fn refused(row: &Row, room: u32) -> Outcome {
    let code = match row.service_action {
        // The operation code exists for other service actions (SPC-5 5.14).
        Some(_) => Asc::INVALID_FIELD_IN_CDB,
        None => Asc::INVALID_OPCODE,
    };
    Outcome::check(SenseKey::IllegalRequest, code, room)
}

/// A request for a LUN that target 0 does not have (SPC-5 6.6.2, 6.39; SAM-5 5.11).
pub fn absent_lun(question: &Question<'_>) -> Outcome {
    match question.cdb.opcode() {
        opcode::INQUIRY if question.cdb.padded()[1] & 1 == 0 => {
            let data = bare_inquiry(NO_LOGICAL_UNIT);
            give(question, &data, inquiry_allocation(question.cdb))
        }
        opcode::REPORT_LUNS => report_luns(question),
        opcode::REQUEST_SENSE => {
            sense_data(question, SenseKey::IllegalRequest, Asc::LUN_NOT_SUPPORTED)
        }
        _ => Outcome::check(SenseKey::IllegalRequest, Asc::LUN_NOT_SUPPORTED, question.room),
    }
}

/// A request for the REPORT LUNS well-known logical unit (SPC-5 8.2).
pub fn well_known_lun(question: &Question<'_>) -> Outcome {
    let cdb = question.cdb.padded();
    match question.cdb.opcode() {
        opcode::INQUIRY if cdb[1] & 1 == 0 && cdb[2] == 0 => {
            give(question, &bare_inquiry(WELL_KNOWN), inquiry_allocation(question.cdb))
        }
        opcode::INQUIRY if cdb[1] & 1 == 1 && cdb[2] == 0 => {
            let data = [WELL_KNOWN, 0, 0, 1, 0];
            give(question, &data, inquiry_allocation(question.cdb))
        }
        opcode::INQUIRY => invalid_field(question, 2),
        opcode::REPORT_LUNS => report_luns(question),
        opcode::REQUEST_SENSE => sense_data(question, SenseKey::NoSense, Asc::NONE),
        opcode::TEST_UNIT_READY => Outcome::good(0, question.room),
        _ => Outcome::check(SenseKey::IllegalRequest, Asc::INVALID_OPCODE, question.room),
    }
}

/// Stores `data`, cut to the allocation length and the guest's room.
pub(super) fn give(question: &Question<'_>, data: &[u8], allocation: usize) -> Outcome {
    let stored = question.data_in.write_at(0, &data[..data.len().min(allocation)]);
    Outcome::good(stored as u32, question.room)
}

/// INVALID FIELD IN CDB, with a pointer to the byte.
pub(super) fn invalid_field(question: &Question<'_>, byte: u16) -> Outcome {
    let sense = Sense::fixed(SenseKey::IllegalRequest, Asc::INVALID_FIELD_IN_CDB);
    Outcome::sense(sense.with_field_pointer(true, byte, None), question.room)
}

fn inquiry(question: &Question<'_>, face: &Face) -> Outcome {
    let (evpd, page) = (question.cdb.padded()[1] & 1 == 1, question.cdb.padded()[2]);
    let allocation = inquiry_allocation(question.cdb);
    if question.cdb.padded()[1] & 2 != 0 {
        return invalid_field(question, 1);
    }
    match (evpd, page) {
        (false, 0) => give(question, face.inquiry(), allocation),
        (false, _) => invalid_field(question, 2),
        (true, page) => match face.page(page) {
            Some(data) => give(question, data, allocation),
            None => invalid_field(question, 2),
        },
    }
}

fn inquiry_allocation(cdb: &Cdb) -> usize {
    usize::from(cdb.be16(3))
}

/// Standard INQUIRY data of a unit that is none of ours: SPC-5, response format 2.
fn bare_inquiry(first: u8) -> [u8; 36] {
    let mut data = [0; 36];
    data[0] = first;
    data[2] = 0x07;
    data[3] = 0x02;
    data[4] = 31;
    data[8..16].copy_from_slice(b"        ");
    data[16..32].copy_from_slice(b"                ");
    data[32..36].copy_from_slice(b"    ");
    data
}

/// SPC-5 6.39: LUN 0 is all there is, and the well-known unit for those who ask for it.
fn report_luns(question: &Question<'_>) -> Outcome {
    let luns: &[[u8; 8]] = match question.cdb.padded()[2] {
        0x00 => &[[0; 8]],
        0x01 => &[REPORT_LUNS_W_LUN],
        0x02 => &[[0; 8], REPORT_LUNS_W_LUN],
        0x10..=0x12 => &[],
        _ => return invalid_field(question, 2),
    };
    let allocation = question.cdb.be32(6) as usize;
    if allocation < 16 {
        return invalid_field(question, 6);
    }
    let mut data = vec![0; 8];
    data[0..4].copy_from_slice(&(8 * luns.len() as u32).to_be_bytes());
    data.extend(luns.iter().flatten());
    give(question, &data, allocation)
}

fn request_sense(question: &Question<'_>, attention: Option<Asc>) -> Outcome {
    match attention {
        Some(code) => sense_data(question, SenseKey::UnitAttention, code),
        None => sense_data(question, SenseKey::NoSense, Asc::NONE),
    }
}

/// Parameter data of REQUEST SENSE (SPC-5 6.45), in the format that DESC asks for.
fn sense_data(question: &Question<'_>, key: SenseKey, code: Asc) -> Outcome {
    let descriptor = question.cdb.padded()[1] & 1 == 1;
    let sense = if descriptor { Sense::descriptor(key, code) } else { Sense::fixed(key, code) };
    give(question, sense.bytes(), usize::from(question.cdb.padded()[4]))
}

fn read_capacity_10(question: &Question<'_>, face: &Face) -> Outcome {
    const ALWAYS: usize = 8;
    if question.cdb.padded()[8] & 1 == 0 && question.cdb.be32(2) != 0 {
        return invalid_field(question, 2);
    }
    give(question, &face.capacity.encode_10(), ALWAYS)
}

fn read_capacity_16(question: &Question<'_>, face: &Face) -> Outcome {
    let allocation = question.cdb.be32(10) as usize;
    give(question, &face.capacity.encode_16(), allocation.min(LEN_16))
}

/// SPC-5 6.36: ABORT TASK, ABORT TASK SET, CLEAR TASK SET, LOGICAL UNIT RESET, QUERY TASK; and in
/// the next byte QUERY TASK SET and I_T NEXUS RESET.
fn supported_task_management(question: &Question<'_>) -> Outcome {
    const FIRST: u8 = 0x80 | 0x40 | 0x10 | 0x08 | 0x04;
    const SECOND: u8 = 0x04 | 0x01;
    let extended = question.cdb.padded()[2] & 0x80 != 0;
    let mut data = [0; 16];
    (data[0], data[1]) = (FIRST, SECOND);
    let len = if extended {
        data[3] = 12;
        16
    } else {
        4
    };
    let allocation = question.cdb.be32(6) as usize;
    if allocation < 4 {
        return invalid_field(question, 6);
    }
    give(question, &data[..len], allocation)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffer::OwnedBuffer;
    use crate::lun::decide::Unit;
    use crate::lun::face::samples;
    use crate::scsi::Status;

    fn ask(what: Answered, cdb: &[u8], room: usize) -> (Outcome, Vec<u8>) {
        let buffer = OwnedBuffer::zeroed(room);
        let cdb = Cdb::new(cdb);
        let question =
            Question { unit: Unit::Ours, cdb: &cdb, data_in: buffer.segments(), room: room as u32 };
        let face = Face::new(&samples::facts()).unwrap();
        let outcome = answer(what, &question, Some(&face), &mut None).unwrap();
        let data = buffer.to_vec()[..outcome.stored as usize].to_vec();
        (outcome, data)
    }

    #[test]
    fn inquiry_is_cut_to_the_allocation_length() {
        let (outcome, data) = ask(Answered::Inquiry, &[0x12, 0, 0, 0, 8, 0], 96);
        assert_eq!((data.len(), outcome.residual), (8, 88));
        let (outcome, data) = ask(Answered::Inquiry, &[0x12, 0, 0, 1, 0, 0], 16);
        assert_eq!((data.len(), outcome.residual), (16, 0));
    }

    #[test]
    fn inquiry_page_code_without_evpd_is_refused() {
        let (outcome, _) = ask(Answered::Inquiry, &[0x12, 0, 0x80, 0, 96, 0], 96);
        assert_eq!(outcome.status, Status::CHECK_CONDITION);
        let (outcome, _) = ask(Answered::Inquiry, &[0x12, 1, 0xC0, 0, 96, 0], 96);
        assert_eq!(outcome.status, Status::CHECK_CONDITION);
    }

    #[test]
    fn report_luns_lists_lun_0_and_on_request_the_well_known_unit() {
        let cdb = |select| [0xA0, 0, select, 0, 0, 0, 0, 0, 0, 64, 0, 0];
        assert_eq!(ask(Answered::ReportLuns, &cdb(0), 64).1.len(), 16);
        assert_eq!(ask(Answered::ReportLuns, &cdb(2), 64).1[16..], REPORT_LUNS_W_LUN);
        let (outcome, _) = ask(Answered::ReportLuns, &cdb(9), 64);
        assert_eq!(outcome.status, Status::CHECK_CONDITION);
    }

    #[test]
    fn read_capacity_tells_the_published_size() {
        let (_, data) = ask(Answered::ReadCapacity10, &[0x25; 1], 8);
        assert_eq!(data, [0, 0, 0x3F, 0xFF, 0, 0, 2, 0]);
        let mut cdb = [0; 16];
        (cdb[0], cdb[1], cdb[13]) = (0x9E, 0x10, 12);
        assert_eq!(ask(Answered::ReadCapacity16, &cdb, 32).1.len(), 12);
    }

    #[test]
    fn request_sense_tells_a_pending_attention() {
        let cdb = Cdb::new(&[0x03, 0, 0, 0, 252, 0]);
        let buffer = OwnedBuffer::zeroed(252);
        let question =
            Question { unit: Unit::Ours, cdb: &cdb, data_in: buffer.segments(), room: 252 };
        let mut attention = Some(Asc::BUS_DEVICE_RESET);
        let outcome = answer(Answered::RequestSense, &question, None, &mut attention).unwrap();
        assert_eq!((outcome.status, attention), (Status::GOOD, None));
        let sense = Sense::from_bytes(&buffer.to_vec()[..18]);
        assert_eq!(sense.decode(), Some((SenseKey::UnitAttention, Asc::BUS_DEVICE_RESET)));
    }

    #[test]
    fn supported_task_management_has_both_forms() {
        let mut cdb = [0; 12];
        (cdb[0], cdb[1], cdb[9]) = (0xA3, 0x0D, 16);
        assert_eq!(ask(Answered::SupportedTaskManagement, &cdb, 16).1, [0xDC, 0x05, 0, 0]);
        cdb[2] = 0x80;
        assert_eq!(ask(Answered::SupportedTaskManagement, &cdb, 16).1.len(), 16);
    }
}
