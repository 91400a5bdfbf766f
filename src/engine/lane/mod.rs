//! A lane: the way of a command.
//!
//! ```text
//!   intake --> decide (lun) --> drive --+--> Flying ---- ended --> rule (multipath) --+--> answered
//!                 |               ^     |      on a path                             |
//!                 '-> answered    |     +--> Waiting    no path: until one returns   |
//!                                 |     +--> Resting    until a time                 |
//!                                 |     +--> Held       another write's blocks       |
//!                                 |     '--> failed                                  |
//!                                 +------- Unproven <--- a write, outcome unknown ---+
//!                                 '--------------------- once more ------------------'
//! ```
//!
//! A lane owns everything it touches: its table of commands, its channels, its view of the paths.
//! Other lanes and the manager send mail. So the way of a command has no lock, and in the steady
//! state no allocation: slots keep their lists, and the lists their memory.
//!
//! | file | what |
//! |---|---|
//! | [`commands`] | the table of commands and their states |
//! | [`paths`] | the lane's channels, and what it knows before the manager does |
//! | [`flow`] | begin, drive, submit: the arrows to the right |
//! | [`ends`] | ended, and what makes an attempt end: the arrows back |
//! | [`holds`] | blocks that wait for a write whose outcome nobody knows |
//! | [`hedge`] | slow reads are cloned |
//! | [`reservations`] | reservation commands, and what a reservation means for the others |
//! | [`tasks`] | task management |
//! | [`time`] | deadlines |
//! | [`overdue`] | what the core should know of a path that works |

mod commands;
mod ends;
mod flow;
pub mod hedge;
mod holds;
mod overdue;
mod paths;
mod reservations;
mod tasks;
mod time;

use std::collections::VecDeque;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::time::Instant;

use self::commands::{Commands, State};
use self::hedge::Hedges;
use self::holds::Holds;
use self::paths::{Batch, Paths};
use self::reservations::Fence;
use self::tasks::Tasks;
use self::time::{Clock, Rests};
use super::driven::{Driven, Turn};
use super::guest::{Guest, Request};
use super::mailbox::{Mail, Post};
use super::messages::{Attention, Deadlines, Snapshot, ToLane, ToManager};
use crate::ids::{LaneId, Slot};
use crate::limits::{RING_SIZE_MAX, TURN_EXCHANGES_MAX, TURN_REQUESTS_MAX};
use crate::multipath::{Event, Nodes, Policy, Selector};
use crate::path::Transport;
use crate::stats::LaneCounters;

/// What a lane is made of.
#[derive(Debug)]
pub struct Parts<T> {
    /// Its number.
    pub id: LaneId,
    /// Its mail.
    pub mail: Mail<ToLane<T>>,
    /// To the manager.
    pub manager: Post<ToManager>,
    /// The paths, as they are at its start.
    pub snapshot: Arc<Snapshot<T>>,
    /// The guest's pending unit attention.
    pub attention: Arc<Attention>,
    /// Its counters.
    pub counters: Arc<LaneCounters>,
    /// Time limits.
    pub deadlines: Deadlines,
    /// The time at which it is made.
    pub now: Instant,
    /// The time now, given the time at which the turn began: paths that answer at once have taken
    /// time since then. The simulator's clock stands still within a turn.
    pub later: fn(Instant) -> Instant,
    /// The memory node that the lane's thread runs on now; asked in its thread, once per turn.
    pub node: fn() -> Option<u16>,
    /// How far memory nodes are from each other.
    pub nodes: Arc<Nodes>,
}

/// One lane. See the module's text.
pub struct Lane<T: Transport> {
    id: LaneId,
    mail: Mail<ToLane<T>>,
    manager: Post<ToManager>,
    snapshot: Arc<Snapshot<T>>,
    attention: Arc<Attention>,
    counters: Arc<LaneCounters>,
    deadlines: Deadlines,
    selector: Selector,
    paths: Paths<T::Channel>,
    commands: Commands,
    /// Commands without a path, in the order in which they came.
    waiting: VecDeque<(Slot, u64)>,
    rests: Rests,
    holds: Holds,
    /// `None` where reads are not hedged, which costs them nothing then.
    hedges: Option<Box<Hedges>>,
    tasks: Tasks,
    fence: Fence,
    clock: Clock,
    mode: Mode,
    later: fn(Instant) -> Instant,
    node: fn() -> Option<u16>,
    /// A request list that is not in use: filled by the guest, then swapped into a slot.
    spare: Request,
    batch: Batch,
    /// The manager counts on this lane.
    announced: bool,
    /// How often it has been announced.
    runs: u64,
    /// The manager knows that commands of this run go on at the next start.
    gives_back: bool,
}

