//! Opening images: lock, name, size, and looking without touching.

use super::*;
use crate::path::address::{Address, EmulatedAddress};
use crate::path::emulated::OpenMode;
use std::fs;

fn address(folder: &tempfile::TempDir, query: &str) -> EmulatedAddress {
    let text = format!("emulated:{}/disk.img?{query}", folder.path().display());
    match Address::parse(&text) {
        Ok(Address::Emulated(address)) => address,
        other => panic!("{other:?}"),
    }
}

fn open(address: &EmulatedAddress) -> Result<Port, String> {
    Port::open(address, OpenMode::Serve).map_err(|error| error.to_string())
}

fn files(folder: &tempfile::TempDir) -> Vec<String> {
    let entries = fs::read_dir(folder.path()).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn open_makes_the_image_where_the_size_is_known() {
    let folder = tempfile::tempdir().unwrap();
    let error = open(&address(&folder, "")).unwrap_err();
    assert!(error.contains("disk.img does not exist; give size="), "{error}");
    assert!(files(&folder).is_empty());
    let port = open(&address(&folder, "size=1M")).unwrap();
    assert_eq!(port.array().blocks(), 2048);
    assert_eq!(files(&folder), ["disk.img", "disk.img.wwid"]);
    drop(port);
    let error = open(&address(&folder, "size=2M")).unwrap_err();
    assert!(error.contains("has 1048576 bytes, size=2097152"), "{error}");
    open(&address(&folder, "")).unwrap();
}

#[test]
fn ports_of_an_image_share_one_unit_and_keep_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let first = open(&address(&folder, "port=1&size=1M")).unwrap();
    let second = open(&address(&folder, "port=2")).unwrap();
    assert!(Arc::ptr_eq(first.array(), second.array()));
    let name = first.array().wwid();
    let stored = fs::read_to_string(folder.path().join("disk.img.wwid")).unwrap();
    assert_eq!(stored, format!("{name}\n"));
    let error = open(&address(&folder, "port=3&block=4096")).unwrap_err();
    assert!(error.contains("block=4096, but another port has it open with 512"), "{error}");
    drop((first, second));
    assert_eq!(open(&address(&folder, "")).unwrap().array().wwid(), name);
    let other = "wwid=naa.600140505200a986f0043c9afa1fd077";
    let error = open(&address(&folder, other)).unwrap_err();
    assert!(error.contains(&name.to_string()) && error.contains("600140505200a986"), "{error}");
    fs::write(folder.path().join("disk.img.wwid"), "rubbish").unwrap();
    let error = open(&address(&folder, "")).unwrap_err();
    assert!(error.contains("holds no name of a unit: \"rubbish\""), "{error}");
}

#[test]
fn open_takes_the_name_it_is_given() {
    let folder = tempfile::tempdir().unwrap();
    let wanted = "wwid=naa.600140505200a986f0043c9afa1fd077&size=1M";
    let port = open(&address(&folder, wanted)).unwrap();
    assert_eq!(port.array().wwid().to_string(), "naa.600140505200a986f0043c9afa1fd077");
}

