//! Log lines for the journal: it knows the time and who wrote them, and takes their weight from a
//! prefix (sd-daemon(3)), by which `journalctl -p warning` finds them.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

use super::{Variable, text};

/// True where `output` is what the service manager has connected to the journal, and not a file or
/// a pipe that somebody has put in its place.
pub fn is_connected(variable: Variable<'_>, output: impl AsFd) -> bool {
    let Some(stream) = text(variable, "JOURNAL_STREAM") else { return false };
    let metadata = output.as_fd().try_clone_to_owned().and_then(|fd| File::from(fd).metadata());
    metadata.is_ok_and(|metadata| stream == format!("{}:{}", metadata.dev(), metadata.ino()))
}

/// The prefix of a line (syslog's priorities).
pub fn prefix(level: log::Level) -> &'static str {
    match level {
        log::Level::Error => "<3>",
        log::Level::Warn => "<4>",
        log::Level::Info => "<6>",
        log::Level::Debug | log::Level::Trace => "<7>",
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;

    #[test]
    fn journal_is_known_by_its_device_and_inode() {
        let file = tempfile::tempfile().unwrap();
        let metadata = file.metadata().unwrap();
        let stream = format!("{}:{}", metadata.dev(), metadata.ino());
        let variable = |name: &str| (name == "JOURNAL_STREAM").then(|| OsString::from(&stream));
        assert!(is_connected(&variable, &file));
        assert!(!is_connected(&variable, tempfile::tempfile().unwrap()));
        assert!(!is_connected(&|_| None, &file));
    }
}
