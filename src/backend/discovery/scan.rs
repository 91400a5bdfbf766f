//! Which devices of the host are paths of this LUN, and which are so no more.

use std::collections::{BTreeMap, BTreeSet};

use super::HostNews;
use crate::config::{Config, Pattern};
use crate::path::sg::host::holders::held;
use crate::path::sg::host::{Device, DeviceId, Hctl, Roots};

/// What to look for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// The LUN's name, as sysfs writes it.
    pub wwid: String,
    /// Only these; empty: all.
    pub allow: Vec<Pattern>,
    /// None of these.
    pub deny: Vec<Pattern>,
}

impl Rules {
    /// Those of `config`, if it asks for a scan.
    pub fn of(config: &Config) -> Option<Rules> {
        let wwid = config.lun.wwid.as_ref().filter(|_| config.discovery.scan)?;
        Some(Rules {
            wwid: wwid.as_str().to_owned(),
            allow: config.discovery.allow.clone(),
            deny: config.discovery.deny.clone(),
        })
    }

    /// May this device be a path? By its H:C:T:L, and by udev's names for it.
    fn admit(&self, roots: &Roots, device: &Device) -> bool {
        if self.allow.is_empty() && self.deny.is_empty() {
            return true;
        }
        let mut names = device.by_path(roots);
        names.push(device.id.hctl.to_string());
        let any = |patterns: &[Pattern]| {
            patterns.iter().any(|pattern| names.iter().any(|name| pattern.matches(name)))
        };
        (self.allow.is_empty() || any(&self.allow)) && !any(&self.deny)
    }
}

/// A device that may become a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Which.
    pub device: DeviceId,
    /// The path's address: the node over which commands need the least privilege.
    pub address: String,
    /// The path's name.
    pub name: String,
}

/// Looks, and remembers what it has told.
#[derive(Debug)]
pub struct Scanner {
    roots: Roots,
    rules: Option<Rules>,
    /// Told, and not taken back.
    offered: BTreeSet<DeviceId>,
    /// Held by others, and what was said about it.
    warned: BTreeMap<Hctl, String>,
    /// It was said that this host has no SCSI devices.
    told_none: bool,
}

impl Scanner {
    /// Without rules it finds nothing.
    pub fn new(roots: Roots, rules: Option<Rules>) -> Self {
        Scanner {
            roots,
            rules,
            offered: BTreeSet::new(),
            warned: BTreeMap::new(),
            told_none: false,
        }
    }

    /// The manager could not open it: it is offered again by a later scan.
    pub fn declined(&mut self, device: DeviceId) {
        self.offered.remove(&device);
    }

    /// Looks at all devices. Those of `used` have a path already.
    pub fn scan(&mut self, used: &BTreeSet<DeviceId>) -> Vec<HostNews> {
        let Some(rules) = self.rules.clone() else { return Vec::new() };
        let Some(devices) = Device::all(&self.roots) else {
            if !std::mem::replace(&mut self.told_none, true) {
                log::warn!(
                    "discovery: this host has no SCSI devices ({}/class/scsi_device is not there); \
                     it goes on looking",
                    self.roots.sys.display()
                );
            }
            return self.without(&BTreeSet::new());
        };
        let there: BTreeSet<DeviceId> = devices.iter().map(|device| device.id).collect();
        let mut news = self.without(&there);
        self.warned.retain(|hctl, _| there.iter().any(|device| device.hctl == *hctl));
        let new =
            |device: &&Device| !self.offered.contains(&device.id) && !used.contains(&device.id);
        let fits = |device: &&Device| {
            device.is_disk() && device.is_named(&rules.wwid) && rules.admit(&self.roots, device)
        };
        let fitting: Vec<&Device> = devices.iter().filter(new).filter(fits).collect();
        for device in fitting {
            if let Some(candidate) = self.candidate(device) {
                self.offered.insert(device.id);
                news.push(HostNews::Found(candidate));
            }
        }
        news
    }

