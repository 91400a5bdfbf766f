//! Persistent reservations (SPC-5 5.14): the words of PERSISTENT RESERVE IN and OUT.
//!
//! A registration belongs to an I_T nexus and has a [`Key`]; a reservation belongs to one
//! registered nexus, or to all of them, and its [`Type`] says what the others may still do.
//!
//! | file | what it reads and writes |
//! |---|---|
//! | [`action`] | service actions by their standard names |
//! | [`command`] | the two CDBs (SPC-5 6.16.1, 6.17.1) |
//! | [`parameters`] | what comes with PERSISTENT RESERVE OUT (SPC-5 6.17.3, 6.17.4) |
//! | [`list`] | READ KEYS and READ RESERVATION (SPC-5 6.16.2, 6.16.3) |
//! | [`capabilities`] | REPORT CAPABILITIES (SPC-5 6.16.4) |
//! | [`full_status`] | READ FULL STATUS (SPC-5 6.16.5) |
//! | [`transport_id`] | the name of an initiator port (SPC-5 7.6.4) |
//!
//! Lists are read whole or not at all: a list that was cut would say of keys that they are gone.

use std::fmt;

pub mod action;
pub mod capabilities;
pub mod command;
pub mod full_status;
pub mod list;
pub mod parameters;
pub mod transport_id;

pub use action::{InAction, OutAction};
pub use capabilities::{Capabilities, TypeMask};
pub use command::{In, Out};
pub use full_status::{FullStatus, Registrant};
pub use list::{Held, Keys, Reservation};
pub use parameters::{ListError, MoveParameters, Parameters};
pub use transport_id::TransportId;

/// The only SCOPE that is not obsolete: the whole logical unit.
pub const LU_SCOPE: u8 = 0;

/// A reservation key. Zero is no key: it unregisters, and stands for "all registrants".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(pub u64);

impl Key {
    /// No key.
    pub const NONE: Key = Key(0);

    /// True for zero.
    pub fn is_none(self) -> bool {
        self == Key::NONE
    }

    /// The key at `at`, if the bytes reach that far.
    fn read(bytes: &[u8], at: usize) -> Option<Key> {
        let bytes = bytes.get(at..at.checked_add(8)?)?;
        Some(Key(u64::from_be_bytes(bytes.try_into().ok()?)))
    }

    fn bytes(self) -> [u8; 8] {
        self.0.to_be_bytes()
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:x}", self.0)
    }
}

/// TYPE of a persistent reservation (SPC-5 table 64).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Type {
    /// Only the holder writes.
    WriteExclusive = 0x1,
    /// Only the holder reads and writes.
    ExclusiveAccess = 0x3,
    /// Only registered nexuses write.
    WriteExclusiveRegistrantsOnly = 0x5,
    /// Only registered nexuses read and write.
    ExclusiveAccessRegistrantsOnly = 0x6,
    /// As registrants only, and each registered nexus is a holder.
    WriteExclusiveAllRegistrants = 0x7,
    /// As registrants only, and each registered nexus is a holder.
    ExclusiveAccessAllRegistrants = 0x8,
}

impl Type {
    /// All six.
    pub const ALL: [Type; 6] = [
        Type::WriteExclusive,
        Type::ExclusiveAccess,
        Type::WriteExclusiveRegistrantsOnly,
        Type::ExclusiveAccessRegistrantsOnly,
        Type::WriteExclusiveAllRegistrants,
        Type::ExclusiveAccessAllRegistrants,
    ];

    /// The type of a code; `None` for the obsolete and the reserved ones.
    pub fn from_code(code: u8) -> Option<Self> {
        Type::ALL.into_iter().find(|kind| kind.code() == code)
    }

    /// The code in CDBs and parameter data.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// True where reading is kept to those who may write.
    pub fn is_exclusive_access(self) -> bool {
        use Type::*;
        matches!(
            self,
            ExclusiveAccess | ExclusiveAccessRegistrantsOnly | ExclusiveAccessAllRegistrants
        )
    }

    /// True where a registration is all that access needs.
    pub fn is_for_registrants(self) -> bool {
        !matches!(self, Type::WriteExclusive | Type::ExclusiveAccess)
    }

    /// True where each registered nexus is a holder.
    pub fn is_all_registrants(self) -> bool {
        matches!(self, Type::WriteExclusiveAllRegistrants | Type::ExclusiveAccessAllRegistrants)
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Type::WriteExclusive => "Write Exclusive",
            Type::ExclusiveAccess => "Exclusive Access",
            Type::WriteExclusiveRegistrantsOnly => "Write Exclusive - Registrants Only",
            Type::ExclusiveAccessRegistrantsOnly => "Exclusive Access - Registrants Only",
            Type::WriteExclusiveAllRegistrants => "Write Exclusive - All Registrants",
            Type::ExclusiveAccessAllRegistrants => "Exclusive Access - All Registrants",
        })
    }
}

/// SCOPE and TYPE in one byte, for the whole unit.
fn scope_and_type(kind: Type) -> u8 {
    LU_SCOPE << 4 | kind.code()
}

/// The type in such a byte; `None` for another scope or a code that is no type.
fn type_in(byte: u8) -> Option<Type> {
    Type::from_code(byte & 0x0F).filter(|_| byte >> 4 == LU_SCOPE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn type_codes_are_the_standards() {
        let codes: Vec<u8> = Type::ALL.iter().map(|kind| kind.code()).collect();
        assert_eq!(codes, [1, 3, 5, 6, 7, 8]);
        for code in 0..=u8::MAX {
            assert_eq!(
                Type::from_code(code).map(Type::code),
                codes.contains(&code).then_some(code)
            );
        }
        assert_eq!(type_in(0x05), Some(Type::WriteExclusiveRegistrantsOnly));
        assert_eq!(type_in(0x15), None);
    }

    #[test]
    fn type_says_who_may_what() {
        let says = |test: fn(Type) -> bool| Type::ALL.map(test);
        assert_eq!(says(Type::is_exclusive_access), [false, true, false, true, false, true]);
        assert_eq!(says(Type::is_for_registrants), [false, false, true, true, true, true]);
        assert_eq!(says(Type::is_all_registrants), [false, false, false, false, true, true]);
    }
}
