//! Commands that read and change blocks.

use super::*;
use crate::path::Residual;
use crate::scsi::opcode::*;

const OUT_OF_RANGE: (SenseKey, Asc) = (ILLEGAL, Asc::LBA_OUT_OF_RANGE);
const BAD_CDB: (SenseKey, Asc) = (ILLEGAL, Asc::INVALID_FIELD_IN_CDB);

#[test]
fn every_read_reads_what_every_write_wrote() {
    let mut disk = disk(64);
    let writes: [&[u8]; 6] = [
        &[WRITE_6, 0, 0, 1, 2, 0],
        &cdb10(WRITE_10, 0x18, 1, 2),
        &[WRITE_12, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0],
        &cdb16(WRITE_16, 0x08, 1, 2),
        &cdb10(WRITE_AND_VERIFY_10, 0x02, 1, 2),
        &cdb16(WRITE_AND_VERIFY_16, 0x00, 1, 2),
    ];
    let reads: [&[u8]; 4] = [
        &[READ_6, 0, 0, 1, 2, 0],
        &cdb10(READ_10, 0x18, 1, 2),
        &[READ_12, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0],
        &cdb16(READ_16, 0, 1, 2),
    ];
    for (round, write) in writes.into_iter().enumerate() {
        let data = pattern(round as u8 + 1, 1024);
        disk.good(write, &data, 0);
        for read in reads {
            assert_eq!(disk.good(read, &[], 1024), data);
        }
    }
    assert_eq!(disk.good(&cdb10(READ_10, 0, 0, 1), &[], 512), [0; 512]);
    assert_eq!(disk.good(&cdb10(READ_10, 0, 3, 1), &[], 512), [0; 512]);
}

#[test]
fn ranges_are_checked_without_overflow() {
    let mut disk = disk(64);
    for (lba, blocks) in [(64, 1), (63, 2), (64, 0), (u64::MAX, 1), (u64::MAX, 0)] {
        assert_eq!(disk.check(&cdb16(READ_16, 0, lba, blocks), &[], 1024), OUT_OF_RANGE);
        assert_eq!(disk.check(&cdb16(WRITE_16, 0, lba, blocks), &[0; 1024], 0), OUT_OF_RANGE);
        assert_eq!(disk.check(&cdb16(VERIFY_16, 0, lba, blocks), &[], 0), OUT_OF_RANGE);
        assert_eq!(disk.check(&cdb16(PRE_FETCH_16, 0, lba, blocks), &[], 0), OUT_OF_RANGE);
        assert_eq!(disk.check(&cdb16(SYNCHRONIZE_CACHE_16, 0, lba, blocks), &[], 0), OUT_OF_RANGE);
    }
    let whole = cdb16(READ_16, 0, 0, u32::MAX);
    assert_eq!(disk.check(&whole, &[], 1024), OUT_OF_RANGE);
    let (answer, _) = disk.run(&cdb10(READ_10, 0, 0x40, 1), &[], 512);
    let expected = [0xF0, 0, 5, 0, 0, 0, 0x40, 10, 0, 0, 0, 0, 0x21, 0, 0, 0, 0, 0];
    assert_eq!(answer.sense.unwrap().bytes(), expected);
    disk.good(&cdb10(READ_10, 0, 63, 0), &[], 0);
    assert_eq!(disk.check(&cdb10(READ_10, 0x20, 0, 1), &[], 512), BAD_CDB);
}

#[test]
fn transfers_beyond_the_limit_are_refused() {
    let mut disk = initiator(&port(&array(1 << 20), 1));
    assert_eq!(disk.check(&cdb16(READ_16, 0, 0, (32 << 11) + 1), &[], 512), BAD_CDB);
    let (answer, _) = disk.run(&cdb16(READ_16, 0, 0, 32 << 11), &[], 512);
    assert_eq!(answer.residual, Residual::Over((32 << 20) - 512));
}

#[test]
fn room_too_small_or_too_large_moves_what_it_can() {
    let mut disk = disk(8);
    disk.good(&cdb10(WRITE_10, 0, 0, 2), &pattern(1, 1024), 0);
    let (answer, data) = disk.run(&cdb10(READ_10, 0, 0, 2), &[], 600);
    assert_eq!((answer.status, answer.residual), (Status::GOOD, Residual::Over(424)));
    assert_eq!((&data[..512], data[512]), (&pattern(1, 1024)[..512], 0xEE));
    let (answer, data) = disk.run(&cdb10(READ_10, 0, 0, 1), &[], 600);
    assert_eq!((answer.residual, data[512]), (Residual::Under(88), 0xEE));
    let (answer, _) = disk.run(&cdb10(WRITE_10, 0, 2, 2), &pattern(9, 512), 0);
    assert_eq!(answer.residual, Residual::Over(512));
    let back = disk.good(&cdb10(READ_10, 0, 2, 2), &[], 1024);
    assert_eq!((&back[..512], &back[512..]), (&pattern(9, 512)[..], &[0; 512][..]));
    let (answer, _) = disk.run(&cdb10(WRITE_10, 0, 0, 1), &[], 0);
    assert_eq!(answer.residual, Residual::Over(512));
}

