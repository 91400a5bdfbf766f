use std::collections::BTreeSet;
use std::path::PathBuf;

use serde_json::json;
use vhost_user_scsi_mpath::control::{HistoryReport, LunHistory, LunState, PathHistory, PathState};

use super::*;
use crate::tests;

/// What a path or an array may call itself, if it means ill.
const EVIL: &str = "<script>alert('1')</script>\"&amp;<b>";

fn history() -> HistoryReport {
    let timestamp = json!({"seconds": 951_782_400, "microseconds": 7});
    let data = json!({"name": "left-2", "from": "up", "to": "failed", "reason": EVIL});
    let path = |name: &str, state: PathState, silent: u64| PathHistory {
        name: name.into(),
        state: vec![None, Some(PathState::Up), Some(state)],
        commands: vec![None, Some(0), Some(500)],
        bytes: vec![None, Some(0), Some(4096)],
        errors: vec![None, Some(0), Some(0)],
        mean_us: vec![None, None, Some(90)],
        longest_us: vec![None, None, Some(256)],
        silent_us: vec![None, Some(50), Some(silent)],
    };
    HistoryReport {
        interval: 1.0,
        times: vec![951_782_400.2, 951_782_401.2, 951_782_402.2],
        lun: LunHistory { state: vec![LunState::Healthy; 3], queued: vec![0, 3, 4] },
        paths: vec![path("left", PathState::Up, 60), path("left-2", PathState::Failed, 3_000_000)],
        events: vec![
            json!({"event": "PATH_STATE_CHANGED", "data": data, "timestamp": timestamp}),
            json!({"event": "LUN_STATE_CHANGED", "data": {"from": "degraded", "to": "healthy"},
                "timestamp": timestamp}),
        ],
    }
}

fn facts() -> Facts {
    Facts {
        socket: PathBuf::from("/run/lun0.ctl"),
        version: "vhost-user-scsi-mpath 0.1.0".into(),
        lun: tests::lun(),
        paths: tests::paths(),
        stats: tests::stats(),
        settings: Some(tests::settings()),
        history: Some(history()),
        reservation: Some(tests::reservation()),
    }
}

fn report(backends: Vec<(String, Result<Facts, String>)>) -> Report {
    let host = Host { name: Some("hv7".into()), ..Host::default() };
    Report { now: 951_782_500, host, backends }
}

/// The names of all elements and the values of all classes, once every element that was opened has
/// been closed in its order.
fn structure(page: &str) -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut names, mut classes, mut open) = (BTreeSet::new(), BTreeSet::new(), Vec::new());
    let body = page.strip_prefix("<!DOCTYPE html>").expect("a document type");
    for tag in body.split('<').skip(1) {
        let (tag, _) = tag.split_once('>').expect("a tag has an end");
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop().as_deref(), Some(name), "what is closed was opened last");
            continue;
        }
        let name = tag.split(' ').next().unwrap_or_default().to_owned();
        if let Some((_, class)) = tag.split_once("class=\"") {
            let class = class.split('"').next().unwrap_or_default();
            classes.extend(class.split_whitespace().map(str::to_owned));
        }
        if !["meta", "br"].contains(&&*name) {
            open.push(name.clone());
        }
        names.insert(name);
    }
    assert!(open.is_empty(), "{open:?} are not closed");
    (names, classes)
}

const ELEMENTS: [&str; 37] = [
    "a",
    "body",
    "br",
    "code",
    "dd",
    "div",
    "dl",
    "dt",
    "figcaption",
    "figure",
    "footer",
    "g",
    "h1",
    "h2",
    "h3",
    "head",
    "header",
    "html",
    "i",
    "li",
    "line",
    "main",
    "meta",
    "p",
    "path",
    "rect",
    "section",
    "span",
    "strong",
    "style",
    "svg",
    "table",
    "td",
    "text",
    "th",
    "title",
    "tr",
];

