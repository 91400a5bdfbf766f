//! The system calls for Unix sockets and groups that the standard library has no way to make.

use std::ffi::{CStr, CString};
use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Clients that may wait to be accepted.
const BACKLOG: libc::c_int = 64;
/// Bytes for one group's entry, members included, at most.
const GROUP_ENTRY_MAX: usize = 4 << 20;

/// A socket bound to a new file whose permissions are never more than `mode`, not listening yet.
pub(super) fn bind(path: &Path, mode: u32) -> io::Result<OwnedFd> {
    let socket = socket()?;
    let address = address(path)?;
    // On Linux the file takes its mode from the socket, less the process's umask, so there is no
    // moment in which the file could be opened by others.
    // SAFETY: plain system calls on a descriptor we own; the address is valid for its whole size.
    unsafe {
        checked(libc::fchmod(socket.as_raw_fd(), mode))?;
        let pointer = (&raw const address).cast::<libc::sockaddr>();
        checked(libc::bind(socket.as_raw_fd(), pointer, address_length()))?;
    }
    Ok(socket)
}

/// Lets clients connect.
pub(super) fn listen(socket: &OwnedFd) -> io::Result<()> {
    // SAFETY: a plain system call on a descriptor that the caller owns.
    unsafe { checked(libc::listen(socket.as_raw_fd(), BACKLOG)) }
}

/// Whether a process listens on the socket file. Never waits.
pub(super) fn is_listened_on(path: &Path) -> io::Result<bool> {
    let socket = socket()?;
    let address = address(path)?;
    // SAFETY: a plain system call on a descriptor we own; the address is valid for its whole size.
    let result = unsafe {
        let pointer = (&raw const address).cast::<libc::sockaddr>();
        checked(libc::connect(socket.as_raw_fd(), pointer, address_length()))
    };
    match result {
        Ok(()) => Ok(true),
        // Its backlog is full, so there is one.
        Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ECONNREFUSED) => Ok(false),
        Err(error) => Err(error),
    }
}

/// The number of a group, given by name or number.
pub(super) fn group_id(group: &str) -> io::Result<Option<u32>> {
    if let Ok(number) = group.parse() {
        return Ok(Some(number));
    }
    let Ok(name) = CString::new(group) else { return Ok(None) };
    let mut buffer = vec![0u8; 4096];
    loop {
        match lookup(&name, &mut buffer) {
            Err(error) if error.raw_os_error() == Some(libc::ERANGE) => {
                if buffer.len() >= GROUP_ENTRY_MAX {
                    return Err(error);
                }
                buffer.resize(buffer.len() * 4, 0);
            }
            result => return result,
        }
    }
}

fn lookup(name: &CStr, buffer: &mut [u8]) -> io::Result<Option<u32>> {
    // SAFETY: all zeroes is a valid `group`: null pointers and a number.
    let mut group: libc::group = unsafe { zeroed() };
    let mut found: *mut libc::group = std::ptr::null_mut();
    // SAFETY: every pointer is to a live object of ours, the buffer's with its true length, and
    // what the call leaves in `group` is not used after the buffer.
    let error = unsafe {
        libc::getgrnam_r(
            name.as_ptr(),
            &raw mut group,
            buffer.as_mut_ptr().cast(),
            buffer.len(),
            &raw mut found,
        )
    };
    match error {
        0 if found.is_null() => Ok(None),
        0 => Ok(Some(group.gr_gid)),
        libc::ENOENT => Ok(None),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

fn socket() -> io::Result<OwnedFd> {
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: a plain system call; the descriptor it returns is new and nobody else's.
    unsafe {
        let fd = libc::socket(libc::AF_UNIX, kind, 0);
        checked(fd.min(0))?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

fn address(path: &Path) -> io::Result<libc::sockaddr_un> {
    // SAFETY: all zeroes is a valid `sockaddr_un`.
    let mut address: libc::sockaddr_un = unsafe { zeroed() };
    address.sun_family = libc::AF_UNIX as libc::sa_family_t;
    let bytes = path.as_os_str().as_bytes();
    if bytes.is_empty() || bytes.len() >= address.sun_path.len() || bytes.contains(&0) {
        let reason = format!("a socket's path has 1 to {} bytes", address.sun_path.len() - 1);
        return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
    }
    for (to, from) in address.sun_path.iter_mut().zip(bytes) {
        *to = *from as libc::c_char;
    }
    Ok(address)
}

fn address_length() -> libc::socklen_t {
    size_of::<libc::sockaddr_un>() as libc::socklen_t
}

fn checked(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
