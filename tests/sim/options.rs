//! What a run is made of. Each seed draws its own options ("swarm"): a run without any late write
//! finds what a run full of them hides, and the other way round.

use std::time::Duration;

use vhost_user_scsi_mpath::engine::{Deadlines, Hedging};
use vhost_user_scsi_mpath::multipath::{Failback, NoPathRetry, Policy, Settings};

use crate::command::Op;
use crate::faults::Fault;
use crate::health::Rules;
use crate::random::Random;

/// Blocks of the simulated disk: few, so that commands meet.
pub const BLOCKS: u64 = 96;
/// Blocks of one command at most.
pub const COMMAND_BLOCKS_MAX: u64 = 6;
/// Bytes of a block.
pub const BLOCK: usize = 512;

/// Ways to break a rule on purpose, to see that the oracle notices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lies {
    /// A late write lands after the time in which it may.
    pub lands_after_quiesce: bool,
    /// The path says "terminated" of an attempt that is executed later.
    pub lands_after_proof: bool,
    /// The target says that a login ends old tasks, and lets them land.
    pub login_ends_nothing: bool,
    /// The proof of a session's end names the session after it.
    pub proof_names_the_next: bool,
    /// The path says "not sent" of an attempt that is executed.
    pub executes_unsent: bool,
    /// The path stores data after it has given the memory back.
    pub touches_memory_after_end: bool,
    /// The path says "unknown" of an attempt that is parked.
    pub parked_is_lost: bool,
    /// The core is told that no write lands late, and they do.
    pub quiesce_is_zero: bool,
    /// The data of a read that was cloned lands in the memory of another.
    pub mixes_up_memory: bool,
    /// The guest's side gives an answer twice.
    pub answers_come_twice: bool,
    /// The guest's side loses answers.
    pub answers_get_lost: bool,
    /// The array loses acknowledged writes.
    pub writes_get_lost: bool,
    /// The logical unit behind a port changes and the port keeps its old name.
    pub remaps_in_disguise: bool,
    /// The array tells of one event twice over one port.
    pub attentions_repeat: bool,
    /// The host loses the array's telling of an event.
    pub attentions_get_lost: bool,
    /// What hangs for the guest answers the manager's questions.
    pub probes_pass_silence: bool,
    /// What limps for the guest is fast for the manager.
    pub probes_do_not_limp: bool,
    /// One port answers the manager's questions while the array pauses.
    pub probes_pass_the_pause: bool,
    /// An admin takes a failed path out and back at once: its failures are forgotten.
    pub admin_forgives: bool,
    /// One port tells of a growth that is another port's.
    pub grows_in_words: bool,
    /// A port tells the states of the groups the wrong way round.
    pub groups_lie: bool,
    /// Every port says that there is no such logical unit, to the host's questions.
    pub denies_the_unit: bool,
    /// The array lets a nexus do what a reservation forbids.
    pub lets_all_in: bool,
    /// The array says that it has registered a nexus, and has not.
    pub registers_in_words: bool,
    /// The array tells another initiator that it has shut the guest out, and has not.
    pub spares_the_guest: bool,
    /// The link is there, and its transport never says so nor answers a question.
    pub probes_get_lost: bool,
    /// The next process takes a crash for an end in good order.
    pub forgets_the_crash: bool,
    /// It believes that nothing lands late after a crash.
    pub crash_lasts_no_time: bool,
    /// The rings do not tell what was taken before the crash.
    pub rings_do_not_tell: bool,
}

