//! The rules of health, on a core whose paths answer questions and carry commands as told.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::{Action, Core, Event, News, NoPathRetry, Settings};
use crate::ids::{LaneId, PathId};
use crate::limits::{HEALTH_TICK, LIMP_GOOD, SUSPECT_AFTER};
use crate::lun::face::samples;
use crate::multipath::path::Path;
use crate::multipath::probe::Question;
use crate::multipath::retry::Problem;
use crate::multipath::{Failback, PathState, Placement, Policy};
use crate::path::{Answer, Failure, Fate, Reach, Residual};
use crate::scsi::{Asc, Sense, SenseKey, Status, opcode};

const STEP: Duration = Duration::from_millis(5);
const A: PathId = PathId(0);
const B: PathId = PathId(1);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// How a path behaves.
#[derive(Clone, Copy)]
struct Nature {
    /// How long a question takes.
    question: Duration,
    /// How long a command takes; `None` where none is sent.
    command: Option<Duration>,
    /// It says nothing.
    silent: bool,
    /// Its blocks cannot be read.
    unreadable: bool,
    /// Somebody else's reservation keeps its blocks from being read.
    reserved: bool,
}

const WELL: Nature = Nature {
    question: ms_const(1),
    command: Some(ms_const(1)),
    silent: false,
    unreadable: false,
    reserved: false,
};

