//! Manual pages and completion scripts as files: what a package installs, made from the options
//! themselves, so that they never tell of others.

use std::fs;
use std::io;
use std::path::Path;

use clap::{Command, CommandFactory};
use clap_mangen::Man;

use crate::backends::Failure;
use crate::completions::{self, Shell};

/// For administrators (man-pages(7)).
const SECTION: &str = "8";

/// Writes all of them below `directory`.
pub fn write(directory: &Path) -> Result<u8, Failure> {
    let man = directory.join("man");
    let completions = directory.join("completions");
    for directory in [&man, &completions] {
        file(directory, fs::create_dir_all(directory))?;
    }
    page(&man, vhost_user_scsi_mpath::config::cli::Cli::command())?;
    let mut mpathctl = crate::Cli::command().disable_help_subcommand(true);
    // Gives the subcommands the names that their pages have, and the options of all of them.
    mpathctl.build();
    pages(&man, &mpathctl)?;
    for (shell, name) in
        [(Shell::Bash, "mpathctl"), (Shell::Zsh, "_mpathctl"), (Shell::Fish, "mpathctl.fish")]
    {
        let mut script = Vec::new();
        completions::print(shell, &mut script)?;
        let path = completions.join(name);
        file(&path, fs::write(&path, script))?;
    }
    Ok(0)
}

/// Of a command and of all below it.
fn pages(directory: &Path, command: &Command) -> Result<(), Failure> {
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        pages(directory, sub)?;
    }
    page(directory, command.clone())
}

fn page(directory: &Path, command: Command) -> Result<(), Failure> {
    let name = command.get_display_name().unwrap_or(command.get_name()).to_owned();
    let mut text = Vec::new();
    Man::new(command).section(SECTION).render(&mut text)?;
    let path = directory.join(format!("{name}.{SECTION}"));
    file(&path, fs::write(&path, text))
}

fn file(path: &Path, result: io::Result<()>) -> Result<(), Failure> {
    result.map_err(|cause| Failure::Write { file: path.to_owned(), cause })
}
