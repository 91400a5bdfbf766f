//! The guest's commands: what they ask for, their memory, and what became of them.

use std::time::Duration;

use vhost_user_scsi_mpath::buffer::OwnedBuffer;
use vhost_user_scsi_mpath::completion::Response;
use vhost_user_scsi_mpath::ids::LaneId;
use vhost_user_scsi_mpath::lun::commands::row;
use vhost_user_scsi_mpath::lun::{Extent, Row};
use vhost_user_scsi_mpath::scsi::reservation::{In, InAction};
use vhost_user_scsi_mpath::scsi::{Asc, Cdb, SenseKey, Status, opcode};

use crate::cluster::in_words;
use crate::model::Order;
use crate::options::BLOCK;
use crate::sessions::Open;

/// Room for the answer to PERSISTENT RESERVE IN.
const ASKED_BYTES: usize = 256;

/// An operation code that nobody knows.
pub const VENDOR: u8 = 0xC1;

/// What a command asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// READ(16).
    Read,
    /// WRITE(16).
    Write,
    /// WRITE SAME(16).
    WriteSame,
    /// UNMAP.
    Unmap,
    /// COMPARE AND WRITE.
    CompareAndWrite,
    /// SYNCHRONIZE CACHE(10).
    Sync,
    /// INQUIRY.
    Inquiry,
    /// READ CAPACITY(16).
    ReadCapacity,
    /// TEST UNIT READY.
    Ready,
    /// A vendor's command.
    Vendor,
    /// MODE SELECT(10): the array tells all other nexuses.
    ModeSelect,
    /// PERSISTENT RESERVE OUT.
    ReserveOut,
    /// PERSISTENT RESERVE IN.
    ReserveIn,
}

impl Op {
    /// All of them.
    pub const ALL: [Op; 13] = [
        Op::Read,
        Op::Write,
        Op::WriteSame,
        Op::Unmap,
        Op::CompareAndWrite,
        Op::Sync,
        Op::Inquiry,
        Op::ReadCapacity,
        Op::Ready,
        Op::Vendor,
        Op::ModeSelect,
        Op::ReserveOut,
        Op::ReserveIn,
    ];

    /// True where GOOD means that blocks have a new content.
    pub fn writes(self) -> bool {
        matches!(self, Op::Write | Op::WriteSame | Op::Unmap | Op::CompareAndWrite)
    }
}

/// How a command was over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// The guest was answered.
    Answered,
    /// The guest was answered at the end of a drain, without patience.
    Failed,
    /// The connection was gone.
    Abandoned,
}

/// One command of the guest.
#[derive(Debug)]
pub struct Command {
    /// Its name in the simulation; the driver's tag as well.
    pub serial: u64,
    /// The queue it is on.
    pub lane: LaneId,
    /// What it asks for.
    pub op: Op,
    /// The same, for the device.
    pub cdb: Cdb,
    /// The rules for it.
    pub row: &'static Row,
    /// Its blocks.
    pub extent: Extent,
    /// The first block it reads or writes.
    pub first: u64,
    /// How many.
    pub count: u64,
    /// The content that it writes.
    pub stamp: u64,
    /// Its memory. Kept to the end of the run, so that addresses are names.
    pub memory: OwnedBuffer,
    /// The memory is for data from the device.
    pub inward: bool,
    /// When the guest put it on its ring.
    pub begun: Duration,
    /// The lane has it.
    pub taken: bool,
    /// A process that died had it.
    pub again: bool,
    /// When and how it was over.
    pub over: Option<(Duration, Over)>,
    /// The guest's answer.
    pub outcome: Option<(Response, Status)>,
    /// What a read may not be older than, for each of its blocks.
    pub floors: Vec<Duration>,
    /// The attempt to which its memory is lent.
    pub live: Option<u64>,
    /// Attempts that are under way in memory of the engine's own, and their ports.
    pub elsewhere: Vec<(u64, usize)>,
    /// The port that it was sent over last.
    pub last_port: Option<usize>,
    /// Attempts made.
    pub attempts: u32,
    /// Times that it was executed.
    pub executed: u32,
    /// An attempt ended and nobody could tell whether it was executed.
    pub unproven: bool,
    /// The lane knows that, and keeps the blocks.
    pub blocks_others: bool,
    /// Attempts that may land still.
    pub open: Vec<Open>,
    /// The quiesce time of all its attempts is over then, whatever was proven of them.
    pub quiet_from: Duration,
    /// BUSY and TASK SET FULL that it got.
    pub busy: u32,
    /// Sense that it got.
    pub senses: Vec<(SenseKey, Asc)>,
    /// A task management function was about it.
    pub managed: bool,
    /// The guest had the right to do this at some time since it began.
    pub may_be_good: bool,
    /// It had not, at some time.
    pub may_conflict: bool,
}

impl Command {
    /// A command; `compare` is what COMPARE AND WRITE expects.
    pub fn new(serial: u64, lane: LaneId, op: Op, place: (u64, u64), compare: u64) -> Self {
        let (first, count) = if op == Op::Read || op.writes() { place } else { (place.0, 0) };
        let stamp = if op == Op::Unmap { 0 } else { serial };
        let cdb = cdb(op, first, count);
        let (data, inward) = data(op, first, count, stamp, compare);
        Command {
            serial,
            lane,
            op,
            row: row(&cdb),
            extent: row(&cdb).extent(&cdb),
            cdb,
            first,
            count,
            stamp,
            memory: OwnedBuffer::from_vec(data),
            inward,
            begun: Duration::ZERO,
            taken: false,
            again: false,
            over: None,
            outcome: None,
            floors: Vec::new(),
            live: None,
            elsewhere: Vec::new(),
            last_port: None,
            attempts: 0,
            executed: 0,
            unproven: false,
            blocks_others: false,
            open: Vec::new(),
            quiet_from: Duration::ZERO,
            busy: 0,
            senses: Vec::new(),
            managed: false,
            may_be_good: false,
            may_conflict: false,
        }
    }

