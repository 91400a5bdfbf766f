//! What a person sees: golden texts, and whole commands against a real control socket with a
//! manager that is a fake.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clap::Parser;
use serde_json::{Value, json};
use vhost_user_scsi_mpath::config::{Failback, IoPolicy, NoPathRetry};
use vhost_user_scsi_mpath::control::{
    AccessState, BackendReport, Counters, Event, EventSink, FaultKind, HedgeStats, Holder,
    LatencyBucket, LunReport, LunState, Order, OrderSink, PathKind, PathRegistration, PathReport,
    PathState, PathStats, Registration, ReloadReport, Reply, ReplyTo, ReservationReport, Server,
    SettingsReport, StateKeeping, StatsReport, mail,
};
use vhost_user_scsi_mpath::scsi::reservation::Key;
use vhost_user_scsi_mpath::socket::{Access, SocketFile};
use vhost_user_scsi_mpath::state::{Exported, Kept};

use crate::paint::Paint;
use crate::{Cli, Output, events, run, tables, topology};

const PLAIN: Paint = Paint { on: false };

pub fn about() -> BackendReport {
    BackendReport {
        pid: std::process::id(),
        socket: Some("/run/lun.sock".into()),
        state_dir: None,
        request_queues: 64,
    }
}

pub fn reservation() -> ReservationReport {
    let path = |name: &str, registration| PathRegistration { name: name.into(), registration };
    ReservationReport {
        wwid: lun().wwid,
        state: StateKeeping::Kept,
        state_file: Some("/var/lib/x/reservation.toml".into()),
        reason: String::new(),
        key: Some("0xabc".into()),
        aptpl: true,
        generation: 7,
        kind: Some("write-exclusive-registrants-only".into()),
        holder: Some(Holder::Guest),
        holder_path: Some("left".into()),
        holder_key: Some("0xabc".into()),
        paths: vec![path("left", Registration::Registered), path("left-2", Registration::Pending)],
        others: vec!["0xdef".into()],
    }
}

pub fn lun() -> LunReport {
    LunReport {
        wwid: Some("naa.600140505200a986f0043c9afa1fd077".into()),
        vendor: Some("MPATH   ".into()),
        product: Some("EMULATED        ".into()),
        revision: Some("0001".into()),
        serial: None,
        block_size: Some(512),
        blocks: Some(20_971_520),
        iopolicy: IoPolicy::ServiceTime,
        no_path_retry: NoPathRetry::Queue,
        failback: Failback::Immediate,
        state: LunState::Degraded,
        queued: 0,
        inflight: 3,
        connected: true,
    }
}

pub fn path(name: &str, port: u16, group: u16, access_state: AccessState) -> PathReport {
    PathReport {
        name: name.into(),
        address: format!("emulated:/d.img?port={port}"),
        kind: PathKind::Emulated,
        wwid: lun().wwid,
        state: PathState::Up,
        access_state,
        group: Some(group),
        current: group == 1,
        relative_port: Some(port),
        preferred: false,
        hctl: None,
        devices: Vec::new(),
        engine: Some("preadv2".into()),
        numa_node: None,
        numa_nodes: vec![0],
        inflight: 0,
        latency_us: Some(130),
        since: 61.5,
        reason: String::new(),
        next_check: Some(3.5),
    }
}

pub fn paths() -> Vec<PathReport> {
    let mut paths = vec![
        path("right", 2, 2, AccessState::ActiveNonOptimized),
        path("left", 0, 1, AccessState::ActiveOptimized),
        path("left-2", 1, 1, AccessState::ActiveOptimized),
    ];
    paths[1].inflight = 3;
    paths[2].state = PathState::Failed;
    paths[2].latency_us = None;
    paths[2].reason = "no answer within 5 s".into();
    paths
}

