//! What is told of a path while others speak, and what is lost with the last one.

use super::*;
use crate::ids::PathId;
use crate::scsi::reservation::{
    In, InAction, Key, Keys, Out, OutAction, Parameters, Type, parameters,
};
use crate::scsi::{Asc, SenseKey};

const PATH: PathId = PathId(0);

fn begun() -> Machine {
    let mut machine = Machine::default();
    machine.apply(Event::Restored(None));
    let up = Event::Up { path: PATH, name: "a".to_owned(), nexus: None };
    assert!(machine.apply(up).contains(&Action::Admit(PATH)));
    machine
}

fn ask(
    machine: &mut Machine,
    action: OutAction,
    kind: Option<Type>,
    given: Parameters,
) -> Vec<Action> {
    let out = Out::new(action, kind, parameters::BASIC as u32);
    machine.apply(Event::Asked(Ticket(1), Request::Out(out, given)))
}

fn ask_to_register(machine: &mut Machine) -> Vec<Action> {
    let given = Parameters { action_key: Key(7), ..Parameters::default() };
    ask(machine, OutAction::Register, None, given)
}

/// Answers all that is sent with GOOD, where the array lists this key, and keeps all; returns all
/// actions, and those among which the guest's answer is.
fn finish(
    machine: &mut Machine,
    mut actions: Vec<Action>,
    listed: Key,
) -> (Vec<Action>, Vec<Action>) {
    let keys = Keys { generation: 0, keys: vec![listed] }.bytes();
    let mut all = actions.clone();
    loop {
        let next = actions.iter().find_map(|action| match action {
            Action::Answer(..) => Some(None),
            Action::Keep(_) => Some(Some(Event::Kept(true))),
            Action::Send(_, Command::In(InAction::ReadKeys)) => {
                Some(Some(Event::Ended(End::Good(keys.clone()))))
            }
            Action::Send(..) => Some(Some(Event::Ended(End::Good(vec![0; 8])))),
            _ => None,
        });
        match next.expect("it goes on") {
            Some(event) => {
                actions = machine.apply(event);
                all.extend(actions.clone());
            }
            None => return (all, actions),
        }
    }
}

#[test]
fn holders_path_is_known_before_the_answer_and_before_commands_go_on() {
    let mut machine = begun();
    let actions = ask_to_register(&mut machine);
    finish(&mut machine, actions, Key(7));
    let given = Parameters { key: Key(7), ..Parameters::default() };
    let actions = ask(&mut machine, OutAction::Reserve, Some(Type::WriteExclusive), given);
    let (all, _) = finish(&mut machine, actions, Key(7));
    let at = |wanted: fn(&Action) -> bool| all.iter().position(wanted).expect("it is wanted");
    let pin = at(|action| *action == Action::Pin(Some(PATH)));
    assert!(at(|action| *action == Action::Hold) < pin, "{all:?}");
    assert!(pin < at(|action| *action == Action::Resume), "{all:?}");
    assert!(pin < at(|action| matches!(action, Action::Answer(..))), "{all:?}");
}

#[test]
fn command_that_waits_is_dropped_when_nobody_waits_for_it() {
    let mut machine = begun();
    let actions = ask_to_register(&mut machine);
    let asked = In { action: InAction::ReadKeys, allocation: 8 };
    assert_eq!(machine.apply(Event::Asked(Ticket(2), Request::In(asked))), []);
    assert_eq!(machine.apply(Event::Forgotten(Ticket(2))), []);
    let (_, last) = finish(&mut machine, actions, Key(7));
    assert!(!last.iter().any(|action| matches!(action, Action::Send(..))), "{last:?}");
}

#[test]
fn path_that_is_told_to_be_down_is_not_expelled_as_well() {
    let mut machine = begun();
    assert_eq!(machine.apply(Event::Down(PATH)), []);
}

#[test]
fn command_that_is_lost_with_the_last_path_is_not_sent_again() {
    let mut machine = begun();
    let mut actions = ask_to_register(&mut machine);
    let mut sent = 0;
    let answer = loop {
        let next = actions.into_iter().find_map(|action| match action {
            Action::Answer(_, answer) => Some(Err(answer)),
            Action::Keep(_) => Some(Ok(Event::Kept(true))),
            Action::Send(_, Command::Out(..)) => {
                sent += 1;
                Some(Ok(Event::Ended(End::Lost)))
            }
            // Nothing stands, as long as anybody answers.
            Action::Send(_, Command::In(_)) if sent == 0 => {
                Some(Ok(Event::Ended(End::Good(vec![0; 8]))))
            }
            Action::Send(..) => Some(Ok(Event::Ended(End::NotExecuted))),
            _ => None,
        });
        match next.expect("it goes on") {
            Ok(event) => actions = machine.apply(event),
            Err(answer) => break answer,
        }
    };
    assert_eq!((sent, answer), (1, Answer::Check(SenseKey::AbortedCommand, Asc::NONE)));
    let record = machine.standing().record;
    assert_eq!((record.key, record.coming), (None, Some(Key(7))), "either may stand");
}

#[test]
fn busy_array_costs_no_path() {
    let mut machine = begun();
    let mut actions = ask_to_register(&mut machine);
    while let Some(Action::Send(..)) = actions.first() {
        actions = machine.apply(Event::Ended(End::Busy));
    }
    assert_eq!(actions, [Action::Answer(Ticket(1), Answer::Busy)]);
}
