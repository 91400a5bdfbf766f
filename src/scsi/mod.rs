//! The standards' vocabulary: what SAM, SPC and SBC name, and nothing of ours.
//!
//! Everything here reads or writes bytes that crossed a wire, so every parser takes any bytes and
//! answers `None` or an error, never a panic.
//!
//! | file | clause |
//! |---|---|
//! | [`cdb`] | command descriptor blocks (SPC-5 4.2), logical block addresses and lengths (SBC-4) |
//! | [`opcode`] | operation codes and service actions by their standard names |
//! | [`status`], [`sense`] | what a command came to (SAM-5 5.3, SPC-5 4.4) |
//! | [`inquiry`] | standard INQUIRY data and vital product data pages (SPC-5 6.6, 7.7) |
//! | [`designator`] | VPD 83h, and the choice of the one that names the logical unit |
//! | [`alua`] | REPORT TARGET PORT GROUPS (SPC-5 6.37) |
//! | [`reservation`] | PERSISTENT RESERVE IN and OUT (SPC-5 5.14, 6.16, 6.17) |
//! | [`capacity`] | READ CAPACITY (SBC-4 5.20, 5.21) |

pub mod alua;
pub mod capacity;
pub mod cdb;
pub mod designator;
pub mod inquiry;
pub mod opcode;
pub mod reservation;
pub mod sense;
pub mod status;

pub use cdb::Cdb;
pub use sense::{Asc, Sense, SenseKey};
pub use status::Status;
