//! Unit attentions of one I_T nexus (SAM-5 5.14): each kind is pending or not, and they are
//! reported one at a time in the order of their priority.
//!
//! A set of bits and not a queue: a condition that is already pending is not established a second
//! time, so that the memory is bounded by the number of kinds, and looking costs one load.

use std::sync::atomic::{AtomicU32, Ordering};

use super::reservations::Notice;
use crate::scsi::Asc;

/// The kinds, the most urgent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Attention {
    /// The nexus is new: for this initiator the unit has just been powered on.
    PowerOn,
    /// The inventory of logical units changed.
    LunsChanged,
    /// Another nexus preempted the registration.
    RegistrationsPreempted,
    /// Another nexus cleared all registrations.
    ReservationsPreempted,
    /// The reservation has ended or changed.
    ReservationsReleased,
    /// Another nexus changed mode pages.
    ModeChanged,
    /// A port group's access state changed.
    StateChanged,
    /// The unit has another size.
    CapacityChanged,
}

impl Attention {
    const ALL: [Attention; 8] = [
        Attention::PowerOn,
        Attention::LunsChanged,
        Attention::RegistrationsPreempted,
        Attention::ReservationsPreempted,
        Attention::ReservationsReleased,
        Attention::ModeChanged,
        Attention::StateChanged,
        Attention::CapacityChanged,
    ];

    fn bit(self) -> u32 {
        1 << self as u8
    }

    /// What the sense data says.
    pub(super) fn asc(self) -> Asc {
        match self {
            Attention::PowerOn => Asc::POWER_ON_OR_RESET,
            Attention::LunsChanged => Asc::REPORTED_LUNS_CHANGED,
            Attention::RegistrationsPreempted => Notice::RegistrationsPreempted.asc(),
            Attention::ReservationsPreempted => Notice::ReservationsPreempted.asc(),
            Attention::ReservationsReleased => Notice::ReservationsReleased.asc(),
            Attention::ModeChanged => Asc::MODE_PARAMETERS_CHANGED,
            Attention::StateChanged => Asc::ALUA_STATE_CHANGED,
            Attention::CapacityChanged => Asc::CAPACITY_DATA_HAS_CHANGED,
        }
    }
}

impl From<Notice> for Attention {
    fn from(notice: Notice) -> Self {
        match notice {
            Notice::RegistrationsPreempted => Attention::RegistrationsPreempted,
            Notice::ReservationsPreempted => Attention::ReservationsPreempted,
            Notice::ReservationsReleased => Attention::ReservationsReleased,
        }
    }
}

/// What is pending for one nexus.
#[derive(Debug, Default)]
pub(super) struct Attentions(AtomicU32);

impl Attentions {
    /// Establishes a condition. A reset makes everything before it moot (SAM-5 5.14.2).
    pub(super) fn post(&self, attention: Attention) {
        if attention == Attention::PowerOn {
            self.0.store(attention.bit(), Ordering::Relaxed);
        } else {
            self.0.fetch_or(attention.bit(), Ordering::Relaxed);
        }
    }

    /// True when nothing is pending: the usual case, one load.
    pub(super) fn is_empty(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }

    /// Takes the most urgent one. No two commands get the same.
    pub(super) fn take(&self) -> Option<Attention> {
        Attention::ALL.into_iter().find(|attention| {
            !self.is_empty()
                && self.0.fetch_and(!attention.bit(), Ordering::Relaxed) & attention.bit() != 0
        })
    }

    /// Forgets one kind, reported or not.
    pub(super) fn clear(&self, attention: Attention) {
        self.0.fetch_and(!attention.bit(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn take_goes_by_priority_and_each_once() {
        let pending = Attentions::default();
        pending.post(Attention::ModeChanged);
        pending.post(Attention::LunsChanged);
        pending.post(Attention::ModeChanged);
        assert_eq!(pending.take(), Some(Attention::LunsChanged));
        assert_eq!(pending.take(), Some(Attention::ModeChanged));
        assert_eq!(pending.take(), None);
    }

    #[test]
    fn post_power_on_makes_the_rest_moot() {
        let pending = Attentions::default();
        pending.post(Attention::CapacityChanged);
        pending.post(Attention::PowerOn);
        assert_eq!(pending.take(), Some(Attention::PowerOn));
        assert!(pending.is_empty());
    }
}
