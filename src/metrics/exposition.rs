//! The text: one family after the other, with help, type, unit, and a sample for each LUN or path.
//!
//! Two formats that differ in little: OpenMetrics names a counter's family without `_total`, knows
//! units and has an end mark; the older text format, which node_exporter's textfile collector and
//! `promtool check metrics` read, names the family as its samples. Times are in seconds, sizes in
//! bytes; a state is one sample per possible state, of which exactly one is 1.

use std::fmt::Write;

use crate::control::{
    AccessState, Counters, LunReport, LunState, PathReport, PathState, PathStats, StatsReport,
};

/// How the text is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics 1.0.
    #[default]
    OpenMetrics,
    /// Prometheus' text format 0.0.4.
    Text,
}

impl Format {
    /// For HTTP.
    pub fn content_type(self) -> &'static str {
        match self {
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Format::Text => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// What one backend reported.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// What the backend is called: its control socket's name without the ending.
    pub backend: String,
    /// `query-lun`.
    pub lun: LunReport,
    /// `query-paths`.
    pub paths: Vec<PathReport>,
    /// `query-stats`.
    pub stats: StatsReport,
}

/// The whole text.
pub fn render(snapshots: &[Snapshot], format: Format) -> String {
    let mut text = Text { out: String::new(), format };
    luns(&mut text, snapshots);
    paths(&mut text, snapshots);
    let of_luns: Vec<(String, &Counters)> =
        snapshots.iter().map(|one| (one.labels(), &one.stats.lun)).collect();
    counters(&mut text, "lun", "the LUN", &of_luns);
    let of_path = |one: &Snapshot, path: &PathStats| one.path_labels(&path.name);
    let of_paths: Vec<(String, &Counters)> = snapshots
        .iter()
        .flat_map(|one| one.stats.paths.iter().map(|path| (of_path(one, path), &path.counters)))
        .collect();
    counters(&mut text, "path", "the path", &of_paths);
    if format == Format::OpenMetrics {
        text.out.push_str("# EOF\n");
    }
    text.out
}

impl Snapshot {
    fn labels(&self) -> String {
        let wwid = self.lun.wwid.as_deref().unwrap_or_default();
        labels(&[("backend", &self.backend), ("wwid", wwid)])
    }

