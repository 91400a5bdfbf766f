//! The parameter lists of PERSISTENT RESERVE OUT (SPC-5 6.17.3 and 6.17.4).

use super::{Key, TransportId};

/// Bytes of the basic list.
pub const BASIC: usize = 24;
/// Where the flags stand in it.
pub const FLAGS: u16 = 20;
const SPEC_I_PT: u8 = 0x08;
const ALL_TG_PT: u8 = 0x04;
const APTPL: u8 = 0x01;
const UNREG: u8 = 0x02;

/// What is wrong with a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListError {
    /// PARAMETER LIST LENGTH ERROR: it is not as long as its fields say.
    Length,
    /// INVALID FIELD IN PARAMETER LIST, at this byte.
    Field(u16),
}

/// The list of every service action except REGISTER AND MOVE.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parameters {
    /// RESERVATION KEY: the one of the nexus that sends the command.
    pub key: Key,
    /// SERVICE ACTION RESERVATION KEY: the one to register or to preempt.
    pub action_key: Key,
    /// SPEC_I_PT with its list: the initiator ports to register as well.
    pub initiator_ports: Option<Vec<TransportId>>,
    /// ALL_TG_PT: the registration is for all target ports.
    pub all_target_ports: bool,
    /// APTPL: registrations and reservation are kept through a power loss.
    pub aptpl: bool,
}

impl Parameters {
    /// Reads the list, which is as long as PARAMETER LIST LENGTH says.
    pub fn parse(list: &[u8]) -> Result<Self, ListError> {
        let (basic, additional) = list.split_at_checked(BASIC).ok_or(ListError::Length)?;
        let flags = basic[usize::from(FLAGS)];
        let initiator_ports = match flags & SPEC_I_PT != 0 {
            false if !additional.is_empty() => return Err(ListError::Length),
            false => None,
            true => Some(initiator_ports(additional)?),
        };
        Ok(Parameters {
            key: Key::read(basic, 0).ok_or(ListError::Length)?,
            action_key: Key::read(basic, 8).ok_or(ListError::Length)?,
            initiator_ports,
            all_target_ports: flags & ALL_TG_PT != 0,
            aptpl: flags & APTPL != 0,
        })
    }

    /// The list.
    pub fn bytes(&self) -> Vec<u8> {
        let mut list = [self.key.bytes(), self.action_key.bytes(), [0; 8]].concat();
        let flag = |set: bool, flag: u8| if set { flag } else { 0 };
        list[usize::from(FLAGS)] = flag(self.initiator_ports.is_some(), SPEC_I_PT)
            | flag(self.all_target_ports, ALL_TG_PT)
            | flag(self.aptpl, APTPL);
        if let Some(ports) = &self.initiator_ports {
            let ids: Vec<u8> = ports.iter().flat_map(TransportId::bytes).collect();
            list.extend_from_slice(&(ids.len() as u32).to_be_bytes());
            list.extend_from_slice(&ids);
        }
        list
    }
}

/// TRANSPORTID PARAMETER DATA LENGTH and as many TransportIDs as fill it.
fn initiator_ports(additional: &[u8]) -> Result<Vec<TransportId>, ListError> {
    let (length, mut rest) = additional.split_first_chunk().ok_or(ListError::Length)?;
    if u32::from_be_bytes(*length) as usize != rest.len() {
        return Err(ListError::Length);
    }
    let mut ports = Vec::new();
    let mut at = BASIC + length.len();
    while !rest.is_empty() {
        let field = u16::try_from(at).unwrap_or(u16::MAX);
        let (port, len) = TransportId::parse(rest).ok_or(ListError::Field(field))?;
        ports.push(port);
        rest = &rest[len..];
        at += len;
    }
    Ok(ports)
}

/// The list of REGISTER AND MOVE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MoveParameters {
    /// RESERVATION KEY: the one of the nexus that sends the command.
    pub key: Key,
    /// SERVICE ACTION RESERVATION KEY: the one to register for the nexus that gets the
    /// reservation.
    pub action_key: Key,
    /// UNREG: the sender's registration ends.
    pub unregister: bool,
    /// APTPL, as in [`Parameters`].
    pub aptpl: bool,
    /// RELATIVE TARGET PORT IDENTIFIER of the nexus that gets the reservation.
    pub target_port: u16,
    /// Its initiator port.
    pub initiator_port: TransportId,
}

