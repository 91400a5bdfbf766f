//! The words for path selection, for commands without a path, and for going back to a better
//! group: the same in the file, on the command line and on the control socket.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::limits::POLICY_SECONDS_RANGE;

/// How a path is chosen among the usable paths of the best group.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, clap::ValueEnum, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum IoPolicy {
    /// The path nearest to the memory node that the command comes from.
    Numa,
    /// One after the other.
    RoundRobin,
    /// The path with the fewest commands in flight.
    QueueDepth,
    /// The path that is expected to answer first.
    #[default]
    ServiceTime,
}

impl IoPolicy {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            IoPolicy::Numa => "numa",
            IoPolicy::RoundRobin => "round-robin",
            IoPolicy::QueueDepth => "queue-depth",
            IoPolicy::ServiceTime => "service-time",
        }
    }
}

impl fmt::Display for IoPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What happens to commands while no path exists.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum NoPathRetry {
    /// They wait for ever.
    #[default]
    Queue,
    /// They fail at once.
    Fail,
    /// They wait so long, then they fail. Never zero: that is [`NoPathRetry::Fail`].
    For(Duration),
}

/// When commands go back to a better group of paths that has returned.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Failback {
    /// At once.
    #[default]
    Immediate,
    /// When the `failback` command says so.
    Manual,
    /// Only when the better group came back from having no path.
    Followover,
    /// After so long. Never zero: that is [`Failback::Immediate`].
    After(Duration),
}

/// A word or a number of seconds that is none of those allowed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum PolicyError {
    /// Not one of the words, and no number.
    #[error("`{given}` is not {expected} or a number of seconds")]
    Word {
        /// What was given.
        given: String,
        /// The words.
        expected: &'static str,
    },
    /// A number outside the range.
    #[error("{0} seconds is out of range, {min} to {max} is allowed",
        min = POLICY_SECONDS_RANGE.0, max = POLICY_SECONDS_RANGE.1)]
    Seconds(f64),
}

/// A setting that is one of some words or a number of seconds.
trait WordOrSeconds: Sized {
    const WORDS: &'static str;

    fn from_word(word: &str) -> Option<Self>;

    /// `seconds` is in range; zero is one of the words too.
    fn from_duration(seconds: Duration) -> Self;

    fn from_seconds(seconds: f64) -> Result<Self, PolicyError> {
        let (min, max) = POLICY_SECONDS_RANGE;
        // The comparison is false for what is not a number at all.
        if seconds >= min && seconds <= max {
            Ok(Self::from_duration(Duration::from_secs_f64(seconds)))
        } else {
            Err(PolicyError::Seconds(seconds))
        }
    }

    fn word_error(given: &str) -> PolicyError {
        PolicyError::Word { given: given.to_owned(), expected: Self::WORDS }
    }
}

impl WordOrSeconds for NoPathRetry {
    const WORDS: &'static str = "\"queue\", \"fail\"";

    fn from_word(word: &str) -> Option<Self> {
        match word {
            "queue" => Some(NoPathRetry::Queue),
            "fail" => Some(NoPathRetry::Fail),
            _ => None,
        }
    }

    fn from_duration(seconds: Duration) -> Self {
        if seconds.is_zero() { NoPathRetry::Fail } else { NoPathRetry::For(seconds) }
    }
}

impl WordOrSeconds for Failback {
    const WORDS: &'static str = "\"immediate\", \"manual\", \"followover\"";

    fn from_word(word: &str) -> Option<Self> {
        match word {
            "immediate" => Some(Failback::Immediate),
            "manual" => Some(Failback::Manual),
            "followover" => Some(Failback::Followover),
            _ => None,
        }
    }

    fn from_duration(seconds: Duration) -> Self {
        if seconds.is_zero() { Failback::Immediate } else { Failback::After(seconds) }
    }
}

