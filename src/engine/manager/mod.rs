//! The manager: one thread that owns the paths' states. It feeds the core, carries out what the
//! core returns, asks the paths the core's questions, and gives the lanes what they read.
//!
//! ```text
//!   lanes' mail ----+                          +--> snapshot to every lane
//!   probes' ends ---+--> Core::apply(event) ---+--> questions to paths
//!   link events ----+                          +--> releases to lanes, news to people
//!   admin's orders -+
//! ```
//!
//! No path is waited for: one that does not answer costs the others nothing, and a query is
//! answered from what is known.
//!
//! | file | what |
//! |---|---|
//! | [`hub`] | what lanes and manager share, and where lanes are made |
//! | [`links`] | the manager's own channels: questions to paths |
//! | [`reservations`] | the guest's persistent reservations |
//! | [`conversation`] | what is said to the array about them |
//! | [`tasks`] | task management across all lanes |

mod conversation;
pub mod hub;
mod links;
mod reservations;
mod tasks;

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Instant;

pub use self::hub::Hub;
use self::links::{Answered, Asker, Links};
use self::reservations::Reservations;
use self::tasks::Tasks;
use super::mailbox::{Mail, mailbox};
use super::messages::{Deadlines, Snapshot, ToLane, ToManager};
use crate::ids::{LaneId, PathId};
use crate::multipath::{Action, Core, Event, News, Placement, Settings, Table, reservation};
use crate::path::{Transport, TransportEvent};
use crate::scsi::Asc;
use crate::scsi::reservation::{Key, TransportId};
use crate::virtio_scsi::Event as GuestEvent;

/// Unit attentions that wait for the guest at most; a guest that takes none loses the oldest.
const ATTENTIONS_MAX: usize = 16;

/// Something that people should hear of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// From the core.
    News(News),
    /// Commands went on over another path.
    Failover {
        /// The path they were on, by name.
        from: String,
        /// The path they went to, by name.
        to: String,
        /// How many.
        commands: u64,
    },
    /// A front end has connected or gone.
    Frontend(bool),
    /// The guest's PERSISTENT RESERVE OUT was refused, for this reason.
    ReservationRefused(String),
    /// The guest's reservation key is gone from the array.
    Fenced(Key),
}

/// The manager. See the module's text.
pub struct Manager<T: Transport> {
    core: Core,
    hub: Arc<Hub<T>>,
    mail: Mail<ToManager>,
    links: Links<T>,
    tasks: Tasks,
    reservations: Reservations,
    /// Unit attentions that did not find the guest's place free.
    attentions: VecDeque<Asc>,
    /// Events for the guest's driver, until all else that the core said is done.
    driver_events: Vec<GuestEvent>,
    notices: Vec<Notice>,
    deadlines: Deadlines,
    /// Who waits until nothing that was sent can be executed any more.
    landing: Vec<Sender<()>>,
    /// The time of the last turn.
    turned: Instant,
    connected: bool,
    /// How many front ends have gone so far.
    pub departures: u64,
}

impl<T: Transport> Manager<T> {
    /// A manager without paths, and what lanes are made from.
    pub fn new(settings: Settings, deadlines: Deadlines, now: Instant) -> io::Result<Self> {
        let (post, mail) = mailbox()?;
        let table = Arc::new(Table::empty(settings.policy));
        let snapshot = Arc::new(Snapshot { table, transports: Vec::new() });
        Ok(Manager {
            core: Core::new(settings, now),
            hub: Arc::new(Hub::new(snapshot, post, deadlines)),
            mail,
            links: Links::default(),
            tasks: Tasks::default(),
            reservations: Reservations::default(),
            attentions: VecDeque::new(),
            driver_events: Vec::new(),
            notices: Vec::new(),
            deadlines,
            landing: Vec::new(),
            turned: now,
            connected: false,
            departures: 0,
        })
    }

    /// Where lanes are made, and what reads counters.
    pub fn hub(&self) -> &Arc<Hub<T>> {
        &self.hub
    }

    /// The paths and the LUN, for reports.
    pub fn core(&self) -> &Core {
        &self.core
    }

    /// True while a front end is attached.
    pub fn is_connected(&self) -> bool {
        self.connected
    }

    /// The transport of `path`.
    pub fn transport(&self, path: PathId) -> Option<&Arc<T>> {
        self.links.transport(path)
    }

