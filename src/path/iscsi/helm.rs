//! Who serves the connection: the path's thread, or a lane that is alone on the session.
//!
//! To hand a command over to the thread and its end back costs two wake-ups, and that was half of
//! what a command cost. So a lane does itself what needs no thread: it gives libiscsi its commands
//! and lets it send them, and where no other lane has commands on the session it also reads the
//! answers, and waits for the connection as it does for its rings. Whoever is at it holds the
//! [`Helm`]; a lane that finds it held does not wait, and hands over as before.
//!
//! | | the thread | a lane |
//! |---|---|---|
//! | look up, connect, log in and out, end a session | always | never |
//! | ask a silent target, and judge it | always | never |
//! | commands of the manager | always | never |
//! | a lane's own commands | where the lane found the helm held, or no session | else |
//! | reading, for all channels | else | while it alone has commands, and answers come |
//!
//! The thread takes the reading back when no answer has come for a while: the target may be silent,
//! or the lane. From when it has asked the target until something is heard it is the thread that
//! listens, so whether a target is alive is never judged by what a lane has not read. What goes wrong under a lane's
//! hands (the connection breaks, the target wants a logout) it leaves to the thread as it is.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Instant;

use super::driver::Driver;
use super::flights::Flights;
use super::link::{Link, Up};
use super::mailbox::{ChannelId, Job};
use crate::limits::ISCSI_CROWDED;
use crate::path::Ended;

/// The driver, for whoever is at it. Empty when the thread has ended.
pub(super) struct Helm(Mutex<Option<Driver>>);

impl Helm {
    pub(super) fn new(driver: Driver) -> Self {
        Helm(Mutex::new(Some(driver)))
    }

    /// For the thread: waits while a lane is at it, which does nothing there that takes long.
    pub(super) fn hold(&self) -> MutexGuard<'_, Option<Driver>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For a lane, which never waits.
    pub(super) fn try_hold(&self) -> Option<MutexGuard<'_, Option<Driver>>> {
        match self.0.try_lock() {
            Ok(held) => Some(held),
            Err(TryLockError::Poisoned(error)) => Some(error.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

impl fmt::Debug for Helm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Helm")
    }
}

/// Who reads what the target sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reader {
    Thread,
    /// A lane, which waits for these events of poll's on the connection.
    Lane(ChannelId, i16),
}

impl Driver {
    /// Sends a lane's batch. Ends of its own go to `ends`. True when the lane reads from now on;
    /// `None` when it is the thread that has to take the batch, which is left as it was.
    pub(super) fn submit(
        &mut self,
        channel: ChannelId,
        batch: &mut Vec<Job>,
        now: Instant,
        ends: &mut Vec<Ended>,
    ) -> Option<bool> {
        let Link::Up(up) = &self.link else { return None };
        if self.stopping || is_ending(up, &self.flights) || !self.channels.contains_key(&channel) {
            return None;
        }
        self.accept(batch.drain(..));
        self.hand_over();
        self.choose_reader(channel, now);
        Some(self.leave_helm(channel, ends))
    }

    /// A lane reads what has come, and sends what has room now. False when it is not to read any
    /// more.
    pub(super) fn read(&mut self, channel: ChannelId, now: Instant, ends: &mut Vec<Ended>) -> bool {
        let Link::Up(up) = &mut self.link else { return false };
        if !matches!(self.reader, Reader::Lane(reader, _) if reader == channel) {
            return false;
        }
        if is_ending(up, &self.flights) {
            // Why is noted already.
            return self.leave_helm(channel, ends);
        }
        up.wire.service(libc::POLLIN);
        if self.take_ends()
            && let Link::Up(up) = &mut self.link
        {
            // That a lane has read is known by what came of it alone.
            up.pulse.heard(now);
        }
        self.hand_over();
        self.leave_helm(channel, ends)
    }

