//! What an admin changes while the guest goes on.

use super::*;
use crate::ids::HoldId;
use crate::lun::Extent;
use crate::multipath::hold::Wait;

#[test]
fn path_with_another_name_is_the_same_path() {
    let mut lab = Lab::new(Failback::Immediate, &[ActiveOptimized, ActiveOptimized]);
    let said = lab.said.len();
    lab.apply(Event::Rename(PathId(0), "left".to_owned()));
    assert_eq!(
        lab.core.path_named("left").map(|path| (path.id, path.state)),
        Some((PathId(0), PathState::Up))
    );
    assert!(lab.core.path_named("0").is_none());
    assert_eq!(lab.said.len(), said, "lanes have nothing to do with it");
}

#[test]
fn write_quiesce_holds_for_writes_from_its_change_on() {
    let mut lab = Lab::new(Failback::Immediate, &[ActiveOptimized, ActiveOptimized]);
    let lose = |lab: &mut Lab, number| {
        let hold = HoldId { lane: LANE, number };
        let extent = Extent::Blocks { first: number * 8, count: 8 };
        let (ended, wait, path) = (lab.now, Wait::Quiesce, PathId(0));
        lab.apply(Event::Unproven { hold, extent, ended, wait, path, session: 0 });
        lab.apply(Event::Honoured(LANE, lab.core.version));
    };
    let released = |lab: &Lab| lab.count(|action| matches!(action, Action::Release(_)));
    lose(&mut lab, 1);
    lab.apply(Event::SetWriteQuiesce(Duration::from_secs(5)));
    lose(&mut lab, 2);
    lab.later(Duration::from_millis(1500));
    assert_eq!(released(&lab), 1);
    lab.later(Duration::from_secs(3));
    assert_eq!(released(&lab), 1);
    lab.later(Duration::from_secs(1));
    assert_eq!(released(&lab), 2);
}
