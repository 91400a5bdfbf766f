//! Log lines for the journal: it knows the time and who wrote them. Its own protocol carries fields
//! beside the text, one datagram a line; where that does not reach it, lines on stderr have their
//! weight in a prefix (sd-daemon(3)), by which `journalctl -p warning` finds them.

use std::fmt::{Display, Write};
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;

use log::kv::{Error, Key, Value, VisitSource};

use super::{Variable, text};

/// True where `output` is what the service manager has connected to the journal, and not a file or
/// a pipe that somebody has put in its place.
pub fn is_connected(variable: Variable<'_>, output: impl AsFd) -> bool {
    let Some(stream) = text(variable, "JOURNAL_STREAM") else { return false };
    let metadata = output.as_fd().try_clone_to_owned().and_then(|fd| File::from(fd).metadata());
    metadata.is_ok_and(|metadata| stream == format!("{}:{}", metadata.dev(), metadata.ino()))
}

/// The last words on stderr of a program that cannot go on: an error, where the journal reads it.
pub fn last_words(words: impl Display) {
    let mut stderr = io::stderr();
    let connected = is_connected(&|name| std::env::var_os(name), &stderr);
    let line =
        if connected { format!("{}{words}", prefix(log::Level::Error)) } else { words.to_string() };
    // Nowhere left to complain to when this fails.
    let _ = io::Write::write_fmt(&mut stderr, format_args!("{line}\n"));
}

/// What goes before an error on stderr that is written by other means, for the journal's sake.
pub fn error_prefix() -> &'static str {
    match is_connected(&|name| std::env::var_os(name), io::stderr()) {
        true => "<3>",
        false => "",
    }
}

/// Where the journal takes datagrams.
pub const SOCKET: &str = "/run/systemd/journal/socket";

/// The way to the journal.
#[derive(Debug)]
pub struct Journal {
    socket: UnixDatagram,
    address: SocketAddr,
    identifier: &'static str,
}

impl Journal {
    /// Lines go to the socket file `path`, as those of `identifier`.
    pub fn open(path: &Path, identifier: &'static str) -> io::Result<Self> {
        let address = SocketAddr::from_pathname(path)?;
        let socket = UnixDatagram::unbound()?;
        // Nobody waits for a journal that does not keep up: the caller writes to stderr then.
        socket.set_nonblocking(true)?;
        Ok(Journal { socket, address, identifier })
    }

    /// Sends one line. It is not there when this fails.
    pub fn send(&self, record: &log::Record<'_>) -> io::Result<()> {
        let datagram = datagram(record, self.identifier);
        // Not connected: a journal that was started anew has another socket there.
        self.socket.send_to_addr(&datagram, &self.address).map(|_| ())
    }
}

/// A line as the journal's protocol has it: a field a line, those of the record's key values last.
fn datagram(record: &log::Record<'_>, identifier: &str) -> Vec<u8> {
    let mut fields = Fields::default();
    fields.add("MESSAGE", record.args());
    fields.add("PRIORITY", priority(record.level()));
    fields.add("SYSLOG_IDENTIFIER", identifier);
    if let (Some(file), Some(line)) = (record.file(), record.line()) {
        fields.add("CODE_FILE", file);
        fields.add("CODE_LINE", line);
    }
    // It takes whatever it is given.
    let _ = record.key_values().visit(&mut fields);
    fields.bytes
}

#[derive(Default)]
struct Fields {
    bytes: Vec<u8>,
    value: String,
}

impl Fields {
    fn add(&mut self, name: &str, value: impl Display) {
        self.value.clear();
        // A string takes all that it is given.
        let _ = write!(self.value, "{value}");
        self.bytes.extend_from_slice(name.as_bytes());
        if self.value.contains('\n') {
            self.bytes.push(b'\n');
            self.bytes.extend_from_slice(&(self.value.len() as u64).to_le_bytes());
        } else {
            self.bytes.push(b'=');
        }
        self.bytes.extend_from_slice(self.value.as_bytes());
        self.bytes.push(b'\n');
    }
}

impl<'kvs> VisitSource<'kvs> for Fields {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), Error> {
        let name = key.as_str().to_ascii_uppercase();
        let known = |one: char| one.is_ascii_uppercase() || one.is_ascii_digit() || one == '_';
        // The journal drops the whole line for a name that it does not allow.
        if name.starts_with(|one: char| one.is_ascii_uppercase())
            && name.chars().all(known)
            && name.len() <= NAME_MAX
        {
            self.add(&name, value);
        }
        Ok(())
    }
}

/// Bytes of a field's name.
const NAME_MAX: usize = 64;

/// Syslog's number of a level.
fn priority(level: log::Level) -> u8 {
    match level {
        log::Level::Error => 3,
        log::Level::Warn => 4,
        log::Level::Info => 6,
        log::Level::Debug | log::Level::Trace => 7,
    }
}

/// The prefix of a line on stderr.
pub fn prefix(level: log::Level) -> impl Display {
    struct Prefix(u8);
    impl Display for Prefix {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(f, "<{}>", self.0)
        }
    }
    Prefix(priority(level))
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

    fn received(socket: &UnixDatagram) -> Vec<u8> {
        let mut bytes = [0; 4096];
        let size = socket.recv(&mut bytes).unwrap();
        bytes[..size].to_vec()
    }

    #[test]
    fn line_arrives_with_its_fields() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let journald = UnixDatagram::bind(&path).unwrap();
        let journal = Journal::open(&path, "test").unwrap();
        let fields =
            [("path", "left"), ("reason", "no answer\nin time"), ("_pid", "1"), ("é", "2")];
        let mut record = log::Record::builder();
        record.level(log::Level::Warn).file(Some("src/a.rs")).line(Some(7)).key_values(&fields);
        journal.send(&record.args(format_args!("path {}", "left")).build()).unwrap();
        let mut expected = b"MESSAGE=path left\nPRIORITY=4\nSYSLOG_IDENTIFIER=test\n".to_vec();
        expected.extend_from_slice(b"CODE_FILE=src/a.rs\nCODE_LINE=7\nPATH=left\nREASON\n");
        expected.extend_from_slice(&17_u64.to_le_bytes());
        expected.extend_from_slice(b"no answer\nin time\n");
        assert_eq!(received(&journald), expected);
    }

    #[test]
    fn journal_that_is_away_full_or_new_stops_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let journal = Journal::open(&path, "test").unwrap();
        let line = || journal.send(&log::Record::builder().args(format_args!("a line")).build());
        assert!(line().is_err(), "there is none");
        let journald = UnixDatagram::bind(&path).unwrap();
        let sent = (0..100_000).take_while(|_| line().is_ok()).count();
        assert!(sent > 0 && sent < 100_000, "nobody reads: {sent}");
        received(&journald);
        assert!(line().is_ok(), "there is room again");
        drop(journald);
        std::fs::remove_file(&path).unwrap();
        let again = UnixDatagram::bind(&path).unwrap();
        assert!(line().is_ok());
        assert!(received(&again).starts_with(b"MESSAGE=a line\n"));
    }
}
