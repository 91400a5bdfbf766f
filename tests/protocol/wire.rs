//! vhost-user messages as bytes, for what the `vhost` crate's front end would not send.

use std::io::Read;
use std::os::fd::RawFd;
use std::os::unix::net::UnixStream;

use vmm_sys_util::sock_ctrl_msg::ScmSocket;

/// Requests by their number (docs/interop/vhost-user.rst).
pub mod request {
    pub const GET_FEATURES: u32 = 1;
    pub const SET_FEATURES: u32 = 2;
    pub const SET_OWNER: u32 = 3;
    pub const SET_MEM_TABLE: u32 = 5;
    pub const SET_LOG_BASE: u32 = 6;
    pub const SET_VRING_NUM: u32 = 8;
    pub const SET_VRING_ADDR: u32 = 9;
    pub const SET_VRING_BASE: u32 = 10;
    pub const GET_VRING_BASE: u32 = 11;
    pub const SET_VRING_KICK: u32 = 12;
    pub const SET_VRING_CALL: u32 = 13;
    pub const SET_VRING_ERR: u32 = 14;
    pub const GET_QUEUE_NUM: u32 = 17;
    pub const SET_VRING_ENABLE: u32 = 18;
    pub const GET_CONFIG: u32 = 24;
    pub const GET_INFLIGHT_FD: u32 = 31;
    pub const SET_INFLIGHT_FD: u32 = 32;
    pub const RESET_DEVICE: u32 = 34;
    pub const ADD_MEM_REG: u32 = 37;
    pub const REM_MEM_REG: u32 = 38;
    pub const GET_STATUS: u32 = 40;
}

/// Protocol version 1, as every message says.
pub const VERSION: u32 = 1;
/// The sender wants an answer.
pub const NEED_REPLY: u32 = 8;

/// One message, any content.
#[derive(Clone, Debug)]
pub struct Message {
    pub request: u32,
    pub flags: u32,
    /// What the header says, whatever the body is.
    pub size: u32,
    pub body: Vec<u8>,
    pub fds: Vec<RawFd>,
}

impl Message {
    /// A message whose header tells the truth.
    pub fn new(request: u32, body: Vec<u8>) -> Self {
        Message { request, flags: VERSION, size: body.len() as u32, body, fds: Vec::new() }
    }

    /// With these descriptors.
    pub fn with(self, fds: &[RawFd]) -> Self {
        Message { fds: fds.to_vec(), ..self }
    }

    /// As it goes over the socket.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = words32(&[self.request, self.flags, self.size]);
        bytes.extend_from_slice(&self.body);
        bytes
    }

    /// Sends it. `false` when the other side is gone, which is one right answer to nonsense.
    pub fn send(&self, stream: &UnixStream) -> bool {
        send(stream, &self.bytes(), &self.fds)
    }
}

/// Sends bytes and descriptors in one system call.
pub fn send(stream: &UnixStream, bytes: &[u8], fds: &[RawFd]) -> bool {
    stream.send_with_fds(&[bytes], fds).is_ok()
}

/// Reads one message: request, flags and body. `None` when there is none in time, or the other
/// side is gone.
pub fn receive(stream: &mut UnixStream) -> Option<(u32, u32, Vec<u8>)> {
    let mut header = [0; 12];
    stream.read_exact(&mut header).ok()?;
    let word = |at: usize| {
        u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
    };
    let mut body = vec![0; word(8) as usize];
    stream.read_exact(&mut body).ok()?;
    Some((word(0), word(4), body))
}

/// 32-bit words as a message carries them.
pub fn words32(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// 64-bit words as a message carries them.
pub fn words64(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}
