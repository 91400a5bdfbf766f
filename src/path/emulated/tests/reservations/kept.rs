//! APTPL, and what goes with the power.

use super::*;
use crate::path::address::{Address, EmulatedAddress};
use crate::path::emulated::OpenMode;
use std::fs;

fn address(folder: &tempfile::TempDir, port: u16) -> EmulatedAddress {
    let text = format!("emulated:{}/disk.img?size=1M&port={port}", folder.path().display());
    let Ok(Address::Emulated(address)) = Address::parse(&text) else { panic!("{text}") };
    address
}

fn open(folder: &tempfile::TempDir, port: u16) -> Host {
    Host(initiator_of(&Port::open(&address(folder, port), OpenMode::Serve).unwrap()))
}

/// Registers `key`, with APTPL or without.
fn register(host: &mut Host, aptpl: bool, key: u64) -> Answer {
    let parameters = Parameters { action_key: Key(key), aptpl, ..Parameters::default() };
    let command = Out::new(RegisterAndIgnoreExistingKey, None, 24);
    host.0.run(command.cdb().bytes(), &parameters.bytes(), 0).0
}

fn is_active(host: &mut Host) -> bool {
    Capabilities::parse(&host.ask(InAction::ReportCapabilities)).unwrap().persist_active
}

#[test]
fn aptpl_keeps_registrations_and_reservation_with_the_image() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("disk.img.reservations");
    let (mut a, mut b) = (open(&folder, 1), open(&folder, 2));
    assert_eq!(register(&mut a, false, 1).status, GOOD);
    assert!(!file.exists() && !is_active(&mut a));
    assert_eq!(register(&mut b, true, 2).status, GOOD);
    assert_eq!(b.out(Reserve, ExclusiveAccess, 2, 0), GOOD);
    assert!(file.exists() && is_active(&mut a));
    let before = a.full_status();
    assert_eq!(before.generation, 2);
    drop((a, b));
    let (mut a, mut b) = (open(&folder, 1), open(&folder, 2));
    assert_eq!(a.full_status(), FullStatus { generation: 0, ..before });
    assert!(is_active(&mut b));
    assert_eq!(a.0.run(&cdb10(0x28, 0, 0, 1), &[], 512).0.status, CONFLICT);
    assert_eq!(b.out(Clear, None, 2, 0), GOOD);
    assert!(!file.exists(), "there is nothing to keep");
}

#[test]
fn the_last_register_says_whether_it_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("disk.img.reservations");
    let (mut a, mut b) = (open(&folder, 1), open(&folder, 2));
    assert_eq!(register(&mut a, true, 1).status, GOOD);
    assert!(file.exists());
    assert_eq!(register(&mut b, false, 2).status, GOOD);
    assert!(!file.exists() && !is_active(&mut a));
    drop((a, b));
    assert_eq!(open(&folder, 1).keys(), NO_KEYS);
}

#[test]
fn reservations_that_cannot_be_read_are_not_taken_for_none() {
    let folder = tempfile::tempdir().unwrap();
    let mut a = open(&folder, 1);
    assert_eq!(register(&mut a, true, 1).status, GOOD);
    drop(a);
    let file = folder.path().join("disk.img.reservations");
    let whole = fs::read(&file).unwrap();
    let twice = FullStatus {
        registrants: [(); 2].map(|()| FullStatus::parse(&whole).unwrap().registrants).concat(),
        ..FullStatus::default()
    };
    for wrong in [&b"rubbish"[..], &whole[..whole.len() - 1], &[0; 8], &twice.bytes()] {
        fs::write(&file, wrong).unwrap();
        let error = Port::open(&address(&folder, 1), OpenMode::Serve).unwrap_err().to_string();
        assert!(error.contains("disk.img.reservations holds no reservations"), "{error}");
    }
    fs::write(&file, whole).unwrap();
    assert_eq!(open(&folder, 1).keys(), [1]);
}

#[test]
fn what_cannot_be_kept_is_not_promised() {
    let folder = tempfile::tempdir().unwrap();
    let mut a = open(&folder, 1);
    // A folder in the draft's place: it cannot be written.
    fs::create_dir(folder.path().join("disk.img.reservations.new")).unwrap();
    let sense = register(&mut a, true, 1).sense.and_then(|sense| sense.decode());
    assert_eq!(sense, Some((SenseKey::HardwareError, Asc::INTERNAL_TARGET_FAILURE)));
    assert_eq!((a.keys(), a.generation()), (vec![], 0), "nothing was done");
    assert_eq!(register(&mut a, false, 1).status, GOOD);
}

#[test]
fn check_keeps_nothing_and_refuses_aptpl() {
    let folder = tempfile::tempdir().unwrap();
    let mut served = open(&folder, 1);
    let looked = Port::open(&address(&folder, 1), OpenMode::Check).unwrap();
    let mut looked = Host(initiator_of(&looked));
    assert_eq!(register(&mut served, true, 1).status, GOOD);
    assert_eq!(looked.keys(), NO_KEYS, "it is another unit");
    let sense = register(&mut looked, true, 1).sense.and_then(|sense| sense.decode());
    assert_eq!(sense, Some(IN_LIST));
    let capabilities = Capabilities::parse(&looked.ask(InAction::ReportCapabilities)).unwrap();
    assert!(!capabilities.persist && !capabilities.persist_active);
}

#[test]
fn power_takes_what_is_not_kept() {
    let power_on = vec![Asc::POWER_ON_OR_RESET];
    for aptpl in [false, true] {
        let (array, mut a, mut b, mut c) = three();
        assert_eq!(register(&mut c, aptpl, 3).status, GOOD);
        assert_eq!(c.out(Reserve, WriteExclusiveAllRegistrants, 3, 0), GOOD);
        array.power_cycle();
        assert_eq!((a.told(), b.told()), (power_on.clone(), power_on.clone()));
        assert_eq!((c.told(), c.generation()), (power_on.clone(), 0));
        let kept = aptpl.then_some((0, WriteExclusiveAllRegistrants));
        assert_eq!((a.held(), a.keys().len()), (kept, usize::from(aptpl)));
    }
}
