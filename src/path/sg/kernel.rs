//! What a path needs of the kernel, and **which engine a path gets**.
//!
//! | node | commands go by | why |
//! |---|---|---|
//! | `/dev/sgN` | `SG_IO` with `sg_io_hdr`, a descriptor per thread | no filter and no privilege beyond the node's own; threads that share a descriptor wake each other up for every end |
//! | `/dev/sdX` | `SG_IO` with `sg_io_hdr`, one descriptor | takes lists of memory: `direct_io` copies nothing |
//! | `/dev/bsg/H:C:T:L`, Linux 7.1 | io_uring with `bsg_uring_cmd`, one thread (`rider.rs`) | what came together goes together; no thread waits for a single command |
//! | `/dev/bsg/H:C:T:L` | `SG_IO` with `sg_io_v4`, one descriptor | the shortest way through the kernel |
//!
//! The node that was configured is the one that is used: what a path may do and what it costs
//! depends on it, so it is the admin's choice and not ours.
//!
//! Whether a bsg node takes commands over io_uring is asked with the first command of each opening,
//! which is to tell the unit's name: Linux 7.1 was the first that does, and a host may forbid it.
//! Where it is refused, the same question goes by `SG_IO`. Which engine it became and why is said in
//! one line of the log at each change, and by `query-paths`: see [`Engine::describe`].

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;

use super::command::{Command, Done, End};
use super::errand::Errand;
use super::ioctl_sys;
use super::node::{self, Found, Kind, NodeError, SYSFS};
use super::ring_sys::BsgRing;
use crate::limits::{SG_BOUNCE_ALIGN, SG_TRANSFER_MAX};
use crate::path::waker::Waker;

/// How the commands of an open node go to the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Engine {
    /// By `SG_IO`, a thread each; and why not over io_uring, if that was an answer of the host.
    Threads(Option<String>),
    /// Over io_uring, by one thread.
    Ring,
}

impl Engine {
    /// In words; so many threads there are for `SG_IO`.
    pub(super) fn describe(&self, kind: Kind, threads: usize) -> String {
        let node = if kind == Kind::Bsg { "bsg" } else { "sg_io" };
        let threads = match threads {
            1 => "1 thread".to_owned(),
            threads => format!("{threads} threads"),
        };
        match self {
            Engine::Ring => format!("{node} (io_uring)"),
            Engine::Threads(None) => format!("{node} ({threads})"),
            Engine::Threads(Some(why)) => format!("{node} ({threads}; no io_uring: {why})"),
        }
    }
}

/// Commands in the kernel that no thread waits for one by one. One thread has it.
pub(super) trait Ring: Sized + Send + 'static {
    /// Raised by whoever has something for the thread that waits.
    fn bell(&self) -> &Arc<Waker>;

    /// Sends a command and waits for its end, before anything else is begun. An error is the
    /// kernel's refusal, and there is no ring then.
    fn first(self, command: &Command<'_>) -> Result<(Self, Done), i32>;

    /// Begins an errand. At most [`SG_RING_DEPTH`](crate::limits::SG_RING_DEPTH) are under way.
    fn begin(&mut self, errand: Errand);

    /// Hands over what was begun, and waits until something has ended or the bell is raised.
    fn wait(&mut self, ended: &mut Vec<(Errand, End)>);
}

/// The kernel, or what stands in for it in tests.
pub(super) trait Kernel: Send + Sync + 'static {
    /// An open node.
    type Handle: Send + Sync + 'static;
    /// Its other engine.
    type Ring: Ring;

    /// Looks for the device behind `node`, without opening it.
    fn find(&self, node: &Path) -> Result<Found, NodeError>;

    /// Opens `node`, and looks for the device behind what was opened. May wait for the device.
    fn open(&self, node: &Path) -> Result<(Self::Handle, Found), NodeError>;

    /// True while `found` is there.
    fn is_there(&self, found: &Found) -> bool;

    /// Sends a command and waits for its end, for as long as that takes.
    fn execute(&self, handle: &Self::Handle, kind: Kind, command: &Command<'_>) -> End;

    /// A ring for a node that may take commands over one; `None` for others, or why there is none.
    fn ring(&self, handle: &Self::Handle, kind: Kind) -> Result<Option<Self::Ring>, String>;

    /// The most bytes that one command may move.
    fn bytes_max(&self, handle: &Self::Handle, found: &Found) -> u32;
}

