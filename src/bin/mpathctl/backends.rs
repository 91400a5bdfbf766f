//! Which backends are meant, and what goes wrong on the way to them.

use std::io;
use std::path::{Path, PathBuf};

use vhost_user_scsi_mpath::control::client::{Client, ClientError};
use vhost_user_scsi_mpath::limits::CONTROL_REPLY_TIMEOUT;

use crate::import::ImportError;
use crate::libvirt::LibvirtError;
use crate::names;

/// Why a command was not done.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The backend or the way to it.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// What the backend returned is not what this program knows.
    #[error("{}: cannot read what the backend returned: {cause}", socket.display())]
    Report {
        /// The socket.
        socket: PathBuf,
        /// Why not.
        cause: serde_json::Error,
    },
    /// Nothing runs.
    #[error("no backend is running: there is no control socket (*.ctl) in {}; name another one with -s",
        .0.display())]
    None(PathBuf),
    /// The directory is there and cannot be read.
    #[error("{}: cannot look for control sockets: {cause}", directory.display())]
    Unreadable {
        /// The directory.
        directory: PathBuf,
        /// Why not.
        cause: io::Error,
    },
    /// Several, and only one can be meant.
    #[error("{} backends have a control socket here, say which one is meant: -s {}",
        sockets.len(), join(sockets))]
    WhichOne {
        /// All of them.
        sockets: Vec<PathBuf>,
    },
    /// No such path in any backend that is meant.
    #[error("path {name}: there is no path of that name{}", names::hint(name, known))]
    NoPath {
        /// What was given.
        name: String,
        /// The names that there are.
        known: Vec<String>,
    },
    /// A multipath.conf that cannot be imported.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// No XML for libvirt.
    #[error(transparent)]
    Libvirt(#[from] LibvirtError),
    /// A file that is read.
    #[error("{}: cannot read: {cause}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Why not.
        cause: io::Error,
    },
    /// A file.
    #[error("{}: cannot write: {cause}", file.display())]
    Write {
        /// The file or directory.
        file: PathBuf,
        /// Why not.
        cause: io::Error,
    },
    /// Nobody takes what is printed.
    #[error("cannot write: {0}")]
    Output(#[from] io::Error),
}

/// Every backend that is meant by a command that only looks, sorted by name.
pub fn all(socket: Option<&Path>, directory: &Path) -> Result<Vec<PathBuf>, Failure> {
    if let Some(socket) = socket {
        return Ok(vec![socket.to_owned()]);
    }
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(Failure::None(directory.to_owned()));
        }
        Err(cause) => {
            return Err(Failure::Unreadable { directory: directory.to_owned(), cause });
        }
    };
    let is_control = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "ctl");
    let mut sockets = Vec::new();
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        // A service's own directory, where each runs as another user.
        if let Ok(entries) = std::fs::read_dir(&path) {
            sockets.extend(entries.filter_map(|entry| Some(entry.ok()?.path())).filter(is_control));
        } else if is_control(&path) {
            sockets.push(path);
        }
    }
    sockets.sort();
    if sockets.is_empty() { Err(Failure::None(directory.to_owned())) } else { Ok(sockets) }
}

/// The one backend that is meant by a command that changes something. Nobody wants to fail a path
/// of every guest at once.
pub fn one(socket: Option<&Path>, directory: &Path) -> Result<PathBuf, Failure> {
    let mut sockets = all(socket, directory)?;
    match sockets.pop() {
        Some(socket) if sockets.is_empty() => Ok(socket),
        Some(socket) => {
            sockets.push(socket);
            Err(Failure::WhichOne { sockets })
        }
        None => Err(Failure::None(directory.to_owned())),
    }
}

/// Connects to one.
pub fn connect(socket: &Path) -> Result<Client, Failure> {
    Ok(Client::connect(socket, CONTROL_REPLY_TIMEOUT)?)
}

/// What a backend is called here: its socket's name without the ending.
pub fn name(socket: &Path) -> String {
    socket.file_stem().unwrap_or(socket.as_os_str()).to_string_lossy().into_owned()
}

fn join(sockets: &[PathBuf]) -> String {
    let names: Vec<String> = sockets.iter().map(|path| path.display().to_string()).collect();
    names.join(" | ")
}
