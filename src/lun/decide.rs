//! The first look at a request: is it for our LUN, and who answers it?

use super::commands::{self, Answered, Route, Row};
use super::{Face, answer};
use crate::buffer::Segments;
use crate::completion::{Outcome, Response};
use crate::scsi::{Asc, Cdb, SenseKey};

/// Which of target 0's logical units a request names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// LUN 0, the only one.
    Ours,
    /// Another LUN.
    Absent,
    /// The REPORT LUNS well-known logical unit.
    ReportLuns,
    /// Not of this target.
    Nowhere,
}

/// A request, as far as the virtual LUN looks at it.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// Where it is addressed to.
    pub unit: Unit,
    /// The command.
    pub cdb: &'a Cdb,
    /// Room for the answer's data.
    pub data_in: &'a Segments,
    /// Bytes of both directions together, for the residual.
    pub room: u32,
}

/// What to do with a request.
#[derive(Debug, PartialEq, Eq)]
pub enum Decision {
    /// It is answered; data, where there was any, is in its buffers.
    Done(Outcome),
    /// It goes to the array, by the rules of this row.
    Forward(&'static Row),
    /// It can be answered once a path has told who the LUN is.
    NeedsFace(&'static Row),
}

/// Decides about `request`. `attention` is the guest's pending unit attention; it is taken when
/// this request reports it (SAM-5 5.14).
pub fn decide(
    question: &Question<'_>,
    face: Option<&Face>,
    attention: &mut Option<Asc>,
) -> Decision {
    match question.unit {
        Unit::Ours => decide_ours(question, face, attention),
        Unit::Absent => Decision::Done(answer::absent_lun(question)),
        Unit::ReportLuns => Decision::Done(answer::well_known_lun(question)),
        Unit::Nowhere => Decision::Done(Outcome::response(Response::BadTarget, question.room)),
    }
}

fn decide_ours(
    question: &Question<'_>,
    face: Option<&Face>,
    attention: &mut Option<Asc>,
) -> Decision {
    let row = commands::row(question.cdb);
    if let Some(code) = *attention
        && reports_attention(row)
    {
        *attention = None;
        return Decision::Done(Outcome::check(SenseKey::UnitAttention, code, question.room));
    }
    match row.route {
        Route::Forward | Route::Pin | Route::Reserve => Decision::Forward(row),
        Route::Refuse => Decision::Done(answer::refused(row, question.room)),
        Route::Answer(what) => match answer::answer(what, question, face, attention) {
            Some(outcome) => Decision::Done(outcome),
            None => Decision::NeedsFace(row),
        },
    }
}

/// SAM-5 5.14.1: INQUIRY, REPORT LUNS and REQUEST SENSE do not end with a unit attention.
fn reports_attention(row: &Row) -> bool {
    !matches!(
        row.route,
        Route::Answer(Answered::Inquiry | Answered::ReportLuns | Answered::RequestSense)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffer::OwnedBuffer;
    use crate::lun::face::samples;
    use crate::scsi::Status;
    use crate::scsi::cdb::CDB_MAX;

    fn run(unit: Unit, cdb: &[u8], attention: &mut Option<Asc>) -> (Decision, Vec<u8>) {
        let mut bytes = [0; CDB_MAX];
        bytes[..cdb.len()].copy_from_slice(cdb);
        let cdb = Cdb::from_padded(bytes);
        let buffer = OwnedBuffer::zeroed(256);
        let question = Question { unit, cdb: &cdb, data_in: buffer.segments(), room: 256 };
        let face = Face::new(&samples::facts()).unwrap();
        (decide(&question, Some(&face), attention), buffer.to_vec())
    }

    const INQUIRY: [u8; 6] = [0x12, 0, 0, 0, 36, 0];

    fn status(decision: &Decision) -> Option<(Response, Status)> {
        match decision {
            Decision::Done(outcome) => Some((outcome.response, outcome.status)),
            _ => None,
        }
    }

    #[test]
    fn decide_read_is_forwarded() {
        let (decision, _) = run(Unit::Ours, &[0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0], &mut None);
        assert!(matches!(decision, Decision::Forward(row) if row.name == "READ(10)"));
    }

    #[test]
    fn decide_other_target_is_bad_target() {
        let (decision, _) = run(Unit::Nowhere, &INQUIRY, &mut None);
        assert_eq!(status(&decision), Some((Response::BadTarget, Status::GOOD)));
    }

    #[test]
    fn decide_absent_lun_says_so() {
        let (decision, data) = run(Unit::Absent, &INQUIRY, &mut None);
        assert_eq!(status(&decision), Some((Response::Ok, Status::GOOD)));
        assert_eq!(data[0], 0x7F);
        let (decision, _) = run(Unit::Absent, &[0; 6], &mut None);
        assert_eq!(
            decision,
            Decision::Done(Outcome::check(SenseKey::IllegalRequest, Asc::LUN_NOT_SUPPORTED, 256))
        );
    }

    #[test]
    fn decide_attention_is_told_once_and_not_by_inquiry() {
        let mut attention = Some(Asc::POWER_ON_OR_RESET);
        let (decision, _) = run(Unit::Ours, &INQUIRY, &mut attention);
        assert_eq!(status(&decision), Some((Response::Ok, Status::GOOD)));
        let (decision, _) = run(Unit::Ours, &[0; 6], &mut attention);
        assert_eq!(status(&decision), Some((Response::Ok, Status::CHECK_CONDITION)));
        assert_eq!(attention, None);
        assert!(matches!(run(Unit::Ours, &[0; 6], &mut attention).0, Decision::Forward(_)));
    }

    #[test]
    fn decide_refused_commands_name_the_opcode_or_the_service_action() {
        let check = |asc| Decision::Done(Outcome::check(SenseKey::IllegalRequest, asc, 256));
        assert_eq!(run(Unit::Ours, &[0x16; 6], &mut None).0, check(Asc::INVALID_OPCODE));
        let mut rtpg = [0; 12];
        (rtpg[0], rtpg[1]) = (0xA3, 0x0A);
        assert_eq!(run(Unit::Ours, &rtpg, &mut None).0, check(Asc::INVALID_FIELD_IN_CDB));
    }

    #[test]
    fn decide_without_a_face_waits_for_one() {
        let cdb = Cdb::new(&INQUIRY);
        let nothing = Segments::new();
        let question = Question { unit: Unit::Ours, cdb: &cdb, data_in: &nothing, room: 0 };
        assert!(matches!(decide(&question, None, &mut None), Decision::NeedsFace(_)));
    }
}
