//! Host, channel, target, LUN: what the kernel calls a SCSI device. The numbers stay while the
//! device does; a later device may get the same.

use std::fmt;
use std::str::FromStr;

/// `H:C:T:L`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hctl {
    /// The host adapter.
    pub host: u32,
    /// Its channel.
    pub channel: u32,
    /// The target.
    pub target: u32,
    /// The logical unit, as the kernel numbers it.
    pub lun: u64,
}

/// A text is no H:C:T:L.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not of the form H:C:T:L, as in 1:0:0:0")]
pub struct NoHctl;

impl FromStr for Hctl {
    type Err = NoHctl;

    fn from_str(text: &str) -> Result<Self, NoHctl> {
        let mut parts = text.split(':').map(number);
        let mut next = || parts.next().flatten();
        let narrow = |number: u64| u32::try_from(number).ok();
        let host = next().and_then(narrow).ok_or(NoHctl)?;
        let channel = next().and_then(narrow).ok_or(NoHctl)?;
        let target = next().and_then(narrow).ok_or(NoHctl)?;
        let lun = next().ok_or(NoHctl)?;
        if parts.next().is_some() { Err(NoHctl) } else { Ok(Hctl { host, channel, target, lun }) }
    }
}

/// Digits only: `+1` is a number to the standard library.
fn number(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

impl fmt::Display for Hctl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}:{}", self.host, self.channel, self.target, self.lun)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hctl_is_written_as_it_is_read() {
        for text in ["0:0:0:0", "12:1:255:16640", "1:0:0:18446744073709551615"] {
            assert_eq!(text.parse::<Hctl>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn hctl_refuses_anything_else() {
        let bad = ["", "1", "1:0:0", "1:0:0:0:0", "1:0:0:", "a:0:0:0", "+1:0:0:0", "1:0:0:-1"];
        for text in
            bad.into_iter().chain(["4294967296:0:0:0", "1:0:0:18446744073709551616", "::: "])
        {
            assert_eq!(text.parse::<Hctl>(), Err(NoHctl), "{text}");
        }
    }
}
