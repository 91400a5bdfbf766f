//! READ FULL STATUS (SPC-5 6.16.5): each registration with the nexus that it belongs to.

use super::list::{close, open};
use super::{Key, TransportId, Type, scope_and_type, type_in};

/// Bytes of a descriptor in front of its TransportID.
const DESCRIPTOR: usize = 24;
const ALL_TG_PT: u8 = 0x02;
const R_HOLDER: u8 = 0x01;

/// What READ FULL STATUS tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FullStatus {
    /// PRGENERATION.
    pub generation: u32,
    /// Every registration.
    pub registrants: Vec<Registrant>,
}

/// A registration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registrant {
    /// Its key.
    pub key: Key,
    /// R_HOLDER, with the type: this nexus holds the reservation.
    pub holds: Option<Type>,
    /// RELATIVE TARGET PORT IDENTIFIER; `None` with ALL_TG_PT: it is for all target ports.
    pub target_port: Option<u16>,
    /// The initiator port.
    pub initiator_port: TransportId,
}

impl FullStatus {
    /// Reads the parameter data, all descriptors or nothing.
    pub fn parse(data: &[u8]) -> Option<Self> {
        let (generation, mut list) = open(data)?;
        let mut registrants = Vec::new();
        while !list.is_empty() {
            let (registrant, len) = Registrant::parse(list)?;
            registrants.push(registrant);
            list = &list[len..];
        }
        Some(FullStatus { generation, registrants })
    }

    /// The parameter data.
    pub fn bytes(&self) -> Vec<u8> {
        let list: Vec<u8> = self.registrants.iter().flat_map(Registrant::bytes).collect();
        close(self.generation, &list)
    }
}

impl Registrant {
    /// The descriptor at the beginning of `list`, and its length.
    fn parse(list: &[u8]) -> Option<(Self, usize)> {
        let (fixed, rest) = list.split_first_chunk::<DESCRIPTOR>()?;
        let length = u32::from_be_bytes([fixed[20], fixed[21], fixed[22], fixed[23]]) as usize;
        // What follows a TransportID inside its descriptor is for later standards.
        let (initiator_port, _) = TransportId::parse(rest.get(..length)?)?;
        let holds = match fixed[12] & R_HOLDER != 0 {
            true => Some(type_in(fixed[13])?),
            false => None,
        };
        let target_port = u16::from_be_bytes([fixed[18], fixed[19]]);
        let registrant = Registrant {
            key: Key::read(fixed, 0)?,
            holds,
            target_port: (fixed[12] & ALL_TG_PT == 0).then_some(target_port),
            initiator_port,
        };
        Some((registrant, DESCRIPTOR + length))
    }

    fn bytes(&self) -> Vec<u8> {
        let id = self.initiator_port.bytes();
        let mut descriptor = vec![0; DESCRIPTOR];
        descriptor[..8].copy_from_slice(&self.key.bytes());
        if let Some(kind) = self.holds {
            descriptor[12] |= R_HOLDER;
            descriptor[13] = scope_and_type(kind);
        }
        match self.target_port {
            Some(port) => descriptor[18..20].copy_from_slice(&port.to_be_bytes()),
            None => descriptor[12] |= ALL_TG_PT,
        }
        descriptor[20..].copy_from_slice(&(id.len() as u32).to_be_bytes());
        descriptor.extend_from_slice(&id);
        descriptor
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status() -> FullStatus {
        let holder = Registrant {
            key: Key(0x11),
            holds: Some(Type::WriteExclusiveRegistrantsOnly),
            target_port: Some(2),
            initiator_port: TransportId::Sas { address: 0x5000_C500_0000_0001 },
        };
        let name = "iqn.2001-04.com.example:a".to_owned();
        let other = Registrant {
            key: Key(0x22),
            holds: None,
            target_port: None,
            initiator_port: TransportId::Iscsi { name, isid: None },
        };
        FullStatus { generation: 3, registrants: vec![holder, other] }
    }

    #[test]
    fn full_status_is_read_back() {
        let data = status().bytes();
        #[rustfmt::skip]
        let holder = [
            0, 0, 0, 3, 0, 0, 0, 104,
            0, 0, 0, 0, 0, 0, 0, 0x11, 0, 0, 0, 0, 0x01, 0x05, 0, 0, 0, 0, 0, 2, 0, 0, 0, 24,
            0x06, 0, 0, 0, 0x50, 0, 0xC5, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        ];
        assert_eq!(data[..56], holder);
        #[rustfmt::skip]
        let other = [
            0, 0, 0, 0, 0, 0, 0, 0x22, 0, 0, 0, 0, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32,
            0x05, 0, 0, 28,
        ];
        assert_eq!(data[56..84], other);
        assert_eq!(data[84..], *b"iqn.2001-04.com.example:a\0\0\0");
        assert_eq!(FullStatus::parse(&data), Some(status()));
    }

    #[test]
    fn cut_or_wrong_data_is_none() {
        let data = status().bytes();
        for len in 0..data.len() {
            assert_eq!(FullStatus::parse(&data[..len]), None, "{len}");
        }
        for (at, value) in [(7, 103), (21, 0x02), (21, 0x15), (28, 0xFF), (31, 20), (31, 255)] {
            let mut wrong = data.clone();
            wrong[at] = value;
            assert_eq!(FullStatus::parse(&wrong), None, "byte {at}");
        }
        assert_eq!(FullStatus::parse(&[0xFF; 200]), None);
    }

    #[test]
    fn any_byte_may_be_wrong() {
        let data = status().bytes();
        for at in 0..data.len() {
            for value in [0, 1, 0x7F, 0xFF] {
                let mut wrong = data.clone();
                wrong[at] = value;
                let _ = FullStatus::parse(&wrong);
            }
        }
    }
}
