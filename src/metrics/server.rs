//! The thread that answers HTTP clients, one at a time, each within a deadline of its own: whoever
//! is slow is cut off, and others wait in the listener's backlog meanwhile. It asks the manager as
//! a control client does and touches nothing that carries I/O.
//!
//! By hand rather than by a library: one method, one path, no keep-alive, no body. `tiny_http`,
//! the smallest that is common, starts threads as clients come, and bounds neither a header nor
//! the time that a client takes for it.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use super::request::{self, Refusal};
use super::{Snapshot, render};
use crate::config::MetricsListen;
use crate::confine::{self, Class};
use crate::control::ask::Asker;
use crate::control::{Order, OrderSink, Reply};
use crate::limits::{CONTROL_ACCEPT_BACKOFF, METRICS_CLIENT_TIMEOUT, METRICS_HEADER_MAX};
use crate::socket::{Access, SocketFile, SocketFileError};

/// Why metrics are not served.
#[derive(Debug, thiserror::Error)]
pub enum MetricsError {
    /// The socket file.
    #[error(transparent)]
    File(#[from] SocketFileError),
    /// The address, or the system.
    #[error("{listen}: {cause}")]
    System {
        /// Where.
        listen: MetricsListen,
        /// Why not.
        cause: io::Error,
    },
}

/// A listening socket, and its file where it has one, which goes with it.
#[derive(Debug)]
pub struct Server {
    _file: Option<SocketFile>,
    listener: Listener,
    listen: MetricsListen,
}

#[derive(Debug)]
enum Listener {
    Unix(UnixListener),
    Tcp(TcpListener),
}

impl Server {
    /// Listens; nobody is answered yet. `group` may connect to a socket file as well.
    pub fn bind(listen: &MetricsListen, group: &str) -> Result<Server, MetricsError> {
        let system = |cause| MetricsError::System { listen: listen.clone(), cause };
        let (file, listener) = match listen {
            MetricsListen::Unix(path) => {
                let mode = if group.is_empty() { 0o600 } else { 0o660 };
                let file = SocketFile::bind(path, Access { mode, group })?;
                let listener = file.listener().try_clone().map_err(system)?;
                listener.set_nonblocking(false).map_err(system)?;
                (Some(file), Listener::Unix(listener))
            }
            MetricsListen::Tcp(address) => {
                (None, Listener::Tcp(TcpListener::bind(address).map_err(system)?))
            }
        };
        Ok(Server { _file: file, listener, listen: listen.clone() })
    }

    /// Starts the thread, which ends with the process. The metrics are those of `backend`.
    pub fn start(&self, backend: String, sink: Box<dyn OrderSink>) -> Result<(), MetricsError> {
        let system = |cause| MetricsError::System { listen: self.listen.clone(), cause };
        let asker = Asker::new(sink).map_err(system)?;
        let mut desk = Desk { backend, asker };
        let listener = match &self.listener {
            Listener::Unix(listener) => Listener::Unix(listener.try_clone().map_err(system)?),
            Listener::Tcp(listener) => Listener::Tcp(listener.try_clone().map_err(system)?),
        };
        let mut serve = move || {
            let served = match &listener {
                Listener::Unix(listener) => {
                    listener.accept().map(|(mut one, _)| desk.serve(&mut one))
                }
                Listener::Tcp(listener) => {
                    listener.accept().map(|(mut one, _)| desk.serve(&mut one))
                }
            };
            match served {
                Ok(Ok(())) => {}
                Ok(Err(error)) => log::debug!("a metrics client was not served: {error}"),
                Err(error) => {
                    log::debug!("cannot accept a metrics client: {error}");
                    std::thread::sleep(CONTROL_ACCEPT_BACKOFF);
                }
            }
        };
        let life = move || {
            confine::enter(Class::Metrics);
            loop {
                serve();
            }
        };
        std::thread::Builder::new().name("metrics".to_owned()).spawn(life).map_err(system)?;
        Ok(())
    }

    /// Where it listens, with the port that the system chose.
    pub fn address(&self) -> io::Result<Option<std::net::SocketAddr>> {
        match &self.listener {
            Listener::Unix(_) => Ok(None),
            Listener::Tcp(listener) => listener.local_addr().map(Some),
        }
    }
}

/// A client's end, whose single reads and writes can be bounded.
trait Client: Read + Write {
    fn bound(&self, timeout: Duration) -> io::Result<()>;
}

impl Client for UnixStream {
    fn bound(&self, timeout: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(timeout))?;
        self.set_write_timeout(Some(timeout))
    }
}

impl Client for TcpStream {
    fn bound(&self, timeout: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(timeout))?;
        self.set_write_timeout(Some(timeout))
    }
}

struct Desk {
    backend: String,
    asker: Asker,
}

impl Desk {
    fn serve(&mut self, client: &mut dyn Client) -> io::Result<()> {
        let deadline = Instant::now() + METRICS_CLIENT_TIMEOUT;
        let header = header(client, deadline)?;
        let answer = header.and_then(|header| request::read(&header)).and_then(|format| {
            let snapshot = self.snapshot().map_err(|_| Refusal::Unavailable)?;
            Ok((format, render(&[snapshot], format)))
        });
        let (status, kind, body) = match answer {
            Ok((format, body)) => ("200 OK", format.content_type(), body),
            Err(refusal) => {
                let status = refusal.status();
                (status, "text/plain", format!("{status}; the metrics are at /metrics\n"))
            }
        };
        let length = body.len();
        let answer = format!(
            "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\
             Connection: close\r\n\r\n{body}"
        );
        write(client, answer.as_bytes(), deadline)
    }

    fn snapshot(&mut self) -> Result<Snapshot, String> {
        let mut ask = |order| self.asker.ask(order, METRICS_CLIENT_TIMEOUT);
        match (ask(Order::QueryLun)?, ask(Order::QueryPaths)?, ask(Order::QueryStats)?) {
            (Reply::Lun(lun), Reply::Paths(paths), Reply::Stats(stats)) => {
                Ok(Snapshot { backend: self.backend.clone(), lun: *lun, paths, stats: *stats })
            }
            _ => Err("the answers do not belong to the questions".to_owned()),
        }
    }
}

/// Reads up to the empty line that ends a header.
fn header(client: &mut dyn Client, deadline: Instant) -> io::Result<Result<Vec<u8>, Refusal>> {
    let (mut header, mut part) = (Vec::new(), [0; 1024]);
    loop {
        client.bound(left(deadline)?)?;
        let count = match client.read(&mut part) {
            Ok(0) => return Ok(Err(Refusal::Bad)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            result => result?,
        };
        header.extend_from_slice(&part[..count]);
        if let Some(end) = header.windows(4).position(|four| four == b"\r\n\r\n") {
            header.truncate(end);
            return Ok(Ok(header));
        }
        if header.len() > METRICS_HEADER_MAX {
            return Ok(Err(Refusal::TooLong));
        }
    }
}

fn write(client: &mut dyn Client, mut bytes: &[u8], deadline: Instant) -> io::Result<()> {
    while !bytes.is_empty() {
        client.bound(left(deadline)?)?;
        match client.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => bytes = &bytes[result?..],
        }
    }
    Ok(())
}

/// What is left of a client's time; never zero, which would be no bound at all.
fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

#[cfg(test)]
mod tests;
