//! A front end that goes without a word, again and again, with commands under way.

use crate::backend::{Backend, Setup};
use crate::holdings::Holdings;
use crate::initiator::{pattern, read, write};
use crate::queue::PROMPT;

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

/// Connects so often, after a while in which caches fill.
fn leaves_nothing_behind(times: usize) {
    let backend = Setup::ports(2).patience(PROMPT * (2 + times as u32 / 100)).start();
    reconnect(&backend, 100);
    let before = Holdings::of(&backend);
    reconnect(&backend, times);
    Holdings::of(&backend).assert_no_more_than(&before);
}

#[test]
fn front_end_that_connects_a_thousand_times_leaves_nothing_behind() {
    leaves_nothing_behind(1000);
}

#[test]
#[ignore = "long"]
fn front_end_that_connects_ten_thousand_times_leaves_nothing_behind() {
    leaves_nothing_behind(10_000);
}
