//! The wire and the target break while verified I/O runs. The guest sees no error, and a bounded
//! stall. Each fault meets tgtd, which a re-login proves nothing of, and LIO, which it does.

use std::time::Duration;

use crate::array::Array;
use crate::proxy::{Door, Way, Whom};
use crate::scene::{PATH_TIMEOUT, SLACK, Scene, UP, WRITE_QUIESCE, sleep};

/// What a path may take that says nothing any more.
const SILENT: Duration = PATH_TIMEOUT.saturating_add(SLACK);

macro_rules! on_each_array {
    ($($fault:ident)*) => {
        mod tgtd {
            $(#[test] fn $fault() { super::$fault(super::Array::tgtd()) })*
        }
        mod lio {
            $(#[test] fn $fault() { super::$fault(super::Array::lio()) })*
        }
    };
}

on_each_array! {
    no_fault_no_error
    path_reset_is_not_seen_by_the_guest
    path_reset_once_is_not_seen_by_the_guest
    path_reset_again_and_again_is_not_seen_by_the_guest
    path_silenced_stalls_for_the_path_timeout_at_most
    path_silenced_for_a_second_is_not_seen_by_the_guest
    answers_held_back_stall_for_the_path_timeout_at_most
    path_slowed_is_no_error
    both_paths_silenced_for_three_seconds_are_no_error
    target_killed_and_started_again_is_no_error
}

fn no_fault_no_error(array: Array) {
    let scene = Scene::start(array);
    sleep(1500);
    scene.finish("none", SILENT, SILENT);
}

fn path_reset_is_not_seen_by_the_guest(array: Array) {
    let mut scene = Scene::start(array);
    scene.array.proxies[0].cut(Door::Shut);
    scene.expect(0, "failed", SLACK);
    sleep(1500);
    scene.array.proxies[0].restore();
    scene.expect(0, "up", UP);
    sleep(500);
    scene.finish("reset, refused, back", SLACK, SLACK + WRITE_QUIESCE);
}

fn path_reset_once_is_not_seen_by_the_guest(array: Array) {
    let mut scene = Scene::start(array);
    let before = scene.array.proxies[0].accepted();
    scene.array.proxies[0].cut(Door::Open);
    sleep(1000);
    scene.expect(0, "up", UP);
    assert!(scene.array.proxies[0].accepted() > before, "no new login");
    sleep(500);
    scene.finish("reset once", SLACK, SLACK + WRITE_QUIESCE);
}

fn path_reset_again_and_again_is_not_seen_by_the_guest(array: Array) {
    let mut scene = Scene::start(array);
    for round in 0..6 {
        scene.array.proxies[round % 2].cut(Door::Open);
        sleep(700);
    }
    for path in [0, 1] {
        scene.expect(path, "up", UP);
    }
    scene.finish("reset six times, in turn", SILENT, SILENT + WRITE_QUIESCE);
}

fn path_silenced_stalls_for_the_path_timeout_at_most(array: Array) {
    let mut scene = Scene::start(array);
    scene.array.proxies[0].silence();
    scene.expect(0, "failed", SILENT);
    sleep(2000);
    scene.array.proxies[0].restore();
    scene.expect(0, "up", UP);
    sleep(500);
    scene.finish("silent, back", SILENT, SILENT + WRITE_QUIESCE);
}

fn path_silenced_for_a_second_is_not_seen_by_the_guest(array: Array) {
    let scene = Scene::start(array);
    scene.array.proxies[0].silence();
    sleep(1000);
    scene.array.proxies[0].restore();
    sleep(1500);
    scene.finish("silent for 1 s", SILENT, SILENT + WRITE_QUIESCE);
}

/// The array executes and nobody hears of it.
fn answers_held_back_stall_for_the_path_timeout_at_most(array: Array) {
    let mut scene = Scene::start(array);
    scene.array.proxies[0].hold(Way::Answers, Whom::All);
    scene.expect(0, "failed", SILENT);
    sleep(2000);
    scene.array.proxies[0].restore();
    scene.expect(0, "up", UP);
    sleep(500);
    scene.finish("answers held back", SILENT, SILENT + WRITE_QUIESCE);
}

fn path_slowed_is_no_error(array: Array) {
    let scene = Scene::start(array);
    scene.array.proxies[0].delay(Duration::from_millis(100));
    sleep(2500);
    scene.array.proxies[0].restore();
    sleep(500);
    scene.finish("slowed by 100 ms each way", SILENT, SILENT + WRITE_QUIESCE);
}

fn both_paths_silenced_for_three_seconds_are_no_error(array: Array) {
    let mut scene = Scene::start(array);
    scene.array.proxies.iter().for_each(|proxy| proxy.silence());
    sleep(3000);
    scene.array.proxies.iter().for_each(|proxy| proxy.restore());
    for path in [0, 1] {
        scene.expect(path, "up", UP);
    }
    sleep(500);
    let bound = Duration::from_secs(3) + SILENT;
    scene.finish("both silent for 3 s", bound, bound + WRITE_QUIESCE);
}

fn target_killed_and_started_again_is_no_error(array: Array) {
    let mut scene = Scene::start(array);
    scene.array.kill();
    for path in [0, 1] {
        scene.expect(path, "failed", SILENT);
    }
    sleep(1000);
    scene.array.restart();
    for path in [0, 1] {
        scene.expect(path, "up", UP);
    }
    sleep(500);
    // The wait between two logins grows while there is nobody to log in to.
    let bound = Duration::from_secs(2) + UP;
    scene.finish("target killed, started again", bound, bound + WRITE_QUIESCE);
}
