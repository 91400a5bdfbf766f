//! What a nexus may do now, and what that means for a command.

use std::sync::atomic::{AtomicU8, Ordering};

use crate::path::emulated::table::Command;
use crate::scsi::Cdb;
use crate::scsi::opcode::{PREVENT_ALLOW_MEDIUM_REMOVAL, START_STOP_UNIT};

/// What reservations leave to a nexus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Standing {
    /// Everything.
    Free,
    /// A reservation of a Write Exclusive type shuts it out.
    WriteExclusive,
    /// A reservation of an Exclusive Access type shuts it out.
    ExclusiveAccess,
    /// Another nexus has reserved the unit by RESERVE.
    Reserved,
}

/// Under which reservations of others a command is refused (SPC-5 tables 62 and 63, SBC-4 table
/// 13, SPC-2 table 10).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::path::emulated) enum RefusedUnder {
    /// None of them.
    Nothing,
    /// RESERVE.
    Reserve,
    /// RESERVE and the Exclusive Access types: it looks.
    ExclusiveAccess,
    /// All: it changes something.
    Everything,
    /// It has rules of its own.
    OwnRules,
}

impl RefusedUnder {
    /// The row's word, except for two commands that ask for a restriction or for its end (SBC-4
    /// table 13).
    pub(in crate::path::emulated) fn of(command: &Command, cdb: &Cdb) -> Self {
        let byte = cdb.padded()[4];
        match cdb.opcode() {
            // POWER CONDITION zero and START: the unit is to be ready.
            START_STOP_UNIT if byte & 0xF1 == 0x01 => RefusedUnder::Nothing,
            PREVENT_ALLOW_MEDIUM_REMOVAL if byte & 0x03 == 0 => RefusedUnder::Nothing,
            _ => command.refused_under,
        }
    }
}

impl Standing {
    /// True for RESERVATION CONFLICT.
    pub(in crate::path::emulated) fn refuses(self, command: RefusedUnder) -> bool {
        match (self, command) {
            (Standing::Free, _) | (_, RefusedUnder::Nothing | RefusedUnder::OwnRules) => false,
            (Standing::Reserved, _) => true,
            (_, RefusedUnder::Reserve) => false,
            (Standing::ExclusiveAccess, _) => true,
            (Standing::WriteExclusive, command) => command == RefusedUnder::Everything,
        }
    }
}

/// A port's standing, for every command to look at without a lock.
#[derive(Debug, Default)]
pub(in crate::path::emulated) struct Posted(AtomicU8);

impl Posted {
    /// The standing now.
    pub(in crate::path::emulated) fn get(&self) -> Standing {
        const ALL: [Standing; 4] = [
            Standing::Free,
            Standing::WriteExclusive,
            Standing::ExclusiveAccess,
            Standing::Reserved,
        ];
        ALL[usize::from(self.0.load(Ordering::Acquire)) % ALL.len()]
    }

    pub(super) fn set(&self, standing: Standing) {
        self.0.store(standing as u8, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn posted_standing_is_the_one_that_was_set() {
        let posted = Posted::default();
        assert_eq!(posted.get(), Standing::Free);
        for standing in [
            Standing::WriteExclusive,
            Standing::ExclusiveAccess,
            Standing::Reserved,
            Standing::Free,
        ] {
            posted.set(standing);
            assert_eq!(posted.get(), standing);
        }
    }
}
