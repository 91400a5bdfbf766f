//! The guest: rings of commands on its side of the engine, and its judgement of answers.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use vhost_user_scsi_mpath::buffer::Segments;
use vhost_user_scsi_mpath::completion::{Outcome, Owed};
use vhost_user_scsi_mpath::engine::{Guest, Request};
use vhost_user_scsi_mpath::ids::{LaneId, RingIndex};
use vhost_user_scsi_mpath::virtio_scsi::{
    Address, ControlRequest, ControlResponse, Event, RequestHeader, TaskAttribute,
    TaskManagementFunction as Function,
};

use crate::command::Over;
use crate::scene::{Rule, Scene, Shared};

/// What memory holds that nobody may write to any more.
pub const POISON: u8 = 0xA5;

/// One request ring.
#[derive(Debug, Default)]
pub struct Ring {
    /// Commands that the device has not taken.
    pub queue: VecDeque<u64>,
    /// Commands that it has, by their heads.
    pub heads: BTreeMap<u16, u64>,
    next_head: u16,
    /// Commands were answered since somebody looked.
    pub answered: bool,
    /// When a drain's patience ends.
    pub deadline: Option<Duration>,
}

/// A task management function that the guest asked for.
#[derive(Debug)]
pub struct Asked {
    request: ControlRequest,
    function: Function,
    about: Vec<u64>,
    at: Duration,
}

/// The control ring.
#[derive(Debug, Default)]
pub struct Control {
    /// Functions that the device has not taken.
    pub queue: VecDeque<u16>,
    /// Functions without an answer.
    pub asked: BTreeMap<u16, Asked>,
    next_head: u16,
}

/// The guest, as one lane of one process sees it.
pub struct SimGuest {
    scene: Shared,
    lane: LaneId,
    process: u64,
}

impl SimGuest {
    /// The guest on `lane`'s ring.
    pub fn new(scene: Shared, lane: LaneId) -> Self {
        let process = scene.lock().process;
        SimGuest { scene, lane, process }
    }
}

impl Control {
    /// Functions that a dead process had taken: the next one answers them with a failure.
    pub fn fail_taken(&mut self) {
        let queue = &self.queue;
        self.asked.retain(|head, _| queue.contains(head));
    }
}

impl Guest for SimGuest {
    fn next(&mut self, request: &mut Request) -> Option<Owed> {
        let mut scene = self.scene.lock();
        if scene.process != self.process {
            return None;
        }
        let ring = scene.rings.get_mut(&self.lane)?;
        let serial = ring.queue.pop_front()?;
        ring.next_head = ring.next_head.wrapping_add(1);
        let head = ring.next_head;
        ring.heads.insert(head, serial);
        let tells = !scene.options.lies.rings_do_not_tell;
        let command = scene.commands.get_mut(&serial)?;
        command.taken = true;
        request.header = Some(RequestHeader {
            address: Address::LogicalUnit { target: 0, lun: 0 },
            tag: serial,
            attribute: TaskAttribute::Simple,
            cdb: command.cdb,
        });
        request.again = command.again && tells;
        request.data_in.clear();
        request.data_out.clear();
        let whole = command.memory.segments();
        let into = if command.inward { &mut request.data_in } else { &mut request.data_out };
        into.assign_range(whole, 0, whole.len());
        scene.say(|| format!("{} takes {serial}", self.lane));
        Some(Owed::new(RingIndex(2 + self.lane.0), head))
    }

    fn complete(&mut self, owed: Owed, outcome: &Outcome, _: &Segments) {
        let mut scene = self.scene.lock();
        let head = owed.settle();
        if scene.process != self.process {
            return;
        }
        let lost = scene.options.lies.answers_get_lost && scene.random.chance(10);
        let Some(ring) = scene.rings.get_mut(&self.lane) else { return };
        ring.answered = true;
        let Some(serial) = ring.heads.remove(&head) else {
            return scene.broken(Rule::AnsweredOnce, format!("head {head} was answered again"));
        };
        if !lost {
            scene.answered(serial, outcome);
        }
        if scene.options.lies.answers_come_twice {
            scene.answered(serial, outcome);
        }
    }

    fn next_control(&mut self) -> Option<(Owed, ControlRequest)> {
        let mut scene = self.scene.lock();
        if self.lane != LaneId(0) || scene.process != self.process {
            return None;
        }
        let head = scene.control.queue.pop_front()?;
        let request = scene.control.asked.get(&head)?.request;
        Some((Owed::new(RingIndex::CONTROL, head), request))
    }

