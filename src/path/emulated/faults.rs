//! Faults that a user can set on a port of the built-in array: what a broken fabric or a sick
//! array does to commands, on order.
//!
//! | kind | what happens to a command | recalled |
//! |---|---|---|
//! | `drop` | lost on the way: never executed, never answered | outcome unknown |
//! | `hang` | executed at once; the answer is withheld until faults are cleared | outcome unknown |
//! | `delay` | begins so many milliseconds later | not executed |
//! | `rate` | waits for its turn on a line of so many bytes a second, then begins | not executed |
//! | `status` | refused with this SCSI status, not executed | (answered) |
//! | `sense` | refused with CHECK CONDITION and this sense, not executed | (answered) |
//! | `disconnect` | the link is cut: what is under way ends as disconnected, known to be over; new commands are not sent | (ended) |
//! | `access` | the port's whole group is in this access state, for so many milliseconds or until faults are cleared; then it is in the one before again, and every nexus hears of both changes | (answered) |
//!
//! Every command of the port is concerned, probes too: it is the wire that breaks. The kinds
//! coexist, and setting one again replaces it; of several the first set that strikes decides
//! about a command. `probability` (1 if not given) says how often one strikes, `count` after how
//! many strikes it is over; `disconnect` and `access` have neither. Clearing ends them all: delayed commands go
//! on at once, withheld answers are given, the link is back; what was dropped stays lost, and
//! ends by a recall or a disconnect only. A fault concerns the commands that come after it;
//! `disconnect` and clearing concern those under way too.
//!
//! ```text
//!   inject-fault  path=disk.img:1 fault=hang
//!   inject-fault  path=disk.img:1 fault=sense sense=3/11/00 probability=0.01
//!   inject-fault  path=disk.img:2 fault=delay milliseconds=200 count=10
//!   inject-fault  path=disk.img:2 fault=access access-state=transitioning milliseconds=10000
//!   clear-faults  path=disk.img:1
//! ```

use std::time::Duration;

use thiserror::Error;

use crate::scsi::alua::AccessState;
use crate::scsi::{Asc, SenseKey, Status};

/// The longest delay: an hour.
const MILLISECONDS_MAX: u64 = 3_600_000;

/// What a fault does; see the [module](self).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// Lost on the way.
    Drop,
    /// Executed, and the answer withheld.
    Hang,
    /// Begun later.
    Delay {
        /// By how much.
        milliseconds: u64,
    },
    /// A slow line, shared by all channels of the port.
    Rate {
        /// How slow.
        bytes_per_second: u64,
    },
    /// Refused with a status.
    Status(Status),
    /// Refused with CHECK CONDITION.
    Sense(SenseKey, Asc),
    /// The link is cut.
    Disconnect,
    /// The port's group is in another access state.
    Access {
        /// In which.
        state: AccessState,
        /// For how long; `None` until faults are cleared.
        time: Option<Duration>,
    },
}

/// A fault to set.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fault {
    /// What it does.
    pub kind: FaultKind,
    /// How often it strikes: more than 0, at most 1.
    pub probability: f64,
    /// After how many strikes it is over; `None` for never.
    pub count: Option<u64>,
}

/// Why a fault cannot be set.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FaultError {
    /// The kind has no use for an argument.
    #[error("fault {fault} takes no {argument}")]
    Unused {
        /// The kind.
        fault: &'static str,
        /// The argument.
        argument: &'static str,
    },
    /// An argument with an impossible value.
    #[error("{argument} {value}: {expected}")]
    BadValue {
        /// The argument.
        argument: &'static str,
        /// Its value.
        value: String,
        /// What is possible.
        expected: &'static str,
    },
}

impl FaultKind {
    /// The kind's name.
    pub fn name(&self) -> &'static str {
        match self {
            FaultKind::Drop => "drop",
            FaultKind::Hang => "hang",
            FaultKind::Delay { .. } => "delay",
            FaultKind::Rate { .. } => "rate",
            FaultKind::Status(_) => "status",
            FaultKind::Sense(..) => "sense",
            FaultKind::Disconnect => "disconnect",
            FaultKind::Access { .. } => "access",
        }
    }
}

impl Fault {
    /// A fault that always strikes, until it is cleared.
    pub fn new(kind: FaultKind) -> Self {
        Fault { kind, probability: 1.0, count: None }
    }

    /// Checks the values.
    pub(super) fn check(&self) -> Result<(), FaultError> {
        let bad = |argument, value: String, expected| {
            Err(FaultError::BadValue { argument, value, expected })
        };
        if matches!(self.kind, FaultKind::Disconnect | FaultKind::Access { .. }) {
            let fault = self.kind.name();
            if self.count.is_some() {
                return Err(FaultError::Unused { fault, argument: "count" });
            }
            if self.probability != 1.0 {
                return Err(FaultError::Unused { fault, argument: "probability" });
            }
        }
        match self.kind {
            FaultKind::Delay { milliseconds } if milliseconds > MILLISECONDS_MAX => {
                bad("milliseconds", milliseconds.to_string(), "at most 3600000")
            }
            FaultKind::Rate { bytes_per_second: 0 } => {
                bad("bytes-per-second", "0".to_owned(), "at least 1")
            }
            _ if !(self.probability > 0.0 && self.probability <= 1.0) => {
                bad("probability", self.probability.to_string(), "more than 0, at most 1")
            }
            _ if self.count == Some(0) => bad("count", "0".to_owned(), "at least 1"),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(fault: Fault) -> String {
        fault.check().unwrap_err().to_string()
    }

    #[test]
    fn check_names_what_is_wrong() {
        let drop = Fault::new(FaultKind::Drop);
        assert_eq!(drop.check(), Ok(()));
        for probability in [0.0, -1.0, 1.5, f64::NAN] {
            assert!(refusal(Fault { probability, ..drop }).contains("more than 0"));
        }
        assert!(refusal(Fault { count: Some(0), ..drop }).starts_with("count 0"));
        let slow = Fault::new(FaultKind::Rate { bytes_per_second: 0 });
        assert!(refusal(slow).starts_with("bytes-per-second 0"));
        let cut = Fault { count: Some(1), ..Fault::new(FaultKind::Disconnect) };
        assert_eq!(refusal(cut), "fault disconnect takes no count");
    }
}
