//! TransportIDs (SPC-5 7.6.4): how an initiator port is named in parameter data.

use std::fmt;

/// Bytes of every TransportID except iSCSI's, which is as long as its name.
const FIXED: usize = 24;
/// ADDITIONAL LENGTH of an iSCSI TransportID at least (SPC-5 7.6.4.6).
const ISCSI_ADDITIONAL_MIN: usize = 20;
/// Bytes of an iSCSI name at most (RFC 7143 4.2.7.1).
const ISCSI_NAME_MAX: usize = 223;
/// What stands between name and ISID.
const ISID_SEPARATOR: &str = ",i,0x";

/// PROTOCOL IDENTIFIER (SPC-5 table 490).
mod protocol {
    pub const FIBRE_CHANNEL: u8 = 0x0;
    pub const SRP: u8 = 0x4;
    pub const ISCSI: u8 = 0x5;
    pub const SAS: u8 = 0x6;
}

/// FORMAT CODE of an iSCSI TransportID with an ISID.
const WITH_ISID: u8 = 0x40;

/// An initiator port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TransportId {
    /// Fibre Channel: the N_Port_Name.
    FibreChannel {
        /// N_PORT NAME.
        port_name: u64,
    },
    /// SRP over RDMA: the initiator port identifier.
    Srp {
        /// INITIATOR PORT IDENTIFIER.
        port: [u8; 16],
    },
    /// iSCSI: a device name, and with an ISID the port of one session.
    Iscsi {
        /// ISCSI NAME.
        name: String,
        /// The session's identifier; without one all ports of that device are meant.
        isid: Option<[u8; 6]>,
    },
    /// SAS: the SAS address.
    Sas {
        /// SAS ADDRESS.
        address: u64,
    },
    /// Any other protocol or format, as it came.
    Other([u8; FIXED]),
}

impl TransportId {
    /// The TransportID at the beginning of `bytes`, and its length. `None` where it is cut, or is
    /// iSCSI's with a name that is none.
    pub fn parse(bytes: &[u8]) -> Option<(Self, usize)> {
        if bytes.first()? & 0x0F == protocol::ISCSI {
            return parse_iscsi(bytes);
        }
        let fixed: &[u8; FIXED] = bytes.first_chunk()?;
        let eight = |at: usize| fixed[at..at + 8].try_into().map(u64::from_be_bytes).ok();
        // The first byte with its format code: another format is another layout.
        let id = match fixed[0] {
            protocol::FIBRE_CHANNEL => TransportId::FibreChannel { port_name: eight(8)? },
            protocol::SRP => TransportId::Srp { port: *fixed.last_chunk()? },
            protocol::SAS => TransportId::Sas { address: eight(4)? },
            _ => TransportId::Other(*fixed),
        };
        Some((id, FIXED))
    }

    /// The bytes. An iSCSI name that is too long is cut.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; FIXED];
        match self {
            TransportId::FibreChannel { port_name } => {
                bytes[8..16].copy_from_slice(&port_name.to_be_bytes());
            }
            TransportId::Srp { port } => {
                bytes[0] = protocol::SRP;
                bytes[8..].copy_from_slice(port);
            }
            TransportId::Sas { address } => {
                bytes[0] = protocol::SAS;
                bytes[4..12].copy_from_slice(&address.to_be_bytes());
            }
            TransportId::Iscsi { name, isid } => return iscsi_bytes(name, *isid),
            TransportId::Other(other) => bytes.copy_from_slice(other),
        }
        bytes
    }
}

fn parse_iscsi(bytes: &[u8]) -> Option<(TransportId, usize)> {
    let additional = usize::from(u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?]));
    if additional < ISCSI_ADDITIONAL_MIN || !additional.is_multiple_of(4) {
        return None;
    }
    let field = bytes.get(4..4 + additional)?;
    let end = field.iter().position(|byte| *byte == 0)?;
    let text = std::str::from_utf8(&field[..end]).ok()?;
    let (name, isid) = match bytes[0] & 0xC0 {
        0 => (text, None),
        WITH_ISID => {
            let (name, digits) = text.split_once(ISID_SEPARATOR)?;
            (name, Some(parse_isid(digits)?))
        }
        _ => return None,
    };
    if name.is_empty() || name.len() > ISCSI_NAME_MAX {
        return None;
    }
    Some((TransportId::Iscsi { name: name.to_owned(), isid }, 4 + additional))
}

fn parse_isid(digits: &str) -> Option<[u8; 6]> {
    if digits.len() != 12 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    let number = u64::from_str_radix(digits, 16).ok()?;
    number.to_be_bytes().last_chunk().copied()
}

fn iscsi_bytes(name: &str, isid: Option<[u8; 6]>) -> Vec<u8> {
    let mut end = name.len().min(ISCSI_NAME_MAX);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    let mut text = name[..end].to_owned();
    if let Some(isid) = isid {
        text += ISID_SEPARATOR;
        text.extend(isid.iter().map(|byte| format!("{byte:02x}")));
    }
    // At least one zero ends the name, and the field is a multiple of four bytes long.
    let additional = (text.len() + 1).next_multiple_of(4).max(ISCSI_ADDITIONAL_MIN);
    let format = if isid.is_some() { WITH_ISID } else { 0 };
    let mut bytes = vec![format | protocol::ISCSI, 0];
    bytes.extend_from_slice(&(additional as u16).to_be_bytes());
    bytes.extend_from_slice(text.as_bytes());
    bytes.resize(4 + additional, 0);
    bytes
}

