//! The topology for programs: multipathd's JSON, with its names and types (version 0.1 of its
//! format), so that what reads `multipathd show maps json` reads this too. Our own names beside
//! them have hyphens and come straight from the control socket. What has no meaning here (device
//! mapper's counters, Fibre Channel names) has the value that multipathd gives when it knows none.

use std::path::Path;

use serde_json::{Map, Value, json};
use vhost_user_scsi_mpath::config::NoPathRetry;
use vhost_user_scsi_mpath::config::wwid::to_multipath;
use vhost_user_scsi_mpath::control::{
    AccessState, LunReport, PathKind, PathReport, PathState, StatsReport,
};

use crate::topology::{self, Group};

/// The document for some maps.
pub fn document(maps: Vec<Value>) -> Value {
    json!({"major_version": 0, "minor_version": 1, "maps": maps})
}

/// One LUN.
pub fn map(
    name: &str,
    socket: &Path,
    lun: &LunReport,
    paths: &[PathReport],
    stats: &StatsReport,
) -> Value {
    let groups = topology::groups(paths);
    let faults: u64 =
        stats.paths.iter().flat_map(|path| path.counters.errors.values()).copied().sum();
    let queueing = match lun.no_path_retry {
        NoPathRetry::Queue => "on".to_owned(),
        NoPathRetry::Fail => "off".to_owned(),
        NoPathRetry::For(time) => format!("{} sec", time.as_secs_f64()),
    };
    let numbered = groups.iter().enumerate();
    let groups: Vec<Value> =
        numbered.map(|(index, group)| group_json(index + 1, group, lun)).collect();
    let queues = lun.no_path_retry == NoPathRetry::Queue;
    let multipathd = json!({
        "name": name,
        "uuid": lun.wwid.as_deref().map_or_else(String::new, to_multipath),
        "sysfs": name,
        "failback": lun.failback.to_string(),
        "queueing": queueing,
        "paths": paths.iter().filter(|path| topology::is_usable(path)).count(),
        "write_prot": "rw",
        "dm_st": "active",
        "features": if queues { "1 queue_if_no_path" } else { "0" },
        "hwhandler": "0",
        "action": "",
        "path_faults": faults,
        "vend": lun.vendor.as_deref().unwrap_or_default().trim(),
        "prod": lun.product.as_deref().unwrap_or_default().trim(),
        "rev": lun.revision.as_deref().unwrap_or_default().trim(),
        "switch_grp": stats.lun.failovers,
        "map_loads": 0,
        "total_q_time": 0,
        "q_timeouts": 0,
        "socket": socket.to_string_lossy(),
        "path_groups": groups,
    });
    both(multipathd, ours(lun))
}

fn group_json(number: usize, group: &Group<'_>, lun: &LunReport) -> Value {
    let marginal = |path: &&PathReport| path.state == PathState::Shaky;
    json!({
        "selector": lun.iopolicy.as_str(),
        "pri": group.priority,
        "dm_st": group.status,
        "marginal_st": if group.paths.iter().all(marginal) { "marginal" } else { "normal" },
        "group": number,
        "target-port-group": group.number,
        "paths": group.paths.iter().map(|path| path_json(path)).collect::<Vec<_>>(),
    })
}

fn path_json(path: &PathReport) -> Value {
    let device = path.devices.first().map_or(path.name.as_str(), String::as_str);
    let gone = matches!(path.access_state, AccessState::Offline) || path.state == PathState::Failed;
    let multipathd = json!({
        "dev": device.trim_start_matches("/dev/"),
        "dev_t": "",
        "dm_st": if topology::is_usable(path) { "active" } else { "failed" },
        "dev_st": if gone { "offline" } else { "running" },
        "chk_st": checker(path),
        "checker": "tur",
        "pri": topology::priority(path),
        "host_wwnn": "[undef]",
        "target_wwnn": "[undef]",
        "host_wwpn": "[undef]",
        "target_wwpn": "[undef]",
        "host_adapter": if path.kind == PathKind::Sg { host(path) } else { "[undef]".to_owned() },
        "lun_hex": "0x0000000000000000",
        "marginal_st": if path.state == PathState::Shaky { "marginal" } else { "normal" },
    });
    // The group is that of its array, and multipathd's paths have no such member.
    both(multipathd, ours(path))
}

/// multipathd's words for what its checker found.
fn checker(path: &PathReport) -> &'static str {
    match (path.state, path.access_state) {
        (PathState::Up, AccessState::Standby | AccessState::Unavailable) => "ghost",
        (PathState::Up, AccessState::Transitioning) => "i/o pending",
        (PathState::Up, AccessState::Offline) => "faulty",
        (PathState::Up, _) => "ready",
        (PathState::Shaky, _) => "shaky",
        (PathState::Checking | PathState::Registering | PathState::Blocked, _) => "i/o pending",
        (PathState::Failed | PathState::WrongLun, _) => "faulty",
        // multipathd does not check these either.
        (PathState::Draining | PathState::Disabled, _) => "undef",
    }
}

/// The host's number, as multipathd names adapters it cannot look up.
fn host(path: &PathReport) -> String {
    let number = path.hctl.as_deref().and_then(|hctl| hctl.split(':').next());
    number.map_or_else(|| "[undef]".to_owned(), |number| format!("host{number}"))
}

/// A report's own members.
fn ours(report: &impl serde::Serialize) -> Map<String, Value> {
    match serde_json::to_value(report) {
        Ok(Value::Object(members)) => members,
        // A report is an object; were it not, multipathd's names are all there is.
        _ => Map::new(),
    }
}

/// multipathd's members win where both have one of the same name.
fn both(multipathd: Value, mut ours: Map<String, Value>) -> Value {
    if let Value::Object(members) = multipathd {
        ours.extend(members);
    }
    Value::Object(ours)
}
