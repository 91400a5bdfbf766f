//! What breaks, and for how long.

use std::time::Duration;

use vhost_user_scsi_mpath::ids::LaneId;
use vhost_user_scsi_mpath::multipath::{Event as CoreEvent, Failback, NoPathRetry, Policy, Table};
use vhost_user_scsi_mpath::scsi::Asc;
use vhost_user_scsi_mpath::scsi::alua::AccessState;

use crate::array::{Clear, EVENT, Port, Reply, Unit};
use crate::fabric::Attempt;
use crate::options::BLOCKS;
use crate::oracle::Event;
use crate::plans::Plan;
use crate::scene::Scene;
use crate::world::World;

/// Ports at most, the removed ones too.
const PORTS_MAX: usize = 12;

/// The array pauses for so long at most.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// What can break.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A link is cut.
    Cut,
    /// A link swallows everything.
    Hang,
    /// A link swallows answers.
    Deaf,
    /// A port is overloaded.
    Load,
    /// A port stands by.
    Standby,
    /// A port is not the best one any more.
    NonOptimized,
    /// A port is between two states, then active again.
    Transition,
    /// The array was reset: every nexus hears of it.
    Reset,
    /// Something of the logical unit changed that a guest must hear of.
    Mode,
    /// The logical unit is not behind a port any more.
    Unmap,
    /// Another one is behind it.
    Remap,
    /// The array tells a smaller size over one port.
    Shrink,
    /// A path is added.
    Add,
    /// A path is removed.
    Remove,
    /// A path is taken out of use by an admin.
    Disable,
    /// All links are cut.
    AllDead,
    /// An admin changes the policies.
    Settings,
    /// The kernel keeps back what is sent over a port.
    Block,
    /// Everything over a link takes longer.
    Limp,
    /// The array does nothing for a while, over all ports, and then goes on.
    Pause,
    /// The logical unit grows: this port tells first, the others follow.
    Grow,
    /// The logical unit is not behind any port any more.
    Vanish,
    /// All groups are between two states.
    Shift,
}

impl Fault {
    /// All of them.
    pub const ALL: [Fault; 23] = [
        Fault::Cut,
        Fault::Hang,
        Fault::Deaf,
        Fault::Load,
        Fault::Standby,
        Fault::NonOptimized,
        Fault::Transition,
        Fault::Reset,
        Fault::Mode,
        Fault::Unmap,
        Fault::Remap,
        Fault::Shrink,
        Fault::Add,
        Fault::Remove,
        Fault::Disable,
        Fault::AllDead,
        Fault::Settings,
        Fault::Block,
        Fault::Limp,
        Fault::Pause,
        Fault::Grow,
        Fault::Vanish,
        Fault::Shift,
    ];
}

/// What becomes whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Restore {
    /// The link.
    Link(usize),
    /// What swallowed or overloaded.
    Wire(usize),
    /// The access state.
    Access(usize),
    /// The logical unit.
    Unit(usize),
    /// The admin's mind.
    Use(usize),
    /// The kernel's.
    Host(usize),
    /// The port tells the new size.
    Size(usize),
}

impl World {
    /// Something breaks now, and the next thing some time later.
    pub fn fault(&mut self) {
        let (fault, port, length) = {
            let mut scene = self.scene();
            let weights = scene.options.faults;
            let fault = Fault::ALL[scene.random.weighted(&weights)];
            let there: Vec<usize> =
                (0..scene.ports.len()).filter(|at| !scene.ports[*at].removed).collect();
            let port = if there.is_empty() { 0 } else { scene.random.pick(&there) };
            let (least, longest) = (scene.options.rules.at_least, scene.options.fault_length);
            (fault, port, scene.random.time(least..longest))
        };
        let one_at_a_time = self.scene().options.rules.one_at_a_time;
        if one_at_a_time && !self.all_is_well() {
            return self.plan_next(Plan::Fault);
        }
        self.break_port(fault, port, length);
        self.plan_next(Plan::Fault);
    }

