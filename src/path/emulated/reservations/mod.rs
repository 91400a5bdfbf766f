//! Reservations of the unit: persistent ones per I_T nexus (SPC-5 5.14), and RESERVE and RELEASE
//! (SPC-2 5.5).
//!
//! ```text
//!   command.rs   parameter lists in, parameter data out
//!       |
//!   unit.rs      the unit's own state under one lock; tells ports and nexuses what has changed
//!       |   \
//!   state.rs  keep.rs     the rules, pure          what APTPL keeps, beside the image
//!       |
//!   standing.rs  what a nexus may do now, in one atomic of its port: all that a read or a write
//!                ever looks at
//! ```
//!
//! [`State`] knows neither ports nor files, so that a simulated array can have the same rules.
//!
//! SPEC_I_PT, ALL_TG_PT, REGISTER AND MOVE and REPLACE LOST RESERVATION are not supported, and
//! REPORT CAPABILITIES says so.

pub(super) mod command;
pub(super) mod keep;
pub(super) mod standing;
mod state;
mod unit;

pub(super) use keep::Keep;
pub use standing::Standing;
pub use state::{Denial, Nexus, Notice, State};
pub(super) use unit::Reservations;
