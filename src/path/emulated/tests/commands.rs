//! What the unit says about itself, and the rules that come before every command.

use super::*;
use crate::path::Residual;
use crate::scsi::opcode;

fn inquiry(evpd: u8, page: u8, allocation: u16) -> [u8; 6] {
    let [high, low] = allocation.to_be_bytes();
    [0x12, evpd, page, high, low, 0]
}

#[test]
fn unit_attention_comes_once_per_nexus_and_not_by_inquiry() {
    let array = array(8);
    for number in 1..=2 {
        let mut nexus = Initiator::new(port(&array, number).channel().unwrap());
        nexus.good(&inquiry(0, 0, 36), &[], 36);
        nexus.good(&[0xA0, 0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0], &[], 16);
        let mut nexus = nexus.settle();
        nexus.good(&TUR, &[], 0);
    }
}

#[test]
fn request_sense_reports_and_clears_the_unit_attention() {
    let mut nexus = Initiator::new(port(&array(8), 1).channel().unwrap());
    let sense = nexus.good(&[3, 0, 0, 0, 252, 0], &[], 252);
    assert_eq!((sense.len(), sense[0], sense[2], sense[12]), (18, 0x70, 6, 0x29));
    let sense = nexus.good(&[3, 1, 0, 0, 252, 0], &[], 252);
    assert_eq!(sense, [0x72, 0, 0, 0, 0, 0, 0, 0]);
    nexus.good(&TUR, &[], 0);
}

#[test]
fn inquiry_standard_data() {
    let data = disk(8).good(&inquiry(0, 0, 255), &[], 255);
    assert_eq!(data.len(), 96);
    assert_eq!(data[..8], [0x00, 0x00, 0x06, 0x12, 91, 0x30, 0x10, 0x02]);
    assert_eq!(&data[8..36], b"EMULATEDVIRTUAL-DISK    0001");
    assert_eq!(data[58..64], [0x00, 0xA0, 0x04, 0x60, 0x04, 0xC0]);
}

#[test]
fn inquiry_refuses_wrong_fields() {
    let mut disk = disk(8);
    let expected = (ILLEGAL, Asc::INVALID_FIELD_IN_CDB);
    assert_eq!(disk.check(&inquiry(0, 0x80, 36), &[], 36), expected);
    assert_eq!(disk.check(&inquiry(1, 0x7F, 36), &[], 36), expected);
    assert_eq!(disk.check(&inquiry(2, 0, 36), &[], 36), expected);
}

#[test]
fn inquiry_pages_have_their_bytes() {
    let mut disk = disk(2048);
    let mut page = |code| disk.good(&inquiry(1, code, 1024), &[], 1024);
    assert_eq!(page(0x00), [0, 0, 0, 7, 0x00, 0x80, 0x83, 0x86, 0xB0, 0xB1, 0xB2]);
    assert_eq!(page(0x80)[..4], [0, 0x80, 0, 32]);
    assert_eq!(page(0x80)[4..], *NAME.digits().as_bytes());
    let names = page(0x83);
    assert_eq!(names[..8], [0, 0x83, 0, 80, 1, 3, 0, 16]);
    assert_eq!(names[8..24], *NAME.bytes());
    assert_eq!(names[24..36], *b"\x02\x01\x00\x28EMULATED");
    assert_eq!(names[68..], [1, 0x14, 0, 4, 0, 0, 0, 1, 1, 0x15, 0, 4, 0, 0, 0, 1]);
    assert_eq!(page(0x86)[..8], [0, 0x86, 0, 60, 0, 1, 1, 1]);
    let limits = page(0xB0);
    assert_eq!(limits[..8], [0, 0xB0, 0, 60, 1, 128, 0, 8]);
    assert_eq!(limits[8..16], [0, 1, 0, 0, 0, 0, 8, 0]);
    assert_eq!(limits[20..36], [0, 0x10, 0, 0, 0, 0, 1, 0, 0, 0, 0, 8, 0x80, 0, 0, 0]);
    assert_eq!(limits[36..44], [0, 0, 0, 0, 0, 0, 0x80, 0]);
    assert_eq!(page(0xB1)[..6], [0, 0xB1, 0, 60, 0, 1]);
    assert_eq!(page(0xB2), [0, 0xB2, 0, 4, 0, 0xE4, 2, 0]);
}

