//! `import-multipath-conf FILE`: our configuration from multipath.conf, one file per LUN.
//!
//! | file | what |
//! |---|---|
//! | `mod` | which LUNs, and what is printed for each |
//! | `parse` | multipath.conf's text as a tree |
//! | `settings` | **the table**: each of its settings, and ours or why there is none |

mod parse;
mod settings;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Read;
use std::path::{Path, PathBuf};

use vhost_user_scsi_mpath::config;
use vhost_user_scsi_mpath::limits::IMPORT_FILE_MAX;

use crate::Output;
use crate::backends::Failure;
use parse::{Entry, Section};
use settings::{Meaning, Scope};

/// Why there is nothing to print.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The file.
    #[error("{}: cannot read it: {cause}", file.display())]
    Unreadable {
        /// Which.
        file: PathBuf,
        /// Why.
        cause: std::io::Error,
    },
    /// Its text.
    #[error("{}:{line}: {what}", file.display())]
    Malformed {
        /// Which.
        file: PathBuf,
        /// Where.
        line: usize,
        /// What is wrong.
        what: String,
    },
    /// No LUN is named in it.
    #[error(
        "{}: it has no multipath section with a wwid; say which LUN is meant with --wwid",
        .0.display()
    )]
    NoLun(PathBuf),
}

/// Prints the configuration of each multipath section, or of one LUN.
pub fn run(file: &Path, wwid: Option<&str>, output: &mut Output<'_>) -> Result<u8, Failure> {
    let unreadable = |cause| ImportError::Unreadable { file: file.to_owned(), cause };
    let mut text = String::new();
    let open = std::fs::File::open(file).map_err(unreadable)?;
    open.take(IMPORT_FILE_MAX + 1).read_to_string(&mut text).map_err(unreadable)?;
    if text.len() as u64 > IMPORT_FILE_MAX {
        let cause = std::io::Error::other(format!("it has more than {IMPORT_FILE_MAX} bytes"));
        return Err(unreadable(cause).into());
    }
    for lun in luns(file, &text, wwid)? {
        write!(output.out, "{lun}")?;
    }
    Ok(0)
}

/// The texts, one for each LUN.
fn luns(file: &Path, text: &str, wwid: Option<&str>) -> Result<Vec<String>, ImportError> {
    let root = parse::parse(text).map_err(|(line, what)| ImportError::Malformed {
        file: file.to_owned(),
        line,
        what,
    })?;
    let stanzas = root.sections("multipaths").flat_map(|all| all.sections("multipath"));
    let of = |stanza: &&Section| stanza.value("wwid").map(|entry| entry.value.clone());
    let named: Vec<(String, Option<&Section>)> =
        stanzas.filter_map(|stanza| Some((of(&stanza)?, Some(stanza)))).collect();
    let meant = match wwid {
        None => named,
        Some(wwid) => {
            let found: Vec<_> = named.into_iter().filter(|(one, _)| one == wwid).collect();
            if found.is_empty() { vec![(wwid.to_owned(), None)] } else { found }
        }
    };
    if meant.is_empty() {
        return Err(ImportError::NoLun(file.to_owned()));
    }
    Ok(meant.into_iter().map(|(wwid, stanza)| lun(file, &root, &wwid, stanza)).collect())
}

