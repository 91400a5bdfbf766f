//! Who may log in, to what, and what is told of it.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Output;

use serde_json::json;

use crate::array::Array;
use crate::scene::{SLACK, Scene, Settings, UP, path, sleep, wait_state};

const USER: &str = "guest";
const SECRET: &str = "our-own-secret-7";
const TARGET_USER: &str = "array";
const TARGET_SECRET: &str = "the-target-secret-3";
/// How long a path is watched that must not come up.
const WATCHED_MS: u64 = 3000;
/// Logins within that time at most: what fails is tried again with pauses that grow.
const LOGINS_MAX: usize = 12;

/// Both paths of the first disk for `user`, with settings of the address behind them.
fn paths(array: &Array, user: &str, settings: &str) -> [String; 2] {
    [0, 1].map(|proxy| format!("{}{settings}", array.address(proxy, user, 0)))
}

fn serves(array: Array, settings: Settings, paths: &[String; 2], what: &str) {
    let scene = Scene::of(array, settings, paths);
    sleep(500);
    scene.finish(what, SLACK, SLACK);
}

fn chap_one_way(mut array: Array) {
    array.chap((USER, SECRET), None);
    let paths = paths(&array, &format!("{USER}%{SECRET}@"), "");
    serves(array, Settings::new("chap", "", ""), &paths, "none, CHAP");
}

#[test]
fn tgtd_that_proves_itself_serves() {
    // Of tgtd alone: at LIO, libiscsi 1.19 fails with mutual CHAP by itself, its own tools too.
    let mut array = Array::tgtd();
    array.chap((USER, SECRET), Some((TARGET_USER, TARGET_SECRET)));
    let target = format!("?target_user={TARGET_USER}&target_password={TARGET_SECRET}");
    let paths = paths(&array, &format!("{USER}%{SECRET}@"), &target);
    serves(array, Settings::new("chap", "", ""), &paths, "none, mutual CHAP");
}

#[test]
fn tgtd_with_the_right_secret_serves() {
    chap_one_way(Array::tgtd());
}

#[test]
fn lio_with_the_right_secret_serves() {
    chap_one_way(Array::lio());
}

#[test]
fn lio_with_header_digests_serves() {
    let array = Array::lio();
    let paths = paths(&array, "", "?header_digest=crc32c");
    serves(array, Settings::new("digest", "", ""), &paths, "none, header digests");
}

/// What a backend and a `--check` do on `paths` that nobody can serve; both say `reason`.
fn refused(array: &Array, settings: &Settings, paths: &[String; 2], reason: &[&str]) {
    let is_told =
        |words: &str| reason.iter().any(|part| words.to_lowercase().contains(&part.to_lowercase()));
    let output = settings.check(paths);
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let last = words.lines().last().unwrap_or_default();
    assert!(is_told(last), "--check does not say {reason:?}: {words}");

    let before: usize = array.proxies.iter().map(|proxy| proxy.accepted()).sum();
    let backend = settings.backend(paths);
    let mut qmp = backend.qmp();
    sleep(WATCHED_MS);
    for proxy in &array.proxies {
        let path = path(&mut qmp, proxy.address().port());
        assert_ne!(path["state"], "up", "{path}");
        assert!(is_told(path["reason"].as_str().unwrap_or_default()), "{reason:?}: {path}");
    }
    let logins: usize = array.proxies.iter().map(|proxy| proxy.accepted()).sum();
    assert!(logins - before <= 2 * LOGINS_MAX, "{} logins", logins - before);
    assert_eq!(qmp.execute("query-lun", json!({}))["state"], "no-path");
}

fn wrong_secret(mut array: Array) {
    array.chap((USER, SECRET), None);
    let paths = paths(&array, &format!("{USER}%not-the-secret-9@"), "");
    let settings = Settings::new("chap", "", "");
    refused(&array, &settings, &paths, &["authenticat", "login", "CHAP"]);
    let output = settings.check(&paths);
    assert!(!tells(&output, "not-the-secret-9"), "{output:?}");
}

