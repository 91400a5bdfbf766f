//! REPORT CAPABILITIES (SPC-5 6.16.4).

use super::Type;

/// Bytes of the parameter data.
const LENGTH: usize = 8;

/// A set of types: PERSISTENT RESERVATION TYPE MASK, each type at the bit of its code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TypeMask(u16);

impl TypeMask {
    /// The set of `types`.
    pub fn of(types: &[Type]) -> Self {
        TypeMask(types.iter().fold(0, |mask, kind| mask | 1 << kind.code()))
    }

    /// True for a type that is in the set.
    pub fn contains(self, kind: Type) -> bool {
        self.0 >> kind.code() & 1 != 0
    }
}

/// What a device server can do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// RLR_C: REPLACE LOST RESERVATION.
    pub replace_lost_reservation: bool,
    /// CRH: RESERVE and RELEASE of holders and registrants are taken and do nothing.
    pub compatible_handling: bool,
    /// SIP_C: SPEC_I_PT.
    pub initiator_ports: bool,
    /// ATP_C: ALL_TG_PT.
    pub all_target_ports: bool,
    /// PTPL_C: APTPL.
    pub persist: bool,
    /// PTPL_A: APTPL is in force.
    pub persist_active: bool,
    /// ALLOW COMMANDS (SPC-5 table 163): what is known of some commands under a reservation.
    pub allow_commands: u8,
    /// The types there are; `None` where the device server does not tell (TMV is zero).
    pub types: Option<TypeMask>,
}

impl Capabilities {
    /// Reads the parameter data; `None` where it is cut.
    pub fn parse(data: &[u8]) -> Option<Self> {
        let data: &[u8; LENGTH] = data.first_chunk()?;
        if usize::from(u16::from_be_bytes([data[0], data[1]])) < LENGTH {
            return None;
        }
        let bit = |byte: usize, bit: u8| data[byte] >> bit & 1 != 0;
        Some(Capabilities {
            replace_lost_reservation: bit(2, 7),
            compatible_handling: bit(2, 4),
            initiator_ports: bit(2, 3),
            all_target_ports: bit(2, 2),
            persist: bit(2, 0),
            persist_active: bit(3, 0),
            allow_commands: data[3] >> 4 & 0x07,
            types: bit(3, 7).then_some(TypeMask(u16::from_le_bytes([data[4], data[5]]))),
        })
    }

    /// The parameter data.
    pub fn bytes(&self) -> [u8; LENGTH] {
        let bit = |set: bool, bit: u8| u8::from(set) << bit;
        let [low, high] = self.types.unwrap_or_default().0.to_le_bytes();
        let can = bit(self.replace_lost_reservation, 7)
            | bit(self.compatible_handling, 4)
            | bit(self.initiator_ports, 3)
            | bit(self.all_target_ports, 2)
            | bit(self.persist, 0);
        let does = bit(self.types.is_some(), 7)
            | (self.allow_commands & 0x07) << 4
            | bit(self.persist_active, 0);
        [0, LENGTH as u8, can, does, low, high, 0, 0]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_read_back() {
        let data = [0, 8, 0x11, 0xB1, 0xEA, 0x01, 0, 0];
        let capabilities = Capabilities {
            compatible_handling: true,
            persist: true,
            persist_active: true,
            allow_commands: 3,
            types: Some(TypeMask::of(&Type::ALL)),
            ..Capabilities::default()
        };
        assert_eq!(capabilities.bytes(), data);
        assert_eq!(Capabilities::parse(&data), Some(capabilities));
    }

    #[test]
    fn each_flag_has_its_bit() {
        let [rlr, sip, atp] = [0x80, 0x08, 0x04]
            .map(|byte| Capabilities::parse(&[0, 8, byte, 0, 0xFF, 0xFF, 0, 0]).unwrap());
        assert!(rlr.replace_lost_reservation && !rlr.initiator_ports && !rlr.all_target_ports);
        assert!(sip.initiator_ports && !sip.all_target_ports && !sip.persist);
        assert!(atp.all_target_ports && !atp.initiator_ports && !atp.compatible_handling);
        assert_eq!(rlr.types, None, "without TMV the mask says nothing");
        assert_eq!(atp.bytes(), [0, 8, 0x04, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn type_mask_has_the_standards_bits() {
        let bits = Type::ALL.map(|kind| TypeMask::of(&[kind]).0.to_le_bytes());
        assert_eq!(bits, [[0x02, 0], [0x08, 0], [0x20, 0], [0x40, 0], [0x80, 0], [0, 0x01]]);
        let mask = TypeMask::of(&[Type::WriteExclusive, Type::ExclusiveAccessAllRegistrants]);
        assert_eq!(
            Type::ALL.map(|kind| mask.contains(kind)),
            [true, false, false, false, false, true]
        );
    }

    #[test]
    fn short_data_is_none() {
        for len in 0..8 {
            assert_eq!(Capabilities::parse(&vec![8; len]), None);
        }
        assert_eq!(Capabilities::parse(&[0, 7, 0, 0, 0, 0, 0, 0]), None);
    }
}
