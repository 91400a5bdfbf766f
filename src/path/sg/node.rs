//! From a node in `/dev` to the SCSI device behind it, by way of sysfs.

use std::fmt;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Where the kernel tells about its devices.
pub(super) const SYSFS: &str = "/sys";

/// What kind of node it is: see [`super`] for what follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// `/dev/sgN`
    Generic,
    /// `/dev/sdX`, and other block devices of SCSI disks.
    Disk,
    /// `/dev/bsg/H:C:T:L`
    Bsg,
}

/// Host, channel, target and LUN: where a device is, in the kernel's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hctl(u32, u32, u32, u64);

/// The SCSI device behind a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) kind: Kind,
    pub(super) hctl: Hctl,
    /// Its folder in sysfs.
    pub(super) folder: PathBuf,
    /// That folder's inode, which no later device gets: names and numbers are used again.
    pub(super) token: u64,
}

/// Why there is no SCSI device behind a node.
#[derive(Debug, Error)]
pub enum NodeError {
    /// It is something else, and will not become a SCSI device.
    #[error("{0}")]
    Other(String),
    /// It is not there, or cannot be looked at.
    #[error("{0}")]
    Absent(#[from] io::Error),
}

impl Hctl {
    /// Reads `H:C:T:L`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split(':');
        let mut next = || numbers.next()?.parse().ok();
        let (host, channel, target) = (next()?, next()?, next()?);
        let lun = numbers.next()?.parse().ok()?;
        numbers.next().is_none().then_some(Hctl(host, channel, target, lun))
    }
}

impl fmt::Display for Hctl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}:{}", self.0, self.1, self.2, self.3)
    }
}

/// The device of the node whose metadata these are.
pub(super) fn find(sysfs: &Path, metadata: &Metadata) -> Result<Found, NodeError> {
    let group = match metadata.file_type() {
        kind if kind.is_char_device() => "char",
        kind if kind.is_block_device() => "block",
        _ => return Err(NodeError::Other("it is not a device node".to_owned())),
    };
    let number = metadata.rdev();
    find_number(sysfs, group, libc::major(number), libc::minor(number))
}

fn find_number(sysfs: &Path, group: &str, major: u32, minor: u32) -> Result<Found, NodeError> {
    let class = sysfs.join("dev").join(group).join(format!("{major}:{minor}"));
    if class.join("partition").exists() {
        return Err(NodeError::Other("it is a partition; name the whole disk".to_owned()));
    }
    let subsystem = match fs::canonicalize(class.join("subsystem")) {
        Ok(subsystem) => subsystem.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        // Nodes of drivers without a class, and those of devices that have just gone.
        Err(_) if class.exists() => String::new(),
        Err(error) => return Err(error.into()),
    };
    let other = |what: &str| Err(NodeError::Other(format!("it is {what}, not a SCSI device")));
    let kind = match (group, subsystem.as_str()) {
        ("block", _) => Kind::Disk,
        (_, "scsi_generic") => Kind::Generic,
        (_, "bsg") => Kind::Bsg,
        (_, "") => return other("a character device"),
        (_, subsystem) => return other(&format!("a node of {subsystem}")),
    };
    let Ok(folder) = fs::canonicalize(class.join("device")) else {
        return other("a virtual device");
    };
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    let Some(hctl) = Hctl::parse(&name) else { return other(&format!("a node of {name}")) };
    let token = fs::metadata(&folder)?.ino();
    Ok(Found { kind, hctl, folder, token })
}

impl Found {
    /// True while the device is there: this one, and not another that got its place.
    pub(super) fn is_there(&self) -> bool {
        fs::metadata(&self.folder).is_ok_and(|metadata| metadata.ino() == self.token)
    }

    /// The device's nodes.
    pub(super) fn nodes(&self) -> Vec<String> {
        let of = |class: &str, folder: &str| {
            let entries = fs::read_dir(self.folder.join(class)).into_iter().flatten().flatten();
            let name = |entry: fs::DirEntry| entry.file_name().to_string_lossy().into_owned();
            entries.map(|entry| format!("{folder}{}", name(entry))).collect::<Vec<_>>()
        };
        [of("block", "/dev/"), of("scsi_generic", "/dev/"), of("bsg", "/dev/bsg/")].concat()
    }

