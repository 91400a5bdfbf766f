//! Directed tests: one situation each, on an otherwise quiet world.

use std::time::Duration;

use vhost_user_scsi_mpath::completion::Response;
use vhost_user_scsi_mpath::ids::LaneId;
use vhost_user_scsi_mpath::multipath::{NoPathRetry, PathState};
use vhost_user_scsi_mpath::scsi::{Asc, Status};
use vhost_user_scsi_mpath::virtio_scsi::{Event, TaskManagementFunction as Function};

use crate::command::Op;
use crate::faults::{Fault, Restore};
use crate::ms;
use crate::options::{BLOCKS, Options};
use crate::run::finish;
use crate::world::World;

pub const GOOD: Option<(Response, Status)> = Some((Response::Ok, Status::GOOD));

/// A quiet world whose paths are up. With `SIM_TRACE` set it says what happens.
pub fn world(change: impl FnOnce(&mut Options)) -> World {
    let mut options = Options::quiet();
    change(&mut options);
    let mut world = World::new(7, options, std::env::var_os("SIM_TRACE").is_some());
    world.run_for(ms(500));
    assert!(world.manager.core().paths().all(|path| path.is_usable()));
    world
}

impl World {
    pub fn send(&mut self, lane: u16, op: Op, place: (u64, u64)) -> u64 {
        self.scene().send(LaneId(lane), op, place)
    }

    pub fn outcome(&self, serial: u64) -> Option<(Response, Status)> {
        self.scene().commands[&serial].outcome
    }

    fn state(&self, port: usize) -> PathState {
        let path = self.scene().ports[port].path;
        let found = self.manager.core().paths().find(|known| Some(known.id) == path);
        found.unwrap().state
    }

    fn on_all(&mut self, fault: Fault, length: Duration) {
        let ports = self.scene().ports.len();
        (0..ports).for_each(|port| self.break_port(fault, port, length));
    }

    /// No rule was broken, and nothing is left over.
    pub fn ends_well(mut self) {
        finish(&mut self);
        assert!(self.violation().is_none(), "{:?}", self.violation());
    }
}

#[test]
fn late_write_is_never_overtaken() {
    let mut world = world(|options| (options.late, options.lanes) = (1000, 2));
    world.on_all(Fault::Hang, ms(900));
    let first = world.send(0, Op::Write, (8, 4));
    world.run_for(ms(1100));
    let second = world.send(1, Op::Write, (10, 4));
    let reader = world.send(0, Op::Read, (9, 2));
    world.run_for(ms(200));
    assert_eq!((world.outcome(second), world.outcome(reader)), (None, None), "the blocks wait");
    world.run_for(ms(5000));
    for serial in [first, second, reader] {
        assert_eq!(world.outcome(serial), GOOD);
    }
    assert_eq!(world.scene().counts.late_writes, 1);
    world.ends_well();
}

#[test]
fn parked_write_is_never_overtaken_however_long_it_takes() {
    let mut world = world(|options| {
        (options.parks, options.lanes, options.late) = (1000, 2, 1000);
        options.parked_max = Duration::from_secs(6);
    });
    world.on_all(Fault::Hang, ms(900));
    let first = world.send(0, Op::Write, (8, 4));
    world.run_for(ms(1100));
    let (second, reader) = (world.send(1, Op::Write, (10, 4)), world.send(0, Op::Read, (9, 2)));
    let elsewhere = world.send(0, Op::Write, (40, 4));
    // Since the recall, three times the quiesce time.
    world.run_for(ms(1500));
    assert_eq!([first, second, reader].map(|serial| world.outcome(serial)), [None; 3]);
    assert_eq!(world.outcome(elsewhere), GOOD);
    world.run_for(ms(8000));
    for serial in [first, second, reader] {
        assert_eq!(world.outcome(serial), GOOD);
    }
    world.ends_well();
}