    /// What was offered and is not `there` any more.
    fn without(&mut self, there: &BTreeSet<DeviceId>) -> Vec<HostNews> {
        let gone: Vec<DeviceId> = self.offered.difference(there).copied().collect();
        self.offered.retain(|device| there.contains(device));
        gone.into_iter().map(HostNews::Gone).collect()
    }

    /// `None` while somebody else holds it, or while it has no node.
    fn candidate(&mut self, device: &Device) -> Option<Candidate> {
        let hctl = device.id.hctl;
        if let Some(held) = held(&self.roots, device) {
            let text = held.to_string();
            if self.warned.get(&hctl) != Some(&text) {
                log::warn!(path:% = hctl; "discovery: {hctl} is left alone: {text}");
                self.warned.insert(hctl, text);
            }
            return None;
        }
        let nodes = device.nodes(&self.roots);
        let node = [nodes.sg, nodes.bsg, nodes.block].into_iter().flatten().next()?;
        let address = node.to_str()?.to_owned();
        Some(Candidate { device: device.id, address, name: hctl.to_string() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::sg::host::testing::{self, Tree};

    fn rules(allow: &[&str], deny: &[&str]) -> Option<Rules> {
        let patterns = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        let wwid = testing::WWID.to_owned();
        Some(Rules { wwid, allow: patterns(allow), deny: patterns(deny) })
    }

    /// A disk with the name that is looked for.
    fn ours(tree: &Tree, hctl: &str, sg: u32, block: &str) -> std::path::PathBuf {
        let directory = tree.disk(hctl, "pci0000:00", sg, block);
        std::fs::write(directory.join("vpd_pg83"), testing::page_83()).unwrap();
        directory
    }

    /// Names of what is found, and how many are gone.
    fn scan(scanner: &mut Scanner, used: &BTreeSet<DeviceId>) -> (Vec<String>, usize) {
        let news = scanner.scan(used);
        let found = news.iter().filter_map(|news| match news {
            HostNews::Found(candidate) => Some(candidate.name.clone()),
            _ => None,
        });
        let found: Vec<String> = found.collect();
        let gone = news.iter().filter(|news| matches!(news, HostNews::Gone(_))).count();
        assert_eq!(found.len() + gone, news.len());
        (found, gone)
    }

    fn none() -> BTreeSet<DeviceId> {
        BTreeSet::new()
    }

    #[test]
    fn scan_finds_each_device_with_the_name_once() {
        let tree = Tree::new();
        ours(&tree, "1:0:0:0", 3, "sdc");
        ours(&tree, "2:0:0:0", 4, "sdd");
        tree.disk("3:0:0:0", "pci0000:00", 5, "sde");
        let tape = ours(&tree, "4:0:0:0", 6, "st0");
        std::fs::write(tape.join("type"), "1\n").unwrap();
        let mut scanner = Scanner::new(tree.roots.clone(), rules(&[], &[]));
        let used =
            BTreeSet::from([Device::of_hctl(&tree.roots, "2:0:0:0".parse().unwrap()).unwrap().id]);
        let news = scanner.scan(&used);
        let [HostNews::Found(candidate)] = news.as_slice() else { panic!("{news:?}") };
        assert_eq!(candidate.name, "1:0:0:0");
        assert_eq!(candidate.address, tree.roots.dev.join("sg3").to_str().unwrap());
        assert_eq!(scan(&mut scanner, &used), (vec![], 0));
        // Its path was removed: now it is free.
        assert_eq!(scan(&mut scanner, &none()), (vec!["2:0:0:0".to_owned()], 0));
    }

    #[test]
    fn scan_tells_what_went_and_what_came_in_its_place() {
        let tree = Tree::new();
        let directory = ours(&tree, "1:0:0:0", 3, "sdc");
        let mut scanner = Scanner::new(tree.roots.clone(), rules(&[], &[]));
        assert_eq!(scan(&mut scanner, &none()).0, ["1:0:0:0"]);
        let aside = directory.with_file_name("old");
        std::fs::rename(&directory, &aside).unwrap();
        assert_eq!(scan(&mut scanner, &none()), (vec![], 1));
        ours(&tree, "1:0:0:0", 3, "sdc");
        assert_eq!(scan(&mut scanner, &none()), (vec!["1:0:0:0".to_owned()], 0));
        // Gone and there again between two looks.
        std::fs::rename(&directory, aside.with_file_name("older")).unwrap();
        ours(&tree, "1:0:0:0", 3, "sdc");
        assert_eq!(scan(&mut scanner, &none()), (vec!["1:0:0:0".to_owned()], 1));
    }

    #[test]
    fn scan_leaves_a_held_device_alone_until_it_is_let_go() {
        let tree = Tree::new();
        let directory = ours(&tree, "1:0:0:0", 3, "sdc");
        let holder = directory.join("block/sdc/holders/md0");
        std::fs::create_dir_all(&holder).unwrap();
        let mut scanner = Scanner::new(tree.roots.clone(), rules(&[], &[]));
        assert_eq!(scan(&mut scanner, &none()), (vec![], 0));
        assert_eq!(scanner.warned.len(), 1);
        std::fs::remove_dir(&holder).unwrap();
        assert_eq!(scan(&mut scanner, &none()).0, ["1:0:0:0"]);
    }

    #[test]
    fn scan_offers_again_what_was_declined() {
        let tree = Tree::new();
        ours(&tree, "1:0:0:0", 3, "sdc");
        let mut scanner = Scanner::new(tree.roots.clone(), rules(&[], &[]));
        let news = scanner.scan(&none());
        let [HostNews::Found(candidate)] = news.as_slice() else { panic!("{news:?}") };
        scanner.declined(candidate.device);
        assert_eq!(scanner.scan(&none()), news);
    }

    #[test]
    fn scan_follows_the_patterns() {
        let tree = Tree::new();
        ours(&tree, "1:0:0:0", 3, "sdc");
        ours(&tree, "2:0:0:0", 4, "sdd");
        tree.link("dev/disk/by-path/pci-0-fc-0x50-lun-0", "../../sdd");
        let find = |allow: &[&str], deny: &[&str]| {
            scan(&mut Scanner::new(tree.roots.clone(), rules(allow, deny)), &none()).0
        };
        assert_eq!(find(&["1:*"], &[]), ["1:0:0:0"]);
        assert_eq!(find(&["pci-*-fc-*"], &[]), ["2:0:0:0"]);
        assert_eq!(find(&[], &["pci-*-fc-*"]), ["1:0:0:0"]);
        assert_eq!(find(&["?:0:0:0"], &["1:0:0:0"]), ["2:0:0:0"]);
        assert!(find(&["9:*"], &[]).is_empty());
    }

    #[test]
    fn scan_of_a_host_without_scsi_finds_nothing_until_it_has_some() {
        let tree = Tree::new();
        let mut scanner = Scanner::new(tree.roots.clone(), rules(&[], &[]));
        assert_eq!(scan(&mut scanner, &none()), (vec![], 0));
        assert!(scanner.told_none);
        ours(&tree, "1:0:0:0", 3, "sdc");
        assert_eq!(scan(&mut scanner, &none()).0, ["1:0:0:0"]);
    }

    #[test]
    fn scan_takes_any_tree() {
        let tree = Tree::new();
        ours(&tree, "1:0:0:0", 3, "sdc");
        tree.link("sys/class/scsi_device/2:0:0:0", "2:0:0:0");
        tree.link("sys/class/scsi_device/3:0:0:0", "/nowhere");
        tree.write("sys/class/scsi_device/4:0:0:0", "a file");
        tree.write("sys/class/scsi_device/not a\nname/x", "");
        tree.link("sys/class/scsi_device/5:0:0:0/device", "../../../..");
        let mut scanner = Scanner::new(tree.roots.clone(), rules(&["*"], &["x"]));
        assert_eq!(scan(&mut scanner, &none()).0, ["1:0:0:0"]);
    }
}
