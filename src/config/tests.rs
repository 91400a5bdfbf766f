//! Tests of the configuration: each setting, each refusal, and the files that we ship.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::cli::{Refusal, start_on};
use super::*;
use crate::systemd::listen::Activated;

fn parse(text: &str) -> Result<Config, ConfigError> {
    file::parse(Path::new("lun0.toml"), text)
}

fn refusal(text: &str) -> String {
    let message = parse(text).unwrap_err().to_string();
    assert!(!message.contains('\n'), "{message}");
    message
}

fn run(arguments: &[&str]) -> Result<Start, Refusal> {
    start(std::iter::once("backend").chain(arguments.iter().copied()).map(OsString::from))
}

fn exit_code(arguments: &[&str]) -> u8 {
    match run(arguments) {
        Ok(_) => 0,
        Err(Refusal::Usage(error)) => error.exit_code() as u8,
        Err(Refusal::Config(_)) => 1,
    }
}

#[test]
fn file_without_a_word_is_the_defaults() {
    assert_eq!(parse("").unwrap(), Config::default());
}

#[test]
fn file_settings_are_all_read() {
    let config = parse(
        r#"
        [backend]
        socket = "/run/a.sock"
        control = "/run/a.ctl"
        socket_group = "kvm"
        socket_mode = "0660"
        identity = "vm7"
        state_dir = "/var/lib/x"
        request_queues = 8
        stop_deadline = 2
        [lun]
        wwid = "3600140505200a986f0043c9afa1fd077"
        iopolicy = "queue-depth"
        no_path_retry = 12.5
        failback = "immediate"
        command_deadline = 20.0
        path_timeout = 3.5
        write_quiesce = 0
        hedged_reads = true
        hedge_budget = 0.01
        hedge_percentile = 95
        [discovery]
        scan = true
        allow = ["1:*"]
        deny = ["/dev/disk/by-path/*-lun-7"]
        [[path]]
        address = "emulated:/x?port=1"
        name = "left"
        group = "2"
        preferred = true
direct_io = true
        "#,
    )
    .unwrap();
    let backend = Backend {
        listen: Some(Listen::Path("/run/a.sock".into())),
        control: Some("/run/a.ctl".into()),
        socket_group: "kvm".into(),
        socket_mode: 0o660,
        identity: "vm7".into(),
        state_dir: Some("/var/lib/x".into()),
        request_queues: 8,
        stop_deadline: Duration::from_secs(2),
    };
    assert_eq!(config.backend, backend);
    let lun = Lun {
        wwid: Some("naa.600140505200a986f0043c9afa1fd077".parse().unwrap()),
        iopolicy: IoPolicy::QueueDepth,
        no_path_retry: NoPathRetry::For(Duration::from_millis(12_500)),
        failback: Failback::Immediate,
        explicit_alua: false,
        command_deadline: Duration::from_secs(20),
        path_timeout: Duration::from_millis(3500),
        write_quiesce: Duration::ZERO,
        hedged_reads: true,
        hedge_budget: 0.01,
        hedge_percentile: 95.0,
    };
    assert_eq!(config.lun, lun);
    let discovery = Discovery {
        scan: true,
        allow: vec!["1:*".parse().unwrap()],
        deny: vec!["*-lun-7".parse().unwrap()],
    };
    assert_eq!(config.discovery, discovery);
    let path = PathConfig {
        address: "emulated:/x?port=1".into(),
        name: "left".into(),
        group: Some(2),
        preferred: true,
        direct_io: true,
    };
    assert_eq!(config.paths, [path]);
}

