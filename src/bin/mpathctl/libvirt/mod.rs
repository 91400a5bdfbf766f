//! What a libvirt domain needs for our disks: libvirt knows no vhost-user-scsi, so they come to
//! QEMU through `<qemu:commandline>`.
//!
//! ```text
//!   names, -s, --socket-path --> Disk (socket, id, PCI slot) --> document --> XML
//! ```

mod document;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use serde_json::json;
use vhost_user_scsi_mpath::config::NoPathRetry;
use vhost_user_scsi_mpath::control::{BackendReport, LunReport};

use crate::backends::{self, Failure};
use crate::read::report;
use crate::{Output, human};

/// Windows gives a disk this long by default (`TimeOutValue`).
const WINDOWS_PATIENCE_SECONDS: u64 = 60;
/// Longest command of a Windows guest in sectors: vioscsi builds chains longer than a ring of 128
/// where the device does not say less.
const WINDOWS_MAX_SECTORS: u32 = 2048;

/// The options of `libvirt-xml`.
#[derive(Debug, Default, clap::Args)]
pub struct Options {
    /// Running backends by their names, a disk each; the only one that runs where none is named.
    #[arg(conflicts_with = "socket_path")]
    backends: Vec<String>,
    /// The vhost-user socket of a backend that need not run; repeatable.
    #[arg(long, value_name = "PATH")]
    socket_path: Vec<PathBuf>,
    /// Request queues of each disk; without it QEMU brings one per vCPU.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=254))]
    queues: Option<u16>,
    /// Boot from the first disk, as number N in the boot order; the next disks follow it.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    boot: Option<u16>,
    /// QEMU's name for the first disk; mpath- and the backend's name without it.
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// For a Windows guest: bounds the length of commands.
    #[arg(long)]
    windows: bool,
    /// The guest's machine type.
    #[arg(long, value_enum, default_value_t)]
    machine: Machine,
    /// The first disk's PCI slot, such as 0x12; the next disks follow it.
    #[arg(long, value_name = "SLOT", value_parser = slot)]
    slot: Option<u8>,
}

/// A family of machine types, by what its PCI slots are like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Machine {
    /// And all others whose PCI bus is pcie.0, such as virt.
    #[default]
    Q35,
    /// i440fx.
    Pc,
}

impl Machine {
    fn bus(self) -> &'static str {
        match self {
            Machine::Q35 => "pcie.0",
            Machine::Pc => "pci.0",
        }
    }

    /// Slots that libvirt leaves alone: it fills a bus from below, on q35 with eight root ports a
    /// slot, and puts the board's own devices at 0x1b and above there.
    fn free_slots(self) -> std::ops::RangeInclusive<u8> {
        match self {
            Machine::Q35 => 0x10..=0x1a,
            Machine::Pc => 0x18..=0x1f,
        }
    }
}

/// Why there is no XML.
#[derive(Debug, thiserror::Error)]
pub enum LibvirtError {
    /// No such backend.
    #[error("backend {name}: it has no control socket in {}; those that have one: {}",
        directory.display(), known.join(", "))]
    NoBackend {
        /// What was given.
        name: String,
        /// Where was looked.
        directory: PathBuf,
        /// What there is.
        known: Vec<String>,
    },
    /// It listens on an inherited descriptor.
    #[error(
        "{0}: the backend does not know the file of its vhost-user socket; give it with --socket-path"
    )]
    NoSocket(String),
    /// XML has no way to write it.
    #[error("{path:?}: XML cannot hold this path")]
    Path {
        /// The path.
        path: PathBuf,
    },
    /// QEMU would not take it.
    #[error("--id {0}: QEMU wants a letter first, then letters, digits, '-', '.' and '_'")]
    Id(String),
    /// The backend would end the session.
    #[error(
        "--queues {wanted}: {name} takes {allowed} at most; backend.request_queues is the setting"
    )]
    Queues {
        /// The backend.
        name: String,
        /// What was given.
        wanted: u16,
        /// What it takes.
        allowed: u16,
    },
    /// The bus is full.
    #[error(
        "PCI slot {slot:#x} of {bus} is not for the disks; give a lower --slot, or fewer disks"
    )]
    Slot {
        /// The slot.
        slot: u8,
        /// The bus.
        bus: &'static str,
    },
}

/// One disk of the domain.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Disk {
    socket: String,
    id: String,
    bus: &'static str,
    slot: u8,
    queues: Option<u16>,
    boot: Option<u16>,
    max_sectors: Option<u32>,
}

/// `libvirt-xml`.
pub fn run(
    socket: Option<&Path>,
    directory: &Path,
    options: &Options,
    output: &mut Output<'_>,
) -> Result<u8, Failure> {
    let sockets = match options.socket_path.is_empty() {
        false => {
            options.socket_path.iter().map(|path| (backends::name(path), path.clone())).collect()
        }
        true => running(socket, directory, options, output)?,
    };
    let disks = disks(&sockets, options)?;
    let text = document::text(&disks);
    if output.json {
        let arguments: Vec<String> = disks.iter().flat_map(document::arguments).collect();
        writeln!(output.out, "{}", json!({"arguments": arguments, "xml": text}))?;
    } else {
        write!(output.out, "{text}")?;
    }
    Ok(0)
}

