//! The manager's thread: waits, turns, carries out orders, tells people.

use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::Sender;
use std::thread::{self, JoinHandle};
use std::time::{Instant, SystemTime};

use vmm_sys_util::eventfd::EventFd;

use super::announce::Announcer;
use super::desk::{carry_out, take_in};
use super::discovery::{Host, HostNews, ToHost};
use super::history::History;
use super::members::Member;
use super::notices::tell;
use super::opener::{Opened, Opener, Origin};
use super::reload::{Reloads, Scene};
use super::reservation::{Presence, Reservations};
use super::waiting::Waiting;
use super::{BackendError, check, reports};
use crate::config::PathConfig;
use crate::confine::{self, Class};
use crate::control::{Event as ClientEvent, EventSink, Order, PathKind, Reply, ReplyTo};
use crate::engine::Manager;
use crate::engine::mailbox::Mail;
use crate::engine::manager::Notice;
use crate::ids::PathId;
use crate::logging;
use crate::multipath::path::Path;
use crate::multipath::{Event, Remains};
use crate::path::any::AnyPath;
use crate::path::sg::host::DeviceId;
use crate::path::sg::host::uevent::Attention;
use crate::path::sg::host::watch::Condition;

/// What the thread owns.
pub struct Worker {
    /// The manager.
    pub manager: Manager<AnyPath>,
    /// The paths as configured.
    pub members: Vec<Member>,
    /// What is remembered of the guest's reservations.
    pub reservations: Reservations,
    /// Opens further paths.
    pub opener: Opener,
    /// What it has opened.
    pub opened: Mail<Opened>,
    /// Looks after the host's devices.
    pub host: Host,
    /// What it has seen.
    pub host_news: Mail<HostNews>,
    /// Readings of the configuration.
    pub reloads: Reloads,
    /// What the service manager is told.
    pub announcer: Announcer,
    /// The last minutes.
    pub history: History,
    /// Orders from the control socket.
    pub orders: Mail<(Order, ReplyTo)>,
    /// Events for the control socket, if there is one.
    pub events: Option<EventSink>,
    /// Written to by the order to quit.
    pub quit: UnixStream,
    /// Rung by main when all is over.
    pub stop: EventFd,
    /// Where it is told whether the paths agree on what they lead to.
    pub agreed: Option<Sender<Result<(), BackendError>>>,
    /// Whether the configuration names the LUN.
    pub wwid_given: bool,
}

impl Worker {
    /// Starts the thread, which ends with what it leaves on the paths.
    pub fn start(mut self) -> io::Result<JoinHandle<Remains>> {
        thread::Builder::new().name("manager".to_owned()).spawn(move || {
            confine::enter(Class::Manager);
            if let Err(error) = self.run() {
                // Without it no path would ever fail over: better to end than to pretend.
                log::error!("the manager cannot go on: {error}");
                std::process::exit(1);
            }
            // The lanes' last words came before the bell.
            self.manager.turn(Instant::now());
            self.manager.remains()
        })
    }

    fn run(&mut self) -> io::Result<()> {
        let mut fixed = vec![
            self.stop.as_raw_fd(),
            self.orders.as_raw_fd(),
            self.opened.as_raw_fd(),
            self.host_news.as_raw_fd(),
            self.reservations.wait_fd(),
        ];
        fixed.extend(self.reloads.wait_fds());
        let mut waiting = Waiting::new(&fixed)?;
        for member in &self.members {
            if let Some(node) = &member.node {
                self.host.watch(member.name.clone(), node.clone());
            }
        }
        loop {
            let now = Instant::now();
            self.take_orders(now);
            while let Some(opened) = self.opened.next() {
                self.take_opened(opened, now);
            }
            while let Some(news) = self.host_news.next() {
                self.take_host_news(news, now);
            }
            self.reload(now);
            self.manager.turn(now);
            self.tell_people();
            let (wwid, on_host) = (self.wwid(), self.is_on_host());
            if let Some(event) = self.reservations.turn(wwid.as_deref(), on_host, now) {
                self.tell_clients(event);
            }
            self.reservations.follow(presence(&self.manager));
            self.carry_reservations(now);
            self.manager.expect_guest(self.reservations.expects_guest(), now);
            self.forget_removed();
            self.tell_whether_agreed();
            self.announcer.turn(&self.manager, self.agreed.is_none(), now);
            logging::tell_left_out();
            let (fds, version) = self.manager.wait_fds();
            waiting.follow(&fds, version)?;
            self.history.turn(&self.manager, now);
            let timers = [
                self.manager.next_timer(),
                self.announcer.next_timer(),
                Some(self.history.next_timer()),
                self.reservations.next_timer(),
            ];
            if waiting.wait(timers.into_iter().flatten().min())? {
                return Ok(());
            }
        }
    }