/// Linux.
#[derive(Clone, Copy, Debug)]
pub(super) struct Linux;

impl Kernel for Linux {
    type Handle = File;
    type Ring = BsgRing;

    fn find(&self, node: &Path) -> Result<Found, NodeError> {
        node::find(Path::new(SYSFS), &fs::metadata(node)?)
    }

    fn open(&self, node: &Path) -> Result<(File, Found), NodeError> {
        let file = ioctl_sys::open(node).map_err(|error| match error.raw_os_error() {
            Some(libc::EACCES | libc::EPERM) => io::Error::new(
                error.kind(),
                format!("{error}; the process needs read and write access, as a rule by its group"),
            ),
            _ => error,
        })?;
        let found = node::find(Path::new(SYSFS), &file.metadata()?)?;
        Ok((file, found))
    }

    fn is_there(&self, found: &Found) -> bool {
        found.is_there()
    }

    fn execute(&self, file: &File, kind: Kind, command: &Command<'_>) -> End {
        match kind {
            Kind::Generic | Kind::Disk => ioctl_sys::execute_v3(file.as_fd(), command),
            Kind::Bsg => ioctl_sys::execute_v4(file.as_fd(), command),
        }
    }

    fn ring(&self, file: &File, kind: Kind) -> Result<Option<BsgRing>, String> {
        match kind {
            Kind::Bsg => BsgRing::new(file).map(Some).map_err(|error| error.to_string()),
            Kind::Generic | Kind::Disk => Ok(None),
        }
    }

    fn bytes_max(&self, file: &File, found: &Found) -> u32 {
        let of_queue = (
            found.queue("max_hw_sectors_kb").map(|kilobytes| kilobytes.saturating_mul(1024)),
            found.queue("max_segments"),
        );
        let of_node = || {
            let (bytes, segments) = ioctl_sys::sg_limits(file.as_fd());
            (bytes.map(u64::from), segments.map(u64::from))
        };
        let (bytes, segments) = match (of_queue, found.kind) {
            ((None, None), Kind::Generic) => of_node(),
            (of_queue, _) => of_queue,
        };
        limit(bytes, segments)
    }
}

/// Memory of our own is contiguous for us and in single pages for the adapter, in the worst case.
fn limit(bytes: Option<u64>, segments: Option<u64>) -> u32 {
    let pages = segments.map(|segments| segments.saturating_mul(SG_BOUNCE_ALIGN as u64));
    let least = [bytes, pages].into_iter().flatten().filter(|limit| *limit > 0).min();
    let least = least.unwrap_or(u64::from(SG_TRANSFER_MAX)).min(u64::from(SG_TRANSFER_MAX));
    least as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limit_is_the_least_of_what_is_known() {
        assert_eq!(limit(None, None), SG_TRANSFER_MAX);
        assert_eq!(limit(Some(512 << 10), None), 512 << 10);
        assert_eq!(limit(Some(512 << 10), Some(64)), 256 << 10);
        assert_eq!(limit(Some(u64::MAX), Some(u64::MAX)), SG_TRANSFER_MAX);
        assert_eq!(limit(Some(0), Some(0)), SG_TRANSFER_MAX, "no limit is written as 0");
    }

    #[test]
    fn engine_says_which_it_is_and_why() {
        let threads = |why: Option<&str>| Engine::Threads(why.map(str::to_owned));
        assert_eq!(Engine::Ring.describe(Kind::Bsg, 1), "bsg (io_uring)");
        assert_eq!(threads(None).describe(Kind::Generic, 1), "sg_io (1 thread)");
        let why = threads(Some("not supported")).describe(Kind::Bsg, 3);
        assert_eq!(why, "bsg (3 threads; no io_uring: not supported)");
    }

    #[test]
    fn what_is_no_scsi_device_is_refused_without_opening_it() {
        let error = Linux.find(Path::new("/dev/null")).unwrap_err().to_string();
        assert!(error.contains("not a SCSI device"), "{error}");
        assert!(matches!(Linux.find(Path::new("/dev/sg-none")), Err(NodeError::Absent(_))));
    }
}