    /// `fault` happens to `port`.
    pub fn break_port(&mut self, fault: Fault, port: usize, length: Duration) {
        {
            let mut scene = self.scene();
            scene.counts.faults += 1;
            scene.say(|| format!("FAULT {fault:?} of port {port} for {length:?}"));
        }
        match fault {
            Fault::Add | Fault::Remove | Fault::Disable | Fault::Settings => {
                return self.administer(fault, port, length);
            }
            Fault::AllDead => {
                let ports = self.scene().ports.len();
                (0..ports).for_each(|port| self.cut(port, length));
                return;
            }
            Fault::Vanish | Fault::Shift => {
                let each = if fault == Fault::Vanish { Fault::Unmap } else { Fault::Transition };
                let ports = self.scene().ports.len();
                (0..ports).for_each(|port| self.break_port(each, port, length));
                return;
            }
            Fault::Grow => {
                self.scene().grow(port);
                let others = (0..self.scene().ports.len()).filter(|other| *other != port);
                others.for_each(|other| self.plan(length, Plan::Restore(Restore::Size(other))));
                return;
            }
            Fault::Cut => return self.cut(port, length),
            Fault::Block => return self.block(port, length),
            Fault::Pause => {
                let mut scene = self.scene();
                scene.paused_until = scene.now + length.min(PAUSE_MAX);
                return;
            }
            _ => {}
        }
        let lanes: Vec<LaneId> = self.actors.keys().copied().collect();
        let restore = self.scene().break_unit(fault, port, &lanes);
        if let Some(restore) = restore {
            self.plan(length, Plan::Restore(restore));
        }
    }

    fn cut(&mut self, port: usize, length: Duration) {
        {
            let mut scene = self.scene();
            if scene.ports[port].removed {
                return;
            }
            scene.cut(port);
            let now = scene.now;
            scene.ports[port].changed(now);
        }
        self.plan(length, Plan::Restore(Restore::Link(port)));
    }

    fn administer(&mut self, fault: Fault, port: usize, length: Duration) {
        let now = self.now();
        let path = self.scene().ports[port].path;
        let left = self.scene().ports.iter().filter(|port| !port.leaving).count();
        match fault {
            Fault::Add if self.scene().ports.len() < PORTS_MAX => self.add_port(),
            Fault::Remove if left > 1 => {
                let Some(path) = path else { return };
                self.tell_manager(CoreEvent::Remove(path), now);
                let mut scene = self.scene();
                scene.ports[port].leaving = true;
                let now = scene.now;
                scene.ports[port].changed(now);
            }
            Fault::Disable => {
                let Some(path) = path else { return };
                self.tell_manager(CoreEvent::Disable(path), now);
                self.scene().ports[port].disabled = true;
                self.plan(length, Plan::Restore(Restore::Use(port)));
            }
            Fault::Settings => {
                let (policy, retry, failback) = {
                    let random = &mut self.scene().random;
                    let policies =
                        [Policy::Numa, Policy::RoundRobin, Policy::QueueDepth, Policy::ServiceTime];
                    let some = NoPathRetry::For(Duration::from_secs(random.below(6)));
                    let retries = [NoPathRetry::Queue, NoPathRetry::Fail, some];
                    let some = Failback::After(Duration::from_secs(1 + random.below(6)));
                    let failbacks =
                        [Failback::Immediate, Failback::Manual, Failback::Followover, some];
                    (random.pick(&policies), random.pick(&retries), random.pick(&failbacks))
                };
                self.scene().options.failback = failback;
                self.tell_manager(CoreEvent::SetFailback(failback), now);
                self.tell_manager(CoreEvent::SetPolicy(policy), now);
                self.tell_manager(CoreEvent::SetNoPathRetry(retry), now);
            }
            _ => {}
        }
    }

    /// Something is whole again.
    pub fn restore(&mut self, restore: Restore) {
        let now = self.now();
        if let Restore::Use(port) = restore {
            let path = self.scene().ports[port].path;
            let there = !self.scene().ports[port].leaving;
            if let Some(path) = path.filter(|_| there) {
                self.tell_manager(CoreEvent::Reinstate(path), now);
            }
        }
        if let Restore::Host(port) | Restore::Link(port) = restore {
            self.plan_look(port);
        }
        let mut scene = self.scene();
        scene.say(|| format!("whole again: {restore:?}"));
        scene.restore(restore);
    }
}