/// As storage admins write it: a world wide name, an iSCSI name with its ISID, else the bytes.
impl fmt::Display for TransportId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex = |f: &mut fmt::Formatter<'_>, bytes: &[u8]| {
            bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
        };
        match self {
            TransportId::FibreChannel { port_name } => write!(f, "fc:{port_name:016x}"),
            TransportId::Sas { address } => write!(f, "sas:{address:016x}"),
            TransportId::Srp { port } => {
                f.write_str("srp:")?;
                hex(f, port)
            }
            TransportId::Iscsi { name, isid } => {
                f.write_str(name)?;
                let Some(isid) = isid else { return Ok(()) };
                f.write_str(ISID_SEPARATOR)?;
                hex(f, isid)
            }
            TransportId::Other(bytes) => hex(f, bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_back(id: &TransportId, bytes: &[u8]) {
        assert_eq!(id.bytes(), bytes);
        let followed = [bytes, &[0xEE; 9]].concat();
        assert_eq!(TransportId::parse(&followed), Some((id.clone(), bytes.len())));
        for len in 0..bytes.len() {
            assert_eq!(TransportId::parse(&bytes[..len]), None, "{len}");
        }
    }

    #[test]
    #[rustfmt::skip]
    fn fixed_ids_are_read_back() {
        read_back(&TransportId::FibreChannel { port_name: 0x2100_0024_FF01_0203 }, &[
            0, 0, 0, 0, 0, 0, 0, 0, 0x21, 0, 0, 0x24, 0xFF, 1, 2, 3, 0, 0, 0, 0, 0, 0, 0, 0,
        ]);
        read_back(&TransportId::Sas { address: 0x5000_C500_0102_0304 }, &[
            6, 0, 0, 0, 0x50, 0, 0xC5, 0, 1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        ]);
        let port = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16];
        read_back(&TransportId::Srp { port }, &[
            4, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16,
        ]);
    }

    #[test]
    fn unknown_protocols_are_kept_as_they_are() {
        for first in [0x01, 0x03, 0x0A, 0x0F, 0x46, 0x80] {
            let mut bytes = [0xA5; 24];
            bytes[0] = first;
            read_back(&TransportId::Other(bytes), &bytes);
        }
    }

    #[test]
    fn iscsi_ids_are_as_long_as_their_name() {
        let name = "iqn.1993-08.org.debian:01:ab".to_owned();
        let bytes = [&[0x05, 0, 0, 32][..], name.as_bytes(), &[0; 4]].concat();
        read_back(&TransportId::Iscsi { name: name.clone(), isid: None }, &bytes);
        let isid = Some([0x80, 0x12, 0x34, 0, 0, 0x0F]);
        let text = b"iqn.1993-08.org.debian:01:ab,i,0x80123400000f\0\0\0";
        let bytes = [&[0x45, 0, 0, 48][..], text].concat();
        read_back(&TransportId::Iscsi { name, isid }, &bytes);
        let short = TransportId::Iscsi { name: "iqn.x".to_owned(), isid: None };
        assert_eq!(short.bytes()[..10], *b"\x05\0\0\x14iqn.x\0");
        assert_eq!(short.bytes().len(), 24);
    }

    #[test]
    fn iscsi_ids_without_a_name_are_none() {
        let id = |first: u8, additional: u8, text: &[u8]| {
            let mut bytes = vec![first, 0, 0, additional];
            bytes.extend_from_slice(text);
            bytes.resize(4 + usize::from(additional), 0);
            TransportId::parse(&bytes).map(|(_, len)| len)
        };
        assert_eq!(id(0x05, 20, b"iqn.x"), Some(24));
        assert_eq!(id(0x05, 16, b"iqn.x"), None, "too short");
        assert_eq!(id(0x05, 21, b"iqn.x"), None, "no multiple of four");
        assert_eq!(id(0x05, 20, b""), None);
        assert_eq!(id(0x05, 20, &[b'a'; 20]), None, "no zero ends it");
        assert_eq!(id(0x05, 20, b"iqn.\xFF"), None, "not UTF-8");
        assert_eq!(id(0x05, 228, &[b'a'; 224]), None, "too long for a name");
        assert_eq!(id(0x05, 228, &[b'a'; 223]), Some(232));
        assert_eq!(id(0x45, 24, b"iqn.x,i,0x80123400000f"), Some(28));
        assert_eq!(id(0x45, 24, b"iqn.x,i,0x80123400000"), None);
        assert_eq!(id(0x45, 24, b"iqn.x,i,0x+0123400000f"), None);
        assert_eq!(id(0x45, 24, b"iqn.x"), None);
        assert_eq!(id(0x85, 20, b"iqn.x"), None, "no such format");
    }

    #[test]
    fn iscsi_name_that_is_too_long_is_cut() {
        let name = "ä".repeat(200);
        let id = TransportId::Iscsi { name, isid: None };
        let (parsed, len) = TransportId::parse(&id.bytes()).unwrap();
        assert_eq!((parsed, len), (TransportId::Iscsi { name: "ä".repeat(111), isid: None }, 228));
    }

    #[test]
    fn display_is_what_admins_write() {
        let isid = Some([0x80, 0, 0, 0, 0, 1]);
        let id = TransportId::Iscsi { name: "iqn.x".to_owned(), isid };
        assert_eq!(id.to_string(), "iqn.x,i,0x800000000001");
        assert_eq!(TransportId::Sas { address: 0x5 }.to_string(), "sas:0000000000000005");
    }
}
