//! The other end of the control socket, blocking: for `mpathctl` and for tests.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use vmm_sys_util::sock_ctrl_msg::ScmSocket;

use crate::limits::{CONTROL_EVENTS_MAX, CONTROL_REPLY_MAX};
use crate::socket::LAST_WORD;

/// Why a backend did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No socket.
    #[error("{}: there is no such socket: that backend is not running, or has another control socket",
        .0.display())]
    Missing(PathBuf),
    /// A socket, and nobody behind it.
    #[error("{}: nobody listens on this socket: that backend is not running any more",
        .0.display())]
    Dead(PathBuf),
    /// Not allowed.
    #[error("{}: permission denied: become root, or a member of the socket's group (`socket_group`)",
        .0.display())]
    Permission(PathBuf),
    /// It takes too long.
    #[error("{}: no answer within {} s", socket.display(), timeout.as_secs_f64())]
    Timeout {
        /// The socket.
        socket: PathBuf,
        /// How long it was waited for.
        timeout: Duration,
    },
    /// It has gone.
    #[error("{}: the backend has closed the connection", .0.display())]
    Closed(PathBuf),
    /// Anything else between here and there.
    #[error("{}: {cause}", socket.display())]
    Io {
        /// The socket.
        socket: PathBuf,
        /// What happened.
        cause: io::Error,
    },
    /// Something else listens there.
    #[error("{}: that is no control socket: {why}", socket.display())]
    Protocol {
        /// The socket.
        socket: PathBuf,
        /// Why not.
        why: String,
    },
    /// The backend's own refusal.
    #[error("{desc}")]
    Refused {
        /// The error's class.
        class: String,
        /// Why, in words.
        desc: String,
    },
}

/// A negotiated connection.
#[derive(Debug)]
pub struct Client {
    socket: PathBuf,
    stream: BufReader<UnixStream>,
    timeout: Duration,
    /// Counts requests, so that an answer is never taken for another's.
    next_id: u64,
    /// Events that came while an answer was awaited.
    events: VecDeque<Value>,
}

impl Client {
    /// Connects and negotiates. No answer is waited for longer than `timeout`.
    pub fn connect(socket: &Path, timeout: Duration) -> Result<Client, ClientError> {
        let stream = uninterrupted(|| UnixStream::connect(socket)).map_err(|cause| {
            let socket = socket.to_owned();
            match cause.kind() {
                io::ErrorKind::NotFound => ClientError::Missing(socket),
                io::ErrorKind::ConnectionRefused => ClientError::Dead(socket),
                io::ErrorKind::PermissionDenied => ClientError::Permission(socket),
                _ => ClientError::Io { socket, cause },
            }
        })?;
        let mut client = Client {
            socket: socket.to_owned(),
            stream: BufReader::new(stream),
            timeout,
            next_id: 1,
            events: VecDeque::new(),
        };
        client.set_timeout(Some(timeout))?;
        let greeting = client.message()?;
        if let Some(error) = greeting.get("error") {
            return Err(refused(error));
        }
        if greeting.get("QMP").is_none() {
            return Err(client.protocol("it greets in another protocol"));
        }
        client.execute("qmp_capabilities", json!({}))?;
        Ok(client)
    }

    /// Executes a command and waits for what it returns.
    pub fn execute(&mut self, command: &str, arguments: Value) -> Result<Value, ClientError> {
        let id = self.next_id;
        self.next_id += 1;
        let request = json!({"execute": command, "arguments": arguments, "id": id});
        self.send(format!("{request}\n").as_bytes())?;
        loop {
            let mut message = self.message()?;
            if message.get("event").is_some() {
                // Who only asks for answers loses old events rather than memory.
                if self.events.len() == CONTROL_EVENTS_MAX {
                    self.events.pop_front();
                }
                self.events.push_back(message);
            } else if let Some(error) = message.get("error") {
                return Err(refused(error));
            } else if message.get("id") == Some(&json!(id)) {
                return Ok(message["return"].take());
            }
        }
    }