#[test]
fn file_errors_name_file_line_and_setting() {
    let cases = [
        (
            "[lun]\npath_timeout = 0.01\n",
            "lun0.toml:2:16: lun.path_timeout: 0.01 is out of range, 0.1 to 600 is allowed",
        ),
        (
            "[lun]\npath_timeout = nan",
            "lun0.toml:2:16: lun.path_timeout: NaN is out of range, 0.1 to 600 is allowed",
        ),
        (
            "[backend]\n\n request_queues = 257",
            "lun0.toml:3:19: backend.request_queues: 257 is out of range, 1 to 254 is allowed",
        ),
        (
            "[lun]\npath_timeout = 30",
            "lun0.toml:2:16: lun.path_timeout: 30 is not less than lun.command_deadline, which is 30",
        ),
        (
            "[lun]\ncommand_deadline = 4",
            "lun0.toml: lun.path_timeout: 5 is not less than lun.command_deadline, which is 4",
        ),
        (
            "[lun]\niopolicy = \"rr\"",
            "lun0.toml:2:12: lun.iopolicy: unknown variant `rr`, expected one of `numa`, `round-robin`, `queue-depth`, `service-time`",
        ),
        (
            "[lun]\nno_path_retry = \"30\"",
            "lun0.toml:2:17: lun.no_path_retry: `30` is not \"queue\", \"fail\" or a number of seconds",
        ),
        (
            "[confinement]\nallow_files = [\"/srv\", \"images\"]",
            "lun0.toml:2:24: confinement.allow_files: does not begin with /",
        ),
        (
            "[confinement]\nallow_ports = [3261, 65536]",
            "lun0.toml:2:22: confinement.allow_ports: 65536 is out of range, 1 to 65535 is allowed",
        ),
        (
            "[lun]\nno_path_retry = -1",
            "lun0.toml:2:17: lun.no_path_retry: -1 seconds is out of range, 0 to 604800 is allowed",
        ),
        (
            "[backend]\nsocket_mode = \"0888\"",
            "lun0.toml:2:15: backend.socket_mode: not an octal mode from \"0000\" to \"0777\"",
        ),
        ("[backend]\nsocket = \"\"", "lun0.toml:2:10: backend.socket: empty"),
        (
            "[discovery]\nallow = [\"1:*\",\n \"\"]",
            "lun0.toml:3:2: discovery.allow: ``: a pattern has 1 to 255 characters",
        ),
        ("[[path]]\nname = \"a\"\n", "lun0.toml:1:1: path.address: missing in this [[path]]"),
        (
            "[[path]]\naddress = \"a\"\n[[path]]\naddress = \"a\"\n",
            "lun0.toml:4:11: path.address: given twice",
        ),
        (
            "[[path]]\naddress = \"a\"\ngroup = \"x\"\n",
            "lun0.toml:3:9: path.group: not a number from 0 to 65535",
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(refusal(text), expected);
    }
    let starts = [
        ("[lun]\nwwid = \"sda\"", "lun0.toml:2:8: lun.wwid: `sda` is no WWID"),
        (
            "[lun]\niopolic = \"numa\"",
            "lun0.toml:2:1: lun.iopolic: unknown field `iopolic`, expected one of",
        ),
        ("[lan]\n", "lun0.toml:1:2: lan: unknown field `lan`, expected one of"),
        ("[lun]\npath_timeout = \"5\"", "lun0.toml:2:16: lun.path_timeout: invalid type: string"),
        ("[[path]]\naddress = 5", "lun0.toml:2:11: path.address: invalid type: integer"),
        ("[lun\n", "lun0.toml:1:"),
        (
            "[discovery]\ndeny = [\"/dev/sdc\"]",
            "lun0.toml:2:9: discovery.deny: `/dev/sdc`: a pattern is",
        ),
        ("[discovery]\nallow = \"*\"", "lun0.toml:2:9: discovery.allow: invalid type: string"),
    ];
    for (text, expected) in starts {
        let message = refusal(text);
        assert!(message.starts_with(expected), "{message}");
    }
}

#[test]
fn file_says_where_metrics_are_served() {
    let listen =
        |text: &str| parse(&format!("[metrics]\nlisten = \"{text}\"")).map(|one| one.metrics);
    assert_eq!(listen("").unwrap(), None);
    let unix = MetricsListen::Unix("/run/metrics".into());
    assert_eq!(listen("unix:/run/metrics").unwrap(), Some(unix));
    let message = refusal("[metrics]\nlisten = \"0.0.0.0:9750\"");
    assert!(message.contains(":2:10: metrics.listen: 0.0.0.0:9750 can be reached"), "{message}");
}

#[test]
fn options_alone_are_enough() {
    let arguments = ["--socket-path", "/run/x", "--path", "null:1G", "--path", "null:2G"];
    let Start::Serve(config) = run(&arguments).unwrap() else { panic!() };
    assert_eq!(config.backend.listen, Some(Listen::Path("/run/x".into())));
    let addresses: Vec<&str> = config.paths.iter().map(|path| &*path.address).collect();
    assert_eq!(addresses, ["null:1G", "null:2G"]);
    let Start::Serve(config) = run(&["--fd", "3"]).unwrap() else { panic!() };
    assert_eq!(config.backend.listen, Some(Listen::Fd(3)));
}

#[test]
fn options_win_over_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let name = directory.path().join("lun.toml");
    let text = "[backend]\nsocket = \"/a\"\ncontrol = \"/b\"\n[lun]\niopolicy = \"numa\"\n\
                [[path]]\naddress = \"x\"\n";
    std::fs::write(&name, text).unwrap();
    let file = name.to_str().unwrap();
    let Start::Serve(config) = run(&["--config", file]).unwrap() else { panic!() };
    assert_eq!(config.backend.listen, Some(Listen::Path("/a".into())));
    let options = [
        "--config",
        file,
        "--fd",
        "5",
        "--control",
        "/c",
        "--iopolicy",
        "round-robin",
        "--no-path-retry",
        "7",
        "--wwid",
        "3600140505200a986f0043c9afa1fd077",
        "--path",
        "y",
    ];
    let Start::Serve(config) = run(&options).unwrap() else { panic!() };
    assert_eq!(config.backend.listen, Some(Listen::Fd(5)));
    assert_eq!(config.backend.control, Some(PathBuf::from("/c")));
    assert_eq!(config.lun.iopolicy, IoPolicy::RoundRobin);
    assert_eq!(config.lun.no_path_retry, NoPathRetry::For(Duration::from_secs(7)));
    assert!(config.lun.wwid.is_some());
    assert_eq!(config.paths.len(), 1);
    assert_eq!(config.paths[0].address, "y");
}

