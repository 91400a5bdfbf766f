//! multipath.conf's text as a tree: sections in braces, `name value` lines, `#` and `!` comments,
//! quotes with `""` for one inside. A line holds one thing.

use std::iter::Peekable;
use std::str::Chars;

/// Sections in sections at most; the format has three levels.
const DEPTH_MAX: usize = 4;

/// A section and what is in it. The file itself is one without a name.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Section {
    /// Its name.
    pub name: String,
    /// Where it begins.
    pub line: usize,
    /// Its settings, in order.
    pub entries: Vec<Entry>,
    /// The sections in it.
    pub sections: Vec<Section>,
}

/// A setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Its value, without quotes; empty where there is none.
    pub value: String,
    /// Where it stands.
    pub line: usize,
}

/// Reads it; the line and what is wrong with it otherwise.
pub fn parse(text: &str) -> Result<Section, (usize, String)> {
    let mut open = vec![Section::default()];
    let mut last = 0;
    for (number, line) in text.lines().enumerate().map(|(at, line)| (at + 1, line)) {
        last = number;
        let wrong = |what: &str| (number, what.to_owned());
        let words = words(&line.replace(char::is_control, " ")).map_err(wrong)?;
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        match words.as_slice() {
            [] => {}
            ["}"] => {
                let closed = open.pop().unwrap_or_default();
                let parent = open.last_mut().ok_or_else(|| wrong("a } without its {"))?;
                parent.sections.push(closed);
            }
            [name, "{"] => {
                if open.len() > DEPTH_MAX {
                    return Err(wrong("sections in sections in sections"));
                }
                let section =
                    Section { name: (*name).to_owned(), line: number, ..Section::default() };
                open.push(section);
            }
            words if words.iter().any(|word| matches!(*word, "{" | "}")) => {
                return Err(wrong(
                    "a brace that does not end a section's first line or stand alone",
                ));
            }
            [name, values @ ..] => {
                let entry =
                    Entry { name: (*name).to_owned(), value: values.join(" "), line: number };
                if let Some(section) = open.last_mut() {
                    section.entries.push(entry);
                }
            }
        }
    }
    match (open.pop(), open.is_empty()) {
        (Some(root), true) => Ok(root),
        (Some(section), false) => {
            Err((last, format!("the section {} of line {} has no }}", section.name, section.line)))
        }
        (None, _) => Ok(Section::default()),
    }
}

/// A line's words; braces are words of their own outside quotes.
fn words(line: &str) -> Result<Vec<String>, &'static str> {
    let mut words = Vec::new();
    let mut rest = line.chars().peekable();
    while let Some(one) = rest.peek().copied() {
        match one {
            '#' | '!' => break,
            one if one.is_whitespace() => {
                rest.next();
            }
            '"' => {
                rest.next();
                words.push(quoted(&mut rest)?);
            }
            '{' | '}' => {
                rest.next();
                words.push(one.to_string());
            }
            _ => {
                let mut word = String::new();
                let ends = |one: &char| one.is_whitespace() || "\"{}#!".contains(*one);
                while let Some(one) = rest.next_if(|one| !ends(one)) {
                    word.push(one);
                }
                words.push(word);
            }
        }
    }
    Ok(words)
}

/// From behind the first quote to behind the last.
fn quoted(rest: &mut Peekable<Chars<'_>>) -> Result<String, &'static str> {
    let mut text = String::new();
    loop {
        match rest.next() {
            None => return Err("a quote without its end"),
            Some('"') if rest.peek() == Some(&'"') => {
                rest.next();
                text.push('"');
            }
            Some('"') => return Ok(text),
            Some(one) => text.push(one),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_reads_sections_quotes_and_comments() {
        let text = "# all\ndefaults {\n\tpath_selector \"service-time 0\" # how\n ! old\n}\n\
                    devices {\n device {\n vendor \"A \"\"B\"\"\"\n }\n}\nodd\n";
        let root = parse(text).unwrap();
        let entry =
            |name: &str, value: &str, line| Entry { name: name.into(), value: value.into(), line };
        assert_eq!(root.sections[0].entries, [entry("path_selector", "service-time 0", 3)]);
        assert_eq!(root.sections[1].sections[0].entries, [entry("vendor", "A \"B\"", 8)]);
        assert_eq!(root.entries, [entry("odd", "", 11)]);
    }

    #[test]
    fn parse_says_where_it_goes_wrong() {
        let cases = [
            ("defaults {\n", (1, "the section defaults of line 1 has no }")),
            ("}\n", (1, "a } without its {")),
            ("a \"b\n", (1, "a quote without its end")),
            (
                "\nx { y 1 }\n",
                (2, "a brace that does not end a section's first line or stand alone"),
            ),
            ("a {\nb {\nc {\nd {\ne {\n", (5, "sections in sections in sections")),
        ];
        for (text, (line, what)) in cases {
            assert_eq!(parse(text), Err((line, what.to_owned())), "{text:?}");
        }
    }

    #[test]
    fn parse_takes_any_text_without_a_panic() {
        for text in ["", "{", "{{}}", "\"\"", "é {\n}\n", "\0\n#", "} }", "a{\n}"] {
            let _ = parse(text);
        }
        assert_eq!(parse("a{\n}").unwrap().sections[0].name, "a");
    }
}
