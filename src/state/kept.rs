//! What is remembered of the guest's persistent reservations, in words for people and programs:
//! the same in a file of `state_dir` (TOML) as in `reservation-export` (JSON).

use std::fmt;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::scsi::reservation::{Key, Type};

/// What is remembered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Kept {
    /// The guest's key; without one the guest is not registered.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "key")]
    pub key: Option<Key>,
    /// The key that was on its way to the array in place of the other, zero for none: after a crash
    /// a path may have either.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "coming")]
    pub coming: Option<Key>,
    /// APTPL of the guest's last registration: it outlives a power loss of the array (SPC-5 6.17.3).
    pub aptpl: bool,
    /// PRGENERATION as the guest counts it (SPC-5 6.16.2).
    pub generation: u32,
    /// PRGENERATION of the array at that time.
    #[serde(default)]
    pub array_generation: u32,
    /// The reservation, where the guest holds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reservation: Option<Holding>,
}

/// A reservation that the guest holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Holding {
    /// TYPE.
    #[serde(rename = "type", with = "kind")]
    pub kind: Type,
    /// The path whose nexus holds it, by name; none for the types that all registrants hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holder: Option<String>,
}

/// Each type's word: that of the standard, in lower case.
const TYPES: [(Type, &str); 6] = [
    (Type::WriteExclusive, "write-exclusive"),
    (Type::ExclusiveAccess, "exclusive-access"),
    (Type::WriteExclusiveRegistrantsOnly, "write-exclusive-registrants-only"),
    (Type::ExclusiveAccessRegistrantsOnly, "exclusive-access-registrants-only"),
    (Type::WriteExclusiveAllRegistrants, "write-exclusive-all-registrants"),
    (Type::ExclusiveAccessAllRegistrants, "exclusive-access-all-registrants"),
];

/// The word for a type.
pub fn type_word(kind: Type) -> &'static str {
    TYPES.iter().find(|(known, _)| *known == kind).map_or("", |(_, word)| word)
}

/// The type of a word.
pub fn type_of(word: &str) -> Option<Type> {
    TYPES.iter().find(|(_, known)| *known == word).map(|(kind, _)| *kind)
}

/// A key in words: hexadecimal, as `sg_persist` and `multipath.conf` write it. A number would not
/// do: JSON's and TOML's readers lose bits of one that is so large.
pub fn key_word(key: Key) -> String {
    key.to_string()
}

/// The key of such a word.
pub fn key_of(word: &str) -> Option<Key> {
    let digits = word.strip_prefix("0x").or_else(|| word.strip_prefix("0X"))?;
    // What `from_str_radix` takes beside digits is a sign.
    let plain = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    u64::from_str_radix(digits, 16).ok().filter(|_| plain).map(Key)
}

/// Reads a word.
struct Word<T>(fn(&str) -> Option<T>, &'static str);

impl<T> Visitor<'_> for Word<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.1)
    }

    fn visit_str<E: de::Error>(self, word: &str) -> Result<T, E> {
        (self.0)(word).ok_or_else(|| E::invalid_value(de::Unexpected::Str(word), &self))
    }
}

/// A key that may be on its way: also the one that is none.
mod coming {
    use super::*;

    pub fn serialize<S: Serializer>(key: &Option<Key>, to: S) -> Result<S::Ok, S::Error> {
        match key {
            Some(key) => to.serialize_str(&key_word(*key)),
            None => to.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Key>, D::Error> {
        from.deserialize_str(Word(key_of, "a key, such as 0x1a2b")).map(Some)
    }
}

/// The key that one is registered with.
mod key {
    use super::*;

    pub use super::coming::serialize;

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Key>, D::Error> {
        let read = |word: &str| key_of(word).filter(|key| !key.is_none());
        from.deserialize_str(Word(read, "a key that is not zero, such as 0x1a2b")).map(Some)
    }
}

mod kind {
    use super::*;

    pub fn serialize<S: Serializer>(kind: &Type, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(type_word(*kind))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Type, D::Error> {
        from.deserialize_str(Word(type_of, "a type, such as write-exclusive-registrants-only"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_has_its_word() {
        for kind in Type::ALL {
            assert_eq!(type_of(type_word(kind)), Some(kind));
            assert_eq!(
                type_word(kind).replace('-', " "),
                kind.to_string().to_lowercase().replace(" - ", " ")
            );
        }
        assert_eq!(type_of("write"), None);
    }

    #[test]
    fn keys_keep_all_their_bits() {
        for key in [1, 0xABC, u64::MAX, 1 << 53 | 1] {
            assert_eq!(key_of(&key_word(Key(key))), Some(Key(key)));
        }
        for wrong in ["", "0x", "12", "0x+1", "0x1_0", "0x10000000000000000", "0xg"] {
            assert_eq!(key_of(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn json_is_read_back_and_strictly() {
        let kind = Type::ExclusiveAccessRegistrantsOnly;
        let kept = Kept {
            key: Some(Key(u64::MAX)),
            aptpl: true,
            generation: u32::MAX,
            coming: Some(Key::NONE),
            array_generation: 2,
            reservation: Some(Holding { kind, holder: Some("left".into()) }),
        };
        let text = serde_json::to_string(&kept).unwrap();
        assert_eq!(
            text,
            "{\"key\":\"0xffffffffffffffff\",\"coming\":\"0x0\",\"aptpl\":true,\
             \"generation\":4294967295,\"array-generation\":2,\
             \"reservation\":{\"type\":\"exclusive-access-registrants-only\",\"holder\":\"left\"}}"
        );
        assert_eq!(serde_json::from_str::<Kept>(&text).unwrap(), kept);
        assert_eq!(
            serde_json::to_string(&Kept::default()).unwrap(),
            "{\"aptpl\":false,\"generation\":0,\"array-generation\":0}"
        );
        for (from, to) in [
            ("0xffffffffffffffff", "0x0"),
            ("\"0xffffffffffffffff\"", "7"),
            ("exclusive-access-registrants-only", "shared"),
            ("aptpl", "aptpl2"),
            ("4294967295", "-1"),
        ] {
            assert!(serde_json::from_str::<Kept>(&text.replace(from, to)).is_err(), "{to}");
        }
    }
}
