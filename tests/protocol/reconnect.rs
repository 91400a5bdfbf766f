//! A front end that goes without a word, again and again, with commands under way.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::backend::{Backend, Setup};
use crate::initiator::{pattern, read, write};
use crate::queue::PROMPT;

/// What a process has.
#[derive(Clone, Copy, Debug)]
struct Holdings {
    descriptors: usize,
    mappings: usize,
    threads: usize,
    /// Memory of its own, without what it shares with its guests.
    anonymous_kib: u64,
}

impl Holdings {
    /// With no front end: the last one's end may be on its way.
    fn of(backend: &Backend) -> Self {
        let mut qmp = backend.qmp();
        let deadline = Instant::now() + PROMPT;
        while qmp.execute("query-lun", json!({}))["connected"] == true {
            assert!(Instant::now() < deadline, "a front end is still there");
            std::thread::sleep(Duration::from_millis(5));
        }
        let process = backend.process();
        let count = |folder: &str| {
            std::fs::read_dir(format!("/proc/{process}/{folder}")).expect("it runs").count()
        };
        let text = |file: &str| {
            std::fs::read_to_string(format!("/proc/{process}/{file}")).expect("it runs")
        };
        let status = text("status");
        let field = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        let number = field.and_then(|field| field.split_whitespace().next()?.parse().ok());
        Holdings {
            descriptors: count("fd"),
            mappings: text("maps").lines().count(),
            threads: count("task"),
            anonymous_kib: number.expect("proc(5)"),
        }
    }
}

/// Connects `times` times; every command is answered, by whichever connection.
fn reconnect(backend: &Backend, times: usize) {
    let mut device = backend.guest(2);
    device.queue().settle();
    let rings = device.places();
    for turn in 0..times {
        let data = pattern(turn as u8, 8);
        let commands = [write(0, data.clone()), read(64, 8)];
        let tickets = commands.map(|command| device.queue().submit(&command));
        device.reconnect(&backend.socket(), &rings).expect("the device starts again");
        for ticket in tickets {
            assert!(device.queue().wait(ticket, PROMPT).is_good(), "connection {turn}");
        }
        assert_eq!(device.queue().good(&read(0, 8)).data, data, "connection {turn}");
    }
}

#[test]
fn front_end_that_connects_a_thousand_times_leaves_nothing_behind() {
    let backend = Setup::ports(2).start();
    reconnect(&backend, 100);
    let before = Holdings::of(&backend);
    reconnect(&backend, 1000);
    let after = Holdings::of(&backend);
    assert!(after.descriptors <= before.descriptors, "{before:?} {after:?}");
    assert!(after.mappings <= before.mappings, "{before:?} {after:?}");
    assert!(after.threads <= before.threads, "{before:?} {after:?}");
    assert!(after.anonymous_kib < before.anonymous_kib + 1024, "{before:?} {after:?}");
}
