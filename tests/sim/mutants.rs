//! Rules broken on purpose: each test lets something lie, and the oracle must notice by the rule
//! that it is there for.

use std::time::Duration;

use vhost_user_scsi_mpath::engine::Hedging;
use vhost_user_scsi_mpath::multipath::Failback;

use crate::command::Op;
use crate::faults::Fault;
use crate::options::{Lies, Options};
use crate::run::run;
use crate::scene::Rule;

/// Runs seeds with `change` until one of them breaks one of `rules`.
fn is_noticed(rules: &[Rule], seeds: u64, change: impl Fn(&mut Options)) {
    let mut others = Vec::new();
    for seed in 1..=seeds {
        let mut options = Options::swarm(seed);
        change(&mut options);
        match run(seed, options, false) {
            Err(violation) if rules.contains(&violation.rule) => return,
            Err(violation) => others.push((seed, violation)),
            Ok(_) => {}
        }
    }
    panic!("{seeds} seeds, and nobody noticed; instead: {others:?}");
}

/// Writes vanish and land late wherever they can.
fn stormy(options: &mut Options) {
    (options.lanes, options.ports, options.depth) = (2, 3, 6);
    (options.drop, options.late, options.proves, options.overlap) = (150, 1000, 0, 300);
    options.write_quiesce = Duration::from_millis(600);
    options.mix = Op::ALL.map(|op| match op {
        // Nobody reserves where there is one initiator.
        Op::ReserveOut | Op::ReserveIn => 0,
        op if op.writes() => 10,
        _ => 3,
    });
}

#[test]
fn storm_without_a_lie_breaks_no_rule() {
    for seed in 1..=60 {
        let mut options = Options::swarm(seed);
        stormy(&mut options);
        let result = run(seed, options, std::env::var_os("SIM_TRACE").is_some());
        assert!(result.is_ok(), "seed {seed}: {result:?}");
    }
}

#[test]
fn write_that_lands_after_the_quiesce_is_noticed() {
    is_noticed(&[Rule::NothingAfterTheAnswer, Rule::BlocksWait], 30, |options| {
        stormy(options);
        options.lies = Lies { lands_after_quiesce: true, ..Lies::default() };
    });
}

#[test]
fn write_that_lands_after_its_proof_is_noticed() {
    is_noticed(&[Rule::NothingAfterTheAnswer, Rule::BlocksWait], 30, |options| {
        stormy(options);
        options.proves = 1000;
        options.lies = Lies { lands_after_proof: true, ..Lies::default() };
    });
}

/// A storm on paths with sessions, whose targets end old tasks.
fn stormy_sessions(options: &mut Options) {
    stormy(options);
    (options.sessions, options.ends_old_tasks) = (1000, 1000);
    (options.login_max, options.lag) = (Duration::from_millis(30), 0);
}

#[test]
fn storm_on_sessions_without_a_lie_breaks_no_rule() {
    for seed in 1..=60 {
        let mut options = Options::swarm(seed);
        stormy_sessions(&mut options);
        let result = run(seed, options, std::env::var_os("SIM_TRACE").is_some());
        assert!(result.is_ok(), "seed {seed}: {result:?}");
    }
}

#[test]
fn login_that_does_not_end_old_tasks_is_noticed() {
    let lie = |options: &mut Options| {
        stormy_sessions(options);
        options.lies = Lies { login_ends_nothing: true, ..Lies::default() };
    };
    is_noticed(&[Rule::NothingAfterTheProof], 60, lie);
    // And by what it does to the data.
    is_noticed(&[Rule::NothingAfterTheAnswer, Rule::BlocksWait], 60, lie);
}

#[test]
fn proof_of_the_wrong_session_is_noticed() {
    is_noticed(&[Rule::NoOvertaking, Rule::NothingAfterTheAnswer], 10, |options| {
        stormy_sessions(options);
        options.lies = Lies { proof_names_the_next: true, ..Lies::default() };
    });
}

/// A storm on paths whose host keeps what is recalled, for longer than any quiesce time.
fn stormy_hosts(options: &mut Options) {
    stormy(options);
    (options.sessions, options.parks) = (0, 1000);
    (options.parked_max, options.lag) = (Duration::from_secs(4), 0);
}

#[test]
fn storm_on_hosts_that_keep_writes_breaks_no_rule() {
    let mut parked = 0;
    for seed in 1..=60 {
        let mut options = Options::swarm(seed);
        stormy_hosts(&mut options);
        match run(seed, options, std::env::var_os("SIM_TRACE").is_some()) {
            Ok(counts) => parked += counts.parked,
            Err(violation) => panic!("seed {seed}: {violation:?}"),
        }
    }
    assert!(parked > 0);
}

#[test]
fn parked_write_that_is_released_by_the_quiesce_is_noticed() {
    let lie = |options: &mut Options| {
        stormy_hosts(options);
        options.lies = Lies { parked_is_lost: true, ..Lies::default() };
    };
    is_noticed(&[Rule::NoOvertaking], 400, lie);
    // And by what it does to the data.
    is_noticed(&[Rule::NothingAfterTheAnswer, Rule::BlocksWait], 60, lie);
}

#[test]
fn core_without_a_quiesce_time_is_noticed() {
    is_noticed(&[Rule::NoOvertaking, Rule::NothingAfterTheAnswer], 10, |options| {
        stormy(options);
        options.lies = Lies { quiesce_is_zero: true, ..Lies::default() };
    });
}

#[test]
fn compare_and_write_that_is_executed_twice_is_noticed() {
    is_noticed(&[Rule::NeverTwice], 10, |options| {
        stormy(options);
        options.mix = Op::ALL.map(|op| u32::from(op == Op::CompareAndWrite));
        options.lies = Lies { executes_unsent: true, ..Lies::default() };
    });
}