#[test]
fn removed_path_stays_until_its_host_has_let_go_of_a_write() {
    let mut world = world(|options| {
        (options.parks, options.late) = (1000, 1000);
        options.parked_max = Duration::from_secs(6);
    });
    world.on_all(Fault::Hang, ms(900));
    let write = world.send(0, Op::Write, (8, 4));
    world.run_for(ms(1100));
    let port = world.scene().commands[&write].last_port.unwrap();
    world.break_port(Fault::Remove, port, Duration::ZERO);
    world.run_for(ms(1500));
    let paths = |world: &World| world.manager.core().paths().count();
    assert_eq!((world.outcome(write), paths(&world)), (None, 2));
    world.run_for(ms(8000));
    assert_eq!((world.outcome(write), paths(&world)), (GOOD, 1));
    world.ends_well();
}

#[test]
fn overlapping_unproven_writes_do_not_wait_for_each_other() {
    let mut world = world(|options| options.lanes = 2);
    world.on_all(Fault::Hang, ms(900));
    let writes = [world.send(0, Op::Write, (8, 4)), world.send(1, Op::Write, (10, 4))];
    world.run_for(ms(5000));
    assert_eq!(writes.map(|serial| world.outcome(serial)), [GOOD, GOOD]);
    world.ends_well();
}

#[test]
fn all_paths_dead_for_an_hour_under_queue_brings_no_error() {
    let mut world = world(|options| options.tells = 1000);
    world.on_all(Fault::Cut, Duration::from_secs(3600));
    let commands = [world.send(0, Op::Write, (1, 2)), world.send(0, Op::Read, (30, 2))];
    world.run_for(Duration::from_secs(3599));
    assert_eq!(commands.map(|serial| world.outcome(serial)), [None, None]);
    world.run_for(ms(3000));
    assert_eq!(commands.map(|serial| world.outcome(serial)), [GOOD, GOOD]);
    world.ends_well();
}

#[test]
fn all_paths_dead_under_fail_fails_at_once() {
    let mut world = world(|options| {
        (options.tells, options.no_path_retry) = (1000, NoPathRetry::Fail);
    });
    world.on_all(Fault::Cut, ms(3000));
    let command = world.send(0, Op::Read, (1, 2));
    world.run_for(ms(1));
    assert_eq!(world.outcome(command), Some((Response::TransportFailure, Status::GOOD)));
    world.run_for(ms(3000));
    world.ends_well();
}

#[test]
fn command_deadline_stands_still_without_paths() {
    let mut world = world(|_| ());
    world.on_all(Fault::Cut, Duration::from_secs(60));
    let command = world.send(0, Op::Read, (1, 2));
    world.run_for(Duration::from_secs(59));
    assert_eq!(world.outcome(command), None);
    world.run_for(ms(7000));
    assert_eq!(world.outcome(command), GOOD);
    world.ends_well();
}

#[test]
fn abort_of_an_unproven_write_waits_for_the_quiesce() {
    let mut world = world(|options| options.late = 1000);
    world.on_all(Fault::Hang, ms(5000));
    let write = world.send(0, Op::Write, (1, 2));
    world.run_for(ms(10));
    world.scene().ask(Function::AbortTask, write);
    world.run_for(ms(480));
    assert_eq!(world.outcome(write), None);
    assert_eq!(world.scene().control.asked.len(), 1);
    world.run_for(ms(100));
    assert_eq!(world.outcome(write), Some((Response::Aborted, Status::GOOD)));
    assert!(world.scene().control.asked.is_empty());
    world.run_for(ms(6000));
    world.ends_well();
}

#[test]
fn abort_does_not_fail_the_path() {
    let mut world = world(|options| options.ports = 1);
    world.scene().ports[0].deaf = true;
    let read = world.send(0, Op::Read, (1, 2));
    world.run_for(ms(10));
    world.scene().ask(Function::LogicalUnitReset, 0);
    world.run_for(ms(10));
    assert_eq!(world.outcome(read), Some((Response::Reset, Status::GOOD)));
    assert!(world.manager.core().paths().all(|path| path.is_usable()));
    world.restore(Restore::Wire(0));
    world.ends_well();
}

