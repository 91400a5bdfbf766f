//! Class and command -> what next. One attempt has ended; this says whether the guest is answered,
//! and if not, where and when the command goes next.

use std::time::Duration;

use super::classify::{Class, Executed, Verdict};
use super::hold::Wait;
use crate::limits::{BUSY_BACKOFF, BUSY_TRIES_MAX, TRIES_MAX};
use crate::lun::Repeat;
use crate::path::Failure;
use crate::scsi::Asc;
use crate::scsi::alua::AccessState;

/// What one command has been through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tries {
    /// Attempts made, without those that are known never to have left (a path that is found dead
    /// costs nothing), and without those that met a port between two access states (the command's
    /// deadline bounds them, and the array's own limit).
    pub made: u8,
    /// BUSY and TASK SET FULL in a row.
    pub busy: u8,
}

/// Where the next attempt goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Where {
    /// Over the same path, if it is still usable.
    Same,
    /// Over one that this command has not tried in this round.
    Elsewhere,
    /// Over the best one, the tried ones included.
    Anywhere,
}

/// What next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// The guest gets the device server's answer.
    Deliver,
    /// Once more.
    Again {
        /// Where.
        place: Where,
        /// How long to wait before.
        after: Option<Duration>,
    },
    /// Once more, but first the blocks are held until the first attempt cannot land any more.
    Prove(Wait),
    /// The guest gets ABORTED COMMAND: it may have been executed, and must not be twice.
    Abort,
    /// The guest gets ILLEGAL REQUEST: no path can carry it.
    Unsupported,
    /// The guest gets BUSY or TRANSPORT FAILURE, by the policy for no path: enough tries.
    Exhausted,
}

/// What the manager must hear about the path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Problem {
    /// It failed.
    Failed(Failure),
    /// The logical unit is not behind it.
    Unmapped,
    /// Its access state is this.
    Access(AccessState),
    /// Its access states have changed.
    AccessChanged,
    /// Its identity must be read again before it is used.
    Doubt(Asc),
    /// The size has changed.
    SizeChanged,
    /// A command has been under way on it for suspiciously long.
    Overdue,
    /// RESERVATION CONFLICT, of which another path knows nothing.
    Conflicted,
}

/// A verdict on one attempt, turned into what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ruling {
    /// For the command.
    pub next: Next,
    /// For the path.
    pub problem: Option<Problem>,
}

/// Rules on a command that may be repeated as `repeat` says, after an attempt that ended with
/// `verdict`.
pub fn rule(verdict: Verdict, repeat: Repeat, tries: &mut Tries) -> Ruling {
    let problem = problem(verdict.class);
    if verdict.class != Class::Load {
        tries.busy = 0;
    }
    let left = !matches!(
        (verdict.class, verdict.executed),
        (Class::PathFailed(_) | Class::HostBusy, Executed::No)
            | (Class::Access(AccessState::Transitioning), _)
    );
    tries.made = tries.made.saturating_add(u8::from(left));
    let next = match verdict.class {
        // Whether another path thinks otherwise is for the lane to try, who knows the paths.
        Class::Done | Class::Conflict => Next::Deliver,
        Class::Unsupported => Next::Unsupported,
        Class::Load => busy(tries),
        Class::Aborted if tries.made >= TRIES_MAX => Next::Deliver,
        class => match again(class, verdict.executed, repeat) {
            Next::Again { .. } if tries.made >= TRIES_MAX => Next::Exhausted,
            next => next,
        },
    };
    Ruling { next, problem }
}

/// Loaded: the same path once or twice more, then another, then the guest, which slows down.
fn busy(tries: &mut Tries) -> Next {
    tries.busy += 1;
    if tries.busy > BUSY_TRIES_MAX {
        return Next::Deliver;
    }
    let place = if tries.busy <= BUSY_TRIES_MAX / 2 { Where::Same } else { Where::Elsewhere };
    Next::Again { place, after: Some(BUSY_BACKOFF) }
}

fn again(class: Class, executed: Executed, repeat: Repeat) -> Next {
    let (place, after) = match class {
        Class::HostBusy => (Where::Same, Some(BUSY_BACKOFF)),
        Class::AccessChanged(_) | Class::SizeChanged | Class::Attention(_) => (Where::Same, None),
        _ => (Where::Elsewhere, None),
    };
    match (executed, repeat) {
        (Executed::Yes | Executed::No, _) | (_, Repeat::Freely) => Next::Again { place, after },
        (_, Repeat::AfterProof) => Next::Prove(Wait::after(executed)),
        (Executed::Perhaps | Executed::Unknown | Executed::Parked, Repeat::Never) => match class {
            // The device server has told the guest's question itself.
            Class::Aborted => Next::Deliver,
            _ => Next::Abort,
        },
    }
}