#[test]
fn allocation_length_cuts_and_residual_tells() {
    let mut disk = disk(8);
    let (answer, data) = disk.run(&inquiry(0, 0, 5), &[], 36);
    assert_eq!(answer.residual, Residual::Under(31));
    assert_eq!(data[..6], [0, 0, 6, 0x12, 91, 0xEE]);
    let (answer, data) = disk.run(&inquiry(0, 0, 96), &[], 4);
    assert_eq!((answer.residual, data), (Residual::Over(92), vec![0, 0, 6, 0x12]));
    assert_eq!(disk.run(&inquiry(0, 0, 0), &[], 0).0.residual, Residual::None);
}

#[test]
fn read_capacity_has_both_forms() {
    let mut disk = disk(2048);
    let short = disk.good(&cdb10(opcode::READ_CAPACITY_10, 0, 0, 0), &[], 8);
    assert_eq!(short, [0, 0, 7, 0xFF, 0, 0, 2, 0]);
    let long = disk.good(&cdb16(0x9E, 0x10, 0, 32), &[], 32);
    assert_eq!(long[..16], [0, 0, 0, 0, 0, 0, 7, 0xFF, 0, 0, 2, 0, 0, 3, 0xC0, 0]);
    let wrong = disk.check(&cdb10(opcode::READ_CAPACITY_10, 0, 1, 0), &[], 8);
    assert_eq!(wrong, (ILLEGAL, Asc::INVALID_FIELD_IN_CDB));
}

#[test]
fn unknown_commands_are_refused() {
    let mut disk = disk(8);
    assert_eq!(disk.check(&[0x5D; 10], &[], 8), (ILLEGAL, Asc::INVALID_OPCODE));
    let persistent = disk.check(&[0x5E; 10], &[], 8);
    assert_eq!(persistent, (ILLEGAL, Asc::INVALID_FIELD_IN_CDB));
    assert_eq!(disk.check(&[0xC1; 16], &[], 8), (ILLEGAL, Asc::INVALID_OPCODE));
    let action = cdb16(0x9E, 0x1F, 0, 32);
    assert_eq!(disk.check(&action, &[], 32), (ILLEGAL, Asc::INVALID_FIELD_IN_CDB));
    assert_eq!(disk.check(&[0, 0, 0, 0, 0, 4], &[], 0), (ILLEGAL, Asc::INVALID_FIELD_IN_CDB));
    assert_eq!(disk.check(&[], &[], 0), (ILLEGAL, Asc::INVALID_FIELD_IN_CDB));
}

#[test]
fn mode_sense_returns_pages_and_values() {
    let mut disk = disk(2048);
    let cache = disk.good(&[0x1A, 0, 0x08, 0, 255, 0], &[], 255);
    assert_eq!(cache[..15], [31, 0, 0x10, 8, 0, 0, 8, 0, 0, 0, 2, 0, 0x08, 18, 0x04]);
    let all = disk.good(&[0x5A, 0x08, 0x3F, 0xFF, 0, 0, 0, 4, 0, 0], &[], 1024);
    assert_eq!(all[..8], [0, 110, 0, 0x10, 0, 0, 0, 0]);
    assert_eq!((all.len(), all[8], all[20], all[36]), (112, 0x01, 0x02, 0x08));
    let changeable = disk.good(&[0x1A, 8, 0x4A, 0, 255, 0], &[], 255);
    assert_eq!(changeable[4..], [0x0A, 10, 0x04, 0, 0x08, 0, 0, 0, 0, 0, 0, 0]);
    let long = disk.good(&[0x5A, 0x10, 0x08, 0, 0, 0, 0, 1, 0, 0], &[], 256);
    assert_eq!(long[4..24], [1, 0, 0, 16, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 2, 0]);
    let saved = disk.check(&[0x1A, 0, 0xC8, 0, 255, 0], &[], 255);
    assert_eq!(saved, (ILLEGAL, Asc::SAVING_PARAMETERS_NOT_SUPPORTED));
    let unknown = disk.check(&[0x1A, 0, 0x19, 0, 255, 0], &[], 255);
    assert_eq!(unknown, (ILLEGAL, Asc::INVALID_FIELD_IN_CDB));
}