    /// Brings the ends to where they belong, and wakes the thread for what is its own; true while
    /// `channel` reads.
    fn leave_helm(&mut self, channel: ChannelId, ends: &mut Vec<Ended>) -> bool {
        if let Link::Up(up) = &self.link
            && is_ending(up, &self.flights)
        {
            // The thread says why first; then the ends go out, see `lose`.
            self.take_reading_back();
            self.mailbox.wake();
            return false;
        }
        if let Some(own) = self.ended.get_mut(&channel) {
            ends.append(own);
        }
        self.deliver();
        self.follow();
        match (self.reader, &self.link) {
            (Reader::Lane(reader, _), _) => reader == channel,
            (Reader::Thread, Link::Up(up)) if up.wire.has_unsent() => {
                // It may be waiting for something to read alone.
                self.mailbox.wake();
                false
            }
            (Reader::Thread, _) => false,
        }
    }

    /// `channel` has sent: does it read from now on?
    fn choose_reader(&mut self, channel: ChannelId, now: Instant) {
        if self.note_sender(channel, now) {
            return self.mailbox.wake();
        }
        match self.reader {
            Reader::Lane(..) => return,
            Reader::Thread if now < self.crowded_until || !self.is_alone(channel) => return,
            Reader::Thread => {}
        }
        let Link::Up(up) = &self.link else { return };
        let Some(Some(ready)) = self.channels.get(&channel).map(|one| &one.ready) else { return };
        let connection = up.wire.poll_fd();
        // While the target has been asked whether it is alive, it is the thread that listens.
        if !up.pulse.is_asked() && ready.watch(connection.fd, connection.events).is_ok() {
            self.reader = Reader::Lane(channel, connection.events);
            // So that it waits for the connection no more.
            self.mailbox.wake();
        }
    }

    /// `channel` has sent, by itself or through the thread. Where another lane reads, the thread
    /// does from now on; true then, as it has to know. Lanes that take turns would pass the reading
    /// from one to the other, each time with a wait until the thread is awake.
    pub(super) fn note_sender(&mut self, channel: ChannelId, now: Instant) -> bool {
        // The manager's are few.
        if self.channels.get(&channel).is_none_or(|one| one.ready.is_none()) {
            return false;
        }
        if self.last_lane.replace(channel).is_some_and(|last| last != channel) {
            self.crowded_until = now + ISCSI_CROWDED;
        }
        let is_anothers = matches!(self.reader, Reader::Lane(reader, _) if reader != channel);
        if is_anothers {
            self.take_reading_back();
        }
        is_anothers
    }

    /// No other lane has commands here. The manager's are few.
    fn is_alone(&self, channel: ChannelId) -> bool {
        let is_another_lane = |job: &Job| {
            job.channel != channel
                && self.channels.get(&job.channel).is_some_and(|one| one.ready.is_some())
        };
        !self.waiting.iter().any(is_another_lane) && !self.flights.iter().any(is_another_lane)
    }

    /// The thread reads from now on; it has to be woken for that, or be who calls.
    pub(super) fn take_reading_back(&mut self) {
        let Reader::Lane(channel, _) = self.reader else { return };
        self.reader = Reader::Thread;
        if let Some(wire) = self.link.wire()
            && let Some(Some(ready)) = self.channels.get(&channel).map(|one| &one.ready)
        {
            ready.forget(wire.poll_fd().fd);
        }
    }

    /// The lane that reads also waits for room in the connection while something is queued.
    pub(super) fn follow(&mut self) {
        let (Reader::Lane(channel, events), Link::Up(up)) = (&mut self.reader, &self.link) else {
            return;
        };
        let connection = up.wire.poll_fd();
        if *events == connection.events {
            return;
        }
        *events = connection.events;
        let ready = self.channels.get(channel).and_then(|one| one.ready.as_ref());
        if ready.is_none_or(|ready| ready.change(connection.fd, *events).is_err()) {
            self.take_reading_back();
            self.mailbox.wake();
        }
    }
}

/// The thread has to end this session.
pub(super) fn is_ending(up: &Up, flights: &Flights) -> bool {
    let flags = up.wire.flags();
    flags.dropped() || flags.logged_out() || keeps_too_much(up, flights)
}

/// Commands that have ended are kept without a bound. They were all under way when the first of them
/// ended, so this is never true unless libiscsi sends in another order than by CmdSN.
pub(super) fn keeps_too_much(up: &Up, flights: &Flights) -> bool {
    up.wire.lingering() > flights.most()
}
