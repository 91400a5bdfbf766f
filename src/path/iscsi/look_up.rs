//! What a session asks of the host: the address behind a name, and which card leads to a portal.
//!
//! One thread a path, beside that of the session: the answers may take long, and to get them takes
//! files, datagrams and code that the C library loads, which nobody needs who speaks with a target.

use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Weak};

use super::mailbox::{Mailbox, Message};
use crate::confine::{self, Class};
use crate::path::nic;

/// A question.
#[derive(Debug, PartialEq, Eq)]
enum Question {
    /// The addresses of a host, for a port, in a round.
    Address(u64, String, u16),
    /// The card towards a portal, to be noted.
    Card(IpAddr),
}

/// The way to the thread. It ends with it, when it has no answer to wait for.
#[derive(Debug)]
pub(super) struct LookUp(Sender<Question>);

impl LookUp {
    /// Starts the thread; answers go to `mailbox`.
    pub(super) fn start(mailbox: &Arc<Mailbox>) -> io::Result<Self> {
        let (questions, queue) = channel();
        // It may outlive the path, by an answer that takes long.
        let mailbox = Arc::downgrade(mailbox);
        std::thread::Builder::new().name("look-up".to_owned()).spawn(move || {
            confine::enter(Class::LookUp);
            answer(&queue, &mailbox);
        })?;
        Ok(LookUp(questions))
    }

    /// Asks for the addresses of `host`. The answer is [`Message::Resolved`].
    pub(super) fn address_of(&self, round: u64, host: String, port: u16) {
        self.ask(Question::Address(round, host, port));
    }

    /// Asks for the card towards `portal`. The answer is noted in the mailbox.
    pub(super) fn card_towards(&self, portal: IpAddr) {
        self.ask(Question::Card(portal));
    }

    fn ask(&self, question: Question) {
        // The thread ends only when this sender does.
        let _ = self.0.send(question);
    }
}

fn answer(questions: &Receiver<Question>, mailbox: &Weak<Mailbox>) {
    while let Ok(question) = questions.recv() {
        match last(question, questions) {
            Question::Address(round, host, port) => {
                let found = (host.as_str(), port).to_socket_addrs().map(Iterator::collect);
                let Some(mailbox) = mailbox.upgrade() else { return };
                // Nobody is left to hear it when the path has been closed.
                let _ = mailbox.post(Message::Resolved(round, found));
            }
            Question::Card(portal) => {
                let node = nic::node_towards(portal);
                let Some(mailbox) = mailbox.upgrade() else { return };
                mailbox.set_numa_node(node);
            }
        }
    }
}

/// What was asked last: who has asked again does not wait for the answer to an earlier question.
fn last(first: Question, questions: &Receiver<Question>) -> Question {
    questions.try_iter().last().unwrap_or(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_question_is_the_one_that_counts() {
        let (to, questions) = channel();
        let first = Question::Address(1, "a".to_owned(), 3260);
        assert_eq!(last(Question::Card(IpAddr::from([127, 0, 0, 1])), &questions), {
            Question::Card(IpAddr::from([127, 0, 0, 1]))
        });
        to.send(Question::Address(2, "a".to_owned(), 3260)).unwrap();
        to.send(Question::Address(3, "a".to_owned(), 3260)).unwrap();
        assert_eq!(last(first, &questions), Question::Address(3, "a".to_owned(), 3260));
    }

    #[test]
    fn name_of_this_host_is_answered_to_the_mailbox() {
        let mailbox = Arc::new(Mailbox::new().unwrap());
        let look_up = LookUp::start(&mailbox).unwrap();
        look_up.address_of(7, "localhost".to_owned(), 3260);
        let until = std::time::Instant::now() + std::time::Duration::from_secs(60);
        loop {
            if let Some(Message::Resolved(round, found)) = mailbox.take().pop() {
                assert_eq!(round, 7);
                assert!(found.unwrap().iter().all(|portal| portal.ip().is_loopback()));
                return;
            }
            assert!(std::time::Instant::now() < until, "no answer");
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }
}
