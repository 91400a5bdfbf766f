//! A target that is alive and answers no command for a while is not given up for that: how long a
//! command may take is its lane's to say.

use std::time::{Duration, Instant};

use vhost_user_scsi_mpath::buffer::Segments;
use vhost_user_scsi_mpath::path::{Fate, Transport};
use vhost_user_scsi_mpath::scsi::Status;

use crate::puppet::Puppet;
use crate::session::{Session, settings};

/// Longer than a silent target is given.
const LONG: Duration = Duration::from_secs(4);

/// Sends `commands` TEST UNIT READYs, of which `taken` reach the target, and has all answered late.
fn all_are_answered_late(puppet: &Puppet, commands: usize, taken: usize) {
    let mut session = Session::open(&puppet.address(), &settings());
    session.up();
    for _ in 0..commands {
        session.submit(&[0; 6], &Segments::new(), &Segments::new());
    }
    let begin = Instant::now();
    while begin.elapsed() < LONG {
        session.look();
        let news = session.path.events();
        assert!(news.is_empty(), "after {:?}: {news:?}", begin.elapsed());
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(puppet.held(), taken);
    let mut answered = 0;
    while answered < commands {
        puppet.answer_all();
        session.look();
        for end in session.take_ends() {
            let Fate::Answered(answer) = &end.fate else { panic!("{end:?}") };
            assert_eq!(answer.status, Status::GOOD);
            answered += 1;
        }
        assert!(begin.elapsed() < 2 * LONG, "{answered} of {commands}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn slow_target_is_asked_and_stays() {
    let puppet = Puppet::start(8);
    all_are_answered_late(&puppet, 3, 3);
    assert!(puppet.nops() >= 2);
}

#[test]
fn slow_target_that_takes_no_more_commands_stays() {
    let puppet = Puppet::start(8);
    all_are_answered_late(&puppet, 20, 8);
}

#[test]
fn slow_target_that_takes_just_the_commands_there_are_stays() {
    let puppet = Puppet::start(8);
    all_are_answered_late(&puppet, 8, 8);
}