    /// A number that the disk's queue tells, where the device has a disk.
    pub(super) fn queue(&self, attribute: &str) -> Option<u64> {
        let disk = fs::read_dir(self.folder.join("block")).ok()?.flatten().next()?;
        let text = fs::read_to_string(disk.path().join("queue").join(attribute)).ok()?;
        text.trim().parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A sysfs with a disk 1:0:0:3 (sg 21:7, sd 8:16, its partition 8:17, bsg 247:2), an RTC, and
    /// a virtual block device.
    fn tree() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path);
        let device = "devices/host1/target1:0:0/1:0:0:3";
        for (group, number, place, class) in [
            ("char", "21:7", format!("{device}/scsi_generic/sg7"), "scsi_generic"),
            ("block", "8:16", format!("{device}/block/sdb"), "block"),
            ("block", "8:17", format!("{device}/block/sdb/sdb1"), "block"),
            ("char", "247:2", format!("{device}/bsg/1:0:0:3"), "bsg"),
            ("char", "247:3", "devices/host1/bsg/fc_host1".to_owned(), "bsg"),
            ("char", "253:0", "devices/rtc/rtc0".to_owned(), "rtc"),
            ("block", "254:0", "devices/virtual/block/dm-0".to_owned(), "block"),
        ] {
            for folder in [&place, &format!("class/{class}"), &format!("dev/{group}")] {
                fs::create_dir_all(at(folder)).unwrap();
            }
            symlink(at(&place), at(&format!("dev/{group}/{number}"))).unwrap();
            symlink(at(&format!("class/{class}")), at(&place).join("subsystem")).unwrap();
            let parent = match number {
                "21:7" | "8:16" | "247:2" => device,
                "247:3" => "devices/host1",
                "253:0" => "devices/rtc",
                _ => continue,
            };
            symlink(at(parent), at(&place).join("device")).unwrap();
        }
        fs::write(at(&format!("{device}/block/sdb/sdb1/partition")), "1\n").unwrap();
        fs::create_dir(at(&format!("{device}/block/sdb/queue"))).unwrap();
        fs::write(at(&format!("{device}/block/sdb/queue/max_segments")), "168\n").unwrap();
        root
    }

    #[test]
    fn find_knows_the_three_nodes_of_a_disk() {
        let root = tree();
        let find = |group, major, minor| find_number(root.path(), group, major, minor).unwrap();
        let (generic, disk) = (find("char", 21, 7), find("block", 8, 16));
        assert_eq!((generic.kind, disk.kind), (Kind::Generic, Kind::Disk));
        assert_eq!(find("char", 247, 2).kind, Kind::Bsg);
        assert_eq!(generic.hctl.to_string(), "1:0:0:3");
        assert_eq!((generic.hctl, generic.token), (disk.hctl, disk.token));
        assert_eq!(disk.nodes(), ["/dev/sdb", "/dev/sg7", "/dev/bsg/1:0:0:3"]);
        assert_eq!(generic.queue("max_segments"), Some(168));
        assert_eq!(generic.queue("max_hw_sectors_kb"), None);
    }

    #[test]
    fn find_names_what_is_no_scsi_device() {
        let root = tree();
        let why = |group, major, minor| {
            find_number(root.path(), group, major, minor).unwrap_err().to_string()
        };
        assert_eq!(why("block", 8, 17), "it is a partition; name the whole disk");
        assert_eq!(why("char", 253, 0), "it is a node of rtc, not a SCSI device");
        assert_eq!(why("block", 254, 0), "it is a virtual device, not a SCSI device");
        assert_eq!(why("char", 247, 3), "it is a node of host1, not a SCSI device");
        let absent = find_number(root.path(), "char", 21, 8);
        assert!(matches!(absent, Err(NodeError::Absent(_))));
        let file = fs::metadata(root.path()).unwrap();
        assert_eq!(find(root.path(), &file).unwrap_err().to_string(), "it is not a device node");
    }

    #[test]
    fn device_that_took_anothers_place_is_not_taken_for_it() {
        let root = tree();
        let found = find_number(root.path(), "char", 21, 7).unwrap();
        assert!(found.is_there());
        let away = found.folder.with_file_name("away");
        fs::rename(&found.folder, away).unwrap();
        assert!(!found.is_there());
        fs::create_dir(&found.folder).unwrap();
        assert!(!found.is_there());
    }

    #[test]
    fn hctl_has_four_numbers() {
        assert_eq!(Hctl::parse("0:1:2:49409"), Some(Hctl(0, 1, 2, 49409)));
        for text in ["", "1:0:0", "1:0:0:0:0", "target1:0:0", "1:0:0:x"] {
            assert_eq!(Hctl::parse(text), None, "{text}");
        }
    }
}
