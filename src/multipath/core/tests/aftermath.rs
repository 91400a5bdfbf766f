//! The time in which what another process had sent may still be executed.

use super::*;
use crate::multipath::table::Aftermath::*;

#[test]
fn aftermath_lasts_its_time_and_is_told_to_the_lanes() {
    let mut lab = Lab::new(Failback::Immediate, &[ActiveOptimized]);
    assert_eq!(lab.table().aftermath, Over, "nobody was there before");
    lab.apply(Event::Aftermath(Crash, seconds(3)));
    assert_eq!(lab.table().aftermath, Crash);
    lab.later(Duration::from_millis(2999));
    assert_eq!(lab.table().aftermath, Crash);
    assert!(lab.core.next_timer().unwrap() <= lab.now + Duration::from_millis(1));
    lab.later(Duration::from_millis(1));
    assert_eq!(lab.table().aftermath, Over);
}

#[test]
fn aftermath_of_nothing_is_none() {
    let mut lab = Lab::new(Failback::Immediate, &[ActiveOptimized]);
    lab.apply(Event::Aftermath(Crash, Duration::ZERO));
    assert_eq!(lab.table().aftermath, Over);
}

#[test]
fn aftermath_begins_anew_while_a_path_is_blocked() {
    let mut lab = Lab::new(Failback::Immediate, &[ActiveOptimized, ActiveOptimized]);
    lab.apply(Event::Aftermath(Crash, seconds(3)));
    lab.apply(Event::Blocked(PathId(1), "the port has gone".into()));
    lab.later(seconds(20));
    assert_eq!(lab.table().aftermath, Crash, "what waits in the host may still go out");
    lab.apply(Event::Unblocked(PathId(1)));
    lab.later(Duration::from_millis(2900));
    assert_eq!(lab.table().aftermath, Crash);
    lab.later(seconds(1));
    assert_eq!(lab.table().aftermath, Over);
}
