//! Host devices of a backend: timers of the host, who else holds them, who may open them.

use std::collections::BTreeSet;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use vhost_user_scsi_mpath::control::{PathKind, PathReport};
use vhost_user_scsi_mpath::path::sg::host::holders::held;
use vhost_user_scsi_mpath::path::sg::host::tuning::warnings;
use vhost_user_scsi_mpath::path::sg::host::{Device, Roots};

use super::Patient;
use super::finding::{Finding, Wrong};
use super::process::Rights;

/// Reading and writing, as a file's rights have it.
const READ_WRITE: u32 = 0o6;

/// All of a backend's host devices.
pub fn findings(roots: &Roots, patient: &Patient) -> Vec<Finding> {
    let rights = Rights::of(roots, patient.about.pid);
    let finding = |check, path: &PathReport, what: &str, wrong| Finding {
        check,
        backend: Some(patient.name.clone()),
        looked_at: format!("path {}: {what}", path.name),
        wrong,
    };
    let mut findings = Vec::new();
    // Two paths over one adapter have the same timer.
    let mut told = BTreeSet::new();
    for path in patient.paths.iter().filter(|path| path.kind == PathKind::Sg) {
        let device = match device(roots, path) {
            Ok(device) => device,
            Err(what) => {
                let mend = "lsscsi -g lists the disks that there are, and their nodes".to_owned();
                findings.push(finding("device", path, "its device", Some(Wrong { what, mend })));
                continue;
            }
        };
        findings.push(finding("holder", path, "who holds its disk", holder(roots, &device)));
        if let Some(rights) = &rights {
            let wrong = privilege(roots, path, &device, rights);
            findings.push(finding("privilege", path, "what its process may do", wrong));
        }
        let timers = timers(roots, &device);
        if timers.is_empty() {
            findings.push(finding("timer", path, "timers of the host", None));
        }
        for wrong in timers.into_iter().filter(|wrong| told.insert(wrong.what.clone())) {
            findings.push(finding("timer", path, "timers of the host", Some(wrong)));
        }
    }
    findings
}

/// The device that the path leads to now, or why none.
fn device(roots: &Roots, path: &PathReport) -> Result<Device, String> {
    let by_hctl = path.hctl.as_ref().and_then(|hctl| Device::of_hctl(roots, hctl.parse().ok()?));
    match by_hctl {
        Some(device) => Ok(device),
        None => Device::of_node(roots, Path::new(&path.address)).map_err(|why| why.to_string()),
    }
}

fn timers(roots: &Roots, device: &Device) -> Vec<Wrong> {
    let wrong = |warning: vhost_user_scsi_mpath::path::sg::host::tuning::Warning| Wrong {
        what: format!("{}: {}", warning.what, warning.why),
        mend: format!("now: {}; for good: {}", warning.now, warning.for_good),
    };
    warnings(roots, device).into_iter().map(wrong).collect()
}

fn holder(roots: &Roots, device: &Device) -> Option<Wrong> {
    let held = held(roots, device)?;
    let all = |words: Vec<String>| words.join("; and ");
    let who = held.holders.iter().map(ToString::to_string).collect();
    let mend = held.holders.iter().map(|holder| holder.remedy(&held)).collect();
    Some(Wrong {
        what: format!("{} is held by {}", held.node.display(), all(who)),
        mend: all(mend),
    })
}

fn privilege(roots: &Roots, path: &PathReport, device: &Device, rights: &Rights) -> Option<Wrong> {
    let node = PathBuf::from(&path.address);
    let metadata = std::fs::metadata(&node).ok()?;
    if !rights.may(&node, READ_WRITE) {
        let (owner, group) = (metadata.uid(), metadata.gid());
        let mode = metadata.permissions().mode() & 0o777;
        return Some(Wrong {
            what: format!(
                "it may not read and write {}, which is user {owner}'s and group {group}'s, mode {mode:03o}",
                node.display()
            ),
            mend: format!("SupplementaryGroups={group} in its unit, and start it again"),
        });
    }
    let sg = device.nodes(roots).sg;
    let is_sg = std::fs::canonicalize(&node).ok() == sg;
    (!is_sg && !rights.has_rawio()).then(|| Wrong {
        what: format!(
            "without CAP_SYS_RAWIO the kernel refuses some of the guest's commands on {}",
            node.display()
        ),
        mend: format!(
            "make {} the path's address, or AmbientCapabilities=CAP_SYS_RAWIO in its unit",
            sg.map_or_else(|| "its sg node".to_owned(), |sg| sg.display().to_string())
        ),
    })
}
