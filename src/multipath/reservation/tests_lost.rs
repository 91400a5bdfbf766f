//! What is told of a path while others speak, and what is lost with the last one.

use super::*;
use crate::ids::PathId;
use crate::scsi::reservation::{Key, Out, OutAction, Parameters, parameters};
use crate::scsi::{Asc, SenseKey};

const PATH: PathId = PathId(0);

fn begun() -> Machine {
    let mut machine = Machine::default();
    machine.apply(Event::Restored(None));
    let up = Event::Up { path: PATH, name: "a".to_owned(), nexus: None };
    assert!(machine.apply(up).contains(&Action::Admit(PATH)));
    machine
}

#[test]
fn path_that_is_told_to_be_down_is_not_expelled_as_well() {
    let mut machine = begun();
    assert_eq!(machine.apply(Event::Down(PATH)), []);
}

#[test]
fn command_that_is_lost_with_the_last_path_is_not_sent_again() {
    let mut machine = begun();
    let given = Parameters { action_key: Key(7), ..Parameters::default() };
    let out = Out::new(OutAction::Register, None, parameters::BASIC as u32);
    let mut actions = machine.apply(Event::Asked(Ticket(1), Request::Out(out, given)));
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
    let given = Parameters { action_key: Key(7), ..Parameters::default() };
    let out = Out::new(OutAction::Register, None, parameters::BASIC as u32);
    let mut actions = machine.apply(Event::Asked(Ticket(1), Request::Out(out, given)));
    while let Some(Action::Send(..)) = actions.first() {
        actions = machine.apply(Event::Ended(End::Busy));
    }
    assert_eq!(actions, [Action::Answer(Ticket(1), Answer::Busy)]);
}
