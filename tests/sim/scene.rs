//! Everything that the simulated paths, the guest and the oracle share. One thread runs a world;
//! the lock is there because the engine's traits ask for types that may be sent.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use vhost_user_scsi_mpath::ids::{AttemptId, LaneId, PathId, Version};
use vhost_user_scsi_mpath::multipath::Table;
use vhost_user_scsi_mpath::path::{Ended, TransportEvent};
use vhost_user_scsi_mpath::virtio_scsi::Event;

use crate::array::{Disk, Port};
use crate::cluster::Cluster;
use crate::command::Command;
use crate::fabric::{Attempt, Step};
use crate::guest::{Control, Ring};
use crate::health::Seen;
use crate::options::Options;
use crate::oracle::Oracle;
use crate::random::Random;

/// A rule that a run can break.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Each command is answered, once.
    AnsweredOnce,
    /// A read brings what may be there.
    DataIsRight,
    /// No write is sent while an earlier attempt of it may still land.
    NoOvertaking,
    /// Nothing lands of a session that was proven dead.
    NothingAfterTheProof,
    /// Nothing lands after the guest was answered.
    NothingAfterTheAnswer,
    /// Some commands are executed once at most.
    NeverTwice,
    /// Memory is lent to one live attempt at most, and to none after the answer.
    MemoryIsLentOnce,
    /// Blocks of an unproven write wait.
    BlocksWait,
    /// No command over a path that must not be used.
    PathIsUsable,
    /// No write reaches another logical unit.
    RightUnit,
    /// No error of ours while there is a path.
    NoNeedlessError,
    /// Each unit attention of the logical unit once, and none of a path's own.
    AttentionOnce,
    /// The guest hears of a size when all paths in use have it.
    SizeIsAgreed,
    /// No command goes to a lesser group while a better one has been there for long.
    BestGroup,
    /// A task management function is answered when what it is about is over.
    TasksAreDone,
    /// Everything ends in time.
    InTime,
    /// At the end nothing is left over.
    CleanEnd,
    /// A read that a silent path held goes on elsewhere in time.
    ReadInTime,
    /// No command over a path that limps, once that was to be seen.
    LimpingLeftAlone,
    /// No path is given up while all of them are silent.
    PathsAreKept,
    /// A path that has failed again and again is well for a while before it is up.
    HeldDown,
    /// All initiators see one unit, on which the guest is one of them.
    OneInitiator,
    /// The engine's own assertions.
    NoPanic,
}

/// A rule was broken.
#[derive(Clone, Debug)]
pub struct Violation {
    /// Which.
    pub rule: Rule,
    /// How, in words.
    pub text: String,
    /// When.
    pub at: Duration,
}

/// What happened in a run, so that one sees that faults bite.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Commands that the guest sent.
    pub commands: u64,
    /// Attempts beyond a command's first.
    pub retries: u64,
    /// Attempts that went over another path than the last one.
    pub failovers: u64,
    /// Holds that were published.
    pub holds: u64,
    /// Writes that landed late.
    pub late_writes: u64,
    /// Faults of the schedule.
    pub faults: u64,
    /// Task management functions.
    pub tasks: u64,
    /// Stops of the rings.
    pub stops: u64,
    /// Unit attentions that the guest got.
    pub attentions: u64,
    /// Those that the guest's own commands made.
    pub own_events: u64,
    /// Answers that were errors of ours.
    pub errors: u64,
    /// Sessions, the first ones too.
    pub sessions: u64,
    /// Logins after a session's end.
    pub logins_again: u64,
    /// Logins that proved that nothing is left of the session before.
    pub proofs: u64,
    /// Attempts that stayed in the host when they were recalled.
    pub parked: u64,
    /// Writes that a proof let go again before the quiesce time was over.
    pub sent_on_proof: u64,
    /// Reads that were cloned.
    pub clones: u64,
    /// Clones that were first.
    pub clones_won: u64,
    /// Ends of attempts whose command was over.
    pub left_behind: u64,
    /// Times that the logical unit was gone over every path.
    pub gone: u64,
    /// Sizes that the guest was told.
    pub sizes: u64,
    /// SET TARGET PORT GROUPS.
    pub sets: u64,
    /// Reservation commands of the guest's.
    pub orders: u64,
    /// Those of other initiators.
    pub others: u64,
    /// Those of them in the middle of what the backend did.
    pub races: u64,
    /// Times that the guest lost its registration to one of them.
    pub shut_out: u64,
    /// Commands that ended in RESERVATION CONFLICT.
    pub conflicts: u64,
    /// Times that the process was killed.
    pub crashes: u64,
}

/// Ends, with the commands that they are about.
pub type Ends = Vec<(Ended, Option<u64>)>;

/// The lane that has its turn, and what it knows.
#[derive(Clone, Debug)]
pub struct View {
    /// Which lane.
    pub lane: LaneId,
    /// The table that it read before anything else.
    pub table: Arc<Table>,
}

