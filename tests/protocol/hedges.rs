//! Reads that one path answers slowly now and then, with hedging and without.
//!
//! Each way reports the median, the 99th and the 99.9th percentile of its reads; the rows go to
//! stderr past the test harness, so that a run shows them whether it passes or not.

use std::collections::HashMap;
use std::io::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use crate::backend::{Backend, Setup, path_name};
use crate::driver::Device;
use crate::initiator::{pattern, read, write};
use crate::qmp::Qmp;
use crate::queue::{Layout, PROMPT};

/// Blocks of one read.
const BLOCKS: usize = 8;
/// Places that are read.
const PLACES: u32 = 128;
const DEPTH: usize = 8;
/// What the slow path adds, to three of a hundred commands.
const DELAY_MS: u64 = 200;
const SLOW_READS: usize = 4000;

struct Scene {
    device: Device,
    qmp: Qmp,
    name: String,
    _backend: Backend,
    next: u32,
}

/// How long reads took, sorted.
struct Took(Vec<Duration>);

impl Took {
    fn percentile(&self, permille: usize) -> Duration {
        self.0[(self.0.len() - 1) * permille / 1000]
    }

    /// Of a thousand, so many took as long as the fault makes them.
    fn slow(&self) -> usize {
        let slow = Duration::from_millis(DELAY_MS);
        self.0.iter().filter(|took| **took >= slow).count() * 1000 / self.0.len()
    }
}

impl Scene {
    fn start(setup: Setup) -> Self {
        let backend = setup.start();
        let mut qmp = backend.qmp();
        let name = path_name(&mut qmp, 1);
        let mut device = backend.guest(1);
        device.queue().settle();
        qmp.execute("set-iopolicy", json!({"iopolicy": "round-robin"}));
        for place in 0..PLACES {
            let data = pattern(place as u8, BLOCKS);
            device.queue().good(&write(place * BLOCKS as u32, data));
        }
        let mut scene = Scene { device, qmp, name, _backend: backend, next: 1 };
        // So many that it is known what is slow.
        scene.reads(2000);
        scene
    }

    /// Reads here and there, eight at a time, and looks at every byte.
    fn reads(&mut self, count: usize) -> Took {
        let queue = self.device.queue();
        let (mut under_way, mut took, mut sent) = (HashMap::new(), Vec::new(), 0);
        while took.len() < count {
            while sent < count && under_way.len() < DEPTH {
                self.next = self.next.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let place = (self.next >> 16) % PLACES;
                let layout = [Layout::Plain, Layout::Pieces(1024), Layout::Odd][place as usize % 3];
                let command = read(place * BLOCKS as u32, BLOCKS as u16).cut(layout);
                under_way.insert(queue.submit(&command), place);
                sent += 1;
            }
            let (ticket, completion) = queue.next(2 * PROMPT).expect("an answer");
            let place = under_way.remove(&ticket).expect("what is answered was asked");
            assert!(completion.is_good(), "{completion:?}");
            assert!(completion.data == pattern(place as u8, BLOCKS), "not what was written");
            took.push(completion.elapsed);
        }
        took.sort_unstable();
        Took(took)
    }

    fn break_path(&mut self) {
        let fault = json!({"path": self.name, "fault": "delay", "milliseconds": DELAY_MS,
            "probability": 0.03});
        self.qmp.execute("inject-fault", fault);
    }

    fn hedges(&mut self) -> Value {
        self.qmp.execute("query-stats", json!({}))["hedges"].clone()
    }
}

fn report(way: &str, took: &Took, more: &str) {
    let ms = |permille| took.percentile(permille).as_secs_f64() * 1000.0;
    let row = format!(
        "hedge | {way:30} | p50 {:7.2} ms | p99 {:7.2} ms | p99.9 {:7.2} ms | {more}\n",
        ms(500),
        ms(990),
        ms(999),
    );
    // Not `eprint!`, which the harness keeps to itself. A closed stderr is no test failure.
    let _ = std::io::stderr().write_all(row.as_bytes());
}

#[test]
fn slow_reads_of_one_path_are_cut_short() {
    let mut plain = Scene::start(Setup::ports(2));
    report("no fault", &plain.reads(SLOW_READS), "");
    plain.break_path();
    let without = plain.reads(SLOW_READS);
    report("3 % of one path slow", &without, "");
    assert_eq!(plain.hedges(), json!({"sent": 0, "won": 0, "denied": 0, "pauses": 0}));

    let mut hedged = Scene::start(Setup::ports(2).lun("hedged_reads = true"));
    report("no fault, hedged", &hedged.reads(SLOW_READS), &hedged.hedges().to_string());
    hedged.break_path();
    let with = hedged.reads(SLOW_READS);
    let hedges = hedged.hedges();
    let ratio = without.percentile(990).as_secs_f64() / with.percentile(990).as_secs_f64();
    report("3 % of one path slow, hedged", &with, &format!("{hedges}, p99 {ratio:.0} times less"));
    let count = |key: &str| hedges[key].as_u64().expect("a counter");
    assert!(count("won") > 0 && count("won") <= count("sent"), "{hedges}");
    // Of all reads, those before the fault too; a little more than the share, from what was saved.
    let all = 2000 + 2 * SLOW_READS as u64;
    assert!(count("sent") <= all / 50 + 8, "over the budget: {hedges}");
    assert!(without.slow() >= 8, "the fault is seen: {}", without.slow());
    assert!(with.slow() <= without.slow() / 2, "{} of {} are left", with.slow(), without.slow());
    // Each read counts once, whatever was sent for it.
    let stats = hedged.qmp.execute("query-stats", json!({}));
    assert_eq!(stats["lun"]["reads"], all, "{stats}");
}

#[test]
fn attempts_left_behind_do_not_hold_up_the_end() {
    let mut scene = Scene::start(Setup::ports(2).lun("hedged_reads = true"));
    scene.break_path();
    scene.reads(500);
    // Ends well, within its time, and with the guest's memory as it should be.
    scene.device.stop().expect("the rings stop");
}
