//! What crosses threads: answers and events to the control thread, and the wake-up with them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::time::SystemTime;

use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::{Event, OrderResult};
use crate::limits::CONTROL_EVENTS_MAX;

/// A control client; never used again in a process's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct ClientId(pub u64);

/// Sends events to all control clients. Any thread may, at any time: it never waits. What does not
/// fit is lost and counted; without a control thread all goes nowhere.
#[derive(Clone, Debug)]
pub struct EventSink {
    events: SyncSender<(SystemTime, Event)>,
    lost: Arc<AtomicU64>,
    wake: Arc<EventFd>,
}

impl EventSink {
    /// Sends one event; the time is now.
    pub fn send(&self, event: Event) {
        self.send_at(SystemTime::now(), event);
    }

    /// Sends one event that happened at that time.
    pub fn send_at(&self, at: SystemTime, event: Event) {
        match self.events.try_send((at, event)) {
            Ok(()) => wake(&self.wake),
            Err(_) => {
                self.lost.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// Where the answer to one order goes. Dropped unanswered it answers with an error, so that no
/// client waits for ever when the manager ends.
#[derive(Debug)]
pub struct ReplyTo {
    client: ClientId,
    /// Gone once answered.
    replies: Option<Sender<(ClientId, OrderResult)>>,
    wake: Arc<EventFd>,
}

impl ReplyTo {
    /// An answer for `client`, over that channel.
    pub(super) fn new(
        client: ClientId,
        replies: Sender<(ClientId, OrderResult)>,
        wake: Arc<EventFd>,
    ) -> Self {
        ReplyTo { client, replies: Some(replies), wake }
    }

    /// Answers. Never waits; the client may be gone by now.
    pub fn answer(mut self, result: OrderResult) {
        self.post(result);
    }

    fn post(&mut self, result: OrderResult) {
        if let Some(replies) = self.replies.take()
            && replies.send((self.client, result)).is_ok()
        {
            wake(&self.wake);
        }
    }
}

impl Drop for ReplyTo {
    fn drop(&mut self) {
        self.post(Err("the backend is ending".to_owned()));
    }
}

/// The control thread's end.
#[derive(Debug)]
pub struct Mailbox {
    events: Receiver<(SystemTime, Event)>,
    lost: Arc<AtomicU64>,
    lost_told: u64,
    replies: Receiver<(ClientId, OrderResult)>,
    /// Cloned for each order.
    reply_to: Sender<(ClientId, OrderResult)>,
    pub(super) wake: Arc<EventFd>,
}

/// The two ends. Without a control socket, drop the mailbox and keep the sink.
pub fn mail() -> std::io::Result<(EventSink, Mailbox)> {
    let wake = Arc::new(EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?);
    let (event_sender, events) = sync_channel(CONTROL_EVENTS_MAX);
    let (reply_to, replies) = channel();
    let lost = Arc::new(AtomicU64::new(0));
    let sink = EventSink { events: event_sender, lost: lost.clone(), wake: wake.clone() };
    Ok((sink, Mailbox { events, lost, lost_told: 0, replies, reply_to, wake }))
}

impl Mailbox {
    /// Where an order of this client is answered. Bounded by the orders that are let through.
    pub(super) fn reply_to(&self, client: ClientId) -> ReplyTo {
        ReplyTo::new(client, self.reply_to.clone(), self.wake.clone())
    }

    /// Before looking into the box, so that what comes in meanwhile wakes again.
    pub(super) fn clear_wake(&self) {
        // The only error is that nobody has rung.
        let _ = self.wake.read();
    }

    /// The next event.
    pub(super) fn next_event(&self) -> Option<(SystemTime, Event)> {
        self.events.try_recv().ok()
    }

    /// The next answer.
    pub(super) fn next_reply(&self) -> Option<(ClientId, OrderResult)> {
        self.replies.try_recv().ok()
    }

    /// Events lost since the last call.
    pub(super) fn newly_lost(&mut self) -> u64 {
        let lost = self.lost.load(Ordering::Relaxed);
        lost - std::mem::replace(&mut self.lost_told, lost)
    }
}

pub(super) fn wake(eventfd: &EventFd) {
    // It fails only when the counter is full, and then the thread wakes anyway.
    let _ = eventfd.write(1);
}

/// A place for an answer without a control thread: for tests of what answers orders.
pub fn reply_slot() -> std::io::Result<(ReplyTo, impl FnMut() -> Option<OrderResult>)> {
    let (_, mailbox) = mail()?;
    let reply_to = mailbox.reply_to(ClientId(0));
    Ok((reply_to, move || mailbox.next_reply().map(|(_, result)| result)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::Reply;

    #[test]
    fn events_beyond_the_bound_are_lost_and_counted() {
        let (sink, mut mailbox) = mail().unwrap();
        for _ in 0..CONTROL_EVENTS_MAX + 3 {
            sink.send(Event::FrontendConnected);
        }
        assert_eq!(mailbox.newly_lost(), 3);
        assert_eq!(mailbox.newly_lost(), 0);
        assert_eq!(std::iter::from_fn(|| mailbox.next_event()).count(), CONTROL_EVENTS_MAX);
        drop(mailbox);
        sink.send(Event::FrontendConnected);
    }

    #[test]
    fn reply_is_posted_once_even_when_dropped() {
        let (reply_to, mut result) = reply_slot().unwrap();
        reply_to.answer(Ok(Reply::Done));
        assert_eq!(result(), Some(Ok(Reply::Done)));
        assert_eq!(result(), None);
        let (reply_to, mut result) = reply_slot().unwrap();
        drop(reply_to);
        assert!(matches!(result(), Some(Err(_))));
    }
}