/// What a run is made of. Frequencies are in a thousand.
#[derive(Clone, Debug)]
pub struct Options {
    /// Request queues.
    pub lanes: u16,
    /// Ports of the array at the start.
    pub ports: u16,
    /// Commands that each queue keeps under way.
    pub depth: usize,
    /// Commands in all.
    pub commands: u64,
    /// Commands that may meet others under way.
    pub overlap: u32,
    /// Weights of the commands, in the order of [`crate::command::Op::ALL`].
    pub mix: [u32; Op::ALL.len()],
    /// How long the guest thinks between commands, at most.
    pub think: Duration,
    /// Time limits.
    pub deadlines: Deadlines,
    /// How long a write may land after its attempt ended.
    pub write_quiesce: Duration,
    /// What to do without a path.
    pub no_path_retry: NoPathRetry,
    /// When to go back to a better group.
    pub failback: Failback,
    /// Tell the array which group is to be the better one.
    pub explicit: bool,
    /// How paths are chosen.
    pub policy: Policy,
    /// Time on the wire in each direction, at most.
    pub latency: Duration,
    /// A thread is late after a turn.
    pub lag: u32,
    /// How late.
    pub lag_max: Duration,
    /// Attempts that vanish.
    pub drop: u32,
    /// Attempts whose answer vanishes.
    pub lose: u32,
    /// Vanished writes that land late.
    pub late: u32,
    /// Attempts that the host has no room for.
    pub host_busy: u32,
    /// BUSY and TASK SET FULL.
    pub busy: u32,
    /// ABORTED COMMAND for the link's sake.
    pub aborted: u32,
    /// Errors of the medium.
    pub medium: u32,
    /// Reads that bring less than asked for.
    pub short: u32,
    /// Answers that take much longer than the wire does.
    pub slow: u32,
    /// How much longer, at most.
    pub slow_max: Duration,
    /// Memory that comes back late.
    pub slow_recall: u32,
    /// How late, at most.
    pub recall_max: Duration,
    /// Ports whose transport can prove that an attempt is dead.
    pub proves: u32,
    /// Ports whose transport tells of its link.
    pub tells: u32,
    /// Ports whose transport has sessions.
    pub sessions: u32,
    /// Sessions whose target ends old tasks before it lets the next one in.
    pub ends_old_tasks: u32,
    /// How long it takes to log in again, at most.
    pub login_max: Duration,
    /// Attempts of a session that wait before they are handed to the wire.
    pub queued: u32,
    /// Time between two faults, on average; zero for none.
    pub fault_every: Duration,
    /// How long a fault lasts, at most.
    pub fault_length: Duration,
    /// Weights of the faults, in the order of [`crate::faults::Fault::ALL`].
    pub faults: [u32; 23],
    /// Time between two task management functions, on average; zero for none.
    pub tasks_every: Duration,
    /// Time between two stops of the rings, on average; zero for none.
    pub stops_every: Duration,
    /// Stops that are a lost connection.
    pub disconnects: u32,
    /// Time between two crashes of the process, on average; zero for none.
    pub crashes_every: Duration,
    /// Ports whose host keeps what it was given when it is recalled.
    pub parks: u32,
    /// How long, at most.
    pub parked_max: Duration,
    /// Other initiators on the logical unit; with some the guest reserves as well.
    pub initiators: u16,
    /// Time between two of their commands, on average; zero for none.
    pub others_every: Duration,
    /// Times that one of them acts in the middle of what the backend does.
    pub amid: u32,
    /// How long it takes to keep a record, at most.
    pub keep_max: Duration,
    /// Broken rules.
    pub lies: Lies,
    /// Rules that hold in runs with one kind of trouble only.
    pub rules: Rules,
}

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

impl Options {
    /// One lane, two good ports, nothing goes wrong: what directed tests start from.
    pub fn quiet() -> Self {
        Options {
            lanes: 1,
            ports: 2,
            depth: 1,
            commands: 0,
            overlap: 0,
            mix: Op::ALL.map(|op| {
                u32::from(!matches!(op, Op::ModeSelect | Op::ReserveOut | Op::ReserveIn))
            }),
            think: ms(1),
            deadlines: Deadlines {
                path_timeout: ms(1000),
                command_deadline: ms(8000),
                hedging: None,
            },
            write_quiesce: ms(500),
            no_path_retry: NoPathRetry::Queue,
            failback: Failback::Immediate,
            explicit: false,
            policy: Policy::RoundRobin,
            latency: Duration::from_micros(200),
            lag: 0,
            lag_max: Duration::ZERO,
            drop: 0,
            lose: 0,
            late: 0,
            host_busy: 0,
            busy: 0,
            aborted: 0,
            medium: 0,
            short: 0,
            slow: 0,
            slow_max: ms(300),
            slow_recall: 0,
            recall_max: ms(1),
            proves: 0,
            tells: 0,
            sessions: 0,
            ends_old_tasks: 0,
            login_max: ms(5),
            queued: 0,
            fault_every: Duration::ZERO,
            fault_length: ms(1000),
            faults: [1; 23],
            tasks_every: Duration::ZERO,
            stops_every: Duration::ZERO,
            disconnects: 0,
            crashes_every: Duration::ZERO,
            parks: 0,
            parked_max: ms(3000),
            initiators: 0,
            others_every: Duration::ZERO,
            amid: 0,
            keep_max: ms(5),
            lies: Lies::default(),
            rules: Rules::default(),
        }
    }

