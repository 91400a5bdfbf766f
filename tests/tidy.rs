//! The house's own rules, kept by a test: who may know whom, where unsafe code may stand, how long
//! a file or a function may be.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Folder or file of `src/`, and what its code may import. What is not listed may not be there.
const ARROWS: &[(&str, &[&str])] = &[
    ("ids", &[]),
    ("limits", &[]),
    ("buffer", &[]),
    ("fnv", &[]),
    ("lock_sys", &[]),
    ("socket", &[]),
    ("confine", &[]),
    ("systemd", &[]),
    ("logging", &["limits", "systemd"]),
    ("scsi", &[]),
    ("state", &["scsi", "fnv", "lock_sys", "confine"]),
    ("completion", &["scsi", "ids"]),
    ("virtio_scsi", &["scsi", "completion"]),
    ("path", &["scsi", "ids", "limits", "buffer", "fnv", "lock_sys", "confine"]),
    ("lun", &["scsi", "ids", "limits", "buffer", "completion"]),
    ("multipath", &["scsi", "ids", "limits", "lun", "path"]),
    ("stats", &["scsi", "ids", "limits", "multipath"]),
    (
        "engine",
        &[
            "scsi",
            "ids",
            "limits",
            "buffer",
            "completion",
            "virtio_scsi",
            "lun",
            "multipath",
            "path",
            "stats",
        ],
    ),
    (
        "front",
        &[
            "socket",
            "ids",
            "limits",
            "buffer",
            "completion",
            "confine",
            "virtio_scsi",
            "scsi",
            "engine",
        ],
    ),
    ("config", &["limits", "systemd"]),
    ("control", &["limits", "config", "confine", "scsi", "socket", "state"]),
    ("metrics", &["limits", "config", "confine", "control", "socket"]),
    (
        "backend",
        &[
            "ids",
            "limits",
            "config",
            "confine",
            "control",
            "engine",
            "front",
            "logging",
            "metrics",
            "multipath",
            "path",
            "scsi",
            "socket",
            "state",
            "stats",
            "systemd",
        ],
    ),
];

/// Files that may hold unsafe code: memory that is not ours, and the kernel's calls.
const UNSAFE: &[&str] = &["buffer.rs", "front/memory.rs", "front/ring.rs", "front/chain.rs"];

/// Lines of production code in one file at most.
const FILE_LINES: usize = 400;
/// Lines of a function at most.
const FUNCTION_LINES: usize = 70;

struct Source {
    name: String,
    /// All lines up to the test module.
    code: Vec<String>,
}

