//! The LUN's face: the identity that the guest sees, made from what one path told and the same
//! over all of them.

use std::collections::BTreeMap;

use crate::scsi::capacity::Capacity;
use crate::scsi::designator::{self, Port, Wwid};
use crate::scsi::inquiry::{self, Standard, page};

/// The pages that are shown to a guest, where the array has them. Others could name a port.
pub const SHOWN_PAGES: [u8; 7] = [
    page::SUPPORTED,
    page::UNIT_SERIAL_NUMBER,
    page::DEVICE_IDENTIFICATION,
    page::EXTENDED_INQUIRY,
    page::BLOCK_LIMITS,
    page::BLOCK_DEVICE_CHARACTERISTICS,
    page::LOGICAL_BLOCK_PROVISIONING,
];

/// PAGE LENGTH of the Block Limits page (SBC-4 6.6.4). Zeroes in it say nothing.
const BLOCK_LIMITS_LENGTH: usize = 0x3C;

/// What one path told about the logical unit behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Standard INQUIRY data.
    pub inquiry: Standard,
    /// Vital product data pages as they came, of [`SHOWN_PAGES`].
    pub pages: BTreeMap<u8, Vec<u8>>,
    /// Its size; `None` where the port's access state does not allow to ask.
    pub capacity: Option<Capacity>,
    /// Parameter data of REPORT SUPPORTED OPERATION CODES for all commands, if the array has it.
    pub operation_codes: Option<Vec<u8>>,
}

impl Facts {
    /// The logical unit's name.
    pub fn wwid(&self) -> Option<Wwid> {
        designator::wwid(self.pages.get(&page::DEVICE_IDENTIFICATION)?)
    }

    /// The unit serial number.
    pub fn serial(&self) -> Option<String> {
        inquiry::serial(self.pages.get(&page::UNIT_SERIAL_NUMBER)?)
    }

    /// The port that answered.
    pub fn port(&self) -> Port {
        self.pages
            .get(&page::DEVICE_IDENTIFICATION)
            .map(|page| designator::port(page))
            .unwrap_or_default()
    }

    /// MAXIMUM TRANSFER LENGTH in blocks, `None` without a limit.
    pub fn maximum_transfer(&self) -> Option<u32> {
        inquiry::maximum_transfer(self.pages.get(&page::BLOCK_LIMITS)?)
    }
}

/// The identity shown to the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Face {
    /// The logical unit's name.
    pub wwid: Wwid,
    /// The unit serial number, "" where the array has none.
    pub serial: String,
    /// The published size.
    pub capacity: Capacity,
    inquiry: Vec<u8>,
    vendor: (String, String, String),
    pages: BTreeMap<u8, Vec<u8>>,
    operation_codes: Option<Vec<u8>>,
}

impl Face {
    /// The face of the unit that `facts` tell of; `None` where they lack a name or a size.
    pub fn new(facts: &Facts) -> Option<Self> {
        let mut pages: BTreeMap<u8, Vec<u8>> = facts.pages.clone();
        pages.retain(|page, _| SHOWN_PAGES.contains(page));
        if let Some(page_83) = pages.get_mut(&page::DEVICE_IDENTIFICATION) {
            *page_83 = designator::for_guest(page_83);
        }
        list_pages(&mut pages);
        Some(Face {
            wwid: facts.wwid()?,
            serial: facts.serial().unwrap_or_default(),
            capacity: facts.capacity?,
            inquiry: facts.inquiry.for_guest(),
            vendor: (facts.inquiry.vendor(), facts.inquiry.product(), facts.inquiry.revision()),
            pages,
            operation_codes: facts.operation_codes.clone(),
        })
    }

    /// Lowers the transfer limits to those of one more path. Where the array has no page for them
    /// and a path has limits, the guest gets one all the same: it would send more than can be sent.
    pub fn limit_transfer(&mut self, blocks_max: Option<u32>) {
        if blocks_max.is_some() && !self.pages.contains_key(&page::BLOCK_LIMITS) {
            let nothing_said = inquiry::vpd_page(page::BLOCK_LIMITS, &[0; BLOCK_LIMITS_LENGTH]);
            self.pages.insert(page::BLOCK_LIMITS, nothing_said);
            list_pages(&mut self.pages);
        }
        if let Some(limits) = self.pages.get_mut(&page::BLOCK_LIMITS) {
            *limits = inquiry::limit_transfer(limits, blocks_max);
        }
    }

