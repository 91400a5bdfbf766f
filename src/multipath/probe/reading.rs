//! What an answer to a question brought.

use super::{Finding, Probe};
use crate::multipath::classify::Class;
use crate::path::{Answer, Fate, Residual};
use crate::scsi::{SenseKey, Status};

impl Probe {
    /// True when the last question was answered with GOOD, and a unit attention would have come
    /// before that.
    pub fn is_clear(&self, fate: &Fate) -> bool {
        let good = |answer: &Answer| answer.status == Status::GOOD;
        matches!(fate, Fate::Answered(answer) if good(answer) && self.at.reports_attention())
    }
}

/// What reading a block found out about a path in use.
pub(super) fn read_finding(answer: &Answer, class: Class) -> Finding {
    let sense = answer.sense.as_ref().and_then(|sense| sense.decode());
    match sense {
        _ if matches!(class, Class::Access(_)) => Finding::Changed,
        Some((SenseKey::MediumError | SenseKey::HardwareError | SenseKey::NotReady, _)) => {
            Finding::Unreadable(cannot_read(answer))
        }
        _ => Finding::Ready,
    }
}

/// In words, for people.
pub(super) fn cannot_read(answer: &Answer) -> String {
    let why = answer.sense.as_ref().map(|sense| format!(" {sense:?}")).unwrap_or_default();
    format!("cannot read: {}{why}", answer.status)
}

/// The data of an answer with GOOD status, without what was not filled.
pub(super) fn good<'a>(answer: &Answer, data: &'a [u8]) -> Option<&'a [u8]> {
    let unused = match answer.residual {
        Residual::Under(bytes) => bytes as usize,
        Residual::None | Residual::Over(_) => 0,
    };
    (answer.status == Status::GOOD).then(|| &data[..data.len().saturating_sub(unused)])
}

/// What a transport's failure is called when people read it.
pub fn words(failure: crate::path::Failure) -> &'static str {
    use crate::path::Failure::*;
    match failure {
        Disconnected => "connection lost",
        TimedOut => "no answer in time",
        Recalled => "no answer in time",
        Transient => "an error of the host's transport",
        HostBusy => "the host lacks memory or tags",
        Unsupported => "command not supported by the transport",
        Protocol => "protocol error",
    }
}
