//! The text of a fixed report. That monitoring systems read it is tested with their own tools.

use super::*;
use crate::config::{Failback, IoPolicy, NoPathRetry};
use crate::control::{HedgeStats, LatencyBucket, PathKind};

fn snapshot() -> Snapshot {
    let lun = LunReport {
        wwid: Some("naa.6001".into()),
        vendor: Some("MPATH   ".into()),
        product: None,
        revision: None,
        serial: None,
        block_size: Some(512),
        blocks: Some(2048),
        iopolicy: IoPolicy::QueueDepth,
        no_path_retry: NoPathRetry::Queue,
        failback: Failback::Immediate,
        state: LunState::Degraded,
        queued: 7,
        inflight: 3,
        connected: true,
    };
    let path = PathReport {
        name: "say \"left\"".into(),
        address: "null:1G".into(),
        kind: PathKind::Null,
        wwid: None,
        state: PathState::Failed,
        access_state: AccessState::Unknown,
        group: Some(4),
        relative_port: None,
        preferred: false,
        current: true,
        hctl: None,
        devices: Vec::new(),
        engine: None,
        numa_node: None,
        numa_nodes: Vec::new(),
        inflight: 3,
        latency_us: None,
        since: 61.5,
        reason: String::new(),
        next_check: None,
    };
    let bucket = |le_us, count| LatencyBucket { le_us, count };
    let counters = Counters {
        reads: 5,
        writes: 1,
        read_bytes: 4096,
        errors: [("busy".to_owned(), 2)].into(),
        latency: vec![bucket(Some(1), 1), bucket(Some(128), 4), bucket(None, 1)],
        latency_sum_us: 1_500_000,
        ..Counters::default()
    };
    let paths = vec![PathStats { name: path.name.clone(), counters: counters.clone() }];
    let stats = StatsReport { lun: counters, paths, hedges: HedgeStats::default() };
    Snapshot { backend: "lun0".into(), lun, paths: vec![path], stats }
}

fn has(text: &str, line: &str) {
    assert!(text.lines().any(|one| one == line), "{line}\n{text}");
}

const LUN: &str = "backend=\"lun0\",wwid=\"naa.6001\"";
const PATH: &str = "backend=\"lun0\",wwid=\"naa.6001\",path=\"say \\\"left\\\"\"";

#[test]
fn samples_carry_names_units_and_labels() {
    let text = render(&[snapshot()], Format::OpenMetrics);
    has(&text, &format!("mpath_lun_size_bytes{{{LUN}}} 1048576"));
    has(&text, &format!("mpath_lun_queued_commands{{{LUN}}} 7"));
    has(&text, &format!("mpath_lun_state{{{LUN},state=\"degraded\"}} 1"));
    has(&text, &format!("mpath_lun_state{{{LUN},state=\"healthy\"}} 0"));
    has(&text, &format!("mpath_path_state{{{PATH},state=\"failed\"}} 1"));
    has(&text, &format!("mpath_path_access_state{{{PATH},state=\"unknown\"}} 1"));
    has(&text, &format!("mpath_path_state_age_seconds{{{PATH}}} 61.500"));
    has(&text, &format!("mpath_path_commands_total{{{PATH},kind=\"read\"}} 5"));
    has(&text, &format!("mpath_path_read_bytes_total{{{PATH}}} 4096"));
    has(&text, &format!("mpath_path_errors_total{{{PATH},class=\"busy\"}} 2"));
    has(&text, "# UNIT mpath_path_read_bytes bytes");
    has(&text, "# TYPE mpath_path_read_bytes counter");
}

#[test]
fn histogram_buckets_hold_all_before_them() {
    let text = render(&[snapshot()], Format::OpenMetrics);
    has(&text, "# TYPE mpath_path_latency_seconds histogram");
    has(&text, &format!("mpath_path_latency_seconds_bucket{{{PATH},le=\"1e-06\"}} 1"));
    has(&text, &format!("mpath_path_latency_seconds_bucket{{{PATH},le=\"0.000128\"}} 5"));
    has(&text, &format!("mpath_path_latency_seconds_bucket{{{PATH},le=\"+Inf\"}} 6"));
    has(&text, &format!("mpath_path_latency_seconds_count{{{PATH}}} 6"));
    has(&text, &format!("mpath_path_latency_seconds_sum{{{PATH}}} 1.5"));
}

#[test]
fn seconds_are_written_as_go_writes_them() {
    let cases =
        [(1, "1e-06"), (16, "1.6e-05"), (64, "6.4e-05"), (128, "0.000128"), (1 << 20, "1.048576")];
    for (us, text) in cases {
        assert_eq!(seconds(us), text);
    }
    assert_eq!(seconds(1_000_000), "1.0");
}

#[test]
fn formats_differ_in_counters_units_and_the_end() {
    let open = render(&[snapshot()], Format::OpenMetrics);
    let text = render(&[snapshot()], Format::Text);
    assert!(open.ends_with("\n# EOF\n") && !text.contains("EOF"));
    assert!(!text.contains("# UNIT"));
    has(&text, "# TYPE mpath_path_retries_total counter");
    has(&open, "# TYPE mpath_path_retries counter");
    let samples = |text: &str| -> Vec<String> {
        text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
    };
    assert_eq!(samples(&open), samples(&text));
}

#[test]
fn families_come_once_however_many_backends_there_are() {
    let mut other = snapshot();
    other.backend = "lun1".into();
    let text = render(&[snapshot(), other], Format::OpenMetrics);
    let heads: Vec<&str> = text.lines().filter(|line| line.starts_with("# TYPE")).collect();
    let unique: std::collections::HashSet<&&str> = heads.iter().collect();
    assert_eq!(heads.len(), unique.len());
    assert_eq!(render(&[], Format::OpenMetrics).matches("# TYPE").count(), heads.len());
}