    /// Between the manager, who speaks with the array, and what is kept.
    fn carry_reservations(&mut self, now: Instant) {
        self.manager.refuse_reservations(self.reservations.refusal());
        loop {
            for record in self.manager.take_keeps() {
                self.reservations.keep(&record);
            }
            let told = self.reservations.take_told();
            if told.is_empty() {
                return self.tell_people();
            }
            for event in told {
                self.manager.reservation(event, now);
            }
        }
    }

    fn tell_people(&mut self) {
        for notice in self.manager.take_notices() {
            if let Notice::Frontend(connected) = notice {
                self.host.tell(ToHost::Connected(connected));
            }
            let face = self.manager.core().face();
            let wwid = face.map(|face| face.wwid.to_string()).unwrap_or_default();
            if let Some(event) = tell(notice, &wwid) {
                self.tell_clients(event);
            }
            self.announcer.changed();
        }
    }

    fn tell_clients(&mut self, event: ClientEvent) {
        let at = SystemTime::now();
        if let Some(events) = &self.events {
            events.send_at(at, event.clone());
        }
        self.history.hear(at, event);
    }

    /// The logical unit's name, once a path has told it.
    fn wwid(&self) -> Option<String> {
        self.manager.core().face().map(|face| face.wwid.sysfs())
    }

    /// True where a path is a device of the host.
    fn is_on_host(&self) -> bool {
        self.members.iter().any(|member| member.kind() == PathKind::Sg)
    }

    /// Takes wishes for another reading of the configuration, and what was read.
    fn reload(&mut self, now: Instant) {
        if self.reloads.hung_up() {
            self.reloads.request(None, &self.manager, &self.members);
        }
        let was_under_way = self.reloads.is_under_way();
        self.announcer.reloading(was_under_way);
        let Worker { manager, members, host, .. } = self;
        self.reloads.take(&mut Scene { manager, members, host, now });
        if was_under_way && !self.reloads.is_under_way() {
            self.announcer.changed();
            self.announcer.reloading(false);
        }
    }

    fn take_orders(&mut self, now: Instant) {
        while let Some((order, reply)) = self.orders.next() {
            if let Order::PathAdd { address, name } = order {
                let name = name.unwrap_or_default();
                let config = PathConfig { address, name, ..PathConfig::default() };
                self.opener.open(config, Origin::Order(reply));
                continue;
            }
            if order == Order::Reload {
                self.reloads.request(Some(reply), &self.manager, &self.members);
                continue;
            }
            let order = match order {
                Order::ReservationImport { exported, at_arrival } => {
                    let imported = self.reservations.import(*exported, at_arrival, reply);
                    // Before anybody is told that it is expected.
                    self.manager.expect_guest(self.reservations.expects_guest(), now);
                    if let Some((reply, result)) = imported {
                        reply.answer(result);
                    }
                    continue;
                }
                order => order,
            };
            let quits = matches!(order, Order::Quit | Order::Takeover);
            reply.answer(match order {
                Order::QueryHistory => Ok(Reply::History(Box::new(self.history.report()))),
                Order::QuerySettings => {
                    let uptime = self.history.uptime(now);
                    Ok(Reply::Settings(reports::settings(&self.manager, uptime)))
                }
                Order::QueryReservation => {
                    let standing = self.manager.standing();
                    let report = self.reservations.report(self.wwid(), &standing);
                    Ok(Reply::Reservation(Box::new(report)))
                }
                Order::ReservationExport => self.reservations.export(),
                order => carry_out(order, &mut self.manager, &self.members, now),
            });
            if quits {
                // Fails only when the socket is full: then main has been told.
                let _ = (&self.quit).write(b"q");
            }
        }
    }