#[test]
fn drain_at_its_deadline_answers_failure_and_lends_nothing() {
    let mut world = world(|options| {
        (options.late, options.slow_recall, options.recall_max) = (1000, 1000, ms(400));
    });
    world.on_all(Fault::Hang, ms(3000));
    let write = world.send(0, Op::Write, (1, 2));
    world.run_for(ms(10));
    world.stop_rings(false, ms(100));
    world.run_for(ms(95));
    assert_eq!((world.outcome(write), world.is_idle()), (None, false));
    world.run_for(ms(600));
    assert_eq!(world.outcome(write), Some((Response::Failure, Status::GOOD)));
    assert!(!world.stopped, "stopped and started again");
    // Its blocks wait all the same: the write may still land.
    let newer = world.send(0, Op::Write, (1, 2));
    world.run_for(ms(8000));
    assert_eq!(world.outcome(newer), GOOD);
    world.ends_well();
}

#[test]
fn blocks_of_an_abandoned_write_wait_however_late_the_manager_is() {
    let mut world = world(|options| options.late = 1000);
    world.on_all(Fault::Hang, ms(20));
    world.send(0, Op::Write, (1, 2));
    world.run_for(ms(10));
    world.delay_manager(ms(300));
    world.stop_rings(true, ms(100));
    while world.stopped {
        world.run_for(ms(10));
    }
    let newer = world.send(0, Op::Write, (1, 2));
    world.run_for(ms(5000));
    assert_eq!(world.outcome(newer), GOOD);
    assert_eq!(world.scene().counts.late_writes, 1);
    world.ends_well();
}

#[test]
fn ring_stops_while_a_task_management_function_waits() {
    let mut world = world(|_| ());
    world.on_all(Fault::Hang, ms(3000));
    world.send(0, Op::Write, (1, 2));
    world.run_for(ms(10));
    world.scene().ask(Function::AbortTaskSet, 0);
    world.run_for(ms(1));
    world.stop_rings(false, ms(100));
    world.run_for(ms(400));
    assert!(!world.stopped && world.scene().control.asked.is_empty());
    world.run_for(ms(6000));
    world.ends_well();
}

#[test]
fn remapped_unit_gets_no_write() {
    let mut world = world(|_| ());
    world.break_port(Fault::Remap, 0, ms(8000));
    for round in 0..40 {
        let write = world.send(0, Op::Write, (round, 2));
        world.run_for(ms(100));
        assert_eq!(world.outcome(write), GOOD);
    }
    let states: Vec<PathState> = world.manager.core().paths().map(|path| path.state).collect();
    assert_eq!(states, [PathState::WrongLun, PathState::Up]);
    world.run_for(ms(10_000));
    world.ends_well();
}

#[test]
fn array_reset_under_fail_brings_no_error() {
    let mut world = world(|options| options.no_path_retry = NoPathRetry::Fail);
    world.break_port(Fault::Reset, 0, ms(1));
    let reads = [(); 4].map(|()| world.send(0, Op::Read, (1, 2)));
    world.run_for(ms(500));
    assert_eq!(reads.map(|serial| world.outcome(serial)), [GOOD; 4]);
    world.ends_well();
}

#[test]
fn port_that_is_active_again_is_used_again_soon() {
    let mut world = world(|options| options.ports = 1);
    world.break_port(Fault::Standby, 0, ms(1000));
    let read = world.send(0, Op::Read, (1, 2));
    world.run_for(ms(900));
    assert_eq!(world.outcome(read), None);
    // The unit attention about it gets lost.
    world.run_for(ms(101));
    world.scene().ports[0].attentions.clear();
    world.run_for(ms(6000));
    assert_eq!(world.outcome(read), GOOD);
    world.ends_well();
}