/// See the module's text.
pub struct Scene {
    /// When it began, by the engine's clock.
    pub base: Instant,
    /// Time since the start.
    pub now: Duration,
    /// Where all chance comes from.
    pub random: Random,
    /// What the run is made of.
    pub options: Options,
    /// Faults by chance are over: the run comes to its end.
    pub calm: bool,
    /// Say what happens.
    pub tracing: bool,
    /// Say it of every turn.
    pub loud: bool,
    /// The array's ports, the removed ones too.
    pub ports: Vec<Port>,
    /// The array's blocks.
    pub disk: Disk,
    /// Attempts under way, or that may still land.
    pub attempts: BTreeMap<u64, Attempt>,
    /// Attempts to which memory is lent, as the engine names them.
    pub live: BTreeMap<(usize, LaneId, AttemptId), u64>,
    /// What the fabric does next.
    pub agenda: BinaryHeap<Reverse<(Duration, u64, Step)>>,
    /// Ends that wait to be taken.
    pub ends: BTreeMap<(LaneId, usize), Ends>,
    /// The guest's commands, old ones too.
    pub commands: BTreeMap<u64, Command>,
    /// Commands by the address of their memory.
    pub by_memory: HashMap<usize, u64>,
    /// Commands that are not over.
    pub outstanding: BTreeSet<u64>,
    /// The guest's request rings.
    pub rings: BTreeMap<LaneId, Ring>,
    /// The guest's control ring.
    pub control: Control,
    /// What the event queue brought.
    pub events: Vec<Event>,
    /// The judge.
    pub oracle: Oracle,
    /// Other initiators, where there are some.
    pub cluster: Option<Cluster>,
    /// Who has its turn.
    pub view: Option<View>,
    /// What was seen of the paths' health.
    pub seen: BTreeMap<PathId, Seen>,
    /// Which process it is, by the number of those before it.
    pub process: u64,
    /// Nothing of the process before this one lands any more from then on.
    pub quiet_from: Duration,
    /// The array does nothing until then.
    pub paused_until: Duration,
    /// The latest table's version.
    pub version: Version,
    /// The first broken rule.
    pub violation: Option<Violation>,
    /// What happened.
    pub counts: Counts,
    numbers: u64,
}

/// The scene, shared.
#[derive(Clone)]
pub struct Shared(Arc<Mutex<Scene>>);

impl Shared {
    /// A scene of `options`.
    pub fn new(seed: u64, options: Options, tracing: bool) -> Self {
        let cluster = (options.initiators > 0).then(Cluster::new);
        Shared(Arc::new(Mutex::new(Scene {
            base: Instant::now(),
            now: Duration::ZERO,
            random: Random::new(seed),
            options,
            calm: false,
            tracing,
            loud: std::env::var_os("SIM_LOUD").is_some(),
            ports: Vec::new(),
            disk: Disk::default(),
            attempts: BTreeMap::new(),
            live: BTreeMap::new(),
            agenda: BinaryHeap::new(),
            ends: BTreeMap::new(),
            commands: BTreeMap::new(),
            by_memory: HashMap::new(),
            outstanding: BTreeSet::new(),
            rings: BTreeMap::new(),
            control: Control::default(),
            events: Vec::new(),
            oracle: Oracle::new(),
            cluster,
            view: None,
            seen: BTreeMap::new(),
            process: 0,
            quiet_from: Duration::ZERO,
            paused_until: Duration::ZERO,
            version: Version(0),
            violation: None,
            counts: Counts::default(),
            numbers: 0,
        })))
    }

    /// The scene. Never held across a call into the engine.
    pub fn lock(&self) -> MutexGuard<'_, Scene> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Scene {
    /// The transport's word that a link is there, over a nexus that begins now.
    pub fn link_up(&self) -> TransportEvent {
        TransportEvent::Up { nexus_since: Some(self.base + self.now) }
    }

    /// A number that was not there before.
    pub fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    /// Says what happens, when somebody listens.
    pub fn say(&self, text: impl FnOnce() -> String) {
        if self.tracing {
            println!("{:>14.6}  {}", self.now.as_secs_f64(), text());
        }
    }

    /// As [`Scene::say`], for what happens all the time.
    pub fn say_loud(&self, text: impl FnOnce() -> String) {
        if self.tracing && self.loud {
            self.say(text);
        }
    }

    /// A rule was broken. The first one counts.
    pub fn broken(&mut self, rule: Rule, text: String) {
        self.say(|| format!("BROKEN {rule:?}: {text}"));
        let at = self.now;
        self.violation.get_or_insert(Violation { rule, text, at });
    }

    /// Does `step` at `at`.
    pub fn plan(&mut self, at: Duration, step: Step) {
        let number = self.number();
        self.agenda.push(Reverse((at, number, step)));
    }

    /// True in so many of a thousand cases, as long as chance is allowed.
    pub fn mishap(&mut self, permille: u32) -> bool {
        !self.calm && self.random.chance(permille)
    }

    /// A time on the wire.
    pub fn wire(&mut self) -> Duration {
        let us = Duration::from_micros(5);
        let max = self.options.latency;
        us + self.random.time(Duration::ZERO..max)
    }
}
