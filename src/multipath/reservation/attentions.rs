//! Unit attentions that a PERSISTENT RESERVE OUT makes for other nexuses (SPC-5 5.14.11): each of
//! the guest's other paths is one, and the guest must not hear of its own doing.

use super::events::Command;
use crate::scsi::Asc;
use crate::scsi::reservation::OutAction;

/// The codes that `command` may make, where the guest `holds` a reservation or does not: only what
/// it holds can end with what it releases.
pub fn made(command: &Command, holds: bool) -> &'static [Asc] {
    let Command::Out(out, given) = command else { return &[] };
    match out.action {
        // The registrants of a reservation that ends with its holder's registration.
        OutAction::Register | OutAction::RegisterAndIgnoreExistingKey => {
            match given.action_key.is_none() && holds {
                true => &[Asc::RESERVATIONS_RELEASED],
                false => &[],
            }
        }
        OutAction::Release if holds => &[Asc::RESERVATIONS_RELEASED],
        OutAction::Clear => &[Asc::RESERVATIONS_PREEMPTED],
        OutAction::Preempt | OutAction::PreemptAndAbort => {
            &[Asc::REGISTRATIONS_PREEMPTED, Asc::RESERVATIONS_RELEASED, Asc::RESERVATIONS_PREEMPTED]
        }
        OutAction::Release
        | OutAction::Reserve
        | OutAction::RegisterAndMove
        | OutAction::ReplaceLostReservation => &[],
    }
}