    /// The options that `seed` stands for.
    pub fn swarm(seed: u64) -> Self {
        let random = &mut Random::new(seed ^ 0x0971_0115);
        let timeout = random.time(ms(300)..ms(1500));
        let limit = random.time(ms(100)..ms(9000));
        let retries = [NoPathRetry::Queue, NoPathRetry::Fail, NoPathRetry::For(limit)];
        let failbacks =
            [Failback::Immediate, Failback::Manual, Failback::Followover, Failback::After(limit)];
        let policies = [Policy::Numa, Policy::RoundRobin, Policy::QueueDepth, Policy::ServiceTime];
        let ports = random.pick(&[1, 2, 2, 2, 3, 4]);
        let mut options = Options {
            lanes: random.within(1..5) as u16,
            ports,
            depth: random.within(1..9) as usize,
            commands: random.within(100..350),
            overlap: random.pick(&[0, 50, 300]),
            mix: Op::ALL.map(|op| match op {
                Op::Read | Op::Write => 30,
                Op::ModeSelect | Op::ReserveOut | Op::ReserveIn => 0,
                _ => random.pick(&[0, 1, 2, 6]),
            }),
            think: random.pick(&[ms(5), ms(60), ms(400)]),
            deadlines: Deadlines {
                path_timeout: timeout,
                command_deadline: timeout * random.within(4..9) as u32,
                hedging: None,
            },
            write_quiesce: random.time(ms(20)..ms(900)),
            no_path_retry: random.pick(&retries),
            failback: random.pick(&failbacks),
            explicit: random.chance(300),
            policy: random.pick(&policies),
            latency: random.pick(&[Duration::from_micros(50), ms(1), ms(40)]),
            lag: random.pick(&[0, 0, 50, 300]),
            lag_max: random.pick(&[ms(1), ms(20), ms(200)]),
            drop: random.pick(&[0, 0, 10, 60]),
            lose: random.pick(&[0, 0, 10, 60]),
            late: random.pick(&[0, 300, 1000]),
            host_busy: random.pick(&[0, 0, 5, 50]),
            busy: random.pick(&[0, 0, 5, 100]),
            aborted: random.pick(&[0, 0, 5, 50]),
            medium: random.pick(&[0, 0, 10]),
            short: random.pick(&[0, 0, 10]),
            slow: 0,
            slow_max: Duration::ZERO,
            slow_recall: random.pick(&[0, 0, 300]),
            recall_max: random.pick(&[ms(5), ms(400), ms(2000)]),
            proves: random.pick(&[0, 500, 1000]),
            tells: random.pick(&[0, 500, 1000]),
            sessions: random.pick(&[0, 500, 1000]),
            ends_old_tasks: random.pick(&[0, 500, 1000]),
            login_max: random.pick(&[ms(1), ms(30), ms(300), ms(1500)]),
            queued: random.pick(&[0, 100, 500]),
            fault_every: random.pick(&[Duration::ZERO, ms(100), ms(400), ms(1500)]),
            fault_length: random.pick(&[ms(50), ms(700), ms(2000), ms(9000)]),
            faults: std::array::from_fn(|_| random.pick(&[0, 1, 1, 4])),
            tasks_every: random.pick(&[Duration::ZERO, ms(100), ms(700)]),
            stops_every: random.pick(&[Duration::ZERO, ms(500), ms(3000)]),
            disconnects: random.pick(&[0, 500, 1000]),
            crashes_every: Duration::ZERO,
            parks: random.pick(&[0, 0, 500, 1000]),
            parked_max: random.pick(&[ms(100), ms(2000), ms(8000)]),
            initiators: 0,
            others_every: Duration::ZERO,
            amid: 0,
            keep_max: Duration::ZERO,
            lies: Lies::default(),
            rules: Rules::default(),
        };
        if random.chance(500) {
            options.deadlines.hedging = Some(Hedging {
                budget: random.pick(&[0.05, 0.5, 1.0]),
                permille: random.pick(&[500, 900, 990]),
                samples_min: random.pick(&[1, 4, 16]),
            });
        }
        options.slow = random.pick(&[0, 0, 30, 200]);
        options.slow_max = random.pick(&[ms(20), ms(200), ms(2000)]);
        options.mix[Op::ModeSelect as usize] = random.pick(&[0, 0, 1, 4]);
        options
    }

    /// The options of `seed` with other initiators on the logical unit.
    pub fn cluster(seed: u64) -> Self {
        let random = &mut Random::new(seed ^ 0xC105_7E12);
        let mut options = Options::swarm(seed);
        options.initiators = random.within(1..3) as u16;
        options.others_every = random.pick(&[ms(20), ms(100), ms(500)]);
        options.amid = random.pick(&[0, 0, 200]);
        options.keep_max = random.pick(&[ms(0), ms(2), ms(50)]);
        options.mix[Op::ReserveOut as usize] = random.pick(&[5, 20, 60]);
        options.mix[Op::ReserveIn as usize] = random.pick(&[0, 5, 20]);
        options.mix[Op::ModeSelect as usize] = 0;
        for fault in [Fault::Mode, Fault::Unmap, Fault::Remap, Fault::Vanish] {
            options.faults[fault as usize] = 0;
        }
        options
    }

    /// What the core is told.
    pub fn settings(&self) -> Settings {
        Settings {
            wwid: Some(format!("naa.60{}", "11".repeat(15))),
            policy: self.policy,
            no_path_retry: self.no_path_retry,
            write_quiesce: match self.lies.quiesce_is_zero {
                true => Duration::ZERO,
                false => self.write_quiesce,
            },
            failback: self.failback,
            explicit_alua: self.explicit,
        }
    }
}
