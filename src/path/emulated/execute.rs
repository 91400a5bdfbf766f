//! From a CDB to what has to be done: the checks that come before every command, in their order.

use super::array::Array;
use super::blocks::{Extent, length_field};
use super::port::PortState;
use super::reply::{self, Detail, Done, Refusal, Reply};
use super::reservations::standing::RefusedUnder;
use super::table::{self, Allowed, Command, Run};
use crate::buffer::Segments;
use crate::path::{Answer, Task};
use crate::scsi::alua::AccessState;
use crate::scsi::opcode::{
    PERSISTENT_RESERVE_OUT, READ_CAPACITY_10, SERVICE_ACTION_IN_16, TEST_UNIT_READY,
};
use crate::scsi::{Asc, Cdb, SenseKey, Status};

/// A command at the device server, with the nexus it came through.
pub(super) struct Call<'a> {
    /// The port.
    pub port: &'a PortState,
    /// The command.
    pub cdb: &'a Cdb,
    /// Data for the device.
    pub data_out: &'a Segments,
    /// Room for data from the device.
    pub data_in: &'a Segments,
}

/// What has to be done now.
pub(super) enum Start {
    /// Nothing: this is the answer.
    Ended(Answer),
    /// Move data from the store to `data_in`.
    Read(Transfer),
    /// Move data from `data_out` to the store.
    Write(Transfer),
    /// Wait until the medium has everything.
    Sync,
    /// Run [`Call::work`], where waiting does no harm.
    Work(&'static Command),
}

/// A plain transfer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Transfer {
    /// Where in the store.
    pub offset: u64,
    /// Bytes to move: what the command says, as far as there is room.
    pub bytes: usize,
    /// The answer when they have moved.
    pub done: Done,
    /// A write that has to be on the medium before the answer.
    pub durable: bool,
}

impl<'a> Call<'a> {
    /// The command of `task` at `port`.
    pub(super) fn new(port: &'a PortState, task: &Task<'a>) -> Self {
        Call { port, cdb: task.cdb, data_out: task.data_out, data_in: task.data_in }
    }

