//! Persistent reservations through several paths, as one initiator.
//!
//! A registration belongs to an I_T nexus, and each path is one; the guest has one nexus.
//!
//! Nothing in the program speaks through it yet: the guest's commands are refused
//! (`src/lun/commands.rs`). What it is known not to do: stand up to another initiator's commands in
//! the middle of a conversation (`tests::run` with races), keep the unit attentions of its own
//! commands from the guest, take an import.
//!
//! | file | what |
//! |---|---|
//! | [`events`] | what the machine is told, and what it wants done |
//! | [`machine`] | one conversation with the array at a time |
//! | `script` | a conversation that waits, written as if it did not |
//! | `orders` | PERSISTENT RESERVE OUT, service action by service action |
//! | `ghosts` | registrations of paths that are away |
//! | `admission` | a path wants to be used |
//! | [`fold`] | what the array tells, as the guest is told it |
//! | [`record`] | what must survive the backend, and what is told of it |

mod admission;
pub mod events;
pub mod fold;
mod ghosts;
pub mod machine;
mod orders;
pub mod record;
mod script;
#[cfg(test)]
mod tests;

pub use events::{Action, Answer, Command, End, Event, Request, Ticket};
pub use machine::Machine;
pub use record::{Holding, Record, Registration, Standing};