pub fn stats() -> StatsReport {
    let counters = Counters {
        reads: 900,
        writes: 100,
        read_bytes: 1 << 20,
        write_bytes: 4096,
        errors: [("busy".to_owned(), 0), ("path".to_owned(), 2)].into(),
        retries: 2,
        failovers: 1,
        latency: vec![LatencyBucket { le_us: Some(128), count: 1000 }],
        ..Counters::default()
    };
    let path = PathStats { name: "left".into(), counters: counters.clone() };
    let hedges = HedgeStats { sent: 9, won: 7, denied: 1, pauses: 0 };
    StatsReport { lun: counters, paths: vec![path], hedges }
}

pub fn settings() -> SettingsReport {
    SettingsReport {
        command_deadline: 30.0,
        path_timeout: 5.0,
        write_quiesce: 1.0,
        explicit_alua: false,
        hedged_reads: true,
        hedge_budget: Some(0.02),
        hedge_percentile: Some(99.0),
        uptime: 90.5,
    }
}

#[test]
fn topology_has_the_layout_of_multipath() {
    let text = topology::render("lun0", &lun(), &paths(), PLAIN);
    let expected = "\
3600140505200a986f0043c9afa1fd077 lun0 MPATH,EMULATED
size=10G policy='service-time' no-path='queue' failback='immediate' state=degraded inflight=3 queued=0 guest=connected
|-+- policy='service-time' group=1 prio=50 status=active
| |- left   emulated:/d.img?port=0 up     active/optimized     inflight=3 latency=130us
| `- left-2 emulated:/d.img?port=1 failed active/optimized     inflight=0 latency=-     for 1m01s: no answer within 5 s
`-+- policy='service-time' group=2 prio=10 status=enabled
  `- right  emulated:/d.img?port=2 up     active/non-optimized inflight=0 latency=130us
";
    assert_eq!(text, expected);
}

#[test]
fn topology_without_paths_says_so() {
    let mut lun = lun();
    (lun.wwid, lun.vendor, lun.blocks) = (None, None, None);
    (lun.state, lun.connected) = (LunState::NoPath, false);
    let text = topology::render("lun0", &lun, &[], PLAIN);
    let expected = "\
(no WWID yet) lun0
size=- policy='service-time' no-path='queue' failback='immediate' state=no-path inflight=3 queued=0 guest=none
`- no paths
";
    assert_eq!(text, expected);
}

#[test]
fn topology_ranks_groups_by_what_they_can_do_now() {
    let mut paths = paths();
    paths[1].state = PathState::Disabled;
    // The backend has gone over to what is left.
    paths.iter_mut().for_each(|path| path.current = path.group == Some(2));
    let groups = topology::groups(&paths);
    let ranks: Vec<_> = groups.iter().map(|group| (group.number, group.status)).collect();
    assert_eq!(ranks, [(Some(2), "active"), (Some(1), "disabled")]);
}

#[test]
fn colours_surround_words_and_leave_the_layout() {
    let text = topology::render("lun0", &lun(), &paths(), Paint { on: true });
    assert!(text.contains("\x1b[31mfailed\x1b[0m active/optimized"));
    assert!(text.contains("\x1b[32mup    \x1b[0m active/optimized"));
    let plain = ["\x1b[1m", "\x1b[31m", "\x1b[32m", "\x1b[33m", "\x1b[0m"]
        .into_iter()
        .fold(text, |text, code| text.replace(code, ""));
    assert_eq!(plain, topology::render("lun0", &lun(), &paths(), PLAIN));
}

