//! docs/logs.md has a row for each line that the source logs, and no other.

use std::collections::{BTreeMap, BTreeSet};

use super::{cells, complain, files, read, root};

/// Level and words of a line, with `{}` for what is put in.
type Line = (String, String);

/// What stands for values in the words: their names differ between text and source.
fn blank(words: &str) -> String {
    let mut text = String::new();
    let mut depth = 0;
    for one in words.chars() {
        match one {
            '{' => depth += 1,
            '}' => {
                depth -= 1;
                text.push_str("{}");
            }
            _ if depth > 0 => {}
            one => text.push(one),
        }
    }
    text
}

/// The first string literal of `code`, and what follows it.
fn literal(code: &str) -> Option<(String, &str)> {
    let start = code.find('"')? + 1;
    let (mut words, mut rest) = (String::new(), &code[start..]);
    loop {
        let one = rest.chars().next()?;
        rest = &rest[one.len_utf8()..];
        match one {
            '"' => return Some((words, rest)),
            '\\' if rest.starts_with('\n') => rest = rest.trim_start(),
            '\\' => {
                let escaped = rest.chars().next()?;
                words.push(escaped);
                rest = &rest[escaped.len_utf8()..];
            }
            one => words.push(one),
        }
    }
}

/// The words of a macro whose arguments are `code`, and whether it is about a state. Fields go
/// before them and end with a semicolon.
fn words(code: &str) -> Option<(String, bool)> {
    let (mut before, mut rest, mut last) = (0, code, None);
    loop {
        let end = rest.find([')', '(', ';', '"'])?;
        match rest.as_bytes()[end] {
            b'"' => {
                let (found, after) = literal(&rest[end..])?;
                last.get_or_insert(found);
                rest = after;
                continue;
            }
            b';' => last = None,
            b'(' => before += 1,
            _ if before == 0 => break,
            _ => before -= 1,
        }
        rest = &rest[end + 1..];
    }
    let head = code.split('"').next().unwrap_or_default();
    Some((last?, head.contains("target: STATE")))
}

/// Every line of level info and above, with the file that logs it.
fn logged() -> BTreeMap<Line, String> {
    let mut lines = BTreeMap::new();
    for file in files(&root().join("src"), "rs") {
        let text = std::fs::read_to_string(&file).expect("it is text");
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        // A comment is no code.
        let code: Vec<&str> = code.lines().filter(|line| !line.trim().starts_with("//")).collect();
        let code = code.join("\n");
        for (level, call) in
            [("error", "error"), ("warning", "warn"), ("info", "info"), ("", "log")]
        {
            for rest in code.split(&format!("log::{call}!(")).skip(1) {
                let (words, state) = words(rest).expect("a macro has words and an end");
                let level = match (level, state) {
                    ("info", false) => "info*",
                    ("", _) => "warning or info",
                    (level, _) => level,
                };
                lines.insert((level.to_owned(), blank(&words)), file.display().to_string());
            }
        }
    }
    // The one that the limiter writes by itself, at the level of what it counts.
    let suppressed = "{number} more like this suppressed: {text}";
    assert!(read("src/logging/limit.rs").contains(&format!("format_args!(\"{suppressed}\")")));
    lines.insert(("any".to_owned(), blank(suppressed)), "src/logging/limit.rs".to_owned());
    assert!(lines.len() > 40, "the source was not understood: {lines:?}");
    lines
}

fn documented() -> BTreeSet<Line> {
    let text = read("docs/logs.md");
    let row = |cells: Vec<&str>| {
        let words = cells.get(1)?.strip_prefix('`')?.strip_suffix('`')?;
        assert_eq!(cells.len(), 4, "{words}: level, line, meaning, what to do");
        assert!(cells.iter().all(|cell| !cell.is_empty()), "{words}: an empty cell");
        let level = cells.first().copied().unwrap_or_default();
        Some((level.to_owned(), blank(words)))
    };
    let table = text.lines().skip_while(|line| !line.starts_with("| level |"));
    table.filter_map(cells).filter_map(row).collect()
}

#[test]
fn log_lines_have_a_row_each_and_no_row_is_stale() {
    let (logged, documented) = (logged(), documented());
    let mut complaints = Vec::new();
    for ((level, words), file) in &logged {
        if !documented.contains(&(level.clone(), words.clone())) {
            complaints.push(format!("docs/logs.md has no row: | {level} | `{words}` | ({file})"));
        }
    }
    for (level, words) in &documented {
        if !logged.contains_key(&(level.clone(), words.clone())) {
            complaints
                .push(format!("nothing logs this row of docs/logs.md: | {level} | `{words}` |"));
        }
    }
    complain(complaints);
}

#[test]
fn message_ids_are_those_of_the_source() {
    let id = |text: &str| -> BTreeSet<String> {
        let words = text.split(|one: char| !one.is_ascii_alphanumeric());
        let is_id =
            |word: &&str| word.len() == 32 && word.chars().all(|one| one.is_ascii_hexdigit());
        words.filter(is_id).map(str::to_owned).collect()
    };
    let source = id(&read("src/logging/message_id.rs"));
    assert!(source.len() > 5);
    assert_eq!(id(&read("docs/logs.md")), source);
}

#[test]
fn macro_is_understood_with_target_fields_and_long_words() {
    let code = "target: STATE, id = \"a;\", from:% = f(x); \"path {name}: \\\n   {} -> {to:?}\", g(\")\")); x";
    assert_eq!(words(code), Some(("path {name}: {} -> {to:?}".to_owned(), true)));
    assert_eq!(blank("path {name}: {} -> {to:?}"), "path {}: {} -> {}");
    assert_eq!(words("\"say \\\"{x}\\\"\") \"y\""), Some(("say \"{x}\"".to_owned(), false)));
}
