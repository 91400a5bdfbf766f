//! What the policies do with a load: a small deterministic model of paths, and how each policy
//! divides commands over them.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::select::PathSet;
use super::{Entry, Load, PathState, Policy, Selector, Table};
use crate::ids::PathId;
use crate::scsi::alua::AccessState;

/// A path: every command takes `fixed`, however many there are; their data goes over one wire, one
/// after the other, and so does a part of each command.
#[derive(Clone, Copy)]
struct Model {
    fixed_us: u64,
    serial_us: u64,
    bytes_per_us: u64,
}

/// A port of a fast array: 100 us, 100,000 commands a second, 1 GB/s.
const FAST: Model = Model { fixed_us: 90, serial_us: 10, bytes_per_us: 1000 };
/// The same, four times slower.
const SLOW: Model = Model { fixed_us: 360, serial_us: 40, bytes_per_us: 250 };

/// What a run was like.
#[derive(Debug)]
struct Result {
    /// Commands that each path carried.
    commands: Vec<u64>,
    /// How long each command took, in microseconds, sorted.
    took: Vec<u64>,
    /// How long the run took.
    end_us: u64,
}

impl Result {
    fn mean(&self) -> f64 {
        self.took.iter().sum::<u64>() as f64 / self.took.len() as f64
    }

    fn percentile(&self, percent: usize) -> u64 {
        self.took[self.took.len() * percent / 100]
    }

    /// Of a hundred commands, so many went over path `at`.
    fn share(&self, at: usize) -> u64 {
        (self.commands[at] * 100 + self.took.len() as u64 / 2) / self.took.len() as u64
    }
}

/// The load: closed loops.
#[derive(Clone, Copy)]
struct Guest {
    lanes: usize,
    depth: usize,
    /// Bytes of the commands, one after the other.
    sizes: &'static [u32],
}

const SMALL: &[u32] = &[4096];
const MIXED: &[u32] = &[4096, 4096, 4096, 4096, 4096, 4096, 4096, 4096, 4096, 1 << 20];

/// The end of a command: when, its number, over which path, of which lane, its bytes, when sent.
type End = (u64, u64, usize, usize, u32, u64);

struct Run {
    base: Instant,
    models: Vec<Model>,
    table: Table,
    selectors: Vec<Selector>,
    /// When each path's wire is free.
    wires: Vec<u64>,
    ends: BinaryHeap<Reverse<End>>,
    result: Result,
    sent: u64,
}

impl Run {
    fn new(policy: Policy, models: &[Model], guest: Guest) -> Self {
        let base = Instant::now();
        let mut table = Table::empty(policy);
        let entry = |at: usize| Entry {
            id: PathId(at as u16),
            state: PathState::Up,
            access: AccessState::ActiveOptimized,
            optimized: true,
            numa_node: None,
            load: Arc::new(Load::new(base)),
        };
        table.entries = (0..models.len()).map(entry).collect();
        Run {
            base,
            models: models.to_vec(),
            table,
            selectors: (0..guest.lanes).map(|_| Selector::default()).collect(),
            wires: vec![0; models.len()],
            ends: BinaryHeap::new(),
            result: Result { commands: vec![0; models.len()], took: Vec::new(), end_us: 0 },
            sent: 0,
        }
    }

    fn at(&self, us: u64) -> Instant {
        self.base + Duration::from_micros(us)
    }

    fn send(&mut self, lane: usize, guest: Guest, now: u64) {
        // A bijection of the counter that has no rhythm in common with the paths or lanes.
        let draw = self.sent.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
        let bytes = guest.sizes[draw as usize % guest.sizes.len()];
        self.sent += 1;
        let at = self.at(now);
        let path = self.selectors[lane].select(&self.table, &PathSet::default(), bytes, at);
        let path = usize::from(path.unwrap().0);
        self.table.entries[path].load.started(bytes);
        let model = self.models[path];
        let busy = model.serial_us + u64::from(bytes) / model.bytes_per_us;
        self.wires[path] = self.wires[path].max(now) + busy;
        // A little unevenness, as everywhere.
        let end = self.wires[path] + model.fixed_us + draw % 7;
        self.ends.push(Reverse((end, self.sent, path, lane, bytes, now)));
        self.result.commands[path] += 1;
    }

    /// Runs on for `count` commands.
    fn go_on(&mut self, guest: Guest, count: usize) {
        let goal = self.result.took.len() + count;
        while self.result.took.len() < goal {
            let Reverse((end, _, path, lane, bytes, sent)) = self.ends.pop().unwrap();
            let (sent_at, now) = (self.at(sent), self.at(end));
            self.table.entries[path].load.ended(
                bytes,
                now.saturating_duration_since(sent_at),
                now,
                true,
            );
            self.result.took.push(end - sent);
            self.result.end_us = end;
            self.send(lane, guest, end);
        }
    }

    /// All commands of all lanes at one moment: nobody sees another's answer.
    fn begin(&mut self, guest: Guest) {
        (0..guest.lanes * guest.depth).for_each(|at| self.send(at % guest.lanes, guest, 0));
    }
}

const COMMANDS: usize = 20_000;

fn run(policy: Policy, models: &[Model], guest: Guest) -> Result {
    let mut run = Run::new(policy, models, guest);
    run.begin(guest);
    run.go_on(guest, COMMANDS);
    run.result.took.sort_unstable();
    run.result
}

const ALL: [Policy; 4] =
    [Policy::Numa, Policy::RoundRobin, Policy::QueueDepth, Policy::ServiceTime];