#[test]
fn mode_select_changes_and_tells_the_others() {
    let array = array(8);
    let (first, second) = (port(&array, 1), port(&array, 2));
    let (mut first, mut second) = (initiator(&first), initiator(&second));
    let mut list = vec![0, 0, 0, 0, 0x08, 18];
    list.extend([0; 18]);
    first.good(&[0x15, 0x10, 0, 0, 24, 0], &list, 0);
    assert!(!array.modes.write_cache());
    first.good(&TUR, &[], 0);
    let changed = (SenseKey::UnitAttention, Asc::MODE_PARAMETERS_CHANGED);
    assert_eq!(second.check(&TUR, &[], 0), changed);
    second.good(&TUR, &[], 0);
    // The same again changes nothing.
    first.good(&[0x15, 0x10, 0, 0, 24, 0], &list, 0);
    second.good(&TUR, &[], 0);
    // Descriptor sense, by the long form.
    let control = [0, 0, 0, 0, 0, 0, 0, 0, 0x0A, 10, 0x06, 0x10, 0, 0, 0, 0, 0xFF, 0xFF, 0, 0];
    first.good(&[0x55, 0x10, 0, 0, 0, 0, 0, 0, 20, 0], &control, 0);
    let (answer, _) = first.run(&[0x4C; 10], &[], 0);
    assert_eq!(answer.sense.unwrap().bytes(), [0x72, 5, 0x20, 0, 0, 0, 0, 0]);
}

#[test]
fn mode_select_refuses_what_cannot_be_changed() {
    let mut disk = disk(8);
    let cdb = |len| [0x15, 0x10, 0, 0, len, 0];
    let parameters = (ILLEGAL, Asc::INVALID_FIELD_IN_PARAMETER_LIST);
    let length = (ILLEGAL, Asc::PARAMETER_LIST_LENGTH_ERROR);
    let mut list = vec![0, 0, 0, 0, 0x08, 18, 0x04];
    list.extend([0; 17]);
    disk.good(&cdb(24), &list, 0);
    list[7] = 1;
    assert_eq!(disk.check(&cdb(24), &list, 0), parameters);
    assert_eq!(disk.check(&cdb(20), &list, 0), length);
    assert_eq!(disk.check(&cdb(24), &list[..10], 0), length);
    assert_eq!(disk.check(&cdb(3), &list, 0), length);
    assert_eq!(disk.check(&cdb(6), &[0, 0, 0, 0, 0x3E, 0], 0), parameters);
    assert_eq!(disk.check(&cdb(12), &[0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 16, 0], 0), parameters);
    let saved = disk.check(&[0x15, 0x11, 0, 0, 24, 0], &list, 0);
    assert_eq!(saved, (ILLEGAL, Asc::INVALID_FIELD_IN_CDB));
    disk.good(&cdb(12), &[0, 0, 0, 8, 0, 0, 0, 8, 0, 0, 2, 0], 0);
}

#[test]
fn software_write_protect_keeps_writes_out() {
    let mut disk = disk(8);
    let control = [0, 0, 0, 0, 0x0A, 10, 0x02, 0x10, 0x08, 0, 0, 0, 0xFF, 0xFF, 0, 0];
    disk.good(&[0x15, 0x10, 0, 0, 16, 0], &control, 0);
    let refused = (SenseKey::DataProtect, Asc::SOFTWARE_WRITE_PROTECTED);
    assert_eq!(disk.check(&cdb10(0x2A, 0, 0, 1), &[0; 512], 0), refused);
    assert_eq!(disk.check(&cdb10(0x42, 0, 0, 24), &[0; 24], 0), refused);
    disk.good(&cdb10(0x28, 0, 0, 1), &[], 512);
    assert_eq!(disk.good(&[0x1A, 8, 0x08, 0, 4, 0], &[], 4)[2], 0x90);
}

#[test]
fn supported_operation_codes_agree_with_dispatch() {
    let mut disk = disk(8);
    let all = disk.good(&[0xA3, 0x0C, 0, 0, 0, 0, 0, 0, 16, 0, 0, 0], &[], 4096);
    assert_eq!(all.len() - 4, u32::from_be_bytes([all[0], all[1], all[2], all[3]]) as usize);
    for row in all[4..].chunks(8) {
        let mut cdb = vec![0; usize::from(row[7])];
        (cdb[0], cdb[1]) = (row[0], if row[5] & 1 != 0 { row[3] } else { 0 });
        let (answer, _) = disk.run(&cdb, &[], 0);
        let sense = answer.sense.and_then(|sense| sense.decode());
        assert_ne!(sense, Some((ILLEGAL, Asc::INVALID_OPCODE)), "{row:02x?}");
    }
    let timeouts = disk.good(&[0xA3, 0x0C, 0x80, 0, 0, 0, 0, 0, 16, 0, 0, 0], &[], 4096);
    assert_eq!(timeouts.len() - 4, (all.len() - 4) / 8 * 20);
    let one = disk.good(&[0xA3, 0x0C, 0x81, 0x28, 0, 0, 0, 0, 1, 0, 0, 0], &[], 256);
    assert_eq!(one[..14], [0, 0x83, 0, 10, 0x28, 0x18, 255, 255, 255, 255, 0, 255, 255, 0]);
    assert_eq!(one[14..], [0, 10, 0, 0, 0, 0, 0, 1, 0, 0, 0, 30]);
    let none = disk.good(&[0xA3, 0x0C, 3, 0x4C, 0, 0, 0, 0, 1, 0, 0, 0], &[], 256);
    assert_eq!(none, [0, 1, 0, 0]);
    let by_action = disk.good(&[0xA3, 0x0C, 2, 0x9E, 0, 0x12, 0, 0, 1, 0, 0, 0], &[], 256);
    assert_eq!(by_action[..6], [0, 3, 0, 16, 0x9E, 0x12]);
    let expected = (ILLEGAL, Asc::INVALID_FIELD_IN_CDB);
    assert_eq!(disk.check(&[0xA3, 0x0C, 1, 0x9E, 0, 0, 0, 0, 1, 0, 0, 0], &[], 256), expected);
    assert_eq!(disk.check(&[0xA3, 0x0C, 2, 0x28, 0, 0, 0, 0, 1, 0, 0, 0], &[], 256), expected);
}

