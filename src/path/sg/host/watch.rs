//! How a device is doing, as the kernel sees it: looked at again and again, since the kernel tells
//! nobody when it holds a device's commands back.
//!
//! | file | where | what it tells |
//! |---|---|---|
//! | `state` | the device | running; blocked, quiesce, created: commands wait in the kernel; offline, transport-offline: they fail; cancel, deleted, or none: it is gone |
//! | `port_state` | the FC remote port | Blocked: the port has gone and may return |
//! | `state` | the iSCSI session | FAILED: the connection is lost and is being made anew |
//! | `access_state`, `preferred_path` | the device | what the kernel's ALUA handler last heard. It takes the unit attentions that would tell us, so a change here is a reason to ask the array; it is never believed itself |

use std::fs::File;
use std::path::Path;

use super::files::attribute_of;
use super::transport::HostTransport;
use super::{Device, DeviceId, Roots};

/// How a device is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Commands go to it.
    Running,
    /// The kernel keeps its commands back, and sends them when it returns or fails them.
    Blocked(String),
    /// Commands to it fail.
    Down(String),
    /// It has been removed.
    Gone,
}

/// What one look shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sight {
    /// How it is doing.
    pub condition: Condition,
    /// What the kernel's ALUA handler thinks, where there is one: compared, never read.
    pub access: Option<String>,
}

/// The files of one device, open.
#[derive(Debug)]
pub struct Watch {
    device: Device,
    state: Option<File>,
    link: Link,
    access: [Option<File>; 2],
}

#[derive(Debug)]
enum Link {
    /// Its `port_state`.
    Fc(Option<File>),
    /// Its `state`.
    Iscsi(Option<File>),
    /// Nothing beside the device's own state tells.
    None,
}

impl Watch {
    /// Begins to watch.
    pub fn new(roots: &Roots, device: Device) -> Self {
        let open = |path: &Path| File::open(path).ok();
        let link = match device.transport(roots) {
            HostTransport::Fc(port) => Link::Fc(open(&port.join("port_state"))),
            HostTransport::Iscsi(session) => Link::Iscsi(open(&session.join("state"))),
            _ => Link::None,
        };
        let of = |name: &str| open(&device.directory.join(name));
        Watch {
            state: of("state"),
            link,
            access: [of("access_state"), of("preferred_path")],
            device,
        }
    }

    /// Which device.
    pub fn id(&self) -> DeviceId {
        self.device.id
    }

    /// The device.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Looks once: a few system calls.
    pub fn look(&self) -> Sight {
        let condition = self.condition();
        let access: Vec<String> =
            self.access.iter().flatten().filter_map(|file| attribute_of(file).ok()).collect();
        Sight { condition, access: (!access.is_empty()).then(|| access.join(" ")) }
    }

    fn condition(&self) -> Condition {
        // A file of a device that is gone cannot be read any more.
        let Some(state) = self.state.as_ref().and_then(|file| attribute_of(file).ok()) else {
            return Condition::Gone;
        };
        match of_device(&state) {
            Condition::Running => self.of_link(),
            other => other,
        }
    }

    /// The link may tell a moment before its devices do.
    fn of_link(&self) -> Condition {
        let read = |file: &Option<File>| attribute_of(file.as_ref()?).ok();
        match &self.link {
            Link::Fc(file) => read(file).map_or(Condition::Running, |state| of_port(&state)),
            Link::Iscsi(file) => read(file).map_or(Condition::Running, |state| of_session(&state)),
            Link::None => Condition::Running,
        }
    }
}

fn of_device(state: &str) -> Condition {
    match state {
        "running" => Condition::Running,
        "blocked" | "created-block" | "created" | "quiesce" => {
            Condition::Blocked(format!("the kernel holds its commands back (state {state})"))
        }
        "cancel" | "deleted" => Condition::Gone,
        // offline and transport-offline; and what a later kernel may have, which is not running.
        _ => Condition::Down(format!("the kernel has taken the device down (state {state})")),
    }
}

fn of_port(state: &str) -> Condition {
    match state {
        // Marginal: it loses frames, and works.
        "Online" | "Marginal" | "Unknown" => Condition::Running,
        "Blocked" => {
            Condition::Blocked("the remote port has gone and may return (Blocked)".to_owned())
        }
        _ => Condition::Down(format!("the remote port is {state}")),
    }
}

