//! Who holds a disk besides us. What dm-multipath, LVM or a file system writes to a disk that a
//! guest writes to as well is lost, and so is what the guest writes.

use std::fmt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::files::{attribute, names, node, table};
use super::{Device, Roots};

/// One who holds a disk or a part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holder {
    /// A map of dm-multipath.
    Multipath {
        /// The map's name.
        map: String,
        /// The kernel's name of it.
        kernel: String,
    },
    /// A volume of LVM.
    Lvm {
        /// Volume group and volume.
        volume: String,
        /// The kernel's name of it.
        kernel: String,
    },
    /// An opened dm-crypt container.
    Crypt {
        /// Its name.
        name: String,
        /// The kernel's name of it.
        kernel: String,
    },
    /// Another device-mapper map.
    Map {
        /// Its name.
        name: String,
        /// The kernel's name of it.
        kernel: String,
    },
    /// A RAID of the md driver.
    Raid(String),
    /// Another driver of the kernel.
    Driver(String),
    /// It is mounted.
    Mounted {
        /// What: the disk or a partition.
        what: String,
        /// Where.
        at: String,
    },
    /// It is swapped to.
    Swap(String),
    /// Somebody has it open for himself alone.
    Exclusive,
}

/// What holds a disk, and how to make it let go: one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The disk's node.
    pub node: PathBuf,
    /// The logical unit's name, as multipath writes it.
    pub wwid: Option<String>,
    /// Who holds it; never empty.
    pub holders: Vec<Holder>,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Holder::Multipath { map, kernel } => write!(f, "the multipath map {map} ({kernel})"),
            Holder::Lvm { volume, kernel } => write!(f, "the LVM volume {volume} ({kernel})"),
            Holder::Crypt { name, kernel } => write!(f, "the dm-crypt device {name} ({kernel})"),
            Holder::Map { name, kernel } => write!(f, "the device-mapper map {name} ({kernel})"),
            Holder::Raid(name) => write!(f, "the RAID {name}"),
            Holder::Driver(name) => write!(f, "the kernel's {name}"),
            Holder::Mounted { what, at } => write!(f, "a file system ({what} is mounted at {at})"),
            Holder::Swap(what) => write!(f, "the host's swap ({what})"),
            Holder::Exclusive => f.write_str("a program that has it open exclusively"),
        }
    }
}

impl Holder {
    /// What ends it, where it is one of those that hold `held`.
    pub fn remedy(&self, held: &Held) -> String {
        let node = held.node.display();
        match self {
            Holder::Multipath { map, .. } => {
                let wwid = held.wwid.as_deref().unwrap_or("...");
                format!(
                    "put  blacklist {{ wwid \"{wwid}\" }}  into /etc/multipath.conf, then run: \
                     multipathd reconfigure; multipath -f {map}"
                )
            }
            Holder::Lvm { volume, .. } => {
                let group = volume.split('/').next().unwrap_or(volume);
                format!(
                    "run: vgchange -an {group}; and put  global_filter = [ \"r|{node}|\" ]  into \
                     the devices section of /etc/lvm/lvm.conf"
                )
            }
            Holder::Crypt { name, .. } => format!("run: cryptsetup close {name}"),
            Holder::Map { name, .. } => format!("run: dmsetup remove {name}"),
            Holder::Raid(name) => format!("run: mdadm --stop /dev/{name}"),
            Holder::Driver(_) => "stop that use of it".to_owned(),
            Holder::Mounted { at, .. } => format!("run: umount {at}"),
            Holder::Swap(what) => format!("run: swapoff {what}"),
            Holder::Exclusive => format!("end that program (fuser -v {node} lists them)"),
        }
    }
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is held by ", self.node.display())?;
        for (at, holder) in self.holders.iter().enumerate() {
            let join = if at == 0 { "" } else { "; and by " };
            write!(f, "{join}{holder}: {}", holder.remedy(self))?;
        }
        Ok(())
    }
}

