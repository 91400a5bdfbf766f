//! Reading small files that may be anything: missing, huge, not text.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Bytes of an attribute that are read at most. sysfs has a page for each.
const ATTRIBUTE_MAX: usize = 4096;
/// Bytes of a table of /proc that are read at most.
const TABLE_MAX: u64 = 16 << 20;
/// Entries of one directory that are looked at, at most.
const ENTRIES_MAX: usize = 65_536;

/// What an attribute says, on one line and printable; `None` when it cannot be read.
pub fn attribute(path: &Path) -> Option<String> {
    attribute_of(&File::open(path).ok()?).ok()
}

/// The same of an open file, read anew.
pub fn attribute_of(file: &File) -> io::Result<String> {
    let mut bytes = [0; ATTRIBUTE_MAX];
    let len = file.read_at(&mut bytes, 0)?;
    Ok(printable(&String::from_utf8_lossy(&bytes[..len])))
}

/// The bytes of a binary attribute, such as a page of vital product data.
pub fn binary(path: &Path) -> Option<Vec<u8>> {
    // A page's length field has 16 bits, and its header four bytes.
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(65_540).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// A table of /proc, empty when it cannot be read.
pub fn table(path: &Path) -> String {
    let mut bytes = Vec::new();
    // What was read before an error still counts.
    let _ = File::open(path).map(|file| file.take(TABLE_MAX).read_to_end(&mut bytes));
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The names in a directory, in order; none when it cannot be read. A name that is no text is left
/// out: the kernel gives no such name.
pub fn names(directory: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let name = |entry: io::Result<std::fs::DirEntry>| entry.ok()?.file_name().into_string().ok();
    let mut names: Vec<String> = entries.take(ENTRIES_MAX).filter_map(name).collect();
    names.sort_unstable();
    names
}

/// The last part of where a link leads, as it is written.
pub fn link_name(link: &Path) -> Option<String> {
    last_name(&std::fs::read_link(link).ok()?)
}

/// The last part of a path.
pub fn last_name(path: &Path) -> Option<String> {
    Some(path.file_name()?.to_str()?.to_owned())
}

/// The node of a device that the kernel calls `name`: a `!` in it stands for a `/`.
pub fn node(dev: &Path, name: &str) -> PathBuf {
    name.split('!').fold(dev.to_owned(), |path, part| path.join(part))
}

/// Without what would break a line or a terminal.
pub fn printable(text: &str) -> String {
    let plain = |one: char| if one.is_control() { ' ' } else { one };
    text.trim().chars().map(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("attribute");
        std::fs::write(&path, bytes).unwrap();
        (folder, path)
    }

    #[test]
    fn attribute_is_one_printable_line() {
        let (_folder, path) = file(b"run\x1b[31m\nning\xFF \n\n");
        assert_eq!(attribute(&path).unwrap(), "run [31m ning\u{FFFD}");
        assert_eq!(attribute(&path.with_file_name("missing")), None);
        assert_eq!(attribute(path.parent().unwrap()), None, "a directory");
    }

    #[test]
    fn huge_files_are_read_in_part() {
        let (_folder, path) = file(&vec![b'x'; 1 << 20]);
        assert_eq!(attribute(&path).unwrap().len(), ATTRIBUTE_MAX);
        assert_eq!(binary(&path).unwrap().len(), 65_540);
    }

    #[test]
    fn link_name_of_a_loop_is_what_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("loop");
        std::os::unix::fs::symlink("loop", &link).unwrap();
        assert_eq!(link_name(&link).as_deref(), Some("loop"));
        assert_eq!((attribute(&link), names(&link), table(&link)), (None, vec![], String::new()));
    }

    #[test]
    fn node_reads_the_exclamation_mark() {
        assert_eq!(node(Path::new("/dev"), "cciss!c0d0"), Path::new("/dev/cciss/c0d0"));
    }
}