#[test]
fn tables_line_up() {
    let expected = "\
NAME    STATE   ACCESS                GROUP  PORT  INFLIGHT  LATENCY  SINCE  ADDRESS                 REASON
right   up      active/non-optimized  2      2     0         130us    1m01s  emulated:/d.img?port=2
left    up      active/optimized      1      0     3         130us    1m01s  emulated:/d.img?port=0
left-2  failed  active/optimized      1      1     0         -        1m01s  emulated:/d.img?port=1  no answer within 5 s
";
    assert_eq!(tables::paths(&paths(), PLAIN), expected);
    let expected = "\
NAME   READS  WRITES  OTHER  READ  WRITTEN  ERRORS  RETRIES  FAILOVERS  P50    P99    MAX
(lun)  900    100     0      1.0M  4.0K     2       2        1          128us  128us  128us
left   900    100     0      1.0M  4.0K     2       2        1          128us  128us  128us
errors of (lun): path 2
errors of left: path 2
hedged reads: 9 sent, 7 won, 1 denied, 0 pauses
";
    assert_eq!(tables::stats(&stats()), expected);
    let text = tables::lun(&lun(), PLAIN);
    assert!(text.contains("size           10G (20971520 blocks of 512 bytes)\n"), "{text}");
    assert!(text.contains("serial         -\n"), "{text}");
}

#[test]
fn events_are_lines_with_their_time() {
    let timestamp = json!({"seconds": 951_782_400, "microseconds": 7});
    let event = |name: &str, data: Value| {
        events::line("lun0", &json!({"event": name, "data": data, "timestamp": timestamp}))
    };
    let data = json!({"name": "left", "from": "up", "to": "failed", "reason": "cut"});
    let time = "2000-02-29T00:00:00.000007Z lun0";
    let expected = format!("{time} PATH_STATE_CHANGED left: up -> failed (cut)");
    assert_eq!(event("PATH_STATE_CHANGED", data), expected);
    let mut data = json!({"from": "healthy", "to": "degraded"});
    assert_eq!(
        event("LUN_STATE_CHANGED", data.clone()),
        format!("{time} LUN_STATE_CHANGED healthy -> degraded")
    );
    data["reason"] = json!("left failed (cut), right up");
    let expected =
        format!("{time} LUN_STATE_CHANGED healthy -> degraded: left failed (cut), right up");
    assert_eq!(event("LUN_STATE_CHANGED", data), expected);
    let data = json!({"from": "left", "to": "right", "commands": 3});
    let expected = format!("{time} FAILOVER left -> right, 3 commands sent again");
    assert_eq!(event("FAILOVER", data), expected);
    let short = events::short(&json!({"event": "LUN_RESIZED", "timestamp": timestamp,
        "data": {"blocks": 7}}));
    assert_eq!(short, "00:00:00 LUN_RESIZED 7 blocks");
    assert_eq!(event("FRONTEND_CONNECTED", Value::Null), format!("{time} FRONTEND_CONNECTED"));
    assert_eq!(event("NEW", json!({"x": 1})), format!("{time} NEW {{\"x\":1}}"));
}

fn exported() -> Exported {
    let kept = Kept { key: Some(Key(0xABC)), generation: 7, ..Kept::default() };
    Exported::new("naa.6001".into(), kept)
}

