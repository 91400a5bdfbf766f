//! The path's thread, and what it shares with lanes: takes jobs, hands them to libiscsi, brings
//! ends back.

use std::collections::{BTreeMap, VecDeque};
use std::mem;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Plan;
use super::flights::{Flights, fate, vendor};
use super::helm::{Helm, Reader};
use super::link::Link;
use super::look_up::LookUp;
use super::mailbox::{ChannelId, Door, Job, Mailbox, Message};
use super::proof::Proofs;
use super::pulse::Backoff;
use super::shim_sys::{self, CANCELLED, Data, Wire};
use crate::ids::AttemptId;
use crate::limits::{ISCSI_FLIGHTS_MAX, ISCSI_UNSENT_MAX};
use crate::path::{Ended, Failure, Fate, Reach, TransportEvent};

/// The session's state, used by whoever holds the helm. See the module's picture.
pub(super) struct Driver {
    pub(super) plan: Plan,
    pub(super) mailbox: Arc<Mailbox>,
    pub(super) look_up: LookUp,
    pub(super) channels: BTreeMap<ChannelId, Door>,
    /// Not handed to libiscsi: certainly not sent.
    pub(super) waiting: VecDeque<Job>,
    pub(super) flights: Flights,
    /// Ends that the channels have not been given yet.
    pub(super) ended: BTreeMap<ChannelId, Vec<Ended>>,
    pub(super) link: Link,
    pub(super) reader: Reader,
    /// The lane that sent last.
    pub(super) last_lane: Option<ChannelId>,
    /// More than one lane has sent lately: until then the thread reads.
    pub(super) crowded_until: Instant,
    pub(super) backoff: Backoff,
    pub(super) proofs: Proofs,
    /// Portals of this round that were not tried yet.
    pub(super) portals: VecDeque<SocketAddr>,
    /// The portal of the last session.
    pub(super) last_portal: Option<SocketAddr>,
    /// Counts rounds, so that a late look-up is recognized.
    pub(super) rounds: u64,
    /// No login has ended yet: jobs wait for the first. Later ones do not, other paths are better.
    pub(super) hopeful: bool,
    /// Why the link is down, as the manager was last told.
    told: Option<String>,
    pub(super) stopping: bool,
}

impl Driver {
    pub(super) fn new(plan: Plan, mailbox: Arc<Mailbox>, look_up: LookUp) -> Self {
        Driver {
            proofs: Proofs::new(plan.relogin_is_proof),
            plan,
            mailbox,
            look_up,
            channels: BTreeMap::new(),
            waiting: VecDeque::new(),
            flights: Flights::default(),
            ended: BTreeMap::new(),
            link: Link::Resting { until: Instant::now() },
            reader: Reader::Thread,
            last_lane: None,
            crowded_until: Instant::now(),
            backoff: Backoff::default(),
            portals: VecDeque::new(),
            last_portal: None,
            rounds: 0,
            hopeful: true,
            told: None,
            stopping: false,
        }
    }

    /// The thread's share of a turn: all that is due.
    fn turn(&mut self) {
        for message in self.mailbox.take() {
            self.receive(message, Instant::now());
        }
        self.step(Instant::now());
        self.hand_over();
        self.take_ends();
        self.deliver();
        self.follow();
    }

    /// The path is closed: whoever still wants something is told so.
    fn end(&mut self) {
        for message in self.mailbox.close() {
            self.receive(message, Instant::now());
        }
        self.fail_waiting();
        self.deliver();
    }

    fn receive(&mut self, message: Message, now: Instant) {
        match message {
            Message::Open(channel, door) => {
                self.channels.insert(channel, door);
            }
            Message::Jobs(jobs) => {
                if let Some(job) = jobs.first() {
                    self.note_sender(job.channel, now);
                }
                self.accept(jobs.into_iter());
            }
            Message::Recall(channel, attempt) => self.recall(channel, attempt, now),
            Message::Close(channel, gate) => {
                self.waiting.retain(|job| job.channel != channel);
                if self.flights.iter().any(|job| job.channel == channel) {
                    self.lose("dropped to take back what a lane had left on it", None, now);
                }
                if matches!(self.reader, Reader::Lane(reader, _) if reader == channel) {
                    self.take_reading_back();
                }
                // A lane that is gone takes no turns with the others.
                self.last_lane = self.last_lane.filter(|last| *last != channel);
                self.channels.remove(&channel);
                self.ended.remove(&channel);
                gate.open();
            }
            Message::Resolved(round, portals) => self.resolved(round, portals, now),
            Message::Stop => {
                self.stopping = true;
                self.leave(now);
            }
        }
    }

