//! Commands that compare, and those that read, decide and write (SBC-4 5.3, 5.13, 5.36, 5.44).

use super::blocks::{Extent, length_field};
use super::execute::{Call, store_refusal};
use super::reply::{Detail, Done, Refusal, Reply};
use super::store::CHUNK;
use crate::limits::EMULATED_COMPARE_AND_WRITE_MAX;
use crate::scsi::{Asc, SenseKey};

/// VERIFY(10), (12) and (16).
pub(super) fn verify(call: &Call<'_>) -> Reply {
    call.extent()?;
    match byte_check(call) {
        // The medium is a file: that it can be read is all there is to check, and reading it is
        // what the next READ does.
        0 => Ok(Done::good(0)),
        1 => {
            let extent = call.transfer_extent()?;
            compare(call, extent, Against::All)?;
            Ok(Done::good(extent.bytes))
        }
        3 => {
            let extent = call.transfer_extent()?;
            compare(call, extent, Against::OneBlock)?;
            Ok(Done::good(extent.bytes.min(u64::from(call.array().block_size()))))
        }
        _ => Err(Refusal::in_cdb(1)),
    }
}

/// WRITE AND VERIFY(10), (12) and (16): the write is on the medium before it is compared.
pub(super) fn write_and_verify(call: &Call<'_>) -> Reply {
    let extent = call.transfer_extent()?;
    let check = byte_check(call);
    if check > 1 {
        return Err(Refusal::in_cdb(1));
    }
    need(call, extent.bytes)?;
    let array = call.array();
    let len = extent.bytes as usize;
    call.in_turn(|| {
        let written = array.store.write(extent.offset, call.data_out, len, true);
        written.map_err(|error| store_refusal(&error, true))
    })?;
    if check == 1 {
        compare(call, extent, Against::All)?;
    }
    Ok(Done::good(extent.bytes))
}

/// PRE-FETCH(10) and (16): CONDITION MET would promise that all blocks are in the cache (SBC-4
/// 5.10), and what the host's cache keeps is the host's affair.
pub(super) fn pre_fetch(call: &Call<'_>) -> Reply {
    call.extent()?;
    Ok(Done::good(0))
}

/// COMPARE AND WRITE (SBC-4 5.3): the first half of the data is compared, and where it matches the
/// second half is written, with nothing in between.
pub(super) fn compare_and_write(call: &Call<'_>) -> Reply {
    let extent = call.extent()?;
    if extent.blocks > u32::from(EMULATED_COMPARE_AND_WRITE_MAX) {
        return Err(Refusal::in_cdb(length_field(call.cdb)));
    }
    let len = extent.bytes as usize;
    need(call, 2 * extent.bytes)?;
    if len == 0 {
        return Ok(Done::good(0));
    }
    let mut new = vec![0; len];
    call.data_out.read_at(len, &mut new);
    let array = call.array();
    call.alone(|| {
        compare(call, extent, Against::All)?;
        array.store.write_bytes(extent.offset, &new).map_err(|error| store_refusal(&error, true))
    })?;
    make_durable(call)?;
    Ok(Done::good(2 * extent.bytes))
}

/// ORWRITE(16) (SBC-4 5.12), without a bit mask.
pub(super) fn or_write(call: &Call<'_>) -> Reply {
    let extent = call.transfer_extent()?;
    need(call, extent.bytes)?;
    let array = call.array();
    let len = extent.bytes as usize;
    call.alone(|| {
        let mut old = vec![0; CHUNK];
        let mut more = vec![0; CHUNK];
        let mut done = 0;
        while done < len {
            let take = (len - done).min(CHUNK);
            let at = extent.offset + done as u64;
            let (old, more) = (&mut old[..take], &mut more[..take]);
            array.store.read_bytes(at, old).map_err(|error| store_refusal(&error, false))?;
            call.data_out.read_at(done, more);
            old.iter_mut().zip(more).for_each(|(old, more)| *old |= *more);
            array.store.write_bytes(at, old).map_err(|error| store_refusal(&error, true))?;
            done += take;
        }
        Ok(())
    })?;
    make_durable(call)?;
    Ok(Done::good(extent.bytes))
}

/// BYTCHK: 0 is the medium alone, 1 compares all data, 3 one block with each.
fn byte_check(call: &Call<'_>) -> u8 {
    call.cdb.padded()[1] >> 1 & 0x03
}

/// Data-out that ends before the command's own length cannot be compared or written.
fn need(call: &Call<'_>, bytes: u64) -> Result<(), Refusal> {
    if (call.data_out.len() as u64) < bytes {
        return Err(Refusal::in_cdb(length_field(call.cdb)));
    }
    Ok(())
}

/// Which part of data-out belongs to a block.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Against {
    /// Each block has its own.
    All,
    /// The same one block for each.
    OneBlock,
}

/// Holds the blocks against data-out.
fn compare(call: &Call<'_>, extent: Extent, against: Against) -> Result<(), Refusal> {
    let block = u64::from(call.array().block_size());
    let one = against == Against::OneBlock;
    need(call, if one { extent.bytes.min(block) } else { extent.bytes })?;
    let step = if one { block as usize } else { CHUNK };
    let (mut ours, mut theirs) = (vec![0; step], vec![0; step]);
    let mut done = 0;
    while done < extent.bytes {
        let take = (extent.bytes - done).min(step as u64) as usize;
        let (ours, theirs) = (&mut ours[..take], &mut theirs[..take]);
        let from = if one { 0 } else { done };
        call.array()
            .store
            .read_bytes(extent.offset + done, ours)
            .map_err(|error| store_refusal(&error, false))?;
        call.data_out.read_at(from as usize, theirs);
        if let Some(at) = ours.iter().zip(theirs).position(|(our, their)| our != their) {
            // INFORMATION: where in data-out the first difference is.
            let detail = Detail::Information(from + at as u64);
            let asc = Asc::MISCOMPARE_DURING_VERIFY;
            return Err(Refusal::Check(SenseKey::Miscompare, asc, detail));
        }
        done += take as u64;
    }
    Ok(())
}

/// FUA, and a unit without a write cache.
fn make_durable(call: &Call<'_>) -> Result<(), Refusal> {
    let array = call.array();
    if call.cdb.padded()[1] & 0x08 != 0 || !array.modes.write_cache() {
        array.store.sync().map_err(|error| store_refusal(&error, true))?;
    }
    Ok(())
}
