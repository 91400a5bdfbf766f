//! What queries return: the core's words in the control socket's.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::members::Member;
use crate::config::{self, Listen};
use crate::control::{
    AccessState, BackendReport, Counters, HedgeStats, LatencyBucket, LunReport, LunState,
    PathReport, PathState, PathStats, SettingsReport, StatsReport,
};
use crate::engine::{Deadlines, Manager, numa};
use crate::ids::PathId;
use crate::multipath::select::{PathSet, nearest};
use crate::multipath::{self, Policy, Table};
use crate::path::Transport;
use crate::path::any::AnyPath;
use crate::scsi::alua;
use crate::stats::{ERROR_CLASSES, HedgeTotals, Totals, bucket_end_us};

/// `query-backend`.
pub fn backend(backend: &config::Backend) -> BackendReport {
    let absolute = |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone());
    let socket = match &backend.listen {
        Some(Listen::Path(path) | Listen::Activated { path, .. }) => Some(absolute(path)),
        Some(Listen::Fd(_)) | None => None,
    };
    BackendReport {
        pid: std::process::id(),
        socket,
        state_dir: state_dir(backend),
        request_queues: backend.request_queues,
    }
}

/// Where state is kept, if it is. A service may have several directories; the first one is ours.
pub fn state_dir(backend: &config::Backend) -> Option<PathBuf> {
    let of_the_service = || {
        let directories = std::env::var_os("STATE_DIRECTORY")?;
        std::env::split_paths(&directories).find(|first| !first.as_os_str().is_empty())
    };
    backend.state_dir.clone().or_else(of_the_service)
}

/// `query-lun`.
pub fn lun(manager: &Manager<AnyPath>) -> LunReport {
    let core = manager.core();
    let face = core.face();
    let vendor = face.map(|face| face.vendor());
    let owned = |text: &str| text.to_owned();
    LunReport {
        wwid: face.map(|face| face.wwid.sysfs()),
        vendor: vendor.map(|vendor| owned(vendor.0)),
        product: vendor.map(|vendor| owned(vendor.1)),
        revision: vendor.map(|vendor| owned(vendor.2)),
        serial: face.map(|face| face.serial.clone()),
        block_size: face.map(|face| face.capacity.block_size),
        blocks: face.map(|face| face.capacity.blocks),
        iopolicy: iopolicy(core.settings().policy),
        no_path_retry: no_path_retry(core.settings().no_path_retry),
        failback: failback(core.choice().policy()),
        state: lun_state(core.lun_state()),
        queued: queued(manager),
        inflight: inflight(manager),
        connected: manager.is_connected(),
    }
}

/// Commands that wait for a path.
pub fn queued(manager: &Manager<AnyPath>) -> u64 {
    manager.hub().counters.held().saturating_sub(inflight(manager))
}

fn inflight(manager: &Manager<AnyPath>) -> u64 {
    manager.core().paths().map(|path| u64::from(path.load.commands())).sum()
}

/// `query-settings`.
pub fn settings(manager: &Manager<AnyPath>, uptime: Duration) -> SettingsReport {
    let Deadlines { path_timeout, command_deadline, hedging } = manager.deadlines();
    let settings = manager.core().settings();
    SettingsReport {
        command_deadline: command_deadline.as_secs_f64(),
        path_timeout: path_timeout.as_secs_f64(),
        write_quiesce: settings.write_quiesce.as_secs_f64(),
        explicit_alua: settings.explicit_alua,
        hedged_reads: hedging.is_some(),
        hedge_budget: hedging.map(|hedging| hedging.budget),
        hedge_percentile: hedging.map(|hedging| f64::from(hedging.permille) / 10.0),
        uptime: uptime.as_secs_f64(),
    }
}

/// `query-paths`.
pub fn paths(manager: &Manager<AnyPath>, members: &[Member], now: Instant) -> Vec<PathReport> {
    let table = manager.hub().snapshot().table.clone();
    let core = manager.core();
    let report = |path: &multipath::path::Path| {
        let member = members.iter().find(|member| member.name == path.name)?;
        Some(PathReport {
            name: path.name.clone(),
            address: member.address.clone(),
            kind: member.kind(),
            wwid: path.wwid.as_ref().map(|wwid| wwid.sysfs()),
            state: path_state(path.state),
            access_state: access_state(path.access),
            group: path.group().id,
            current: core.choice().is_current(path.group()),
            relative_port: path.port.relative_port,
            preferred: path.preferred,
            hctl: member.hctl(),
            devices: member.devices(),
            engine: Some(member.transport.engine().into_owned()),
            numa_node: path.numa_node.map(u32::from),
            numa_nodes: numa_nodes(&table, path.id),
            inflight: u64::from(path.load.commands()),
            latency_us: path.load.latency().map(|latency| latency.as_nanos().div_ceil(1000) as u64),
            since: now.saturating_duration_since(path.since).as_secs_f64(),
            reason: path.explanation(now),
            next_check: path.is_asked().then(|| next_check(path, now)),
        })
    };
    core.paths().filter_map(report).collect()
}

/// The memory nodes whose commands go over `path`: under `numa`, and on a host that has some.
fn numa_nodes(table: &Table, path: PathId) -> Vec<u32> {
    let nodes = &numa::host().nodes;
    let chosen = |node: &u16| nearest(table, &PathSet::default(), nodes, Some(*node));
    let is_chosen = |node: &u16| chosen(node).is_some_and(|entry| entry.id == path);
    match table.policy {
        Policy::Numa => nodes.known().filter(is_chosen).map(u32::from).collect(),
        _ => Vec::new(),
    }
}