#[test]
fn a_locked_image_is_refused_with_the_holders_name() {
    let folder = tempfile::tempdir().unwrap();
    drop(open(&address(&folder, "size=1M")).unwrap());
    let path = folder.path().join("disk.img");
    let mut child = std::process::Command::new("flock")
        .arg("-x")
        .arg(path)
        .args(["sleep", "30"])
        .spawn()
        .expect("flock is part of util-linux");
    let deadline = Instant::now() + Duration::from_secs(10);
    let error = loop {
        match open(&address(&folder, "")) {
            Err(error) => break error,
            Ok(port) => drop(port),
        }
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(10));
    };
    assert!(error.contains("disk.img is in use by flock (process"), "{error}");
    // Looking needs no lock.
    Port::open(&address(&folder, ""), OpenMode::Check).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn check_writes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let absent = address(&folder, "size=1M");
    let first = Port::open(&absent, OpenMode::Check).unwrap();
    let second = Port::open(&absent, OpenMode::Check).unwrap();
    assert!(Arc::ptr_eq(first.array(), second.array()));
    assert_eq!(first.array().blocks(), 2048);
    drop((first, second));
    assert!(files(&folder).is_empty());
    // Beside a backend that runs.
    let served = open(&absent).unwrap();
    let looked = Port::open(&absent, OpenMode::Check).unwrap();
    assert!(!Arc::ptr_eq(served.array(), looked.array()));
    assert_eq!(served.array().wwid(), looked.array().wwid());
    let mut disk = initiator(&looked);
    let refused = (SenseKey::DataProtect, Asc::WRITE_PROTECTED);
    assert_eq!(disk.check(&cdb10(0x2A, 0, 0, 1), &[1; 512], 0), refused);
    disk.good(&cdb10(0x28, 0, 0, 1), &[], 512);
}

/// A folder whose files are on a disk and can be read past the page cache, if the host has one.
fn direct_folder() -> Option<tempfile::TempDir> {
    let folder = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    let file = engines::disk_file(4096)?;
    engines::direct(file).map(|_| folder)
}

#[test]
fn cache_none_is_past_the_page_cache_and_all_ports_of_an_image_say_so() {
    let Some(folder) = direct_folder() else { return };
    let first = open(&address(&folder, "port=1&size=1M&cache=none")).unwrap();
    let second = open(&address(&folder, "port=2&cache=none")).unwrap();
    assert!(Arc::ptr_eq(first.array(), second.array()));
    assert!(second.engine().ends_with("O_DIRECT"));
    let error = open(&address(&folder, "port=3")).unwrap_err();
    let both = "disk.img: cache=writeback, but another port has it open with none";
    assert!(error.contains(both), "{error}");
    let looked = Port::open(&address(&folder, "cache=none"), OpenMode::Check).unwrap();
    initiator(&looked).good(&cdb10(0x28, 0, 0, 1), &[], 512);
    drop((first, second, looked));
    let first = open(&address(&folder, "")).unwrap();
    assert!(!first.engine().ends_with("O_DIRECT"));
    let error = open(&address(&folder, "port=2&cache=none")).unwrap_err();
    assert!(error.contains("cache=none, but another port has it open with writeback"), "{error}");
}

#[test]
fn cache_none_of_an_image_in_memory_is_refused() {
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let error = open(&address(&folder, "size=1M&cache=none")).unwrap_err();
    let why = "disk.img: cache=none (O_DIRECT) is not possible: it is in memory";
    assert!(error.contains(why), "{error}");
    // What is not there is only looked at.
    let absent = tempfile::tempdir().unwrap();
    let look = |settings| Port::open(&address(&absent, settings), OpenMode::Check);
    let _one = look("size=1M&cache=none").unwrap();
    let _other = look("size=1M&cache=none&port=2").unwrap();
    let error = look("size=1M&port=3").unwrap_err().to_string();
    assert!(error.contains("cache=writeback") && error.contains("none"), "{error}");
    open(&address(&folder, "size=1M")).unwrap();
}

#[test]
fn null_answers_like_a_disk_of_zeroes() {
    use crate::path::address::NullAddress;
    use crate::path::null::NullPath;
    let path = NullPath::open(&NullAddress { size: 1 << 40 }).unwrap();
    let mut disk = Initiator::new(path.channel().unwrap()).settle();
    disk.good(&cdb16(0x8A, 0x08, 1 << 30, 8), &pattern(1, 4096), 0);
    assert_eq!(disk.good(&cdb16(0x88, 0, 1 << 30, 8), &[], 4096), [0; 4096]);
    disk.good(&cdb10(0x35, 0, 0, 0), &[], 0);
    let other = NullPath::open(&NullAddress { size: 1 << 40 }).unwrap();
    assert_eq!(path.array().wwid(), other.array().wwid());
    assert_eq!((&*path.engine(), path.events()), ("none", vec![]));
}
