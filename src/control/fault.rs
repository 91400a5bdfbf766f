//! Scripted faults, as `inject-fault` writes them.
//!
//! | `fault` | needs | what happens to a command that it strikes |
//! |---|---|---|
//! | `drop` | | it is lost on its way: neither executed nor answered |
//! | `hang` | | it is not answered until the fault is cleared |
//! | `delay` | `milliseconds` | it is answered so much later |
//! | `rate` | `bytes-per-second` | the path carries no more than that |
//! | `status` | `status` | it is answered with this status and not executed |
//! | `sense` | `sense` | it is answered with CHECK CONDITION and this sense, and not executed |
//! | `disconnect` | | the link is cut |
//! | `access` | `access-state`, `milliseconds`? | the port's group is in this asymmetric access state, for so long or until faults are cleared |
//!
//! `probability` (0 to 1, default 1) says how often a fault strikes, `count` after how many strikes
//! it is over.

use std::time::Duration;

use serde_json::Value;

use super::arguments::{ArgumentError, Arguments};
use crate::scsi::alua::AccessState;
use crate::scsi::{Asc, SenseKey, Status};

/// The longest delay that can be asked for.
const DELAY_MAX: Duration = Duration::from_secs(3600);

/// A fault for one path.
#[derive(Clone, Debug, PartialEq)]
pub struct FaultSpec {
    /// What goes wrong.
    pub kind: FaultKind,
    /// For which share of the commands: more than 0, at most 1.
    pub probability: f64,
    /// How often, then never again; never zero. `None` is without end.
    pub count: Option<u64>,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// Commands are lost on their way.
    Drop,
    /// Commands are not answered until the fault is cleared.
    Hang,
    /// Answers come so much later.
    Delay(Duration),
    /// So many bytes per second at most; never zero.
    Rate(u64),
    /// Commands are answered with this status.
    Status(Status),
    /// Commands are answered with CHECK CONDITION and this sense.
    Sense(SenseKey, Asc),
    /// The link is cut.
    Disconnect,
    /// The port's group is in this access state, for so long or until faults are cleared.
    Access(AccessState, Option<Duration>),
}

impl FaultSpec {
    /// Takes a fault's arguments.
    pub(super) fn take(arguments: &mut Arguments) -> Result<Self, ArgumentError> {
        let word = arguments.string("fault")?;
        let kind = match word.as_str() {
            "drop" => FaultKind::Drop,
            "hang" => FaultKind::Hang,
            "delay" => FaultKind::Delay(delay(arguments)?),
            "rate" => FaultKind::Rate(rate(arguments)?),
            "status" => FaultKind::Status(status(&arguments.any("status")?)?),
            "sense" => {
                let (key, asc) = sense(&arguments.string("sense")?)?;
                FaultKind::Sense(key, asc)
            }
            "disconnect" => FaultKind::Disconnect,
            "access" => {
                let state = access_state(&arguments.string("access-state")?)?;
                let time = arguments.optional_u64("milliseconds")?.map(checked_delay);
                FaultKind::Access(state, time.transpose()?)
            }
            _ => {
                let reason = format!(
                    "`{word}` is not one of drop, hang, delay, rate, status, sense, disconnect, \
                     access"
                );
                return Err(ArgumentError::value("fault", reason));
            }
        };
        let probability = arguments.optional_f64("probability")?.unwrap_or(1.0);
        if !(probability > 0.0 && probability <= 1.0) {
            return Err(ArgumentError::value("probability", "not more than 0 and at most 1"));
        }
        let count = arguments.optional_u64("count")?;
        if count == Some(0) {
            return Err(ArgumentError::value("count", "0 would do nothing"));
        }
        Ok(FaultSpec { kind, probability, count })
    }
}

fn delay(arguments: &mut Arguments) -> Result<Duration, ArgumentError> {
    let name = "milliseconds";
    checked_delay(arguments.optional_u64(name)?.ok_or(ArgumentError::Missing(name))?)
}

