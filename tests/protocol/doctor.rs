//! What `mpathctl` makes of what a running backend says of itself: `doctor` and `libvirt-xml`.

use std::process::{Command, Output};

use serde_json::Value;

use crate::backend::{Backend, Setup, directory};

fn mpathctl(backend: &Backend, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mpathctl"));
    command.arg("-s").arg(backend.control_socket()).args(arguments);
    command.output().expect("mpathctl can be started")
}

/// The state of one check, and the exit code of all.
fn checked(backend: &Backend, check: &str) -> (String, Option<i32>) {
    let output = mpathctl(backend, &["doctor", "--json"]);
    let document: Value = serde_json::from_slice(&output.stdout).expect("findings are JSON");
    let findings = document["findings"].as_array().expect("there are findings");
    let finding = findings.iter().find(|finding| finding["check"] == check);
    let finding = finding.unwrap_or_else(|| panic!("{check} is not in {document}"));
    (finding["state"].as_str().expect("a finding has a state").to_owned(), output.status.code())
}

#[test]
fn doctor_tells_a_backend_that_keeps_state_from_one_that_does_not() {
    let without = Setup::ports(2).start();
    assert_eq!(checked(&without, "control-socket").0, "ok");
    assert_eq!(checked(&without, "state"), ("change".to_owned(), Some(1)));
    let text = mpathctl(&without, &["doctor"]).stdout;
    let text = String::from_utf8(text).expect("findings are text");
    assert!(
        text.contains("change  control: state: persistent reservations are refused: "),
        "{text}"
    );
    assert!(text.contains("\n        mend: state_dir = "), "{text}");

    let place = directory();
    let setting = format!("state_dir = \"{}\"", place.path().display());
    let with = Setup::ports(2).backend(&setting).start();
    assert_eq!(checked(&with, "state").0, "ok");
    let place = directory();
    let service = place.path().to_str().expect("it is text");
    let service = Setup::ports(2).variable("STATE_DIRECTORY", service).start();
    assert_eq!(checked(&service, "state").0, "ok");
}

#[test]
fn libvirt_xml_names_the_backends_own_socket() {
    let backend = Setup::ports(2).start();
    let output = mpathctl(&backend, &["libvirt-xml"]);
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    let text = String::from_utf8(output.stdout).expect("XML is text");
    let socket = backend.socket();
    assert!(text.contains(&format!("path={},reconnect-ms=1000", socket.display())), "{text}");
    let output = mpathctl(&backend, &["libvirt-xml", "--queues", "65"]);
    assert_eq!(output.status.code(), Some(1), "more than request_queues");
}
