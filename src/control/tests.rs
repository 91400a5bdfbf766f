//! The control socket from outside: transcripts over a real socket, with a manager that is a fake.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use serde_json::{Value, json};

use super::client::{Client, ClientError};
use super::*;
use crate::socket::{Access, SocketFile};

pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// Answers `Done` to everything at once, except to `query-stats`: those the test answers.
struct FakeManager {
    orders: Sender<Order>,
    held: Sender<ReplyTo>,
}

impl OrderSink for FakeManager {
    fn submit(&self, order: Order, reply: ReplyTo) {
        match &order {
            Order::QueryStats => self.held.send(reply).unwrap(),
            Order::PathFail { name } if name == "none" => {
                reply.answer(Err(format!("there is no path `{name}`")));
            }
            Order::QueryPaths => reply.answer(Ok(Reply::Paths(Vec::new()))),
            _ => reply.answer(Ok(Reply::Done)),
        }
        // The test may not want to know.
        let _ = self.orders.send(order);
    }
}

pub(super) struct Fixture {
    pub server: Server,
    pub events: EventSink,
    pub orders: Receiver<Order>,
    pub held: Receiver<ReplyTo>,
    pub socket: PathBuf,
    _directory: tempfile::TempDir,
}

pub(super) fn fixture() -> Fixture {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("lun0.ctl");
    let file = SocketFile::bind(&socket, Access::default()).unwrap();
    let (events, mailbox) = mail().unwrap();
    let ((orders_in, orders), (held_in, held)) = (channel(), channel());
    let manager = FakeManager { orders: orders_in, held: held_in };
    let server = Server::start(file, mailbox, Box::new(manager), None).unwrap();
    Fixture { server, events, orders, held, socket, _directory: directory }
}

/// A client without manners.
pub(super) struct Raw(pub BufReader<UnixStream>);

impl Raw {
    pub fn connect(socket: &Path) -> Raw {
        let stream = UnixStream::connect(socket).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Raw(BufReader::new(stream))
    }

    pub fn send(&mut self, text: &str) {
        self.0.get_mut().write_all(text.as_bytes()).unwrap();
    }

    pub fn line(&mut self) -> Value {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        assert!(line.ends_with("\r\n"), "{line}");
        serde_json::from_str(&line).unwrap()
    }

