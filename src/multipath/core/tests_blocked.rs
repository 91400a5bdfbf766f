//! A path whose commands the host holds back.

use std::time::{Duration, Instant};

use super::{Action, Core, Event, NoPathRetry, Settings};
use crate::ids::{LaneId, PathId};
use crate::limits::{BLOCKED_HOPE, PROBE_INTERVAL_FAILED_MAX};
use crate::lun::face::samples;
use crate::multipath::probe::{Finding, Identity};
use crate::multipath::retry::Problem;
use crate::multipath::{Failback, NoPath, PathState, Placement, Policy};
use crate::path::Failure;
use crate::scsi::alua::AccessState;

const PATH: PathId = PathId(0);
const LANE: LaneId = LaneId(0);

struct Scene {
    core: Core,
    now: Instant,
}

impl Scene {
    /// One path, up.
    fn new(no_path_retry: NoPathRetry) -> Self {
        let settings = Settings {
            wwid: None,
            policy: Policy::default(),
            no_path_retry,
            write_quiesce: Duration::from_secs(1),
            failback: Failback::Immediate,
            explicit_alua: false,
        };
        let now = Instant::now();
        let mut scene = Scene { core: Core::new(settings, now), now };
        let path = scene.core.free_id().unwrap();
        assert_eq!(path, PATH);
        scene.apply(Event::Added {
            path,
            name: "a".into(),
            placement: Placement::default(),
            bytes_max: None,
            hides_attentions: false,
        });
        scene.identify();
        assert_eq!(scene.state(), PathState::Up);
        scene
    }

    fn apply(&mut self, event: Event) -> Vec<Action> {
        self.core.apply(event, self.now)
    }

    /// The probe under way finds the logical unit.
    fn identify(&mut self) {
        self.core.paths.get_mut(&PATH).unwrap().check.break_off();
        let access = AccessState::ActiveOptimized;
        let facts = samples::facts();
        let identity = Identity { facts, access: Some(access), report: None };
        self.core.found(PATH, Finding::Alive(Box::new(identity)), self.now);
        self.apply(Event::Tick);
    }

    fn pass(&mut self, time: Duration) -> Vec<Action> {
        self.now += time;
        self.apply(Event::Tick)
    }

    fn state(&self) -> PathState {
        self.core.path_named("a").unwrap().state
    }

    fn block(&mut self) -> Vec<Action> {
        self.apply(Event::Blocked(PATH, "the port has gone".into()))
    }
}

fn asks(actions: &[Action]) -> bool {
    actions.iter().any(|action| matches!(action, Action::Ask(..)))
}

fn no_path(actions: &[Action]) -> Option<NoPath> {
    actions.iter().rev().find_map(|action| match action {
        Action::Publish(table) => Some(table.no_path),
        _ => None,
    })
}

#[test]
fn blocked_path_is_published_at_once_and_recalls() {
    let mut scene = Scene::new(NoPathRetry::Queue);
    let actions = scene.block();
    let table = actions.iter().find_map(|action| match action {
        Action::Publish(table) => Some(table),
        _ => None,
    });
    let entry = table.unwrap().entry(PATH).unwrap();
    assert!(!entry.is_usable() && entry.state.recalls());
    assert_eq!(scene.core.path_named("a").unwrap().explanation(scene.now), "the port has gone");
}

#[test]
fn blocked_path_is_not_asked_before_it_is_let_go() {
    let mut scene = Scene::new(NoPathRetry::Queue);
    scene.block();
    for _ in 0..20 {
        assert!(!asks(&scene.pass(PROBE_INTERVAL_FAILED_MAX)));
    }
    assert_eq!(scene.state(), PathState::Blocked);
    scene.apply(Event::Unblocked(PATH));
    assert_eq!(scene.state(), PathState::Checking, "much may have changed");
    scene.identify();
    assert_eq!(scene.state(), PathState::Up);
}

#[test]
fn blocked_path_stays_so_whatever_the_lanes_report() {
    let mut scene = Scene::new(NoPathRetry::Queue);
    scene.apply(Event::LaneUp(LANE));
    scene.block();
    let problems =
        [Problem::Failed(Failure::TimedOut), Problem::Doubt(crate::scsi::Asc(0x3F, 0x0E))];
    for (number, problem) in (1..).zip(problems) {
        let actions = scene.apply(Event::Reported { lane: LANE, number, path: PATH, problem });
        assert_eq!(scene.state(), PathState::Blocked);
        assert!(!asks(&actions));
    }
}

#[test]
fn blocked_path_without_a_link_fails_and_is_asked_again() {
    let mut scene = Scene::new(NoPathRetry::Queue);
    scene.block();
    scene.apply(Event::LinkDown(PATH, "the port is lost".into()));
    assert_eq!(scene.state(), PathState::Failed);
    assert!(asks(&scene.pass(PROBE_INTERVAL_FAILED_MAX)), "its commands fail at once now");
}

#[test]
fn failed_path_that_turns_out_to_be_blocked_is_so() {
    let mut scene = Scene::new(NoPathRetry::Queue);
    // What was on the wire came back at once, before anybody had looked.
    scene.apply(Event::LinkDown(PATH, "cut".into()));
    scene.block();
    assert_eq!(scene.state(), PathState::Blocked);
    assert!(!asks(&scene.pass(PROBE_INTERVAL_FAILED_MAX)));
    assert!(asks(&scene.apply(Event::Unblocked(PATH))));
}

#[test]
fn blocked_path_is_waited_for_a_while_under_fail() {
    let mut scene = Scene::new(NoPathRetry::Fail);
    assert_eq!(no_path(&scene.block()), Some(NoPath::Hold));
    assert_eq!(scene.core.next_timer(), Some(scene.now + BLOCKED_HOPE));
    assert_eq!(no_path(&scene.pass(BLOCKED_HOPE)), Some(NoPath::Fail));
    assert_eq!(scene.core.next_timer(), None, "nothing to wake up for");
}

#[test]
fn reinstated_path_that_is_blocked_is_blocked() {
    let mut scene = Scene::new(NoPathRetry::Queue);
    scene.apply(Event::Disable(PATH));
    scene.block();
    assert_eq!(scene.state(), PathState::Disabled);
    assert!(!asks(&scene.apply(Event::Reinstate(PATH))));
    assert_eq!(scene.state(), PathState::Blocked);
}
