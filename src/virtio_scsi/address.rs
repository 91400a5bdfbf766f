//! The 8-byte LUN field (virtio 1.3, 5.6.6.1): where a command is addressed to.

/// What a LUN field names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// `01 tt hh ll 0...`: a logical unit of a target, in peripheral or flat form. Both forms of
    /// one number are the same logical unit: Linux sends the flat form for LUN 0, Windows sends
    /// the other one in its resets.
    LogicalUnit {
        /// Target number.
        target: u8,
        /// Logical unit number, 14 bits.
        lun: u16,
    },
    /// `C1 01 0...`: the REPORT LUNS well-known logical unit.
    ReportLuns,
    /// `01 tt C1 01 0...`: the same, in its place within a target.
    ReportLunsOf {
        /// Target number.
        target: u8,
    },
    /// A first byte other than 1, or a form that virtio-scsi does not know.
    Unknown,
}

impl Address {
    /// Reads the field. Any bytes will do.
    pub fn parse(field: [u8; 8]) -> Self {
        if field == [0xC1, 0x01, 0, 0, 0, 0, 0, 0] {
            return Address::ReportLuns;
        }
        let [1, target, high, low, 0, 0, 0, 0] = field else { return Address::Unknown };
        match high >> 6 {
            0b00 | 0b01 => {
                Address::LogicalUnit { target, lun: u16::from_be_bytes([high, low]) & 0x3FFF }
            }
            _ if (high, low) == (0xC1, 0x01) => Address::ReportLunsOf { target },
            _ => Address::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_both_forms_of_lun_0_are_the_same() {
        let unit = Address::LogicalUnit { target: 0, lun: 0 };
        assert_eq!(Address::parse([1, 0, 0, 0, 0, 0, 0, 0]), unit);
        assert_eq!(Address::parse([1, 0, 0x40, 0, 0, 0, 0, 0]), unit);
    }

    #[test]
    fn parse_well_known_units() {
        assert_eq!(Address::parse([0xC1, 1, 0, 0, 0, 0, 0, 0]), Address::ReportLuns);
        let of = Address::ReportLunsOf { target: 3 };
        assert_eq!(Address::parse([1, 3, 0xC1, 1, 0, 0, 0, 0]), of);
    }

    #[test]
    fn parse_everything_else_is_unknown() {
        assert_eq!(Address::parse([0; 8]), Address::Unknown);
        assert_eq!(Address::parse([1, 0, 0x80, 0, 0, 0, 0, 0]), Address::Unknown);
        assert_eq!(Address::parse([1, 0, 0, 0, 1, 0, 0, 0]), Address::Unknown);
    }

    #[test]
    fn parse_keeps_14_bits_of_the_number() {
        let field = [1, 255, 0x7F, 0xFF, 0, 0, 0, 0];
        assert_eq!(Address::parse(field), Address::LogicalUnit { target: 255, lun: 0x3FFF });
    }
}
