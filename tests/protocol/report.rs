//! What is kept and written down for who comes after something went wrong: the history, and the
//! report of `mpathctl report`.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::backend::{Backend, Setup, path_name};

fn report(backend: &Backend, arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mpathctl"));
    command.arg("-s").arg(backend.control_socket()).arg("report").args(arguments);
    let output = command.output().expect("mpathctl can be started");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("a report is text")
}

/// Asks again and again until `seen`.
fn history(backend: &Backend, what: &str, seen: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let history = backend.qmp().execute("query-history", json!({}));
        if seen(&history) {
            return history;
        }
        assert!(Instant::now() < deadline, "no {what} in {history}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn history_is_there_for_who_comes_later() {
    let backend = Setup::ports(2).start();
    let mut qmp = backend.qmp();
    let name = path_name(&mut qmp, 2);
    qmp.execute("path-fail", json!({"name": name}));
    let history = history(&backend, "point of the failed path", |history| {
        history["paths"][1]["state"]
            .as_array()
            .is_some_and(|states| states.contains(&json!("disabled")))
    });
    let length = history["times"].as_array().map(Vec::len);
    for list in [&history["lun"]["state"], &history["lun"]["queued"], &history["paths"][0]["bytes"]]
    {
        assert_eq!(list.as_array().map(Vec::len), length, "{history}");
    }
    let events = history["events"].as_array().expect("a list");
    let change = |event: &&Value| event["data"]["to"] == "disabled";
    let event = events.iter().find(change).expect("the path's change of state");
    assert_eq!(
        (&event["event"], &event["data"]["name"]),
        (&json!("PATH_STATE_CHANGED"), &json!(name))
    );
    assert!(event["timestamp"]["seconds"].as_u64() > Some(1_500_000_000), "{event}");
    let settings = qmp.execute("query-settings", json!({}));
    assert_eq!((&settings["path-timeout"], &settings["hedge-budget"]), (&json!(5.0), &Value::Null));
}

#[cfg(feature = "iscsi")]
#[test]
fn report_holds_no_secret() {
    let address = "iscsi://joe%geheim@127.0.0.1:1/iqn.2003-01.org.example:array/0";
    let backend = Setup::ports(1).option("--path", address).start();
    history(&backend, "failed path", |history| {
        history["paths"][1]["state"]
            .as_array()
            .is_some_and(|states| states.contains(&json!("failed")))
    });
    for arguments in [&["-o", "-"][..], &["--json"]] {
        let report = report(&backend, arguments);
        assert!(report.contains("iqn.2003-01.org.example:array"), "{report}");
        assert!(!report.contains("geheim"), "{report}");
    }
}