/// What a lane does with new and old requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// Takes and answers.
    Serving,
    /// Takes none; answers all by this time, or gives them back where that can be.
    Draining(Instant),
    /// That time has passed: what is still on a path is given back when it comes back.
    Leaving,
    /// Takes none, answers none: nobody is left to hear it.
    Disconnected,
}

impl<T: Transport> Lane<T> {
    /// A lane that waits for [`Driven::resume`].
    pub fn new(parts: Parts<T>) -> Self {
        let mut paths = Paths::new(parts.mail.as_raw_fd());
        paths.adopt(&parts.snapshot);
        let fences = parts.snapshot.table.reserved.fences;
        Lane {
            id: parts.id,
            clock: Clock::new(parts.snapshot.table.tries(), parts.now),
            hedges: parts
                .deadlines
                .hedging
                .map(|hedging| Box::new(Hedges::new(hedging, &parts.snapshot.table))),
            mail: parts.mail,
            manager: parts.manager,
            snapshot: parts.snapshot,
            attention: parts.attention,
            counters: parts.counters,
            deadlines: parts.deadlines,
            selector: Selector::new(parts.nodes),
            paths,
            commands: Commands::default(),
            waiting: VecDeque::new(),
            rests: Rests::default(),
            holds: Holds::new(parts.id),
            tasks: Tasks::default(),
            fence: Fence::new(fences),
            mode: Mode::Draining(parts.now),
            later: parts.later,
            node: parts.node,
            spare: Request::default(),
            batch: Batch::default(),
            announced: false,
            runs: 0,
            gives_back: false,
        }
    }

    fn read_mail<G: Guest>(&mut self, guest: &mut G, now: Instant) {
        let (mut tasks, mut releases, mut reserved) = (Vec::new(), Vec::new(), Vec::new());
        let before = self.snapshot.table.version;
        while let Some(message) = self.mail.next() {
            match message {
                ToLane::Snapshot(snapshot) => self.adopt(snapshot, now),
                ToLane::Release(hold) => releases.push(hold),
                ToLane::Task { number, run, task } if run == self.runs => {
                    tasks.push((number, task));
                }
                ToLane::Task { .. } => {}
                ToLane::TaskAnswer { number, response } => {
                    self.answer_task(guest, number, response);
                }
                ToLane::Reserved { serial, answer } => reserved.push((serial, answer)),
                ToLane::Deadlines(deadlines) => self.deadlines = deadlines,
                ToLane::Event(event) => guest.post_event(event),
            }
        }
        // Only now is anything sent: an older table may show a path that a newer one has lost.
        for hold in releases {
            self.released(guest, hold, now);
        }
        if self.snapshot.table.version != before {
            self.look_again(guest, now);
        }
        for (serial, answer) in reserved {
            self.reserved(guest, serial, answer, now);
        }
        if !tasks.is_empty() && self.mode != Mode::Serving {
            // What it may be about is in the ring, if whoever serves that next takes it.
            self.tell_of_leftovers(guest);
        }
        for (number, task) in tasks {
            self.take_all_requests(guest, now);
            self.begin_task(guest, number, task);
        }
    }

    /// Goes over to a new snapshot.
    fn adopt(&mut self, snapshot: Arc<Snapshot<T>>, now: Instant) {
        if snapshot.table.version <= self.snapshot.table.version {
            return;
        }
        self.snapshot = snapshot;
        let table = &self.snapshot.table;
        self.clock.paths_exist(table.tries(), now);
        self.paths.adopt(&self.snapshot);
        self.paths.forget_heard(table.heard(self.id));
        self.holds.adopt(table);
        self.fence.adopt(table.reserved.fences, self.commands.last_serial());
        if let Some(hedges) = &mut self.hedges {
            hedges.adopt(table);
        }
    }

    /// The paths or the holds are not what they were: what waited for them looks again.
    fn look_again<G: Guest>(&mut self, guest: &mut G, now: Instant) {
        self.recall_from_dead_paths();
        for (slot, serial) in self.holds.take_held() {
            if self.commands.is_still(slot, serial, State::Held) {
                self.drive(guest, slot, now);
            }
        }
        self.retry_waiting(guest, now);
    }

    /// Drives everything that waits for a path, in order.
    fn retry_waiting<G: Guest>(&mut self, guest: &mut G, now: Instant) {
        for _ in 0..self.waiting.len() {
            let Some((slot, serial)) = self.waiting.pop_front() else { return };
            if self.commands.is_still(slot, serial, State::Waiting) {
                self.drive(guest, slot, now);
            }
        }
    }

    fn intake<G: Guest>(&mut self, guest: &mut G, now: Instant) -> bool {
        if !self.takes(guest) {
            return false;
        }
        for _ in 0..TURN_REQUESTS_MAX {
            let Some(owed) = guest.next(&mut self.spare) else { return false };
            self.begin(guest, owed, now);
        }
        true
    }

