//! What is remembered, step by step: the thread's answers are waited for at its descriptor.

use std::path::Path;
use std::time::Duration;

use super::*;
use crate::control::{Holder, reply_slot};
use crate::scsi::reservation::{Key, Type};
use crate::state::Holding;

/// `reservation-import`, as the worker does it.
fn ask(reservations: &mut Reservations, exported: Exported, at_arrival: bool, reply: ReplyTo) {
    if let Some((reply, result)) = reservations.import(exported, at_arrival, reply) {
        reply.answer(result);
    }
}

/// A logical unit that no other run of the tests has.
fn wwid(end: &str) -> String {
    format!("test.{}.reservation.{end}", std::process::id())
}

fn opened(directory: &Path, identity: &str, wwid: &str) -> Reservations {
    let mut reservations =
        Reservations::new(Some(directory.to_owned()), Some(identity.to_owned())).unwrap();
    assert_eq!(reservations.turn(None, false, Instant::now()), None);
    assert!(reservations.refusal().unwrap().contains("name yet"));
    reservations.turn(Some(wwid), false, Instant::now());
    // The thread may have been quick enough for that turn.
    while matches!(reservations.state, State::Opening { .. }) {
        answered(&mut reservations, wwid);
    }
    reservations
}

/// Waits for one answer of the thread, and takes it.
fn answered(reservations: &mut Reservations, wwid: &str) -> Option<Event> {
    let waiting = crate::backend::waiting::Waiting::new(&[reservations.wait_fd()]).unwrap();
    let patience = Instant::now() + Duration::from_secs(60);
    assert!(waiting.wait(Some(patience)).unwrap(), "the thread does not answer");
    reservations.turn(Some(wwid), false, Instant::now())
}

fn shown(reservations: &Reservations) -> ReservationReport {
    let record = match &reservations.state {
        State::Kept { kept, .. } => words::record(kept),
        _ => Record::default(),
    };
    reservations.report(None, &Standing { record, ..Standing::default() })
}

fn exported(key: u64, wwid: &str) -> Exported {
    let kind = Type::WriteExclusiveRegistrantsOnly;
    let reservation = Some(Holding { kind, holder: Some("left".into()) });
    let (key, generation) = (Some(Key(key)), 4);
    let kept = Kept { key, aptpl: true, generation, reservation, ..Kept::default() };
    Exported::new(wwid.to_owned(), kept)
}

fn import(reservations: &mut Reservations, exported: Exported, wwid: &str) -> OrderResult {
    let (reply, mut answer) = reply_slot().unwrap();
    reservations.take_told();
    ask(reservations, exported, false, reply);
    if let Some(refused) = answer() {
        return refused;
    }
    let event = answered(reservations, wwid);
    let result = answer().expect("it is answered when it is written");
    assert_eq!(event.is_some(), result.is_ok(), "clients hear of what has changed");
    let told = reservations.take_told();
    assert_eq!(matches!(told[..], [machine::Event::Imported(_)]), result.is_ok());
    result
}

#[test]
fn import_lasts_over_a_restart_and_is_shown_and_exported() {
    let dir = tempfile::tempdir().unwrap();
    let wwid = wwid("a");
    let mut first = opened(dir.path(), "a", &wwid);
    assert_eq!(first.refusal(), None);
    let empty = shown(&first);
    assert_eq!((empty.state, empty.key, empty.holder), (StateKeeping::Kept, None, None));
    assert_eq!(import(&mut first, exported(0xABC, &wwid), &wwid), Ok(Reply::Done));
    drop(first);
    // The thread lets go of the file when it has seen that nobody wants anything any more.
    let patience = Instant::now() + Duration::from_secs(60);
    let second = std::iter::repeat_with(|| opened(dir.path(), "a", &wwid))
        .take_while(|_| Instant::now() < patience)
        .find(|second| second.refusal().is_none())
        .expect("the first one's thread ends");
    let report = shown(&second);
    assert_eq!(report.key.as_deref(), Some("0xabc"));
    assert_eq!(report.kind.as_deref(), Some("write-exclusive-registrants-only"));
    assert_eq!((report.holder, report.holder_path.as_deref()), (Some(Holder::Guest), Some("left")));
    assert_eq!((report.aptpl, report.generation), (true, 4));
    let file = report.state_file.unwrap();
    assert!(std::fs::read_to_string(&file).unwrap().contains("key = \"0xabc\""));
    let expected = Reply::ReservationExported(Box::new(exported(0xABC, &wwid)));
    assert_eq!(second.export(), Ok(expected));
}

#[test]
fn import_of_what_does_not_belong_here_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let wwid = wwid("b");
    let mut reservations = opened(dir.path(), "a", &wwid);
    let other = import(&mut reservations, exported(1, "naa.other"), &wwid).unwrap_err();
    assert!(other.contains("it is about the logical unit naa.other"), "{other}");
    // The second one comes before the first one is written.
    let (first, mut first_answer) = reply_slot().unwrap();
    let (second, mut second_answer) = reply_slot().unwrap();
    ask(&mut reservations, exported(1, &wwid), false, first);
    ask(&mut reservations, exported(2, &wwid), false, second);
    assert!(second_answer().unwrap().unwrap_err().contains("registered here with another key"));
    answered(&mut reservations, &wwid);
    assert_eq!(first_answer(), Some(Ok(Reply::Done)));
    let other = import(&mut reservations, exported(2, &wwid), &wwid).unwrap_err();
    assert!(other.contains("registered here with another key"), "{other}");
    assert_eq!(import(&mut reservations, exported(1, &wwid), &wwid), Ok(Reply::Done));
}

