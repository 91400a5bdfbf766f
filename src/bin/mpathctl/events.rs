//! Following events, of one backend or of all: a thread for each waits, one prints.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, sync_channel};

use serde_json::Value;

use crate::backends::{self, Failure};
use crate::{Output, human};

/// Events between the threads that wait and the one that prints: none, so that a terminal that has
/// been stopped holds back the sockets and not this program's memory.
const QUEUE: usize = 0;

/// Prints until every backend has gone.
pub fn follow(
    socket: Option<&Path>,
    directory: &Path,
    output: &mut Output<'_>,
) -> Result<u8, Failure> {
    let (sender, receiver) = sync_channel(QUEUE);
    for socket in backends::all(socket, directory)? {
        let sender = sender.clone();
        std::thread::Builder::new().name("events".to_owned()).spawn(move || {
            watch(&socket, &sender);
        })?;
    }
    drop(sender);
    while let Ok((socket, event)) = receiver.recv() {
        match event {
            Ok(event) if output.json => writeln!(output.out, "{event}")?,
            Ok(event) => writeln!(output.out, "{}", line(&backends::name(&socket), &event))?,
            Err(failure) => output.complain(&failure),
        }
        // Somebody is watching, perhaps through a pipe.
        output.out.flush()?;
    }
    // Events are followed until one interrupts it: ending by itself is a failure.
    Ok(1)
}

fn watch(socket: &Path, to: &SyncSender<(PathBuf, Result<Value, Failure>)>) {
    let mut client = match backends::connect(socket) {
        Ok(client) => client,
        Err(failure) => {
            // Nobody prints any more: nothing to do either.
            let _ = to.send((socket.to_owned(), Err(failure)));
            return;
        }
    };
    loop {
        let event = client.next_event().map_err(Failure::Client);
        let last = event.is_err();
        if to.send((socket.to_owned(), event)).is_err() || last {
            return;
        }
    }
}

/// One event in one line, with its time and whose it is.
pub fn line(backend: &str, event: &Value) -> String {
    let name = event["event"].as_str().unwrap_or("?");
    format!("{} {backend} {name} {}", time(event), what(event)).trim_end().to_owned()
}

/// One event of a backend that is known, of today.
pub fn short(event: &Value) -> String {
    let time = time(event);
    let clock = time.split('T').nth(1).and_then(|clock| clock.split('.').next());
    let name = event["event"].as_str().unwrap_or("?");
    format!("{} {name} {}", clock.unwrap_or_default(), what(event)).trim_end().to_owned()
}

/// When it happened.
pub fn time(event: &Value) -> String {
    let timestamp = &event["timestamp"];
    let number = |name: &str| timestamp[name].as_u64().unwrap_or(0);
    human::time(number("seconds"), number("microseconds"))
}

/// What happened. What this program does not know is shown as it came.
pub fn what(event: &Value) -> String {
    let data = &event["data"];
    let word = |name: &str| match &data[name] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    match event["event"].as_str().unwrap_or_default() {
        "PATH_STATE_CHANGED" => {
            let reason = word("reason");
            let why = if reason.is_empty() { String::new() } else { format!(" ({reason})") };
            format!("{}: {} -> {}{why}", word("name"), word("from"), word("to"))
        }
        "LUN_STATE_CHANGED" => {
            // An older backend gives none.
            let why = data["reason"].as_str().map_or_else(String::new, |why| format!(": {why}"));
            format!("{} -> {}{why}", word("from"), word("to"))
        }
        "LUN_RESIZED" => format!("{} blocks", word("blocks")),
        "FAILOVER" => {
            format!("{} -> {}, {} commands sent again", word("from"), word("to"), word("commands"))
        }
        _ => match data {
            Value::Null => String::new(),
            data => data.to_string(),
        },
    }
}