impl Scene {
    fn break_unit(&mut self, fault: Fault, port: usize, lanes: &[LaneId]) -> Option<Restore> {
        let now = self.now;
        let at = &mut self.ports[port];
        let restore = match fault {
            Fault::Hang | Fault::Deaf | Fault::Load => {
                let switch = match fault {
                    Fault::Hang => &mut at.hangs,
                    Fault::Deaf => &mut at.deaf,
                    _ => &mut at.loaded,
                };
                *switch = true;
                Some(Restore::Wire(port))
            }
            Fault::Limp => {
                let slow = self.random.time(Duration::from_millis(40)..Duration::from_millis(150));
                let at = &mut self.ports[port];
                (at.slow, at.slow_since) = (slow, Some(now));
                Some(Restore::Wire(port))
            }
            Fault::Standby | Fault::NonOptimized | Fault::Transition => {
                at.access = match fault {
                    Fault::Standby => AccessState::Standby,
                    Fault::NonOptimized => AccessState::ActiveNonOptimized,
                    _ => AccessState::Transitioning,
                };
                self.raise_everywhere(Asc::ALUA_STATE_CHANGED);
                Some(Restore::Access(port))
            }
            Fault::Reset => {
                self.raise_everywhere(Asc::POWER_ON_OR_RESET);
                None
            }
            Fault::Mode => {
                self.raise_event();
                None
            }
            Fault::Unmap | Fault::Remap | Fault::Shrink => {
                let disguised = self.options.lies.remaps_in_disguise;
                at.unit = match fault {
                    Fault::Unmap => Unit::Gone,
                    Fault::Shrink => Unit::Small,
                    _ if disguised => Unit::Disguised,
                    _ => Unit::Other,
                };
                if fault == Fault::Remap && !disguised {
                    at.raise(Asc::REPORTED_LUNS_CHANGED);
                    at.doubted = lanes.iter().copied().collect();
                    at.doubt_told = None;
                    self.lose_arrivals(port);
                } else if fault == Fault::Shrink {
                    at.raise(Asc::CAPACITY_DATA_HAS_CHANGED);
                    self.oracle.small = true;
                }
                Some(Restore::Unit(port))
            }
            _ => None,
        };
        self.ports[port].changed(now);
        restore
    }

    fn restore(&mut self, restore: Restore) {
        let (now, up) = (self.now, self.link_up());
        let (Restore::Link(port)
        | Restore::Wire(port)
        | Restore::Access(port)
        | Restore::Unit(port)
        | Restore::Use(port)
        | Restore::Host(port)
        | Restore::Size(port)) = restore;
        let at: &mut Port = &mut self.ports[port];
        match restore {
            Restore::Link(_) => {
                if let Some(session) = &mut at.session {
                    session.cut = false;
                    self.plan_login(port);
                } else if !at.link {
                    at.link = true;
                    at.raise(Asc::POWER_ON_OR_RESET);
                    if at.tells {
                        at.clear = Some(Clear::begun(now));
                        at.news.push(up);
                    }
                }
            }
            Restore::Wire(_) => {
                (at.hangs, at.deaf, at.loaded) = (false, false, false);
                (at.slow, at.slow_since) = (Duration::ZERO, None);
            }
            Restore::Access(_) => {
                at.access = AccessState::ActiveOptimized;
                self.raise_everywhere(Asc::ALUA_STATE_CHANGED);
            }
            Restore::Unit(_) => {
                at.unit = Unit::Ours;
                at.doubted.clear();
                at.raise(Asc::REPORTED_LUNS_CHANGED);
            }
            Restore::Use(_) => at.disabled = false,
            Restore::Host(_) => self.unblock(port),
            Restore::Size(_) => return self.grow(port),
        }
        self.ports[port].changed(now);
    }