/// On a command line numbers are written without quotes, as the words are.
fn parse<T: WordOrSeconds>(text: &str) -> Result<T, PolicyError> {
    match (T::from_word(text), text.parse()) {
        (Some(value), _) => Ok(value),
        (None, Ok(seconds)) => T::from_seconds(seconds),
        (None, Err(_)) => Err(T::word_error(text)),
    }
}

impl FromStr for NoPathRetry {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Self, PolicyError> {
        parse(text)
    }
}

impl FromStr for Failback {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Self, PolicyError> {
        parse(text)
    }
}

impl fmt::Display for NoPathRetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NoPathRetry::Queue => f.write_str("queue"),
            NoPathRetry::Fail => f.write_str("fail"),
            NoPathRetry::For(duration) => write!(f, "{}", duration.as_secs_f64()),
        }
    }
}

impl fmt::Display for Failback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failback::Immediate => f.write_str("immediate"),
            Failback::Manual => f.write_str("manual"),
            Failback::Followover => f.write_str("followover"),
            Failback::After(duration) => write!(f, "{}", duration.as_secs_f64()),
        }
    }
}

impl Serialize for NoPathRetry {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            NoPathRetry::For(duration) => to.serialize_f64(duration.as_secs_f64()),
            word => to.collect_str(word),
        }
    }
}

impl Serialize for Failback {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Failback::After(duration) => to.serialize_f64(duration.as_secs_f64()),
            word => to.collect_str(word),
        }
    }
}

/// Reads a word from a string and seconds from a number; a number in quotes is a mistake.
struct WordOrSecondsVisitor<T>(std::marker::PhantomData<T>);

impl<T: WordOrSeconds> Visitor<'_> for WordOrSecondsVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} or a number of seconds", T::WORDS)
    }

    fn visit_str<E: Error>(self, word: &str) -> Result<T, E> {
        T::from_word(word).ok_or_else(|| E::custom(T::word_error(word)))
    }

    fn visit_f64<E: Error>(self, seconds: f64) -> Result<T, E> {
        T::from_seconds(seconds).map_err(E::custom)
    }

    fn visit_i64<E: Error>(self, seconds: i64) -> Result<T, E> {
        self.visit_f64(seconds as f64)
    }

    fn visit_u64<E: Error>(self, seconds: u64) -> Result<T, E> {
        self.visit_f64(seconds as f64)
    }
}

impl<'de> Deserialize<'de> for NoPathRetry {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(WordOrSecondsVisitor(std::marker::PhantomData))
    }
}

impl<'de> Deserialize<'de> for Failback {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(WordOrSecondsVisitor(std::marker::PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_path_retry_reads_words_and_seconds() {
        let cases = [
            ("queue", NoPathRetry::Queue),
            ("fail", NoPathRetry::Fail),
            ("0", NoPathRetry::Fail),
            ("2.5", NoPathRetry::For(Duration::from_millis(2500))),
        ];
        for (text, expected) in cases {
            assert_eq!(text.parse(), Ok(expected));
        }
        for text in ["", "Queue", "-1", "inf", "nan", "604801", "5s"] {
            assert!(text.parse::<NoPathRetry>().is_err(), "{text}");
        }
    }

    #[test]
    fn policies_are_json_words_or_numbers() {
        let json = serde_json::to_string(&NoPathRetry::For(Duration::from_secs(30))).unwrap();
        assert_eq!(json, "30.0");
        assert_eq!(serde_json::to_string(&Failback::Immediate).unwrap(), "\"immediate\"");
        assert_eq!(serde_json::from_str::<NoPathRetry>("\"fail\"").unwrap(), NoPathRetry::Fail);
        let later = Failback::After(Duration::from_secs(7));
        assert_eq!(serde_json::from_str::<Failback>("7").unwrap(), later);
        assert!(serde_json::from_str::<NoPathRetry>("\"30\"").is_err());
        assert!(serde_json::from_str::<NoPathRetry>("true").is_err());
        assert_eq!(serde_json::to_string(&IoPolicy::ServiceTime).unwrap(), "\"service-time\"");
    }
}
