//! The closed set of transports behind one type: a `match` each, no trait objects. And what they
//! are opened with.

use std::borrow::Cow;
use std::io;
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use thiserror::Error;

use super::address::Address;
use super::emulated::{self, Port, PortChannel};
#[cfg(feature = "iscsi")]
use super::iscsi::{IscsiChannel, IscsiError, IscsiPath};
use super::null::{NullChannel, NullPath};
use super::sg::{SgChannel, SgError, SgPath, SgSettings};
use super::{Channel, Ended, Task, TransferLimits, Transport, TransportEvent};
use crate::ids::AttemptId;
use crate::scsi::reservation::TransportId;

pub use super::emulated::OpenMode;

/// What paths are opened with, beside their addresses.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    /// To serve, or to look.
    pub mode: OpenMode,
    /// For `iscsi://`.
    pub iscsi: IscsiSettings,
    /// For host devices.
    pub sg: SgSettings,
}

/// What all iSCSI paths of a backend have in common.
#[derive(Clone, Debug, Default)]
pub struct IscsiSettings {
    /// The initiator's name; "" is the host's.
    pub initiator_name: String,
    /// Tells this backend from others with the same name.
    pub identity: String,
    /// Where the secrets of users are that an address names without one.
    pub secret_file: Option<PathBuf>,
    /// Does a login in the place of an old session prove that session's commands dead?
    pub relogin_is_proof: ReloginIsProof,
}

/// Does a login with an old session's ISID end that session's tasks before it is answered?
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReloginIsProof {
    /// Where the target is known for it.
    #[default]
    Auto,
    /// Always.
    Yes,
    /// Never.
    No,
}

/// Why a path cannot be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// `emulated:` and `null:`
    #[error(transparent)]
    Emulated(#[from] emulated::OpenError),
    /// `iscsi://`
    #[cfg(feature = "iscsi")]
    #[error(transparent)]
    Iscsi(#[from] IscsiError),
    /// `/dev/...`
    #[error(transparent)]
    Sg(#[from] SgError),
    /// This program cannot open such paths.
    #[error("iSCSI paths are not there: built without the feature iscsi")]
    #[cfg(not(feature = "iscsi"))]
    NotBuilt,
}

/// A path of any kind.
#[derive(Debug)]
pub enum AnyPath {
    /// `emulated:`
    Emulated(Port),
    /// `iscsi://`
    #[cfg(feature = "iscsi")]
    Iscsi(IscsiPath),
    /// `null:`
    Null(NullPath),
    /// `/dev/...`
    Sg(SgPath),
}

/// A channel of any kind.
pub enum AnyChannel {
    /// `emulated:`
    Emulated(PortChannel),
    /// `iscsi://`
    #[cfg(feature = "iscsi")]
    Iscsi(IscsiChannel),
    /// `null:`
    Null(NullChannel),
    /// `/dev/...`
    Sg(SgChannel),
}

impl AnyPath {
    /// Opens what `address` names. [`OpenMode::Check`] takes no lock and writes nothing.
    pub fn open(address: &Address, options: &OpenOptions) -> Result<Self, OpenError> {
        Ok(match address {
            Address::Emulated(address) => AnyPath::Emulated(Port::open(address, options.mode)?),
            #[cfg(feature = "iscsi")]
            Address::Iscsi(address) => {
                AnyPath::Iscsi(IscsiPath::open(address, &options.iscsi, options.mode)?)
            }
            #[cfg(not(feature = "iscsi"))]
            Address::Iscsi(_) => return Err(OpenError::NotBuilt),
            Address::Null(address) => AnyPath::Null(NullPath::open(address)?),
            Address::Host(address) => AnyPath::Sg(SgPath::open(address, &options.sg)?),
        })
    }
}

impl AnyPath {
    /// How long what a process before this one sent over such a path may still be executed, once
    /// that process has ended. What is on the network may for `quiesce`, like any lost write. The
    /// image of an emulated path is locked until the kernel is done with all of its I/O.
    pub fn aftermath(&self, quiesce: Duration) -> Duration {
        match self {
            AnyPath::Emulated(_) | AnyPath::Null(_) => Duration::ZERO,
            #[cfg(feature = "iscsi")]
            AnyPath::Iscsi(_) => quiesce,
            AnyPath::Sg(path) => path.aftermath(quiesce),
        }
    }
}

/// One arm for each kind.
macro_rules! each {
    ($kind:ident, $of:expr, $inner:ident => $call:expr) => {
        match $of {
            $kind::Emulated($inner) => $call,
            #[cfg(feature = "iscsi")]
            $kind::Iscsi($inner) => $call,
            $kind::Null($inner) => $call,
            $kind::Sg($inner) => $call,
        }
    };
}

impl Transport for AnyPath {
    type Channel = AnyChannel;

    fn channel(&self) -> io::Result<AnyChannel> {
        Ok(match self {
            AnyPath::Emulated(path) => AnyChannel::Emulated(path.channel()?),
            #[cfg(feature = "iscsi")]
            AnyPath::Iscsi(path) => AnyChannel::Iscsi(path.channel()?),
            AnyPath::Null(path) => AnyChannel::Null(path.channel()?),
            AnyPath::Sg(path) => AnyChannel::Sg(path.channel()?),
        })
    }

    fn probe_channel(&self) -> io::Result<AnyChannel> {
        match self {
            AnyPath::Sg(path) => Ok(AnyChannel::Sg(path.probe_channel()?)),
            #[cfg(feature = "iscsi")]
            AnyPath::Iscsi(path) => Ok(AnyChannel::Iscsi(path.probe_channel()?)),
            _ => self.channel(),
        }
    }

    fn events(&self) -> Vec<TransportEvent> {
        each!(AnyPath, self, path => path.events())
    }

    fn limits(&self) -> TransferLimits {
        each!(AnyPath, self, path => path.limits())
    }

    fn hides_attentions(&self) -> bool {
        each!(AnyPath, self, path => path.hides_attentions())
    }

    fn engine(&self) -> Cow<'static, str> {
        each!(AnyPath, self, path => path.engine())
    }

    fn initiator_port(&self) -> Option<TransportId> {
        each!(AnyPath, self, path => path.initiator_port())
    }

    fn numa_node(&self) -> Option<u16> {
        each!(AnyPath, self, path => path.numa_node())
    }
}

impl Channel for AnyChannel {
    fn submit(&mut self, attempt: AttemptId, task: Task<'_>, now: Instant) {
        each!(AnyChannel, self, channel => channel.submit(attempt, task, now));
    }

    fn flush(&mut self) {
        each!(AnyChannel, self, channel => channel.flush());
    }

    fn reap(&mut self, now: Instant, ended: &mut Vec<Ended>) {
        each!(AnyChannel, self, channel => channel.reap(now, ended));
    }

    fn recall(&mut self, attempt: AttemptId) {
        each!(AnyChannel, self, channel => channel.recall(attempt));
    }

    fn ready_fd(&self) -> Option<RawFd> {
        each!(AnyChannel, self, channel => channel.ready_fd())
    }

    fn next_timer(&self) -> Option<Instant> {
        each!(AnyChannel, self, channel => channel.next_timer())
    }
}