#[test]
fn loaded_array_keeps_its_paths() {
    let mut world = world(|options| options.no_path_retry = NoPathRetry::Fail);
    // Longer than the time between two probes; and one of them asks everything.
    world.on_all(Fault::NonOptimized, ms(100));
    world.on_all(Fault::Load, ms(7000));
    for _ in 0..11 {
        let read = world.send(0, Op::Read, (1, 2));
        world.run_for(ms(600));
        let told = Some((Response::Ok, Status::TASK_SET_FULL));
        assert_eq!(world.outcome(read), told, "the guest is told, so that it can slow down");
        assert!(world.manager.core().paths().all(|path| path.is_usable()));
    }
    world.run_for(ms(1000));
    world.ends_well();
}

/// A write is lost on the way, and the session that carried it is cut for a while; the other path
/// is well. The login takes less than 5 ms, the quiesce time is 500 ms, and what was lost lands in
/// between if it can.
fn lose_a_write(cut: Duration, change: impl FnOnce(&mut Options)) -> (World, u64) {
    let mut world = world(|options| {
        (options.sessions, options.late) = (1000, 1000);
        change(options);
    });
    world.on_all(Fault::Hang, ms(9));
    let write = world.send(0, Op::Write, (1, 2));
    world.run_for(ms(10));
    let port = world.scene().commands[&write].last_port.unwrap();
    world.break_port(Fault::Cut, port, cut);
    (world, write)
}

#[test]
fn write_of_a_proven_session_is_sent_again_at_once() {
    let (mut world, write) = lose_a_write(ms(10), |options| options.ends_old_tasks = 1000);
    world.run_for(ms(30));
    assert_eq!(world.outcome(write), GOOD);
    let newer = world.send(0, Op::Write, (1, 2));
    world.run_for(ms(2));
    assert_eq!(world.outcome(newer), GOOD, "its blocks are free");
    let counts = world.scene().counts;
    assert_eq!((counts.proofs, counts.sent_on_proof, counts.late_writes), (1, 1, 0));
    world.ends_well();
}

#[test]
fn proof_that_is_heard_before_the_end_of_its_write_counts() {
    let (mut world, write) = lose_a_write(ms(10), |options| options.ends_old_tasks = 1000);
    // The lane looks at its ends when the path has logged in again.
    world.delay_lane(LaneId(0), ms(30));
    world.run_for(ms(29));
    let counts = world.scene().counts;
    assert_eq!((counts.proofs, counts.holds), (1, 0));
    world.run_for(ms(11));
    assert_eq!(world.outcome(write), GOOD);
    assert_eq!(world.scene().counts.sent_on_proof, 1);
    world.ends_well();
}

#[test]
fn write_of_a_session_without_a_proof_waits_for_the_quiesce() {
    let (mut world, write) = lose_a_write(ms(10), |_| ());
    world.run_for(ms(490));
    assert_eq!(world.outcome(write), None);
    assert!(world.manager.core().paths().all(|path| path.is_usable()));
    world.run_for(ms(20));
    assert_eq!(world.outcome(write), GOOD);
    let counts = world.scene().counts;
    assert_eq!((counts.logins_again, counts.proofs, counts.late_writes), (1, 0, 1));
    world.ends_well();
}

#[test]
fn login_that_comes_late_is_no_reason_to_wait_longer() {
    let (mut world, write) = lose_a_write(ms(5000), |options| options.ends_old_tasks = 1000);
    world.run_for(ms(490));
    assert_eq!(world.outcome(write), None);
    world.run_for(ms(20));
    assert_eq!(world.outcome(write), GOOD);
    world.ends_well();
}

#[test]
fn recall_of_one_attempt_ends_its_session() {
    let mut world = world(|options| {
        (options.sessions, options.ends_old_tasks, options.ports) = (1000, 1000, 1);
    });
    world.break_port(Fault::Deaf, 0, ms(40));
    let commands = [Op::Read, Op::Write].map(|op| world.send(0, op, (1, 2)));
    world.run_for(ms(10));
    world.scene().ask(Function::AbortTask, commands[0]);
    world.run_for(ms(90));
    let aborted = Some((Response::Aborted, Status::GOOD));
    assert_eq!(commands.map(|serial| world.outcome(serial)), [aborted, GOOD]);
    let counts = world.scene().counts;
    assert_eq!((counts.sessions, counts.logins_again, counts.sent_on_proof), (2, 1, 1));
    world.ends_well();
}

