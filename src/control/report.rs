//! What queries return. The names are promises to whoever reads the JSON: none is renamed or
//! dropped, and what is not known is `null`, not left out.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::config::{Failback, IoPolicy, NoPathRetry};

/// A closed set of words: an enum, its JSON, and the word for people.
macro_rules! words {
    ($(#[$about:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$doc])* #[serde(rename = $word)] $variant,)+
        }

        impl $name {
            /// All of them, in the order of their declaration.
            pub const ALL: &'static [$name] = &[$($name::$variant),+];

            /// The word for it.
            pub fn as_str(self) -> &'static str {
                match self {
                    $($name::$variant => $word,)+
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                // Honours a width, for tables.
                f.pad(self.as_str())
            }
        }
    };
}

pub(super) use words;

words! {
    /// How a path is.
    PathState {
        /// Being opened and identified; not used yet.
        Checking = "checking",
        /// Reservation keys are being registered; not used yet.
        Registering = "registering",
        /// In use, or ready to be.
        Up = "up",
        /// Works, with errors, flapping or slowly; used when nothing better is there.
        Shaky = "shaky",
        /// The transport holds commands back for now.
        Blocked = "blocked",
        /// Does not work; asked again and again.
        Failed = "failed",
        /// On its way out: no new commands.
        Draining = "draining",
        /// Not used because an admin said so.
        Disabled = "disabled",
        /// Leads to another logical unit; never used.
        WrongLun = "wrong-lun",
    }
}

words! {
    /// Asymmetric access state of the path's target port group (SPC-5 5.15.2).
    AccessState {
        /// ACTIVE/OPTIMIZED.
        ActiveOptimized = "active/optimized",
        /// ACTIVE/NON-OPTIMIZED.
        ActiveNonOptimized = "active/non-optimized",
        /// STANDBY.
        Standby = "standby",
        /// UNAVAILABLE.
        Unavailable = "unavailable",
        /// OFFLINE.
        Offline = "offline",
        /// TRANSITIONING.
        Transitioning = "transitioning",
        /// Nobody has said.
        Unknown = "unknown",
    }
}

words! {
    /// How the LUN is.
    LunState {
        /// Every path that should be there is.
        Healthy = "healthy",
        /// Served, with fewer paths than it should have.
        Degraded = "degraded",
        /// No usable path now.
        NoPath = "no-path",
        /// No path, and commands are failed by now.
        Lost = "lost",
    }
}

words! {
    /// The transport behind a path.
    PathKind {
        /// A host SCSI device.
        Sg = "sg",
        /// A user-space iSCSI session.
        Iscsi = "iscsi",
        /// A port of the built-in array.
        Emulated = "emulated",
        /// Zeroes.
        Null = "null",
    }
}

/// `query-backend`: what the process was started with. It stays the same while it runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct BackendReport {
    /// The process.
    pub pid: u32,
    /// The vhost-user socket's file; unknown where it was inherited without a name.
    pub socket: Option<PathBuf>,
    /// Where state is kept, if it is.
    pub state_dir: Option<PathBuf>,
    /// Request virtqueues that a front end may bring at most.
    pub request_queues: u16,
}

/// `query-lun`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct LunReport {
    /// In sysfs' form.
    pub wwid: Option<String>,
    /// T10 VENDOR IDENTIFICATION.
    pub vendor: Option<String>,
    /// PRODUCT IDENTIFICATION.
    pub product: Option<String>,
    /// PRODUCT REVISION LEVEL.
    pub revision: Option<String>,
    /// PRODUCT SERIAL NUMBER.
    pub serial: Option<String>,
    /// Bytes in a logical block.
    pub block_size: Option<u32>,
    /// Logical blocks.
    pub blocks: Option<u64>,
    /// How a path is chosen.
    pub iopolicy: IoPolicy,
    /// What happens to commands without a path.
    pub no_path_retry: NoPathRetry,
    /// When a better group is used again.
    pub failback: Failback,
    /// How the LUN is.
    pub state: LunState,
    /// Commands that wait for a path.
    pub queued: u64,
    /// Commands that are on a path.
    pub inflight: u64,
    /// A guest's front end is attached.
    pub connected: bool,
}

/// One of `query-paths`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct PathReport {
    /// What the other commands call it.
    pub name: String,
    /// As configured.
    pub address: String,
    /// The transport.
    pub kind: PathKind,
    /// The logical unit it leads to, in sysfs' form.
    pub wwid: Option<String>,
    /// How it is.
    pub state: PathState,
    /// Asymmetric access state.
    pub access_state: AccessState,
    /// TARGET PORT GROUP, or for an array without asymmetric access the configuration's.
    pub group: Option<u16>,
    /// Its group is in use.
    #[serde(default)]
    pub current: bool,
    /// RELATIVE TARGET PORT IDENTIFIER.
    pub relative_port: Option<u16>,
    /// Its group has the PREF bit.
    pub preferred: bool,
    /// Host, channel, target, LUN of a host device.
    pub hctl: Option<String>,
    /// Names of a host device.
    pub devices: Vec<String>,
    /// How its commands are sent.
    pub engine: Option<String>,
    /// The memory node that it is nearest to.
    pub numa_node: Option<u32>,
    /// The memory nodes whose commands go over it now.
    pub numa_nodes: Vec<u32>,
    /// Commands on it.
    pub inflight: u64,
    /// Average latency in microseconds, rounded up.
    pub latency_us: Option<u64>,
    /// Seconds in this state.
    pub since: f64,
    /// Why it is in this state, in words.
    pub reason: String,
    /// Seconds until it is asked again whether it is well, 0 while it is being asked; unknown where
    /// it is not asked at all.
    pub next_check: Option<f64>,
}

/// `query-stats`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct StatsReport {
    /// As the guest sees it: each command once.
    pub lun: Counters,
    /// As each path sees it: each attempt once.
    pub paths: Vec<PathStats>,
    /// Reads that were slow, where slow reads are cloned. A read counts once above, whichever of
    /// its two attempts was first.
    #[serde(default)]
    pub hedges: HedgeStats,
}

/// What was done about slow reads, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct HedgeStats {
    /// Clones that were sent.
    pub sent: u64,
    /// Clones that answered first.
    pub won: u64,
    /// Slow reads without a clone, for want of budget or memory.
    pub denied: u64,
    /// Times that cloning was given up for a while because it did not help.
    pub pauses: u64,
}

/// One path's part of `query-stats`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct PathStats {
    /// The path's name.
    pub name: String,
    /// Its counters.
    #[serde(flatten)]
    pub counters: Counters,
}

/// What is counted, since the start or since the path was added.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Counters {
    /// Read commands.
    pub reads: u64,
    /// Write commands.
    pub writes: u64,
    /// All other commands.
    pub other: u64,
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub write_bytes: u64,
    /// Errors by class.
    pub errors: BTreeMap<String, u64>,
    /// Commands sent once more.
    pub retries: u64,
    /// Changes to another path, or away from this one.
    pub failovers: u64,
    /// How long commands took; empty buckets may be left out.
    pub latency: Vec<LatencyBucket>,
    /// The sum of these times, in microseconds.
    #[serde(default)]
    pub latency_sum_us: u64,
}

/// A bucket of a latency histogram, with a power of two as its bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct LatencyBucket {
    /// Commands in it took so many microseconds or less, and more than the bucket before. `None`
    /// is the last bucket, which has no end.
    pub le_us: Option<u64>,
    /// How many.
    pub count: u64,
}
