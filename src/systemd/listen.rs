//! Socket activation: the service manager listens first, starts us when somebody connects, and
//! keeps the socket while we are started again. So a front end is never refused for want of a
//! file, and the file's owner and mode are the manager's business.

use std::io;
use std::os::fd::RawFd;
use std::path::PathBuf;

use super::{Variable, listen_sys, text};

/// The first descriptor that is passed (SD_LISTEN_FDS_START).
const FIRST: RawFd = 3;

/// The socket that was passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Activated {
    /// The descriptor.
    pub fd: RawFd,
    /// Its file; a socket of the abstract kind has none.
    pub path: Option<PathBuf>,
}

/// Why what was passed is of no use.
#[derive(Debug, thiserror::Error)]
pub enum ListenFdsError {
    /// Which of them is for front ends?
    #[error("the service manager passed {0} sockets; one ListenStream= is expected")]
    TooMany(usize),
    /// It is something else.
    #[error("the service manager passed a descriptor that is no Unix socket: {0}")]
    NotUnix(io::Error),
}

/// The socket that the service manager passed to the process `pid`, if it did.
pub fn passed(variable: Variable<'_>, pid: u32) -> Result<Option<Activated>, ListenFdsError> {
    // The variables of a process that forked us are not for us.
    if text(variable, "LISTEN_PID").and_then(|id| id.parse().ok()) != Some(pid) {
        return Ok(None);
    }
    match text(variable, "LISTEN_FDS").and_then(|count| count.parse::<usize>().ok()) {
        None | Some(0) => Ok(None),
        Some(1) => {
            let address = listen_sys::address(FIRST).map_err(ListenFdsError::NotUnix)?;
            Ok(Some(Activated { fd: FIRST, path: address.as_pathname().map(PathBuf::from) }))
        }
        Some(count) => Err(ListenFdsError::TooMany(count)),
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;

    fn asked(pid: &str, fds: &str) -> Result<Option<Activated>, String> {
        let variable = |name: &str| match name {
            "LISTEN_PID" => Some(OsString::from(pid)),
            "LISTEN_FDS" => Some(OsString::from(fds)),
            _ => None,
        };
        passed(&variable, 7).map_err(|error| error.to_string())
    }

    #[test]
    fn passed_is_nothing_for_another_process() {
        assert_eq!(asked("8", "1"), Ok(None));
        assert_eq!(asked("", ""), Ok(None));
        assert_eq!(asked("7", "0"), Ok(None));
    }

    #[test]
    fn passed_refuses_more_than_one() {
        let error = asked("7", "2").unwrap_err();
        assert_eq!(error, "the service manager passed 2 sockets; one ListenStream= is expected");
    }

    #[test]
    fn address_tells_a_sockets_file_and_leaves_it_open() {
        use std::os::fd::AsRawFd;
        use std::os::unix::net::{UnixListener, UnixStream};
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.sock");
        let socket = UnixListener::bind(&path).unwrap();
        let address = listen_sys::address(socket.as_raw_fd()).unwrap();
        assert_eq!(address.as_pathname(), Some(path.as_path()));
        assert!(UnixStream::connect(&path).is_ok());
        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(listen_sys::address(file.as_raw_fd()).is_err());
        assert!(listen_sys::address(-1).is_err());
    }
}
