//! What a command costs: CPU time of the backend per command, and commands per second.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::initiator::{read, read_capacity_10};
use crate::queue::Queue;

/// Longer than any command may take.
const LOST: Duration = Duration::from_secs(20);
/// The kernel's clock ticks, on every Linux of today.
const TICK: Duration = Duration::from_millis(10);

/// Processor time of a process so far, in its own code and in the kernel, in ticks.
fn ticks(process: u32) -> u32 {
    let line = std::fs::read_to_string(format!("/proc/{process}/stat")).expect("it runs");
    // The name, which comes second, may have anything in it.
    let fields = line.rsplit_once(") ").expect("proc(5)").1;
    fields.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<u32>().expect("a number")).sum()
}

/// Random reads of `bytes`, `depth` at a time, for `time`.
pub fn run(queue: &mut Queue, bytes: usize, depth: usize, process: u32, time: Duration) {
    let capacity = queue.fetch(&read_capacity_10());
    let blocks = u32::from_be_bytes([0, 1, 2, 3].map(|at| capacity[at])) + 1;
    let length = (bytes / 512) as u16;
    let places = u64::from(blocks / u32::from(length));
    let (mut random, mut under_way, mut commands) = (88_172_645_463_325_252_u64, 0, 0u32);
    let (before, start) = (ticks(process), Instant::now());
    while start.elapsed() < time {
        while under_way < depth {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            queue.submit(&read((random % places) as u32 * u32::from(length), length));
            under_way += 1;
        }
        let (_, completion) = queue.next(LOST).expect("an answer");
        assert!(completion.is_good(), "{completion:?}");
        (under_way, commands) = (under_way - 1, commands + 1);
    }
    let elapsed = start.elapsed().as_secs_f64();
    let cpu = (TICK * (ticks(process) - before)).as_secs_f64();
    println!(
        "{}",
        json!({
            "commands_per_second": (f64::from(commands) / elapsed).round(),
            "cpu_us": (cpu * 1e7 / f64::from(commands)).round() / 10.0,
        })
    );
    while under_way > 0 && queue.next(LOST).is_some() {
        under_way -= 1;
    }
}
