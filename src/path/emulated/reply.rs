//! What a command came to, before it has the form of an answer.

use crate::path::{Answer, Residual};
use crate::scsi::sense::SENSE_MAX;
use crate::scsi::{Asc, Sense, SenseKey, Status};

/// Executed, or refused.
pub(super) type Reply = Result<Done, Refusal>;

/// Executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Done {
    /// GOOD, or CONDITION MET.
    pub status: Status,
    /// Bytes that the command wanted to move, whatever the room lent for them.
    pub bytes: u64,
}

impl Done {
    /// GOOD, with so many bytes moved.
    pub(super) const fn good(bytes: u64) -> Self {
        Done { status: Status::GOOD, bytes }
    }
}

/// Not executed, or not to the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// CHECK CONDITION.
    Check(SenseKey, Asc, Detail),
    /// Another status, without sense data.
    Status(Status),
}

/// What the sense data says beyond key and code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Detail {
    /// Nothing.
    None,
    /// The field in the CDB that is wrong: its first byte (SPC-5 4.4.2.4.2).
    InCdb(u16),
    /// The field in the parameter list that is wrong.
    InParameters(u16),
    /// INFORMATION: a block address or an offset.
    Information(u64),
}

impl Refusal {
    /// ILLEGAL REQUEST with the field at `byte` of the CDB.
    pub(super) fn in_cdb(byte: u16) -> Self {
        let asc = Asc::INVALID_FIELD_IN_CDB;
        Refusal::Check(SenseKey::IllegalRequest, asc, Detail::InCdb(byte))
    }

    /// ILLEGAL REQUEST with the field at `byte` of the parameter list.
    pub(super) fn in_parameters(byte: u16) -> Self {
        let asc = Asc::INVALID_FIELD_IN_PARAMETER_LIST;
        Refusal::Check(SenseKey::IllegalRequest, asc, Detail::InParameters(byte))
    }

    /// ILLEGAL REQUEST with this code.
    pub(super) fn illegal(asc: Asc) -> Self {
        Refusal::Check(SenseKey::IllegalRequest, asc, Detail::None)
    }
}

/// The answer for a command that was lent `room` bytes.
pub(super) fn answer(reply: Reply, room: usize, descriptor_sense: bool) -> Answer {
    let bytes = reply.as_ref().map_or(0, |done| done.bytes);
    let room = room as u64;
    let short = |bytes: u64| bytes.min(u64::from(u32::MAX)) as u32;
    let residual = match bytes.cmp(&room) {
        std::cmp::Ordering::Equal => Residual::None,
        std::cmp::Ordering::Less => Residual::Under(short(room - bytes)),
        std::cmp::Ordering::Greater => Residual::Over(short(bytes - room)),
    };
    match reply {
        Ok(done) => Answer { status: done.status, sense: None, residual },
        Err(Refusal::Status(status)) => Answer { status, sense: None, residual },
        Err(Refusal::Check(key, asc, detail)) => {
            let sense = Some(Box::new(sense(key, asc, detail, descriptor_sense)));
            Answer { status: Status::CHECK_CONDITION, sense, residual }
        }
    }
}

/// Sense data in the format asked for (SPC-5 4.4.2, 4.4.3).
pub(super) fn sense(key: SenseKey, asc: Asc, detail: Detail, descriptor: bool) -> Sense {
    if !descriptor {
        let sense = Sense::fixed(key, asc);
        return match detail {
            Detail::None => sense,
            Detail::InCdb(byte) => sense.with_field_pointer(true, byte, None),
            Detail::InParameters(byte) => sense.with_field_pointer(false, byte, None),
            // What does not fit in four bytes is left out: VALID says so.
            Detail::Information(value) => match u32::try_from(value) {
                Ok(value) => sense.with_information(value),
                Err(_) => sense,
            },
        };
    }
    let mut bytes = Vec::with_capacity(SENSE_MAX);
    bytes.extend_from_slice(&[0x72, key as u8, asc.0, asc.1, 0, 0, 0, 0]);
    match detail {
        Detail::None => {}
        Detail::InCdb(byte) | Detail::InParameters(byte) => {
            let in_cdb = matches!(detail, Detail::InCdb(_));
            let [high, low] = byte.to_be_bytes();
            bytes.extend_from_slice(&[2, 6, 0, 0, 0x80 | u8::from(in_cdb) << 6, high, low, 0]);
        }
        Detail::Information(value) => {
            bytes.extend_from_slice(&[0, 10, 0x80, 0]);
            bytes.extend_from_slice(&value.to_be_bytes());
        }
    }
    bytes[7] = (bytes.len() - 8) as u8;
    Sense::from_bytes(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sense_has_both_formats() {
        let (key, asc) = (SenseKey::Miscompare, Asc::MISCOMPARE_DURING_VERIFY);
        let fixed = sense(key, asc, Detail::Information(0x1234), false);
        assert_eq!(
            fixed.bytes(),
            [0xF0, 0, 0x0E, 0, 0, 0x12, 0x34, 10, 0, 0, 0, 0, 0x1D, 0, 0, 0, 0, 0]
        );
        let descriptor = sense(key, asc, Detail::Information(0x1234), true);
        let expected =
            [0x72, 0x0E, 0x1D, 0, 0, 0, 0, 12, 0, 10, 0x80, 0, 0, 0, 0, 0, 0, 0, 0x12, 0x34];
        assert_eq!(descriptor.bytes(), expected);
        let pointer = sense(key, asc, Detail::InCdb(7), true);
        assert_eq!(pointer.bytes()[7..], [8, 2, 6, 0, 0, 0xC0, 0, 7, 0]);
    }

    #[test]
    fn answer_tells_what_was_left_over() {
        let residual = |bytes, room| answer(Ok(Done::good(bytes)), room, false).residual;
        assert_eq!(residual(512, 512), Residual::None);
        assert_eq!(residual(36, 255), Residual::Under(219));
        assert_eq!(residual(4096, 512), Residual::Over(3584));
        assert_eq!(answer(Err(Refusal::in_cdb(1)), 8, false).residual, Residual::Under(8));
    }
}
