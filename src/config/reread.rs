//! The command line, kept so that the file it names can be read again while the backend serves.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Parser;

use super::cli::{self, Cli, Refusal, Start};
use super::{Config, ConfigError, Place};
use crate::systemd::listen::Activated;

/// What the program was started with.
#[derive(Clone, Debug)]
pub struct CommandLine {
    arguments: Vec<OsString>,
    passed: Option<Activated>,
}

impl CommandLine {
    /// The options, with the program's name first, and the socket that a service manager passed.
    pub fn new(
        arguments: impl IntoIterator<Item = OsString>,
        passed: Option<Activated>,
    ) -> CommandLine {
        CommandLine { arguments: arguments.into_iter().collect(), passed }
    }

    /// What is to be done.
    pub fn start(&self) -> Result<Start, Refusal> {
        cli::start_on(self.arguments.iter().cloned(), self.passed.clone())
    }

    /// The file to read again, if there is one.
    pub fn file(&self) -> Option<PathBuf> {
        Cli::try_parse_from(&self.arguments).ok()?.config
    }

    /// The options and the file, as it is now.
    pub fn reread(&self) -> Result<Config, Refusal> {
        match self.start()? {
            Start::Serve(config) => Ok(config),
            // The options are what they were, and they made us serve.
            Start::Check(_) | Start::PrintCapabilities => {
                Err(Refusal::Config(ConfigError::NoSocket { place: Place::Option }))
            }
        }
    }
}
