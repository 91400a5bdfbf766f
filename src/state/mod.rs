//! What outlives the process: the guest's persistent reservations, as far as we answer for them.
//!
//! ```text
//!   manager --Write--> keeper (a thread that may block) --> file (draft, fsync, rename, fsync)
//!      ^                  |
//!      +-----Written------+     only then is the guest told GOOD
//! ```
//!
//! | file | what |
//! |---|---|
//! | [`kept`] | what is remembered, and its words in files and on the control socket |
//! | [`document`] | a file's words: whose it is, and what is remembered |
//! | [`store`] | which file, read and replaced; nobody else has it |
//! | `file` | one file, replaced whole |
//! | [`keeper`] | the thread that writes |
//! | [`claim`] | one backend of a host reserves over the host's own devices |
//!
//! A file that is not understood is left as it is, and named: nothing is lost by starting a program
//! of the wrong version, and nothing is made up.

pub mod claim;
pub mod document;
mod file;
pub mod keeper;
pub mod kept;
pub mod store;

use crate::fnv::fnv1a;

pub use claim::{Claim, ClaimError};
pub use document::{Exported, Owner};
pub use keeper::{Done, Keeper};
pub use kept::{Holding, Kept};
pub use store::{StateError, Store};

/// Of `parts`, each with its end.
fn hash(parts: &[&str]) -> u64 {
    fnv1a(0, parts.iter().flat_map(|part| part.bytes().chain([0])))
}