/// Names and vhost-user sockets of the backends that are meant, asked of themselves.
fn running(
    socket: Option<&Path>,
    directory: &Path,
    options: &Options,
    output: &mut Output<'_>,
) -> Result<Vec<(String, PathBuf)>, Failure> {
    let mut found = Vec::new();
    for control in meant(socket, directory, &options.backends)? {
        let name = backends::name(&control);
        let mut client = backends::connect(&control)?;
        let about: BackendReport = report(&control, client.execute("query-backend", json!({}))?)?;
        if let Some(wanted) = options.queues.filter(|wanted| *wanted > about.request_queues) {
            let allowed = about.request_queues;
            return Err(LibvirtError::Queues { name, wanted, allowed }.into());
        }
        let lun: LunReport = report(&control, client.execute("query-lun", json!({}))?)?;
        if options.windows && !suits_windows(lun.no_path_retry) {
            output.complain(&format!(
                "{name}: no_path_retry is {}: Windows resets a disk that does not answer for {} s, \
                 so set a number of seconds well below that in the backend's configuration",
                human::no_path(lun.no_path_retry),
                WINDOWS_PATIENCE_SECONDS
            ));
        }
        let file = about.socket.ok_or_else(|| LibvirtError::NoSocket(name.clone()))?;
        found.push((name, file));
    }
    Ok(found)
}

/// The control sockets of the backends that are meant.
fn meant(
    socket: Option<&Path>,
    directory: &Path,
    names: &[String],
) -> Result<Vec<PathBuf>, Failure> {
    if names.is_empty() {
        return Ok(vec![backends::one(socket, directory)?]);
    }
    let all = backends::all(socket, directory)?;
    let find = |name: &String| {
        let is_it = |control: &&PathBuf| backends::name(control) == *name;
        let known = || all.iter().map(|control| backends::name(control)).collect();
        all.iter().find(is_it).cloned().ok_or_else(|| {
            let (name, directory) = (name.clone(), directory.to_owned());
            LibvirtError::NoBackend { name, directory, known: known() }.into()
        })
    };
    names.iter().map(find).collect()
}

fn suits_windows(retry: NoPathRetry) -> bool {
    match retry {
        NoPathRetry::Queue => false,
        NoPathRetry::Fail => true,
        NoPathRetry::For(time) => time.as_secs() < WINDOWS_PATIENCE_SECONDS,
    }
}

/// The disks, each with an id and a slot of its own.
fn disks(sockets: &[(String, PathBuf)], options: &Options) -> Result<Vec<Disk>, LibvirtError> {
    let mut disks: Vec<Disk> = Vec::new();
    for (at, (name, path)) in sockets.iter().enumerate() {
        let wanted = match &options.id {
            Some(id) if !is_id(id) => return Err(LibvirtError::Id(id.clone())),
            Some(id) => id.clone(),
            None => id_of(name),
        };
        let id = unique(&wanted, &disks);
        let socket = writable(path)?;
        let (bus, slot) = place(options, at)?;
        disks.push(Disk {
            socket,
            id,
            bus,
            slot,
            queues: options.queues,
            boot: options.boot.map(|first| first.saturating_add(at as u16)),
            max_sectors: options.windows.then_some(WINDOWS_MAX_SECTORS),
        });
    }
    Ok(disks)
}

/// Where the disk with that number goes.
fn place(options: &Options, at: usize) -> Result<(&'static str, u8), LibvirtError> {
    let (bus, free) = (options.machine.bus(), options.machine.free_slots());
    let first = options.slot.unwrap_or(*free.start());
    let slot = first.saturating_add(u8::try_from(at).unwrap_or(u8::MAX));
    // A slot that was chosen by hand is believed as far as there are slots.
    let last = if options.slot.is_some() { 0x1f } else { *free.end() };
    if slot > last { Err(LibvirtError::Slot { slot, bus }) } else { Ok((bus, slot)) }
}

/// The absolute path as text that XML and QEMU can hold.
fn writable(path: &Path) -> Result<String, LibvirtError> {
    let refused = || LibvirtError::Path { path: path.to_owned() };
    let absolute = std::path::absolute(path).map_err(|_| refused())?;
    let text = absolute.to_str().ok_or_else(refused)?;
    let holds = |one: char| !one.is_control() && !matches!(one, '\u{FFFE}' | '\u{FFFF}');
    if text.chars().all(holds) { Ok(text.to_owned()) } else { Err(refused()) }
}

fn is_id(id: &str) -> bool {
    let later = |one: char| one.is_ascii_alphanumeric() || matches!(one, '-' | '.' | '_');
    id.starts_with(|one: char| one.is_ascii_alphabetic()) && id.chars().all(later)
}

fn id_of(name: &str) -> String {
    let plain = |one: char| if is_id(&format!("x{one}")) { one } else { '-' };
    format!("mpath-{}", name.chars().map(plain).collect::<String>())
}

fn unique(wanted: &str, disks: &[Disk]) -> String {
    let is_free = |id: &String| disks.iter().all(|disk| disk.id != *id);
    let numbered = (2..).map(|number| format!("{wanted}-{number}"));
    std::iter::once(wanted.to_owned()).chain(numbered).find(is_free).unwrap_or_default()
}

fn slot(text: &str) -> Result<u8, String> {
    let number = match text.strip_prefix("0x") {
        Some(digits) => u8::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    };
    number
        .filter(|slot| (1..=0x1f).contains(slot))
        .ok_or_else(|| "a slot is 0x1 to 0x1f".to_owned())
}
