//! Access states, transitions, failback, and the array being told.

use super::*;

#[test]
fn answer_over_one_path_tells_the_states_of_all() {
    let mut lab = Lab::new(Failback::Immediate, &[ActiveOptimized, ActiveNonOptimized, Standby]);
    assert_eq!(lab.first(), [0]);
    let mut swap = |access: [AccessState; 2]| {
        (lab.ports[0].access, lab.ports[2].access) = (access[0], access[1]);
        lab.reports = 0;
        lab.report(1, Problem::AccessChanged);
        (lab.reports, lab.first())
    };
    assert_eq!(swap([Standby, ActiveOptimized]), (2, vec![2]), "its size was not known yet");
    assert_eq!(swap([ActiveOptimized, Standby]), (1, vec![0]));
    assert_eq!(swap([Standby, ActiveOptimized]), (1, vec![2]), "one question");
    assert_eq!(lab.path(0).access, Standby);
}

#[test]
fn failed_report_of_groups_changes_no_path() {
    let mut lab = Lab::new(Failback::Immediate, &[ActiveOptimized, ActiveNonOptimized]);
    lab.groups_fail = true;
    for path in [0, 1] {
        lab.report(path, Problem::AccessChanged);
        lab.report(path, Problem::SizeChanged);
    }
    lab.later(seconds(60));
    assert_eq!([0, 1].map(|id| lab.path(id).access), [ActiveOptimized, ActiveNonOptimized]);
    assert_eq!(lab.first(), [0]);
}

#[test]
fn standby_port_that_can_be_read_is_used_although_groups_cannot_be_asked() {
    let mut lab = Lab::new(Failback::Immediate, &[ActiveOptimized, Standby]);
    lab.groups_fail = true;
    lab.ports[1].access = ActiveOptimized;
    lab.later(seconds(20));
    assert!(lab.path(1).is_usable(), "{:?}", lab.path(1));
}

#[test]
fn transition_is_polled_held_and_over_within_a_poll() {
    let mut lab = Lab::new(Failback::Immediate, &[ActiveOptimized, ActiveOptimized]);
    lab.apply(Event::SetNoPathRetry(NoPathRetry::Fail));
    lab.ports.iter_mut().for_each(|port| port.access = Transitioning);
    for path in [0, 1] {
        lab.report(path, Problem::Access(Transitioning));
    }
    (lab.reports, lab.questions) = (0, 0);
    lab.later(seconds(10));
    assert_eq!(lab.core.lun_state(), LunState::NoPath, "held, under every policy");
    assert_eq!(lab.table().no_path, NoPath::Hold);
    let polls = lab.reports;
    assert!((50..=101).contains(&polls), "{polls} polls in 10 s");
    assert_eq!(lab.questions, polls, "and nothing else is asked");
    lab.ports.iter_mut().for_each(|port| port.access = ActiveOptimized);
    lab.later(TRANSITION_POLL * 2);
    assert_eq!(lab.first(), [0, 1]);
    assert_eq!(lab.count(|action| matches!(action, Action::Tell(News::Path { .. }))), 2);
}

#[test]
fn transition_beyond_the_arrays_own_limit_fails_the_path_and_says_so() {
    let mut lab = Lab::new(Failback::Immediate, &[ActiveOptimized]);
    (lab.limit, lab.ports[0].access) = (12, Transitioning);
    lab.report(0, Problem::Access(Transitioning));
    lab.later(seconds(11));
    assert_eq!(lab.path(0).state, PathState::Up);
    lab.later(seconds(2));
    assert_eq!(lab.path(0).state, PathState::Failed);
    assert!(lab.path(0).reason.contains("for longer than 12 s"), "{}", lab.path(0).reason);
    lab.later(seconds(60));
    assert_eq!(lab.path(0).state, PathState::Failed, "it is not begun again");
    lab.ports[0].access = ActiveOptimized;
    lab.later(seconds(6));
    assert_eq!(lab.first(), [0]);
}

#[test]
fn one_group_in_transition_leaves_the_other() {
    let mut lab = Lab::new(Failback::Immediate, &[ActiveOptimized, ActiveNonOptimized]);
    lab.ports[0].access = Transitioning;
    lab.report(0, Problem::Access(Transitioning));
    assert_eq!((lab.first(), lab.core.lun_state()), (vec![1], LunState::Degraded));
}

#[test]
fn manual_failback_keeps_the_group_until_the_order() {
    let mut lab = Lab::new(Failback::Manual, &[ActiveOptimized, ActiveNonOptimized]);
    lab.apply(Event::Disable(PathId(0)));
    lab.apply(Event::Reinstate(PathId(0)));
    lab.later(seconds(3600));
    assert_eq!(lab.first(), [1]);
    lab.apply(Event::Failback);
    assert_eq!(lab.first(), [0]);
    let switches = |action: &Action| matches!(action, Action::Tell(News::Groups(_)));
    assert_eq!(lab.count(switches), 2);
}

