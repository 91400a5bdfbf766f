//! Orders from within the process: asked by a thread that may wait, answered by the manager.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::mail::{ClientId, ReplyTo};
use super::{Order, OrderResult, OrderSink};

/// Asks one thing at a time.
pub struct Asker {
    sink: Box<dyn OrderSink>,
    replies: Receiver<(ClientId, OrderResult)>,
    reply_to: Sender<(ClientId, OrderResult)>,
    /// An answer rings it; nobody listens, since the channel is waited for.
    wake: Arc<EventFd>,
    /// Counts orders, so that a late answer is not taken for another order's.
    last: u64,
}

impl Asker {
    /// Will ask `sink`.
    pub fn new(sink: Box<dyn OrderSink>) -> std::io::Result<Self> {
        let (reply_to, replies) = channel();
        let wake = Arc::new(EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?);
        Ok(Asker { sink, replies, reply_to, wake, last: 0 })
    }

    /// Asks, and waits for the answer; `Err` where none comes within `patience`.
    pub fn ask(&mut self, order: Order, patience: Duration) -> OrderResult {
        self.last += 1;
        let id = ClientId(self.last);
        let reply_to = ReplyTo::new(id, self.reply_to.clone(), Arc::clone(&self.wake));
        self.sink.submit(order, reply_to);
        let deadline = Instant::now() + patience;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.replies.recv_timeout(left) {
                Ok((answered, result)) if answered == id => return result,
                Ok(_) => {}
                Err(_) => return Err("the manager does not answer".to_owned()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::control::Reply;

    /// Keeps the first order and answers it together with the second.
    #[derive(Default)]
    struct Late(Mutex<Vec<(Order, ReplyTo)>>);

    impl OrderSink for Late {
        fn submit(&self, order: Order, reply: ReplyTo) {
            let mut kept = self.0.lock().unwrap();
            kept.push((order, reply));
            if kept.len() == 2 {
                for (order, reply) in kept.drain(..) {
                    let result =
                        if order == Order::Quit { Ok(Reply::Done) } else { Err("".into()) };
                    reply.answer(result);
                }
            }
        }
    }

    #[test]
    fn ask_does_not_wait_for_ever_and_skips_late_answers() {
        let mut asker = Asker::new(Box::new(Late::default())).unwrap();
        let none = asker.ask(Order::QueryLun, Duration::from_millis(1));
        assert_eq!(none, Err("the manager does not answer".to_owned()));
        assert_eq!(asker.ask(Order::Quit, Duration::from_secs(60)), Ok(Reply::Done));
    }
}
