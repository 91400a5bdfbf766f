//! Deadlines: of an attempt, of a command, of a drain; and rests between tries.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use super::commands::{Command, Doom, State};
use super::flow::lost;
use super::{Lane, Mode};
use crate::completion::{Outcome, Response};
use crate::engine::driven::Driven;
use crate::engine::guest::{Guest, Leftovers};
use crate::engine::messages::ToManager;
use crate::ids::Slot;
use crate::limits::{CHANNEL_BACKOFF, DEADLINE_SCAN};
use crate::lun::Repeat;
use crate::path::Transport;
use crate::scsi::Status;

/// A clock that runs only while a path exists: what `command_deadline` is measured with. A command
/// that waits through an hour without paths has not been tried for an hour.
#[derive(Debug)]
pub struct Clock {
    /// What it showed when it last stood still.
    shown: Duration,
    /// Since when it runs.
    runs_since: Option<Instant>,
    next_scan: Option<Instant>,
    /// When channels that could not be opened are tried again.
    open_again: Option<Instant>,
    /// No requests are taken before this time: the manager has to catch up.
    pub pause: Option<Instant>,
    /// The last reading, and when that was: a turn asks for it with every command.
    read: Option<(Instant, Duration)>,
}

impl Clock {
    /// A clock that runs if a path exists.
    pub fn new(paths_exist: bool, now: Instant) -> Self {
        Clock {
            shown: Duration::ZERO,
            runs_since: paths_exist.then_some(now),
            next_scan: None,
            open_again: None,
            pause: None,
            read: None,
        }
    }

    /// True once per [`CHANNEL_BACKOFF`].
    fn may_open_again(&mut self, now: Instant) -> bool {
        let due = self.open_again.is_none_or(|due| due <= now);
        if due {
            self.open_again = Some(now + CHANNEL_BACKOFF);
        }
        due
    }

    /// The first path came, or the last went.
    pub fn paths_exist(&mut self, exist: bool, now: Instant) {
        self.read = None;
        match (self.runs_since, exist) {
            (None, true) => self.runs_since = Some(now),
            (Some(_), false) => {
                self.shown = self.trying(now);
                self.runs_since = None;
            }
            _ => {}
        }
    }

    /// What it shows, as [`Clock::trying`]; remembered for the next question of the same time.
    pub fn read(&mut self, now: Instant) -> Duration {
        match self.read {
            Some((at, shown)) if at == now => shown,
            _ => {
                let shown = self.trying(now);
                self.read = Some((now, shown));
                shown
            }
        }
    }

    /// What it shows.
    pub fn trying(&self, now: Instant) -> Duration {
        let run =
            self.runs_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        self.shown + run
    }
}

/// Commands that rest, by the time at which they go on. Entries of commands that have ended
/// meanwhile are recognized by the serial number.
#[derive(Debug, Default)]
pub struct Rests(BinaryHeap<Reverse<(Instant, Slot, u64)>>);

impl Rests {
    /// `slot` rests until `until`.
    pub fn add(&mut self, until: Instant, slot: Slot, serial: u64) {
        self.0.push(Reverse((until, slot, serial)));
    }

    fn next(&self) -> Option<Instant> {
        self.0.peek().map(|Reverse((until, ..))| *until)
    }

    fn take_due(&mut self, now: Instant) -> Option<(Slot, u64)> {
        if self.next()? > now {
            return None;
        }
        self.0.pop().map(|Reverse((_, slot, serial))| (slot, serial))
    }

    /// Nobody rests any more.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

impl<T: Transport> Lane<T> {
    /// Looks at everything that has become due.
    pub(super) fn keep_time<G: Guest>(&mut self, guest: &mut G, now: Instant) {
        if self.hedges.is_some() {
            self.keep_hedges(now);
        }
        while let Some((slot, serial)) = self.rests.take_due(now) {
            let command = &self.commands[slot];
            let rested = matches!(command.state, State::Resting(until) if until <= now);
            if command.serial == serial && rested {
                self.drive(guest, slot, now);
            }
        }
        if self.tasks.next_timer().is_some_and(|deadline| deadline <= now) {
            self.fail_tasks(guest);
        }
        if let Mode::Draining(deadline) = self.mode {
            self.go_on_draining(guest, deadline <= now);
        }
        if self.commands.is_empty() {
            self.clock.next_scan = None;
            return;
        }
        match self.clock.next_scan {
            Some(due) if now < due => {}
            _ => {
                self.clock.next_scan = Some(now + DEADLINE_SCAN);
                self.scan_deadlines(guest, now);
            }
        }
    }

