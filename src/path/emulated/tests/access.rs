//! Access states for a while, SET TARGET PORT GROUPS, and an image that becomes longer.

use super::*;
use crate::path::emulated::{Fault, FaultKind};
use crate::scsi::alua::make_optimized;

const REPORT: [u8; 12] = [0xA3, 0x0A, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0];
const SET: [u8; 12] = [0xA4, 0x0A, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0];
const CHANGED: (SenseKey, Asc) = (SenseKey::UnitAttention, Asc::ALUA_STATE_CHANGED);

/// Two ports in a group each, the second one non-optimized.
fn two() -> ([Port; 2], [Initiator<PortChannel>; 2]) {
    let array = array(64);
    let second = Port::on(&array, 2, 2, AccessState::ActiveNonOptimized).unwrap();
    let ports = [port(&array, 1), second];
    let disks = [0, 1].map(|at: usize| initiator(&ports[at]));
    (ports, disks)
}

fn states(disk: &mut Initiator<PortChannel>) -> [(u8, u8); 2] {
    let data = disk.good(&REPORT, &[], 256);
    [(data[4], data[9]), (data[16], data[21])]
}

fn access(state: AccessState, milliseconds: Option<u64>) -> Fault {
    let time = milliseconds.map(Duration::from_millis);
    Fault::new(FaultKind::Access { state, time })
}

#[test]
fn access_fault_passes_by_itself_and_both_changes_are_told_to_every_nexus() {
    let (ports, [mut first, mut second]) = two();
    ports[0].inject(access(AccessState::Transitioning, Some(50))).unwrap();
    assert_eq!(first.check(&TUR, &[], 0), CHANGED);
    assert_eq!(first.check(&TUR, &[], 0), (SenseKey::NotReady, Asc::ALUA_TRANSITION));
    assert_eq!(second.check(&TUR, &[], 0), CHANGED);
    second.good(&TUR, &[], 0);
    std::thread::sleep(Duration::from_millis(60));
    assert_eq!(first.check(&TUR, &[], 0), CHANGED);
    first.good(&TUR, &[], 0);
    assert_eq!(second.check(&TUR, &[], 0), CHANGED);
    assert_eq!(states(&mut first), [(0, 2), (1, 0)]);
}

#[test]
fn access_fault_without_a_time_ends_when_faults_are_cleared() {
    let (ports, [mut first, _]) = two();
    ports[0].inject(access(AccessState::Standby, None)).unwrap();
    ports[0].inject(access(AccessState::Offline, None)).unwrap();
    assert_eq!(first.check(&TUR, &[], 0), CHANGED);
    assert_eq!(states(&mut first)[0].0, AccessState::Offline.code());
    ports[0].clear_faults();
    assert_eq!(first.check(&TUR, &[], 0), CHANGED);
    assert_eq!(states(&mut first)[0].0, 0, "the state before the first of them");
}

#[test]
fn set_target_port_groups_moves_the_unit_and_tells_the_others() {
    let (_ports, [mut first, mut second]) = two();
    second.good(&SET, &make_optimized(2), 0);
    second.good(&TUR, &[], 0);
    assert_eq!(first.check(&TUR, &[], 0), CHANGED);
    assert_eq!(states(&mut second), [(1, 1), (0, 1)]);
    // The same again is no change.
    second.good(&SET, &make_optimized(2), 0);
    first.good(&TUR, &[], 0);
}

#[test]
fn set_target_port_groups_refuses_what_it_cannot_do() {
    let (ports, [mut first, _]) = two();
    let refused = |asc| (ILLEGAL, asc);
    let in_list = refused(Asc::INVALID_FIELD_IN_PARAMETER_LIST);
    assert_eq!(first.check(&SET, &make_optimized(9), 0), in_list);
    let offline = [0, 0, 0, 0, 0x0E, 0, 0, 1];
    assert_eq!(first.check(&SET, &offline, 0), in_list);
    let length = refused(Asc::PARAMETER_LIST_LENGTH_ERROR);
    assert_eq!(first.check(&SET, &[0; 4], 0), length);
    ports[1].inject(access(AccessState::Transitioning, None)).unwrap();
    assert_eq!(first.check(&TUR, &[], 0), CHANGED);
    let failed = (SenseKey::HardwareError, Asc(0x67, 0x0A));
    assert_eq!(first.check(&SET, &make_optimized(1), 0), failed);
    assert_eq!(states(&mut first), [(0, 0), (0xF, 2)], "nothing was changed");
}

#[test]
fn longer_image_is_a_grown_unit_and_told_to_every_nexus() {
    let directory = tempfile::tempdir().unwrap();
    let image = directory.path().join("disk.img");
    let open = |number: u16| {
        let address = format!("emulated:{}?port={number}&size=32768", image.display());
        let crate::path::address::Address::Emulated(address) = address.parse().unwrap() else {
            panic!("another kind of address")
        };
        Port::open(&address, crate::path::emulated::OpenMode::Serve).unwrap()
    };
    let ports = [open(1), open(2)];
    let [mut first, mut second] = [0, 1].map(|at: usize| initiator(&ports[at]));
    let file = std::fs::OpenOptions::new().write(true).open(&image).unwrap();
    file.set_len(65536).unwrap();
    let grown = (SenseKey::UnitAttention, Asc::CAPACITY_DATA_HAS_CHANGED);
    for disk in [&mut first, &mut second] {
        assert_eq!(disk.check(&TUR, &[], 0), grown);
        disk.good(&TUR, &[], 0);
        assert_eq!(disk.good(&[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0], &[], 8)[..4], [0, 0, 0, 127]);
    }
    // A unit that was made smaller stays so: the image has not become longer.
    ports[0].array().resize(10).unwrap();
    assert_eq!(first.check(&TUR, &[], 0), grown);
    assert_eq!(ports[0].array().blocks(), 10);
}
