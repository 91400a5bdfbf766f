//! Directed tests of reads that are cloned.

use vhost_user_scsi_mpath::completion::Response;
use vhost_user_scsi_mpath::engine::Hedging;
use vhost_user_scsi_mpath::ids::PathId;
use vhost_user_scsi_mpath::multipath::PathState;
use vhost_user_scsi_mpath::scsi::Status;
use vhost_user_scsi_mpath::virtio_scsi::TaskManagementFunction as Function;

use crate::command::Op;
use crate::faults::Fault;
use crate::ms;
use crate::options::Options;
use crate::scenarios::{GOOD, world};
use crate::world::World;

/// Longer than the wire needs in one direction, shorter than a read is waited for.
const ONE_WAY: std::time::Duration = std::time::Duration::from_micros(210);

/// A quiet world that knows how long reads take.
fn warm(change: impl FnOnce(&mut Options)) -> World {
    let mut world = world(|options| {
        let (budget, permille, samples_min) = (0.1, 990, 4);
        options.deadlines.hedging = Some(Hedging { budget, permille, samples_min });
        change(options);
    });
    for _ in 0..20 {
        let read = world.send(0, Op::Read, (40, 2));
        world.run_for(ms(2));
        assert_eq!(world.outcome(read), GOOD);
    }
    // With so few reads measured one of them may have been cloned.
    world.scene().counts.left_behind = 0;
    world
}

impl World {
    /// Answers of what arrives now are slow.
    fn slow(&self, slow: bool) {
        self.scene().options.slow = if slow { 1000 } else { 0 };
    }

    fn clones(&self) -> (u64, u64) {
        let hedges = self.manager.hub().counters.hedges();
        (hedges.sent, hedges.won)
    }

    /// A read whose main attempt and clone are both under way, both slow.
    fn two_slow_attempts(&mut self) -> u64 {
        let before = self.clones().0;
        self.slow(true);
        let read = self.send(0, Op::Read, (8, 4));
        self.run_for(ms(3));
        self.slow(false);
        assert_eq!(self.clones().0, before + 1);
        assert_eq!(self.scene().commands[&read].elsewhere.len(), 2);
        read
    }
}

#[test]
fn slow_read_is_answered_by_its_clone_and_its_late_answer_is_nobodys() {
    let mut world = warm(|_| ());
    let (sent, won) = world.clones();
    world.slow(true);
    let read = world.send(0, Op::Read, (8, 4));
    world.run_for(ONE_WAY);
    world.slow(false);
    world.run_for(ms(3));
    assert_eq!(world.outcome(read), GOOD, "long before the slow answer");
    assert_eq!(world.clones(), (sent + 1, won + 1));
    assert_eq!(world.scene().counts.left_behind, 0, "the slow one is still under way");
    world.run_for(ms(400));
    assert_eq!(world.scene().counts.left_behind, 1);
    // Each read counts once, and nothing is left on a path.
    let counters = &world.manager.hub().counters;
    let reads: u64 = [0, 1].map(|path| counters.path(PathId(path)).reads).iter().sum();
    assert_eq!(reads, 21);
    let retries: u64 = [0, 1].map(|path| counters.path(PathId(path)).retries).iter().sum();
    assert_eq!(retries, 0);
    assert!(world.manager.core().paths().all(|path| path.load.commands() == 0));
    world.ends_well();
}

#[test]
fn clone_that_comes_second_is_nobodys() {
    let mut world = warm(|_| ());
    world.scene().ports[1].deaf = true;
    // Over the first port, and a little too slow.
    world.slow(true);
    world.scene().options.slow_max = ms(5);
    let reads = [world.send(0, Op::Read, (8, 4)), world.send(0, Op::Read, (16, 4))];
    world.run_for(ONE_WAY);
    world.slow(false);
    world.run_for(ms(10));
    let answered = reads.map(|read| world.outcome(read) == GOOD);
    assert!(answered.contains(&true), "{answered:?}");
    let (sent, won) = world.clones();
    assert!(sent > won, "{sent} clones, {won} won");
    world.scene().ports[1].deaf = false;
    world.run_for(ms(4000));
    world.ends_well();
}

#[test]
fn clone_goes_on_alone_when_the_main_attempt_fails() {
    let mut world = warm(|options| options.tells = 1000);
    let read = world.two_slow_attempts();
    let main = world.scene().commands[&read].elsewhere[0].1;
    world.break_port(Fault::Cut, main, ms(500));
    world.run_for(ms(400));
    assert_eq!(world.outcome(read), GOOD);
    assert_eq!(world.scene().commands[&read].attempts, 2, "no third one");
    world.run_for(ms(4000));
    world.ends_well();
}

#[test]
fn main_attempt_goes_on_when_the_clone_fails() {
    let mut world = warm(|options| options.tells = 1000);
    let read = world.two_slow_attempts();
    let clone = world.scene().commands[&read].elsewhere[1].1;
    world.break_port(Fault::Cut, clone, ms(500));
    world.run_for(ms(400));
    assert_eq!(world.outcome(read), GOOD);
    assert_eq!(world.scene().commands[&read].attempts, 2, "no third one");
    world.run_for(ms(4000));
    world.ends_well();
}

