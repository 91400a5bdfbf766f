//! `query-reservation`: the guest's persistent reservations, as the guest, the array and our file
//! have them.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::report::words;

words! {
    /// Whether what the guest reserves is remembered.
    StateKeeping {
        /// In a file.
        Kept = "kept",
        /// The logical unit is not known yet, or its file is being read.
        Opening = "opening",
        /// There is no `state_dir`; PERSISTENT RESERVE OUT is refused.
        None = "none",
        /// The file cannot be used; PERSISTENT RESERVE OUT is refused.
        Unavailable = "unavailable",
    }
}

words! {
    /// Whose the reservation is.
    Holder {
        /// The guest's.
        Guest = "guest",
        /// Another initiator's.
        Other = "other",
    }
}

words! {
    /// Whether a path has the guest's key at the array.
    Registration {
        /// It has.
        Registered = "registered",
        /// It is to get it, before it carries a command.
        Pending = "pending",
        /// It has none, since another initiator took it away.
        Fenced = "fenced",
        /// It has none, and the guest has none.
        None = "none",
    }
}

/// `query-reservation`. Keys are hexadecimal, `0x...`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ReservationReport {
    /// The logical unit, in sysfs' form.
    pub wwid: Option<String>,
    /// Whether it is remembered.
    pub state: StateKeeping,
    /// Where.
    pub state_file: Option<PathBuf>,
    /// Why PERSISTENT RESERVE OUT is refused, in words; "" where it is not.
    pub reason: String,
    /// The guest's key; unknown where it is not registered.
    pub key: Option<String>,
    /// APTPL of the guest's registration.
    pub aptpl: bool,
    /// PRGENERATION as the guest sees it.
    pub generation: u32,
    /// TYPE of the reservation that there is.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// Whose it is.
    pub holder: Option<Holder>,
    /// The path whose nexus holds it, where it is the guest's and not every registrant's.
    pub holder_path: Option<String>,
    /// The holder's key.
    pub holder_key: Option<String>,
    /// Each path's registration; empty until the array has been asked.
    pub paths: Vec<PathRegistration>,
    /// Keys of other initiators, as far as they have been read.
    pub others: Vec<String>,
}

/// One of `paths`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct PathRegistration {
    /// The path's name.
    pub name: String,
    /// Has it the guest's key?
    pub registration: Registration,
}