fn checked_delay(given: u64) -> Result<Duration, ArgumentError> {
    let name = "milliseconds";
    let delay = Duration::from_millis(given);
    if delay > DELAY_MAX {
        let reason = format!("more than {}", DELAY_MAX.as_millis());
        return Err(ArgumentError::value(name, reason));
    }
    Ok(delay)
}

/// The access states that a group may be put in, by the names that `query-paths` has for them.
const ACCESS_STATES: [AccessState; 6] = [
    AccessState::ActiveOptimized,
    AccessState::ActiveNonOptimized,
    AccessState::Standby,
    AccessState::Unavailable,
    AccessState::Offline,
    AccessState::Transitioning,
];

fn access_state(text: &str) -> Result<AccessState, ArgumentError> {
    ACCESS_STATES.into_iter().find(|state| state.to_string() == text).ok_or_else(|| {
        let names = ACCESS_STATES.map(|state| state.to_string()).join(", ");
        ArgumentError::value("access-state", format!("`{text}` is not one of {names}"))
    })
}

fn rate(arguments: &mut Arguments) -> Result<u64, ArgumentError> {
    let name = "bytes-per-second";
    match arguments.optional_u64(name)?.ok_or(ArgumentError::Missing(name))? {
        0 => Err(ArgumentError::value(name, "0 would never end, use hang")),
        rate => Ok(rate),
    }
}

/// The names of status codes (SAM-5 5.3.1), as words on a command line.
const STATUSES: [(&str, Status); 8] = [
    ("good", Status::GOOD),
    ("check-condition", Status::CHECK_CONDITION),
    ("condition-met", Status::CONDITION_MET),
    ("busy", Status::BUSY),
    ("reservation-conflict", Status::RESERVATION_CONFLICT),
    ("task-set-full", Status::TASK_SET_FULL),
    ("aca-active", Status::ACA_ACTIVE),
    ("task-aborted", Status::TASK_ABORTED),
];

/// A number from 0 to 255, a name, or hexadecimal digits after 0x.
fn status(value: &Value) -> Result<Status, ArgumentError> {
    let byte = match value {
        Value::Number(number) => number.as_u64().and_then(|number| u8::try_from(number).ok()),
        Value::String(word) => {
            let known = STATUSES.iter().find(|(name, _)| name == word);
            let digits = word.strip_prefix("0x").filter(|digits| hex(digits));
            match known {
                Some((_, status)) => return Ok(*status),
                None => digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()),
            }
        }
        _ => return Err(ArgumentError::Type { name: "status", expected: "string or number" }),
    };
    byte.map(Status).ok_or_else(|| {
        let names: Vec<&str> = STATUSES.iter().map(|(name, _)| *name).collect();
        let reason = format!("not 0 to 255, 0x00 to 0xff or one of {}", names.join(", "));
        ArgumentError::value("status", reason)
    })
}

/// Sense key, code and qualifier in hexadecimal digits: `6/29/00`.
fn sense(text: &str) -> Result<(SenseKey, Asc), ArgumentError> {
    let byte = |part: Option<&str>| {
        part.filter(|part| hex(part)).and_then(|part| u8::from_str_radix(part, 16).ok())
    };
    let mut parts = text.split('/');
    let bytes = (byte(parts.next()), byte(parts.next()), byte(parts.next()), parts.next());
    match bytes {
        (Some(key), Some(asc), Some(ascq), None) if key <= 0xF => {
            Ok((SenseKey::from_low_nibble(key), Asc(asc, ascq)))
        }
        _ => {
            let reason = "not key/code/qualifier in hexadecimal digits, such as 6/29/00";
            Err(ArgumentError::value("sense", reason))
        }
    }
}