#[test]
fn blocked_path_gives_its_commands_to_the_other_and_comes_back() {
    let mut world = world(|options| options.lanes = 2);
    // Round robin: one of two goes over the blocked port before anybody has seen it.
    world.break_port(Fault::Block, 0, ms(8000));
    let commands = [Op::Read, Op::Write, Op::Read, Op::Write].map(|op| world.send(0, op, (8, 4)));
    let far = [Op::Read, Op::Write].map(|op| world.send(1, op, (40, 4)));
    world.run_for(ms(600));
    for serial in commands.into_iter().chain(far) {
        assert_eq!(world.outcome(serial), GOOD, "nothing waits for the kernel");
    }
    assert_eq!(world.state(0), PathState::Blocked);
    world.run_for(ms(7000));
    assert_eq!(world.state(0), PathState::Blocked, "it is not asked, so nothing fails");
    world.run_for(ms(2000));
    assert_eq!(world.state(0), PathState::Up);
    world.ends_well();
}

#[test]
fn blocked_paths_hold_commands_for_a_while_under_fail() {
    let mut world = world(|options| options.no_path_retry = NoPathRetry::Fail);
    world.on_all(Fault::Block, ms(3000));
    world.run_for(ms(300));
    let command = world.send(0, Op::Read, (1, 2));
    world.run_for(ms(3200));
    assert_eq!(world.outcome(command), GOOD, "all were blocked for a moment only");
    world.on_all(Fault::Block, ms(60_000));
    world.run_for(ms(300));
    let command = world.send(0, Op::Read, (1, 2));
    world.run_for(ms(4500));
    assert_eq!(world.outcome(command), None);
    world.run_for(ms(700));
    assert_eq!(world.outcome(command), Some((Response::TransportFailure, Status::GOOD)));
    world.run_for(ms(60_000));
    world.ends_well();
}

#[test]
fn blocked_path_that_is_reinstated_stays_blocked() {
    let mut world = world(|_| ());
    world.break_port(Fault::Disable, 0, ms(1000));
    world.break_port(Fault::Block, 0, ms(3000));
    world.run_for(ms(1500));
    assert_eq!(world.state(0), PathState::Blocked);
    world.run_for(ms(2500));
    assert_eq!(world.state(0), PathState::Up);
    world.ends_well();
}

#[test]
fn blocked_path_whose_link_is_lost_fails_and_comes_back() {
    let mut world = world(|options| options.tells = 1000);
    world.break_port(Fault::Block, 0, ms(60_000));
    world.run_for(ms(300));
    // The kernel has waited long enough.
    world.break_port(Fault::Cut, 0, ms(2000));
    world.run_for(ms(500));
    assert_eq!(world.state(0), PathState::Failed);
    world.restore(Restore::Host(0));
    world.run_for(ms(4000));
    assert_eq!(world.state(0), PathState::Up);
    world.ends_well();
}

#[test]
fn transition_of_all_groups_is_held_and_brings_no_error() {
    let mut world = world(|options| options.no_path_retry = NoPathRetry::Fail);
    let length = Duration::from_secs(10);
    world.break_port(Fault::Shift, 0, length);
    let commands = [world.send(0, Op::Write, (1, 2)), world.send(0, Op::CompareAndWrite, (9, 2))];
    world.run_for(length - ms(1));
    assert_eq!(commands.map(|serial| world.outcome(serial)), [None, None]);
    world.run_for(ms(500));
    assert_eq!(commands.map(|serial| world.outcome(serial)), [GOOD, GOOD]);
    world.ends_well();
}

