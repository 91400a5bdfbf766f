//! What the backend is told: its options and its configuration file, checked, as plain data.
//!
//! ```text
//!   options --> cli ----------------------------+
//!                                               |  options win
//!   file ----> file (words) --> check (meaning) +--> Config, for main
//!                 |                |
//!                 +-- locate ------+   every error names file, line and setting
//! ```
//!
//! | file | what |
//! |---|---|
//! | [`confinement`] | what the process may still do when it has been taken over |
//! | [`cli`] | the options, and what is to be done: [`cli::start`] |
//! | `activated` | the socket that a service manager made, beside the one that the file names |
//! | [`file`](mod@file) | the file's tables as they may be written |
//! | `check` | ranges, relations between settings |
//! | [`metrics`] | where metrics are served |
//! | `locate` | from a place in the file to line, column and the setting's name |
//! | [`pattern`] | which host devices discovery may take |
//! | [`policy`] | the words for path selection, `no_path_retry` and `failback` |
//! | [`reread`] | the command line, kept to read the file again |
//! | [`wwid`] | the two ways to write a WWID |
mod activated;
mod check;
pub mod cli;
pub mod confinement;
pub mod file;
mod locate;
pub mod metrics;
pub mod pattern;
pub mod policy;
pub mod reread;
#[cfg(test)]
mod tests;
pub mod wwid;

use std::os::fd::RawFd;
use std::path::PathBuf;
use std::time::Duration;

pub use cli::{Start, start};
pub use confinement::{Confinement, Landlock, Seccomp};
pub use locate::Place;
pub use metrics::MetricsListen;
pub use pattern::Pattern;
pub use policy::{Failback, IoPolicy, NoPathRetry};
pub use wwid::Wwid;

use crate::limits;

/// Where front ends come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// A socket file, which the backend makes.
    Path(PathBuf),
    /// An inherited descriptor, listening or connected.
    Fd(RawFd),
    /// A socket that the service manager has made at that path, and passed as that descriptor.
    Activated {
        /// The descriptor.
        fd: RawFd,
        /// The file.
        path: PathBuf,
    },
}

/// Everything that the backend is told. `Default` holds the defaults of the file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    /// `[backend]`.
    pub backend: Backend,
    /// `[lun]`.
    pub lun: Lun,
    /// `[iscsi]`.
    pub iscsi: Iscsi,
    /// `[discovery]`.
    pub discovery: Discovery,
    /// `[metrics] listen`: where metrics are served; `None` is nowhere.
    pub metrics: Option<MetricsListen>,
    /// `[confinement]`.
    pub confinement: Confinement,
    /// `[[path]]`, or the `--path` options where at least one was given.
    pub paths: Vec<PathConfig>,
    /// `--takeover`: the control socket of the backend whose place is taken.
    pub takeover: Option<PathBuf>,
}

/// `[backend]`: the process and its sockets.
#[derive(Clone, Debug, PartialEq)]
pub struct Backend {
    /// `socket`, `--socket-path` or `--fd`. `None` only with `--check`.
    pub listen: Option<Listen>,
    /// `control`: the control socket, if there is to be one.
    pub control: Option<PathBuf>,
    /// `socket_group`: a group's name or number for the sockets; "" leaves the process's own.
    pub socket_group: String,
    /// `socket_mode`: permission bits of the vhost-user socket.
    pub socket_mode: u32,
    /// `identity`; "" is the vhost-user socket's path.
    pub identity: String,
    /// `state_dir`; `None` is `$STATE_DIRECTORY`, if that is set.
    pub state_dir: Option<PathBuf>,
    /// `request_queues`: the most request virtqueues.
    pub request_queues: u16,
    /// `stop_deadline`: for a device-wide drain.
    pub stop_deadline: Duration,
}

impl Default for Backend {
    fn default() -> Self {
        Backend {
            listen: None,
            control: None,
            socket_group: String::new(),
            socket_mode: 0o600,
            identity: String::new(),
            state_dir: None,
            request_queues: limits::REQUEST_QUEUES_DEFAULT,
            stop_deadline: limits::STOP_DEADLINE_DEFAULT,
        }
    }
}

/// `[lun]`: the virtual LUN and how its commands are sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Lun {
    /// `wwid`: the only logical unit that is served. `None` takes what the paths agree on.
    pub wwid: Option<Wwid>,
    /// `iopolicy`: how a path is chosen.
    pub iopolicy: IoPolicy,
    /// `no_path_retry`: what happens to commands without a path.
    pub no_path_retry: NoPathRetry,
    /// `failback`: when a better group is used again.
    pub failback: Failback,
    /// `explicit_alua`: whether the array is told which group is to be the better one.
    pub explicit_alua: bool,
    /// `command_deadline`: of trying per command; stands still while no path exists.
    pub command_deadline: Duration,
    /// `path_timeout`: until one attempt on one path is given up.
    pub path_timeout: Duration,
    /// `write_quiesce`: where a write's first attempt cannot be proven dead otherwise.
    pub write_quiesce: Duration,
    /// `hedged_reads`: slow reads are cloned to another path.
    pub hedged_reads: bool,
    /// `hedge_budget`: clones per read at most.
    pub hedge_budget: f64,
    /// `hedge_percentile`: of the reads' times, from which on one is slow.
    pub hedge_percentile: f64,
}

