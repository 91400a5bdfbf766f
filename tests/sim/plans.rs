//! What the world does by its own plan: the guest's commands and functions, the rings' stops.

use std::time::Duration;

use vhost_user_scsi_mpath::engine::Driven;
use vhost_user_scsi_mpath::ids::LaneId;
use vhost_user_scsi_mpath::virtio_scsi::TaskManagementFunction as Function;

use crate::command::{Command, Op};
use crate::faults::Restore;
use crate::model::Order;
use crate::options::{BLOCKS, COMMAND_BLOCKS_MAX};
use crate::scene::{Rule, Scene};
use crate::world::World;

/// Something to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Plan {
    /// The guest may put a command on this lane's ring.
    Issue(u16),
    /// The guest asks for a task management function.
    Ask,
    /// The rings stop.
    Stop,
    /// Have they stopped?
    Stopped,
    /// The rings start again.
    Start,
    /// The process is killed.
    Crash,
    /// Another initiator may do something.
    Other,
    /// The record is on the medium.
    Kept,
    /// Something breaks.
    Fault,
    /// It is whole again.
    Restore(Restore),
    /// Somebody looks how the host's device behind a port is doing.
    Look(usize),
}

impl World {
    /// Does what was planned.
    pub fn carry_out(&mut self, plan: Plan) {
        match plan {
            Plan::Issue(lane) => self.issue(LaneId(lane)),
            Plan::Ask => self.ask(),
            Plan::Stop => self.stop(),
            Plan::Stopped => self.look_whether_stopped(),
            Plan::Start => self.start(),
            Plan::Crash => self.crash(),
            Plan::Other => self.other(),
            Plan::Kept => self.kept(),
            Plan::Fault => self.fault(),
            Plan::Restore(restore) => self.restore(restore),
            Plan::Look(port) => self.look(port),
        }
    }

    /// Plans what comes by itself, again and again.
    pub fn begin(&mut self) {
        for plan in [Plan::Ask, Plan::Stop, Plan::Fault, Plan::Other, Plan::Crash] {
            self.plan_next(plan);
        }
    }

    /// Plans `plan` once more.
    pub fn plan_next(&mut self, plan: Plan) {
        let after = {
            let mut scene = self.scene();
            let every = match plan {
                Plan::Ask => scene.options.tasks_every,
                Plan::Stop => scene.options.stops_every,
                Plan::Other => scene.options.others_every,
                Plan::Crash => scene.options.crashes_every,
                _ => scene.options.fault_every,
            };
            if scene.calm || every.is_zero() {
                return;
            }
            scene.random.time(Duration::ZERO..every * 2)
        };
        self.plan(after, plan);
    }

    /// The guest on this lane does something else for a while.
    pub fn think(&mut self, lane: LaneId) {
        let after = {
            let mut scene = self.scene();
            let think = scene.options.think;
            scene.random.time(Duration::ZERO..think)
        };
        self.plan(after, Plan::Issue(lane.0));
    }

    fn issue(&mut self, lane: LaneId) {
        let mut scene = self.scene();
        let under_way = scene.outstanding.iter().filter(|at| scene.commands[at].lane == lane);
        if under_way.count() >= scene.options.depth || self.issued >= scene.options.commands {
            return;
        }
        let mix = scene.options.mix;
        let op = Op::ALL[scene.random.weighted(&mix)];
        let op = if op == Op::ReserveOut && scene.has_orders() { Op::ReserveIn } else { op };
        let Some(place) = scene.place(op) else {
            drop(scene);
            return self.think(lane);
        };
        scene.send(lane, op, place);
        drop(scene);
        self.issued += 1;
        self.think(lane);
    }

    fn ask(&mut self) {
        use Function::*;
        if !self.stopped {
            let mut scene = self.scene();
            let tags: Vec<u64> = scene.outstanding.iter().copied().collect();
            let tag = if tags.is_empty() { 0 } else { scene.random.pick(&tags) };
            let functions = [
                AbortTask,
                AbortTask,
                AbortTask,
                QueryTask,
                QueryTaskSet,
                AbortTaskSet,
                LogicalUnitReset,
                ITNexusReset,
            ];
            let function = scene.random.pick(&functions);
            scene.ask(function, tag);
        }
        self.plan_next(Plan::Ask);
    }

    /// The rings stop: all of them, as a driver's reset or the front end's death does it.
    fn stop(&mut self) {
        if self.stopped {
            return self.plan_next(Plan::Stop);
        }
        let (gone, patience) = {
            let mut scene = self.scene();
            let gone = scene.options.disconnects;
            (scene.random.chance(gone), scene.random.time(Duration::ZERO..Duration::from_secs(2)))
        };
        self.stop_rings(gone, patience);
    }

