//! Persistent reservations: the parameter data, and the conversation about them.

use std::collections::BTreeMap;

use vhost_user_scsi_mpath::ids::PathId;
use vhost_user_scsi_mpath::multipath::reservation::{
    Action, Answer, Command, End, Event, Machine, Request, Ticket,
};
use vhost_user_scsi_mpath::scsi::reservation::list::room_needed;
use vhost_user_scsi_mpath::scsi::reservation::{
    Capabilities, FullStatus, In, InAction, Key, Keys, MoveParameters, Out, OutAction, Parameters,
    Reservation, TransportId, Type,
};
use vhost_user_scsi_mpath::scsi::{Asc, Cdb, SenseKey};

use super::Bytes;

/// A kind, then its bytes.
pub fn reservations(data: &[u8]) {
    let mut bytes = Bytes::new(data);
    let kind = bytes.u8();
    let data = bytes.rest();
    match kind % 8 {
        0 => again(Keys::parse(data), Keys::bytes, Keys::parse),
        1 => again(Reservation::parse(data), Reservation::bytes, Reservation::parse),
        2 => again(Capabilities::parse(data), |it| it.bytes().to_vec(), Capabilities::parse),
        3 => again(FullStatus::parse(data), FullStatus::bytes, FullStatus::parse),
        4 => again(Parameters::parse(data).ok(), Parameters::bytes, |data| {
            Parameters::parse(data).ok()
        }),
        5 => again(MoveParameters::parse(data).ok(), MoveParameters::bytes, |data| {
            MoveParameters::parse(data).ok()
        }),
        6 => {
            if let Some((id, len)) = TransportId::parse(data) {
                assert!(len <= data.len());
                let written = id.bytes();
                assert_eq!(TransportId::parse(&written), Some((id.clone(), written.len())));
                assert!(!id.to_string().is_empty());
            }
        }
        _ => {
            let cdb = Cdb::new(data);
            if let Some(command) = In::parse(&cdb) {
                assert_eq!(In::parse(&command.cdb()), Some(command));
            }
            if let Some(command) = Out::parse(&cdb) {
                assert_eq!(Out::parse(&command.cdb()), Some(command));
            }
        }
    }
    if let (0 | 1 | 3, Some(room)) = (kind % 8, room_needed(data)) {
        assert!(room >= 8);
    }
}

/// What was read is read again from what is written of it.
fn again<T: PartialEq + std::fmt::Debug>(
    read: Option<T>,
    write: impl Fn(&T) -> Vec<u8>,
    parse: impl Fn(&[u8]) -> Option<T>,
) {
    if let Some(read) = read {
        assert_eq!(parse(&write(&read)), Some(read));
    }
}

/// Paths there are.
const PATHS: u8 = 4;
/// Answers to one order of the guest's at most, however the array answers.
const ANSWERS: usize = 400;

struct Scene<'a> {
    bytes: Bytes<'a>,
    machine: Machine,
    /// Tickets given, and those answered.
    asked: u64,
    answered: BTreeMap<u64, Answer>,
    answers: usize,
    /// A command is under way.
    sent: Option<Command>,
}

