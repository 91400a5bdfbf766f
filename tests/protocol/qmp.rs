//! A small blocking client for the control socket, which speaks QEMU's monitor protocol.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// How long an answer may take: no query waits for a dead path.
const ANSWER: Duration = Duration::from_secs(5);

/// A client that has said `qmp_capabilities`.
pub struct Qmp {
    stream: UnixStream,
    partial: Vec<u8>,
    events: VecDeque<Value>,
}

impl Qmp {
    /// Connects, reads the greeting and leaves negotiation mode.
    pub fn connect(socket: &Path) -> Self {
        let stream = UnixStream::connect(socket)
            .unwrap_or_else(|error| panic!("control socket {socket:?}: {error}"));
        let mut qmp = Qmp { stream, partial: Vec::new(), events: VecDeque::new() };
        let greeting = qmp.line(Instant::now() + ANSWER).expect("a greeting");
        assert!(greeting["QMP"]["version"].is_object(), "greeting: {greeting}");
        qmp.execute("qmp_capabilities", json!({}));
        qmp
    }

    /// One JSON line, `None` when there is none by `deadline`.
    fn line(&mut self, deadline: Instant) -> Option<Value> {
        loop {
            if let Some(end) = self.partial.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.partial.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).expect("the socket speaks JSON"));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            self.stream.set_read_timeout(Some(left)).expect("a timeout can be set");
            let mut bytes = [0; 4096];
            match self.stream.read(&mut bytes) {
                Ok(0) => panic!("the control socket was closed"),
                Ok(count) => self.partial.extend_from_slice(&bytes[..count]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock) => return None,
                Err(error) if matches!(error.kind(), ErrorKind::Interrupted) => {}
                Err(error) => panic!("the control socket: {error}"),
            }
        }
    }

    /// Runs a command; an error comes back as its description.
    pub fn try_execute(&mut self, command: &str, arguments: Value) -> Result<Value, String> {
        let request = json!({"execute": command, "arguments": arguments, "id": command});
        writeln!(self.stream, "{request}").expect("the control socket takes a line");
        let deadline = Instant::now() + ANSWER;
        loop {
            let line = self.line(deadline);
            let mut line = line.unwrap_or_else(|| panic!("{command}: no answer in {ANSWER:?}"));
            if line.get("event").is_some() {
                self.events.push_back(line);
                continue;
            }
            assert_eq!(line["id"], command, "the answer carries the command's id");
            if let Some(error) = line.get("error") {
                return Err(error["desc"].as_str().expect("an error has a desc").to_owned());
            }
            return Ok(line["return"].take());
        }
    }

    /// Runs a command that must succeed.
    pub fn execute(&mut self, command: &str, arguments: Value) -> Value {
        self.try_execute(command, arguments).unwrap_or_else(|error| panic!("{command}: {error}"))
    }

    /// Waits until the device has taken `count` commands and holds them.
    pub fn wait_until_held(&mut self, count: usize) {
        let deadline = Instant::now() + ANSWER;
        loop {
            let lun = self.execute("query-lun", json!({}));
            let of = |key: &str| lun[key].as_u64().expect("a count of commands") as usize;
            let held = of("queued") + of("inflight");
            if held == count {
                return;
            }
            assert!(Instant::now() < deadline, "{held} commands are held, not {count}");
        }
    }

    /// The next event named `name` whose data `wanted` accepts. Other events are dropped.
    pub fn event(
        &mut self,
        name: &str,
        timeout: Duration,
        wanted: impl Fn(&Value) -> bool,
    ) -> Option<Value> {
        let deadline = Instant::now() + timeout;
        loop {
            let event = match self.events.pop_front() {
                Some(event) => event,
                None => self.line(deadline)?,
            };
            assert!(event["timestamp"]["seconds"].is_u64(), "no timestamp: {event}");
            if event["event"] == name && wanted(&event["data"]) {
                return Some(event["data"].clone());
            }
        }
    }

    /// Forgets the events that have come in so far.
    pub fn forget_events(&mut self) {
        while self.line(Instant::now() + Duration::from_millis(1)).is_some() {}
        self.events.clear();
    }
}