#[test]
fn unit_that_vanishes_is_lost_soon_and_comes_back_with_one_attention() {
    let mut world = world(|_| ());
    world.break_port(Fault::Vanish, 0, Duration::from_secs(60));
    let write = world.send(0, Op::Write, (1, 2));
    // Every path has to say so, and again.
    world.run_for(ms(8000));
    let denied = Some((Response::Ok, Status::CHECK_CONDITION));
    assert_eq!(world.outcome(write), denied, "whatever no_path_retry says");
    let late = world.send(0, Op::Read, (1, 2));
    world.run_for(ms(10));
    assert_eq!(world.outcome(late), denied, "at once");
    world.run_for(Duration::from_secs(60));
    let counts = world.scene().counts;
    assert_eq!(counts.gone, 1);
    let told = world.send(0, Op::Read, (1, 2));
    world.run_for(ms(10));
    assert_eq!(world.outcome(told), denied, "REPORTED LUNS DATA HAS CHANGED");
    assert_eq!(world.scene().oracle.returns_told, 1);
    let events = world.scene().events.clone();
    assert_eq!(events, [Event::Removed, Event::Rescan]);
    world.ends_well();
}

#[test]
fn grown_unit_is_told_once_when_all_ports_agree() {
    let mut world = world(|_| ());
    world.break_port(Fault::Grow, 0, ms(9000));
    for _ in 0..16 {
        world.run_for(ms(500));
        world.send(0, Op::Read, (1, 2));
        world.send(0, Op::ReadCapacity, (0, 1));
    }
    assert_eq!(world.scene().oracle.size_told, BLOCKS, "the other port has the old size");
    for _ in 0..20 {
        world.run_for(ms(500));
        world.send(0, Op::Read, (1, 2));
        world.send(0, Op::ReadCapacity, (0, 1));
    }
    assert_eq!(world.scene().oracle.size_told, 2 * BLOCKS);
    assert_eq!(world.scene().oracle.sizes_told, 1);
    let change = Event::ParameterChange(Asc::CAPACITY_DATA_HAS_CHANGED);
    assert_eq!(world.scene().events, [change]);
    world.ends_well();
}

#[test]
fn explicit_access_makes_the_last_group_the_better_one() {
    let mut world = world(|options| options.explicit = true);
    world.break_port(Fault::NonOptimized, 1, Duration::from_secs(100));
    world.run_for(ms(7000));
    world.break_port(Fault::Cut, 0, Duration::from_secs(50));
    let read = world.send(0, Op::Read, (1, 2));
    world.run_for(ms(9000));
    assert_eq!(world.outcome(read), GOOD);
    assert_eq!(world.scene().counts.sets, 1);
    assert!(world.scene().ports[1].best_since.is_some());
    world.run_for(Duration::from_secs(100));
    world.ends_well();
}

#[test]
fn events_that_the_manager_hears_of_together_are_told_one_by_one() {
    let mut world = world(|options| options.ports = 1);
    world.delay_manager(ms(300));
    for _ in 0..2 {
        world.scene().begin_event();
        let read = world.send(0, Op::Read, (1, 2));
        world.run_for(ms(50));
        assert_eq!(world.outcome(read), GOOD);
    }
    world.run_for(ms(500));
    let read = world.send(0, Op::Read, (1, 2));
    world.run_for(ms(100));
    let again = world.send(0, Op::Read, (1, 2));
    world.run_for(ms(100));
    let told = Some((Response::Ok, Status::CHECK_CONDITION));
    assert_eq!([read, again].map(|serial| world.outcome(serial)), [told; 2]);
    world.ends_well();
}

#[test]
fn events_whose_copies_a_late_lane_brings_are_told_once_each() {
    let mut world = world(|options| options.lanes = 2);
    for event in 1..=2 {
        world.break_port(Fault::Mode, 0, ms(1));
        if event == 1 {
            // It is told over one port, and passes that on after all that follows.
            world.send(1, Op::Read, (40, 2));
            world.run_for(ms(0));
            world.delay_lane(LaneId(1), ms(1000));
        }
        world.run_for(ms(10));
        for _ in 0..4 {
            world.send(0, Op::Read, (1, 2));
            world.run_for(ms(50));
        }
        assert_eq!(world.scene().oracle.told, event);
        assert!(world.scene().ports.iter().all(|port| port.attentions.is_empty()));
    }
    world.run_for(ms(2000));
    world.ends_well();
}
