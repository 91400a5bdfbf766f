//! A process, as /proc shows it: its arguments, and what it may do.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use vhost_user_scsi_mpath::path::sg::host::Roots;
use vhost_user_scsi_mpath::path::sg::host::files::{names, table};

/// Number of CAP_DAC_OVERRIDE: rights of files do not count.
const DAC_OVERRIDE: u32 = 1;
/// Number of CAP_SYS_RAWIO.
const SYS_RAWIO: u32 = 17;

/// Who a process is, and its capabilities.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rights {
    uid: u32,
    groups: Vec<u32>,
    capabilities: u64,
}

impl Rights {
    /// Of this process; `None` where it has gone.
    pub fn of(roots: &Roots, pid: u32) -> Option<Rights> {
        let status = table(&roots.proc.join(pid.to_string()).join("status"));
        let line = |name: &str| {
            let mut lines = status.lines();
            lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        };
        // Real, effective, saved, for files: the last one counts here.
        let last = |name: &str| line(name)?.split_whitespace().nth(3)?.parse().ok();
        let others = line("Groups").unwrap_or_default();
        let mut groups: Vec<u32> = others.split_whitespace().flat_map(str::parse).collect();
        groups.push(last("Gid")?);
        let capabilities = u64::from_str_radix(line("CapEff")?.trim(), 16).ok()?;
        Some(Rights { uid: last("Uid")?, groups, capabilities })
    }

    /// May it do this to the file? `wanted` is of the bits 4 (read) and 2 (write). Access lists are
    /// not looked at.
    pub fn may(&self, file: &Path, wanted: u32) -> bool {
        let Ok(metadata) = std::fs::metadata(file) else { return false };
        let mode = metadata.permissions().mode();
        let granted = if self.uid == metadata.uid() {
            mode >> 6
        } else if self.groups.contains(&metadata.gid()) {
            mode >> 3
        } else {
            mode
        };
        self.has(DAC_OVERRIDE) || granted & wanted == wanted
    }

    /// May it send any SCSI command to an sd or bsg node?
    pub fn has_rawio(&self) -> bool {
        self.has(SYS_RAWIO)
    }

    fn has(&self, capability: u32) -> bool {
        self.capabilities >> capability & 1 == 1
    }
}

/// Numbers and arguments of all processes.
pub fn all(roots: &Roots) -> impl Iterator<Item = (u32, Vec<String>)> + '_ {
    let numbers = names(&roots.proc).into_iter().filter_map(|name| name.parse::<u32>().ok());
    numbers.map(|pid| {
        let line = table(&roots.proc.join(pid.to_string()).join("cmdline"));
        (pid, line.split_terminator('\0').map(str::to_owned).collect())
    })
}
