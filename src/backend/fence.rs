//! From the configuration to what the process may reach, and to a refusal in words where a path is
//! added beyond it.

use std::fs::DirBuilder;
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt};
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::config::{Config, Landlock, Listen, MetricsListen, PathConfig, Seccomp};
use crate::confine::fence::{Access, Enforced, Fence, FenceError};
use crate::confine::{self, ConfineError, Violation};
use crate::front;
use crate::path::address::Address;
use crate::systemd::journal;

/// iSCSI's own port: a target may redirect a login there.
const ISCSI_PORT: u16 = 3260;
/// Where names are asked for by TCP, when the answer is long.
const DNS_PORT: u16 = 53;
/// Where the C library looks names up: files, code for more, and where the first lead to.
const NAMES: [&str; 11] = [
    "/etc",
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/run/systemd/resolve",
    "/run/systemd/userdb",
    "/run/resolvconf",
    "/run/NetworkManager",
    "/run/netconfig",
    "/var/lib/sss",
];
/// Of these, some are links to files elsewhere.
const LEADING: [&str; 3] = ["/etc/resolv.conf", HOSTS, "/etc/nsswitch.conf"];
/// Who may read it may look names up.
const HOSTS: &str = "/etc/hosts";
/// Where the host's initiator has its name.
const INITIATOR_NAME: &str = "/etc/iscsi/initiatorname.iscsi";
/// The version of Landlock that has ports.
const PORTS_SINCE: u32 = 4;
/// What the host says of itself and of its devices; which process has a lock.
const HOST: [&str; 5] = ["/sys", "/proc", "/etc/machine-id", "/etc/iscsi", "/dev/urandom"];

/// Why the process is not confined, or a path is outside of what it is confined to.
#[derive(Debug, Error)]
pub enum FencingError {
    /// No filters.
    #[error("confinement.seccomp: {0}; \"off\" does without")]
    Seccomp(#[from] ConfineError),
    /// Landlock refused.
    #[error("confinement.landlock: {0}; \"off\" does without")]
    Landlock(#[from] FenceError),
    /// It was required.
    #[error(
        "confinement.landlock: \"required\", but this kernel cannot restrict {0}; \"auto\" takes \
         what there is"
    )]
    Lacking(String),
    /// A file or device that nothing named at the start.
    #[error(
        "{} is outside of what this process was confined to at its start; allow it with \
         confinement.allow_files = [\"{}\"] and start the backend again",
        wanted.display(), setting.display()
    )]
    File {
        /// What was wanted.
        wanted: PathBuf,
        /// What would allow it.
        setting: PathBuf,
    },
    /// A port that nothing named.
    #[error(
        "TCP port {0} is outside of what this process was confined to at its start; allow it with \
         confinement.allow_ports = [{0}] and start the backend again"
    )]
    Port(u16),
    /// A name, where none was to be looked up.
    #[error(
        "{0} cannot be looked up: no path of the start had a name to look up; write its address, or \
         set confinement.allow_files = [\"/etc\"] and start the backend again"
    )]
    Name(String),
}

/// What the process may reach; everything, where it is not fenced in.
#[derive(Clone, Debug, Default)]
pub struct Bounds {
    fence: Option<Fence>,
    /// Whether the kernel holds the fence's ports, too.
    ports: bool,
}

/// Confines the process as `config` says. To be called before there is another thread, once;
/// `file` is the configuration's. Who only checks makes no directory.
///
/// # Errors
/// Where what was asked for cannot be had. Each message names the setting.
pub fn close(config: &Config, file: Option<&Path>, serves: bool) -> Result<Bounds, FencingError> {
    if !config.confinement.core_dumps
        && let Err(error) = confine::hide_memory()
    {
        log::warn!("core dumps cannot be turned off: {error}");
    }
    if let (true, Some(directory)) = (serves, super::reports::state_dir(&config.backend)) {
        // What is not there cannot be allowed. Who keeps state there tells of a failure.
        let _ = DirBuilder::new().recursive(true).mode(0o700).create(directory);
    }
    let mut bounds = Bounds::of(config, file);
    if let Some(fence) = &bounds.fence {
        let enforced = fence.close()?;
        tell(&enforced, config.confinement.landlock)?;
        // What the kernel lets through is not refused by us.
        bounds.ports = enforced.version.is_some_and(|version| version >= PORTS_SINCE);
        bounds.fence = bounds.fence.filter(|_| enforced.version.is_some());
    }
    front::spin::processors();
    let violation = match config.confinement.seccomp {
        Seccomp::Kill => Some(Violation::Kill),
        Seccomp::Log => Some(Violation::Log),
        Seccomp::Off => None,
    };
    if let Some(violation) = violation {
        confine::start(violation, journal::error_prefix())?;
    }
    Ok(bounds)
}

fn tell(enforced: &Enforced, wanted: Landlock) -> Result<(), FencingError> {
    let gaps = enforced.gaps.join(", ");
    match (enforced.version, gaps.as_str()) {
        (Some(version), "") => log::info!("Landlock (version {version}) is in force"),
        _ if wanted == Landlock::Required => return Err(FencingError::Lacking(gaps)),
        (Some(version), gaps) => log::info!(
            "Landlock (version {version}) is in force, but this kernel cannot restrict {gaps}"
        ),
        (None, _) => log::warn!(
            "this kernel has no Landlock: the process may open whatever its user may; \
             confinement.landlock = \"off\" for no such line"
        ),
    }
    Ok(())
}

