//! **The table**: each setting of multipath.conf, and ours or why there is none. The one in
//! `docs/from-dm-multipath.md` says the same; a test compares their rows.

use super::parse::{Entry, Section};

/// What a setting comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// A line of `[lun]`.
    Ours {
        /// Its key.
        key: &'static str,
        /// Its value, as TOML.
        value: String,
        /// What to know about it.
        note: String,
    },
    /// It has no counterpart, and why.
    None(&'static str),
    /// It is not for a LUN's settings, or has been used already.
    Elsewhere,
}

/// The sections that hold for one LUN.
pub struct Scope<'a> {
    sections: Vec<(&'static str, &'a Section)>,
}

impl<'a> Scope<'a> {
    /// From the strongest to the weakest.
    pub fn new(root: &'a Section, stanza: Option<&'a Section>) -> Self {
        let mut sections: Vec<(&str, &Section)> = Vec::new();
        sections.extend(stanza.map(|section| ("multipath", section)));
        sections.extend(root.sections("overrides").map(|section| ("overrides", section)));
        sections.extend(root.sections("defaults").map(|section| ("defaults", section)));
        Scope { sections }
    }

    /// All settings, those that win first.
    pub fn entries(&self) -> impl Iterator<Item = (&'static str, &'a Entry)> {
        let of = |(place, section): &(&'static str, &'a Section)| {
            let place = *place;
            section.entries.iter().rev().map(move |entry| (place, entry))
        };
        self.sections.iter().flat_map(of).collect::<Vec<_>>().into_iter()
    }

    /// True where a section that is stronger than an array's has a setting of that name.
    pub fn overrides(&self, name: &str) -> bool {
        self.entries().any(|(place, entry)| place != "defaults" && entry.name == name)
    }

    fn value(&self, name: &str) -> Option<&'a str> {
        self.entries().find(|(_, entry)| entry.name == name).map(|(_, entry)| entry.value.as_str())
    }
}

/// multipath's own default, in seconds.
const POLLING_INTERVAL: u64 = 5;

/// What the setting comes to for a LUN in that scope.
pub fn meaning(scope: &Scope<'_>, entry: &Entry) -> Meaning {
    let value = entry.value.trim();
    match entry.name.as_str() {
        "no_path_retry" => no_path_retry(scope, value),
        "features" => features(scope, value),
        "failback" => failback(value),
        "path_selector" => path_selector(value),
        "path_grouping_policy" => Meaning::None(path_grouping_policy(value)),
        "wwid" | "alias" | "vendor" | "product" | "revision" => Meaning::Elsewhere,
        name => Meaning::None(without_counterpart(name)),
    }
}

fn ours(key: &'static str, value: &str, note: impl Into<String>) -> Meaning {
    Meaning::Ours { key, value: value.to_owned(), note: note.into() }
}

fn no_path_retry(scope: &Scope<'_>, value: &str) -> Meaning {
    match (value, value.parse::<u64>()) {
        ("queue", _) => ours("no_path_retry", "\"queue\"", ""),
        ("fail" | "0", _) => ours("no_path_retry", "\"fail\"", ""),
        (_, Ok(checks)) => {
            let interval = scope.value("polling_interval").and_then(|text| text.parse().ok());
            let interval = interval.unwrap_or(POLLING_INTERVAL);
            let note = format!("{checks} checks, {interval} s apart (polling_interval)");
            ours("no_path_retry", &checks.saturating_mul(interval).to_string(), note)
        }
        _ => Meaning::None("neither fail, queue nor a number"),
    }
}

fn features(scope: &Scope<'_>, value: &str) -> Meaning {
    if !value.contains("queue_if_no_path") {
        return Meaning::None("device mapper's own");
    }
    match scope.value("no_path_retry") {
        Some(_) => Meaning::None("no_path_retry is set and wins"),
        None => ours("no_path_retry", "\"queue\"", "queue_if_no_path"),
    }
}