    /// Makes it ask for `order`.
    pub fn order(&mut self, order: Order) {
        let (out, given) = in_words(order);
        (self.cdb, self.memory) = (out.cdb(), OwnedBuffer::from_vec(given.bytes()));
        self.row = row(&self.cdb);
    }

    /// Makes it ask for `action`.
    pub fn asks(&mut self, action: InAction) {
        let allocation = ASKED_BYTES as u16;
        self.cdb = In { action, allocation }.cdb();
    }

    /// Makes the command of a read its own: in other memory than the guest's it has no other name.
    /// GROUP NUMBER means nothing to the array.
    pub fn name(&mut self, group: u8) {
        let mut bytes = *self.cdb.padded();
        bytes[14] = group;
        self.cdb = Cdb::new(&bytes[..16]);
    }

    /// The process that may have had it is dead: the next one begins with it anew.
    pub fn begin_anew(&mut self) {
        self.again |= std::mem::take(&mut self.taken);
        (self.live, self.last_port) = (None, None);
        (self.unproven, self.blocks_others) = (false, false);
        (self.attempts, self.busy) = (0, 0);
        self.elsewhere.clear();
        self.senses.clear();
    }

    /// The address that names it.
    pub fn address(&self) -> usize {
        self.memory.segments().as_iovecs()[0].iov_base as usize
    }

    /// Its blocks, for those that have some.
    pub fn blocks(&self) -> std::ops::Range<u64> {
        self.first..self.first + self.count
    }

    /// An attempt may land until then.
    pub fn may_land_until(&self) -> Duration {
        self.open.iter().map(|open| open.until).max().unwrap_or_default()
    }

    /// True while the guest waits for it.
    pub fn is_outstanding(&self) -> bool {
        self.over.is_none()
    }
}

/// The content of a block: its stamp, from end to end.
pub fn block_of(stamp: u64) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    for piece in block.chunks_exact_mut(8) {
        piece.copy_from_slice(&stamp.to_le_bytes());
    }
    block
}

/// The stamp of a block; `None` where the block is not all of one piece.
pub fn stamp_of(block: &[u8]) -> Option<u64> {
    let mut pieces = block.chunks_exact(8);
    let first = pieces.next()?;
    pieces.all(|piece| piece == first).then(|| u64::from_le_bytes(first.try_into().unwrap()))
}

fn cdb(op: Op, first: u64, count: u64) -> Cdb {
    let mut bytes = [0; 16];
    let len = match op {
        Op::Sync => {
            bytes[0] = opcode::SYNCHRONIZE_CACHE_10;
            10
        }
        Op::Unmap => {
            (bytes[0], bytes[8]) = (opcode::UNMAP, 24);
            10
        }
        Op::Inquiry => {
            (bytes[0], bytes[4]) = (opcode::INQUIRY, 96);
            6
        }
        Op::Ready => 6,
        Op::ReadCapacity => {
            (bytes[0], bytes[1], bytes[13]) = (opcode::SERVICE_ACTION_IN_16, 0x10, 32);
            16
        }
        Op::Vendor => {
            bytes[0] = VENDOR;
            16
        }
        Op::ModeSelect => {
            bytes[0] = opcode::MODE_SELECT_10;
            10
        }
        Op::ReserveOut | Op::ReserveIn => {
            bytes[0] = match op {
                Op::ReserveOut => opcode::PERSISTENT_RESERVE_OUT,
                _ => opcode::PERSISTENT_RESERVE_IN,
            };
            10
        }
        Op::CompareAndWrite => {
            bytes[0] = opcode::COMPARE_AND_WRITE;
            bytes[2..10].copy_from_slice(&first.to_be_bytes());
            bytes[13] = count as u8;
            16
        }
        Op::Read | Op::Write | Op::WriteSame => {
            bytes[0] = match op {
                Op::Read => opcode::READ_16,
                Op::Write => opcode::WRITE_16,
                _ => opcode::WRITE_SAME_16,
            };
            bytes[2..10].copy_from_slice(&first.to_be_bytes());
            bytes[10..14].copy_from_slice(&(count as u32).to_be_bytes());
            16
        }
    };
    Cdb::new(&bytes[..len])
}

/// The content of the memory, and whether it is for data from the device. Commands without data
/// get a little room all the same: it names them.
fn data(op: Op, first: u64, count: u64, stamp: u64, compare: u64) -> (Vec<u8>, bool) {
    match op {
        // Not zeroes: what the array did not store must not look like a block.
        Op::Read => (vec![0xEE; count as usize * BLOCK], true),
        Op::Write => (block_of(stamp).repeat(count as usize), false),
        Op::WriteSame => (block_of(stamp).to_vec(), false),
        Op::CompareAndWrite => {
            let compared = block_of(compare).repeat(count as usize);
            ([compared, block_of(stamp).repeat(count as usize)].concat(), false)
        }
        Op::Unmap => {
            let mut list = vec![0; 24];
            (list[1], list[3]) = (22, 16);
            list[8..16].copy_from_slice(&first.to_be_bytes());
            list[16..20].copy_from_slice(&(count as u32).to_be_bytes());
            (list, false)
        }
        Op::ReserveOut => (vec![0; 24], false),
        Op::ReserveIn => (vec![0; ASKED_BYTES], true),
        Op::Sync | Op::Inquiry | Op::ReadCapacity | Op::Ready | Op::Vendor | Op::ModeSelect => {
            (vec![0; 96], true)
        }
    }
}
