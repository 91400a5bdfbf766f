//! A small file that is replaced whole: whatever happens meanwhile, its name leads to the old words
//! or to the new ones, never to a part of either.
//!
//! ```text
//!   draft written -> draft on the medium -> draft renamed -> folder on the medium
//! ```
//!
//! A crash before the renaming leaves a draft beside the file. The next write begins with an empty
//! one, and nobody ever reads it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Bytes of a file at most: what is remembered of a guest is far shorter.
const BYTES_MAX: u64 = 64 << 10;
/// Only the backend's user reads it: a key lets its owner take part in a cluster.
const MODE: u32 = 0o600;

/// What has just been done, for tests that let the host go down there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The draft is there, and may be empty.
    Created,
    /// It has all its bytes, which may be in the host's memory only.
    Written,
    /// They are on the medium.
    Synced,
    /// The file's name leads to them.
    Renamed,
    /// And does so after a crash.
    Done,
}

/// Replaces the file. When this returns `Ok`, the new words outlive a crash of the host; after an
/// error either the old or the new ones do.
pub(super) fn replace(file: &Path, words: &str) -> io::Result<()> {
    replace_by_steps(file, words, |_| Ok(()))
}

/// The same; `after` is told of each step, and may end it there.
pub(super) fn replace_by_steps(
    file: &Path,
    words: &str,
    mut after: impl FnMut(Step) -> io::Result<()>,
) -> io::Result<()> {
    if words.len() as u64 > BYTES_MAX {
        return Err(too_large());
    }
    let draft = draft(file);
    let mut options = OpenOptions::new();
    let mut out = options.write(true).create(true).truncate(true).mode(MODE).open(&draft)?;
    after(Step::Created)?;
    out.write_all(words.as_bytes())?;
    after(Step::Written)?;
    out.sync_all()?;
    after(Step::Synced)?;
    fs::rename(&draft, file)?;
    after(Step::Renamed)?;
    // The folder has the file's name.
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()?;
    after(Step::Done)
}

/// The file's words; `None` where there is no such file.
pub(super) fn read(file: &Path) -> io::Result<Option<String>> {
    let open = match File::open(file) {
        Ok(open) => open,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut words = String::new();
    let size = open.take(BYTES_MAX + 1).read_to_string(&mut words)?;
    if size as u64 > BYTES_MAX {
        return Err(too_large());
    }
    Ok(Some(words))
}

fn too_large() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "it is too large")
}

/// Where the new words wait for their name.
fn draft(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".new");
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEPS: [Step; 5] =
        [Step::Created, Step::Written, Step::Synced, Step::Renamed, Step::Done];

    fn crash_at(step: Step) -> impl FnMut(Step) -> io::Result<()> {
        move |at| if at == step { Err(io::Error::other("crash")) } else { Ok(()) }
    }

    #[test]
    fn replace_crashed_anywhere_leaves_old_or_new_and_can_be_done_again() {
        for step in STEPS {
            let dir = tempfile::tempdir().unwrap();
            let file = dir.path().join("state");
            replace(&file, "old").unwrap();
            assert!(replace_by_steps(&file, "the new words", crash_at(step)).is_err());
            let renamed = matches!(step, Step::Renamed | Step::Done);
            let expected = if renamed { "the new words" } else { "old" };
            assert_eq!(read(&file).unwrap().as_deref(), Some(expected), "{step:?}");
            // A longer draft that was left must not show through.
            replace(&file, "last").unwrap();
            assert_eq!(read(&file).unwrap().as_deref(), Some("last"), "{step:?}");
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "{step:?}");
        }
    }

    #[test]
    fn first_write_crashed_before_the_renaming_leaves_no_file() {
        for step in &STEPS[..3] {
            let dir = tempfile::tempdir().unwrap();
            let file = dir.path().join("state");
            assert!(replace_by_steps(&file, "words", crash_at(*step)).is_err());
            assert_eq!(read(&file).unwrap(), None, "{step:?}");
        }
    }

    #[test]
    fn replace_where_nothing_can_be_written_keeps_the_old_words() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("state");
        replace(&file, "old").unwrap();
        // As in the way as a full disk or missing rights, which a test has no power over as root.
        fs::create_dir(dir.path().join("state.new")).unwrap();
        assert!(replace(&file, "new").is_err());
        assert_eq!(read(&file).unwrap().as_deref(), Some("old"));
        assert_eq!(
            replace(Path::new("/dev/null/state"), "x").unwrap_err().kind(),
            io::ErrorKind::NotADirectory
        );
    }

    #[test]
    fn read_refuses_what_is_no_text_of_ours() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("state");
        fs::write(&file, [0xFF, 0xFE]).unwrap();
        assert_eq!(read(&file).unwrap_err().kind(), io::ErrorKind::InvalidData);
        fs::write(&file, vec![b'x'; BYTES_MAX as usize + 1]).unwrap();
        assert_eq!(read(&file).unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert!(read(dir.path()).is_err());
    }

    #[test]
    fn file_is_for_its_owner_alone() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("state");
        replace(&file, "words").unwrap();
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o077, 0);
    }
}
