//! Every command of the array in one table: what it runs, and when it is allowed to.
//!
//! Dispatch, REPORT SUPPORTED OPERATION CODES, the rules of the access states and of reservations
//! all read it, so they cannot say different things.

use super::execute::Call;
use super::reply::Reply;
use super::reservations::command as reservation;
use super::reservations::standing::RefusedUnder;
use super::{access, inquiry, mode, report, thin, verify};
use crate::scsi::Cdb;
use crate::scsi::opcode::service_action as sa;
use crate::scsi::reservation::{InAction, OutAction};

/// What a command runs.
#[derive(Clone, Copy)]
pub(super) enum Run {
    /// READ: the engine's.
    Read,
    /// WRITE: the engine's.
    Write,
    /// SYNCHRONIZE CACHE: the engine's.
    Sync,
    /// Answered at once from what is in memory.
    Now(fn(&Call<'_>) -> Reply),
    /// Works on the store, and may wait for it.
    Work(fn(&Call<'_>) -> Reply),
}

/// In which access states a command is taken (SPC-5 5.18.2.4); the later ones include the earlier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Allowed {
    /// Active states.
    Active,
    /// Standby too.
    Standby,
    /// Every state.
    Always,
}

/// A row of the table.
pub(super) struct Command {
    /// CDB USAGE DATA (SPC-5 6.35.3): the bits of the CDB that are looked at. Its first byte is
    /// the operation code, its length the CDB's.
    pub usage: &'static [u8],
    /// SERVICE ACTION.
    pub action: Option<u8>,
    /// What it runs.
    pub run: Run,
    /// The access states it is taken in.
    pub allowed: Allowed,
    /// It changes what the unit holds.
    pub writes: bool,
    /// The reservations of others under which it is refused.
    pub refused_under: RefusedUnder,
    /// It leaves unit attentions alone (SAM-5 5.14.1).
    pub despite_attention: bool,
}

impl Command {
    const fn new(usage: &'static [u8], run: Run) -> Self {
        Command {
            usage,
            action: None,
            run,
            allowed: Allowed::Active,
            writes: matches!(run, Run::Write),
            refused_under: match run {
                Run::Write | Run::Sync => RefusedUnder::Everything,
                Run::Read | Run::Now(_) | Run::Work(_) => RefusedUnder::ExclusiveAccess,
            },
            despite_attention: false,
        }
    }

    const fn action(mut self, action: u8) -> Self {
        self.action = Some(action);
        self
    }

    const fn standby(mut self) -> Self {
        self.allowed = Allowed::Standby;
        self
    }

    const fn always(mut self) -> Self {
        self.allowed = Allowed::Always;
        self.unreserved()
    }

    const fn anywhere(mut self) -> Self {
        self.allowed = Allowed::Always;
        self
    }

    const fn unreserved(mut self) -> Self {
        self.refused_under = RefusedUnder::Nothing;
        self
    }

    const fn refused(mut self, refused_under: RefusedUnder) -> Self {
        self.refused_under = refused_under;
        self
    }

    /// A service action of PERSISTENT RESERVE IN or OUT.
    const fn persistent(self, action: u8) -> Self {
        self.action(action).standby().refused(RefusedUnder::OwnRules)
    }

    /// It changes what others rely on, if not what the unit holds.
    const fn changes(self) -> Self {
        self.refused(RefusedUnder::Everything)
    }

    const fn quiet(mut self) -> Self {
        self.despite_attention = true;
        self
    }

    const fn writes(mut self) -> Self {
        self.writes = true;
        self.changes()
    }

    /// OPERATION CODE.
    pub(super) const fn opcode(&self) -> u8 {
        self.usage[0]
    }

    /// Nominal and recommended time to run, in seconds (SPC-5 6.35.4).
    pub(super) fn timeouts(&self) -> (u32, u32) {
        match self.run {
            Run::Now(_) => (1, 30),
            Run::Read | Run::Write => (1, 30),
            Run::Sync | Run::Work(_) => (10, 60),
        }
    }
}

const fn now(usage: &'static [u8], run: fn(&Call<'_>) -> Reply) -> Command {
    Command::new(usage, Run::Now(run))
}

const fn work(usage: &'static [u8], run: fn(&Call<'_>) -> Reply) -> Command {
    Command::new(usage, Run::Work(run))
}

const fn engine(usage: &'static [u8], run: Run) -> Command {
    Command::new(usage, run)
}

/// In the order of the operation codes.
#[rustfmt::skip]
pub(super) static COMMANDS: [Command; 58] = [
    now(b"\x00\0\0\0\0\0", report::test_unit_ready).refused(RefusedUnder::Reserve),
    now(b"\x03\x01\0\0\xFF\0", report::request_sense).always().quiet(),
    engine(b"\x08\x1F\xFF\xFF\xFF\0", Run::Read),
    engine(b"\x0A\x1F\xFF\xFF\xFF\0", Run::Write),
    now(b"\x12\x01\xFF\xFF\xFF\0", inquiry::inquiry).always().quiet(),
    now(b"\x15\x11\0\0\xFF\0", mode::mode_select).standby().changes(),
    now(b"\x16\0\0\0\0\0", reservation::reserve).refused(RefusedUnder::OwnRules),
    now(b"\x17\0\0\0\0\0", reservation::release).refused(RefusedUnder::OwnRules),
    now(b"\x1A\x08\xFF\xFF\xFF\0", mode::mode_sense).standby(),
    work(b"\x1B\x01\0\x0F\xF7\0", thin::start_stop_unit).changes(),
    now(b"\x1E\0\0\0\x03\0", report::prevent_allow).changes(),
    now(b"\x25\0\xFF\xFF\xFF\xFF\0\0\x01\0", report::read_capacity_10).standby().unreserved(),
    engine(b"\x28\x18\xFF\xFF\xFF\xFF\0\xFF\xFF\0", Run::Read),
    engine(b"\x2A\x18\xFF\xFF\xFF\xFF\0\xFF\xFF\0", Run::Write),
    work(b"\x2E\x16\xFF\xFF\xFF\xFF\0\xFF\xFF\0", verify::write_and_verify).writes(),
    work(b"\x2F\x16\xFF\xFF\xFF\xFF\0\xFF\xFF\0", verify::verify),
    now(b"\x34\x02\xFF\xFF\xFF\xFF\0\xFF\xFF\0", verify::pre_fetch),
    engine(b"\x35\x02\xFF\xFF\xFF\xFF\0\xFF\xFF\0", Run::Sync),
    now(b"\x37\0\x1F\0\0\0\0\xFF\xFF\0", report::read_defect_data),
    work(b"\x41\x08\xFF\xFF\xFF\xFF\0\xFF\xFF\0", thin::write_same).writes(),
    work(b"\x42\0\0\0\0\0\0\xFF\xFF\0", thin::unmap).writes(),
    now(b"\x4D\0\xFF\xFF\0\xFF\xFF\xFF\xFF\0", report::log_sense).standby().unreserved(),
    now(b"\x55\x11\0\0\0\0\0\xFF\xFF\0", mode::mode_select).standby().changes(),
    now(b"\x56\0\0\0\0\0\0\0\0\0", reservation::reserve).refused(RefusedUnder::OwnRules),
    now(b"\x57\0\0\0\0\0\0\0\0\0", reservation::release).refused(RefusedUnder::OwnRules),
    now(b"\x5A\x18\xFF\xFF\0\0\0\xFF\xFF\0", mode::mode_sense).standby(),
    now(b"\x5E\0\0\0\0\0\0\xFF\xFF\0", reservation::persistent_reserve_in)
        .persistent(InAction::ReadKeys.code()),
    now(b"\x5E\x01\0\0\0\0\0\xFF\xFF\0", reservation::persistent_reserve_in)
        .persistent(InAction::ReadReservation.code()),
    now(b"\x5E\x02\0\0\0\0\0\xFF\xFF\0", reservation::persistent_reserve_in)
        .persistent(InAction::ReportCapabilities.code()),
    now(b"\x5E\x03\0\0\0\0\0\xFF\xFF\0", reservation::persistent_reserve_in)
        .persistent(InAction::ReadFullStatus.code()),
    work(b"\x5F\0\0\0\0\xFF\xFF\xFF\xFF\0", reservation::persistent_reserve_out)
        .persistent(OutAction::Register.code()),
    work(b"\x5F\x01\xFF\0\0\xFF\xFF\xFF\xFF\0", reservation::persistent_reserve_out)
        .persistent(OutAction::Reserve.code()),
    work(b"\x5F\x02\xFF\0\0\xFF\xFF\xFF\xFF\0", reservation::persistent_reserve_out)
        .persistent(OutAction::Release.code()),
    work(b"\x5F\x03\0\0\0\xFF\xFF\xFF\xFF\0", reservation::persistent_reserve_out)
        .persistent(OutAction::Clear.code()),
    work(b"\x5F\x04\xFF\0\0\xFF\xFF\xFF\xFF\0", reservation::persistent_reserve_out)
        .persistent(OutAction::Preempt.code()),
    work(b"\x5F\x05\xFF\0\0\xFF\xFF\xFF\xFF\0", reservation::persistent_reserve_out)
        .persistent(OutAction::PreemptAndAbort.code()),
    work(b"\x5F\x06\0\0\0\xFF\xFF\xFF\xFF\0", reservation::persistent_reserve_out)
        .persistent(OutAction::RegisterAndIgnoreExistingKey.code()),
    engine(b"\x88\x18\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\0\0", Run::Read),
    work(b"\x89\x18\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\0\0\0\xFF\0\0", verify::compare_and_write).writes(),
    engine(b"\x8A\x18\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\0\0", Run::Write),
    work(b"\x8B\x18\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\0\0", verify::or_write).writes(),
    work(b"\x8E\x16\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\0\0", verify::write_and_verify).writes(),
    work(b"\x8F\x16\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\0\0", verify::verify),
    now(b"\x90\x02\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\0\0", verify::pre_fetch),
    engine(b"\x91\x02\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\0\0", Run::Sync),
    work(b"\x93\x09\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\0\0", thin::write_same).writes(),
    now(b"\x9E\x10\0\0\0\0\0\0\0\0\xFF\xFF\xFF\xFF\0\0", report::read_capacity_16)
        .action(sa::READ_CAPACITY_16).standby().unreserved(),
    work(b"\x9E\x12\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\0\0", thin::get_lba_status)
        .action(sa::GET_LBA_STATUS),
    now(b"\xA0\0\xFF\0\0\0\xFF\xFF\xFF\xFF\0\0", report::report_luns).always().quiet(),
    now(b"\xA3\xEA\0\0\0\0\xFF\xFF\xFF\xFF\0\0", report::target_port_groups)
        .action(sa::REPORT_TARGET_PORT_GROUPS).always(),
    now(b"\xA3\x0C\x87\xFF\xFF\xFF\xFF\xFF\xFF\xFF\0\0", report::supported_operation_codes)
        .action(sa::REPORT_SUPPORTED_OPERATION_CODES).standby(),
    now(b"\xA3\x0D\x80\0\0\0\xFF\xFF\xFF\xFF\0\0", report::supported_task_management)
        .action(sa::REPORT_SUPPORTED_TASK_MANAGEMENT_FUNCTIONS).standby(),
    now(b"\xA4\x0A\0\0\0\0\xFF\xFF\xFF\xFF\0\0", access::set_target_port_groups)
        .action(sa::SET_TARGET_PORT_GROUPS).anywhere().changes(),
    engine(b"\xA8\x18\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\0\0", Run::Read),
    engine(b"\xAA\x18\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\0\0", Run::Write),
    work(b"\xAE\x16\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\0\0", verify::write_and_verify).writes(),
    work(b"\xAF\x16\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\0\0", verify::verify),
    now(b"\xB7\x1F\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\0\0", report::read_defect_data),
];

/// For each operation code the place of its first row, or the table's length.
static FIRST: [u8; 256] = first_rows();

const fn first_rows() -> [u8; 256] {
    let mut first = [COMMANDS.len() as u8; 256];
    let mut row = COMMANDS.len();
    while row > 0 {
        row -= 1;
        first[COMMANDS[row].opcode() as usize] = row as u8;
    }
    first
}

/// The rows of an operation code: one, or one for each service action.
pub(super) fn rows(opcode: u8) -> &'static [Command] {
    let rest = &COMMANDS[FIRST[opcode as usize] as usize..];
    let count = rest.iter().take_while(|command| command.opcode() == opcode).count();
    &rest[..count]
}

