//! One seed from beginning to end: a busy time with faults, a calm one in which everything must
//! come to its end, and a look at what is left.

use std::cmp::Reverse;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use vhost_user_scsi_mpath::ids::LaneId;

use crate::command::Op;
use crate::faults::Restore;
use crate::guest::POISON;
use crate::options::{BLOCKS, Options};
use crate::scene::{Counts, Rule, Violation};
use crate::world::World;

/// A busy time lasts so long at most.
const BUSY_MAX: Duration = Duration::from_secs(60);
/// Healthy paths are asked every five seconds; failed ones too, at last.
const PROBED: Duration = Duration::from_secs(6);
/// What the guest asks of each lane in the end, at most.
const ROUNDS_MAX: u32 = 20;

/// Runs `seed` with `options`.
pub fn run(seed: u64, options: Options, tracing: bool) -> Result<Counts, Violation> {
    let mut world = World::new(seed, options, tracing);
    let lived = catch_unwind(AssertUnwindSafe(|| live(&mut world)));
    let at = world.scene().now;
    let (violation, mut counts) = (world.violation(), world.scene().counts);
    let hedges = world.manager.hub().counters.hedges();
    (counts.clones, counts.clones_won) = (hedges.sent, hedges.won);
    if let Some(violation) = violation {
        // A world that broke off owes answers: it must not be dropped in the ordinary way.
        std::mem::forget(world);
        return Err(violation);
    }
    if let Err(panic) = lived {
        std::mem::forget(world);
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        let text = text.unwrap_or_default();
        return Err(Violation { rule: Rule::NoPanic, text, at });
    }
    Ok(counts)
}

fn live(world: &mut World) {
    world.begin();
    let all = world.scene().options.commands;
    while world.scene().now < BUSY_MAX && world.violation().is_none() {
        world.run_for(Duration::from_millis(500));
        if world.issued >= all && world.scene().outstanding.is_empty() {
            break;
        }
    }
    calm_down(world);
    finish(world);
}

/// All faults are over, the guest sends nothing new.
pub fn calm_down(world: &mut World) {
    let limit = {
        let mut scene = world.scene();
        scene.calm = true;
        scene.options.commands = 0;
        scene.say(|| "CALM".into());
        let options = &scene.options;
        let deadlines = options.deadlines;
        deadlines.command_deadline
            + deadlines.path_timeout * 3
            + options.recall_max * 2
            + options.login_max * 4
            + options.parked_max * 2
            + options.write_quiesce * 8
            + options.lag_max * 8
            + PROBED * 2
    };
    world.agenda.retain(|Reverse((.., plan))| *plan == crate::plans::Plan::Kept);
    let ports = world.scene().ports.len();
    for port in 0..ports {
        let there = !world.scene().ports[port].leaving;
        let restores =
            [Restore::Link, Restore::Wire, Restore::Access, Restore::Unit, Restore::Size];
        let needed: Vec<bool> = {
            let scene = world.scene();
            let at = &scene.ports[port];
            vec![
                !at.link,
                at.hangs || at.deaf || at.loaded || !at.slow.is_zero(),
                at.access != Default::default(),
                at.unit != crate::array::Unit::Ours,
                at.lags,
            ]
        };
        for (restore, _) in restores.iter().zip(needed).filter(|(_, needed)| *needed && there) {
            world.restore(restore(port));
        }
        // What is on a path that leaves has to come back as well; looks that were planned are gone.
        let kept_back = {
            let at = &world.scene().ports[port];
            at.kept_back || at.blocked_told.is_some()
        };
        if kept_back {
            world.restore(Restore::Host(port));
        }
        if world.scene().ports[port].disabled {
            world.restore(Restore::Use(port));
        }
    }
    if world.stopped {
        world.plan(Duration::ZERO, crate::plans::Plan::Stopped);
    }
    let until = world.scene().now + limit;
    while world.scene().now < until && world.violation().is_none() {
        world.run_for(Duration::from_millis(250));
        if world.scene().outstanding.is_empty() && !world.stopped {
            return;
        }
    }
    let mut scene = world.scene();
    let left: Vec<u64> = scene.outstanding.iter().copied().collect();
    scene.broken(Rule::InTime, format!("all is well, and still without an answer: {left:?}"));
}

/// Nothing may be left: no command, no memory, no load; and the disk holds what was written.
pub fn finish(world: &mut World) {
    world.run_for(PROBED);
    let lanes: Vec<LaneId> = world.actors.keys().copied().collect();
    // Each command is told of one unit attention, and several may be waiting.
    for round in 0..ROUNDS_MAX {
        let told = world.scene().counts.attentions;
        for lane in &lanes {
            world.scene().send(*lane, if round == 0 { Op::Ready } else { Op::Read }, (0, 1));
        }
        world.run_for(Duration::from_secs(3));
        if round > 0 && world.scene().counts.attentions == told {
            break;
        }
    }
    if world.violation().is_some() {
        return;
    }
    world.stop_rings(false, Duration::from_millis(500));
    world.run_for(Duration::from_millis(400));
    let loads: u32 = world.manager.core().paths().map(|path| path.load.commands()).sum();
    let holds = world.manager.hub().snapshot().table.holds.len();
    let unusable = world.manager.core().paths().find(|path| !path.is_usable());
    let unusable = unusable.map(|path| (path.id, path.state, path.reason.clone()));
    let idle = world.is_idle();
    let mut scene = world.scene();
    if let Some(left) = scene.outstanding.first().copied() {
        scene.broken(Rule::InTime, format!("{left} of the last commands has no answer"));
    }
    if loads != 0 || holds != 0 || !idle || unusable.is_some() {
        let text = format!("loads {loads}, holds {holds}, idle {idle}, out of use: {unusable:?}");
        scene.broken(Rule::CleanEnd, text);
    }
    if scene.oracle.owes_event() && scene.oracle.resets == 0 {
        let text = format!("{} told, the last one is not", scene.oracle.told);
        scene.broken(Rule::AttentionOnce, text);
    }
    for at in 0..BLOCKS {
        let (stamp, floor) = (scene.disk.get(at), scene.oracle.floor(at));
        if !scene.oracle.may_be(at, stamp, floor) {
            let text = format!("block {at} holds {stamp} at the end, floor {floor:?}");
            scene.broken(Rule::DataIsRight, text);
        }
    }
    let touched = scene.commands.values().find(|command| {
        !command.is_outstanding() && command.memory.to_vec().iter().any(|byte| *byte != POISON)
    });
    if let Some(serial) = touched.map(|command| command.serial) {
        let text = format!("memory of {serial} was written to after its answer");
        scene.broken(Rule::MemoryIsLentOnce, text);
    }
}
