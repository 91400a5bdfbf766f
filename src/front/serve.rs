//! The outermost loop: one front end after another, until told to stop.
//!
//! The protocol thread reads a front end's messages and may wait in the middle of one, for the
//! front end or for a ring to stop. So the thread that called [`serve`] stays outside, waits for
//! the stop, and then ends the connection under it.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use vhost::vhost_user::{BackendReqHandler, Error};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::FrontConfig;
use super::listener::Listener;
use super::poller::Poller;
use super::session::Session;
use super::workers::Workers;
use crate::confine::{self, Class};
use crate::engine::Lanes;
use crate::limits::{ACCEPT_BACKOFF, STOP_MARGIN};

const STOP: u64 = 0;
const OTHER: u64 = 1;

/// How serving has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// All lanes' threads have ended. Else a path holds guest memory still.
    pub complete: bool,
    /// There was a front end until then.
    pub connected: bool,
}

/// Serves front ends, one at a time. Returns when `stop` becomes readable, after the rings have
/// been drained, or when the front end of an inherited connection has gone. `stop` is not read:
/// an eventfd or a pipe that a signal handler writes to will do. `listener` is the caller's to
/// close, when nothing can be under way any more.
///
/// # Errors
/// Where waiting fails or the protocol thread ends in a way that it should not; never for
/// something that a front end did.
pub fn serve<F: Lanes>(
    listener: &Listener,
    config: &FrontConfig,
    lanes: Arc<F>,
    stop: BorrowedFd<'_>,
) -> io::Result<End> {
    let mut workers = Workers::new(lanes);
    let socket = match listener {
        Listener::Own(file) => file.listener(),
        Listener::Inherited(socket) => socket,
        Listener::Connected(stream) => {
            let (left, connected) = serve_one(stream.try_clone()?, config, workers, stop)?;
            return Ok(End { complete: end(left, config), connected });
        }
    };
    let mut connected = false;
    while !connected && let Some(stream) = accept(socket, stop)? {
        let (left, stopped) = serve_one(stream, config, workers, stop)?;
        let Some(left) = left else { return Ok(End { complete: false, connected: stopped }) };
        (workers, connected) = (left, stopped);
    }
    Ok(End { complete: end(Some(workers), config), connected })
}

/// Ends the lanes' threads; true when they all have ended. `None`: they are caught in a ring that
/// does not stop.
fn end<F: Lanes>(workers: Option<Workers<F>>, config: &FrontConfig) -> bool {
    let Some(workers) = workers else { return false };
    let ended = workers.quit(Instant::now() + config.stop_deadline + STOP_MARGIN);
    if !ended {
        log::warn!("a path still holds guest memory; it is left behind");
    }
    ended
}

/// Waits for the next front end, `None` when told to stop.
fn accept(socket: &UnixListener, stop: BorrowedFd<'_>) -> io::Result<Option<UnixStream>> {
    let poller = Poller::new()?;
    poller.add(&stop, STOP)?;
    poller.add(socket, OTHER)?;
    loop {
        if poller.wait(None)?.any(|token| token == STOP) {
            return Ok(None);
        }
        match socket.accept() {
            Ok((stream, _)) => return Ok(Some(stream)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => {
                log::warn!("a front end cannot be accepted: {error}");
                thread::sleep(ACCEPT_BACKOFF);
            }
        }
    }
}

/// Serves one front end. The workers come back, unless they are caught in a ring that does not
/// stop; and whether it was told to stop.
fn serve_one<F: Lanes>(
    stream: UnixStream,
    config: &FrontConfig,
    workers: Workers<F>,
    stop: BorrowedFd<'_>,
) -> io::Result<(Option<Workers<F>>, bool)> {
    let stopping = Arc::new(AtomicBool::new(false));
    let ended = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?;
    let poller = Poller::new()?;
    poller.add(&stop, STOP)?;
    poller.add(&ended, OTHER)?;

    let connection = stream.try_clone()?;
    let (result, workers_back) = channel();
    let (config_copy, told) = (config.clone(), stopping.clone());
    // Two of them: one that is closed with its thread would be forgotten by the poller.
    let end = ended.try_clone()?;
    thread::Builder::new().name("vhost-user".to_owned()).spawn(move || {
        confine::enter(Class::Protocol);
        let workers = run(stream, &config_copy, workers, &told);
        let _ = result.send(workers);
        let _ = end.write(1);
    })?;

    if poller.wait_for_any()? != STOP {
        return Ok((take_back(&workers_back, None)?, false));
    }
    stopping.store(true, Ordering::Release);
    // The protocol thread finds the connection at its end, stops the rings and comes back; an
    // answer that it is about to send still goes out.
    let _ = connection.shutdown(std::net::Shutdown::Read);
    let patience = 2 * (config.stop_deadline + STOP_MARGIN);
    match take_back(&workers_back, Some(patience)) {
        Ok(workers) => Ok((workers, true)),
        Err(error) if error.kind() == io::ErrorKind::TimedOut => {
            log::warn!("the rings do not stop: a path still holds guest memory; it is left behind");
            Ok((None, true))
        }
        Err(error) => Err(error),
    }
}

fn take_back<T>(from: &Receiver<T>, patience: Option<Duration>) -> io::Result<T> {
    let taken = match patience {
        Some(patience) => from.recv_timeout(patience),
        None => from.recv().map_err(|_| RecvTimeoutError::Disconnected),
    };
    taken.map_err(|error| match error {
        RecvTimeoutError::Timeout => io::Error::from(io::ErrorKind::TimedOut),
        RecvTimeoutError::Disconnected => io::Error::other("the protocol thread has ended badly"),
    })
}

/// The protocol thread: handles messages until the connection ends.
fn run<F: Lanes>(
    stream: UnixStream,
    config: &FrontConfig,
    workers: Workers<F>,
    stopping: &AtomicBool,
) -> Option<Workers<F>> {
    log::debug!("a front end is served (descriptor {})", stream.as_raw_fd());
    let session = Arc::new(Mutex::new(Session::new(workers, config)));
    let mut handler = BackendReqHandler::from_stream(stream, session.clone());
    let error = loop {
        if let Err(error) = handler.handle_request() {
            break error;
        }
    };
    let stopping = stopping.load(Ordering::Acquire);
    match error {
        _ if stopping => log::debug!("the front end is being left"),
        Error::Disconnected | Error::SocketBroken(_) => {
            log::debug!("the front end has closed the connection")
        }
        Error::ReqHandlerError(error) => log::error!("the connection is ended: {error}"),
        error => log::error!("the connection is ended: {error}"),
    }
    let deadline = stopping.then(|| Instant::now() + config.stop_deadline);
    // The connection is closed last: the next front end may take that for the end of this one.
    let connection = handler.try_clone_connection();
    drop(handler);
    let workers = Arc::into_inner(session)?.into_inner().ok()?.end(deadline);
    drop(connection);
    Some(workers)
}
