//! INQUIRY: standard data and vital product data pages (SPC-5 6.6, 7.7; SBC-4 6.6).

use super::execute::Call;
use super::reply::{Refusal, Reply};
use crate::limits::*;

/// T10 VENDOR IDENTIFICATION.
pub(super) const VENDOR: &[u8; 8] = b"EMULATED";
/// PRODUCT REVISION LEVEL.
const REVISION: &[u8; 4] = b"0001";
/// Version descriptors: SAM-5, SPC-4, SBC-3 (SPC-5 table 149), each without a claimed revision.
const VERSIONS: [u16; 3] = [0x00A0, 0x0460, 0x04C0];
/// Bytes that are best written at once: a page of the host.
const PAGE: u32 = 4096;
/// Bytes of a transfer from which on larger ones bring nothing.
const OPTIMAL_TRANSFER: u32 = 1 << 20;

/// INQUIRY.
pub(super) fn inquiry(call: &Call<'_>) -> Reply {
    let cdb = call.cdb.padded();
    let allocation = usize::from(call.cdb.be16(3));
    if cdb[1] & 0x02 != 0 {
        // CMDDT, obsolete since SPC-3.
        return Err(Refusal::in_cdb(1));
    }
    if cdb[1] & 0x01 == 0 {
        if cdb[2] != 0 {
            return Err(Refusal::in_cdb(2));
        }
        return call.send(&standard(call), allocation);
    }
    let body = match cdb[2] {
        0x00 => PAGES.to_vec(),
        0x80 => call.array().wwid().digits().into_bytes(),
        0x83 => designators(call),
        0x86 => extended(),
        0xB0 => block_limits(call),
        0xB1 => characteristics(),
        0xB2 => provisioning(),
        _ => return Err(Refusal::in_cdb(2)),
    };
    let mut page = vec![0, cdb[2]];
    page.extend_from_slice(&(body.len() as u16).to_be_bytes());
    page.extend_from_slice(&body);
    call.send(&page, allocation)
}

/// Supported VPD pages, in rising order.
const PAGES: [u8; 7] = [0x00, 0x80, 0x83, 0x86, 0xB0, 0xB1, 0xB2];

fn standard(call: &Call<'_>) -> Vec<u8> {
    let mut data = vec![0; 96];
    data[2] = 0x06; // VERSION: SPC-4
    data[3] = 0x12; // HISUP, response data format 2
    data[4] = 91; // ADDITIONAL LENGTH
    data[5] = 0x30; // TPGS: implicit and explicit asymmetric access
    data[6] = 0x10; // MULTIP
    data[7] = 0x02; // CMDQUE
    data[8..16].copy_from_slice(VENDOR);
    data[16..32].copy_from_slice(call.array().product());
    data[32..36].copy_from_slice(REVISION);
    for (at, version) in VERSIONS.iter().enumerate() {
        data[58 + 2 * at..60 + 2 * at].copy_from_slice(&version.to_be_bytes());
    }
    data
}

/// Device identification: two names of the unit, and the port's two.
fn designators(call: &Call<'_>) -> Vec<u8> {
    let name = call.array().wwid();
    let mut page = Vec::new();
    let mut add = |code_set: u8, kind: u8, designator: &[u8]| {
        page.extend_from_slice(&[code_set, kind, 0, designator.len() as u8]);
        page.extend_from_slice(designator);
    };
    add(1, 0x03, name.bytes()); // binary, unit, NAA
    let mut t10 = VENDOR.to_vec();
    t10.extend_from_slice(name.digits().as_bytes());
    add(2, 0x01, &t10); // ASCII, unit, T10 vendor ID
    let [high, low] = call.port.number.to_be_bytes();
    add(1, 0x14, &[0, 0, high, low]); // binary, port, relative target port
    let [high, low] = call.port.group.number.to_be_bytes();
    add(1, 0x15, &[0, 0, high, low]); // binary, port, target port group
    page
}

fn extended() -> Vec<u8> {
    let mut page = vec![0; 60];
    page[1] = 0x01; // SIMPSUP
    page[2] = 0x01; // V_SUP: a volatile cache
    page[3] = 0x01; // LUICLR: unit attentions are cleared per nexus
    page
}

fn block_limits(call: &Call<'_>) -> Vec<u8> {
    let block = call.array().block_size();
    let mut page = vec![0; 60];
    // The offsets of SBC-4 table 259 count from the page's first byte, which is four before ours.
    let mut put = |at: usize, value: u32| {
        page[at - 4..at].copy_from_slice(&value.to_be_bytes());
    };
    put(4, u32::from(EMULATED_COMPARE_AND_WRITE_MAX) << 16 | PAGE.div_ceil(block));
    put(8, EMULATED_TRANSFER_MAX / block);
    put(12, OPTIMAL_TRANSFER / block);
    put(20, (EMULATED_UNMAP_MAX / u64::from(block)) as u32);
    put(24, u32::from(EMULATED_UNMAP_DESCRIPTORS_MAX));
    put(28, PAGE.div_ceil(block)); // OPTIMAL UNMAP GRANULARITY
    put(32, 1 << 31); // UGAVALID, aligned to block 0
    put(40, EMULATED_WRITE_SAME_MAX / block); // low half of eight bytes
    page[0] = 0x01; // WSNZ
    page
}

fn characteristics() -> Vec<u8> {
    let mut page = vec![0; 60];
    page[1] = 0x01; // MEDIUM ROTATION RATE: does not rotate
    page
}

fn provisioning() -> Vec<u8> {
    // LBPU, LBPWS, LBPWS10, LBPRZ 001b; thin.
    vec![0, 0xE4, 0x02, 0]
}
