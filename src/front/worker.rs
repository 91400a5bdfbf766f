//! A lane's thread: it sleeps until a kick, the lane's own descriptors, a time, or a command of
//! the protocol thread wakes it, and gives the lane its turn.
//!
//! ```text
//!   commands -> turn of the lane -> used entries published -> stops answered -> sleep
//! ```
//!
//! Before it sleeps it may look at the rings for a moment: see [`Spin`].
//!
//! Commands come through a channel and are obeyed between turns. While the requests of a front
//! end that is gone are being given up, commands wait: the next front end's rings start when the
//! last of the old requests has let go of the guest's memory.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, TryRecvError};
use std::time::{Duration, Instant};

use vmm_sys_util::eventfd::EventFd;

use super::dirty::DirtyLog;
use super::enable::EnableLast;
use super::memory::GuestMemory;
use super::poller::Poller;
use super::queue::{Queue, RingStart};
use super::rings::Rings;
use super::spin::Spin;
use crate::engine::{Driven, Guest, Turn};
use crate::ids::RingIndex;

/// What the protocol thread tells a worker.
#[derive(Debug)]
pub enum Command {
    /// A ring runs from now on.
    Start(Box<RingStart>),
    /// A ring's requests may be taken, or not.
    Enable(RingIndex, bool),
    /// As [`Command::Enable`] with true, if that is still wanted.
    EnableIf(RingIndex, Arc<AtomicBool>),
    /// Nothing: what was sent before has been obeyed when this is dropped.
    Passed(Arc<EnableLast>),
    /// A ring's kick descriptor is replaced.
    Kick(RingIndex, File),
    /// A ring's notification descriptor is replaced.
    Call(RingIndex, Option<Arc<File>>),
    /// A ring's error descriptor is replaced.
    Err(RingIndex, Option<Arc<File>>),
    /// The memory table has changed. Answered when nothing new is taken from the old one.
    Memory(Arc<GuestMemory>, Sender<()>),
    /// What is written to guest memory is marked here, or nowhere. Answered when it is.
    Log(Option<Arc<DirtyLog>>, Sender<()>),
    /// A ring's used ring is marked as being at this guest-physical address, or not at all. Answered
    /// when it is.
    UsedAddress(RingIndex, Option<u64>, Sender<()>),
    /// A ring stops: its requests are answered, the last ones at the deadline. Answered with the
    /// number of the next available entry, when the worker touches the ring and its requests'
    /// memory no more; the sender is dropped unused where the ring does not run.
    Stop(Stop),
    /// The front end is gone; its requests are given up.
    Disconnect,
    /// As [`Command::Disconnect`], and the thread ends.
    Quit,
}

/// How a ring stops.
#[derive(Debug)]
pub struct Stop {
    /// Which one.
    pub ring: RingIndex,
    /// When the last of its requests are answered.
    pub deadline: Instant,
    /// The driver goes on elsewhere.
    pub moves: bool,
    /// Takes the number of the next available entry.
    pub reply: Sender<u16>,
}

/// The numbers of what a worker waits for.
mod token {
    use crate::ids::RingIndex;

    pub const COMMAND: u64 = 0;
    pub const LANE: u64 = 1;

    pub fn kick(ring: RingIndex) -> u64 {
        2 + u64::from(ring.0)
    }

    pub fn ring(token: u64) -> Option<RingIndex> {
        Some(RingIndex(u16::try_from(token.checked_sub(2)?).ok()?))
    }
}

/// A lane with its rings, and the loop around them.
#[derive(Debug)]
pub struct Worker<L> {
    lane: L,
    rings: Rings,
    commands: Receiver<Command>,
    wake: EventFd,
    poller: Poller,
    lane_fds: Vec<RawFd>,
    lane_fds_version: Option<u64>,
    stops: Vec<(RingIndex, Sender<u16>)>,
    spin: Spin,
    closing: bool,
    quitting: bool,
}

