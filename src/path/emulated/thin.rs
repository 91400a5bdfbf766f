//! Commands about space: UNMAP, WRITE SAME, GET LBA STATUS (SBC-4 5.34, 5.46, 5.7), and START STOP
//! UNIT, which empties the cache.

use super::blocks::{Extent, length_field};
use super::execute::{Call, store_refusal};
use super::reply::{Detail, Done, Refusal, Reply};
use super::store::CHUNK;
use crate::limits::*;
use crate::scsi::opcode::WRITE_SAME_16;
use crate::scsi::{Asc, SenseKey};

/// UNMAP: the whole list is checked before the first block goes.
pub(super) fn unmap(call: &Call<'_>) -> Reply {
    if call.cdb.padded()[1] & 0x01 != 0 {
        // ANCHOR: ANC_SUP is zero.
        return Err(Refusal::in_cdb(1));
    }
    let length = usize::from(call.cdb.be16(7));
    if length == 0 {
        return Ok(Done::good(0));
    }
    let mut list = vec![0; length];
    if length < 8 || call.data_out.read_at(0, &mut list) < length {
        let asc = Asc::PARAMETER_LIST_LENGTH_ERROR;
        return Err(Refusal::Check(SenseKey::IllegalRequest, asc, Detail::None));
    }
    // A block descriptor data length that is longer than the list ends with the list, and one
    // that is no multiple of 16 ends with the last whole descriptor (SBC-4 5.34.2).
    let described = usize::from(u16::from_be_bytes([list[2], list[3]])).min(length - 8);
    if described / 16 > usize::from(EMULATED_UNMAP_DESCRIPTORS_MAX) {
        return Err(Refusal::in_parameters(2));
    }
    let mut extents = Vec::with_capacity(described / 16);
    let mut total = 0;
    for descriptor in list[8..8 + described].chunks_exact(16) {
        if let Some(extent) = unmap_extent(call, descriptor)? {
            total += extent.bytes;
            extents.push(extent);
        }
    }
    if total > EMULATED_UNMAP_MAX {
        return Err(Refusal::in_parameters(8));
    }
    let array = call.array();
    call.in_turn(|| {
        for extent in &extents {
            array
                .store
                .zero(extent.offset, extent.bytes, true)
                .map_err(|error| store_refusal(&error, true))?;
        }
        Ok(Done::good(length as u64))
    })
}

/// What a descriptor names. None of no blocks, which is no error up to the very end: address and
/// number together must not exceed the capacity (SBC-4 5.34.2).
fn unmap_extent(call: &Call<'_>, descriptor: &[u8]) -> Result<Option<Extent>, Refusal> {
    let (mut lba, mut blocks) = ([0; 8], [0; 4]);
    lba.copy_from_slice(&descriptor[..8]);
    blocks.copy_from_slice(&descriptor[8..12]);
    let (lba, blocks) = (u64::from_be_bytes(lba), u32::from_be_bytes(blocks));
    if blocks == 0 && lba <= call.array().blocks() {
        return Ok(None);
    }
    call.array().extent(lba, blocks).map(Some)
}

/// WRITE SAME(10) and (16): one block of data again and again, or zeroes.
pub(super) fn write_same(call: &Call<'_>) -> Reply {
    let flags = call.cdb.padded()[1];
    let unmap = flags & 0x08 != 0;
    let no_data = call.cdb.opcode() == WRITE_SAME_16 && flags & 0x01 != 0;
    if flags & 0x10 != 0 {
        // ANCHOR: ANC_SUP is zero.
        return Err(Refusal::in_cdb(1));
    }
    let extent = call.extent()?;
    if extent.blocks == 0 || extent.bytes > u64::from(EMULATED_WRITE_SAME_MAX) {
        // WSNZ is set, and there is a MAXIMUM WRITE SAME LENGTH.
        return Err(Refusal::in_cdb(length_field(call.cdb)));
    }
    let mut block = vec![0; call.array().block_size() as usize];
    let bytes = if no_data { 0 } else { block.len() };
    // More than a block is no slip of the length: whoever sends it means another command.
    if !no_data && call.data_out.len() != bytes {
        return Err(Refusal::in_cdb(length_field(call.cdb)));
    }
    call.data_out.read_at(0, &mut block[..bytes]);
    let array = call.array();
    call.in_turn(|| {
        let written = match block.iter().all(|byte| *byte == 0) {
            true => array.store.zero(extent.offset, extent.bytes, unmap),
            false => fill(call, extent, &block),
        };
        written.map_err(|error| store_refusal(&error, true))
    })?;
    if !array.modes.write_cache() {
        array.store.sync().map_err(|error| store_refusal(&error, true))?;
    }
    Ok(Done::good(bytes as u64))
}

fn fill(call: &Call<'_>, extent: Extent, block: &[u8]) -> std::io::Result<()> {
    let chunk = block.repeat(CHUNK / block.len());
    let mut done = 0;
    while done < extent.bytes {
        let take = (extent.bytes - done).min(chunk.len() as u64);
        call.array().store.write_bytes(extent.offset + done, &chunk[..take as usize])?;
        done += take;
    }
    Ok(())
}

/// GET LBA STATUS: where the store has holes. The list ends early where it gets long, which the
/// standard allows as long as there is one descriptor.
pub(super) fn get_lba_status(call: &Call<'_>) -> Reply {
    let array = call.array();
    let block = u64::from(array.block_size());
    let mut lba = call.cdb.be64(2);
    array.extent(lba, 0)?;
    let allocation = call.cdb.be32(10) as usize;
    let most = (allocation.saturating_sub(8) / 16).clamp(1, EMULATED_LBA_STATUS_MAX);
    let end = array.blocks() * block;
    let mut data = vec![0; 8];
    for _ in 0..most {
        if lba >= array.blocks() {
            break;
        }
        let (allocated, until) = array.store.allocation(lba * block, end);
        // A block that is partly there is there.
        let next = if allocated { until.div_ceil(block) } else { until / block };
        let next = next.clamp(lba + 1, array.blocks());
        let allocated = allocated || until < (lba + 1) * block;
        let blocks = u32::try_from(next - lba).unwrap_or(u32::MAX);
        data.extend_from_slice(&lba.to_be_bytes());
        data.extend_from_slice(&blocks.to_be_bytes());
        // PROVISIONING STATUS: mapped or unknown, or deallocated.
        data.extend_from_slice(&[u8::from(!allocated), 0, 0, 0]);
        lba += u64::from(blocks);
    }
    let length = (data.len() - 4) as u32;
    data[..4].copy_from_slice(&length.to_be_bytes());
    call.send(&data, allocation)
}

/// START STOP UNIT (SBC-4 5.31): one initiator's stop must not take the unit from the others, so
/// the unit stays ready as an array's does; but what a stop promises, a cache without unwritten
/// data, it gets.
pub(super) fn start_stop_unit(call: &Call<'_>) -> Reply {
    let cdb = call.cdb.padded();
    let (power_condition, no_flush) = (cdb[4] >> 4, cdb[4] & 0x04 != 0);
    if cdb[4] & 0x02 != 0 {
        // LOEJ: nothing to eject.
        return Err(Refusal::in_cdb(4));
    }
    if power_condition == 0 && cdb[4] & 0x01 == 0 && !no_flush {
        call.array().store.sync().map_err(|error| store_refusal(&error, true))?;
    }
    Ok(Done::good(0))
}