impl Source {
    fn room(&self) -> &str {
        self.name.split(['/', '.']).next().unwrap_or("")
    }
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("src is there") {
        let path = entry.expect("it can be read").path();
        if path.is_dir() {
            walk(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    walk(&root, &mut paths);
    paths.sort();
    let read = |path: &PathBuf| {
        let text = fs::read_to_string(path).expect("it is text");
        let name = path.strip_prefix(&root).expect("it is below").display().to_string();
        let code = text.lines().take_while(|line| line.trim() != "#[cfg(test)]").map(str::to_owned);
        Source { name, code: code.collect() }
    };
    let is_test =
        |source: &Source| source.name.contains("/tests") || source.name.ends_with("/testing.rs");
    let sources: Vec<Source> = paths.iter().map(read).filter(|source| !is_test(source)).collect();
    assert!(sources.len() > 50, "the sources were not found");
    sources
}

fn complain(complaints: Vec<String>) {
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

fn without_comment(line: &str) -> &str {
    line.split("//").next().unwrap_or("")
}

/// The names behind `crate::` in a line of code, with `{a, b}` taken apart.
fn imports(line: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for rest in without_comment(line).split("crate::").skip(1) {
        let list = rest.strip_prefix('{').and_then(|list| list.split('}').next());
        let parts: Vec<&str> = list.map_or_else(|| vec![rest], |list| list.split(',').collect());
        for part in parts {
            let name: String = part
                .trim()
                .chars()
                .take_while(|one| one.is_alphanumeric() || *one == '_')
                .collect();
            names.insert(name);
        }
    }
    names
}

#[test]
fn imports_run_along_the_arrows() {
    let arrows: BTreeMap<&str, &[&str]> = ARROWS.iter().copied().collect();
    let mut complaints = Vec::new();
    for source in sources() {
        let room = source.room().to_owned();
        if matches!(room.as_str(), "lib" | "main" | "bin") {
            continue;
        }
        let Some(allowed) = arrows.get(room.as_str()) else {
            complaints.push(format!("src/{}: no such room in ARROWS", source.name));
            continue;
        };
        for (at, line) in source.code.iter().enumerate() {
            for name in imports(line) {
                let known = arrows.contains_key(name.as_str());
                if known && name != room && !allowed.contains(&name.as_str()) {
                    let at = at + 1;
                    complaints
                        .push(format!("src/{}:{at}: {room} must not know {name}", source.name));
                }
            }
        }
    }
    complain(complaints);
}

#[test]
fn unsafe_code_stands_in_named_files() {
    let mut complaints = Vec::new();
    for source in sources() {
        let allowed = UNSAFE.contains(&source.name.as_str()) || source.name.ends_with("_sys.rs");
        let word = |line: &&String| {
            without_comment(line)
                .split(|one: char| !one.is_alphanumeric() && one != '_')
                .any(|word| word == "unsafe")
        };
        if !allowed && source.code.iter().any(|line| word(&line)) {
            complaints.push(format!("src/{}: unsafe code", source.name));
        }
        let pure = matches!(source.name.as_str(), "lun/mod.rs" | "multipath/mod.rs");
        if pure && !source.code.iter().any(|line| line == "#![forbid(unsafe_code)]") {
            complaints.push(format!("src/{}: forbids no unsafe code", source.name));
        }
    }
    complain(complaints);
}

#[test]
fn pure_rooms_have_no_clock_and_no_lock() {
    let words =
        ["Instant::now", "SystemTime", "Mutex", "RwLock", "thread::", "std::fs", "std::net"];
    let mut complaints = Vec::new();
    for source in sources().iter().filter(|source| matches!(source.room(), "lun" | "multipath")) {
        for word in words {
            if source.code.iter().any(|line| without_comment(line).contains(word)) {
                complaints.push(format!("src/{}: {word}", source.name));
            }
        }
    }
    complain(complaints);
}

#[test]
fn files_open_with_their_idea_and_are_short() {
    let mut complaints = Vec::new();
    for source in sources() {
        if !source.code.first().is_some_and(|line| line.starts_with("//! ")) {
            complaints.push(format!("src/{}: does not say what it is for", source.name));
        }
        if source.code.len() > FILE_LINES {
            complaints.push(format!("src/{}: {} lines", source.name, source.code.len()));
        }
    }
    complain(complaints);
}

#[test]
fn functions_are_short() {
    let mut complaints = Vec::new();
    for source in sources() {
        let mut start = None;
        for (at, line) in source.code.iter().enumerate() {
            let indent = line.len() - line.trim_start().len();
            let text = line.trim_start();
            let begins = ["fn ", "pub fn ", "pub(super) fn ", "pub(crate) fn ", "unsafe fn "];
            if start.is_none() && begins.iter().any(|begin| text.starts_with(begin)) {
                start = Some((at, indent));
            }
            // A declaration, of C's or of a trait's: it has no body.
            if let Some((from, _)) = start
                && text.ends_with(';')
                && (at == from || text.starts_with(')'))
            {
                start = None;
            }
            if let Some((from, depth)) = start
                && (text == "}" || (at == from && text.ends_with('}')))
                && indent == depth
            {
                if at - from + 1 > FUNCTION_LINES {
                    let lines = at - from + 1;
                    complaints.push(format!("src/{}:{}: {lines} lines", source.name, from + 1));
                }
                start = None;
            }
        }
    }
    complain(complaints);
}

#[test]
fn nothing_is_left_to_be_done() {
    // Spelled apart, so that this file does not accuse itself.
    let words = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];
    let mut complaints = Vec::new();
    for source in sources() {
        for (at, line) in source.code.iter().enumerate() {
            if words.iter().any(|word| line.contains(word)) {
                complaints.push(format!("src/{}:{}: {}", source.name, at + 1, line.trim()));
            }
        }
    }
    complain(complaints);
}
