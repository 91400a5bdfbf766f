//! What a storage admin does at LIO: access states changed, a transition of ten seconds, a LUN
//! grown, a LUN taken away and another one put in its place.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::array::{Array, Kind};
use crate::initiator::*;
use crate::lio::Target;
use crate::scene::{SLACK, Scene, Settings, UP, path, wait_state};

fn target(array: &Array) -> &Target {
    match &array.kind {
        Kind::Lio(target) => target,
        Kind::Tgtd(_) => unreachable!("LIO was asked for"),
    }
}

/// Puts the second portal's port into a target port group of its own.
fn split(target: &Target) -> String {
    let lun = format!("$fabric/{}/tpgt_2/lun/lun_0", target.iqn);
    let link = target.run(&format!("readlink -f {lun}/t*d0"));
    let alua = format!("{}/alua", link.last().expect("a link"));
    for command in [
        format!("mkdir {alua}/second"),
        format!("echo 2 >{alua}/second/tg_pt_gp_id"),
        format!("echo second >{lun}/alua_tg_pt_gp"),
        format!("echo 20 >{alua}/second/implicit_trans_secs"),
        format!("echo 20 >{alua}/default_tg_pt_gp/implicit_trans_secs"),
    ] {
        target.run(&command);
    }
    alua
}

const OPTIMIZED: u8 = 0;
const NON_OPTIMIZED: u8 = 1;
const STANDBY: u8 = 2;

#[test]
fn access_states_and_a_transition_of_ten_seconds_are_not_seen_by_the_guest() {
    let array = Array::lio();
    let alua = split(target(&array));
    let mut scene = Scene::start(array);
    let ports = [0, 1].map(|at| scene.array.proxies[at].address().port());
    let set = |scene: &Scene, group: &str, state: u8| {
        target(&scene.array).run(&format!("echo {state} >{alua}/{group}/alua_access_state"));
    };
    for (state, name) in [(STANDBY, "standby"), (NON_OPTIMIZED, "active/non-optimized")] {
        set(&scene, "second", state);
        let deadline = Instant::now() + UP;
        while path(&mut scene.qmp, ports[1])["access-state"] != name {
            assert!(Instant::now() < deadline, "{}", path(&mut scene.qmp, ports[1]));
            std::thread::sleep(Duration::from_millis(20));
        }
        let current = ports.map(|port| path(&mut scene.qmp, port)["current"].clone());
        assert_eq!(current, [json!(true), json!(false)], "{name}");
    }
    let length = Duration::from_secs(10);
    let groups = ["default_tg_pt_gp", "second"];
    for group in groups {
        target(&scene.array).run(&format!("echo 10000 >{alua}/{group}/trans_delay_msecs"));
    }
    // Both at once, and each to another state than its own.
    let [first, second] = groups.map(|group| format!("{alua}/{group}/alua_access_state"));
    let both = format!("(echo {NON_OPTIMIZED} >{first}) & (echo {OPTIMIZED} >{second}) & wait");
    target(&scene.array).run(&both);
    let deadline = Instant::now() + UP;
    while path(&mut scene.qmp, ports[1])["current"] != json!(true) {
        assert!(Instant::now() < deadline, "{}", path(&mut scene.qmp, ports[1]));
        std::thread::sleep(Duration::from_millis(20));
    }
    std::thread::sleep(Duration::from_secs(1));
    let bound = length + SLACK;
    let report = scene.finish("ALUA transition of 10 s", bound, bound);
    let longest = report.longest_read.max(report.longest_write);
    assert!(longest > length - SLACK, "nothing was held: {longest:?}");
}

#[test]
fn grown_unit_is_told_and_another_in_its_place_gets_no_write() {
    // LUN 0 stays: in the place of a missing LUN 0 this target answers with a dummy.
    let array = Array::lio_with(2);
    let lio = target(&array);
    let paths = [0, 1].map(|proxy| array.address(proxy, "", 1));
    let link = format!("readlink -f $fabric/{}/tpgt_1/lun/lun_1/t*d1", lio.iqn);
    let ours = lio.run(&link).last().expect("a link").clone();
    lio.run("disk stranger 16");
    let ports = [0, 1].map(|at| array.proxies[at].address().port());
    let settings = Settings::new("access", "", "");
    let backend = settings.backend(&paths);
    let mut qmp = backend.qmp();
    for port in ports {
        wait_state(&mut qmp, port, "up", UP);
    }
    let mut device = backend.guest(1);
    device.queue().settle();

    // This target tells nobody that a file is larger: the paths are asked by an admin.
    let blocks = qmp.execute("query-lun", json!({}))["blocks"].as_u64().expect("a size");
    lio.run(&format!("echo fd_dev_size={} >{ours}/control", 2 * blocks * 512));
    for port in ports {
        let name = path(&mut qmp, port)["name"].clone();
        qmp.execute("path-fail", json!({"name": name}));
        qmp.execute("path-reinstate", json!({"name": name}));
        wait_state(&mut qmp, port, "up", UP);
    }
    let resized = qmp.event("LUN_RESIZED", UP, |_| true).expect("an event");
    assert_eq!(resized["blocks"], 2 * blocks);
    let grown = device.queue().run(&test_unit_ready()).sense_code();
    assert_eq!(grown, Some((UNIT_ATTENTION, 0x2A, 0x09)));

    let lun = |group: usize| format!("$fabric/{}/tpgt_{group}/lun/lun_1", lio.iqn);
    let both = |command: &dyn Fn(&str) -> String| {
        lio.run(&[1, 2].map(|group| command(&lun(group))).join(" && "));
    };
    let take = |disk: &str| both(&|lun| format!("rm {lun}/{disk} && rmdir {lun}"));
    let give = |disk: &str| {
        both(&|lun| format!("mkdir {lun} && ln -s $core/fileio_0/{disk} {lun}/{disk}"))
    };
    let name = ours.rsplit('/').next().expect("a name").to_owned();
    device.queue().good(&write(0, pattern(1, 8)));
    take(&name);
    // Writes go on until the LUN is lost, and after it.
    let deadline = Instant::now() + UP;
    loop {
        let outcome = device.queue().run(&write(0, pattern(9, 8))).sense_code();
        if outcome == Some(LUN_NOT_SUPPORTED) {
            break;
        }
        assert!(Instant::now() < deadline, "the LUN is not lost: {outcome:x?}");
    }
    give("stranger");
    for port in ports {
        wait_state(&mut qmp, port, "wrong-lun", UP);
        let outcome = device.queue().run(&write(0, pattern(9, 8))).sense_code();
        assert_eq!(outcome, Some(LUN_NOT_SUPPORTED));
    }
    let written = lio.run("tr -d '\\0' </ram/stranger | wc -c");
    assert_eq!(written.last().map(|count| count.trim()), Some("0"), "a stranger was written to");
    take("stranger");
    give(&name);
    for port in ports {
        wait_state(&mut qmp, port, "up", UP);
    }
    let back = device.queue().run(&test_unit_ready()).sense_code();
    assert_eq!(back, Some((UNIT_ATTENTION, 0x3F, 0x0E)));
    device.queue().good(&write(0, pattern(2, 8)));
}
