//! Commands that report what the unit and its ports are, without touching a block.

use super::attention::Attention;
use super::execute::{Call, inaccessible};
use super::reply::{Detail, Done, Refusal, Reply, sense};
use super::table::{self, Allowed, COMMANDS, Command};
use crate::scsi::opcode::READ_DEFECT_DATA_10;
use crate::scsi::{Asc, SenseKey};

/// TEST UNIT READY.
pub(super) fn test_unit_ready(_: &Call<'_>) -> Reply {
    Ok(Done::good(0))
}

/// REQUEST SENSE (SPC-5 6.39): the next unit attention as data, and with that it is reported;
/// else why the port takes no commands, if it does not.
pub(super) fn request_sense(call: &Call<'_>) -> Reply {
    let cdb = call.cdb.padded();
    let (key, asc) = match call.port.attentions.take() {
        Some(attention) => (SenseKey::UnitAttention, attention.asc()),
        None => match inaccessible(call.port.group.state(), Allowed::Active) {
            Some(asc) => (SenseKey::NotReady, asc),
            None => (SenseKey::NoSense, Asc::NONE),
        },
    };
    let data = sense(key, asc, Detail::None, cdb[1] & 0x01 != 0);
    call.send(data.bytes(), usize::from(cdb[4]))
}

/// REPORT LUNS (SPC-5 6.33): LUN 0, and no well known units.
pub(super) fn report_luns(call: &Call<'_>) -> Reply {
    let allocation = call.cdb.be32(6) as usize;
    let mut data = match call.cdb.padded()[2] {
        0x00 | 0x02 => vec![0; 16],
        0x01 => vec![0; 8],
        _ => return Err(Refusal::in_cdb(2)),
    };
    if allocation < 16 {
        return Err(Refusal::in_cdb(6));
    }
    data[3] = (data.len() - 8) as u8;
    // Who has the list knows what changed (SPC-5 6.33.1).
    call.port.attentions.clear(Attention::LunsChanged);
    call.send(&data, allocation)
}

/// READ CAPACITY(10).
pub(super) fn read_capacity_10(call: &Call<'_>) -> Reply {
    let partial = call.cdb.padded()[8] & 0x01 != 0;
    if !partial && call.cdb.be32(2) != 0 {
        return Err(Refusal::in_cdb(2));
    }
    let last = call.array().blocks().saturating_sub(1);
    let mut data = u32::try_from(last).unwrap_or(u32::MAX).to_be_bytes().to_vec();
    data.extend_from_slice(&call.array().block_size().to_be_bytes());
    call.send(&data, data.len())
}

/// READ CAPACITY(16).
pub(super) fn read_capacity_16(call: &Call<'_>) -> Reply {
    let array = call.array();
    let mut data = array.blocks().saturating_sub(1).to_be_bytes().to_vec();
    data.extend_from_slice(&array.block_size().to_be_bytes());
    data.resize(32, 0);
    // LOGICAL BLOCKS PER PHYSICAL BLOCK EXPONENT: the host's pages have 4096 bytes.
    data[13] = if array.block_size() == 512 { 3 } else { 0 };
    data[14] = 0xC0; // LBPME, LBPRZ
    call.send(&data, call.cdb.be32(10) as usize)
}

/// REPORT TARGET PORT GROUPS, with both headers (SPC-5 6.37).
pub(super) fn target_port_groups(call: &Call<'_>) -> Reply {
    let mut data = match call.cdb.padded()[1] >> 5 {
        0 => vec![0; 4],
        // Extended: format type 001b, IMPLICIT TRANSITION TIME zero (no bound given).
        1 => vec![0, 0, 0, 0, 0x10, 0, 0, 0],
        _ => return Err(Refusal::in_cdb(1)),
    };
    let ports = call.array().ports();
    for group in call.array().groups() {
        let mut members: Vec<u16> = ports
            .iter()
            .filter(|port| port.group.number == group.number)
            .map(|port| port.number)
            .collect();
        members.dedup();
        // Eight bits count them; a group is never listed with more.
        members.truncate(usize::from(u8::MAX));
        let [high, low] = group.number.to_be_bytes();
        // Supported: transitioning, offline, unavailable, standby, both active states.
        let state = group.state().code();
        let count = members.len() as u8;
        data.extend_from_slice(&[state, 0xCF, high, low, 0, group.status_code(), 0, count]);
        for member in members {
            let [high, low] = member.to_be_bytes();
            data.extend_from_slice(&[0, 0, high, low]);
        }
    }
    let length = (data.len() - 4) as u32;
    data[..4].copy_from_slice(&length.to_be_bytes());
    call.send(&data, call.cdb.be32(6) as usize)
}

