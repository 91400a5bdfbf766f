//! A host that keeps what it was given, as a kernel does with commands for a blocked device: a
//! recall brings the memory back at once, and the attempt goes out whenever the device recovers.
//!
//! ```text
//!   recall --> parked, with a number --> some time later: the host lets go of it
//!                                          it was executed then, or never will be --> Proven
//!                                          it went out and may land late -----------> Returned
//! ```
//!
//! What is told names the last number up to which all have come back.

use std::collections::BTreeSet;
use std::time::Duration;

use vhost_user_scsi_mpath::path::{Failure, Fate, Reach, TransportEvent};

use crate::fabric::Step;
use crate::scene::Scene;
use crate::sessions::Open;

/// What the host of one port keeps.
#[derive(Debug, Default)]
pub struct Parking {
    last: u32,
    out: BTreeSet<u32>,
    /// Of those that are back: they may still land.
    doubtful: BTreeSet<u32>,
    told: u32,
    /// The guest's commands that were parked, by their numbers.
    commands: Vec<(u32, u64)>,
}

impl Parking {
    /// What can be told now: up to where all are back, and up to where in doubt.
    fn news(&mut self) -> Option<(u32, u32)> {
        let back = self.out.first().map_or(self.last, |first| first - 1);
        if back == self.told {
            return None;
        }
        self.told = back;
        let doubt = self.doubtful.range(..=back).next_back().copied().unwrap_or(0);
        self.doubtful = self.doubtful.split_off(&(back + 1));
        Some((back, doubt))
    }
}

impl Scene {
    /// A recalled attempt stays in the host.
    pub fn park(&mut self, port: usize, key: u64) {
        let parking = self.ports[port].parking.get_or_insert_with(Parking::default);
        parking.last += 1;
        let number = parking.last;
        parking.out.insert(number);
        let Some(attempt) = self.attempts.get_mut(&key) else { return };
        (attempt.session, attempt.parked) = (number, true);
        if let Some(serial) = attempt.serial {
            parking.commands.push((number, serial));
        }
        let reach = match self.options.lies.parked_is_lost {
            true => Reach::Unknown,
            false => Reach::Parked,
        };
        self.counts.parked += 1;
        let longest = self.options.parked_max;
        let after = self.random.time(Duration::ZERO..longest);
        self.plan(self.now + after, Step::Unpark(port, number, key));
        self.end(key, Fate::Failed(Failure::Recalled, reach));
        let command = self.attempts.get(&key).and_then(|attempt| attempt.serial);
        if let Some(command) = command.and_then(|serial| self.commands.get_mut(&serial)) {
            // Whatever the path says of it.
            command.open.retain(|open| open.port != port || open.session != number);
            command.open.push(Open { port, session: number, until: Duration::MAX });
            command.quiet_from = Duration::MAX;
        }
    }

    /// The host lets go of an attempt.
    pub fn unpark(&mut self, port: usize, number: u32, key: u64) {
        let late = self.options.late;
        let arrived = self.attempts.get(&key).is_some_and(|attempt| attempt.arrived);
        let goes_out = !arrived && self.random.chance(late);
        let in_doubt = goes_out && self.random.chance(400);
        self.say(|| format!("port {port}: {number} is not parked any more, out {goes_out}"));
        match (goes_out, in_doubt) {
            (true, false) => self.arrive(key),
            // When it was on its way over a slow link before, that way has ended here.
            (true, true) if self.lands_late(key) => {}
            (true, true) | (false, _) => self.forget(key),
        }
        let Some(parking) = &mut self.ports[port].parking else { return };
        parking.out.remove(&number);
        if in_doubt {
            parking.doubtful.insert(number);
        }
        let Some((back, doubt)) = parking.news() else { return };
        let (done, left) = parking.commands.iter().copied().partition(|(at, _)| *at <= back);
        parking.commands = left;
        let news = &mut self.ports[port].news;
        if doubt > 0 {
            news.push(TransportEvent::Returned { session: doubt });
        }
        if back > doubt {
            news.push(TransportEvent::Proven { session: back });
        }
        self.note_unparked(port, doubt, done);
    }

    /// The oracle hears of it: up to `doubt` they may land for the quiesce time, the rest is over.
    fn note_unparked(&mut self, port: usize, doubt: u32, done: Vec<(u32, u64)>) {
        let until = self.now + self.options.write_quiesce;
        for (number, serial) in done {
            let Some(command) = self.commands.get_mut(&serial) else { continue };
            command.open.retain(|open| open.port != port || open.session != number);
            if number <= doubt {
                command.open.push(Open { port, session: number, until });
            }
            if let (Some((over, _)), true) = (command.over, command.op.writes()) {
                let over = over.max(command.may_land_until());
                self.oracle.ends(command, over, false);
            }
        }
    }
}
