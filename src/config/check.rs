//! What the file's settings mean: ranges, relations between them, and what is not there yet.

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::Duration;

use toml::Spanned;

use super::file::{
    BackendTable, ConfinementTable, DiscoveryTable, File, Given, IscsiTable, LunTable, PathTable,
    WordOrBool,
};
use super::locate::Source;
use super::{
    Backend, Config, ConfigError, Confinement, Discovery, Iscsi, Listen, Lun, MetricsListen,
    PathConfig, Pattern, ReloginIsProof,
};
use crate::limits;

/// Checks one file.
struct Checker<'a> {
    source: Source<'a>,
}

/// The whole configuration, checked.
pub(super) fn config(source: Source<'_>, file: File) -> Result<Config, ConfigError> {
    let checker = Checker { source };
    Ok(Config {
        backend: checker.backend(file.backend)?,
        lun: checker.lun(file.lun)?,
        iscsi: checker.iscsi(file.iscsi)?,
        discovery: checker.discovery(file.discovery)?,
        metrics: checker.metrics(file.metrics.listen)?,
        confinement: checker.confinement(file.confinement)?,
        paths: checker.paths(file.path)?,
        takeover: None,
    })
}

impl Checker<'_> {
    fn backend(&self, table: BackendTable) -> Result<Backend, ConfigError> {
        let default = Backend::default();
        let listen = self.file_name("backend.socket", table.socket)?.map(Listen::Path);
        let request_queues = match table.request_queues {
            None => default.request_queues,
            Some(given) => {
                let range = (1.0, f64::from(limits::REQUEST_QUEUES_MAX));
                self.in_range("backend.request_queues", *given.get_ref() as f64, range, &given)?
                    as u16
            }
        };
        Ok(Backend {
            listen,
            control: self.file_name("backend.control", table.control)?,
            socket_group: text(table.socket_group),
            socket_mode: match table.socket_mode {
                None => default.socket_mode,
                Some(mode) => self.mode(&mode)?,
            },
            identity: text(table.identity),
            state_dir: Some(text(table.state_dir)).filter(|dir| !dir.is_empty()).map(PathBuf::from),
            request_queues,
            stop_deadline: self.duration(
                "backend.stop_deadline",
                table.stop_deadline,
                limits::STOP_DEADLINE_RANGE,
                default.stop_deadline,
            )?,
        })
    }

    fn lun(&self, table: LunTable) -> Result<Lun, ConfigError> {
        let default = Lun::default();
        let wwid = match table.wwid {
            None => None,
            Some(given) => Some(
                given
                    .get_ref()
                    .parse()
                    .map_err(|error| self.senseless("lun.wwid", &given, &error))?,
            ),
        };
        let command_deadline = self.duration(
            "lun.command_deadline",
            table.command_deadline,
            limits::COMMAND_DEADLINE_RANGE,
            default.command_deadline,
        )?;
        // These two have to fit into the command's time, or no command is ever tried twice.
        let within = |setting, given: Given<f64>, range, default| {
            let span = given.as_ref().map(Spanned::span);
            let value = self.duration(setting, given, range, default)?;
            if value < command_deadline {
                return Ok(value);
            }
            Err(ConfigError::Senseless {
                place: self.source.place(span),
                setting,
                reason: format!(
                    "{} is not less than lun.command_deadline, which is {}",
                    value.as_secs_f64(),
                    command_deadline.as_secs_f64()
                ),
            })
        };
        Ok(Lun {
            wwid,
            iopolicy: value(table.iopolicy),
            no_path_retry: value(table.no_path_retry),
            failback: value(table.failback),
            explicit_alua: value(table.explicit_alua),
            path_timeout: within(
                "lun.path_timeout",
                table.path_timeout,
                limits::PATH_TIMEOUT_RANGE,
                default.path_timeout,
            )?,
            write_quiesce: within(
                "lun.write_quiesce",
                table.write_quiesce,
                limits::WRITE_QUIESCE_RANGE,
                default.write_quiesce,
            )?,
            command_deadline,
            hedged_reads: value(table.hedged_reads),
            hedge_budget: self.number(
                "lun.hedge_budget",
                table.hedge_budget,
                limits::HEDGE_BUDGET_RANGE,
                default.hedge_budget,
            )?,
            hedge_percentile: self.number(
                "lun.hedge_percentile",
                table.hedge_percentile,
                limits::HEDGE_PERCENTILE_RANGE,
                default.hedge_percentile,
            )?,
        })
    }

    fn iscsi(&self, table: IscsiTable) -> Result<Iscsi, ConfigError> {
        let relogin_is_proof = match table.relogin_is_proof {
            None => ReloginIsProof::default(),
            Some(given) => match given.get_ref() {
                WordOrBool::Bool(true) => ReloginIsProof::Yes,
                WordOrBool::Bool(false) => ReloginIsProof::No,
                WordOrBool::Word(word) => match word.as_str() {
                    "auto" => ReloginIsProof::Auto,
                    "yes" => ReloginIsProof::Yes,
                    "no" => ReloginIsProof::No,
                    _ => {
                        let reason = "not one of \"auto\", true and false";
                        return Err(self.senseless("iscsi.relogin_is_proof", &given, &reason));
                    }
                },
            },
        };
        Ok(Iscsi {
            initiator_name: text(table.initiator_name),
            secret_file: Some(text(table.secret_file))
                .filter(|file| !file.is_empty())
                .map(PathBuf::from),
            relogin_is_proof,
        })
    }

    fn discovery(&self, table: DiscoveryTable) -> Result<Discovery, ConfigError> {
        let patterns = |setting, given: Given<Vec<Spanned<String>>>| {
            let read = |text: &Spanned<String>| {
                let pattern: Result<Pattern, _> = text.get_ref().parse();
                pattern.map_err(|error| self.senseless(setting, text, &error))
            };
            value(given).iter().map(read).collect::<Result<Vec<_>, _>>()
        };
        Ok(Discovery {
            scan: value(table.scan),
            allow: patterns("discovery.allow", table.allow)?,
            deny: patterns("discovery.deny", table.deny)?,
        })
    }

    fn metrics(&self, listen: Given<String>) -> Result<Option<MetricsListen>, ConfigError> {
        match listen {
            Some(given) if !given.get_ref().is_empty() => match given.get_ref().parse() {
                Ok(listen) => Ok(Some(listen)),
                Err(error) => Err(self.senseless("metrics.listen", &given, &error)),
            },
            _ => Ok(None),
        }
    }

    fn confinement(&self, table: ConfinementTable) -> Result<Confinement, ConfigError> {
        let file = |file: &Spanned<String>| match file.get_ref().starts_with('/') {
            true => Ok(PathBuf::from(file.get_ref())),
            false => Err(self.senseless("confinement.allow_files", file, &"does not begin with /")),
        };
        let port = |port: &Spanned<i64>| {
            let (setting, range) = ("confinement.allow_ports", (1.0, f64::from(u16::MAX)));
            self.in_range(setting, *port.get_ref() as f64, range, port).map(|port| port as u16)
        };
        Ok(Confinement {
            seccomp: value(table.seccomp),
            landlock: value(table.landlock),
            allow_files: value(table.allow_files).iter().map(file).collect::<Result<_, _>>()?,
            allow_ports: value(table.allow_ports).iter().map(port).collect::<Result<_, _>>()?,
            core_dumps: value(table.core_dumps),
        })
    }

    fn paths(&self, tables: Vec<Spanned<PathTable>>) -> Result<Vec<PathConfig>, ConfigError> {
        let (mut names, mut addresses) = (HashSet::new(), HashSet::new());
        let mut paths = Vec::new();
        for spanned in tables {
            if paths.len() == limits::PATHS_MAX {
                let reason = format!("more than {} paths", limits::PATHS_MAX);
                return Err(self.senseless("path", &spanned, &reason));
            }
            let Some(address) = &spanned.get_ref().address else {
                return Err(self.senseless("path.address", &spanned, &"missing in this [[path]]"));
            };
            if address.get_ref().is_empty() {
                return Err(self.senseless("path.address", address, &"empty"));
            }
            if !addresses.insert(address.get_ref().clone()) {
                return Err(self.senseless("path.address", address, &"given twice"));
            }
            if let Some(name) = &spanned.get_ref().name
                && !name.get_ref().is_empty()
                && !names.insert(name.get_ref().clone())
            {
                return Err(self.senseless("path.name", name, &"given twice"));
            }
            let group = match &spanned.get_ref().group {
                Some(group) if !group.get_ref().is_empty() => {
                    let number = group.get_ref().parse().map_err(|_| {
                        self.senseless("path.group", group, &"not a number from 0 to 65535")
                    })?;
                    Some(number)
                }
                _ => None,
            };
            let table = spanned.into_inner();
            paths.push(PathConfig {
                address: text(table.address),
                name: text(table.name),
                group,
                preferred: value(table.preferred),
                direct_io: value(table.direct_io),
            });
        }
        Ok(paths)
    }

    fn duration(
        &self,
        setting: &'static str,
        given: Given<f64>,
        range: (f64, f64),
        default: Duration,
    ) -> Result<Duration, ConfigError> {
        match given {
            None => Ok(default),
            Some(given) => {
                let seconds = self.in_range(setting, *given.get_ref(), range, &given)?;
                Ok(Duration::from_secs_f64(seconds))
            }
        }
    }

    fn number(
        &self,
        setting: &'static str,
        given: Given<f64>,
        range: (f64, f64),
        default: f64,
    ) -> Result<f64, ConfigError> {
        match given {
            None => Ok(default),
            Some(given) => self.in_range(setting, *given.get_ref(), range, &given),
        }
    }

    fn in_range<T>(
        &self,
        setting: &'static str,
        given: f64,
        (min, max): (f64, f64),
        at: &Spanned<T>,
    ) -> Result<f64, ConfigError> {
        // False for what is not a number at all, which TOML can write.
        if given >= min && given <= max {
            return Ok(given);
        }
        let place = self.source.place(Some(at.span()));
        Err(ConfigError::OutOfRange { place, setting, given, min, max })
    }

    fn file_name(
        &self,
        setting: &'static str,
        given: Given<String>,
    ) -> Result<Option<PathBuf>, ConfigError> {
        match given {
            Some(given) if given.get_ref().is_empty() => {
                Err(self.senseless(setting, &given, &"empty"))
            }
            given => Ok(given.map(|given| PathBuf::from(given.into_inner()))),
        }
    }

    fn mode(&self, given: &Spanned<String>) -> Result<u32, ConfigError> {
        let octal = given.get_ref().bytes().all(|byte| (b'0'..=b'7').contains(&byte));
        match u32::from_str_radix(given.get_ref(), 8) {
            Ok(mode) if octal && mode <= 0o777 => Ok(mode),
            _ => {
                let reason = "not an octal mode from \"0000\" to \"0777\"";
                Err(self.senseless("backend.socket_mode", given, &reason))
            }
        }
    }

    fn senseless<T>(
        &self,
        setting: &'static str,
        at: &Spanned<T>,
        reason: &dyn std::fmt::Display,
    ) -> ConfigError {
        let place = self.source.place(Some(at.span()));
        ConfigError::Senseless { place, setting, reason: reason.to_string() }
    }
}

fn text(given: Given<String>) -> String {
    value(given)
}

fn value<T: Default>(given: Given<T>) -> T {
    given.map(Spanned::into_inner).unwrap_or_default()
}
