//! Block addresses and lengths out of CDBs, checked against the unit's size.

use super::array::Array;
use super::execute::Call;
use super::reply::{Detail, Refusal};
use crate::limits::EMULATED_TRANSFER_MAX;
use crate::scsi::opcode::*;
use crate::scsi::{Asc, Cdb, SenseKey};

/// A range of blocks that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    /// The first block.
    pub lba: u64,
    /// How many.
    pub blocks: u32,
    /// Where it begins in the store.
    pub offset: u64,
    /// Bytes.
    pub bytes: u64,
}

/// LOGICAL BLOCK ADDRESS and the length field of a command, by the form of its CDB.
pub(super) fn address_and_length(cdb: &Cdb) -> (u64, u32) {
    match (cdb.opcode(), cdb.opcode() >> 5) {
        (READ_6 | WRITE_6, _) => {
            let lba = cdb.be32(0) & 0x1F_FFFF;
            // SBC-3 5.9: zero means 256 here, and nowhere else.
            let blocks = match cdb.padded()[4] {
                0 => 256,
                blocks => u32::from(blocks),
            };
            (u64::from(lba), blocks)
        }
        (COMPARE_AND_WRITE, _) => (cdb.be64(2), u32::from(cdb.padded()[13])),
        (_, 1 | 2) => (u64::from(cdb.be32(2)), u32::from(cdb.be16(7))),
        (_, 5) => (u64::from(cdb.be32(2)), cdb.be32(6)),
        _ => (cdb.be64(2), cdb.be32(10)),
    }
}

impl Array {
    /// The range, or LOGICAL BLOCK ADDRESS OUT OF RANGE. Zero blocks are a range too, at an
    /// address that exists.
    pub(super) fn extent(&self, lba: u64, blocks: u32) -> Result<Extent, Refusal> {
        let end = lba.checked_add(u64::from(blocks));
        if lba >= self.blocks() || end.is_none_or(|end| end > self.blocks()) {
            let detail = Detail::Information(lba);
            return Err(Refusal::Check(SenseKey::IllegalRequest, Asc::LBA_OUT_OF_RANGE, detail));
        }
        let block = u64::from(self.block_size());
        // `lba` is below the number of blocks, whose bytes fit in 63 bits.
        Ok(Extent { lba, blocks, offset: lba * block, bytes: u64::from(blocks) * block })
    }
}

impl Call<'_> {
    /// The CDB's range, for a command that moves its data.
    pub(super) fn transfer_extent(&self) -> Result<Extent, Refusal> {
        let extent = self.extent()?;
        if extent.bytes > u64::from(EMULATED_TRANSFER_MAX) {
            // SBC-4 4.33.2: more than MAXIMUM TRANSFER LENGTH.
            return Err(Refusal::in_cdb(length_field(self.cdb)));
        }
        Ok(extent)
    }

    /// The CDB's range. Protection information is refused: no unit here is formatted with it.
    pub(super) fn extent(&self) -> Result<Extent, Refusal> {
        let byte = self.cdb.padded()[1];
        if self.cdb.bytes().len() > 6 && byte & 0xE0 != 0 {
            return Err(Refusal::in_cdb(1));
        }
        let (lba, blocks) = address_and_length(self.cdb);
        self.array().extent(lba, blocks)
    }
}

/// Where the length field stands in the CDB.
pub(super) fn length_field(cdb: &Cdb) -> u16 {
    match (cdb.opcode(), cdb.bytes().len()) {
        (COMPARE_AND_WRITE, _) => 13,
        (_, 6) => 4,
        (_, 10) => 7,
        (_, 12) => 6,
        _ => 10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_and_length_reads_each_form() {
        let read = |bytes: &[u8]| address_and_length(&Cdb::new(bytes));
        assert_eq!(read(&[0x08, 0xFF, 1, 2, 0, 0]), (0x1F_0102, 256));
        assert_eq!(read(&[0x28, 0, 1, 2, 3, 4, 0, 5, 6, 0]), (0x0102_0304, 0x0506));
        assert_eq!(read(&[0xA8, 0, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0]), (0x0102_0304, 0x0506_0708));
        let mut bytes = [0; 16];
        (bytes[0], bytes[9], bytes[13]) = (0x88, 7, 9);
        assert_eq!(read(&bytes), (7, 9));
        bytes[0] = 0x89;
        assert_eq!(read(&bytes), (7, 9));
    }
}
