//! The commands that change something in one backend.

use std::path::Path;

use serde_json::{Map, Value, json};
use vhost_user_scsi_mpath::control::client::{Client, ClientError};
use vhost_user_scsi_mpath::control::{PathReport, ReloadReport};

use crate::backends::{self, Failure};
use crate::{Output, Steer};

/// What `set` can change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Key {
    /// numa, round-robin, queue-depth or service-time.
    Iopolicy,
    /// queue, fail, or a number of seconds.
    NoPathRetry,
    /// immediate, manual, followover, or a number of seconds.
    Failback,
}

/// A command as the socket takes it, and what to tell a person when it is done.
struct Request {
    command: &'static str,
    arguments: Value,
    done: String,
    /// The path that it is about, which must be there.
    path: Option<String>,
}

/// Does it.
pub fn steer(
    socket: Option<&Path>,
    directory: &Path,
    steer: Steer,
    output: &mut Output<'_>,
) -> Result<u8, Failure> {
    let socket = backends::one(socket, directory)?;
    let request = request(steer);
    let mut client = backends::connect(&socket)?;
    let returned = match client.execute(request.command, request.arguments) {
        Ok(returned) => returned,
        Err(refused @ ClientError::Refused { .. }) => {
            return Err(wrong_name(&mut client, request.path).unwrap_or(refused.into()));
        }
        Err(error) => return Err(error.into()),
    };
    if output.json {
        writeln!(output.out, "{returned}")?;
    } else if request.command == "reload" {
        let report: ReloadReport = serde_json::from_value(returned)
            .map_err(|cause| Failure::Report { socket: socket.clone(), cause })?;
        writeln!(output.out, "{}: {report}", backends::name(&socket))?;
    } else {
        writeln!(output.out, "{}: {}", backends::name(&socket), request.done)?;
    }
    Ok(0)
}

/// The refusal once more, with the names that there are, if the path's name is the culprit.
fn wrong_name(client: &mut Client, name: Option<String>) -> Option<Failure> {
    let name = name?;
    let paths = client.execute("query-paths", json!({})).ok()?;
    let known: Vec<PathReport> = serde_json::from_value(paths).ok()?;
    let known: Vec<String> = known.into_iter().map(|path| path.name).collect();
    (!known.contains(&name)).then_some(Failure::NoPath { name, known })
}

/// The path that must be there for it.
fn path(steer: &Steer) -> Option<String> {
    match steer {
        Steer::Fail { path }
        | Steer::Reinstate { path }
        | Steer::Remove { path }
        | Steer::Inject { path, .. } => Some(path.clone()),
        Steer::Clear { path } => path.clone(),
        Steer::Add { .. } | Steer::Set { .. } | Steer::Failback | Steer::Reload | Steer::Quit => {
            None
        }
    }
}

fn request(steer: Steer) -> Request {
    let path = path(&steer);
    let request = |command, arguments, done| Request { command, arguments, done, path };
    match steer {
        Steer::Fail { path } => {
            let done = format!("{path} is not used until \"mpathctl reinstate {path}\"");
            request("path-fail", json!({"name": path}), done)
        }
        Steer::Reinstate { path } => {
            let done = format!("{path} is checked, and used again if it is well");
            request("path-reinstate", json!({"name": path}), done)
        }
        Steer::Add { address, name } => {
            let done = format!("{} is being checked", name.as_ref().unwrap_or(&address));
            let name = name.map(Value::String);
            request("path-add", given([("address", Some(json!(address))), ("name", name)]), done)
        }
        Steer::Remove { path } => {
            let done = format!("{path} goes when its commands have ended");
            request("path-remove", json!({"name": path}), done)
        }
        Steer::Failback => {
            request("failback", json!({}), "the best group of paths is used".to_owned())
        }
        Steer::Inject {
            path,
            fault,
            milliseconds,
            bytes_per_second,
            status,
            sense,
            access_state,
            probability,
            count,
        } => {
            let strikes = count.map_or_else(String::new, |count| format!("{count} strikes or "));
            let done = format!("{path} has fault {fault} until {strikes}\"mpathctl clear {path}\"");
            let arguments = given([
                ("path", Some(json!(path))),
                ("fault", Some(json!(fault))),
                ("milliseconds", milliseconds.map(Value::from)),
                ("bytes-per-second", bytes_per_second.map(Value::from)),
                ("status", status.map(|status| word_or_number(&status))),
                ("sense", sense.map(Value::String)),
                ("access-state", access_state.map(Value::String)),
                ("probability", probability.map(Value::from)),
                ("count", count.map(Value::from)),
            ]);
            request("inject-fault", arguments, done)
        }
        Steer::Clear { path } => {
            let done = match &path {
                Some(path) => format!("{path} has no injected faults any more"),
                None => "no path has injected faults any more".to_owned(),
            };
            request("clear-faults", given([("path", path.map(Value::String))]), done)
        }
        Steer::Set { key, value } => {
            let (command, name) = match key {
                Key::Iopolicy => ("set-iopolicy", "iopolicy"),
                Key::NoPathRetry => ("set-no-path-retry", "no-path-retry"),
                Key::Failback => ("set-failback", "failback"),
            };
            let arguments = given([(name, Some(word_or_number(&value)))]);
            request(command, arguments, format!("{name} is {value}"))
        }
        Steer::Reload => request("reload", json!({}), "reloaded".to_owned()),
        Steer::Quit => request("quit", json!({}), "the backend ends".to_owned()),
    }
}

/// An object of those that are there.
fn given<const N: usize>(members: [(&str, Option<Value>); N]) -> Value {
    let member = |(name, value): (&str, Option<Value>)| Some((name.to_owned(), value?));
    Value::Object(members.into_iter().filter_map(member).collect::<Map<_, _>>())
}

/// On a command line both look the same; on the socket they do not.
fn word_or_number(text: &str) -> Value {
    match (text.parse::<u64>(), text.parse::<f64>()) {
        (Ok(number), _) => json!(number),
        (_, Ok(number)) if number.is_finite() => json!(number),
        _ => json!(text),
    }
}
