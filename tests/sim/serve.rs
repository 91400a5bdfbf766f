//! The array executes: and while it does, it looks whether this may happen.

use vhost_user_scsi_mpath::lun::Repeat;
use vhost_user_scsi_mpath::scsi::alua::AccessState;
use vhost_user_scsi_mpath::scsi::{Asc, SenseKey, Status, opcode};

use crate::array::{Reply, Unit, execute, gate};
use crate::command::{Op, Over};
use crate::scene::{Rule, Scene};

/// INFORMATION UNIT iuCRC ERROR DETECTED: the link's fault.
pub const LINK_ERROR: Asc = Asc(0x47, 0x03);
const UNRECOVERED_READ_ERROR: Asc = Asc(0x11, 0x00);
/// What another logical unit's blocks hold.
const FOREIGN: u64 = u64::MAX - 1;

impl Scene {
    /// An attempt has arrived: the array's answer.
    pub fn serve(&mut self, key: u64) -> Reply {
        let attempt = &self.attempts[&key];
        let (port, live, serial) = (attempt.port, attempt.live, attempt.serial);
        let (cdb, doubted) = (attempt.cdb, attempt.doubted);
        if !live {
            // It was let in long ago and was only slow.
            return match self.ports[port].unit {
                Unit::Ours | Unit::Small => self.perform(key),
                _ => Reply::status(Status::BUSY),
            };
        }
        let states = self.told_states();
        let doubted = doubted && serial.is_some();
        if self.options.lies.denies_the_unit && serial.is_none() {
            return Reply::check(SenseKey::IllegalRequest, Asc::LUN_NOT_SUPPORTED);
        }
        let claims = self.options.lies.grows_in_words;
        if claims && serial.is_none() && cdb.opcode() == opcode::SERVICE_ACTION_IN_16 {
            let largest = self.ports.iter().map(|port| port.blocks).max().unwrap_or_default();
            let truth = std::mem::replace(&mut self.ports[port].blocks, largest);
            let reply = gate(&mut self.ports[port], &cdb, doubted, &states);
            self.ports[port].blocks = truth;
            return reply.unwrap_or_else(|| self.perform(key));
        }
        if let Some(reply) = gate(&mut self.ports[port], &cdb, doubted, &states) {
            return reply;
        }
        if serial.is_none() && cdb.opcode() == opcode::MAINTENANCE_OUT {
            return self.set_groups(key);
        }
        match (serial, self.ports[port].unit) {
            (Some(_), Unit::Other | Unit::Disguised) => self.foreign(key),
            (None, Unit::Other | Unit::Disguised) => Reply::good(vec![0; 512]),
            (Some(_), _) => self.mishaps(key),
            (None, _) => self.perform(key),
        }
    }

    /// What REPORT TARGET PORT GROUPS says.
    fn told_states(&self) -> Vec<(u8, AccessState)> {
        use AccessState::{ActiveNonOptimized, ActiveOptimized};
        let told = |state| match state {
            ActiveOptimized if self.options.lies.groups_lie => ActiveNonOptimized,
            ActiveNonOptimized if self.options.lies.groups_lie => ActiveOptimized,
            state => state,
        };
        self.ports.iter().map(|port| (port.number, told(port.access))).collect()
    }

    /// SET TARGET PORT GROUPS: a group becomes optimized, and the others that are so lesser.
    fn set_groups(&mut self, key: u64) -> Reply {
        let attempt = &self.attempts[&key];
        let (asked, wanted) = (attempt.port, attempt.payload[7]);
        let now = self.now;
        self.counts.sets += 1;
        for (at, port) in self.ports.iter_mut().enumerate() {
            let before = port.access;
            port.access = match (port.number == wanted, before) {
                (true, _) => AccessState::ActiveOptimized,
                (false, AccessState::ActiveOptimized) => AccessState::ActiveNonOptimized,
                (false, other) => other,
            };
            port.changed(now);
            if at != asked {
                port.raise(Asc::ALUA_STATE_CHANGED);
            }
        }
        Reply::good(Vec::new())
    }