    /// The next time at which this lane must be woken.
    pub(super) fn next_timer(&self, now: Instant) -> Option<Instant> {
        let scan = (!self.commands.is_empty())
            .then(|| self.clock.next_scan.unwrap_or(now + DEADLINE_SCAN));
        let drain = match self.mode {
            Mode::Draining(deadline) if !self.is_idle() && deadline > now => Some(deadline),
            _ => None,
        };
        let limit = self.deadlines.path_timeout;
        let hedges = self.hedges.as_ref().and_then(|hedges| hedges.next_timer(limit));
        let tasks = self.tasks.next_timer();
        let paths = self.paths.next_timer();
        let others = [drain, tasks, self.rests.next(), paths, hedges, self.clock.pause];
        others.into_iter().chain([scan]).flatten().min()
    }

    fn scan_deadlines<G: Guest>(&mut self, guest: &mut G, now: Instant) {
        if self.paths.has_missing() && self.clock.may_open_again(now) {
            self.paths.adopt(&self.snapshot);
            self.retry_waiting(guest, now);
        }
        for slot in self.commands.slots() {
            match self.commands[slot].state {
                State::Flying { path, sent, recalled: false }
                    if now.saturating_duration_since(sent) >= self.deadlines.path_timeout =>
                {
                    self.timed_out(slot, path);
                }
                State::Flying { path, sent, recalled: false } => {
                    self.look_at_age(slot, path, now.saturating_duration_since(sent));
                }
                State::Waiting | State::Resting(_) | State::Held
                    if self.tried_for(slot, now) >= self.deadlines.command_deadline =>
                {
                    self.drive(guest, slot, now);
                }
                _ => {}
            }
        }
    }

    /// The time of a drain is up: before anything else of a turn, for mail may let a command go on, and
    /// nothing may begin any more.
    pub(super) fn end_drain<G: Guest>(&mut self, guest: &mut G, now: Instant) {
        if let Mode::Draining(deadline) = self.mode
            && deadline <= now
        {
            self.go_on_draining(guest, true);
        }
    }

    /// What no path has is given back at once, where that can be: it goes on when the ring starts
    /// again. When the time is up the rest is given back too. Where nothing takes it back, it fails;
    /// but a driver that goes on elsewhere is told to send it again there.
    fn go_on_draining<G: Guest>(&mut self, guest: &mut G, time_is_up: bool) {
        match (guest.leftovers(), time_is_up) {
            (Leftovers::GiveBack, true) => {
                self.fail_tasks(guest);
                self.mode = Mode::Leaving;
                if !self.commands.is_empty() {
                    self.tell_of_giving_back();
                }
                self.abandon_all(&mut |owed, data_in| guest.give_back(owed, data_in));
            }
            (Leftovers::GiveBack, false) => {
                for slot in self.slots_that_wait() {
                    // Once given back, nobody knows any more that it was never sent.
                    if self.commands[slot].row.repeat != Repeat::Never {
                        self.tell_of_giving_back();
                        self.abandon(slot, |owed, data_in| guest.give_back(owed, data_in));
                    }
                }
            }
            (Leftovers::Resend, false) => {
                for slot in self.slots_that_wait() {
                    let busy = Outcome::status(Status::BUSY, self.commands[slot].request.room());
                    self.complete(guest, slot, &busy);
                }
            }
            (leftovers @ (Leftovers::Resend | Leftovers::Fail), true) => {
                self.fail_all(guest, leftovers);
                self.fail_tasks(guest);
            }
            (Leftovers::Fail, false) => {}
        }
    }

