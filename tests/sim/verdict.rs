//! The judge of answers: may the guest have got this one?

use std::time::Duration;

use vhost_user_scsi_mpath::completion::{Outcome, Response};
use vhost_user_scsi_mpath::limits::{BUSY_TRIES_MAX, TRIES_MAX};
use vhost_user_scsi_mpath::lun::Repeat;
use vhost_user_scsi_mpath::multipath::NoPath;
use vhost_user_scsi_mpath::scsi::{Asc, SenseKey, Status};

use crate::array::Unit;
use crate::command::{Command, Op, Over, stamp_of};
use crate::options::{BLOCK, BLOCKS, Options};
use crate::scene::{Rule, Scene};

/// Within this time a path that is well is in use: a probe's questions, each on a slow wire, after
/// the longest time between two probes.
pub const PROBED_FOR_SURE: Duration = Duration::from_secs(15);

impl Scene {
    /// The guest got an answer.
    pub fn answered(&mut self, serial: u64, outcome: &Outcome) {
        let Some(command) = self.commands.get(&serial) else { return };
        let (op, response) = (command.op, outcome.response);
        let what = format!("{op:?} {serial}: {response:?} {} {:?}", outcome.status, outcome.sense);
        self.say(|| format!("guest is answered {what}"));
        if command.over.is_some() {
            return self.broken(Rule::AnsweredOnce, what);
        }
        if command.row.repeat != Repeat::Freely
            && self.now < command.may_land_until()
            && response != Response::Failure
        {
            let text = format!("{what}, it may land until {:?}", command.may_land_until());
            self.broken(Rule::NothingAfterTheAnswer, text);
        }
        let good = response == Response::Ok && outcome.status == Status::GOOD;
        let problem = match response {
            Response::Ok => self.judge_status(serial, outcome),
            Response::Aborted | Response::Reset => {
                (!self.commands[&serial].managed).then_some(Rule::NoNeedlessError)
            }
            Response::Failure => self.judge_failure(serial),
            Response::TransportFailure => self.judge_transport_failure(),
            _ => Some(Rule::NoNeedlessError),
        };
        let problem = problem.or(self.judge_reservation(serial, outcome));
        if let Some(rule) = problem {
            self.broken(rule, what);
        }
        if good {
            self.judge_data(serial, outcome);
        }
        self.judge_read_time(serial);
        self.commands.entry(serial).and_modify(|command| {
            command.outcome = Some((response, outcome.status));
        });
        let how = if response == Response::Failure { Over::Failed } else { Over::Answered };
        self.close(serial, how, good);
    }

    fn judge_failure(&self, serial: u64) -> Option<Rule> {
        let lane = self.commands[&serial].lane;
        let deadline = self.rings.get(&lane).and_then(|ring| ring.deadline);
        let late = deadline.is_some_and(|deadline| deadline <= self.now);
        (!late).then_some(Rule::NoNeedlessError)
    }

    fn judge_transport_failure(&mut self) -> Option<Rule> {
        self.counts.errors += 1;
        let table = &self.view.as_ref()?.table;
        let right = table.no_path == NoPath::Fail && !table.has_usable() && !self.is_well();
        (!right).then_some(Rule::NoNeedlessError)
    }

    /// Nothing has been wrong with some path for long.
    fn is_well(&self) -> bool {
        // Without losses by chance, a good port is found by the next probe at the latest.
        let Options { drop, lose, busy, aborted, slow, slow_max, deadlines, .. } = &self.options;
        // An answer that is slow by chance may be given up like one that is lost.
        let given_up = *slow > 0 && *slow_max >= deadlines.path_timeout;
        let by_chance = drop + lose + busy + aborted > 0 || given_up;
        let good = self.ports.iter().filter_map(|port| port.good_since);
        let long = good.min().is_some_and(|since| self.now - since > PROBED_FOR_SURE);
        long && !by_chance
    }

    /// The array's own word that there is no such logical unit, told by the backend.
    fn judge_gone(&mut self) -> Option<Rule> {
        self.counts.errors += 1;
        let table = &self.view.as_ref()?.table;
        let right = table.no_path == NoPath::Gone && !table.has_usable() && !self.is_well();
        (!right).then_some(Rule::NoNeedlessError)
    }

    fn judge_status(&mut self, serial: u64, outcome: &Outcome) -> Option<Rule> {
        let command = &self.commands[&serial];
        match outcome.status {
            Status::GOOD => None,
            Status::RESERVATION_CONFLICT => {
                self.counts.conflicts += 1;
                None
            }
            Status::BUSY | Status::TASK_SET_FULL => {
                let told = command.busy > u32::from(BUSY_TRIES_MAX);
                let tried = command.attempts >= u32::from(TRIES_MAX);
                let age = self.now - command.begun;
                self.counts.errors += u64::from(!told);
                (!(told || tried || age >= self.options.deadlines.command_deadline))
                    .then_some(Rule::NoNeedlessError)
            }
            Status::CHECK_CONDITION => {
                let sense = outcome.sense.as_ref().and_then(|sense| sense.decode());
                match sense {
                    Some((SenseKey::UnitAttention, code)) => self.judge_attention(code),
                    Some((SenseKey::IllegalRequest, Asc::LUN_NOT_SUPPORTED)) => self.judge_gone(),
                    // What the array says of a reservation command is the referee's affair.
                    Some((SenseKey::IllegalRequest | SenseKey::AbortedCommand, _))
                        if command.op == Op::ReserveOut =>
                    {
                        None
                    }
                    Some(sense) => judge_sense(command, sense),
                    None => Some(Rule::NoNeedlessError),
                }
            }
            _ => Some(Rule::NoNeedlessError),
        }
    }

