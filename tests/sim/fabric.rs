//! The way between host and array: what arrives, when, and what gets lost on the way. Each attempt
//! is executed at most once, and its answer comes back at most once; everything else may happen.

use std::cmp::Reverse;
use std::time::Duration;

use vhost_user_scsi_mpath::buffer::Segments;
use vhost_user_scsi_mpath::ids::{AttemptId, LaneId, Slot};
use vhost_user_scsi_mpath::multipath::classify::{Class, classify};
use vhost_user_scsi_mpath::path::{Answer, Ended, Failure, Fate, Reach, Task, TransportEvent};
use vhost_user_scsi_mpath::scsi::{Cdb, Status, opcode};

use crate::array::{Clear, EVENT, Reply};
use crate::cluster::is_ours;
use crate::scene::Scene;

/// What the fabric does at some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// The attempt is handed to the wire.
    Send(u64),
    /// It arrives at the array.
    Arrive(u64),
    /// Its answer arrives at the host.
    Answer(u64),
    /// Its memory comes back without an answer.
    Return(u64),
    /// A login arrives at this port.
    Login(usize),
    /// The host of this port lets go of what it kept under this number.
    Unpark(usize, u32, u64),
    /// A path stores data where it has no business any more: only a mutant does that.
    Trespass(u64),
}

/// One sending of one command.
#[derive(Debug)]
pub struct Attempt {
    /// Over which port.
    pub port: usize,
    /// From which lane, or the manager.
    pub client: LaneId,
    /// The engine's name for it.
    pub id: AttemptId,
    /// The guest's command; `None` for a probe's question.
    pub serial: Option<u64>,
    /// The port's session that carries it, 0 without one.
    pub session: u32,
    /// When it was given to the path.
    pub sent: Duration,
    /// The command itself.
    pub cdb: Cdb,
    /// Data on the wire.
    pub payload: Vec<u8>,
    /// The memory lent for data from the array.
    pub room: Segments,
    /// The memory is lent.
    pub live: bool,
    /// It is on the wire, or was.
    pub handed: bool,
    /// Its end was asked for.
    pub recalled: bool,
    /// It stays in the host although its end was told.
    pub parked: bool,
    /// It will not be executed any more.
    pub void: bool,
    /// It has been executed or refused.
    pub arrived: bool,
    /// Its answer will not come.
    pub mute: bool,
    /// It was sent by somebody who could not know what is behind the port.
    pub doubted: bool,
    /// The array's answer.
    pub reply: Option<Reply>,
    /// That tells of the guest's own doing.
    pub own: bool,
}

impl Scene {
    /// A path is lent memory.
    pub fn submit(&mut self, port: usize, client: LaneId, id: AttemptId, task: Task<'_>) {
        let key = self.number();
        let serial = self.judge_submission(port, client, key, &task);
        let room = task.data_in.clone();
        let doubted = self.ports[port].doubted.contains(&client);
        let attempt = Attempt {
            port,
            client,
            id,
            serial,
            session: self.ports[port].session.map_or(0, |session| session.number),
            sent: self.now,
            cdb: *task.cdb,
            payload: task.data_out.to_vec(),
            room,
            live: true,
            handed: false,
            recalled: false,
            parked: false,
            void: false,
            arrived: false,
            mute: false,
            doubted,
            reply: None,
            own: false,
        };
        self.say(|| {
            format!("{client} sends {id:?} of {serial:?} over port {port}: {:?}", task.cdb)
        });
        self.attempts.insert(key, attempt);
        self.live.insert((port, client, id), key);
        self.dispatch(key);
    }

    fn dispatch(&mut self, key: u64) {
        let (port, serial) = (self.attempts[&key].port, self.attempts[&key].serial);
        let arrives = self.now + self.wire() + self.limp(key);
        let (host_busy, queued) = (self.options.host_busy, self.options.queued);
        if !self.ports[port].link {
            return self.end(key, Fate::Failed(Failure::Disconnected, Reach::NotSent));
        }
        if self.options.lies.executes_unsent && serial.is_some() && self.random.chance(100) {
            self.plan(arrives, Step::Arrive(key));
            return self.end(key, Fate::Failed(Failure::HostBusy, Reach::NotSent));
        }
        if serial.is_some() && self.mishap(host_busy) {
            return self.end(key, Fate::Failed(Failure::HostBusy, Reach::NotSent));
        }
        if self.ports[port].session.is_some() && self.mishap(queued) {
            return self.plan(arrives, Step::Send(key));
        }
        if self.ports[port].kept_back {
            return self.say(|| format!("  {key} is kept back"));
        }
        self.hand_over(key);
    }

