//! Standard INQUIRY data and vital product data pages (SPC-5 6.6 and 7.7; SBC-4 6.6).

/// Page codes.
pub mod page {
    /// Supported VPD Pages.
    pub const SUPPORTED: u8 = 0x00;
    /// Unit Serial Number.
    pub const UNIT_SERIAL_NUMBER: u8 = 0x80;
    /// Device Identification.
    pub const DEVICE_IDENTIFICATION: u8 = 0x83;
    /// Extended INQUIRY Data.
    pub const EXTENDED_INQUIRY: u8 = 0x86;
    /// Block Limits.
    pub const BLOCK_LIMITS: u8 = 0xB0;
    /// Block Device Characteristics.
    pub const BLOCK_DEVICE_CHARACTERISTICS: u8 = 0xB1;
    /// Logical Block Provisioning.
    pub const LOGICAL_BLOCK_PROVISIONING: u8 = 0xB2;
}

/// The fewest bytes of standard INQUIRY data that say everything read here.
pub const STANDARD_MIN: usize = 36;

/// Standard INQUIRY data as an array sent it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standard {
    bytes: Vec<u8>,
}

impl Standard {
    /// Takes the data if it is long enough, by its own word too: what did not come is zeroes, where
    /// an array does not say how much came. What is behind ADDITIONAL LENGTH is cut off.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let told = usize::from(*bytes.get(4)?) + 5;
        let len = told.min(bytes.len());
        (len >= STANDARD_MIN).then(|| Standard { bytes: bytes[..len].to_vec() })
    }

    /// PERIPHERAL QUALIFIER: 0 when a logical unit is there.
    pub fn qualifier(&self) -> u8 {
        self.bytes[0] >> 5
    }

    /// PERIPHERAL DEVICE TYPE: 0 for a block device.
    pub fn device_type(&self) -> u8 {
        self.bytes[0] & 0x1F
    }

    /// TPGS: bit 0 implicit, bit 1 explicit asymmetric access (SPC-5 table 157).
    pub fn tpgs(&self) -> u8 {
        self.bytes[5] >> 4 & 0x3
    }

    /// T10 VENDOR IDENTIFICATION without its padding.
    pub fn vendor(&self) -> String {
        text(&self.bytes[8..16])
    }

    /// PRODUCT IDENTIFICATION without its padding.
    pub fn product(&self) -> String {
        text(&self.bytes[16..32])
    }

    /// PRODUCT REVISION LEVEL without its padding.
    pub fn revision(&self) -> String {
        text(&self.bytes[32..36])
    }

    /// The data as a guest may see it: one port, no asymmetric access, no protection information
    /// (virtio-scsi carries it only with T10_PI), whatever the array has.
    pub fn for_guest(&self) -> Vec<u8> {
        const TPGS: u8 = 0x30;
        const PROTECT: u8 = 0x01;
        const MULTIP: u8 = 0x10;
        let mut bytes = self.bytes.clone();
        bytes[5] &= !(TPGS | PROTECT);
        bytes[6] &= !MULTIP;
        bytes[4] = (bytes.len() - 5) as u8;
        bytes
    }
}

/// Printable ASCII without padding; other bytes become `?`, so that a name is always safe to show.
pub fn text(field: &[u8]) -> String {
    let readable = |byte: &u8| match *byte {
        0 => ' ',
        byte if (0x20..0x7F).contains(&byte) => char::from(byte),
        _ => '?',
    };
    field.iter().map(readable).collect::<String>().trim().to_owned()
}

/// The content of a vital product data page: behind the header, as long as PAGE LENGTH says and as
/// there are bytes. `None` when the header is cut or names another page.
pub fn vpd_content(page: u8, bytes: &[u8]) -> Option<&[u8]> {
    if bytes.len() < 4 || bytes[1] != page {
        return None;
    }
    let told = usize::from(u16::from_be_bytes([bytes[2], bytes[3]]));
    Some(&bytes[4..bytes.len().min(4 + told)])
}

/// A vital product data page of a block device with `content`.
pub fn vpd_page(page: u8, content: &[u8]) -> Vec<u8> {
    let len = content.len().min(usize::from(u16::MAX));
    let mut bytes = vec![0, page, 0, 0];
    bytes[2..4].copy_from_slice(&(len as u16).to_be_bytes());
    bytes.extend_from_slice(&content[..len]);
    bytes
}

