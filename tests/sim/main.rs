//! The deterministic simulation: real lanes, core and virtual LUN over simulated paths, clock and
//! guest, from a seed. An oracle holds each answer against a model of the disk.
//!
//! ```text
//!   seed -> Options (a swarm: each seed its own) -> World::run
//!             guest --> Lane::turn --> SimChannel --> fabric (delays, losses, late writes) --> array
//!               |          ^   mail                                                             |
//!               |      Manager::turn <-- probes' answers ---------------------------------------'
//!               '--> oracle: may this answer be? may this attempt be sent? may this write land?
//! ```
//!
//! `SIM_SEEDS=N` runs N seeds from `SIM_FIRST` on, `SIM_ALL=1` does not stop at the first failure.
//! A failure prints the one command that replays it; `SIM_LOUD=1` adds every turn. Reading order:
//! [`options`], [`world`], [`fabric`], [`sessions`], [`oracle`].

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so")]

mod array;
mod blocked;
mod cluster;
mod command;
mod crash;
mod fabric;
mod faults;
mod guest;
mod health;
mod hedges;
mod identity;
mod initiators;
mod judge;
#[path = "../../src/path/emulated/tests/reservations/model.rs"]
#[allow(dead_code, reason = "the array's own tests break its rules")]
mod model;
mod mutants;
mod options;
mod oracle;
mod parking;
mod plans;
mod random;
mod referee;
mod run;
mod scenarios;
mod scene;
mod serve;
mod sessions;
mod transport;
mod verdict;
mod world;

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// As the model calls it.
use vhost_user_scsi_mpath::scsi;

use crate::options::Options;
use crate::run::run;
use crate::scene::{Counts, Violation};

/// Seeds of a plain `cargo test`.
const SEEDS_DEFAULT: u64 = 200;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn seeds_keep_every_rule() {
    seeds(Options::swarm, "replay", 1);
}

/// Runs the seeds that the environment names, each with the options of its own, or one of `share` of
/// them where a seed takes as long as so many others; `replay` is the test that runs one of them.
fn seeds(options: fn(u64) -> Options, replay: &str, share: u64) {
    let seeds = number("SIM_SEEDS").unwrap_or(SEEDS_DEFAULT).div_ceil(share);
    let first = number("SIM_FIRST").unwrap_or(1);
    let (next, done, failed) = (AtomicU64::new(first), AtomicU64::new(0), AtomicBool::new(false));
    let failures: Mutex<Vec<(u64, Violation)>> = Mutex::default();
    let totals: Mutex<Counts> = Mutex::default();
    let began = Instant::now();
    let worker = || {
        while !failed.load(Relaxed) {
            let seed = next.fetch_add(1, Relaxed);
            if seed >= first + seeds {
                return;
            }
            match run(seed, options(seed), false) {
                Ok(counts) => totals.lock().unwrap().add(&counts),
                Err(violation) => {
                    failures.lock().unwrap().push((seed, violation));
                    failed.store(number("SIM_ALL").is_none(), Relaxed);
                }
            }
            let done = done.fetch_add(1, Relaxed) + 1;
            if done % (seeds / 40).max(250) == 0 {
                println!("{done} of {seeds} seeds, {:.0} s", began.elapsed().as_secs_f64());
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        (0..threads).for_each(|_| drop(scope.spawn(worker)));
    });
    let per_second = done.load(Relaxed) as f64 / began.elapsed().as_secs_f64();
    println!("{:.0} seeds a second; {:?}", per_second, totals.lock().unwrap());
    let mut failures = failures.into_inner().unwrap();
    failures.sort_by_key(|(seed, _)| *seed);
    for (seed, Violation { rule, text, at }) in &failures {
        println!(
            "seed {seed} after {at:?}: {rule:?}: {text}\n  replay: SIM_SEED={seed} cargo test --test sim {replay} -- --exact --nocapture"
        );
    }
    assert!(failures.is_empty(), "{} of {seeds} seeds broke a rule", failures.len());
}

/// Runs the seed that SIM_SEED names and says everything that happens.
#[test]
fn replay() {
    replay_seed(Options::swarm);
}

fn replay_seed(options: fn(u64) -> Options) {
    let Some(seed) = number("SIM_SEED") else {
        return println!("nothing to replay: SIM_SEED names no seed");
    };
    let options = options(seed);
    println!("{options:#?}");
    let from = Instant::now();
    let result = run(seed, options, true);
    println!("{result:?} in {:?}", from.elapsed());
    assert!(result.is_ok(), "seed {seed}: {result:?}");
}

#[test]
fn seed_runs_the_same_twice() {
    for seed in 1..6 {
        let [one, two] = [(); 2].map(|()| format!("{:?}", run(seed, Options::swarm(seed), false)));
        assert_eq!(one, two, "seed {seed}");
    }
}

impl Counts {
    fn add(&mut self, other: &Counts) {
        self.commands += other.commands;
        self.retries += other.retries;
        self.failovers += other.failovers;
        self.holds += other.holds;
        self.late_writes += other.late_writes;
        self.faults += other.faults;
        self.tasks += other.tasks;
        self.stops += other.stops;
        self.attentions += other.attentions;
        self.own_events += other.own_events;
        self.errors += other.errors;
        self.sessions += other.sessions;
        self.logins_again += other.logins_again;
        self.proofs += other.proofs;
        self.parked += other.parked;
        self.sent_on_proof += other.sent_on_proof;
        self.clones += other.clones;
        self.clones_won += other.clones_won;
        self.left_behind += other.left_behind;
        self.gone += other.gone;
        self.sizes += other.sizes;
        self.sets += other.sets;
        self.orders += other.orders;
        self.others += other.others;
        self.races += other.races;
        self.shut_out += other.shut_out;
        self.conflicts += other.conflicts;
        self.crashes += other.crashes;
    }
}

/// Directed tests read better in milliseconds.
fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}
