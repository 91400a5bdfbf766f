//! Landlock: the files and the TCP ports that the process may reach from now on.
//!
//! Rules are about what there is, not about names: a rule for a directory holds for whatever is or
//! will be in it, one for a file only for that file. What is replaced from time to time (a
//! configuration, the resolver's files, nodes of devices that come and go) is so allowed by its
//! directory.

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, LandlockStatus,
    NetPort, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError, Scope,
};

/// The newest of Landlock's versions that is known here. Later ones forbid more.
const NEWEST: ABI = ABI::V6;

/// What may be done with a file, or with all that is in a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Access {
    /// Looking and reading.
    Read,
    /// Making and removing sockets.
    Sockets,
    /// Reading, writing and commands to devices.
    Devices,
    /// Reading, writing, making and removing files.
    Files,
    /// All of these.
    All,
}

impl Access {
    fn rights(self) -> BitFlags<AccessFs> {
        let read = AccessFs::ReadFile | AccessFs::ReadDir;
        let sockets = AccessFs::MakeSock | AccessFs::RemoveFile;
        let devices = read | AccessFs::WriteFile | AccessFs::IoctlDev;
        let files = read
            | AccessFs::WriteFile
            | AccessFs::MakeReg
            | AccessFs::MakeDir
            | AccessFs::RemoveFile
            | AccessFs::Truncate;
        match self {
            Access::Read => read,
            Access::Sockets => sockets,
            Access::Devices => devices,
            Access::Files => files,
            Access::All => devices | files | sockets,
        }
    }
}

/// What is allowed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fence {
    /// Files and directories. Those that are not there are left out.
    pub files: Vec<(PathBuf, Access)>,
    /// Ports to which connections may be made.
    pub connect: Vec<u16>,
    /// Ports on which connections may be awaited.
    pub listen: Vec<u16>,
    /// Sockets without a file, of other processes, may be spoken to.
    pub abstract_sockets: bool,
}

/// Why there is no fence.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct FenceError(String);

impl From<RulesetError> for FenceError {
    fn from(error: RulesetError) -> Self {
        FenceError(error.to_string())
    }
}

/// What of it is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enforced {
    /// The version of the kernel's Landlock; `None` where there is none.
    pub version: Option<u32>,
    /// What is not, in words.
    pub gaps: Vec<&'static str>,
}

impl Fence {
    /// Confines the calling thread, and all that it will start. It cannot be undone.
    ///
    /// # Errors
    /// Where the kernel has Landlock and refuses a rule.
    pub fn close(&self) -> Result<Enforced, FenceError> {
        let mut rules = Ruleset::default()
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(AccessFs::from_all(NEWEST))?
            .handle_access(AccessNet::from_all(NEWEST))?;
        let scope = Scope::Signal.into();
        let scope: BitFlags<Scope> =
            if self.abstract_sockets { scope } else { scope | Scope::AbstractUnixSocket };
        rules = rules.scope(scope)?;
        let mut rules = rules.create()?;
        for (path, access) in &self.files {
            let Ok(place) = PathFd::new(path) else { continue };
            rules = rules.add_rule(PathBeneath::new(place, rights(path, *access)))?;
        }
        for port in &self.connect {
            rules = rules.add_rule(NetPort::new(*port, AccessNet::ConnectTcp))?;
        }
        for port in &self.listen {
            rules = rules.add_rule(NetPort::new(*port, AccessNet::BindTcp))?;
        }
        Ok(enforced(&rules.restrict_self()?.landlock))
    }

    /// True where `path` may be reached in this way, though it may not exist yet.
    pub fn permits(&self, path: &Path, access: Access) -> bool {
        let place = settled(path);
        self.files.iter().any(|(allowed, has)| {
            has.rights().contains(access.rights()) && place.starts_with(settled(allowed))
        })
    }
}

/// What a file cannot have is left out.
fn rights(path: &Path, access: Access) -> BitFlags<AccessFs> {
    if path.is_dir() { access.rights() } else { access.rights() & AccessFs::from_file(NEWEST) }
}

/// The path without links, as far as it exists.
fn settled(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    for above in path.ancestors() {
        if let Ok(settled) = above.canonicalize() {
            return match path.strip_prefix(above) {
                Ok(rest) if rest.as_os_str().is_empty() => settled,
                Ok(rest) => settled.join(rest),
                Err(_) => path,
            };
        }
    }
    path
}

fn enforced(status: &LandlockStatus) -> Enforced {
    let LandlockStatus::Available { effective_abi, .. } = status else {
        return Enforced { version: None, gaps: vec!["files", "TCP ports", "signals"] };
    };
    let gaps = [
        (ABI::V3, "cutting files off"),
        (ABI::V4, "TCP ports"),
        (ABI::V5, "ioctls of devices"),
        (ABI::V6, "signals and sockets without a file"),
    ];
    let gaps = gaps.iter().filter(|(since, _)| effective_abi < since).map(|(_, gap)| *gap);
    Enforced { version: Some(*effective_abi as u32), gaps: gaps.collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permits_what_is_below_and_as_much_as_was_allowed() {
        let directory = tempfile::tempdir().unwrap();
        let below = directory.path().join("images");
        std::fs::create_dir(&below).unwrap();
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(&below, &link).unwrap();
        let fence = Fence {
            files: vec![(below.clone(), Access::Files), ("/dev".into(), Access::Devices)],
            ..Fence::default()
        };
        for file in [below.join("new.img"), link.join("new.img"), below.join("a/b")] {
            assert!(fence.permits(&file, Access::Files), "{}", file.display());
        }
        for file in [directory.path().join("new.img"), below.join("../new.img")] {
            assert!(!fence.permits(&file, Access::Files), "{}", file.display());
        }
        assert!(fence.permits(Path::new("/dev/sg0"), Access::Devices));
        assert!(!fence.permits(Path::new("/dev/x.img"), Access::Files));
        assert!(!fence.permits(Path::new("/device"), Access::Devices));
    }

    #[test]
    fn enforced_says_what_an_older_kernel_lacks() {
        let of =
            |abi| enforced(&LandlockStatus::Available { effective_abi: abi, kernel_abi: None });
        assert_eq!(of(ABI::V7).gaps, [] as [&str; 0]);
        // Debian 12.
        assert_eq!(of(ABI::V2).version, Some(2));
        assert_eq!(of(ABI::V2).gaps.len(), 4);
        assert_eq!(of(ABI::V4).gaps, ["ioctls of devices", "signals and sockets without a file"]);
        assert_eq!(enforced(&LandlockStatus::NotImplemented).version, None);
    }
}
