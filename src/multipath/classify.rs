//! **The table of results.** What the end of an attempt means: for the command, and for the path.
//!
//! Two questions are kept apart, as no other multipath does: *whose fault is it* (the path's, the
//! logical unit's, the host's), and *was the command executed*. Only the first decides what becomes
//! of the path; both decide what becomes of the command (see [`super::retry`]).

use crate::path::{Answer, Failure, Fate, Reach};
use crate::scsi::alua::AccessState;
use crate::scsi::{Asc, SenseKey, Status};

/// Was the command executed?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Executed {
    /// As the status says.
    Yes,
    /// No, and it will not be.
    No,
    /// Perhaps; but it will not be from now on.
    Perhaps,
    /// Perhaps, and perhaps it still will be.
    Unknown,
    /// As that, and no time bounds it: only its path can say that it is over.
    Parked,
}

/// What an attempt's end means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The device server's last word; the guest gets it unchanged.
    Done,
    /// RESERVATION CONFLICT: the array does not allow it to this path's nexus. Not executed.
    Conflict,
    /// Device server or path is loaded: wait a little.
    Load,
    /// The host lacks a resource: wait a little.
    HostBusy,
    /// The port's access state is not what we thought. Not executed.
    Access(AccessState),
    /// A unit attention of this path's own nexus that makes its identity doubtful. Not executed.
    Doubt(Asc),
    /// A unit attention about asymmetric access. Not executed.
    AccessChanged(Asc),
    /// A unit attention about the size. Not executed.
    SizeChanged,
    /// A unit attention that the guest must hear of, once. Not executed.
    Attention(Asc),
    /// The logical unit is not behind this port (any more). Not executed.
    Unmapped,
    /// The device server aborted the command because of the link or of another initiator: once
    /// more, elsewhere. It may have been executed.
    Aborted,
    /// The host's transport failed with this one command: once more, elsewhere.
    Disturbed,
    /// The path failed.
    PathFailed(Failure),
    /// The path cannot carry this command, and is well otherwise. Not executed.
    Unsupported,
}

/// The end of an attempt, understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What it means.
    pub class: Class,
    /// Was the command executed?
    pub executed: Executed,
}

/// One row of the sense table: the first row that fits counts.
#[derive(Debug)]
pub struct SenseRow {
    /// SENSE KEY.
    pub key: SenseKey,
    /// ADDITIONAL SENSE CODE, `None` for any.
    pub asc: Option<u8>,
    /// Its qualifier, `None` for any.
    pub ascq: Option<u8>,
    /// What it means.
    pub class: Class,
    /// Was the command executed?
    pub executed: Executed,
}

macro_rules! senses {
    ($($key:ident $asc:tt $ascq:tt, $class:expr, $executed:ident;)*) => {
        &[$(SenseRow {
            key: SenseKey::$key,
            asc: code!($asc),
            ascq: code!($ascq),
            class: $class,
            executed: Executed::$executed,
        },)*]
    };
}

macro_rules! code {
    (any) => {
        None
    };
    ($code:literal) => {
        Some($code)
    };
}

use Class::{Aborted, Access, AccessChanged, Attention, Done, Doubt, SizeChanged, Unmapped};

/// The code of the sense itself takes this one's place.
const CODE: Asc = Asc(0, 0);

/// CHECK CONDITION by sense key and code. What has no row is the device server's last word: the
/// medium's errors, illegal requests, protected data and miscompares are the same over every path.
pub const SENSES: &[SenseRow] = senses! {
    // key            ASC   ASCQ   means                                             executed
    NotReady          0x04  0x0A,  Access(AccessState::Transitioning),               No;
    NotReady          0x04  0x0B,  Access(AccessState::Standby),                     No;
    NotReady          0x04  0x0C,  Access(AccessState::Unavailable),                 No;
    NotReady          0x04  0x12,  Access(AccessState::Offline),                     No;
    // Not found behind this port; over another port it may well be.
    IllegalRequest    0x25  0x00,  Unmapped,                                         No;
    // Unit attentions. A command that gets one has not been executed (SAM-5 5.14).
    UnitAttention     0x04  0x0A,  Access(AccessState::Transitioning),               No;
    UnitAttention     0x29  any,   Doubt(CODE),                                      No;
    UnitAttention     0x2A  0x06,  AccessChanged(CODE),                              No;
    UnitAttention     0x2A  0x07,  AccessChanged(CODE),                              No;
    UnitAttention     0x2A  0x09,  SizeChanged,                                      No;
    UnitAttention     0x3F  0x03,  Doubt(CODE),                                      No;
    UnitAttention     0x3F  0x05,  Doubt(CODE),                                      No;
    UnitAttention     0x3F  0x0E,  Doubt(CODE),                                      No;
    UnitAttention     any   any,   Attention(CODE),                                  No;
    // The link's own errors, told by the device server: another path may do better.
    HardwareError     0x08  any,   Aborted,                                          Perhaps;
    HardwareError     0x47  any,   Aborted,                                          Perhaps;
    AbortedCommand    0x08  any,   Aborted,                                          Perhaps;
    AbortedCommand    0x0E  any,   Aborted,                                          Perhaps;
    AbortedCommand    0x2F  any,   Aborted,                                          Perhaps;
    AbortedCommand    0x47  any,   Aborted,                                          Perhaps;
    AbortedCommand    0x4B  any,   Aborted,                                          Perhaps;
};

