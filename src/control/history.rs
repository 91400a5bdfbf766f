//! `query-history`: what the last minutes were like, for who comes after something went wrong.
//!
//! The lists of one answer are all as long as `times`, the oldest point first. A point tells of the
//! time since the one before it; what is not known of it (there was no such path then, or nothing
//! was answered) is `null`.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::report::{LunState, PathState};

/// `query-history`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct HistoryReport {
    /// Seconds between two points.
    pub interval: f64,
    /// When each point was taken, in seconds since 1970.
    pub times: Vec<f64>,
    /// Of the LUN.
    pub lun: LunHistory,
    /// Of each path that there is now.
    pub paths: Vec<PathHistory>,
    /// The last events, as clients were sent them, the oldest first. What failed over from one path
    /// to the same other one within a second is one event here.
    pub events: Vec<Value>,
}

/// The LUN's points.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct LunHistory {
    /// How it was.
    pub state: Vec<LunState>,
    /// Commands that waited for a path.
    pub queued: Vec<u64>,
}

/// A path's points.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct PathHistory {
    /// Its name.
    pub name: String,
    /// How it was.
    pub state: Vec<Option<PathState>>,
    /// Commands that were answered.
    pub commands: Vec<Option<u64>>,
    /// Bytes that were read and written.
    pub bytes: Vec<Option<u64>>,
    /// Attempts without a good end.
    pub errors: Vec<Option<u64>>,
    /// Their average time, in microseconds.
    pub mean_us: Vec<Option<u64>>,
    /// The end of the highest bucket of `query-stats` that one of them fell into; for the bucket
    /// without an end, its beginning.
    pub longest_us: Vec<Option<u64>>,
    /// For how long commands had been under way without one being answered, in microseconds.
    pub silent_us: Vec<Option<u64>>,
}
