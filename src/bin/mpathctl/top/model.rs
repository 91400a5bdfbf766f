//! What is shown, and what a key means. Pure: reports, events and keys come in.

use std::collections::{BTreeMap, VecDeque};

use vhost_user_scsi_mpath::config::IoPolicy;
use vhost_user_scsi_mpath::control::PathState;
use vhost_user_scsi_mpath::limits::{TOP_EVENTS_MAX, TOP_HISTORY_MAX};

use super::feed::{Sample, Told, Wish};
use super::rates::Rates;
use crate::carriers::carriers;

/// A key, as far as it means anything here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// A letter.
    Letter(char),
    /// Upwards.
    Up,
    /// Downwards.
    Down,
    /// Yes, this one.
    Enter,
    /// Back.
    Escape,
    /// Control-C.
    Interrupt,
}

/// What follows from a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// The screen may have changed, that is all.
    Nothing,
    /// The backend is to do something.
    Wish(Wish),
    /// Enough seen.
    Quit,
}

/// The last report and what can be said about the time before it.
#[derive(Debug)]
pub struct Now {
    /// The report.
    pub sample: Sample,
    /// Of all paths together.
    pub total: Rates,
    /// Of each path, in the report's order.
    pub rates: Vec<Rates>,
}

impl Now {
    /// The share of the LUN's commands that went over that path, 0 to 1.
    pub fn share(&self, path: usize) -> f64 {
        let all: f64 = self.rates.iter().map(|rates| rates.commands).sum();
        if all > 0.0 { self.rates[path].commands / all } else { 0.0 }
    }
}

/// Everything.
#[derive(Debug)]
pub struct Model {
    /// The backends that run.
    pub backends: Vec<String>,
    /// Which one is watched; none while one is being chosen.
    watched: Option<usize>,
    /// The row that the cursor is on, in the list that is shown.
    pub cursor: usize,
    /// The last report.
    pub now: Option<Now>,
    /// Mean latencies of each path, the last one last; 0 where it did nothing.
    pub history: BTreeMap<String, VecDeque<u64>>,
    /// The last events, the last one last.
    pub events: VecDeque<String>,
    /// What is asked before it is done.
    pub question: Option<(String, Wish)>,
    /// What became of the last wish, or why there is no report.
    pub word: String,
}

impl Model {
    /// Of these backends; one alone is watched at once.
    pub fn new(backends: Vec<String>) -> Model {
        let watched = (backends.len() == 1).then_some(0);
        Model {
            backends,
            watched,
            cursor: 0,
            now: None,
            history: BTreeMap::new(),
            events: VecDeque::new(),
            question: None,
            word: String::new(),
        }
    }

    /// Which backend is watched.
    pub fn watched(&self) -> Option<usize> {
        self.watched
    }

    /// Takes what the feed tells.
    pub fn hear(&mut self, told: Told) {
        match told {
            Told::Word(word) => self.word = word,
            Told::Event(line) => {
                if self.events.len() == TOP_EVENTS_MAX {
                    self.events.pop_front();
                }
                self.events.push_back(line);
            }
            Told::Sample(sample) => self.report(*sample),
        }
    }

    fn report(&mut self, sample: Sample) {
        let before = self.now.take().map(|now| now.sample);
        let passed = before.as_ref().map(|one| sample.at.saturating_duration_since(one.at));
        let rates = |name: &str| {
            let of = |one: &Sample| {
                let path = one.stats.paths.iter().find(|path| path.name == name);
                path.map(|path| path.counters.clone())
            };
            let before = before.as_ref().and_then(of)?;
            Some(Rates::between(&before, &of(&sample)?, passed?))
        };
        let rates: Vec<Rates> =
            sample.paths.iter().map(|path| rates(&path.name).unwrap_or_default()).collect();
        let total = match (&before, passed) {
            (Some(before), Some(passed)) => {
                Rates::between(&before.stats.lun, &sample.stats.lun, passed)
            }
            _ => Rates::default(),
        };
        self.history.retain(|name, _| sample.paths.iter().any(|path| path.name == *name));
        for (path, rates) in sample.paths.iter().zip(&rates) {
            let history = self.history.entry(path.name.clone()).or_default();
            if history.len() == TOP_HISTORY_MAX {
                history.pop_front();
            }
            history.push_back(rates.latency_us.unwrap_or(0));
        }
        self.cursor = self.cursor.min(sample.paths.len().saturating_sub(1));
        self.now = Some(Now { sample, total, rates });
    }

    /// Takes a key.
    pub fn press(&mut self, key: Key) -> Act {
        if key == Key::Interrupt {
            return Act::Quit;
        }
        if let Some((_, wish)) = self.question.take() {
            return self.answered(key, wish);
        }
        let rows = match &self.now {
            _ if self.watched.is_none() => self.backends.len(),
            Some(now) => now.sample.paths.len(),
            None => 0,
        };
        match key {
            Key::Letter('q') => return Act::Quit,
            Key::Up | Key::Letter('k') => self.cursor = self.cursor.saturating_sub(1),
            Key::Down | Key::Letter('j') => {
                self.cursor = (self.cursor + 1).min(rows.saturating_sub(1));
            }
            Key::Enter if self.watched.is_none() => {
                self.watched = Some(self.cursor);
                self.cursor = 0;
            }
            Key::Escape if self.backends.len() > 1 => *self = Model::new(self.backends.clone()),
            Key::Letter(letter) => self.question = self.ask(letter),
            _ => {}
        }
        Act::Nothing
    }

    /// Only `y` is a yes, so that nothing happens by accident.
    fn answered(&mut self, key: Key, wish: Wish) -> Act {
        match key {
            Key::Letter('y' | 'Y') => {
                self.word.clear();
                Act::Wish(wish)
            }
            // The next policy, before anything was done.
            Key::Letter('p') if matches!(wish, Wish::Policy(_)) => {
                if let Wish::Policy(policy) = wish {
                    self.question = self.ask_policy(next(policy));
                }
                Act::Nothing
            }
            _ => {
                "nothing was changed".clone_into(&mut self.word);
                Act::Nothing
            }
        }
    }

    fn ask(&self, letter: char) -> Option<(String, Wish)> {
        let now = self.now.as_ref()?;
        let path = now.sample.paths.get(self.cursor);
        match (letter, path) {
            ('f', Some(path)) => {
                let last = carriers(&now.sample.paths);
                let alone = matches!(last.as_slice(), [only] if only.name == path.name);
                let warning = if alone { "It alone carries the commands. " } else { "" };
                let name = &path.name;
                Some((format!("{warning}Stop using {name}?"), Wish::Fail(name.clone())))
            }
            ('r', Some(path)) if path.state == PathState::Disabled => {
                let name = &path.name;
                Some((format!("Use {name} again?"), Wish::Reinstate(name.clone())))
            }
            ('p', _) => self.ask_policy(next(now.sample.lun.iopolicy)),
            _ => None,
        }
    }

    fn ask_policy(&self, policy: IoPolicy) -> Option<(String, Wish)> {
        let current = self.now.as_ref()?.sample.lun.iopolicy;
        let question = format!("Switch the policy from {current} to {policy}? (p: another)");
        Some((question, Wish::Policy(policy)))
    }
}

fn next(policy: IoPolicy) -> IoPolicy {
    match policy {
        IoPolicy::Numa => IoPolicy::RoundRobin,
        IoPolicy::RoundRobin => IoPolicy::QueueDepth,
        IoPolicy::QueueDepth => IoPolicy::ServiceTime,
        IoPolicy::ServiceTime => IoPolicy::Numa,
    }
}
