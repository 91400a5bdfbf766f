//! Other initiators on the same logical unit, and the array's part in reservations: each port's nexus
//! is one of its own, as the standard says.

use std::collections::BTreeSet;
use std::time::Duration;

use vhost_user_scsi_mpath::completion::{Outcome, Response};
use vhost_user_scsi_mpath::ids::LaneId;
use vhost_user_scsi_mpath::path::emulated::reservations::{Denial, Nexus, Standing, State};
use vhost_user_scsi_mpath::scsi::reservation::{
    In, InAction, Key, Keys, Out, OutAction, Parameters, Reservation, TransportId, Type, parameters,
};
use vhost_user_scsi_mpath::scsi::{Asc, Cdb, SenseKey, Status, opcode};

use crate::array::Reply;
use crate::command::Op;
use crate::model::{Access, End, Model, Order};
use crate::random::Random;
use crate::referee::{GUEST, Referee, View};
use crate::scene::{Rule, Scene};

/// The array's reservations, and the judge of them.
#[derive(Debug)]
pub struct Cluster {
    state: State,
    /// The judge.
    pub referee: Referee,
    /// Since the backend last had nothing to do a command of its own has changed registrations.
    pub amid: bool,
}

impl Cluster {
    /// Of a logical unit on which nobody is registered.
    pub fn new() -> Self {
        Cluster { state: State::default(), referee: Referee::new(), amid: false }
    }

    /// True while PRs of the guest over `port` may come to nothing.
    fn refuses(&self, port: u8, access: Access) -> bool {
        match (self.state.standing(&guest(port)), access) {
            (Standing::Free, _) | (_, Access::Always | Access::Ready) => false,
            (Standing::WriteExclusive, access) => access == Access::Write,
            _ => true,
        }
    }

    /// PERSISTENT RESERVE OUT, on the array.
    fn execute(&mut self, from: &Nexus, order: Order) -> (End, Vec<(Nexus, Asc)>) {
        let (out, given) = in_words(order);
        match self.state.out(from, &out, &given) {
            Ok(told) => {
                let told = told.into_iter().map(|(nexus, notice)| (nexus, notice.asc()));
                (End::Good, told.collect())
            }
            Err(denial) => (told(denial), Vec::new()),
        }
    }

    /// How many registrations the guest has over `ports`.
    fn registrations(&self, ports: &BTreeSet<u8>) -> Vec<u64> {
        let status = self.state.full_status();
        let ours = |port: u16| u8::try_from(port).is_ok_and(|port| ports.contains(&port));
        let ours = status.registrants.iter().filter(|one| {
            one.initiator_port == initiator(GUEST) && one.target_port.is_some_and(ours)
        });
        ours.map(|one| one.key.0).collect()
    }

    /// True while the guest is not one initiator: a path that is away has another key than the
    /// backend's `key`, and nobody was there to end that.
    pub fn is_torn(&self, key: Option<Key>) -> bool {
        let status = self.state.full_status();
        let mut ours =
            status.registrants.iter().filter(|one| one.initiator_port == initiator(GUEST));
        ours.any(|one| Some(one.key) != key)
    }

    /// What stands, with our nexuses over `ports` for one. `None` while they are not alike.
    pub fn as_one(&self, ports: &BTreeSet<u8>) -> Option<Model> {
        let ours = self.registrations(ports);
        let whole = ours.len() == ports.len() || ours.is_empty();
        if !whole || ours.iter().any(|key| *key != ours[0]) {
            return None;
        }
        let status = self.state.full_status();
        let mut model = Model::new(None);
        model.generation = status.generation;
        model.keys[GUEST] = ours.first().copied().unwrap_or_default();
        for one in &status.registrants {
            let nexus = nexus_of(&one.initiator_port);
            if nexus != GUEST {
                model.keys[nexus] = one.key.0;
            }
            if let Some(kind) = one.holds {
                (model.kind, model.holder) = (kind.code(), nexus);
            }
        }
        Some(model)
    }
}

