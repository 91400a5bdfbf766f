//! The lane's part: clones are sent, win or lose, and attempts are left behind.

use std::sync::Arc;
use std::time::Instant;

use super::{Second, size_class};
use crate::buffer::Segments;
use crate::engine::guest::Guest;
use crate::engine::lane::commands::State;
use crate::engine::lane::ends::outcome_of;
use crate::engine::lane::{Lane, Mode};
use crate::engine::messages::ToManager;
use crate::ids::{AttemptId, PathId, Slot};
use crate::limits::HEDGE_PAUSE;
use crate::multipath::classify::{Class, classify};
use crate::multipath::retry::{Problem, Tries, rule};
use crate::multipath::{Event, Selector};
use crate::path::{Ended, Failure, Fate, Task, Transport};
use crate::scsi::Status;
use crate::stats::bump;

impl<T: Transport> Lane<T> {
    /// Clones reads that have become slow, and gives up attempts that nobody waits for any more.
    pub(in crate::engine::lane) fn keep_hedges(&mut self, now: Instant) {
        while let Some(attempt) = self.hedges.as_mut().and_then(|hedges| hedges.next_slow(now)) {
            self.clone_read(attempt, now);
        }
        self.report_overdue_seconds(now);
        let limit = self.deadlines.path_timeout;
        let late = |second: &Second| now.saturating_duration_since(second.sent) >= limit;
        for path in self.recall_seconds(late) {
            self.report_of_second(path, Problem::Failed(Failure::TimedOut));
        }
    }

    /// Nobody waits for these, and yet a path that does not answer them is no better for that.
    fn report_overdue_seconds(&mut self, now: Instant) {
        let Some(hedges) = &mut self.hedges else { return };
        let mut overdue = Vec::new();
        for second in hedges.seconds.0.iter_mut().filter(|second| !second.recalled) {
            if second.suspicious_at().is_some_and(|at| at <= now) {
                second.overdue = true;
                overdue.push(second.path);
            }
        }
        for path in overdue {
            self.report_of_second(path, Problem::Overdue);
        }
    }

    /// Clones the read of `attempt`, if that is still under way and all else allows it.
    fn clone_read(&mut self, attempt: AttemptId, now: Instant) {
        let table = Arc::clone(&self.snapshot.table);
        let Some(command) = self.commands.of_attempt(attempt) else { return };
        let State::Flying { path, .. } = command.state else { return };
        if command.doom.is_some() || command.hedged || self.holds.keeps_back(&table, command) {
            return;
        }
        let mut without = command.tried.union(&self.paths.suspects());
        without.insert(path);
        let bytes = command.request.room();
        let Some(entry) = Selector::second(&table, &without, path, bytes) else { return };
        let Some(hedges) = &mut self.hedges else { return };
        let counters = &self.counters.hedges;
        let Some(memory) = hedges.clone_of(command) else { return bump(&counters.denied, 1) };
        bump(&counters.sent, 1);
        let slot = attempt.slot;
        let command = &mut self.commands[slot];
        command.hedged = true;
        let attempt = AttemptId { slot, generation: command.next_generation() };
        command.second = Some(attempt.generation);
        entry.load.started(bytes);
        if let Some(header) = &command.request.header {
            let nothing = Segments::new();
            let task = Task { cdb: &header.cdb, data_out: &nothing, data_in: memory.room() };
            self.paths.submit(entry.id, attempt, task, now);
        }
        let load = Some(Arc::clone(&entry.load));
        let (path, sent, recalled, overdue) = (entry.id, now, false, false);
        hedges.seconds.0.push(Second { attempt, path, sent, recalled, overdue, memory, load });
    }

    /// True where `ended` is about an attempt that is not its command's main one; it is dealt with.
    pub(in crate::engine::lane) fn second_ended<G: Guest>(
        &mut self,
        guest: &mut G,
        ended: &Ended,
        now: Instant,
    ) -> bool {
        let Some(hedges) = &mut self.hedges else { return false };
        let Some(second) = hedges.seconds.take(ended.attempt) else { return false };
        let Second { path, sent, memory, load, .. } = second;
        let verdict = classify(&ended.fate);
        let done = verdict.class == Class::Done;
        let (took, bytes) = (now.saturating_duration_since(sent), memory.room().len());
        if let Some(load) = load {
            load.ended(bytes as u32, now.saturating_duration_since(sent), now, done);
        }
        if done {
            hedges.measured(path, bytes, took);
        } else {
            self.counters.path(path).error(verdict.class);
        }
        // What it says of the path counts; what it says to the command does not.
        let ruling = rule(verdict, crate::lun::Repeat::Freely, &mut Tries::default());
        if let Some(problem) = ruling.problem {
            self.report_of_second(path, problem);
        }
        self.pass_on_attention(path, verdict.class, sent);
        let slot = ended.attempt.slot;
        let command = &mut self.commands[slot];
        let is_clone = command.second == Some(ended.attempt.generation);
        let waits = is_clone && command.doom.is_none() && self.mode != Mode::Disconnected;
        if is_clone {
            command.second = None;
        }
        match &ended.fate {
            Fate::Answered(answer) if waits && answer.status == Status::GOOD => {
                let outcome = outcome_of(answer.clone(), &command.request);
                memory.room().copy_to(&command.request.data_in, outcome.stored as usize);
                if let Some(header) = &command.request.header {
                    let counters = self.counters.path(path);
                    counters.answered(header.cdb.opcode(), bytes as u64, 0, took);
                }
                self.give_back(memory);
                self.judge_clone(true, now);
                let left = self.leave(slot);
                debug_assert!(left, "only a command with memory of its own is cloned");
                self.complete(guest, slot, &outcome);
            }
            _ => {
                self.give_back(memory);
                if is_clone {
                    self.judge_clone(false, now);
                }
            }
        }
        true
    }

