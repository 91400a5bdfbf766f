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
mod lock_sys;
pub mod store;

pub use claim::{Claim, ClaimError};
pub use document::{Exported, Owner};
pub use keeper::{Done, Keeper};
pub use kept::{Holding, Kept};
pub use store::{StateError, Store};

/// FNV-1a over `parts`, each with its end. Names of files depend on it, so it must not change.
fn hash(parts: &[&str]) -> u64 {
    let bytes = parts.iter().flat_map(|part| part.bytes().chain([0]));
    bytes.fold(0xCBF2_9CE4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01B3)
    })
}
