//! The words of a file: whose it is, and what is remembered.

use serde::{Deserialize, Serialize};

use super::kept::Kept;

/// The version that is written. Another one is refused: a program that does not know what is in a
/// file must not replace it.
const VERSION: u32 = 1;
/// For who opens the file.
const HEAD: &str = "\
# What vhost-user-scsi-mpath remembers of its guest's persistent reservations, so that it is the same
# initiator to the array after a restart. It is written while the backend runs: mpathctl reservation
# shows it, and reservation import replaces it.
";

/// The last line: words that were cut are no document, also where they were cut between two lines.
const TAIL: &str = "# whole\n";

/// Whose state it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The backend (`backend.identity`).
    pub identity: String,
    /// The logical unit, in sysfs' form.
    pub wwid: String,
}

/// What is wrong with a file's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DocumentError {
    /// They are no document, or not whole.
    #[error("it is damaged: {0}")]
    Damaged(String),
    /// They are of another version of this program.
    #[error("it is of version {0}, and this program knows version {VERSION}")]
    Version(u32),
    /// They are another backend's.
    #[error("it belongs to the backend {0}")]
    Identity(String),
    /// They are about another logical unit.
    #[error("it is about the logical unit {0}")]
    Wwid(String),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Document {
    version: u32,
    identity: String,
    wwid: String,
    kept: Kept,
}

/// What one backend exports and another one imports, when a guest moves: the same without an
/// identity, since the other backend has its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Exported {
    version: u32,
    wwid: String,
    kept: Kept,
}

impl Exported {
    /// Of the logical unit called `wwid`.
    pub fn new(wwid: String, kept: Kept) -> Self {
        Exported { version: VERSION, wwid, kept }
    }

    /// What is in it, which must be about the logical unit called `wwid`.
    pub fn of(self, wwid: &str) -> Result<Kept, DocumentError> {
        if self.version != VERSION {
            return Err(DocumentError::Version(self.version));
        }
        if self.wwid != wwid {
            return Err(DocumentError::Wwid(self.wwid));
        }
        Ok(self.kept)
    }
}

/// Only this of a document that may be of any version.
#[derive(Deserialize)]
struct AnyVersion {
    version: u32,
}

/// The words for `kept`.
pub fn write(owner: &Owner, kept: &Kept) -> Result<String, DocumentError> {
    let Owner { identity, wwid } = owner.clone();
    let document = Document { version: VERSION, identity, wwid, kept: kept.clone() };
    let words = toml::to_string(&document);
    words.map(|words| format!("{HEAD}{words}{TAIL}")).map_err(|error| damaged(&error))
}

/// What is in `words`, which must be `owner`'s.
pub fn read(owner: &Owner, words: &str) -> Result<Kept, DocumentError> {
    let AnyVersion { version } = toml::from_str(words).map_err(|error| damaged(&error))?;
    if version != VERSION {
        return Err(DocumentError::Version(version));
    }
    if !words.ends_with(TAIL) {
        return Err(DocumentError::Damaged("its end is missing".to_owned()));
    }
    let document: Document = toml::from_str(words).map_err(|error| damaged(&error))?;
    if document.identity != owner.identity {
        return Err(DocumentError::Identity(document.identity));
    }
    if document.wwid != owner.wwid {
        return Err(DocumentError::Wwid(document.wwid));
    }
    Ok(document.kept)
}

/// In one line.
fn damaged(error: &impl ToString) -> DocumentError {
    let text = error.to_string();
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    DocumentError::Damaged(lines.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scsi::reservation::{Key, Type};
    use crate::state::Holding;

    fn owner() -> Owner {
        Owner { identity: "/run/lun0.sock".into(), wwid: "naa.6001".into() }
    }

    fn kept() -> Kept {
        let kind = Type::WriteExclusiveRegistrantsOnly;
        let reservation = Some(Holding { kind, holder: Some("left".into()) });
        let (key, coming) = (Some(Key(0xABC)), None);
        Kept { key, coming, aptpl: true, generation: 7, array_generation: 19, reservation }
    }

    #[test]
    fn words_are_for_people_and_are_read_back() {
        let words = write(&owner(), &kept()).unwrap();
        let expected = "version = 1\nidentity = \"/run/lun0.sock\"\nwwid = \"naa.6001\"\n\n[kept]\n\
                        key = \"0xabc\"\naptpl = true\ngeneration = 7\narray-generation = 19\n\n\
                        [kept.reservation]\n\
                        type = \"write-exclusive-registrants-only\"\nholder = \"left\"\n\
                        # whole\n";
        assert_eq!(words.strip_prefix(HEAD), Some(expected));
        assert_eq!(read(&owner(), &words), Ok(kept()));
        let nothing = write(&owner(), &Kept::default()).unwrap();
        assert_eq!(read(&owner(), &nothing), Ok(Kept::default()));
    }

    #[test]
    fn foreign_and_newer_words_are_refused() {
        let words = write(&owner(), &kept()).unwrap();
        let other = Owner { identity: "/run/lun1.sock".into(), ..owner() };
        assert_eq!(read(&other, &words), Err(DocumentError::Identity("/run/lun0.sock".into())));
        let other = Owner { wwid: "naa.6002".into(), ..owner() };
        assert_eq!(read(&other, &words), Err(DocumentError::Wwid("naa.6001".into())));
        let newer = words.replace("version = 1", "version = 2\nmore = 1");
        assert_eq!(read(&owner(), &newer), Err(DocumentError::Version(2)));
    }

    #[test]
    fn export_is_taken_for_the_same_logical_unit_and_version() {
        let exported = Exported::new("naa.6001".into(), kept());
        assert_eq!(exported.clone().of("naa.6001"), Ok(kept()));
        let wrong = DocumentError::Wwid("naa.6001".into());
        assert_eq!(exported.clone().of("naa.6002"), Err(wrong));
        let newer = Exported { version: 2, ..exported };
        assert_eq!(newer.of("naa.6001"), Err(DocumentError::Version(2)));
    }

    #[test]
    fn words_that_were_cut_anywhere_are_damaged() {
        let words = write(&owner(), &kept()).unwrap();
        for end in 0..words.len() {
            let read = read(&owner(), &words[..end]);
            assert!(matches!(read, Err(DocumentError::Damaged(_))), "{end}: {read:?}");
        }
        let wrong = words.replace("generation = 7", "generation = -7");
        let error = read(&owner(), &wrong).unwrap_err().to_string();
        assert!(error.starts_with("it is damaged: ") && !error.contains('\n'), "{error}");
        assert!(read(&owner(), &words.replace("[kept]", "[kept]\nmore = 1")).is_err());
    }
}
