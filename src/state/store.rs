//! Which file a backend's state about a logical unit is in, and that nobody else has it.
//!
//! The name has the logical unit in it, for people, and a hash of it and of the backend's identity,
//! so that several backends may share a directory. Beside it is a lock: the file itself is another
//! one after each write.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::document::{self, DocumentError, Owner};
use super::file;
use super::kept::Kept;
use crate::lock_sys::{LockError, lock};

/// Characters of a logical unit's name in a file's name at most.
const NAME_MAX: usize = 64;

/// Why state cannot be read or written. Each message is one line and names the file.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Another backend uses it.
    #[error(
        "{}: {holder} has this file in use; give each backend an identity or a state_dir of its own",
        file.display()
    )]
    InUse {
        /// The file.
        file: PathBuf,
        /// Who, in words.
        holder: String,
    },
    /// It is not what it should be. It has not been changed.
    #[error(
        "{}: {problem}; it is left as it is: put the right one there, or move it away to begin anew",
        file.display()
    )]
    Document {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        problem: DocumentError,
    },
    /// The host refused.
    #[error("{}: cannot {what}: {cause}", file.display())]
    Host {
        /// The file or directory.
        file: PathBuf,
        /// What was tried.
        what: &'static str,
        /// Why not.
        cause: io::Error,
    },
}

/// The file of one backend about one logical unit.
#[derive(Debug)]
pub struct Store {
    owner: Owner,
    file: PathBuf,
    /// Held for as long as it is open.
    _lock: File,
}

impl Store {
    /// Opens the file in `directory`, which is made where there is none; and what is in it, `None`
    /// where nothing has been kept yet. May block.
    pub fn open(directory: &Path, owner: Owner) -> Result<(Store, Option<Kept>), StateError> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
        made.map_err(host(directory, "make the directory"))?;
        let file = directory.join(file_name(&owner));
        let lock = take_lock(&file)?;
        let words = file::read(&file).map_err(|cause| match cause.kind() {
            io::ErrorKind::InvalidData => {
                let problem = DocumentError::Damaged(cause.to_string());
                StateError::Document { file: file.clone(), problem }
            }
            _ => host(&file, "read it")(cause),
        })?;
        let kept = words.map(|words| document::read(&owner, &words)).transpose();
        let kept = kept.map_err(|problem| StateError::Document { file: file.clone(), problem })?;
        Ok((Store { owner, file, _lock: lock }, kept))
    }

    /// Remembers `kept` in place of what was there. When this returns `Ok`, it outlives a crash of
    /// the host; after an error the file has either, whole. May block.
    pub fn write(&self, kept: &Kept) -> Result<(), StateError> {
        let words = document::write(&self.owner, kept)
            .map_err(|problem| StateError::Document { file: self.file.clone(), problem })?;
        file::replace(&self.file, &words).map_err(host(&self.file, "write it"))
    }

    /// Where it is.
    pub fn file(&self) -> &Path {
        &self.file
    }
}

fn host(file: &Path, what: &'static str) -> impl FnOnce(io::Error) -> StateError {
    let file = file.to_owned();
    move |cause| StateError::Host { file, what, cause }
}

fn take_lock(file: &Path) -> Result<File, StateError> {
    let mut name = file.as_os_str().to_owned();
    name.push(".lock");
    let name = PathBuf::from(name);
    let mut options = OpenOptions::new();
    let open = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(&name);
    let open = open.map_err(host(&name, "open it"))?;
    match lock(&open, Duration::ZERO) {
        Ok(()) => {}
        Err(LockError::Held(holder)) => {
            return Err(StateError::InUse { file: file.to_owned(), holder });
        }
        Err(LockError::Host(error)) => return Err(host(&name, "lock it")(error)),
    }
    Ok(open)
}

