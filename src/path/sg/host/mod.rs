//! What the host knows of its SCSI devices, read from the files that the kernel shows: which device
//! a node leads to and which other nodes it has, what it is called, who holds it, how it is doing,
//! and which timers of the host would keep its commands for long.
//!
//! ```text
//!   node (/dev/sg3, /dev/sdc, by-path link)       H:C:T:L, a scan
//!             |  device number                        |  /sys/class/scsi_device
//!             v                                       v
//!           Device  (one directory of sysfs: .../host1/target1:0:0/1:0:0:0)
//!             |--- nodes, names, WWID, NUMA node, transport
//!             |--- holders:  who uses it besides us
//!             |--- watch:    its state now, again and again
//!             '--- tuning:   timers that should be other than they are
//! ```
//!
//! Nothing here sends a command or writes anything. Every function takes the [`Roots`] below which
//! it reads, so that tests make a tree of their own. What a file says is text from elsewhere (a
//! disk chooses its vendor's name): it is bounded, and made printable, where it is read.
//!
//! | file | what |
//! |---|---|
//! | [`files`] | reading small files that may be anything |
//! | [`hctl`] | host, channel, target, LUN |
//! | [`device`] | one SCSI device |
//! | [`transport`] | what is between host and device |
//! | [`holders`] | who holds it |
//! | [`watch`] | how it is doing |
//! | [`tuning`] | timers to be warned of |
//! | [`uevent`] | what the kernel tells of devices that come and go |

pub mod device;
pub mod files;
pub mod hctl;
pub mod holders;
#[cfg(test)]
pub mod testing;
pub mod transport;
pub mod tuning;
pub mod uevent;
mod uevent_sys;
pub mod watch;

use std::path::PathBuf;

pub use device::{Device, DeviceId, NodeError, Number};
pub use hctl::Hctl;

/// Where the host's files are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roots {
    /// sysfs.
    pub sys: PathBuf,
    /// The device nodes.
    pub dev: PathBuf,
    /// procfs.
    pub proc: PathBuf,
}

impl Default for Roots {
    fn default() -> Self {
        Roots { sys: "/sys".into(), dev: "/dev".into(), proc: "/proc".into() }
    }
}
