//! Device Identification (VPD 83h; SPC-5 7.7.6), and the choice of the designator that names a
//! logical unit, made as multipath-tools makes it, so that the WWID here is the one that
//! `multipath -ll` and `/dev/disk/by-id` show.

use std::fmt;

use super::inquiry::{page, vpd_content, vpd_page};

/// DESIGNATOR TYPE values that can name a logical unit.
mod kind {
    pub const T10_VENDOR: u8 = 1;
    pub const EUI_64: u8 = 2;
    pub const NAA: u8 = 3;
    pub const SCSI_NAME: u8 = 8;
    pub const UUID: u8 = 0xA;
}

/// ASSOCIATION: what a designator names.
const LOGICAL_UNIT: u8 = 0;
const TARGET_PORT: u8 = 1;

/// One designator, borrowed from the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Designator<'a> {
    /// Header and value, as they stand in the page.
    raw: &'a [u8],
    association: u8,
    kind: u8,
    value: &'a [u8],
}

/// The name of a logical unit: world wide, the same over every path.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Wwid {
    kind: u8,
    value: Vec<u8>,
}

impl Wwid {
    /// As sysfs writes it (`/sys/block/sdX/device/wwid`): `naa.6001...`, `eui.0011...`, `t10.ACME`.
    pub fn sysfs(&self) -> String {
        match self.kind {
            kind::NAA => format!("naa.{}", hex(&self.value)),
            kind::EUI_64 => format!("eui.{}", hex(&self.value)),
            kind::T10_VENDOR => format!("t10.{}", super::inquiry::text(&self.value)),
            kind::UUID => format!("uuid.{}", hex(&self.value)),
            _ => super::inquiry::text(&self.value),
        }
    }

    /// As `multipath -ll` writes it: the designator's type as a digit, then the value.
    pub fn multipath(&self) -> String {
        match self.kind {
            kind::T10_VENDOR => {
                let text = super::inquiry::text(&self.value);
                format!("1{}", text.split_whitespace().collect::<Vec<_>>().join("_"))
            }
            kind::SCSI_NAME => {
                let text = super::inquiry::text(&self.value).to_lowercase();
                match (text.strip_prefix("eui."), text.strip_prefix("naa.")) {
                    (Some(value), _) => format!("2{value}"),
                    (_, Some(value)) => format!("3{value}"),
                    _ => format!("8{text}"),
                }
            }
            kind => format!("{kind:x}{}", hex(&self.value)),
        }
    }

    /// True when `text` is this name in either way of writing it.
    pub fn is_named(&self, text: &str) -> bool {
        text.eq_ignore_ascii_case(&self.sysfs()) || text.eq_ignore_ascii_case(&self.multipath())
    }
}

impl fmt::Display for Wwid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sysfs())
    }
}

impl fmt::Debug for Wwid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sysfs())
    }
}

/// What VPD 83h says of the port that answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Port {
    /// RELATIVE TARGET PORT IDENTIFIER (designator type 4).
    pub relative_port: Option<u16>,
    /// TARGET PORT GROUP (designator type 5).
    pub group: Option<u16>,
}

/// The logical unit's name: the best designator that the page has, `None` without any.
pub fn wwid(page_83: &[u8]) -> Option<Wwid> {
    designators(page_83)
        .filter(|designator| designator.association == LOGICAL_UNIT)
        .filter_map(|designator| Some((rank(&designator)?, designator)))
        // `max_by_key` takes the last of equals, multipath-tools the first.
        .fold(None::<(u8, Designator<'_>)>, |best, (rank, designator)| match best {
            Some((best_rank, _)) if best_rank >= rank => best,
            _ => Some((rank, designator)),
        })
        .map(|(_, designator)| Wwid { kind: designator.kind, value: trimmed(&designator) })
}

/// Relative port and group of the port that answered.
pub fn port(page_83: &[u8]) -> Port {
    let mut port = Port::default();
    for designator in designators(page_83).filter(|one| one.association == TARGET_PORT) {
        let number = match designator.value {
            [_, _, high, low, ..] => u16::from_be_bytes([*high, *low]),
            _ => continue,
        };
        match designator.kind {
            4 => port.relative_port = Some(number),
            5 => port.group = Some(number),
            _ => {}
        }
    }
    port
}

