//! Is a path that is in use a good one? What is remembered of each path for that; what follows for
//! the LUN's paths is in `core/health.rs`.
//!
//! ```text
//!   a lane: "a command takes long" --> Suspicion --+--> it answers: an error, of a kind
//!                                                  '--> only its siblings answer: failed
//!   counters, every tick --+--> Pace: slower than its sibling? --> trial --> limping
//!                          '--> Errors: more than its siblings? ----------> held down
//!   failed, limped, erred: Setbacks --> how long it is held down when it is back
//! ```
//!
//! Nothing here is absolute: a path is only ever worse than a sibling. Where all are slow, or
//! silent, it is the array, and no path is to blame.
//!
//! | file | what |
//! |---|---|
//! | [`suspicion`] | a path on which a command is overdue: silent, or only slow? |
//! | [`pace`] | how fast a path is, and whether it limps |
//! | [`errors`] | how often a path errs |
//! | [`setbacks`] | how often it has failed lately, and how long it is held down |

pub mod errors;
pub mod pace;
pub mod setbacks;
pub mod suspicion;

use std::time::Instant;

use self::errors::Errors;
use self::pace::Pace;
use self::setbacks::Setbacks;
use self::suspicion::Suspicion;
use super::load::Counts;

/// What is remembered of one path.
#[derive(Debug, Default)]
pub struct Health {
    /// A command on it is overdue.
    pub suspicion: Option<Suspicion>,
    /// How fast it is.
    pub pace: Pace,
    /// How often it errs.
    pub errors: Errors,
    /// How often it has failed.
    pub setbacks: Setbacks,
    /// Its counters at the last tick.
    pub seen: Counts,
    /// When it last answered a question.
    pub answered: Option<Instant>,
    /// A block could not be read over it, and why: whose fault is it?
    pub unreadable: Option<(Instant, String)>,
    /// The last answer to a question was GOOD: where a block was asked for, it came.
    pub answered_well: bool,
    /// When a block was last read over it by a probe.
    pub readable: Option<Instant>,
}

impl Health {
    /// Why the path is to be used as the last resort only, if it is.
    pub fn complaint(&self, now: Instant) -> Option<String> {
        self.pace.complaint().or_else(|| self.setbacks.complaint(now))
    }

    /// It has failed: what was going on with it is over.
    pub fn failed(&mut self, now: Instant) {
        self.setbacks.failed(now);
        self.left();
    }

    /// It has left the paths in use.
    pub fn left(&mut self) {
        self.suspicion = None;
        (self.unreadable, self.readable) = (None, None);
        self.pace.left();
    }
}
