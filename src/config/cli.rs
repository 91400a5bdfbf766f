//! The backend's options, and what they come to together with the file.

use std::ffi::{OsStr, OsString};
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use super::{
    Config, ConfigError, IoPolicy, Listen, NoPathRetry, PathConfig, Place, Wwid, activated, file,
};
use crate::limits;
use crate::systemd::journal;
use crate::systemd::listen::Activated;

/// A vhost-user-scsi backend with SCSI multipath built in: one process, one virtual LUN, one
/// guest.
///
/// Options win over the configuration file. Exit codes: 0 a clean end, 1 it could not start or go
/// on (one line says why), 2 wrong usage. RUST_LOG sets the log.
#[derive(Debug, Parser)]
#[command(name = "vhost-user-scsi-mpath", version)]
pub struct Cli {
    /// The configuration, in TOML.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// The vhost-user socket to listen on.
    #[arg(long, value_name = "PATH", conflicts_with = "fd")]
    pub socket_path: Option<PathBuf>,

    /// An inherited descriptor, listening or connected, instead of a socket path.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(RawFd).range(0..))]
    pub fd: Option<RawFd>,

    /// Print what this program is, as JSON, and exit; other arguments are ignored.
    #[arg(long)]
    pub print_capabilities: bool,

    /// A path's address; repeatable. One --path replaces all paths of the file.
    #[arg(long, value_name = "ADDRESS")]
    pub path: Vec<String>,

    /// How a path is chosen.
    #[arg(long, value_name = "POLICY")]
    pub iopolicy: Option<IoPolicy>,

    /// The logical unit to serve: naa.600140... or 3600140....
    #[arg(long, value_name = "WWID")]
    pub wwid: Option<Wwid>,

    /// What happens to commands without a path: queue, fail, or a number of seconds.
    #[arg(long, value_name = "VALUE")]
    pub no_path_retry: Option<NoPathRetry>,

    /// The control socket, for mpathctl.
    #[arg(long, value_name = "PATH")]
    pub control: Option<PathBuf>,

    /// Open every path, print the LUN and the paths that would be served, and exit.
    #[arg(long)]
    pub check: bool,

    /// Take the place of the backend behind that control socket: it gives up its vhost-user socket,
    /// lets go of what is under way, and ends.
    #[arg(long, value_name = "CONTROL")]
    pub takeover: Option<PathBuf>,
}

/// What main is to do.
#[derive(Debug, PartialEq)]
pub enum Start {
    /// Print [`CAPABILITIES`] and leave.
    PrintCapabilities,
    /// Try the configuration and leave. It may have no [`super::Backend::listen`].
    Check(Config),
    /// Serve. [`super::Backend::listen`] is there.
    Serve(Config),
}

/// The line for `--print-capabilities` (QEMU's backend program conventions).
pub const CAPABILITIES: &str = r#"{"type": "scsi"}"#;

/// Why nothing can be started.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// Wrong usage, or a wish for help.
    #[error(transparent)]
    Usage(#[from] clap::Error),
    /// Bad configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

impl Refusal {
    /// Tells the person, and returns the exit code that the refusal has: 0 for help and version,
    /// 1 for a bad configuration, 2 for wrong usage.
    pub fn report(&self) -> ExitCode {
        match self {
            Refusal::Usage(error) => {
                // Nowhere left to complain to when this fails.
                let _ = error.print();
                ExitCode::from(error.exit_code() as u8)
            }
            Refusal::Config(error) => {
                journal::last_words(format_args!("vhost-user-scsi-mpath: {error}"));
                ExitCode::from(1)
            }
        }
    }
}

/// Reads the options, with the program's name first, and the file that they name.
pub fn start(arguments: impl IntoIterator<Item = OsString>) -> Result<Start, Refusal> {
    start_on(arguments, None)
}

/// As [`start`], with the socket that a service manager passed.
pub fn start_on(
    arguments: impl IntoIterator<Item = OsString>,
    activated: Option<Activated>,
) -> Result<Start, Refusal> {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    // Before all parsing: even invalid arguments beside this one are ignored.
    if arguments.iter().skip(1).any(|argument| argument == OsStr::new("--print-capabilities")) {
        return Ok(Start::PrintCapabilities);
    }
    let cli = Cli::try_parse_from(arguments)?;
    let check = cli.check;
    let config = cli.config(activated)?;
    Ok(if check { Start::Check(config) } else { Start::Serve(config) })
}

impl Cli {
    /// The file's settings with the options over them.
    fn config(self, passed: Option<Activated>) -> Result<Config, Refusal> {
        let has_socket = self.socket_path.is_some() || self.fd.is_some() || passed.is_some();
        if self.config.is_none() && !has_socket && !self.check {
            return Err(usage("one of --socket-path, --fd and --config is required").into());
        }
        if self.path.len() > limits::PATHS_MAX {
            return Err(usage("too many --path options").into());
        }
        let mut config = match &self.config {
            Some(name) => file::read(name)?,
            None => Config::default(),
        };
        if let Some(path) = self.socket_path {
            config.backend.listen = Some(Listen::Path(path));
        } else if let Some(fd) = self.fd {
            config.backend.listen = Some(Listen::Fd(fd));
        }
        if let (Some(passed), None, false) = (passed, self.fd, self.check) {
            let place = self.config.clone().map_or(Place::Option, |file| Place::File(file, None));
            let listen = activated::listen(passed, config.backend.listen, place)?;
            config.backend.listen = Some(listen);
        }
        if let (None, Some(name), false) = (&config.backend.listen, &self.config, self.check) {
            let place = Place::File(name.clone(), None);
            return Err(ConfigError::NoSocket { place }.into());
        }
        config.takeover = self.takeover;
        let has_path = matches!(config.backend.listen, Some(Listen::Path(_)));
        if config.takeover.is_some() && !has_path {
            return Err(ConfigError::TakeoverWithoutPath { place: Place::Option }.into());
        }
        if !self.path.is_empty() {
            let path = |address| PathConfig { address, ..PathConfig::default() };
            config.paths = self.path.into_iter().map(path).collect();
        }
        config.backend.control = self.control.or(config.backend.control);
        config.lun.wwid = self.wwid.or(config.lun.wwid);
        if let (true, None, Some(name)) = (config.discovery.scan, &config.lun.wwid, &self.config) {
            let place = Place::File(name.clone(), None);
            return Err(ConfigError::ScanWithoutWwid { place }.into());
        }
        config.lun.iopolicy = self.iopolicy.unwrap_or(config.lun.iopolicy);
        config.lun.no_path_retry = self.no_path_retry.unwrap_or(config.lun.no_path_retry);
        Ok(config)
    }
}

fn usage(message: &str) -> clap::Error {
    use clap::CommandFactory;
    Cli::command().error(clap::error::ErrorKind::MissingRequiredArgument, message)
}
