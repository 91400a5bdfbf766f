//! The host's memory nodes: their distances, and on which of them a thread runs.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use super::numa_sys::current_cpu;
use crate::multipath::Nodes;

/// What sysfs says of the nodes, read once.
#[derive(Debug, Default)]
pub struct Host {
    /// The distances between the nodes.
    pub nodes: Arc<Nodes>,
    of_cpu: BTreeMap<usize, u16>,
}

/// This host.
pub fn host() -> &'static Host {
    static HOST: OnceLock<Host> = OnceLock::new();
    HOST.get_or_init(|| Host::read(Path::new("/sys/devices/system/node")))
}

/// The node of the processor that this thread runs on now: a read of the thread's own memory and a
/// look-up, no system call.
pub fn current_node() -> Option<u16> {
    host().of_cpu.get(&current_cpu()?).copied()
}

impl Host {
    /// What cannot be read is not known: then all nodes are equally near.
    fn read(folder: &Path) -> Self {
        let entries = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        let mut ids: Vec<u16> =
            names.filter_map(|name| name.strip_prefix("node")?.parse().ok()).collect();
        ids.sort_unstable();
        let (mut nodes, mut of_cpu) = (Nodes::default(), BTreeMap::new());
        for id in &ids {
            let read = |file| fs::read_to_string(folder.join(format!("node{id}")).join(file));
            // One number for each node that is online, in their order.
            let distances = read("distance").unwrap_or_default();
            let distances = distances.split_whitespace().filter_map(|word| word.parse().ok());
            ids.iter().zip(distances).for_each(|(to, distance)| nodes.set(*id, *to, distance));
            let cpus = read("cpulist").unwrap_or_default();
            of_cpu.extend(list(&cpus).map(|cpu| (cpu, *id)));
        }
        Host { nodes: Arc::new(nodes), of_cpu }
    }
}

/// The numbers of a list like `0-3,8,10-11`.
fn list(text: &str) -> impl Iterator<Item = usize> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse().ok()?..=last.parse().ok()?)
    };
    text.trim().split(',').filter_map(range).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_is_read_as_sysfs_writes_it() {
        let dir = tempfile::tempdir().unwrap();
        for (id, distance, cpus) in
            [(0, "10 21 31", "0-1,4\n"), (2, "21 10 21\n", "2"), (10, "31 21 10", "\n")]
        {
            let node = dir.path().join(format!("node{id}"));
            fs::create_dir(&node).unwrap();
            fs::write(node.join("distance"), distance).unwrap();
            fs::write(node.join("cpulist"), cpus).unwrap();
        }
        fs::write(dir.path().join("online"), "0,2,10").unwrap();
        let host = Host::read(dir.path());
        assert_eq!(host.of_cpu, BTreeMap::from([(0, 0), (1, 0), (4, 0), (2, 2)]));
        assert_eq!(host.nodes.known().collect::<Vec<_>>(), [0, 2, 10]);
        assert_eq!(host.nodes.distance(Some(0), Some(10)), 31);
        assert_eq!(host.nodes.distance(Some(2), Some(0)), 21);
        let none = Host::read(&dir.path().join("missing"));
        assert_eq!((none.nodes.known().count(), none.of_cpu.len()), (0, 0));
    }

    #[test]
    fn current_node_is_one_of_the_hosts() {
        let nodes: Vec<u16> = host().nodes.known().collect();
        assert_eq!(current_node().is_some(), !nodes.is_empty());
        assert!(current_node().is_none_or(|node| nodes.contains(&node)));
    }
}