#[test]
fn verify_compares_when_asked() {
    let mut disk = disk(8);
    let data = pattern(3, 1024);
    disk.good(&cdb10(WRITE_10, 0, 0, 2), &data, 0);
    disk.good(&cdb10(VERIFY_10, 0, 0, 8), &[], 0);
    disk.good(&cdb10(VERIFY_10, 0x02, 0, 2), &data, 0);
    disk.good(&[VERIFY_12, 2, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0], &data, 0);
    let mut wrong = data.clone();
    wrong[700] ^= 1;
    let (answer, _) = disk.run(&cdb16(VERIFY_16, 0x02, 0, 2), &wrong, 0);
    let sense = answer.sense.unwrap();
    assert_eq!(sense.decode(), Some((SenseKey::Miscompare, Asc::MISCOMPARE_DURING_VERIFY)));
    assert_eq!(sense.bytes()[3..7], 700_u32.to_be_bytes());
    assert_eq!(disk.check(&cdb10(VERIFY_10, 0x02, 0, 2), &data[..512], 0), BAD_CDB);
    assert_eq!(disk.check(&cdb10(VERIFY_10, 0x04, 0, 2), &data, 0), BAD_CDB);
    // One block against each.
    disk.good(&cdb10(VERIFY_10, 0x06, 4, 4), &[0; 512], 0);
    let (key, _) = disk.check(&cdb10(VERIFY_10, 0x06, 0, 2), &data[..512], 0);
    assert_eq!(key, SenseKey::Miscompare);
    disk.good(&cdb10(PRE_FETCH_10, 0, 0, 8), &[], 0);
}

fn compare_and_write(lba: u64, blocks: u8) -> [u8; 16] {
    cdb16(COMPARE_AND_WRITE, 0, lba, u32::from(blocks))
}

#[test]
fn compare_and_write_writes_only_on_a_match() {
    let mut disk = disk(1024);
    let data = [vec![0; 512], pattern(5, 512)].concat();
    disk.good(&compare_and_write(3, 1), &data, 0);
    let (answer, _) = disk.run(&compare_and_write(3, 1), &data, 0);
    let sense = answer.sense.unwrap();
    assert_eq!(sense.decode(), Some((SenseKey::Miscompare, Asc::MISCOMPARE_DURING_VERIFY)));
    assert_eq!(disk.good(&cdb10(READ_10, 0, 3, 1), &[], 512), data[512..]);
    assert_eq!(disk.check(&compare_and_write(3, 1), &data[..600], 0), BAD_CDB);
    assert_eq!(disk.check(&compare_and_write(0, 129), &vec![0; 129 << 10], 0), BAD_CDB);
    assert_eq!(disk.check(&compare_and_write(1024, 1), &data, 0), OUT_OF_RANGE);
    disk.good(&compare_and_write(3, 0), &[], 0);
}

#[test]
fn or_write_adds_bits() {
    let mut disk = disk(512);
    let len = 160 << 10;
    disk.good(&cdb16(WRITE_16, 0, 2, 320), &vec![0x0F; len], 0);
    disk.good(&cdb16(ORWRITE_16, 0x08, 2, 320), &vec![0x30; len], 0);
    assert_eq!(disk.good(&cdb16(READ_16, 0, 2, 320), &[], len), vec![0x3F; len]);
    assert_eq!(disk.check(&cdb16(ORWRITE_16, 0, 0, 2), &[0; 512], 0), BAD_CDB);
}

#[test]
fn write_same_repeats_its_block() {
    let mut disk = disk(512);
    let block = pattern(7, 512);
    disk.good(&cdb10(WRITE_SAME_10, 0, 1, 300), &block, 0);
    assert_eq!(disk.good(&cdb16(READ_16, 0, 1, 300), &[], 300 * 512), block.repeat(300));
    disk.good(&cdb16(WRITE_SAME_16, 0x01, 2, 298), &[], 0);
    disk.good(&cdb16(WRITE_SAME_16, 0x08, 1, 1), &[0; 512], 0);
    let back = disk.good(&cdb16(READ_16, 0, 0, 301), &[], 301 * 512);
    assert_eq!(back, [vec![0; 300 * 512], block.clone()].concat());
    assert_eq!(disk.check(&cdb10(WRITE_SAME_10, 0, 1, 0), &block, 0), BAD_CDB);
    assert_eq!(disk.check(&cdb10(WRITE_SAME_10, 0, 1, 1), &block[..100], 0), BAD_CDB);
    assert_eq!(disk.check(&cdb10(WRITE_SAME_10, 0, 1, 1), &block.repeat(2), 0), BAD_CDB);
    assert_eq!(disk.check(&cdb16(WRITE_SAME_16, 0, 1, 1), &block.repeat(2), 0), BAD_CDB);
    assert_eq!(disk.check(&cdb10(WRITE_SAME_10, 0x10, 1, 1), &block, 0), BAD_CDB);
    assert_eq!(disk.check(&cdb10(WRITE_SAME_10, 0, 500, 13), &block, 0), OUT_OF_RANGE);
}

