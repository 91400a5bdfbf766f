//! `doctor`: looks at the host and says what to change.
//!
//! ```text
//!   control sockets --> Patient (what a backend says of itself) --> state, devices, guests
//!   programs of the host ------------------------------------------> guests (QEMU's version)
//!                                                                        |
//!                                         Finding: looked at, wrong, the line that mends it
//! ```
//!
//! | file | what |
//! |---|---|
//! | `finding` | one thing that was looked at, as a line or as JSON |
//! | `backends` | control sockets that nobody answers; backends without state |
//! | `devices` | host devices: timers, who holds them, who may open them |
//! | `guests` | the QEMUs that use a backend's socket; the QEMU that is installed |
//! | `process` | a process's arguments and rights, from /proc |
//!
//! It reads files and asks backends; the one program that it runs is the installed QEMU, for its
//! version. Every check takes the [`Roots`] below which it reads, so that tests make them.

mod backends;
mod devices;
mod finding;
mod guests;
mod process;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use vhost_user_scsi_mpath::control::{BackendReport, LunReport, PathReport, ReservationReport};
use vhost_user_scsi_mpath::path::sg::host::Roots;

use crate::Output;
use crate::backends::Failure;
use finding::Finding;

/// What is looked at.
#[derive(Debug)]
pub struct Host {
    /// The host's files.
    pub roots: Roots,
    /// Where QEMU may be installed.
    pub qemus: Vec<PathBuf>,
}

impl Default for Host {
    fn default() -> Self {
        // As Debian and its kin, and as Red Hat and its kin have it.
        let qemus = ["/usr/bin/qemu-system-x86_64", "/usr/libexec/qemu-kvm"];
        Host { roots: Roots::default(), qemus: qemus.map(PathBuf::from).into() }
    }
}

/// A backend, as it describes itself.
#[derive(Clone, Debug)]
struct Patient {
    name: String,
    about: BackendReport,
    lun: LunReport,
    paths: Vec<PathReport>,
    /// A backend of a version before reservations does not tell.
    reservation: Option<ReservationReport>,
}

/// `doctor`: 1 where something is to be changed.
pub fn run(
    socket: Option<&Path>,
    directory: &Path,
    host: &Host,
    output: &mut Output<'_>,
) -> Result<u8, Failure> {
    let (mut findings, patients) = backends::ask(socket, directory)?;
    for patient in &patients {
        findings.push(backends::state(patient));
        findings.extend(devices::findings(&host.roots, patient));
        findings.extend(guests::findings(&host.roots, patient));
    }
    findings.extend(guests::installed(&host.qemus));
    if output.json {
        writeln!(output.out, "{}", finding::document(&findings))?;
    } else {
        for finding in &findings {
            write!(output.out, "{}", finding.text(output.paint))?;
        }
    }
    Ok(u8::from(findings.iter().any(Finding::is_wrong)))
}