/// The row of a CDB.
pub(super) fn find(cdb: &Cdb) -> Option<&'static Command> {
    rows(cdb.opcode()).iter().find(|command| match command.action {
        None => true,
        Some(action) => cdb.service_action() == Some(u16::from(action)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_sorted_and_as_long_as_their_group_says() {
        assert!(COMMANDS.is_sorted_by_key(|command| (command.opcode(), command.action)));
        for command in &COMMANDS {
            let mut bytes = [0; 32];
            bytes[..command.usage.len()].copy_from_slice(command.usage);
            assert_eq!(Cdb::from_padded(bytes).bytes().len(), command.usage.len());
            if let Some(action) = command.action {
                assert_eq!(command.usage[1] & 0x1F, action);
            }
        }
    }

    #[test]
    fn find_knows_service_actions() {
        assert!(find(&Cdb::new(&[0x28; 10])).is_some());
        let mut bytes = [0; 16];
        (bytes[0], bytes[1]) = (0x9E, 0x12);
        assert_eq!(find(&Cdb::new(&bytes)).and_then(|command| command.action), Some(0x12));
        bytes[1] = 0x13;
        assert!(find(&Cdb::new(&bytes)).is_none());
        assert!(find(&Cdb::new(&[0x5E; 10])).is_none());
    }
}
