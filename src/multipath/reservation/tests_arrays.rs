//! Arrays that do what no standard says.

use super::attentions::made;
use super::*;
use crate::ids::PathId;
use crate::scsi::Asc;
use crate::scsi::reservation::{
    In, InAction, Key, Keys, Out, OutAction, Parameters, Type, parameters,
};

const PATH: PathId = PathId(0);
const GUESTS: Key = Key(7);

/// A guest on one path of an array with `reservation` as READ RESERVATION tells it.
struct Desk {
    machine: Machine,
    reservation: Vec<u8>,
    /// What the next READ KEYS meets.
    attention: Option<Asc>,
}

impl Desk {
    fn new() -> Self {
        let mut machine = Machine::default();
        machine.apply(Event::Restored(None));
        machine.apply(Event::Up { path: PATH, name: "a".to_owned(), nexus: None });
        let mut desk = Desk { machine, reservation: vec![0; 8], attention: None };
        let given = Parameters { action_key: GUESTS, ..Parameters::default() };
        desk.out(OutAction::Register, None, given);
        desk
    }

    fn out(&mut self, action: OutAction, kind: Option<Type>, given: Parameters) -> Vec<Action> {
        self.ask(Request::Out(Out::new(action, kind, parameters::BASIC as u32), given))
    }

    /// Asks, and answers all that is sent with GOOD; all that was wanted.
    fn ask(&mut self, request: Request) -> Vec<Action> {
        let mut all = self.machine.apply(Event::Asked(Ticket(1), request));
        let mut at = 0;
        while at < all.len() {
            let event = match &all[at] {
                Action::Keep(_) => Some(Event::Kept(true)),
                Action::Send(_, command) => Some(Event::Ended(self.end(&command.clone()))),
                _ => None,
            };
            all.extend(event.into_iter().flat_map(|event| self.machine.apply(event)));
            at += 1;
        }
        all
    }

    fn end(&mut self, command: &Command) -> End {
        match command {
            Command::In(InAction::ReadKeys) => match self.attention.take() {
                Some(code) => End::Attention(code),
                None => End::Good(Keys { generation: 1, keys: vec![GUESTS] }.bytes()),
            },
            Command::In(_) => End::Good(self.reservation.clone()),
            Command::Out(..) => End::Good(Vec::new()),
        }
    }
}

fn answer(actions: &[Action]) -> Option<&Answer> {
    actions.iter().find_map(|action| match action {
        Action::Answer(_, answer) => Some(answer),
        _ => None,
    })
}

#[test]
fn reservation_of_a_type_that_does_not_exist_stands_in_nobodys_way() {
    let mut desk = Desk::new();
    let preempt = Parameters { key: GUESTS, action_key: Key(9), ..Parameters::default() };
    let held =
        |key: u8| [0, 0, 0, 1, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0, key, 0, 0, 0, 0, 0, 0, 0, 0];
    desk.reservation = held(7).to_vec();
    let told = desk.out(OutAction::Preempt, Some(Type::ExclusiveAccess), preempt);
    assert_eq!(answer(&told), Some(&Answer::Good(Vec::new())));
    assert!(told.contains(&Action::Pin(Some(PATH))), "it is the type that was asked for: {told:?}");
    let asked = In { action: InAction::ReadReservation, allocation: 24 };
    let told = desk.ask(Request::In(asked));
    let Some(Answer::Good(data)) = answer(&told) else { panic!("{told:?}") };
    assert_eq!(data[4..], held(7)[4..], "as it came, but for PRGENERATION");
}

#[test]
fn preempt_that_is_told_to_its_own_nexus_is_not_told_to_the_guest() {
    let mut desk = Desk::new();
    let preempt = Parameters { key: GUESTS, action_key: GUESTS, ..Parameters::default() };
    let out = Out::new(OutAction::Preempt, Some(Type::WriteExclusive), parameters::BASIC as u32);
    let mut actions = desk.machine.apply(Event::Asked(Ticket(1), Request::Out(out, preempt)));
    let (mut sent, mut told) = (false, Vec::new());
    while answer(&actions).is_none() {
        let event = actions.iter().find_map(|action| match action {
            Action::Keep(_) => Some(Event::Kept(true)),
            Action::Send(_, command) => {
                let changes = matches!(command, Command::Out(..));
                let end = desk.end(&command.clone());
                if changes {
                    (sent, desk.attention) = (true, Some(Asc::REGISTRATIONS_PREEMPTED));
                }
                Some(Event::Ended(end))
            }
            _ => None,
        });
        actions = desk.machine.apply(event.expect("it goes on"));
        told.extend(actions.iter().filter(|one| matches!(one, Action::Attention(..))).cloned());
    }
    assert!(sent && desk.attention.is_none(), "it was told, to us");
    assert_eq!(told, []);
}

#[test]
fn release_of_what_the_guest_does_not_hold_is_not_expected_to_be_told() {
    let release =
        Out::new(OutAction::Release, Some(Type::WriteExclusive), parameters::BASIC as u32);
    let unregister = Out::new(OutAction::Register, None, parameters::BASIC as u32);
    let given = Parameters { key: GUESTS, ..Parameters::default() };
    let commands = [release, unregister].map(|out| Command::Out(out, given.clone()));
    for command in &commands {
        assert_eq!(made(command, false), []);
    }
    for command in &commands {
        assert_eq!(made(command, true), [Asc::RESERVATIONS_RELEASED]);
    }
}