    /// The attempt goes to the wire.
    pub fn hand_over(&mut self, key: u64) {
        let Some(attempt) = self.attempts.get(&key).filter(|attempt| attempt.live) else { return };
        let (port, client) = (attempt.port, attempt.client);
        let (hangs, deaf) = (self.ports[port].hangs, self.ports[port].deaf);
        let (drop, lose, queued) = (self.options.drop, self.options.lose, self.options.queued);
        if hangs && self.ports[port].session.is_some() && self.mishap(queued) {
            return self.say(|| format!("  {key} finds no room on the wire"));
        }
        let arrives = self.now + self.wire() + self.limp(key);
        if let Some(attempt) = self.attempts.get_mut(&key) {
            attempt.handed = true;
        }
        let spared = client == LaneId::MANAGER && self.options.lies.probes_pass_silence;
        if hangs && !spared || self.mishap(drop) {
            return self.say(|| format!("  {key} is lost on the way"));
        }
        let quiet = client == LaneId::MANAGER && self.options.lies.probes_get_lost;
        let mute = deaf || quiet || self.mishap(lose);
        self.plan(arrives, Step::Arrive(key));
        if let Some(attempt) = self.attempts.get_mut(&key) {
            attempt.mute = mute;
        }
    }

    /// The engine asks for an attempt's end.
    pub fn recall(&mut self, port: usize, client: LaneId, id: AttemptId) {
        let Some(key) = self.live.get(&(port, client, id)).copied() else { return };
        let Some(attempt) = self.attempts.get_mut(&key) else { return };
        if std::mem::replace(&mut attempt.recalled, true) {
            return;
        }
        self.say(|| format!("{client} recalls {id:?} from port {port}"));
        let slow = self.options.slow_recall;
        let max = self.options.recall_max;
        let longest = if self.mishap(slow) { max } else { Duration::from_micros(300) };
        let after = self.random.time(Duration::ZERO..longest);
        self.plan(self.now + after, Step::Return(key));
    }

    /// Takes what has ended for `client` over `port`.
    pub fn reap(&mut self, port: usize, client: LaneId, ended: &mut Vec<Ended>) {
        let ends = self.ends.get_mut(&(client, port)).map(std::mem::take).unwrap_or_default();
        for (end, serial) in ends {
            self.note_reaped(port, client, serial, &end.fate);
            ended.push(end);
        }
    }

    /// Does all that is due.
    pub fn advance(&mut self) {
        while let Some(Reverse((at, _, step))) = self.agenda.peek().copied() {
            if at > self.now {
                return;
            }
            self.agenda.pop();
            match step {
                Step::Send(key) => self.hand_over(key),
                Step::Arrive(key) => self.arrive(key),
                Step::Answer(key) => self.answer(key),
                Step::Return(key) => self.give_back(key),
                Step::Login(port) => self.log_in(port),
                Step::Unpark(port, number, key) => self.unpark(port, number, key),
                Step::Trespass(key) => self.trespass(key),
            }
        }
    }

    /// When the fabric has something to do.
    pub fn next_step(&self) -> Option<Duration> {
        self.agenda.peek().map(|Reverse((at, ..))| *at)
    }

    pub fn arrive(&mut self, key: u64) {
        let Some(attempt) = self.attempts.get(&key) else { return };
        if attempt.void || attempt.arrived {
            return;
        }
        let spared = attempt.client == LaneId::MANAGER
            && attempt.port == 0
            && self.options.lies.probes_pass_the_pause;
        // What was given up is an affair of its own: it lands within its time, paused or not.
        if attempt.live && self.now < self.paused_until && !spared {
            return self.plan(self.paused_until, Step::Arrive(key));
        }
        let reply = self.serve(key);
        let mut answers = self.now + self.wire() + self.limp(key);
        let (slow, slow_max) = (self.options.slow, self.options.slow_max);
        if self.mishap(slow) {
            answers += self.random.time(slow_max / 2..slow_max);
        }
        let Some(attempt) = self.attempts.get_mut(&key) else { return };
        attempt.arrived = true;
        attempt.own = reply.own;
        attempt.reply = Some(reply);
        if attempt.live && !attempt.mute {
            self.plan(answers, Step::Answer(key));
        } else if !attempt.live {
            self.forget(key);
        }
    }