#[test]
fn reservation_is_shown_and_moved() {
    let directory = tempfile::tempdir().unwrap();
    let backend = backend(directory.path(), "a.ctl");
    let (code, out, _) = mpathctl(directory.path(), &["reservation"]);
    let expected = "\
key         0xabc
generation  7
aptpl       true
type        write-exclusive-registrants-only
holder      guest over left, key 0xabc
others      0xdef
kept        in /var/lib/x/reservation.toml

PATH    REGISTRATION
left    registered
left-2  pending
";
    assert_eq!((code, &*out), (0, expected));
    let (_, out, _) = mpathctl(directory.path(), &["reservation", "--json"]);
    let returned: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(returned, serde_json::to_value(reservation()).unwrap());
    let file = directory.path().join("moved.json");
    let name = file.to_str().unwrap();
    let (code, out, _) = mpathctl(directory.path(), &["reservation", "export", name]);
    assert_eq!((code, out), (0, format!("a: exported to {name}\n")));
    let (_, printed, _) = mpathctl(directory.path(), &["reservation", "export"]);
    assert_eq!(printed, std::fs::read_to_string(&file).unwrap());
    let (code, out, _) = mpathctl(directory.path(), &["reservation", "import", name]);
    assert_eq!((code, &*out), (0, "a: imported\n"));
    let orders = backend.orders.0.lock().unwrap().clone();
    let import = |at_arrival| Order::ReservationImport { exported: exported().into(), at_arrival };
    assert_eq!(orders.last(), Some(&import(false)));
    let (code, out, _) =
        mpathctl(directory.path(), &["reservation", "import", "--at-arrival", name]);
    assert_eq!((code, &*out), (0, "a: imported when the guest comes\n"));
    let orders = backend.orders.0.lock().unwrap().clone();
    assert_eq!(orders.last(), Some(&import(true)));
    // What is no export never gets that far.
    std::fs::write(&file, "{\"key\": 7}").unwrap();
    let (code, _, err) = mpathctl(directory.path(), &["reservation", "import", name]);
    assert!(code == 1 && err.contains("Parameter 'reservation': "), "{err}");
    std::fs::write(&file, "no JSON").unwrap();
    let (code, _, err) = mpathctl(directory.path(), &["reservation", "import", name]);
    assert!(code == 1 && err.contains("moved.json: cannot read: expected"), "{err}");
    let (code, _, err) = mpathctl(directory.path(), &["reservation", "import", "/no/file"]);
    assert!(code == 1 && err.contains("/no/file: cannot read: No such file"), "{err}");
    assert_eq!(backend.orders.0.lock().unwrap().len(), orders.len());
}

#[test]
fn reservation_that_is_refused_says_why() {
    let mut report = reservation();
    (report.state, report.state_file) = (StateKeeping::None, None);
    (report.key, report.kind, report.holder, report.holder_path) = (None, None, None, None);
    report.others.clear();
    report.paths.clear();
    report.reason = "there is no state_dir".into();
    let expected = "\
key         not registered
generation  7
aptpl       true
type        no reservation
holder      -
others      -
kept        nowhere
refused     there is no state_dir
";
    assert_eq!(crate::reservation::table(&report, PLAIN), expected);
}

#[derive(Clone, Default)]
struct FakeManager(Arc<Mutex<Vec<Order>>>);

impl OrderSink for FakeManager {
    fn submit(&self, order: Order, reply: ReplyTo) {
        reply.answer(match &order {
            Order::QueryBackend => Ok(Reply::Backend(Box::new(about()))),
            Order::QueryLun => Ok(Reply::Lun(Box::new(lun()))),
            Order::QueryPaths => Ok(Reply::Paths(paths())),
            Order::QueryStats => Ok(Reply::Stats(Box::new(stats()))),
            Order::QueryHistory => Ok(Reply::History(Box::default())),
            Order::QuerySettings => Ok(Reply::Settings(settings())),
            Order::QueryReservation => Ok(Reply::Reservation(Box::new(reservation()))),
            Order::ReservationExport => Ok(Reply::ReservationExported(Box::new(exported()))),
            Order::PathRemove { name } => Err(format!("there is no path `{name}`")),
            Order::Reload => {
                let added = vec!["c".to_owned()];
                Ok(Reply::Reloaded(Box::new(ReloadReport { added, ..ReloadReport::default() })))
            }
            _ => Ok(Reply::Done),
        });
        self.0.lock().unwrap().push(order);
    }
}

struct Backend {
    orders: FakeManager,
    events: EventSink,
    server: Server,
}

fn backend(directory: &Path, name: &str) -> Backend {
    let file = SocketFile::bind(&directory.join(name), Access::default()).unwrap();
    let (events, mailbox) = mail().unwrap();
    let orders = FakeManager::default();
    let server = Server::start(file, mailbox, Box::new(orders.clone()), None).unwrap();
    Backend { orders, events, server }
}

