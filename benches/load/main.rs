//! A front end that asks more of a backend than a guest does: the load generator of the benchmark.
//!
//! ```text
//!   main      (options; the result as one line of JSON)
//!   drive     (a thread and its request queues)
//!   target    (connects as QEMU does, with what the device offers)
//!   work      (which blocks, in which order, read or written)
//!   ring_sys  (a virtqueue on raw memory: nothing is allocated or copied for a command)
//!   times     (a histogram of latencies)
//!   usage     (processor time, system calls and sleeps of the backend)
//!   floor     (what waking a sleeping driver takes alone)
//! ```
//!
//! All requests lie in guest memory before the measurement; for a command a few words are written.
//! Answers are taken in batches, and each batch is one new batch of requests with one notification
//! at most. The data is not looked at: `verified_load` is for that.

// A panic is how this program ends when something is wrong.
#![allow(clippy::unwrap_used, missing_docs)]

mod drive;
mod floor;
mod ring_sys;
mod target;
mod times;
mod usage;
mod work;

/// The modules of tests/protocol that are in use here too, though not all that is in them.
macro_rules! shared {
    ($($name:ident: $path:literal,)*) => {
        $(#[allow(dead_code, unused_imports)] #[path = $path] mod $name;)*
    };
}

shared! {
    control: "../../tests/protocol/control.rs",
    driver: "../../tests/protocol/driver.rs",
    initiator: "../../tests/protocol/initiator.rs",
    memory: "../../tests/protocol/memory.rs",
    queue: "../../tests/protocol/queue.rs",
    ring: "../../tests/protocol/ring.rs",
    sys: "../../tests/protocol/sys.rs",
}

use std::path::PathBuf;
use std::sync::Barrier;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use serde_json::json;

use drive::{Driver, Phase, Seen};
use ring_sys::{FastRing, Tally};
use times::Times;
use usage::Usage;
use work::{Mix, Order, Work};

/// Sends commands for some time and prints what they cost as one line of JSON.
#[derive(Parser)]
struct Options {
    /// The backend's vhost-user socket.
    #[arg(long, required_unless_present = "floor", requires = "process")]
    socket: Option<PathBuf>,
    /// The backend's process, whose processor time is measured.
    #[arg(long, default_value_t = 0)]
    process: u32,
    /// Measures instead what waking a sleeping driver takes, without a backend.
    #[arg(long)]
    floor: bool,
    /// Request queues.
    #[arg(long, default_value_t = 1)]
    queues: usize,
    /// Threads that drive them, all alike; without it, one for each queue. A thread with several
    /// queues looks at their rings in turn.
    #[arg(long)]
    drivers: Option<usize>,
    /// Commands under way in each queue.
    #[arg(long, default_value_t = 32)]
    depth: u16,
    /// Bytes of a command, a multiple of 512.
    #[arg(long, default_value_t = 4096)]
    size: usize,
    #[arg(long, value_enum, default_value_t = Order::Random)]
    order: Order,
    #[arg(long, value_enum, default_value_t = Mix::Read)]
    mix: Mix,
    /// How the driver waits for answers.
    #[arg(long, value_enum, default_value_t = Wait::Poll)]
    wait: Wait,
    /// How long to measure.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Stops after so many commands in each queue instead, counted from the first one: for
    /// counting instructions.
    #[arg(long)]
    commands: Option<u64>,
    /// How long to run before that is measured.
    #[arg(long, default_value_t = 0.5)]
    warm: f64,
}

/// How the driver waits for answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Wait {
    /// It looks at the ring, and asks for no notification.
    Poll,
    /// It sleeps until it is notified, as a guest's driver does.
    Sleep,
}

fn main() {
    let options = Options::parse();
    if options.floor {
        let time = Duration::from_secs_f64(options.seconds);
        let seen = Seen { times: floor::run(time), tally: Tally::default() };
        let used = Usage { processor: Duration::ZERO, reads_and_writes: 0, sleeps: 0 };
        println!("{}", report(vec![seen], &used, time));
        return;
    }
    let socket = options.socket.as_deref().expect("clap has asked for it");
    let drivers = options.drivers.unwrap_or(options.queues);
    assert!((1..=options.queues).contains(&drivers), "1 to {} drivers", options.queues);
    assert!(
        options.wait == Wait::Poll || drivers == options.queues,
        "a driver that sleeps has one queue"
    );
    let device = target::start(socket, options.queues, options.depth, options.size);
    let (device, blocks) = device;
    let phase = Phase::default();
    let ready = Barrier::new(drivers + 1);
    let (seen, used, elapsed) = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..drivers)
            .map(|driver| {
                let queues = (driver..options.queues).step_by(drivers).map(|at| {
                    let work = Work::new(at, options.queues, blocks, &options);
                    (FastRing::new(&device, at, options.depth, options.size), work)
                });
                let driver = Driver::new(queues, &options);
                let (phase, ready) = (&phase, &ready);
                scope.spawn(move || {
                    ready.wait();
                    driver.run(phase)
                })
            })
            .collect();
        ready.wait();
        let (mut before, mut since) = (Usage::of(options.process), Instant::now());
        if options.commands.is_none() {
            std::thread::sleep(Duration::from_secs_f64(options.warm));
            (before, since) = (Usage::of(options.process), Instant::now());
            phase.measured.store(true, Ordering::Relaxed);
            std::thread::sleep(Duration::from_secs_f64(options.seconds));
        }
        let end = || {
            let used = Usage::of(options.process).since(&before);
            phase.over.store(true, Ordering::Relaxed);
            (used, since.elapsed())
        };
        let ended = options.commands.is_none().then(end);
        let seen =
            workers.into_iter().flat_map(|worker| worker.join().expect("a queue does not fail"));
        let seen: Vec<Seen> = seen.collect();
        let (used, elapsed) = ended.unwrap_or_else(end);
        (seen, used, elapsed)
    });
    println!("{}", report(seen, &used, elapsed));
}

fn report(seen: Vec<Seen>, used: &Usage, elapsed: Duration) -> serde_json::Value {
    let (mut times, mut tally) = (Times::new(), Tally::default());
    for one in &seen {
        times.merge(&one.times);
        tally.add(&one.tally);
    }
    let commands = times.count().max(1) as f64;
    let micro = |time: Duration| (time.as_nanos() as f64 / 100.0).round() / 10.0;
    let each = |count: u64| (count as f64 / commands * 1e4).round() / 1e4;
    json!({
        "commands": times.count(),
        "seconds": elapsed.as_secs_f64(),
        "commands_per_second": (commands / elapsed.as_secs_f64()).round(),
        "p50_us": micro(times.within(0.5)),
        "p99_us": micro(times.within(0.99)),
        "p999_us": micro(times.within(0.999)),
        "cpu_us": (used.processor.as_nanos() as f64 / commands / 10.0).round() / 100.0,
        "reads_and_writes": each(used.reads_and_writes),
        "sleeps": each(used.sleeps),
        "kicks": each(tally.kicks),
        "notifications": each(tally.notifications),
    })
}
