//! Timers of the host that keep commands for long when a link is lost, and the line that mends each.

use std::fmt;
use std::path::Path;

use super::files::{attribute, last_name};
use super::transport::HostTransport;
use super::{Device, Roots};
use crate::limits::HOST_PATIENCE;

/// Something to be warned of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// What is set, and where.
    pub what: String,
    /// Why that is bad.
    pub why: String,
    /// What to write now.
    pub now: String,
    /// What makes it last.
    pub for_good: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Warning { what, why, now, for_good } = self;
        write!(f, "{what}: {why}; now: {now}; for good: {for_good}")
    }
}

/// What is to be warned of for this device.
pub fn warnings(roots: &Roots, device: &Device) -> Vec<Warning> {
    match device.transport(roots) {
        HostTransport::Fc(port) => {
            let mut found: Vec<Warning> = remote_port(&port).into_iter().collect();
            found.extend(error_handler(roots, device));
            found
        }
        HostTransport::Iscsi(session) => recovery(&session).into_iter().collect(),
        HostTransport::Sas => error_handler(roots, device).into_iter().collect(),
        _ => Vec::new(),
    }
}

/// A number of seconds; `None` for "off", which is for ever.
fn seconds(text: &str) -> Option<u64> {
    text.parse().ok()
}

fn remote_port(port: &Path) -> Option<Warning> {
    let set = attribute(&port.join("fast_io_fail_tmo"))?;
    if seconds(&set).is_some_and(|set| set <= HOST_PATIENCE.as_secs()) {
        return None;
    }
    let name = last_name(port)?;
    let loss = attribute(&port.join("dev_loss_tmo")).unwrap_or_else(|| "unknown".to_owned());
    let wait = if seconds(&set).is_some() { set.clone() } else { format!("dev_loss_tmo, {loss}") };
    Some(Warning {
        what: format!("fast_io_fail_tmo of {name} is {set}"),
        why: format!(
            "when the port goes, the kernel keeps what was sent for so many seconds ({wait}), and \
             a write among it cannot go over another path before"
        ),
        now: format!("echo 5 > {}", port.join("fast_io_fail_tmo").display()),
        for_good:
            "defaults { fast_io_fail_tmo 5 } in /etc/multipath.conf with multipathd running, \
                   or a udev rule for SUBSYSTEM==\"fc_remote_ports\""
                .to_owned(),
    })
}

fn recovery(session: &Path) -> Option<Warning> {
    let set = attribute(&session.join("recovery_tmo"))?;
    if seconds(&set).is_some_and(|set| set <= HOST_PATIENCE.as_secs()) {
        return None;
    }
    let name = last_name(session)?;
    Some(Warning {
        what: format!("recovery_tmo of {name} is {set}"),
        why: "when the session is lost, the kernel keeps what was sent for so many seconds, and a \
              write among it cannot go over another path before"
            .to_owned(),
        now: format!("echo 5 > {}", session.join("recovery_tmo").display()),
        for_good: "node.session.timeo.replacement_timeout = 5 in /etc/iscsi/iscsid.conf, and \
                   iscsiadm -m node -o update with the same for targets that are known already"
            .to_owned(),
    })
}

fn error_handler(roots: &Roots, device: &Device) -> Option<Warning> {
    let host = format!("host{}", device.id.hctl.host);
    let file = roots.sys.join("class/scsi_host").join(&host).join("eh_deadline");
    if attribute(&file)? != "off" {
        return None;
    }
    Some(Warning {
        what: format!("eh_deadline of {host} is off"),
        why: "one device that does not answer starts an error recovery without an end in sight, \
              and every path over this adapter stands still meanwhile"
            .to_owned(),
        now: format!(
            "echo 30 > {} (when that time is over the adapter is reset: only where all disks \
             behind it have another path)",
            file.display()
        ),
        for_good: "defaults { eh_deadline 30 } in /etc/multipath.conf with multipathd running, or \
                   scsi_mod.eh_deadline=30 on the kernel's command line"
            .to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::sg::host::testing::Tree;

    fn device(tree: &Tree, ancestors: &str) -> Device {
        tree.disk_below("7:0:0:1", ancestors, 3, "sdc");
        Device::of_hctl(&tree.roots, "7:0:0:1".parse().unwrap()).unwrap()
    }

    fn lines(tree: &Tree, device: &Device) -> Vec<String> {
        warnings(&tree.roots, device).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn warnings_of_a_session_end_when_it_is_mended() {
        let tree = Tree::new();
        let device = device(&tree, "platform/host7/session12");
        assert!(lines(&tree, &device).is_empty(), "nothing is known");
        let file = "sys/class/iscsi_session/session12/recovery_tmo";
        for bad in ["120\n", "-1\n", "off\n", "\n", "5 5\n"] {
            tree.write(file, bad);
            let lines = lines(&tree, &device);
            assert_eq!(lines.len(), 1, "{bad}");
            assert!(lines[0].starts_with("recovery_tmo of session12 is "), "{lines:?}");
            assert!(lines[0].contains("class/iscsi_session/session12/recovery_tmo; for good: "));
        }
        for good in ["5\n", "0\n", "30\n"] {
            tree.write(file, good);
            assert!(lines(&tree, &device).is_empty(), "{good}");
        }
    }

    #[test]
    fn warnings_of_a_remote_port_and_its_adapter() {
        let tree = Tree::new();
        let device = device(&tree, "pci0000:00/host7/rport-7:0-2");
        tree.write("sys/class/fc_remote_ports/rport-7:0-2/fast_io_fail_tmo", "off\n");
        tree.write("sys/class/fc_remote_ports/rport-7:0-2/dev_loss_tmo", "60\n");
        tree.write("sys/class/scsi_host/host7/eh_deadline", "off\n");
        let found = lines(&tree, &device);
        assert!(found[0].starts_with("fast_io_fail_tmo of rport-7:0-2 is off: "), "{found:?}");
        assert!(found[0].contains("(dev_loss_tmo, 60)"), "{found:?}");
        assert!(found[1].starts_with("eh_deadline of host7 is off: "), "{found:?}");
        tree.write("sys/class/fc_remote_ports/rport-7:0-2/fast_io_fail_tmo", "5\n");
        tree.write("sys/class/scsi_host/host7/eh_deadline", "30\n");
        assert!(lines(&tree, &device).is_empty());
    }

    #[test]
    fn warnings_of_an_adapter_without_such_timers_are_none() {
        let tree = Tree::new();
        let device = device(&tree, "pci0000:00/virtio2/host7");
        tree.write("sys/class/scsi_host/host7/eh_deadline", "off\n");
        assert!(lines(&tree, &device).is_empty());
    }
}
