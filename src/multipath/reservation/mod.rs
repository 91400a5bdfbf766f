//! Persistent reservations through several paths, as one initiator.
//!
//! A registration belongs to an I_T nexus, and each path is one; the guest has one nexus.
//!
//! | file | what |
//! |---|---|
//! | [`fold`] | what the array tells, as the guest is told it |
//! | [`record`] | what must survive the backend, and what is told of it |

pub mod fold;
pub mod record;

pub use record::{Holding, Record, Registration, Standing};
