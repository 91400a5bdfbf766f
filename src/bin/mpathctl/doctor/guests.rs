//! The QEMUs of the host: those that run with a backend's socket, and the one that is installed.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use vhost_user_scsi_mpath::path::sg::host::Roots;

use super::Patient;
use super::finding::{Finding, Wrong};
use super::process::{self, Rights};

/// The first QEMU with `reconnect-ms`.
const VERSION_MIN: (u32, u32) = (9, 2);
/// What connecting to a socket needs, as a file's rights have it.
const WRITE: u32 = 0o2;

/// A QEMU that was told of a backend's socket.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Guest {
    pid: u32,
    name: String,
    reconnects: bool,
    memory_is_shared: bool,
}

/// All that was told of this backend's socket.
pub fn findings(roots: &Roots, patient: &Patient) -> Vec<Finding> {
    let Some(socket) = &patient.about.socket else { return Vec::new() };
    let found = process::all(roots).filter_map(|(pid, arguments)| guest(pid, &arguments, socket));
    let finding = |check, guest: &Guest, what: &str, wrong| Finding {
        check,
        backend: Some(patient.name.clone()),
        looked_at: format!("QEMU {} ({}): {what}", guest.pid, guest.name),
        wrong,
    };
    let mut findings = Vec::new();
    for guest in found {
        let memory = (!guest.memory_is_shared).then(not_shared);
        findings.push(finding("memory", &guest, "guest memory", memory));
        let reconnects = (!guest.reconnects).then(does_not_reconnect);
        findings.push(finding("reconnect", &guest, "reconnecting", reconnects));
        let stranger = stranger(roots, patient, &guest, socket);
        findings.push(finding("connection", &guest, "its way to the socket", stranger));
    }
    findings
}

fn not_shared() -> Wrong {
    Wrong {
        what: "it is not shared, so the backend cannot reach it and the guest has no disk"
            .to_owned(),
        mend:
            "<memoryBacking><source type='memfd'/><access mode='shared'/></memoryBacking> in the \
               domain; or -object memory-backend-memfd,id=mem,size=...,share=on -machine \
               memory-backend=mem; and start the guest again"
                .to_owned(),
    }
}

fn does_not_reconnect() -> Wrong {
    Wrong {
        what: "its disk does not come back when the backend is started again".to_owned(),
        mend: "reconnect-ms=1000 in its -chardev, and start the guest again".to_owned(),
    }
}

/// Why it is not connected, as far as rights tell.
fn stranger(roots: &Roots, patient: &Patient, guest: &Guest, socket: &Path) -> Option<Wrong> {
    if patient.lun.connected {
        return None;
    }
    let rights = Rights::of(roots, guest.pid)?;
    Some(if rights.may(socket, WRITE) {
        Wrong {
            what: "it is not connected".to_owned(),
            mend:
                "its log and the backend's say why; the directories of the socket have to let it \
                   through (namei -l SOCKET)"
                    .to_owned(),
        }
    } else {
        Wrong {
            what: format!("it may not open {}", socket.display()),
            mend: "socket_group = the group of QEMU's user, and socket_mode = \"0660\", in \
                   [backend] of the configuration; or SocketGroup= of the socket unit"
                .to_owned(),
        }
    })
}

/// A process, if it is a QEMU with a chardev on this socket.
fn guest(pid: u32, arguments: &[String], socket: &Path) -> Option<Guest> {
    // Those that started it, such as sudo, have its arguments too.
    let program = Path::new(arguments.first()?).file_name()?.to_str()?;
    if !program.contains("qemu") && !program.contains("kvm") {
        return None;
    }
    let values = |option: &'static str| {
        let pairs = arguments.iter().zip(arguments.iter().skip(1));
        // QEMU takes one dash or two.
        pairs
            .filter(move |(word, _)| word.trim_start_matches('-') == option)
            .map(|(_, value)| value)
    };
    let chardev = values("chardev").map(|value| options(value)).find(|options| {
        let path = value(options, "path").map(Path::new);
        path == Some(socket)
    })?;
    let given = |name| value(&chardev, name).is_some_and(|value| value != "0");
    let memory: Vec<bool> = values("object").filter_map(|object| is_shared(object)).collect();
    let name = values("name").next().map(|value| options(value)).and_then(|options| {
        let name = value(&options, "guest").or(value(&options, ""))?;
        Some(name.to_owned())
    });
    Some(Guest {
        pid,
        name: name.unwrap_or_else(|| "without a name".to_owned()),
        reconnects: given("reconnect-ms") || given("reconnect"),
        memory_is_shared: !memory.is_empty() && memory.iter().all(|shared| *shared),
    })
}

/// An object of QEMU's: is it memory of the guest's, and if so, shared?
fn is_shared(object: &str) -> Option<bool> {
    let (kind, share) = if object.starts_with('{') {
        let value: Value = serde_json::from_str(object).ok()?;
        (value["qom-type"].as_str()?.to_owned(), value["share"].as_bool())
    } else {
        let options = options(object);
        let share =
            value(&options, "share").map(|word| matches!(word, "on" | "yes" | "true" | "y"));
        (value(&options, "qom-type").or(value(&options, ""))?.to_owned(), share)
    };
    let kind = kind.strip_prefix("memory-backend-")?;
    // These two are shared unless told otherwise.
    Some(share.unwrap_or(matches!(kind, "memfd" | "shm")))
}

/// QEMU's `a,b=c` as pairs; the first word without a name has the name "". Two commas are one.
fn options(text: &str) -> Vec<(String, String)> {
    let parts = text.replace(",,", "\0");
    let pair = |part: &str| {
        let part = part.replace('\0', ",");
        match part.split_once('=') {
            Some((name, value)) => (name.to_owned(), value.to_owned()),
            None => (String::new(), part),
        }
    };
    parts.split(',').map(pair).collect()
}

fn value<'a>(options: &'a [(String, String)], name: &str) -> Option<&'a str> {
    options.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}

/// Is each installed QEMU new enough? One that is not there is passed over.
pub fn installed(qemus: &[PathBuf]) -> Vec<Finding> {
    let version = |qemu: &PathBuf| {
        let mut command = Command::new(qemu);
        let output = command.arg("--version").stdin(Stdio::null()).output().ok()?;
        Some((qemu.clone(), String::from_utf8_lossy(&output.stdout).into_owned()))
    };
    let finding = |(qemu, text): (PathBuf, String)| Finding {
        check: "qemu-version",
        backend: None,
        looked_at: format!("version of {}", qemu.display()),
        wrong: too_old(&text),
    };
    qemus.iter().filter_map(version).map(finding).collect()
}

/// What is wrong with a QEMU that says this of itself.
pub(super) fn too_old(said: &str) -> Option<Wrong> {
    let version = said.split_once("version ").map_or("", |(_, rest)| rest);
    let version = version.split([' ', '\n', '(']).next().unwrap_or_default();
    let mut numbers = version.split('.').map(|part| part.parse::<u32>().ok());
    let mut next = || numbers.next().flatten();
    let mend = "install QEMU 9.2 or newer (Debian 12: from bookworm-backports)".to_owned();
    match (next(), next()) {
        (Some(major), Some(minor)) if (major, minor) >= VERSION_MIN => None,
        (Some(_), Some(_)) => {
            let what = format!("{version} has no reconnect-ms");
            Some(Wrong { what, mend })
        }
        _ => Some(Wrong { what: "it does not tell one".to_owned(), mend }),
    }
}
