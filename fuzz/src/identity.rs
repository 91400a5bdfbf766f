//! Who an array says that it is.

use std::collections::BTreeMap;

use vhost_user_scsi_mpath::lun::face::SHOWN_PAGES;
use vhost_user_scsi_mpath::lun::{Face, Facts};
use vhost_user_scsi_mpath::multipath::admission::{Admission, judge};
use vhost_user_scsi_mpath::scsi::alua;
use vhost_user_scsi_mpath::scsi::capacity::Capacity;
use vhost_user_scsi_mpath::scsi::designator;
use vhost_user_scsi_mpath::scsi::inquiry::{self, Standard};

use super::Bytes;

/// INQUIRY data, then READ CAPACITY data, then pages, each with its length before it.
pub fn identity(data: &[u8]) {
    let mut bytes = Bytes::new(data);
    let inquiry = Standard::parse(bytes.piece());
    if let Some(standard) = &inquiry {
        let shown = Standard::parse(&standard.for_guest()).expect("what is shown can be read");
        assert_eq!(shown.tpgs(), 0, "the guest sees one port");
        assert_eq!(shown.for_guest(), standard.for_guest(), "and sees it again");
        let texts = [shown.vendor(), shown.product(), shown.revision()];
        assert_eq!(texts, [standard.vendor(), standard.product(), standard.revision()]);
    }
    let raw = bytes.piece();
    let capacity = Capacity::parse_16(raw).or_else(|| Capacity::parse_10(raw));
    if let Some(capacity) = capacity {
        assert!(capacity.blocks > 0 && capacity.block_size.is_power_of_two());
        // A path is read a block of, before it is used.
        assert!((256..=64 << 10).contains(&capacity.block_size), "{capacity:?}");
        let shown = Capacity::parse_16(&capacity.encode_16()).expect("what is shown can be read");
        assert_eq!((shown.blocks, shown.block_size), (capacity.blocks, capacity.block_size));
        assert_eq!(Capacity::parse_16(&shown.encode_16()), Some(shown));
    }
    let mut pages = BTreeMap::new();
    while !bytes.is_empty() {
        let code = SHOWN_PAGES[usize::from(bytes.u8()) % SHOWN_PAGES.len()];
        // As a probe keeps them: up to PAGE LENGTH.
        let page = bytes.piece();
        if let Some(content) = inquiry::vpd_content(code, page) {
            pages.insert(code, page[..4 + content.len()].to_vec());
        }
        let _ = (inquiry::serial(page), inquiry::maximum_transfer(page));
        for limit in [None, Some(0), Some(1), Some(u32::MAX)] {
            assert_eq!(inquiry::limit_transfer(page, limit).len(), page.len());
        }
        name(page);
    }
    let Some(inquiry) = inquiry else { return };
    let facts = Facts { inquiry, pages, capacity, operation_codes: None };
    let Some(mut face) = Face::new(&facts) else { return };
    assert_eq!(judge(&facts, None, None), Admission::Admitted);
    assert_eq!(judge(&facts, None, Some(&face)), Admission::Admitted, "it is what it was");
    face.limit_transfer(Some(64));
    let listed = face.page(0).expect("there is always a list")[4..].to_vec();
    assert!(SHOWN_PAGES.iter().all(|code| listed.contains(code) == face.page(*code).is_some()));
    let limits = face.page(0xB0).expect("a path has a limit");
    assert!(inquiry::maximum_transfer(limits).is_none_or(|blocks| blocks <= 64));
}

/// The guest's page names the same unit, and no port.
fn name(page: &[u8]) {
    let shown = designator::for_guest(page);
    let wwid = designator::wwid(page);
    assert_eq!(designator::wwid(&shown), wwid);
    assert_eq!(designator::port(&shown), designator::Port::default());
    assert_eq!(designator::for_guest(&shown), shown);
    if let Some(wwid) = wwid {
        assert!(wwid.is_named(&wwid.sysfs()) && wwid.is_named(&wwid.multipath()));
        let printable = |text: &str| text.bytes().all(|byte| (0x20..0x7F).contains(&byte));
        assert!(printable(&wwid.sysfs()) && printable(&wwid.multipath()), "{wwid}");
        let name = wwid.sysfs();
        let said = name.strip_prefix("t10.").unwrap_or(&name);
        let digits = said.strip_prefix("naa.").or_else(|| said.strip_prefix("eui."));
        let is_blank = digits.unwrap_or(said).bytes().all(|byte| byte == b' ' || byte == b'0');
        assert!(!is_blank || digits.is_none() && !said.is_empty(), "it says nothing: {name}");
    }
}

/// REPORT TARGET PORT GROUPS data.
pub fn groups(data: &[u8]) {
    let Some(report) = alua::parse_groups(data) else {
        assert!(data.len() < 4);
        return;
    };
    let ports: usize = report.groups.iter().map(|group| 2 + group.ports.len()).sum();
    assert!(4 + 4 * ports <= data.len().max(4), "more than there are bytes for");
    for group in &report.groups {
        let found = report.group_of(Some(group.id), None).expect("it is listed");
        assert_eq!(found.id, group.id);
        assert_eq!(alua::AccessState::from_low_nibble(group.state.code()), group.state);
        for port in &group.ports {
            assert!(report.group_of(None, Some(*port)).is_some());
        }
    }
}
