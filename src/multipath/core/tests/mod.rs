//! The core on an array that answers at once: groups, sizes, and a logical unit that goes away.

mod access;
mod aftermath;
mod settings;
mod unit;

use std::time::Duration;

use super::*;
use crate::limits::*;
use crate::lun::face::samples;
use crate::multipath::groups::Failback;
use crate::multipath::path::Placement;
use crate::multipath::probe::Question;
use crate::multipath::retry::Problem;
use crate::multipath::select::Policy;
use crate::multipath::table::Table;
use crate::path::{Answer, Fate, Residual};
use crate::scsi::alua::AccessState::{self, *};
use crate::scsi::inquiry::vpd_page;
use crate::scsi::{Asc, Sense, SenseKey, Status, opcode};

const LANE: LaneId = LaneId(0);

/// What is behind a port.
#[derive(Clone, Copy, PartialEq)]
enum Unit {
    Ours,
    Other,
    Nothing,
}

#[derive(Clone)]
struct Port {
    unit: Unit,
    access: AccessState,
    blocks: u64,
}

/// A core, its array with one port and one group for each path, and what the core has said.
struct Lab {
    core: Core,
    now: Instant,
    ports: Vec<Port>,
    /// Seconds of IMPLICIT TRANSITION TIME.
    limit: u8,
    groups_fail: bool,
    alua: bool,
    /// SET TARGET PORT GROUPS: the groups that were asked for.
    set: Vec<u16>,
    /// Reports of groups that were asked for.
    reports: u32,
    /// What the next READ CAPACITY over the first path ends with.
    attention: Option<Asc>,
    /// What the next SET TARGET PORT GROUPS ends with.
    set_attention: Option<Asc>,
    /// Questions in all.
    questions: u32,
    said: Vec<Action>,
    report_number: u64,
}

impl Lab {
    fn new(failback: Failback, access: &[AccessState]) -> Self {
        Lab::with(failback, false, access)
    }

    fn with(failback: Failback, explicit_alua: bool, access: &[AccessState]) -> Self {
        let settings = Settings {
            wwid: None,
            policy: Policy::RoundRobin,
            no_path_retry: NoPathRetry::Queue,
            write_quiesce: Duration::from_secs(1),
            failback,
            explicit_alua,
        };
        let now = Instant::now();
        let port =
            |access: &AccessState| Port { unit: Unit::Ours, access: *access, blocks: 0x4000 };
        let mut lab = Lab {
            core: Core::new(settings, now),
            now,
            ports: access.iter().map(port).collect(),
            limit: 0,
            groups_fail: false,
            alua: true,
            set: Vec::new(),
            reports: 0,
            attention: None,
            set_attention: None,
            questions: 0,
            said: Vec::new(),
            report_number: 0,
        };
        lab.apply(Event::LaneUp(LANE));
        for id in 0..access.len() as u16 {
            lab.add(id, Placement::default());
        }
        lab
    }

    fn add(&mut self, id: u16, placement: Placement) {
        self.apply(Event::Added {
            path: PathId(id),
            name: id.to_string(),
            placement,
            bytes_max: None,
            hides_attentions: false,
        });
    }

