//! Control sockets, and what the backends behind them say of themselves.

use std::path::{Path, PathBuf};

use serde_json::json;
use vhost_user_scsi_mpath::control::client::ClientError;
use vhost_user_scsi_mpath::control::{ReservationReport, StateKeeping};

use super::Patient;
use super::finding::{Finding, Wrong};
use crate::backends::{self, Failure};
use crate::read::{optional, report};

/// What mends a backend that is older than this program.
const FROM_THE_NEW_VERSION: &str = "start it again, from the version that is installed now";

/// Asks all backends that are meant. One that does not answer is a finding.
pub fn ask(
    socket: Option<&Path>,
    directory: &Path,
) -> Result<(Vec<Finding>, Vec<Patient>), Failure> {
    let (mut findings, mut patients) = (Vec::new(), Vec::new());
    let controls = match backends::all(socket, directory) {
        Ok(controls) => controls,
        Err(Failure::None(directory)) => {
            let looked_at = format!("control sockets in {}: no backend runs", directory.display());
            let check = "control-socket";
            return Ok((vec![Finding { check, backend: None, looked_at, wrong: None }], patients));
        }
        Err(failure) => return Err(failure),
    };
    for control in controls {
        let name = backends::name(&control);
        let asked = one(&name, &control);
        findings.push(Finding {
            check: "control-socket",
            backend: Some(name),
            looked_at: format!("control socket {}", control.display()),
            wrong: asked.as_ref().err().map(|failure| unanswered(&control, failure)),
        });
        patients.extend(asked);
    }
    Ok((findings, patients))
}

fn one(name: &str, control: &Path) -> Result<Patient, Failure> {
    let mut client = backends::connect(control)?;
    let mut required = |query: &str| client.execute(query, json!({}));
    Ok(Patient {
        name: name.to_owned(),
        about: report(control, required("query-backend")?)?,
        lun: report(control, required("query-lun")?)?,
        paths: report(control, required("query-paths")?)?,
        reservation: optional(&mut client, control, "query-reservation")?,
    })
}

fn unanswered(control: &Path, failure: &Failure) -> Wrong {
    let control = control.display();
    let (what, mend) = match failure {
        Failure::Client(ClientError::Dead(_)) => (
            "nobody listens on it: its backend was killed".to_owned(),
            format!("start that backend again; if it is not wanted any more: rm {control}"),
        ),
        Failure::Client(ClientError::Missing(_)) => {
            ("there is no such socket".to_owned(), "start that backend, or name another".to_owned())
        }
        Failure::Client(ClientError::Permission(_)) => {
            ("it may not be opened".to_owned(), "become root for this, as with sudo".to_owned())
        }
        Failure::Client(ClientError::Refused { desc, .. }) => (
            format!("its backend does not know what this program asks ({desc})"),
            FROM_THE_NEW_VERSION.to_owned(),
        ),
        Failure::Client(ClientError::Protocol { why, .. }) => (
            format!("another program listens there ({why})"),
            format!("see which (ss -xlp src {control}), and give it another place"),
        ),
        other => (
            other.to_string(),
            "see what it waits for (its log, dmesg), and start it again".to_owned(),
        ),
    };
    Wrong { what, mend }
}

/// Is anything remembered when the backend is started again? Then the guest may reserve.
pub fn state(patient: &Patient) -> Finding {
    let state_dir = patient.about.state_dir.as_ref();
    let reservation = patient.reservation.as_ref();
    let place = reservation.and_then(|report| report.state_file.as_ref()).or(state_dir);
    let looked_at = match place {
        Some(place) => format!("state, {}", place.display()),
        None => "state".to_owned(),
    };
    let wrong = match reservation {
        Some(reservation) => not_kept(patient, reservation),
        None => Some(Wrong {
            what: "its backend is of an older version, without persistent reservations".to_owned(),
            mend: FROM_THE_NEW_VERSION.to_owned(),
        }),
    };
    Finding { check: "state", backend: Some(patient.name.clone()), looked_at, wrong }
}

/// Why nothing is remembered, and what to do.
fn not_kept(patient: &Patient, reservation: &ReservationReport) -> Option<Wrong> {
    let own = PathBuf::from("/var/lib/vhost-user-scsi-mpath").join(&patient.name);
    let mend = match (reservation.state, &patient.about.state_dir) {
        (StateKeeping::None, None) => format!(
            "state_dir = \"{}\" in [backend] of its configuration, and start it again",
            own.display()
        ),
        (StateKeeping::None, Some(_)) => {
            "identity = \"...\" in [backend] of its configuration, and start it again".to_owned()
        }
        (StateKeeping::Unavailable, _) => {
            "mend what it names, and start it again (docs/reservations.md, State)".to_owned()
        }
        (StateKeeping::Kept | StateKeeping::Opening, _) => {
            "see docs/reservations.md, Two guests on one host".to_owned()
        }
    };
    // While a file is being read there is a reason as well, and nothing to mend.
    let is_wrong = !reservation.reason.is_empty() && reservation.state != StateKeeping::Opening;
    let what = format!("persistent reservations are refused: {}", reservation.reason);
    is_wrong.then_some(Wrong { what, mend })
}
