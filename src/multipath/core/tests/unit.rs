//! The logical unit's size, and the unit itself gone.

use super::*;

#[test]
fn size_is_announced_once_when_all_usable_paths_agree() {
    let mut lab = Lab::new(Failback::Immediate, &[ActiveOptimized, ActiveOptimized, Standby]);
    lab.ports[0].blocks = 0x8000;
    lab.report(0, Problem::SizeChanged);
    lab.later(seconds(30));
    assert_eq!(lab.core.face().unwrap().capacity.blocks, 0x4000, "the other one has not grown");
    lab.ports[1].blocks = 0x8000;
    lab.report(1, Problem::SizeChanged);
    assert_eq!(lab.core.face().unwrap().capacity.blocks, 0x8000);
    lab.report(0, Problem::SizeChanged);
    lab.later(seconds(30));
    let attention =
        |action: &Action| matches!(action, Action::Attention(Asc::CAPACITY_DATA_HAS_CHANGED));
    assert_eq!(lab.count(attention), 1);
    assert_eq!(lab.count(|action| matches!(action, Action::Resized)), 1);
    let told = |action: &Action| matches!(action, Action::Tell(News::Resized { blocks: 0x8000 }));
    assert_eq!(lab.count(told), 1);
    assert_eq!(lab.table().face.as_ref().unwrap().capacity.blocks, 0x8000);
}

#[test]
fn growth_over_one_path_has_the_others_asked() {
    let mut lab = Lab::new(Failback::Immediate, &[ActiveOptimized, ActiveOptimized]);
    lab.ports.iter_mut().for_each(|port| port.blocks = 0x8000);
    lab.report(0, Problem::SizeChanged);
    assert_eq!(lab.core.face().unwrap().capacity.blocks, 0x8000);
}

#[test]
fn port_that_becomes_active_is_asked_for_its_size_before_it_is_used() {
    let mut lab = Lab::new(Failback::Immediate, &[ActiveOptimized, Standby]);
    lab.ports[0].blocks = 0x8000;
    lab.report(0, Problem::SizeChanged);
    assert_eq!(lab.core.face().unwrap().capacity.blocks, 0x8000, "the only one in use agrees");
    // The other one still has the old size when the first path's answer makes it active.
    lab.ports[1].access = ActiveOptimized;
    lab.report(0, Problem::AccessChanged);
    assert_eq!(lab.first(), [0]);
    assert!(lab.path(1).reason.contains("fewer than"), "{}", lab.path(1).reason);
    lab.ports[1].blocks = 0x8000;
    lab.later(seconds(6));
    assert_eq!(lab.first(), [0, 1]);
}

#[test]
fn shrunken_unit_is_kept_out_and_not_announced() {
    let mut lab = Lab::new(Failback::Immediate, &[ActiveOptimized, ActiveOptimized]);
    lab.ports[0].blocks = 0x10;
    lab.report(0, Problem::SizeChanged);
    lab.later(seconds(30));
    assert_eq!(lab.first(), [1]);
    assert!(lab.path(0).reason.contains("fewer than"), "{}", lab.path(0).reason);
    assert_eq!(lab.count(|action| matches!(action, Action::Resized)), 0);
}

#[test]
fn unit_that_is_gone_over_every_path_is_lost_removed_and_comes_back() {
    let mut lab = Lab::new(Failback::Immediate, &[ActiveOptimized, ActiveOptimized]);
    lab.ports.iter_mut().for_each(|port| port.unit = Unit::Nothing);
    lab.report(0, Problem::Unmapped);
    lab.later(GONE_CONFIRMATION);
    assert_eq!(lab.core.lun_state(), LunState::Degraded, "the other path has said nothing");
    lab.report(1, Problem::Unmapped);
    assert_eq!(lab.core.lun_state(), LunState::NoPath, "not before it is confirmed");
    lab.later(GONE_CONFIRMATION);
    assert_eq!((lab.core.lun_state(), lab.table().no_path), (LunState::Lost, NoPath::Gone));
    lab.later(GONE_REMOVAL);
    assert_eq!(lab.count(|action| matches!(action, Action::Removed)), 1);
    // Another one in its place never brings it back.
    lab.ports.iter_mut().for_each(|port| port.unit = Unit::Other);
    lab.later(seconds(60));
    assert_eq!(lab.core.lun_state(), LunState::Lost);
    assert!([0, 1].iter().all(|id| lab.path(*id).state == PathState::WrongLun));
    assert_eq!(lab.count(|action| matches!(action, Action::Returned)), 0);
    lab.ports[1].unit = Unit::Ours;
    lab.later(seconds(6));
    assert_eq!((lab.first(), lab.core.lun_state()), (vec![1], LunState::Degraded));
    assert_eq!(lab.count(|action| matches!(action, Action::Returned)), 1);
    let attention =
        |action: &Action| matches!(action, Action::Attention(Asc::REPORTED_LUNS_CHANGED));
    assert_eq!(lab.count(attention), 1);
}

