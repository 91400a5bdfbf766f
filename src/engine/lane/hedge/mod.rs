//! Hedged reads: a read that takes too long is cloned to another path, and the first answer wins.
//!
//! ```text
//!                                          .-- answers first --> copied to the guest, answered
//!   read --> main attempt, own memory -----+
//!               |                          '-- fails --> the clone becomes the main attempt
//!               '- slow --> clone, memory of its own --+-- answers first --> copied, answered;
//!                                                      |   the main attempt is left behind
//!                                                      '-- comes second, or fails: forgotten
//! ```
//!
//! **Whose memory.** The guest's memory is lent to one attempt at a time and to none after the
//! answer. An attempt that lost may go on for as long as its path likes: to end it before its time
//! would cost an iSCSI path its session. So no attempt of a read that may be cloned is lent the
//! guest's memory at all: main attempt and clone each write to memory of their own, from a bounded
//! pool, and the winner's data is copied to the guest. A command whose main attempt has memory of
//! its own has it in `Command::own`; only such a command is ever cloned ([`Hedges::clone_of`] wants
//! that memory), and only such an attempt can be left behind ([`Seconds::leave`] takes it over). An
//! attempt that is left behind owns what it writes to, until its end.
//!
//! That costs one copy per read, while hedging is on and a clone is possible. What was tried on
//! paper: the first attempt in the guest's memory and only the clone in its own. Then the clone's
//! win answers nobody before the first attempt has ended, which on a path that is slow is just what
//! the guest is to be spared.
//!
//! **When.** A read is slow when it has been under way for longer than the percentile (`hedge_percentile`)
//! of the reads of its size on its path; or, where that path often has slow ones, for longer than
//! the percentile of the best other path and twice its own path's median. Measured by each lane by
//! itself.
//!
//! **Never**: commands that change something, reads of more than the largest of
//! [`crate::limits::HEDGE_SIZES`], reads whose blocks wait for an unproven write, over a path that
//! is suspect, shaky, of a lower access state, or that was tried already, a second time for one
//! command, without budget, and for a while after clones were not faster than what they are clones
//! of: then the array is slow, and more work makes it slower.
//!
//! What is left behind is in nobody's way: the command is answered, a ring may stop, the path's load
//! counts it until its end. `path_timeout` ends it as any attempt, and a path that fails takes it
//! back. It is counted nowhere a second time: neither as a read nor as a try.
//!
//! | file | what |
//! |---|---|
//! | [`memory`] | memory of our own, and why it cannot be freed while it is lent |
//! | [`pace`] | how long reads take |
//! | [`budget`] | how many clones may be sent |
//! | `clones` | the lane's part: sent, won, lost, left behind |

pub mod budget;
mod clones;
pub mod memory;
pub mod pace;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::budget::Budget;
use self::memory::{Lent, Pool, size_class};
use self::pace::Pace;
use super::commands::{Command, Commands, State};
use super::overdue::suspicious_after;
use crate::engine::messages::Hedging;
use crate::ids::{AttemptId, PathId, Slot};
use crate::limits::{HEDGE_AFTER_MIN, HEDGE_RECKON, HEDGE_SIZES, RING_SIZE_MAX};
use crate::lun::{Repeat, Route};
use crate::multipath::{Load, Table};
use crate::scsi::opcode;

/// Reads of about one size on one path.
#[derive(Debug)]
struct Track {
    path: PathId,
    class: usize,
    pace: Pace,
    /// From then on one is slow; `None` before enough is known.
    after: Option<Duration>,
    /// Reads under way, in the order in which they were sent; some have ended meanwhile.
    watched: VecDeque<(AttemptId, Instant)>,
}

/// An attempt that is not its command's main one: a clone, or one that was left behind.
#[derive(Debug)]
pub struct Second {
    attempt: AttemptId,
    path: PathId,
    sent: Instant,
    recalled: bool,
    /// The manager was told that it takes long.
    overdue: bool,
    /// What it writes to.
    memory: Lent,
    load: Option<Arc<Load>>,
}

impl Second {
    /// When it has been under way for suspiciously long, unless the manager knows.
    fn suspicious_at(&self) -> Option<Instant> {
        let room = self.memory.room().len() as u32;
        (!self.overdue).then(|| self.sent + suspicious_after(self.load.as_deref(), room))
    }
}

/// Attempts that are not their command's main ones.
#[derive(Debug, Default)]
pub struct Seconds(Vec<Second>);

impl Seconds {
    /// The main attempt of `command` goes on without it. `None`, and nothing has happened, where
    /// it is not under way or writes to the guest's memory.
    fn leave(&mut self, slot: Slot, command: &mut Command, table: &Table) -> Option<()> {
        let State::Flying { path, sent, recalled } = command.state else { return None };
        let memory = command.own.take()?;
        command.state = State::Waiting;
        let attempt = AttemptId { slot, generation: command.generation };
        let load = table.entry(path).map(|entry| Arc::clone(&entry.load));
        let overdue = command.overdue;
        self.0.push(Second { attempt, path, sent, recalled, overdue, memory, load });
        Some(())
    }

    fn position(&self, attempt: AttemptId) -> Option<usize> {
        self.0.iter().position(|second| second.attempt == attempt)
    }

    fn take(&mut self, attempt: AttemptId) -> Option<Second> {
        self.position(attempt).map(|at| self.0.swap_remove(at))
    }
}

/// One lane's hedging.
#[derive(Debug)]
pub struct Hedges {
    settings: Hedging,
    pool: Pool,
    budget: Budget,
    tracks: Vec<Track>,
    seconds: Seconds,
    /// There is more than one path to choose from.
    possible: bool,
    /// Reads measured since the tracks' times were reckoned.
    measured: u32,
}

