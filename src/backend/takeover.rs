//! `--takeover`: in the place of a backend that runs.
//!
//! ```text
//!   the successor                                  the backend
//!     its configuration and paths, checked           serves
//!     takeover  ------------------------------->     stops the rings; what is under way goes on
//!     waits     <-- the vhost-user socket ------     in the in-flight region
//!               <-- "orderly" ------------------     nothing is under way
//!               <-- end of the connection ------     has ended: its paths and locks are free
//!     opens the paths, serves; the front end has connected meanwhile, and waits
//! ```
//!
//! The paths cannot be opened earlier: an image has one owner, and a session of the same ISID would
//! end the other's.

use std::io;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;
use thiserror::Error;

use super::{BackendError, check, reports};
use crate::config::Config;
use crate::control::client::{Client, ClientError};

/// How long an answer of the other backend may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why there is nothing to take over.
#[derive(Debug, Error)]
pub enum TakeoverError {
    /// The other backend.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// It is another one.
    #[error("{}: that backend serves {theirs}, not {}", control.display(), ours.display())]
    Elsewhere {
        /// Its control socket.
        control: PathBuf,
        /// Its vhost-user socket.
        theirs: String,
        /// Ours.
        ours: PathBuf,
    },
}

/// What was taken over.
#[derive(Debug)]
pub struct Taken {
    /// The vhost-user socket.
    pub socket: UnixListener,
    /// The process that had it has ended in good order.
    pub orderly: bool,
}

/// Takes the vhost-user socket over, if that is asked for. Returns when the other process has
/// ended; before anything is wanted of it, the configuration is tried as by `--check`.
pub fn socket(config: &Config) -> Result<Option<Taken>, BackendError> {
    let Some(control) = &config.takeover else { return Ok(None) };
    check::check(config, &mut io::sink())?;
    Ok(Some(take(control, config)?))
}

fn take(control: &Path, config: &Config) -> Result<Taken, TakeoverError> {
    let mut client = Client::connect(control, PATIENCE)?;
    let theirs = client.execute("query-backend", json!({}))?["socket"].take();
    let ours = reports::backend(&config.backend).socket.unwrap_or_default();
    if theirs.as_str().map(Path::new) != Some(&ours) {
        let theirs = theirs.as_str().unwrap_or("a socket that it has inherited").to_owned();
        return Err(TakeoverError::Elsewhere { control: control.to_owned(), theirs, ours });
    }
    let (socket, orderly) = client.take_over()?;
    Ok(Taken { socket, orderly })
}
