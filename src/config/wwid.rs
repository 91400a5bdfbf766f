//! A logical unit's name as an admin writes it.
//!
//! sysfs writes `naa.600140...`, multipath and udev write the same as `3600140...`: the type of
//! the designator (SPC-5 7.7.6) as a digit. Both are read here, and sysfs' form is kept, because
//! it loses nothing: multipath's replaces the spaces of a T10 name.

use std::fmt;
use std::str::FromStr;

/// A WWID in sysfs' form: `naa.`, `eui.` or `t10.` and the name, hexadecimal digits in lower case.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Wwid(String);

/// Not a WWID.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WwidError {
    /// No known beginning.
    #[error(
        "`{0}` is no WWID: naa.600140..., eui.0025..., t10.VENDOR... or multipath's 3600140... is"
    )]
    Form(String),
    /// A digit is not hexadecimal.
    #[error("`{0}` is no WWID: it has a character that is no hexadecimal digit")]
    Digit(String),
    /// Too long or too short.
    #[error("`{wwid}` is no WWID: {digits} hexadecimal digits, where {expected} belong")]
    Length {
        /// What was given.
        wwid: String,
        /// How long it is.
        digits: usize,
        /// How long it must be.
        expected: &'static str,
    },
    /// multipath's form of a T10 name, which cannot be turned back.
    #[error("`{0}`: multipath's form of a T10 name has lost its spaces, write it as t10.VENDOR...")]
    Underscores(String),
}

impl Wwid {
    /// sysfs' form.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// multipath's form.
    pub fn multipath(&self) -> String {
        to_multipath(&self.0)
    }
}

/// multipath's form of a WWID in sysfs' form; anything else stays as it is.
pub fn to_multipath(wwid: &str) -> String {
    match wwid.split_once('.') {
        Some(("naa", digits)) => format!("3{digits}"),
        Some(("eui", digits)) => format!("2{digits}"),
        Some(("t10", text)) => {
            let words: Vec<&str> = text.split(' ').filter(|word| !word.is_empty()).collect();
            format!("1{}", words.join("_"))
        }
        _ => wwid.to_owned(),
    }
}

impl FromStr for Wwid {
    type Err = WwidError;

    fn from_str(text: &str) -> Result<Self, WwidError> {
        let normal = if let Some(name) = text.strip_prefix("t10.") {
            let plain = name.bytes().all(|byte| (0x20..0x7F).contains(&byte));
            // A vendor of 8 characters begins the name, and 255 bytes bound a designator.
            if !plain || name.trim().is_empty() || name.len() > 255 {
                return Err(WwidError::Form(text.to_owned()));
            }
            return Ok(Wwid(format!("t10.{name}")));
        } else if let Some(digits) = text.strip_prefix("naa.") {
            ("naa", digits)
        } else if let Some(digits) = text.strip_prefix("eui.") {
            ("eui", digits)
        } else if let Some(digits) = text.strip_prefix('3') {
            ("naa", digits)
        } else if let Some(digits) = text.strip_prefix('2') {
            ("eui", digits)
        } else if text.len() > 9 && text.starts_with('1') {
            return Err(WwidError::Underscores(text.to_owned()));
        } else {
            return Err(WwidError::Form(text.to_owned()));
        };
        let (kind, digits) = normal;
        if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(WwidError::Digit(text.to_owned()));
        }
        // NAA 6h is IEEE Registered Extended, twice as long as the others (SPC-5 7.7.6.6).
        let (fits, expected) = match (kind, digits.bytes().next()) {
            ("naa", Some(b'6')) => (digits.len() == 32, "32"),
            ("naa", _) => (digits.len() == 16, "16 (32 after naa.6)"),
            _ => (matches!(digits.len(), 16 | 24 | 32), "16, 24 or 32"),
        };
        if !fits {
            return Err(WwidError::Length {
                wwid: text.to_owned(),
                digits: digits.len(),
                expected,
            });
        }
        Ok(Wwid(format!("{kind}.{}", digits.to_ascii_lowercase())))
    }
}

impl fmt::Display for Wwid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wwid_both_forms_are_one() {
        let sysfs: Wwid = "naa.600140505200A986F0043C9AFA1FD077".parse().unwrap();
        let multipath: Wwid = "3600140505200a986f0043c9afa1fd077".parse().unwrap();
        assert_eq!(sysfs, multipath);
        assert_eq!(sysfs.as_str(), "naa.600140505200a986f0043c9afa1fd077");
        assert_eq!(sysfs.multipath(), "3600140505200a986f0043c9afa1fd077");
        let eui: Wwid = "20025385a71b00001".parse().unwrap();
        assert_eq!(eui.as_str(), "eui.0025385a71b00001");
        let t10: Wwid = "t10.LIO-ORG disk  0".parse().unwrap();
        assert_eq!((t10.as_str(), &*t10.multipath()), ("t10.LIO-ORG disk  0", "1LIO-ORG_disk_0"));
    }

    #[test]
    fn wwid_that_is_none_says_why() {
        let why = |text: &str| text.parse::<Wwid>().unwrap_err();
        assert!(matches!(why("naa.6001"), WwidError::Length { digits: 4, .. }));
        assert!(matches!(why("naa."), WwidError::Length { .. }));
        assert!(matches!(why("3zz0140505200a986f0043c9afa1fd077"), WwidError::Digit(_)));
        assert!(matches!(why("1ATA_QEMU_HARDDISK"), WwidError::Underscores(_)));
        for text in ["", "mpatha", "uuid.1", "t10.", "t10.\u{7}x", "naa"] {
            assert!(matches!(why(text), WwidError::Form(_)), "{text}");
        }
    }
}