fn file_name(owner: &Owner) -> String {
    let plain = |one: char| match one {
        '.' | '-' => one,
        one if one.is_ascii_alphanumeric() => one,
        _ => '_',
    };
    let wwid: String = owner.wwid.chars().map(plain).take(NAME_MAX).collect();
    let hash = super::hash(&[&owner.identity, &owner.wwid]);
    format!("reservation-{wwid}-{hash:016x}.toml")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scsi::reservation::{Key, Type};
    use crate::state::Holding;
    use std::fs;

    fn owner(identity: &str) -> Owner {
        Owner { identity: identity.into(), wwid: "t10.ACME  disk/1".into() }
    }

    fn kept(key: u64) -> Kept {
        Kept { key: Some(Key(key)), generation: key as u32, ..Kept::default() }
    }

    fn reopened(directory: &Path) -> Result<Option<Kept>, StateError> {
        Store::open(directory, owner("a")).map(|(_, kept)| kept)
    }

    #[test]
    fn store_gives_back_the_last_words_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("made/by/us");
        let (store, nothing) = Store::open(&place, owner("a")).unwrap();
        assert_eq!(nothing, None);
        assert_eq!(
            store.file().file_name().unwrap().to_str().unwrap(),
            "reservation-t10.ACME__disk_1-abdbea2428e14aea.toml",
            "another name would lose what the last version of this program has kept"
        );
        store.write(&kept(1)).unwrap();
        store.write(&kept(2)).unwrap();
        drop(store);
        assert_eq!(reopened(&place).unwrap(), Some(kept(2)));
    }

    #[test]
    fn store_is_one_backends_at_a_time_and_others_have_their_own() {
        let dir = tempfile::tempdir().unwrap();
        let (first, _) = Store::open(dir.path(), owner("a")).unwrap();
        first.write(&kept(1)).unwrap();
        let refused = reopened(dir.path()).unwrap_err().to_string();
        assert!(
            refused.contains(&format!("(process {}) has this file", std::process::id())),
            "{refused}"
        );
        let (second, nothing) = Store::open(dir.path(), owner("b")).unwrap();
        assert_eq!(nothing, None);
        second.write(&kept(2)).unwrap();
        drop(first);
        assert_eq!(reopened(dir.path()).unwrap(), Some(kept(1)));
    }

    #[test]
    fn store_leaves_what_it_does_not_understand() {
        let dir = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(dir.path(), owner("a")).unwrap();
        let file = store.file().to_owned();
        drop(store);
        let foreign = document::write(&owner("b"), &kept(3)).unwrap();
        for (words, says) in [
            (&b"version = 1\n"[..], "it is damaged"),
            (b"\xFF\xFE", "it is damaged"),
            (b"version = 9\n", "it is of version 9"),
            (foreign.as_bytes(), "it belongs to the backend b"),
        ] {
            fs::write(&file, words).unwrap();
            let error = reopened(dir.path()).unwrap_err().to_string();
            assert!(error.contains(says) && error.contains(file.to_str().unwrap()), "{error}");
            assert_eq!(fs::read(&file).unwrap(), words, "nothing is lost");
        }
    }

    #[test]
    fn store_refuses_what_it_would_not_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(dir.path(), owner("a")).unwrap();
        store.write(&kept(1)).unwrap();
        // Each character takes six bytes of a file.
        let holder = Some("\u{1}".repeat(20_000));
        let reservation = Some(Holding { kind: Type::WriteExclusive, holder });
        let error = store.write(&Kept { reservation, ..kept(2) }).unwrap_err().to_string();
        assert!(error.contains("cannot write it: it is too large"), "{error}");
        drop(store);
        assert_eq!(reopened(dir.path()).unwrap(), Some(kept(1)));
    }

    #[test]
    fn store_that_cannot_be_written_says_so_and_keeps_the_old_words() {
        let dir = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(dir.path(), owner("a")).unwrap();
        store.write(&kept(1)).unwrap();
        let mut draft = store.file().as_os_str().to_owned();
        draft.push(".new");
        fs::create_dir(&draft).unwrap();
        let error = store.write(&kept(2)).unwrap_err();
        assert!(matches!(&error, StateError::Host { what: "write it", .. }), "{error}");
        drop(store);
        assert_eq!(reopened(dir.path()).unwrap(), Some(kept(1)));
        let nowhere =
            Store::open(Path::new("/dev/null/state"), owner("a")).unwrap_err().to_string();
        assert!(nowhere.starts_with("/dev/null/state: cannot make the directory"), "{nowhere}");
    }
}