/// What `fate` means.
pub fn classify(fate: &Fate) -> Verdict {
    match fate {
        Fate::Answered(answer) => classify_answer(answer),
        Fate::Failed(failure, reach) => classify_failure(*failure, *reach),
    }
}

fn classify_answer(answer: &Answer) -> Verdict {
    let verdict = |class, executed| Verdict { class, executed };
    match answer.status {
        Status::CHECK_CONDITION => classify_sense(answer),
        Status::BUSY | Status::TASK_SET_FULL => verdict(Class::Load, Executed::No),
        Status::TASK_ABORTED => verdict(Class::Aborted, Executed::Perhaps),
        Status::RESERVATION_CONFLICT => verdict(Class::Conflict, Executed::No),
        // GOOD, CONDITION MET, ACA ACTIVE, and what no standard names.
        _ => verdict(Class::Done, Executed::Yes),
    }
}

fn classify_sense(answer: &Answer) -> Verdict {
    let done = Verdict { class: Done, executed: Executed::Yes };
    let Some((key, code, deferred)) = answer
        .sense
        .as_ref()
        .and_then(|sense| sense.decode().map(|(key, code)| (key, code, sense.is_deferred())))
    else {
        // CHECK CONDITION that says nothing: the link lost the sense, or the array is confused.
        return Verdict { class: Aborted, executed: Executed::Perhaps };
    };
    if deferred {
        // It tells of an earlier command, and the guest must hear of it.
        return done;
    }
    let fits = |row: &&SenseRow| {
        row.key == key
            && row.asc.is_none_or(|asc| asc == code.0)
            && row.ascq.is_none_or(|ascq| ascq == code.1)
    };
    SENSES.iter().find(fits).map_or(done, |row| Verdict {
        class: match row.class {
            Doubt(_) => Doubt(code),
            AccessChanged(_) => AccessChanged(code),
            Attention(_) => Attention(code),
            other => other,
        },
        executed: row.executed,
    })
}