#[test]
fn plain_import_replaces_what_was_to_come_with_a_guest() {
    let dir = tempfile::tempdir().unwrap();
    let wwid = wwid("f");
    let mut reservations = opened(dir.path(), "a", &wwid);
    let (reply, mut answer) = reply_slot().unwrap();
    ask(&mut reservations, exported(1, &wwid), true, reply);
    assert_eq!(answer(), Some(Ok(Reply::Done)));
    assert!(reservations.expects_guest());
    assert_eq!(import(&mut reservations, exported(2, &wwid), &wwid), Ok(Reply::Done));
    assert!(!reservations.expects_guest());
    reservations.follow(Presence { here: true, departures: 0 });
    assert!(!reservations.expects_guest());
    assert_eq!(shown(&reservations).key.as_deref(), Some("0x2"));
}

#[test]
fn import_that_cannot_be_written_is_an_error_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let wwid = wwid("c");
    let mut reservations = opened(dir.path(), "a", &wwid);
    let file = shown(&reservations).state_file.unwrap();
    std::fs::create_dir(format!("{}.new", file.display())).unwrap();
    let error = import(&mut reservations, exported(1, &wwid), &wwid).unwrap_err();
    assert!(error.contains(": cannot write it: "), "{error}");
    assert_eq!(shown(&reservations).key, None);
    assert!(!file.exists());
}

#[test]
fn machine_is_told_what_was_kept_and_when_its_word_is_on_the_medium() {
    let dir = tempfile::tempdir().unwrap();
    let wwid = wwid("f");
    let mut reservations = opened(dir.path(), "a", &wwid);
    assert_eq!(reservations.take_told(), [machine::Event::Restored(None)]);
    let record = Record { key: Some(Key(7)), ..Record::default() };
    reservations.keep(&record);
    assert!(answered(&mut reservations, &wwid).is_some());
    assert_eq!(reservations.take_told(), [machine::Event::Kept(true)]);
    assert_eq!(shown(&reservations).key.as_deref(), Some("0x7"));
    let file = shown(&reservations).state_file.unwrap();
    std::fs::create_dir(format!("{}.new", file.display())).unwrap();
    reservations.keep(&Record::default());
    assert!(answered(&mut reservations, &wwid).is_none());
    assert_eq!(reservations.take_told(), [machine::Event::Kept(false)]);
    let mut nowhere = Reservations::new(None, Some("a".into())).unwrap();
    assert_eq!(nowhere.take_told(), [machine::Event::Stateless]);
    nowhere.keep(&record);
    assert_eq!(nowhere.take_told(), [machine::Event::Kept(false)]);
}

#[test]
fn reservations_without_a_place_or_with_a_wrong_file_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let wwid = wwid("d");
    let mut nowhere = Reservations::new(None, Some("a".into())).unwrap();
    nowhere.turn(Some(&wwid), false, Instant::now());
    assert_eq!(shown(&nowhere).state, StateKeeping::None);
    assert_eq!(nowhere.refusal().as_deref(), Some(NO_DIRECTORY));
    assert!(
        nowhere.export().unwrap_err().starts_with("nothing can be exported: there is no state_dir")
    );
    assert!(import(&mut nowhere, exported(1, &wwid), &wwid).is_err());
    let nobody = Reservations::new(Some(dir.path().to_owned()), None).unwrap();
    assert_eq!(nobody.refusal().as_deref(), Some(NO_IDENTITY));

    let first = opened(dir.path(), "a", &wwid);
    let second = opened(dir.path(), "a", &wwid);
    assert_eq!(shown(&second).state, StateKeeping::Unavailable);
    let reason = second.refusal().unwrap();
    assert!(reason.contains("has this file in use"), "{reason}");
    assert_eq!(first.refusal(), None);
}

#[test]
fn host_devices_want_the_only_claim_of_the_host() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let wwid = wwid("e");
    let mut first = opened(one.path(), "a", &wwid);
    let mut second = opened(two.path(), "b", &wwid);
    let now = Instant::now();
    first.turn(Some(&wwid), true, now);
    second.turn(Some(&wwid), true, now);
    assert_eq!(first.refusal(), None);
    let reason = second.refusal().unwrap();
    assert!(
        reason.starts_with("another backend makes reservations on this logical unit"),
        "{reason}"
    );
    assert_eq!(second.next_timer(), Some(now + CLAIM_RETRY));
    // Over sessions of its own it is an initiator of its own.
    second.turn(Some(&wwid), false, now);
    assert_eq!(second.refusal(), None);
    second.turn(Some(&wwid), true, now);
    drop(first);
    second.turn(Some(&wwid), true, now + CLAIM_RETRY / 2);
    assert!(second.refusal().is_some());
    second.turn(Some(&wwid), true, now + CLAIM_RETRY);
    assert_eq!(second.refusal(), None);
}
