//! What was read and opened takes effect: first everything that may be refused is looked at, then
//! all of it is done.

use std::time::Instant;

use super::plan::{Plan, plan};
use super::{Reread, known};
use crate::backend::discovery::{Host, ToHost};
use crate::backend::members::Member;
use crate::backend::run;
use crate::config::Config;
use crate::control::{ReloadReport, Renamed};
use crate::engine::Manager;
use crate::limits::PATHS_MAX;
use crate::multipath::Event;
use crate::path::any::AnyPath;

/// What a reading may change.
pub struct Scene<'a> {
    /// The manager.
    pub manager: &'a mut Manager<AnyPath>,
    /// The paths as configured.
    pub members: &'a mut Vec<Member>,
    /// Looks after the host's devices.
    pub host: &'a mut Host,
    /// The time.
    pub now: Instant,
}

/// Goes over from `old` to what was read. An error has changed nothing.
pub fn apply(old: &Config, reread: &Reread, scene: &mut Scene<'_>) -> Result<ReloadReport, String> {
    // Once more: paths may have come and gone while the file was read.
    let plan = plan(old, &reread.config, &known(scene.manager, scene.members));
    let plan = plan.map_err(|error| error.to_string())?;
    let new = opened(&plan, reread, scene.members)?;
    let mut report = ReloadReport { kept: plan.kept.clone(), ..ReloadReport::default() };
    make_way(&plan, scene);
    for (from, to) in &plan.rename {
        report.renamed.push(Renamed { from: from.clone(), to: to.clone() });
    }
    for member in new {
        report.added.push(member.name.clone());
        add(member, scene);
    }
    report.changed = settings(&reread.config, scene);
    for name in &plan.remove {
        report.removed.push(name.clone());
        let leaving = leaving(name, &plan);
        if let Some(id) = scene.manager.core().path_named(&leaving).map(|path| path.id) {
            scene.manager.apply(Event::Remove(id), scene.now);
        }
    }
    Ok(report)
}

/// The members that are to be added, if all of them can stand beside those that are there.
fn opened(plan: &Plan, reread: &Reread, members: &[Member]) -> Result<Vec<Member>, String> {
    // What leaves is in the way only by where it leads: its name is given up.
    let mut beside: Vec<Member> = members.to_vec();
    for member in &mut beside {
        member.name = renamed(&member.name, plan);
    }
    if beside.len() + plan.add.len() > PATHS_MAX {
        return Err(format!("more than {PATHS_MAX} paths, those included that are leaving"));
    }
    let mut new = Vec::new();
    for (name, _) in &plan.add {
        let member = reread.opened.iter().find(|member| member.name == *name);
        let member = member.ok_or("the paths have changed meanwhile; reload again")?;
        member.differs(&beside).map_err(|error| error.to_string())?;
        beside.push(member.clone());
        new.push(member.clone());
    }
    Ok(new)
}

/// What a path that leaves is called until it has gone: its name may be wanted at once.
fn leaving(name: &str, plan: &Plan) -> String {
    let wanted = plan.add.iter().map(|(wanted, _)| wanted);
    let wanted = wanted.chain(plan.rename.iter().map(|(_, wanted)| wanted));
    let is_wanted = |candidate: &String| wanted.clone().any(|wanted| wanted == candidate);
    let mut candidate = name.to_owned();
    while is_wanted(&candidate) {
        candidate.push_str(" (leaving)");
    }
    candidate
}

/// What a member of that name is called from now on.
fn renamed(name: &str, plan: &Plan) -> String {
    match plan.rename.iter().find(|(from, _)| from == name) {
        Some((_, to)) => to.clone(),
        None if plan.remove.iter().any(|removed| removed == name) => leaving(name, plan),
        None => name.to_owned(),
    }
}

/// Gives all members the names that they have from now on, at once: two may change places.
fn make_way(plan: &Plan, scene: &mut Scene<'_>) {
    let mut events = Vec::new();
    let mut watched = Vec::new();
    for member in scene.members.iter_mut() {
        let name = renamed(&member.name, plan);
        if name == member.name {
            continue;
        }
        if let Some(path) = scene.manager.core().path_named(&member.name) {
            events.push(Event::Rename(path.id, name.clone()));
        }
        if let Some(node) = &member.node {
            scene.host.tell(ToHost::Forget(member.name.clone()));
            watched.push((name.clone(), node.clone()));
        }
        member.name = name;
    }
    for event in events {
        scene.manager.apply(event, scene.now);
    }
    for (name, node) in watched {
        scene.host.watch(name, node);
    }
}

fn add(member: Member, scene: &mut Scene<'_>) {
    let (placement, transport) = (member.placement, member.transport.clone());
    match scene.manager.add(member.name.clone(), placement, transport, scene.now) {
        Ok(_) => {
            if let Some(node) = member.node.clone() {
                scene.host.watch(member.name.clone(), node);
            }
            scene.members.push(member);
        }
        // For want of a descriptor, or because removed paths still hold their places.
        Err(error) => {
            let name = member.name;
            log::error!(path = name.as_str(); "path {name}: {error}; reload again");
        }
    }
}

/// Settings of the LUN that differ from what is in force, be it by the file or by an order.
fn settings(config: &Config, scene: &mut Scene<'_>) -> Vec<String> {
    let mut changed = Vec::new();
    let (now, before) = (run::settings(config), scene.manager.core().settings().clone());
    let mut change = |name: &str, differs: bool, event: Event| {
        if differs {
            changed.push(name.to_owned());
            scene.manager.apply(event, scene.now);
        }
    };
    change("lun.iopolicy", now.policy != before.policy, Event::SetPolicy(now.policy));
    let retry = now.no_path_retry;
    change("lun.no_path_retry", retry != before.no_path_retry, Event::SetNoPathRetry(retry));
    let failback = now.failback;
    change("lun.failback", failback != before.failback, Event::SetFailback(failback));
    let quiesce = now.write_quiesce;
    change("lun.write_quiesce", quiesce != before.write_quiesce, Event::SetWriteQuiesce(quiesce));
    let (now, before) = (run::deadlines(config), scene.manager.deadlines());
    for (name, now, before) in [
        ("lun.path_timeout", now.path_timeout, before.path_timeout),
        ("lun.command_deadline", now.command_deadline, before.command_deadline),
    ] {
        if now != before {
            changed.push(name.to_owned());
        }
    }
    scene.manager.set_deadlines(now);
    changed
}
