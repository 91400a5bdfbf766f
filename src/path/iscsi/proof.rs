//! Which sessions are proven dead by a login that took their place.
//!
//! A login with the ISID of an old session, at the same portal and so in the same target portal
//! group, makes the target end that session and its tasks (RFC 7143 6.3.5). The text does not say
//! that this happens before the login is answered, so it is proof only where it is known:
//!
//! | target, by its T10 vendor | before the answer? |
//! |---|---|
//! | `LIO-ORG`: the Linux kernel's | yes: the login waits until the old session is closed |
//! | `IET`: tgtd | no: what has reached its SCSI layer runs on, and 1.0.85 was even seen to keep both sessions |
//! | anything else | not known, so no |

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::path::any::ReloginIsProof;

/// T10 VENDOR IDENTIFICATION of targets that end the old session's tasks first.
const KNOWN: &[&[u8; 8]] = &[b"LIO-ORG "];

/// What is proven of one path's sessions.
#[derive(Debug)]
pub(super) struct Proofs {
    rule: ReloginIsProof,
    vendor: [u8; 8],
    /// For each portal: its first session that is not proven dead. A path whose name leads to
    /// several portals may have left one in each.
    open: BTreeMap<SocketAddr, u32>,
}

impl Proofs {
    pub(super) fn new(rule: ReloginIsProof) -> Self {
        Proofs { rule, vendor: [b' '; 8], open: BTreeMap::new() }
    }

    /// The logical unit's standard INQUIRY data has come in.
    pub(super) fn identified(&mut self, vendor: [u8; 8]) {
        self.vendor = vendor;
    }

    /// `session` has begun at `portal`. The last session of which nothing can land any more, if
    /// that is news.
    pub(super) fn logged_in(&mut self, session: u32, portal: SocketAddr) -> Option<u32> {
        if !self.relogin_proves() {
            self.open.entry(portal).or_insert(session);
            return None;
        }
        let replaced = self.open.insert(portal, session).is_some();
        let first_open = self.open.values().min().copied().unwrap_or(session);
        (replaced && first_open > 1).then(|| first_open - 1)
    }

    fn relogin_proves(&self) -> bool {
        match self.rule {
            ReloginIsProof::Yes => true,
            ReloginIsProof::No => false,
            ReloginIsProof::Auto => KNOWN.contains(&&self.vendor),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn portal(last: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, last], 3260))
    }

    #[test]
    fn login_proves_only_at_targets_known_for_it() {
        for (rule, vendor, proves) in [
            (ReloginIsProof::Auto, b"LIO-ORG ", true),
            (ReloginIsProof::Auto, b"IET     ", false),
            (ReloginIsProof::Auto, b"ACME    ", false),
            (ReloginIsProof::Yes, b"IET     ", true),
            (ReloginIsProof::No, b"LIO-ORG ", false),
        ] {
            let mut proofs = Proofs::new(rule);
            assert_eq!(proofs.logged_in(3, portal(1)), None);
            proofs.identified(*vendor);
            assert_eq!(proofs.logged_in(5, portal(1)), proves.then_some(4), "{rule:?}");
        }
    }

    #[test]
    fn login_elsewhere_proves_nothing_about_the_first_portal() {
        let mut proofs = Proofs::new(ReloginIsProof::Yes);
        assert_eq!(proofs.logged_in(1, portal(1)), None);
        assert_eq!(proofs.logged_in(2, portal(2)), None);
        assert_eq!(proofs.logged_in(3, portal(2)), None, "session 1 is still open");
        assert_eq!(proofs.logged_in(4, portal(1)), Some(2));
    }
}