fn initiator(nexus: usize) -> TransportId {
    TransportId::Sas { address: nexus as u64 }
}

fn nexus_of(port: &TransportId) -> usize {
    match port {
        TransportId::Sas { address } => *address as usize,
        _ => GUEST,
    }
}

fn guest(port: u8) -> Nexus {
    Nexus { initiator: initiator(GUEST), port: u16::from(port) }
}

fn told(denial: Denial) -> End {
    match denial {
        Denial::Conflict => End::Conflict,
        Denial::ScopeOrType | Denial::ServiceAction => End::Illegal(Asc::INVALID_FIELD_IN_CDB),
        Denial::Parameter(_) => End::Illegal(Asc::INVALID_FIELD_IN_PARAMETER_LIST),
        Denial::InvalidRelease => End::Illegal(Asc::INVALID_RELEASE),
        Denial::NoRoom => End::Illegal(Asc::INSUFFICIENT_REGISTRATION_RESOURCES),
    }
}

/// The command that stands for `order`.
pub fn in_words(order: Order) -> (Out, Parameters) {
    let action = OutAction::from_code(order.action).unwrap();
    let out = Out::new(action, Type::from_code(order.kind), parameters::BASIC as u32);
    let (key, action_key) = (Key(order.key), Key(order.action_key));
    let given = Parameters { key, action_key, aptpl: order.aptpl, ..Parameters::default() };
    (out, given)
}

fn order_of(cdb: &Cdb, list: &[u8]) -> Option<Order> {
    let out = Out::parse(cdb)?;
    let given = Parameters::parse(list).ok()?;
    let kind = out.kind().map_or(0, Type::code);
    let (key, action_key, aptpl) = (given.key.0, given.action_key.0, given.aptpl);
    Some(Order { action: out.action.code(), kind, key, action_key, aptpl })
}

/// A command that `nexus` may send, as it would with some knowledge of `model`.
pub fn any_order(random: &mut Random, model: &Model, nexus: usize) -> Order {
    // Keys 1 to 3 are the guest's, the others have ten times as many.
    let any_key = |random: &mut Random, nexus: usize| {
        let factor = [1, 10, 100][nexus / 2];
        random.below(4) * factor
    };
    let key = match random.chance(900) {
        true => model.keys[nexus],
        false => any_key(random, nexus),
    };
    let kind = match random.chance(600) && model.kind != 0 {
        true => model.kind,
        false => random.pick(&Type::ALL).code(),
    };
    let action = random.pick(&[0, 0, 6, 6, 6, 1, 1, 1, 2, 2, 3, 4, 4, 4, 5]);
    let victim = 2 * random.below(3) as usize;
    let action_key = match action {
        0 | 6 => any_key(random, nexus),
        _ if random.chance(800) => model.keys[victim],
        _ => any_key(random, victim),
    };
    Order { action, kind, key, action_key, aptpl: random.chance(300) }
}

/// What a command of the guest's does, as reservations see it.
pub fn access_of(op: Op) -> Option<Access> {
    match op {
        Op::Read => Some(Access::Read),
        Op::Ready => Some(Access::Ready),
        Op::Write | Op::WriteSame | Op::Unmap | Op::CompareAndWrite | Op::Sync | Op::Vendor => {
            Some(Access::Write)
        }
        // Answered by the backend, or rules of their own.
        Op::Inquiry | Op::ReadCapacity | Op::ModeSelect | Op::ReserveIn | Op::ReserveOut => None,
    }
}