/// Who holds the device, `None` when nobody does. Reads files only.
pub fn held(roots: &Roots, device: &Device) -> Option<Held> {
    let disk = device.block()?;
    let directory = device.directory.join("block").join(&disk);
    let mut holders = Vec::new();
    let mut parts = vec![(disk.clone(), directory.clone())];
    for name in names(&directory) {
        let part = directory.join(&name);
        if part.join("partition").exists() {
            parts.push((name, part));
        }
    }
    let (mounts, swaps) =
        (table(&roots.proc.join("self/mountinfo")), table(&roots.proc.join("swaps")));
    for (name, part) in parts {
        let by = names(&part.join("holders")).into_iter().map(|kernel| holder(roots, kernel));
        holders.extend(by);
        let number = attribute(&part.join("dev")).unwrap_or_default();
        let what = format!("/dev/{name}");
        if let Some(at) = mounted(&mounts, &number, &what) {
            holders.push(Holder::Mounted { what: what.clone(), at });
        }
        if swaps.lines().any(|line| line.split_whitespace().next() == Some(&what)) {
            holders.push(Holder::Swap(what));
        }
    }
    let wwid = device.wwid().map(|wwid| wwid.multipath());
    (!holders.is_empty()).then(|| Held { node: node(&roots.dev, &disk), wwid, holders })
}

/// The same, and whether somebody has the disk open for himself alone, which only opening it tells.
/// That may block while its host adapter recovers from an error.
pub fn held_or_claimed(roots: &Roots, device: &Device) -> Option<Held> {
    held(roots, device).or_else(|| {
        let node = device.nodes(roots).block?;
        let wwid = device.wwid().map(|wwid| wwid.multipath());
        is_claimed(&node).then(|| Held { node, wwid, holders: vec![Holder::Exclusive] })
    })
}

/// The kernel lets one exclusive user in, and a claim of another is EBUSY. Nothing is kept: a claim
/// of ours would keep a second backend out, to which two guests of a cluster have a right.
fn is_claimed(node: &Path) -> bool {
    let flags = libc::O_EXCL | libc::O_NONBLOCK;
    let opened = std::fs::OpenOptions::new().read(true).custom_flags(flags).open(node);
    opened.is_err_and(|error| error.raw_os_error() == Some(libc::EBUSY))
}

fn holder(roots: &Roots, kernel: String) -> Holder {
    let map = roots.sys.join("class/block").join(&kernel).join("dm");
    let Some(name) = attribute(&map.join("name")) else {
        return match kernel.starts_with("md") {
            true => Holder::Raid(kernel),
            false => Holder::Driver(kernel),
        };
    };
    let uuid = attribute(&map.join("uuid")).unwrap_or_default();
    if uuid.starts_with("mpath-") {
        Holder::Multipath { map: name, kernel }
    } else if uuid.starts_with("LVM-") {
        Holder::Lvm { volume: volume(&name), kernel }
    } else if uuid.starts_with("CRYPT-") {
        Holder::Crypt { name, kernel }
    } else {
        Holder::Map { name, kernel }
    }
}

/// `vg--a-lv` as LVM means it: `vg-a/lv`. It doubles a hyphen that belongs to a name.
fn volume(map: &str) -> String {
    map.replace("--", "\0").replacen('-', "/", 1).replace('\0', "-")
}

