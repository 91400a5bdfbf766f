//! The built-in array: one logical unit over a file, behind several ports, in this process.
//!
//! ```text
//!   lane 0       lane 1         a Channel each (channel.rs), with an engine of its own
//!     |            |              inline: in the lane itself    (memory-backed images)
//!     |            |              ring:   io_uring, one per channel (everything else)
//!     v            v
//!   Port 1       Port 2         an I_T nexus each (port.rs): unit attentions (attention.rs),
//!     |            |            access state by group (access.rs), scripted faults (faults.rs)
//!     +-----+------+
//!           v
//!         Array                 the logical unit (array.rs): name, size, modes, reservations/,
//!           |                   exclusion.rs, and the helper thread for commands that may wait
//!           v
//!         Store                 the bytes (store.rs): a file, a block device, memory, or nothing;
//!                               what is in memory is copied without a system call (mapped_sys.rs,
//!                               stripes.rs),
//!                               what is on a disk past the page cache, if wanted (direct.rs)
//! ```
//!
//! A command runs through `execute.rs`: found in the table of `table.rs` (which is also what
//! REPORT SUPPORTED OPERATION CODES says), checked against unit attentions, access state and
//! reservations, then answered at once (`inquiry.rs`, `mode.rs`, `report.rs`), turned into a
//! transfer for the engine (READ, WRITE, SYNCHRONIZE CACHE), or run as a piece of work on the
//! store (`verify.rs`, `thin.rs`): in the lane where the store is memory, else in the helper.
//!
//! Array and path are one process, so a recalled attempt is known to be over: it has not begun
//! yet, or the kernel has returned from it. Only a fault that imitates a dead wire says
//! [`Reach::Unknown`](crate::path::Reach::Unknown), as a real one would.
//!
//! What was decided against: a lock per block range for COMPARE AND WRITE (see `exclusion.rs`); a
//! second descriptor without O_DIRECT for what is not aligned (see `direct.rs`).

mod access;
mod array;
mod attention;
mod blocks;
mod channel;
mod direct;
mod dispatch;
mod engine;
mod exclusion;
mod execute;
pub mod faults;
mod faults_state;
mod helper;
mod image;
mod inquiry;
mod mapped_sys;
mod mode;
mod port;
mod registry;
mod reply;
mod report;
pub mod reservations;
mod ring_sys;
mod store;
mod store_sys;
mod stripes;
mod table;
mod thin;
mod verify;

#[cfg(test)]
pub(crate) mod tests;

pub use array::Array;
pub use channel::PortChannel;
pub use faults::{Fault, FaultError, FaultKind};
pub use image::{ImageError, OpenMode};
pub use port::{OpenError, Port};

use std::sync::{Mutex, MutexGuard, PoisonError};

/// A lock whose holder cannot leave the data half changed: none of ours panics in between.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