    /// Standard INQUIRY data for the guest.
    pub fn inquiry(&self) -> &[u8] {
        &self.inquiry
    }

    /// A vital product data page for the guest.
    pub fn page(&self, page: u8) -> Option<&[u8]> {
        self.pages.get(&page).map(Vec::as_slice)
    }

    /// The array's list of supported commands, if it has one.
    pub fn operation_codes(&self) -> Option<&[u8]> {
        self.operation_codes.as_deref()
    }

    /// Vendor, product and revision, for people.
    pub fn vendor(&self) -> (&str, &str, &str) {
        (&self.vendor.0, &self.vendor.1, &self.vendor.2)
    }
}

/// Makes the list of pages say which there are.
fn list_pages(pages: &mut BTreeMap<u8, Vec<u8>>) {
    pages.insert(page::SUPPORTED, Vec::new());
    let listed: Vec<u8> = pages.keys().copied().collect();
    pages.insert(page::SUPPORTED, inquiry::vpd_page(page::SUPPORTED, &listed));
}

/// Facts for tests in this and the neighbouring modules.
#[cfg(test)]
pub mod samples {
    use super::*;

    /// A unit of 8 MiB with a serial, an NAA name on port 1 of group 1, and block limits.
    pub fn facts() -> Facts {
        let mut standard = vec![0; 96];
        (standard[4], standard[5]) = (91, 0x10);
        standard[8..36].copy_from_slice(b"ACME    EMULATED DISK   1.0 ");
        let naa = [&[0x01, 0x03, 0, 16, 0x60], &[0x11; 15][..]].concat();
        let port = [0x01, 0x14, 0, 4, 0, 0, 0, 1, 0x01, 0x15, 0, 4, 0, 0, 0, 1];
        let mut capacity = [0; 32];
        capacity[0..8].copy_from_slice(&0x3FFFu64.to_be_bytes());
        capacity[8..12].copy_from_slice(&512u32.to_be_bytes());
        let page_83 = inquiry::vpd_page(0x83, &[&naa[..], &port].concat());
        Facts {
            inquiry: Standard::parse(&standard).unwrap(),
            pages: BTreeMap::from([
                (0x80, inquiry::vpd_page(0x80, b"serial-1")),
                (0x83, page_83),
                (0xB0, inquiry::vpd_page(0xB0, &[0; 60])),
            ]),
            capacity: Capacity::parse_16(&capacity),
            operation_codes: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn face_lists_exactly_the_pages_it_has() {
        let face = Face::new(&samples::facts()).unwrap();
        assert_eq!(face.page(0).unwrap(), [0, 0, 0, 4, 0x00, 0x80, 0x83, 0xB0]);
        assert_eq!(face.page(0xB1), None);
    }

    #[test]
    fn face_is_the_same_over_every_port() {
        let mut other = samples::facts();
        let page_83 = other.pages.get_mut(&0x83).unwrap();
        let last = page_83.len() - 1;
        page_83[last] = 9;
        assert_eq!(Face::new(&other), Face::new(&samples::facts()));
    }

    #[test]
    fn face_needs_a_name_and_a_size() {
        let mut nameless = samples::facts();
        nameless.pages.remove(&0x83);
        assert_eq!(Face::new(&nameless), None);
        let mut sizeless = samples::facts();
        sizeless.capacity = None;
        assert_eq!(Face::new(&sizeless), None);
    }

    #[test]
    fn limit_transfer_makes_the_page_that_the_array_lacks() {
        let mut facts = samples::facts();
        facts.pages.remove(&0xB0);
        let mut face = Face::new(&facts).unwrap();
        face.limit_transfer(None);
        assert_eq!(face.page(0xB0), None);
        face.limit_transfer(Some(1024));
        assert_eq!(inquiry::maximum_transfer(face.page(0xB0).unwrap()), Some(1024));
        assert_eq!(face.page(0).unwrap(), [0, 0, 0, 4, 0x00, 0x80, 0x83, 0xB0]);
    }

    #[test]
    fn limit_transfer_takes_the_smallest_of_all_paths() {
        let mut face = Face::new(&samples::facts()).unwrap();
        for limit in [Some(256), None, Some(64), Some(128)] {
            face.limit_transfer(limit);
        }
        assert_eq!(inquiry::maximum_transfer(face.page(0xB0).unwrap()), Some(64));
    }
}