const fn ms_const(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

struct World {
    core: Core,
    now: Instant,
    start: Instant,
    natures: BTreeMap<PathId, Nature>,
    asked: Vec<(Instant, PathId, Question)>,
    reports: u64,
    /// Changes of state: when, whose, to what, why.
    changes: Vec<(Duration, String, PathState, String)>,
    /// Questions that were asked of paths, by opcode.
    questions: BTreeMap<u8, u32>,
}

impl World {
    /// Two paths that are up and carry commands.
    fn new() -> Self {
        let settings = Settings {
            wwid: None,
            policy: Policy::RoundRobin,
            no_path_retry: NoPathRetry::Queue,
            write_quiesce: ms(1000),
            failback: Failback::Immediate,
            explicit_alua: false,
        };
        let start = Instant::now();
        let mut world = World {
            core: Core::new(settings, start),
            now: start,
            start,
            natures: BTreeMap::from([(A, WELL), (B, WELL)]),
            asked: Vec::new(),
            reports: 0,
            changes: Vec::new(),
            questions: BTreeMap::new(),
        };
        world.apply(Event::LaneUp(LaneId(0)));
        for (path, name) in [(A, "a"), (B, "b")] {
            world.apply(Event::Added {
                path,
                name: name.to_owned(),
                placement: Placement::default(),
                bytes_max: None,
                hides_attentions: false,
            });
        }
        world.run(ms(500));
        assert_eq!(world.states(), [PathState::Up; 2]);
        world.changes.clear();
        world
    }

    fn apply(&mut self, event: Event) {
        for action in self.core.apply(event, self.now) {
            match action {
                Action::Ask(path, question) => {
                    *self.questions.entry(question.cdb.opcode()).or_default() += 1;
                    self.asked.push((self.now, path, question));
                }
                Action::GiveUp(path) => self.end(path, Failure::Recalled),
                Action::Tell(News::Path { name, to, reason, .. }) => {
                    self.changes.push((self.now - self.start, name, to, reason));
                }
                _ => {}
            }
        }
    }

    fn end(&mut self, path: PathId, failure: Failure) {
        if let Some(at) = self.asked.iter().position(|(_, of, _)| *of == path) {
            self.asked.remove(at);
            let fate = Fate::Failed(failure, Reach::Unknown);
            self.apply(Event::Answered { path, fate, data: Vec::new() });
        }
    }

    fn run(&mut self, time: Duration) {
        let until = self.now + time;
        while self.now < until {
            self.now += STEP;
            self.answer();
            self.carry();
            if self.core.next_timer().is_some_and(|due| due <= self.now) {
                self.apply(Event::Tick);
            }
        }
    }

    fn answer(&mut self) {
        let now = self.now;
        let natures = self.natures.clone();
        let due = |(at, path, _): &(Instant, PathId, Question)| {
            !natures[path].silent && now >= *at + natures[path].question
        };
        while let Some(at) = self.asked.iter().position(due) {
            let (_, path, question) = self.asked.remove(at);
            let (fate, data) = reply(&question, self.natures[&path]);
            self.apply(Event::Answered { path, fate, data });
        }
    }

    /// One command ends on each path that is used: on those that are up, or on all without one.
    fn carry(&mut self) {
        let any_up = self.core.paths().any(|path| path.state == PathState::Up);
        for path in self.core.paths().filter(|path| path.is_usable()) {
            let nature = self.natures[&path.id];
            let Some(took) = nature.command.filter(|_| !nature.silent) else { continue };
            if path.state == PathState::Up || !any_up {
                path.load.started(4096);
                path.load.ended(4096, took, self.now, true);
            }
        }
    }

    fn report(&mut self, path: PathId, problem: Problem) {
        self.reports += 1;
        let (lane, number) = (LaneId(0), self.reports);
        self.apply(Event::Reported { lane, number, path, problem });
    }

    /// The path is silent from now on, and a lane notices.
    fn silence(&mut self, paths: &[PathId]) {
        for path in paths {
            self.nature(*path).silent = true;
        }
        self.run(SUSPECT_AFTER);
        paths.iter().for_each(|path| self.report(*path, Problem::Overdue));
    }

    fn nature(&mut self, path: PathId) -> &mut Nature {
        self.natures.get_mut(&path).unwrap()
    }

    fn path(&self, id: PathId) -> &Path {
        self.core.paths().find(|path| path.id == id).unwrap()
    }

    fn states(&self) -> Vec<PathState> {
        self.core.paths().map(|path| path.state).collect()
    }

    /// The path fails and answers again at once; its state then.
    fn flap(&mut self, path: PathId) -> PathState {
        self.report(path, Problem::Failed(Failure::Disconnected));
        assert_eq!(self.path(path).state, PathState::Failed);
        self.apply(Event::LinkUp(path, None));
        self.run(ms(200));
        self.path(path).state
    }
}

/// What an array answers.
fn reply(question: &Question, nature: Nature) -> (Fate, Vec<u8>) {
    let facts = samples::facts();
    let cdb = question.cdb.padded();
    let answer = |status, sense: Option<Sense>| {
        let sense = sense.map(Box::new);
        Fate::Answered(Answer { status, sense, residual: Residual::None })
    };
    let data = match (cdb[0], cdb[1]) {
        (opcode::READ_16, _) if nature.reserved => {
            return (answer(Status::RESERVATION_CONFLICT, None), Vec::new());
        }
        (opcode::READ_16, _) if nature.unreadable => {
            let sense = Sense::fixed(SenseKey::MediumError, Asc(0x11, 0));
            return (answer(Status::CHECK_CONDITION, Some(sense)), Vec::new());
        }
        (opcode::INQUIRY, 0) => facts.inquiry.for_guest(),
        (opcode::INQUIRY, _) if cdb[2] == 0 => vec![0, 0, 0, 2, 0, 0x83],
        (opcode::INQUIRY, _) => facts.pages[&cdb[2]].clone(),
        (opcode::SERVICE_ACTION_IN_16, _) => facts.capacity.unwrap().encode_16().to_vec(),
        _ => Vec::new(),
    };
    (answer(Status::GOOD, None), data)
}

#[test]
fn silent_path_is_given_up_in_less_than_a_second() {
    let mut world = World::new();
    let from = world.now - world.start;
    world.silence(&[A]);
    world.run(ms(3000));
    let (at, name, to, reason) = world.changes[0].clone();
    assert_eq!((name.as_str(), to), ("a", PathState::Failed));
    assert_eq!(reason, "does not answer, and b does");
    assert!(at - from < ms(900), "{:?}", at - from);
    assert_eq!(world.states(), [PathState::Failed, PathState::Up]);
}

#[test]
fn silent_path_is_given_up_also_where_its_sibling_is_idle() {
    let mut world = World::new();
    world.nature(B).command = None;
    world.run(ms(1000));
    world.silence(&[A]);
    world.run(ms(600));
    assert_eq!(world.states(), [PathState::Failed, PathState::Up]);
}

#[test]
fn array_that_pauses_costs_no_path() {
    for first in [A, B] {
        let mut world = World::new();
        world.silence(&[A, B]);
        world.run(ms(1700));
        world.nature(first).silent = false;
        world.run(ms(200));
        [A, B].iter().for_each(|path| world.nature(*path).silent = false);
        world.run(ms(5000));
        assert_eq!((world.states(), world.changes.len()), (vec![PathState::Up; 2], 0));
    }
}

#[test]
fn only_path_is_never_given_up() {
    let mut world = World::new();
    world.apply(Event::Disable(B));
    world.silence(&[A]);
    world.run(ms(20_000));
    assert_eq!(world.path(A).state, PathState::Up);
}

#[test]
fn slow_answer_is_no_silence() {
    let mut world = World::new();
    world.report(A, Problem::Overdue);
    world.run(ms(2000));
    assert_eq!((world.states(), world.changes.len()), (vec![PathState::Up; 2], 0));
}

#[test]
fn failed_path_is_asked_anew_before_the_path_timeout() {
    let mut world = World::new();
    world.silence(&[A]);
    let asked = |world: &World| world.asked.iter().any(|(_, path, _)| *path == A);
    while world.path(A).state != PathState::Failed || !asked(&world) {
        world.run(STEP);
    }
    // What was asked meanwhile is lost.
    let lost = world.asked.iter_mut().filter(|(_, path, _)| *path == A);
    assert_eq!(lost.map(|(at, ..)| *at += ms(60_000)).count(), 1);
    world.nature(A).silent = false;
    world.run(ms(4000));
    assert_eq!(world.path(A).state, PathState::Up);
}

#[test]
fn limping_path_is_the_last_resort_until_it_is_fast_again() {
    let mut world = World::new();
    let from = world.now - world.start;
    (world.nature(A).question, world.nature(A).command) = (ms(100), Some(ms(100)));
    world.run(ms(2000));
    let (at, name, to, reason) = world.changes[0].clone();
    assert_eq!((name.as_str(), to), ("a", PathState::Shaky));
    assert_eq!(reason, "limping: a block takes 100 ms, 5.0 ms over b");
    assert!(at - from < ms(1200), "{:?}", at - from);
    // However long that lasts.
    world.run(ms(20_000));
    assert_eq!(world.changes.len(), 1);
    *world.nature(A) = WELL;
    world.run(HEALTH_TICK * u32::from(LIMP_GOOD) + ms(300));
    assert_eq!(world.states(), [PathState::Up; 2]);
}

#[test]
fn path_without_a_faster_sibling_does_not_limp() {
    for slow in [20, 4000] {
        let mut world = World::new();
        for path in [A, B] {
            (world.nature(path).question, world.nature(path).command) = (ms(slow), Some(ms(slow)));
        }
        world.run(ms(10_000));
        assert_eq!(world.changes, [], "{slow} ms");
    }
}

#[test]
fn path_four_times_slower_never_flaps() {
    let mut world = World::new();
    (world.nature(A).question, world.nature(A).command) = (ms(40), Some(ms(40)));
    (world.nature(B).question, world.nature(B).command) = (ms(10), Some(ms(10)));
    world.run(ms(60_000));
    assert_eq!(world.changes, []);
}

#[test]
fn guest_that_asks_for_slow_things_over_one_path_makes_it_not_limp() {
    let mut world = World::new();
    world.nature(A).command = Some(ms(80));
    world.run(ms(60_000));
    assert_eq!(world.changes, []);
    assert!(world.questions[&opcode::READ_16] > 6, "it was tried: {:?}", world.questions);
}

#[test]
fn limping_path_whose_hold_down_is_over_lets_the_manager_sleep() {
    let mut world = World::new();
    world.flap(A);
    assert_eq!(world.flap(A), PathState::Shaky);
    world.path(A).load.started(1);
    (world.nature(A).question, world.nature(A).command) = (ms(400), Some(ms(400)));
    world.nature(B).command = None;
    world.report(A, Problem::Failed(Failure::Disconnected));
    world.apply(Event::LinkUp(A, None));
    world.run(ms(15_000));
    let reason = world.path(A).explanation(world.now);
    assert!(reason.starts_with("limping"), "{reason}");
    world.apply(Event::Tick);
    assert!(world.core.next_timer() > Some(world.now));
}

#[test]
fn limping_path_that_limps_again_is_held_down() {
    let mut world = World::new();
    for _ in 0..2 {
        (world.nature(A).question, world.nature(A).command) = (ms(100), Some(ms(100)));
        world.run(ms(3000));
        *world.nature(A) = WELL;
        world.run(ms(1300));
    }
    assert_eq!(world.path(A).state, PathState::Shaky);
    let reason = world.path(A).explanation(world.now);
    assert!(reason.starts_with("held down for 1 s after 2 faults within"), "{reason}");
    assert!(reason.ends_with(" s left"), "{reason}");
    world.run(ms(1000));
    assert_eq!(world.states(), [PathState::Up; 2]);
}

#[test]
fn slow_path_that_comes_back_is_not_tried_on_the_guest() {
    let mut world = World::new();
    world.silence(&[A]);
    world.run(ms(600));
    assert_eq!(world.path(A).state, PathState::Failed);
    (world.nature(A).silent, world.nature(A).question) = (false, ms(300));
    world.changes.clear();
    world.run(ms(8000));
    let up = world.changes.iter().find(|(_, name, to, _)| name == "a" && *to == PathState::Up);
    assert_eq!(up, None);
    assert_eq!(world.path(A).state, PathState::Shaky);
    world.nature(A).question = ms(1);
    world.run(ms(2000));
    assert_eq!(world.states(), [PathState::Up; 2]);
}

#[test]
fn flapping_path_is_held_down_for_longer_each_time() {
    let mut world = World::new();
    assert_eq!(world.flap(A), PathState::Up, "the first time it is used at once");
    for hold in [1, 2, 4, 8] {
        assert_eq!(world.flap(A), PathState::Shaky);
        world.run(ms(1000 * hold - 300));
        assert_eq!(world.path(A).state, PathState::Shaky, "held down for {hold} s");
        world.run(ms(400));
        assert_eq!(world.path(A).state, PathState::Up, "held down for {hold} s");
    }
}

#[test]
fn path_that_is_held_down_is_used_where_it_is_the_only_one() {
    let mut world = World::new();
    world.flap(A);
    assert_eq!(world.flap(A), PathState::Shaky);
    world.apply(Event::Disable(B));
    assert!(world.path(A).is_usable());
    assert_eq!(world.core.lun_state(), super::LunState::Degraded);
}

#[test]
fn admin_ends_a_hold_down() {
    let mut world = World::new();
    let states = [(); 4].map(|()| world.flap(A));
    assert_eq!(states[3], PathState::Shaky);
    world.apply(Event::Disable(A));
    world.apply(Event::Reinstate(A));
    world.run(ms(200));
    assert_eq!(world.path(A).state, PathState::Up);
}

#[test]
fn path_with_many_errors_is_held_down() {
    let mut world = World::new();
    (0..12).for_each(|_| world.path(A).load.aborted());
    world.run(ms(500));
    let (_, name, to, reason) = world.changes[0].clone();
    assert_eq!((name.as_str(), to), ("a", PathState::Shaky));
    assert_eq!(reason, "held down for 10 s after 12 aborted commands within 10 s, none over b");
    world.run(ms(10_000));
    assert_eq!(world.states(), [PathState::Up; 2]);
}

#[test]
fn errors_over_all_paths_are_no_paths_fault() {
    let mut world = World::new();
    for path in [A, B] {
        (0..12).for_each(|_| world.path(path).load.aborted());
    }
    world.run(ms(2000));
    assert_eq!(world.changes, []);
}

#[test]
fn commands_that_take_long_again_and_again_are_errors() {
    let mut world = World::new();
    for _ in 0..4 {
        world.report(A, Problem::Overdue);
        world.run(ms(500));
    }
    assert_eq!(world.states(), [PathState::Shaky, PathState::Up]);
    let slow = "after 4 commands that took suspiciously long within 10 s, none over b";
    assert!(world.changes[0].3.ends_with(slow), "{:?}", world.changes[0]);
}

#[test]
fn block_that_cannot_be_read_over_one_path_fails_it() {
    let mut world = World::new();
    world.nature(A).unreadable = true;
    world.run(ms(3000));
    assert_eq!(world.changes, [], "nobody has asked for a block");
    world.path(A).load.unreadable();
    world.run(ms(500));
    let (_, name, to, reason) = world.changes[0].clone();
    assert_eq!((name.as_str(), to), ("a", PathState::Failed));
    assert!(reason.starts_with("cannot read: ") && reason.ends_with("over b it can be read"));
    world.run(ms(10_000));
    assert_eq!(world.path(A).state, PathState::Failed, "and it stays so");
    world.nature(A).unreadable = false;
    world.run(ms(6000));
    assert_eq!(world.states(), [PathState::Up; 2]);
}

#[test]
fn block_that_the_sibling_was_not_allowed_to_read_fails_no_path() {
    let mut world = World::new();
    world.nature(A).unreadable = true;
    world.nature(B).reserved = true;
    world.path(A).load.unreadable();
    world.run(ms(10_000));
    assert_eq!(world.changes, [], "nobody has read it");
}

#[test]
fn block_that_cannot_be_read_at_all_fails_no_path() {
    let mut world = World::new();
    [A, B].iter().for_each(|path| world.nature(*path).unreadable = true);
    [A, B].iter().for_each(|path| world.path(*path).load.unreadable());
    world.run(ms(10_000));
    assert_eq!(world.changes, []);
}

#[test]
fn busy_path_is_asked_for_its_name_as_an_idle_one_is() {
    let mut world = World::new();
    for busy in [true, false] {
        if !busy {
            [A, B].iter().for_each(|path| world.nature(*path).command = None);
        }
        world.questions.clear();
        world.run(ms(60_000));
        for code in [opcode::TEST_UNIT_READY, opcode::INQUIRY] {
            let asked = world.questions[&code];
            // Two paths, a question at least every five seconds.
            assert!((24..=28).contains(&asked), "{asked} of {code:#x}, busy: {busy}");
        }
    }
}