impl Scene {
    /// The array executes an attempt that passed the port's checks, as far as reservations have a
    /// word in it.
    pub fn reserve(&mut self, key: u64) -> Option<Reply> {
        let attempt = &self.attempts[&key];
        let (at, serial, cdb) = (attempt.port, attempt.serial, attempt.cdb);
        let (number, list) = (self.ports[at].number, attempt.payload.clone());
        let cluster = self.cluster.as_mut()?;
        if let Some(serial) = serial {
            let access = access_of(self.commands[&serial].op)?;
            if cluster.refuses(number, access) && !self.options.lies.lets_all_in {
                return Some(Reply::status(Status::RESERVATION_CONFLICT));
            }
            if access == Access::Write && !cluster.referee.may(access).0 {
                let text = format!("{serial} writes over port {number}");
                self.broken(Rule::OneInitiator, text);
            }
            return None;
        }
        match cdb.opcode() {
            opcode::PERSISTENT_RESERVE_IN => Some(cluster.read(&cdb)),
            opcode::PERSISTENT_RESERVE_OUT => {
                let Some(order) = order_of(&cdb, &list) else {
                    return Some(Reply::check(SenseKey::IllegalRequest, Asc::INVALID_FIELD_IN_CDB));
                };
                let before = cluster.state.clone();
                let (end, told) = cluster.execute(&guest(number), order);
                if self.options.lies.registers_in_words && number > 1 && order.action_key != 0 {
                    cluster.state = before.clone();
                }
                let registers = !matches!(order.action, 1 | 2);
                cluster.amid |= registers && cluster.state != before;
                self.say(|| format!("array: {order:?} over {number} is told {end:?}"));
                self.tell_nexuses(told);
                Some(reply(end))
            }
            _ => None,
        }
    }

    fn tell_nexuses(&mut self, told: Vec<(Nexus, Asc)>) {
        for (nexus, code) in told {
            let ours = nexus.initiator == initiator(GUEST);
            let ports = self.ports.iter_mut().filter(|port| u16::from(port.number) == nexus.port);
            ports.filter(|_| ours).for_each(|port| port.raise(code));
        }
    }

    /// Another initiator does something. `amid`: the backend is in the middle of something.
    pub fn other_initiator(&mut self, amid: bool) {
        let nexus = 2 * self.random.within(1..u64::from(self.options.initiators) + 1) as usize;
        let Some(cluster) = &self.cluster else { return };
        let order = any_order(&mut self.random, cluster.referee.guess(), nexus);
        self.other_sends(nexus, order, amid);
    }

    /// Another initiator sends this command.
    pub fn other_sends(&mut self, nexus: usize, order: Order, amid: bool) {
        let all = self.ports.iter().filter(|port| !port.removed).map(|port| port.number).collect();
        let Some(cluster) = &mut self.cluster else { return };
        let before = cluster.registrations(&all).len();
        let from = Nexus { initiator: initiator(nexus), port: 1 };
        let keep = cluster.state.clone();
        let (end, told) = cluster.execute(&from, order);
        if self.options.lies.spares_the_guest && cluster.registrations(&all).len() < before {
            cluster.state = keep;
        }
        let hits = cluster.registrations(&all).len() < before;
        let judged = cluster.referee.other(nexus, order, end, amid, hits);
        self.counts.others += 1;
        self.counts.races += u64::from(amid);
        self.counts.shut_out += u64::from(hits);
        self.say(|| format!("initiator {}: {order:?} is told {end:?}, amid {amid}", nexus / 2));
        self.tell_nexuses(told);
        self.hold_against(judged);
    }

    /// Somebody was told something that cannot be.
    pub fn hold_against(&mut self, judged: Result<(), String>) {
        if let Err(text) = judged {
            self.broken(Rule::OneInitiator, text);
        }
        self.note_access();
    }

    /// What the guest's commands under way may be told by now.
    pub fn note_access(&mut self) {
        let Some(cluster) = &self.cluster else { return };
        for serial in &self.outstanding {
            let Some(command) = self.commands.get_mut(serial) else { continue };
            let Some(access) = access_of(command.op) else { continue };
            let (good, conflict) = cluster.referee.may(access);
            command.may_be_good |= good;
            command.may_conflict |= conflict;
        }
    }

