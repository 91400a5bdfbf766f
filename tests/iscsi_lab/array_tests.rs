//! The arrays are what the other tests take them for, as libiscsi's own tools see them.

use std::process::{Command, Output};

use crate::array::Array;

const USER: &str = "guest";
const SECRET: &str = "twelve-or-more";

fn capacity(address: &str) -> Output {
    let mut command = Command::new("timeout");
    command.args(["10", "iscsi-readcapacity16", address]);
    command.output().expect("the tool starts; tests/install iscsi installs it")
}

fn answers(address: &str) -> bool {
    let output = capacity(address);
    let words = String::from_utf8_lossy(&output.stdout).into_owned();
    output.status.success() && words.contains("Total size:16777216")
}

fn serves_goes_and_comes_back(mut array: Array) {
    assert!(array.paths().iter().all(|path| answers(path)));
    array.kill();
    assert!(!array.paths().iter().any(|path| answers(path)));
    array.restart();
    assert!(array.paths().iter().all(|path| answers(path)));
}

fn asks_for_its_secret(mut array: Array) {
    array.chap((USER, SECRET), None);
    assert!(answers(&array.address(0, &format!("{USER}%{SECRET}@"), 0)));
    assert!(!answers(&array.address(0, &format!("{USER}%another-secret@"), 0)));
    assert!(!answers(&array.address(0, "", 0)));
}

#[test]
fn tgtd_serves_goes_and_comes_back() {
    serves_goes_and_comes_back(Array::tgtd());
}

#[test]
fn lio_serves_goes_and_comes_back() {
    serves_goes_and_comes_back(Array::lio());
}

#[test]
fn tgtd_asks_for_its_secret() {
    asks_for_its_secret(Array::tgtd());
}

#[test]
fn lio_asks_for_its_secret() {
    asks_for_its_secret(Array::lio());
}