impl Default for Lun {
    fn default() -> Self {
        Lun {
            wwid: None,
            iopolicy: IoPolicy::default(),
            no_path_retry: NoPathRetry::default(),
            failback: Failback::default(),
            explicit_alua: false,
            command_deadline: limits::COMMAND_DEADLINE_DEFAULT,
            path_timeout: limits::PATH_TIMEOUT_DEFAULT,
            write_quiesce: limits::WRITE_QUIESCE_DEFAULT,
            hedged_reads: false,
            hedge_budget: limits::HEDGE_BUDGET_DEFAULT,
            hedge_percentile: limits::HEDGE_PERCENTILE_DEFAULT,
        }
    }
}

/// `[iscsi]`: who we are at iSCSI targets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Iscsi {
    /// `initiator_name`; "" is the host's, or one derived from the machine id.
    pub initiator_name: String,
    /// `secret_file`: the CHAP secrets, if addresses name users without them.
    pub secret_file: Option<PathBuf>,
    /// `relogin_is_proof`.
    pub relogin_is_proof: ReloginIsProof,
}

/// `[discovery]`: paths that nobody lists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Discovery {
    /// `scan`: every host SCSI disk with the LUN's WWID is a path, now and when one appears.
    pub scan: bool,
    /// `allow`: only those that one of these stands for; empty: all.
    pub allow: Vec<Pattern>,
    /// `deny`: none that one of these stands for.
    pub deny: Vec<Pattern>,
}

/// `relogin_is_proof`: does a target end the old session's tasks before it answers the login that
/// takes the session's place?
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

/// `[[path]]`: one path.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct PathConfig {
    /// `address`, as written. It may hold a secret.
    pub address: String,
    /// `name`; "" is the address's own short form.
    pub name: String,
    /// `group`: a group number for arrays without ALUA.
    pub group: Option<u16>,
    /// `preferred`: the group to prefer, for arrays without ALUA.
    pub preferred: bool,
    /// `direct_io`: guest memory straight to the kernel, for host devices.
    pub direct_io: bool,
}

/// Without the address, which may hold a secret.
impl std::fmt::Debug for PathConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let PathConfig { address: _, name, group, preferred, direct_io } = self;
        f.debug_struct("PathConfig")
            .field("name", name)
            .field("group", group)
            .field("preferred", preferred)
            .field("direct_io", direct_io)
            .finish_non_exhaustive()
    }
}

/// Why the configuration cannot be used. Each message is one line that names file, line and
/// setting, as far as there is one.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("{}: cannot read the configuration: {cause}", file.display())]
    Unreadable {
        /// Which file.
        file: PathBuf,
        /// Why.
        cause: std::io::Error,
    },
    /// The file is not TOML, has an unknown key, or a value of the wrong type.
    #[error("{place}: {setting}{message}")]
    Malformed {
        /// Where.
        place: Place,
        /// The setting with ": " behind it, or "".
        setting: String,
        /// What is wrong, in the parser's words.
        message: String,
    },
    /// A number is outside its range.
    #[error("{place}: {setting}: {given} is out of range, {min} to {max} is allowed")]
    OutOfRange {
        /// Where.
        place: Place,
        /// Which setting.
        setting: &'static str,
        /// What was given.
        given: f64,
        /// The least.
        min: f64,
        /// The most.
        max: f64,
    },
    /// A value is well-formed and makes no sense.
    #[error("{place}: {setting}: {reason}")]
    Senseless {
        /// Where.
        place: Place,
        /// Which setting.
        setting: &'static str,
        /// Why.
        reason: String,
    },
    /// A socket that cannot be taken over.
    #[error(
        "{place}: --takeover: needs the other backend's socket, as --socket-path or backend.socket"
    )]
    TakeoverWithoutPath {
        /// The options.
        place: Place,
    },
    /// Discovery without a name to look for.
    #[error(
        "{place}: discovery.scan: needs lun.wwid (or --wwid), or every disk of this host would be a \
         path"
    )]
    ScanWithoutWwid {
        /// The file that asks for it.
        place: Place,
    },
    /// Neither the options nor the file say where to listen.
    #[error("{place}: backend.socket: not set, and neither --socket-path nor --fd was given")]
    NoSocket {
        /// The file that does not say it.
        place: Place,
    },
}