#[test]
fn abort_does_not_wait_for_attempts_with_memory_of_their_own() {
    for function in [Function::AbortTask, Function::LogicalUnitReset] {
        let mut world = warm(|options| options.sessions = 1000);
        let sessions = world.scene().counts.sessions;
        let read = world.two_slow_attempts();
        world.scene().ask(function, read);
        world.run_for(ms(1));
        let response = match function {
            Function::AbortTask => Response::Aborted,
            _ => Response::Reset,
        };
        assert_eq!(world.outcome(read), Some((response, Status::GOOD)));
        assert!(world.scene().control.asked.is_empty());
        world.run_for(ms(400));
        assert_eq!(world.scene().counts.left_behind, 2);
        assert_eq!(world.scene().counts.sessions, sessions, "no session was dropped for it");
        world.ends_well();
    }
}

#[test]
fn drain_and_disconnect_do_not_wait_for_attempts_with_memory_of_their_own() {
    for gone in [false, true] {
        let mut world = warm(|_| ());
        let read = world.two_slow_attempts();
        world.stop_rings(gone, ms(50));
        world.run_for(if gone { ms(1) } else { ms(52) });
        let expected = (!gone).then_some((Response::Failure, Status::GOOD));
        assert_eq!(world.outcome(read), expected);
        assert!(world.is_idle());
        assert_eq!(world.scene().counts.left_behind, 0, "both are still under way");
        world.run_for(ms(400));
        assert_eq!(world.scene().counts.left_behind, 2);
        assert!(world.manager.core().paths().all(|path| path.load.commands() == 0));
        world.ends_well();
    }
}

#[test]
fn attempt_that_was_left_behind_on_a_dead_path_still_shows_that_it_is_dead() {
    let mut world = warm(|_| ());
    let (sent, won) = world.clones();
    world.scene().ports[0].hangs = true;
    let reads = [world.send(0, Op::Read, (8, 4)), world.send(0, Op::Read, (16, 4))];
    world.run_for(ms(5));
    assert_eq!(reads.map(|read| world.outcome(read)), [GOOD; 2]);
    assert_eq!(world.clones(), (sent + 1, won + 1));
    world.run_for(ms(1000));
    let usable: Vec<bool> = world.manager.core().paths().map(|path| path.is_usable()).collect();
    assert_eq!(usable, [false, true]);
    world.scene().ports[0].hangs = false;
    world.run_for(ms(8000));
    world.ends_well();
}

#[test]
fn attempt_that_was_left_behind_is_given_up_in_time_before_it_is_suspicious() {
    let mut world = warm(|options| options.deadlines.path_timeout = ms(100));
    world.scene().ports[0].hangs = true;
    let reads = [world.send(0, Op::Read, (8, 4)), world.send(0, Op::Read, (16, 4))];
    world.run_for(ms(5));
    assert_eq!(reads.map(|read| world.outcome(read)), [GOOD; 2]);
    world.run_for(ms(150));
    let usable: Vec<bool> = world.manager.core().paths().map(|path| path.is_usable()).collect();
    assert_eq!(usable, [false, true]);
}

#[test]
fn array_that_is_slow_over_all_paths_is_not_asked_twice_for_long() {
    let mut world = warm(|_| ());
    let before = world.clones();
    // One read in four is slow, over both paths.
    for _ in 0..600 {
        world.slow(true);
        world.scene().options.slow_max = ms(4);
        let read = world.send(0, Op::Read, (8, 4));
        world.run_for(ms(9));
        world.slow(false);
        assert_eq!(world.outcome(read), GOOD);
        for _ in 0..3 {
            world.send(0, Op::Read, (40, 2));
            world.run_for(ms(2));
        }
    }
    let hedges = world.manager.hub().counters.hedges();
    assert!(hedges.pauses > 0, "{hedges:?}");
    assert!(hedges.sent - before.0 <= 2 * 32, "a few, once for each pause: {hedges:?}");
    world.ends_well();
}

#[test]
fn path_that_says_nothing_is_found_out_though_clones_answer_for_it() {
    let mut world = warm(|options| {
        options.deadlines.path_timeout = ms(5000);
        let hedging = options.deadlines.hedging.as_mut();
        hedging.into_iter().for_each(|hedging| hedging.budget = 1.0);
    });
    world.scene().ports[0].hangs = true;
    let begin = world.clones().0;
    for _ in 0..15 {
        let read = world.send(0, Op::Read, (8, 4));
        world.run_for(ms(100));
        if world.manager.core().paths().any(|path| path.state == PathState::Failed) {
            assert!(world.clones().0 > begin, "no clone had to answer for it");
            return world.scene().ports[0].hangs = false;
        }
        assert_eq!(world.outcome(read), GOOD, "a clone answers");
    }
    panic!("the path is still in use");
}