#[test]
fn exit_codes_tell_usage_from_configuration() {
    let directory = tempfile::tempdir().unwrap();
    let name = directory.path().join("lun.toml");
    std::fs::write(&name, "[lun]\n").unwrap();
    let file = name.to_str().unwrap();
    assert_eq!(exit_code(&["--socket-path", "/x", "--fd", "3"]), 2);
    assert_eq!(exit_code(&[]), 2);
    assert_eq!(exit_code(&["--nonsense"]), 2);
    assert_eq!(exit_code(&["--fd", "-1"]), 2);
    assert_eq!(exit_code(&["--fd", "3", "--iopolicy", "rr"]), 2);
    assert_eq!(exit_code(&["--fd", "3", "--wwid", "sda"]), 2);
    assert_eq!(exit_code(&["--config", "/does/not/exist"]), 1);
    assert_eq!(exit_code(&["--config", file]), 1);
    assert_eq!(exit_code(&["--fd", "3", "--takeover", "/x"]), 1);
    assert_eq!(exit_code(&["--help"]), 0);
    assert_eq!(exit_code(&["--version"]), 0);
    assert!(matches!(run(&["--config", file, "--check"]), Ok(Start::Check(_))));
}

#[test]
fn print_capabilities_ignores_everything_else() {
    let arguments = ["--nonsense", "--fd", "x", "--print-capabilities", "--config"];
    assert_eq!(run(&arguments).unwrap(), Start::PrintCapabilities);
    let json: serde_json::Value = serde_json::from_str(cli::CAPABILITIES).unwrap();
    assert_eq!(json, serde_json::json!({"type": "scsi"}));
}

fn shipped() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("backend-config")
}

#[test]
fn shipped_files_can_all_be_used() {
    let mut count = 0;
    for entry in std::fs::read_dir(shipped()).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(path.extension().unwrap(), "toml", "{}", path.display());
        let config = file::read(&path).unwrap_or_else(|error| panic!("{error}"));
        if path.file_name().unwrap() != "defaults.toml" {
            assert!(config.backend.listen.is_some(), "{}", path.display());
            let some = !config.paths.is_empty() || config.discovery.scan;
            assert!(some, "{}", path.display());
        }
        count += 1;
    }
    assert!(count >= 5);
}

#[test]
fn shipped_defaults_are_the_built_in_ones() {
    assert_eq!(file::read(&shipped().join("defaults.toml")).unwrap(), Config::default());
}