impl MoveParameters {
    /// Reads the list, which is as long as PARAMETER LIST LENGTH says.
    pub fn parse(list: &[u8]) -> Result<Self, ListError> {
        let (basic, id) = list.split_at_checked(BASIC).ok_or(ListError::Length)?;
        let told = u32::from_be_bytes([basic[20], basic[21], basic[22], basic[23]]);
        if told as usize != id.len() {
            return Err(ListError::Length);
        }
        let (initiator_port, len) = TransportId::parse(id).ok_or(ListError::Field(BASIC as u16))?;
        if len != id.len() {
            return Err(ListError::Field(BASIC as u16));
        }
        Ok(MoveParameters {
            key: Key::read(basic, 0).ok_or(ListError::Length)?,
            action_key: Key::read(basic, 8).ok_or(ListError::Length)?,
            unregister: basic[17] & UNREG != 0,
            aptpl: basic[17] & APTPL != 0,
            target_port: u16::from_be_bytes([basic[18], basic[19]]),
            initiator_port,
        })
    }

    /// The list.
    pub fn bytes(&self) -> Vec<u8> {
        let flag = |set: bool, flag: u8| if set { flag } else { 0 };
        let id = self.initiator_port.bytes();
        let mut list = [self.key.bytes(), self.action_key.bytes()].concat();
        list.extend_from_slice(&[0, flag(self.unregister, UNREG) | flag(self.aptpl, APTPL)]);
        list.extend_from_slice(&self.target_port.to_be_bytes());
        list.extend_from_slice(&(id.len() as u32).to_be_bytes());
        list.extend_from_slice(&id);
        list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[rustfmt::skip]
    const REGISTER: [u8; 24] = [
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xAB, 0xCD, 0xEF, 0x01,
        0, 0, 0, 0, 0x05, 0, 0, 0,
    ];

    fn sas(address: u64) -> TransportId {
        TransportId::Sas { address }
    }

    #[test]
    fn basic_list_is_read_back() {
        let parameters = Parameters {
            action_key: Key(0xABCD_EF01),
            all_target_ports: true,
            aptpl: true,
            ..Parameters::default()
        };
        assert_eq!(parameters.bytes(), REGISTER);
        assert_eq!(Parameters::parse(&REGISTER), Ok(parameters));
    }

    #[test]
    fn list_without_spec_i_pt_has_24_bytes() {
        for len in 0..40 {
            let parsed = Parameters::parse(&vec![0; len]);
            assert_eq!(parsed.is_ok(), len == 24, "{len}");
        }
    }

    #[test]
    fn initiator_ports_fill_what_their_length_says() {
        let parameters = Parameters {
            key: Key(1),
            initiator_ports: Some(vec![sas(0x5000_0000_0000_0001), sas(2)]),
            ..Parameters::default()
        };
        let list = parameters.bytes();
        assert_eq!((list.len(), &list[20..29]), (76, &[0x08, 0, 0, 0, 0, 0, 0, 48, 0x06][..]));
        assert_eq!(Parameters::parse(&list), Ok(parameters));
        assert_eq!(Parameters::parse(&list[..75]), Err(ListError::Length));
        assert_eq!(Parameters::parse(&list[..27]), Err(ListError::Length));
        let mut cut = list.clone();
        cut.truncate(75);
        cut[27] = 47;
        assert_eq!(Parameters::parse(&cut), Err(ListError::Field(52)));
        let mut endless = list;
        endless[24..28].fill(0xFF);
        assert_eq!(Parameters::parse(&endless), Err(ListError::Length));
    }

    #[test]
    fn move_list_is_read_back() {
        let parameters = MoveParameters {
            key: Key(1),
            action_key: Key(2),
            unregister: true,
            aptpl: false,
            target_port: 0x0102,
            initiator_port: sas(3),
        };
        let list = parameters.bytes();
        assert_eq!(list[15..25], [2, 0, 0x02, 1, 2, 0, 0, 0, 24, 0x06]);
        assert_eq!(MoveParameters::parse(&list), Ok(parameters));
        assert_eq!(MoveParameters::parse(&list[..47]), Err(ListError::Length));
        assert_eq!(MoveParameters::parse(&[0; 24]), Err(ListError::Field(24)));
        let mut two = list.clone();
        two.extend_from_slice(&list[24..]);
        two[23] = 48;
        assert_eq!(MoveParameters::parse(&two), Err(ListError::Field(24)));
    }

    #[test]
    fn any_list_is_survived() {
        for len in 0..80 {
            for fill in [0, 0x05, 0x08, 0xFF] {
                let _ = Parameters::parse(&vec![fill; len]);
                let _ = MoveParameters::parse(&vec![fill; len]);
            }
        }
    }
}
