//! Mode pages: MODE SENSE and MODE SELECT (SPC-5 6.14 to 6.17, 7.5; SBC-4 6.5).
//!
//! Three bits can be changed: WCE (write cache), D_SENSE (descriptor sense) and SWP (software
//! write protect). They last as long as this process has the unit open; saving is not supported.

use std::sync::atomic::{AtomicBool, Ordering};

use super::attention::Attention;
use super::execute::Call;
use super::reply::{Done, Refusal, Reply};
use crate::scsi::opcode::{MODE_SELECT_6, MODE_SENSE_6};
use crate::scsi::{Asc, SenseKey};

/// The bits that can be changed. One set for all nexuses, as many arrays have it.
#[derive(Debug)]
pub(super) struct Modes {
    write_cache: AtomicBool,
    descriptor_sense: AtomicBool,
    write_protected: AtomicBool,
}

impl Default for Modes {
    fn default() -> Self {
        Modes {
            // The page cache is one.
            write_cache: AtomicBool::new(true),
            descriptor_sense: AtomicBool::new(false),
            write_protected: AtomicBool::new(false),
        }
    }
}

impl Modes {
    /// Back to the defaults: nothing is saved.
    pub(super) fn power_on(&self) {
        let Modes { write_cache, descriptor_sense, write_protected } = Modes::default();
        self.write_cache.store(write_cache.into_inner(), Ordering::Relaxed);
        self.descriptor_sense.store(descriptor_sense.into_inner(), Ordering::Relaxed);
        self.write_protected.store(write_protected.into_inner(), Ordering::Relaxed);
    }

    /// WCE.
    pub(super) fn write_cache(&self) -> bool {
        self.write_cache.load(Ordering::Relaxed)
    }

    /// D_SENSE.
    pub(super) fn descriptor_sense(&self) -> bool {
        self.descriptor_sense.load(Ordering::Relaxed)
    }

    /// SWP.
    pub(super) fn write_protected(&self) -> bool {
        self.write_protected.load(Ordering::Relaxed)
    }
}

/// Which values of a page are asked for (PC, SPC-5 table 170).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Values {
    Current,
    Changeable,
    Default,
}

const WCE: u8 = 0x04;
const D_SENSE: u8 = 0x04;
const SWP: u8 = 0x08;

/// Page and subpage codes, in the order in which they are returned.
const PAGES: [(u8, u8); 6] = [(0x01, 0), (0x02, 0), (0x08, 0), (0x0A, 0), (0x0A, 1), (0x1C, 0)];

fn page(code: u8, subpage: u8, values: Values, modes: &Modes) -> Vec<u8> {
    let bit = |mask: u8, current: bool, default: bool| match values {
        Values::Changeable => mask,
        Values::Current => mask * u8::from(current),
        Values::Default => mask * u8::from(default),
    };
    let fixed = |value: u8| if values == Values::Changeable { 0 } else { value };
    match (code, subpage) {
        // Read-write error recovery: AWRE, ARRE.
        (0x01, _) => vec![0x01, 10, fixed(0xC0), 0, 0, 0, 0, 0, 0, 0, 0, 0],
        // Disconnect-reconnect: no limits.
        (0x02, _) => [&[0x02, 14][..], &[0; 14]].concat(),
        (0x08, _) => {
            let cache = bit(WCE, modes.write_cache(), true);
            [&[0x08, 18, cache][..], &[0; 17]].concat()
        }
        (0x0A, 0) => {
            // GLTSD; unrestricted reordering; no ACA; busy timeout unlimited.
            let format = fixed(0x02) | bit(D_SENSE, modes.descriptor_sense(), false);
            let protect = bit(SWP, modes.write_protected(), false);
            let busy = fixed(0xFF);
            vec![0x0A, 10, format, fixed(0x10), protect, 0, 0, 0, busy, busy, 0, 0]
        }
        // Control extension: IALUAE.
        (0x0A, _) => [&[0x4A, 0x01, 0, 28, fixed(0x01)][..], &[0; 27]].concat(),
        // Informational exceptions control: DEXCPT.
        _ => vec![0x1C, 10, fixed(0x08), 0, 0, 0, 0, 0, 0, 0, 0, 0],
    }
}

