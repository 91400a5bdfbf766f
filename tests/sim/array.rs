//! The model array: blocks behind several ports, each with its own link, its own access state and
//! its own unit attentions, as real arrays have them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use vhost_user_scsi_mpath::ids::{LaneId, PathId, Version};
use vhost_user_scsi_mpath::path::{Residual, TransportEvent};
use vhost_user_scsi_mpath::scsi::alua::AccessState;
use vhost_user_scsi_mpath::scsi::{Asc, Cdb, Sense, SenseKey, Status, opcode};

use crate::command::{VENDOR, block_of, stamp_of};
use crate::identity;
use crate::options::{BLOCK, BLOCKS};
use crate::parking::Parking;
use crate::sessions::Session;

/// The logical unit's blocks, by their stamps.
#[derive(Debug, Default)]
pub struct Disk {
    blocks: BTreeMap<u64, u64>,
}

impl Disk {
    /// The stamp of a block; 0 for one that was never written.
    pub fn get(&self, block: u64) -> u64 {
        self.blocks.get(&block).copied().unwrap_or(0)
    }

    /// Writes a block.
    pub fn set(&mut self, block: u64, stamp: u64) {
        self.blocks.insert(block, stamp);
    }
}

/// What is behind a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// The logical unit.
    Ours,
    /// Another one, under its own name.
    Other,
    /// Another one, under the name of ours: only a mutant does that.
    Disguised,
    /// Ours, but the array tells a smaller size.
    Small,
    /// Nothing.
    Gone,
}

/// The host knows that a nexus had nothing left from before some time.
#[derive(Clone, Copy, Debug)]
pub struct Clear {
    /// That time.
    pub of: Duration,
    /// When the host found it, and asked its next question at the earliest.
    pub found: Duration,
    /// What lanes have sent since then was sent later for sure.
    pub since: Duration,
}

impl Clear {
    /// A nexus that begins now.
    pub fn begun(now: Duration) -> Self {
        Clear { of: now, found: now, since: now }
    }
}

/// One port.
#[derive(Debug)]
pub struct Port {
    /// Its number, from 1.
    pub number: u8,
    /// The path over it, in the core.
    pub path: Option<PathId>,
    /// The path is being removed.
    pub leaving: bool,
    /// The path was removed.
    pub removed: bool,
    /// An admin took it out of use.
    pub disabled: bool,
    /// The kernel keeps back what is sent over it.
    pub kept_back: bool,
    /// The engine was told so, and that was the table then.
    pub blocked_told: Option<Version>,
    /// The link is there.
    pub link: bool,
    /// Nothing comes through, in either direction.
    pub hangs: bool,
    /// Commands arrive, answers do not.
    pub deaf: bool,
    /// Every command gets BUSY.
    pub loaded: bool,
    /// Everything takes so much longer, each way.
    pub slow: Duration,
    /// Since when.
    pub slow_since: Option<Duration>,
    /// What is behind it.
    pub unit: Unit,
    /// Its access state.
    pub access: AccessState,
    /// Its unit attentions.
    pub attentions: VecDeque<Asc>,
    /// The copy of an event that is pending is of the guest's own doing.
    pub own: bool,
    /// When its nexus last lost a copy of an event, or had none for it; at the latest.
    pub copy_lost: Option<Duration>,
    /// What the host knows of the nexus.
    pub clear: Option<Clear>,
    /// What it is about to know.
    pub clearing: Option<Clear>,
    /// Lanes that cannot know yet that something else is behind the port: what they send is
    /// refused with a unit attention. A real array says it once, and what another lane had sent
    /// just before is lost then; no initiator can help that.
    pub doubted: BTreeSet<LaneId>,
    /// The host was told of the doubt while this was the latest table.
    pub doubt_told: Option<Version>,
    /// The session, for a transport that has some.
    pub session: Option<Session>,
    /// What the host keeps of it, where it keeps what is recalled.
    pub parking: Option<Parking>,
    /// The transport can prove that an attempt is dead.
    pub proves: bool,
    /// The transport tells of its link.
    pub tells: bool,
    /// What it has to tell.
    pub news: Vec<TransportEvent>,
    /// Since when nothing is wrong with it.
    pub good_since: Option<Duration>,
    /// Since when nothing is, and it is optimized as well.
    pub best_since: Option<Duration>,
    /// Since when its access state is what it is.
    pub access_since: (AccessState, Duration),
    /// Blocks of the logical unit behind it.
    pub blocks: u64,
    /// Another port tells a larger size already.
    pub lags: bool,
}

