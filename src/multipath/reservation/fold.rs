//! What the array tells of all initiators, with our paths folded into the guest's one nexus.
//!
//! | PERSISTENT RESERVE IN | what is changed |
//! |---|---|
//! | READ KEYS | the guest's key once instead of once for each path; PRGENERATION |
//! | READ RESERVATION | PRGENERATION |
//! | READ FULL STATUS | our nexuses are one, which holds what any of them holds; PRGENERATION |
//! | REPORT CAPABILITIES | no SPEC_I_PT, ALL_TG_PT, REPLACE LOST RESERVATION: they speak of ports that the guest does not have. No CRH: RESERVE and RELEASE are refused |
//!
//! Other initiators' registrations stay as they are, also where one of them uses the guest's key:
//! one copy is folded for each path that may be registered.

use super::record::Record;
use crate::scsi::reservation::{
    Capabilities, FullStatus, Key, Keys, Registrant, Reservation, TransportId,
};

/// `keys` without one for each of our paths, whose keys `ours` are: one, or two where it is not
/// known which of them it has. A path that is away may still have one after the guest has another.
pub fn without_ours(keys: &[Key], ours: &[Vec<Key>]) -> Vec<Key> {
    let mut others = keys.to_vec();
    for may in ours {
        if let Some(at) = others.iter().position(|key| may.contains(key)) {
            others.remove(at);
        }
    }
    others
}

/// READ KEYS. The guest's key stands where the first with its value stood.
pub fn keys(told: &Keys, record: &Record, ours: &[Vec<Key>]) -> Keys {
    let mut keys = without_ours(&told.keys, ours);
    if let Some(key) = record.key.filter(|key| told.keys.contains(key)) {
        let at = told.keys.iter().position(|one| *one == key).unwrap_or(0);
        keys.insert(at.min(keys.len()), key);
    }
    Keys { generation: record.guest_generation(told.generation), keys }
}

/// READ RESERVATION.
pub fn reservation(told: &Reservation, record: &Record) -> Reservation {
    Reservation { generation: record.guest_generation(told.generation), held: told.held }
}

/// Which registrants with the guest's key are nexuses of ours. Another initiator may have registered
/// the same key.
#[derive(Debug)]
pub struct Ours {
    /// The names of our nexuses; `None` where the array, or the host, has others for them: then each
    /// registrant with the guest's key is taken for ours.
    named: Option<Vec<(TransportId, u16)>>,
}

impl Ours {
    /// Of paths with these nexuses, of which so many are registered: fewer that are found by their
    /// names say that the array has others.
    pub fn among(
        told: &FullStatus,
        nexuses: Vec<Option<(TransportId, u16)>>,
        registered: usize,
    ) -> Self {
        let all = Ours { named: nexuses.into_iter().collect() };
        let found = told.registrants.iter().filter(|one| all.has(one)).count();
        if found < registered { Ours { named: None } } else { all }
    }

    fn has(&self, one: &Registrant) -> bool {
        self.named.as_ref().is_none_or(|named| {
            named.iter().any(|(initiator, port)| {
                *initiator == one.initiator_port && one.target_port.is_none_or(|at| at == *port)
            })
        })
    }
}

/// READ FULL STATUS. The one nexus stands where the first of ours stood, and is called as that one
/// is, unless another of ours holds the reservation.
pub fn full_status(told: &FullStatus, record: &Record, ours: &Ours) -> FullStatus {
    let ours = |one: &Registrant| Some(one.key) == record.key && ours.has(one);
    let holder = told.registrants.iter().find(|one| ours(one) && one.holds.is_some());
    let first = told.registrants.iter().position(ours);
    let mut registrants = Vec::with_capacity(told.registrants.len());
    for (at, one) in told.registrants.iter().enumerate() {
        match ours(one) {
            false => registrants.push(one.clone()),
            true if first == Some(at) => registrants.push(holder.unwrap_or(one).clone()),
            true => {}
        }
    }
    FullStatus { generation: record.guest_generation(told.generation), registrants }
}

/// REPORT CAPABILITIES.
pub fn capabilities(told: &Capabilities) -> Capabilities {
    Capabilities {
        replace_lost_reservation: false,
        compatible_handling: false,
        initiator_ports: false,
        all_target_ports: false,
        ..*told
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scsi::reservation::{Held, Type};

    fn record() -> Record {
        Record { key: Some(Key(7)), generation: 2, array_generation: 5, ..Record::default() }
    }

    #[test]
    fn keys_show_the_guest_once_and_others_as_they_are() {
        let told = Keys { generation: 6, keys: [7, 9, 7, 9, 7].map(Key).to_vec() };
        let ours = |count| vec![vec![Key(7)]; count];
        let folded = keys(&told, &record(), &ours(3));
        assert_eq!((folded.generation, folded.keys), (3, [7, 9, 9].map(Key).to_vec()));
        let shared = keys(&told, &record(), &ours(2));
        assert_eq!(shared.keys, [7, 9, 9, 7].map(Key).to_vec(), "another's with the same key");
        let away = vec![vec![Key(7)], vec![Key(5), Key(7)], vec![Key(9), Key(8)]];
        assert_eq!(keys(&told, &record(), &away).keys, [7, 9, 7].map(Key).to_vec());
        let none = Record { key: None, ..record() };
        assert_eq!(keys(&told, &none, &[]).keys, told.keys);
    }

    #[test]
    fn reservation_counts_as_the_guest_does() {
        let held = Some(Held::new(Key(9), Type::WriteExclusive));
        let told = Reservation { generation: 5, held };
        assert_eq!(reservation(&told, &record()), Reservation { generation: 2, held });
    }

    #[test]
    fn full_status_shows_one_nexus_that_holds() {
        let one = |key, initiator, port, holds| Registrant {
            key: Key(key),
            holds,
            target_port: Some(port),
            initiator_port: TransportId::Sas { address: initiator },
        };
        let kind = Some(Type::ExclusiveAccessRegistrantsOnly);
        let registrants = vec![one(7, 1, 1, None), one(7, 2, 1, None), one(7, 1, 2, kind)];
        let told = FullStatus { generation: 5, registrants };
        let ours = |initiator, registered| {
            let nexus = |port| Some((TransportId::Sas { address: initiator }, port));
            Ours::among(&told, vec![nexus(1), nexus(2)], registered)
        };
        let folded = full_status(&told, &record(), &ours(1, 2));
        assert_eq!(folded.registrants, [one(7, 1, 2, kind), one(7, 2, 1, None)]);
        assert_eq!(folded.generation, 2);
        // The array calls them otherwise, or nobody knows how it calls them.
        for ours in [ours(9, 2), Ours::among(&told, vec![None, None], 2)] {
            assert_eq!(full_status(&told, &record(), &ours).registrants, [one(7, 1, 2, kind)]);
        }
    }

    #[test]
    fn capabilities_promise_nothing_of_other_ports() {
        let told = Capabilities {
            replace_lost_reservation: true,
            compatible_handling: true,
            initiator_ports: true,
            all_target_ports: true,
            persist: true,
            persist_active: true,
            ..Capabilities::default()
        };
        let expected =
            Capabilities { persist: true, persist_active: true, ..Capabilities::default() };
        assert_eq!(capabilities(&told), expected);
    }
}