    /// Begins to use an opened path: it is asked who it is at once.
    pub fn add(
        &mut self,
        name: String,
        placement: Placement,
        transport: Arc<T>,
        now: Instant,
    ) -> io::Result<PathId> {
        let path = self
            .core
            .free_id()
            .ok_or_else(|| io::Error::other("too many paths, or too many were removed lately"))?;
        let hides_attentions = transport.hides_attentions();
        let node = transport.numa_node();
        let bytes_max = self.links.add(path, transport)?;
        let added = Event::Added { path, name, placement, bytes_max, hides_attentions };
        self.apply(added, now);
        self.apply(Event::Placed(path, node), now);
        Ok(path)
    }

    /// Other time limits, for what is under way as well. Whether reads are hedged stays as it is.
    pub fn set_deadlines(&mut self, deadlines: Deadlines) {
        self.deadlines = Deadlines { hedging: self.deadlines.hedging, ..deadlines };
        self.hub.set_deadlines(self.deadlines);
    }

    /// The time limits, as they are now.
    pub fn deadlines(&self) -> Deadlines {
        self.deadlines
    }

    /// Feeds the core, and does what it says.
    pub fn apply(&mut self, event: Event, now: Instant) {
        for action in self.core.apply(event, now) {
            self.act(action, now);
        }
        // The driver acts on these at once: by then every lane has the table that they are about,
        // and the unit attention that goes with them is in its place.
        if !self.driver_events.is_empty() {
            self.offer_attentions();
            for event in std::mem::take(&mut self.driver_events) {
                self.hub.send(LaneId::FIRST, ToLane::Event(event));
            }
        }
        // Not before the core's own word is carried out: what comes of this is newer.
        if self.reservations.has_news() {
            self.work_on_reservations(now);
        }
    }

    /// One turn: reads the mail, takes the answers of paths, keeps the time. Never blocks.
    pub fn turn(&mut self, now: Instant) {
        self.turned = now;
        self.links.give_up_late(now, self.deadlines.path_timeout);
        // A transport tells why a link went before it ends what was on it, and a lane reports an
        // end after it came: taken out before and looked at after them, the link's own words are
        // always the first. A lane says what a command of the guest's will make the array tell
        // before it sends it: that is known before a path brings it.
        let answers = self.links.answers(now);
        let mail: Vec<ToManager> = std::iter::from_fn(|| self.mail.next()).collect();
        for (path, event) in self.links.events() {
            let event = match event {
                TransportEvent::Down(why) => Event::LinkDown(path, why),
                TransportEvent::Up { nexus_since } => {
                    let node = self.transport(path).and_then(|transport| transport.numa_node());
                    self.apply(Event::Placed(path, node), now);
                    Event::LinkUp(path, nexus_since)
                }
                TransportEvent::Proven { session } => {
                    self.conversation_is_over(path, session, true, now);
                    Event::Proven(path, session)
                }
                TransportEvent::Returned { session } => {
                    self.conversation_is_over(path, session, false, now);
                    Event::Returned(path, session)
                }
            };
            self.apply(event, now);
        }
        for (path, bytes_max) in self.links.new_limits() {
            self.apply(Event::Limited(path, bytes_max), now);
        }
        for message in mail {
            self.receive(message, now);
        }
        for answered in answers {
            match answered.asker {
                Asker::Core => {
                    let Answered { path, fate, data, .. } = answered;
                    self.apply(Event::Answered { path, fate, data }, now);
                }
                Asker::Reservations => self.conversation_answered(answered, now),
            }
        }
        self.tell_access();
        self.look_after_reservations(now);
        self.apply(Event::Tick, now);
        self.offer_attentions();
        self.hub.set_landing_time(self.core.settings().write_quiesce);
        self.tell_of_landing(now);
    }

    /// When the next turn is due, if nothing comes in before.
    pub fn next_timer(&self) -> Option<Instant> {
        let links = self.links.next_timer(self.deadlines.path_timeout);
        let attention =
            (!self.attentions.is_empty()).then(|| self.turned + crate::limits::DEADLINE_SCAN);
        let reservations = self.reservations.next_timer();
        [self.core.next_timer(), links, attention, reservations].into_iter().flatten().min()
    }

    /// Descriptors to wait on, and a count of their changes.
    pub fn wait_fds(&self) -> (Vec<RawFd>, u64) {
        let mut fds = vec![self.mail.as_raw_fd()];
        fds.extend(self.links.ready_fds());
        (fds, self.links.version())
    }