#[test]
fn unit_that_only_the_other_paths_deny_is_not_gone_while_one_is_blocked() {
    let mut lab = Lab::new(Failback::Immediate, &[ActiveOptimized, ActiveOptimized]);
    lab.apply(Event::Blocked(PathId(0), "its port is away".to_owned()));
    lab.ports[1].unit = Unit::Nothing;
    lab.report(1, Problem::Unmapped);
    lab.later(seconds(60));
    assert_eq!((lab.core.lun_state(), lab.table().no_path), (LunState::NoPath, NoPath::Hold));
    lab.apply(Event::Unblocked(PathId(0)));
    lab.later(seconds(1));
    assert_eq!(lab.first(), [0]);
}

#[test]
fn unit_that_is_gone_for_a_moment_is_not_lost() {
    let mut lab = Lab::new(Failback::Immediate, &[ActiveOptimized, ActiveOptimized]);
    for path in [0, 1] {
        lab.report(path, Problem::Unmapped);
    }
    lab.later(seconds(30));
    assert_eq!((lab.first(), lab.core.lun_state()), (vec![0, 1], LunState::Healthy));
    assert_eq!(lab.count(|action| matches!(action, Action::Tell(News::Gone))), 0);
}

#[test]
fn path_without_a_link_says_nothing_of_the_unit() {
    let mut lab = Lab::new(Failback::Immediate, &[ActiveOptimized, ActiveOptimized]);
    lab.ports.iter_mut().for_each(|port| port.unit = Unit::Nothing);
    lab.report(0, Problem::Unmapped);
    lab.apply(Event::LinkDown(PathId(1), "cut".into()));
    lab.apply(Event::LinkDown(PathId(0), "cut".into()));
    assert_eq!([0, 1].map(|id| lab.path(id).unmapped), [false, false]);
    assert_eq!(lab.core.lun_state(), LunState::NoPath);
}

#[test]
fn unit_that_is_exchanged_without_a_word_is_noticed_by_the_next_probe() {
    let mut lab = Lab::new(Failback::Immediate, &[ActiveOptimized, ActiveOptimized]);
    lab.ports[0].unit = Unit::Other;
    lab.later(PROBE_INTERVAL_HEALTHY);
    assert_eq!(lab.path(0).state, PathState::WrongLun);
    assert_eq!(lab.first(), [1]);
}

#[test]
fn doubt_that_a_probe_meets_ends_the_paths_use_until_it_is_resolved() {
    for code in [Asc::REPORTED_LUNS_CHANGED, Asc(0x29, 0x00), Asc(0x3F, 0x03)] {
        let mut lab = Lab::new(Failback::Immediate, &[ActiveOptimized, ActiveOptimized]);
        // The manager's questions are on the same nexus: no command will be told of it again.
        lab.attention = Some(code);
        let before = lab.said.len();
        lab.report(0, Problem::SizeChanged);
        assert_eq!(lab.attention, None, "everything was asked");
        let of_first = |action: &Action| match action {
            Action::Tell(News::Path { name, to, .. }) if name == "0" => Some(*to),
            _ => None,
        };
        let states: Vec<_> = lab.said[before..].iter().filter_map(of_first).collect();
        assert_eq!(states, [PathState::Checking, PathState::Up], "{code}");
    }
}

#[test]
fn event_of_the_unit_is_passed_on_once_and_after_a_probe_the_next_of_any_path() {
    let mut lab = Lab::new(Failback::Immediate, &[ActiveOptimized, ActiveOptimized]);
    let code = Asc::MODE_PARAMETERS_CHANGED;
    let told = |lab: &Lab| lab.count(|action| matches!(action, Action::Attention(_)));
    lab.meet(0, code);
    lab.meet(1, code);
    assert_eq!(told(&lab), 1);
    lab.meet(0, code);
    assert_eq!(told(&lab), 2);
    // The other path's copy of that is lost, and its probe says so.
    lab.later(PROBE_INTERVAL_HEALTHY_MAX * 2);
    lab.meet(1, code);
    assert_eq!(told(&lab), 3);
}
