//! A look at a descriptor that is not ours yet.

use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::{SocketAddr, UnixListener};

/// The address that the socket `fd` is bound to. It is neither taken over nor closed.
pub(super) fn address(fd: RawFd) -> io::Result<SocketAddr> {
    // SAFETY: no pointers. Fails for a number that is no descriptor.
    if unsafe { libc::fcntl(fd, libc::F_GETFD) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is open, and as it is never dropped here it stays so.
    let socket = ManuallyDrop::new(UnixListener::from(unsafe { OwnedFd::from_raw_fd(fd) }));
    socket.local_addr()
}
