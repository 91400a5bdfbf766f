//! The files that a package installs, held against the tools that read them.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use vhost_user_scsi_mpath::confine::Class;

/// What `systemd-analyze security` may say of the service at most, with these drop-ins, in tenths: it
/// goes from 0, safe, to 100. docs/systemd.md tells the same.
const EXPOSURE_MAX: [(&[&str], &str); 3] = [
    (&[], "12"),
    (&["host-devices.conf"], "14"),
    (&["host-devices.conf", "host-devices-rawio.conf"], "19"),
];

fn packaging() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging")
}

/// `None` where systemd is not installed, which tests/run sees to.
fn systemd_analyze(arguments: &[&str], units: &Path) -> Option<Output> {
    let mut command = Command::new("systemd-analyze");
    command.args(arguments).env("SYSTEMD_UNIT_PATH", format!("{}:", units.display()));
    match command.output() {
        Ok(output) => Some(output),
        Err(error) => {
            let why = format!("systemd-analyze: {error}; tests/install service installs it");
            assert!(std::env::var_os("TESTS_RUN").is_none(), "{why}");
            let _ = writeln!(std::io::stderr(), "skipped: {why}");
            None
        }
    }
}

/// The units as a package has them, but with the programs where they were built.
fn installed() -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    for kind in ["service", "socket"] {
        let name = format!("vhost-user-scsi-mpath@.{kind}");
        let unit = fs::read_to_string(packaging().join("systemd").join(&name))
            .expect("the units can be copied");
        let unit = unit
            .replace("/usr/bin/vhost-user-scsi-mpath", env!("CARGO_BIN_EXE_vhost-user-scsi-mpath"))
            .replace("/usr/bin/mpathctl", env!("CARGO_BIN_EXE_mpathctl"));
        // The manual pages are not installed here, and that is all it would say.
        let unit: String = unit
            .lines()
            .filter(|line| !line.starts_with("Documentation="))
            .map(|line| format!("{line}\n"))
            .collect();
        fs::write(directory.path().join(&name), unit).expect("the units can be copied");
        symlink(&name, directory.path().join(name.replace('@', "@lun0")))
            .expect("the units can be copied");
    }
    directory
}

#[test]
fn units_are_what_systemd_reads() {
    let units = installed();
    for kind in ["service", "socket"] {
        let unit = units.path().join(format!("vhost-user-scsi-mpath@lun0.{kind}"));
        let verify = ["verify", "--recursive-errors=no", unit.to_str().unwrap()];
        let Some(output) = systemd_analyze(&verify, units.path()) else { return };
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.trim().is_empty(), "{said}");
    }
    // An error is found, or all of this says nothing.
    let unit = units.path().join("vhost-user-scsi-mpath@.service");
    let text = fs::read_to_string(&unit).unwrap().replace("Type=notify", "Tipe=notify");
    fs::write(&unit, text).unwrap();
    let unit = units.path().join("vhost-user-scsi-mpath@lun0.service");
    let verify = ["verify", "--recursive-errors=no", unit.to_str().unwrap()];
    let Some(output) = systemd_analyze(&verify, units.path()) else { return };
    assert!(String::from_utf8_lossy(&output.stderr).contains("Tipe"));
}

#[test]
fn service_is_confined() {
    for (drop_ins, threshold) in EXPOSURE_MAX {
        let units = installed();
        let folder = units.path().join("vhost-user-scsi-mpath@.service.d");
        fs::create_dir(&folder).unwrap();
        for drop_in in drop_ins {
            fs::copy(packaging().join("systemd").join(drop_in), folder.join(drop_in)).unwrap();
        }
        let unit = units.path().join("vhost-user-scsi-mpath@.service");
        let threshold = format!("--threshold={threshold}");
        let unit = unit.to_str().unwrap();
        let security = ["security", "--offline=true", "--no-pager", &threshold, unit];
        let Some(output) = systemd_analyze(&security, units.path()) else { return };
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.contains("Overall exposure level"), "{said}");
        assert!(output.status.success(), "{drop_ins:?}: {said}");
    }
}

/// The names of a system call filter's group, with those of the groups in it.
fn group(name: &str, units: &Path) -> Option<BTreeSet<String>> {
    let output = systemd_analyze(&["syscall-filter", "--no-pager", name], units)?;
    let text = String::from_utf8(output.stdout).expect("it is text");
    let mut names = BTreeSet::new();
    for word in text.lines().skip(1).map(str::trim).filter(|word| !word.starts_with('#')) {
        match word.starts_with('@') {
            true => names.extend(group(word, units)?),
            false => _ = names.insert(word.to_owned()),
        }
    }
    Some(names)
}

/// The service's filter lets through whatever the program's own let through, or a rare branch would
/// end it as a service only.
#[test]
fn service_may_make_the_calls_that_its_threads_may() {
    let units = installed();
    let unit = fs::read_to_string(units.path().join("vhost-user-scsi-mpath@.service")).unwrap();
    let mut allowed = BTreeSet::new();
    for line in unit.lines().filter_map(|line| line.strip_prefix("SystemCallFilter=")) {
        let (takes, words) = match line.strip_prefix('~') {
            Some(words) => (true, words),
            None => (false, line),
        };
        for word in words.split_whitespace() {
            let names = match word.starts_with('@') {
                true => match group(word, units.path()) {
                    Some(names) => names,
                    None => return,
                },
                false => BTreeSet::from([word.to_owned()]),
            };
            match takes {
                true => allowed.retain(|name| !names.contains(name)),
                false => allowed.extend(names),
            }
        }
    }
    assert!(allowed.len() > 100 && !allowed.contains("mount"), "{allowed:?}");
    let names: Vec<&str> = Class::ALL
        .iter()
        .flat_map(|class| class.names())
        .filter(|name| !allowed.contains(*name))
        .collect();
    assert!(names.is_empty(), "the unit's SystemCallFilter= lacks {names:?}");
}

/// QEMU's docs/interop/vhost-user.json, VhostUserBackend.
#[test]
fn descriptor_for_qemu_tells_what_the_program_tells() {
    let file = packaging().join("qemu/50-vhost-user-scsi-mpath.json");
    let descriptor: Value = serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap();
    let keys: Vec<&String> = descriptor.as_object().unwrap().keys().collect();
    let known = ["binary", "description", "tags", "type"];
    assert!(keys.iter().all(|key| known.contains(&key.as_str())), "{keys:?}");
    assert!(descriptor["description"].is_string());
    assert_eq!(descriptor["binary"], "/usr/bin/vhost-user-scsi-mpath");
    let mut program = Command::new(env!("CARGO_BIN_EXE_vhost-user-scsi-mpath"));
    let output = program.arg("--print-capabilities").output().unwrap();
    let capabilities: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(descriptor["type"], capabilities["type"]);
}
