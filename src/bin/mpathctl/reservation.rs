//! `reservation`: what the guest has registered and reserved, and its move to another backend.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde_json::{Value, json};
use vhost_user_scsi_mpath::control::{ReservationReport, StateKeeping};

use crate::backends::{self, Failure};
use crate::tables::Table;
use crate::{Output, Paint, read};

/// Bytes of a file that is imported at most: the control socket takes more in one line.
const FILE_MAX: u64 = 32 << 10;

/// What to do with it, beside showing it.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Print what is remembered, for the backend that the guest moves to.
    Export {
        /// The file; standard output without it.
        file: Option<PathBuf>,
    },
    /// Take what another backend has exported, before the guest comes.
    Import {
        /// The file; - is standard input.
        file: PathBuf,
        /// Wait for the guest: nothing is done before its disk is in use here. For a guest that runs
        /// on the other host until then.
        #[arg(long)]
        at_arrival: bool,
    },
}

/// `reservation`, `reservation export` and `reservation import`.
pub fn run(
    socket: Option<&Path>,
    directory: &Path,
    action: Option<Action>,
    output: &mut Output<'_>,
) -> Result<u8, Failure> {
    match action {
        None => read::reservation(socket, directory, output),
        Some(Action::Export { file }) => export(socket, directory, file, output),
        Some(Action::Import { file, at_arrival }) => {
            import(socket, directory, &file, at_arrival, output)
        }
    }
}

fn export(
    socket: Option<&Path>,
    directory: &Path,
    file: Option<PathBuf>,
    output: &mut Output<'_>,
) -> Result<u8, Failure> {
    let socket = backends::one(socket, directory)?;
    let exported = backends::connect(&socket)?.execute("reservation-export", json!({}))?;
    let Some(file) = file else {
        writeln!(output.out, "{exported:#}")?;
        return Ok(0);
    };
    let written = fs::write(&file, format!("{exported:#}\n"));
    written.map_err(|cause| Failure::Write { file: file.clone(), cause })?;
    writeln!(output.out, "{}: exported to {}", backends::name(&socket), file.display())?;
    Ok(0)
}

fn import(
    socket: Option<&Path>,
    directory: &Path,
    file: &Path,
    at_arrival: bool,
    output: &mut Output<'_>,
) -> Result<u8, Failure> {
    let socket = backends::one(socket, directory)?;
    let unreadable = |cause| Failure::Read { file: file.to_owned(), cause };
    let exported: Value = serde_json::from_slice(&bytes(file).map_err(unreadable)?)
        .map_err(|error| unreadable(error.into()))?;
    let mut arguments = json!({"reservation": exported});
    if at_arrival {
        // An older backend does not know the word, and says so.
        arguments["at-arrival"] = true.into();
    }
    let returned = backends::connect(&socket)?.execute("reservation-import", arguments)?;
    if output.json {
        writeln!(output.out, "{returned}")?;
    } else {
        let what = if at_arrival { "imported when the guest comes" } else { "imported" };
        writeln!(output.out, "{}: {what}", backends::name(&socket))?;
    }
    Ok(0)
}

fn bytes(file: &Path) -> io::Result<Vec<u8>> {
    let open: Box<dyn Read> = match file == Path::new("-") {
        true => Box::new(io::stdin()),
        false => Box::new(fs::File::open(file)?),
    };
    let mut bytes = Vec::new();
    open.take(FILE_MAX + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > FILE_MAX {
        true => Err(io::Error::other(format!("it is longer than {FILE_MAX} bytes"))),
        false => Ok(bytes),
    }
}

/// Rows of a name and a value, for people.
pub fn facts(report: &ReservationReport) -> Vec<(&'static str, String)> {
    let or = |text: &Option<String>, other: &str| text.clone().unwrap_or_else(|| other.to_owned());
    let kept = match (&report.state_file, report.state) {
        (Some(file), _) => format!("in {}", file.display()),
        (None, StateKeeping::Opening) => "being read".to_owned(),
        (None, _) => "nowhere".to_owned(),
    };
    let holder = report.holder.map(|holder| {
        let path = report.holder_path.as_ref().map(|path| format!(" over {path}"));
        let key = report.holder_key.as_ref().map(|key| format!(", key {key}"));
        format!("{holder}{}{}", path.unwrap_or_default(), key.unwrap_or_default())
    });
    let mut facts = vec![
        ("key", or(&report.key, "not registered")),
        ("generation", report.generation.to_string()),
        ("aptpl", report.aptpl.to_string()),
        ("type", or(&report.kind, "no reservation")),
        ("holder", or(&holder, "-")),
        ("others", if report.others.is_empty() { "-".to_owned() } else { report.others.join(" ") }),
        ("kept", kept),
    ];
    if !report.reason.is_empty() {
        facts.push(("refused", report.reason.clone()));
    }
    facts
}

/// The table for people.
pub fn table(report: &ReservationReport, paint: Paint) -> String {
    let mut about = Table::default();
    for (name, value) in facts(report) {
        about.row([name.to_owned(), value]);
    }
    let mut text = about.render(paint);
    if !report.paths.is_empty() {
        let mut paths = Table::default();
        paths.row(["PATH", "REGISTRATION"]);
        for path in &report.paths {
            paths.row([path.name.as_str(), path.registration.as_str()]);
        }
        text += "\n";
        text += &paths.render(paint);
    }
    text
}
