//! The name of the built-in array's logical unit: an NAA IEEE Registered Extended designator.
//!
//! NAA 6, since that is what multipath-tools and udev take first where a unit has several names.
//! NAA 6 asks for the maker's company id, and we have none: ours has the bit set that IEEE never
//! gives to a company (locally administered), so that no real array's name can be hit.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::str::FromStr;

use thiserror::Error;

use crate::fnv::fnv1a;

/// NAA 6h and a company id with the locally administered bit.
const PREFIX: [u8; 4] = [0x60, 0x25, 0x64, 0x80];

/// The 16 bytes of an NAA 6 designator (SPC-5 7.7.6.6.5).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Naa6([u8; 16]);

/// Why a text is no such name.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("naa.6 and 31 hexadecimal digits, or 36 and 31 digits as multipath -ll writes it")]
pub struct NaaError;

impl Naa6 {
    /// A new name from the host's random numbers.
    pub fn random() -> io::Result<Self> {
        let mut tail = [0; 12];
        File::open("/dev/urandom")?.read_exact(&mut tail)?;
        Ok(Self::local(tail))
    }

    /// A name under the local company id.
    pub const fn local(tail: [u8; 12]) -> Self {
        let mut bytes = [0; 16];
        let mut at = 0;
        while at < 16 {
            bytes[at] = if at < 4 { PREFIX[at] } else { tail[at - 4] };
            at += 1;
        }
        Naa6(bytes)
    }

    /// A name that always comes out of the same text: for units that have no place to keep one.
    pub fn derived(text: &[u8]) -> Self {
        let mut tail = [0; 12];
        for (round, chunk) in tail.chunks_mut(6).enumerate() {
            // FNV-1a, begun differently for each half.
            let hash = fnv1a(round as u64, text.iter().copied());
            chunk.copy_from_slice(&hash.to_be_bytes()[..6]);
        }
        Self::local(tail)
    }

    /// The designator's bytes.
    pub fn bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// The 32 digits without a prefix: the unit's serial number.
    pub fn digits(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl FromStr for Naa6 {
    type Err = NaaError;

    fn from_str(text: &str) -> Result<Self, NaaError> {
        let digits = match text.strip_prefix("naa.") {
            Some(digits) => digits,
            None if text.len() == 33 => text.strip_prefix('3').ok_or(NaaError)?,
            None => return Err(NaaError),
        };
        let valid = digits.len() == 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !valid || !digits.starts_with('6') {
            return Err(NaaError);
        }
        let number = u128::from_str_radix(digits, 16).map_err(|_| NaaError)?;
        Ok(Naa6(number.to_be_bytes()))
    }
}

impl fmt::Display for Naa6 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "naa.{}", self.digits())
    }
}

impl fmt::Debug for Naa6 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn from_str_takes_both_spellings() {
        let name: Naa6 = "naa.600140505200a986f0043c9afa1fd077".parse().unwrap();
        assert_eq!("3600140505200a986f0043c9afa1fd077".parse(), Ok(name));
        assert_eq!(name.to_string(), "naa.600140505200a986f0043c9afa1fd077");
        for bad in ["", "naa.6", "naa.500140505200a986f0043c9afa1fd077", "36", "naa.6é"] {
            assert_eq!(bad.parse::<Naa6>(), Err(NaaError));
        }
    }

    #[test]
    fn local_names_are_naa_6_and_no_companys() {
        let name = Naa6::random().unwrap();
        // NAA 6h, then the 24 bits of the company id: 025648h, whose first byte has bit 1 set.
        assert_eq!(name.bytes()[..4], [0x60, 0x25, 0x64, 0x80]);
        assert_ne!(name, Naa6::random().unwrap());
        assert_eq!(Naa6::derived(b"x"), Naa6::derived(b"x"));
        assert_ne!(Naa6::derived(b"x"), Naa6::derived(b"y"));
    }
}
