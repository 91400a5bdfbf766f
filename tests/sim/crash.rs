//! The process is killed with commands under way, and another takes its place at once, on the same
//! array and the same rings. What the dead one had sent may land still; what it had taken and not
//! answered comes again, marked, and before all else.
//!
//! Events of the logical unit and devices of the host are left out: what the guest hears of an event
//! after a crash, and what a host keeps of a dead process, are other stories.

use std::sync::Arc;
use std::time::Duration;

use vhost_user_scsi_mpath::engine::{Driven, Manager};
use vhost_user_scsi_mpath::ids::{LaneId, Version};
use vhost_user_scsi_mpath::multipath::{Aftermath, Event, Placement};
use vhost_user_scsi_mpath::path::{Ended, Failure, Fate, Reach};

use crate::command::Op;
use crate::faults::Fault;
use crate::ms;
use crate::options::{Lies, Options};
use crate::plans::Plan;
use crate::random::Random;
use crate::run::run;
use crate::scene::{Rule, Scene, View};
use crate::transport::SimPath;
use crate::world::World;

impl World {
    /// The process is killed, and the next crash comes some time later.
    pub fn crash(&mut self) {
        // Rings that stop are another story: nothing is left of them that could come again.
        if !self.stopped {
            self.die();
            self.begin_anew();
        }
        self.plan_next(Plan::Crash);
    }

    /// Everything that is under way is on its own, and nobody hears of it any more.
    fn die(&mut self) {
        self.scene().say(|| "CRASH".into());
        self.scene().die();
        // The memory of this process is ours: what it owes is let go of, unseen by the guest.
        let (now, hub) = (self.now(), Arc::clone(self.manager.hub()));
        for (lane, mut actor) in std::mem::take(&mut self.actors) {
            let table = Arc::clone(&hub.snapshot().table);
            self.scene().view = Some(View { lane, table });
            actor.lane.disconnect();
            actor.lane.turn(&mut actor.guest, now);
        }
        self.scene().leave();
    }

    /// Another process: it knows of nothing but the rings.
    fn begin_anew(&mut self) {
        let (now, options) = (self.now(), self.scene().options.clone());
        self.manager = Manager::new(options.settings(), options.deadlines, now).unwrap();
        self.forget_manager();
        let aftermath = match options.lies.forgets_the_crash {
            true => Aftermath::Orderly,
            false => Aftermath::Crash,
        };
        let quiesce = match options.lies.crash_lasts_no_time {
            true => Duration::ZERO,
            false => options.write_quiesce,
        };
        self.tell_manager(Event::Aftermath(aftermath, quiesce), now);
        let ports = self.scene().ports.len();
        for index in 0..ports {
            let path = Arc::new(SimPath::new(self.shared.clone(), index));
            let name = format!("p{}", index + 1);
            let id = self.manager.add(name, Placement::default(), path, now).unwrap();
            self.scene().ports[index].path = Some(id);
        }
        for lane in (0..options.lanes).map(LaneId) {
            self.add_lane(lane, now);
        }
    }
}

impl Scene {
    /// Every attempt ends, and the process that would hear of it is dead.
    fn die(&mut self) {
        self.counts.crashes += 1;
        self.process += 1;
        self.quiet_from = self.now + self.options.write_quiesce;
        for ((port, client, attempt), key) in std::mem::take(&mut self.live) {
            let Some(one) = self.attempts.get_mut(&key) else { continue };
            one.live = false;
            let (arrived, serial, session) = (one.arrived, one.serial, one.session);
            let reach = if one.handed { Reach::Unknown } else { Reach::NotSent };
            let fate = Fate::Failed(Failure::Disconnected, reach);
            self.note_end(key, &fate);
            if arrived || reach == Reach::NotSent || !self.lands_late(key) {
                self.forget(key);
            }
            // So that the lane lets go of it.
            let end = Ended { attempt, fate, session };
            self.ends.entry((client, port)).or_default().push((end, serial));
        }
    }