    /// Feeds `event`, and answers what the core asks until it asks nothing more.
    fn apply(&mut self, event: Event) {
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            for action in self.core.apply(event, self.now) {
                match action {
                    Action::Ask(path, question) => {
                        let (fate, data) = self.reply(path, &question);
                        events.push(Event::Answered { path, fate, data });
                    }
                    other => self.said.push(other),
                }
            }
        }
    }

    /// So much later, with every timer in between.
    fn later(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(timer) = self.core.next_timer().filter(|timer| *timer < until) {
            self.now = timer.max(self.now);
            self.apply(Event::Tick);
        }
        self.now = until;
        self.apply(Event::Tick);
    }

    fn report(&mut self, path: u16, problem: Problem) {
        self.report_number += 1;
        let (number, path) = (self.report_number, PathId(path));
        self.apply(Event::Reported { lane: LANE, number, path, problem });
    }

    /// A command that was sent just now met this unit attention.
    fn meet(&mut self, path: u16, code: Asc) {
        self.apply(Event::Attention { path: PathId(path), code, sent: self.now });
    }

    fn reply(&mut self, path: PathId, question: &Question) -> (Fate, Vec<u8>) {
        self.questions += 1;
        let at = usize::from(path.0);
        let port = self.ports[at].clone();
        let cdb = question.cdb.padded();
        let answer =
            |status, sense| Fate::Answered(Answer { status, sense, residual: Residual::None });
        let check = |key, code| {
            (answer(Status::CHECK_CONDITION, Some(Box::new(Sense::fixed(key, code)))), Vec::new())
        };
        if port.unit == Unit::Nothing {
            return check(SenseKey::IllegalRequest, Asc::LUN_NOT_SUPPORTED);
        }
        let data = match (cdb[0], cdb[1] & 0x1F) {
            (opcode::INQUIRY, 0) => {
                let mut data = samples::facts().inquiry.for_guest();
                data[5] |= if self.alua { 0x30 } else { 0 };
                data
            }
            (opcode::INQUIRY, _) if cdb[2] == 0 => vec![0, 0, 0, 2, 0x80, 0x83],
            (opcode::INQUIRY, _) if cdb[2] == 0x83 => {
                let name = if port.unit == Unit::Other { 0x22 } else { 0x11 };
                let mut content = vec![0x01, 0x03, 0, 16, 0x60];
                content.extend([name; 15]);
                content.extend([0x01, 0x15, 0, 4, 0, 0, 0, path.0 as u8 + 1]);
                vpd_page(0x83, &content)
            }
            (opcode::INQUIRY, _) => samples::facts().pages[&cdb[2]].clone(),
            (opcode::MAINTENANCE_IN, 0x0A) => {
                self.reports += 1;
                if self.groups_fail {
                    return check(SenseKey::IllegalRequest, Asc::INVALID_FIELD_IN_CDB);
                }
                self.groups()
            }
            (opcode::MAINTENANCE_OUT, _) if self.set_attention.is_some() => {
                return check(SenseKey::UnitAttention, self.set_attention.take().unwrap());
            }
            (opcode::MAINTENANCE_OUT, _) => {
                let group = u16::from_be_bytes([question.data_out[6], question.data_out[7]]);
                self.set.push(group);
                for (at, port) in self.ports.iter_mut().enumerate() {
                    let ours = at + 1 == usize::from(group);
                    port.access = if ours { ActiveOptimized } else { ActiveNonOptimized };
                }
                Vec::new()
            }
            (opcode::MAINTENANCE_IN, _) => {
                return check(SenseKey::IllegalRequest, Asc::INVALID_OPCODE);
            }
            _ if port.access == Transitioning => {
                return check(SenseKey::NotReady, Asc::ALUA_TRANSITION);
            }
            _ if port.access == Standby => return check(SenseKey::NotReady, Asc::ALUA_STANDBY),
            (opcode::SERVICE_ACTION_IN_16, _) if at == 0 && self.attention.is_some() => {
                return check(SenseKey::UnitAttention, self.attention.take().unwrap());
            }
            (opcode::SERVICE_ACTION_IN_16, _) => {
                let capacity = samples::facts().capacity.unwrap();
                capacity.with_blocks(port.blocks).encode_16().to_vec()
            }
            _ => Vec::new(),
        };
        (answer(Status::GOOD, None), data)
    }

    fn groups(&self) -> Vec<u8> {
        let mut data = vec![0, 0, 0, 0, 0x10, self.limit, 0, 0];
        for (at, port) in self.ports.iter().enumerate() {
            let id = at as u8 + 1;
            data.extend([port.access.code(), 0xCF, 0, id, 0, 0, 0, 1, 0, 0, 0, id]);
        }
        data[3] = data.len() as u8 - 4;
        data
    }

    /// The paths that the lanes send over first.
    fn first(&self) -> Vec<u16> {
        let table = self.table();
        let first = table.entries.iter().filter(|entry| entry.optimized && entry.is_usable());
        first.map(|entry| entry.id.0).collect()
    }

    fn table(&self) -> Arc<Table> {
        let tables = self.said.iter().rev().filter_map(|action| match action {
            Action::Publish(table) => Some(Arc::clone(table)),
            _ => None,
        });
        { tables }.next().unwrap()
    }

    fn count(&self, wanted: impl Fn(&Action) -> bool) -> usize {
        self.said.iter().filter(|action| wanted(action)).count()
    }

    fn path(&self, id: u16) -> &Path {
        &self.core.paths[&PathId(id)]
    }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}
