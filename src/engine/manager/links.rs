//! The manager's own channels: to each path one question of the core at a time, and one reservation
//! command.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::buffer::OwnedBuffer;
use crate::ids::{AttemptId, PathId, Slot};
use crate::multipath::probe::Question;
use crate::path::{Channel, Ended, Fate, Task, Transport, TransportEvent};

/// Whose question it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asker {
    /// The core's, about the path.
    Core,
    /// A reservation command.
    Reservations,
}

impl Asker {
    const ALL: [Asker; 2] = [Asker::Core, Asker::Reservations];

    fn slot(self) -> Slot {
        Slot(self as u16)
    }
}

/// A question that has ended.
#[derive(Debug)]
pub struct Answered {
    /// Over which path.
    pub path: PathId,
    /// Who asked.
    pub asker: Asker,
    /// How.
    pub fate: Fate,
    /// The transport's session that carried it.
    pub session: u32,
    /// The data that came.
    pub data: Vec<u8>,
}

/// A question under way. The buffer lives until its end has come.
#[derive(Debug)]
struct Asked {
    attempt: AttemptId,
    buffer: OwnedBuffer,
    /// Lent as well.
    _data_out: OwnedBuffer,
    at: Instant,
    recalled: bool,
}

struct Link<T: Transport> {
    transport: Arc<T>,
    channel: T::Channel,
    /// By [`Asker`].
    asked: [Option<Asked>; Asker::ALL.len()],
    generation: u32,
    /// What the core was last told of its limit.
    bytes_max: Option<u32>,
}

/// All paths, as the manager talks to them.
pub struct Links<T: Transport> {
    links: BTreeMap<PathId, Link<T>>,
    version: u64,
    scratch: Vec<Ended>,
}

impl<T: Transport> Default for Links<T> {
    fn default() -> Self {
        Links { links: BTreeMap::new(), version: 0, scratch: Vec::new() }
    }
}

impl<T: Transport> Links<T> {
    /// A new path; its limit.
    pub fn add(&mut self, path: PathId, transport: Arc<T>) -> io::Result<Option<u32>> {
        let channel = transport.probe_channel()?;
        let bytes_max = transport.limits().bytes_max;
        let link = Link { transport, channel, asked: [None, None], generation: 0, bytes_max };
        self.links.insert(path, link);
        self.version += 1;
        Ok(bytes_max)
    }

    /// The path is gone. The core has seen to it that no question is under way.
    pub fn close(&mut self, path: PathId) {
        if let Some(link) = self.links.remove(&path) {
            let free = link.asked.iter().all(Option::is_none);
            debug_assert!(free, "{path} closed with a question under way");
            self.version += 1;
        }
    }

    /// The transport of `path`.
    pub fn transport(&self, path: PathId) -> Option<&Arc<T>> {
        self.links.get(&path).map(|link| &link.transport)
    }

    /// All transports, for a snapshot.
    pub fn transports(&self) -> Vec<(PathId, Arc<T>)> {
        self.links.iter().map(|(path, link)| (*path, Arc::clone(&link.transport))).collect()
    }

    /// Sends a question. False where there is no such path.
    pub fn ask(&mut self, path: PathId, asker: Asker, question: Question, now: Instant) -> bool {
        let Some(link) = self.links.get_mut(&path) else { return false };
        debug_assert!(link.asked[asker as usize].is_none(), "one question at a time");
        link.generation = link.generation.wrapping_add(1);
        let attempt = AttemptId { slot: asker.slot(), generation: link.generation };
        let buffer = OwnedBuffer::zeroed(question.room);
        let data_out = OwnedBuffer::from_vec(question.data_out);
        let (out, into) = (data_out.segments(), buffer.segments());
        let task = Task { cdb: &question.cdb, data_out: out, data_in: into };
        link.channel.submit(attempt, task, now);
        link.channel.flush();
        link.asked[asker as usize] =
            Some(Asked { attempt, buffer, _data_out: data_out, at: now, recalled: false });
        true
    }

    /// Asks for the end of the core's question to `path`, if one is under way.
    pub fn give_up(&mut self, path: PathId) {
        if let Some(link) = self.links.get_mut(&path)
            && let Some(asked) = &mut link.asked[Asker::Core as usize]
            && !std::mem::replace(&mut asked.recalled, true)
        {
            link.channel.recall(asked.attempt);
        }
    }

    /// Asks for the end of questions that have taken too long.
    pub fn give_up_late(&mut self, now: Instant, limit: Duration) {
        for link in self.links.values_mut() {
            for asked in link.asked.iter_mut().flatten() {
                if !asked.recalled && now.saturating_duration_since(asked.at) >= limit {
                    asked.recalled = true;
                    link.channel.recall(asked.attempt);
                }
            }
        }
    }

    /// Questions that have ended.
    pub fn answers(&mut self, now: Instant) -> Vec<Answered> {
        let mut answers = Vec::new();
        for (path, link) in &mut self.links {
            link.channel.reap(now, &mut self.scratch);
            for ended in self.scratch.drain(..) {
                let asker = Asker::ALL.into_iter().find(|asker| asker.slot() == ended.attempt.slot);
                let Some(asker) = asker else { continue };
                let asked = &mut link.asked[asker as usize];
                if let Some(asked) = asked.take_if(|asked| asked.attempt == ended.attempt) {
                    let Ended { fate, session, .. } = ended;
                    let data = asked.buffer.to_vec();
                    answers.push(Answered { path: *path, asker, fate, session, data });
                }
            }
        }
        answers
    }

    /// News of the links themselves.
    pub fn events(&self) -> Vec<(PathId, TransportEvent)> {
        let of = |(path, link): (&PathId, &Link<T>)| {
            let path = *path;
            link.transport.events().into_iter().map(move |event| (path, event)).collect::<Vec<_>>()
        };
        self.links.iter().flat_map(of).collect()
    }

    /// Limits that are not what they were at the last call.
    pub fn new_limits(&mut self) -> Vec<(PathId, Option<u32>)> {
        let of = |(path, link): (&PathId, &mut Link<T>)| {
            let bytes_max = link.transport.limits().bytes_max;
            (std::mem::replace(&mut link.bytes_max, bytes_max) != bytes_max)
                .then_some((*path, bytes_max))
        };
        self.links.iter_mut().filter_map(of).collect()
    }

    /// When a channel or an unanswered question wants to be looked at.
    pub fn next_timer(&self, limit: Duration) -> Option<Instant> {
        let of = |link: &Link<T>| {
            let asked = link.asked.iter().flatten().filter(|asked| !asked.recalled);
            [link.channel.next_timer(), asked.map(|asked| asked.at + limit).min()]
        };
        self.links.values().flat_map(of).flatten().min()
    }

    /// Descriptors to wait on.
    pub fn ready_fds(&self) -> Vec<RawFd> {
        self.links.values().filter_map(|link| link.channel.ready_fd()).collect()
    }

    /// Counts the changes of [`Links::ready_fds`].
    pub fn version(&self) -> u64 {
        self.version
    }
}