#[test]
fn target_port_groups_have_both_headers() {
    let array = array(8);
    let first = port(&array, 1);
    let second = Port::on(&array, 2, 2, AccessState::Standby).unwrap();
    let third = Port::on(&array, 3, 1, AccessState::ActiveOptimized).unwrap();
    let mut disk = initiator(&first);
    let groups = disk.good(&[0xA3, 0x0A, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0], &[], 256);
    let body = [
        0, 0xCF, 0, 1, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 3, //
        2, 0xCF, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2,
    ];
    assert_eq!(groups[..4], [0, 0, 0, 28]);
    assert_eq!(groups[4..], body);
    let extended = disk.good(&[0xA3, 0x2A, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0], &[], 256);
    assert_eq!(extended[..8], [0, 0, 0, 32, 0x10, 0, 0, 0]);
    assert_eq!(extended[8..], body);
    second.set_access_state(AccessState::ActiveNonOptimized);
    let changed = (SenseKey::UnitAttention, Asc::ALUA_STATE_CHANGED);
    assert_eq!(disk.check(&TUR, &[], 0), changed);
    let groups = disk.good(&[0xA3, 0x0A, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0], &[], 256);
    assert_eq!(groups[20..26], [1, 0xCF, 0, 2, 0, 2]);
    drop((second, third));
}

#[test]
fn access_states_refuse_as_the_standard_says() {
    let cases = [
        (AccessState::Standby, Asc::ALUA_STANDBY, true),
        (AccessState::Unavailable, Asc::ALUA_UNAVAILABLE, false),
        (AccessState::Offline, Asc::ALUA_OFFLINE, false),
        (AccessState::Transitioning, Asc::ALUA_TRANSITION, false),
    ];
    for (state, asc, modes) in cases {
        let port = Port::on(&array(8), 1, 1, state).unwrap();
        let mut disk = Initiator::new(port.channel().unwrap()).settle();
        let refused = (SenseKey::NotReady, asc);
        assert_eq!(disk.check(&TUR, &[], 0), refused);
        assert_eq!(disk.check(&cdb10(0x28, 0, 0, 1), &[], 512), refused);
        disk.good(&inquiry(1, 0x83, 255), &[], 255);
        disk.good(&[0xA3, 0x0A, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0], &[], 256);
        assert_eq!(disk.good(&[3, 0, 0, 0, 18, 0], &[], 18)[12..14], [asc.0, asc.1]);
        let (answer, _) = disk.run(&[0x1A, 8, 0x08, 0, 255, 0], &[], 255);
        assert_eq!(answer.status == Status::GOOD, modes, "{state}");
        port.set_access_state(AccessState::ActiveOptimized);
        let changed = (SenseKey::UnitAttention, Asc::ALUA_STATE_CHANGED);
        assert_eq!(disk.check(&TUR, &[], 0), changed);
        disk.good(&TUR, &[], 0);
    }
}

#[test]
fn a_group_has_one_state() {
    let array = array(8);
    let first = port(&array, 1);
    let error = Port::on(&array, 2, 1, AccessState::Standby).unwrap_err().to_string();
    assert!(error.contains("group=1 is active/optimized already"), "{error}");
    drop(first);
    Port::on(&array, 2, 1, AccessState::Standby).unwrap();
}