#[test]
fn path_that_stores_data_after_the_end_is_noticed() {
    is_noticed(&[Rule::MemoryIsLentOnce], 40, |options| {
        stormy(options);
        options.mix = Op::ALL.map(|op| u32::from(op == Op::Read));
        options.lies = Lies { touches_memory_after_end: true, ..Lies::default() };
    });
}

/// Reads are cloned wherever they can be, and every other one is slow.
fn hedged(options: &mut Options) {
    (options.lanes, options.ports, options.depth) = (2, 3, 6);
    (options.lose, options.drop, options.overlap) = (30, 0, 0);
    (options.slow, options.slow_max) = (200, Duration::from_millis(200));
    options.mix =
        Op::ALL.map(|op| if op == Op::Read { 30 } else { u32::from(op == Op::Write) * 10 });
    let (budget, permille, samples_min) = (1.0, 500, 1);
    options.deadlines.hedging = Some(Hedging { budget, permille, samples_min });
}

#[test]
fn hedging_without_a_lie_breaks_no_rule() {
    let (mut clones, mut won, mut left) = (0, 0, 0);
    for seed in 1..=60 {
        let mut options = Options::swarm(seed);
        hedged(&mut options);
        let result = run(seed, options, std::env::var_os("SIM_TRACE").is_some());
        let counts = result.unwrap_or_else(|broken| panic!("seed {seed}: {broken:?}"));
        clones += counts.clones;
        won += counts.clones_won;
        left += counts.left_behind;
    }
    assert!(clones > 600 && won > 100 && left > 300, "{clones} clones, {won} won, {left} left");
}

#[test]
fn data_of_a_read_in_the_memory_of_another_is_noticed() {
    is_noticed(&[Rule::DataIsRight], 10, |options| {
        hedged(options);
        options.lies = Lies { mixes_up_memory: true, ..Lies::default() };
    });
}

#[test]
fn answer_that_comes_twice_is_noticed() {
    is_noticed(&[Rule::AnsweredOnce], 10, |options| {
        hedged(options);
        options.lies = Lies { answers_come_twice: true, ..Lies::default() };
    });
}

#[test]
fn answer_that_gets_lost_is_noticed() {
    is_noticed(&[Rule::InTime, Rule::AnsweredOnce], 10, |options| {
        options.lies = Lies { answers_get_lost: true, ..Lies::default() };
    });
}

#[test]
fn acknowledged_write_that_gets_lost_is_noticed() {
    is_noticed(&[Rule::DataIsRight], 10, |options| {
        options.lies = Lies { writes_get_lost: true, ..Lies::default() };
    });
}

#[test]
fn write_to_another_unit_is_noticed() {
    is_noticed(&[Rule::RightUnit], 20, |options| {
        options.faults = Fault::ALL.map(|fault| u32::from(fault == Fault::Remap));
        options.fault_every = Duration::from_millis(200);
        options.mix = Op::ALL.map(|op| u32::from(op.writes()));
        options.lies = Lies { remaps_in_disguise: true, ..Lies::default() };
    });
}

#[test]
fn attention_that_is_told_twice_is_noticed() {
    is_noticed(&[Rule::AttentionOnce], 20, |options| {
        options.fault_every = Duration::from_millis(200);
        options.lies = Lies { attentions_repeat: true, ..Lies::default() };
    });
}

#[test]
fn attention_that_gets_lost_is_noticed() {
    is_noticed(&[Rule::AttentionOnce], 20, |options| {
        (options.fault_every, options.tasks_every) = (Duration::from_millis(200), Duration::ZERO);
        options.faults = Fault::ALL.map(|fault| u32::from(fault == Fault::Mode));
        options.lies = Lies { attentions_get_lost: true, ..Lies::default() };
    });
}

#[test]
fn path_that_never_comes_up_is_noticed() {
    is_noticed(&[Rule::InTime, Rule::CleanEnd], 10, |options| {
        options.lies = Lies { probes_get_lost: true, ..Lies::default() };
    });
}

#[test]
fn size_that_one_port_does_not_have_is_noticed() {
    is_noticed(&[Rule::SizeIsAgreed], 20, |options| {
        options.mix = Op::ALL.map(|op| u32::from(matches!(op, Op::Read | Op::ReadCapacity)));
        (options.ports, options.fault_every) = (3, Duration::from_millis(400));
        options.faults = Fault::ALL.map(|fault| u32::from(fault == Fault::Grow));
        options.fault_length = Duration::from_secs(9);
        options.lies = Lies { grows_in_words: true, ..Lies::default() };
    });
}

#[test]
fn lesser_group_that_is_used_is_noticed() {
    is_noticed(&[Rule::BestGroup], 20, |options| {
        (options.ports, options.commands) = (3, 2000);
        (options.drop, options.lose, options.busy, options.aborted) = (0, 0, 0, 0);
        (options.failback, options.explicit) = (Failback::Immediate, false);
        (options.think, options.fault_every) = (Duration::from_millis(400), Duration::from_secs(9));
        options.faults = Fault::ALL.map(|fault| u32::from(fault == Fault::NonOptimized));
        options.fault_length = Duration::from_secs(60);
        options.lies = Lies { groups_lie: true, ..Lies::default() };
    });
}

#[test]
fn unit_that_is_denied_although_it_is_there_is_noticed() {
    is_noticed(&[Rule::NoNeedlessError, Rule::InTime, Rule::CleanEnd], 10, |options| {
        options.fault_every = Duration::ZERO;
        options.lies = Lies { denies_the_unit: true, ..Lies::default() };
    });
}
