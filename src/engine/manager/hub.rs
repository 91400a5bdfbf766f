//! What lanes and manager share: where mail goes, the latest snapshot for a new lane, the guest's
//! unit attention, the counters. Nothing here is touched on the way of a command, but for one load
//! of the unit attention.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::engine::driven::Lanes;
use crate::engine::lane::{Lane, Parts};
use crate::engine::mailbox::{Post, mailbox};
use crate::engine::messages::{Attention, Deadlines, Snapshot, ToLane, ToManager};
use crate::engine::numa;
use crate::ids::LaneId;
use crate::multipath::Nodes;
use crate::path::Transport;
use crate::stats::Registry;

/// Shared by the manager, the lanes and those who make lanes.
#[derive(Debug)]
pub struct Hub<T> {
    snapshot: Mutex<Arc<Snapshot<T>>>,
    lanes: Mutex<BTreeMap<LaneId, Post<ToLane<T>>>>,
    manager: Post<ToManager>,
    deadlines: Mutex<Deadlines>,
    landing_us: AtomicU64,
    /// All lanes' counters.
    pub counters: Registry,
    /// The guest's pending unit attention.
    pub attention: Arc<Attention>,
}

impl<T: Transport> Hub<T> {
    /// For a manager that reads what is posted to `manager`.
    pub fn new(snapshot: Arc<Snapshot<T>>, manager: Post<ToManager>, deadlines: Deadlines) -> Self {
        Hub {
            snapshot: Mutex::new(snapshot),
            lanes: Mutex::default(),
            manager,
            deadlines: Mutex::new(deadlines),
            landing_us: AtomicU64::new(0),
            counters: Registry::default(),
            attention: Arc::default(),
        }
    }

    /// The latest snapshot.
    pub fn snapshot(&self) -> Arc<Snapshot<T>> {
        Arc::clone(&locked(&self.snapshot))
    }

    /// Makes `snapshot` the latest and sends it to every lane.
    pub fn publish(&self, snapshot: Arc<Snapshot<T>>) {
        *locked(&self.snapshot) = Arc::clone(&snapshot);
        for post in locked(&self.lanes).values() {
            post.send(ToLane::Snapshot(Arc::clone(&snapshot)));
        }
    }

    /// Makes `deadlines` those of every lane, now and later.
    pub fn set_deadlines(&self, deadlines: Deadlines) {
        *locked(&self.deadlines) = deadlines;
        for post in locked(&self.lanes).values() {
            post.send(ToLane::Deadlines(deadlines));
        }
    }

    /// What [`Lanes::landing_time`] tells from now on.
    pub fn set_landing_time(&self, time: Duration) {
        self.landing_us.store(time.as_micros() as u64, Ordering::Relaxed);
    }

    /// Sends to one lane.
    pub fn send(&self, lane: LaneId, message: ToLane<T>) {
        if let Some(post) = locked(&self.lanes).get(&lane) {
            post.send(message);
        }
    }

    /// A lane of a world in which it is `now`, and whose time passes only between turns.
    pub fn lane_at(&self, id: LaneId, now: Instant) -> io::Result<Lane<T>> {
        self.make_lane(id, now, |now| now, (|| None, Arc::default()))
    }

    fn make_lane(
        &self,
        id: LaneId,
        now: Instant,
        later: fn(Instant) -> Instant,
        (node, nodes): (fn() -> Option<u16>, Arc<Nodes>),
    ) -> io::Result<Lane<T>> {
        let (post, mail) = mailbox()?;
        // First the address, then what is read from here: what changes in between comes by mail.
        locked(&self.lanes).insert(id, post);
        Ok(Lane::new(Parts {
            id,
            mail,
            manager: self.manager.clone(),
            snapshot: self.snapshot(),
            attention: Arc::clone(&self.attention),
            counters: self.counters.lane(),
            deadlines: *locked(&self.deadlines),
            now,
            later,
            node,
            nodes,
        }))
    }
}

impl<T: Transport> Lanes for Hub<T> {
    type Lane = Lane<T>;

    fn lane(&self, id: LaneId) -> io::Result<Lane<T>> {
        let nodes = Arc::clone(&numa::host().nodes);
        self.make_lane(id, Instant::now(), |_| Instant::now(), (numa::current_node, nodes))
    }

    fn connected(&self, connected: bool) {
        self.manager.send(ToManager::Frontend(connected));
    }

    fn landing_time(&self) -> Duration {
        Duration::from_micros(self.landing_us.load(Ordering::Relaxed))
    }

    fn await_landing(&self, deadline: Instant) -> bool {
        let (post, landed) = channel();
        // Behind what the lanes have told of their last attempts.
        self.manager.send(ToManager::Landing(post));
        landed.recv_timeout(deadline.saturating_duration_since(Instant::now())).is_ok()
    }
}

/// A lock that a panicking thread may have held: what it protects is replaced whole, never half.
fn locked<V>(mutex: &Mutex<V>) -> MutexGuard<'_, V> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
