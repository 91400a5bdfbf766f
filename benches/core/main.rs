//! What a command costs in instructions, to be counted by `valgrind --tool=callgrind`: the same
//! commands in every run, with no clock, no thread and no data to be moved.
//!
//!     core_cost PART COMMANDS
//!
//! | part | what a command is |
//! |---|---|
//! | `core` | one of two paths chosen, the load and the counters kept, the result judged: [`multipath`] and [`stats`] alone |
//! | `lane` | a write of 4 KiB through a lane, from request to answer, with 32 under way on one `null:` path |
//! | `paths` | the same with two paths |
//! | `queues` | as `lane`, through two lanes in turn, each with 32 under way |
//!
//! Two runs with different numbers tell what one command costs: `benches/instructions` does that.
//!
//! [`multipath`]: vhost_user_scsi_mpath::multipath
//! [`stats`]: vhost_user_scsi_mpath::stats

// A panic is how this program ends when something is wrong.
#![allow(clippy::unwrap_used, missing_docs)]

mod scene;

use std::hint::black_box;
use std::time::{Duration, Instant};

use scene::{BYTES, Scene};
use vhost_user_scsi_mpath::lun::Repeat;
use vhost_user_scsi_mpath::multipath::classify::classify;
use vhost_user_scsi_mpath::multipath::retry::{Next, Tries, rule};
use vhost_user_scsi_mpath::multipath::select::PathSet;
use vhost_user_scsi_mpath::multipath::{Selector, Table};
use vhost_user_scsi_mpath::path::{Answer, Fate, Residual};
use vhost_user_scsi_mpath::scsi::Status;
use vhost_user_scsi_mpath::stats::LaneCounters;

const DEPTH: u16 = 32;

/// Chooses, sends nowhere, takes GOOD for the answer, and judges it.
fn core(table: &Table, commands: u64) {
    let (counters, mut selector) = (LaneCounters::default(), Selector::default());
    let (none, bytes, took) = (PathSet::default(), BYTES as u32, Duration::from_micros(50));
    let now = black_box(Instant::now() + Duration::from_secs(1));
    for _ in 0..commands {
        let path = selector.select(table, &none, black_box(bytes), now).expect("a path is up");
        let entry = table.entry(path).expect("it is in the table");
        entry.load.started(bytes);
        let answer = Answer { status: Status::GOOD, sense: None, residual: Residual::None };
        let verdict = classify(&black_box(Fate::Answered(answer)));
        let ruling = rule(verdict, Repeat::Freely, &mut Tries::default());
        assert_eq!(ruling.next, Next::Deliver);
        entry.load.ended(bytes, took, now, true);
        counters.path(path).answered(0x28, BYTES as u64, 0, took);
    }
}

fn through(lanes: usize, paths: usize, commands: u64) {
    let mut scene = Scene::new(paths, lanes);
    for _ in 0..commands / (u64::from(DEPTH) * lanes as u64) {
        scene.turn(DEPTH);
    }
    black_box(scene.guest.answered);
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [part, commands] = &arguments[..] else { panic!("core_cost PART COMMANDS") };
    let commands = commands.parse().expect("a number of commands");
    match part.as_str() {
        "core" => core(&Scene::new(2, 1).table, commands),
        "lane" => through(1, 1, commands),
        "paths" => through(1, 2, commands),
        "queues" => through(2, 1, commands),
        other => panic!("no part is called {other}"),
    }
}
