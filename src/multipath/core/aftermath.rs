//! What a process before this one may have left under way.
//!
//! It may have been killed with writes on its paths. The guest's memory of them, the in-flight
//! region, says which commands were not answered; it cannot say where they were, nor which others
//! had been given up with their blocks on hold. So for a while nothing that changes anything is
//! sent at all: a copy that is still on its way then lands before it would do harm.
//!
//! A time says nothing about a command that waits in a blocked device of the host: while a path is
//! blocked, the time begins anew.

use std::time::{Duration, Instant};

use super::Core;
use crate::multipath::state::PathState;

/// The time after another process's end.
#[derive(Debug, Default)]
pub(super) struct Aftermath {
    time: Duration,
    /// `None` when it is over, or never was.
    until: Option<Instant>,
}

impl Aftermath {
    /// May something still be executed?
    pub(super) fn lasts(&self) -> bool {
        self.until.is_some()
    }

    pub(super) fn next_timer(&self) -> Option<Instant> {
        self.until
    }
}

impl Core {
    pub(super) fn begin_aftermath(&mut self, time: Duration, now: Instant) {
        let until = (!time.is_zero()).then(|| now + time);
        self.aftermath = Aftermath { time, until };
        self.dirty = true;
    }

    pub(super) fn follow_aftermath(&mut self, now: Instant) {
        let Some(until) = self.aftermath.until else { return };
        if self.paths.values().any(|path| path.state == PathState::Blocked) {
            self.aftermath.until = Some(now + self.aftermath.time);
        } else if until <= now {
            self.aftermath.until = None;
            self.dirty = true;
        }
    }
}