#[test]
fn failback_is_changed_live() {
    let mut lab = Lab::new(Failback::Manual, &[ActiveOptimized, ActiveNonOptimized]);
    lab.apply(Event::Disable(PathId(0)));
    lab.apply(Event::Reinstate(PathId(0)));
    assert_eq!(lab.first(), [1]);
    lab.apply(Event::SetFailback(Failback::After(seconds(7))));
    lab.later(seconds(6));
    assert_eq!(lab.first(), [1]);
    lab.later(seconds(1));
    assert_eq!(lab.first(), [0]);
}

#[test]
fn array_without_access_states_goes_by_the_configuration() {
    let mut lab = Lab::new(Failback::Immediate, &[]);
    lab.alua = false;
    let port = Port { unit: Unit::Ours, access: ActiveOptimized, blocks: 0x4000 };
    lab.ports = vec![port; 3];
    for (id, group, preferred) in [(0, 1, false), (1, 1, false), (2, 2, true)] {
        lab.add(id, Placement { group: Some(group), preferred });
    }
    assert_eq!(lab.first(), [2]);
    assert_eq!([0, 2].map(|id| lab.path(id).group().id), [Some(1), Some(2)]);
    lab.apply(Event::Disable(PathId(2)));
    assert_eq!(lab.first(), [0, 1]);
}

#[test]
fn explicit_tells_the_array_when_no_optimized_path_is_left() {
    for explicit in [false, true] {
        let access = [ActiveOptimized, ActiveNonOptimized, Standby];
        let mut lab = Lab::with(Failback::Immediate, explicit, &access);
        lab.apply(Event::Disable(PathId(0)));
        assert_eq!(lab.set, if explicit { vec![2] } else { vec![] });
        assert_eq!(lab.path(1).access == ActiveOptimized, explicit);
        lab.later(seconds(120));
        assert_eq!(lab.set.len(), usize::from(explicit), "once is enough");
    }
}

#[test]
fn explicit_answer_that_is_a_unit_attention_is_not_lost() {
    let access = [ActiveOptimized, ActiveNonOptimized];
    let asked = |code| {
        let mut lab = Lab::with(Failback::Immediate, true, &access);
        lab.set_attention = Some(code);
        let before = lab.said.len();
        lab.apply(Event::Disable(PathId(0)));
        assert_eq!(lab.set_attention, None);
        lab.said.split_off(before)
    };
    let event = asked(Asc::MODE_PARAMETERS_CHANGED);
    let told = |action: &Action| matches!(action, Action::Attention(_));
    assert_eq!(event.iter().filter(|action| told(action)).count(), 1);
    let doubt = asked(Asc::POWER_ON_OR_RESET);
    let checked = |action: &Action| {
        matches!(action, Action::Tell(News::Path { to: PathState::Checking, .. }))
    };
    assert!(doubt.iter().any(checked) && !doubt.iter().any(told));
    assert!(!event.iter().any(checked));
}

#[test]
fn explicit_order_that_comes_too_soon_is_kept() {
    let access = [ActiveOptimized, ActiveNonOptimized];
    let mut lab = Lab::with(Failback::Manual, true, &[]);
    lab.ports = access.map(|access| Port { unit: Unit::Ours, access, blocks: 0x4000 }).to_vec();
    lab.add(0, Placement::default());
    lab.add(1, Placement { group: None, preferred: true });
    lab.later(seconds(60));
    assert!(lab.set.is_empty(), "nobody has ordered it");
    // Another host takes the groups to and fro.
    for _ in 0..2 {
        lab.ports.swap(0, 1);
        lab.report(0, Problem::AccessChanged);
    }
    lab.apply(Event::Failback);
    assert!(lab.set.is_empty());
    lab.later(EXPLICIT_QUIET + seconds(1));
    assert_eq!(lab.set, [2]);
    lab.later(seconds(60));
    assert_eq!(lab.set, [2], "once");
}

#[test]
fn explicit_gives_up_where_another_host_undoes_it() {
    let access = [ActiveOptimized, ActiveNonOptimized];
    let mut lab = Lab::with(Failback::Immediate, true, &access);
    lab.apply(Event::Disable(PathId(0)));
    for _ in 0..20 {
        // The other host wants the group that we have no path to.
        (lab.ports[0].access, lab.ports[1].access) = (ActiveOptimized, ActiveNonOptimized);
        lab.report(1, Problem::AccessChanged);
        lab.later(EXPLICIT_INTERVAL * 2);
    }
    assert_eq!(lab.set, [2, 2, 2], "no ping-pong");
    lab.apply(Event::Failback);
    assert_eq!(lab.set.len(), 4, "an admin may have it tried again");
}
