//! The system calls for uevents: a netlink socket in the kernel's group.

use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// The kernel's own messages; group 2 has udev's.
const KERNEL: u32 = 1;
/// Bytes that may wait in the socket: a host adapter with its hundreds of disks may go at once.
const BUFFER: libc::c_int = 4 << 20;

/// What one call brought.
#[derive(Clone, Copy, Debug)]
pub(super) struct Received {
    /// Bytes in the buffer.
    pub len: usize,
    /// The message fitted into it.
    pub whole: bool,
    /// The kernel sent it to everybody: any process may send to a socket whose number it guesses.
    pub from_kernel: bool,
}

/// A socket that hears the kernel's uevents.
pub(super) fn open() -> io::Result<OwnedFd> {
    let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: a plain system call; the descriptor it returns is new and nobody else's.
    let socket = unsafe {
        let fd = libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_KOBJECT_UEVENT);
        checked(fd)?;
        OwnedFd::from_raw_fd(fd)
    };
    let size = BUFFER;
    // SAFETY: the option's value is valid for its whole size. A smaller buffer does as well.
    unsafe {
        let pointer = (&raw const size).cast::<libc::c_void>();
        let length = size_of::<libc::c_int>() as libc::socklen_t;
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_RCVBUF, pointer, length);
    }
    let mut address = no_address();
    address.nl_family = libc::AF_NETLINK as libc::sa_family_t;
    address.nl_groups = KERNEL;
    // SAFETY: a plain system call on a descriptor we own; the address is valid for its whole size.
    unsafe {
        let pointer = (&raw const address).cast::<libc::sockaddr>();
        checked(libc::bind(socket.as_raw_fd(), pointer, address_length()))?;
    }
    Ok(socket)
}

/// Takes one message, if there is one.
pub(super) fn receive(socket: &OwnedFd, buffer: &mut [u8]) -> io::Result<Received> {
    let mut sender = no_address();
    let mut length = address_length();
    // SAFETY: the buffer and the address are alive and as long as the call says.
    let len = unsafe {
        libc::recvfrom(
            socket.as_raw_fd(),
            buffer.as_mut_ptr().cast(),
            buffer.len(),
            // With this flag the call returns the message's own length.
            libc::MSG_TRUNC,
            (&raw mut sender).cast(),
            &raw mut length,
        )
    };
    let len = usize::try_from(len).map_err(|_| io::Error::last_os_error())?;
    Ok(Received {
        len: len.min(buffer.len()),
        whole: len <= buffer.len(),
        from_kernel: sender.nl_pid == 0 && sender.nl_groups == KERNEL,
    })
}

fn no_address() -> libc::sockaddr_nl {
    // SAFETY: all zeroes is a valid `sockaddr_nl`.
    unsafe { zeroed() }
}

fn address_length() -> libc::socklen_t {
    size_of::<libc::sockaddr_nl>() as libc::socklen_t
}

fn checked(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