    /// Takes the backend's place: returns its vhost-user socket when its process has ended, however
    /// long that takes, and whether that was in good order.
    pub fn take_over(mut self) -> Result<(UnixListener, bool), ClientError> {
        self.send(b"{\"execute\": \"takeover\", \"id\": \"takeover\"}\n")?;
        let mut bytes = self.stream.buffer().to_vec();
        let mut socket = None;
        loop {
            while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = bytes.drain(..=end).collect();
                let message: Value =
                    serde_json::from_slice(&line).map_err(|error| self.protocol(error))?;
                if let Some(error) = message.get("error") {
                    return Err(refused(error));
                }
                if message.get("return").is_some() {
                    let socket: File = socket.ok_or_else(|| self.protocol("no socket came"))?;
                    let orderly = self.wait_for_the_end(bytes)?;
                    return Ok((UnixListener::from(OwnedFd::from(socket)), orderly));
                }
            }
            let mut chunk = [0; 4096];
            let stream = self.stream.get_ref();
            let receive = || stream.recv_with_fd(&mut chunk).map_err(io::Error::from);
            let (count, file) = uninterrupted(receive).map_err(|cause| self.io(cause))?;
            if count == 0 {
                return Err(ClientError::Closed(self.socket.clone()));
            }
            bytes.extend_from_slice(&chunk[..count]);
            socket = file.or(socket);
        }
    }

    /// The connection is closed by the end of the process at its other end. True when it had said
    /// that nothing was under way any more; `last` is what has come so far.
    fn wait_for_the_end(&mut self, mut last: Vec<u8>) -> Result<bool, ClientError> {
        self.set_timeout(None)?;
        let stream = self.stream.get_mut();
        let mut chunk = [0; 4096];
        loop {
            match stream.read(&mut chunk) {
                Ok(0) => return Ok(last.ends_with(LAST_WORD)),
                Ok(count) => {
                    last.extend_from_slice(&chunk[..count]);
                    last.drain(..last.len().saturating_sub(LAST_WORD.len()));
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(false),
                Err(error) => return Err(self.io(error)),
            }
        }
    }

    /// The next event, waited for without end.
    pub fn next_event(&mut self) -> Result<Value, ClientError> {
        if let Some(event) = self.events.pop_front() {
            return Ok(event);
        }
        self.set_timeout(None)?;
        let event = loop {
            let message = self.message()?;
            if message.get("event").is_some() {
                break message;
            }
        };
        self.set_timeout(Some(self.timeout))?;
        Ok(event)
    }

    /// The events that came along with answers, without waiting for more.
    pub fn take_events(&mut self) -> impl Iterator<Item = Value> + '_ {
        self.events.drain(..)
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) -> Result<(), ClientError> {
        self.stream.get_mut().write_all(bytes).map_err(|cause| self.io(cause))
    }

    /// The next line, whatever it is.
    pub fn message(&mut self) -> Result<Value, ClientError> {
        let mut line = Vec::new();
        let mut bounded = (&mut self.stream).take(CONTROL_REPLY_MAX as u64);
        bounded.read_until(b'\n', &mut line).map_err(|cause| self.io(cause))?;
        match line.last() {
            None => Err(ClientError::Closed(self.socket.clone())),
            Some(b'\n') => serde_json::from_slice(&line).map_err(|error| self.protocol(error)),
            Some(_) if line.len() < CONTROL_REPLY_MAX => {
                Err(ClientError::Closed(self.socket.clone()))
            }
            Some(_) => Err(self.protocol("a line without an end")),
        }
    }

    fn set_timeout(&mut self, timeout: Option<Duration>) -> Result<(), ClientError> {
        let stream = self.stream.get_ref();
        let result =
            stream.set_read_timeout(timeout).and_then(|()| stream.set_write_timeout(timeout));
        result.map_err(|cause| self.io(cause))
    }

    fn io(&self, cause: io::Error) -> ClientError {
        let socket = self.socket.clone();
        match cause.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                ClientError::Timeout { socket, timeout: self.timeout }
            }
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => {
                ClientError::Closed(socket)
            }
            _ => ClientError::Io { socket, cause },
        }
    }

    fn protocol(&self, why: impl ToString) -> ClientError {
        ClientError::Protocol { socket: self.socket.clone(), why: why.to_string() }
    }
}

/// Calls `call` until nothing interrupts it. A socket with a timeout is interrupted also where no
/// signal has come: by the kernel's own work for the thread, such as the end of an io_uring.
fn uninterrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

fn refused(error: &Value) -> ClientError {
    let word = |name: &str| error[name].as_str().unwrap_or("no reason given").to_owned();
    ClientError::Refused { class: word("class"), desc: word("desc") }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;
    use std::thread;

    use vmm_sys_util::signal::{Killable, SIGRTMIN, register_signal_handler};

    use super::*;
    use crate::control::dialogue;

    /// What a successor makes of a backend that gives its socket away and ends with these words.
    fn taken_over(words: &'static [u8]) -> bool {
        taken_over_after(words, Duration::ZERO)
    }

    /// The same of one that takes its time to give the socket away.
    fn taken_over_after(words: &'static [u8], pause: Duration) -> bool {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.ctl");
        let listener = UnixListener::bind(&path).unwrap();
        let backend = thread::spawn(move || {
            let mut stream = listener.accept().unwrap().0;
            let mut lines = BufReader::new(stream.try_clone().unwrap());
            let mut line = String::new();
            writeln!(stream, "{}", dialogue::greeting()).unwrap();
            lines.read_line(&mut line).unwrap();
            stream.write_all(b"{\"return\": {}, \"id\": 1}\n").unwrap();
            lines.read_line(&mut line).unwrap();
            thread::sleep(pause);
            let answer: &[u8] = b"{\"return\": {}, \"id\": \"takeover\"}\r\n";
            stream.send_with_fd(answer, listener.as_raw_fd()).unwrap();
            stream.write_all(words).unwrap();
        });
        let client = Client::connect(&path, Duration::from_secs(5)).unwrap();
        let (_, orderly) = client.take_over().unwrap();
        backend.join().unwrap();
        orderly
    }

    #[test]
    fn take_over_tells_an_end_in_good_order_from_a_crash() {
        assert!(taken_over(LAST_WORD));
        assert!(taken_over(b"{\"event\": \"LUN_STATE_CHANGED\"}\r\n{\"end\": \"orderly\"}\r\n"));
        assert!(!taken_over(b""));
        assert!(!taken_over(b"{\"event\": \"LUN_STATE_CHANGED\"}\r\n"));
    }

    #[test]
    fn take_over_is_not_ended_by_an_interruption() {
        extern "C" fn ignore(_: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}
        register_signal_handler(SIGRTMIN(), ignore).unwrap();
        let successor = thread::spawn(|| taken_over_after(LAST_WORD, Duration::from_millis(100)));
        while !successor.is_finished() {
            successor.kill(SIGRTMIN()).unwrap();
            thread::sleep(Duration::from_millis(1));
        }
        assert!(successor.join().unwrap());
    }
}
