//! What `reload` returns.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What another reading of the configuration has come to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ReloadReport {
    /// Paths that are used from now on, by name.
    pub added: Vec<String>,
    /// Paths that go when their commands have ended, by name.
    pub removed: Vec<String>,
    /// Paths that are called otherwise now.
    pub renamed: Vec<Renamed>,
    /// Settings that are in force.
    pub changed: Vec<String>,
    /// Settings that stay as they were until the backend is started again.
    pub kept: Vec<String>,
}

/// Another name for a path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Renamed {
    /// The old one.
    pub from: String,
    /// The new one.
    pub to: String,
}

/// One line for people.
impl fmt::Display for ReloadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let renamed: Vec<String> =
            self.renamed.iter().map(|one| format!("{} to {}", one.from, one.to)).collect();
        let parts = [
            ("added", &self.added),
            ("removed", &self.removed),
            ("renamed", &renamed),
            ("changed", &self.changed),
            ("kept until the backend is started again", &self.kept),
        ];
        let said = parts.iter().filter(|(_, names)| !names.is_empty());
        let said: Vec<String> =
            said.map(|(word, names)| format!("{word}: {}", names.join(", "))).collect();
        match said.is_empty() {
            true => f.write_str("nothing has changed"),
            false => f.write_str(&said.join("; ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn report_reads_as_one_line() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(ReloadReport::default().to_string(), "nothing has changed");
        let report = ReloadReport {
            added: names(&["c"]),
            renamed: vec![Renamed { from: "a".into(), to: "b".into() }],
            kept: names(&["lun.wwid", "backend.identity"]),
            ..ReloadReport::default()
        };
        let line = "added: c; renamed: a to b; kept until the backend is started again: lun.wwid, \
                    backend.identity";
        assert_eq!(report.to_string(), line);
    }
}
