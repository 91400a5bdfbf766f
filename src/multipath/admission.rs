//! Is it the same logical unit? What a path tells, compared with what the guest has been told.

use crate::lun::{Face, Facts};

/// The judgement on a path that answered all questions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It may be used.
    Admitted,
    /// It may be used up to the published size; the logical unit has grown to so many blocks.
    Grown(u64),
    /// It leads to another logical unit. In words.
    WrongLun(String),
    /// It is kept out, and may come back. In words.
    KeptOut(String),
}

/// Judges `facts` against the configured `wwid` and the published `face`.
pub fn judge(facts: &Facts, wanted: Option<&str>, face: Option<&Face>) -> Admission {
    let Some(wwid) = facts.wwid() else {
        return Admission::KeptOut("it has no name (VPD 83h names no logical unit)".into());
    };
    if let Some(wanted) = wanted
        && !wwid.is_named(wanted)
    {
        return Admission::WrongLun(format!("it is {wwid}, wanted is {wanted}"));
    }
    let Some(face) = face else {
        return match facts.capacity {
            Some(_) => Admission::Admitted,
            None => Admission::KeptOut("it does not tell its size in this access state".into()),
        };
    };
    if wwid != face.wwid {
        return Admission::WrongLun(format!("it is {wwid}, the LUN is {}", face.wwid));
    }
    if facts.serial().unwrap_or_default() != face.serial {
        // Targets exist that give one name to two logical units.
        let serial = facts.serial().unwrap_or_default();
        return Admission::WrongLun(format!(
            "it has the LUN's name and another serial number: \"{serial}\", not \"{}\"",
            face.serial
        ));
    }
    match facts.capacity {
        None => Admission::Admitted,
        Some(capacity) if capacity.block_size != face.capacity.block_size => {
            Admission::WrongLun(format!(
                "its blocks have {} bytes, the LUN's have {}",
                capacity.block_size, face.capacity.block_size
            ))
        }
        Some(capacity) if capacity.blocks < face.capacity.blocks => Admission::KeptOut(format!(
            "it has {} blocks, fewer than the {} that the guest was told of",
            capacity.blocks, face.capacity.blocks
        )),
        Some(capacity) if capacity.blocks > face.capacity.blocks => {
            Admission::Grown(capacity.blocks)
        }
        Some(_) => Admission::Admitted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lun::face::samples;
    use crate::scsi::inquiry::vpd_page;

    fn face() -> Face {
        Face::new(&samples::facts()).unwrap()
    }

    fn sized(blocks: u64) -> Facts {
        let mut facts = samples::facts();
        facts.capacity = facts.capacity.map(|capacity| capacity.with_blocks(blocks));
        facts
    }

    #[test]
    fn judge_same_unit_is_admitted() {
        assert_eq!(judge(&samples::facts(), None, None), Admission::Admitted);
        assert_eq!(judge(&samples::facts(), None, Some(&face())), Admission::Admitted);
    }

    #[test]
    fn judge_configured_name_decides_before_the_first_path_does() {
        let name = samples::facts().wwid().unwrap();
        assert_eq!(judge(&samples::facts(), Some(&name.multipath()), None), Admission::Admitted);
        let other = judge(&samples::facts(), Some("naa.5000000000000001"), None);
        assert!(matches!(other, Admission::WrongLun(_)));
    }

    #[test]
    fn judge_same_name_other_serial_is_wrong() {
        let mut facts = samples::facts();
        facts.pages.insert(0x80, vpd_page(0x80, b"serial-2"));
        assert!(matches!(judge(&facts, None, Some(&face())), Admission::WrongLun(_)));
    }

    #[test]
    fn judge_size_may_grow_and_not_shrink() {
        assert_eq!(judge(&sized(0x8000), None, Some(&face())), Admission::Grown(0x8000));
        assert!(matches!(judge(&sized(0x10), None, Some(&face())), Admission::KeptOut(_)));
    }

    #[test]
    fn judge_nameless_path_is_kept_out() {
        let mut facts = samples::facts();
        facts.pages.remove(&0x83);
        assert!(matches!(judge(&facts, None, None), Admission::KeptOut(_)));
    }

    #[test]
    fn judge_standby_path_is_admitted_by_name_alone_once_the_size_is_known() {
        let mut facts = samples::facts();
        facts.capacity = None;
        assert!(matches!(judge(&facts, None, None), Admission::KeptOut(_)));
        assert_eq!(judge(&facts, None, Some(&face())), Admission::Admitted);
    }
}