/// | failure | class | path |
/// |---|---|---|
/// | the link was cut, the transport gave up, the protocol was broken, we took it back | path failed | out |
/// | the host's transport failed with this one command | disturbed | stays |
/// | the host lacked memory or tags | host busy | stays |
/// | the transport cannot carry the command | unsupported | stays |
fn classify_failure(failure: Failure, reach: Reach) -> Verdict {
    let class = match failure {
        Failure::Transient => Class::Disturbed,
        Failure::HostBusy => Class::HostBusy,
        Failure::Unsupported => Class::Unsupported,
        Failure::Disconnected | Failure::TimedOut | Failure::Recalled | Failure::Protocol => {
            Class::PathFailed(failure)
        }
    };
    let executed = match reach {
        Reach::NotSent => Executed::No,
        Reach::Terminated => Executed::Perhaps,
        Reach::Unknown => Executed::Unknown,
        Reach::Parked => Executed::Parked,
    };
    Verdict { class, executed }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::Residual;
    use crate::scsi::Sense;

    fn answered(status: Status, sense: Option<Sense>) -> Fate {
        let sense = sense.map(Box::new);
        Fate::Answered(Answer { status, sense, residual: Residual::None })
    }

    fn sensed(key: SenseKey, asc: u8, ascq: u8) -> Verdict {
        let fixed =
            classify(&answered(Status::CHECK_CONDITION, Some(Sense::fixed(key, Asc(asc, ascq)))));
        let descriptor = classify(&answered(
            Status::CHECK_CONDITION,
            Some(Sense::descriptor(key, Asc(asc, ascq))),
        ));
        assert_eq!(fixed, descriptor);
        fixed
    }

    const DONE: Verdict = Verdict { class: Done, executed: Executed::Yes };

    #[test]
    fn classify_status_without_sense() {
        for (status, class, executed) in [
            (Status::GOOD, Done, Executed::Yes),
            (Status::CONDITION_MET, Done, Executed::Yes),
            (Status::RESERVATION_CONFLICT, Class::Conflict, Executed::No),
            (Status::ACA_ACTIVE, Done, Executed::Yes),
            (Status(0x77), Done, Executed::Yes),
            (Status::BUSY, Class::Load, Executed::No),
            (Status::TASK_SET_FULL, Class::Load, Executed::No),
            (Status::TASK_ABORTED, Aborted, Executed::Perhaps),
            (Status::CHECK_CONDITION, Aborted, Executed::Perhaps),
        ] {
            assert_eq!(classify(&answered(status, None)), Verdict { class, executed }, "{status}");
        }
    }

    #[test]
    fn classify_the_logical_units_own_errors_are_final() {
        for (key, asc, ascq) in [
            (SenseKey::MediumError, 0x11, 0x00),
            (SenseKey::HardwareError, 0x44, 0x00),
            (SenseKey::IllegalRequest, 0x20, 0x00),
            (SenseKey::IllegalRequest, 0x24, 0x00),
            (SenseKey::DataProtect, 0x27, 0x07),
            (SenseKey::Miscompare, 0x1D, 0x00),
            (SenseKey::NotReady, 0x04, 0x01),
            (SenseKey::NotReady, 0x04, 0x02),
            (SenseKey::NotReady, 0x3A, 0x00),
            (SenseKey::AbortedCommand, 0x10, 0x01),
            (SenseKey::RecoveredError, 0x17, 0x00),
        ] {
            assert_eq!(sensed(key, asc, ascq), DONE, "{key:?} {asc:02x}/{ascq:02x}");
        }
    }

    #[test]
    fn classify_access_states() {
        for (ascq, state) in [
            (0x0A, AccessState::Transitioning),
            (0x0B, AccessState::Standby),
            (0x0C, AccessState::Unavailable),
            (0x12, AccessState::Offline),
        ] {
            let expected = Verdict { class: Access(state), executed: Executed::No };
            assert_eq!(sensed(SenseKey::NotReady, 0x04, ascq), expected);
        }
    }

    #[test]
    fn classify_unit_attentions_were_not_executed() {
        for asc in 0..=255 {
            for ascq in [0, 1, 3, 6, 9, 0x0E] {
                let verdict = sensed(SenseKey::UnitAttention, asc, ascq);
                assert_eq!(verdict.executed, Executed::No);
            }
        }
        let class = |asc, ascq| sensed(SenseKey::UnitAttention, asc, ascq).class;
        assert_eq!(class(0x29, 0x07), Doubt(Asc(0x29, 0x07)));
        assert_eq!(class(0x3F, 0x0E), Doubt(Asc(0x3F, 0x0E)));
        assert_eq!(class(0x2A, 0x06), AccessChanged(Asc(0x2A, 0x06)));
        assert_eq!(class(0x2A, 0x09), SizeChanged);
        assert_eq!(class(0x2A, 0x01), Attention(Asc(0x2A, 0x01)));
    }

    #[test]
    fn classify_deferred_error_goes_to_the_guest() {
        let mut bytes = [0; 18];
        (bytes[0], bytes[2], bytes[12]) = (0x71, 0x06, 0x29);
        let sense = Some(Sense::from_bytes(&bytes));
        assert_eq!(classify(&answered(Status::CHECK_CONDITION, sense)), DONE);
    }

    #[test]
    fn classify_failures_keep_fault_and_execution_apart() {
        let of = |failure, reach| classify(&Fate::Failed(failure, reach));
        let failed = Class::PathFailed(Failure::Disconnected);
        for (reach, executed) in [
            (Reach::NotSent, Executed::No),
            (Reach::Terminated, Executed::Perhaps),
            (Reach::Unknown, Executed::Unknown),
            (Reach::Parked, Executed::Parked),
        ] {
            assert_eq!(of(Failure::Disconnected, reach), Verdict { class: failed, executed });
        }
        assert_eq!(of(Failure::Transient, Reach::Unknown).class, Class::Disturbed);
        assert_eq!(of(Failure::HostBusy, Reach::NotSent).class, Class::HostBusy);
        assert_eq!(of(Failure::Unsupported, Reach::NotSent).class, Class::Unsupported);
    }
}