/// In `defaults.toml`, `#key = value` without a space is a setting, and all other comments are
/// prose.
fn defaults_with_comments_removed() -> String {
    let text = std::fs::read_to_string(shipped().join("defaults.toml")).unwrap();
    let line = |line: &str| match line.strip_prefix('#') {
        Some(setting) if !setting.starts_with([' ', '#']) => setting.to_owned(),
        _ => line.to_owned(),
    };
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn shipped_defaults_hold_true_where_commented_too() {
    let mut config = parse(&defaults_with_comments_removed()).unwrap();
    assert_eq!(config.paths.len(), 1);
    assert_eq!(config.paths[0].name, "");
    assert_eq!((config.paths[0].group, config.paths[0].preferred), (None, false));
    // What has no default is shown by an example.
    assert!(config.backend.listen.take().is_some());
    assert!(config.backend.control.take().is_some());
    assert!(config.lun.wwid.take().is_some());
    config.paths.clear();
    assert_eq!(config, Config::default());
}

#[test]
fn shipped_defaults_show_every_setting() {
    let defaults: toml::Table = defaults_with_comments_removed().parse().unwrap();
    for table in ["backend", "lun", "iscsi", "discovery", "metrics", "path"] {
        let header = if table == "path" { "[[path]]" } else { &format!("[{table}]") };
        // The parser itself lists the names that it knows.
        let message = refusal(&format!("{header}\nno_such_setting = 1"));
        let known: BTreeSet<&str> = message.split('`').skip(3).step_by(2).collect();
        let shown = match &defaults[table] {
            toml::Value::Array(tables) => tables[0].as_table().unwrap(),
            table => table.as_table().unwrap(),
        };
        let shown: BTreeSet<&str> = shown.keys().map(String::as_str).collect();
        assert_eq!(known, shown, "{header}");
    }
}

#[test]
fn discovery_without_a_name_to_look_for_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("lun0.toml");
    std::fs::write(&file, "[backend]\nsocket = \"/x\"\n[discovery]\nscan = true\n").unwrap();
    let file = file.to_str().unwrap();
    let refusal = run(&["--config", file]).unwrap_err().to_string();
    assert!(refusal.contains("lun0.toml: discovery.scan: needs lun.wwid"), "{refusal}");
    let given = ["--config", file, "--wwid", "3600140505200a986f0043c9afa1fd077"];
    assert!(matches!(run(&given), Ok(Start::Serve(config)) if config.discovery.scan));
}

#[test]
fn socket_of_a_service_manager_is_taken_where_nothing_else_is_named() {
    let passed = |path: Option<&str>| Some(Activated { fd: 3, path: path.map(PathBuf::from) });
    let directory = tempfile::tempdir().unwrap();
    let name = directory.path().join("lun.toml");
    let listen = |text: &str, options: &[&str], passed| {
        std::fs::write(&name, text).unwrap();
        let arguments = ["x", "--config", name.to_str().unwrap()];
        let arguments = arguments.iter().chain(options).map(OsString::from);
        match start_on(arguments, passed) {
            Ok(Start::Serve(config) | Start::Check(config)) => Ok(config.backend.listen),
            Ok(_) => panic!(),
            Err(refusal) => Err(refusal.to_string()),
        }
    };
    let activated = Listen::Activated { fd: 3, path: "/run/a.sock".into() };
    assert_eq!(listen("", &[], passed(Some("/run/a.sock"))), Ok(Some(activated.clone())));
    let same = "[backend]\nsocket = \"/run/a.sock\"\n";
    assert_eq!(listen(same, &[], passed(Some("/run/a.sock"))), Ok(Some(activated)));
    assert_eq!(listen("", &[], passed(None)), Ok(Some(Listen::Fd(3))));
    assert_eq!(listen("", &["--fd", "5"], passed(Some("/a"))), Ok(Some(Listen::Fd(5))));
    assert_eq!(listen("", &["--check"], passed(Some("/a"))), Ok(None));
    let error = listen(same, &[], passed(Some("/run/b.sock"))).unwrap_err();
    assert!(error.contains("lun.toml: backend.socket: /run/a.sock is named"), "{error}");
    assert!(error.contains("listens on /run/b.sock: leave the setting out"), "{error}");
    let option = listen("", &["--socket-path", "/c"], passed(Some("/run/b.sock"))).unwrap_err();
    assert!(option.contains("/c is named"), "{option}");
}
