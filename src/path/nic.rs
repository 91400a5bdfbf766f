//! Which memory node a network card is near to: for paths that go over one.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::path::Path;

use super::nic_sys::interface_of;

/// Bonds of VLANs of bridges, and so on: deeper than anybody builds them.
const DEPTH_MAX: u8 = 4;

/// The node of the card over which the host sends to `portal`; `None` where the kernel does not
/// say, as for a virtual card, or on a host with one node.
pub fn node_towards(portal: IpAddr) -> Option<u16> {
    let any: IpAddr = match portal {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    // Asks the kernel for the route; nothing is sent. The port does not matter.
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect((portal, 9)).ok()?;
    let interface = interface_of(socket.local_addr().ok()?.ip())?;
    node_of(Path::new("/sys/class/net"), &interface, DEPTH_MAX)
}

/// The node of an interface, or the one that all interfaces below it have in common.
fn node_of(class: &Path, interface: &str, depth: u8) -> Option<u16> {
    let folder = class.join(interface);
    if let Ok(text) = fs::read_to_string(folder.join("device/numa_node")) {
        // -1 where the firmware says nothing.
        return text.trim().parse().ok();
    }
    let depth = depth.checked_sub(1)?;
    let entries = fs::read_dir(&folder).ok()?.filter_map(Result::ok);
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let below: Vec<Option<u16>> = names
        .filter_map(|name| Some(name.strip_prefix("lower_")?.to_owned()))
        .map(|name| node_of(class, &name, depth))
        .collect();
    let first = *below.first()?;
    first.filter(|_| below.iter().all(|node| *node == first))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_of_a_bond_is_what_its_cards_have_in_common() {
        let dir = tempfile::tempdir().unwrap();
        let card = |name: &str, node: &str| {
            let device = dir.path().join(name).join("device");
            fs::create_dir_all(&device).unwrap();
            fs::write(device.join("numa_node"), node).unwrap();
        };
        let bond = |name: &str, below: &[&str]| {
            for lower in below {
                fs::create_dir_all(dir.path().join(name).join(format!("lower_{lower}"))).unwrap();
            }
        };
        card("eth0", "1\n");
        card("eth1", "1\n");
        card("eth2", "0\n");
        card("eth3", "-1\n");
        bond("same", &["eth0", "eth1"]);
        bond("mixed", &["eth0", "eth2"]);
        bond("vlan", &["same"]);
        bond("loop", &["loop"]);
        fs::create_dir(dir.path().join("virtual")).unwrap();
        let node = |name| node_of(dir.path(), name, DEPTH_MAX);
        assert_eq!(["eth0", "same", "vlan"].map(node), [Some(1); 3]);
        assert_eq!(node("eth2"), Some(0));
        assert_eq!(["eth3", "mixed", "loop", "virtual", "none"].map(node), [None; 5]);
    }

    #[test]
    fn route_to_this_host_leads_to_an_interface_without_a_node() {
        assert_eq!(interface_of(IpAddr::V4(Ipv4Addr::LOCALHOST)).as_deref(), Some("lo"));
        assert_eq!(interface_of(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1))), None);
        assert_eq!(node_towards(IpAddr::V4(Ipv4Addr::LOCALHOST)), None);
    }
}