/// The page as a guest may see it: the logical unit's own designators, in their order, and none
/// of the port or the target device, since those change with the path.
pub fn for_guest(page_83: &[u8]) -> Vec<u8> {
    let mut content = Vec::new();
    for designator in designators(page_83).filter(|one| one.association == LOGICAL_UNIT) {
        content.extend_from_slice(designator.raw);
    }
    vpd_page(page::DEVICE_IDENTIFICATION, &content)
}

fn designators(page_83: &[u8]) -> impl Iterator<Item = Designator<'_>> {
    let mut rest = vpd_content(page::DEVICE_IDENTIFICATION, page_83).unwrap_or(&[]);
    std::iter::from_fn(move || {
        let header = rest.get(..4)?;
        let len = 4 + usize::from(header[3]);
        let raw = rest.get(..len)?;
        rest = &rest[len..];
        Some(Designator {
            raw,
            association: header[1] >> 4 & 0x3,
            kind: header[1] & 0xF,
            value: &raw[4..],
        })
    })
}

/// How good a designator is as a name, after multipath-tools; `None` for one that is none, whose
/// length is wrong for its type, or that is blank: two units that both say nothing are not one.
fn rank(designator: &Designator<'_>) -> Option<u8> {
    let len = designator.value.len();
    if is_blank(designator) {
        return None;
    }
    match designator.kind {
        kind::NAA => match (designator.value.first()? >> 4, len) {
            (6, 16) => Some(8),
            (5, 8) => Some(7),
            (2, 8) => Some(6),
            (3, 8) => Some(1),
            _ => None,
        },
        kind::EUI_64 => matches!(len, 8 | 12 | 16).then_some(4),
        kind::SCSI_NAME => {
            let text = super::inquiry::text(designator.value).to_lowercase();
            ["eui.", "naa.", "iqn."].iter().any(|prefix| text.starts_with(prefix)).then_some(3)
        }
        kind::T10_VENDOR => (len > 8).then_some(2),
        kind::UUID => (len == 18).then_some(2),
        _ => None,
    }
}

/// True where all that could tell one unit from another is zeroes or blanks.
fn is_blank(designator: &Designator<'_>) -> bool {
    let value = designator.value;
    match designator.kind {
        // Behind the number of the authority's format.
        kind::NAA => {
            value.first().is_none_or(|first| first & 0xF == 0)
                && value.iter().skip(1).all(|byte| *byte == 0)
        }
        kind::EUI_64 => value.iter().all(|byte| *byte == 0),
        // Behind the vendor, behind the prefix, behind the header.
        kind::T10_VENDOR => super::inquiry::text(value.get(8..).unwrap_or(&[])).is_empty(),
        kind::SCSI_NAME => {
            super::inquiry::text(value).get(4..).is_none_or(|text| text.trim().is_empty())
        }
        kind::UUID => value.iter().skip(2).all(|byte| *byte == 0),
        _ => false,
    }
}

/// The value without padding where its type is text. As it came otherwise: two names that cannot be
/// shown need not be one.
fn trimmed(designator: &Designator<'_>) -> Vec<u8> {
    let is_padding = |byte: &u8| matches!(byte, 0 | b' ');
    match designator.kind {
        kind::SCSI_NAME | kind::T10_VENDOR => {
            let value = designator.value;
            let from = value.iter().position(|byte| !is_padding(byte)).unwrap_or(value.len());
            let to = value.iter().rposition(|byte| !is_padding(byte)).map_or(from, |last| last + 1);
            value[from..to].to_vec()
        }
        kind::UUID => designator.value[2..].to_vec(),
        _ => designator.value.to_vec(),
    }
}