/// REPORT SUPPORTED OPERATION CODES (SPC-5 6.35), from the table that dispatches.
pub(super) fn supported_operation_codes(call: &Call<'_>) -> Reply {
    let cdb = call.cdb.padded();
    let timeouts = cdb[2] & 0x80 != 0;
    let allocation = call.cdb.be32(6) as usize;
    let rows = table::rows(cdb[3]);
    let has_actions = rows.iter().any(|command| command.action.is_some());
    let action = call.cdb.be16(4);
    let by_action = || {
        rows.iter().find(|command| command.action.map_or(action == 0, |a| u16::from(a) == action))
    };
    let row = match cdb[2] & 0x07 {
        0 => return call.send(&all_commands(timeouts), allocation),
        1 if has_actions => return Err(Refusal::in_cdb(2)),
        1 => rows.first(),
        2 if !rows.is_empty() && !has_actions => return Err(Refusal::in_cdb(2)),
        2 | 3 => by_action(),
        _ => return Err(Refusal::in_cdb(2)),
    };
    // SUPPORT: 001b not supported, 011b as the standard says.
    let Some(row) = row else { return call.send(&[0, 0x01, 0, 0], allocation) };
    let mut data = vec![0, 0x03 | u8::from(timeouts) << 7];
    data.extend_from_slice(&(row.usage.len() as u16).to_be_bytes());
    data.extend_from_slice(row.usage);
    if timeouts {
        data.extend_from_slice(&timeouts_descriptor(row));
    }
    call.send(&data, allocation)
}

fn all_commands(timeouts: bool) -> Vec<u8> {
    let mut data = vec![0; 4];
    for command in &COMMANDS {
        let flags = u8::from(command.action.is_some()) | u8::from(timeouts) << 1;
        let action = command.action.unwrap_or(0);
        let length = command.usage.len() as u8;
        data.extend_from_slice(&[command.opcode(), 0, 0, action, 0, flags, 0, length]);
        if timeouts {
            data.extend_from_slice(&timeouts_descriptor(command));
        }
    }
    let length = (data.len() - 4) as u32;
    data[..4].copy_from_slice(&length.to_be_bytes());
    data
}

fn timeouts_descriptor(command: &Command) -> [u8; 12] {
    let (nominal, recommended) = command.timeouts();
    let mut descriptor = [0; 12];
    descriptor[1] = 10;
    descriptor[4..8].copy_from_slice(&nominal.to_be_bytes());
    descriptor[8..].copy_from_slice(&recommended.to_be_bytes());
    descriptor
}

/// REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS (SPC-5 6.36).
pub(super) fn supported_task_management(call: &Call<'_>) -> Reply {
    // ABORT TASK, ABORT TASK SET, CLEAR TASK SET, LOGICAL UNIT RESET; I_T NEXUS RESET.
    let extended = call.cdb.padded()[2] & 0x80 != 0;
    let mut data = vec![0xD8, 0x01, 0, 0];
    if extended {
        data[3] = 12;
        // TMFTMOV clear: no timeouts are given.
        data.resize(16, 0);
    }
    let allocation = call.cdb.be32(6);
    if allocation < 4 {
        return Err(Refusal::in_cdb(6));
    }
    call.send(&data, allocation as usize)
}

/// LOG SENSE (SPC-5 6.8): the list of pages, and the temperature.
pub(super) fn log_sense(call: &Call<'_>) -> Reply {
    let cdb = call.cdb.padded();
    if cdb[1] & 0x01 != 0 {
        return Err(Refusal::in_cdb(1));
    }
    let (page, subpage) = (cdb[2] & 0x3F, cdb[3]);
    let body: &[u8] = match (page, subpage) {
        (0x00, 0x00) => &[0x00, 0x0D],
        (0x00, 0xFF) => &[0x00, 0x00, 0x00, 0xFF, 0x0D, 0x00],
        // 25 degrees; no reference temperature.
        (0x0D, 0x00) => &[0, 0, 0x03, 2, 0, 25, 0, 1, 0x03, 2, 0, 0xFF],
        (0x00 | 0x0D, _) => return Err(Refusal::in_cdb(3)),
        _ => return Err(Refusal::in_cdb(2)),
    };
    if call.cdb.be16(5) > u16::from(page == 0x0D) {
        // PARAMETER POINTER behind the last parameter.
        return Err(Refusal::in_cdb(5));
    }
    let with_subpages = u8::from(subpage != 0) << 6;
    let mut data = vec![page | with_subpages, subpage, 0, body.len() as u8];
    data.extend_from_slice(body);
    call.send(&data, usize::from(call.cdb.be16(7)))
}

/// READ DEFECT DATA(10) and (12): lists without an entry, in the format asked for.
pub(super) fn read_defect_data(call: &Call<'_>) -> Reply {
    let cdb = call.cdb.padded();
    if call.cdb.opcode() == READ_DEFECT_DATA_10 {
        return call.send(&[0, cdb[2] & 0x1F, 0, 0], usize::from(call.cdb.be16(7)));
    }
    call.send(&[0, cdb[1] & 0x1F, 0, 0, 0, 0, 0, 0], call.cdb.be32(6) as usize)
}

/// PREVENT ALLOW MEDIUM REMOVAL (SBC-3 5.13): taken and without effect, since nothing can be
/// removed.
pub(super) fn prevent_allow(call: &Call<'_>) -> Reply {
    if call.cdb.padded()[4] & 0x02 != 0 {
        return Err(Refusal::in_cdb(4));
    }
    Ok(Done::good(0))
}