#[test]
fn reservation_belongs_to_one_port() {
    let array = array(8);
    let mut first = initiator(&port(&array, 1));
    let mut second = initiator(&port(&array, 2));
    first.good(&[0x16, 0, 0, 0, 0, 0], &[], 0);
    first.good(&cdb10(0x28, 0, 0, 1), &[], 512);
    for cdb in [&cdb10(0x28, 0, 0, 1)[..], &[0x16, 0, 0, 0, 0, 0], &TUR] {
        assert_eq!(second.run(cdb, &[], 512).0.status, Status::RESERVATION_CONFLICT);
    }
    second.good(&inquiry(0, 0, 36), &[], 36);
    second.good(&[0x17, 0, 0, 0, 0, 0], &[], 0);
    assert_eq!(second.run(&TUR, &[], 0).0.status, Status::RESERVATION_CONFLICT);
    drop(first);
    second.good(&TUR, &[], 0);
}

#[test]
fn small_reports_have_their_bytes() {
    let mut disk = disk(8);
    let luns = disk.good(&[0xA0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0], &[], 256);
    assert_eq!(luns, [0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let expected = (ILLEGAL, Asc::INVALID_FIELD_IN_CDB);
    assert_eq!(disk.check(&[0xA0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0], &[], 8), expected);
    let pages = disk.good(&[0x4D, 0, 0x40, 0, 0, 0, 0, 1, 0, 0], &[], 256);
    assert_eq!(pages, [0, 0, 0, 2, 0, 0x0D]);
    let heat = disk.good(&[0x4D, 0, 0x4D, 0, 0, 0, 0, 1, 0, 0], &[], 256);
    assert_eq!(heat[..10], [0x0D, 0, 0, 12, 0, 0, 3, 2, 0, 25]);
    assert_eq!(disk.check(&[0x4D, 0, 0x42, 0, 0, 0, 0, 1, 0, 0], &[], 256), expected);
    let tmf = disk.good(&[0xA3, 0x0D, 0x80, 0, 0, 0, 0, 0, 1, 0, 0, 0], &[], 256);
    assert_eq!((tmf.len(), tmf[0], tmf[3]), (16, 0xD8, 12));
    assert_eq!(disk.good(&cdb10(0x37, 0, 0x1D00_0000, 8), &[], 8), [0, 0x1D, 0, 0]);
    disk.good(&[0x1E, 0, 0, 0, 1, 0], &[], 0);
    disk.good(&[0x1B, 0, 0, 0, 0, 0], &[], 0);
    disk.good(&TUR, &[], 0);
    assert_eq!(disk.check(&[0x1B, 0, 0, 0, 2, 0], &[], 0), expected);
}

#[test]
fn resize_is_told_to_every_nexus() {
    let array = array(8);
    let mut nexuses = [initiator(&port(&array, 1)), initiator(&port(&array, 2))];
    array.resize(16).unwrap();
    for disk in &mut nexuses {
        let changed = (SenseKey::UnitAttention, Asc::CAPACITY_DATA_HAS_CHANGED);
        assert_eq!(disk.check(&TUR, &[], 0), changed);
        assert_eq!(disk.good(&cdb10(opcode::READ_CAPACITY_10, 0, 0, 0), &[], 8)[3], 15);
        disk.good(&cdb10(0x28, 0, 15, 1), &[], 512);
    }
    assert!(array.resize(0).is_err() && array.resize(u64::MAX).is_err());
}

#[test]
fn memory_for_the_wrong_direction_is_refused() {
    let expected = (ILLEGAL, Asc::INVALID_FIELD_IN_CDB);
    assert_eq!(disk(8).check(&cdb10(0x28, 0, 0, 1), &[0; 512], 0), expected);
    assert_eq!(disk(8).check(&cdb10(0x2A, 0, 0, 1), &[], 512), expected);
}

#[test]
fn any_cdb_is_survived() {
    let mut disk = disk(64);
    let mut random = 1_u64;
    for round in 0..20_000_u32 {
        let mut cdb = [0; 32];
        for chunk in cdb.chunks_mut(8) {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            chunk.copy_from_slice(&(random ^ random >> 29).to_be_bytes());
        }
        cdb[0] = round as u8;
        if random & 0x100 != 0 {
            // Small addresses, so that some commands come through.
            cdb[2..10].fill(0);
        }
        let cdb = Cdb::from_padded(cdb);
        let out = pattern(round as u8, random as usize % 2048);
        disk.run(cdb.bytes(), &out, (random >> 20) as usize % 2048);
    }
    assert!(matches!(disk.run(&TUR, &[], 0).0.status, Status::GOOD | Status::CHECK_CONDITION));
}
