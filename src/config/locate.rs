//! From an offset in the file to what a person looks for: line, column, and the setting's name.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Where a setting was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// On the command line.
    Option,
    /// In a file, at this line and column (both from 1), or nowhere in particular.
    File(PathBuf, Option<(usize, usize)>),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Option => f.write_str("command line"),
            Place::File(file, None) => write!(f, "{}", file.display()),
            Place::File(file, Some((line, column))) => {
                write!(f, "{}:{line}:{column}", file.display())
            }
        }
    }
}

/// A file's text, to be asked about.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source<'a> {
    /// Its name, for messages.
    pub file: &'a Path,
    /// Its text.
    pub text: &'a str,
}

impl Source<'_> {
    /// The place of `span`'s first byte.
    pub fn place(&self, span: Option<Range<usize>>) -> Place {
        let position = span.and_then(|span| {
            let before = self.text.get(..span.start)?;
            let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
            let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
            Some((line, before[line_start..].chars().count() + 1))
        });
        Place::File(self.file.to_owned(), position)
    }

    /// The setting, with its tables before it, that stands at `offset`: its key or its value.
    pub fn setting_at(&self, offset: usize) -> Option<String> {
        let (table, _) = DeTable::parse_recoverable(self.text);
        deepest(table.get_ref(), "", offset)
    }
}

/// The innermost key whose value covers `offset`. A table's own span is its header alone, so all
/// tables are looked into.
fn deepest(table: &DeTable<'_>, above: &str, offset: usize) -> Option<String> {
    table.iter().find_map(|(key, value)| {
        let own = shown(key.get_ref());
        let name = if above.is_empty() { own } else { format!("{above}.{own}") };
        let inner = deepest_in(value, &name, offset);
        inner.or_else(|| key.span().contains(&offset).then_some(name))
    })
}

/// A key as a message may show it: on one line, whatever stands in its quotes.
fn shown(key: &str) -> String {
    let is_bare = |one: char| one.is_ascii_alphanumeric() || matches!(one, '_' | '-');
    if key.chars().all(is_bare) { key.to_owned() } else { format!("{key:?}") }
}

fn deepest_in(value: &Spanned<DeValue<'_>>, name: &str, offset: usize) -> Option<String> {
    let inner = match value.get_ref() {
        DeValue::Table(table) => deepest(table, name, offset),
        DeValue::Array(items) => items.iter().find_map(|item| deepest_in(item, name, offset)),
        _ => None,
    };
    inner.or_else(|| value.span().contains(&offset).then(|| name.to_owned()))
}