/// MODE SENSE(6) and (10).
pub(super) fn mode_sense(call: &Call<'_>) -> Reply {
    let cdb = call.cdb.padded();
    let short = call.cdb.opcode() == MODE_SENSE_6;
    let allocation = if short { usize::from(cdb[4]) } else { usize::from(call.cdb.be16(7)) };
    let values = match cdb[2] >> 6 {
        0 => Values::Current,
        1 => Values::Changeable,
        2 => Values::Default,
        _ => {
            let asc = Asc::SAVING_PARAMETERS_NOT_SUPPORTED;
            return Err(Refusal::illegal(asc));
        }
    };
    let (code, subpage) = (cdb[2] & 0x3F, cdb[3]);
    let wanted = |page: &(u8, u8)| match (code, subpage) {
        (0x3F, 0) => page.1 == 0,
        (0x3F, 0xFF) => true,
        (_, 0xFF) => page.0 == code,
        _ => *page == (code, subpage),
    };
    let mut pages = Vec::new();
    for (code, subpage) in PAGES.iter().filter(|page| wanted(page)) {
        pages.extend(page(*code, *subpage, values, &call.array().modes));
    }
    if pages.is_empty() {
        let known = code == 0x3F || PAGES.iter().any(|page| page.0 == code);
        return Err(Refusal::in_cdb(if known { 3 } else { 2 }));
    }
    let descriptor = match (cdb[1] & 0x08 != 0, !short && cdb[1] & 0x10 != 0) {
        (true, _) => Vec::new(),
        (false, long) => block_descriptor(call, long),
    };
    let protected = call.array().write_refusal().is_some();
    let specific = 0x10 | u8::from(protected) << 7; // DPOFUA, WP
    let mut data;
    if short {
        let length = 3 + descriptor.len() + pages.len();
        data = vec![length as u8, 0, specific, descriptor.len() as u8];
    } else {
        let length = (6 + descriptor.len() + pages.len()) as u16;
        data = length.to_be_bytes().to_vec();
        data.extend_from_slice(&[0, specific, u8::from(descriptor.len() == 16), 0]);
        data.extend_from_slice(&(descriptor.len() as u16).to_be_bytes());
    }
    data.extend(descriptor);
    data.extend(pages);
    call.send(&data, allocation)
}

fn block_descriptor(call: &Call<'_>, long: bool) -> Vec<u8> {
    let (blocks, block) = (call.array().blocks(), call.array().block_size());
    if long {
        let mut descriptor = blocks.to_be_bytes().to_vec();
        descriptor.extend_from_slice(&[0; 4]);
        descriptor.extend_from_slice(&block.to_be_bytes());
        return descriptor;
    }
    // SBC-4 6.5.2.2: a number that does not fit reads as all ones.
    let blocks = u32::try_from(blocks).unwrap_or(u32::MAX);
    let mut descriptor = blocks.to_be_bytes().to_vec();
    descriptor.extend_from_slice(&block.to_be_bytes());
    descriptor
}