/// One LUN's file.
fn lun(file: &Path, root: &Section, wwid: &str, stanza: Option<&Section>) -> String {
    let alias = stanza.and_then(|stanza| stanza.value("alias")).map(|entry| entry.value.as_str());
    let name = alias.filter(|alias| is_file_name(alias)).unwrap_or(wwid);
    let mut out =
        format!("#### {name}.toml, from {} for LUN {wwid}\n\n[backend]\n", file.display());
    for (key, ending) in [("socket", "sock"), ("control", "ctl")] {
        let path = format!("/run/vhost-user-scsi-mpath/{name}.{ending}");
        // A string takes whatever is written to it, here and below.
        let _ = writeln!(out, "{key} = {}", quoted(&path));
    }
    out += "\n[lun]\n";
    out += &setting("wwid", &quoted(wwid), "");
    let scope = Scope::new(root, stanza);
    let mut seen = BTreeSet::new();
    let mut lines = Vec::new();
    for (place, entry) in scope.entries() {
        // The first of a name wins: the scope goes from the strongest section to the weakest.
        if seen.insert(entry.name.clone()) {
            let from = format!("{} {} ({place}, line {})", entry.name, entry.value, entry.line);
            lines.push((entry.line, translated(&settings::meaning(&scope, entry), &from)));
        }
    }
    lines.sort();
    out.extend(lines.into_iter().map(|(_, line)| line));
    if !seen.contains("no_path_retry") {
        out += "# no_path_retry is not set: dm-multipath then fails commands without a path, unless its built-in\n\
                # table of arrays says otherwise (multipathd show config local); this program lets them wait.\n";
    }
    out += &devices(root, &scope);
    out += "\n# multipath.conf names no paths. One table for each:\n#[[path]]\n#address = \"iscsi://...\"\n\n";
    out
}

/// What holds only for some arrays, which multipath.conf tells by vendor and product: to be
/// switched on by hand.
fn devices(root: &Section, scope: &Scope<'_>) -> String {
    let mut out = String::new();
    for device in root.sections("devices").flat_map(|all| all.sections("device")) {
        let text = |name: &str| device.value(name).map_or("", |entry| entry.value.as_str());
        let (vendor, product) = (text("vendor"), text("product"));
        let mut lines = String::new();
        for entry in device.entries.iter().filter(|entry| !scope.overrides(&entry.name)) {
            let from = format!("{} {} (line {})", entry.name, entry.value, entry.line);
            if let Meaning::Ours { key, value, note } = settings::meaning(scope, entry) {
                let _ = writeln!(lines, "#{key} = {value}  # {from}{}", after(&note));
            }
        }
        if !lines.is_empty() {
            let which = format!("{vendor} {product} (line {})", device.line);
            let _ =
                write!(out, "# Only if the array is {which}, in place of what is above:\n{lines}");
        }
    }
    out
}

fn translated(meaning: &Meaning, from: &str) -> String {
    match meaning {
        Meaning::Ours { key, value, note } => {
            setting(key, value, &format!("{from}{}", after(note)))
        }
        Meaning::None(why) => format!("# {from}: {why}\n"),
        Meaning::Elsewhere => String::new(),
    }
}

fn after(note: &str) -> String {
    if note.is_empty() { String::new() } else { format!(": {note}") }
}

/// A line of `[lun]`; as a comment with the reason where this version does not take it.
fn setting(key: &str, value: &str, comment: &str) -> String {
    let comment = if comment.is_empty() { String::new() } else { format!("  # {comment}") };
    let text = format!("[lun]\n{key} = {value}\n");
    match config::file::parse(Path::new("it"), &text) {
        Ok(_) => format!("{key} = {value}{comment}\n"),
        Err(error) => {
            let error = error.to_string();
            // Without the place, which is in no file that there is.
            let why = error.split_once(&format!("lun.{key}: ")).map_or(&*error, |(_, why)| why);
            format!("#{key} = {value}{comment}; refused: {why}\n")
        }
    }
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

fn is_file_name(alias: &str) -> bool {
    let plain = |one: char| one.is_ascii_alphanumeric() || "._-".contains(one);
    !alias.is_empty() && !alias.starts_with('.') && alias.chars().all(plain)
}

impl Section {
    /// The last setting of that name, which is the one that counts.
    fn value(&self, name: &str) -> Option<&Entry> {
        self.entries.iter().rev().find(|entry| entry.name == name)
    }

    /// The sections of that name.
    fn sections<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Section> {
        self.sections.iter().filter(move |section| section.name == name)
    }
}
