//! `report`: one HTML file that a person attaches to a ticket. It loads nothing, runs nothing and
//! holds no secret: what is in it is what the control sockets tell everybody who may ask.
//!
//! ```text
//!   sockets --> facts --> page --> sections --> diagram, timeline, histogram (SVG)
//!   /proc, /etc --> host --^
//! ```
//!
//! | file | what |
//! |---|---|
//! | `mod` | asks, and writes the file |
//! | `facts` | what one backend returned |
//! | `host` | which machine this is |
//! | `page` | the document: what is the matter, and a section for each backend |
//! | `section` | one backend: tables and pictures |
//! | `diagram` | guest, LUN, groups and paths as a picture |
//! | `timeline` | the last minutes as a picture |
//! | `histogram` | how long commands took, as a picture |
//! | `ink` | what the pictures share: scales, numbers, words of a bounded length |
//! | `style.css` | light, dark and on paper |
//! | `policy.txt` | what a browser may do with the file: show it |
//!
//! The markup is made by `maud`, which escapes whatever is put into it: names, reasons and addresses
//! come from admins and arrays.

mod diagram;
mod facts;
mod histogram;
mod host;
mod ink;
mod page;
mod section;
#[cfg(test)]
mod tests;
mod timeline;

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::backends::{self, Failure};
use crate::{Output, human};
use facts::Facts;
use host::Host;

/// Everything that is in the file.
#[derive(Debug)]
pub struct Report {
    /// When it was made, in seconds since 1970.
    pub now: u64,
    /// Where.
    pub host: Host,
    /// What each backend returned, or why it did not, by name.
    pub backends: Vec<(String, Result<Facts, String>)>,
}

/// Writes the report to `to`, "-" being standard output; with `--json` prints what the sockets
/// returned instead. A backend that does not answer is complained about, and the report says so.
pub fn run(
    socket: Option<&Path>,
    directory: &Path,
    to: Option<PathBuf>,
    output: &mut Output<'_>,
) -> Result<u8, Failure> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let mut report = Report { now, host: Host::read(Path::new("/")), backends: Vec::new() };
    let mut code = 0;
    for socket in backends::all(socket, directory)? {
        let facts = Facts::ask(&socket);
        if let Err(failure) = &facts {
            output.complain(failure);
            code = 1;
        }
        let facts = facts.map_err(|failure| failure.to_string());
        report.backends.push((backends::name(&socket), facts));
    }
    if output.json {
        for (name, facts) in &report.backends {
            if let Ok(facts) = facts {
                writeln!(output.out, "{}", facts.json(name))?;
            }
        }
        return Ok(code);
    }
    let page = page::render(&report);
    match to {
        Some(to) if to == Path::new("-") => writeln!(output.out, "{page}")?,
        to => {
            // A name that was chosen is written over; the one that is made up never meant a file
            // that is there.
            let chosen = to.is_some();
            let file = to.unwrap_or_else(|| PathBuf::from(file_name(now)));
            let mut options = OpenOptions::new();
            options.write(true).create(chosen).truncate(chosen).create_new(!chosen);
            let written = options.open(&file).and_then(|mut out| out.write_all(page.as_bytes()));
            written.map_err(|cause| Failure::Write { file: file.clone(), cause })?;
            writeln!(output.out, "{}", file.display())?;
        }
    }
    Ok(code)
}

/// Where the report goes if nobody says where: no colons, which other systems do not take.
fn file_name(now: u64) -> String {
    format!("vhost-user-scsi-mpath-report-{}.html", human::second(now).replace(':', ""))
}