    /// What people should hear of, since the last call.
    pub fn take_notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.notices)
    }

    fn receive(&mut self, message: ToManager, now: Instant) {
        match message {
            ToManager::Core(event) => {
                match event {
                    Event::LaneUp(lane) => {
                        self.tasks.lane_up(lane);
                        self.reservations.lane_up(lane);
                    }
                    Event::LaneDown(lane) => self.lane_down(lane),
                    _ => {}
                }
                self.apply(event, now);
            }
            ToManager::Task { lane, number, task, attention } => {
                let lanes = self.tasks.begin(lane, number, task, attention);
                for lane in &lanes {
                    let run = self.tasks.run(*lane);
                    self.hub.send(*lane, ToLane::Task { number, run, task });
                }
                if lanes.is_empty() {
                    self.finish_tasks();
                }
            }
            ToManager::TaskDone { lane, number, found } => {
                self.tasks.done(lane, number, found);
                self.finish_tasks();
            }
            ToManager::GaveBack(lane) => self.tasks.gave_back(lane),
            ToManager::Reserve { lane, serial, request } => {
                self.ask_reservations((lane, serial), request, now);
            }
            ToManager::FenceSettled { lane, fences } => self.fence_settled(lane, fences, now),
            ToManager::Moved { from, to, commands } => {
                let from = self.path_name(from);
                let to = self.path_name(to);
                self.notices.push(Notice::Failover { from, to, commands });
            }
            ToManager::Frontend(connected) => {
                self.connected = connected;
                self.departures += u64::from(!connected);
                self.notices.push(Notice::Frontend(connected));
            }
            ToManager::Landing(post) => self.landing.push(post),
        }
    }

    fn lane_down(&mut self, lane: LaneId) {
        self.tasks.lane_down(lane);
        self.reservations.lane_down(lane);
        self.finish_tasks();
    }

    fn finish_tasks(&mut self) {
        for finished in self.tasks.take_finished() {
            if let Some(code) = finished.attention {
                self.attentions.clear();
                self.hub.attention.replace(code);
            }
            let answer =
                ToLane::TaskAnswer { number: finished.number, response: finished.response };
            self.hub.send(finished.asker, answer);
        }
    }

    fn act(&mut self, action: Action, now: Instant) {
        match action {
            Action::Ask(path, question) => {
                self.links.ask(path, Asker::Core, question, now);
            }
            Action::GiveUp(path) => self.links.give_up(path),
            Action::Publish(table) => {
                let transports = self.links.transports();
                self.hub.publish(Arc::new(Snapshot { table, transports }));
            }
            Action::Release(hold) => self.hub.send(hold.lane, ToLane::Release(hold)),
            Action::Attention(code) => {
                if self.attentions.len() == ATTENTIONS_MAX {
                    self.attentions.pop_front();
                }
                self.attentions.push_back(code);
            }
            Action::Close(path) => {
                self.links.close(path);
                self.reservations.passive.remove(&path);
                self.hub.counters.retire(path);
                self.conversation_partner_left(path, now);
                self.reservations.tell(reservation::Event::Removed(path));
            }
            Action::Resized => {
                let code = Asc::CAPACITY_DATA_HAS_CHANGED;
                self.tell_driver(GuestEvent::ParameterChange(code));
            }
            Action::Removed => self.tell_driver(GuestEvent::Removed),
            Action::Returned => self.tell_driver(GuestEvent::Rescan),
            Action::Admission(path) => {
                let (name, nexus) = (self.path_name(path), self.nexus(path));
                self.reservations.tell(reservation::Event::Up { path, name, nexus });
            }
            Action::Leaving(path) => self.reservations.tell(reservation::Event::Leaving(path)),
            Action::Out(path) => self.reservations.tell(reservation::Event::Down(path)),
            Action::Conflicted(path) => {
                self.reservations.tell(reservation::Event::Conflicted(path));
            }
            Action::Tell(news) => self.notices.push(Notice::News(news)),
        }
    }

    fn tell_driver(&mut self, event: GuestEvent) {
        self.driver_events.push(event);
    }

    fn offer_attentions(&mut self) {
        while let Some(code) = self.attentions.front() {
            if !self.hub.attention.offer(*code) {
                return;
            }
            self.attentions.pop_front();
        }
    }

    /// What the array calls the path's I_T nexus.
    fn nexus(&self, path: PathId) -> Option<(TransportId, u16)> {
        let known = self.core.paths().find(|known| known.id == path)?;
        self.transport(path)?.initiator_port().zip(known.port.relative_port)
    }

    fn path_name(&self, path: PathId) -> String {
        let known = self.core.paths().find(|known| known.id == path);
        known.map_or_else(|| path.to_string(), |known| known.name.clone())
    }
}
