//! Rules of health: what becomes of a path that is silent, limps or flaps while its siblings are
//! well, and of all of them while the array pauses. Each run has one kind of trouble, on one port at
//! a time, so that the rule is a plain one; and each rule is shown to bite.

use std::time::Duration;

use vhost_user_scsi_mpath::engine::Deadlines;
use vhost_user_scsi_mpath::limits::{HOLD_DOWN, HOLD_DOWN_MAX};
use vhost_user_scsi_mpath::multipath::{Event, PathState, Policy};

use crate::command::Op;
use crate::faults::Fault;
use crate::ms;
use crate::options::{Lies, Options};
use crate::run::run;
use crate::scene::{Counts, Rule, Scene, Violation};
use crate::world::World;

/// Within this time a path that limps is left alone.
const SEEN: Duration = Duration::from_secs(2);
/// The array works for so long between two pauses.
const PAUSES_APART: Duration = Duration::from_millis(200);
/// A read that a silent path held is answered within this time.
const READ_MAX: Duration = Duration::from_secs(1);

/// Which rules of health hold in a run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rules {
    /// [`Rule::ReadInTime`].
    pub reads_in_time: bool,
    /// [`Rule::LimpingLeftAlone`].
    pub limping_left_alone: bool,
    /// [`Rule::PathsAreKept`].
    pub paths_are_kept: bool,
    /// [`Rule::HeldDown`].
    pub held_down: bool,
    /// Nothing breaks before everything is up again.
    pub one_at_a_time: bool,
    /// A fault lasts at least so long.
    pub at_least: Duration,
}

/// What was seen of one path.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    state: Option<PathState>,
    failures: u32,
    /// It has failed since it was up, and since when it is in use again.
    returned: Option<Duration>,
    failed: bool,
}

impl Scene {
    /// A read was answered.
    pub fn judge_read_time(&mut self, serial: u64) {
        let command = &self.commands[&serial];
        let took = self.now - command.begun;
        if self.options.rules.reads_in_time && command.op == Op::Read && took > READ_MAX {
            self.broken(Rule::ReadInTime, format!("read {serial} took {took:?}"));
        }
    }

    /// A command is sent over `port`.
    pub fn judge_limping(&mut self, port: usize, serial: u64) {
        let now = self.now;
        let long = |since: Option<Duration>| since.is_some_and(|since| now > since + SEEN);
        let well = |other: &crate::array::Port| other.slow.is_zero() && long(other.good_since);
        if self.options.rules.limping_left_alone
            && long(self.ports[port].slow_since)
            && self.ports.iter().any(well)
        {
            let text = format!("{serial} was sent over port {port}, which limps");
            self.broken(Rule::LimpingLeftAlone, text);
        }
    }
}

impl World {
    /// The manager had its turn: what became of the paths?
    pub fn observe_health(&mut self) {
        let rules = self.scene().options.rules;
        if !(rules.paths_are_kept || rules.held_down) {
            return;
        }
        let paths: Vec<_> = self.manager.core().paths().map(|path| (path.id, path.state)).collect();
        let mut forgiven = Vec::new();
        let mut scene = self.scene();
        let (now, forgives) = (scene.now, scene.options.lies.admin_forgives);
        for (id, state) in paths {
            let mut seen = scene.seen.get(&id).copied().unwrap_or_default();
            let before = seen.state.replace(state);
            if before == Some(state) {
                continue;
            }
            if state == PathState::Failed {
                if rules.paths_are_kept && before.is_some_and(PathState::is_usable) {
                    scene.broken(Rule::PathsAreKept, format!("{id} failed"));
                }
                seen.failures += u32::from(before.is_some_and(PathState::is_usable));
                (seen.failed, seen.returned) = (true, None);
                if forgives {
                    forgiven.push(id);
                }
            } else if state.is_usable() && seen.failed {
                let since = *seen.returned.get_or_insert(now);
                let hold = hold_down(seen.failures);
                if state == PathState::Up && now < since + hold {
                    let (n, so_far) = (seen.failures, now - since);
                    let text = format!("{id} is up after {so_far:?} and {n} failures");
                    scene.broken(Rule::HeldDown, text);
                }
                seen.failed = state != PathState::Up;
            }
            scene.seen.insert(id, seen);
        }
        drop(scene);
        let now = self.now();
        for id in forgiven {
            self.tell_manager(Event::Disable(id), now);
            self.tell_manager(Event::Reinstate(id), now);
        }
    }