    /// The guest sends a reservation command.
    pub fn reservation_begins(&mut self, serial: u64) {
        let Some(command) = self.commands.get(&serial) else { return };
        let (op, cdb, list) = (command.op, command.cdb, command.memory.to_vec());
        if let Some(cluster) = &mut self.cluster {
            if let (Op::ReserveOut, Some(order)) = (op, order_of(&cdb, &list)) {
                self.counts.orders += 1;
                cluster.referee.begins(serial, order);
            }
            if let (Op::ReserveIn, Some(asked)) = (op, In::parse(&cdb)) {
                cluster.referee.asks(serial, asked.action);
            }
        }
        self.note_access();
    }

    /// What the referee says of the guest's answer; true where it is right.
    pub fn judge_reservation(&mut self, serial: u64, outcome: &Outcome) -> Option<Rule> {
        let command = &self.commands[&serial];
        let (op, cdb) = (command.op, command.cdb);
        let conflict = outcome.status == Status::RESERVATION_CONFLICT;
        let good = outcome.status == Status::GOOD;
        if outcome.response != Response::Ok {
            return None;
        }
        if !matches!(op, Op::ReserveIn | Op::ReserveOut) {
            let judged = access_of(op).is_some() && self.cluster.is_some();
            let wrong = good && judged && !command.may_be_good
                || conflict && !(judged && command.may_conflict);
            return wrong.then_some(Rule::OneInitiator);
        }
        let data = command.memory.to_vec();
        let sense = outcome.sense.as_ref().and_then(|sense| sense.decode());
        let cluster = self.cluster.as_mut()?;
        let judged = match (op, sense) {
            (Op::ReserveIn, _) if good => {
                let asked = In::parse(&cdb)?;
                let view = view(asked.action, &data[..outcome.stored as usize])?;
                cluster.referee.shown(serial, &view)
            }
            (Op::ReserveIn, _) => Ok(()),
            (_, Some((SenseKey::IllegalRequest, code))) => {
                cluster.referee.answered(serial, End::Illegal(code))
            }
            _ if good => cluster.referee.answered(serial, End::Good),
            _ if conflict => cluster.referee.answered(serial, End::Conflict),
            _ => Ok(()),
        };
        self.hold_against(judged);
        None
    }
}

impl Cluster {
    fn read(&self, cdb: &Cdb) -> Reply {
        let asked = In::parse(cdb);
        Reply::good(match asked.map(|asked| asked.action) {
            Some(InAction::ReadKeys) => self.state.keys().bytes(),
            Some(InAction::ReadReservation) => self.state.reservation().bytes(),
            Some(InAction::ReadFullStatus) => self.state.full_status().bytes(),
            Some(InAction::ReportCapabilities) => self.state.capabilities(true).bytes().to_vec(),
            None => return Reply::check(SenseKey::IllegalRequest, Asc::INVALID_FIELD_IN_CDB),
        })
    }
}

fn reply(end: End) -> Reply {
    match end {
        End::Good => Reply::good(Vec::new()),
        End::Conflict => Reply::status(Status::RESERVATION_CONFLICT),
        End::Illegal(code) => Reply::check(SenseKey::IllegalRequest, code),
    }
}

fn view(action: InAction, data: &[u8]) -> Option<View> {
    if action == InAction::ReadKeys {
        let told = Keys::parse(data)?;
        let mut keys: Vec<u64> = told.keys.iter().map(|key| key.0).collect();
        keys.sort_unstable();
        return Some(View::Keys(told.generation, keys));
    }
    let told = Reservation::parse(data)?;
    let held = told.held.map(|held| (held.key.0, held.kind().map_or(0, Type::code)));
    Some(View::Reservation(told.generation, held))
}

/// How long another initiator waits where it must not act in the middle of something.
pub const A_MOMENT: Duration = Duration::from_millis(2);

/// Which nexus the manager's commands are of.
pub fn is_ours(client: LaneId, cdb: &Cdb) -> bool {
    client == LaneId::MANAGER
        && matches!(cdb.opcode(), opcode::PERSISTENT_RESERVE_IN | opcode::PERSISTENT_RESERVE_OUT)
}
