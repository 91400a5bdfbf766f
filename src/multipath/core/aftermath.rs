//! What a process before this one may have left under way.
//!
//! It may have ended with writes on its paths. The guest's memory of them, the in-flight region,
//! says which commands were not answered, not where they were; so each of them waits until no copy
//! can be on its way any more. Where the process may have been killed there is more to fear, which
//! nobody knows of: commands that it had given up, with their blocks on hold. Then nothing that
//! changes anything is sent at all for that time.
//!
//! A time says nothing about a command that waits in a blocked device of the host: while a path is
//! blocked, the time begins anew.

use std::time::{Duration, Instant};

use super::Core;
use crate::multipath::hold::Remains;
use crate::multipath::state::PathState;
use crate::multipath::table::Aftermath;

/// The time after another process's end.
#[derive(Debug, Default)]
pub(super) struct Watch {
    kind: Aftermath,
    time: Duration,
    until: Option<Instant>,
}

impl Watch {
    pub(super) fn kind(&self) -> Aftermath {
        self.kind
    }

    pub(super) fn next_timer(&self) -> Option<Instant> {
        self.until
    }
}

impl Core {
    pub(super) fn begin_aftermath(&mut self, kind: Aftermath, time: Duration, now: Instant) {
        if !time.is_zero() && kind != Aftermath::Over {
            self.aftermath = Watch { kind, time, until: Some(now + time) };
            self.dirty = true;
        }
    }

    /// What would be left on the paths if the process ended now, also of the one before.
    pub fn remains(&self) -> Remains {
        match self.aftermath.kind {
            Aftermath::Crash => Remains::Unknown,
            Aftermath::Over | Aftermath::Orderly => self.ledger.remains(),
        }
    }

    /// True when nothing can be executed any more that was sent from here, also by the process before
    /// this one, and whose outcome is not known.
    pub fn has_landed(&self, now: Instant) -> bool {
        self.aftermath.kind == Aftermath::Over && self.ledger.has_landed(now)
    }

    pub(super) fn follow_aftermath(&mut self, now: Instant) {
        let Some(until) = self.aftermath.until else { return };
        if self.paths.values().any(|path| path.state == PathState::Blocked) {
            self.aftermath.until = Some(now + self.aftermath.time);
        } else if until <= now {
            self.aftermath = Watch::default();
            self.dirty = true;
        }
    }
}
