//! The CDBs of PERSISTENT RESERVE IN and OUT (SPC-5 6.16.1 and 6.17.1).

use super::{InAction, LU_SCOPE, OutAction, Type, type_in};
use crate::scsi::cdb::Cdb;
use crate::scsi::opcode::{PERSISTENT_RESERVE_IN, PERSISTENT_RESERVE_OUT};

/// Bytes of either CDB.
const LENGTH: usize = 10;

/// PERSISTENT RESERVE IN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct In {
    /// What is asked for.
    pub action: InAction,
    /// ALLOCATION LENGTH.
    pub allocation: u16,
}

impl In {
    /// Reads a CDB; `None` for another command, one that is cut, and an unknown service action.
    pub fn parse(cdb: &Cdb) -> Option<Self> {
        let action = InAction::from_code(action_code(cdb, PERSISTENT_RESERVE_IN)?)?;
        Some(In { action, allocation: cdb.be16(7) })
    }

    /// The CDB.
    pub fn cdb(&self) -> Cdb {
        let [high, low] = self.allocation.to_be_bytes();
        let action = self.action.code();
        Cdb::new(&[PERSISTENT_RESERVE_IN, action, 0, 0, 0, 0, 0, high, low, 0])
    }
}

/// PERSISTENT RESERVE OUT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Out {
    /// What is to be done.
    pub action: OutAction,
    /// SCOPE and TYPE as they came: some service actions ignore them, so a value that does not
    /// exist is no error of the CDB by itself.
    pub scope_and_type: u8,
    /// PARAMETER LIST LENGTH.
    pub length: u32,
}

impl Out {
    /// `action` with a parameter list of `length` bytes, and the type where it has one.
    pub fn new(action: OutAction, kind: Option<Type>, length: u32) -> Self {
        let scope_and_type = LU_SCOPE << 4 | kind.map_or(0, Type::code);
        Out { action, scope_and_type, length }
    }

    /// Reads a CDB; `None` for another command, one that is cut, and an unknown service action.
    pub fn parse(cdb: &Cdb) -> Option<Self> {
        let action = OutAction::from_code(action_code(cdb, PERSISTENT_RESERVE_OUT)?)?;
        Some(Out { action, scope_and_type: cdb.padded()[2], length: cdb.be32(5) })
    }

    /// The type, where scope and type exist.
    pub fn kind(&self) -> Option<Type> {
        type_in(self.scope_and_type)
    }

    /// The CDB.
    pub fn cdb(&self) -> Cdb {
        let [a, b, c, d] = self.length.to_be_bytes();
        let action = self.action.code();
        Cdb::new(&[PERSISTENT_RESERVE_OUT, action, self.scope_and_type, 0, 0, a, b, c, d, 0])
    }
}

fn action_code(cdb: &Cdb, opcode: u8) -> Option<u8> {
    let whole = cdb.opcode() == opcode && cdb.bytes().len() >= LENGTH;
    whole.then_some(cdb.padded()[1] & 0x1F)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_is_read_back() {
        let bytes = [0x5E, 0x03, 0, 0, 0, 0, 0, 0x12, 0x34, 0];
        let command = In { action: InAction::ReadFullStatus, allocation: 0x1234 };
        assert_eq!(command.cdb().bytes(), bytes);
        assert_eq!(In::parse(&Cdb::new(&bytes)), Some(command));
    }

    #[test]
    fn out_is_read_back() {
        let bytes = [0x5F, 0x04, 0x05, 0, 0, 0, 0, 0, 0x18, 0];
        let kind = Type::WriteExclusiveRegistrantsOnly;
        let command = Out::new(OutAction::Preempt, Some(kind), 24);
        assert_eq!(command.cdb().bytes(), bytes);
        assert_eq!(Out::parse(&Cdb::new(&bytes)), Some(command));
        assert_eq!(command.kind(), Some(kind));
    }

    #[test]
    fn unknown_actions_and_cut_commands_are_none() {
        assert_eq!(In::parse(&Cdb::new(&[0x5E, 4, 0, 0, 0, 0, 0, 0, 8, 0])), None);
        assert_eq!(Out::parse(&Cdb::new(&[0x5F, 9, 0, 0, 0, 0, 0, 0, 24, 0])), None);
        assert_eq!(In::parse(&Cdb::new(&[0x5F, 0, 0, 0, 0, 0, 0, 0, 8, 0])), None);
        for len in 0..LENGTH {
            assert_eq!(In::parse(&Cdb::new(&vec![0x5E; len])), None);
            assert_eq!(Out::parse(&Cdb::new(&vec![0x5F; len])), None);
        }
    }

    #[test]
    fn scope_and_type_that_do_not_exist_are_kept() {
        let command = Out::parse(&Cdb::new(&[0x5F, 0, 0x24, 0, 0, 0, 0, 0, 24, 0])).unwrap();
        assert_eq!((command.scope_and_type, command.kind()), (0x24, None));
    }
}