    /// Nothing of the dead process is left but its commands.
    fn leave(&mut self) {
        self.view = None;
        self.ends.clear();
        self.seen.clear();
        self.oracle.suspects.clear();
        self.oracle.fresh_suspects.clear();
        self.version = Version(0);
        for ring in self.rings.values_mut() {
            for (_, serial) in std::mem::take(&mut ring.heads).into_iter().rev() {
                ring.queue.push_front(serial);
            }
        }
        for serial in &self.outstanding {
            if let Some(command) = self.commands.get_mut(serial) {
                command.begin_anew();
            }
        }
        self.control.fail_taken();
        let now = self.now;
        for port in 0..self.ports.len() {
            let at = &mut self.ports[port];
            at.news.clear();
            (at.clear, at.clearing) = (None, None);
            // A path is well when this process has had the time to see it.
            (at.good_since, at.best_since) = (None, None);
            at.access_since = (at.access, now);
            at.changed(now);
            if at.session.is_some() && at.link {
                self.drop_session(port, "the process is dead");
            }
        }
    }
}

impl Options {
    /// The options of `seed` with a process that is killed again and again.
    pub fn crashes(seed: u64) -> Self {
        let random = &mut Random::new(seed ^ 0x0C4A_54E5);
        let mut options = Options::swarm(seed);
        options.crashes_every = random.pick(&[ms(50), ms(300), ms(2000)]);
        options.parks = 0;
        options.mix[Op::ModeSelect as usize] = 0;
        for fault in [
            Fault::Mode,
            Fault::Unmap,
            Fault::Remap,
            Fault::Vanish,
            Fault::Shrink,
            Fault::Grow,
            Fault::Add,
            Fault::Remove,
            Fault::Disable,
            Fault::Settings,
            Fault::Block,
        ] {
            options.faults[fault as usize] = 0;
        }
        // One kind at least, since one is drawn.
        options.faults[Fault::Cut as usize] += 1;
        options
    }

    /// Writes under way wherever the process is killed, and they land late.
    fn crashes_in_a_storm(seed: u64) -> Self {
        let mut options = Options::crashes(seed);
        (options.crashes_every, options.lanes, options.depth) = (ms(400), 2, 6);
        (options.drop, options.late, options.overlap) = (100, 1000, 300);
        (options.latency, options.think) = (ms(40), ms(5));
        options.write_quiesce = ms(600);
        options
    }
}

#[test]
fn crashes_are_survived() {
    crate::seeds(Options::crashes, "crash::replay_crashes", 4);
}

#[test]
fn storm_of_crashes_is_survived() {
    let mut crashes = 0;
    for seed in 1..=40 {
        let result = run(seed, Options::crashes_in_a_storm(seed), false);
        crashes += result.unwrap_or_else(|violation| panic!("seed {seed}: {violation:?}")).crashes;
    }
    assert!(crashes > 40, "{crashes}");
}

fn is_noticed(rules: &[Rule], lies: Lies, change: fn(&mut Options)) {
    let mut others = Vec::new();
    for seed in 1..=60 {
        let mut options = Options { lies, ..Options::crashes_in_a_storm(seed) };
        change(&mut options);
        match run(seed, options, false) {
            Err(violation) if rules.contains(&violation.rule) => return,
            Err(violation) => others.push((seed, violation)),
            Ok(_) => {}
        }
    }
    panic!("nobody noticed; instead: {others:?}");
}

#[test]
fn process_that_waits_for_nothing_after_a_crash_is_noticed() {
    let lies = Lies { crash_lasts_no_time: true, ..Lies::default() };
    is_noticed(&[Rule::NoOvertaking, Rule::NothingAfterTheAnswer], lies, |_| {});
}

/// It waits with what was in the rings, and not with what the dead process had given up.
#[test]
fn process_that_takes_a_crash_for_an_end_in_good_order_is_noticed() {
    let lies = Lies { forgets_the_crash: true, ..Lies::default() };
    is_noticed(&[Rule::BlocksWait], lies, |options| {
        (options.stops_every, options.disconnects) = (ms(700), 1000);
        (options.crashes_every, options.depth) = (ms(1500), 12);
        // Longer than a new process needs to find its paths.
        (options.write_quiesce, options.latency) = (ms(3000), ms(10));
        options.mix[Op::Write as usize] = 100;
    });
}

#[test]
fn command_that_is_repeated_after_a_crash_although_it_must_not_be_is_noticed() {
    let lies = Lies { rings_do_not_tell: true, ..Lies::default() };
    is_noticed(&[Rule::NeverTwice, Rule::NoOvertaking], lies, |options| {
        options.mix[Op::CompareAndWrite as usize] = 30;
    });
}

/// Runs the seed that SIM_SEED names and says everything that happens.
#[test]
fn replay_crashes() {
    crate::replay_seed(Options::crashes);
}
