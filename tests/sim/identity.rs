//! What the model array says of itself: enough for a probe.

use vhost_user_scsi_mpath::scsi::alua::AccessState;
use vhost_user_scsi_mpath::scsi::inquiry::vpd_page;
use vhost_user_scsi_mpath::scsi::opcode::service_action;
use vhost_user_scsi_mpath::scsi::{Asc, Cdb, SenseKey};

use crate::array::{Port, Reply, Unit};
use crate::options::{BLOCK, BLOCKS};

/// Standard data and vital product data pages 00h, 80h, 83h.
pub fn inquiry(port: &Port, cdb: &Cdb) -> Reply {
    let (evpd, page) = (cdb.padded()[1] & 1 == 1, cdb.padded()[2]);
    if !evpd {
        return Reply::good(standard(port.unit));
    }
    let name = if port.unit == Unit::Other { 0x22 } else { 0x11 };
    match page {
        0x00 => Reply::good(vpd_page(0x00, &[0x00, 0x80, 0x83])),
        0x80 => Reply::good(vpd_page(0x80, &[b'a', name])),
        0x83 => Reply::good(vpd_page(0x83, &designators(port.number, name))),
        _ => Reply::check(SenseKey::IllegalRequest, Asc::INVALID_FIELD_IN_CDB),
    }
}

fn standard(unit: Unit) -> Vec<u8> {
    const NOT_THERE: u8 = 0x7F;
    const ALUA: u8 = 0x30;
    let mut data = vec![0; 36];
    data[0] = if unit == Unit::Gone { NOT_THERE } else { 0 };
    (data[2], data[3], data[4], data[5]) = (6, 2, 31, ALUA);
    data[8..36].copy_from_slice(b"ACME    SIMULATED DISK  1.0 ");
    data
}

/// An NAA name, the relative port, the target port group: one group for each port.
fn designators(port: u8, name: u8) -> Vec<u8> {
    let mut content = vec![0x01, 0x03, 0, 16, 0x60];
    content.extend([name; 15]);
    content.extend([0x01, 0x14, 0, 4, 0, 0, 0, port]);
    content.extend([0x01, 0x15, 0, 4, 0, 0, 0, port]);
    content
}

/// READ CAPACITY(16).
pub fn capacity(port: &Port) -> Reply {
    let blocks = if port.unit == Unit::Small { BLOCKS / 2 } else { port.blocks };
    let mut data = vec![0; 32];
    data[0..8].copy_from_slice(&(blocks - 1).to_be_bytes());
    data[8..12].copy_from_slice(&(BLOCK as u32).to_be_bytes());
    Reply::good(data)
}

/// REPORT TARGET PORT GROUPS; nothing else of MAINTENANCE IN is known.
pub fn maintenance_in(cdb: &Cdb, ports: &[(u8, AccessState)]) -> Reply {
    if cdb.service_action() != Some(u16::from(service_action::REPORT_TARGET_PORT_GROUPS)) {
        return Reply::check(SenseKey::IllegalRequest, Asc::INVALID_FIELD_IN_CDB);
    }
    let mut data = vec![0; 4];
    for (port, access) in ports {
        data.extend([state(*access), 0x0F, 0, *port, 0, 0, 0, 1, 0, 0, 0, *port]);
    }
    let len = data.len() as u32 - 4;
    data[0..4].copy_from_slice(&len.to_be_bytes());
    Reply::good(data)
}

fn state(access: AccessState) -> u8 {
    match access {
        AccessState::ActiveOptimized | AccessState::Unknown => 0x0,
        AccessState::ActiveNonOptimized => 0x1,
        AccessState::Standby => 0x2,
        AccessState::Unavailable => 0x3,
        AccessState::LbaDependent => 0x4,
        AccessState::Offline => 0xE,
        AccessState::Transitioning => 0xF,
    }
}
