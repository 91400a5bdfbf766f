//! The world: real lanes and a real manager on one thread, a clock that jumps from one event to the
//! next, and each thread woken only when its owner would wake it: mail, a kick, an end on a path,
//! or the time that it asked for. A thread may be late, as threads are.

use std::cell::Cell;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use vhost_user_scsi_mpath::engine::manager::Notice;
use vhost_user_scsi_mpath::engine::{Driven, Lane, Lanes, Manager};
use vhost_user_scsi_mpath::ids::{HoldId, LaneId};
use vhost_user_scsi_mpath::multipath::{Event, News, Placement};

use crate::array::Port;
use crate::guest::SimGuest;
use crate::options::Options;
use crate::parking::Parking;
use crate::plans::Plan;
use crate::scene::{Rule, Scene, Shared, View, Violation};
use crate::transport::SimPath;

/// Turns at one moment at most: more is a loop that never sleeps.
const ROUNDS_MAX: u32 = 2000;

/// A lane and what its thread knows.
pub struct Actor {
    /// The lane.
    pub lane: Lane<SimPath>,
    /// Its rings.
    pub guest: SimGuest,
    mail: RawFd,
    timer: Option<Duration>,
    again: bool,
    late_until: Duration,
}

/// See the module's text.
pub struct World {
    /// What everybody shares.
    pub shared: Shared,
    /// The manager.
    pub manager: Manager<SimPath>,
    /// The lanes.
    pub actors: BTreeMap<LaneId, Actor>,
    /// What the world does when.
    pub agenda: BinaryHeap<Reverse<(Duration, u64, Plan)>>,
    /// The rings are stopped, or about to be.
    pub stopped: bool,
    /// The stop is a lost connection.
    pub disconnected: bool,
    pub(crate) issued: u64,
    pub(crate) base: Instant,
    manager_mail: RawFd,
    manager_late_until: Duration,
    /// What the manager last said of its timer, while nothing has happened to it since.
    pub(crate) manager_due: Cell<Option<Option<Duration>>>,
    holds: BTreeSet<HoldId>,
}

impl World {
    /// A world with a running guest, before its first moment.
    pub fn new(seed: u64, options: Options, tracing: bool) -> Self {
        let shared = Shared::new(seed, options.clone(), tracing);
        let base = shared.lock().base;
        let manager = Manager::new(options.settings(), options.deadlines, base).unwrap();
        let manager_mail = manager.wait_fds().0[0];
        let mut world = World {
            shared,
            manager,
            actors: BTreeMap::new(),
            agenda: BinaryHeap::new(),
            stopped: false,
            disconnected: false,
            issued: 0,
            base,
            manager_mail,
            manager_late_until: Duration::ZERO,
            manager_due: Cell::new(None),
            holds: BTreeSet::new(),
        };
        world.register();
        for _ in 0..options.ports {
            world.add_port();
        }
        for lane in (0..options.lanes).map(LaneId) {
            world.add_lane(lane, base);
        }
        world
    }

