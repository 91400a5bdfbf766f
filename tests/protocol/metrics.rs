//! Metrics of a running backend, read by the tools that monitoring systems are made of: promtool,
//! which also finds fault with names, and the reference parser of OpenMetrics.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::json;

use crate::backend::{Backend, Setup, directory, path_name};
use crate::initiator::{pattern, read, write};

/// Reads standard input with the reference parser; prints a line for each sample.
const PARSER: &str = "
import sys
from prometheus_client.openmetrics.parser import text_string_to_metric_families as families
for family in families(sys.stdin.read()):
    for sample in family.samples:
        print(family.type, sample.name, sorted(sample.labels.items()), float(sample.value))
";

/// A guest that reads and writes over two paths, of which one is taken out of use then.
fn scene(setup: Setup) -> Backend {
    let backend = setup.start();
    let mut device = backend.guest(1);
    let queue = device.queue();
    queue.settle();
    for lba in 0..8 {
        queue.good(&write(lba * 8, pattern(7, 8)));
        queue.good(&read(lba * 8, 8));
    }
    let mut qmp = backend.qmp();
    let name = path_name(&mut qmp, 2);
    qmp.execute("path-fail", json!({"name": name}));
    backend
}

fn mpathctl(backend: &Backend, arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mpathctl"));
    command.arg("-s").arg(backend.control_socket()).args(arguments);
    let output = command.output().expect("mpathctl can be started");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("metrics are text")
}

/// Runs a tool on `input`. `None` where it is not installed, which tests/run sees to.
fn tool(program: &str, arguments: &[&str], input: &str) -> Option<Output> {
    if !Path::new(program).exists() {
        let why = format!("{program} is not there; tests/install metrics installs it");
        assert!(std::env::var_os("TESTS_RUN").is_none(), "{why}");
        let _ = writeln!(std::io::stderr(), "skipped: {why}");
        return None;
    }
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the tool can be started");
    let mut stdin = child.stdin.take().expect("stdin is a pipe");
    let input = input.to_owned();
    // It may write while it reads.
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().expect("the tool ends");
    writer.join().expect("the writer does not fail").expect("the tool reads all of it");
    Some(output)
}

fn promtool(text: &str) {
    let Some(output) = tool("/usr/bin/promtool", &["check", "metrics"], text) else { return };
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "promtool: {said}");
}

fn openmetrics(text: &str) -> Option<String> {
    let output = tool("/usr/bin/python3", &["-c", PARSER], text)?;
    let said = String::from_utf8_lossy(&output.stderr);
    if said.contains("No module named 'prometheus_client'") {
        let why = "python3-prometheus-client is not there; tests/install metrics installs it";
        assert!(std::env::var_os("TESTS_RUN").is_none(), "{why}");
        let _ = writeln!(std::io::stderr(), "skipped: {why}");
        return None;
    }
    assert!(output.status.success(), "the OpenMetrics parser: {said}");
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn get(socket: &Path, target: &str, accept: &str) -> (String, String) {
    let mut stream = UnixStream::connect(socket).expect("somebody serves metrics");
    let request = format!("GET {target} HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("a request is taken");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer comes");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a header and a body");
    (head.to_owned(), body.to_owned())
}

#[test]
fn metrics_are_what_the_tools_of_monitoring_systems_read() {
    let backend = scene(Setup::ports(2));
    promtool(&mpathctl(&backend, &["metrics", "--format", "prometheus"]));
    let Some(samples) = openmetrics(&mpathctl(&backend, &["metrics"])) else { return };
    let has = |what: &[&str]| {
        let found = samples.lines().any(|line| what.iter().all(|part| line.contains(part)));
        assert!(found, "{what:?} is not in\n{samples}");
    };
    has(&["counter mpath_lun_commands_total", "('kind', 'write')", "] 8.0"]);
    has(&["counter mpath_lun_written_bytes_total", "] 32768.0"]);
    has(&["gauge mpath_path_state", "('state', 'disabled')", "] 1.0"]);
    has(&["histogram mpath_path_latency_seconds_bucket", "('le', '+Inf')"]);
    has(&["gauge mpath_lun_size_bytes", "] 67108864.0"]);
}

#[test]
fn metrics_are_served_where_the_configuration_says() {
    let directory = directory();
    let socket = directory.path().join("metrics");
    let backend = scene(Setup::ports(2).metrics(&format!("unix:{}", socket.display())));
    let (head, text) = get(&socket, "/metrics", "text/plain");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.contains("version=0.0.4"), "{head}");
    promtool(&text);
    let (head, text) = get(&socket, "/metrics", "application/openmetrics-text;version=1.0.0");
    assert!(head.contains("application/openmetrics-text"), "{head}");
    openmetrics(&text);
    // The same that mpathctl prints, but for the time that passes.
    let steady = |text: &str| -> Vec<String> {
        let lines = text.lines().filter(|line| !line.contains("_age_seconds{"));
        lines.map(str::to_owned).collect()
    };
    assert_eq!(steady(&text), steady(&mpathctl(&backend, &["metrics"])));
    assert!(get(&socket, "/", "*/*").0.starts_with("HTTP/1.1 404 "));
    drop(backend);
    assert!(!socket.exists(), "the socket file goes with the backend");
}