impl Scene<'_> {
    /// Carries out what the machine wants, and answers it from the bytes.
    fn tell(&mut self, event: Event) {
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            for action in self.machine.apply(event) {
                match action {
                    Action::Send(path, command) => {
                        assert!(path.0 < PATHS.into());
                        assert!(self.sent.replace(command).is_none(), "one command at a time");
                    }
                    Action::Keep(_) => events.push(Event::Kept(self.bytes.u8() != 0xFF)),
                    Action::Answer(ticket, answer) => {
                        assert!(ticket.0 < self.asked, "an answer to nobody");
                        let earlier = self.answered.insert(ticket.0, answer);
                        assert!(earlier.is_none(), "answered twice");
                    }
                    _ => {}
                }
            }
            if events.is_empty()
                && let Some(command) = self.sent.take()
            {
                self.answers += 1;
                assert!(self.answers <= ANSWERS, "the conversation does not end");
                events.push(Event::Ended(self.end(&command)));
            }
        }
    }

    fn end(&mut self, command: &Command) -> End {
        match self.bytes.u8() % 16 {
            0..=8 => match command {
                Command::Out(..) => End::Good(Vec::new()),
                Command::In(action) => End::Good(self.told(*action)),
            },
            9 => End::Conflict,
            10 => End::Attention(Asc(self.bytes.u8(), self.bytes.u8())),
            11 => End::Refused(SenseKey::from_low_nibble(self.bytes.u8()), Asc(0x24, 0)),
            12 => End::Busy,
            13 => End::NotExecuted,
            14 => End::Lost,
            _ => End::Good(self.bytes.piece().to_vec()),
        }
    }

    /// Data in order by themselves, whatever they say.
    fn told(&mut self, action: InAction) -> Vec<u8> {
        let generation = self.bytes.u8().into();
        let key = |bytes: &mut Bytes<'_>| Key(u64::from(bytes.u8() % 4));
        match action {
            InAction::ReadKeys => {
                let count = self.bytes.u8() % 5;
                let keys = (0..count).map(|_| key(&mut self.bytes)).collect();
                Keys { generation, keys }.bytes()
            }
            InAction::ReadReservation => {
                let held = match self.bytes.u8() {
                    0 => None,
                    code => Some(vhost_user_scsi_mpath::scsi::reservation::Held {
                        key: key(&mut self.bytes),
                        scope_and_type: code % 10,
                    }),
                };
                Reservation { generation, held }.bytes()
            }
            InAction::ReportCapabilities => self.bytes.take(8).to_vec(),
            InAction::ReadFullStatus => self.bytes.piece().to_vec(),
        }
    }

    fn ask(&mut self) {
        let ticket = Ticket(self.asked);
        self.asked += 1;
        let action = OutAction::ALL[usize::from(self.bytes.u8()) % OutAction::ALL.len()];
        let kind = Type::ALL[usize::from(self.bytes.u8()) % Type::ALL.len()];
        let request = match self.bytes.u8() % 4 {
            0 => {
                let action = InAction::ALL[usize::from(self.bytes.u8()) % 4];
                Request::In(In { action, allocation: self.bytes.u16() })
            }
            flags => {
                let given = Parameters {
                    key: Key((self.bytes.u8() % 4).into()),
                    action_key: Key((self.bytes.u8() % 4).into()),
                    aptpl: flags == 1,
                    ..Parameters::default()
                };
                Request::Out(Out::new(action, Some(kind), 24), given)
            }
        };
        let allocation = match &request {
            Request::In(asked) => Some(usize::from(asked.allocation)),
            Request::Out(..) => None,
        };
        self.answers = 0;
        self.tell(Event::Asked(ticket, request));
        if let (Some(Answer::Good(data)), Some(allocation)) =
            (self.answered.get(&ticket.0), allocation)
        {
            assert!(data.len() <= allocation, "more than the allocation length");
        }
    }
}

/// Paths that come and go, what the guest orders, and what the array answers.
pub fn fencing(data: &[u8]) {
    let bytes = Bytes::new(data);
    let machine = Machine::default();
    let mut scene =
        Scene { bytes, machine, asked: 0, answered: BTreeMap::new(), answers: 0, sent: None };
    let begun = match scene.bytes.u8() % 8 {
        0 => Event::Stateless,
        _ => Event::Restored(None),
    };
    scene.tell(begun);
    for _ in 0..64 {
        if scene.bytes.is_empty() {
            break;
        }
        let step = scene.bytes.u8();
        let path = PathId((step / 16 % PATHS).into());
        scene.answers = 0;
        match step % 16 {
            0..=3 => {
                let initiator = TransportId::Sas { address: 1 };
                let nexus = step.is_multiple_of(2).then_some((initiator, path.0));
                scene.tell(Event::Up { path, name: format!("p{}", path.0), nexus });
            }
            4 => scene.tell(Event::Down(path)),
            5 => scene.tell(Event::Leaving(path)),
            6 => scene.tell(Event::Removed(path)),
            7 => scene.tell(Event::Conflicted(path)),
            8 => scene.tell(Event::Access { path, active: step & 0x80 != 0 }),
            9 => scene.tell(Event::Forgotten(Ticket(scene.asked.wrapping_sub(1)))),
            _ => scene.ask(),
        }
        assert!(scene.sent.is_none());
        // Nothing is under way, so everybody has an answer.
        assert_eq!(scene.answered.len() as u64, scene.asked);
        let _ = scene.machine.standing();
    }
}
