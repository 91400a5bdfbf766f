//! `query-settings`: what the backend goes by beside what `query-lun` tells, for who asks why
//! something took so long.

use serde::{Deserialize, Serialize};

/// `query-settings`. Times are in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct SettingsReport {
    /// The configuration's `command_deadline`.
    pub command_deadline: f64,
    /// The configuration's `path_timeout`.
    pub path_timeout: f64,
    /// The configuration's `write_quiesce`.
    pub write_quiesce: f64,
    /// The configuration's `explicit_alua`.
    pub explicit_alua: bool,
    /// The configuration's `hedged_reads`.
    pub hedged_reads: bool,
    /// The configuration's `hedge_budget`; unknown where reads are not hedged.
    pub hedge_budget: Option<f64>,
    /// The configuration's `hedge_percentile`; unknown where reads are not hedged.
    pub hedge_percentile: Option<f64>,
    /// How long the backend has been running.
    pub uptime: f64,
}