    pub(super) fn accept(&mut self, jobs: impl Iterator<Item = Job>) {
        let takes = !self.stopping && (self.hopeful || matches!(self.link, Link::Up(_)));
        for job in jobs {
            let mine = |other: &&Job| other.channel == job.channel;
            if !takes {
                self.fail(&job, Failure::Disconnected, Reach::NotSent, 0);
            } else if self.waiting.len() + self.flights.len() >= ISCSI_FLIGHTS_MAX
                && self.waiting.iter().filter(mine).count()
                    + self.flights.iter().filter(mine).count()
                    >= ISCSI_FLIGHTS_MAX
            {
                self.fail(&job, Failure::HostBusy, Reach::NotSent, 0);
            } else {
                self.waiting.push_back(job);
            }
        }
    }

    fn recall(&mut self, channel: ChannelId, attempt: AttemptId, now: Instant) {
        let wanted = |job: &Job| (job.channel, job.attempt) == (channel, attempt);
        if let Some(job) =
            self.waiting.iter().position(wanted).and_then(|at| self.waiting.remove(at))
        {
            return self.fail(&job, Failure::Recalled, Reach::NotSent, 0);
        }
        // Its answer may be here already.
        self.take_ends();
        if self.flights.has(channel, attempt) {
            let why = "dropped to take back a command that has no answer";
            self.lose(why, Some((channel, attempt)), now);
        }
    }

    /// Gives libiscsi what it can send at once. What it cannot send stays here, where it is known
    /// not to have been sent.
    pub(super) fn hand_over(&mut self) {
        let Link::Up(up) = &mut self.link else { return };
        let wire = &mut up.wire;
        let is_full = wire.unsent() >= ISCSI_UNSENT_MAX;
        if (self.waiting.is_empty() || is_full) && wire.has_unsent() && !wire.flags().dropped() {
            // What the target has asked for, or now has room for.
            wire.send(true);
        }
        while !self.waiting.is_empty() && !wire.flags().dropped() {
            let room = ISCSI_UNSENT_MAX.saturating_sub(wire.unsent());
            if room == 0 {
                return;
            }
            let mut pieces = 0;
            for job in self.waiting.drain(..room.min(self.waiting.len())) {
                let token = self.flights.insert(job);
                let Some(job) = self.flights.get(token) else { continue };
                pieces += 1 + job.data_out.pieces();
                let data = match (job.data_out.is_empty(), job.data_in.is_empty()) {
                    (false, _) => Data::Out(&job.data_out),
                    (true, false) => Data::In(&job.data_in),
                    (true, true) => Data::None,
                };
                if !wire.command(self.plan.address.lun, job.cdb.bytes(), data, token)
                    && let Some(job) = self.flights.remove(token)
                {
                    let fate = Fate::Failed(Failure::HostBusy, Reach::NotSent);
                    let end = Ended { attempt: job.attempt, fate, session: 0 };
                    self.ended.entry(job.channel).or_default().push(end);
                }
            }
            wire.send(pieces > 1);
        }
    }

    /// Takes out what libiscsi has ended; true when that was something.
    pub(super) fn take_ends(&mut self) -> bool {
        let Link::Up(up) = &mut self.link else { return false };
        let mut any = false;
        while let Some(end) = up.wire.take() {
            // The session is gone: `lose` ends what was on it.
            if end.status == CANCELLED {
                continue;
            }
            let Some(job) = self.flights.remove(end.token) else { continue };
            let fate = fate(&end, &job);
            if let Some(vendor) = vendor(&job, &fate) {
                self.proofs.identified(vendor);
            }
            let end = Ended { attempt: job.attempt, fate, session: up.session };
            self.ended.entry(job.channel).or_default().push(end);
            any = true;
        }
        any
    }

    /// Ends the session with a reset, and all that was on it. `recalled` was to be taken back.
    pub(super) fn lose(
        &mut self,
        why: &str,
        recalled: Option<(ChannelId, AttemptId)>,
        now: Instant,
    ) {
        self.take_ends();
        if !matches!(self.link, Link::Up(_)) {
            return;
        }
        self.take_reading_back();
        let Link::Up(up) = mem::replace(&mut self.link, Link::Over) else { return };
        let (session, lasted) = (up.session, now.saturating_duration_since(up.since));
        // From here on nothing touches lent memory.
        drop(up);
        if !self.stopping {
            self.link = Link::Resting { until: now + self.backoff.next(Some(lasted)) };
        }
        // The reason first, then the ends: see the manager's turn.
        self.tell_down(why);
        for job in self.flights.drain() {
            let failure = match recalled == Some((job.channel, job.attempt)) {
                true => Failure::Recalled,
                false => Failure::Disconnected,
            };
            self.fail(&job, failure, Reach::Unknown, session);
        }
        self.fail_waiting();
    }