/// Exit code, standard output, standard error.
fn mpathctl(directory: &Path, arguments: &[&str]) -> (u8, String, String) {
    let cli = Cli::parse_from(std::iter::once("mpathctl").chain(arguments.iter().copied()));
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let json = cli.json;
    let mut output = Output { out: &mut out, err: &mut err, paint: PLAIN, json };
    let code = run(cli, directory, &mut output);
    (code, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
}

#[test]
fn looking_goes_to_every_backend() {
    let directory = tempfile::tempdir().unwrap();
    let _backends = [backend(directory.path(), "b.ctl"), backend(directory.path(), "a.ctl")];
    let (code, out, _) = mpathctl(directory.path(), &["topology"]);
    assert_eq!(code, 0);
    let heads: Vec<&str> = out.lines().filter(|line| line.starts_with('3')).collect();
    assert!(heads[0].contains(" a MPATH") && heads[1].contains(" b MPATH"), "{out}");
    let (_, out, _) = mpathctl(directory.path(), &["paths"]);
    assert!(out.starts_with("a:\nNAME "), "{out}");
    let (code, out, _) = mpathctl(directory.path(), &["topology", "--json"]);
    let document: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, document["maps"].as_array().unwrap().len()), (0, 2));
    // A socket that a crash left behind is named, and the others are shown.
    drop(std::os::unix::net::UnixListener::bind(directory.path().join("dead.ctl")).unwrap());
    let (code, out, err) = mpathctl(directory.path(), &["lun"]);
    assert_eq!((code, out.matches("wwid").count()), (1, 2));
    assert!(err.contains("dead.ctl: nobody listens on this socket"), "{err}");
}

#[test]
fn json_is_what_the_socket_returned() {
    let directory = tempfile::tempdir().unwrap();
    let _backend = backend(directory.path(), "a.ctl");
    let json = |arguments: &[&str]| -> Value {
        let (code, out, _) = mpathctl(directory.path(), arguments);
        assert_eq!(code, 0);
        serde_json::from_str(&out).unwrap()
    };
    let returned = json(&["--json", "paths"]);
    assert_eq!(returned, serde_json::to_value(paths()).unwrap());
    assert_eq!(returned[2]["latency-us"], Value::Null);
    assert_eq!(json(&["lun", "--json"])["no-path-retry"], "queue");
    assert_eq!(json(&["fail", "left", "--json"]), json!({}));
}

#[test]
fn topology_json_has_multipathds_keys_and_ours() {
    let directory = tempfile::tempdir().unwrap();
    let _backend = backend(directory.path(), "a.ctl");
    let (_, out, _) = mpathctl(directory.path(), &["topology", "--json"]);
    let document: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&document["major_version"], &document["minor_version"]), (&json!(0), &json!(1)));
    let map = &document["maps"][0];
    let keys = "name uuid sysfs failback queueing paths write_prot dm_st features hwhandler action \
                path_faults vend prod rev switch_grp map_loads total_q_time q_timeouts path_groups";
    for key in keys.split_whitespace().chain(["wwid", "state", "no-path-retry", "connected"]) {
        assert!(map.get(key).is_some(), "{key}");
    }
    assert_eq!(map["uuid"], "3600140505200a986f0043c9afa1fd077");
    assert_eq!(
        (&map["paths"], &map["path_faults"], &map["vend"]),
        (&json!(2), &json!(2), &json!("MPATH"))
    );
    let group = &map["path_groups"][0];
    for key in ["selector", "pri", "dm_st", "marginal_st", "group", "paths"] {
        assert!(group.get(key).is_some(), "{key}");
    }
    let path = &group["paths"][1];
    let keys = "dev dev_t dm_st dev_st chk_st checker pri host_wwnn target_wwnn host_wwpn \
                target_wwpn host_adapter lun_hex marginal_st";
    for key in keys.split_whitespace().chain(["name", "access-state", "reason", "latency-us"]) {
        assert!(path.get(key).is_some(), "{key}");
    }
    assert_eq!((&path["chk_st"], &path["dm_st"]), (&json!("faulty"), &json!("failed")));
}

