//! The files that a package installs, held against the tools that read them.

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// What `systemd-analyze security` may say of the service at most, in tenths: it goes from 0, safe,
/// to 100.
const EXPOSURE_MAX: &str = "20";

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
    let units = installed();
    let unit = units.path().join("vhost-user-scsi-mpath@.service");
    let threshold = format!("--threshold={EXPOSURE_MAX}");
    let security = ["security", "--offline=true", "--no-pager", &threshold, unit.to_str().unwrap()];
    let Some(output) = systemd_analyze(&security, units.path()) else { return };
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("Overall exposure level"), "{said}");
    assert!(output.status.success(), "{said}");
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
