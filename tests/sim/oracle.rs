//! The model of the disk: which contents a read may bring.
//!
//! Every write has a content of its own. A write takes effect at some time between its beginning
//! and its end; one that failed perhaps, but not after its end. For each block the oracle keeps the
//! *floor*: the latest beginning of a write that was acknowledged. A read may bring the content of
//! any write that did not end before the floor of the read's own beginning; everything older has
//! been overwritten for sure.

use std::collections::BTreeSet;
use std::time::Duration;

use vhost_user_scsi_mpath::ids::LaneId;

use crate::command::Command;
use crate::options::BLOCKS;

/// A write, as one block sees it.
#[derive(Clone, Copy, Debug)]
struct Write {
    serial: u64,
    stamp: u64,
    /// After this it has no effect any more; `None` while that is open.
    over: Option<Duration>,
}

#[derive(Clone, Debug)]
struct Block {
    writes: Vec<Write>,
    floor: Duration,
    /// The latest beginning of all commands that were executed here.
    touched: Duration,
}

/// An event of the logical unit.
#[derive(Clone, Copy, Debug)]
pub struct Event {
    /// A path has brought it.
    pub brought: bool,
    /// A path has brought it whose port could have nothing left of the events before.
    pub plain: bool,
    /// A port had no copy for its nexus, or lost it.
    pub copy_lost: bool,
    /// What the guest had heard of when it came.
    pub told_before: u64,
}

/// See the module's text.
#[derive(Debug)]
pub struct Oracle {
    blocks: Vec<Block>,
    /// Events of the logical unit that a path has brought: the guest must hear of them.
    pub brought: u64,
    /// Those that it heard of.
    pub told: u64,
    /// When it heard of the last of them.
    pub heard: Duration,
    /// When a MODE SELECT of the guest's was sent or ended last.
    pub doubted: Duration,
    /// MODE SELECTs of the guest's that are under way: each may be executed at any moment.
    pub making: u64,
    /// MODE SELECTs of the guest's of which it does not know whether they were executed: it may be
    /// told of each.
    pub excused: u64,
    /// The last event; it begins when nothing is left of the one before.
    pub event: Option<Event>,
    /// Resets that the guest asked for: each may bring a unit attention.
    pub resets: u64,
    /// The unit attentions of resets that it got.
    pub resets_told: u64,
    /// How often the logical unit was gone, by the core's own word.
    pub gone: u64,
    /// How often the guest heard that it is there again.
    pub returns_told: u64,
    /// The size that the guest was told last.
    pub size_told: u64,
    /// The array has told a smaller size: at the start that is the LUN's.
    pub small: bool,
    /// How often it was told that the size has changed.
    pub sizes_told: u64,
    /// As [`Oracle::suspects`], of the turn that is not over.
    pub fresh_suspects: Vec<(LaneId, usize)>,
    /// Lanes and ports that failed under their hands, until the manager had its turn.
    pub suspects: BTreeSet<(LaneId, usize)>,
}

impl Oracle {
    /// Of a disk full of zeroes.
    pub fn new() -> Self {
        let zeroes = Write { serial: 0, stamp: 0, over: Some(Duration::ZERO) };
        let block = Block { writes: vec![zeroes], floor: Duration::ZERO, touched: Duration::ZERO };
        Oracle {
            blocks: vec![block; BLOCKS as usize],
            brought: 0,
            told: 0,
            heard: Duration::ZERO,
            doubted: Duration::ZERO,
            making: 0,
            excused: 0,
            event: None,
            resets: 0,
            resets_told: 0,
            gone: 0,
            returns_told: 0,
            size_told: 0,
            small: false,
            sizes_told: 0,
            fresh_suspects: Vec::new(),
            suspects: BTreeSet::new(),
        }
    }

    /// A path brings the last event. Where its port has lost a copy of an earlier one, this looks
    /// like that, unless the host knows that nothing of it was left: by a question that it asked
    /// after the guest had heard of the event, or because a later nexus brings this one; and after
    /// the guest's own doing.
    pub fn brings_event(&mut self, lost: Option<Duration>, clear: Option<Duration>) {
        let Some(event) = &mut self.event else { return };
        if !std::mem::replace(&mut event.brought, true) {
            self.brought += 1;
        }
        let latest = self.heard.max(self.doubted);
        let quiet = self.making == 0;
        let known = |lost: Duration| quiet && clear.is_some_and(|clear| clear > lost.max(latest));
        event.plain |= lost.is_none_or(known);
    }

    /// A port's copy of the last event is lost.
    pub fn loses_copy(&mut self) {
        if let Some(event) = &mut self.event {
            event.copy_lost = true;
        }
    }

    /// The last event was brought for all to see, and the guest has not heard of any since it came.
    pub fn owes_event(&self) -> bool {
        let owed =
            |event: &Event| event.plain && !event.copy_lost && self.told == event.told_before;
        self.event.as_ref().is_some_and(owed)
    }

    /// A command begins.
    pub fn begins(&mut self, command: &mut Command) {
        for at in command.blocks() {
            let block = &mut self.blocks[at as usize];
            command.floors.push(block.floor);
            if command.op.writes() {
                block.writes.push(Write {
                    serial: command.serial,
                    stamp: command.stamp,
                    over: None,
                });
            }
        }
    }

    /// A write is over at `over`; `acknowledged` when its content is there for sure.
    pub fn ends(&mut self, command: &Command, over: Duration, acknowledged: bool) {
        for at in command.blocks() {
            let block = &mut self.blocks[at as usize];
            for write in block.writes.iter_mut().filter(|write| write.serial == command.serial) {
                write.over = Some(over);
            }
            if acknowledged {
                block.floor = block.floor.max(command.begun);
            }
        }
    }

    /// True when block `at` may have had this content for a reader who began with `floor`.
    pub fn may_be(&self, at: u64, stamp: u64, floor: Duration) -> bool {
        let fits =
            |write: &&Write| write.stamp == stamp && write.over.is_none_or(|over| over >= floor);
        self.blocks[at as usize].writes.iter().any(|write| fits(&write))
    }

    /// The floor of a block now.
    pub fn floor(&self, at: u64) -> Duration {
        self.blocks[at as usize].floor
    }

    /// A command was executed.
    pub fn touches(&mut self, command: &Command) {
        for at in command.blocks() {
            let touched = &mut self.blocks[at as usize].touched;
            *touched = (*touched).max(command.begun);
        }
    }

    /// A block of `command` on which a command was executed that began after `since`.
    pub fn touched_since(&self, command: &Command, since: Duration) -> Option<u64> {
        command.blocks().find(|at| self.blocks[*at as usize].touched > since)
    }
}