    /// The main attempt has failed: where a clone is under way, that is the main attempt now.
    pub(in crate::engine::lane) fn promote(&mut self, slot: Slot, failed: PathId) -> bool {
        let command = &mut self.commands[slot];
        let Some(hedges) = self.hedges.as_mut().filter(|_| command.doom.is_none()) else {
            return false;
        };
        let Some(generation) = command.second.take() else { return false };
        let Some(second) = hedges.seconds.take(AttemptId { slot, generation }) else {
            return false;
        };
        let Second { path, sent, recalled, overdue, memory, .. } = second;
        command.generation = generation;
        command.state = State::Flying { path, sent, recalled };
        command.overdue = overdue;
        command.tried.insert(failed);
        command.last = Some(path);
        if let Some(memory) = command.own.replace(memory) {
            hedges.pool.take_back(memory);
        }
        bump(&self.counters.path(failed).failovers, 1);
        self.paths.moved(failed, path);
        true
    }

    /// The main attempt of a command goes on without it, where it writes to memory of its own: the
    /// command may be answered. False, and nothing has happened, where it does not.
    pub(in crate::engine::lane) fn leave(&mut self, slot: Slot) -> bool {
        let Some(hedges) = &mut self.hedges else { return false };
        let table = &self.snapshot.table;
        hedges.seconds.leave(slot, &mut self.commands[slot], table).is_some()
    }

    /// A main attempt was answered: its data goes to the guest, if it was kept elsewhere.
    pub(in crate::engine::lane) fn hand_over(&mut self, slot: Slot, stored: u32) {
        let command = &self.commands[slot];
        if let Some(own) = &command.own {
            own.room().copy_to(&command.request.data_in, stored as usize);
        }
    }

    /// A command is over, and no attempt of it is its main one: its memory is free, and a clone is
    /// left behind.
    pub(in crate::engine::lane) fn part_with_seconds(&mut self, slot: Slot) {
        let command = &mut self.commands[slot];
        debug_assert!(!matches!(command.state, State::Flying { .. }), "its memory is lent");
        command.second = None;
        if let Some(memory) = command.own.take() {
            self.give_back(memory);
        }
    }

    /// A main attempt was answered at `now`: what that says of reads on its path, and of its clone.
    pub(in crate::engine::lane) fn measure_read(
        &mut self,
        slot: Slot,
        path: PathId,
        sent: Instant,
        now: Instant,
    ) {
        let command = &self.commands[slot];
        let Some(hedges) = &mut self.hedges else { return };
        if let Some(class) = super::class_of(command) {
            let bytes = command.request.data_in.len();
            debug_assert_eq!(size_class(bytes), Some(class));
            hedges.measured(path, bytes, now.saturating_duration_since(sent));
        }
        if command.second.is_some() {
            self.judge_clone(false, now);
        }
    }

    /// Takes attempts back that `which` chooses; the paths that they are on.
    pub(in crate::engine::lane) fn recall_seconds(
        &mut self,
        which: impl Fn(&Second) -> bool,
    ) -> Vec<PathId> {
        let mut from = Vec::new();
        let Some(hedges) = &mut self.hedges else { return from };
        for second in &mut hedges.seconds.0 {
            if !second.recalled && which(second) {
                second.recalled = true;
                self.paths.recall(second.path, second.attempt);
                from.push(second.path);
            }
        }
        from
    }

    /// As [`Lane::recall_seconds`], from paths of which nothing is to be hoped.
    pub(in crate::engine::lane) fn recall_seconds_from(&mut self, dead: impl Fn(PathId) -> bool) {
        self.recall_seconds(|second| dead(second.path));
    }

    /// Reports on a path. A lane on which the manager does not count at present is never told that
    /// it was heard: it only passes the news on.
    fn report_of_second(&mut self, path: PathId, problem: Problem) {
        if self.announced {
            return self.report(path, problem);
        }
        let event = Event::Reported { lane: self.id, number: 0, path, problem };
        self.manager.send(ToManager::Core(event));
    }

    fn judge_clone(&mut self, won: bool, now: Instant) {
        let Some(hedges) = &mut self.hedges else { return };
        bump(&self.counters.hedges.won, u64::from(won));
        if hedges.budget.judge(won, now) {
            bump(&self.counters.hedges.pauses, 1);
            log::info!("{}: clones do not help, none for {HEDGE_PAUSE:?}", self.id);
        }
    }

    fn give_back(&mut self, memory: super::Lent) {
        if let Some(hedges) = &mut self.hedges {
            hedges.pool.take_back(memory);
        }
    }
}
