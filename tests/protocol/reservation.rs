//! What is remembered of a guest's reservations, over restarts and in the wrong hands.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::backend::{Backend, Setup, directory};
use crate::initiator::read;
use crate::persistent::register;
use crate::qmp::Qmp;

const WWID: &str = "naa.60256480e00b05ea714471a5b92535ac";

/// A backend called `identity` on an image of its own with the same name as all others here, which
/// keeps its state in `state`.
fn keeping(state: &Path, image: &Path, identity: &str) -> Backend {
    let setting = format!("state_dir = \"{}\"\nidentity = \"{identity}\"", state.display());
    let address = format!("emulated:{}?port=1&size=64M&wwid={WWID}", image.display());
    Setup::ports(0).backend(&setting).option("--path", &address).start()
}

/// `query-reservation`, once the state has been read.
fn reservation(qmp: &mut Qmp) -> Value {
    let report = qmp.execute("query-reservation", json!({}));
    if report["state"] != "opening" {
        return report;
    }
    let read = qmp.event("RESERVATION_CHANGED", Duration::from_secs(30), |_| true);
    assert!(read.is_some(), "the state is not read");
    qmp.execute("query-reservation", json!({}))
}

fn exported(wwid: &str, key: &str) -> Value {
    let kind = "write-exclusive-registrants-only";
    let reservation = json!({"type": kind, "holder": "disk.img:1"});
    let kept = json!({
        "key": key,
        "aptpl": true,
        "generation": 9,
        "array-generation": 12,
        "reservation": reservation,
    });
    json!({"version": 1, "wwid": wwid, "kept": kept})
}

#[test]
fn import_of_what_does_not_belong_here_is_refused() {
    let (state, image) = (directory(), directory());
    let image = image.path().join("disk.img");
    let backend = keeping(state.path(), &image, "a");
    let mut qmp = backend.qmp();
    let report = reservation(&mut qmp);
    assert_eq!((&report["state"], &report["reason"]), (&json!("kept"), &json!("")), "{report}");
    assert_eq!((&report["key"], &report["wwid"]), (&Value::Null, &json!(WWID)), "{report}");
    let mut guest = backend.guest(1);
    guest.queue().settle();
    guest.queue().good(&register(0, 0xABC));
    let standing = qmp.execute("reservation-export", json!({}));
    let wrong = json!({"reservation": exported("naa.1", "0xabc")});
    let error = qmp.try_execute("reservation-import", wrong).unwrap_err();
    assert!(error.contains("it is about the logical unit naa.1"), "{error}");
    let other = json!({"reservation": exported(WWID, "0xdef")});
    let error = qmp.try_execute("reservation-import", other).unwrap_err();
    assert!(error.contains("with another key"), "{error}");
    assert_eq!(qmp.execute("reservation-export", json!({})), standing);
}

#[test]
fn import_of_a_key_that_the_array_does_not_know_is_told_and_forgotten() {
    let (state, image) = (directory(), directory());
    let image = image.path().join("disk.img");
    let backend = keeping(state.path(), &image, "a");
    let mut qmp = backend.qmp();
    reservation(&mut qmp);
    qmp.forget_events();
    qmp.execute("reservation-import", json!({"reservation": exported(WWID, "0xabc")}));
    let patience = Instant::now() + Duration::from_secs(30);
    while qmp.execute("query-reservation", json!({}))["key"] != Value::Null {
        let told = qmp.event("RESERVATION_CHANGED", Duration::from_secs(30), |_| true);
        assert!(told.is_some() && Instant::now() < patience);
    }
    let said = |line: &String| line.contains("LUN: the guest's reservation key 0xabc is gone");
    while !backend.log().iter().any(said) {
        assert!(Instant::now() < patience, "{:?}", backend.log());
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The only file of `state` that is a state.
fn file_of(state: &Path) -> PathBuf {
    let files = fs::read_dir(state).expect("it is there").map(|entry| entry.expect("it is read"));
    let mut states = files.map(|entry| entry.path());
    let is_state = |path: &PathBuf| path.extension().is_some_and(|end| end == "toml");
    states.find(is_state).expect("there is a state")
}

#[test]
fn state_that_is_damaged_is_named_and_the_guest_is_served() {
    let (state, image) = (directory(), directory());
    let image = image.path().join("disk.img");
    let backend = keeping(state.path(), &image, "a");
    let mut qmp = backend.qmp();
    reservation(&mut qmp);
    qmp.execute("reservation-import", json!({"reservation": exported(WWID, "0xabc")}));
    drop(backend);
    let file = file_of(state.path());
    let whole = fs::read(&file).expect("it is read");
    fs::write(&file, &whole[..whole.len() / 2]).expect("it is written");

    let backend = keeping(state.path(), &image, "a");
    let report = reservation(&mut backend.qmp());
    assert_eq!(report["state"], "unavailable", "{report}");
    let reason = report["reason"].as_str().expect("there is a reason");
    assert!(reason.starts_with(file.to_str().expect("text")), "{reason}");
    assert!(reason.contains("it is damaged"), "{reason}");
    let line = format!("LUN: reservations are refused: {reason}");
    assert!(backend.log().iter().any(|logged| logged.contains(&line)), "{:?}", backend.log());
    // The guest has its disk all the same.
    let mut guest = backend.guest(1);
    guest.queue().settle();
    guest.queue().good(&read(0, 1));
    drop(guest);
    drop(backend);
    assert_eq!(fs::read(&file).expect("it is read").len(), whole.len() / 2, "nothing is lost");
}

#[test]
fn state_has_one_backend_at_a_time() {
    let (state, images) = (directory(), directory());
    let first = keeping(state.path(), &images.path().join("one.img"), "a");
    let mut qmp = first.qmp();
    assert_eq!(reservation(&mut qmp)["state"], "kept");
    let second = keeping(state.path(), &images.path().join("two.img"), "a");
    let report = reservation(&mut second.qmp());
    assert_eq!(report["state"], "unavailable", "{report}");
    let reason = report["reason"].as_str().expect("there is a reason");
    assert!(reason.contains("has this file in use"), "{reason}");
    // Another one may share the directory.
    let third = keeping(state.path(), &images.path().join("three.img"), "b");
    assert_eq!(reservation(&mut third.qmp())["state"], "kept");
    let error = second.qmp().try_execute("reservation-export", json!({})).unwrap_err();
    assert!(error.starts_with("nothing can be exported: "), "{error}");
}

#[test]
fn without_a_place_nothing_is_kept_and_that_is_told() {
    let backend = Setup::ports(1).start();
    let report = backend.qmp().execute("query-reservation", json!({}));
    assert_eq!(report["state"], "none", "{report}");
    assert!(report["reason"].as_str().expect("a reason").contains("state_dir"), "{report}");
}
