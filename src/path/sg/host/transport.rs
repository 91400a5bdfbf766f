//! What is between a host and its device: which adapter, and which files tell of its link.

use std::fmt;
use std::path::PathBuf;

use super::files::{attribute, last_name};
use super::{Device, Roots};

/// How the host reaches a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostTransport {
    /// Fibre Channel: the directory of the remote port.
    Fc(PathBuf),
    /// The kernel's iSCSI initiator: the directory of the session.
    Iscsi(PathBuf),
    /// SAS.
    Sas,
    /// A virtual adapter.
    Virtio,
    /// ATA behind the kernel's translation.
    Ata,
    /// USB.
    Usb,
    /// By the name that the adapter's driver has for itself.
    Other(String),
}

impl HostTransport {
    /// By the nearest ancestor of the device whose name tells.
    pub fn of(roots: &Roots, device: &Device) -> HostTransport {
        let class = |class: &str, name: &str| roots.sys.join("class").join(class).join(name);
        let by_name = device.directory.ancestors().filter_map(last_name).find_map(|name| {
            Some(match name.as_str() {
                name if name.starts_with("rport-") => {
                    HostTransport::Fc(class("fc_remote_ports", name))
                }
                name if is_numbered(name, "session") => {
                    HostTransport::Iscsi(class("iscsi_session", name))
                }
                name if name.starts_with("end_device-") => HostTransport::Sas,
                name if is_numbered(name, "virtio") => HostTransport::Virtio,
                name if is_numbered(name, "ata") => HostTransport::Ata,
                name if is_numbered(name, "usb") => HostTransport::Usb,
                _ => return None,
            })
        });
        by_name.unwrap_or_else(|| {
            let host = class("scsi_host", &format!("host{}", device.id.hctl.host));
            let driver = attribute(&host.join("proc_name")).filter(|name| !name.is_empty());
            HostTransport::Other(driver.unwrap_or_else(|| "unknown".to_owned()))
        })
    }
}

fn is_numbered(name: &str, kind: &str) -> bool {
    let digits = name.strip_prefix(kind).unwrap_or_default();
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

impl fmt::Display for HostTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            HostTransport::Fc(_) => "fc",
            HostTransport::Iscsi(_) => "iscsi",
            HostTransport::Sas => "sas",
            HostTransport::Virtio => "virtio",
            HostTransport::Ata => "ata",
            HostTransport::Usb => "usb",
            HostTransport::Other(driver) => driver,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::sg::host::testing::Tree;

    #[test]
    fn of_reads_the_nearest_ancestor_that_tells() {
        let cases = [
            ("pci0000:00/0000:00:04.0/host7/rport-7:0-2", "fc"),
            ("platform/host7/session12", "iscsi"),
            ("pci0000:00/host7/port-7:1/end_device-7:1", "sas"),
            ("pci0000:00/0000:00:05.0/virtio2/host7", "virtio"),
            ("pci0000:00/ata3/host7", "ata"),
            ("pci0000:00/usb1/1-2/1-2:1.0/host7", "usb"),
            ("pseudo_0/adapter0/host7", "scsi_debug"),
            ("sessions/virtiox/session/host7", "scsi_debug"),
        ];
        for (ancestors, expected) in cases {
            let tree = Tree::new();
            let directory = tree.disk_below("7:0:0:1", ancestors, 3, "sdc");
            tree.write("sys/class/scsi_host/host7/proc_name", "scsi_debug\n");
            let device = Device::of_hctl(&tree.roots, "7:0:0:1".parse().unwrap()).unwrap();
            assert_eq!(device.directory, directory);
            assert_eq!(device.transport(&tree.roots).to_string(), expected, "{ancestors}");
        }
    }

    #[test]
    fn of_names_the_files_of_the_link() {
        let tree = Tree::new();
        tree.disk_below("7:0:0:1", "platform/host7/session12", 3, "sdc");
        let device = Device::of_hctl(&tree.roots, "7:0:0:1".parse().unwrap()).unwrap();
        let session = tree.roots.sys.join("class/iscsi_session/session12");
        assert_eq!(device.transport(&tree.roots), HostTransport::Iscsi(session));
    }
}
