//! What one backend returned.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use vhost_user_scsi_mpath::control::{
    HistoryReport, LunReport, PathReport, ReservationReport, SettingsReport, StatsReport,
};

use crate::backends::{self, Failure};
use crate::read::{optional, report};

/// The answers to all queries.
#[derive(Debug)]
pub struct Facts {
    /// Whom they were asked of.
    pub socket: PathBuf,
    /// Which program answered.
    pub version: String,
    /// `query-lun`.
    pub lun: LunReport,
    /// `query-paths`.
    pub paths: Vec<PathReport>,
    /// `query-stats`.
    pub stats: StatsReport,
    /// `query-settings`; an older backend does not know it.
    pub settings: Option<SettingsReport>,
    /// `query-history`; an older backend does not know it.
    pub history: Option<HistoryReport>,
    /// `query-reservation`; an older backend does not know it.
    pub reservation: Option<ReservationReport>,
}

impl Facts {
    /// Asks.
    pub fn ask(socket: &Path) -> Result<Facts, Failure> {
        let mut client = backends::connect(socket)?;
        let version = client.execute("query-version", json!({}))?;
        let mut required = |query: &str| client.execute(query, json!({}));
        let lun = report(socket, required("query-lun")?)?;
        let paths = report(socket, required("query-paths")?)?;
        let stats = report(socket, required("query-stats")?)?;
        Ok(Facts {
            socket: socket.to_owned(),
            version: version["package"].as_str().unwrap_or("unknown").to_owned(),
            lun,
            paths,
            stats,
            settings: optional(&mut client, socket, "query-settings")?,
            history: optional(&mut client, socket, "query-history")?,
            reservation: optional(&mut client, socket, "query-reservation")?,
        })
    }

    /// The same for programs.
    pub fn json(&self, name: &str) -> Value {
        json!({
            "backend": name,
            "version": self.version,
            "lun": self.lun,
            "paths": self.paths,
            "stats": self.stats,
            "settings": self.settings,
            "history": self.history,
            "reservation": self.reservation,
        })
    }
}
