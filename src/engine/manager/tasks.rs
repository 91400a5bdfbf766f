//! Task management across all lanes: a function is done when every lane has done its part.
//!
//! While the device stops, a lane may give commands back, which go on at the next start. What a
//! function says of those cannot be done: it is answered FUNCTION FAILED.

use std::collections::{BTreeMap, BTreeSet};

use crate::engine::messages::Task;
use crate::ids::LaneId;
use crate::scsi::Asc;
use crate::virtio_scsi::ControlResponse;

#[derive(Debug)]
struct Begun {
    asker: LaneId,
    number: u64,
    task: Task,
    attention: Option<Asc>,
    left: BTreeSet<LaneId>,
    found: bool,
    /// A command that it may have been about goes on at the next start.
    missed: bool,
}

/// A function that every lane has done.
#[derive(Debug, PartialEq, Eq)]
pub struct Finished {
    /// The lane that the guest asked.
    pub asker: LaneId,
    /// That lane's number for it.
    pub number: u64,
    /// The guest's answer.
    pub response: ControlResponse,
    /// The guest's unit attention.
    pub attention: Option<Asc>,
}

/// The functions under way, and the lanes that run.
#[derive(Debug, Default)]
pub struct Tasks {
    lanes: BTreeSet<LaneId>,
    /// How often each lane has come up.
    runs: BTreeMap<LaneId, u64>,
    /// Lanes that have given commands back and have not come up since.
    given_back: BTreeSet<LaneId>,
    begun: Vec<Begun>,
}

impl Tasks {
    /// A lane runs.
    pub fn lane_up(&mut self, lane: LaneId) {
        if self.lanes.is_empty() {
            // The device starts anew, perhaps with fewer rings.
            self.given_back.clear();
        }
        self.given_back.remove(&lane);
        self.lanes.insert(lane);
        *self.runs.entry(lane).or_default() += 1;
    }

    /// How often `lane` has come up.
    pub fn run(&self, lane: LaneId) -> u64 {
        self.runs.get(&lane).copied().unwrap_or(0)
    }

    /// A lane has ended all its commands and stopped: there is nothing left for it to do.
    pub fn lane_down(&mut self, lane: LaneId) {
        self.lanes.remove(&lane);
        for task in &mut self.begun {
            task.left.remove(&lane);
        }
        // Nobody is left to hear the answer.
        self.begun.retain(|task| task.asker != lane);
    }

    /// A lane has given a command back.
    pub fn gave_back(&mut self, lane: LaneId) {
        self.given_back.insert(lane);
        self.begun.iter_mut().for_each(|task| task.missed = true);
    }

    /// The guest asked; returns the lanes that must do their part.
    pub fn begin(
        &mut self,
        asker: LaneId,
        number: u64,
        task: Task,
        attention: Option<Asc>,
    ) -> BTreeSet<LaneId> {
        let left = self.lanes.clone();
        let missed = !self.given_back.is_empty();
        let (asked, found) = (left.clone(), false);
        self.begun.push(Begun { asker, number, task, attention, left: asked, found, missed });
        left
    }

    /// A lane has done its part.
    pub fn done(&mut self, lane: LaneId, number: u64, found: bool) {
        for task in self.begun.iter_mut().filter(|task| task.number == number) {
            if task.left.remove(&lane) {
                task.found |= found;
            }
        }
    }

    /// Takes the functions that are done.
    pub fn take_finished(&mut self) -> Vec<Finished> {
        let (done, left): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.begun).into_iter().partition(|task| task.left.is_empty());
        self.begun = left;
        let finished = |task: Begun| Finished {
            asker: task.asker,
            number: task.number,
            response: match task.task {
                _ if task.missed => ControlResponse::Failure,
                Task::Query(_) | Task::QueryAny if task.found => ControlResponse::FunctionSucceeded,
                _ => ControlResponse::FunctionComplete,
            },
            attention: task.attention,
        };
        done.into_iter().map(finished).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn task_is_done_when_every_lane_is() {
        let mut tasks = Tasks::default();
        (0..3).for_each(|lane| tasks.lane_up(LaneId(lane)));
        assert_eq!(tasks.begin(LaneId(0), 7, Task::Query(1), None).len(), 3);
        tasks.done(LaneId(0), 7, false);
        tasks.done(LaneId(1), 7, true);
        assert_eq!(tasks.take_finished(), []);
        tasks.lane_down(LaneId(2));
        let finished = tasks.take_finished();
        assert_eq!(finished[0].response, ControlResponse::FunctionSucceeded);
    }

    #[test]
    fn task_of_a_lane_that_is_gone_is_forgotten() {
        let mut tasks = Tasks::default();
        tasks.lane_up(LaneId(0));
        tasks.lane_up(LaneId(1));
        tasks.begin(LaneId(0), 1, Task::AbortAll, None);
        tasks.lane_down(LaneId(0));
        tasks.done(LaneId(1), 1, true);
        assert_eq!(tasks.take_finished(), []);
    }

    #[test]
    fn task_fails_where_a_command_was_given_back() {
        let mut tasks = Tasks::default();
        let response = |tasks: &mut Tasks| tasks.take_finished()[0].response;
        (0..2).for_each(|lane| tasks.lane_up(LaneId(lane)));
        tasks.begin(LaneId(0), 1, Task::AbortAll, Some(Asc::BUS_DEVICE_RESET));
        tasks.done(LaneId(0), 1, false);
        tasks.gave_back(LaneId(1));
        tasks.lane_down(LaneId(1));
        assert_eq!(response(&mut tasks), ControlResponse::Failure);
        tasks.begin(LaneId(0), 2, Task::AbortAll, None);
        tasks.done(LaneId(0), 2, true);
        assert_eq!(response(&mut tasks), ControlResponse::Failure, "it is still not taken again");
        tasks.lane_up(LaneId(1));
        tasks.begin(LaneId(0), 3, Task::AbortAll, None);
        (0..2).for_each(|lane| tasks.done(LaneId(lane), 3, true));
        assert_eq!(response(&mut tasks), ControlResponse::FunctionComplete);
    }

    #[test]
    fn commands_given_back_by_a_ring_that_never_comes_again_are_forgotten() {
        let mut tasks = Tasks::default();
        (0..2).for_each(|lane| tasks.lane_up(LaneId(lane)));
        tasks.gave_back(LaneId(1));
        (0..2).for_each(|lane| tasks.lane_down(LaneId(lane)));
        tasks.lane_up(LaneId(0));
        tasks.begin(LaneId(0), 1, Task::AbortAll, None);
        tasks.done(LaneId(0), 1, false);
        assert_eq!(tasks.take_finished()[0].response, ControlResponse::FunctionComplete);
    }
}
