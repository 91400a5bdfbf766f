//! `[confinement]`: what the process may still do when it has been taken over.

use std::path::PathBuf;

use serde::Deserialize;

/// `seccomp`: what becomes of a system call that a thread has no need of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Seccomp {
    /// It is not executed, and the process ends.
    #[default]
    Kill,
    /// It is executed, and the kernel writes a line.
    Log,
    /// There are no filters.
    Off,
}

/// `landlock`: files and ports that the configuration does not name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Landlock {
    /// Refused, as far as the kernel can.
    #[default]
    Auto,
    /// Refused; where the kernel has not all of it, there is no start.
    Required,
    /// Not refused.
    Off,
}

/// `[confinement]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Confinement {
    /// `seccomp`.
    pub seccomp: Seccomp,
    /// `landlock`.
    pub landlock: Landlock,
    /// `allow_files`: files and directories, beside those that other settings name.
    pub allow_files: Vec<PathBuf>,
    /// `allow_ports`: TCP ports of portals, beside those that addresses name.
    pub allow_ports: Vec<u16>,
    /// `core_dumps`: whether a crash may leave the process's memory behind.
    pub core_dumps: bool,
}