    /// `port` tells the largest size of all, or if that is its own already, a larger one.
    fn grow(&mut self, port: usize) {
        let largest = self.ports.iter().map(|port| port.blocks).max().unwrap_or(BLOCKS);
        let at = &mut self.ports[port];
        at.blocks = if at.blocks == largest { largest + BLOCKS } else { largest };
        at.raise(Asc::CAPACITY_DATA_HAS_CHANGED);
        let (largest, now) = (at.blocks.max(largest), self.now);
        for port in &mut self.ports {
            port.lags = port.blocks < largest;
            port.changed(now);
        }
    }

    /// What is on its way to a port finds nothing there.
    fn lose_arrivals(&mut self, port: usize) {
        for attempt in self.attempts.values_mut() {
            attempt.doubted |= attempt.port == port && !attempt.arrived;
        }
    }

    fn raise_everywhere(&mut self, code: Asc) {
        for port in &mut self.ports {
            port.raise(code);
        }
    }

    /// An event of the logical unit, if nothing is left of the one before and the guest was told of
    /// it, as far as it can be.
    fn raise_event(&mut self) {
        let pending = |port: &Port| port.attentions.contains(&EVENT);
        let under_way = |attempt: &Attempt| {
            attempt.live && attempt.reply.as_ref().is_some_and(Reply::tells_event)
        };
        let open = self.ports.iter().any(pending) || self.attempts.values().any(under_way);
        if !open && !self.oracle.owes_event() {
            self.begin_event();
        }
    }

    /// An event of the logical unit.
    pub fn begin_event(&mut self) {
        let now = self.now;
        self.ports.iter_mut().filter(|port| !port.link).for_each(|port| port.loses_copy(now));
        self.oracle.event = Some(Event {
            brought: false,
            plain: false,
            copy_lost: self.ports.iter().any(|port| !port.link && !port.removed),
            told_before: self.oracle.told,
        });
        self.raise_everywhere(EVENT);
    }

    /// The nexus over `port` is no more.
    pub fn lose_attentions(&mut self, port: usize) {
        let own = std::mem::take(&mut self.ports[port].own);
        if std::mem::take(&mut self.ports[port].attentions).contains(&EVENT) {
            self.loses_copy(port, own);
        }
    }

    /// The copy of the last event for the nexus over `port` does not reach the host; `own` where
    /// that is the guest's own doing.
    pub fn loses_copy(&mut self, port: usize, own: bool) {
        let now = self.now;
        self.ports[port].loses_copy(now);
        if !own {
            self.oracle.loses_copy();
        }
    }

    /// The manager has a turn: what it found in an earlier one it knows.
    pub fn clear_up(&mut self, now: Duration) {
        for port in &mut self.ports {
            if let Some(clear) = port.clearing.take_if(|clear| clear.found < now) {
                port.clear = Some(Clear { since: now, ..clear });
            }
        }
    }

    /// The guest's MODE SELECT was executed over `port`; `late` when the host had given it up.
    pub fn make_event(&mut self, port: usize, late: bool) {
        self.counts.own_events += 1;
        let now = self.now;
        if late {
            // The guest may hear of it over the others, and this nexus has no copy.
            self.ports[port].loses_copy(now);
        }
        let others = self.ports.iter_mut().enumerate().filter(|(at, _)| *at != port);
        others.for_each(|(_, port)| port.raise_own(now));
    }

    /// `lane` reads `table`: from now on it knows which paths are out of use.
    pub fn see(&mut self, lane: LaneId, table: &Table) {
        for at in 0..self.ports.len() {
            let port = &mut self.ports[at];
            let entry = port.path.and_then(|path| table.entry(path));
            if !entry.is_some_and(|entry| entry.is_usable()) {
                if port.doubt_told.is_some_and(|told| told < table.version) {
                    port.doubted.remove(&lane);
                }
                // Nobody sends anything over it that was not on its way.
                if port.leaving && entry.is_none() {
                    port.removed = true;
                    self.lose_attentions(at);
                }
            }
        }
    }
}