    /// Takes everything that is on the ring. What the guest put there before it asked for a task
    /// management function is a task of the LUN's by then, seen by this lane or not.
    fn take_all_requests<G: Guest>(&mut self, guest: &mut G, now: Instant) {
        const TURNS: usize = (RING_SIZE_MAX as usize).div_ceil(TURN_REQUESTS_MAX);
        for _ in 0..TURNS {
            if !self.intake(guest, now) {
                return;
            }
        }
    }

    /// Sends what was submitted and takes what has ended, until nothing more happens. A path that
    /// answers at once is done within the turn.
    fn exchange<G: Guest>(&mut self, guest: &mut G, now: Instant) -> bool {
        for _ in 0..TURN_EXCHANGES_MAX {
            let mut batch = std::mem::take(&mut self.batch);
            self.paths.flush();
            let now = (self.later)(now);
            self.paths.reap(now, &mut batch);
            let progress = !batch.is_empty();
            for (path, end) in batch.drain() {
                self.ended(guest, path, end, now);
            }
            self.batch = batch;
            if !progress {
                return false;
            }
        }
        true
    }

    fn finish_turn<G: Guest>(&mut self, guest: &mut G) {
        let table = &self.snapshot.table;
        // A version without a path is not honoured before the last attempt on that path has ended.
        if !self.paths.has_leaving(&self.snapshot)
            && let Some(version) = self.holds.honoured(table, &self.commands)
        {
            self.manager.send(ToManager::Core(Event::Honoured(self.id, version)));
        }
        if let Some(fences) = self.fence.settled(&self.commands) {
            self.manager.send(ToManager::FenceSettled { lane: self.id, fences });
        }
        for (from, to, commands) in self.paths.take_moves() {
            self.manager.send(ToManager::Moved { from, to, commands });
        }
        self.counters.held.store(self.commands.len(), std::sync::atomic::Ordering::Relaxed);
        if let Some(hedges) = &mut self.hedges {
            hedges.prune(&self.commands);
        }
        guest.flush();
        // Only now: what a task management function ended is visible to the guest.
        self.report_finished_tasks();
        // Not before the guest's last question is answered: the manager forgets what a lane that
        // is gone has asked.
        if self.announced && self.mode != Mode::Serving && self.is_idle() {
            self.announced = false;
            self.manager.send(ToManager::Core(Event::LaneDown(self.id)));
        }
        debug_assert!(self.commands.are_consistent());
    }
}

impl<T: Transport> Driven for Lane<T> {
    fn turn<G: Guest>(&mut self, guest: &mut G, now: Instant) -> Turn {
        self.end_drain(guest, now);
        self.read_mail(guest, now);
        if self.snapshot.table.policy == Policy::Numa {
            self.selector.numa_node = (self.node)();
        }
        self.keep_time(guest, now);
        if self.mode == Mode::Serving {
            self.take_control_requests(guest);
        }
        let more = self.take_requests(guest, now);
        let busy = self.exchange(guest, now);
        self.finish_turn(guest);
        Turn { again: more || busy, timer: self.next_timer(now) }
    }

    fn wait_fds(&self) -> &[RawFd] {
        self.paths.wait_fds()
    }

    fn wait_fds_version(&self) -> u64 {
        self.paths.wait_fds_version()
    }

    fn drain(&mut self, deadline: Instant) {
        self.mode = match self.mode {
            Mode::Serving => Mode::Draining(deadline),
            Mode::Draining(earlier) if !self.commands.is_empty() => {
                Mode::Draining(earlier.min(deadline))
            }
            Mode::Draining(_) => Mode::Draining(deadline),
            Mode::Leaving if self.commands.is_empty() => Mode::Draining(deadline),
            Mode::Leaving => Mode::Leaving,
            Mode::Disconnected => Mode::Disconnected,
        };
    }

    fn drain_tasks(&mut self, deadline: Instant) {
        self.tasks.drain(deadline);
    }

    fn disconnect(&mut self) {
        self.mode = Mode::Disconnected;
        self.abandon_all(&mut |owed, _| owed.abandon());
    }

    fn is_idle(&self) -> bool {
        self.commands.is_empty() && self.tasks.is_empty() && self.holds.are_known()
    }

    fn resume(&mut self) {
        self.mode = Mode::Serving;
        if self.announced && !self.is_idle() {
            // Its request ring never stopped.
            return;
        }
        if self.announced {
            // It was stopped and started between two turns: to the manager it is another run.
            self.manager.send(ToManager::Core(Event::LaneDown(self.id)));
        }
        self.announced = true;
        self.gives_back = false;
        self.runs += 1;
        self.holds.acknowledge_again();
        self.manager.send(ToManager::Core(Event::LaneUp(self.id)));
        // It has nothing from before; of later ones it tells when it has read of them.
        let (lane, fences) = (self.id, self.fence.seen());
        self.manager.send(ToManager::FenceSettled { lane, fences });
    }
}
