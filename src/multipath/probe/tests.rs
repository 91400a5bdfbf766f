//! Probes that are fed what an array would say.

use super::*;
use crate::lun::face::samples;
use crate::path::{Failure, Reach, Residual};
use crate::scsi::{Sense, SenseKey, opcode};

fn answer(status: Status, sense: Option<(SenseKey, Asc)>) -> Fate {
    let sense = sense.map(|(key, asc)| Box::new(Sense::fixed(key, asc)));
    Fate::Answered(Answer { status, sense, residual: Residual::None })
}

fn check(key: SenseKey, asc: Asc) -> Fate {
    answer(Status::CHECK_CONDITION, Some((key, asc)))
}

/// An array on port 1 of group 1 that answers every question, in the given access state.
fn reply(question: &Question, state: u8) -> (Fate, Vec<u8>) {
    let facts = samples::facts();
    let cdb = question.cdb.padded();
    let good = answer(Status::GOOD, None);
    let data = match (cdb[0], cdb[1]) {
        (0x12, 0) => facts.inquiry.for_guest().tap(|bytes| bytes[5] |= 0x10),
        (0x12, _) if cdb[2] == 0 => vec![0, 0, 0, 4, 0, 0x80, 0x83, 0xB0],
        (0x12, _) => facts.pages[&cdb[2]].clone(),
        (0x9E, _) => facts.capacity.unwrap().encode_16().to_vec(),
        (0xA3, 0x0A | 0x2A) => vec![0, 0, 0, 12, 0x80 | state, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1],
        (0xA3, 0x0C) => return (check(SenseKey::IllegalRequest, Asc(0x20, 0)), vec![]),
        _ => Vec::new(),
    };
    (good, data)
}

trait Tap: Sized {
    fn tap(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }
}
impl Tap for Vec<u8> {}

fn run(mut probe: Probe, mut reply: impl FnMut(&Question) -> (Fate, Vec<u8>)) -> Finding {
    for _ in 0..64 {
        let (fate, data) = reply(&probe.question());
        if let Step::Found(finding) = probe.feed(&fate, &data) {
            return finding;
        }
    }
    panic!("the probe does not end");
}

#[test]
fn full_probe_brings_the_identity() {
    let Finding::Alive(identity) = run(Probe::full(), |question| reply(question, 0)) else {
        panic!("not alive");
    };
    assert_eq!(identity.access, Some(AccessState::ActiveOptimized));
    assert!(identity.report.unwrap().groups[0].preferred);
    assert_eq!(identity.facts.capacity, samples::facts().capacity);
    assert_eq!(identity.facts.wwid(), samples::facts().wwid());
}

#[test]
fn full_probe_reads_the_medium_only_where_the_state_allows() {
    for (state, reads) in [(0, 1), (1, 1), (2, 0), (3, 0)] {
        let mut read = 0;
        run(Probe::full(), |question| {
            read += u32::from(question.cdb.opcode() == opcode::READ_16);
            reply(question, state)
        });
        assert_eq!(read, reads, "state {state}");
    }
}

#[test]
fn unreadable_medium_is_dead_although_ready() {
    let finding = run(Probe::full(), |question| match question.cdb.opcode() {
        opcode::READ_16 => (check(SenseKey::MediumError, Asc(0x11, 0)), vec![]),
        _ => reply(question, 0),
    });
    assert!(matches!(finding, Finding::Dead(why) if why.starts_with("cannot read")));
}

#[test]
fn reservation_conflict_counts_as_alive() {
    let finding = run(Probe::full(), |question| match question.cdb.opcode() {
        opcode::READ_16 | 0 => (answer(Status::RESERVATION_CONFLICT, None), vec![]),
        _ => reply(question, 0),
    });
    assert!(matches!(finding, Finding::Alive(_)));
}

