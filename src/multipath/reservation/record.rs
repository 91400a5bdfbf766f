//! What must survive the backend, and what is told of it meanwhile.
//!
//! The machine knows no file. It says [`Record`] whenever what must survive has changed (action
//! `Keep`), and goes on only when it is told that the record is on the medium, or cannot be (event
//! `Kept`): the guest hears GOOD of nothing that a crash could make untrue. There is one `Keep`
//! without its `Kept` at most, and a newer record replaces an older one whole. At the start the
//! machine is told what was kept, if anything was (event `Restored`), before it is asked for
//! anything; until then every command waits. Where nothing can be kept the event is `Stateless`,
//! and PERSISTENT RESERVE OUT is refused.
//!
//! A record is kept twice for each REGISTER: first with [`Record::coming`], so that a key that
//! only some paths got is known as ours after a crash, then without it.

use crate::scsi::reservation::{Key, Type};

/// What must survive the backend.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// The guest's key; without one the guest is not registered.
    pub key: Option<Key>,
    /// The key that was being registered in its place, zero for none. After a crash paths may
    /// have this one or [`Record::key`], and both are ours.
    pub coming: Option<Key>,
    /// APTPL of the guest's last registration: it is one for the whole logical unit, so each
    /// registration of another path must say it again (SPC-5 6.17.3).
    pub aptpl: bool,
    /// PRGENERATION as the guest counts it (SPC-5 6.16.2): one for each command of its own,
    /// however many paths it took.
    pub generation: u32,
    /// PRGENERATION of the array at that time. A lower one later means that the array has begun
    /// to count anew.
    pub array_generation: u32,
    /// The reservation, where the guest holds it.
    pub reservation: Option<Holding>,
}

/// A reservation that the guest holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holding {
    /// TYPE.
    pub kind: Type,
    /// The path whose nexus holds it, by its name; `None` for the types that all registrants hold.
    pub holder: Option<String>,
}

impl Record {
    /// True where nothing of the guest's stands, so that there is nothing to take up.
    pub fn is_empty(&self) -> bool {
        self.key.is_none() && self.coming.is_none()
    }

    /// PRGENERATION for the guest where the array's is `array`: others' commands count as they do
    /// in the array.
    pub fn guest_generation(&self, array: u32) -> u32 {
        if array < self.array_generation {
            return array;
        }
        self.generation.wrapping_add(array - self.array_generation)
    }
}

/// What stands now, for reports (`query-reservation`). Whoever reports reads a copy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// What is, or is about to be, kept.
    pub record: Record,
    /// False where no state is kept: PERSISTENT RESERVE OUT is refused.
    pub is_kept: bool,
    /// Each path by name, and whether it is registered.
    pub paths: Vec<(String, Registration)>,
    /// What is under way, in the standard's words.
    pub under_way: Option<String>,
    /// Keys of other initiators, one for each of their registrations, when they were last read.
    pub others: Vec<Key>,
}

/// Is a path registered?
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Registration {
    /// It has no key, and the guest has none.
    #[default]
    None,
    /// It has the guest's key.
    Registered,
    /// It has to get the guest's key, or to lose its own, before it may carry commands.
    Pending,
    /// The guest's key was taken away by another initiator: it carries commands, which the array
    /// judges, and is not registered again by itself.
    Fenced,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generation_counts_others_and_begins_anew_with_the_array() {
        let record = Record { generation: 3, array_generation: 10, ..Record::default() };
        assert_eq!([10, 12].map(|array| record.guest_generation(array)), [3, 5]);
        assert_eq!(record.guest_generation(2), 2, "the array was switched on since");
    }

    #[test]
    fn record_with_a_key_on_its_way_is_not_empty() {
        assert!(Record::default().is_empty());
        assert!(!Record { coming: Some(Key(1)), ..Record::default() }.is_empty());
    }
}