fn failback(value: &str) -> Meaning {
    match (value, value.parse::<u64>()) {
        ("immediate" | "manual" | "followover", _) => ours("failback", &format!("\"{value}\""), ""),
        (_, Ok(seconds)) => ours("failback", &seconds.to_string(), "seconds, as there"),
        _ => Meaning::None("neither immediate, manual, followover nor a number"),
    }
}

fn path_selector(value: &str) -> Meaning {
    match value.split_whitespace().next().unwrap_or_default() {
        "service-time" => ours("iopolicy", "\"service-time\"", ""),
        "round-robin" => ours("iopolicy", "\"round-robin\"", ""),
        "queue-length" => ours("iopolicy", "\"queue-depth\"", ""),
        "historical-service-time" => {
            ours("iopolicy", "\"service-time\"", "which goes by measured times here")
        }
        "io-affinity" => ours("iopolicy", "\"numa\"", "by memory node, not by CPU"),
        _ => Meaning::None("no such selector is known here"),
    }
}

fn path_grouping_policy(value: &str) -> &'static str {
    match value {
        "group_by_prio" | "group_by_tpg" => {
            "nothing to set: paths are grouped by what the array tells of its ports (ALUA)"
        }
        "multibus" => "nothing to set: all paths with the same access state are used together",
        "failover" => "no counterpart: paths with the same access state are used together",
        _ => "no counterpart: groups are the array's target port groups",
    }
}

/// Why a setting has no counterpart.
pub const WITHOUT_COUNTERPART: &[(&[&str], &str)] = &[
    (
        &["polling_interval", "max_polling_interval"],
        "no counterpart: a path in use is asked every 5 s, a failed one after 0.5 s to 5 s",
    ),
    (
        &["fast_io_fail_tmo", "dev_loss_tmo", "eh_deadline"],
        "no counterpart: the kernel's transport timers are left alone; path_timeout is when an \
         attempt on a path is given up",
    ),
    (
        &["prio", "prio_args", "detect_prio", "hardware_handler", "retain_attached_hw_handler"],
        "nothing to set: priorities are the array's access states (ALUA)",
    ),
    (
        &["path_checker", "checker", "detect_checker", "checker_timeout"],
        "nothing to set: paths are asked with TEST UNIT READY and for their identity",
    ),
    (
        &["rr_min_io", "rr_min_io_rq", "rr_weight"],
        "no counterpart: the path is chosen anew for each command",
    ),
    (
        &[
            "marginal_path_err_sample_time",
            "marginal_path_err_rate_threshold",
            "marginal_path_err_recheck_gap_time",
            "marginal_path_double_failed_time",
            "marginal_pathgroups",
            "san_path_err_threshold",
            "san_path_err_forget_rate",
            "san_path_err_recovery_time",
            "delay_watch_checks",
            "delay_wait_checks",
        ],
        "no counterpart: there is nothing to tune about paths that come and go",
    ),
    (
        &["reservation_key", "prkeys_file", "prio_key", "all_tg_pt"],
        "no counterpart: reservations are the guest's",
    ),
    (
        &["user_friendly_names", "alias_prefix", "bindings_file", "wwids_file", "find_multipaths"],
        "no counterpart: a LUN is named by its configuration file",
    ),
    (
        &["uid_attribute", "uid_attrs", "getuid_callout", "recheck_wwid"],
        "nothing to set: the WWID is the array's own (INQUIRY page 83h), and is asked again",
    ),
    (
        &["max_sectors_kb", "queue_without_daemon", "flush_on_last_del", "deferred_remove"],
        "no counterpart: there is no kernel block device",
    ),
];

fn without_counterpart(name: &str) -> &'static str {
    let row = WITHOUT_COUNTERPART.iter().find(|(names, _)| names.contains(&name));
    row.map_or("no counterpart is known", |(_, why)| why)
}