    /// True when nothing is broken and nothing is out of use.
    pub fn all_is_well(&self) -> bool {
        let well =
            |port: &crate::array::Port| port.leaving || port.is_good() && port.slow.is_zero();
        let scene = self.scene();
        scene.now > scene.paused_until + PAUSES_APART
            && scene.ports.iter().all(well)
            && self.manager.core().paths().all(|path| path.state == PathState::Up)
    }
}

/// How long a path must be well after so many failures.
fn hold_down(failures: u32) -> Duration {
    match failures {
        0 | 1 => Duration::ZERO,
        more => (HOLD_DOWN * (1 << (more - 2).min(8))).min(HOLD_DOWN_MAX),
    }
}

/// A busy guest on good paths; one kind of fault.
fn options(seed: u64, fault: Fault) -> Options {
    Options {
        lanes: 2,
        ports: 2 + (seed % 2) as u16,
        depth: 3,
        commands: 5000,
        latency: ms(8),
        mix: Op::ALL.map(|op| match op {
            Op::Read => 10,
            Op::Write => 2,
            _ => 0,
        }),
        think: ms(8),
        deadlines: Deadlines {
            path_timeout: ms(5000),
            command_deadline: ms(30_000),
            hedging: None,
        },
        policy: [Policy::RoundRobin, Policy::QueueDepth, Policy::Numa, Policy::ServiceTime]
            [seed as usize / 2 % 4],
        fault_every: ms(700),
        fault_length: ms(3000),
        faults: Fault::ALL.map(|one| u32::from(one == fault)),
        rules: Rules { one_at_a_time: true, ..Rules::default() },
        ..Options::quiet()
    }
}

fn silent(seed: u64) -> Options {
    let mut options = options(seed, Fault::Hang);
    // What is lost in a moment of silence is no matter of the path's health.
    (options.rules.reads_in_time, options.rules.at_least) = (true, READ_MAX);
    options
}

fn limping(seed: u64) -> Options {
    let mut options = options(seed, Fault::Limp);
    options.rules.limping_left_alone = true;
    options
}

fn pausing(seed: u64) -> Options {
    let mut options = options(seed, Fault::Pause);
    (options.rules.paths_are_kept, options.fault_length) = (true, ms(2000));
    options
}

fn flapping(seed: u64) -> Options {
    let mut options = options(seed, Fault::Cut);
    (options.rules.held_down, options.tells, options.proves) = (true, 1000, 1000);
    (options.rules.one_at_a_time, options.fault_every) = (false, ms(500));
    options.fault_length = ms(600);
    options
}

fn runs_well(options: impl Fn(u64) -> Options) -> Counts {
    let mut faults = Counts::default();
    for seed in 1..=3 {
        let result = run(seed, options(seed), std::env::var_os("SIM_TRACE").is_some());
        faults.faults += result.clone().map_or(0, |counts| counts.faults);
        assert!(result.is_ok(), "seed {seed}: {result:?}");
    }
    faults
}

/// Runs seeds in which something lies until one breaks `rule`.
fn bites(rule: Rule, options: impl Fn(u64) -> Options, lies: Lies) {
    let broken = |seed| run(seed, Options { lies, ..options(seed) }, false).err();
    let violations: Vec<Option<Violation>> = (1..=3).map(broken).collect();
    let is_it = |violation: &Option<Violation>| {
        violation.as_ref().is_some_and(|violation| violation.rule == rule)
    };
    assert!(violations.iter().any(is_it), "nobody noticed; instead: {violations:?}");
}

#[test]
fn read_on_a_silent_path_is_answered_within_a_second() {
    assert!(runs_well(silent).faults >= 3);
    let lies = Lies { probes_pass_silence: true, ..Lies::default() };
    bites(Rule::ReadInTime, silent, lies);
}

#[test]
fn limping_path_gets_no_command_when_it_has_been_seen() {
    assert!(runs_well(limping).faults >= 3);
    let lies = Lies { probes_do_not_limp: true, ..Lies::default() };
    bites(Rule::LimpingLeftAlone, limping, lies);
}

#[test]
fn array_that_pauses_loses_no_path() {
    assert!(runs_well(pausing).faults >= 3);
    let lies = Lies { probes_pass_the_pause: true, ..Lies::default() };
    bites(Rule::PathsAreKept, pausing, lies);
}

#[test]
fn flapping_path_is_held_down() {
    assert!(runs_well(flapping).faults > 15);
    let lies = Lies { admin_forgives: true, ..Lies::default() };
    bites(Rule::HeldDown, flapping, lies);
}