    /// A ring that does not take requests any more may have some that go on at the next start.
    pub(super) fn tell_of_leftovers<G: Guest>(&mut self, guest: &G) {
        if guest.leftovers() == Leftovers::GiveBack {
            self.tell_of_giving_back();
        }
    }

    /// Before the first command of a run is given back: a task management function that is answered
    /// from now on must not say that it has ended it. What goes back later is known by then, since
    /// the deadline tells of all that is left.
    fn tell_of_giving_back(&mut self) {
        if !std::mem::replace(&mut self.gives_back, true) {
            self.manager.send(ToManager::GaveBack(self.id));
        }
    }

    /// True where requests are taken. A guest that goes on elsewhere has the ones left that were given
    /// back and not taken again since: they must be answered here.
    pub(super) fn takes<G: Guest>(&self, guest: &G) -> bool {
        match self.mode {
            Mode::Serving => true,
            Mode::Draining(_) => guest.leftovers() == Leftovers::Resend,
            Mode::Leaving | Mode::Disconnected => false,
        }
    }

    /// The answer to a request of this kind that is taken when the time of a drain is up: what is left
    /// of before is taken still.
    pub(super) fn too_late(&self, repeat: Repeat, now: Instant) -> Option<Outcome> {
        match self.mode {
            Mode::Draining(deadline) if deadline <= now => {
                Some(elsewhere(repeat, self.spare.room()))
            }
            _ => None,
        }
    }

    /// Commands that are on no path, and of which nothing is executed or known to have been.
    fn slots_that_wait(&self) -> Vec<Slot> {
        let waits = |command: &Command| {
            matches!(command.state, State::Waiting | State::Resting(_) | State::Held)
                && command.doom.is_none()
        };
        self.commands.iter().filter(|(_, command)| waits(command)).map(|(slot, _)| slot).collect()
    }

    /// The drain's time is up: everything that is left fails, as virtio wants it before a reset; or
    /// is to be sent again, if that may be.
    fn fail_all<G: Guest>(&mut self, guest: &mut G, leftovers: Leftovers) {
        for slot in self.commands.slots() {
            if self.commands[slot].state == State::Free {
                continue;
            }
            let room = self.commands[slot].request.room();
            let outcome = match leftovers {
                Leftovers::Resend => elsewhere(self.commands[slot].row.repeat, room),
                _ => Outcome::response(Response::Failure, room),
            };
            match &mut self.commands[slot].doom {
                Some(Doom { patient, .. }) if *patient => *patient = false,
                Some(_) => continue,
                None => {}
            }
            self.doom(guest, slot, outcome, false);
        }
    }
}

/// The answer to a command that cannot end here, for a driver that goes on elsewhere.
fn elsewhere(repeat: Repeat, room: u32) -> Outcome {
    match repeat {
        Repeat::Never => lost(room),
        _ => Outcome::status(Status::BUSY, room),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clock_stands_still_without_paths() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut clock = Clock::new(false, start);
        clock.paths_exist(true, at(1));
        assert_eq!(clock.read(at(4)), Duration::from_secs(3));
        clock.paths_exist(false, at(4));
        clock.paths_exist(false, at(50));
        assert_eq!(clock.read(at(100)), Duration::from_secs(3));
        clock.paths_exist(true, at(100));
        clock.paths_exist(true, at(101));
        assert_eq!(clock.read(at(102)), Duration::from_secs(5));
        assert_eq!(
            (clock.read(at(102)), clock.trying(at(102))),
            (Duration::from_secs(5), Duration::from_secs(5))
        );
    }

    #[test]
    fn rests_come_back_in_time_order() {
        let start = Instant::now();
        let mut rests = Rests::default();
        rests.add(start + Duration::from_millis(20), Slot(2), 2);
        rests.add(start + Duration::from_millis(10), Slot(1), 1);
        assert_eq!(rests.take_due(start), None);
        assert_eq!(rests.take_due(start + Duration::from_millis(15)), Some((Slot(1), 1)));
        assert_eq!(rests.take_due(start + Duration::from_millis(15)), None);
    }
}