/// MODE SELECT(6) and (10).
pub(super) fn mode_select(call: &Call<'_>) -> Reply {
    let cdb = call.cdb.padded();
    let short = call.cdb.opcode() == MODE_SELECT_6;
    let length = if short { usize::from(cdb[4]) } else { usize::from(call.cdb.be16(7)) };
    if cdb[1] & 0x11 != 0x10 {
        // Without PF the pages' format is the vendor's; SP asks to save.
        return Err(Refusal::in_cdb(1));
    }
    if length == 0 {
        return Ok(Done::good(0));
    }
    // At most 64 KiB, by the width of the field.
    let mut list = vec![0; length];
    if call.data_out.read_at(0, &mut list) < length {
        return Err(length_error());
    }
    let header = if short { 4 } else { 8 };
    if length < header {
        return Err(length_error());
    }
    let descriptors = if short { usize::from(list[3]) } else { be16(&list, 6) };
    check_block_descriptor(call, &list, header, descriptors, !short && list[4] & 1 != 0)?;
    let first = header + descriptors;
    // Everything is checked before anything is changed.
    let mut changes = [None; 3];
    let mut at = first;
    while at < length {
        at = check_page(call, &list, at, &mut changes)?;
    }
    let modes = &call.array().modes;
    let targets = [&modes.write_cache, &modes.descriptor_sense, &modes.write_protected];
    let mut changed = false;
    for (target, change) in targets.into_iter().zip(changes) {
        if let Some(value) = change {
            changed |= target.swap(value, Ordering::Relaxed) != value;
        }
    }
    if changes[0] == Some(false) {
        // What the cache still holds was written under the promise that a flush would come.
        call.array().helper.sync_soon(&call.port.array);
    }
    if changed {
        call.array().post(Attention::ModeChanged, Some(call.port.nexus));
    }
    Ok(Done::good(length as u64))
}

fn check_block_descriptor(
    call: &Call<'_>,
    list: &[u8],
    at: usize,
    len: usize,
    long: bool,
) -> Result<(), Refusal> {
    if len == 0 {
        return Ok(());
    }
    let expected = block_descriptor(call, long);
    let pointer = at as u16;
    let given = list.get(at..at + len).ok_or_else(length_error)?;
    if given.len() != expected.len() {
        return Err(Refusal::in_parameters(pointer - 1));
    }
    // Only the format that the unit has can be selected; a number of blocks of zero or all ones
    // means as it is (SBC-4 6.5.2).
    let (count, rest) = given.split_at(expected.len() / 2);
    let as_is = count.iter().all(|byte| *byte == 0) || count.iter().all(|byte| *byte == 0xFF);
    if !(as_is || *count == expected[..expected.len() / 2])
        || rest[1..] != expected[expected.len() / 2 + 1..]
    {
        return Err(Refusal::in_parameters(pointer));
    }
    Ok(())
}

/// Checks the page at `at` and returns where the next one begins.
fn check_page(
    call: &Call<'_>,
    list: &[u8],
    at: usize,
    changes: &mut [Option<bool>; 3],
) -> Result<usize, Refusal> {
    let subpages = list[at] & 0x40 != 0;
    let (code, subpage) = (list[at] & 0x3F, if subpages { list.get(at + 1) } else { Some(&0) });
    let subpage = *subpage.ok_or_else(length_error)?;
    if !PAGES.contains(&(code, subpage)) {
        return Err(Refusal::in_parameters(at as u16));
    }
    let modes = &call.array().modes;
    let current = page(code, subpage, Values::Current, modes);
    let mask = page(code, subpage, Values::Changeable, modes);
    let header = if subpages { 4 } else { 2 };
    let given = list.get(at..at + header).ok_or_else(length_error)?;
    if given[1..] != current[1..header] {
        return Err(Refusal::in_parameters(at as u16 + 1));
    }
    let given = list.get(at..at + current.len()).ok_or_else(length_error)?;
    for byte in header..current.len() {
        if (given[byte] ^ current[byte]) & !mask[byte] != 0 {
            return Err(Refusal::in_parameters((at + byte) as u16));
        }
    }
    match (code, subpage) {
        (0x08, 0) => changes[0] = Some(given[2] & WCE != 0),
        (0x0A, 0) => {
            changes[1] = Some(given[2] & D_SENSE != 0);
            changes[2] = Some(given[4] & SWP != 0);
        }
        _ => {}
    }
    Ok(at + current.len())
}

fn length_error() -> Refusal {
    use super::reply::Detail;
    Refusal::Check(SenseKey::IllegalRequest, Asc::PARAMETER_LIST_LENGTH_ERROR, Detail::None)
}

fn be16(bytes: &[u8], at: usize) -> usize {
    usize::from(bytes[at]) << 8 | usize::from(bytes[at + 1])
}
