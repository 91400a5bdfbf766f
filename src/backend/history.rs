//! The last minutes, for who comes after something went wrong: a point per second of the LUN and of
//! each path, and the last events. Made by the manager's thread from counters that are kept anyway;
//! no command knows of it.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::reports::{lun_state, path_state, queued};
use crate::control::{
    Event, HistoryReport, LunHistory, LunState, PathHistory, PathState, event_message,
};
use crate::engine::Manager;
use crate::ids::PathId;
use crate::limits::{HISTORY_EVENTS_MAX, HISTORY_INTERVAL, HISTORY_POINTS_MAX};
use crate::path::any::AnyPath;
use crate::stats::{BUCKETS, Totals, bucket_end_us};

/// What is kept.
#[derive(Debug)]
pub struct History {
    started: Instant,
    /// When the next point is due.
    due: Instant,
    lun: VecDeque<LunPoint>,
    /// Each as long as the path has been there, `lun`'s length at most, and ending where `lun` does.
    paths: BTreeMap<PathId, PathRing>,
    events: VecDeque<(SystemTime, Event)>,
}

/// Of the LUN, at one time.
#[derive(Clone, Copy, Debug)]
struct LunPoint {
    at: SystemTime,
    state: LunState,
    queued: u64,
}

/// Of a path, at the same time: what its counters show by then.
#[derive(Clone, Debug)]
struct Reading {
    name: String,
    state: PathState,
    inflight: u32,
    last_answer: Option<Instant>,
    totals: Totals,
}

#[derive(Debug)]
struct PathRing {
    last: Reading,
    /// Since when commands are under way without an answer, as far as is known.
    silent_since: Option<Instant>,
    points: VecDeque<PathPoint>,
}

/// What happened between two readings.
#[derive(Clone, Copy, Debug)]
struct PathPoint {
    state: PathState,
    commands: u64,
    bytes: u64,
    errors: u64,
    mean_us: Option<u64>,
    longest_us: Option<u64>,
    silent_us: u64,
}

impl History {
    /// Nothing has happened yet.
    pub fn new(now: Instant) -> Self {
        History {
            started: now,
            due: now,
            lun: VecDeque::new(),
            paths: BTreeMap::new(),
            events: VecDeque::new(),
        }
    }

    /// For how long it has been kept: as long as the backend has been running.
    pub fn uptime(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.started)
    }

    /// When the next turn is due.
    pub fn next_timer(&self) -> Instant {
        self.due
    }

    /// Takes a point if one is due.
    pub fn turn(&mut self, manager: &Manager<AnyPath>, now: Instant) {
        if now < self.due {
            return;
        }
        // A machine that stood still is not asked for what it has missed.
        self.due = (self.due + HISTORY_INTERVAL).max(now);
        let core = manager.core();
        let state = lun_state(core.lun_state());
        let lun = LunPoint { at: SystemTime::now(), state, queued: queued(manager) };
        let reading = |path: &crate::multipath::path::Path| {
            let reading = Reading {
                name: path.name.clone(),
                state: path_state(path.state),
                inflight: path.load.commands(),
                last_answer: path.load.last_answer(),
                totals: manager.hub().counters.path(path.id),
            };
            (path.id, reading)
        };
        self.take(lun, core.paths().map(reading).collect(), now);
    }

    fn take(&mut self, lun: LunPoint, readings: BTreeMap<PathId, Reading>, now: Instant) {
        bounded_push(&mut self.lun, lun, HISTORY_POINTS_MAX);
        // An id is given again, and another path must not inherit its predecessor's minutes.
        self.paths.retain(|id, ring| {
            readings.get(id).is_some_and(|reading| reading.name == ring.last.name)
        });
        for (id, reading) in readings {
            match self.paths.get_mut(&id) {
                Some(ring) => ring.take(reading, now),
                None => _ = self.paths.insert(id, PathRing::new(reading, now)),
            }
        }
    }

    /// Something happened. Commands that go over go one by one: those of a second are one event, so
    /// that they do not push out why they had to.
    pub fn hear(&mut self, at: SystemTime, event: Event) {
        if let Event::Failover { from, to, commands } = &event {
            let same_second = |(then, _): &&mut (SystemTime, Event)| {
                at.duration_since(*then).is_ok_and(|age| age < Duration::from_secs(1))
            };
            for (_, earlier) in self.events.iter_mut().rev().take_while(same_second) {
                if let Event::Failover { from: old_from, to: old_to, commands: sum } = earlier
                    && (&*old_from, &*old_to) == (from, to)
                {
                    *sum += commands;
                    return;
                }
            }
        }
        bounded_push(&mut self.events, (at, event), HISTORY_EVENTS_MAX);
    }

    /// `query-history`.
    pub fn report(&self) -> HistoryReport {
        let seconds =
            |at: SystemTime| at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        HistoryReport {
            interval: HISTORY_INTERVAL.as_secs_f64(),
            times: self.lun.iter().map(|point| seconds(point.at)).collect(),
            lun: LunHistory {
                state: self.lun.iter().map(|point| point.state).collect(),
                queued: self.lun.iter().map(|point| point.queued).collect(),
            },
            paths: self.paths.values().map(|ring| ring.report(self.lun.len())).collect(),
            events: self.events.iter().map(|(at, event)| event_message(event, *at)).collect(),
        }
    }
}