fn hex(bytes: &[u8]) -> String {
    use fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn designator(association: u8, kind: u8, value: &[u8]) -> Vec<u8> {
        let mut bytes = vec![1, association << 4 | kind, 0, value.len() as u8];
        bytes.extend_from_slice(value);
        bytes
    }

    fn page_of(designators: &[Vec<u8>]) -> Vec<u8> {
        vpd_page(page::DEVICE_IDENTIFICATION, &designators.concat())
    }

    const NAA_6: [u8; 16] = [
        0x60, 0x01, 0x40, 0x50, 0x52, 0x00, 0xA9, 0x86, 0xF0, 0x04, 0x3C, 0x9A, 0xFA, 0x1F, 0xD0,
        0x77,
    ];

    #[test]
    fn wwid_prefers_naa_6() {
        let page = page_of(&[
            designator(0, 1, b"LIO-ORG disk:1234"),
            designator(0, 3, &[0x50, 1, 2, 3, 4, 5, 6, 7]),
            designator(0, 3, &NAA_6),
        ]);
        let wwid = wwid(&page).unwrap();
        assert_eq!(wwid.sysfs(), "naa.600140505200a986f0043c9afa1fd077");
        assert_eq!(wwid.multipath(), "3600140505200a986f0043c9afa1fd077");
        assert!(wwid.is_named("3600140505200A986F0043C9AFA1FD077"));
    }

    #[test]
    fn wwid_of_a_unit_that_says_nothing_is_none() {
        for (kind, value) in [
            (1, &b"                "[..]),
            (1, b"ACME    \0\0\0\0"),
            (2, &[0; 8]),
            (3, &[0x60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
            (8, b"naa.\0\0\0\0"),
            (8, b"\0\0\0\0iqn.\0\0\0\0"),
            (10, &[0x10; 1]),
        ] {
            assert_eq!(wwid(&page_of(&[designator(0, kind, value)])), None, "{kind} {value:?}");
        }
        let mut last = [0; 16];
        (last[0], last[15]) = (0x60, 1);
        assert!(wwid(&page_of(&[designator(0, 3, &last)])).is_some());
        let blank = designator(0, 2, &[0; 8]);
        let named = wwid(&page_of(&[blank, designator(0, 1, b"ACME    7")])).unwrap();
        assert_eq!(named.multipath(), "1ACME_7", "the next best one counts");
    }

    #[test]
    fn wwids_that_look_the_same_need_not_be_one() {
        let named = |value| wwid(&page_of(&[designator(0, 1, value)])).unwrap();
        let (one, other) = (named(b"ACME    \x01\x02"), named(b"ACME    \x03\x04"));
        assert_eq!(one.sysfs(), other.sysfs());
        assert_ne!(one, other);
        assert_eq!(named(b"ACME    7 \0\0"), named(b"ACME    7"), "padding says nothing");
    }

    #[test]
    fn wwid_falls_back_in_order() {
        let t10 = designator(0, 1, b"ACME    disk 7  ");
        let name = designator(0, 8, b"iqn.2003-01.org.example:x\0\0\0");
        let eui = designator(0, 2, &[0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(wwid(&page_of(std::slice::from_ref(&t10))).unwrap().multipath(), "1ACME_disk_7");
        assert_eq!(
            wwid(&page_of(&[t10.clone(), name.clone()])).unwrap().sysfs(),
            "iqn.2003-01.org.example:x"
        );
        assert_eq!(wwid(&page_of(&[t10, name, eui])).unwrap().sysfs(), "eui.0001020304050607");
    }

    #[test]
    fn wwid_ignores_ports_and_wrong_lengths() {
        let page = page_of(&[designator(1, 3, &NAA_6), designator(0, 3, &NAA_6[..8])]);
        assert_eq!(wwid(&page), None);
    }

    #[test]
    fn port_reads_relative_port_and_group() {
        let page = page_of(&[designator(1, 4, &[0, 0, 0, 2]), designator(1, 5, &[0, 0, 1, 1])]);
        assert_eq!(port(&page), Port { relative_port: Some(2), group: Some(257) });
    }

    #[test]
    fn for_guest_keeps_only_the_logical_unit() {
        let unit = designator(0, 3, &NAA_6);
        let page = page_of(&[designator(1, 4, &[0, 0, 0, 2]), unit.clone()]);
        assert_eq!(for_guest(&page), page_of(&[unit]));
    }

    #[test]
    fn designators_take_any_bytes() {
        for len in 0..64 {
            for fill in [0, 1, 0x10, 0x83, 0xFF] {
                let mut page = vec![fill; len];
                if len > 3 {
                    (page[1], page[2], page[3]) = (0x83, 0, 0xFF);
                }
                let _ = (wwid(&page), port(&page), for_guest(&page));
            }
        }
    }
}
