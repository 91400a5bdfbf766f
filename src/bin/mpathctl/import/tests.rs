//! From multipath.conf to what the backend's own parser takes.

use std::path::Path;
use std::time::Duration;

use vhost_user_scsi_mpath::config::{Config, Failback, IoPolicy, NoPathRetry, file};

use super::settings::WITHOUT_COUNTERPART;
use super::*;

const CONF: &str = r#"
# The array's vendor says so
defaults {
    polling_interval 10
    user_friendly_names yes
    path_selector "round-robin 0"
    failback immediate
}
blacklist {
    devnode "^sd[a-c]"
}
devices {
    device {
        vendor "COMPELNT"
        product "Compellent Vol"
        no_path_retry queue
        failback manual
        path_selector "round-robin 0"
    }
}
overrides {
    no_path_retry 6
    fast_io_fail_tmo 5
    protocol {
        type "scsi:fcp"
        dev_loss_tmo 600
    }
}
multipaths {
    multipath {
        wwid 3600140505200a986f0043c9afa1fd077
        alias db-disk
        path_selector "queue-length 0"
    }
    multipath {
        wwid 3600140505200a986f0043c9afa1fd078
        alias "../etc"
        no_path_retry fail
    }
}
"#;

fn import(text: &str, wwid: Option<&str>) -> Result<Vec<String>, String> {
    luns(Path::new("m.conf"), text, wwid).map_err(|error| error.to_string())
}

fn config(text: &str) -> Config {
    file::parse(Path::new("lun.toml"), text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

#[test]
fn import_prints_what_the_backend_takes() {
    let texts = import(CONF, None).unwrap();
    let first = config(&texts[0]);
    assert_eq!(first.lun.wwid.unwrap().as_str(), "naa.600140505200a986f0043c9afa1fd077");
    assert_eq!(first.lun.iopolicy, IoPolicy::QueueDepth, "the multipath section wins");
    assert_eq!(first.lun.no_path_retry, NoPathRetry::For(Duration::from_secs(60)));
    assert_eq!(first.lun.failback, Failback::Immediate);
    let control = first.backend.control.unwrap();
    assert_eq!(control, Path::new("/run/vhost-user-scsi-mpath/db-disk.ctl"));
    let second = config(&texts[1]);
    assert_eq!(second.lun.iopolicy, IoPolicy::RoundRobin, "from the defaults");
    assert_eq!(second.lun.no_path_retry, NoPathRetry::Fail);
    let control = second.backend.control.unwrap();
    let expected = "/run/vhost-user-scsi-mpath/3600140505200a986f0043c9afa1fd078.ctl";
    assert_eq!(control, Path::new(expected), "an alias that is no file name names no file");
    assert_eq!(texts.len(), 2);
}

#[test]
fn import_says_what_has_no_counterpart_and_why() {
    let text = &import(CONF, None).unwrap()[0];
    let has = |line: &str| assert!(text.contains(line), "{line}\n{text}");
    has("no_path_retry = 60  # no_path_retry 6 (overrides, line 22): 6 checks, 10 s apart");
    has("# fast_io_fail_tmo 5 (overrides, line 23): no counterpart: the kernel's transport timers");
    has("# polling_interval 10 (defaults, line 4): no counterpart: a path in use is asked");
    has("# user_friendly_names yes (defaults, line 5): no counterpart: a LUN is named by its");
    has("# Only if the array is COMPELNT Compellent Vol (line 13), in place of what is above:\n");
    has("\n#failback = \"manual\"  # failback manual (line 17)\n");
    assert!(!text.contains("round-robin"), "a setting that lost is not shown: {text}");
    assert!(!text.contains("\"queue\""), "nor one of an array's that is overridden: {text}");
}

#[test]
fn import_of_a_wwid_without_a_section_has_the_defaults() {
    let wwid = "3600140505200a986f0043c9afa1fd0ff";
    let texts = import(CONF, Some(wwid)).unwrap();
    assert_eq!(texts.len(), 1);
    assert_eq!(config(&texts[0]).lun.wwid.unwrap().multipath(), wwid);
    let error = import("defaults {\n}\n", None).unwrap_err();
    assert!(error.starts_with("m.conf: it has no multipath section"), "{error}");
    let error = import("defaults {\n", None).unwrap_err();
    assert_eq!(error, "m.conf:1: the section defaults of line 1 has no }");
}

#[test]
fn import_of_values_that_make_no_sense_stays_valid() {
    let text = "defaults {\n no_path_retry 99999999\n failback never\n path_selector \"x y\"\n\
                features \"1 queue_if_no_path\"\n odd \"\"\n}\n";
    let text = &import(text, Some("no \"wwid\"")).unwrap()[0];
    let config = config(text);
    assert_eq!((config.lun.wwid, config.lun.no_path_retry), (None, NoPathRetry::Queue));
    assert!(text.contains("#wwid = 'no \"wwid\"'; refused: "), "{text}");
    assert!(text.contains("#no_path_retry = 499999995  # no_path_retry 99999999"), "{text}");
    assert!(text.contains("out of range"), "{text}");
    assert!(text.contains("# odd  (defaults, line 6): no counterpart is known"), "{text}");
}

#[test]
fn import_takes_queue_if_no_path_where_nothing_else_is_said() {
    let text = "defaults {\n features \"1 queue_if_no_path\"\n}\n";
    let text = &import(text, Some("36001405")).unwrap()[0];
    assert!(text.contains("no_path_retry = \"queue\"  # features 1 queue_if_no_path"), "{text}");
}

#[test]
fn documentation_has_every_setting_of_the_table() {
    let page = include_str!("../../../../docs/from-dm-multipath.md");
    for (names, why) in WITHOUT_COUNTERPART {
        for name in *names {
            assert!(page.contains(&format!("`{name}`")), "{name} is not in the page");
        }
        assert!(page.contains(why), "the page does not say: {why}");
    }
    for name in ["no_path_retry", "features", "failback", "path_selector", "path_grouping_policy"] {
        assert!(page.contains(&format!("`{name}`")), "{name} is not in the page");
    }
}