    fn answer_control(&mut self, owed: Owed, _: &ControlRequest, response: ControlResponse) {
        self.scene.lock().answered_control(owed.settle(), response);
    }

    fn post_event(&mut self, event: Event) {
        self.scene.lock().events.push(event);
    }

    fn flush(&mut self) {}
}

impl Scene {
    /// The guest asks for a task management function; `tag` names a command for some.
    pub fn ask(&mut self, function: Function, tag: u64) {
        use Function::*;
        let one = || self.outstanding.iter().copied().filter(|serial| *serial == tag).collect();
        let about: Vec<u64> = match function {
            AbortTask | QueryTask => one(),
            QueryTaskSet => Vec::new(),
            _ => self.outstanding.iter().copied().collect(),
        };
        let ends = !matches!(function, QueryTask | QueryTaskSet);
        for serial in about.iter().filter(|_| ends) {
            self.commands.entry(*serial).and_modify(|command| command.managed = true);
        }
        if matches!(function, LogicalUnitReset | ITNexusReset) {
            self.oracle.resets += 1;
        }
        let address = Address::LogicalUnit { target: 0, lun: 0 };
        let request = ControlRequest::TaskManagement { function, address, tag };
        self.say(|| format!("guest asks {function:?} {tag}"));
        self.control.next_head = self.control.next_head.wrapping_add(1);
        let head = self.control.next_head;
        self.control.asked.insert(head, Asked { request, function, about, at: self.now });
        self.control.queue.push_back(head);
        self.counts.tasks += 1;
    }

    fn answered_control(&mut self, head: u16, response: ControlResponse) {
        use Function::{QueryTask, QueryTaskSet};
        let Some(asked) = self.control.asked.remove(&head) else {
            return self.broken(Rule::AnsweredOnce, format!("control head {head} again"));
        };
        self.say(|| format!("guest is answered {:?}: {response:?}", asked.function));
        // What a stopping ring still holds was never a task of the LUN's.
        let stops = self.rings.values().any(|ring| ring.deadline.is_some());
        let left = asked.about.iter().find(|serial| {
            let command = &self.commands[*serial];
            command.is_outstanding() && (command.taken || !stops)
        });
        let before =
            |serial: &u64| self.commands[serial].over.is_some_and(|(over, _)| over < asked.at);
        let text = format!("{:?} was answered {response:?}, and {left:?} is", asked.function);
        let unknown = || asked.about.is_empty() || asked.about.iter().any(before);
        let wrong = match (asked.function, response) {
            (_, ControlResponse::Failure) => !stops,
            (QueryTaskSet, _) => false,
            (QueryTask, ControlResponse::FunctionSucceeded) => unknown(),
            _ => left.is_some(),
        };
        if wrong {
            self.broken(Rule::TasksAreDone, text);
        }
    }

    /// True while a function is asked that ends all commands.
    pub fn all_are_managed(&self) -> bool {
        use Function::*;
        self.control.asked.values().any(|asked| {
            matches!(asked.function, AbortTaskSet | ClearTaskSet | ITNexusReset | LogicalUnitReset)
        })
    }

    /// The command is over; nobody may touch its memory any more.
    pub fn close(&mut self, serial: u64, how: Over, acknowledged: bool) {
        let now = self.now;
        self.outstanding.remove(&serial);
        if let Some(cluster) = &mut self.cluster {
            cluster.referee.loosen(serial);
        }
        let Some(command) = self.commands.get_mut(&serial) else { return };
        command.over = Some((now, how));
        let over = match how {
            Over::Answered => now,
            Over::Failed | Over::Abandoned => now.max(command.may_land_until()),
        };
        let memory = command.memory.segments();
        memory.write_at(0, &vec![POISON; memory.len()]);
        let lent = command.live.is_some();
        if command.op.writes() {
            self.oracle.ends(command, over, acknowledged);
        }
        if lent {
            let text = format!("{serial} is over and its memory is lent");
            self.broken(Rule::MemoryIsLentOnce, text);
        }
    }

    /// The connection is gone and the lanes say that nothing is lent any more.
    pub fn abandon_all(&mut self) {
        for serial in std::mem::take(&mut self.outstanding) {
            self.close(serial, Over::Abandoned, false);
        }
        for ring in self.rings.values_mut() {
            ring.queue.clear();
            ring.heads.clear();
        }
        self.control.queue.clear();
        self.control.asked.clear();
    }
}