    /// The scene.
    pub fn scene(&self) -> std::sync::MutexGuard<'_, Scene> {
        self.shared.lock()
    }

    /// The clock, as the engine reads it.
    pub fn now(&self) -> Instant {
        self.base + self.scene().now
    }

    /// One more port of the array, and a path over it.
    pub fn add_port(&mut self) {
        let now = self.now();
        let (index, name) = {
            let mut scene = self.scene();
            let (proves, tells) = (scene.options.proves, scene.options.tells);
            let (proves, tells) = (scene.random.chance(proves), scene.random.chance(tells));
            let mut port = Port::new(scene.ports.len() as u8 + 1, proves, tells, scene.now);
            port.session = scene.begin_session();
            // An event that the guest has not heard of yet has no copy here.
            port.copy_lost = Some(scene.now);
            let parks = scene.options.parks;
            if port.session.is_none() && scene.random.chance(parks) {
                port.parking = Some(Parking::default());
            }
            port.blocks = scene.ports.iter().map(|port| port.blocks).max().unwrap_or(port.blocks);
            scene.ports.push(port);
            (scene.ports.len() - 1, format!("p{}", scene.ports.len()))
        };
        let path = Arc::new(SimPath::new(self.shared.clone(), index));
        self.manager_due.set(None);
        let id = self.manager.add(name, Placement::default(), path, now).unwrap();
        self.scene().ports[index].path = Some(id);
    }

    /// A lane and its ring's worker, from `now` on.
    pub fn add_lane(&mut self, id: LaneId, now: Instant) {
        let hub = Arc::clone(self.manager.hub());
        let table = Arc::clone(&hub.snapshot().table);
        self.scene().view = Some(View { lane: id, table });
        let mut lane = hub.lane_at(id, now).unwrap();
        self.scene().view = None;
        lane.resume();
        let guest = SimGuest::new(self.shared.clone(), id);
        let mail = lane.wait_fds()[0];
        let late_until = Duration::ZERO;
        let actor = Actor { lane, guest, mail, timer: None, again: true, late_until };
        self.actors.insert(id, actor);
        self.scene().rings.entry(id).or_default();
        self.plan(Duration::ZERO, Plan::Issue(id.0));
    }

    /// Does `plan` after some time.
    pub fn plan(&mut self, after: Duration, plan: Plan) {
        let (at, number) = {
            let mut scene = self.scene();
            (scene.now + after, scene.number())
        };
        self.agenda.push(Reverse((at, number, plan)));
    }

    /// Lets time pass until `until`, or until a rule is broken.
    pub fn run_until(&mut self, until: Duration) {
        // Something may have been put on a ring or broken since the last moment.
        let now = self.scene().now;
        self.step(now);
        while self.scene().violation.is_none() {
            let next = self.next_event();
            if next.is_none_or(|next| next > until) {
                self.scene().now = until;
                return;
            }
            self.step(next.unwrap_or(until));
        }
    }

    /// Lets `time` pass.
    pub fn run_for(&mut self, time: Duration) {
        let until = self.scene().now + time;
        self.run_until(until);
    }

    /// The broken rule, if one was.
    pub fn violation(&self) -> Option<Violation> {
        self.scene().violation.clone()
    }

    fn step(&mut self, at: Duration) {
        {
            let mut scene = self.scene();
            scene.now = scene.now.max(at);
        }
        while let Some(Reverse((due, _, plan))) = self.agenda.peek().copied() {
            if due > at {
                break;
            }
            self.agenda.pop();
            self.carry_out(plan);
        }
        for _ in 0..ROUNDS_MAX {
            self.scene().advance();
            if !self.round() || self.scene().violation.is_some() {
                return;
            }
        }
        self.scene().broken(Rule::InTime, "nobody sleeps any more".into());
    }

    /// Everybody who has a reason gets one turn, in any order. False when nobody had one.
    fn round(&mut self) -> bool {
        let readable = self.readable();
        let mut turns: Vec<Option<LaneId>> = self.actors.keys().copied().map(Some).collect();
        turns.push(None);
        let mut any = false;
        while !turns.is_empty() {
            let at = self.scene().random.below(turns.len() as u64) as usize;
            any |= match turns.swap_remove(at) {
                Some(lane) => self.turn_lane(lane, readable.contains(&Some(lane))),
                None => self.turn_manager(readable.contains(&None)),
            };
        }
        any
    }

    fn turn_lane(&mut self, id: LaneId, mail: bool) -> bool {
        let now = self.scene().now;
        let Some(actor) = self.actors.get_mut(&id) else { return false };
        if actor.late_until > now {
            return false;
        }
        let reason = {
            let scene = self.shared.lock();
            let kicked = scene.rings.get(&id).is_some_and(|ring| !ring.queue.is_empty());
            let asked = id == LaneId(0) && !scene.control.queue.is_empty();
            let ends = scene.ends.iter().any(|((to, _), ends)| *to == id && !ends.is_empty());
            mail || ends || (kicked || asked) && !self.stopped
        };
        if !(reason || actor.again || actor.timer.is_some_and(|timer| timer <= now)) {
            return false;
        }
        let table = Arc::clone(&self.manager.hub().snapshot().table);
        {
            let mut scene = self.shared.lock();
            scene.see(id, &table);
            scene.view = Some(View { lane: id, table });
        }
        self.shared.lock().say_loud(|| {
            format!(
                "turn {id} mail {mail} reason {reason} again {} timer {:?}",
                actor.again, actor.timer
            )
        });
        let turn = actor.lane.turn(&mut actor.guest, self.base + now);
        actor.again = turn.again;
        actor.timer = turn.timer.map(|timer| timer.saturating_duration_since(self.base));
        let mut scene = self.shared.lock();
        scene.turn_over();
        actor.late_until = scene.lateness();
        if std::mem::take(&mut scene.rings.entry(id).or_default().answered) {
            drop(scene);
            self.think(id);
        }
        true
    }

    fn turn_manager(&mut self, mail: bool) -> bool {
        let now = self.scene().now;
        if self.manager_late_until > now {
            return false;
        }
        let due = self.manager_due();
        let news = {
            let scene = self.scene();
            let ends = |((to, _), ends): (&(LaneId, usize), &Vec<_>)| {
                *to == LaneId::MANAGER && !ends.is_empty()
            };
            scene.ends.iter().any(ends)
                || scene.ports.iter().any(|port| !port.leaving && !port.news.is_empty())
        };
        if !(mail || news || due.is_some_and(|due| due <= now)) {
            return false;
        }
        self.shared.lock().say_loud(|| {
            format!(
                "turn manager mail {mail} news {news} due {due:?} {:?}",
                self.manager.core().paths().map(|p| (p.id, p.state, p.access)).collect::<Vec<_>>()
            )
        });
        self.scene().clear_up(now);
        let loose = self.loose_orders();
        self.manager.turn(self.base + now);
        self.manager_due.set(None);
        self.look_after_reservations(&loose);
        let mut gone = 0;
        for notice in self.manager.take_notices() {
            self.shared.lock().say(|| format!("told: {notice:?}"));
            gone += u64::from(matches!(notice, Notice::News(News::Gone)));
        }
        self.observe_health();
        let table = Arc::clone(&self.manager.hub().snapshot().table);
        let new = table.holds.iter().filter(|hold| self.holds.insert(hold.id)).count() as u64;
        let mut scene = self.shared.lock();
        scene.counts.holds += new;
        scene.counts.gone += gone;
        scene.oracle.gone += gone;
        scene.version = table.version;
        scene.oracle.suspects.clear();
        let late = scene.lateness();
        drop(scene);
        self.manager_late_until = late;
        true
    }

    /// When the manager wants to be woken. Only what happens to it changes that.
    fn manager_due(&self) -> Option<Duration> {
        if let Some(due) = self.manager_due.get() {
            return due;
        }
        let due = self.manager.next_timer().map(|timer| timer.saturating_duration_since(self.base));
        self.manager_due.set(Some(due));
        due
    }

    /// The manager hears of this from its own thread.
    pub fn tell_manager(&mut self, event: Event, now: Instant) {
        self.manager.apply(event, now);
        self.manager_due.set(None);
    }

    /// There is another manager.
    pub fn forget_manager(&mut self) {
        self.manager_mail = self.manager.wait_fds().0[0];
        self.manager_due.set(None);
        self.manager_late_until = Duration::ZERO;
        self.holds.clear();
    }

    /// Makes the lane's thread look after one of its owner's calls.
    pub fn wake(&mut self, lane: LaneId) {
        if let Some(actor) = self.actors.get_mut(&lane) {
            actor.again = true;
        }
    }

    /// The manager's thread gets no time for a while.
    pub fn delay_manager(&mut self, time: Duration) {
        let now = self.scene().now;
        self.manager_late_until = now + time;
    }

    /// A lane's thread gets no time for a while.
    pub fn delay_lane(&mut self, lane: LaneId, time: Duration) {
        let now = self.scene().now;
        if let Some(actor) = self.actors.get_mut(&lane) {
            actor.late_until = now + time;
        }
    }

    /// True when every lane says that nothing is held and nothing lent.
    pub fn is_idle(&self) -> bool {
        self.actors.values().all(|actor| actor.lane.is_idle())
    }

    fn next_event(&self) -> Option<Duration> {
        let scene = self.scene();
        let now = scene.now;
        let plan = self.agenda.peek().map(|Reverse((at, ..))| *at);
        let manager = self.manager_due().map(|at| at.max(self.manager_late_until));
        let late = |at: Duration| (at > now).then_some(at);
        let lanes = self.actors.values().filter_map(|actor| {
            let timer = if actor.again { Some(now) } else { actor.timer };
            timer.map(|timer| timer.max(actor.late_until))
        });
        let late_lanes = self.actors.values().filter_map(|actor| late(actor.late_until));
        [plan, scene.next_step(), manager, late(self.manager_late_until)]
            .into_iter()
            .flatten()
            .chain(lanes)
            .chain(late_lanes)
            .min()
            .map(|at| at.max(now))
    }

    /// Whose mailbox is readable; `None` stands for the manager.
    fn readable(&self) -> Vec<Option<LaneId>> {
        let owners = self.actors.iter().map(|(id, actor)| (Some(*id), actor.mail));
        let (owners, mut fds): (Vec<_>, Vec<_>) = owners
            .chain([(None, self.manager_mail)])
            .map(|(owner, fd)| (owner, libc::pollfd { fd, events: libc::POLLIN, revents: 0 }))
            .unzip();
        // SAFETY: the array is alive and as long as the call says; the mailboxes outlive it.
        unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, 0) };
        owners.into_iter().zip(&fds).filter(|(_, fd)| fd.revents != 0).map(|(who, _)| who).collect()
    }

    /// Tells the manager that the front end has come or gone.
    pub fn connected(&self, connected: bool) {
        self.manager.hub().connected(connected);
    }
}

impl Scene {
    fn lateness(&mut self) -> Duration {
        let (lag, max) = (self.options.lag, self.options.lag_max);
        match self.mishap(lag) {
            true => self.now + self.random.time(Duration::ZERO..max),
            false => Duration::ZERO,
        }
    }
}
