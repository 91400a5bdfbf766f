//! One SCSI device, as sysfs shows it: found by a node's device number, or by its H:C:T:L.

use std::fmt;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::files::{attribute, binary, last_name, link_name, names, node};
use super::transport::HostTransport;
use super::{Hctl, Roots};
use crate::scsi::designator::{Wwid, wwid};

/// A device number, and whether it is a block device's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Number {
    /// Block or character device.
    pub block: bool,
    /// The major number.
    pub major: u32,
    /// The minor number.
    pub minor: u32,
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

/// Which device: its H:C:T:L, and which of those that have had it since the host was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceId {
    /// Its H:C:T:L.
    pub hctl: Hctl,
    /// The inode of its directory in sysfs. A device that is removed and made anew has another.
    pub instance: u64,
}

/// A SCSI device of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Which.
    pub id: DeviceId,
    /// Its directory, without links in it.
    pub directory: PathBuf,
}

/// The nodes of one device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Nodes {
    /// `/dev/sgN`: there for every device while the module sg is loaded.
    pub sg: Option<PathBuf>,
    /// `/dev/sdX`: there for disks.
    pub block: Option<PathBuf>,
    /// `/dev/bsg/H:C:T:L`.
    pub bsg: Option<PathBuf>,
}

impl Nodes {
    /// All of them.
    pub fn all(&self) -> Vec<&Path> {
        [&self.sg, &self.block, &self.bsg].into_iter().flatten().map(PathBuf::as_path).collect()
    }
}

/// Why a node leads to no SCSI device.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// It cannot be looked at.
    #[error("{}: {cause}", node.display())]
    Missing {
        /// Which node.
        node: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// A file, a directory.
    #[error("{}: not a device node", .0.display())]
    NoDevice(PathBuf),
    /// Another kind of device.
    #[error("{}: not a SCSI device{hint}", node.display())]
    NotScsi {
        /// Which node.
        node: PathBuf,
        /// What it is, and what to give instead, with punctuation before it.
        hint: String,
    },
    /// A part of a disk.
    #[error("{}: a partition; give the whole disk, the guest has the partitions", .0.display())]
    Partition(PathBuf),
}

impl NodeError {
    /// True where the node may be there later.
    pub fn may_come(&self) -> bool {
        matches!(self, NodeError::Missing { cause, .. } if cause.kind() == io::ErrorKind::NotFound)
    }
}

/// The device number of `node`, which may be a link.
pub fn number(node: &Path) -> Result<Number, NodeError> {
    let metadata = std::fs::metadata(node)
        .map_err(|cause| NodeError::Missing { node: node.to_owned(), cause })?;
    let kind = metadata.file_type();
    if !kind.is_block_device() && !kind.is_char_device() {
        return Err(NodeError::NoDevice(node.to_owned()));
    }
    let device = metadata.rdev();
    Ok(Number {
        block: kind.is_block_device(),
        major: libc::major(device),
        minor: libc::minor(device),
    })
}

impl Device {
    /// The device to which a node leads.
    pub fn of_node(roots: &Roots, node: &Path) -> Result<Device, NodeError> {
        Device::of_number(roots, number(node)?, node)
    }

    /// The device with this number; `node` is its name for messages.
    pub fn of_number(roots: &Roots, number: Number, node: &Path) -> Result<Device, NodeError> {
        let kind = if number.block { "block" } else { "char" };
        let class_device = roots.sys.join("dev").join(kind).join(number.to_string());
        if class_device.join("partition").exists() {
            return Err(NodeError::Partition(node.to_owned()));
        }
        let directory = std::fs::canonicalize(class_device.join("device")).ok();
        directory.and_then(Device::at).ok_or_else(|| NodeError::NotScsi {
            node: node.to_owned(),
            hint: hint(roots, &class_device),
        })
    }

    /// The device that has this H:C:T:L now.
    pub fn of_hctl(roots: &Roots, hctl: Hctl) -> Option<Device> {
        let class_device = roots.sys.join("class/scsi_device").join(hctl.to_string());
        Device::at(std::fs::canonicalize(class_device.join("device")).ok()?)
    }

    /// All devices; `None` on a host that knows no SCSI.
    pub fn all(roots: &Roots) -> Option<Vec<Device>> {
        let class = roots.sys.join("class/scsi_device");
        class.is_dir().then(|| {
            let hctls = names(&class).into_iter().filter_map(|name| name.parse().ok());
            hctls.filter_map(|hctl| Device::of_hctl(roots, hctl)).collect()
        })
    }

    fn at(directory: PathBuf) -> Option<Device> {
        let hctl = last_name(&directory)?.parse().ok()?;
        if link_name(&directory.join("subsystem")).as_deref() != Some("scsi") {
            return None;
        }
        let instance = std::fs::metadata(&directory).ok()?.ino();
        Some(Device { id: DeviceId { hctl, instance }, directory })
    }

