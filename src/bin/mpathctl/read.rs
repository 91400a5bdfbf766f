//! The commands that only look: asked of every backend that is meant, one after the other. One
//! that does not answer is complained about, and the others are shown all the same.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use vhost_user_scsi_mpath::control::client::{Client, ClientError};
use vhost_user_scsi_mpath::control::{LunReport, PathReport, ReservationReport, StatsReport};
use vhost_user_scsi_mpath::metrics::{Format, Snapshot, render};

use crate::backends::{self, Failure};
use crate::{Output, reservation, tables, topology, topology_json, why};

/// `topology`.
pub fn topology(
    socket: Option<&Path>,
    directory: &Path,
    output: &mut Output<'_>,
) -> Result<u8, Failure> {
    let mut maps = Vec::new();
    let code = each(socket, directory, output, |client, socket, output| {
        let lun: LunReport = report(socket, client.execute("query-lun", json!({}))?)?;
        let paths: Vec<PathReport> = report(socket, client.execute("query-paths", json!({}))?)?;
        let name = backends::name(socket);
        if output.json {
            let stats = report(socket, client.execute("query-stats", json!({}))?)?;
            maps.push(topology_json::map(&name, socket, &lun, &paths, &stats));
        } else {
            write!(output.out, "{}", topology::render(&name, &lun, &paths, output.paint))?;
        }
        Ok(())
    })?;
    if output.json {
        writeln!(output.out, "{}", topology_json::document(maps))?;
    }
    Ok(code)
}

/// `paths`.
pub fn paths(
    socket: Option<&Path>,
    directory: &Path,
    output: &mut Output<'_>,
) -> Result<u8, Failure> {
    show(socket, directory, output, "query-paths", |reports: Vec<PathReport>, paint| {
        tables::paths(&reports, paint)
    })
}

/// `paths --names`: for shells.
pub fn names(
    socket: Option<&Path>,
    directory: &Path,
    output: &mut Output<'_>,
) -> Result<u8, Failure> {
    each(socket, directory, output, |client, socket, output| {
        let paths: Vec<PathReport> = report(socket, client.execute("query-paths", json!({}))?)?;
        for path in paths {
            writeln!(output.out, "{}", path.name)?;
        }
        Ok(())
    })
}

/// `lun`.
pub fn lun(
    socket: Option<&Path>,
    directory: &Path,
    output: &mut Output<'_>,
) -> Result<u8, Failure> {
    show(socket, directory, output, "query-lun", |report: LunReport, paint| {
        tables::lun(&report, paint)
    })
}

/// `stats`.
pub fn stats(
    socket: Option<&Path>,
    directory: &Path,
    output: &mut Output<'_>,
) -> Result<u8, Failure> {
    show(socket, directory, output, "query-stats", |report: StatsReport, _| tables::stats(&report))
}

/// `reservation`.
pub fn reservation(
    socket: Option<&Path>,
    directory: &Path,
    output: &mut Output<'_>,
) -> Result<u8, Failure> {
    show(socket, directory, output, "query-reservation", |report: ReservationReport, paint| {
        reservation::table(&report, paint)
    })
}

/// How `metrics` writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum MetricsFormat {
    /// OpenMetrics 1.0.
    #[default]
    Openmetrics,
    /// Prometheus' text format 0.0.4.
    Prometheus,
}

/// `metrics`: of all backends in one text, in which each metric comes once. With `--json`, what
/// the sockets returned.
pub fn metrics(
    socket: Option<&Path>,
    directory: &Path,
    format: MetricsFormat,
    output: &mut Output<'_>,
) -> Result<u8, Failure> {
    let mut snapshots = Vec::new();
    let code = each(socket, directory, output, |client, socket, output| {
        let backend = backends::name(socket);
        let mut ask = |query: &str| client.execute(query, json!({}));
        let (lun, paths, stats) = (ask("query-lun")?, ask("query-paths")?, ask("query-stats")?);
        if output.json {
            let all = json!({"backend": backend, "lun": lun, "paths": paths, "stats": stats});
            writeln!(output.out, "{all}")?;
            return Ok(());
        }
        let (lun, paths) = (report(socket, lun)?, report(socket, paths)?);
        let stats = report(socket, stats)?;
        snapshots.push(Snapshot { backend, lun, paths, stats });
        Ok(())
    })?;
    if !output.json {
        let format = match format {
            MetricsFormat::Openmetrics => Format::OpenMetrics,
            MetricsFormat::Prometheus => Format::Text,
        };
        write!(output.out, "{}", render(&snapshots, format))?;
    }
    Ok(code)
}

