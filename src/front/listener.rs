//! Where front ends come from: a socket of our own, or one that we inherited.

use std::io;
use std::os::fd::{AsFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;

use thiserror::Error;

use super::socket_sys;
use crate::socket::{Access, Gift, SocketFile, SocketFileError};

/// Where to listen, as the options say it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// A socket of our own at `path`.
    Path {
        /// Where it is made.
        path: PathBuf,
        /// Its rights, such as 0o600.
        mode: u32,
        /// The group that owns it, by name or number; our own if `None`.
        group: Option<String>,
    },
    /// An inherited descriptor, listening or connected.
    Fd(RawFd),
}

/// Why there is nowhere to listen.
#[derive(Debug, Error)]
pub enum ListenError {
    /// The socket cannot be made.
    #[error(transparent)]
    File(#[from] SocketFileError),
    /// The descriptor is no socket of use.
    #[error("--fd {fd}: {source}")]
    Fd {
        /// Its number.
        fd: RawFd,
        /// Why.
        source: io::Error,
    },
}

/// A source of connections.
#[derive(Debug)]
pub enum Listener {
    /// Serves one front end after another, on a socket of our own.
    Own(SocketFile),
    /// Serves one front end after another, on an inherited socket. It does not block: a connection
    /// may vanish before it is accepted.
    Inherited(UnixListener),
    /// Serves this front end alone.
    Connected(UnixStream),
}

impl Listener {
    /// What it takes to give the socket to another process; `None` where it is not ours to give.
    pub fn gift(&self) -> io::Result<Option<Gift>> {
        match self {
            Listener::Own(file) => Ok(Some(file.gift()?)),
            Listener::Inherited(_) | Listener::Connected(_) => Ok(None),
        }
    }

    /// True where the process that listened there before may have been killed.
    pub fn follows_a_crash(&self) -> bool {
        match self {
            Listener::Own(file) => file.has_replaced(),
            // Nothing tells.
            Listener::Inherited(_) | Listener::Connected(_) => true,
        }
    }

    /// A socket file of our own. Where its last owner was killed it stays until [`Listener::serves`]
    /// is told: a start that fails before must not take the trace of the crash away.
    pub fn own(file: SocketFile) -> Self {
        file.stay(file.has_replaced());
        Listener::Own(file)
    }

    /// The start has succeeded: from now on the file goes with its owner, unless it is
    /// [left behind](Listener::leave_behind).
    pub fn serves(&self) {
        if let Listener::Own(file) = self {
            file.stay(false);
        }
    }

    /// The process ends with something under way that its successor must not go before: the file
    /// stays, as if it had been killed, and is in use until it is dead.
    pub fn leave_behind(self) {
        std::mem::forget(self);
    }

    /// Makes the socket, or takes over the inherited one.
    pub fn open(endpoint: &Endpoint) -> Result<Self, ListenError> {
        match endpoint {
            Endpoint::Path { path, mode, group } => {
                let access = Access { mode: *mode, group: group.as_deref().unwrap_or_default() };
                Ok(Listener::own(SocketFile::bind(path, access)?))
            }
            Endpoint::Fd(fd) => inherit(*fd).map_err(|source| ListenError::Fd { fd: *fd, source }),
        }
    }
}

fn inherit(fd: RawFd) -> io::Result<Listener> {
    let socket = socket_sys::inherit(fd)?;
    if !socket_sys::is_listening(socket.as_fd())? {
        let stream = UnixStream::from(socket);
        stream.set_nonblocking(false)?;
        return Ok(Listener::Connected(stream));
    }
    let socket = UnixListener::from(socket);
    socket.set_nonblocking(true)?;
    Ok(Listener::Inherited(socket))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::IntoRawFd;

    #[test]
    fn open_of_a_path_listens_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let endpoint = Endpoint::Path { path: path.clone(), mode: 0o600, group: None };
        let listener = Listener::open(&endpoint).unwrap();
        UnixStream::connect(&path).unwrap();
        let second = Listener::open(&endpoint);
        assert!(matches!(second, Err(ListenError::File(SocketFileError::InUse(_)))));
        drop(listener);
        assert!(!path.exists());
    }

    #[test]
    fn left_behind_it_is_in_use_while_the_process_lives() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let endpoint = Endpoint::Path { path, mode: 0o600, group: None };
        Listener::open(&endpoint).unwrap().leave_behind();
        let next = Listener::open(&endpoint);
        assert!(matches!(next, Err(ListenError::File(SocketFileError::InUse(_)))));
    }

    #[test]
    fn open_of_an_inherited_descriptor_tells_listening_from_connected() {
        let dir = tempfile::tempdir().unwrap();
        let listening = UnixListener::bind(dir.path().join("socket")).unwrap().into_raw_fd();
        let opened = Listener::open(&Endpoint::Fd(listening)).unwrap();
        assert!(matches!(opened, Listener::Inherited(_)));
        let (one, _other) = UnixStream::pair().unwrap();
        let opened = Listener::open(&Endpoint::Fd(one.into_raw_fd())).unwrap();
        assert!(matches!(opened, Listener::Connected(_)));
    }

    #[test]
    fn open_of_what_is_no_socket_is_refused() {
        let file = tempfile::tempfile().unwrap().into_raw_fd();
        assert!(matches!(Listener::open(&Endpoint::Fd(file)), Err(ListenError::Fd { .. })));
        assert!(matches!(Listener::open(&Endpoint::Fd(9999)), Err(ListenError::Fd { .. })));
    }
}
