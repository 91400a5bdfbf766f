//! Verified I/O in a virtual machine: on a backend's socket as a guest's driver, or on a block
//! device, from the same load.
//!
//! ```text
//!   main     (options; SIGUSR1 marks a moment, SIGTERM ends the load)
//!   device   (a block device, as the load wants its disks)
//!   summary  (what the load has seen, phase by phase, as JSON)
//!   measure  (commands per second and CPU per command instead)
//!   command  (one command instead)
//!      |
//!   tests/protocol's front end: the driver, the load
//! ```

// Everything here is test code, where a panic is a verdict.
#![allow(clippy::unwrap_used, missing_docs)]

mod command;
mod device;
mod measure;
mod summary;

/// The modules of tests/protocol that are in use here too, though not all that is in them.
macro_rules! shared {
    ($($name:ident: $path:literal,)*) => {
        $(#[allow(dead_code, unused_imports)] #[path = $path] mod $name;)*
    };
}

shared! {
    control: "../../protocol/control.rs",
    driver: "../../protocol/driver.rs",
    initiator: "../../protocol/initiator.rs",
    load: "../../protocol/load.rs",
    memory: "../../protocol/memory.rs",
    queue: "../../protocol/queue.rs",
    ring: "../../protocol/ring.rs",
    sys: "../../protocol/sys.rs",
}

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Parser;
use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;

use device::BlockDevice;
use driver::{Config, Device};
use load::{Disk, Load, Mix};

/// Runs verified I/O until SIGTERM, and prints what it has seen as one line of JSON.
#[derive(Parser)]
struct Options {
    /// A backend's vhost-user socket.
    #[arg(long)]
    socket: Option<PathBuf>,
    /// A block device, past the page cache.
    #[arg(long, conflicts_with = "socket", required_unless_present = "socket")]
    device: Option<PathBuf>,
    /// Request queues, or groups of threads.
    #[arg(long, default_value_t = 2)]
    queues: usize,
    /// Commands under way in each.
    #[arg(long, default_value_t = 4)]
    depth: usize,
    /// One queue reads what it has written at first, the next one writes, and so on.
    #[arg(long)]
    apart: bool,
    /// The device is there; the load begins with the first SIGUSR1.
    #[arg(long)]
    wait: bool,
    /// So many milliseconds of rest in each queue after a command's end.
    #[arg(long, default_value_t = 0)]
    rest: u64,
    /// A command that takes more seconds is lost.
    #[arg(long, default_value_t = 100)]
    lost: u64,
    /// Measures random reads of so many bytes for some seconds instead, nothing verified.
    #[arg(long, requires = "process")]
    measure: Option<usize>,
    /// Whose CPU time to measure.
    #[arg(long)]
    process: Option<u32>,
    /// Sends this one command instead, in hexadecimal digits, and prints what came of it.
    #[arg(long, conflicts_with = "measure")]
    cdb: Option<String>,
    /// Its data, in hexadecimal digits.
    #[arg(long, default_value = "", requires = "cdb")]
    data_out: String,
    /// Room for so many bytes of its answer.
    #[arg(long, default_value_t = 0, requires = "cdb")]
    data_in: usize,
    /// How long to measure.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
}

/// Runs the load until it is to end; the moments that were marked.
fn run<D: Disk>(disks: Vec<D>, options: &Options) {
    let mut signals = Signals::new([SIGUSR1, SIGTERM, SIGINT]).expect("signals can be caught");
    if options.wait {
        signals.forever().next();
    }
    let uptime = summary::uptime();
    let mut marks = vec![Instant::now()];
    let mix = if options.apart { Mix::Apart } else { Mix::Mixed };
    let (lost, rest) = (Duration::from_secs(options.lost), Duration::from_millis(options.rest));
    let load = Load::with(disks, options.depth, mix, lost, rest);
    for signal in signals.forever() {
        marks.push(Instant::now());
        if signal != SIGUSR1 {
            break;
        }
    }
    let (_disks, report) = load.stop();
    println!("{}", summary::of(&report, uptime, &marks));
}

fn main() {
    let options = Options::parse();
    match &options.socket {
        Some(socket) => {
            let mut device = Device::start(socket, &Config::queues(options.queues));
            for queue in &mut device.queues {
                queue.settle();
            }
            if let Some(cdb) = &options.cdb {
                let (data_out, data_in) = (&options.data_out, options.data_in);
                println!("{}", command::run(device.queue(), cdb, data_out, data_in));
            } else if let (Some(bytes), Some(process)) = (options.measure, options.process) {
                let time = Duration::from_secs(options.seconds);
                measure::run(device.queue(), bytes, options.depth, process, time);
            } else {
                run(std::mem::take(&mut device.queues), &options);
            }
        }
        None => {
            let path = options.device.as_ref().expect("clap has asked for one of the two");
            let open = |_| BlockDevice::open(path, options.depth);
            run((0..options.queues).map(open).collect(), &options);
        }
    }
}