fn problem(class: Class) -> Option<Problem> {
    match class {
        // Whoever recalls has a reason, and has told it where the reason is the path.
        Class::PathFailed(Failure::Recalled) => None,
        Class::PathFailed(failure) => Some(Problem::Failed(failure)),
        Class::Unmapped => Some(Problem::Unmapped),
        Class::Access(state) => Some(Problem::Access(state)),
        Class::AccessChanged(_) => Some(Problem::AccessChanged),
        Class::Doubt(code) => Some(Problem::Doubt(code)),
        Class::SizeChanged => Some(Problem::SizeChanged),
        // An affair of the guest's, see `Event::Attention`.
        Class::Attention(_)
        | Class::Done
        | Class::Conflict
        | Class::Load
        | Class::HostBusy
        | Class::Aborted
        | Class::Disturbed
        | Class::Unsupported => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(class: Class, executed: Executed, repeat: Repeat) -> Next {
        rule(Verdict { class, executed }, repeat, &mut Tries { made: 1, busy: 0 }).next
    }

    const FAILED: Class = Class::PathFailed(Failure::Disconnected);
    const ELSEWHERE: Next = Next::Again { place: Where::Elsewhere, after: None };

    #[test]
    fn rule_not_executed_goes_elsewhere_whatever_the_command() {
        for repeat in [Repeat::Freely, Repeat::AfterProof, Repeat::Never] {
            assert_eq!(next(FAILED, Executed::No, repeat), ELSEWHERE);
        }
    }

    #[test]
    fn rule_possibly_executed_depends_on_the_command() {
        for (executed, wait) in [
            (Executed::Perhaps, Wait::Nothing),
            (Executed::Unknown, Wait::Quiesce),
            (Executed::Parked, Wait::Proof),
        ] {
            assert_eq!(next(FAILED, executed, Repeat::Freely), ELSEWHERE);
            assert_eq!(next(FAILED, executed, Repeat::AfterProof), Next::Prove(wait));
            assert_eq!(next(FAILED, executed, Repeat::Never), Next::Abort);
        }
    }

    #[test]
    fn rule_recalled_attempt_says_nothing_of_the_path() {
        let class = Class::PathFailed(Failure::Recalled);
        let verdict = Verdict { class, executed: Executed::Unknown };
        let ruling = rule(verdict, Repeat::Freely, &mut Tries::default());
        assert_eq!((ruling.next, ruling.problem), (ELSEWHERE, None));
    }

    #[test]
    fn rule_disturbed_command_goes_elsewhere_and_the_path_stays() {
        let verdict = Verdict { class: Class::Disturbed, executed: Executed::Unknown };
        let ruling = rule(verdict, Repeat::Freely, &mut Tries::default());
        assert_eq!((ruling.next, ruling.problem), (ELSEWHERE, None));
        assert_eq!(next(Class::Disturbed, Executed::Unknown, Repeat::Never), Next::Abort);
    }

    #[test]
    fn rule_device_servers_own_abort_is_delivered_where_it_cannot_be_repeated() {
        assert_eq!(next(Class::Aborted, Executed::Perhaps, Repeat::Never), Next::Deliver);
    }

    #[test]
    fn rule_busy_ends_with_the_guest() {
        let mut tries = Tries::default();
        let verdict = Verdict { class: Class::Load, executed: Executed::No };
        for _ in 0..BUSY_TRIES_MAX {
            let ruling = rule(verdict, Repeat::Never, &mut tries);
            assert!(matches!(ruling.next, Next::Again { after: Some(BUSY_BACKOFF), .. }));
            assert_eq!(ruling.problem, None, "a loaded path is not a failed one");
        }
        assert_eq!(rule(verdict, Repeat::Never, &mut tries).next, Next::Deliver);
    }

    #[test]
    fn rule_tries_are_bounded() {
        let verdict = Verdict { class: FAILED, executed: Executed::Unknown };
        let mut tries = Tries::default();
        for _ in 1..TRIES_MAX {
            assert_eq!(rule(verdict, Repeat::Freely, &mut tries).next, ELSEWHERE);
        }
        assert_eq!(rule(verdict, Repeat::Freely, &mut tries).next, Next::Exhausted);
    }

    #[test]
    fn rule_attempts_that_never_left_do_not_count() {
        let verdict = Verdict { class: FAILED, executed: Executed::No };
        let mut tries = Tries::default();
        for _ in 0..1000 {
            assert_eq!(rule(verdict, Repeat::Freely, &mut tries).next, ELSEWHERE);
        }
    }

    #[test]
    fn rule_transition_costs_no_try_and_no_time_where_another_path_is_usable() {
        let class = Class::Access(AccessState::Transitioning);
        let verdict = Verdict { class, executed: Executed::No };
        let mut tries = Tries::default();
        for _ in 0..1000 {
            let ruling = rule(verdict, Repeat::Never, &mut tries);
            assert_eq!(ruling.next, ELSEWHERE);
            assert_eq!(ruling.problem, Some(Problem::Access(AccessState::Transitioning)));
        }
        assert_eq!(tries.made, 0);
    }

    #[test]
    fn rule_unit_attention_is_asked_again_over_the_same_path() {
        let class = Class::Attention(Asc::MODE_PARAMETERS_CHANGED);
        let same = Next::Again { place: Where::Same, after: None };
        assert_eq!(next(class, Executed::No, Repeat::Never), same);
    }
}
