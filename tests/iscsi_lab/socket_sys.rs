//! The one socket option that the standard library has no stable word for.

use std::net::TcpStream;
use std::os::fd::AsRawFd;

/// Makes closing `stream` reset the connection: what is not sent yet is dropped.
pub fn reset_on_close(stream: &TcpStream) {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    let length = size_of::<libc::linger>() as libc::socklen_t;
    let fd = stream.as_raw_fd();
    // SAFETY: the option's value is a linger of our own, of the length that is given.
    let result = unsafe {
        libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_LINGER, (&raw const linger).cast(), length)
    };
    assert_eq!(result, 0, "SO_LINGER: {}", std::io::Error::last_os_error());
}
