//! A TCP proxy before a portal: the wire, and what may happen to it.
//!
//! ```text
//!   initiator --- client --> [read] requests [write] --> target --- portal
//!                        <-- [write] answers [read] <--
//! ```
//!
//! Each way of a connection is a reader and a writer with a queue between them, so that what the
//! initiator has sent is on the wire, whatever becomes of its end afterwards: a way that is held
//! keeps it, behind a reset too, and delivers it when it is released. That is what a write does
//! that arrives late. A wire that is silent loses what is sent, which is another matter.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::socket_sys;

/// How often a thread looks up from its socket.
const TICK: Duration = Duration::from_millis(10);
/// Bytes of one read.
const CHUNK: usize = 256 << 10;

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From the initiator to the portal.
    Requests,
    /// From the portal to the initiator.
    Answers,
}

/// Which connections a change is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whom {
    /// Those that are there now.
    Old,
    /// Those, and any that comes.
    All,
}

/// What happens to those who connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    Open,
    /// Nobody listens.
    Shut,
}

/// What is done to one connection.
#[derive(Clone, Copy, Debug, Default)]
struct Rules {
    /// By [`Way`].
    held: [bool; 2],
    /// What is held has been lost, and who sent it would have to send it again.
    lost: bool,
    /// One side has reset the connection, so it sends nothing again.
    gone: bool,
    /// The connection ends by RST on both sides.
    cut: bool,
    /// Bytes that have come in and not gone out, by [`Way`].
    waiting: [usize; 2],
}

struct State {
    /// By connection, in the order in which they came.
    connections: Vec<Rules>,
    /// For the next connection.
    next: Rules,
    delay: Duration,
    /// `None` while the door is shut.
    listener: Option<TcpListener>,
}

struct Shared {
    target: SocketAddr,
    state: Mutex<State>,
    changed: Condvar,
    over: AtomicBool,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no thread of the proxy fails")
    }

    fn is_cut(&self, number: usize) -> bool {
        self.over.load(Ordering::Relaxed) || self.state().connections[number].cut
    }
}

/// A proxy, which passes everything until it is told otherwise.
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

impl Proxy {
    /// A proxy before `target` on a port of the kernel's choice.
    pub fn before(target: SocketAddr) -> Self {
        let listener = listen(0).expect("a port is free");
        let port = listener.local_addr().expect("a listener has an address").port();
        let state = State {
            connections: Vec::new(),
            next: Rules::default(),
            delay: Duration::ZERO,
            listener: Some(listener),
        };
        let (state, changed) = (Mutex::new(state), Condvar::new());
        let shared = Arc::new(Shared { target, state, changed, over: AtomicBool::new(false) });
        let accepts = shared.clone();
        let acceptor = Some(std::thread::spawn(move || accept(&accepts)));
        Proxy { port, shared, acceptor }
    }

    /// Where to connect to.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// Connections that were ever accepted.
    pub fn accepted(&self) -> usize {
        self.shared.state().connections.len()
    }

    /// Bytes that have come in and are held back.
    pub fn waiting(&self, way: Way) -> usize {
        let state = self.shared.state();
        let alive = state.connections.iter().filter(|connection| !connection.cut);
        alive.map(|connection| connection.waiting[way as usize]).sum()
    }

    /// Ends every connection by RST on both sides; from now on the door is as given.
    pub fn cut(&self, door: Door) {
        self.change(|state| {
            if door == Door::Shut {
                state.listener = None;
            }
            state.connections.iter_mut().for_each(|connection| connection.cut = true);
        });
    }

    /// Nobody listens any more; what is connected stays so.
    pub fn shut(&self) {
        self.change(|state| state.listener = None);
    }

    /// Holds one way.
    pub fn hold(&self, way: Way, whom: Whom) {
        self.change(|state| {
            state.connections.iter_mut().for_each(|one| one.held[way as usize] = true);
            if whom == Whom::All {
                state.next.held[way as usize] = true;
            }
        });
    }

    /// Loses what is sent either way: connections stay, new ones are accepted, and nobody hears
    /// anything. When the wire is restored both sides send again what was lost, unless one of them
    /// has reset the connection meanwhile; the other learns of that only then.
    pub fn silence(&self) {
        self.hold(Way::Requests, Whom::All);
        self.hold(Way::Answers, Whom::All);
        self.change(|state| {
            state.next.lost = true;
            state.connections.iter_mut().for_each(|connection| connection.lost = true);
        });
    }

    /// From now on every byte takes so much longer, each way.
    pub fn delay(&self, delay: Duration) {
        self.change(|state| state.delay = delay);
    }

    /// What was held goes on its way, in its order, and nothing is held or slowed any more. The
    /// door opens.
    pub fn restore(&self) {
        let deadline = Instant::now() + Duration::from_secs(5);
        let mut opened = None;
        if self.shared.state().listener.is_none() {
            // The port was ours a moment ago, but any connection of the machine may have it now.
            while opened.is_none() {
                opened = listen(self.port).ok();
                assert!(Instant::now() < deadline, "port {} is taken", self.port);
            }
        }
        self.change(|state| {
            state.next = Rules::default();
            for connection in &mut state.connections {
                connection.cut |= connection.lost && connection.gone;
                (connection.held, connection.lost) = ([false; 2], false);
            }
            state.delay = Duration::ZERO;
            if opened.is_some() {
                state.listener = opened;
            }
        });
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.shared.state());
        self.shared.changed.notify_all();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
        self.shared.changed.notify_all();
        if let Some(acceptor) = self.acceptor.take() {
            let ended = acceptor.join();
            assert!(ended.is_ok() || std::thread::panicking(), "the proxy failed");
        }
    }
}

