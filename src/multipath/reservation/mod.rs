//! Persistent reservations through several paths, as one initiator.
//!
//! A registration belongs to an I_T nexus, and each path is one; the guest has one nexus.
//!
//! The manager owns the machine, sends what it wants sent and answers the guest
//! (`src/engine/manager/reservations.rs`).
//!
//! | file | what |
//! |---|---|
//! | [`events`] | what the machine is told, and what it wants done |
//! | [`machine`] | one conversation with the array at a time |
//! | `script` | a conversation that waits, written as if it did not |
//! | `orders` | PERSISTENT RESERVE OUT, service action by service action |
//! | `attempt` | one of them over one path after the other |
//! | `preempt` | those that take registrations away |
//! | `holder` | the reservation moves from a dead path |
//! | `register` | one path's registration |
//! | `ghosts` | registrations of paths that are away |
//! | `admission` | a path wants to be used |
//! | [`attentions`] | which unit attentions are of the guest's own making |
//! | [`fold`] | what the array tells, as the guest is told it |
//! | [`record`] | what must survive the backend, and what is told of it |

mod admission;
mod attempt;
pub mod attentions;
pub mod events;
pub mod fold;
mod ghosts;
mod holder;
pub mod machine;
mod orders;
mod preempt;
pub mod record;
mod register;
mod script;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_arrays;
#[cfg(test)]
mod tests_lost;

pub use events::{Action, Answer, Command, End, Event, Request, Ticket};
pub use machine::Machine;
pub use record::{Holding, Record, Registration, Standing};