/// Seconds until the path is asked again.
fn next_check(path: &multipath::path::Path, now: Instant) -> f64 {
    path.check.due().map_or(0.0, |due| due.saturating_duration_since(now).as_secs_f64())
}

/// `query-stats`.
pub fn stats(manager: &Manager<AnyPath>) -> StatsReport {
    let mut lun: Totals = manager.hub().counters.removed();
    let mut paths = Vec::new();
    for path in manager.core().paths() {
        let totals = manager.hub().counters.path(path.id);
        lun.merge(&totals);
        paths.push(PathStats { name: path.name.clone(), counters: counters(&totals) });
    }
    let HedgeTotals { sent, won, denied, pauses } = manager.hub().counters.hedges();
    let hedges = HedgeStats { sent, won, denied, pauses };
    StatsReport { lun: counters(&lun), paths, hedges }
}

fn counters(totals: &Totals) -> Counters {
    let errors = ERROR_CLASSES.iter().zip(totals.errors);
    let bucket =
        |(at, count): (usize, &u64)| LatencyBucket { le_us: bucket_end_us(at), count: *count };
    Counters {
        reads: totals.reads,
        writes: totals.writes,
        other: totals.other,
        read_bytes: totals.read_bytes,
        write_bytes: totals.write_bytes,
        errors: errors.map(|(class, count)| ((*class).to_owned(), count)).collect(),
        retries: totals.retries,
        failovers: totals.failovers,
        latency: totals.latency.iter().enumerate().map(bucket).collect(),
        latency_sum_us: totals.latency_sum_us,
    }
}

/// The core's state in the control socket's words.
pub fn path_state(state: multipath::PathState) -> PathState {
    use multipath::PathState as Core;
    match state {
        Core::Checking => PathState::Checking,
        Core::Registering => PathState::Registering,
        Core::Up => PathState::Up,
        Core::Shaky => PathState::Shaky,
        Core::Blocked => PathState::Blocked,
        Core::Failed => PathState::Failed,
        Core::Draining => PathState::Draining,
        Core::Disabled => PathState::Disabled,
        Core::WrongLun => PathState::WrongLun,
    }
}

/// As [`path_state`], for the LUN.
pub fn lun_state(state: multipath::LunState) -> LunState {
    match state {
        multipath::LunState::Healthy => LunState::Healthy,
        multipath::LunState::Degraded => LunState::Degraded,
        multipath::LunState::NoPath => LunState::NoPath,
        multipath::LunState::Lost => LunState::Lost,
    }
}

fn access_state(state: alua::AccessState) -> AccessState {
    match state {
        alua::AccessState::ActiveOptimized => AccessState::ActiveOptimized,
        alua::AccessState::ActiveNonOptimized | alua::AccessState::LbaDependent => {
            AccessState::ActiveNonOptimized
        }
        alua::AccessState::Standby => AccessState::Standby,
        alua::AccessState::Unavailable => AccessState::Unavailable,
        alua::AccessState::Offline => AccessState::Offline,
        alua::AccessState::Transitioning => AccessState::Transitioning,
        alua::AccessState::Unknown => AccessState::Unknown,
    }
}

/// The core's policy in the configuration's word, and back.
fn iopolicy(policy: Policy) -> config::IoPolicy {
    match policy {
        Policy::Numa => config::IoPolicy::Numa,
        Policy::RoundRobin => config::IoPolicy::RoundRobin,
        Policy::QueueDepth => config::IoPolicy::QueueDepth,
        Policy::ServiceTime => config::IoPolicy::ServiceTime,
    }
}

/// The other way.
pub fn policy(policy: config::IoPolicy) -> Policy {
    match policy {
        config::IoPolicy::Numa => Policy::Numa,
        config::IoPolicy::RoundRobin => Policy::RoundRobin,
        config::IoPolicy::QueueDepth => Policy::QueueDepth,
        config::IoPolicy::ServiceTime => Policy::ServiceTime,
    }
}

fn no_path_retry(retry: multipath::NoPathRetry) -> config::NoPathRetry {
    match retry {
        multipath::NoPathRetry::Queue => config::NoPathRetry::Queue,
        multipath::NoPathRetry::Fail => config::NoPathRetry::Fail,
        multipath::NoPathRetry::For(limit) => config::NoPathRetry::For(limit),
    }
}

/// The other way.
pub fn core_no_path_retry(retry: config::NoPathRetry) -> multipath::NoPathRetry {
    match retry {
        config::NoPathRetry::Queue => multipath::NoPathRetry::Queue,
        config::NoPathRetry::Fail => multipath::NoPathRetry::Fail,
        config::NoPathRetry::For(limit) => multipath::NoPathRetry::For(limit),
    }
}

fn failback(failback: multipath::Failback) -> config::Failback {
    match failback {
        multipath::Failback::Immediate => config::Failback::Immediate,
        multipath::Failback::Manual => config::Failback::Manual,
        multipath::Failback::Followover => config::Failback::Followover,
        multipath::Failback::After(time) => config::Failback::After(time),
    }
}

/// The other way.
pub fn core_failback(failback: config::Failback) -> multipath::Failback {
    match failback {
        config::Failback::Immediate => multipath::Failback::Immediate,
        config::Failback::Manual => multipath::Failback::Manual,
        config::Failback::Followover => multipath::Failback::Followover,
        config::Failback::After(time) => multipath::Failback::After(time),
    }
}
