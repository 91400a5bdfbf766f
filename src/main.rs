//! The backend program: reads its options and runs.

use std::process::ExitCode;

use vhost_user_scsi_mpath::backend::{BackendError, check, fence, run};
use vhost_user_scsi_mpath::config::cli::{CAPABILITIES, Start};
use vhost_user_scsi_mpath::config::reread::CommandLine;
use vhost_user_scsi_mpath::logging;
use vhost_user_scsi_mpath::systemd::{journal, listen};

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
    logging::start();
    let file = command_line.file();
    let result = match start {
        Start::PrintCapabilities => {
            println!("{CAPABILITIES}");
            Ok(())
        }
        Start::Check(config) => fence::close(&config, file.as_deref(), false)
            .map_err(BackendError::from)
            .and_then(|_| check::check(&config, &mut std::io::stdout())),
        Start::Serve(config) => fence::close(&config, file.as_deref(), true)
            .map_err(BackendError::from)
            .and_then(|bounds| run::run(&config, &command_line, bounds)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn fail(error: &dyn std::fmt::Display) -> ExitCode {
    journal::last_words(format_args!("vhost-user-scsi-mpath: {error}"));
    ExitCode::from(1)
}
