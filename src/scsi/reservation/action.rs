//! Service actions of PERSISTENT RESERVE IN and OUT (SPC-5 tables 153 and 165).

use std::fmt;

/// A service action of PERSISTENT RESERVE IN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum InAction {
    /// READ KEYS: the key of each registration.
    ReadKeys = 0x00,
    /// READ RESERVATION: the reservation and its holder's key.
    ReadReservation = 0x01,
    /// REPORT CAPABILITIES: what the device server can do.
    ReportCapabilities = 0x02,
    /// READ FULL STATUS: each registration with its nexus.
    ReadFullStatus = 0x03,
}

impl InAction {
    /// All of them.
    pub const ALL: [InAction; 4] = [
        InAction::ReadKeys,
        InAction::ReadReservation,
        InAction::ReportCapabilities,
        InAction::ReadFullStatus,
    ];

    /// The action of a code.
    pub fn from_code(code: u8) -> Option<Self> {
        InAction::ALL.into_iter().find(|action| action.code() == code)
    }

    /// SERVICE ACTION.
    pub const fn code(self) -> u8 {
        self as u8
    }
}

impl fmt::Display for InAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            InAction::ReadKeys => "READ KEYS",
            InAction::ReadReservation => "READ RESERVATION",
            InAction::ReportCapabilities => "REPORT CAPABILITIES",
            InAction::ReadFullStatus => "READ FULL STATUS",
        })
    }
}

/// A service action of PERSISTENT RESERVE OUT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum OutAction {
    /// REGISTER: a key for this nexus, another one, or none.
    Register = 0x00,
    /// RESERVE: makes the reservation.
    Reserve = 0x01,
    /// RELEASE: ends it.
    Release = 0x02,
    /// CLEAR: ends it and all registrations.
    Clear = 0x03,
    /// PREEMPT: takes registrations away, and the reservation if one of them holds it.
    Preempt = 0x04,
    /// PREEMPT AND ABORT: the same, and ends the commands of those nexuses.
    PreemptAndAbort = 0x05,
    /// REGISTER AND IGNORE EXISTING KEY: REGISTER that need not know the key.
    RegisterAndIgnoreExistingKey = 0x06,
    /// REGISTER AND MOVE: gives the reservation to another nexus.
    RegisterAndMove = 0x07,
    /// REPLACE LOST RESERVATION: begins anew after the device lost what it knew.
    ReplaceLostReservation = 0x08,
}

impl OutAction {
    /// All of them.
    pub const ALL: [OutAction; 9] = [
        OutAction::Register,
        OutAction::Reserve,
        OutAction::Release,
        OutAction::Clear,
        OutAction::Preempt,
        OutAction::PreemptAndAbort,
        OutAction::RegisterAndIgnoreExistingKey,
        OutAction::RegisterAndMove,
        OutAction::ReplaceLostReservation,
    ];

    /// The action of a code.
    pub fn from_code(code: u8) -> Option<Self> {
        OutAction::ALL.into_iter().find(|action| action.code() == code)
    }

    /// SERVICE ACTION.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// True for the two that register a key: the ones that ALL_TG_PT and APTPL belong to.
    pub fn registers(self) -> bool {
        matches!(self, OutAction::Register | OutAction::RegisterAndIgnoreExistingKey)
    }
}

impl fmt::Display for OutAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            OutAction::Register => "REGISTER",
            OutAction::Reserve => "RESERVE",
            OutAction::Release => "RELEASE",
            OutAction::Clear => "CLEAR",
            OutAction::Preempt => "PREEMPT",
            OutAction::PreemptAndAbort => "PREEMPT AND ABORT",
            OutAction::RegisterAndIgnoreExistingKey => "REGISTER AND IGNORE EXISTING KEY",
            OutAction::RegisterAndMove => "REGISTER AND MOVE",
            OutAction::ReplaceLostReservation => "REPLACE LOST RESERVATION",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_count_up_from_zero() {
        for (code, action) in InAction::ALL.into_iter().enumerate() {
            assert_eq!(usize::from(action.code()), code);
        }
        for (code, action) in OutAction::ALL.into_iter().enumerate() {
            assert_eq!(usize::from(action.code()), code);
        }
        assert_eq!(InAction::from_code(4), None);
        assert_eq!(OutAction::from_code(9), None);
    }
}
