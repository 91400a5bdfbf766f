//! The loops. A **lane** owns one request virtqueue: it takes requests, asks `lun` and `multipath`,
//! and runs what they return. The one **manager** owns the paths' states and publishes snapshots.
//!
//! ```text
//!   front's thread                                      manager's thread
//!     Lane::turn(guest, now)   --- reports, holds --->    Manager::turn(now)
//!        |   ^                 <-- snapshots, orders --      |    ^
//!        v   |                                               v    |
//!      Channel (per lane and path)                         Core::apply, Channels for probes
//! ```
//!
//! | file | what |
//! |---|---|
//! | [`guest`] | what a lane needs of the guest's side |
//! | [`driven`] | a lane, as seen by the thread that runs it |
//! | [`mailbox`] | messages between threads |
//! | [`messages`] | what they say |
//! | [`lane`] | the way of a command |
//! | [`manager`] | the owner of the paths |
//! | [`numa`] | the host's memory nodes |

pub mod driven;
pub mod guest;
pub mod lane;
pub mod mailbox;
pub mod manager;
pub mod messages;
pub mod numa;
mod numa_sys;
#[cfg(test)]
mod tests;

pub use driven::{Driven, Lanes, Turn};
pub use guest::{Guest, Leftovers, Request};
pub use lane::Lane;
pub use manager::Manager;
pub use messages::{Attention, Deadlines, Hedging, Snapshot, ToLane, ToManager};
