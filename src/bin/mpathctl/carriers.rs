//! Which paths carry the LUN's commands now: the backend's own ranking, from what it reports.

use vhost_user_scsi_mpath::control::{AccessState, PathReport, PathState};

use crate::topology::is_usable;

/// The paths among which the I/O policy chooses: the best of those that are usable.
pub fn carriers(paths: &[PathReport]) -> Vec<&PathReport> {
    let rank = |path: &&PathReport| rank(path, paths);
    let usable = || paths.iter().filter(|path| is_usable(path));
    let best = usable().map(|path| rank(&path)).min();
    usable().filter(|path| Some(rank(path)) == best).collect()
}

/// Shaky paths come last, ports that the array serves less well before them.
fn rank(path: &PathReport, all: &[PathReport]) -> (bool, bool) {
    let optimized = match path.access_state {
        AccessState::ActiveOptimized => true,
        // An array that tells nothing: the preferred paths are the better ones, if there are any.
        AccessState::Unknown => {
            path.preferred || !all.iter().any(|path| is_usable(path) && path.preferred)
        }
        _ => false,
    };
    (path.state == PathState::Shaky, !optimized)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::path;

    fn names(paths: &[PathReport]) -> String {
        let names: Vec<&str> = carriers(paths).iter().map(|path| path.name.as_str()).collect();
        names.join(" ")
    }

    #[test]
    fn carriers_are_the_best_that_is_usable() {
        let mut paths = vec![
            path("near", 0, 1, AccessState::ActiveOptimized),
            path("near-2", 1, 1, AccessState::ActiveOptimized),
            path("far", 2, 2, AccessState::ActiveNonOptimized),
            path("asleep", 3, 3, AccessState::Standby),
        ];
        assert_eq!(names(&paths), "near near-2");
        paths[0].state = PathState::Failed;
        paths[1].state = PathState::Shaky;
        assert_eq!(names(&paths), "far");
        paths[2].state = PathState::Disabled;
        assert_eq!(names(&paths), "near-2");
        paths[1].state = PathState::Blocked;
        assert_eq!(names(&paths), "");
    }

    #[test]
    fn carriers_without_access_states_are_the_preferred_ones() {
        let mut paths =
            vec![path("a", 0, 1, AccessState::Unknown), path("b", 1, 2, AccessState::Unknown)];
        assert_eq!(names(&paths), "a b");
        paths[1].preferred = true;
        assert_eq!(names(&paths), "b");
        paths[1].state = PathState::Failed;
        assert_eq!(names(&paths), "a");
    }
}