#[test]
fn page_has_a_section_for_each_backend_and_closes_what_it_opens() {
    let page = page::render(&report(vec![
        ("lun0".into(), Ok(facts())),
        ("lun1".into(), Err("/run/lun1.ctl: nobody listens".into())),
    ]));
    let (names, classes) = structure(&page);
    let odd: Vec<&String> =
        names.iter().filter(|name| !ELEMENTS.contains(&name.as_str()) && *name != "ul").collect();
    assert!(odd.is_empty(), "{odd:?}");
    for class in ["topology", "timeline", "paths", "counters", "events", "settings", "overview"] {
        assert!(classes.contains(class), "{class} is not in {classes:?}");
    }
    assert_eq!(page.matches("<section class=\"backend\"").count(), 2);
    for text in [
        "Storage paths of hv7",
        "<strong>left-2</strong> has been failed for 1m01s (no answer within 5 s).",
        "lun1</a> does not answer.",
        "nobody listens",
        "2000-02-29T00:01:40Z",
        "naa.600140505200a986f0043c9afa1fd077",
        "Path left-2 is out of use",
        "no answer within 5 s",
        "active/non-optimized",
        "half within 128us, 99% within 128us, all within 128us",
        "path 2",
        "PATH_STATE_CHANGED",
        "<dt>path_timeout</dt><dd>5 s</dd>",
        "vhost-user-scsi-mpath 0.1.0",
        "for any path",
    ] {
        assert!(page.contains(text), "{text} is not in the page");
    }
    // A stall of 3 s is drawn, the 60 us between two answers are not.
    assert_eq!(page.matches("class=\"stall\" d=\"M").count(), 2, "the LUN's and left-2's");
}

#[test]
fn page_escapes_what_admins_and_arrays_say() {
    let mut facts = facts();
    facts.socket = EVIL.into();
    facts.version = EVIL.into();
    for word in [&mut facts.lun.vendor, &mut facts.lun.product, &mut facts.lun.serial] {
        *word = Some(EVIL.into());
    }
    facts.lun.wwid = Some(EVIL.into());
    for path in &mut facts.paths {
        for word in [&mut path.name, &mut path.address, &mut path.reason] {
            *word = EVIL.into();
        }
        (path.hctl, path.engine) = (Some(EVIL.into()), Some(EVIL.into()));
        path.devices = vec![EVIL.into()];
    }
    facts.stats.paths[0].name = EVIL.into();
    facts.stats.lun.errors.insert(EVIL.into(), 1);
    let history = facts.history.as_mut().unwrap();
    history.paths[0].name = EVIL.into();
    history.events.push(json!({"event": EVIL, "data": {"x": EVIL}}));
    let mut report = report(vec![(EVIL.into(), Ok(facts)), ("b".into(), Err(EVIL.into()))]);
    report.host.name = Some(EVIL.into());
    report.host.system = Some(EVIL.into());
    let page = page::render(&report);
    let (names, _) = structure(&page);
    assert!(!names.contains("script") && !names.contains("b"), "{names:?}");
    assert!(page.contains("&lt;script&gt;alert('1')&lt;/script&gt;&quot;&amp;amp;&lt;b&gt;"));
}

#[test]
fn page_fetches_nothing_and_runs_nothing() {
    let page = page::render(&report(vec![("lun0".into(), Ok(facts()))]));
    for word in
        ["http:", "https:", "src=", "url(", "@import", "<script", "<link", "onload", "onclick"]
    {
        assert!(!page.contains(word), "{word}");
    }
    assert!(page.contains("prefers-color-scheme: dark") && page.contains("@media print"));
}

#[test]
fn page_of_a_healthy_backend_says_so() {
    let mut facts = facts();
    facts.lun.state = LunState::Healthy;
    facts.paths.iter_mut().for_each(|path| path.state = PathState::Up);
    let page = page::render(&report(vec![("lun0".into(), Ok(facts))]));
    assert!(page.contains("Everything is as it should be."), "{page}");
    assert!(!page.contains("class=\"why"), "{page}");
}

#[test]
fn page_of_a_backend_without_history_or_paths_is_whole() {
    let mut facts = facts();
    (facts.history, facts.settings) = (None, None);
    facts.paths.clear();
    facts.stats = Default::default();
    let page = page::render(&report(vec![("lun0".into(), Ok(facts))]));
    structure(&page);
    for text in ["keeps no history", "keeps no events", "No command has been answered yet"] {
        assert!(page.contains(text), "{text}");
    }
}

#[test]
fn file_names_have_the_date_and_no_colon() {
    assert_eq!(file_name(951_782_400), "vhost-user-scsi-mpath-report-2000-02-29T000000Z.html");
}
