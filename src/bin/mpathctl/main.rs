//! `mpathctl`: reads and steers running backends through their control sockets.
//!
//! | file | what |
//! |---|---|
//! | `main` | the options, and which command does what |
//! | `backends` | which backends are meant, and what goes wrong on the way to them |
//! | `read` | the commands that only look |
//! | `steer` | the commands that change something |
//! | `events` | following events |
//! | `topology`, `topology_json` | the tree of `multipath -ll`, for people and for programs |
//! | `why` | what a person wants to know about one path |
//! | `carriers`, `names` | which paths carry the commands; which path a wrong name meant |
//! | `reservation` | persistent reservations, and their move to another backend |
//! | `report` | one HTML file with everything, for a ticket |
//! | `tables` | paths, LUN and statistics for people |
//! | `top` | the live view |
//! | `completions` | scripts for shells |
//! | `generate` | manual pages and scripts as files, for packages |
//! | `import` | our configuration from multipath.conf |
//! | `doctor` | what to change on the host |
//! | `libvirt` | the domain XML for our disks |
//! | `human`, `paint` | sizes, times and colours |
//!
//! Everything that prints takes where to print to, so that tests see what a person sees.

mod backends;
mod carriers;
mod completions;
mod doctor;
mod events;
mod generate;
mod human;
mod import;
mod libvirt;
mod names;
mod paint;
mod read;
mod report;
mod reservation;
mod steer;
mod tables;
#[cfg(test)]
mod tests;
mod top;
mod topology;
mod topology_json;
mod why;

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use backends::Failure;
use paint::Paint;

/// Where backends put their control sockets.
const DIRECTORY: &str = "/run/vhost-user-scsi-mpath";

/// Reads and steers vhost-user-scsi-mpath backends.
///
/// Without -s, commands that only look go to every backend whose control socket is in
/// /run/vhost-user-scsi-mpath; commands that change something want one backend: the only one that
/// runs, or the one named with -s. Exit codes: 0 done, 1 not done (one line says why), 2 wrong
/// usage.
#[derive(Debug, Parser)]
#[command(name = "mpathctl", version)]
struct Cli {
    /// The control socket of one backend.
    #[arg(short, long, value_name = "SOCKET", global = true)]
    socket: Option<PathBuf>,

    /// Print JSON: what the socket returned, one line per backend (topology: multipathd's keys).
    #[arg(long, global = true)]
    json: bool,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show LUN, groups and paths as multipath -ll does.
    Topology,
    /// Show the paths as a table.
    Paths {
        /// Only their names, one a line.
        #[arg(long, conflicts_with = "json")]
        names: bool,
    },
    /// Show the LUN.
    Lun,
    /// Show counters and latencies, of the LUN and of each path.
    Stats,
    /// Explain one path: its state, why, what was tried, what comes next, what to do.
    Why {
        /// The path's name.
        path: String,
    },
    /// Show what the guest has registered and reserved; export it, or import it elsewhere.
    Reservation {
        /// Show it, without one.
        #[command(subcommand)]
        action: Option<reservation::Action>,
    },
    /// Watch one backend live: paths, their load and latency, events; keys fail and reinstate.
    Top,
    /// Write one HTML file with everything that somebody who helps wants to know, for a ticket.
    Report {
        /// The file; - is standard output, without it a name with the date in it.
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Print counters, states and latencies of all backends for monitoring systems.
    Metrics {
        /// How: prometheus is the older text format, for node_exporter's textfile collector.
        #[arg(long, value_enum, default_value_t)]
        format: read::MetricsFormat,
    },
    /// Print a script that completes commands and, under bash, names of paths.
    Completions {
        /// For which shell.
        shell: completions::Shell,
    },
    /// Write manual pages and completion scripts into a directory, for packages.
    #[command(hide = true)]
    Generate {
        /// The directory; man/ and completions/ are made in it.
        directory: PathBuf,
    },
    /// Print the configuration that a multipath.conf comes to, one file for each LUN.
    ImportMultipathConf {
        /// The file.
        file: PathBuf,
        /// The LUN, as the file writes it; all multipath sections without it.
        #[arg(long)]
        wwid: Option<String>,
    },
    /// Look at the host and its backends, and say what to change; 1 if there is something.
    Doctor,
    /// Print the domain XML that gives a libvirt guest the disks of running backends.
    LibvirtXml(libvirt::Options),
    /// Follow events until interrupted.
    Events,
    #[command(flatten)]
    Steer(Steer),
}

#[derive(Debug, Subcommand)]
enum Steer {
    /// Stop using a path until it is reinstated.
    Fail {
        /// The path's name.
        path: String,
    },
    /// Use a path again after `fail`.
    Reinstate {
        /// The path's name.
        path: String,
    },
    /// Add a path.
    Add {
        /// The path's address.
        address: String,
        /// What to call it; the address's own short form otherwise.
        #[arg(long)]
        name: Option<String>,
    },
    /// Remove a path, after its commands have ended.
    Remove {
        /// The path's name.
        path: String,
    },
    /// Go to the best group of paths now, whatever failback says.
    Failback,
    /// Make something go wrong on an emulated path.
    Inject {
        /// The path's name.
        path: String,
        /// drop, hang, delay, rate, status, sense, disconnect or access.
        fault: String,
        /// For delay: how much later answers come; for access: how long it lasts.
        #[arg(long)]
        milliseconds: Option<u64>,
        /// For rate: what the path carries.
        #[arg(long)]
        bytes_per_second: Option<u64>,
        /// For status: a name (busy, task-set-full, reservation-conflict...) or number.
        #[arg(long)]
        status: Option<String>,
        /// For sense: key, code and qualifier, such as 6/29/00.
        #[arg(long)]
        sense: Option<String>,
        /// For access: the access state of the port's group.
        #[arg(long)]
        access_state: Option<String>,
        /// The share of commands that is struck, more than 0 and at most 1.
        #[arg(long)]
        probability: Option<f64>,
        /// After how many strikes it is over.
        #[arg(long)]
        count: Option<u64>,
    },
    /// End all injected faults of a path, or of all paths.
    #[command(alias = "clear-faults")]
    Clear {
        /// The path's name; all paths without it.
        path: Option<String>,
    },
    /// Change a setting of the running backend.
    Set {
        /// Which one.
        key: steer::Key,
        /// Its new value, as in the configuration.
        value: String,
    },
    /// Read the configuration file again: paths, policies and time limits; the guest goes on.
    Reload,
    /// End the backend.
    Quit,
}

/// Where output goes, and what it may look like.
struct Output<'a> {
    out: &'a mut dyn Write,
    err: &'a mut dyn Write,
    paint: Paint,
    json: bool,
}