fn listen(port: u16) -> io::Result<TcpListener> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// The acceptor's thread: one more connection whenever somebody comes.
fn accept(shared: &Arc<Shared>) {
    let mut connections = Vec::new();
    while !shared.over.load(Ordering::Relaxed) {
        let mut state = shared.state();
        let client = state.listener.as_ref().and_then(|listener| listener.accept().ok());
        let Some((client, _)) = client else {
            drop(state);
            std::thread::sleep(Duration::from_millis(2));
            continue;
        };
        let number = state.connections.len();
        let rules = state.next;
        state.connections.push(rules);
        drop(state);
        let shared = shared.clone();
        connections.push(std::thread::spawn(move || connection(&shared, client, number)));
    }
    for connection in connections {
        connection.join().expect("a connection does not fail");
    }
}

/// A connection from its start to its end.
fn connection(shared: &Arc<Shared>, client: TcpStream, number: usize) {
    // Whatever way it ends: where a side has not been told of the end, it is told by RST.
    let Ok(target) = TcpStream::connect_timeout(&shared.target, Duration::from_secs(5)) else {
        socket_sys::reset_on_close(&client);
        return;
    };
    for stream in [&client, &target] {
        socket_sys::reset_on_close(stream);
        let ready = stream
            .set_nonblocking(false)
            .and_then(|()| stream.set_nodelay(true))
            .and_then(|()| stream.set_read_timeout(Some(TICK)))
            .and_then(|()| stream.set_write_timeout(Some(TICK)));
        ready.expect("a socket can be set up");
    }
    let (client, target) = (&client, &target);
    let link = |way| Link { shared, number, way };
    std::thread::scope(|scope| {
        for (way, from, to) in [(Way::Requests, client, target), (Way::Answers, target, client)] {
            let (sender, receiver) = channel();
            scope.spawn(move || link(way).read(from, &sender));
            scope.spawn(move || link(way).write(to, &receiver));
        }
    });
}

/// What came in at one end.
enum Piece {
    Bytes(Instant, Vec<u8>),
    /// The sender has closed its side.
    End,
    /// The sender has reset the connection.
    Reset,
}

/// One way of one connection.
struct Link<'a> {
    shared: &'a Shared,
    number: usize,
    way: Way,
}

impl Link<'_> {
    fn waiting(&self, change: impl FnOnce(usize) -> usize) {
        let mut state = self.shared.state();
        let waiting = &mut state.connections[self.number].waiting[self.way as usize];
        *waiting = change(*waiting);
    }

    fn read(&self, mut from: &TcpStream, queue: &Sender<Piece>) {
        let mut bytes = vec![0; CHUNK];
        while !self.shared.is_cut(self.number) {
            let (piece, last) = match from.read(&mut bytes) {
                Ok(0) => (Piece::End, true),
                Ok(count) => {
                    self.waiting(|waiting| waiting + count);
                    (Piece::Bytes(Instant::now(), bytes[..count].to_vec()), false)
                }
                Err(error) if is_tick(&error) => continue,
                Err(_) => {
                    self.shared.state().connections[self.number].gone = true;
                    (Piece::Reset, true)
                }
            };
            if queue.send(piece).is_err() || last {
                return;
            }
        }
    }

    fn write(&self, to: &TcpStream, queue: &Receiver<Piece>) {
        // Of a side that is gone nothing is known but that it takes no more: the other way goes on.
        let mut gone = false;
        loop {
            let piece = match queue.recv_timeout(TICK) {
                Ok(piece) => piece,
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) if self.shared.is_cut(self.number) => return,
                Err(RecvTimeoutError::Timeout) => continue,
            };
            let arrived = match &piece {
                Piece::Bytes(arrived, _) => *arrived,
                Piece::End | Piece::Reset => Instant::now(),
            };
            if !self.may_pass(arrived) {
                return;
            }
            match piece {
                Piece::Bytes(_, bytes) => {
                    self.waiting(|waiting| waiting - bytes.len());
                    gone = gone || !self.send(to, &bytes);
                }
                // The other side may be gone for longer.
                Piece::End => drop(to.shutdown(std::net::Shutdown::Write)),
                Piece::Reset => {
                    // A reset may overtake what the receiver has not read yet.
                    std::thread::sleep(10 * TICK);
                    self.shared.state().connections[self.number].cut = true;
                }
            }
        }
    }

    /// Waits until what came in at `arrived` may go on; false when the connection has ended.
    fn may_pass(&self, arrived: Instant) -> bool {
        let mut state = self.shared.state();
        loop {
            let Rules { held, cut, .. } = state.connections[self.number];
            if cut || self.shared.over.load(Ordering::Relaxed) {
                return false;
            }
            let left = (arrived + state.delay).saturating_duration_since(Instant::now());
            if !held[self.way as usize] && left.is_zero() {
                return true;
            }
            let wait = if left.is_zero() { TICK } else { left.min(TICK) };
            let waited = self.shared.changed.wait_timeout(state, wait);
            state = waited.expect("no thread of the proxy fails").0;
        }
    }

    /// Sends all; false when the other side takes no more.
    fn send(&self, mut to: &TcpStream, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() && !self.shared.is_cut(self.number) {
            match to.write(bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(error) if is_tick(&error) => {}
                Err(_) => return false,
            }
        }
        true
    }
}

/// Nothing has happened for a [`TICK`].
fn is_tick(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}