    fn judge_attention(&mut self, code: Asc) -> Option<Rule> {
        self.counts.attentions += 1;
        let oracle = &mut self.oracle;
        let right = match code {
            Asc::MODE_PARAMETERS_CHANGED => {
                (oracle.told, oracle.heard) = (oracle.told + 1, self.now);
                oracle.told <= oracle.brought + oracle.excused
            }
            Asc::REPORTED_LUNS_CHANGED => {
                oracle.returns_told += 1;
                oracle.returns_told <= oracle.gone
            }
            Asc::CAPACITY_DATA_HAS_CHANGED => {
                self.counts.sizes += 1;
                oracle.sizes_told += 1;
                let largest = self.ports.iter().map(|port| port.blocks).max().unwrap_or(BLOCKS);
                oracle.sizes_told < largest / BLOCKS + u64::from(oracle.small)
            }
            Asc::BUS_DEVICE_RESET | Asc::I_T_NEXUS_LOSS => {
                oracle.resets_told += 1;
                oracle.resets_told <= oracle.resets
            }
            Asc::RESERVATIONS_PREEMPTED
            | Asc::RESERVATIONS_RELEASED
            | Asc::REGISTRATIONS_PREEMPTED => {
                self.cluster.as_mut().is_some_and(|cluster| cluster.referee.tells(code))
            }
            _ => false,
        };
        (!right).then_some(Rule::AttentionOnce)
    }

    fn judge_data(&mut self, serial: u64, outcome: &Outcome) {
        let command = &self.commands[&serial];
        let (op, executed) = (command.op, command.executed);
        let ours = matches!(op, Op::Inquiry | Op::ReadCapacity | Op::ReserveIn | Op::ReserveOut);
        if executed == 0 && !ours {
            let text = format!("{op:?} {serial} was GOOD and never executed");
            return self.broken(Rule::DataIsRight, text);
        }
        if op == Op::ReadCapacity {
            self.judge_size(serial);
        }
        let command = &self.commands[&serial];
        let room = command.memory.segments().len() as u32;
        if outcome.stored + outcome.residual != room && command.inward {
            let text = format!("{op:?} {serial}: {outcome:?} of {room}");
            return self.broken(Rule::DataIsRight, text);
        }
        if op != Op::Read {
            return;
        }
        let data = command.memory.to_vec();
        let wrong = data[..outcome.stored as usize]
            .chunks(BLOCK)
            .zip(command.blocks().zip(&command.floors))
            .find(|(block, (at, floor))| match stamp_of(block) {
                Some(stamp) => !self.oracle.may_be(*at, stamp, **floor),
                None => true,
            });
        if let Some((block, (at, floor))) = wrong {
            let stamp = stamp_of(block);
            let text = format!("read {serial} of block {at} brought {stamp:?}, floor {floor:?}");
            self.broken(Rule::DataIsRight, text);
        }
    }
}

impl Scene {
    /// The guest was told a size: every path in use has it.
    fn judge_size(&mut self, serial: u64) {
        let data = self.commands[&serial].memory.to_vec();
        let Some(last) = data.get(..8).and_then(|bytes| bytes.try_into().ok()) else { return };
        let blocks = u64::from_be_bytes(last) + 1;
        let Some(view) = self.view.clone() else { return };
        let usable = |path| view.table.entry(path).is_some_and(|entry| entry.is_usable());
        let short = self.ports.iter().find(|port| {
            !port.removed
                && port.path.is_some_and(usable)
                && port.unit == Unit::Ours
                && port.blocks < blocks
        });
        if let Some(short) = short.map(|port| (port.number, port.blocks)) {
            let text = format!("{serial} was told {blocks} blocks, port {short:?} has fewer");
            self.broken(Rule::SizeIsAgreed, text);
        } else if blocks < self.oracle.size_told {
            let text = format!("{serial} was told {blocks} after {}", self.oracle.size_told);
            self.broken(Rule::SizeIsAgreed, text);
        }
        self.oracle.size_told = blocks;
    }
}

/// CHECK CONDITION: the array's own word, or ABORTED COMMAND for what must not be repeated.
fn judge_sense(command: &Command, sense: (SenseKey, Asc)) -> Option<Rule> {
    let never = command.row.repeat == Repeat::Never;
    let told = command.senses.contains(&sense);
    let right = match sense {
        (SenseKey::AbortedCommand, Asc::NONE) => never && command.unproven,
        (SenseKey::AbortedCommand, Asc::I_T_NEXUS_LOSS) if never && command.again => true,
        (SenseKey::AbortedCommand, _) => {
            told && (never || command.attempts >= u32::from(TRIES_MAX))
        }
        (SenseKey::NotReady, _) | (_, Asc::LUN_NOT_SUPPORTED) => false,
        _ => told,
    };
    (!right).then_some(Rule::NoNeedlessError)
}
