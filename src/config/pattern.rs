//! Patterns for host devices, as a shell has them: `*` for any text, `?` for one character.

use std::fmt;
use std::str::FromStr;

/// The folder of udev's names by the way to a disk; it may stand before a pattern.
const BY_PATH: &str = "/dev/disk/by-path/";
/// Characters of a pattern at most.
const PATTERN_MAX: usize = 255;

/// A pattern for H:C:T:L (`1:*:*:0`) or for a name in `/dev/disk/by-path` (`pci-0000:03:00.0-fc-*`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(String);

/// Not a pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// Nothing, or far too much.
    #[error("`{0}`: a pattern has 1 to {PATTERN_MAX} characters")]
    Length(String),
    /// A node.
    #[error(
        "`{0}`: a pattern is for H:C:T:L or for a name in /dev/disk/by-path; other nodes are \
         numbered anew at every start of the host"
    )]
    Node(String),
    /// Nothing is called so.
    #[error("`{0}`: no H:C:T:L and no name has blanks or control characters")]
    Blank(String),
}

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        let name = text.strip_prefix(BY_PATH).unwrap_or(text);
        if name.is_empty() || name.chars().count() > PATTERN_MAX {
            return Err(PatternError::Length(text.to_owned()));
        }
        if name.contains('/') {
            return Err(PatternError::Node(text.to_owned()));
        }
        if name.chars().any(|one| one.is_whitespace() || one.is_control()) {
            return Err(PatternError::Blank(text.to_owned()));
        }
        Ok(Pattern(name.to_owned()))
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Pattern {
    /// Does it stand for the whole of `name`?
    pub fn matches(&self, name: &str) -> bool {
        let (pattern, name): (Vec<char>, Vec<char>) =
            (self.0.chars().collect(), name.chars().collect());
        let (mut at, mut seen) = (0, 0);
        // The last star, and how much of the name it stands for so far: enough to go back to.
        let mut star: Option<(usize, usize)> = None;
        while seen < name.len() {
            match pattern.get(at) {
                Some('*') => {
                    star = Some((at, seen));
                    at += 1;
                }
                Some(one) if *one == '?' || *one == name[seen] => {
                    at += 1;
                    seen += 1;
                }
                _ => {
                    let Some((before, until)) = star else { return false };
                    star = Some((before, until + 1));
                    at = before + 1;
                    seen = until + 1;
                }
            }
        }
        pattern[at..].iter().all(|one| *one == '*')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_as_a_shell_does() {
        let cases = [
            ("1:0:0:0", "1:0:0:0", true),
            ("1:0:0:0", "11:0:0:0", false),
            ("1:*:*:0", "1:0:12:0", true),
            ("1:*", "1:0:12:7", true),
            ("1:*", "12:0:0:0", false),
            ("?:0:0:1", "7:0:0:1", true),
            ("?:0:0:1", "17:0:0:1", false),
            ("*", "anything", true),
            ("*-lun-1", "pci-0-fc-0x50-lun-1", true),
            ("*-lun-1", "pci-0-fc-0x50-lun-12", false),
            ("pci-*-fc-*-lun-*", "pci-0000:03:00.0-fc-0x5001-lun-7", true),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXbYbZ", false),
            ("**", "x", true),
        ];
        for (pattern, name, expected) in cases {
            assert_eq!(
                pattern.parse::<Pattern>().unwrap().matches(name),
                expected,
                "{pattern} {name}"
            );
        }
        let hard = "*a".repeat(60).parse::<Pattern>().unwrap();
        assert!(!hard.matches(&"a".repeat(5000).replace("aaaaa", "aaaab")), "in no time");
    }

    #[test]
    fn pattern_that_can_match_nothing_says_why() {
        let why = |text: &str| text.parse::<Pattern>().unwrap_err().to_string();
        assert!(why("").contains("1 to 255"));
        assert!(why(&"x".repeat(256)).contains("1 to 255"));
        assert!(why("/dev/sd*").contains("numbered anew"));
        assert!(why("/dev/disk/by-id/x").contains("numbered anew"));
        assert!(why("1:0:0:0 ").contains("blanks"));
        let pattern: Pattern = "/dev/disk/by-path/pci-*".parse().unwrap();
        assert_eq!(pattern.to_string(), "pci-*");
    }
}