    /// True while it is there, and no other in its place.
    pub fn is_there(&self) -> bool {
        std::fs::metadata(&self.directory).is_ok_and(|now| now.ino() == self.id.instance)
    }

    /// What one of its attributes says.
    pub fn attribute(&self, name: &str) -> Option<String> {
        attribute(&self.directory.join(name))
    }

    /// Its nodes.
    pub fn nodes(&self, roots: &Roots) -> Nodes {
        let first = |class: &str| names(&self.directory.join(class)).into_iter().next();
        Nodes {
            sg: first("scsi_generic").map(|name| node(&roots.dev, &name)),
            block: self.block().map(|name| node(&roots.dev, &name)),
            bsg: first("bsg").map(|name| node(&roots.dev.join("bsg"), &name)),
        }
    }

    /// The kernel's name of its disk: `sdc`.
    pub fn block(&self) -> Option<String> {
        names(&self.directory.join("block")).into_iter().next()
    }

    /// T10 VENDOR IDENTIFICATION and PRODUCT IDENTIFICATION.
    pub fn vendor(&self) -> (String, String) {
        let of = |name| self.attribute(name).unwrap_or_default();
        (of("vendor"), of("model"))
    }

    /// True for a disk: PERIPHERAL DEVICE TYPE 0.
    pub fn is_disk(&self) -> bool {
        self.attribute("type").as_deref() == Some("0")
    }

    /// The logical unit's name, from the page that the kernel read when the device came.
    pub fn wwid(&self) -> Option<Wwid> {
        wwid(&binary(&self.directory.join("vpd_pg83"))?)
    }

    /// Is it called `name`, in sysfs' way of writing it? Where the kernel kept no page, by the name
    /// that it chose itself.
    pub fn is_named(&self, name: &str) -> bool {
        match self.wwid() {
            Some(wwid) => wwid.is_named(name),
            None => self.attribute("wwid").is_some_and(|wwid| wwid.eq_ignore_ascii_case(name)),
        }
    }

    /// The NUMA node of its host adapter.
    pub fn numa_node(&self) -> Option<u16> {
        // The nearest ancestor that says one; the kernel writes -1 where it knows none.
        let mut ancestors = self.directory.ancestors();
        ancestors
            .find_map(|one| attribute(&one.join("numa_node")))
            .and_then(|text| text.parse().ok())
    }

    /// What is between host and device.
    pub fn transport(&self, roots: &Roots) -> HostTransport {
        HostTransport::of(roots, self)
    }

    /// The names under which udev lists its disk by the way to it.
    pub fn by_path(&self, roots: &Roots) -> Vec<String> {
        let folder = roots.dev.join("disk/by-path");
        let Some(block) = self.block() else { return Vec::new() };
        let leads_here = |name: &String| link_name(&folder.join(name)).as_ref() == Some(&block);
        names(&folder).into_iter().filter(leads_here).collect()
    }
}

