//! The configuration file as it may be written: every table and key, none required.
//!
//! What the words mean, which numbers are allowed and what is not there yet is `check`'s part;
//! here only names and types count. Values keep their place in the file for its messages.

use std::path::Path;

use serde::Deserialize;
use toml::Spanned;

use super::locate::Source;
use super::{Config, ConfigError, Failback, IoPolicy, Landlock, NoPathRetry, Seccomp, check};

/// A setting that the file may give.
pub(super) type Given<T> = Option<Spanned<T>>;

/// The whole file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct File {
    pub backend: BackendTable,
    pub lun: LunTable,
    pub iscsi: IscsiTable,
    pub discovery: DiscoveryTable,
    pub metrics: MetricsTable,
    pub confinement: ConfinementTable,
    pub path: Vec<Spanned<PathTable>>,
}

/// `[backend]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct BackendTable {
    pub socket: Given<String>,
    pub control: Given<String>,
    pub socket_group: Given<String>,
    pub socket_mode: Given<String>,
    pub identity: Given<String>,
    pub state_dir: Given<String>,
    pub request_queues: Given<i64>,
    pub stop_deadline: Given<f64>,
}

/// `[lun]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct LunTable {
    pub wwid: Given<String>,
    pub iopolicy: Given<IoPolicy>,
    pub no_path_retry: Given<NoPathRetry>,
    pub failback: Given<Failback>,
    pub command_deadline: Given<f64>,
    pub path_timeout: Given<f64>,
    pub write_quiesce: Given<f64>,
    pub hedged_reads: Given<bool>,
    pub hedge_budget: Given<f64>,
    pub hedge_percentile: Given<f64>,
    pub explicit_alua: Given<bool>,
}

/// `[iscsi]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct IscsiTable {
    pub initiator_name: Given<String>,
    pub secret_file: Given<String>,
    pub relogin_is_proof: Given<WordOrBool>,
}

/// `relogin_is_proof`: a word, or a plain yes or no.
#[derive(Debug, Deserialize, PartialEq)]
#[serde(untagged)]
pub(super) enum WordOrBool {
    Word(String),
    Bool(bool),
}

/// `[discovery]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct DiscoveryTable {
    pub scan: Given<bool>,
    pub allow: Given<Vec<Spanned<String>>>,
    pub deny: Given<Vec<Spanned<String>>>,
}

/// `[metrics]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct MetricsTable {
    pub listen: Given<String>,
}

/// `[confinement]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ConfinementTable {
    pub seccomp: Given<Seccomp>,
    pub landlock: Given<Landlock>,
    pub allow_files: Given<Vec<Spanned<String>>>,
    pub allow_ports: Given<Vec<Spanned<i64>>>,
    pub core_dumps: Given<bool>,
}

/// `[[path]]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct PathTable {
    pub address: Given<String>,
    pub name: Given<String>,
    pub group: Given<String>,
    pub preferred: Given<bool>,
    pub direct_io: Given<bool>,
}

/// Reads and checks a configuration file.
pub fn read(file: &Path) -> Result<Config, ConfigError> {
    let text = std::fs::read_to_string(file)
        .map_err(|cause| ConfigError::Unreadable { file: file.to_owned(), cause })?;
    parse(file, &text)
}

/// Checks a configuration file's text; `file` is its name for messages.
pub fn parse(file: &Path, text: &str) -> Result<Config, ConfigError> {
    let source = Source { file, text };
    let tables: File = toml::from_str(text).map_err(|error| malformed(source, &error))?;
    check::config(source, tables)
}

/// The parser's own error, with the setting's name before it and in one line.
fn malformed(source: Source<'_>, error: &toml::de::Error) -> ConfigError {
    let span = error.span();
    let setting = span
        .as_ref()
        .and_then(|span| source.setting_at(span.start))
        .map_or_else(String::new, |setting| format!("{setting}: "));
    let lines: Vec<&str> = error.message().lines().map(str::trim).collect();
    ConfigError::Malformed { place: source.place(span), setting, message: lines.join(", ") }
}
