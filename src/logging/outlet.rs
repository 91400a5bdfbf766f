//! Where lines go: the journal where the service manager has connected stderr to it, else stderr.

use std::io::Write;
use std::path::Path;

use log::{LevelFilter, Log, Metadata, Record};

use crate::systemd::journal::{self, Journal};

/// Who the lines are of.
const IDENTIFIER: &str = "vhost-user-scsi-mpath";

/// Writes lines that `RUST_LOG` wants to see.
pub struct Outlet {
    words: env_logger::Logger,
    journal: Option<Journal>,
}

impl Outlet {
    /// `default` stands where `RUST_LOG` is not set.
    pub fn from_environment(default: &str) -> Self {
        let variable = |name: &str| std::env::var_os(name);
        let connected = journal::is_connected(&variable, std::io::stderr());
        let journal =
            connected.then(|| Journal::open(Path::new(journal::SOCKET), IDENTIFIER).ok()).flatten();
        let env = env_logger::Env::default().default_filter_or(default);
        Self::new(env_logger::Builder::from_env(env), connected, journal)
    }

    fn new(mut words: env_logger::Builder, prefix: bool, journal: Option<Journal>) -> Self {
        if prefix {
            // What the journal's socket does not take reaches it over stderr, without fields.
            words.format(|out, record| {
                writeln!(out, "{}{}", journal::prefix(record.level()), record.args())
            });
        }
        Outlet { words: words.build(), journal }
    }

    /// The least important level that is wanted.
    pub fn level(&self) -> LevelFilter {
        self.words.filter()
    }
}

impl Log for Outlet {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.words.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if !self.words.matches(record) {
            return;
        }
        let sent = self.journal.as_ref().is_some_and(|journal| journal.send(record).is_ok());
        if !sent {
            self.words.log(record);
        }
    }

    fn flush(&self) {}
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;
    use std::sync::{Arc, Mutex};

    use super::*;

    /// What env_logger would have written to stderr.
    #[derive(Clone, Default)]
    struct Stderr(Arc<Mutex<Vec<u8>>>);

    impl Write for Stderr {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn say(outlet: &Outlet, level: log::Level, words: &str) {
        outlet.log(&Record::builder().level(level).args(format_args!("{words}")).build());
    }

    #[test]
    fn lines_go_to_the_journal_and_to_stderr_when_it_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let journald = UnixDatagram::bind(&path).unwrap();
        let stderr = Stderr::default();
        let mut words = env_logger::Builder::new();
        words.filter_level(LevelFilter::Warn);
        words.target(env_logger::Target::Pipe(Box::new(stderr.clone())));
        let outlet = Outlet::new(words, true, Journal::open(&path, IDENTIFIER).ok());
        say(&outlet, log::Level::Info, "not wanted");
        say(&outlet, log::Level::Warn, "one");
        let mut bytes = [0; 512];
        let size = journald.recv(&mut bytes).unwrap();
        let text = String::from_utf8_lossy(&bytes[..size]).into_owned();
        assert!(text.starts_with("MESSAGE=one\nPRIORITY=4\n"), "{text}");
        assert_eq!(*stderr.0.lock().unwrap(), b"");
        drop(journald);
        say(&outlet, log::Level::Error, "two");
        assert_eq!(*stderr.0.lock().unwrap(), b"<3>two\n");
    }
}