#[test]
fn steering_says_what_it_did() {
    let directory = tempfile::tempdir().unwrap();
    let backend = backend(directory.path(), "a.ctl");
    let (code, out, _) = mpathctl(directory.path(), &["fail", "left"]);
    assert_eq!(code, 0);
    assert_eq!(out, "a: left is not used until \"mpathctl reinstate left\"\n");
    let inject = ["inject", "left", "status", "--status", "busy", "--count", "2"];
    assert_eq!(mpathctl(directory.path(), &inject).0, 0);
    assert_eq!(mpathctl(directory.path(), &["set", "no-path-retry", "30"]).0, 0);
    assert_eq!(mpathctl(directory.path(), &["add", "null:1G", "--name", "n"]).0, 0);
    let (code, out, err) = mpathctl(directory.path(), &["remove", "middle"]);
    assert_eq!(
        (code, &*out, &*err),
        (
            1,
            "",
            "mpathctl: path middle: there is no path of that name; the paths are right, left, \
             left-2\n"
        )
    );
    assert_eq!(mpathctl(directory.path(), &["set", "failback", "manual"]).0, 0);
    assert_eq!(mpathctl(directory.path(), &["failback"]).0, 0);
    assert_eq!(mpathctl(directory.path(), &["reload"]).1, "a: added: c\n");
    let orders = backend.orders.0.lock().unwrap();
    assert_eq!(orders[0], Order::PathFail { name: "left".into() });
    let Order::InjectFault { fault, .. } = &orders[1] else { panic!() };
    assert!(matches!(fault.kind, FaultKind::Status(status) if status.0 == 8));
    assert_eq!(orders[2], Order::SetNoPathRetry(NoPathRetry::For(Duration::from_secs(30))));
    assert_eq!(orders[3], Order::PathAdd { address: "null:1G".into(), name: Some("n".into()) });
    // What the wrong name was about has been asked for in between.
    assert!(orders.ends_with(&[
        Order::SetFailback(Failback::Manual),
        Order::Failback,
        Order::Reload
    ]));
}

#[test]
fn why_is_asked_of_every_backend_and_a_wrong_name_is_helped() {
    let directory = tempfile::tempdir().unwrap();
    let _backends = [backend(directory.path(), "b.ctl"), backend(directory.path(), "a.ctl")];
    let (code, out, _) = mpathctl(directory.path(), &["why", "left-2"]);
    assert_eq!(code, 0);
    assert!(out.starts_with("a:\nPath left-2 is out of use"), "{out}");
    assert_eq!(out.matches("The reason: no answer within 5 s.").count(), 2, "{out}");
    let (_, out, _) = mpathctl(directory.path(), &["why", "left-2", "--json"]);
    let line: Value = serde_json::from_str(out.lines().nth(1).unwrap()).unwrap();
    assert_eq!((&line["backend"], &line["name"]), (&json!("b"), &json!("left-2")));
    let (code, out, err) = mpathctl(directory.path(), &["why", "lefd"]);
    let expected = "mpathctl: path lefd: there is no path of that name; did you mean left";
    assert_eq!((code, &*out), (1, ""));
    assert!(err.starts_with(expected), "{err}");
}

