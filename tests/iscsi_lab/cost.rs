//! What a command costs the host, beside libiscsi's own `iscsi-perf` on the same disk.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::array::{DISK_BYTES, IQN};
use crate::backend::cpu;
use crate::initiator::read;
use crate::scene::{Settings, UP, wait_state};
use crate::tgtd::Tgtd;

const SECONDS: u64 = 5;
const DEPTH: usize = 32;
/// Of 4 KiB.
const BLOCKS: u16 = 8;

fn row(who: &str, commands: u64, cpu: Duration) {
    let per_command = cpu.as_secs_f64() * 1e6 / commands as f64;
    let rate = commands / SECONDS;
    println!("cost | {who:20} | {per_command:5.1} us of CPU a command | {rate} commands/s");
}

/// Seconds in what the shell's `times` prints: `0m1.230s`.
fn seconds(word: &str) -> f64 {
    let (minutes, seconds) = word.trim_end_matches('s').split_once('m').expect("0m0.000s");
    60.0 * minutes.parse::<f64>().expect("minutes") + seconds.parse::<f64>().expect("seconds")
}

fn iscsi_perf(address: &str) {
    let run = format!("iscsi-perf -m {DEPTH} -b {BLOCKS} -t {SECONDS} -r {address}; times");
    let output = Command::new("bash").args(["-c", &run]).output().expect("bash starts");
    let words = String::from_utf8_lossy(&output.stdout).into_owned();
    let average = words.rsplit("iops average ").next().and_then(|rest| rest.split(' ').next());
    let average: u64 = average.and_then(|words| words.parse().ok()).expect("an average");
    let of_children = words.trim_end().lines().last().expect("what `times` says");
    let cpu = of_children.split_whitespace().map(seconds).sum();
    row("iscsi-perf", average * SECONDS, Duration::from_secs_f64(cpu));
}

fn ours(tgtd: &Tgtd) {
    let settings = Settings::new("cost", "", "");
    let backend = settings.backend(&[format!("iscsi://{}/{IQN}/1", tgtd.address())]);
    wait_state(&mut backend.qmp(), tgtd.address().port(), "up", UP);
    let mut device = backend.guest(1);
    let queue = device.queue();
    queue.settle();
    let process = settings.process().0;
    let slots = DISK_BYTES / 4096;
    let (mut random, mut under_way, mut commands) = (88_172_645_463_325_252_u64, 0, 0);
    let (before, start) = (cpu(process), Instant::now());
    while start.elapsed() < Duration::from_secs(SECONDS) {
        while under_way < DEPTH {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            queue.submit(&read((random % slots) as u32 * u32::from(BLOCKS), BLOCKS));
            under_way += 1;
        }
        let (_, completion) = queue.next(UP).expect("an answer");
        assert!(completion.is_good(), "{completion:?}");
        (under_way, commands) = (under_way - 1, commands + 1);
    }
    row("this backend", commands, cpu(process) - before);
    while under_way > 0 && queue.next(UP).is_some() {
        under_way -= 1;
    }
}

#[test]
#[ignore = "a measurement: cargo test --release --test iscsi_lab cost -- --ignored --nocapture"]
fn cpu_per_command_beside_iscsi_perf() {
    let tgtd = Tgtd::start(1);
    let address = format!("iscsi://{}/{IQN}/1", tgtd.address());
    for _ in 0..2 {
        iscsi_perf(&address);
        ours(&tgtd);
    }
}