impl PathRing {
    /// The first point is of no time at all: all that can be told is the state.
    fn new(reading: Reading, now: Instant) -> Self {
        let mut ring =
            PathRing { last: reading.clone(), silent_since: None, points: VecDeque::new() };
        ring.take(reading, now);
        ring
    }

    fn take(&mut self, reading: Reading, now: Instant) {
        let (old, new) = (&self.last.totals, &reading.totals);
        let commands = answered(new).saturating_sub(answered(old));
        let spent = new.latency_sum_us.saturating_sub(old.latency_sum_us);
        let highest = (0..BUCKETS).rev().find(|at| new.latency[*at] > old.latency[*at]);
        self.silent_since = match reading.inflight {
            0 => None,
            _ if commands > 0 => reading.last_answer.or(Some(now)),
            // Sent since the last look: since when exactly, nobody has written down.
            _ => self.silent_since.or(Some(now)),
        };
        let silent = self.silent_since.map(|since| now.saturating_duration_since(since));
        let point = PathPoint {
            state: reading.state,
            commands,
            bytes: bytes(new).saturating_sub(bytes(old)),
            errors: errors(new).saturating_sub(errors(old)),
            mean_us: spent.checked_div(commands),
            longest_us: highest.and_then(|at| bucket_end_us(at.min(BUCKETS - 2))),
            silent_us: silent.unwrap_or_default().as_micros() as u64,
        };
        bounded_push(&mut self.points, point, HISTORY_POINTS_MAX);
        self.last = reading;
    }

    fn report(&self, length: usize) -> PathHistory {
        let before = length - self.points.len();
        fn column<T>(
            ring: &PathRing,
            before: usize,
            value: impl Fn(&PathPoint) -> Option<T>,
        ) -> Vec<Option<T>> {
            let unknown = std::iter::repeat_with(|| None).take(before);
            unknown.chain(ring.points.iter().map(value)).collect()
        }
        PathHistory {
            name: self.last.name.clone(),
            state: column(self, before, |point| Some(point.state)),
            commands: column(self, before, |point| Some(point.commands)),
            bytes: column(self, before, |point| Some(point.bytes)),
            errors: column(self, before, |point| Some(point.errors)),
            mean_us: column(self, before, |point| point.mean_us),
            longest_us: column(self, before, |point| point.longest_us),
            silent_us: column(self, before, |point| Some(point.silent_us)),
        }
    }
}

fn answered(totals: &Totals) -> u64 {
    totals.reads + totals.writes + totals.other
}

fn bytes(totals: &Totals) -> u64 {
    totals.read_bytes + totals.write_bytes
}

fn errors(totals: &Totals) -> u64 {
    totals.errors.iter().sum()
}

fn bounded_push<T>(ring: &mut VecDeque<T>, one: T, most: usize) {
    if ring.len() == most {
        ring.pop_front();
    }
    ring.push_back(one);
}

#[cfg(test)]
mod tests;
