//! Whether an image is read and written through the host's page cache, by the names that QEMU has for it.

use std::fmt;

/// What is between the built-in array and its image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cache {
    /// The host's page cache, as in QEMU's `cache=writeback`.
    #[default]
    Writeback,
    /// Nothing: O_DIRECT, as in QEMU's `cache=none`.
    None,
}

impl Cache {
    /// By its name. QEMU's others would say what the guest chooses here: whether there is a write
    /// cache (WCE), and when it is emptied.
    pub(super) fn from_name(name: &str) -> Option<Self> {
        [Cache::Writeback, Cache::None].into_iter().find(|cache| cache.to_string() == name)
    }
}

impl fmt::Display for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Cache::Writeback => "writeback",
            Cache::None => "none",
        })
    }
}
