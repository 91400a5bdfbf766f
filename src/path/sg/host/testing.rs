//! A tree of files that looks like a host's, for tests.

use std::path::{Path, PathBuf};

use super::Roots;
use crate::scsi::inquiry::{page, vpd_page};

/// The name that [`page_83`] tells.
pub const WWID: &str = "naa.600140505200a986f0043c9afa1fd077";

/// A page of vital product data with [`WWID`] in it.
pub fn page_83() -> Vec<u8> {
    let mut designator = vec![1, 3, 0, 16];
    let digits = WWID.strip_prefix("naa.").unwrap();
    let byte = |at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
    designator.extend((0..32).step_by(2).map(byte));
    vpd_page(page::DEVICE_IDENTIFICATION, &designator)
}

/// The tree; it goes with this value.
pub struct Tree {
    _folder: tempfile::TempDir,
    /// Where it is.
    pub roots: Roots,
    root: PathBuf,
}

impl Default for Tree {
    fn default() -> Self {
        Tree::new()
    }
}

impl Tree {
    /// An empty host, without SCSI.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = std::fs::canonicalize(folder.path()).unwrap();
        for name in ["sys", "dev", "proc/self"] {
            std::fs::create_dir_all(root.join(name)).unwrap();
        }
        let of = |name: &str| root.join(name);
        let roots = Roots { sys: of("sys"), dev: of("dev"), proc: of("proc") };
        Tree { _folder: folder, roots, root }
    }

    /// Writes a file, and makes the folders before it.
    pub fn write(&self, path: &str, text: &str) {
        let path = self.root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// Makes a link, in the place of another.
    pub fn link(&self, path: &str, to: &str) {
        let path = self.root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let _ = std::fs::remove_file(&path);
        std::os::unix::fs::symlink(to, path).unwrap();
    }

    /// A disk behind a host adapter with these ancestors; `sgN` has N as its minor number, and the
    /// disk number 8:32. Its directory.
    pub fn disk(&self, hctl: &str, ancestors: &str, sg: u32, block: &str) -> PathBuf {
        let host = hctl.split(':').next().unwrap();
        self.disk_below(hctl, &format!("{ancestors}/host{host}"), sg, block)
    }

    /// The same, with the adapter named among the ancestors.
    pub fn disk_below(&self, hctl: &str, ancestors: &str, sg: u32, block: &str) -> PathBuf {
        let target = hctl.rsplit_once(':').unwrap().0;
        let device = format!("sys/devices/{ancestors}/target{target}/{hctl}");
        let from_class = |class: &str, name: &str, at: &str| {
            self.write(&format!("{device}/{class}/{name}/dev"), at);
            self.link(&format!("{device}/{class}/{name}/device"), "../..");
        };
        for (name, text) in
            [("type", "0"), ("vendor", "ACME    "), ("model", "disk"), ("state", "running")]
        {
            self.write(&format!("{device}/{name}"), &format!("{text}\n"));
        }
        self.link(&format!("{device}/subsystem"), "../../../../bus/scsi");
        from_class("scsi_device", hctl, "");
        from_class("scsi_generic", &format!("sg{sg}"), &format!("21:{sg}\n"));
        from_class("block", block, "8:32\n");
        from_class("bsg", hctl, "249:1\n");
        let absolute = self.root.join(&device);
        let to = |inner: &str| absolute.join(inner).to_str().unwrap().to_owned();
        self.link(&format!("sys/class/scsi_device/{hctl}"), &to(&format!("scsi_device/{hctl}")));
        self.link(&format!("sys/dev/char/21:{sg}"), &to(&format!("scsi_generic/sg{sg}")));
        self.link("sys/dev/block/8:32", &to(&format!("block/{block}")));
        absolute
    }

    /// Where a path of this tree is.
    pub fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        self.root.join(path)
    }
}