impl<L: Driven> Worker<L> {
    /// A worker for `lane`, which wakes up for `wake` to look at its `commands`.
    /// It looks at its rings for `busy_poll` at most before it sleeps.
    pub fn new(
        lane: L,
        commands: Receiver<Command>,
        wake: EventFd,
        busy_poll: Duration,
    ) -> io::Result<Self> {
        let poller = Poller::new()?;
        poller.add(&wake, token::COMMAND)?;
        Ok(Worker {
            lane,
            rings: Rings::new(),
            commands,
            wake,
            poller,
            lane_fds: Vec::new(),
            lane_fds_version: None,
            stops: Vec::new(),
            spin: Spin::new(busy_poll),
            closing: false,
            quitting: false,
        })
    }

    /// Runs until told to quit.
    pub fn run(mut self) {
        loop {
            self.obey_all();
            self.rings.begin_turn();
            let turn = self.lane.turn(&mut self.rings, Instant::now());
            self.rings.flush();
            self.watch_lane();
            let settled = self.settle();
            if self.quitting && !self.closing {
                return;
            }
            if !settled {
                self.sleep(turn);
            }
        }
    }

    /// Obeys what has been sent, unless requests of an earlier front end are still held.
    fn obey_all(&mut self) {
        while !self.closing {
            match self.commands.try_recv() {
                Ok(command) => self.obey(command),
                Err(TryRecvError::Empty) => return,
                Err(TryRecvError::Disconnected) => self.obey(Command::Quit),
            }
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Start(start) => self.start(*start),
            Command::Enable(ring, enabled) => self.enable(ring, enabled),
            // Looked at here: what the front end has said later comes later.
            Command::EnableIf(ring, wanted) => {
                if wanted.load(Ordering::Acquire) {
                    self.enable(ring, true);
                }
            }
            Command::Passed(last) => drop(last),
            Command::Kick(ring, kick) => self.replace_kick(ring, kick),
            Command::Call(ring, call) => {
                if let Some(queue) = self.rings.queue(ring) {
                    queue.set_call(call);
                }
            }
            Command::Err(ring, err) => {
                if let Some(queue) = self.rings.queue(ring) {
                    queue.set_err(err);
                }
            }
            Command::Memory(memory, done) => {
                self.rings.set_memory(&memory);
                // A session that does not wait for it has ended.
                let _ = done.send(());
            }
            Command::Log(log, done) => {
                self.rings.set_log(&log);
                let _ = done.send(());
            }
            Command::UsedAddress(ring, address, done) => {
                if let Some(queue) = self.rings.queue(ring) {
                    queue.set_used_address(address);
                }
                let _ = done.send(());
            }
            Command::Stop(stop) => self.stop(stop),
            Command::Disconnect => self.disconnect(),
            Command::Quit => {
                self.quitting = true;
                self.disconnect();
            }
        }
    }

    fn start(&mut self, start: RingStart) {
        let ring = start.index;
        match Queue::open(start) {
            Ok(queue) => {
                self.watch_kick(&queue);
                self.rings.start(queue);
                self.lane.resume();
            }
            Err(error) => log::error!("ring {} does not start: {error}", ring.0),
        }
    }

    fn enable(&mut self, ring: RingIndex, enabled: bool) {
        if let Some(queue) = self.rings.queue(ring) {
            queue.set_enabled(enabled);
        }
    }

    fn watch_kick(&self, queue: &Queue) {
        let ring = queue.index();
        if let Err(error) = self.poller.add(queue.kick(), token::kick(ring)) {
            log::error!("ring {} cannot be kicked: {error}", ring.0);
        }
    }

    fn replace_kick(&mut self, ring: RingIndex, kick: File) {
        if let Some(queue) = self.rings.queue(ring) {
            self.poller.remove(queue.kick());
            queue.set_kick(kick);
            if let Err(error) = self.poller.add(queue.kick(), token::kick(ring)) {
                log::error!("ring {} cannot be kicked: {error}", ring.0);
            }
        }
    }

    fn stop(&mut self, stop: Stop) {
        let Stop { ring, deadline, moves, reply } = stop;
        let Some(queue) = self.rings.queue(ring) else { return };
        let busy = queue.is_busy();
        match moves {
            true => self.rings.stop_to_move(ring),
            false => queue.stop(),
        }
        match ring {
            RingIndex::EVENT => {}
            RingIndex::CONTROL => {
                if busy {
                    self.lane.drain_tasks(deadline);
                }
            }
            _ => self.lane.drain(deadline),
        }
        self.stops.push((ring, reply));
    }

