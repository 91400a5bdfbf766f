//! `/dev/...`: a SCSI device of the host, by way of the kernel's `SG_IO`, or of io_uring.
//!
//! ```text
//!   lane 0      lane 1     manager       a Channel each (channel.rs)
//!     |           |           |          one queue, one wake-up per batch (shared.rs)
//!     +-----------+-----------+
//!                 v
//!      thread  thread  thread ...        one command each, waiting in the kernel (crew.rs)
//!        |        |       |
//!      bounce  bounce  bounce            memory of the thread's own (bounce_sys.rs)
//!        v        v       v
//!      ioctl(node, SG_IO)                <-- opened by the keeper, and again (keeper.rs)
//! ```
//!
//! A bsg node of Linux 7.1 needs no thread that waits for each command: one takes all that is in
//! the queue, gives each its bounce memory, and hands them to an io_uring with one call (rider.rs).
//! What follows is true of both.
//!
//! **A call cannot be taken back, but its memory can.** What the kernel was given it keeps until
//! the command has ended, and in a blocked device that may be never. So it gets memory of a
//! thread's own: a recalled attempt ends at once, and the thread (of a ring: the command's place in
//! it) stays behind with its bounce buffer until the kernel lets it go. The write may still go out,
//! at any time: it is parked ([`Reach::Parked`](crate::path::Reach), `parked.rs`), and its blocks
//! wait until the kernel has returned it. With `direct_io` the guest's memory itself goes to the
//! kernel, which saves a copy, and then a recall can only wait.
//!
//! **Unit attentions may never get here.** The kernel's ALUA handler, where one is attached, eats
//! those that speak of access states, of a reset and of another unit behind the LUN, and sends the
//! command again. So silence says nothing on such a path: all of the questions are asked again at
//! each of its checks, and its access state and its name are never older than that. What the kernel
//! tells by uevents comes sooner.
//!
//! **When the process ends** with commands in the kernel, `SG_IO` on a node of sd or bsg lets it go
//! only when they have ended; an sg node and a ring let it go at once, and a parked write may go out
//! after that.
//!
//! | file | what |
//! |---|---|
//! | `kernel.rs` | which engine a path gets; the seam for tests |
//! | `node.rs` | from a node to the device behind it |
//! | `keeper.rs` | opens, asks for the name, opens again |
//! | `shared.rs` | the queue, and what there is to send to |
//! | `crew.rs` | the threads that wait for a command each |
//! | `rider.rs` | the one thread of a node that takes commands over io_uring |
//! | `errand.rs` | what both do before and after: load, store, tell |
//! | `flight.rs` | one attempt: who ends it |
//! | `parked.rs` | attempts given up inside the kernel |
//! | `results.rs` | **the table of the kernel's results** |
//! | `command.rs` | one command and its end |
//! | `channel.rs` | a lane's end |
//! | `bounce_sys.rs`, `ioctl_sys.rs`, `ring_sys.rs` | memory; the calls; the ring |
//! | [`host`] | what the host knows of its devices, as files |

mod bounce_sys;
mod channel;
mod command;
mod crew;
mod errand;
mod flight;
pub mod host;
mod ioctl_sys;
mod keeper;
mod kernel;
mod node;
mod parked;
mod results;
mod rider;
mod ring_sys;
mod shared;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use thiserror::Error;

pub use self::channel::SgChannel;
use self::kernel::{Kernel, Linux};
pub use self::node::NodeError;
use self::shared::{Link, Shared};
use super::address::HostAddress;
use super::outbox::lock;
use super::{TransferLimits, Transport, TransportEvent};
use crate::confine::{self, Class};
use crate::limits::{SG_TIMEOUT_MARGIN, SG_TRANSFER_MAX};

/// What host devices are opened with.
#[derive(Clone, Copy, Debug)]
pub struct SgSettings {
    /// After so long an attempt is given up. The kernel's own time for it is a little longer.
    pub path_timeout: Duration,
    /// The guest's memory goes to the kernel as it is.
    pub direct_io: bool,
}