    /// Ends what was not sent.
    pub(super) fn fail_waiting(&mut self) {
        for job in mem::take(&mut self.waiting) {
            self.fail(&job, Failure::Disconnected, Reach::NotSent, 0);
        }
    }

    fn fail(&mut self, job: &Job, failure: Failure, reach: Reach, session: u32) {
        let end = Ended { attempt: job.attempt, fate: Fate::Failed(failure, reach), session };
        self.ended.entry(job.channel).or_default().push(end);
    }

    /// Tells the manager why there is no link, if that is news.
    pub(super) fn tell_down(&mut self, why: &str) {
        if self.told.as_deref() != Some(why) {
            self.told = Some(why.to_owned());
            self.tell(TransportEvent::Down(why.to_owned()));
        }
    }

    /// Tells the manager that there is one, whose session began at `since` or later.
    pub(super) fn tell_up(&mut self, since: Instant) {
        self.told = None;
        self.tell(TransportEvent::Up { nexus_since: Some(since) });
    }

    /// News; any channel may be the manager's, so all are woken.
    pub(super) fn tell(&mut self, event: TransportEvent) {
        self.mailbox.tell(event);
        for door in self.channels.values() {
            door.outbox.put(&mut Vec::new());
        }
    }

    /// Gives the channels their ends, with one wake-up each.
    pub(super) fn deliver(&mut self) {
        for (channel, ends) in self.ended.iter_mut().filter(|(_, ends)| !ends.is_empty()) {
            if let Some(door) = self.channels.get(channel) {
                door.outbox.put(ends);
            }
            ends.clear();
        }
    }

    /// What the thread waits for, and how long in milliseconds.
    fn rest(&mut self) -> ([libc::pollfd; 2], i32) {
        let now = Instant::now();
        let mut fds = [shim_sys::readable(self.mailbox.fd()), shim_sys::readable(-1)];
        if self.reader == Reader::Thread
            && let Some(wire) = self.link.wire()
        {
            fds[1] = wire.poll_fd();
        }
        // Rounded up, so that the thread does not spin through the last part of a millisecond.
        let left = self.next_timer(now).saturating_duration_since(now) + Duration::from_micros(999);
        (fds, i32::try_from(left.as_millis()).unwrap_or(i32::MAX))
    }

    /// The thread has waited, and the connection has these events.
    fn awake(&mut self, revents: i16) {
        // A lane may have begun to read meanwhile.
        if revents == 0 || self.reader != Reader::Thread {
            return;
        }
        let Some(wire) = self.link.wire() else { return };
        serviced(wire, revents);
        if let Link::Up(up) = &mut self.link
            && revents & libc::POLLIN != 0
        {
            up.pulse.heard(Instant::now());
        }
    }
}

/// The thread's life. Only it takes connections up and down, so that the one it waits for stays.
pub(super) fn run(helm: &Helm) {
    loop {
        let mut held = helm.hold();
        let Some(driver) = &mut *held else { return };
        driver.turn();
        if matches!(driver.link, Link::Over) {
            driver.end();
            *held = None;
            return;
        }
        let (mut fds, timeout) = driver.rest();
        drop(held);
        let waited = shim_sys::wait(&mut fds, timeout);
        let mut held = helm.hold();
        let Some(driver) = &mut *held else { return };
        match waited {
            Ok(()) => driver.awake(fds[1].revents),
            Err(error) => {
                let why = format!("the host cannot wait for the connection: {error}");
                driver.lose(&why, None, Instant::now());
                drop(held);
                std::thread::sleep(Duration::from_millis(100));
            }
        }
    }
}

/// What came before the connection broke is taken in first.
fn serviced(wire: &mut Wire, revents: i16) {
    let broken = revents & (libc::POLLHUP | libc::POLLERR | libc::POLLNVAL) != 0;
    if broken && revents & libc::POLLIN != 0 && wire.flags().logged_in() {
        wire.service(libc::POLLIN);
    }
    if !wire.flags().dropped() {
        wire.service(revents);
    }
}
