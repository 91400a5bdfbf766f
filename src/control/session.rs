//! One client's bytes: lines in, a backlog out, both bounded, and never a wait.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, IntoRawFd, RawFd};
use std::os::unix::net::UnixStream;

use epoll::Events;
use serde_json::Value;
use vmm_sys_util::sock_ctrl_msg::ScmSocket;

use super::dialogue::{self, Dialogue};
use super::framing::Framer;
use crate::limits::{CONTROL_BACKLOG_MAX, CONTROL_LINE_MAX, CONTROL_OUTPUT_SOFT_MAX};
use crate::socket::Gift;

/// Bytes read at once; between two reads every other client has its turn.
const READ_CHUNK: usize = 16 << 10;

/// One connected client.
#[derive(Debug)]
pub(super) struct Session {
    stream: UnixStream,
    pub dialogue: Dialogue,
    /// Bytes read and not yet taken as lines; those before `input_start` are done with.
    input: Vec<u8>,
    input_start: usize,
    framer: Framer,
    /// Bytes to be written; those before `output_start` are.
    output: Vec<u8>,
    output_start: usize,
    /// An order is under way, and its answer gets this id. No further line is taken meanwhile.
    pub waiting: Option<Option<Value>>,
    /// The order under way is `takeover`.
    pub succeeds: bool,
    /// Goes with the next bytes.
    gift: Option<Gift>,
    /// The client will send no more.
    at_end: bool,
    /// Nothing more is taken or said after the backlog is out.
    closing: bool,
    /// No use any more.
    pub dead: bool,
    /// What epoll was told last.
    pub interest: Events,
}

/// What the input holds next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Input {
    /// A line.
    Line(Vec<u8>),
    /// Nothing that could be taken now.
    Nothing,
}

impl Session {
    /// Has said nothing yet.
    pub fn new(stream: UnixStream) -> std::io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Session {
            stream,
            dialogue: Dialogue::default(),
            input: Vec::new(),
            input_start: 0,
            framer: Framer::default(),
            output: Vec::new(),
            output_start: 0,
            waiting: None,
            succeeds: false,
            gift: None,
            at_end: false,
            closing: false,
            dead: false,
            interest: Events::empty(),
        })
    }

    pub fn fd(&self) -> RawFd {
        self.stream.as_raw_fd()
    }

    /// What to wait for.
    pub fn wanted(&self) -> Events {
        let mut wanted = Events::empty();
        wanted.set(Events::EPOLLIN, self.takes_lines() && !self.at_end);
        wanted.set(Events::EPOLLOUT, self.backlog() > 0);
        wanted
    }

    /// Reads once.
    pub fn fill(&mut self) {
        if !self.takes_lines() || self.at_end {
            return;
        }
        self.input.drain(..self.input_start);
        self.input_start = 0;
        let old = self.input.len();
        self.input.resize(old + READ_CHUNK, 0);
        let result = self.stream.read(&mut self.input[old..]);
        self.input.truncate(old + *result.as_ref().unwrap_or(&0));
        match result {
            Ok(0) => self.at_end = true,
            Ok(_) => {}
            Err(error) if is_transient(error.kind()) => {}
            Err(_) => self.dead = true,
        }
    }

    /// Takes the next line, if one is to be taken now. A line that is too long ends the session.
    pub fn next_line(&mut self) -> Input {
        while self.takes_lines() {
            let rest = &self.input[self.input_start..];
            let length = match self.framer.end(rest) {
                Some(length) => length,
                // Scripts forget the last newline.
                None if self.at_end && !rest.is_empty() => rest.len(),
                None if rest.len() > CONTROL_LINE_MAX => rest.len(),
                None => return Input::Nothing,
            };
            let line = rest[..length].trim_ascii().to_vec();
            self.input_start += length;
            if line.len() > CONTROL_LINE_MAX {
                let reason = format!("line longer than {CONTROL_LINE_MAX} bytes");
                self.say_last(&dialogue::complaint(reason));
            } else if !line.is_empty() {
                return Input::Line(line);
            }
        }
        Input::Nothing
    }

    /// Adds a line to the backlog. Only for what the client itself asked for: one answer at a time
    /// is under way, so the backlog is bounded by the answers' own size.
    pub fn say(&mut self, value: &Value) {
        // A value has no error in it, and a vector takes all.
        let _ = serde_json::to_writer(&mut self.output, value);
        self.output.extend_from_slice(b"\r\n");
    }

    /// Gives the socket away, with what is said next. The connection stays open from now on until
    /// the kernel closes it, when the last thread of this process has ended: that is what the
    /// successor waits for.
    pub fn give(&mut self, gift: Option<Gift>) {
        if let (Some(gift), Ok(connection)) = (&gift, self.stream.try_clone()) {
            gift.goes_to(connection);
        }
        if let Ok(stream) = self.stream.try_clone() {
            let _until_the_end = stream.into_raw_fd();
        }
        self.gift = gift;
    }

    /// Says why, and ends the session when that is out.
    pub fn say_last(&mut self, value: &Value) {
        self.say(value);
        self.closing = true;
        self.input = Vec::new();
        self.input_start = 0;
    }

    /// Adds what the client did not ask for. A client too far behind is given up.
    pub fn tell(&mut self, line: &[u8]) {
        if !self.dialogue.is_negotiated() || self.closing || self.dead {
            return;
        }
        if self.backlog() > CONTROL_BACKLOG_MAX {
            log::warn!("a control client that does not read has been disconnected");
            self.dead = true;
            return;
        }
        self.output.extend_from_slice(line);
    }

    /// Writes what the client takes now.
    pub fn flush(&mut self) {
        while self.backlog() > 0 && !self.dead {
            match self.write() {
                Ok(written) => self.output_start += written,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => self.dead = true,
            }
        }
        // Moving the rest forward costs as much as it saves, so it waits until it is worth it.
        if self.backlog() == 0 {
            self.output = Vec::new();
            self.output_start = 0;
        } else if self.output_start > self.output.len() / 2 {
            self.output.drain(..self.output_start);
            self.output_start = 0;
        }
    }

    fn write(&mut self) -> std::io::Result<usize> {
        let bytes = &self.output[self.output_start..];
        let Some(gift) = &self.gift else { return self.stream.write(bytes) };
        let written = self.stream.send_with_fd(bytes, gift.socket.as_raw_fd());
        let written = written.map_err(|error| std::io::Error::from_raw_os_error(error.errno()))?;
        self.gift = None;
        Ok(written)
    }

    /// Nothing will be said or taken any more. Asked after all lines have been taken.
    pub fn is_over(&self) -> bool {
        self.dead
            || (self.backlog() == 0 && (self.closing || (self.at_end && self.waiting.is_none())))
    }

    fn takes_lines(&self) -> bool {
        self.waiting.is_none()
            && !self.closing
            && !self.dead
            && self.backlog() < CONTROL_OUTPUT_SOFT_MAX
    }

    fn backlog(&self) -> usize {
        self.output.len() - self.output_start
    }
}

fn is_transient(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