/// Why a path cannot be opened. A node that is not there, or that may not be opened, is the path's
/// state and no error: it may come.
#[derive(Debug, Error)]
pub enum SgError {
    /// It leads to something else.
    #[error("{node}: {reason}")]
    NotScsi {
        /// The node.
        node: String,
        /// What it is.
        reason: NodeError,
    },
    /// The host lacks something.
    #[error("cannot start its threads: {0}")]
    System(#[from] io::Error),
}

/// A host SCSI device. Its threads end when the path is dropped, those in the kernel when they
/// come back.
pub struct SgPath {
    shared: Arc<Shared<Linux>>,
}

impl std::fmt::Debug for SgPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("SgPath").field(&self.shared.node).finish()
    }
}

impl SgPath {
    /// Begins to open the node that `address` names.
    pub fn open(address: &HostAddress, settings: &SgSettings) -> Result<Self, SgError> {
        let node: PathBuf = address.node.clone();
        if let Err(reason @ NodeError::Other(_)) = Linux.find(&node) {
            return Err(SgError::NotScsi { node: node.display().to_string(), reason });
        }
        let timeout = settings.path_timeout + SG_TIMEOUT_MARGIN;
        Ok(SgPath { shared: start(Shared::new(Linux, node, timeout, settings.direct_io))? })
    }

    /// Host, channel, target and LUN of the device, while there is one.
    pub fn hctl(&self) -> Option<String> {
        match &lock(&self.shared.state).link {
            Link::Up(device) => Some(device.found.hctl.to_string()),
            Link::Opening | Link::Down | Link::Over => None,
        }
    }

    /// How long what a process that has ended sent by such a node may still be executed: with the
    /// node of a disk it could not end before. The kernel ends a command itself after its time.
    pub fn aftermath(&self, quiesce: Duration) -> Duration {
        match Linux.find(&self.shared.node) {
            Ok(found) if found.kind == node::Kind::Disk => Duration::ZERO,
            _ => Duration::from_millis(self.shared.timeout_ms.into()) + quiesce,
        }
    }

    /// The device's nodes, while there is one.
    pub fn devices(&self) -> Vec<String> {
        let found = match &lock(&self.shared.state).link {
            Link::Up(device) => device.found.clone(),
            Link::Opening | Link::Down | Link::Over => return Vec::new(),
        };
        found.nodes()
    }
}

fn start<K: Kernel>(shared: Shared<K>) -> io::Result<Arc<Shared<K>>> {
    let shared = Arc::new(shared);
    crew::hire(&shared)?;
    let inside = Arc::clone(&shared);
    let keeper = std::thread::Builder::new().name("sg keeper".to_owned());
    if let Err(error) = keeper.spawn(move || {
        confine::enter(Class::SgKeeper);
        keeper::keep(&inside);
    }) {
        shared.close();
        return Err(error);
    }
    Ok(shared)
}

impl Transport for SgPath {
    type Channel = SgChannel;

    fn channel(&self) -> io::Result<SgChannel> {
        SgChannel::open(&self.shared, false)
    }

    fn probe_channel(&self) -> io::Result<SgChannel> {
        SgChannel::open(&self.shared, true)
    }

    fn events(&self) -> Vec<TransportEvent> {
        self.shared.take_news()
    }

    fn limits(&self) -> TransferLimits {
        let bytes_max = match self.shared.bytes_max.load(Ordering::Acquire) {
            0 => SG_TRANSFER_MAX,
            known => known,
        };
        TransferLimits { bytes_max: Some(bytes_max) }
    }

    /// The kernel's ALUA handler does: see `results.rs`.
    fn hides_attentions(&self) -> bool {
        true
    }

    fn engine(&self) -> Cow<'static, str> {
        let state = lock(&self.shared.state);
        match &state.link {
            Link::Up(device) => device.engine.describe(device.found.kind, state.threads).into(),
            Link::Opening | Link::Down | Link::Over => "none: no device is open".into(),
        }
    }

    fn numa_node(&self) -> Option<u16> {
        host::Device::of_node(&host::Roots::default(), &self.shared.node).ok()?.numa_node()
    }
}

impl Drop for SgPath {
    fn drop(&mut self) {
        self.shared.close();
    }
}