impl Port {
    /// A good port.
    pub fn new(number: u8, proves: bool, tells: bool, now: Duration) -> Self {
        Port {
            number,
            path: None,
            leaving: false,
            removed: false,
            disabled: false,
            kept_back: false,
            blocked_told: None,
            link: true,
            hangs: false,
            deaf: false,
            loaded: false,
            slow: Duration::ZERO,
            slow_since: None,
            unit: Unit::Ours,
            access: AccessState::ActiveOptimized,
            attentions: VecDeque::from([Asc::POWER_ON_OR_RESET]),
            own: false,
            copy_lost: None,
            clear: None,
            clearing: None,
            doubted: BTreeSet::new(),
            doubt_told: None,
            session: None,
            parking: None,
            proves,
            tells,
            news: Vec::new(),
            good_since: Some(now),
            best_since: Some(now),
            access_since: (AccessState::ActiveOptimized, now),
            blocks: BLOCKS,
            lags: false,
        }
    }

    /// True when nothing is wrong with it.
    pub fn is_good(&self) -> bool {
        self.link
            && !(self.kept_back || self.blocked_told.is_some())
            && !(self.leaving || self.disabled || self.hangs || self.deaf || self.loaded)
            && !self.lags
            && self.unit == Unit::Ours
            && self.access.allows_media_access()
    }

    /// To be called after every change.
    pub fn changed(&mut self, now: Duration) {
        self.good_since = self.is_good().then(|| self.good_since.unwrap_or(now));
        let best = self.is_good() && self.access == AccessState::ActiveOptimized;
        self.best_since = best.then(|| self.best_since.unwrap_or(now));
        if self.access_since.0 != self.access {
            self.access_since = (self.access, now);
        }
    }

    /// A unit attention for this nexus; one that is pending already is not repeated.
    pub fn raise(&mut self, code: Asc) {
        if self.link && !self.removed && !self.attentions.contains(&code) {
            self.attentions.push_back(code);
        }
    }
}

impl Port {
    /// The guest has made an event over another port.
    pub fn raise_own(&mut self, now: Duration) {
        if !self.link || self.attentions.contains(&EVENT) {
            // One copy for two.
            self.loses_copy(now);
        } else if !self.removed {
            self.attentions.push_back(EVENT);
            self.own = true;
        }
    }

    /// The copy of an event does not reach the host, or will not have after `at`.
    pub fn loses_copy(&mut self, at: Duration) {
        self.copy_lost = self.copy_lost.max(Some(at));
    }
}

/// What the guest is told of an event of the logical unit.
pub const EVENT: Asc = Asc::MODE_PARAMETERS_CHANGED;

/// The array's answer.
#[derive(Clone, Debug)]
pub struct Reply {
    /// Status byte.
    pub status: Status,
    /// Sense.
    pub sense: Option<Sense>,
    /// Data for the host.
    pub data: Vec<u8>,
    /// It tells of the guest's own doing.
    pub own: bool,
}

impl Reply {
    /// GOOD, with data.
    pub fn good(data: Vec<u8>) -> Self {
        Reply { status: Status::GOOD, sense: None, data, own: false }
    }

    /// A status and nothing else.
    pub fn status(status: Status) -> Self {
        Reply { status, sense: None, data: Vec::new(), own: false }
    }

    /// CHECK CONDITION.
    pub fn check(key: SenseKey, code: Asc) -> Self {
        let sense = Some(Sense::fixed(key, code));
        Reply { status: Status::CHECK_CONDITION, sense, data: Vec::new(), own: false }
    }

    /// True when it tells of an event of the logical unit.
    pub fn tells_event(&self) -> bool {
        let told = self.sense.as_ref().and_then(Sense::decode);
        told == Some((SenseKey::UnitAttention, EVENT))
    }

    /// What is left of `room`.
    pub fn residual(&self, room: usize) -> Residual {
        match room.saturating_sub(self.data.len()) {
            0 => Residual::None,
            left => Residual::Under(left as u32),
        }
    }
}

