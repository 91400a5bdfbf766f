//! Path states, and the transitions that are allowed.

use std::fmt;

/// The state of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PathState {
    /// Being asked who it is; carries nothing.
    Checking,
    /// Its reservation keys are being registered; carries nothing.
    Registering,
    /// In use.
    Up,
    /// In use as the last resort: errors, flapping, or limping.
    Shaky,
    /// The host's transport holds its commands back; gets no new ones.
    Blocked,
    /// Out of use until a probe succeeds.
    Failed,
    /// Being removed: no new commands, those under way may end.
    Draining,
    /// Out of use until an admin says otherwise.
    Disabled,
    /// Leads to another logical unit; never used.
    WrongLun,
}

impl PathState {
    /// True when commands may be sent over the path.
    pub fn is_usable(self) -> bool {
        matches!(self, PathState::Up | PathState::Shaky)
    }

    /// True when commands that are under way on the path are taken back at once, since nothing
    /// more is to be hoped from it, or nobody knows how long it takes.
    pub fn recalls(self) -> bool {
        matches!(self, PathState::Failed | PathState::WrongLun | PathState::Blocked)
    }

    /// The transition table: may a path in this state go over to `next`?
    pub fn may_become(self, next: PathState) -> bool {
        use PathState::*;
        match (self, next) {
            // An admin may take any path out of use or remove it, at any time.
            (_, Draining) => self != Draining,
            (Draining, _) => false,
            (_, Disabled) => self != Disabled,
            // Reinstating starts from the beginning: much may have changed meanwhile.
            (Disabled, Checking) => true,
            (Disabled, _) => false,
            // A probe's verdict.
            (Checking, Registering | Up | Failed | WrongLun | Blocked) => true,
            (Registering, Up | Failed | WrongLun | Blocked) => true,
            // It answers, and has not been well for long enough, or is slow.
            (Checking | Registering, Shaky) => true,
            // A path in use shows a fault, or something that makes its identity doubtful.
            (Up | Shaky, Checking | Failed | Blocked | WrongLun) => true,
            (Up, Shaky) | (Shaky, Up) => true,
            (Blocked, Checking | Failed) => true,
            // Its commands may have come back before the host said that it keeps the next ones.
            (Failed, Blocked) => true,
            // Back into use only by way of a probe.
            (Failed, Checking | WrongLun) => true,
            (WrongLun, Checking | Failed) => true,
            _ => false,
        }
    }
}

impl fmt::Display for PathState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PathState::Checking => "checking",
            PathState::Registering => "registering",
            PathState::Up => "up",
            PathState::Shaky => "shaky",
            PathState::Blocked => "blocked",
            PathState::Failed => "failed",
            PathState::Draining => "draining",
            PathState::Disabled => "disabled",
            PathState::WrongLun => "wrong-lun",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::PathState::{self, *};

    const ALL: [PathState; 9] =
        [Checking, Registering, Up, Shaky, Blocked, Failed, Draining, Disabled, WrongLun];

    #[test]
    fn may_become_usable_only_by_way_of_a_check() {
        for from in ALL.into_iter().filter(|state| !state.is_usable()) {
            let allowed = matches!(from, Checking | Registering);
            assert_eq!(from.may_become(Up), allowed, "{from}");
            assert_eq!(from.may_become(Shaky), allowed, "{from}");
        }
    }

    #[test]
    fn may_become_itself_is_no_transition() {
        assert!(ALL.into_iter().all(|state| !state.may_become(state)));
    }

    #[test]
    fn may_become_anything_from_draining_is_refused() {
        assert!(ALL.into_iter().all(|next| !Draining.may_become(next)));
    }

    #[test]
    fn may_become_disabled_only_comes_back_through_checking() {
        for next in ALL {
            assert_eq!(Disabled.may_become(next), matches!(next, Checking | Draining), "{next}");
        }
    }
}