    fn disconnect(&mut self) {
        self.closing = true;
        // Whoever waited for a stop is gone as well.
        self.stops.clear();
        self.rings.disconnect();
        self.lane.disconnect();
    }

    /// Ends what has come to its end: stops, and the giving up of a front end's requests. True
    /// when something changed, so that the lane must have another turn before the thread sleeps.
    fn settle(&mut self) -> bool {
        let idle = self.lane.is_idle();
        if self.closing {
            if idle {
                self.rings.queues().for_each(|queue| self.poller.remove(queue.kick()));
                self.rings.clear();
                self.closing = false;
            }
            return idle;
        }
        let before = self.stops.len();
        let mut at = 0;
        while let Some((ring, _)) = self.stops.get(at) {
            match self.end_stop(*ring, idle) {
                None => at += 1,
                Some(base) => {
                    let (_, reply) = self.stops.swap_remove(at);
                    // A session that does not wait for it has ended.
                    let _ = reply.send(base);
                }
            }
        }
        self.stops.len() < before
    }

    /// Takes a ring away if it has stopped; the number of its next entry if so.
    fn end_stop(&mut self, ring: RingIndex, idle: bool) -> Option<u16> {
        let is_request = |ring| ring >= RingIndex::FIRST_REQUEST;
        if is_request(ring) && !idle {
            return None;
        }
        let base = self.rings.queue(ring)?.stopped()?;
        let queue = self.rings.remove(ring)?;
        self.poller.remove(queue.kick());
        Some(base)
    }

    /// Waits for what the lane wants to be waited for.
    fn watch_lane(&mut self) {
        let version = Some(self.lane.wait_fds_version());
        if self.lane_fds_version == version {
            return;
        }
        self.lane_fds_version = version;
        self.lane_fds.drain(..).for_each(|fd| self.poller.remove(&fd));
        for fd in self.lane.wait_fds() {
            match self.poller.add(fd, token::LANE) {
                Ok(()) => self.lane_fds.push(*fd),
                Err(error) => log::error!("a lane's descriptor {fd} cannot be waited for: {error}"),
            }
        }
    }

    fn sleep(&mut self, turn: Turn) {
        if turn.again {
            return;
        }
        // Nothing is on a path, nothing else is to be done: only the driver is waited for.
        let only_driver = self.stops.is_empty() && !self.closing && self.lane.is_idle();
        if only_driver && self.spin.look(|| self.rings.has_new()) {
            return;
        }
        if !self.rings.arm() {
            let now = Instant::now();
            let timeout = turn.timer.map(|at| at.saturating_duration_since(now));
            let woken = self.poller.wait(timeout);
            if only_driver {
                self.spin.slept(now.elapsed());
            }
            match woken {
                Ok(tokens) => tokens.for_each(|token| self.awake(token)),
                Err(error) => {
                    log::error!("a lane cannot wait: {error}");
                    std::thread::sleep(crate::limits::ACCEPT_BACKOFF);
                }
            }
        }
        self.rings.disarm();
    }

    /// Reads what woke the thread. The lane reads its own.
    fn awake(&mut self, token: u64) {
        match token {
            token::COMMAND => {
                // Not blocking; the commands themselves are in the channel.
                let _ = self.wake.read();
            }
            token::LANE => {}
            kick => {
                let queue = token::ring(kick).and_then(|ring| self.rings.queue(ring));
                if let Some(queue) = queue {
                    read_kick(queue, &self.poller);
                }
            }
        }
    }
}

/// Empties the counter of a kick, or waits for it no longer if it is none.
fn read_kick(queue: &Queue, poller: &Poller) {
    let problem = match queue.kick().read(&mut [0; 8]) {
        Ok(0) => io::Error::from(io::ErrorKind::UnexpectedEof),
        Ok(_) => return,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
        Err(error) if error.kind() == io::ErrorKind::Interrupted => return,
        Err(error) => error,
    };
    log::error!("ring {} cannot be kicked any more: {problem}", queue.index().0);
    poller.remove(queue.kick());
}
