//! Between channels and the path's thread: jobs go in, ends and news come out.

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicI32, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use super::ready::Ready;
use crate::buffer::Segments;
use crate::ids::AttemptId;
use crate::limits::ISCSI_EVENTS_MAX;
use crate::path::TransportEvent;
use crate::path::outbox::{Outbox, lock};
use crate::path::waker::Waker;
use crate::scsi::Cdb;

/// Names a channel. Never used again in the path's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ChannelId(pub(super) u32);

/// One attempt, with the memory lent for it.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) channel: ChannelId,
    pub(super) attempt: AttemptId,
    pub(super) cdb: Cdb,
    pub(super) data_out: Segments,
    pub(super) data_in: Segments,
}

/// Where a channel is reached.
#[derive(Debug)]
pub(super) struct Door {
    pub(super) outbox: Arc<Outbox>,
    /// What a lane waits on; the manager does not serve the connection.
    pub(super) ready: Option<Arc<Ready>>,
}

/// To the thread.
#[derive(Debug)]
pub(super) enum Message {
    /// A channel is there.
    Open(ChannelId, Door),
    /// A batch of attempts.
    Jobs(Vec<Job>),
    /// An attempt's end is wanted.
    Recall(ChannelId, AttemptId),
    /// A channel goes, and waits until none of its attempts is left.
    Close(ChannelId, Arc<Gate>),
    /// A name was looked up; the first value tells for which try.
    Resolved(u64, io::Result<Vec<SocketAddr>>),
    /// The path is closed.
    Stop,
}

#[derive(Debug, Default)]
struct Inbox {
    messages: Vec<Message>,
    channels: u32,
    closed: bool,
}

/// The thread's mailbox, and what it tells the manager.
#[derive(Debug)]
pub(super) struct Mailbox {
    inbox: Mutex<Inbox>,
    waker: Waker,
    events: Mutex<VecDeque<TransportEvent>>,
    /// Of the card towards the portal; negative where it has none.
    numa_node: AtomicI32,
}

impl Mailbox {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Mailbox {
            inbox: Mutex::default(),
            waker: Waker::new()?,
            events: Mutex::default(),
            numa_node: AtomicI32::new(-1),
        })
    }

    /// Posts `message` and wakes the thread. It comes back when the thread has ended.
    pub(super) fn post(&self, message: Message) -> Option<Message> {
        let mut inbox = lock(&self.inbox);
        if inbox.closed {
            return Some(message);
        }
        inbox.messages.push(message);
        drop(inbox);
        self.waker.raise();
        None
    }

    /// Has the thread look at everything again.
    pub(super) fn wake(&self) {
        self.waker.raise();
    }

    /// A number for a new channel.
    pub(super) fn new_channel(&self) -> ChannelId {
        let mut inbox = lock(&self.inbox);
        inbox.channels += 1;
        ChannelId(inbox.channels)
    }

    /// All that was posted; for the thread.
    pub(super) fn take(&self) -> Vec<Message> {
        if self.waker.take() { mem::take(&mut lock(&self.inbox).messages) } else { Vec::new() }
    }

    /// Nothing is taken from now on; what was posted until now.
    pub(super) fn close(&self) -> Vec<Message> {
        let mut inbox = lock(&self.inbox);
        inbox.closed = true;
        mem::take(&mut inbox.messages)
    }

    /// Readable when something was posted.
    pub(super) fn fd(&self) -> RawFd {
        self.waker.as_raw_fd()
    }

    /// Keeps news for the manager.
    pub(super) fn tell(&self, event: TransportEvent) {
        let mut events = lock(&self.events);
        if events.len() == ISCSI_EVENTS_MAX {
            events.pop_front();
        }
        events.push_back(event);
    }

    /// The session goes over a card of this memory node.
    pub(super) fn set_numa_node(&self, node: Option<u16>) {
        self.numa_node.store(node.map_or(-1, i32::from), Relaxed);
    }

    /// The memory node of the card that the last session goes over.
    pub(super) fn numa_node(&self) -> Option<u16> {
        u16::try_from(self.numa_node.load(Relaxed)).ok()
    }

    /// The news since the last call.
    pub(super) fn take_events(&self) -> Vec<TransportEvent> {
        lock(&self.events).drain(..).collect()
    }
}

/// Opened once; who waits before it goes on then.
#[derive(Debug, Default)]
pub(super) struct Gate {
    open: Mutex<bool>,
    opened: Condvar,
}

impl Gate {
    pub(super) fn open(&self) {
        *lock(&self.open) = true;
        self.opened.notify_all();
    }

    pub(super) fn wait(&self) {
        let mut open = lock(&self.open);
        while !*open {
            open = self.opened.wait(open).unwrap_or_else(PoisonError::into_inner);
        }
    }
}