impl Bounds {
    /// What `config` names.
    fn of(config: &Config, file: Option<&Path>) -> Self {
        if config.confinement.landlock == Landlock::Off {
            return Bounds::default();
        }
        let mut fence = Fence::default();
        let mut allow = |path: &Path, access| fence.files.push((path.to_owned(), access));
        HOST.iter().for_each(|path| allow(Path::new(path), Access::Read));
        // What a backtrace has names from.
        if let Ok(program) = std::env::current_exe() {
            allow(&program, Access::Read);
        }
        let secrets = config.iscsi.secret_file.as_deref();
        for file in file.into_iter().chain(secrets).chain([Path::new(INITIATOR_NAME)]) {
            // Its directory: whoever changes it may put another in its place. And where it leads to.
            allow(folder(file), Access::Read);
            if let Ok(target) = file.canonicalize() {
                allow(folder(&target), Access::Read);
            }
        }
        let backend = &config.backend;
        let listens = match &backend.listen {
            Some(Listen::Path(path)) => Some(path),
            _ => None,
        };
        let metrics = match &config.metrics {
            Some(MetricsListen::Unix(path)) => Some(path),
            _ => None,
        };
        for socket in [listens, backend.control.as_ref(), metrics].into_iter().flatten() {
            allow(folder(socket), Access::Sockets);
        }
        if let Some(directory) = super::reports::state_dir(backend) {
            allow(&directory, Access::Files);
        }
        if config.discovery.scan {
            allow(Path::new("/dev"), Access::Devices);
        }
        for path in &config.confinement.allow_files {
            match path.exists() {
                true => allow(path, Access::All),
                false => log::warn!(
                    "confinement.allow_files: {} is not there, and will not be allowed when it is",
                    path.display()
                ),
            }
        }
        let is_name = |group: &str| !group.is_empty() && group.parse::<u32>().is_err();
        let mut names =
            is_name(&backend.socket_group) || fence.permits(HOSTS.as_ref(), Access::All);
        for address in config.paths.iter().filter_map(|path| path.address.parse().ok()) {
            names |= allow_path(&mut fence, &address);
        }
        if names {
            let names = NAMES.iter().map(|path| (PathBuf::from(path), Access::Read));
            fence.files.extend(names);
            let lead = LEADING.iter().filter_map(|file| Path::new(file).canonicalize().ok());
            fence.files.extend(lead.map(|file| (folder(&file).to_owned(), Access::Read)));
            fence.connect.push(DNS_PORT);
        }
        fence.connect.extend([ISCSI_PORT].iter().chain(&config.confinement.allow_ports));
        if let Some(MetricsListen::Tcp(address)) = &config.metrics {
            fence.listen.push(address.port());
        }
        let notify = std::env::var_os("NOTIFY_SOCKET");
        fence.abstract_sockets =
            notify.is_some_and(|name| name.as_encoded_bytes().starts_with(b"@"));
        Bounds { fence: Some(fence), ports: true }
    }

    /// Whether a path may be opened; where not, what would allow it.
    pub fn permit(&self, path: &PathConfig) -> Result<(), FencingError> {
        let Some(fence) = &self.fence else { return Ok(()) };
        // One that is none is refused elsewhere.
        let Ok(address) = path.address.parse::<Address>() else { return Ok(()) };
        let file = |wanted: &Path, access, setting: &Path| match fence.permits(wanted, access) {
            true => Ok(()),
            false => {
                let (wanted, setting) = (wanted.to_owned(), setting.to_owned());
                Err(FencingError::File { wanted, setting })
            }
        };
        match &address {
            Address::Null(_) => Ok(()),
            Address::Host(host) => file(&host.node, Access::Devices, Path::new("/dev")),
            Address::Emulated(emulated) => match image(&emulated.image) {
                (place, Access::Files) => file(place, Access::Files, place),
                (place, access) => file(place, access, &emulated.image),
            },
            Address::Iscsi(iscsi) => {
                if self.ports && !fence.connect.contains(&iscsi.port) {
                    return Err(FencingError::Port(iscsi.port));
                }
                let named = iscsi.host.parse::<IpAddr>().is_err();
                match named && !fence.permits(HOSTS.as_ref(), Access::Read) {
                    true => Err(FencingError::Name(iscsi.host.clone())),
                    false => Ok(()),
                }
            }
        }
    }
}

/// Allows what a path needs; true where it needs names to be looked up.
fn allow_path(fence: &mut Fence, address: &Address) -> bool {
    match address {
        Address::Null(_) => false,
        Address::Host(_) => {
            // All nodes: a device that comes back has another one.
            fence.files.push(("/dev".into(), Access::Devices));
            false
        }
        Address::Emulated(emulated) => {
            let (place, access) = image(&emulated.image);
            fence.files.push((place.to_owned(), access));
            // Where the image is a link, what it leads to.
            if let Ok(target) = emulated.image.canonicalize() {
                fence.files.push((target, Access::All));
            }
            false
        }
        Address::Iscsi(iscsi) => {
            fence.connect.push(iscsi.port);
            iscsi.host.parse::<IpAddr>().is_err()
        }
    }
}

/// What an image needs: its directory, where its name and its reservations are kept beside it; of a
/// block device, which has nothing beside it, the node.
fn image(image: &Path) -> (&Path, Access) {
    let is_device =
        std::fs::metadata(image).is_ok_and(|metadata| metadata.file_type().is_block_device());
    if is_device { (image, Access::Devices) } else { (folder(image), Access::Files) }
}

/// The directory that a file is in.
fn folder(file: &Path) -> &Path {
    match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}
