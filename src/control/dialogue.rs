//! The protocol of QEMU's monitor, line by line and without I/O: what is said to what. Words and
//! classes are QEMU's own, because its clients look at them (QEMU docs/interop/qmp-spec.rst).

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};

use super::command::{self, CommandError};
use super::{Event, Order, OrderResult, Reply};

/// Commands that are answered here.
const OWN: [&str; 3] = ["qmp_capabilities", "query-commands", "query-version"];

/// Where one client stands.
#[derive(Debug, Default)]
pub struct Dialogue {
    negotiated: bool,
}

/// What a line comes to.
#[derive(Debug, PartialEq)]
pub enum Step {
    /// Say this.
    Say(Value),
    /// Ask the manager, and say [`answer`] with this id.
    Ask(Order, Option<Value>),
}

/// Error classes of the protocol.
#[derive(Clone, Copy, Debug)]
enum Class {
    Generic,
    CommandNotFound,
}

impl Dialogue {
    /// The client gets events.
    pub fn is_negotiated(&self) -> bool {
        self.negotiated
    }

    /// Takes one line.
    pub fn line(&mut self, line: &[u8]) -> Step {
        let object = match serde_json::from_slice(line) {
            Ok(Value::Object(object)) => object,
            Ok(_) => return refuse(Class::Generic, "QMP input must be a JSON object", None),
            Err(error) => {
                return refuse(Class::Generic, format!("JSON parse error, {error}"), None);
            }
        };
        let id = object.get("id").cloned();
        match request(object) {
            Ok((name, arguments)) => self.execute(&name, arguments, id),
            Err(reason) => refuse(Class::Generic, reason, id),
        }
    }

    fn execute(&mut self, name: &str, arguments: Map<String, Value>, id: Option<Value>) -> Step {
        match (name, self.negotiated) {
            ("qmp_capabilities", false) => return self.negotiate(arguments, id),
            ("qmp_capabilities", true) => {
                let reason = "Capabilities negotiation is already complete, command ignored";
                return refuse(Class::CommandNotFound, reason, id);
            }
            (_, false) => {
                let reason = "Expecting capabilities negotiation with 'qmp_capabilities'";
                return refuse(Class::CommandNotFound, reason, id);
            }
            (_, true) => {}
        }
        if OWN.contains(&name) {
            if let Some(argument) = arguments.keys().next() {
                return refuse(Class::Generic, format!("Parameter '{argument}' is unexpected"), id);
            }
            let value = if name == "query-version" { version() } else { commands() };
            return Step::Say(with_id(json!({"return": value}), id));
        }
        match command::read(name, arguments) {
            Ok(order) => Step::Ask(order, id),
            Err(error @ CommandError::NotFound(_)) => refuse(Class::CommandNotFound, error, id),
            Err(error) => refuse(Class::Generic, error, id),
        }
    }

    /// There are no capabilities to enable, so the list may only be empty.
    fn negotiate(&mut self, mut arguments: Map<String, Value>, id: Option<Value>) -> Step {
        match arguments.remove("enable") {
            None => {}
            Some(Value::Array(list)) if list.is_empty() => {}
            Some(Value::Array(_)) => {
                return refuse(Class::Generic, "Parameter 'enable': no capability is there", id);
            }
            Some(_) => {
                let reason = "Invalid parameter type for 'enable', expected: array";
                return refuse(Class::Generic, reason, id);
            }
        }
        if let Some(name) = arguments.keys().next() {
            return refuse(Class::Generic, format!("Parameter '{name}' is unexpected"), id);
        }
        self.negotiated = true;
        Step::Say(with_id(json!({"return": {}}), id))
    }
}

/// Name and arguments of a request.
fn request(mut object: Map<String, Value>) -> Result<(String, Map<String, Value>), String> {
    object.remove("id");
    let name = match object.remove("execute") {
        Some(Value::String(name)) => name,
        Some(_) => return Err("QMP input member 'execute' must be a string".to_owned()),
        None => return Err("QMP input lacks member 'execute'".to_owned()),
    };
    let arguments = match object.remove("arguments") {
        None => Map::new(),
        Some(Value::Object(arguments)) => arguments,
        Some(_) => return Err("QMP input member 'arguments' must be an object".to_owned()),
    };
    match object.keys().next() {
        Some(name) => Err(format!("QMP input member '{name}' is unexpected")),
        None => Ok((name, arguments)),
    }
}

/// The first line of every connection.
pub(super) fn greeting() -> Value {
    json!({"QMP": {"version": version(), "capabilities": []}})
}

/// The manager's answer to a client.
pub fn answer(result: OrderResult, id: Option<Value>) -> Value {
    let value = match result {
        Ok(Reply::Backend(report)) => serde_json::to_value(report),
        Ok(Reply::Lun(report)) => serde_json::to_value(report),
        Ok(Reply::Paths(reports)) => serde_json::to_value(reports),
        Ok(Reply::Stats(report)) => serde_json::to_value(report),
        Ok(Reply::History(report)) => serde_json::to_value(report),
        Ok(Reply::Settings(report)) => serde_json::to_value(report),
        Ok(Reply::Reservation(report)) => serde_json::to_value(report),
        Ok(Reply::ReservationExported(exported)) => serde_json::to_value(exported),
        Ok(Reply::Reloaded(report)) => serde_json::to_value(report),
        Ok(Reply::Done) => Ok(json!({})),
        Err(reason) => return error(Class::Generic, reason, id),
    };
    match value {
        Ok(value) => with_id(json!({"return": value}), id),
        // A report has string keys and plain values; were that broken, the client hears of it.
        Err(reason) => error(Class::Generic, reason, id),
    }
}