    /// Stops all rings: drained with so much patience, or lost with the connection.
    pub fn stop_rings(&mut self, gone: bool, patience: Duration) {
        (self.stopped, self.disconnected) = (true, gone);
        let now = self.now();
        let mut scene = self.shared.lock();
        scene.counts.stops += 1;
        scene.say(|| format!("rings stop, connection gone: {gone}, patience {patience:?}"));
        let deadline = scene.now + patience;
        drop(scene);
        let lanes: Vec<LaneId> = self.actors.keys().copied().collect();
        for lane in lanes {
            if let Some(actor) = self.actors.get_mut(&lane) {
                if gone { actor.lane.disconnect() } else { actor.lane.drain(now + patience) }
            }
            self.scene().rings.entry(lane).or_default().deadline = Some(deadline);
            self.wake(lane);
        }
        if gone {
            self.connected(false);
        }
        self.plan(Duration::from_micros(10), Plan::Stopped);
    }

    fn look_whether_stopped(&mut self) {
        if !self.is_idle() {
            let mut scene = self.scene();
            let deadline = scene.rings.values().filter_map(|ring| ring.deadline).max();
            let slack =
                scene.options.recall_max + scene.options.lag_max * 8 + Duration::from_secs(1);
            if deadline.is_some_and(|deadline| scene.now > deadline + slack) {
                scene.broken(Rule::InTime, "the rings do not stop".into());
            }
            drop(scene);
            return self.plan(Duration::from_millis(5), Plan::Stopped);
        }
        let gone = self.disconnected;
        let mut scene = self.scene();
        scene.say(|| "rings have stopped".into());
        if gone {
            scene.abandon_all();
        }
        let taken = scene.outstanding.iter().find(|serial| scene.commands[serial].taken).copied();
        let asked = !scene.control.asked.is_empty() && scene.control.queue.is_empty();
        if taken.is_some() || asked {
            let text = format!("the rings have stopped without an answer to {taken:?}");
            scene.broken(Rule::AnsweredOnce, text);
        }
        let lent = scene.outstanding.iter().any(|serial| scene.commands[serial].live.is_some());
        if gone && lent {
            scene.broken(Rule::MemoryIsLentOnce, "memory is lent without a connection".into());
        }
        let after = scene.random.pick(&[Duration::ZERO, Duration::from_millis(30)]);
        drop(scene);
        self.plan(after, Plan::Start);
    }

    fn start(&mut self) {
        self.scene().say(|| "rings start".into());
        // A lane that begins anew knows nothing of what went before.
        self.scene().oracle.suspects.clear();
        if self.disconnected {
            self.connected(true);
        }
        self.stopped = false;
        let lanes: Vec<LaneId> = self.actors.keys().copied().collect();
        for lane in lanes {
            if let Some(actor) = self.actors.get_mut(&lane) {
                actor.lane.resume();
            }
            self.scene().rings.entry(lane).or_default().deadline = None;
            self.wake(lane);
            self.think(lane);
        }
        self.plan_next(Plan::Stop);
    }
}

impl Scene {
    /// Where the next command goes: mostly beside everything that is under way.
    fn place(&mut self, op: Op) -> Option<(u64, u64)> {
        let overlap = self.options.overlap;
        let meets = self.random.chance(overlap);
        let longest = if op == Op::CompareAndWrite { 1 } else { COMMAND_BLOCKS_MAX };
        (0..8).find_map(|_| {
            let count = 1 + self.random.below(longest);
            let first = self.random.below(BLOCKS - count);
            let free = self.outstanding.iter().all(|other| {
                let blocks = self.commands[other].blocks();
                blocks.end <= first || first + count <= blocks.start
            });
            (meets || free).then_some((first, count))
        })
    }

    /// The guest puts this reservation command on a ring; its name.
    pub fn send_order(&mut self, lane: LaneId, order: Order) -> u64 {
        self.send_what(lane, Op::ReserveOut, (0, 0), Some(order))
    }

    /// The guest puts a command on a ring; its name.
    pub fn send(&mut self, lane: LaneId, op: Op, place: (u64, u64)) -> u64 {
        self.send_what(lane, op, place, None)
    }

    fn send_what(&mut self, lane: LaneId, op: Op, place: (u64, u64), order: Option<Order>) -> u64 {
        let serial = self.number();
        let now = self.disk.get(place.0);
        let compare = if self.random.chance(700) { now } else { serial };
        let mut command = Command::new(serial, lane, op, place, compare);
        command.begun = self.now;
        if op == Op::Read {
            let taken = |group: &u8| {
                let mut others = self.outstanding.iter().map(|other| &self.commands[other]);
                others.any(|one| one.op == Op::Read && one.cdb.padded()[14] == *group)
            };
            command.name((0..64).find(|group| !taken(group)).unwrap_or(63));
        }
        self.fill_in(&mut command);
        if let Some(order) = order {
            command.order(order);
        }
        command.managed = self.all_are_managed();
        self.oracle.begins(&mut command);
        self.say(|| format!("guest puts {op:?} {serial} of {place:?} on {lane}"));
        self.by_memory.insert(command.address(), serial);
        self.outstanding.insert(serial);
        self.commands.insert(serial, command);
        self.reservation_begins(serial);
        self.rings.entry(lane).or_default().queue.push_back(serial);
        self.counts.commands += 1;
        serial
    }
}
