//! The manager's own channels: one question at a time to each path.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::buffer::OwnedBuffer;
use crate::ids::{AttemptId, PathId, Slot};
use crate::multipath::probe::Question;
use crate::path::{Channel, Ended, Fate, Task, Transport, TransportEvent};

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
    asked: Option<Asked>,
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
        let link = Link { transport, channel, asked: None, generation: 0, bytes_max };
        self.links.insert(path, link);
        self.version += 1;
        Ok(bytes_max)
    }

    /// The path is gone. The core has seen to it that no question is under way.
    pub fn close(&mut self, path: PathId) {
        if let Some(link) = self.links.remove(&path) {
            debug_assert!(link.asked.is_none(), "{path} closed with a question under way");
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

    /// Sends a question.
    pub fn ask(&mut self, path: PathId, question: Question, now: Instant) {
        let Some(link) = self.links.get_mut(&path) else { return };
        debug_assert!(link.asked.is_none(), "one question at a time");
        link.generation = link.generation.wrapping_add(1);
        let attempt = AttemptId { slot: Slot(0), generation: link.generation };
        let buffer = OwnedBuffer::zeroed(question.room);
        let data_out = OwnedBuffer::from_vec(question.data_out);
        let (out, into) = (data_out.segments(), buffer.segments());
        let task = Task { cdb: &question.cdb, data_out: out, data_in: into };
        link.channel.submit(attempt, task, now);
        link.channel.flush();
        link.asked = Some(Asked { attempt, buffer, _data_out: data_out, at: now, recalled: false });
    }

    /// Asks for the end of the question to `path`, if one is under way.
    pub fn give_up(&mut self, path: PathId) {
        if let Some(link) = self.links.get_mut(&path)
            && let Some(asked) = &mut link.asked
            && !std::mem::replace(&mut asked.recalled, true)
        {
            link.channel.recall(asked.attempt);
        }
    }

    /// Asks for the end of questions that have taken too long.
    pub fn give_up_late(&mut self, now: Instant, limit: Duration) {
        for link in self.links.values_mut() {
            if let Some(asked) = &mut link.asked
                && !asked.recalled
                && now.saturating_duration_since(asked.at) >= limit
            {
                asked.recalled = true;
                link.channel.recall(asked.attempt);
            }
        }
    }

    /// Questions that have ended, with the data that came.
    pub fn answers(&mut self, now: Instant) -> Vec<(PathId, Fate, Vec<u8>)> {
        let mut answers = Vec::new();
        for (path, link) in &mut self.links {
            link.channel.reap(now, &mut self.scratch);
            for ended in self.scratch.drain(..) {
                if link.asked.as_ref().is_some_and(|asked| asked.attempt == ended.attempt)
                    && let Some(asked) = link.asked.take()
                {
                    answers.push((*path, ended.fate, asked.buffer.to_vec()));
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
            let asked = link.asked.as_ref().filter(|asked| !asked.recalled);
            [link.channel.next_timer(), asked.map(|asked| asked.at + limit)]
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