/// An event, with the time at which it happened.
pub fn event(event: &Event, time: SystemTime) -> Value {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut value = serde_json::to_value(event).unwrap_or_default();
    value["timestamp"] = json!({"seconds": since.as_secs(), "microseconds": since.subsec_micros()});
    value
}

/// An error that belongs to no request.
pub(super) fn complaint(reason: impl ToString) -> Value {
    error(Class::Generic, reason, None)
}

fn refuse(class: Class, reason: impl ToString, id: Option<Value>) -> Step {
    Step::Say(error(class, reason, id))
}

fn error(class: Class, reason: impl ToString, id: Option<Value>) -> Value {
    let class = match class {
        Class::Generic => "GenericError",
        Class::CommandNotFound => "CommandNotFound",
    };
    with_id(json!({"error": {"class": class, "desc": reason.to_string()}}), id)
}

fn with_id(mut value: Value, id: Option<Value>) -> Value {
    if let Some(id) = id {
        value["id"] = id;
    }
    value
}

/// Clients of QEMU expect the numbers under "qemu", whoever answers.
fn version() -> Value {
    let number = |text: &str| text.parse::<u32>().unwrap_or(0);
    json!({
        "qemu": {
            "major": number(env!("CARGO_PKG_VERSION_MAJOR")),
            "minor": number(env!("CARGO_PKG_VERSION_MINOR")),
            "micro": number(env!("CARGO_PKG_VERSION_PATCH")),
        },
        "package": concat!(env!("CARGO_PKG_NAME"), " ", env!("CARGO_PKG_VERSION")),
    })
}

fn commands() -> Value {
    let names = OWN.into_iter().chain(command::names());
    names.map(|name| json!({"name": name})).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(dialogue: &mut Dialogue, line: &str) -> Value {
        match dialogue.line(line.as_bytes()) {
            Step::Say(value) => value,
            step => panic!("{step:?}"),
        }
    }

    fn refusal(dialogue: &mut Dialogue, line: &str) -> (String, String) {
        let said = said(dialogue, line);
        let word = |name: &str| said["error"][name].as_str().unwrap().to_owned();
        (word("class"), word("desc"))
    }

    fn negotiated() -> Dialogue {
        Dialogue { negotiated: true }
    }

    #[test]
    fn dialogue_wants_capabilities_first_and_once() {
        let mut dialogue = Dialogue::default();
        let (class, desc) = refusal(&mut dialogue, r#"{"execute": "query-lun"}"#);
        assert_eq!(class, "CommandNotFound");
        assert!(desc.starts_with("Expecting capabilities negotiation"));
        assert!(!dialogue.is_negotiated());
        let line = r#"{"execute": "qmp_capabilities", "arguments": {"enable": ["oob"]}}"#;
        assert_eq!(refusal(&mut dialogue, line).0, "GenericError");
        let line = r#"{"execute": "qmp_capabilities", "id": {"a": [1]}}"#;
        assert_eq!(said(&mut dialogue, line), json!({"return": {}, "id": {"a": [1]}}));
        assert!(dialogue.is_negotiated());
        let (class, desc) = refusal(&mut dialogue, line);
        assert_eq!(class, "CommandNotFound");
        assert!(desc.starts_with("Capabilities negotiation is already complete"));
    }

    #[test]
    fn dialogue_answers_its_own_commands() {
        let mut dialogue = negotiated();
        let version = said(&mut dialogue, r#"{"execute": "query-version"}"#);
        assert!(version["return"]["qemu"]["major"].is_u64());
        let commands = said(&mut dialogue, r#"{"execute": "query-commands", "id": 1}"#);
        assert_eq!(commands["return"].as_array().unwrap().len(), 25);
        assert_eq!(commands["return"][0], json!({"name": "qmp_capabilities"}));
        assert_eq!(commands["id"], 1);
    }

    #[test]
    fn dialogue_refuses_what_is_no_request() {
        let cases = [
            ("nonsense", "JSON parse error, "),
            ("{", "JSON parse error, "),
            ("\u{0}", "JSON parse error, "),
            ("[]", "QMP input must be a JSON object"),
            ("{}", "QMP input lacks member 'execute'"),
            (r#"{"execute": 1}"#, "QMP input member 'execute' must be a string"),
            (r#"{"execute": "quit", "x": 1}"#, "QMP input member 'x' is unexpected"),
            (
                r#"{"execute": "quit", "arguments": 1}"#,
                "QMP input member 'arguments' must be an object",
            ),
            (r#"{"execute": "query-version", "arguments": {"x": 1}}"#, "Parameter 'x' is"),
        ];
        for (line, expected) in cases {
            let (class, desc) = refusal(&mut negotiated(), line);
            assert_eq!(class, "GenericError");
            assert!(desc.starts_with(expected), "{desc}");
        }
        let deep = "[".repeat(50_000);
        assert!(refusal(&mut negotiated(), &deep).1.starts_with("JSON parse error"));
        let said = said(&mut negotiated(), r#"{"execute": "nonsense", "id": "x"}"#);
        let error = json!({
            "class": "CommandNotFound",
            "desc": "The command nonsense has not been found",
        });
        assert_eq!(said, json!({"error": error, "id": "x"}));
    }

    #[test]
    fn events_carry_names_members_and_time() {
        let time = UNIX_EPOCH + std::time::Duration::from_micros(5_000_007);
        let resized = event(&Event::LunResized { blocks: 9 }, time);
        let timestamp = json!({"seconds": 5, "microseconds": 7});
        let expected =
            json!({"event": "LUN_RESIZED", "data": {"blocks": 9}, "timestamp": timestamp});
        assert_eq!(resized, expected);
        let connected = event(&Event::FrontendConnected, time);
        assert_eq!(connected, json!({"event": "FRONTEND_CONNECTED", "timestamp": timestamp}));
    }
}