impl Output<'_> {
    /// Tells what went wrong, in one line, with the program's name as is the custom.
    fn complain(&mut self, what: &dyn std::fmt::Display) {
        // Nowhere left to say that this failed.
        let _ = writeln!(self.err, "mpathctl: {what}");
    }
}

/// Runs one command; the exit code.
fn run(cli: Cli, directory: &std::path::Path, output: &mut Output<'_>) -> u8 {
    let socket = cli.socket.as_deref();
    let result = match cli.command {
        Command::Topology => read::topology(socket, directory, output),
        Command::Paths { names: true } => read::names(socket, directory, output),
        Command::Paths { names: false } => read::paths(socket, directory, output),
        Command::Lun => read::lun(socket, directory, output),
        Command::Stats => read::stats(socket, directory, output),
        Command::Why { path } => read::why(socket, directory, &path, output),
        Command::Reservation { action } => reservation::run(socket, directory, action, output),
        Command::Top => top::run(socket, directory, output),
        Command::Report { output: to } => report::run(socket, directory, to, output),
        Command::Completions { shell } => {
            completions::print(shell, output.out).map_err(Failure::Output)
        }
        Command::Generate { directory: to } => generate::write(&to),
        Command::ImportMultipathConf { file, wwid } => import::run(&file, wwid.as_deref(), output),
        Command::Doctor => doctor::run(socket, directory, &doctor::Host::default(), output),
        Command::LibvirtXml(options) => libvirt::run(socket, directory, &options, output),
        Command::Metrics { format } => read::metrics(socket, directory, format, output),
        Command::Events => events::follow(socket, directory, output),
        Command::Steer(steer) => steer::steer(socket, directory, steer, output),
    };
    match result {
        Ok(code) => code,
        // Whoever read the output has seen enough.
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => 0,
        Err(failure) => {
            output.complain(&failure);
            if matches!(failure, Failure::WhichOne { .. }) { 2 } else { 1 }
        }
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let (stdout, stderr) = (io::stdout(), io::stderr());
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let mut output = Output {
        paint: Paint { on: stdout.is_terminal() && !no_color },
        json: cli.json,
        out: &mut stdout.lock(),
        err: &mut stderr.lock(),
    };
    let code = run(cli, std::path::Path::new(DIRECTORY), &mut output);
    let _ = output.out.flush();
    ExitCode::from(code)
}