#[test]
fn tgtd_with_a_wrong_secret_is_refused() {
    wrong_secret(Array::tgtd());
}

#[test]
fn lio_with_a_wrong_secret_is_refused() {
    wrong_secret(Array::lio());
}

#[test]
fn tgtd_that_proves_itself_with_another_secret_is_refused() {
    let mut array = Array::tgtd();
    array.chap((USER, SECRET), Some((TARGET_USER, TARGET_SECRET)));
    let target = format!("?target_user={TARGET_USER}&target_password=of-somebody-else-1");
    let paths = paths(&array, &format!("{USER}%{SECRET}@"), &target);
    let settings = Settings::new("chap", "", "");
    refused(&array, &settings, &paths, &["authenticat", "login", "CHAP"]);
}

#[test]
fn tgtd_without_the_lun_is_refused() {
    let array = Array::tgtd();
    let paths = [0, 1].map(|proxy| array.address(proxy, "", 6));
    refused(&array, &Settings::new("lun", "", ""), &paths, &["LUN", "logical unit", "5/25/00"]);
}

#[test]
fn lio_without_the_lun_is_refused() {
    let array = Array::lio();
    let paths = [0, 1].map(|proxy| array.address(proxy, "", 6));
    refused(&array, &Settings::new("lun", "", ""), &paths, &["LUN", "logical unit", "5/25/00"]);
}

#[test]
fn tgtd_without_the_target_is_refused() {
    let array = Array::tgtd();
    let paths = paths(&array, "", "").map(|path| path.replace(array.iqn(), "iqn.2003-01.org.x:y"));
    refused(&array, &Settings::new("target", "", ""), &paths, &["login", "target"]);
}

/// Does a program's output have `secret` in it?
fn tells(output: &Output, secret: &str) -> bool {
    [&output.stdout, &output.stderr]
        .iter()
        .any(|text| String::from_utf8_lossy(text).contains(secret))
}

#[test]
fn secrets_in_a_file_serve_and_are_not_told() {
    let mut array = Array::tgtd();
    array.chap((USER, SECRET), Some((TARGET_USER, TARGET_SECRET)));
    let dir = crate::backend::directory();
    let file = dir.path().join("secrets");
    write_secrets(&file, &format!("{SECRET}\n{TARGET_SECRET}\n"));
    let settings = Settings::new("file", &format!("secret_file = \"{}\"", file.display()), "");
    let target = format!("?target_user={TARGET_USER}");
    let paths = paths(&array, &format!("{USER}@"), &target);

    let output = settings.check(&paths);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let backend = settings.backend(&paths);
    let mut qmp = backend.qmp();
    let mut told = Vec::new();
    for proxy in &array.proxies {
        told.push(wait_state(&mut qmp, proxy.address().port(), "up", UP).to_string());
    }
    for command in ["query-lun", "query-paths", "query-stats"] {
        told.push(qmp.execute(command, json!({})).to_string());
    }
    told.extend([backend.log().join("\n"), settings.process().1]);
    for secret in [SECRET, TARGET_SECRET] {
        assert!(!tells(&output, secret), "{output:?}");
        assert!(!told.iter().any(|text| text.contains(secret)), "{told:#?}");
    }
}

fn write_secrets(file: &Path, text: &str) {
    std::fs::write(file, text).unwrap();
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o600)).unwrap();
}

#[test]
fn secret_in_an_address_is_not_told_by_logs_and_control_socket() {
    let mut array = Array::tgtd();
    array.chap((USER, SECRET), None);
    let paths = paths(&array, &format!("{USER}%{SECRET}@"), "");
    let settings = Settings::new("address", "", "");
    let output = settings.check(&paths);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(!tells(&output, SECRET), "{output:?}");
    let backend = settings.backend(&paths);
    let mut qmp = backend.qmp();
    let up = wait_state(&mut qmp, array.proxies[0].address().port(), "up", UP).to_string();
    let log = backend.log().join("\n");
    assert!(!up.contains(SECRET) && !log.contains(SECRET), "{up}\n{log}");
}
