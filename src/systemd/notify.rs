//! States that are told to the service manager, as datagrams to `$NOTIFY_SOCKET`.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use super::{Variable, clock_sys, text};

/// Bytes of the line for people at most; more would not be read anyway.
const STATUS_MAX: usize = 1024;

/// The way to the service manager.
#[derive(Debug)]
pub struct Notifier {
    socket: UnixDatagram,
    address: SocketAddr,
    /// How long it waits for a sign of life.
    pub watchdog: Option<Duration>,
}

impl Notifier {
    /// `None` where no service manager listens, or not to the process `pid`.
    pub fn from_environment(variable: Variable<'_>, pid: u32) -> io::Result<Option<Self>> {
        let Some(name) = text(variable, "NOTIFY_SOCKET") else { return Ok(None) };
        let address = match name.strip_prefix('@') {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None if name.starts_with('/') => SocketAddr::from_pathname(&name)?,
            // The way out of a virtual machine, and what else may be invented.
            None => return Ok(None),
        };
        let socket = UnixDatagram::unbound()?;
        // Never waits: what does not fit is lost, and the next state is the truth again.
        socket.set_nonblocking(true)?;
        Ok(Some(Notifier { socket, address, watchdog: watchdog(variable, pid) }))
    }

    /// The service is up, or has finished to reload.
    pub fn ready(&self) {
        self.send("READY=1");
    }

    /// The configuration is being read again; [`Notifier::ready`] ends that.
    pub fn reloading(&self) {
        let Ok(now) = clock_sys::monotonic() else { return };
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={}", now.as_micros()));
    }

    /// The service is ending.
    pub fn stopping(&self) {
        self.send("STOPPING=1");
    }

    /// One line for people.
    pub fn status(&self, line: &str) {
        self.send(&format!("STATUS={}", one_line(line)));
    }

    /// The sign of life.
    pub fn alive(&self) {
        self.send("WATCHDOG=1");
    }

    fn send(&self, state: &str) {
        if let Err(error) = self.socket.send_to_addr(state.as_bytes(), &self.address) {
            log::debug!("the service manager was not told {state}: {error}");
        }
    }
}

/// How long the service manager waits for a sign of life of the process `pid`.
fn watchdog(variable: Variable<'_>, pid: u32) -> Option<Duration> {
    if text(variable, "WATCHDOG_PID").is_some_and(|id| id.parse() != Ok(pid)) {
        return None;
    }
    let time = text(variable, "WATCHDOG_USEC")?.parse().ok().map(Duration::from_micros)?;
    Some(time).filter(|time| !time.is_zero())
}

/// A newline would begin another assignment, and names are what somebody chose.
fn one_line(text: &str) -> String {
    let printable = |one: char| if one.is_control() { ' ' } else { one };
    let mut line: String = text.chars().map(printable).collect();
    if line.len() > STATUS_MAX {
        let end = (0..=STATUS_MAX).rev().find(|end| line.is_char_boundary(*end)).unwrap_or(0);
        line.truncate(end);
        line.push_str("...");
    }
    line
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;

    fn variables<'a>(given: &'a [(&'a str, String)]) -> impl Fn(&str) -> Option<OsString> + 'a {
        move |name| {
            let found = given.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| OsString::from(value))
        }
    }

    fn received(socket: &UnixDatagram) -> String {
        let mut bytes = [0; 4096];
        let size = socket.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..size].to_vec()).unwrap()
    }

    #[test]
    fn states_arrive_as_the_protocol_writes_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let given = [("NOTIFY_SOCKET", path.display().to_string())];
        let notifier = Notifier::from_environment(&variables(&given), 7).unwrap().unwrap();
        notifier.ready();
        assert_eq!(received(&manager), "READY=1");
        notifier.alive();
        assert_eq!(received(&manager), "WATCHDOG=1");
        notifier.stopping();
        assert_eq!(received(&manager), "STOPPING=1");
        notifier.reloading();
        let text = received(&manager);
        let at = text.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
        assert!(at.parse::<u64>().unwrap() > 0);
        notifier.status("a\nREADY=1");
        assert_eq!(received(&manager), "STATUS=a READY=1");
        notifier.status(&"é".repeat(STATUS_MAX));
        assert_eq!(received(&manager).len(), "STATUS=".len() + STATUS_MAX + 3);
        // A manager that has gone, or does not read, stops nobody.
        drop(manager);
        notifier.ready();
    }

    #[test]
    fn abstract_sockets_are_found_and_unknown_ones_ignored() {
        let name = format!("vhost-user-scsi-mpath-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let manager = UnixDatagram::bind_addr(&address).unwrap();
        let given = [("NOTIFY_SOCKET", format!("@{name}"))];
        Notifier::from_environment(&variables(&given), 7).unwrap().unwrap().ready();
        assert_eq!(received(&manager), "READY=1");
        let given = [("NOTIFY_SOCKET", "vsock:2:1234".to_owned())];
        assert!(Notifier::from_environment(&variables(&given), 7).unwrap().is_none());
        assert!(Notifier::from_environment(&variables(&[]), 7).unwrap().is_none());
    }

    #[test]
    fn watchdog_is_for_the_process_that_it_names() {
        let given = |pid: &str, time: &str| {
            let given = [("WATCHDOG_PID", pid.to_owned()), ("WATCHDOG_USEC", time.to_owned())];
            watchdog(&variables(&given), 7)
        };
        assert_eq!(given("7", "2000000"), Some(Duration::from_secs(2)));
        assert_eq!(given("8", "2000000"), None);
        assert_eq!(given("7", "0"), None);
        assert_eq!(given("7", "soon"), None);
        let time = [("WATCHDOG_USEC", "5".to_owned())];
        assert_eq!(watchdog(&variables(&time), 7), Some(Duration::from_micros(5)));
    }
}
