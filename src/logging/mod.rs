//! The program's log: where a line goes, and how many there may be.
//!
//! ```text
//!   log::warn!(path = ...; "...")  -->  Limited  -->  Outlet --> the journal, with fields
//!                                       (too many?)         '--> stderr, as text
//! ```
//!
//! | file | what |
//! |---|---|
//! | [`limit`] | so many lines about one thing, then only their number |
//! | [`outlet`] | the journal where there is one, else stderr |
//! | [`message_id`] | names of the messages that programs may wait for |
//!
//! A line's fields (`path`, `from`, `to`, `reason`, ...) are for the journal; its text says the
//! same to people. docs/logs.md has a row for each line of level info and above, and a test holds
//! the two against each other.

pub mod limit;
pub mod message_id;
pub mod outlet;

use std::time::Instant;

use self::limit::Limited;
use self::outlet::Outlet;

/// The log target of state changes: shown even where `RUST_LOG` is not set.
pub const STATE: &str = "state";

/// What is logged where `RUST_LOG` is not set: warnings, and every change of a path's or the
/// LUN's state.
const DEFAULT: &str = "warn,state=info";

/// Everything that is logged from now on goes where it should.
pub fn start() {
    let outlet = Outlet::from_environment(DEFAULT);
    let level = outlet.level();
    if log::set_boxed_logger(Box::new(Limited::new(outlet, Instant::now))).is_ok() {
        log::set_max_level(level);
    }
}

/// Says how many lines were left out, as far as their time is over. The manager's turns call it,
/// so that the number does not wait for the next line.
pub fn tell_left_out() {
    log::logger().flush();
}