    pub fn is_closed(&mut self) -> bool {
        let mut rest = Vec::new();
        match self.0.read_to_end(&mut rest) {
            Ok(_) => true,
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }
}

pub(super) fn client(fixture: &Fixture) -> Client {
    Client::connect(&fixture.socket, PATIENCE).unwrap()
}

fn resized(blocks: u64) -> Event {
    Event::LunResized { blocks }
}

#[test]
fn transcript_is_qmps() {
    let fixture = fixture();
    let mut raw = Raw::connect(&fixture.socket);
    let greeting = raw.line();
    assert_eq!(greeting["QMP"]["capabilities"], json!([]));
    assert!(greeting["QMP"]["version"]["qemu"]["minor"].is_u64());
    raw.send("{\"execute\": \"query-paths\"}\n");
    assert_eq!(raw.line()["error"]["class"], "CommandNotFound");
    raw.send("garbage\n\r\n\n");
    assert_eq!(raw.line()["error"]["class"], "GenericError");
    raw.send("{\"execute\": \"qmp_capabilities\"}\r\n");
    assert_eq!(raw.line(), json!({"return": {}}));
    // Cut anywhere, and two at once.
    raw.send("{\"execute\": \"que");
    std::thread::sleep(Duration::from_millis(20));
    raw.send("ry-paths\", \"id\": 7}\n{\"execute\": \"path-fail\", \"arguments\": {\"name\": ");
    assert_eq!(raw.line(), json!({"return": [], "id": 7}));
    raw.send("\"none\"}, \"id\": null}\n");
    let error = json!({"class": "GenericError", "desc": "there is no path `none`"});
    assert_eq!(raw.line(), json!({"error": error, "id": null}));
}

#[test]
fn requests_need_no_newline() {
    let fixture = fixture();
    let mut raw = Raw::connect(&fixture.socket);
    raw.line();
    // As QEMU's own Python client sends them.
    raw.send("{\"execute\": \"qmp_capabilities\"}");
    assert_eq!(raw.line(), json!({"return": {}}));
    raw.send("{\"execute\": \"query-paths\", \"id\": \"}\"}{\"execute\": \"query-lun\"}");
    assert_eq!(raw.line(), json!({"return": [], "id": "}"}));
    assert_eq!(raw.line(), json!({"return": {}}));
}

#[test]
fn client_orders_arrive_with_their_arguments() {
    let fixture = fixture();
    let mut client = client(&fixture);
    let fault = json!({"path": "a", "fault": "delay", "milliseconds": 30, "count": 2});
    assert_eq!(client.execute("inject-fault", fault).unwrap(), json!({}));
    let fault = FaultSpec {
        kind: FaultKind::Delay(Duration::from_millis(30)),
        probability: 1.0,
        count: Some(2),
    };
    let expected = Order::InjectFault { path: "a".into(), fault };
    assert_eq!(fixture.orders.recv_timeout(PATIENCE).unwrap(), expected);
    let error = client.execute("inject-fault", json!({"path": "a"})).unwrap_err();
    assert_eq!(error.to_string(), "Parameter 'fault' is missing");
    let error = client.execute("set-failback", json!({})).unwrap_err();
    assert_eq!(error.to_string(), "Parameter 'failback' is missing");
}

#[test]
fn pipelined_commands_are_answered_in_order_after_a_slow_one() {
    let fixture = fixture();
    let mut raw = Raw::connect(&fixture.socket);
    raw.line();
    let mut text = String::from("{\"execute\": \"qmp_capabilities\"}\n");
    text += "{\"execute\": \"query-stats\", \"id\": 0}\n";
    for id in 1..=500 {
        text += &format!("{{\"execute\": \"query-version\", \"id\": {id}}}\n");
    }
    raw.send(&text);
    raw.line();
    let reply = fixture.held.recv_timeout(PATIENCE).unwrap();
    // Meanwhile others are served.
    client(&fixture).execute("query-lun", json!({})).unwrap();
    reply.answer(Ok(Reply::Stats(Box::default())));
    let stats = raw.line();
    assert_eq!(stats["id"], 0);
    assert_eq!(stats["return"]["lun"]["read-bytes"], 0);
    for id in 1..=500 {
        assert_eq!(raw.line()["id"], id);
    }
}

#[test]
fn pipelining_client_that_reads_late_loses_nothing() {
    let fixture = fixture();
    let mut raw = Raw::connect(&fixture.socket);
    let mut writer = raw.0.get_ref().try_clone().unwrap();
    // Their answers are several times what the sockets and the backlog hold.
    let count = 30_000;
    let sender = std::thread::spawn(move || {
        writer.write_all(b"{\"execute\": \"qmp_capabilities\"}\n").unwrap();
        for id in 0..count {
            let line = format!("{{\"execute\": \"query-commands\", \"id\": {id}}}\n");
            writer.write_all(line.as_bytes()).unwrap();
        }
    });
    std::thread::sleep(Duration::from_millis(100));
    raw.line();
    raw.line();
    for id in 0..count {
        assert_eq!(raw.line()["id"], id);
    }
    sender.join().unwrap();
}

#[test]
fn script_that_closes_its_end_gets_all_answers() {
    let fixture = fixture();
    let mut raw = Raw::connect(&fixture.socket);
    raw.send("{\"execute\": \"qmp_capabilities\"}\n{\"execute\": \"query-stats\"}\n");
    raw.send("{\"execute\": \"query-paths\", \"id\": 1}");
    raw.0.get_ref().shutdown(Shutdown::Write).unwrap();
    let reply = fixture.held.recv_timeout(PATIENCE).unwrap();
    std::thread::sleep(Duration::from_millis(20));
    reply.answer(Ok(Reply::Done));
    let lines: Vec<Value> = (0..4).map(|_| raw.line()).collect();
    assert_eq!(lines[3], json!({"return": [], "id": 1}));
    assert!(raw.is_closed());
}

#[test]
fn events_reach_every_client_that_has_negotiated() {
    let fixture = fixture();
    let mut clients = [client(&fixture), client(&fixture), client(&fixture)];
    let mut quiet = Raw::connect(&fixture.socket);
    quiet.line();
    let event = Event::PathStateChanged {
        name: "left".into(),
        from: PathState::Up,
        to: PathState::WrongLun,
        reason: "another disk".into(),
    };
    fixture.events.send(event);
    for client in &mut clients {
        let event = client.next_event().unwrap();
        assert_eq!(event["event"], "PATH_STATE_CHANGED");
        let data = json!({
            "name": "left", "from": "up", "to": "wrong-lun", "reason": "another disk"
        });
        assert_eq!(event["data"], data);
        assert!(event["timestamp"]["seconds"].as_u64().unwrap() > 1_000_000_000);
        assert!(event["timestamp"]["microseconds"].is_u64());
    }
    quiet.send("{\"execute\": \"qmp_capabilities\"}\n");
    assert_eq!(quiet.line(), json!({"return": {}}));
}

#[test]
fn events_come_between_answers() {
    let fixture = fixture();
    let mut client = client(&fixture);
    for blocks in 0..10 {
        fixture.events.send(resized(blocks));
        client.execute("query-lun", json!({})).unwrap();
    }
    for blocks in 0..10 {
        assert_eq!(client.next_event().unwrap()["data"]["blocks"], blocks);
    }
}

#[test]
fn quit_is_answered_and_the_socket_is_gone() {
    let fixture = fixture();
    let mut client = client(&fixture);
    assert_eq!(client.execute("quit", json!({})).unwrap(), json!({}));
    fixture.server.stop();
    assert!(!fixture.socket.exists());
    let error = client.execute("query-lun", json!({})).unwrap_err();
    assert!(matches!(error, ClientError::Closed(_)), "{error}");
    let error = Client::connect(&fixture.socket, PATIENCE).unwrap_err();
    assert!(matches!(error, ClientError::Missing(_)), "{error}");
}

#[test]
fn answer_that_comes_just_after_the_stop_is_delivered() {
    let fixture = fixture();
    let mut raw = Raw::connect(&fixture.socket);
    raw.send("{\"execute\": \"qmp_capabilities\"}{\"execute\": \"query-stats\"}");
    raw.line();
    raw.line();
    let reply = fixture.held.recv_timeout(PATIENCE).unwrap();
    let late = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(30));
        reply.answer(Ok(Reply::Done));
    });
    fixture.server.stop();
    assert_eq!(raw.line(), json!({"return": {}}));
    late.join().unwrap();
}

#[test]
fn stop_among_events_is_not_overlooked() {
    for _ in 0..100 {
        let Fixture { server, events, .. } = fixture();
        let sender = std::thread::spawn(move || events.send(resized(1)));
        let (ended, end) = channel();
        std::thread::spawn(move || {
            drop(server);
            let _ = ended.send(());
        });
        end.recv_timeout(Duration::from_secs(10)).expect("the control thread ends");
        sender.join().unwrap();
    }
}

#[test]
fn report_words_are_the_promised_ones() {
    let words = |value: Value| value.as_str().unwrap().to_owned();
    let state = serde_json::to_value(PathState::WrongLun).unwrap();
    assert_eq!(words(state), PathState::WrongLun.as_str());
    let access = serde_json::to_value(AccessState::ActiveNonOptimized).unwrap();
    assert_eq!(words(access), "active/non-optimized");
    let counters = Counters { reads: 1, ..Counters::default() };
    let stats = PathStats { name: "a".into(), counters };
    let json = serde_json::to_value(&stats).unwrap();
    assert_eq!((&json["name"], &json["reads"]), (&json!("a"), &json!(1)));
    assert_eq!(serde_json::from_value::<PathStats>(json).unwrap(), stats);
}