/// What a command that passed the port's checks does. `changed` gets the blocks that it wrote.
pub fn execute(disk: &mut Disk, cdb: &Cdb, payload: &[u8], changed: &mut Vec<u64>) -> Reply {
    let (first, count) = (cdb.be64(2), u64::from(cdb.be32(10)));
    match cdb.opcode() {
        opcode::READ_16 => match first + count <= BLOCKS {
            true => {
                Reply::good((first..first + count).flat_map(|at| block_of(disk.get(at))).collect())
            }
            false => Reply::check(SenseKey::IllegalRequest, Asc::LBA_OUT_OF_RANGE),
        },
        opcode::WRITE_16 | opcode::WRITE_SAME_16 => {
            for (at, block) in (first..first + count).zip(payload.chunks(BLOCK).cycle()) {
                write(disk, at, block, changed);
            }
            Reply::good(Vec::new())
        }
        opcode::COMPARE_AND_WRITE => compare_and_write(disk, cdb, payload, changed),
        opcode::UNMAP => {
            let first = u64::from_be_bytes(payload[8..16].try_into().unwrap());
            let count = u32::from_be_bytes(payload[16..20].try_into().unwrap());
            for at in first..first + u64::from(count) {
                disk.set(at, 0);
                changed.push(at);
            }
            Reply::good(Vec::new())
        }
        opcode::TEST_UNIT_READY
        | opcode::SYNCHRONIZE_CACHE_10
        | opcode::MODE_SELECT_10
        | VENDOR => Reply::good(Vec::new()),
        _ => Reply::check(SenseKey::IllegalRequest, Asc::INVALID_OPCODE),
    }
}

fn write(disk: &mut Disk, at: u64, block: &[u8], changed: &mut Vec<u64>) {
    // A block that is not all of one piece gets a stamp that no command has: the oracle sees it.
    disk.set(at, stamp_of(block).unwrap_or(u64::MAX));
    changed.push(at);
}

fn compare_and_write(disk: &mut Disk, cdb: &Cdb, payload: &[u8], changed: &mut Vec<u64>) -> Reply {
    let (first, count) = (cdb.be64(2), usize::from(cdb.padded()[13]));
    let (compared, written) = payload.split_at(count * BLOCK);
    let blocks = || first..first + count as u64;
    let same = blocks()
        .zip(compared.chunks(BLOCK))
        .all(|(at, block)| stamp_of(block) == Some(disk.get(at)));
    if !same {
        return Reply::check(SenseKey::Miscompare, Asc::MISCOMPARE_DURING_VERIFY);
    }
    for (at, block) in blocks().zip(written.chunks(BLOCK)) {
        write(disk, at, block, changed);
    }
    Reply::good(Vec::new())
}

/// The port's checks, before anything is executed (SPC-5 5.16, SAM-5 5.14): `Some` where the
/// command gets no further. INQUIRY gets through everything.
pub fn gate(
    port: &mut Port,
    cdb: &Cdb,
    doubted: bool,
    ports: &[(u8, AccessState)],
) -> Option<Reply> {
    let op = cdb.opcode();
    if op == opcode::INQUIRY {
        return Some(identity::inquiry(port, cdb));
    }
    if port.unit == Unit::Gone {
        return Some(Reply::check(SenseKey::IllegalRequest, Asc::LUN_NOT_SUPPORTED));
    }
    if doubted {
        return Some(Reply::check(SenseKey::UnitAttention, Asc::REPORTED_LUNS_CHANGED));
    }
    if let Some(code) = port.attentions.pop_front() {
        let own = code == EVENT && std::mem::take(&mut port.own);
        return Some(Reply { own, ..Reply::check(SenseKey::UnitAttention, code) });
    }
    if port.loaded {
        return Some(Reply::status(Status::TASK_SET_FULL));
    }
    if op == opcode::MAINTENANCE_OUT {
        return None;
    }
    if op == opcode::MAINTENANCE_IN {
        return Some(identity::maintenance_in(cdb, ports));
    }
    if let Some(code) = refusal(port.access) {
        return Some(Reply::check(SenseKey::NotReady, code));
    }
    if op == opcode::SERVICE_ACTION_IN_16 {
        return Some(identity::capacity(port));
    }
    None
}

fn refusal(access: AccessState) -> Option<Asc> {
    match access {
        AccessState::Standby => Some(Asc::ALUA_STANDBY),
        AccessState::Unavailable => Some(Asc::ALUA_UNAVAILABLE),
        AccessState::Offline => Some(Asc::ALUA_OFFLINE),
        AccessState::Transitioning => Some(Asc::ALUA_TRANSITION),
        _ => None,
    }
}
