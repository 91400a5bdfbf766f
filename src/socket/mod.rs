//! A listening socket in the file system: with the owner and mode asked for from its first moment,
//! in place of a dead one, never of a live one, and gone when its owner ends.

mod socket_sys;

use std::io::{self, Write as _};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Who may connect.
#[derive(Clone, Copy, Debug)]
pub struct Access<'a> {
    /// Permission bits.
    pub mode: u32,
    /// A group's name or number; "" leaves the process's own.
    pub group: &'a str,
}

impl Default for Access<'_> {
    /// The process's own user alone.
    fn default() -> Self {
        Access { mode: 0o600, group: "" }
    }
}

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketFileError {
    /// Another process serves it.
    #[error("{}: another process listens there", .0.display())]
    InUse(PathBuf),
    /// Something else has the name.
    #[error("{}: there is a file that is no socket", .0.display())]
    NotSocket(PathBuf),
    /// No such group.
    #[error("{}: there is no group `{group}`", path.display())]
    NoGroup {
        /// The socket.
        path: PathBuf,
        /// The group.
        group: String,
    },
    /// The system refused.
    #[error("{}: cannot {what}: {cause}", path.display())]
    System {
        /// The socket.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// Why not.
        cause: io::Error,
    },
}

/// A listening socket and its file. Dropped, the file goes, unless it is another's by now.
#[derive(Debug)]
pub struct SocketFile {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode of our file.
    identity: (u64, u64),
    /// It took the place of one whose process was killed: all others remove theirs, or say so.
    replaced: bool,
    /// The file is another process's from now on.
    given: Arc<AtomicBool>,
    /// It stays when this is dropped: it is what the next start knows of the crash by.
    stays: AtomicBool,
}

/// What it takes to give a socket to another process.
#[derive(Clone, Debug)]
pub struct Gift {
    /// The socket.
    pub socket: Arc<UnixListener>,
    /// The file that leads to it.
    pub path: PathBuf,
    given: Arc<AtomicBool>,
    /// Whoever has it now.
    heirs: Arc<Mutex<Vec<UnixStream>>>,
}

/// What a process that has given its socket away says last, when it ends in good order.
pub const LAST_WORD: &[u8] = b"{\"end\": \"orderly\"}\r\n";

impl Gift {
    /// The other process has it: its file stays when we end.
    pub fn given(&self) {
        self.given.store(true, Ordering::Release);
    }

    /// It goes to the other end of `connection`.
    pub fn goes_to(&self, connection: UnixStream) {
        self.heirs.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
    }

    /// Nothing is under way any more. Who does not hear of it takes this for a crash.
    pub fn has_ended(&self) {
        for mut heir in self.heirs.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            let _ = heir.write_all(LAST_WORD);
        }
    }
}