#[test]
fn unit_attentions_are_cleared_up_to_a_bound() {
    let attention = || (check(SenseKey::UnitAttention, Asc::POWER_ON_OR_RESET), vec![]);
    let mut left = 3;
    let finding = run(Probe::full(), |question| {
        left -= 1;
        if left >= 0 { attention() } else { reply(question, 0) }
    });
    assert!(matches!(finding, Finding::Alive(_)));
    assert!(matches!(run(Probe::full(), |_| attention()), Finding::Dead(_)));
}

#[test]
fn identity_is_read_again_after_a_unit_attention_that_makes_it_doubtful() {
    for code in [Asc::REPORTED_LUNS_CHANGED, Asc::CAPACITY_DATA_HAS_CHANGED] {
        let (mut told, mut asked) = (false, 0);
        run(Probe::full(), |question| {
            asked += u32::from(question.cdb.bytes() == [0x12, 1, 0x83, 0x10, 0, 0]);
            match question.cdb.opcode() {
                opcode::READ_16 if !std::mem::replace(&mut told, true) => {
                    (check(SenseKey::UnitAttention, code), vec![])
                }
                _ => reply(question, 0),
            }
        });
        assert_eq!(asked, 2);
    }
}

#[test]
fn ready_probe_tells_what_makes_the_identity_doubtful() {
    let ready = || (answer(Status::GOOD, None), vec![]);
    assert_eq!(run(Probe::ready(), |_| ready()), Finding::Ready);
    let changed = || (check(SenseKey::UnitAttention, Asc::REPORTED_LUNS_CHANGED), vec![]);
    assert_eq!(run(Probe::ready(), |_| changed()), Finding::Doubtful);
}

#[test]
fn overloaded_path_is_alive() {
    let full = || (answer(Status::TASK_SET_FULL, None), vec![]);
    assert_eq!(run(Probe::ready(), |_| full()), Finding::Ready);
    assert_eq!(run(Probe::full(), |_| full()), Finding::Loaded);
}

#[test]
fn transport_failure_is_dead() {
    let lost = || (Fate::Failed(Failure::Disconnected, Reach::NotSent), vec![]);
    assert!(matches!(run(Probe::full(), |_| lost()), Finding::Dead(_)));
}

#[test]
fn short_data_never_panics() {
    for len in 0..64 {
        for fill in [0, 1, 0x60, 0xFF] {
            run(Probe::full(), |question| {
                let len = len.min(question.room);
                (answer(Status::GOOD, None), vec![fill; len])
            });
        }
    }
}

#[test]
fn reading_probe_only_reads() {
    let read = |fate: Fate| {
        let capacity = samples::facts().capacity.unwrap();
        run(Probe::read(capacity), |question| {
            let room = capacity.block_size as usize;
            assert_eq!((question.cdb.opcode(), question.room), (opcode::READ_16, room));
            (fate.clone(), vec![])
        })
    };
    for status in [Status::GOOD, Status::RESERVATION_CONFLICT, Status::BUSY] {
        assert_eq!(read(answer(status, None)), Finding::Ready);
    }
    let medium = check(SenseKey::MediumError, Asc(0x11, 0));
    assert!(matches!(read(medium), Finding::Unreadable(why) if why.starts_with("cannot read")));
    assert_eq!(read(check(SenseKey::NotReady, Asc::ALUA_STANDBY)), Finding::Changed);
    let changed = check(SenseKey::UnitAttention, Asc::REPORTED_LUNS_CHANGED);
    assert_eq!(read(changed), Finding::Doubtful);
}

#[test]
fn question_over_which_the_host_stumbled_is_asked_again_and_not_for_ever() {
    for failure in [Failure::Transient, Failure::HostBusy] {
        let mut stumbles = 0;
        let found = run(Probe::full(), |question| {
            stumbles += 1;
            match stumbles {
                2..=4 => (Fate::Failed(failure, Reach::NotSent), vec![]),
                _ => reply(question, 0),
            }
        });
        assert!(matches!(found, Finding::Alive(_)), "{found:?}");
        let always = || (Fate::Failed(failure, Reach::NotSent), vec![]);
        assert!(matches!(run(Probe::full(), |_| always()), Finding::Dead(_)));
    }
}