/// Where the device with this number, or from this node, is mounted: a file system over several
/// devices has a number of its own.
fn mounted(mountinfo: &str, number: &str, node: &str) -> Option<String> {
    mountinfo.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let (device, at) = (fields.nth(2)?, fields.nth(1)?);
        // Optional fields end with a hyphen; behind it are the type and the source.
        let source = fields.skip_while(|field| *field != "-").nth(2);
        let is_it = device == number || source == Some(node);
        is_it.then(|| super::files::printable(at))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::sg::host::testing::{self, Tree};

    const SDC: &str = "sys/devices/pci0000:00/host1/target1:0:0/1:0:0:0/block/sdc";

    fn tree() -> (Tree, Device) {
        let tree = Tree::new();
        let directory = tree.disk("1:0:0:0", "pci0000:00", 3, "sdc");
        std::fs::write(directory.join("vpd_pg83"), testing::page_83()).unwrap();
        let device = Device::of_hctl(&tree.roots, "1:0:0:0".parse().unwrap()).unwrap();
        (tree, device)
    }

    fn map(tree: &Tree, holds: &str, kernel: &str, name: &str, uuid: &str) {
        tree.write(&format!("{holds}/holders/{kernel}/dev"), "");
        tree.write(&format!("sys/class/block/{kernel}/dm/name"), &format!("{name}\n"));
        tree.write(&format!("sys/class/block/{kernel}/dm/uuid"), &format!("{uuid}\n"));
    }

    fn text(tree: &Tree, device: &Device) -> String {
        held(&tree.roots, device).unwrap().to_string()
    }

    #[test]
    fn held_by_nobody_is_none() {
        let (tree, device) = tree();
        assert_eq!(held(&tree.roots, &device), None);
        // The node is not there, so nobody can have claimed it.
        assert_eq!(held_or_claimed(&tree.roots, &device), None);
    }

    #[test]
    fn held_by_multipath_says_the_line_that_mends_it() {
        let (tree, device) = tree();
        map(&tree, SDC, "dm-3", "mpatha", "mpath-3600140505200a986f0043c9afa1fd077");
        let text = text(&tree, &device);
        assert!(text.contains("dev/sdc is held by the multipath map mpatha (dm-3): "), "{text}");
        assert!(
            text.contains("blacklist { wwid \"3600140505200a986f0043c9afa1fd077\" }"),
            "{text}"
        );
        assert!(text.ends_with("multipath -f mpatha"), "{text}");
    }

    #[test]
    fn held_by_what_is_on_a_partition_counts() {
        let (tree, device) = tree();
        tree.write(&format!("{SDC}/sdc2/partition"), "2\n");
        tree.write(&format!("{SDC}/sdc2/dev"), "8:34\n");
        map(&tree, &format!("{SDC}/sdc2"), "dm-0", "vg--a-root", "LVM-abc");
        map(&tree, &format!("{SDC}/sdc2"), "dm-1", "secret", "CRYPT-LUKS2-abc");
        map(&tree, &format!("{SDC}/sdc2"), "dm-2", "odd\nname", "");
        tree.write(&format!("{SDC}/sdc2/holders/md127/dev"), "");
        tree.write(&format!("{SDC}/holders/bcache0/dev"), "");
        let holders = held(&tree.roots, &device).unwrap().holders;
        let words: Vec<String> = holders.iter().map(ToString::to_string).collect();
        assert_eq!(
            words,
            [
                "the kernel's bcache0",
                "the LVM volume vg-a/root (dm-0)",
                "the dm-crypt device secret (dm-1)",
                "the device-mapper map odd name (dm-2)",
                "the RAID md127",
            ]
        );
        let text = text(&tree, &device);
        assert!(text.contains("vgchange -an vg-a;") && text.contains("mdadm --stop /dev/md127"));
        assert_eq!(text.lines().count(), 1);
    }

    #[test]
    fn held_by_a_file_system_or_swap_is_found_by_number_or_node() {
        let (tree, device) = tree();
        for part in [1, 2, 3] {
            tree.write(&format!("{SDC}/sdc{part}/partition"), "1\n");
            tree.write(&format!("{SDC}/sdc{part}/dev"), &format!("8:{}\n", 32 + part));
        }
        tree.write(
            "proc/self/mountinfo",
            "26 1 8:33 / /boot rw,relatime shared:1 - ext4 /dev/disk/by-uuid/1 rw\n\
             27 1 0:40 /a /data rw - btrfs /dev/sdc2 rw\n\
             28 1 8:48 / /other rw - ext4 /dev/sdd rw\n\
             short line\n\n8:32",
        );
        tree.write("proc/swaps", "Filename Type Size\n/dev/sdc3 partition 1 0 -2\n/dev/sdd3 p\n");
        let holders = held(&tree.roots, &device).unwrap().holders;
        let mounted = |part: &str, at: &str| Holder::Mounted { what: part.into(), at: at.into() };
        assert_eq!(
            holders,
            [
                mounted("/dev/sdc1", "/boot"),
                mounted("/dev/sdc2", "/data"),
                Holder::Swap("/dev/sdc3".into())
            ]
        );
    }

    #[test]
    fn held_takes_any_table() {
        let (tree, device) = tree();
        for text in ["\0\0", "- - -\n-", " 1 2 3", &"x ".repeat(10_000)] {
            tree.write("proc/self/mountinfo", text);
            tree.write("proc/swaps", text);
            assert_eq!(held(&tree.roots, &device), None);
        }
    }
}
