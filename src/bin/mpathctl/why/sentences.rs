//! What each state means, in plain English. One row a state, so that a new one cannot be forgotten.

use vhost_user_scsi_mpath::control::{AccessState, PathState};

/// What is said about a path's state. `is` and `next` go on after the path's name or "It".
#[derive(Clone, Copy, Debug)]
pub struct About {
    /// What the state is.
    pub is: &'static str,
    /// What comes next without anybody's doing.
    pub next: &'static str,
    /// What an admin can do; a `{path}` stands for its name.
    pub advice: &'static str,
}

/// The row of a path's state.
pub fn state(state: PathState) -> About {
    match state {
        PathState::Checking => About {
            is: "is being asked who it is and whether it leads to this LUN, and carries nothing \
                 meanwhile",
            next: "goes into use when its answers are right, and is failed when there are none",
            advice: "Nothing is to be done.",
        },
        PathState::Registering => About {
            is: "answers, and has the guest's reservation keys registered before it may carry \
                 anything",
            next: "goes into use when the array has taken the keys",
            advice: "Nothing is to be done.",
        },
        PathState::Up => About {
            is: "is up",
            next: "is asked now and then whether it is well, and left as soon as it is not",
            advice: "Nothing is to be done.",
        },
        PathState::Shaky => About {
            is: "works, but with errors, on and off, or slowly, so it is used only where no other \
                 path is up",
            next: "is up again when it has been well for a while",
            advice: "Look at its cable, switch port and array port before it fails altogether; \
                     \"mpathctl fail {path}\" takes it out of use.",
        },
        PathState::Blocked => About {
            is: "is held back by the host's own transport, which waits for the link, so it gets \
                 no new commands",
            next: "is asked anew when the transport lets it go, and is failed when the transport \
                   gives it up",
            advice: "Look at the host's kernel log and at the link.",
        },
        PathState::Failed => About {
            is: "is out of use, since it does not work",
            next: "comes back into use by itself when it answers",
            advice: "Mend what the reason names, the link, the target or the array's port; no \
                     command is needed afterwards. If it is gone for good: \"mpathctl remove \
                     {path}\".",
        },
        PathState::Draining => About {
            is: "is on its way out: it gets no new commands",
            next: "is gone when its last commands have ended",
            advice: "Nothing is to be done.",
        },
        PathState::Disabled => About {
            is: "is out of use because somebody said so",
            next: "stays out of use, whatever it could do",
            advice: "\"mpathctl reinstate {path}\" has it checked and used again.",
        },
        PathState::WrongLun => About {
            is: "leads to another logical unit than the other paths, so nothing is sent over it",
            next: "is asked again now and then, and is used once it leads to the right one",
            advice: "Correct the path's address or the array's mapping, or take it away with \
                     \"mpathctl remove {path}\".",
        },
    }
}

/// What the state of its port means for a path that works. It goes on after "Its port".
pub fn access(state: AccessState) -> &'static str {
    match state {
        AccessState::ActiveOptimized => "is active/optimized: the array serves it best",
        AccessState::ActiveNonOptimized => {
            "is active/non-optimized: it works, and is used only where no optimized port does"
        }
        AccessState::Standby => {
            "is in standby: it takes no reads and writes until the array makes it active"
        }
        AccessState::Unavailable => {
            "is unavailable: it takes no reads and writes until the array makes it active"
        }
        AccessState::Offline => {
            "is offline: it takes no reads and writes until it is switched on at the array"
        }
        AccessState::Transitioning => {
            "is changing its access state: it takes no reads and writes until it has"
        }
        AccessState::Unknown => {
            "has no access state, since the array tells none: it counts as good as any other"
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_path_state_has_its_own_sentences() {
        let mut seen = HashSet::new();
        for one in PathState::ALL {
            let about = state(*one);
            assert!(seen.insert(about.is), "{one} shares its sentence");
            for part in [about.is, about.next] {
                assert!(part.len() > 4 && !part.ends_with('.'), "{one}: {part}");
            }
            assert!(about.advice.ends_with('.'), "{one}: {}", about.advice);
        }
        assert_eq!(seen.len(), 9);
    }

    #[test]
    fn every_access_state_has_its_own_sentence() {
        let sentences: HashSet<&str> = AccessState::ALL.iter().map(|one| access(*one)).collect();
        assert_eq!(sentences.len(), AccessState::ALL.len());
        assert!(sentences.iter().all(|one| one.contains(": ") && !one.ends_with('.')));
    }
}