fn of_session(state: &str) -> Condition {
    match state {
        "LOGGED_IN" => Condition::Running,
        "FAILED" => Condition::Blocked("the host's iSCSI session is lost (FAILED)".to_owned()),
        _ => Condition::Down(format!("the host's iSCSI session is {state}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::sg::host::testing::Tree;

    fn device(tree: &Tree, ancestors: &str) -> Device {
        tree.disk_below("7:0:0:1", ancestors, 3, "sdc");
        Device::of_hctl(&tree.roots, "7:0:0:1".parse().unwrap()).unwrap()
    }

    /// In the place of the old text, as sysfs does it: the file stays open and says something else.
    fn set(file: &Path, text: &str) {
        std::fs::write(file, text).unwrap();
    }

    #[test]
    fn look_follows_the_devices_state() {
        let tree = Tree::new();
        let device = device(&tree, "pci0000:00/host7");
        let state = device.directory.join("state");
        let watch = Watch::new(&tree.roots, device);
        for (text, blocked, down) in [
            ("running", false, false),
            ("blocked", true, false),
            ("created-block", true, false),
            ("quiesce", true, false),
            ("transport-offline", false, true),
            ("offline", false, true),
            ("newfangled", false, true),
        ] {
            set(&state, &format!("{text}\n"));
            let condition = watch.look().condition;
            assert_eq!(matches!(condition, Condition::Blocked(_)), blocked, "{text}");
            assert_eq!(matches!(condition, Condition::Down(_)), down, "{text}");
        }
        for text in ["cancel", "deleted"] {
            set(&state, text);
            assert_eq!(watch.look().condition, Condition::Gone);
        }
    }

    #[test]
    fn look_at_what_is_gone_says_so() {
        let tree = Tree::new();
        let device = device(&tree, "pci0000:00/host7");
        std::fs::remove_file(device.directory.join("state")).unwrap();
        assert_eq!(Watch::new(&tree.roots, device).look().condition, Condition::Gone);
    }

    #[test]
    fn look_hears_of_a_lost_link_before_the_device_does() {
        let tree = Tree::new();
        let device = device(&tree, "platform/host7/session12");
        tree.write("sys/class/iscsi_session/session12/state", "LOGGED_IN\n");
        let state = tree.path("sys/class/iscsi_session/session12/state");
        let watch = Watch::new(&tree.roots, device.clone());
        assert_eq!(watch.look().condition, Condition::Running);
        set(&state, "FAILED\n");
        assert!(matches!(watch.look().condition, Condition::Blocked(_)));
        set(&state, "FREE\n");
        assert!(matches!(watch.look().condition, Condition::Down(_)));
        // The session has lasted longer than the kernel's patience: the device knows better.
        set(&state, "FAILED\n");
        set(&device.directory.join("state"), "transport-offline\n");
        assert!(matches!(watch.look().condition, Condition::Down(_)));
    }

    #[test]
    fn look_reads_a_remote_port() {
        let tree = Tree::new();
        let device = device(&tree, "pci0000:00/host7/rport-7:0-2");
        tree.write("sys/class/fc_remote_ports/rport-7:0-2/port_state", "Online\n");
        let state = tree.path("sys/class/fc_remote_ports/rport-7:0-2/port_state");
        let watch = Watch::new(&tree.roots, device);
        assert_eq!(watch.look().condition, Condition::Running);
        set(&state, "Blocked\n");
        assert!(matches!(watch.look().condition, Condition::Blocked(_)));
        set(&state, "Not Present\n");
        assert_eq!(
            watch.look().condition,
            Condition::Down("the remote port is Not Present".to_owned())
        );
    }

    #[test]
    fn look_compares_what_the_alua_handler_thinks() {
        let tree = Tree::new();
        let device = device(&tree, "pci0000:00/host7");
        assert_eq!(Watch::new(&tree.roots, device.clone()).look().access, None);
        let access = device.directory.join("access_state");
        set(&access, "active/optimized\n");
        let watch = Watch::new(&tree.roots, device);
        let before = watch.look().access;
        set(&access, "standby\n");
        assert_ne!(watch.look().access, before);
    }
}
