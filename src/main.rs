//! The backend program: reads its options and runs.

use std::io::Write;
use std::process::ExitCode;

use vhost_user_scsi_mpath::backend::{check, run};
use vhost_user_scsi_mpath::config::cli::{CAPABILITIES, Start};
use vhost_user_scsi_mpath::config::reread::CommandLine;
use vhost_user_scsi_mpath::systemd::{journal, listen};

/// What is logged where `RUST_LOG` is not set: warnings, and every change of a path's or the
/// LUN's state.
const LOG: &str = "warn,state=info";

fn main() -> ExitCode {
    let passed = match listen::passed(&|name| std::env::var_os(name), std::process::id()) {
        Ok(passed) => passed,
        Err(error) => return fail(&error),
    };
    let command_line = CommandLine::new(std::env::args_os(), passed);
    let start = match command_line.start() {
        Ok(start) => start,
        Err(refusal) => return refusal.report(),
    };
    log_to_stderr();
    let result = match start {
        Start::PrintCapabilities => {
            println!("{CAPABILITIES}");
            Ok(())
        }
        Start::Check(config) => check::check(&config, &mut std::io::stdout()),
        Start::Serve(config) => run::run(&config, &command_line),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn log_to_stderr() {
    let mut logger =
        env_logger::Builder::from_env(env_logger::Env::default().default_filter_or(LOG));
    if journal::is_connected(&|name| std::env::var_os(name), std::io::stderr()) {
        logger.format(|out, record| {
            writeln!(out, "{}{}", journal::prefix(record.level()), record.args())
        });
    }
    logger.init();
}

fn fail(error: &dyn std::fmt::Display) -> ExitCode {
    // Nowhere left to complain to when this fails.
    let _ = writeln!(std::io::stderr(), "vhost-user-scsi-mpath: {error}");
    ExitCode::from(1)
}
