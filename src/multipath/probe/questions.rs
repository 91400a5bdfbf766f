//! The questions of a probe, as commands.

use crate::scsi::Cdb;
use crate::scsi::alua::make_optimized;
use crate::scsi::capacity::Capacity;
use crate::scsi::opcode::{self, service_action};

/// Room for the answer to an identity question.
const ROOM: u16 = 4096;

/// PARAMETER DATA FORMAT of REPORT TARGET PORT GROUPS: 001b, the extended header.
const EXTENDED_HEADER: u8 = 1 << 5;

/// What a probe asks next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The command.
    pub cdb: Cdb,
    /// Bytes of room for data.
    pub room: usize,
    /// Data for the array.
    pub data_out: Vec<u8>,
}

impl Question {
    /// SET TARGET PORT GROUPS: `group` is to be active/optimized.
    pub fn make_optimized(group: u16) -> Self {
        let data_out = make_optimized(group).to_vec();
        let (action, len) = (service_action::SET_TARGET_PORT_GROUPS, data_out.len() as u32);
        let cdb = long_cdb(opcode::MAINTENANCE_OUT, action, 12, 6, len);
        Question { cdb, room: 0, data_out }
    }
}

/// Where in the script a probe is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum At {
    Ready,
    Inquiry,
    Page(u8),
    Capacity16,
    Capacity10,
    /// With the extended header, which tells how long a transition may take.
    Groups,
    /// For arrays that do not know that header.
    GroupsPlain,
    OperationCodes,
    Media,
}

impl At {
    /// True where every device server tells a pending unit attention instead of an answer (SAM-5
    /// 5.14.1 names exceptions; about MAINTENANCE IN not all arrays agree).
    pub(super) fn reports_attention(self) -> bool {
        matches!(self, At::Ready | At::Capacity16 | At::Capacity10 | At::Media)
    }

    /// The question of this step; `capacity` is what the path told of its size.
    pub(super) fn question(self, capacity: Option<Capacity>) -> Question {
        let (cdb, room) = match self {
            At::Ready => (Cdb::new(&[opcode::TEST_UNIT_READY, 0, 0, 0, 0, 0]), 0),
            At::Inquiry => (inquiry_cdb(None), ROOM),
            At::Page(page) => (inquiry_cdb(Some(page)), ROOM),
            At::Capacity16 => {
                let action = service_action::READ_CAPACITY_16;
                (long_cdb(opcode::SERVICE_ACTION_IN_16, action, 16, 10, 32), 32)
            }
            At::Capacity10 => (Cdb::new(&[opcode::READ_CAPACITY_10, 0, 0, 0, 0, 0, 0, 0, 0, 0]), 8),
            At::Groups | At::GroupsPlain => {
                let extended = if self == At::Groups { EXTENDED_HEADER } else { 0 };
                let action = service_action::REPORT_TARGET_PORT_GROUPS | extended;
                (long_cdb(opcode::MAINTENANCE_IN, action, 12, 6, u32::from(ROOM)), ROOM)
            }
            At::OperationCodes => {
                let action = service_action::REPORT_SUPPORTED_OPERATION_CODES;
                (long_cdb(opcode::MAINTENANCE_IN, action, 12, 6, u32::from(ROOM)), ROOM)
            }
            At::Media => return media(capacity),
        };
        Question { cdb, room: usize::from(room), data_out: Vec::new() }
    }
}

fn media(capacity: Option<Capacity>) -> Question {
    let room = capacity.map_or(512, |capacity| capacity.block_size as usize);
    let mut bytes = [0; 16];
    (bytes[0], bytes[13]) = (opcode::READ_16, 1);
    Question { cdb: Cdb::new(&bytes), room, data_out: Vec::new() }
}

fn inquiry_cdb(page: Option<u8>) -> Cdb {
    let [high, low] = ROOM.to_be_bytes();
    // Some arrays misread an allocation length of more than 255 for standard data.
    match page {
        None => Cdb::new(&[opcode::INQUIRY, 0, 0, 0, 255, 0]),
        Some(page) => Cdb::new(&[opcode::INQUIRY, 1, page, high, low, 0]),
    }
}

fn long_cdb(opcode: u8, action: u8, len: usize, allocation_at: usize, allocation: u32) -> Cdb {
    let mut bytes = [0; 16];
    (bytes[0], bytes[1]) = (opcode, action);
    bytes[allocation_at..allocation_at + 4].copy_from_slice(&allocation.to_be_bytes());
    Cdb::new(&bytes[..len])
}
