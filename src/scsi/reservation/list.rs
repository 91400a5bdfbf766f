//! READ KEYS and READ RESERVATION (SPC-5 6.16.2 and 6.16.3), and the header that both share with
//! READ FULL STATUS.

use super::{Key, Type, scope_and_type, type_in};

/// Bytes of PRGENERATION and ADDITIONAL LENGTH.
const HEADER: usize = 8;

/// How much room the whole data needs, by its own word: to ask again where it was cut.
pub fn room_needed(data: &[u8]) -> Option<usize> {
    let length = u32::from_be_bytes(data.get(4..HEADER)?.try_into().ok()?);
    (length as usize).checked_add(HEADER)
}

/// PRGENERATION and the list behind it; `None` where the list was cut.
pub(super) fn open(data: &[u8]) -> Option<(u32, &[u8])> {
    let generation = u32::from_be_bytes(data.get(..4)?.try_into().ok()?);
    Some((generation, data.get(HEADER..room_needed(data)?)?))
}

/// The header in front of `list`.
pub(super) fn close(generation: u32, list: &[u8]) -> Vec<u8> {
    let mut data = generation.to_be_bytes().to_vec();
    data.extend_from_slice(&(list.len() as u32).to_be_bytes());
    data.extend_from_slice(list);
    data
}

/// What READ KEYS tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keys {
    /// PRGENERATION.
    pub generation: u32,
    /// A key for each registration: registrations with the same key are listed each.
    pub keys: Vec<Key>,
}

impl Keys {
    /// Reads the parameter data.
    pub fn parse(data: &[u8]) -> Option<Self> {
        let (generation, list) = open(data)?;
        let (keys, []) = list.as_chunks() else { return None };
        let keys = keys.iter().map(|key| Key(u64::from_be_bytes(*key))).collect();
        Some(Keys { generation, keys })
    }

    /// The parameter data.
    pub fn bytes(&self) -> Vec<u8> {
        let list: Vec<u8> = self.keys.iter().flat_map(|key| key.bytes()).collect();
        close(self.generation, &list)
    }
}

/// What READ RESERVATION tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reservation {
    /// PRGENERATION.
    pub generation: u32,
    /// The reservation, if there is one.
    pub held: Option<Held>,
}

/// A reservation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// The holder's key; none where all registrants hold it.
    pub key: Key,
    /// SCOPE and TYPE as they came: there are arrays that tell of a type that does not exist (tgtd
    /// does, after some PREEMPTs), and the guest is to see what they tell.
    pub scope_and_type: u8,
}

impl Held {
    /// A reservation of `kind`.
    pub fn new(key: Key, kind: Type) -> Self {
        Held { key, scope_and_type: scope_and_type(kind) }
    }

    /// The type, where scope and type exist: what another one allows is not known.
    pub fn kind(&self) -> Option<Type> {
        type_in(self.scope_and_type)
    }

    /// True where each registered nexus is a holder.
    pub fn is_all_registrants(&self) -> bool {
        self.kind().is_some_and(Type::is_all_registrants)
    }
}

/// Bytes of a reservation descriptor.
const DESCRIPTOR: usize = 16;

impl Reservation {
    /// Reads the parameter data; `None` where it was cut.
    pub fn parse(data: &[u8]) -> Option<Self> {
        let (generation, list) = open(data)?;
        if list.is_empty() {
            return Some(Reservation { generation, held: None });
        }
        let descriptor = list.get(..DESCRIPTOR)?;
        let held = Held { key: Key::read(descriptor, 0)?, scope_and_type: descriptor[13] };
        Some(Reservation { generation, held: Some(held) })
    }

    /// The parameter data.
    pub fn bytes(&self) -> Vec<u8> {
        let Some(held) = self.held else { return close(self.generation, &[]) };
        let mut descriptor = [0; DESCRIPTOR];
        descriptor[..8].copy_from_slice(&held.key.bytes());
        descriptor[13] = held.scope_and_type;
        close(self.generation, &descriptor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_back() {
        let data = [0, 0, 0, 7, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0, 1, 0xFF, 0, 0, 0, 0, 0, 0, 2];
        let keys = Keys { generation: 7, keys: vec![Key(1), Key(0xFF00_0000_0000_0002)] };
        assert_eq!(keys.bytes(), data);
        assert_eq!(Keys::parse(&data), Some(keys));
        assert_eq!(Keys::default().bytes(), [0; 8]);
        let padded = [&data[..], &[0; 100]].concat();
        assert_eq!(Keys::parse(&padded).map(|keys| keys.keys.len()), Some(2));
    }

    #[test]
    fn cut_list_is_none_and_tells_what_it_needs() {
        let keys = Keys { generation: 7, keys: vec![Key(1); 5] }.bytes();
        for len in 0..keys.len() {
            assert_eq!(Keys::parse(&keys[..len]), None, "{len}");
            let needed = room_needed(&keys[..len]);
            assert_eq!(needed, (len >= 8).then_some(48), "{len}");
        }
        assert_eq!(Keys::parse(&[0, 0, 0, 7, 0, 0, 0, 4, 1, 2, 3, 4]), None, "half a key");
        assert_eq!(Keys::parse(&[0xFF; 64]), None);
    }

    #[test]
    fn reservation_is_read_back() {
        let held = Held::new(Key(0xAB), Type::ExclusiveAccessRegistrantsOnly);
        let reservation = Reservation { generation: 2, held: Some(held) };
        let data = [0, 0, 0, 2, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0xAB, 0, 0, 0, 0, 0, 0x06, 0, 0];
        assert_eq!(reservation.bytes(), data);
        assert_eq!(Reservation::parse(&data), Some(reservation));
        let none = Reservation { generation: 2, held: None };
        assert_eq!(none.bytes(), [0, 0, 0, 2, 0, 0, 0, 0]);
        assert_eq!(Reservation::parse(&none.bytes()), Some(none));
    }

    #[test]
    fn reservation_that_was_cut_is_none() {
        let held = Held::new(Key(1), Type::WriteExclusive);
        let data = Reservation { generation: 0, held: Some(held) }.bytes();
        for len in 0..data.len() {
            assert_eq!(Reservation::parse(&data[..len]), None, "{len}");
        }
        let mut short = data;
        short[7] = 8;
        assert_eq!(Reservation::parse(&short), None);
    }

    #[test]
    fn reservation_of_a_type_that_does_not_exist_is_passed_on() {
        let mut data =
            Reservation { generation: 3, held: Some(Held::new(Key(1), Type::WriteExclusive)) }
                .bytes();
        for scope_and_type in [0x00, 0x02, 0x09, 0x11] {
            data[21] = scope_and_type;
            let told = Reservation::parse(&data).unwrap();
            assert_eq!(told.held.map(|held| (held.key, held.kind())), Some((Key(1), None)));
            assert_eq!(told.bytes(), data);
        }
    }
}
