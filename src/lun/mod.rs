//! The virtual LUN: what the guest may see and do. Pure: no I/O, no clock, no lock.
//!
//! ```text
//!   request -> address -> ours? -> commands::row -> Answer -> answer::* from the Face
//!                 |                     |---------> Forward, Pin -> the engine asks multipath
//!                 |                     '---------> Refuse -> ILLEGAL REQUEST
//!                 '-> another LUN or target: answered as SPC and virtio say
//! ```
//!
//! | file | what |
//! |---|---|
//! | [`commands`] | the table: command -> what to do, may it be repeated, which blocks |
//! | [`face`] | the LUN's identity, taken from the array once and then the same over every path |
//! | [`answer`] | the commands that are answered here |
//! | [`decide`] | the first look at a request |
//! | [`attention`] | unit attentions: from the array's many nexuses to the guest's one |

#![forbid(unsafe_code)]

pub mod answer;
pub mod attention;
pub mod commands;
pub mod decide;
pub mod face;
mod operation_codes;

pub use commands::{Extent, Repeat, Route, Row};
pub use decide::{Decision, Question, Unit, decide};
pub use face::{Face, Facts};