    fn take_opened(&mut self, opened: Opened, now: Instant) {
        self.opener.is_done();
        let Opened { origin, result } = opened;
        let found = match &origin {
            Origin::Order(_) => None,
            Origin::Found(device) => Some(*device),
        };
        let taken = result.and_then(|mut member| {
            member.found = found.is_some();
            if found.is_some_and(|found| member.device != Some(found)) {
                return Err(format!("path {}: its device went while it was opened", member.name));
            }
            let watched = member.node.clone().map(|node| (member.name.clone(), node));
            take_in(member, &mut self.manager, &mut self.members, now)?;
            if let Some((name, node)) = watched {
                self.host.watch(name, node);
            }
            Ok(())
        });
        match origin {
            Origin::Order(reply) => reply.answer(taken.map(|()| Reply::Done)),
            Origin::Found(device) => {
                if let Err(why) = taken {
                    let hctl = device.hctl;
                    log::warn!(path:% = hctl; "discovery: {hctl} is not used: {why}");
                    self.host.tell(ToHost::Declined(device));
                }
            }
        }
    }

    fn take_host_news(&mut self, news: HostNews, now: Instant) {
        match news {
            HostNews::Found(candidate) => {
                let (address, name) = (candidate.address, candidate.name);
                log::info!(path = name.as_str(); "discovery: {name} is a path, {address}");
                let config = PathConfig { address, name, ..PathConfig::default() };
                self.opener.open(config, Origin::Found(candidate.device));
            }
            HostNews::Gone(device) => self.remove_found(device, now),
            HostNews::Leads(path, device) => {
                let mut members = self.members.iter_mut();
                if let Some(member) = members.find(|member| member.name == path) {
                    // One that was found is its device, and leaves with it.
                    match member.found && member.device != Some(device) {
                        true => member.device.map_or((), |old| self.remove_found(old, now)),
                        false => member.device = Some(device),
                    }
                }
            }
            HostNews::Condition(path, Condition::Gone) => {
                let member = self.members.iter().find(|member| member.name == path);
                match member.map(|member| (member.found, member.device)) {
                    Some((true, Some(device))) => self.remove_found(device, now),
                    _ => self.tell_core(&path, now, |id| {
                        Event::LinkDown(id, "its device has been removed from the host".to_owned())
                    }),
                }
            }
            HostNews::Condition(path, condition) => {
                self.tell_core(&path, now, |id| match condition {
                    Condition::Blocked(why) => Event::Blocked(id, why),
                    Condition::Down(why) => Event::LinkDown(id, why),
                    Condition::Running | Condition::Gone => Event::Unblocked(id),
                })
            }
            HostNews::Attention(path, attention) => {
                self.tell_core(&path, now, |id| match attention {
                    Attention::Access | Attention::Capacity => Event::Changed(id),
                    Attention::Identity => {
                        let why = "the host was told that another logical unit may be behind it";
                        Event::Doubted(id, why.to_owned())
                    }
                })
            }
        }
    }

    fn tell_core(&mut self, path: &str, now: Instant, event: impl FnOnce(PathId) -> Event) {
        if let Some(id) = self.manager.core().path_named(path).map(|path| path.id) {
            self.manager.apply(event(id), now);
        }
    }

    /// A device that discovery had found is no more.
    fn remove_found(&mut self, device: DeviceId, now: Instant) {
        let is_it = |member: &&Member| member.found && member.device == Some(device);
        if let Some(name) = self.members.iter().find(is_it).map(|member| member.name.clone()) {
            self.tell_core(&name, now, Event::Remove);
        }
    }

    /// Paths that the core has closed are no longer members: their images are free.
    fn forget_removed(&mut self) {
        let core = self.manager.core();
        for member in &self.members {
            if core.path_named(&member.name).is_none() && member.node.is_some() {
                self.host.tell(ToHost::Forget(member.name.clone()));
            }
        }
        let before = self.members.len();
        self.members.retain(|member| core.path_named(&member.name).is_some());
        if self.members.len() < before {
            self.announcer.changed();
        }
    }

    /// Once every path has been asked: do they lead to the same logical unit?
    fn tell_whether_agreed(&mut self) {
        let core = self.manager.core();
        if core.paths().any(Path::is_checking) {
            return;
        }
        if let Some(agreed) = self.agreed.take() {
            let result = if self.wwid_given { Ok(()) } else { check::same_lun(core) };
            // Main may have stopped waiting.
            let _ = agreed.send(result);
        }
    }
}

/// What is known of the guest.
fn presence(manager: &Manager<AnyPath>) -> Presence {
    Presence { here: manager.has_guest(), departures: manager.departures }
}