/// What a device that is none of ours is, as far as its directory tells.
fn hint(roots: &Roots, class_device: &Path) -> String {
    if !roots.sys.join("class/scsi_device").is_dir() {
        return ": this host has none (no /sys/class/scsi_device)".to_owned();
    }
    let name = || attribute(&class_device.join("dm/name"));
    match std::fs::canonicalize(class_device).ok().and_then(|directory| last_name(&directory)) {
        Some(kernel) if kernel.starts_with("dm-") => format!(
            ": the device-mapper map {} ({kernel}); give the devices below it, and take them from it",
            name().unwrap_or_default()
        ),
        Some(kernel) => format!(" (the kernel calls it {kernel})"),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::sg::host::testing::{self, Tree};

    const SG: Number = Number { block: false, major: 21, minor: 3 };
    const SD: Number = Number { block: true, major: 8, minor: 32 };

    fn of(tree: &Tree, number: Number) -> Result<Device, String> {
        Device::of_number(&tree.roots, number, Path::new("/dev/x"))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn of_number_finds_the_device_and_all_its_nodes() {
        let tree = Tree::new();
        let directory = tree.disk("1:0:0:0", "pci0000:00/0000:00:04.0", 3, "sdc");
        let device = of(&tree, SG).unwrap();
        assert_eq!(device.directory, directory);
        assert_eq!(of(&tree, SD).unwrap(), device);
        assert_eq!(Device::of_hctl(&tree.roots, device.id.hctl).unwrap(), device);
        assert_eq!(Device::all(&tree.roots).unwrap(), std::slice::from_ref(&device));
        let dev = &tree.roots.dev;
        let nodes = Nodes {
            sg: Some(dev.join("sg3")),
            block: Some(dev.join("sdc")),
            bsg: Some(dev.join("bsg/1:0:0:0")),
        };
        assert_eq!(device.nodes(&tree.roots), nodes);
        assert_eq!(device.vendor(), ("ACME".to_owned(), "disk".to_owned()));
        assert!(device.is_disk() && device.is_there());
        assert_eq!(device.numa_node(), None);
        tree.write("sys/devices/pci0000:00/0000:00:04.0/numa_node", "1\n");
        assert_eq!(device.numa_node(), Some(1));
    }

    #[test]
    fn of_number_says_what_the_node_is_instead() {
        let tree = Tree::new();
        assert!(of(&tree, SG).unwrap_err().contains("this host has none"));
        tree.disk("1:0:0:0", "pci0000:00", 3, "sdc");
        assert_eq!(of(&tree, Number { minor: 9, ..SG }).unwrap_err(), "/dev/x: not a SCSI device");
        tree.write("sys/devices/virtual/block/dm-3/dm/name", "mpatha\n");
        tree.link("sys/dev/block/253:3", "../../devices/virtual/block/dm-3");
        let error = of(&tree, Number { block: true, major: 253, minor: 3 }).unwrap_err();
        assert!(error.contains("the device-mapper map mpatha (dm-3)"), "{error}");
        let sdc = "sys/devices/pci0000:00/host1/target1:0:0/1:0:0:0/block/sdc";
        tree.write(&format!("{sdc}/sdc1/partition"), "1\n");
        tree.link("sys/dev/block/8:33", &format!("../../../{sdc}/sdc1"));
        let error = of(&tree, Number { minor: 33, ..SD }).unwrap_err();
        assert!(error.contains("a partition"), "{error}");
    }

    #[test]
    fn of_node_refuses_what_is_no_device() {
        let tree = Tree::new();
        tree.write("dev/file", "x");
        let of = |name: &str| Device::of_node(&tree.roots, &tree.roots.dev.join(name));
        assert!(matches!(of("file"), Err(NodeError::NoDevice(_))));
        assert!(of("missing").unwrap_err().may_come());
        tree.link("dev/loop", "loop");
        assert!(!of("loop").unwrap_err().may_come());
        // The only device nodes that are everywhere.
        assert_eq!(
            number(Path::new("/dev/null")).unwrap(),
            Number { block: false, major: 1, minor: 3 }
        );
    }

    #[test]
    fn device_that_is_made_anew_is_another() {
        let tree = Tree::new();
        let directory = tree.disk("1:0:0:0", "pci0000:00", 3, "sdc");
        let old = of(&tree, SG).unwrap();
        // Made before the old one goes, so that it cannot get the old one's inode.
        let beside = directory.with_file_name("beside");
        std::fs::create_dir(&beside).unwrap();
        std::fs::remove_dir_all(&directory).unwrap();
        assert!(!old.is_there());
        std::fs::rename(&beside, &directory).unwrap();
        assert!(!old.is_there());
        tree.disk("1:0:0:0", "pci0000:00", 3, "sdc");
        assert_ne!(of(&tree, SG).unwrap().id, old.id);
    }

    #[test]
    fn is_named_reads_the_page_or_else_the_kernels_choice() {
        let tree = Tree::new();
        let directory = tree.disk("1:0:0:0", "pci0000:00", 3, "sdc");
        let device = of(&tree, SG).unwrap();
        assert!(!device.is_named(testing::WWID));
        std::fs::write(directory.join("wwid"), format!("{}\n", testing::WWID)).unwrap();
        assert!(device.is_named(testing::WWID));
        std::fs::write(directory.join("wwid"), "naa.other\n").unwrap();
        std::fs::write(directory.join("vpd_pg83"), testing::page_83()).unwrap();
        assert!(device.is_named(testing::WWID) && !device.is_named("naa.other"));
        std::fs::write(directory.join("vpd_pg83"), vec![0xFF; 100_000]).unwrap();
        assert!(device.is_named("naa.other"), "a page that says nothing");
    }

    #[test]
    fn by_path_lists_the_links_to_the_disk() {
        let tree = Tree::new();
        tree.disk("1:0:0:0", "pci0000:00", 3, "sdc");
        tree.link("dev/disk/by-path/pci-0000:00:04.0-scsi-0:0:0:0", "../../sdc");
        tree.link("dev/disk/by-path/pci-0000:00:05.0-scsi-0:0:0:0", "../../sdd");
        tree.link("dev/disk/by-path/loop", "loop");
        let names = of(&tree, SG).unwrap().by_path(&tree.roots);
        assert_eq!(names, ["pci-0000:00:04.0-scsi-0:0:0:0"]);
    }
}
