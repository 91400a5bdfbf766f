//! Attempts that were given up while the kernel had them.
//!
//! A blocked device keeps what was sent to it and sends it on when it recovers, however late: no
//! quiesce time covers that. So each attempt that is given up inside the kernel gets a number, and
//! when the kernel has returned all up to a number, that is told. What the return itself says
//! decides what it is worth: the device's answer, or an end before it was sent, is a proof; a link
//! that broke under way is not, but from now on the time in which the write may land is bounded.

use std::collections::BTreeSet;

use crate::path::{Fate, Reach, TransportEvent};

/// The attempts of one path that were given up and that the kernel has not returned.
#[derive(Debug, Default)]
pub(super) struct Parked {
    last: u32,
    out: BTreeSet<u32>,
    /// One of those that came back while others were out may still land.
    doubtful: bool,
    told: u32,
}

impl Parked {
    /// An attempt is given up; its number.
    pub(super) fn park(&mut self) -> u32 {
        self.last = self.last.saturating_add(1);
        self.out.insert(self.last);
        self.last
    }

    /// It was not given up after all: it ended at that moment.
    pub(super) fn forget(&mut self, number: u32) {
        self.out.remove(&number);
    }

    /// The kernel has returned it with `fate`; what can be told now.
    pub(super) fn returned(&mut self, number: u32, fate: &Fate) -> Option<TransportEvent> {
        let proven = !matches!(fate, Fate::Failed(_, Reach::Unknown | Reach::Parked));
        self.out.remove(&number);
        self.doubtful |= !proven;
        let doubtful = self.doubtful;
        let session = match self.out.first() {
            Some(first) => first - 1,
            None => {
                self.doubtful = false;
                self.last
            }
        };
        if session <= self.told {
            return None;
        }
        self.told = session;
        Some(match doubtful {
            true => TransportEvent::Returned { session },
            false => TransportEvent::Proven { session },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::Failure;

    const DEAD: Fate = Fate::Failed(Failure::Transient, Reach::Terminated);
    const LOST: Fate = Fate::Failed(Failure::Disconnected, Reach::Unknown);

    fn proven(session: u32) -> Option<TransportEvent> {
        Some(TransportEvent::Proven { session })
    }

    #[test]
    fn proof_waits_for_the_first_that_is_out() {
        let mut parked = Parked::default();
        assert_eq!([parked.park(), parked.park(), parked.park()], [1, 2, 3]);
        assert_eq!(parked.returned(2, &DEAD), None);
        assert_eq!(parked.returned(1, &DEAD), proven(2));
        assert_eq!(parked.returned(3, &DEAD), proven(3));
    }

    #[test]
    fn attempt_that_may_still_land_proves_nothing() {
        let mut parked = Parked::default();
        let numbers = [parked.park(), parked.park()];
        assert_eq!(parked.returned(numbers[1], &LOST), None);
        let returned = Some(TransportEvent::Returned { session: 2 });
        assert_eq!(parked.returned(numbers[0], &DEAD), returned);
        let later = parked.park();
        assert_eq!(parked.returned(later, &DEAD), proven(3), "the doubt is over with its cause");
    }

    #[test]
    fn attempt_that_ended_meanwhile_is_not_waited_for() {
        let mut parked = Parked::default();
        let (first, second) = (parked.park(), parked.park());
        parked.forget(first);
        assert_eq!(parked.returned(second, &DEAD), proven(2));
    }
}
