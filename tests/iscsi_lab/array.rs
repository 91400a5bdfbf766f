//! The storage array of a test, whichever it is: a disk behind two portals, a proxy before each.

use std::net::SocketAddr;

use crate::lio::Target;
use crate::proxy::Proxy;
use crate::tgtd::Tgtd;

/// Bytes of a disk.
pub const DISK_BYTES: u64 = 16 << 20;
/// The name of tgtd's one target.
pub const IQN: &str = "iqn.2003-01.org.example:tgt";

/// What is behind the proxies.
pub enum Kind {
    Tgtd(Tgtd),
    Lio(Target),
}

/// An array and the wires to it.
pub struct Array {
    pub kind: Kind,
    pub proxies: [Proxy; 2],
}

impl Array {
    /// tgtd: one portal, which both paths go to. It does not end a session's tasks at a re-login.
    pub fn tgtd() -> Self {
        Array::tgtd_with(1)
    }

    /// The same with so many disks.
    pub fn tgtd_with(disks: usize) -> Self {
        let tgtd = Tgtd::start(disks);
        let portal = tgtd.address();
        Array::behind(Kind::Tgtd(tgtd), [portal, portal])
    }

    /// LIO: two portals, each a target portal group. It ends a session's tasks at a re-login.
    pub fn lio() -> Self {
        Array::lio_with(1)
    }

    /// The same with so many disks.
    pub fn lio_with(disks: usize) -> Self {
        let target = Target::new(disks);
        let portals = [target.portal(0), target.portal(1)];
        Array::behind(Kind::Lio(target), portals)
    }

    /// Whichever it is, behind portals of its own or before it.
    pub fn behind(kind: Kind, portals: [SocketAddr; 2]) -> Self {
        Array { kind, proxies: portals.map(Proxy::before) }
    }

    /// The target's name.
    pub fn iqn(&self) -> &str {
        match &self.kind {
            Kind::Tgtd(_) => IQN,
            Kind::Lio(target) => &target.iqn,
        }
    }

    /// The LUN of a disk, counted from 0: tgtd keeps LUN 0 for itself.
    pub fn lun(&self, disk: usize) -> usize {
        match &self.kind {
            Kind::Tgtd(_) => disk + 1,
            Kind::Lio(_) => disk,
        }
    }

    /// The address of a disk through a proxy, for `user`, which is empty or ends with `@`.
    pub fn address(&self, proxy: usize, user: &str, disk: usize) -> String {
        let portal = self.proxies[proxy].address();
        format!("iscsi://{user}{portal}/{}/{}", self.iqn(), self.lun(disk))
    }

    /// The addresses of both paths to the first disk.
    pub fn paths(&self) -> [String; 2] {
        [0, 1].map(|proxy| self.address(proxy, "", 0))
    }

    /// Sets who may log in; with a second account, what the target answers with.
    pub fn chap(&mut self, incoming: (&str, &str), outgoing: Option<(&str, &str)>) {
        match &mut self.kind {
            Kind::Tgtd(tgtd) => tgtd.chap(incoming, outgoing),
            Kind::Lio(target) => target.chap(incoming, outgoing),
        }
    }

    /// Takes the target away, with all its sessions.
    pub fn kill(&mut self) {
        match &mut self.kind {
            Kind::Tgtd(tgtd) => tgtd.kill(),
            Kind::Lio(target) => [0, 1].into_iter().for_each(|portal| target.switch(portal, false)),
        }
    }

    /// Brings it back with the same data.
    pub fn restart(&mut self) {
        match &mut self.kind {
            Kind::Tgtd(tgtd) => tgtd.restart(),
            Kind::Lio(target) => [0, 1].into_iter().for_each(|portal| target.switch(portal, true)),
        }
    }
}