    fn path_labels(&self, path: &str) -> String {
        self.labels() + "," + &labels(&[("path", path)])
    }
}

/// Name, help, value.
type LunGauge = (&'static str, &'static str, fn(&LunReport) -> u64);
/// Name's end, unit, help's beginning, value.
type Plain = (&'static str, Option<&'static str>, &'static str, fn(&Counters) -> u64);

fn luns(text: &mut Text, snapshots: &[Snapshot]) {
    text.gauge("lun_info", None, "The LUN and its settings; always 1.");
    for one in snapshots {
        let of = |text: &Option<String>| text.as_deref().unwrap_or_default().trim().to_owned();
        let about = labels(&[
            ("vendor", &of(&one.lun.vendor)),
            ("product", &of(&one.lun.product)),
            ("revision", &of(&one.lun.revision)),
            ("iopolicy", one.lun.iopolicy.as_str()),
            ("no_path_retry", &one.lun.no_path_retry.to_string()),
            ("failback", &one.lun.failback.to_string()),
        ]);
        text.sample("lun_info", &format!("{},{about}", one.labels()), 1);
    }
    text.gauge("lun_state", None, "1 for the state that the LUN is in, 0 for the others.");
    for one in snapshots {
        for state in LunState::ALL {
            let labels = format!("{},{}", one.labels(), labels(&[("state", state.as_str())]));
            text.sample("lun_state", &labels, u8::from(*state == one.lun.state));
        }
    }
    text.gauge("lun_size_bytes", Some("bytes"), "Size of the LUN, once a path has told it.");
    for one in snapshots {
        if let (Some(blocks), Some(size)) = (one.lun.blocks, one.lun.block_size) {
            let bytes = blocks.saturating_mul(u64::from(size));
            text.sample("lun_size_bytes", &one.labels(), bytes);
        }
    }
    let gauges: [LunGauge; 3] = [
        ("lun_queued_commands", "Commands that wait for a path.", |lun| lun.queued),
        ("lun_inflight_commands", "Commands that are on a path.", |lun| lun.inflight),
        ("lun_guest_connected", "1 while a guest's front end is attached.", |lun| {
            u64::from(lun.connected)
        }),
    ];
    for (name, help, value) in gauges {
        text.gauge(name, None, help);
        for one in snapshots {
            text.sample(name, &one.labels(), value(&one.lun));
        }
    }
}

fn paths(text: &mut Text, snapshots: &[Snapshot]) {
    let all: Vec<(String, &PathReport)> = snapshots
        .iter()
        .flat_map(|one| one.paths.iter().map(|path| (one.path_labels(&path.name), path)))
        .collect();
    text.gauge("path_info", None, "The path and where it leads; always 1.");
    for (of, path) in &all {
        let number = |number: Option<u16>| number.map_or_else(String::new, |one| one.to_string());
        let about = labels(&[
            ("address", &path.address),
            ("kind", path.kind.as_str()),
            ("group", &number(path.group)),
            ("relative_port", &number(path.relative_port)),
        ]);
        text.sample("path_info", &format!("{of},{about}"), 1);
    }
    text.gauge("path_state", None, "1 for the state that the path is in, 0 for the others.");
    for (of, path) in &all {
        for state in PathState::ALL {
            let labels = format!("{of},{}", labels(&[("state", state.as_str())]));
            text.sample("path_state", &labels, u8::from(*state == path.state));
        }
    }
    let help = "1 for the asymmetric access state of the path's port, 0 for the others.";
    text.gauge("path_access_state", None, help);
    for (of, path) in &all {
        for state in AccessState::ALL {
            let labels = format!("{of},{}", labels(&[("state", state.as_str())]));
            text.sample("path_access_state", &labels, u8::from(*state == path.access_state));
        }
    }
    text.gauge("path_state_age_seconds", Some("seconds"), "How long the path is in its state.");
    for (of, path) in &all {
        text.sample("path_state_age_seconds", of, format!("{:.3}", path.since));
    }
    text.gauge("path_inflight_commands", None, "Commands that are on the path.");
    for (of, path) in &all {
        text.sample("path_inflight_commands", of, path.inflight);
    }
}

/// The counters of LUNs or of paths, which are the same.
fn counters(text: &mut Text, of: &str, whose: &str, all: &[(String, &Counters)]) {
    let name = format!("{of}_commands");
    text.counter(&name, None, &format!("Commands of {whose} that were answered, by kind."));
    for (labels, counters) in all {
        let kinds =
            [("read", counters.reads), ("write", counters.writes), ("other", counters.other)];
        for (kind, count) in kinds {
            text.total(&name, &format!("{labels},{}", self::labels(&[("kind", kind)])), count);
        }
    }
    let plain: [Plain; 4] = [
        ("read_bytes", Some("bytes"), "Bytes that were read from", |one| one.read_bytes),
        ("written_bytes", Some("bytes"), "Bytes that were written to", |one| one.write_bytes),
        ("retries", None, "Attempts that were not a command's first, on", |one| one.retries),
        ("failovers", None, "Commands that went on over another path, of", |one| one.failovers),
    ];
    for (suffix, unit, help, value) in plain {
        let name = format!("{of}_{suffix}");
        text.counter(&name, unit, &format!("{help} {whose}."));
        for (labels, counters) in all {
            text.total(&name, labels, value(counters));
        }
    }
    let name = format!("{of}_errors");
    text.counter(&name, None, &format!("Attempts on {whose} without a good end, by class."));
    for (labels, counters) in all {
        for (class, count) in &counters.errors {
            text.total(&name, &format!("{labels},{}", self::labels(&[("class", class)])), *count);
        }
    }
    let name = format!("{of}_latency_seconds");
    let help = format!("Time from sending to the end of answered commands of {whose}.");
    text.family(&name, "histogram", Some("seconds"), &help);
    for (labels, counters) in all {
        histogram(text, &name, labels, counters);
    }
}

/// Ours count each command in one bucket; here a bucket holds all that come before it.
fn histogram(text: &mut Text, name: &str, labels: &str, counters: &Counters) {
    let mut below = 0;
    for bucket in &counters.latency {
        below += bucket.count;
        if let Some(us) = bucket.le_us {
            let le = self::labels(&[("le", &seconds(us))]);
            text.sample(&format!("{name}_bucket"), &format!("{labels},{le}"), below);
        }
    }
    text.sample(&format!("{name}_bucket"), &format!("{labels},le=\"+Inf\""), below);
    text.sample(&format!("{name}_count"), labels, below);
    text.sample(&format!("{name}_sum"), labels, counters.latency_sum_us as f64 / 1e6);
}

/// Microseconds in seconds, as Go and Python write the number: series are found by it.
fn seconds(us: u64) -> String {
    let value = us as f64 / 1e6;
    if us >= 100 {
        let text = value.to_string();
        return if text.contains('.') { text } else { text + ".0" };
    }
    let text = format!("{value:e}");
    match text.split_once("e-") {
        Some((digits, exponent)) => format!("{digits}e-{exponent:0>2}"),
        None => text,
    }
}

/// `a="b",c="d"`, with what the format wants escaped.
fn labels(pairs: &[(&str, &str)]) -> String {
    let escape =
        |value: &str| value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let pairs: Vec<String> =
        pairs.iter().map(|(name, value)| format!("{name}=\"{}\"", escape(value))).collect();
    pairs.join(",")
}

struct Text {
    out: String,
    format: Format,
}

impl Text {
    fn gauge(&mut self, name: &str, unit: Option<&str>, help: &str) {
        self.family(name, "gauge", unit, help);
    }

    fn counter(&mut self, name: &str, unit: Option<&str>, help: &str) {
        match self.format {
            Format::OpenMetrics => self.family(name, "counter", unit, help),
            Format::Text => self.family(&format!("{name}_total"), "counter", unit, help),
        }
    }

    // A string takes whatever is written to it, here and below.
    fn family(&mut self, name: &str, kind: &str, unit: Option<&str>, help: &str) {
        let _ = writeln!(self.out, "# TYPE mpath_{name} {kind}");
        if let (Some(unit), Format::OpenMetrics) = (unit, self.format) {
            let _ = writeln!(self.out, "# UNIT mpath_{name} {unit}");
        }
        let _ = writeln!(self.out, "# HELP mpath_{name} {help}");
    }

    fn sample(&mut self, name: &str, labels: &str, value: impl std::fmt::Display) {
        let _ = writeln!(self.out, "mpath_{name}{{{labels}}} {value}");
    }

    fn total(&mut self, name: &str, labels: &str, value: u64) {
        self.sample(&format!("{name}_total"), labels, value);
    }
}

#[cfg(test)]
mod tests;
