//! The tree of `multipath -ll`: the LUN, its groups by target port group, and their paths.

use std::fmt::Write;

use vhost_user_scsi_mpath::config::wwid::to_multipath;
use vhost_user_scsi_mpath::control::{AccessState, LunReport, PathReport, PathState};

use crate::human;
use crate::paint::{self, Paint, Shade};

/// Paths of one target port group.
#[derive(Debug)]
pub struct Group<'a> {
    /// Its number; paths that have told none are together.
    pub number: Option<u16>,
    /// As multipath's alua prioritizer has it: the best group has the most.
    pub priority: i64,
    /// The word for it.
    pub status: &'static str,
    /// Its paths, in the backend's order.
    pub paths: Vec<&'a PathReport>,
}

/// A path that takes commands.
pub fn is_usable(path: &PathReport) -> bool {
    let state = matches!(path.state, PathState::Up | PathState::Shaky);
    let access = matches!(
        path.access_state,
        AccessState::ActiveOptimized | AccessState::ActiveNonOptimized | AccessState::Unknown
    );
    state && access
}

/// A path's priority, in multipath's numbers.
pub fn priority(path: &PathReport) -> i64 {
    let access = match path.access_state {
        AccessState::ActiveOptimized => 50,
        AccessState::ActiveNonOptimized => 10,
        AccessState::Standby | AccessState::Unknown => 1,
        AccessState::Unavailable | AccessState::Offline | AccessState::Transitioning => 0,
    };
    let preferred = path.preferred && path.access_state != AccessState::ActiveOptimized;
    access + if preferred { 80 } else { 0 }
}

/// The groups, best first.
pub fn groups(paths: &[PathReport]) -> Vec<Group<'_>> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    for path in paths {
        match groups.iter_mut().find(|group| group.number == path.group) {
            Some(group) => group.paths.push(path),
            None => groups.push(Group {
                number: path.group,
                priority: 0,
                status: "disabled",
                paths: vec![path],
            }),
        }
    }
    for group in &mut groups {
        let usable: Vec<i64> =
            group.paths.iter().filter(|path| is_usable(path)).map(|path| priority(path)).collect();
        let all = || group.paths.iter().map(|path| priority(path)).max();
        group.priority = usable.iter().copied().max().or_else(all).unwrap_or(0);
        if !usable.is_empty() {
            group.status = "enabled";
        }
    }
    groups.sort_by_key(|group| {
        (group.status == "disabled", -group.priority, group.number.is_none(), group.number)
    });
    for group in &mut groups {
        // Failback may keep commands on a group that is not the best one.
        let current = group.paths.iter().any(|path| is_usable(path) && path.current);
        if group.status == "enabled" && current {
            group.status = "active";
        }
    }
    groups
}

/// The whole tree.
pub fn render(name: &str, lun: &LunReport, paths: &[PathReport], paint: Paint) -> String {
    let mut text = head(name, lun, paint);
    let groups = groups(paths);
    if groups.is_empty() {
        text.push_str("`- no paths\n");
    }
    let widths = Widths::of(paths);
    for (index, group) in groups.iter().enumerate() {
        let last = index + 1 == groups.len();
        let number = group.number.map_or_else(|| "-".to_owned(), |number| number.to_string());
        let shade = if group.status == "disabled" { Shade::Bad } else { Shade::Good };
        let _ = writeln!(
            text,
            "{}-+- policy='{}' group={number} prio={} status={}",
            if last { '`' } else { '|' },
            lun.iopolicy,
            group.priority,
            paint.shade(shade, group.status),
        );
        for (index, path) in group.paths.iter().enumerate() {
            let rail = if last { ' ' } else { '|' };
            let branch = if index + 1 == group.paths.len() { '`' } else { '|' };
            let line = path_line(path, &widths, paint);
            let _ = writeln!(text, "{rail} {branch}- {line}");
        }
    }
    text
}

fn head(name: &str, lun: &LunReport, paint: Paint) -> String {
    let wwid = lun.wwid.as_deref().map_or_else(|| "(no WWID yet)".to_owned(), to_multipath);
    let mut text = format!("{} {name}", paint.bold(&wwid));
    if let (Some(vendor), Some(product)) = (&lun.vendor, &lun.product) {
        let _ = write!(text, " {},{}", vendor.trim(), product.trim());
    }
    let size = match (lun.blocks, lun.block_size) {
        (Some(blocks), Some(size)) => human::size(blocks.saturating_mul(u64::from(size))),
        _ => "-".to_owned(),
    };
    let _ = writeln!(
        text,
        "\nsize={size} policy='{}' no-path='{}' failback='{}' state={} inflight={} queued={} guest={}",
        lun.iopolicy,
        human::no_path(lun.no_path_retry),
        lun.failback,
        paint.shade(paint::lun(lun.state), lun.state.as_str()),
        lun.inflight,
        lun.queued,
        if lun.connected { "connected" } else { "none" },
    );
    text
}

/// Columns are as wide as their widest cell, over all groups.
struct Widths {
    name: usize,
    address: usize,
    state: usize,
    access: usize,
    inflight: usize,
    latency: usize,
}

impl Widths {
    fn of(paths: &[PathReport]) -> Self {
        let widest = |width: &dyn Fn(&PathReport) -> usize| paths.iter().map(width).max();
        let widest = |width: &dyn Fn(&PathReport) -> usize| widest(width).unwrap_or(0);
        Widths {
            name: widest(&|path| path.name.chars().count()),
            address: widest(&|path| address(path).chars().count()),
            state: widest(&|path| path.state.as_str().len()),
            access: widest(&|path| path.access_state.as_str().len()),
            inflight: widest(&|path| path.inflight.to_string().len()),
            latency: widest(&|path| human::latency(path.latency_us).len()),
        }
    }
}

/// What a path is, beside its name: a host device's own names say more than its address.
fn address(path: &PathReport) -> String {
    match &path.hctl {
        Some(hctl) => [std::slice::from_ref(hctl), path.devices.as_slice()].concat().join(" "),
        None if path.address == path.name => String::new(),
        None => path.address.clone(),
    }
}

fn path_line(path: &PathReport, widths: &Widths, paint: Paint) -> String {
    let mut line = format!("{:<width$} ", path.name, width = widths.name);
    if widths.address > 0 {
        let _ = write!(line, "{:<width$} ", address(path), width = widths.address);
    }
    let state = format!("{:<width$}", path.state, width = widths.state);
    let _ = write!(
        line,
        "{} {:<access$} inflight={:<inflight$} latency={:<latency$}",
        paint.shade(paint::path(path.state), &state),
        path.access_state,
        path.inflight,
        human::latency(path.latency_us),
        access = widths.access,
        inflight = widths.inflight,
        latency = widths.latency,
    );
    if path.state != PathState::Up {
        let reason = if path.reason.is_empty() { "no reason given" } else { &path.reason };
        let _ = write!(line, " for {}: {reason}", human::duration(path.since));
    }
    line.trim_end().to_owned()
}
