//! What crosses the wire between driver and device, and between array and device.

use vhost_user_scsi_mpath::completion::Outcome;
use vhost_user_scsi_mpath::lun::Repeat;
use vhost_user_scsi_mpath::multipath::classify::{Class, Executed, classify};
use vhost_user_scsi_mpath::multipath::retry::{Next, Tries, rule};
use vhost_user_scsi_mpath::path::{Answer, Failure, Fate, Reach, Residual};
use vhost_user_scsi_mpath::scsi::sense::SENSE_MAX;
use vhost_user_scsi_mpath::scsi::{Sense, Status};
use vhost_user_scsi_mpath::virtio_scsi::request::response;
use vhost_user_scsi_mpath::virtio_scsi::{Address, ControlRequest, ControlResponse, RequestHeader};

use super::Bytes;

/// A request of the request ring, then one of the control ring.
pub fn requests(data: &[u8]) {
    let mut bytes = Bytes::new(data);
    let header = RequestHeader::parse(&bytes.array());
    if let Address::LogicalUnit { target, lun } = header.address {
        let [high, low] = lun.to_be_bytes();
        for form in [0, 0x40] {
            let again = Address::parse([1, target, high | form, low, 0, 0, 0, 0]);
            assert_eq!(again, header.address, "peripheral and flat, it is the same unit");
        }
    }
    let len = header.cdb.bytes().len();
    assert!(header.cdb.padded()[len..].iter().all(|byte| *byte == 0));
    let rest = bytes.rest();
    if let Some(request) = ControlRequest::parse(rest) {
        let (bytes, len) = request.response(ControlResponse::FunctionRejected);
        assert!((1..=bytes.len()).contains(&len));
        let kind = u32::from_le_bytes(rest[..4].try_into().expect("it was read"));
        match request {
            ControlRequest::TaskManagement { tag, .. } => {
                assert_eq!((kind, &rest[16..24]), (0, &tag.to_le_bytes()[..]));
            }
            ControlRequest::AsynchronousNotification => assert!(matches!(kind, 1 | 2)),
            ControlRequest::Unknown => assert!(kind > 2),
        }
    }
}

const REPEATS: [Repeat; 3] = [Repeat::Freely, Repeat::AfterProof, Repeat::Never];

/// An end of an attempt: status, residual, sense.
pub fn sense(data: &[u8]) {
    let mut bytes = Bytes::new(data);
    let status = Status(bytes.u8());
    let kind = bytes.u8();
    let residual = match kind % 3 {
        0 => Residual::None,
        1 => Residual::Under(bytes.u32()),
        _ => Residual::Over(bytes.u32()),
    };
    let mut tries = Tries { made: bytes.u8(), busy: bytes.u8() % 8 };
    let raw = bytes.rest();
    let sense = Sense::from_bytes(raw);
    assert_eq!(sense.bytes(), &raw[..raw.len().min(SENSE_MAX)]);
    if let Some((key, code)) = sense.decode() {
        // Read from what is there, in either format; what was cut off is zero.
        let at = if matches!(raw[0] & 0x7F, 0x70 | 0x71) { [2, 12, 13] } else { [1, 2, 3] };
        let byte = |at: usize| raw.get(at).copied().unwrap_or(0);
        assert_eq!((key as u8, code.0, code.1), (byte(at[0]) & 0xF, byte(at[1]), byte(at[2])));
    }
    let _ = (format!("{sense:?}"), sense.is_deferred(), status.to_string());
    let bytes = response(&Outcome::sense(sense.clone(), 512));
    assert_eq!(bytes[12..12 + sense.bytes().len()], *sense.bytes());
    assert!(bytes[12 + sense.bytes().len()..].iter().all(|byte| *byte == 0));
    let sense = (!raw.is_empty()).then(|| Box::new(sense));
    judge(&Fate::Answered(Answer { status, sense, residual }), &mut tries);
    let failures =
        [Failure::Disconnected, Failure::TimedOut, Failure::Transient, Failure::Protocol];
    let reaches = [Reach::NotSent, Reach::Terminated, Reach::Unknown, Reach::Parked];
    let failure = failures[usize::from(kind / 3) % 4];
    judge(&Fate::Failed(failure, reaches[usize::from(kind / 12) % 4]), &mut tries);
}

/// What must never be executed twice is not sent again, unless it was not executed.
fn judge(fate: &Fate, tries: &mut Tries) {
    let verdict = classify(fate);
    for repeat in REPEATS {
        let mut tries = *tries;
        let made = tries.made;
        let ruling = rule(verdict, repeat, &mut tries);
        assert!(tries.made >= made, "{verdict:?}");
        let unproven = matches!(verdict.executed, Executed::Unknown | Executed::Parked);
        let perhaps = unproven || verdict.executed == Executed::Perhaps;
        if let Next::Again { .. } = ruling.next {
            assert!(!perhaps || repeat == Repeat::Freely, "{verdict:?} {repeat:?}");
        }
        if perhaps && repeat == Repeat::Never {
            assert!(matches!(ruling.next, Next::Abort | Next::Deliver), "{verdict:?}");
        }
        if let (Fate::Failed(..), Next::Deliver) = (fate, ruling.next) {
            panic!("there is nothing to deliver: {verdict:?}");
        }
        if verdict.class == Class::Done {
            assert_eq!(ruling.next, Next::Deliver);
        }
    }
    let _ = rule(verdict, Repeat::Freely, tries);
}