    fn answer(&mut self, key: u64) {
        let Some(attempt) = self.attempts.get_mut(&key).filter(|attempt| attempt.live) else {
            return;
        };
        let spared = attempt.client == LaneId::MANAGER && self.options.lies.probes_pass_silence;
        if !self.ports[attempt.port].link || self.ports[attempt.port].hangs && !spared {
            return;
        }
        let Some(mut reply) = attempt.reply.take() else { return };
        let room = attempt.room.len();
        let short = self.options.short;
        if reply.status == Status::GOOD && self.attempts[&key].serial.is_some() {
            let len = reply.data.len();
            if len > 512 && self.mishap(short) {
                reply.data.truncate(self.random.below(len as u64 / 512) as usize * 512);
            }
        }
        let mut into = key;
        if self.options.lies.mixes_up_memory {
            let elsewhere = |key: &u64| {
                let serial = self.attempts.get(key).and_then(|one| one.serial);
                serial.is_some_and(|at| self.commands[&at].elsewhere.iter().any(|(k, _)| k == key))
            };
            let mut others = self.attempts.iter().filter(|(_, one)| one.live).map(|(at, _)| *at);
            into = others.find(|at| elsewhere(&key) && elsewhere(at)).unwrap_or(key);
        }
        self.attempts[&into].room.write_at(0, &reply.data);
        let attempt = &self.attempts[&key];
        let residual = match attempt.room.is_empty() {
            true => vhost_user_scsi_mpath::path::Residual::None,
            false => reply.residual(room),
        };
        let answer =
            Answer { status: reply.status, sense: reply.sense.clone().map(Box::new), residual };
        self.note_answer(key, &answer);
        self.end(key, Fate::Answered(answer));
    }

    /// What a limping link adds on the way.
    fn limp(&self, key: u64) -> Duration {
        let attempt = &self.attempts[&key];
        let spared = attempt.client == LaneId::MANAGER && self.options.lies.probes_do_not_limp;
        if spared { Duration::ZERO } else { self.ports[attempt.port].slow }
    }

    /// An attempt's memory comes back without an answer.
    fn give_back(&mut self, key: u64) {
        let Some(attempt) = self.attempts.get(&key).filter(|attempt| attempt.live) else { return };
        let (port, arrived, handed) = (attempt.port, attempt.arrived, attempt.handed);
        if self.ports[port].session.is_some() && handed {
            // There is no other way to be sure that the memory is not used any more.
            return self.drop_session(port, "dropped for a recall");
        }
        if self.ports[port].parking.is_some() && handed {
            return self.park(port, key);
        }
        let reach = match self.ports[port].proves {
            _ if !handed => Reach::NotSent,
            true if !arrived && self.random.chance(300) => Reach::NotSent,
            true => Reach::Terminated,
            false => Reach::Unknown,
        };
        self.end(key, Fate::Failed(Failure::Recalled, reach));
    }

    /// The link of `port` is cut: everything under way ends.
    pub fn cut(&mut self, port: usize) {
        if let Some(session) = &mut self.ports[port].session {
            session.cut = true;
            return self.drop_session(port, "cut");
        }
        self.ports[port].link = false;
        self.lose_attentions(port);
        if self.ports[port].tells {
            self.ports[port].news.push(TransportEvent::Down("cut".into()));
            self.ports[port].blocked_told = None;
        }
        for key in self.live_on(port) {
            let reach = match self.ports[port].proves {
                true => Reach::Terminated,
                false => Reach::Unknown,
            };
            self.end(key, Fate::Failed(Failure::Disconnected, reach));
        }
    }

    /// The attempts to which memory is lent over `port`.
    pub fn live_on(&self, port: usize) -> Vec<u64> {
        let first = (port, LaneId(0), AttemptId { slot: Slot(0), generation: 0 });
        let from = self.live.range(first..);
        from.take_while(|((at, ..), _)| *at == port).map(|(_, key)| *key).collect()
    }

