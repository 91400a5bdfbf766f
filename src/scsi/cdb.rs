//! Command descriptor blocks: the bytes, their length, and the fields every block command has.

use super::opcode;

/// The longest CDB that virtio-scsi carries with QEMU's fixed configuration (`cdb_size` 32).
pub const CDB_MAX: usize = 32;

/// A command descriptor block (SPC-5 4.2), kept as the bytes that came in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Cdb {
    bytes: [u8; CDB_MAX],
    len: u8,
}

impl Cdb {
    /// From the fixed field of a virtio-scsi request: the operation code tells the length, what
    /// stands behind it is padding and is dropped.
    pub fn from_padded(bytes: [u8; CDB_MAX]) -> Self {
        let len = length(&bytes);
        let mut cdb = Cdb { bytes: [0; CDB_MAX], len: len as u8 };
        cdb.bytes[..len].copy_from_slice(&bytes[..len]);
        cdb
    }

    /// From a slice that is the CDB and nothing else. At most [`CDB_MAX`] bytes are taken.
    pub fn new(bytes: &[u8]) -> Self {
        let len = bytes.len().min(CDB_MAX);
        let mut cdb = Cdb { bytes: [0; CDB_MAX], len: len as u8 };
        cdb.bytes[..len].copy_from_slice(&bytes[..len]);
        cdb
    }

    /// The bytes, as long as the command is.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len as usize]
    }

    /// All [`CDB_MAX`] bytes, zeroes behind the command's own. Any fixed offset may be read.
    pub fn padded(&self) -> &[u8; CDB_MAX] {
        &self.bytes
    }

    /// OPERATION CODE, byte 0.
    pub fn opcode(&self) -> u8 {
        self.bytes[0]
    }

    /// SERVICE ACTION where the operation code has one (SPC-5 4.2.2.3, 4.2.3).
    pub fn service_action(&self) -> Option<u16> {
        match self.opcode() {
            opcode::VARIABLE_LENGTH => Some(self.be16(8)),
            opcode::PERSISTENT_RESERVE_IN
            | opcode::PERSISTENT_RESERVE_OUT
            | opcode::THIRD_PARTY_COPY_OUT
            | opcode::THIRD_PARTY_COPY_IN
            | opcode::SERVICE_ACTION_IN_16
            | opcode::MAINTENANCE_IN
            | opcode::MAINTENANCE_OUT
            | opcode::SANITIZE => Some(u16::from(self.bytes[1] & 0x1F)),
            _ => None,
        }
    }

    /// The CONTROL byte's NACA bit (SAM-5 5.2).
    pub fn naca(&self) -> bool {
        let control = match self.opcode() {
            opcode::VARIABLE_LENGTH => 1,
            _ => (self.len as usize).max(1) - 1,
        };
        self.bytes[control] & 0x04 != 0
    }

    /// True for VERIFY with BYTCHK 00b: the medium is verified, and no data moves (SBC-4 5.36).
    pub fn verifies_medium(&self) -> bool {
        let verify =
            matches!(self.opcode(), opcode::VERIFY_10 | opcode::VERIFY_12 | opcode::VERIFY_16);
        verify && self.bytes[1] & 0x06 == 0
    }

    /// Two bytes at `at`, most significant first. `at` is a place of the standard's tables, not
    /// of the guest's choosing.
    pub fn be16(&self, at: usize) -> u16 {
        u16::from_be_bytes([self.bytes[at], self.bytes[at + 1]])
    }

    /// Four bytes at `at`, as [`Cdb::be16`].
    pub fn be32(&self, at: usize) -> u32 {
        u32::from(self.be16(at)) << 16 | u32::from(self.be16(at + 2))
    }

    /// Eight bytes at `at`, as [`Cdb::be16`].
    pub fn be64(&self, at: usize) -> u64 {
        u64::from(self.be32(at)) << 32 | u64::from(self.be32(at + 4))
    }
}

impl std::fmt::Debug for Cdb {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (at, byte) in self.bytes().iter().enumerate() {
            write!(f, "{}{byte:02x}", if at == 0 { "" } else { " " })?;
        }
        Ok(())
    }
}

/// Length by the operation code's group (SPC-5 4.2.5.1). Vendor groups have none: all that could
/// be part of it is kept, up to 16 bytes.
fn length(bytes: &[u8; CDB_MAX]) -> usize {
    match bytes[0] {
        opcode::VARIABLE_LENGTH | 0x7E => (bytes[7] as usize + 8).min(CDB_MAX),
        0x00..=0x1F => 6,
        0x20..=0x5F => 10,
        0xA0..=0xBF => 12,
        _ => 16,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn from_padded_takes_the_length_from_the_group() {
        for (first, len) in [(0x00, 6), (0x28, 10), (0xA8, 12), (0x88, 16), (0xC1, 16), (0x5E, 10)]
        {
            let mut bytes = [0xFF; CDB_MAX];
            bytes[0] = first;
            let cdb = Cdb::from_padded(bytes);
            assert_eq!(cdb.bytes().len(), len);
            assert!(cdb.padded()[len..].iter().all(|byte| *byte == 0));
        }
    }

    #[test]
    fn from_padded_variable_length_is_bounded() {
        let mut bytes = [0; CDB_MAX];
        (bytes[0], bytes[7]) = (0x7F, 0x18);
        assert_eq!(Cdb::from_padded(bytes).bytes().len(), 32);
        bytes[7] = 0xFF;
        assert_eq!(Cdb::from_padded(bytes).bytes().len(), 32);
    }

    #[test]
    fn naca_reads_the_control_byte() {
        let mut bytes = [0; 10];
        (bytes[0], bytes[9]) = (0x28, 0x04);
        assert!(Cdb::new(&bytes).naca());
        assert!(!Cdb::new(&[0x28]).naca());
        assert!(!Cdb::new(&[]).naca());
    }
}