/// The standard parser takes a sign as well.
fn hex(digits: &str) -> bool {
    digits.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn take(value: Value) -> Result<FaultSpec, String> {
        let Value::Object(map) = value else { panic!() };
        let mut arguments = Arguments(map);
        let spec = FaultSpec::take(&mut arguments).map_err(|error| error.to_string())?;
        arguments.finish().map_err(|error| error.to_string())?;
        Ok(spec)
    }

    #[test]
    fn fault_every_kind_is_read() {
        let attention = FaultKind::Sense(SenseKey::UnitAttention, Asc(0x29, 0));
        let cases = [
            (json!({"fault": "drop"}), FaultKind::Drop),
            (json!({"fault": "hang"}), FaultKind::Hang),
            (json!({"fault": "disconnect"}), FaultKind::Disconnect),
            (
                json!({"fault": "delay", "milliseconds": 5}),
                FaultKind::Delay(Duration::from_millis(5)),
            ),
            (json!({"fault": "rate", "bytes-per-second": 9}), FaultKind::Rate(9)),
            (json!({"fault": "status", "status": 8}), FaultKind::Status(Status::BUSY)),
            (
                json!({"fault": "status", "status": "task-set-full"}),
                FaultKind::Status(Status::TASK_SET_FULL),
            ),
            (json!({"fault": "status", "status": "0x18"}), FaultKind::Status(Status(0x18))),
            (json!({"fault": "sense", "sense": "6/29/00"}), attention),
            (json!({"fault": "sense", "sense": "06/29/0"}), attention),
            (
                json!({"fault": "access", "access-state": "standby"}),
                FaultKind::Access(AccessState::Standby, None),
            ),
            (
                json!({"fault": "access", "access-state": "transitioning", "milliseconds": 9}),
                FaultKind::Access(AccessState::Transitioning, Some(Duration::from_millis(9))),
            ),
        ];
        for (arguments, kind) in cases {
            let expected = FaultSpec { kind, probability: 1.0, count: None };
            assert_eq!(take(arguments), Ok(expected));
        }
        let spec = take(json!({"fault": "drop", "probability": 0.5, "count": 3})).unwrap();
        assert_eq!((spec.probability, spec.count), (0.5, Some(3)));
    }

    #[test]
    fn fault_that_makes_no_sense_names_the_argument() {
        let cases = [
            ("fault", json!({})),
            ("fault", json!({"fault": "burn"})),
            ("fault", json!({"fault": 1})),
            ("milliseconds", json!({"fault": "delay"})),
            ("milliseconds", json!({"fault": "delay", "milliseconds": -1})),
            ("milliseconds", json!({"fault": "delay", "milliseconds": 1u64 << 40})),
            ("milliseconds", json!({"fault": "drop", "milliseconds": 5})),
            ("bytes-per-second", json!({"fault": "rate", "bytes-per-second": 0})),
            ("access-state", json!({"fault": "access"})),
            ("access-state", json!({"fault": "access", "access-state": "asleep"})),
            ("status", json!({"fault": "status"})),
            ("status", json!({"fault": "status", "status": 256})),
            ("status", json!({"fault": "status", "status": "0x+8"})),
            ("status", json!({"fault": "status", "status": []})),
            ("sense", json!({"fault": "sense", "sense": "6/29"})),
            ("sense", json!({"fault": "sense", "sense": "16/29/00"})),
            ("sense", json!({"fault": "sense", "sense": "6/29/00/1"})),
            ("sense", json!({"fault": "sense", "sense": "6/+9/00"})),
            ("probability", json!({"fault": "drop", "probability": 0})),
            ("probability", json!({"fault": "drop", "probability": 1.5})),
            ("probability", json!({"fault": "drop", "probability": "x"})),
            ("count", json!({"fault": "drop", "count": 0})),
        ];
        for (name, arguments) in cases {
            let error = take(arguments).unwrap_err();
            assert!(error.contains(&format!("'{name}'")), "{error}");
        }
    }
}
