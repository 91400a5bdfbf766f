//! The control thread: one loop over the listener, the clients and the mail.

use std::collections::HashMap;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

use epoll::{ControlOptions, Events};
use vmm_sys_util::eventfd::EventFd;

use super::dialogue::{self, Step};
use super::epoll_sys::Epoll;
use super::mail::{ClientId, wake};
use super::session::{Input, Session};
use super::{Mailbox, Order, OrderSink};
use crate::confine::{self, Class};
use crate::limits::{
    CONTROL_ACCEPT_BACKOFF, CONTROL_CLIENTS_MAX, CONTROL_EVENTS_MAX, CONTROL_ORDERS_MAX,
    CONTROL_STOP_GRACE,
};
use crate::socket::{Gift, SocketFile};

/// What epoll says is ready, beside clients, which have the numbers from [`FIRST_CLIENT`] on.
const LISTENER: u64 = 0;
const MAIL: u64 = 1;
const FIRST_CLIENT: u64 = 2;

/// The answer to `takeover` where the socket was inherited.
const NOTHING_TO_GIVE: &str = "the vhost-user socket belongs to whoever started this backend: \
    start it again there (systemctl restart), the guest waits meanwhile";

/// The running control thread. Dropped, it delivers the answers that are given within
/// [`CONTROL_STOP_GRACE`] (that to `quit` may just be on its way), as far as the clients take them
/// at once, removes the socket file and ends.
#[derive(Debug)]
pub struct Server {
    stop: Arc<AtomicBool>,
    wake: Arc<EventFd>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Starts the thread.
    /// `gift` is what a successor gets, where the vhost-user socket is the backend's to give.
    pub fn start(
        file: SocketFile,
        mail: Mailbox,
        sink: Box<dyn OrderSink>,
        gift: Option<Gift>,
    ) -> io::Result<Server> {
        let stop = Arc::new(AtomicBool::new(false));
        let wake = mail.wake.clone();
        let mut control = Control {
            epoll: Epoll::new()?,
            file,
            accept_again: None,
            mail,
            sink,
            gift,
            clients: HashMap::new(),
            next_client: FIRST_CLIENT,
            orders: 0,
            stop: stop.clone(),
        };
        let (listener, mailbox) = (control.file.listener().as_raw_fd(), wake.as_raw_fd());
        control.epoll.ctl(ControlOptions::EPOLL_CTL_ADD, listener, Events::EPOLLIN, LISTENER)?;
        control.epoll.ctl(ControlOptions::EPOLL_CTL_ADD, mailbox, Events::EPOLLIN, MAIL)?;
        let thread = std::thread::Builder::new().name("control".to_owned()).spawn(move || {
            confine::enter(Class::Control);
            if let Err(error) = control.run() {
                log::error!("the control socket is closed: {error}");
            }
        })?;
        Ok(Server { stop, wake, thread: Some(thread) })
    }

    /// Ends the thread, as dropping does.
    pub fn stop(self) {}
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        wake(&self.wake);
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported by the panic hook.
            let _ = thread.join();
        }
    }
}

/// The thread's own state.
struct Control {
    epoll: Epoll,
    file: SocketFile,
    /// No descriptor was left: nobody is accepted until then.
    accept_again: Option<Instant>,
    mail: Mailbox,
    sink: Box<dyn OrderSink>,
    gift: Option<Gift>,
    clients: HashMap<u64, Session>,
    next_client: u64,
    /// Orders under way, also those of clients that have gone.
    orders: usize,
    stop: Arc<AtomicBool>,
}

impl Control {
    fn run(&mut self) -> io::Result<()> {
        let mut ready = [epoll::Event { events: 0, data: 0 }; 64];
        let mut last_moment = None;
        loop {
            let timer = [self.accept_again, last_moment].into_iter().flatten().min();
            let timeout = timer.map(|at| at.saturating_duration_since(Instant::now()));
            let count = match self.epoll.wait(timeout, &mut ready) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            // Asked before the mail is taken: what was answered before the stop is in the box.
            let stopping = self.stop.load(Ordering::Acquire);
            for event in &ready[..count] {
                match event.data {
                    LISTENER => self.accept()?,
                    MAIL => self.take_mail(),
                    client => self.client_ready(client, Events::from_bits_truncate(event.events)),
                }
            }
            let now = Instant::now();
            if !stopping && self.stop.load(Ordering::Acquire) {
                // Asked for meanwhile: its wake-up may have been taken together with the mail's.
                wake(&self.mail.wake);
            }
            if stopping {
                self.take_mail();
                let last = *last_moment.get_or_insert(now + CONTROL_STOP_GRACE);
                if self.orders == 0 || now >= last {
                    return Ok(());
                }
            }
            if self.accept_again.is_some_and(|at| at <= now) {
                self.accept_again = None;
                self.listen(Events::EPOLLIN)?;
            }
        }
    }