impl Hedges {
    /// Nothing is known yet.
    pub fn new(settings: Hedging, table: &Table) -> Self {
        let mut hedges = Hedges {
            budget: Budget::new(settings.budget),
            settings,
            pool: Pool::default(),
            tracks: Vec::new(),
            seconds: Seconds::default(),
            possible: false,
            measured: 0,
        };
        hedges.adopt(table);
        hedges
    }

    /// A new table has come.
    pub fn adopt(&mut self, table: &Table) {
        self.possible = table.entries.iter().filter(|entry| entry.is_usable()).count() > 1;
        self.tracks.retain(|track| table.entry(track.path).is_some());
        self.reckon();
    }

    /// A read is about to be sent over `path`: it gets memory of its own if it may be cloned, and
    /// is watched.
    pub fn prepare(&mut self, slot: Slot, command: &mut Command, path: PathId, now: Instant) {
        let Some(class) = class_of(command) else { return };
        self.budget.earn();
        if self.track(path, class).after.is_none() || !self.possible || self.budget.is_paused(now) {
            return;
        }
        if command.own.is_none() {
            command.own = self.pool.take(command.request.data_in.len());
        }
        if command.own.is_some() && !command.hedged {
            let attempt = AttemptId { slot, generation: command.generation };
            self.track(path, class).watched.push_back((attempt, now));
        }
    }

    /// A read of `bytes` was answered.
    fn measured(&mut self, path: PathId, bytes: usize, took: Duration) {
        let Some(class) = size_class(bytes) else { return };
        self.track(path, class).pace.measured(took);
        self.measured += 1;
        if self.measured >= HEDGE_RECKON.min(self.settings.samples_min) {
            self.reckon();
        }
    }

    /// The time from which on a read is slow, for each track.
    fn reckon(&mut self) {
        self.measured = 0;
        let (permille, least) = (self.settings.permille, self.settings.samples_min);
        let known = |track: &Track| track.pace.total() >= least;
        let best: Vec<Option<(Duration, PathId)>> = (0..HEDGE_SIZES.len())
            .map(|class| {
                let of_class = self.tracks.iter().filter(|one| one.class == class && known(one));
                of_class.map(|one| (one.pace.percentile(permille), one.path)).min()
            })
            .collect();
        for track in &mut self.tracks {
            if track.pace.total() < least {
                track.after = None;
                continue;
            }
            let own = track.pace.percentile(permille);
            let other = match best[track.class] {
                Some((other, path)) if path != track.path => {
                    other.max(2 * track.pace.percentile(500))
                }
                _ => own,
            };
            track.after = Some(own.min(other).max(HEDGE_AFTER_MIN));
        }
    }

    /// A read that has become slow, taken from the list.
    fn next_slow(&mut self, now: Instant) -> Option<AttemptId> {
        let due = |track: &&mut Track| {
            let (Some(after), Some((_, sent))) = (track.after, track.watched.front()) else {
                return false;
            };
            *sent + after <= now
        };
        self.tracks.iter_mut().find(due)?.watched.pop_front().map(|(attempt, _)| attempt)
    }

    /// Memory for a clone of `command`, if it is paid for: of one that has memory of its own.
    fn clone_of(&mut self, command: &Command) -> Option<Lent> {
        let len = command.own.as_ref()?.room().len();
        if !self.budget.spend() {
            return None;
        }
        self.pool.take(len)
    }

    /// Forgets reads that were answered before they were slow.
    pub fn prune(&mut self, commands: &Commands) {
        let gone = |attempt: &AttemptId| commands.of_attempt(*attempt).is_none();
        for track in &mut self.tracks {
            while track.watched.front().is_some_and(|(attempt, _)| gone(attempt)) {
                track.watched.pop_front();
            }
            if track.watched.len() > 2 * usize::from(RING_SIZE_MAX) {
                track.watched.retain(|(attempt, _)| !gone(attempt));
            }
        }
    }

    /// When something becomes due, where attempts may last for `path_timeout`.
    pub fn next_timer(&self, path_timeout: Duration) -> Option<Instant> {
        let slow = |track: &Track| Some(track.watched.front()?.1 + track.after?);
        let slow = self.tracks.iter().filter_map(slow);
        let seconds = self.seconds.0.iter().filter(|second| !second.recalled);
        // Where commands usually take long, the one may come after the other.
        let due = |second: &Second| {
            let limit = second.sent + path_timeout;
            second.suspicious_at().map_or(limit, |at| at.min(limit))
        };
        slow.chain(seconds.map(due)).min()
    }

    fn track(&mut self, path: PathId, class: usize) -> &mut Track {
        let known = self.tracks.iter().position(|one| (one.path, one.class) == (path, class));
        let at = known.unwrap_or(self.tracks.len());
        if at == self.tracks.len() {
            let (pace, watched) = (Pace::default(), VecDeque::new());
            self.tracks.push(Track { path, class, pace, after: None, watched });
        }
        &mut self.tracks[at]
    }
}

/// The size class of a command that may be cloned.
fn class_of(command: &Command) -> Option<usize> {
    let header = command.request.header.as_ref()?;
    let reads = matches!(
        header.cdb.opcode(),
        opcode::READ_6 | opcode::READ_10 | opcode::READ_12 | opcode::READ_16
    );
    let plain = command.row.repeat == Repeat::Freely && command.row.route == Route::Forward;
    let (room, out) = (command.request.data_in.len(), command.request.data_out.len());
    if reads && plain && room > 0 && out == 0 { size_class(room) } else { None }
}