#[test]
fn report_is_one_file_about_every_backend() {
    let directory = tempfile::tempdir().unwrap();
    let _backends = [backend(directory.path(), "b.ctl"), backend(directory.path(), "a.ctl")];
    let (code, page, _) = mpathctl(directory.path(), &["report", "-o", "-"]);
    assert_eq!(code, 0);
    let (a, b) = (page.find("id=\"backend-0\"><h2>a<"), page.find("id=\"backend-1\"><h2>b<"));
    assert!(a.is_some() && a < b, "{page}");
    let file = directory.path().join("report.html");
    let to = file.to_str().unwrap();
    // What was chosen is written over; the report of a socket that a crash left behind says so.
    std::fs::write(&file, "old ".repeat(100_000)).unwrap();
    drop(std::os::unix::net::UnixListener::bind(directory.path().join("dead.ctl")).unwrap());
    let (code, out, err) = mpathctl(directory.path(), &["report", "-o", to]);
    assert_eq!((code, out), (1, format!("{to}\n")));
    assert!(err.contains("dead.ctl: nobody listens on this socket"), "{err}");
    let page = std::fs::read_to_string(&file).unwrap();
    assert!(page.contains("dead</a> does not answer.") && page.ends_with("</html>"), "{page}");
    let missing = directory.path().join("none/report.html");
    let (code, _, err) = mpathctl(directory.path(), &["report", "-o", missing.to_str().unwrap()]);
    assert_eq!(code, 1);
    assert!(err.contains("none/report.html: cannot write: No such file"), "{err}");
    let (_, out, _) = mpathctl(directory.path(), &["report", "--json"]);
    let line: Value = serde_json::from_str(out.lines().next().unwrap()).unwrap();
    assert_eq!((&line["backend"], &line["settings"]["uptime"]), (&json!("a"), &json!(90.5)));
}

#[test]
fn libvirt_xml_is_of_the_backends_that_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let _backends = [backend(directory.path(), "b.ctl"), backend(directory.path(), "a.ctl")];
    let (code, _, err) = mpathctl(directory.path(), &["libvirt-xml"]);
    assert_eq!(code, 2);
    assert!(err.contains("say which one is meant"), "{err}");
    let (code, out, err) = mpathctl(directory.path(), &["libvirt-xml", "b", "a"]);
    assert_eq!((code, &*err), (0, ""));
    let at = |what: &str| out.find(what).unwrap_or_else(|| panic!("{what}: {out}"));
    assert!(at("mpath-b-socket,path=/run/lun.sock,") < at("mpath-a-socket,path=/run/lun.sock,"));
    let (code, _, err) = mpathctl(directory.path(), &["libvirt-xml", "c"]);
    assert!(code == 1 && err.contains("backend c: ") && err.contains("a, b"), "{err}");
    let (code, _, err) = mpathctl(directory.path(), &["libvirt-xml", "a", "--queues", "65"]);
    assert!(code == 1 && err.contains("a takes 64 at most"), "{err}");
    let (code, _, err) = mpathctl(directory.path(), &["libvirt-xml", "a", "--windows"]);
    assert!(code == 0 && err.contains("no_path_retry is queue"), "{err}");
    let given = ["libvirt-xml", "--json", "--socket-path", "/x/lun7.sock"];
    let (_, out, _) = mpathctl(&directory.path().join("none"), &given);
    let value: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        value["arguments"][1],
        "socket,id=mpath-lun7-socket,path=/x/lun7.sock,reconnect-ms=1000"
    );
}

#[test]
fn metrics_are_one_text_for_all_backends() {
    let directory = tempfile::tempdir().unwrap();
    let _backends = [backend(directory.path(), "b.ctl"), backend(directory.path(), "a.ctl")];
    let (code, out, _) = mpathctl(directory.path(), &["metrics"]);
    assert_eq!((code, out.matches("# TYPE mpath_lun_state gauge").count()), (0, 1));
    for name in ["a", "b"] {
        assert!(out.contains(&format!("mpath_lun_queued_commands{{backend=\"{name}\",wwid=")));
    }
    assert!(out.ends_with("# EOF\n"), "{out}");
    let (_, out, _) = mpathctl(directory.path(), &["metrics", "--format", "prometheus"]);
    assert!(out.contains("# TYPE mpath_path_retries_total counter"), "{out}");
    let (_, out, _) = mpathctl(directory.path(), &["metrics", "--json"]);
    let line: Value = serde_json::from_str(out.lines().next().unwrap()).unwrap();
    assert_eq!((&line["backend"], &line["lun"]["state"]), (&json!("a"), &json!("degraded")));
}