    /// Takes new clients. Few at a time, so that those already here are served.
    fn accept(&mut self) -> io::Result<()> {
        let stream = match self.file.listener().accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => {
                // Out of descriptors, most likely: the listener stays readable, so look away.
                log::warn!("cannot accept a control client: {error}");
                self.accept_again = Some(Instant::now() + CONTROL_ACCEPT_BACKOFF);
                return self.listen(Events::empty());
            }
        };
        let Ok(mut session) = Session::new(stream) else { return Ok(()) };
        if self.clients.len() >= CONTROL_CLIENTS_MAX {
            // In place of the greeting: who is greeted writes, and may never see what follows.
            let reason = format!("{CONTROL_CLIENTS_MAX} clients are connected already");
            session.say_last(&dialogue::complaint(reason));
            session.flush();
            return Ok(());
        }
        session.say(&dialogue::greeting());
        let client = self.next_client;
        self.next_client += 1;
        let add = ControlOptions::EPOLL_CTL_ADD;
        if self.epoll.ctl(add, session.fd(), Events::empty(), client).is_ok() {
            self.attend(client, session);
        }
        Ok(())
    }

    fn listen(&self, interest: Events) -> io::Result<()> {
        let listener = self.file.listener().as_raw_fd();
        self.epoll.ctl(ControlOptions::EPOLL_CTL_MOD, listener, interest, LISTENER)
    }

    fn client_ready(&mut self, client: u64, ready: Events) {
        // It may have been disconnected earlier in the same batch.
        let Some(mut session) = self.clients.remove(&client) else { return };
        if ready.contains(Events::EPOLLIN) {
            session.fill();
        }
        self.attend(client, session);
        // Reported whatever one waits for: without this it would be reported for ever.
        if ready.intersects(Events::EPOLLHUP | Events::EPOLLERR) {
            self.clients.remove(&client);
        }
    }

    /// Does all that can be done for a client, and keeps it unless it is over.
    fn attend(&mut self, client: u64, mut session: Session) {
        loop {
            session.flush();
            let Input::Line(line) = session.next_line() else { break };
            match session.dialogue.line(&line) {
                Step::Say(value) => session.say(&value),
                Step::Ask(_, id) if self.orders >= CONTROL_ORDERS_MAX => {
                    let busy = "the backend is busy with other commands".to_owned();
                    session.say(&dialogue::answer(Err(busy), id));
                }
                Step::Ask(Order::Takeover, id) if self.gift.is_none() => {
                    session.say(&dialogue::answer(Err(NOTHING_TO_GIVE.to_owned()), id));
                }
                Step::Ask(order, id) => {
                    session.waiting = Some(id);
                    session.succeeds = order == Order::Takeover;
                    if let Some(gift) = self.gift.as_ref().filter(|_| session.succeeds) {
                        // Before the order: once that is carried out, the socket's file goes.
                        gift.given();
                    }
                    self.orders += 1;
                    self.sink.submit(order, self.mail.reply_to(ClientId(client)));
                }
            }
        }
        // Taking lines may have said something last.
        session.flush();
        if session.is_over() {
            return;
        }
        let wanted = session.wanted();
        if wanted != session.interest {
            let modify = ControlOptions::EPOLL_CTL_MOD;
            if self.epoll.ctl(modify, session.fd(), wanted, client).is_err() {
                return;
            }
            session.interest = wanted;
        }
        self.clients.insert(client, session);
    }

    fn take_mail(&mut self) {
        self.mail.clear_wake();
        // Events first: what an order brought about is told before the order is answered.
        let mut told = 0;
        while let Some((time, event)) = self.mail.next_event() {
            let mut line = dialogue::event(&event, time).to_string().into_bytes();
            line.extend_from_slice(b"\r\n");
            for session in self.clients.values_mut() {
                session.tell(&line);
            }
            told += 1;
            if told == CONTROL_EVENTS_MAX {
                // Answers and clients have their turn before the next batch.
                wake(&self.mail.wake);
                break;
            }
        }
        let lost = self.mail.newly_lost();
        if lost > 0 {
            log::warn!("{lost} events have been lost, the control thread was too slow");
        }
        while let Some((ClientId(client), result)) = self.mail.next_reply() {
            self.orders -= 1;
            let Some(mut session) = self.clients.remove(&client) else { continue };
            if let Some(id) = session.waiting.take() {
                if session.succeeds && result.is_ok() {
                    session.give(self.gift.clone());
                }
                session.say(&dialogue::answer(result, id));
            }
            self.attend(client, session);
        }
        if told > 0 {
            let all: Vec<u64> = self.clients.keys().copied().collect();
            for client in all {
                if let Some(session) = self.clients.remove(&client) {
                    self.attend(client, session);
                }
            }
        }
    }
}
