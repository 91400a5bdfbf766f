//! The program, put together: everything else knows as little as possible of its neighbours, this
//! folder knows them all and decides nothing.
//!
//! ```text
//!   main thread   config -> paths opened -> manager started -> front serves until told to stop
//!   manager       engine::Manager, woken by mail, paths and the control socket's orders
//!   control       the control socket
//!   signals       SIGTERM, SIGINT and SIGHUP, turned into readable descriptors
//!   host          the host's SCSI devices: who comes and goes, how those in use are doing
//!   opener        one path, being opened
//!   reload        the configuration, being read again
//! ```
//!
//! | file | what |
//! |---|---|
//! | [`run`] | from a configuration to a running backend, and back down |
//! | [`check`] | `--check`: the same questions to the paths, and no backend |
//! | [`fence`] | what the process may reach |
//! | [`members`] | a path as configured: address, name, transport |
//! | [`opener`] | opens a path while the manager goes on |
//! | [`discovery`] | the host's SCSI devices, as far as they are or should be paths |
//! | [`desk`] | the control socket's orders, carried out by the manager's thread |
//! | [`reload`] | the configuration, read again while the guest goes on |
//! | [`announce`] | what a service manager is told |
//! | [`reservation`] | what is remembered of the guest's persistent reservations |
//! | [`reports`] | what queries return |
//! | [`history`] | the last minutes: a point per second, and the last events |
//! | [`notices`] | what people hear: log lines and events |
//! | [`takeover`] | in the place of a backend that runs |

mod announce;
pub mod check;
mod desk;
pub mod discovery;
pub mod fence;
mod history;
mod members;
mod notices;
mod opener;
mod reload;
mod reports;
mod reservation;
pub mod run;
mod takeover;
mod waiting;
mod worker;

use thiserror::Error;

use self::fence::FencingError;
use crate::front::ListenError;
use crate::metrics::server::MetricsError;
use crate::path::address::AddressError;
use crate::path::any::OpenError;
use crate::path::sg::host::NodeError;
use crate::path::sg::host::holders::Held;
use crate::socket::SocketFileError;

/// Why the backend could not start or go on. Each message is one line.
#[derive(Debug, Error)]
pub enum BackendError {
    /// A path's address is wrong.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// A path cannot be opened.
    #[error("path {name}: {source}")]
    Open {
        /// Its name.
        name: String,
        /// Why.
        source: OpenError,
    },
    /// It leads to no SCSI device.
    #[error("path {name}: {source}")]
    Node {
        /// Its name.
        name: String,
        /// What it is instead.
        source: NodeError,
    },
    /// Somebody else writes to the disk.
    #[error("path {name}: {held}")]
    Held {
        /// Its name.
        name: String,
        /// Who, and what to do about it.
        held: Held,
    },
    /// Two paths have one name.
    #[error("path {0}: the name is given twice; give one of them another with name = \"...\"")]
    DuplicateName(String),
    /// A path that the file lists again has not gone yet.
    #[error("path {0}: it is still being removed; reload again when it has gone")]
    Leaving(String),
    /// Two sessions to the same place would take each other's.
    #[error("path {other}: {place} is path {first} already")]
    SamePlace {
        /// The second path.
        other: String,
        /// The first.
        first: String,
        /// Where both lead.
        place: String,
    },
    /// The process cannot be confined as it should be.
    #[error(transparent)]
    Confinement(#[from] FencingError),
    /// A path that is added lies outside of what the process is confined to.
    #[error("path {name}: {source}")]
    Outside {
        /// Its name, or its address without secrets.
        name: String,
        /// What would allow it.
        source: FencingError,
    },
    /// There is nothing to serve.
    #[error(
        "no path is configured; give one with --path or [[path]], or discovery.scan = true for the \
         host's own disks"
    )]
    NoPaths,
    /// The paths lead to different logical units.
    #[error(
        "path {other} leads to {other_wwid}, path {first} to {first_wwid}; say which is meant with \
         lun.wwid"
    )]
    DifferentLuns {
        /// One path.
        first: String,
        /// Where it leads.
        first_wwid: String,
        /// Another.
        other: String,
        /// Where that one leads.
        other_wwid: String,
    },
    /// `--check` found no usable path.
    #[error("no usable path{0}")]
    NoUsablePath(String),
    /// The vhost-user socket.
    #[error("backend.socket: {0}")]
    Listen(#[from] ListenError),
    /// The control socket.
    #[error("backend.control: {0}")]
    Control(#[from] SocketFileError),
    /// The place where metrics are served.
    #[error("metrics.listen: {0}")]
    Metrics(#[from] MetricsError),
    /// There is no backend whose place could be taken.
    #[error("--takeover: {0}")]
    Takeover(#[from] takeover::TakeoverError),
    /// The system refused something else.
    #[error("cannot {what}: {cause}")]
    System {
        /// What was tried.
        what: &'static str,
        /// Why not.
        cause: std::io::Error,
    },
}

impl BackendError {
    fn system(what: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        move |cause| BackendError::System { what, cause }
    }
}