#[test]
fn steering_wants_one_backend() {
    let directory = tempfile::tempdir().unwrap();
    let backends = [backend(directory.path(), "a.ctl"), backend(directory.path(), "b.ctl")];
    let (code, _, err) = mpathctl(directory.path(), &["quit"]);
    assert_eq!(code, 2);
    assert!(err.contains("say which one is meant: -s ") && err.contains("b.ctl"), "{err}");
    let socket = directory.path().join("b.ctl");
    let arguments = ["-s", socket.to_str().unwrap(), "quit"];
    assert_eq!(mpathctl(directory.path(), &arguments).0, 0);
    assert!(backends[0].orders.0.lock().unwrap().is_empty());
    assert_eq!(*backends[1].orders.0.lock().unwrap(), [Order::Quit]);
}

#[test]
fn what_is_not_there_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let (code, _, err) = mpathctl(directory.path(), &["topology"]);
    assert_eq!(code, 1);
    assert!(err.starts_with("mpathctl: no backend is running"), "{err}");
    let (code, _, err) = mpathctl(directory.path(), &["-s", "/no/such.ctl", "topology"]);
    assert_eq!(code, 1);
    assert!(err.contains("/no/such.ctl: there is no such socket"), "{err}");
    assert_eq!(mpathctl(&directory.path().join("none"), &["quit"]).0, 1);
}

#[test]
fn events_are_followed_until_the_backend_goes() {
    let directory = tempfile::tempdir().unwrap();
    let backend = backend(directory.path(), "a.ctl");
    let directory_name = directory.path().to_owned();
    let follower = std::thread::spawn(move || mpathctl(&directory_name, &["events"]));
    // Events are not kept for those who come later, so tell until somebody must have heard.
    for blocks in 0..50 {
        backend.events.send(Event::LunResized { blocks });
        std::thread::sleep(Duration::from_millis(5));
    }
    drop(backend.server);
    let (code, out, err) = follower.join().unwrap();
    assert_eq!(code, 1);
    assert!(out.ends_with("a LUN_RESIZED 49 blocks\n"), "{out}");
    assert!(err.contains("the backend has closed the connection"), "{err}");
}

#[test]
fn backends_with_a_directory_of_their_own_are_found() {
    let directory = tempfile::tempdir().unwrap();
    let own = directory.path().join("lun0");
    std::fs::create_dir(&own).unwrap();
    std::fs::write(own.join("metrics"), "").unwrap();
    let _backends = [backend(directory.path(), "a.ctl"), backend(&own, "lun0.ctl")];
    let found = crate::backends::all(None, directory.path()).unwrap();
    assert_eq!(found, [directory.path().join("a.ctl"), own.join("lun0.ctl")]);
}

#[test]
fn generated_pages_and_scripts_are_for_every_command() {
    let directory = tempfile::tempdir().unwrap();
    let to = directory.path().to_str().unwrap();
    assert_eq!(mpathctl(directory.path(), &["generate", to]).0, 0);
    let read = |name: &str| std::fs::read_to_string(directory.path().join(name)).unwrap();
    let page = read("man/vhost-user-scsi-mpath.8");
    assert!(page.contains(".TH vhost-user-scsi-mpath 8"), "{page}");
    assert!(page.contains("print\\-capabilities"), "{page}");
    let page = read("man/mpathctl.8");
    assert!(page.contains("mpathctl\\-topology(8)") && !page.contains("generate"), "{page}");
    assert!(read("man/mpathctl-fail.8").contains("until it is reinstated"));
    assert!(read("man/mpathctl-reservation-import.8").contains("before the guest comes"));
    for script in ["mpathctl", "_mpathctl", "mpathctl.fish"] {
        assert!(read(&format!("completions/{script}")).contains("import-multipath-conf"));
    }
}
