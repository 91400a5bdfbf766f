//! The control socket's orders, carried out by the manager's thread.

use std::time::Instant;

use super::members::Member;
use super::reports;
use crate::control::{
    BackendReport, FaultKind, FaultSpec, Order, OrderResult, OrderSink, Reply, ReplyTo,
};
use crate::engine::Manager;
use crate::engine::mailbox::Post;
use crate::ids::PathId;
use crate::multipath::Event;
use crate::path::any::AnyPath;
use crate::path::emulated;

/// Where the control thread leaves its orders.
#[derive(Clone, Debug)]
pub struct Desk {
    /// The way to the manager.
    pub orders: Post<(Order, ReplyTo)>,
    /// What never changes, and is answered without asking the manager.
    pub about: BackendReport,
}

impl OrderSink for Desk {
    fn submit(&self, order: Order, reply: ReplyTo) {
        match order {
            Order::QueryBackend => reply.answer(Ok(Reply::Backend(Box::new(self.about.clone())))),
            order => self.orders.send((order, reply)),
        }
    }
}

/// Carries out `order`.
pub fn carry_out(
    order: Order,
    manager: &mut Manager<AnyPath>,
    members: &[Member],
    now: Instant,
) -> OrderResult {
    match order {
        Order::QueryLun => return Ok(Reply::Lun(Box::new(reports::lun(manager)))),
        Order::QueryPaths => return Ok(Reply::Paths(reports::paths(manager, members, now))),
        Order::QueryStats => return Ok(Reply::Stats(Box::new(reports::stats(manager)))),
        Order::PathRemove { name } => apply(manager, &name, Event::Remove, now)?,
        Order::PathFail { name } => apply(manager, &name, Event::Disable, now)?,
        Order::PathReinstate { name } => apply(manager, &name, Event::Reinstate, now)?,
        Order::SetIopolicy(policy) => {
            manager.apply(Event::SetPolicy(reports::policy(policy)), now);
        }
        Order::SetNoPathRetry(retry) => {
            manager.apply(Event::SetNoPathRetry(reports::core_no_path_retry(retry)), now);
        }
        Order::SetFailback(failback) => {
            manager.apply(Event::SetFailback(reports::core_failback(failback)), now);
        }
        Order::Failback => manager.apply(Event::Failback, now),
        Order::InjectFault { path, fault } => {
            port(members, &path)?
                .inject(emulated_fault(&fault))
                .map_err(|error| error.to_string())?;
        }
        Order::ClearFaults { path: Some(path) } => port(members, &path)?.clear_faults(),
        Order::ClearFaults { path: None } => {
            let ports = members.iter().filter_map(emulated_port);
            ports.for_each(emulated::Port::clear_faults);
        }
        // The thread keeps the history and the state, opens paths, reads files again, and ends the program after
        // the answer. What the desk answers itself never comes here.
        Order::QueryBackend
        | Order::QueryHistory
        | Order::QuerySettings
        | Order::QueryReservation
        | Order::ReservationExport
        | Order::ReservationImport { .. }
        | Order::PathAdd { .. }
        | Order::Reload
        | Order::Quit
        | Order::Takeover => {}
    }
    Ok(Reply::Done)
}

/// A path that was opened is used from now on.
pub fn take_in(
    member: Member,
    manager: &mut Manager<AnyPath>,
    members: &mut Vec<Member>,
    now: Instant,
) -> Result<(), String> {
    if manager.core().path_named(&member.name).is_some() {
        return Err(format!("path {}: there is one of that name", member.name));
    }
    member.differs(members).map_err(|error| error.to_string())?;
    manager
        .add(member.name.clone(), member.placement, member.transport.clone(), now)
        .map_err(|error| format!("path {}: {error}", member.name))?;
    members.push(member);
    Ok(())
}

fn apply(
    manager: &mut Manager<AnyPath>,
    name: &str,
    event: impl FnOnce(PathId) -> Event,
    now: Instant,
) -> Result<(), String> {
    let path = manager.core().path_named(name).ok_or_else(|| unknown(name))?.id;
    manager.apply(event(path), now);
    Ok(())
}

fn port<'a>(members: &'a [Member], name: &str) -> Result<&'a emulated::Port, String> {
    let member = members.iter().find(|member| member.name == name).ok_or_else(|| unknown(name))?;
    emulated_port(member)
        .ok_or_else(|| format!("path {name}: only emulated paths have faults to inject"))
}

fn emulated_port(member: &Member) -> Option<&emulated::Port> {
    match &*member.transport {
        AnyPath::Emulated(port) => Some(port),
        _ => None,
    }
}

fn unknown(name: &str) -> String {
    format!("path {name}: there is no path of that name")
}

fn emulated_fault(spec: &FaultSpec) -> emulated::Fault {
    let kind = match spec.kind {
        FaultKind::Drop => emulated::FaultKind::Drop,
        FaultKind::Hang => emulated::FaultKind::Hang,
        FaultKind::Delay(delay) => {
            emulated::FaultKind::Delay { milliseconds: delay.as_millis() as u64 }
        }
        FaultKind::Rate(bytes_per_second) => emulated::FaultKind::Rate { bytes_per_second },
        FaultKind::Status(status) => emulated::FaultKind::Status(status),
        FaultKind::Sense(key, code) => emulated::FaultKind::Sense(key, code),
        FaultKind::Disconnect => emulated::FaultKind::Disconnect,
        FaultKind::Access(state, time) => emulated::FaultKind::Access { state, time },
    };
    emulated::Fault { kind, probability: spec.probability, count: spec.count }
}
