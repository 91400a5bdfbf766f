//! The request header and the response (virtio 1.3, 5.6.6.1).

use super::Address;
use crate::completion::Outcome;
use crate::scsi::Cdb;
use crate::scsi::cdb::CDB_MAX;
use crate::scsi::sense::SENSE_MAX;

/// Bytes of the device-readable header, with QEMU's fixed `cdb_size` of 32.
pub const HEADER_LEN: usize = 19 + CDB_MAX;

/// Bytes of the device-writable response header, with QEMU's fixed `sense_size` of 96.
pub const RESPONSE_LEN: usize = 12 + SENSE_MAX;

/// TASK ATTRIBUTE (SAM-5 8.6, virtio 1.3 5.6.6.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskAttribute {
    /// No order.
    Simple,
    /// After all that came before, before all that comes after.
    Ordered,
    /// Before all that waits.
    HeadOfQueue,
    /// Auto contingent allegiance.
    Aca,
}

/// The header, read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestHeader {
    /// Where it is addressed to.
    pub address: Address,
    /// The driver's name for the command, used by task management.
    pub tag: u64,
    /// Its place in the order of commands; unknown values read as SIMPLE, as virtio allows.
    pub attribute: TaskAttribute,
    /// The command.
    pub cdb: Cdb,
}

impl RequestHeader {
    /// Reads the header. Any bytes will do.
    pub fn parse(bytes: &[u8; HEADER_LEN]) -> Self {
        let (mut lun, mut tag, mut cdb) = ([0; 8], [0; 8], [0; CDB_MAX]);
        lun.copy_from_slice(&bytes[0..8]);
        tag.copy_from_slice(&bytes[8..16]);
        cdb.copy_from_slice(&bytes[19..]);
        RequestHeader {
            address: Address::parse(lun),
            tag: u64::from_le_bytes(tag),
            attribute: match bytes[16] {
                1 => TaskAttribute::Ordered,
                2 => TaskAttribute::HeadOfQueue,
                3 => TaskAttribute::Aca,
                _ => TaskAttribute::Simple,
            },
            cdb: Cdb::from_padded(cdb),
        }
    }
}

/// The response for `outcome`. The whole field is written, so that nothing of an earlier command
/// stays in the guest's buffer: Windows takes sense for valid even where its length is 0.
pub fn response(outcome: &Outcome) -> [u8; RESPONSE_LEN] {
    let mut bytes = [0; RESPONSE_LEN];
    if let Some(sense) = &outcome.sense {
        let sense = sense.bytes();
        bytes[0..4].copy_from_slice(&(sense.len() as u32).to_le_bytes());
        bytes[12..12 + sense.len()].copy_from_slice(sense);
    }
    bytes[4..8].copy_from_slice(&outcome.residual.to_le_bytes());
    bytes[10] = outcome.status.0;
    bytes[11] = outcome.response as u8;
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::completion::Response;
    use crate::scsi::{Asc, SenseKey};

    #[test]
    fn parse_reads_each_field() {
        let mut bytes = [0; HEADER_LEN];
        bytes[0..4].copy_from_slice(&[1, 0, 0x40, 0]);
        bytes[8..16].copy_from_slice(&0x1122_3344_5566_7788u64.to_le_bytes());
        bytes[16] = 2;
        bytes[19] = 0x28;
        let header = RequestHeader::parse(&bytes);
        assert_eq!(header.address, Address::LogicalUnit { target: 0, lun: 0 });
        assert_eq!(header.tag, 0x1122_3344_5566_7788);
        assert_eq!(header.attribute, TaskAttribute::HeadOfQueue);
        assert_eq!(header.cdb.bytes().len(), 10);
    }

    #[test]
    fn response_carries_sense_and_residual() {
        let bytes = response(&Outcome::check(SenseKey::IllegalRequest, Asc(0x24, 0), 512));
        assert_eq!(bytes[0..4], 18u32.to_le_bytes());
        assert_eq!(bytes[4..8], 512u32.to_le_bytes());
        assert_eq!((bytes[10], bytes[11], bytes[12]), (2, 0, 0x70));
    }

    #[test]
    fn response_without_status_has_no_sense() {
        let bytes = response(&Outcome::response(Response::BadTarget, 0));
        assert_eq!(bytes[0..4], [0; 4]);
        assert_eq!(bytes[11], 3);
    }
}