/// The unit serial number (VPD 80h), if the page says one.
pub fn serial(bytes: &[u8]) -> Option<String> {
    let serial = text(vpd_content(page::UNIT_SERIAL_NUMBER, bytes)?);
    (!serial.is_empty()).then_some(serial)
}

/// Block Limits (VPD B0h) with MAXIMUM TRANSFER LENGTH, and what must not exceed it, lowered to
/// `blocks_max`. 0 in the page means no limit.
pub fn limit_transfer(block_limits: &[u8], blocks_max: Option<u32>) -> Vec<u8> {
    let mut bytes = block_limits.to_vec();
    let Some(blocks_max) = blocks_max else { return bytes };
    const MAXIMUM_TRANSFER_LENGTH: usize = 8;
    const OPTIMAL_TRANSFER_LENGTH: usize = 12;
    if bytes.len() < OPTIMAL_TRANSFER_LENGTH + 4 {
        return bytes;
    }
    let read = |bytes: &[u8], at: usize| {
        u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
    };
    let maximum = match read(&bytes, MAXIMUM_TRANSFER_LENGTH) {
        0 => blocks_max,
        old => old.min(blocks_max),
    };
    bytes[MAXIMUM_TRANSFER_LENGTH..][..4].copy_from_slice(&maximum.to_be_bytes());
    let optimal = read(&bytes, OPTIMAL_TRANSFER_LENGTH).min(maximum);
    bytes[OPTIMAL_TRANSFER_LENGTH..][..4].copy_from_slice(&optimal.to_be_bytes());
    bytes
}

/// MAXIMUM TRANSFER LENGTH in blocks of a Block Limits page; `None` without a limit.
pub fn maximum_transfer(block_limits: &[u8]) -> Option<u32> {
    let content = vpd_content(page::BLOCK_LIMITS, block_limits)?;
    let field: [u8; 4] = content.get(4..8)?.try_into().ok()?;
    Some(u32::from_be_bytes(field)).filter(|blocks| *blocks > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standard() -> Vec<u8> {
        let mut bytes = vec![0; 96];
        bytes[4] = 91;
        bytes[5] = 0x31;
        bytes[6] = 0x10;
        bytes[8..36].copy_from_slice(b"VENDOR  PRODUCT         1.0 ");
        bytes
    }

    #[test]
    fn standard_for_guest_hides_ports() {
        let inquiry = Standard::parse(&standard()).unwrap();
        assert_eq!(inquiry.tpgs(), 3);
        assert_eq!((inquiry.vendor(), inquiry.product()), ("VENDOR".into(), "PRODUCT".into()));
        let shown = Standard::parse(&inquiry.for_guest()).unwrap();
        assert_eq!(shown.tpgs(), 0);
        assert_eq!(shown.bytes[5] & 1, 0);
        assert_eq!(shown.bytes[6] & 0x10, 0);
    }

    #[test]
    fn standard_takes_any_bytes() {
        for len in 0..100 {
            let parsed = Standard::parse(&vec![0xFF; len]);
            assert_eq!(parsed.is_some(), len >= STANDARD_MIN);
            if let Some(parsed) = parsed {
                parsed.for_guest();
            }
        }
    }

    #[test]
    fn vpd_content_believes_the_bytes_not_the_length() {
        assert_eq!(vpd_content(0x80, &[0, 0x80, 0xFF, 0xFF, b'a']), Some(&b"a"[..]));
        assert_eq!(vpd_content(0x80, &[0, 0x83, 0, 1, b'a']), None);
        assert_eq!(vpd_content(0x80, &[0, 0x80, 0]), None);
    }

    #[test]
    fn limit_transfer_takes_the_smaller() {
        let page = vpd_page(page::BLOCK_LIMITS, &[0; 60]);
        assert_eq!(maximum_transfer(&page), None);
        let limited = limit_transfer(&page, Some(128));
        assert_eq!(maximum_transfer(&limited), Some(128));
        assert_eq!(maximum_transfer(&limit_transfer(&limited, Some(256))), Some(128));
        assert_eq!(limit_transfer(&[0, 0xB0, 0, 2, 0, 0], Some(1)), [0, 0xB0, 0, 2, 0, 0]);
    }
}
