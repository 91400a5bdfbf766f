//! Messages between threads: a queue, and a descriptor that becomes readable when there is one.
//!
//! Nothing on the way of a command goes through here: mail is for changes.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

#[derive(Debug)]
struct Bell {
    /// Mail has been posted since the last time the receiver looked.
    rung: AtomicBool,
    /// Messages that are not read yet. Only a measure: nothing is ordered by it.
    unread: AtomicUsize,
    fd: EventFd,
}

/// The sending end; may be cloned.
#[derive(Debug)]
pub struct Post<M> {
    queue: Sender<M>,
    bell: Arc<Bell>,
}

impl<M> Clone for Post<M> {
    fn clone(&self) -> Self {
        Post { queue: self.queue.clone(), bell: Arc::clone(&self.bell) }
    }
}

impl<M> Post<M> {
    /// Posts. Mail for a receiver that is gone is dropped: whoever cares has been told otherwise.
    pub fn send(&self, message: M) {
        self.bell.unread.fetch_add(1, Ordering::Relaxed);
        if self.queue.send(message).is_ok() && !self.bell.rung.swap(true, Ordering::AcqRel) {
            // Fails only when the counter is full, and then the descriptor is readable already.
            let _ = self.bell.fd.write(1);
        }
    }

    /// Messages, of all senders, that the receiver has not read. The queue has no bound of its own,
    /// since who posts cannot wait; who can, looks here before it begins what will make it post.
    pub fn unread(&self) -> usize {
        self.bell.unread.load(Ordering::Relaxed)
    }
}

/// The receiving end.
#[derive(Debug)]
pub struct Mail<M> {
    queue: Receiver<M>,
    bell: Arc<Bell>,
}

impl<M> Mail<M> {
    /// The next message; called until `None` before the receiver sleeps. One flag is looked at when
    /// there is nothing.
    pub fn next(&self) -> Option<M> {
        if !self.bell.rung.load(Ordering::Acquire) {
            return None;
        }
        if let Some(message) = self.take() {
            return Some(message);
        }
        // Empty: take the bell down first and look once more, so that mail posted in between
        // either is seen here or rings again. The swap reads what the last sender wrote, so what
        // that sender had queued before is visible behind it. A sender that has put the flag up
        // and not rung yet leaves nothing to read: then the flag stays until the ring has come.
        if self.bell.fd.read().is_err() {
            return None;
        }
        self.bell.rung.swap(false, Ordering::AcqRel);
        let late = self.take();
        if late.is_some() {
            // There may be more of the same kind: the next call must not stop at the flag.
            self.bell.rung.store(true, Ordering::Release);
            let _ = self.bell.fd.write(1);
        }
        late
    }

    fn take(&self) -> Option<M> {
        let message = self.queue.try_recv().ok()?;
        self.bell.unread.fetch_sub(1, Ordering::Relaxed);
        Some(message)
    }
}

impl<M> AsRawFd for Mail<M> {
    fn as_raw_fd(&self) -> RawFd {
        self.bell.fd.as_raw_fd()
    }
}

/// A new mailbox.
pub fn mailbox<M>() -> io::Result<(Post<M>, Mail<M>)> {
    let bell = Arc::new(Bell {
        rung: AtomicBool::new(false),
        unread: AtomicUsize::new(0),
        fd: EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?,
    });
    let (sender, receiver) = channel();
    Ok((Post { queue: sender, bell: Arc::clone(&bell) }, Mail { queue: receiver, bell }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn next_brings_everything_in_order() {
        let (post, mail) = mailbox().unwrap();
        assert_eq!(mail.next(), None);
        (0..5).for_each(|number| post.send(number));
        assert_eq!(post.unread(), 5);
        assert_eq!(std::iter::from_fn(|| mail.next()).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
        post.send(9);
        assert_eq!((mail.next(), mail.next()), (Some(9), None));
        assert_eq!(post.unread(), 0);
    }

    #[test]
    fn next_loses_nothing_when_posted_meanwhile() {
        let (post, mail) = mailbox().unwrap();
        let sender = std::thread::spawn(move || (0..20_000).for_each(|number| post.send(number)));
        let mut expected = 0;
        while expected < 20_000 {
            while let Some(number) = mail.next() {
                assert_eq!(number, expected);
                expected += 1;
            }
        }
        sender.join().unwrap();
    }
}
