//! docs/settings.md has every key of the configuration file, with the default, the range and the
//! reload that the source has.

use std::collections::BTreeMap;
use std::path::Path;

use vhost_user_scsi_mpath::config::{Config, file};

use super::{cells, read};

/// A row of the tables.
struct Row {
    /// As TOML has it; "" where there is none.
    default: String,
    /// Words and ranges that are allowed.
    allowed: String,
    /// When a change counts.
    reload: String,
}

/// Table and key.
type Key = (String, String);

fn documented() -> BTreeMap<Key, Row> {
    let (mut table, mut rows) = (String::new(), BTreeMap::new());
    for line in read("docs/settings.md").lines() {
        if let Some(name) = line.strip_prefix("## `[").and_then(|rest| rest.split(']').next()) {
            table = name.trim_start_matches('[').to_owned();
        }
        let Some(cells) = cells(line) else { continue };
        let [key, default, allowed, reload, _] = cells[..] else { continue };
        let Some(key) = key.strip_prefix('`').and_then(|key| key.strip_suffix('`')) else {
            continue;
        };
        let default = default.trim_matches('`').replace("none", "");
        let row = Row { default, allowed: allowed.to_owned(), reload: reload.to_owned() };
        assert!(rows.insert((table.clone(), key.to_owned()), row).is_none(), "{key}: twice");
    }
    rows
}

/// Every key that the file may have.
fn known() -> Vec<Key> {
    let source = read("src/config/file.rs");
    let mut keys = Vec::new();
    for table in ["Backend", "Lun", "Iscsi", "Discovery", "Metrics", "Confinement", "Path"] {
        let start = format!("struct {table}Table {{");
        let body = source.split(&start).nth(1).expect(table);
        let body = body.split('}').next().unwrap_or_default();
        for field in body.lines().filter_map(|line| line.trim().strip_prefix("pub ")) {
            let key = field.split(':').next().unwrap_or_default();
            keys.push((table.to_lowercase(), key.to_owned()));
        }
    }
    assert!(keys.len() > 25, "the source was not understood");
    keys
}

fn parse(text: &str) -> Result<Config, String> {
    file::parse(Path::new("lun.toml"), text).map_err(|error| error.to_string())
}

/// A file that sets one key, and what it needs beside it.
fn file_with((table, key): &Key, value: &str) -> String {
    let mut rest = String::new();
    // Nothing that stands on its own may be longer than the time for the whole command.
    if table == "lun" && ["path_timeout", "write_quiesce"].contains(&key.as_str()) {
        rest = "command_deadline = 3600.0\n".to_owned();
    }
    match table.as_str() {
        "path" => format!("[[path]]\naddress = \"null:1M\"\n{key} = {value}\n"),
        // Which disks of the host would it take?
        "discovery" => {
            format!(
                "[lun]\nwwid = \"naa.600140505200a986f0043c9afa1fd077\"\n[discovery]\n{key} = {value}\n"
            )
        }
        _ => format!("[{table}]\n{rest}{key} = {value}\n"),
    }
}

#[test]
fn every_key_has_a_row_and_no_row_is_stale() {
    let documented: Vec<Key> = documented().into_keys().collect();
    let mut known = known();
    known.sort();
    assert_eq!(documented, known);
}

#[test]
fn defaults_are_those_of_the_source() {
    for (key, row) in documented() {
        if row.default.is_empty() {
            continue;
        }
        let plain = match key.0.as_str() {
            "path" => "[[path]]\naddress = \"null:1M\"\n",
            _ => "",
        };
        let Ok(mut given) = parse(&file_with(&key, &row.default)) else {
            panic!("{key:?}: the default {} is refused", row.default)
        };
        // They stood beside the key.
        given.lun.wwid = None;
        given.lun.command_deadline = match key.1.as_str() {
            "command_deadline" => given.lun.command_deadline,
            _ => Config::default().lun.command_deadline,
        };
        assert_eq!(Ok(given), parse(plain), "{key:?}: {} is not the default", row.default);
    }
}

#[test]
fn keys_without_a_default_are_those_that_name_something() {
    let documented = documented();
    let without = documented.iter().filter(|(_, row)| row.default.is_empty());
    let without: Vec<&str> = without.map(|((_, key), _)| key.as_str()).collect();
    assert_eq!(without, ["control", "socket", "wwid", "address"]);
}

#[test]
fn ranges_are_those_of_the_source() {
    let mut ranges = 0;
    for (key, row) in documented() {
        for word in row.allowed.split('`').skip(1).step_by(2) {
            let refused = parse(&file_with(&key, word)).err();
            assert!(refused.is_none(), "{key:?}: {word}: {refused:?}");
        }
        let numbers = row.allowed.split(", ").find_map(|part| part.split_once(" to "));
        let Some((least, most)) = numbers else { continue };
        ranges += 1;
        let number = |text: &str| text.parse::<f64>().expect("a range has two numbers");
        let out = |value: &str| {
            let error = parse(&file_with(&key, value)).err().unwrap_or_default();
            error.contains("out of range")
        };
        assert!(!out(least) && !out(most), "{key:?}: {least} to {most} is allowed");
        // A count has no fraction.
        let count = ["request_queues", "busy_poll_us"].contains(&key.1.as_str());
        let step = if count { 1.0 } else { 0.0001 };
        let show = |value: f64| if count { value.to_string() } else { format!("{value:?}") };
        assert!(out(&show(number(least) - step)), "{key:?}: less than {least}");
        assert!(out(&show(number(most) + step)), "{key:?}: more than {most}");
    }
    assert_eq!(ranges, 10);
}

#[test]
fn reloads_are_those_of_the_source() {
    let (kept, changed) = (read("src/backend/reload/plan.rs"), read("src/backend/reload/apply.rs"));
    for ((table, key), row) in documented() {
        let names = [format!("\"{table}.{key}\""), format!("\"[{table}]\""), format!("\"{key}\"")];
        let named = |source: &str| names.iter().any(|name| source.contains(name));
        match row.reload.as_str() {
            "restart" => assert!(named(&kept) && !named(&changed), "{table}.{key} is not kept"),
            "at once" => {
                let path = table == "path" && ["address", "name"].contains(&key.as_str());
                assert!(path || named(&changed), "{table}.{key} is not changed");
            }
            other => panic!("{table}.{key}: {other}?"),
        }
    }
}