fn guests() -> impl Iterator<Item = Guest> {
    let sizes = [SMALL, MIXED];
    let loads = [(1, 1), (1, 8), (4, 8), (16, 4)];
    sizes
        .into_iter()
        .flat_map(move |sizes| loads.map(|(lanes, depth)| Guest { lanes, depth, sizes }))
}

/// Prints how each policy divides each load: `cargo test policies_divide -- --nocapture`.
#[test]
fn policies_divide_what_they_are_given() {
    for (name, models) in [("equal", [FAST, FAST]), ("one four times slower", [FAST, SLOW])] {
        for guest in guests() {
            let mixed = if guest.sizes.len() > 1 { "mixed sizes" } else { "4 KiB" };
            println!("{name}, {mixed}, {} lanes of {}", guest.lanes, guest.depth);
            for policy in ALL {
                let result = run(policy, &models, guest);
                let rate = COMMANDS as f64 * 1000.0 / result.end_us as f64;
                println!(
                    "  {policy:14} {:3} % : {:3} %  mean {:7.0} us  p99 {:6} us  {rate:6.1} a ms",
                    result.share(0),
                    result.share(1),
                    result.mean(),
                    result.percentile(99),
                );
                assert_eq!(result.took.len(), COMMANDS);
                if policy == Policy::Numa {
                    assert_eq!(result.commands[1], 0, "one path carries all");
                }
            }
        }
    }
}

#[test]
fn service_time_is_no_worse_than_round_robin_on_equal_paths() {
    for guest in guests() {
        let [service, turns] = [Policy::ServiceTime, Policy::RoundRobin]
            .map(|policy| run(policy, &[FAST, FAST], guest));
        let what = format!("{} lanes of {}, {} sizes", guest.lanes, guest.depth, guest.sizes.len());
        assert!((35..=65).contains(&service.share(0)), "{what}: {} %", service.share(0));
        assert!(service.mean() <= turns.mean() * 1.1, "{what}: {}", service.mean());
        let (p99, other) = (service.percentile(99), turns.percentile(99));
        assert!(p99 as f64 <= other as f64 * 1.2, "{what}: p99 {p99} us, not {other} us");
    }
}

#[test]
fn service_time_leaves_a_slow_path_alone_until_the_fast_one_is_full() {
    let few = Guest { lanes: 2, depth: 4, sizes: SMALL };
    let service = run(Policy::ServiceTime, &[FAST, SLOW], few);
    assert!(service.percentile(99) < 2 * FAST.fixed_us, "{service:?}");
    assert_eq!(service.share(1), 0, "but for what measures it: {:?}", service.commands);
    assert!(service.commands[1] > 0, "measured now and then");
    // With 64 the fast one is full, and the slow one takes what it can.
    let many = Guest { depth: 32, ..few };
    let results = ALL.map(|policy| run(policy, &[FAST, SLOW], many));
    let [numa, turns, depth, service] = results.map(|result| result.end_us);
    assert!(service < numa && service < turns, "{service} {numa} {turns}");
    assert!(service as f64 <= depth as f64 * 1.05, "{service} {depth}");
}

#[test]
fn service_time_finds_out_when_a_path_is_fast_again() {
    let guest = Guest { lanes: 2, depth: 4, sizes: SMALL };
    let mut run = Run::new(Policy::ServiceTime, &[FAST, SLOW], guest);
    run.begin(guest);
    run.go_on(guest, COMMANDS);
    let before = run.result.commands.clone();
    run.models[1] = FAST;
    // Several seconds of this load, since it is asked once a second.
    run.go_on(guest, 40 * COMMANDS);
    let after = run.result.commands[1] - before[1];
    let last = 20 * COMMANDS as u64;
    assert!(after > last / 3, "{after} of {}", 40 * COMMANDS);
}

#[test]
fn no_policy_sends_a_herd_to_one_of_equal_paths() {
    for policy in [Policy::RoundRobin, Policy::QueueDepth, Policy::ServiceTime] {
        let guest = Guest { lanes: 16, depth: 4, sizes: SMALL };
        let mut run = Run::new(policy, &[FAST; 4], guest);
        run.begin(guest);
        run.go_on(guest, 1000);
        let mut most = 0;
        for _ in 0..200 {
            run.go_on(guest, 37);
            let under_way = run.table.entries.iter().map(|entry| entry.load.commands());
            most = most.max(under_way.max().unwrap());
        }
        assert!(most <= 32, "{policy}: {most} of 64 on one of four paths");
    }
}

#[test]
fn policy_changes_while_commands_are_under_way() {
    let guest = Guest { lanes: 4, depth: 8, sizes: MIXED };
    let mut run = Run::new(Policy::Numa, &[FAST, FAST], guest);
    run.begin(guest);
    for policy in [Policy::QueueDepth, Policy::Numa, Policy::ServiceTime, Policy::RoundRobin] {
        run.go_on(guest, 500);
        run.table.policy = policy;
        run.table.version.0 += 1;
        let before = run.result.commands[1];
        run.go_on(guest, 500);
        let second = run.result.commands[1] - before;
        match policy {
            Policy::Numa => assert_eq!(second, 0),
            _ => assert!((150..=350).contains(&second), "{policy}: {second} of 500"),
        }
    }
    let under_way: u32 = run.table.entries.iter().map(|entry| entry.load.commands()).sum();
    assert_eq!(under_way, 32, "every start has its end");
}