/// `why`: of every backend that has a path of that name.
pub fn why(
    socket: Option<&Path>,
    directory: &Path,
    name: &str,
    output: &mut Output<'_>,
) -> Result<u8, Failure> {
    let several = backends::all(socket, directory)?.len() > 1;
    let (mut known, mut found) = (Vec::new(), false);
    let code = each(socket, directory, output, |client, socket, output| {
        let paths: Vec<PathReport> = report(socket, client.execute("query-paths", json!({}))?)?;
        let Some(path) = paths.iter().find(|path| path.name == name) else {
            known.extend(paths.into_iter().map(|path| path.name));
            return Ok(());
        };
        found = true;
        let lun: LunReport = report(socket, client.execute("query-lun", json!({}))?)?;
        let stats: StatsReport = report(socket, client.execute("query-stats", json!({}))?)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let why = why::explain(path, &lun, &paths, &stats, now.as_secs());
        let backend = backends::name(socket);
        if output.json {
            writeln!(output.out, "{}", why.json(&backend))?;
            return Ok(());
        }
        if several {
            writeln!(output.out, "{backend}:")?;
        }
        write!(output.out, "{}", why.text())?;
        Ok(())
    })?;
    match (found, code) {
        (false, 0) => Err(Failure::NoPath { name: name.to_owned(), known }),
        _ => Ok(code),
    }
}

/// One query of each backend, as a table, or as it was returned.
fn show<T: DeserializeOwned>(
    socket: Option<&Path>,
    directory: &Path,
    output: &mut Output<'_>,
    query: &str,
    table: impl Fn(T, crate::Paint) -> String,
) -> Result<u8, Failure> {
    let several = backends::all(socket, directory)?.len() > 1;
    each(socket, directory, output, |client, socket, output| {
        let value = client.execute(query, json!({}))?;
        if output.json {
            writeln!(output.out, "{value}")?;
            return Ok(());
        }
        let text = table(report(socket, value)?, output.paint);
        if several {
            writeln!(output.out, "{}:", backends::name(socket))?;
        }
        write!(output.out, "{text}")?;
        Ok(())
    })
}

/// Does something with each backend; 1 if it did not work with one of them.
fn each(
    socket: Option<&Path>,
    directory: &Path,
    output: &mut Output<'_>,
    mut with: impl FnMut(&mut Client, &Path, &mut Output<'_>) -> Result<(), Failure>,
) -> Result<u8, Failure> {
    let mut code = 0;
    for socket in backends::all(socket, directory)? {
        let result =
            backends::connect(&socket).and_then(|mut client| with(&mut client, &socket, output));
        match result {
            Ok(()) => {}
            // No backend's fault, and the next one would fare no better.
            Err(failure @ Failure::Output(_)) => return Err(failure),
            Err(failure) => {
                output.complain(&failure);
                code = 1;
            }
        }
    }
    Ok(code)
}

/// What was returned, as what it should be.
pub fn report<T: DeserializeOwned>(socket: &Path, value: Value) -> Result<T, Failure> {
    let socket = socket.to_owned();
    serde_json::from_value(value).map_err(|cause| Failure::Report { socket, cause })
}

/// What only newer backends answer; `None` from one that does not know the query.
pub fn optional<T: DeserializeOwned>(
    client: &mut Client,
    socket: &Path,
    query: &str,
) -> Result<Option<T>, Failure> {
    match client.execute(query, json!({})) {
        Ok(value) => report(socket, value).map(Some),
        Err(ClientError::Refused { class, .. }) if class == "CommandNotFound" => Ok(None),
        Err(error) => Err(error.into()),
    }
}
