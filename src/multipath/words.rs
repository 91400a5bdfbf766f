//! A LUN's paths in one line, for people.

use super::path::Path;

/// Paths that are named one by one at most.
const NAMED_MAX: usize = 8;

/// The paths and their states, with the reason where one is not used.
pub fn paths_in_words(paths: &[&Path]) -> String {
    if paths.is_empty() {
        return "no paths".to_owned();
    }
    let in_words = |path: &&Path| match path.is_usable() {
        _ if !path.state.is_usable() => format!("{} {} ({})", path.name, path.state, path.reason),
        true => format!("{} {}", path.name, path.state),
        false => format!("{} {} ({})", path.name, path.state, path.access),
    };
    if paths.len() <= NAMED_MAX {
        return paths.iter().map(in_words).collect::<Vec<_>>().join(", ");
    }
    let out: Vec<String> = paths.iter().filter(|path| !path.is_up()).map(in_words).collect();
    let mut words = format!("{} of {} paths up", paths.len() - out.len(), paths.len());
    for one in out.iter().take(NAMED_MAX) {
        words.push_str(", ");
        words.push_str(one);
    }
    if out.len() > NAMED_MAX {
        words.push_str(&format!(" and {} more", out.len() - NAMED_MAX));
    }
    words
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Instant;

    use super::*;
    use crate::ids::PathId;
    use crate::multipath::load::Load;
    use crate::multipath::{PathState, Placement};
    use crate::scsi::alua::AccessState;

    fn path(id: u16, state: PathState, access: AccessState) -> Path {
        let now = Instant::now();
        let placement = Placement::default();
        let mut path =
            Path::new(PathId(id), format!("p{id}"), placement, Arc::new(Load::new(now)), now);
        path.state = state;
        path.access = access;
        path.reason = "why".to_owned();
        path
    }

    #[test]
    fn few_paths_are_named_and_many_counted() {
        let up = |id| path(id, PathState::Up, AccessState::ActiveOptimized);
        let failed = |id| path(id, PathState::Failed, AccessState::ActiveOptimized);
        let standby = path(3, PathState::Up, AccessState::Standby);
        let (one, two) = (up(1), failed(2));
        assert_eq!(paths_in_words(&[]), "no paths");
        let words = paths_in_words(&[&one, &two, &standby]);
        assert_eq!(words, "p1 up, p2 failed (why), p3 up (standby)");
        let many: Vec<Path> = (0..10).map(up).chain((10..20).map(failed)).collect();
        let words = paths_in_words(&many.iter().collect::<Vec<_>>());
        assert!(words.starts_with("10 of 20 paths up, p10 failed (why), p11"), "{words}");
        assert!(words.ends_with("p17 failed (why) and 2 more"), "{words}");
    }
}
