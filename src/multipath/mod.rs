//! The multipath core: which path, when, once more? Pure: no I/O, no clock, no lock. Time comes in
//! as `now`, work goes out as actions.
//!
//! ```text
//!                 lanes' reports, probe ends, admin's orders, time
//!                                    |
//!                                    v
//!   Core::apply(event, now) -- one owner (the manager), one checked transition table
//!        |                           |
//!        | actions: probe, tell,     | Table: an immutable snapshot of all paths,
//!        | release a held write      | published whenever something changed
//!        v                           v
//!     manager                 each lane: Selector::select(table) -> path
//!                                        classify(fate) -> class -> retry::rule -> what next
//! ```
//!
//! | file | what |
//! |---|---|
//! | [`state`] | path states and the transitions that are allowed |
//! | [`classify`] | **the table of results**: what an attempt's end means |
//! | [`retry`] | class and command -> what next |
//! | [`select`] | the I/O policies |
//! | [`fastest`] | the one that measures: `service-time` |
//! | [`nodes`] | how far memory nodes are from each other |
//! | [`load`] | what a path carries now, and how fast it was |
//! | [`service`] | what its next command would take |
//! | [`groups`] | which groups of paths are in use, and when to go back to a better one |
//! | [`explicit`] | when the array is told to make another group the better one |
//! | [`transition`] | a port between two access states |
//! | [`gone`] | the logical unit itself is gone |
//! | [`table`] | what the lanes read |
//! | [`path`] | one path, as the core knows it |
//! | [`words`] | all of them in one line |
//! | [`health`] | is a path that is in use a good one? |
//! | [`check`] | when a path is asked, and the probe under way |
//! | [`probe`] | the questions a path must answer before it is used |
//! | [`admission`] | is it the same logical unit? |
//! | [`hold`] | writes whose outcome nobody knows, and the blocks that wait for them |
//! | [`reservation`] | persistent reservations through several paths, as one initiator |
//! | [`core`] | all of a LUN's paths: events in, actions out |

#![forbid(unsafe_code)]

pub mod admission;
pub mod check;
pub mod classify;
pub mod core;
pub mod explicit;
pub mod fastest;
pub mod gone;
pub mod groups;
pub mod health;
pub mod hold;
pub mod load;
pub mod nodes;
pub mod path;
pub mod probe;
pub mod reservation;
pub mod retry;
pub mod select;
pub mod service;
pub mod state;
pub mod table;
#[cfg(test)]
mod tests_select;
pub mod transition;
pub mod words;

pub use core::{Action, Core, Event, LunState, News, NoPathRetry, Settings};
pub use groups::Failback;
pub use hold::Remains;
pub use load::Load;
pub use nodes::Nodes;
pub use path::Placement;
pub use select::{Policy, Selector};
pub use state::PathState;
pub use table::{Aftermath, Entry, NoPath, Reserved, Table};