impl SocketFile {
    /// Listens, non-blocking.
    pub fn bind(path: &Path, access: Access<'_>) -> Result<SocketFile, SocketFileError> {
        let system = |what| {
            let path = path.to_owned();
            move |cause| SocketFileError::System { path, what, cause }
        };
        let group = match access.group {
            "" => None,
            group => {
                Some(socket_sys::group_id(group).map_err(system("look up the group"))?.ok_or(
                    SocketFileError::NoGroup { path: path.to_owned(), group: group.to_owned() },
                )?)
            }
        };
        let replaced = remove_dead(path)?;
        // Ours alone until the group is set, and not listening before it is all as asked for.
        let socket = socket_sys::bind(path, 0o600).map_err(system("bind"))?;
        let finish = || -> io::Result<(u64, u64)> {
            chown(path, None, group)?;
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(access.mode))?;
            let metadata = std::fs::symlink_metadata(path)?;
            socket_sys::listen(&socket)?;
            Ok((metadata.dev(), metadata.ino()))
        };
        match finish() {
            Ok(identity) => {
                let listener = UnixListener::from(socket);
                let (path, given) = (path.to_owned(), Arc::default());
                let stays = AtomicBool::new(false);
                Ok(SocketFile { listener, path, identity, replaced, given, stays })
            }
            Err(cause) => {
                // The first error is the one to tell. A dead one in the place of another stays, as
                // the trace of the crash.
                if !replaced {
                    let _ = std::fs::remove_file(path);
                }
                Err(system("listen with the group and mode asked for")(cause))
            }
        }
    }

    /// Takes over `listener`, which another process has given us, and the file at `path` with it.
    /// It has ended since, `orderly` or not.
    pub fn adopt(
        path: &Path,
        listener: UnixListener,
        orderly: bool,
    ) -> Result<SocketFile, SocketFileError> {
        let system = |what| {
            let path = path.to_owned();
            move |cause| SocketFileError::System { path, what, cause }
        };
        listener.set_nonblocking(true).map_err(system("use the socket"))?;
        let metadata = std::fs::symlink_metadata(path).map_err(system("look at the socket"))?;
        let identity = (metadata.dev(), metadata.ino());
        let (path, given) = (path.to_owned(), Arc::default());
        let stays = AtomicBool::new(false);
        Ok(SocketFile { listener, path, identity, replaced: !orderly, given, stays })
    }

    /// True when it took the place of a dead one: who listened there was killed.
    pub fn has_replaced(&self) -> bool {
        self.replaced
    }

    /// Whether the file stays when this is dropped, as if the process had been killed.
    pub fn stay(&self, stay: bool) {
        self.stays.store(stay, Ordering::Release);
    }

    /// The socket.
    pub fn listener(&self) -> &UnixListener {
        &self.listener
    }

    /// What it takes to give the socket away.
    pub fn gift(&self) -> io::Result<Gift> {
        let socket = Arc::new(self.listener.try_clone()?);
        let (path, given) = (self.path.clone(), self.given.clone());
        Ok(Gift { socket, path, given, heirs: Arc::default() })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = std::fs::symlink_metadata(&self.path)
            .is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == self.identity);
        let stays = self.given.load(Ordering::Acquire) || self.stays.load(Ordering::Acquire);
        if ours && !stays {
            // Nothing can be done about it at the end of a process.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Removes a socket file that nobody listens on; true when there was one.
fn remove_dead(path: &Path) -> Result<bool, SocketFileError> {
    let system = |what, cause| SocketFileError::System { path: path.to_owned(), what, cause };
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(system("look at the socket", error)),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(SocketFileError::NotSocket(path.to_owned()));
        }
        Ok(_) => {}
    }
    match socket_sys::is_listened_on(path) {
        Ok(true) => Err(SocketFileError::InUse(path.to_owned())),
        Ok(false) => {
            let removed = std::fs::remove_file(path);
            removed.map_err(|error| system("remove the dead socket", error)).map(|()| true)
        }
        Err(error) => Err(system("see whether anybody listens on the socket", error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn socket_file_has_its_mode_and_goes_with_its_owner() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.ctl");
        let file = SocketFile::bind(&path, Access { mode: 0o640, group: "" }).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        assert!(UnixStream::connect(&path).is_ok());
        drop(file);
        assert!(!path.exists());
    }

    #[test]
    fn socket_file_is_replaced_only_when_dead() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.ctl");
        // The standard library's listener leaves its file behind.
        drop(UnixListener::bind(&path).unwrap());
        let file = SocketFile::bind(&path, Access::default()).unwrap();
        let error = SocketFile::bind(&path, Access::default()).unwrap_err();
        assert!(matches!(error, SocketFileError::InUse(_)), "{error}");
        // Somebody put another in our place: it is not ours to remove.
        std::fs::remove_file(&path).unwrap();
        let other = UnixListener::bind(&path).unwrap();
        drop(file);
        assert!(path.exists());
        drop(other);
        assert!(SocketFile::bind(&path, Access::default()).unwrap().has_replaced());
        assert!(!SocketFile::bind(&path, Access::default()).unwrap().has_replaced());
    }

    #[test]
    fn socket_file_that_stays_tells_the_next_of_the_crash() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.sock");
        drop(UnixListener::bind(&path).unwrap());
        let file = SocketFile::bind(&path, Access::default()).unwrap();
        file.stay(true);
        drop(file);
        let file = SocketFile::bind(&path, Access::default()).unwrap();
        assert!(file.has_replaced());
        file.stay(true);
        file.stay(false);
        drop(file);
        assert!(!path.exists());
    }

    #[test]
    fn socket_file_takes_nothing_else_away() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("precious");
        std::fs::write(&path, "data").unwrap();
        let error = SocketFile::bind(&path, Access::default()).unwrap_err();
        assert!(matches!(error, SocketFileError::NotSocket(_)), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), b"data");
        let group = Access { mode: 0o600, group: "no-such-group-here" };
        let error = SocketFile::bind(&directory.path().join("y"), group).unwrap_err();
        assert!(matches!(error, SocketFileError::NoGroup { .. }), "{error}");
        let long = directory.path().join("x".repeat(200));
        assert!(SocketFile::bind(&long, Access::default()).is_err());
    }
}