    /// The attempt ends; the memory goes back.
    pub fn end(&mut self, key: u64, fate: Fate) {
        let lies = self.options.lies;
        let Some(attempt) = self.attempts.get_mut(&key) else { return };
        attempt.live = false;
        let (port, client, id) = (attempt.port, attempt.client, attempt.id);
        let (arrived, serial, room) = (attempt.arrived, attempt.serial, attempt.room.clone());
        let session = if attempt.handed { attempt.session } else { 0 };
        self.live.remove(&(port, client, id));
        let failed = matches!(fate, Fate::Failed(..));
        if failed && !room.is_empty() && self.random.chance(500) {
            // Data was on its way when the end came: it is worth nothing.
            let part = self.random.below(room.len() as u64) as usize;
            room.write_at(0, &vec![0xDB; part]);
        }
        if let Some(reply) = attempt.reply.as_ref().filter(|reply| failed && reply.tells_event()) {
            // The array thinks that it has told.
            let own = reply.own;
            self.loses_copy(port, own);
        }
        let fate = self.note_event(key, fate);
        self.say(|| format!("port {port} ends {id:?} of {serial:?} for {client}: {fate:?}"));
        self.note_end(key, &fate);
        self.note_doubt(port, &fate);
        let late = match fate {
            _ if self.attempts.get(&key).is_some_and(|attempt| attempt.parked) => true,
            Fate::Failed(_, Reach::Unknown) if !arrived => self.lands_late(key),
            Fate::Failed(_, Reach::Terminated) if !arrived && lies.lands_after_proof => {
                self.lands_late(key)
            }
            // The mutant's command is on its way already.
            Fate::Failed(Failure::HostBusy, _) => lies.executes_unsent,
            _ => false,
        };
        if lies.touches_memory_after_end && serial.is_some() && failed {
            self.plan(self.now + Duration::from_millis(50), Step::Trespass(key));
        } else if !late {
            self.forget(key);
        }
        let end = Ended { attempt: id, fate, session };
        self.ends.entry((client, port)).or_default().push((end, serial));
    }

    /// A path brings an event of the logical unit, or the answer to a question of the host's says
    /// that it has none to bring.
    fn note_event(&mut self, key: u64, fate: Fate) -> Fate {
        let Some(attempt) = self.attempts.get(&key) else { return fate };
        let port = &mut self.ports[attempt.port];
        let question = attempt.client == LaneId::MANAGER
            && !attempt.recalled
            && !is_ours(attempt.client, &attempt.cdb)
            && !matches!(
                attempt.cdb.opcode(),
                opcode::INQUIRY | opcode::MAINTENANCE_IN | opcode::MAINTENANCE_OUT
            );
        if question && matches!(&fate, Fate::Answered(answer) if answer.status == Status::GOOD) {
            let later = Duration::MAX;
            port.clearing = Some(Clear { of: attempt.sent, found: later, since: later });
        }
        if classify(&fate).class != Class::Attention(EVENT) {
            return fate;
        }
        if !attempt.own {
            let question = attempt.client == LaneId::MANAGER;
            let sent_later = |clear: &Clear| match question {
                true => attempt.sent >= clear.found,
                false => attempt.sent >= clear.since,
            };
            let clear = port.clear.filter(sent_later).map(|clear| clear.of);
            let lost = port.copy_lost;
            self.oracle.brings_event(lost, clear);
            self.say(|| format!("  an event; copy lost at {lost:?}, clear of {clear:?}"));
        }
        match self.options.lies.attentions_get_lost {
            true => Fate::Failed(Failure::HostBusy, Reach::NotSent),
            false => fate,
        }
    }

    /// The array gets to see it after all, some time later; or never.
    pub fn lands_late(&mut self, key: u64) -> bool {
        let (permille, quiesce) = (self.options.late, self.options.write_quiesce);
        if !self.random.chance(permille) {
            return false;
        }
        let mut after = self.random.time(Duration::ZERO..quiesce);
        if self.options.lies.lands_after_quiesce {
            after += quiesce;
        }
        let again = self.number();
        if let Some(attempt) = self.attempts.remove(&key) {
            // Under another key, so that an arrival planned before does not count.
            self.attempts.insert(again, attempt);
            self.plan(self.now + after, Step::Arrive(again));
        }
        true
    }

    fn trespass(&mut self, key: u64) {
        if let Some(attempt) = self.attempts.get(&key) {
            attempt.room.write_at(0, &[0xBA; 8]);
        }
        self.forget(key);
    }

    pub fn forget(&mut self, key: u64) {
        self.attempts.remove(&key);
    }
}
