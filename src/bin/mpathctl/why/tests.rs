//! Whole paragraphs, and that no state leaves a gap in one.

use std::time::Duration;

use vhost_user_scsi_mpath::control::{AccessState, LunState, PathState};

use super::*;
use crate::tests::{lun, path, paths, stats};

/// 2000-02-29T00:01:01Z
const NOW: u64 = 951_782_461;

fn text(at: usize, lun: &LunReport, paths: &[PathReport]) -> String {
    explain(&paths[at], lun, paths, &stats(), NOW).text()
}

#[test]
fn why_tells_of_a_failed_path_and_who_carries() {
    let mut paths = paths();
    paths[2].name = "left".into();
    paths[1].name = "left-1".into();
    let expected = "\
Path left is out of use, since it does not work (failed for 1m01s, since
2000-02-29T00:00:00Z). The reason: no answer within 5 s. 1000 commands were
answered over it so far, and attempts ended badly (path 2); 1 command went on
over another path. The LUN is degraded: left-1 carries its commands. It is asked
again in 3.5 s. It comes back into use by itself when it answers. Mend what the
reason names, the link, the target or the array's port; no command is needed
afterwards. If it is gone for good: \"mpathctl remove left\".
";
    assert_eq!(text(2, &lun(), &paths), expected);
}

#[test]
fn why_tells_what_is_left_when_the_path_goes() {
    let mut paths = paths();
    let alone = text(1, &lun(), &paths).replace('\n', " ");
    assert!(alone.contains("this path alone carries its commands; when it fails, right takes"));
    paths[0].state = PathState::Failed;
    let mut lun = lun();
    lun.no_path_retry = NoPathRetry::For(Duration::from_secs(30));
    let last = text(1, &lun, &paths).replace('\n', " ");
    assert!(last.contains("no path is left, and the guest's commands wait 30 s for one"), "{last}");
    paths[1].state = PathState::Disabled;
    (lun.queued, lun.state, lun.no_path_retry) = (1, LunState::NoPath, NoPathRetry::Queue);
    let none = text(1, &lun, &paths).replace('\n', " ");
    assert!(none.contains("The LUN is no-path: no path can carry its commands, and"), "{none}");
    assert!(none.contains("wait until one can (1 command is waiting)."), "{none}");
    assert!(none.contains("\"mpathctl reinstate left\" has it checked"), "{none}");
}

#[test]
fn why_has_no_gap_for_any_state() {
    for state in PathState::ALL {
        for access in AccessState::ALL {
            let mut one = path("one", 0, 1, *access);
            one.state = *state;
            let paths = [one, path("two", 1, 1, AccessState::ActiveOptimized)];
            let text = text(0, &lun(), &paths);
            let flat = text.replace('\n', " ");
            assert!(flat.starts_with("Path one "), "{text}");
            assert!(flat.contains(&format!("({state} for 1m01s, ")), "{text}");
            assert!(flat.contains(sentences::state(*state).next), "{text}");
            let works = matches!(state, PathState::Up | PathState::Shaky);
            assert_eq!(flat.contains(sentences::access(*access)), works, "{text}");
            assert!(!flat.contains('{') && !flat.contains("..") && !flat.contains("  "), "{text}");
            assert!(text.lines().all(|line| line.len() <= WIDTH), "{text}");
        }
    }
}

#[test]
fn why_in_json_has_its_parts() {
    let paths = paths();
    let json = explain(&paths[2], &lun(), &paths, &stats(), NOW).json("a");
    assert_eq!((&json["backend"], &json["state"]), (&json!("a"), &json!("failed")));
    assert_eq!(json["reason"], "no answer within 5 s");
    assert_eq!(json["next-check"], 3.5);
    for part in ["is", "cause", "tried", "meanwhile", "next", "advice"] {
        assert!(json[part].as_str().is_some_and(|text| text.ends_with('.')), "{part}: {json}");
    }
}
