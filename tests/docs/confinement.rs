//! docs/confinement.md has a row for each kind of thread, and the figures of docs/systemd.md are
//! those that the test of the units holds them to.

use vhost_user_scsi_mpath::confine::Class;

use super::{cells, read};

#[test]
fn every_kind_of_thread_has_a_row_and_no_row_is_stale() {
    let text = read("docs/confinement.md");
    let table = text.split("## Each thread").nth(1).expect("the chapter is there");
    let table = table.split("\n## ").next().unwrap_or_default();
    let name = |line: &str| {
        let name = cells(line)?.first()?.strip_prefix('`')?.strip_suffix('`')?.to_owned();
        Some(name)
    };
    let mut documented: Vec<String> = table.lines().filter_map(name).collect();
    let mut known: Vec<String> = Class::ALL.iter().map(|class| class.name().to_owned()).collect();
    documented.sort();
    known.sort();
    assert_eq!(documented, known);
}

#[test]
fn exposure_is_what_the_units_are_held_to() {
    let (text, test) = (read("docs/systemd.md"), read("tests/units.rs"));
    let rows = text.lines().filter_map(|line| match cells(line)?[..] {
        [_, drop_ins, exposure] => exposure.parse::<f64>().ok().map(|value| (drop_ins, value)),
        _ => None,
    });
    let rows: Vec<(usize, f64)> =
        rows.map(|(drop_ins, value)| (drop_ins.matches(".conf").count(), value)).collect();
    assert_eq!(rows.len(), 3, "{rows:?}");
    for (drop_ins, value) in rows {
        let line = test.lines().find(|line| {
            line.trim_start().starts_with("(&[") && line.matches(".conf").count() == drop_ins
        });
        let tenths = format!("\"{}\"", (value * 10.0).round());
        assert!(line.is_some_and(|line| line.contains(&tenths)), "{drop_ins} drop-ins: {value}");
    }
}