    /// A guest's command at another logical unit.
    fn foreign(&mut self, key: u64) -> Reply {
        let Some(serial) = self.attempts[&key].serial else { return Reply::good(Vec::new()) };
        let command = &self.commands[&serial];
        let (op, count) = (command.op, command.count);
        if op.writes() || op == Op::Vendor {
            self.broken(Rule::RightUnit, format!("{op:?} {serial} reached another logical unit"));
        }
        let data = crate::command::block_of(FOREIGN).repeat(count as usize);
        Reply::good(if op == Op::Read { data } else { Vec::new() })
    }

    fn mishaps(&mut self, key: u64) -> Reply {
        let options = &self.options;
        let (busy, medium, aborted) = (options.busy, options.medium, options.aborted);
        if self.mishap(busy) {
            return Reply::status(self.random.pick(&[Status::BUSY, Status::TASK_SET_FULL]));
        }
        if self.mishap(medium) {
            return Reply::check(SenseKey::MediumError, UNRECOVERED_READ_ERROR);
        }
        if self.mishap(aborted) {
            if self.random.chance(500) {
                self.perform(key);
            }
            return Reply::check(SenseKey::AbortedCommand, LINK_ERROR);
        }
        self.perform(key)
    }

    fn perform(&mut self, key: u64) -> Reply {
        let attempt = &self.attempts[&key];
        let (cdb, serial, late) = (attempt.cdb, attempt.serial, !attempt.live);
        let carried_by = (attempt.port, attempt.session);
        let payload = attempt.payload.clone();
        if let Some(reply) = self.reserve(key) {
            return reply;
        }
        let mut changed = Vec::new();
        if let Some(serial) = serial {
            self.judge_execution(serial, late, carried_by);
            if self.options.lies.writes_get_lost
                && self.commands[&serial].op.writes()
                && self.random.chance(20)
            {
                return Reply::good(Vec::new());
            }
        }
        let reply = execute(&mut self.disk, &cdb, &payload, &mut changed);
        if cdb.opcode() == opcode::MODE_SELECT_10 {
            self.make_event(carried_by.0, late);
        }
        self.say(|| {
            format!("array executes {serial:?}{}: {changed:?}", if late { " LATE" } else { "" })
        });
        if late && !changed.is_empty() {
            self.counts.late_writes += 1;
        }
        reply
    }

    fn judge_execution(&mut self, serial: u64, late: bool, carried_by: (usize, u32)) {
        let Some(command) = self.commands.get_mut(&serial) else { return };
        command.executed += 1;
        let (op, row, over) = (command.op, command.row, command.over);
        let (port, session) = carried_by;
        let (executed, lands) = (command.executed, row.repeat != Repeat::Freely);
        if row.repeat == Repeat::Never && executed > 1 {
            self.broken(Rule::NeverTwice, format!("{op:?} {serial} was executed {executed} times"));
        }
        if late
            && lands
            && let Some((at, over)) = over
        {
            if over == Over::Answered {
                let text = format!("{op:?} {serial} landed after its answer of {at:?}");
                self.broken(Rule::NothingAfterTheAnswer, text);
            } else if let Some(block) = self.oracle.touched_since(&self.commands[&serial], at) {
                let text = format!(
                    "{op:?} {serial}, given up at {at:?}, landed on block {block} after newer commands"
                );
                self.broken(Rule::BlocksWait, text);
            } else if self.is_proven(port, session) {
                let text = format!("{op:?} {serial} of the proven session {session} landed");
                self.broken(Rule::NothingAfterTheProof, text);
            }
        }
        let command = &self.commands[&serial];
        // Reads do not wait for what a dead process has left.
        if self.now >= self.quiet_from || command.row.repeat != Repeat::Freely {
            self.oracle.touches(command);
        }
    }
}