    /// The logical unit.
    pub(super) fn array(&self) -> &'a Array {
        &self.port.array
    }

    /// Checks the command and begins it.
    pub(super) fn start(&self) -> Start {
        match self.begin() {
            Ok(start) => start,
            Err(refusal) => Start::Ended(self.answer(Err(refusal))),
        }
    }

    /// Runs a command that works on the store. This may wait.
    pub(super) fn work(&self, command: &Command) -> Answer {
        self.answer(match command.run {
            Run::Now(run) | Run::Work(run) => run(self),
            // Those belong to the engine, which gets them from `begin`.
            Run::Read | Run::Write | Run::Sync => Err(Refusal::illegal(Asc::INVALID_OPCODE)),
        })
    }

    /// True where it may write a file beside the image, which no lane does.
    pub(super) fn may_keep(&self, start: &Start) -> bool {
        matches!(start, Start::Work(_))
            && self.cdb.opcode() == PERSISTENT_RESERVE_OUT
            && self.array().reservations.are_in_a_file()
    }

    /// The answer of this command.
    pub(super) fn answer(&self, reply: Reply) -> Answer {
        let room = self.data_in.len() + self.data_out.len();
        reply::answer(reply, room, self.array().modes.descriptor_sense())
    }

    /// Sends `bytes` as far as ALLOCATION LENGTH and the room go (SPC-5 4.2.5.6).
    pub(super) fn send(&self, bytes: &[u8], allocation: usize) -> Reply {
        let bytes = &bytes[..bytes.len().min(allocation)];
        self.data_in.write_at(0, bytes);
        Ok(Done::good(bytes.len() as u64))
    }

    /// RESERVATION CONFLICT, if a reservation shuts the nexus out of such a command.
    fn check_standing(&self, command: RefusedUnder) -> Result<(), Refusal> {
        if self.port.standing.get().refuses(command) {
            return Err(Refusal::Status(Status::RESERVATION_CONFLICT));
        }
        Ok(())
    }

    /// To be asked again by a write that has entered the exclusion: a PREEMPT AND ABORT may have
    /// come between, and after it no write of the nexus may land.
    pub(super) fn may_still_write(&self) -> Result<(), Refusal> {
        self.check_standing(RefusedUnder::Everything)
    }

    /// Runs a write behind the exclusive commands that are under way.
    pub(super) fn in_turn<T>(
        &self,
        run: impl FnOnce() -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        self.array().exclusion.in_turn(|| {
            self.may_still_write()?;
            run()
        })
    }

    /// Runs an exclusive command.
    pub(super) fn alone<T>(&self, run: impl FnOnce() -> Result<T, Refusal>) -> Result<T, Refusal> {
        let ran = self.array().exclusion.alone(|| {
            self.may_still_write()?;
            run()
        });
        ran.unwrap_or(Err(Refusal::Status(Status::BUSY)))
    }

    fn begin(&self) -> Result<Start, Refusal> {
        let command = self.admit()?;
        match command.run {
            Run::Now(run) => Ok(Start::Ended(self.answer(run(self)))),
            Run::Work(_) => Ok(Start::Work(command)),
            Run::Read => {
                let transfer = self.transfer(self.data_in, self.data_out, false)?;
                Ok(self.unless_empty(transfer, Start::Read))
            }
            Run::Write => {
                let fua = self.cdb.bytes().len() > 6 && self.cdb.padded()[1] & 0x08 != 0;
                let durable = fua || !self.array().modes.write_cache();
                let transfer = self.transfer(self.data_out, self.data_in, durable)?;
                Ok(self.unless_empty(transfer, Start::Write))
            }
            Run::Sync => {
                // Zero blocks are all from the address on (SBC-4 5.33); all is what we sync
                // anyway. IMMED is taken and the answer comes when the work is done.
                self.extent()?;
                Ok(Start::Sync)
            }
        }
    }

    fn unless_empty(&self, transfer: Transfer, start: fn(Transfer) -> Start) -> Start {
        match transfer.bytes {
            0 => Start::Ended(self.answer(Ok(transfer.done))),
            _ => start(transfer),
        }
    }

    /// DPO needs nothing from us, and FUA nothing from a read: the page cache is never older than
    /// the medium.
    fn transfer(
        &self,
        memory: &Segments,
        other: &Segments,
        durable: bool,
    ) -> Result<Transfer, Refusal> {
        let Extent { offset, bytes, .. } = self.transfer_extent()?;
        if bytes > 0 && !other.is_empty() {
            // Memory for the wrong direction: what is left over could not be told.
            return Err(Refusal::in_cdb(length_field(self.cdb)));
        }
        let room = memory.len();
        // What there is no room for is not moved and reported as left over (SAM-5 5.4.3.1); a
        // block is not split by it.
        let room = room as u64 - room as u64 % u64::from(self.array().block_size());
        Ok(Transfer { offset, bytes: bytes.min(room) as usize, done: Done::good(bytes), durable })
    }

    /// The checks that come before the command itself.
    fn admit(&self) -> Result<&'static Command, Refusal> {
        let command =
            table::find(self.cdb).ok_or_else(|| match table::rows(self.cdb.opcode()) {
                [] => Refusal::illegal(Asc::INVALID_OPCODE),
                // SPC-5 4.3.4: a known operation code with an unknown service action.
                _ => Refusal::in_cdb(1),
            })?;
        if self.cdb.bytes().len() < command.usage.len() {
            return Err(Refusal::illegal(Asc::INVALID_FIELD_IN_CDB));
        }
        if self.cdb.naca() {
            // NORMACA is zero (SAM-5 5.2).
            return Err(Refusal::in_cdb(command.usage.len() as u16 - 1));
        }
        if matches!(self.cdb.opcode(), TEST_UNIT_READY | READ_CAPACITY_10 | SERVICE_ACTION_IN_16) {
            self.array().notice_growth();
        }
        self.array().settle_group(&self.port.group);
        if !command.despite_attention
            && !self.port.attentions.is_empty()
            && let Some(attention) = self.port.attentions.take()
        {
            let (key, asc) = (SenseKey::UnitAttention, attention.asc());
            return Err(Refusal::Check(key, asc, Detail::None));
        }
        if let Some(asc) = inaccessible(self.port.group.state(), command.allowed) {
            return Err(Refusal::Check(SenseKey::NotReady, asc, Detail::None));
        }
        self.check_standing(RefusedUnder::of(command, self.cdb))?;
        if command.writes
            && let Some(asc) = self.array().write_refusal()
        {
            return Err(Refusal::Check(SenseKey::DataProtect, asc, Detail::None));
        }
        Ok(command)
    }
}

/// Why a port in this state does not take the command (SPC-5 5.18.2.4).
pub(super) fn inaccessible(state: AccessState, allowed: Allowed) -> Option<Asc> {
    let (enough, asc) = match state {
        AccessState::ActiveOptimized
        | AccessState::ActiveNonOptimized
        | AccessState::LbaDependent
        | AccessState::Unknown => return None,
        AccessState::Standby => (Allowed::Standby, Asc::ALUA_STANDBY),
        AccessState::Unavailable => (Allowed::Always, Asc::ALUA_UNAVAILABLE),
        AccessState::Offline => (Allowed::Always, Asc::ALUA_OFFLINE),
        AccessState::Transitioning => (Allowed::Always, Asc::ALUA_TRANSITION),
    };
    (allowed < enough).then_some(asc)
}

/// What a failed system call on the store means to the initiator. One place, so that no errno is
/// forgotten: what is not named is an unrecovered error of the medium.
pub(super) fn store_refusal(error: &std::io::Error, write: bool) -> Refusal {
    let (key, asc) = match error.raw_os_error() {
        Some(libc::ENOMEM | libc::EAGAIN) => return Refusal::Status(Status::BUSY),
        Some(libc::ENOSPC | libc::EDQUOT) => (SenseKey::DataProtect, Asc::SPACE_ALLOCATION_FAILED),
        Some(libc::EROFS | libc::EPERM | libc::EBADF) if write => {
            (SenseKey::DataProtect, Asc::WRITE_PROTECTED)
        }
        _ if write => (SenseKey::MediumError, Asc::WRITE_ERROR),
        _ => (SenseKey::MediumError, Asc::UNRECOVERED_READ_ERROR),
    };
    Refusal::Check(key, asc, Detail::None)
}
