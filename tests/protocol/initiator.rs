//! SCSI commands by name, and what their answers mean.

use crate::queue::{Command, Completion, Queue};

/// Key and code of the sense data that tests name.
pub const INVALID_OPCODE: (u8, u8, u8) = (0x5, 0x20, 0x00);
/// LOGICAL BLOCK ADDRESS OUT OF RANGE.
pub const LBA_OUT_OF_RANGE: (u8, u8, u8) = (0x5, 0x21, 0x00);
/// LOGICAL UNIT NOT SUPPORTED.
pub const LUN_NOT_SUPPORTED: (u8, u8, u8) = (0x5, 0x25, 0x00);
/// UNIT ATTENTION, the key.
pub const UNIT_ATTENTION: u8 = 0x6;

/// TEST UNIT READY.
pub fn test_unit_ready() -> Command {
    Command::bare(&[0; 6])
}

/// INQUIRY for standard data.
pub fn inquiry(room: u16) -> Command {
    let [high, low] = room.to_be_bytes();
    Command::reading(&[0x12, 0, 0, high, low, 0], usize::from(room))
}

/// INQUIRY for a page of vital product data.
pub fn vital_product_data(page: u8, room: u16) -> Command {
    let [high, low] = room.to_be_bytes();
    Command::reading(&[0x12, 1, page, high, low, 0], usize::from(room))
}

/// READ CAPACITY(10).
pub fn read_capacity_10() -> Command {
    Command::reading(&[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0], 8)
}

/// READ CAPACITY(16).
pub fn read_capacity_16() -> Command {
    let mut cdb = [0; 16];
    (cdb[0], cdb[1], cdb[13]) = (0x9E, 0x10, 32);
    Command::reading(&cdb, 32)
}

/// REPORT LUNS with a SELECT REPORT value.
pub fn report_luns(select: u8) -> Command {
    let mut cdb = [0; 12];
    (cdb[0], cdb[2], cdb[8]) = (0xA0, select, 1);
    Command::reading(&cdb, 256)
}

/// REPORT SUPPORTED OPERATION CODES, all of them.
pub fn report_supported_operation_codes() -> Command {
    let mut cdb = [0; 12];
    (cdb[0], cdb[1], cdb[8]) = (0xA3, 0x0C, 16);
    Command::reading(&cdb, 4096)
}

/// READ(10).
pub fn read(lba: u32, blocks: u16) -> Command {
    Command::reading(&transfer(0x28, lba, blocks), usize::from(blocks) * 512)
}

/// WRITE(10).
pub fn write(lba: u32, data: Vec<u8>) -> Command {
    let blocks = (data.len() / 512) as u16;
    Command::writing(&transfer(0x2A, lba, blocks), data)
}

/// The CDB of a 10-byte command that moves blocks.
pub fn transfer(opcode: u8, lba: u32, blocks: u16) -> [u8; 10] {
    let mut cdb = [0; 10];
    cdb[0] = opcode;
    cdb[2..6].copy_from_slice(&lba.to_be_bytes());
    cdb[7..9].copy_from_slice(&blocks.to_be_bytes());
    cdb
}

/// Bytes that differ from one block to the next and from one `seed` to the next.
pub fn pattern(seed: u8, blocks: usize) -> Vec<u8> {
    (0..blocks * 512).map(|at| (at as u8) ^ (at >> 9) as u8 ^ seed).collect()
}

impl Queue {
    /// As [`Queue::run`], for a command that must end with GOOD.
    pub fn good(&mut self, command: &Command) -> Completion {
        let completion = self.run(command);
        assert!(completion.is_good(), "cdb {:02x?}: {completion:?}", &command.cdb[..16]);
        completion
    }

    /// Tests until the unit is ready: what a guest does first. Unit attentions that were pending
    /// are taken on the way, and returned.
    pub fn settle(&mut self) -> Vec<(u8, u8, u8)> {
        let mut attentions = Vec::new();
        for _ in 0..8 {
            let completion = self.run(&test_unit_ready());
            match completion.sense_code() {
                None if completion.is_good() => return attentions,
                Some(code) if code.0 == UNIT_ATTENTION => attentions.push(code),
                _ => panic!("TEST UNIT READY: {completion:?}"),
            }
        }
        panic!("unit attentions without end: {attentions:x?}");
    }

    /// The data of a command that must end with GOOD, without what the device did not write.
    pub fn fetch(&mut self, command: &Command) -> Vec<u8> {
        let completion = self.good(command);
        let stored = completion.data.len() - completion.residual as usize;
        completion.data[..stored].to_vec()
    }
}