fn unmap_list(ranges: &[(u64, u32)]) -> Vec<u8> {
    let len = ranges.len() as u16 * 16;
    let mut list = [(len + 6).to_be_bytes(), len.to_be_bytes(), [0; 2], [0; 2]].concat();
    for (lba, blocks) in ranges {
        list.extend_from_slice(&lba.to_be_bytes());
        list.extend_from_slice(&blocks.to_be_bytes());
        list.extend_from_slice(&[0; 4]);
    }
    list
}

fn unmap(list: &[u8]) -> [u8; 10] {
    cdb10(UNMAP, 0, 0, list.len() as u16)
}

#[test]
fn unmap_zeroes_and_lba_status_tells() {
    let mut disk = disk(1024);
    let ones = vec![1; 512 << 10];
    disk.good(&cdb16(WRITE_16, 0, 0, 1024), &ones, 0);
    let list = unmap_list(&[(8, 16), (1000, 24), (100, 0), (1024, 0)]);
    disk.good(&unmap(&list), &list, 0);
    let back = disk.good(&cdb16(READ_16, 0, 0, 1024), &[], 512 << 10);
    let zeroed = |block: usize| (8..24).contains(&block) || block >= 1000;
    for (block, bytes) in back.chunks(512).enumerate() {
        assert!(bytes.iter().all(|byte| *byte == u8::from(!zeroed(block))), "{block}");
    }
    let status = disk.good(&cdb16(0x9E, 0x12, 0, 56), &[], 56);
    assert_eq!(status[..8], [0, 0, 0, 52, 0, 0, 0, 0]);
    let descriptor = |at: usize| {
        let bytes = &status[8 + 16 * at..24 + 16 * at];
        (bytes[7], bytes[10], bytes[11], bytes[12])
    };
    assert_eq!(descriptor(0), (0, 0, 8, 0));
    assert_eq!(descriptor(1), (8, 0, 16, 1));
    assert_eq!(descriptor(2), (24, 976_u16.to_be_bytes()[0], 976_u16.to_be_bytes()[1], 0));
    assert_eq!(disk.check(&cdb16(0x9E, 0x12, 1024, 56), &[], 56), OUT_OF_RANGE);
}

#[test]
fn unmap_checks_the_whole_list_first() {
    let mut disk = disk(64);
    disk.good(&cdb10(WRITE_10, 0, 0, 8), &[1; 4096], 0);
    let list = unmap_list(&[(0, 8), (63, 2)]);
    assert_eq!(disk.check(&unmap(&list), &list, 0), OUT_OF_RANGE);
    assert_eq!(disk.good(&cdb10(READ_10, 0, 0, 8), &[], 4096), [1; 4096]);
    let list = unmap_list(&[(65, 0)]);
    assert_eq!(disk.check(&unmap(&list), &list, 0), OUT_OF_RANGE, "no blocks, but beyond the end");
    let long = unmap_list(&[(0, 1); 257]);
    let parameters = (ILLEGAL, Asc::INVALID_FIELD_IN_PARAMETER_LIST);
    assert_eq!(disk.check(&unmap(&long), &long, 0), parameters);
    let length = (ILLEGAL, Asc::PARAMETER_LIST_LENGTH_ERROR);
    assert_eq!(disk.check(&cdb10(UNMAP, 0, 0, 7), &[0; 7], 0), length);
    assert_eq!(disk.check(&cdb10(UNMAP, 0, 0, 24), &[0; 8], 0), length);
    disk.good(&cdb10(UNMAP, 0, 0, 0), &[], 0);
}

#[test]
fn larger_blocks_work_the_same() {
    let array = Array::in_memory(1 << 20, 4096, NAME).unwrap();
    let mut disk = initiator(&port(&array, 1));
    let data = pattern(1, 8192);
    disk.good(&cdb10(WRITE_10, 0, 254, 2), &data, 0);
    assert_eq!(disk.good(&cdb10(READ_10, 0, 254, 2), &[], 8192), data);
    assert_eq!(disk.check(&cdb10(READ_10, 0, 255, 2), &[], 8192), OUT_OF_RANGE);
    let mut block = vec![0; 4096];
    array.peek(255, &mut block).unwrap();
    assert_eq!(block, data[4096..]);
}
