//! The kinds of threads, and what each may do.

use std::collections::BTreeSet;

use super::calls::{
    CONNECTION, Call, LIBISCSI, NAMES, NO_CACHE, NO_FILES, NODES, PROCESS, READING, REMOVING,
    RINGS, RUNTIME, SCSI, SHARED_MEMORY, SOCKETS, TCP, THREADS, TRANSFERS, UEVENTS, WAITING,
    WRITING,
};

/// A kind of thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Main, until everything runs: all that there will be, so that it can be started.
    Start,
    /// Main, from then on: takes front ends in, and ends the process.
    Main,
    /// Starts threads for those that may not.
    Foreman,
    /// Reads a front end's messages, maps the guest's memory, starts lanes.
    Protocol,
    /// A lane: the guest's rings, and the paths' near ends.
    Lane,
    /// Decides on paths.
    Manager,
    /// Opens a path, or reads the configuration again.
    Opener,
    /// Watches the host's devices.
    Host,
    /// The control socket.
    Control,
    /// The metrics' socket.
    Metrics,
    /// Keeps reservations in files.
    State,
    /// An iSCSI session.
    Iscsi,
    /// Looks names and routes up for one.
    LookUp,
    /// Does for the built-in array what may wait for a disk.
    Array,
    /// Opens the node of a host device.
    SgKeeper,
    /// Waits in the kernel for a command of a host device.
    SgHand,
    /// The same for many commands, over io_uring.
    SgRing,
}

impl Class {
    /// All of them.
    pub const ALL: [Class; 17] = [
        Class::Start,
        Class::Main,
        Class::Foreman,
        Class::Protocol,
        Class::Lane,
        Class::Manager,
        Class::Opener,
        Class::Host,
        Class::Control,
        Class::Metrics,
        Class::State,
        Class::Iscsi,
        Class::LookUp,
        Class::Array,
        Class::SgKeeper,
        Class::SgHand,
        Class::SgRing,
    ];

    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Class::Start => "start",
            Class::Main => "main",
            Class::Foreman => "foreman",
            Class::Protocol => "vhost-user",
            Class::Lane => "lane",
            Class::Manager => "manager",
            Class::Opener => "opener",
            Class::Host => "host",
            Class::Control => "control",
            Class::Metrics => "metrics",
            Class::State => "state",
            Class::Iscsi => "iscsi",
            Class::LookUp => "look-up",
            Class::Array => "emulated-array",
            Class::SgKeeper => "sg keeper",
            Class::SgHand => "sg",
            Class::SgRing => "sg ring",
        }
    }

    /// What it does itself, beside [`RUNTIME`].
    fn own(self) -> &'static [&'static [Call]] {
        match self {
            Class::Start => &[PROCESS],
            // The socket files go with it.
            Class::Main => &[WAITING, SOCKETS, REMOVING],
            Class::Foreman => &[],
            Class::Protocol => &[WAITING, SOCKETS, SHARED_MEMORY],
            // The array's images are open when a lane gets them, and so are the connections that
            // the threads of iSCSI paths have made.
            Class::Lane => &[WAITING, RINGS, TRANSFERS, CONNECTION],
            // Reports read what sysfs says of devices.
            Class::Manager => &[WAITING, SOCKETS, RINGS, READING, TRANSFERS],
            Class::Opener => &[WAITING, SOCKETS, READING, WRITING, REMOVING, NODES, RINGS],
            Class::Host => &[WAITING, SOCKETS, READING, NODES, UEVENTS],
            Class::Control => &[WAITING, SOCKETS, REMOVING],
            Class::Metrics => &[WAITING, SOCKETS],
            Class::State => &[WAITING, READING, WRITING, REMOVING],
            Class::Iscsi => &[WAITING, SOCKETS, TCP, LIBISCSI],
            Class::LookUp => &[WAITING, SOCKETS, READING, NAMES],
            Class::Array => &[WAITING, READING, WRITING, REMOVING, TRANSFERS],
            Class::SgKeeper => &[WAITING, READING, NODES, SCSI, RINGS],
            Class::SgHand => &[WAITING, READING, NODES, SCSI],
            Class::SgRing => &[WAITING, RINGS, READING],
        }
    }

    /// Calls that the C library makes in it, and that are answered with EACCES.
    pub(super) fn refused(self) -> &'static [Call] {
        match self {
            Class::Iscsi => NO_CACHE,
            Class::Main | Class::Protocol | Class::Lane | Class::Control | Class::Metrics => {
                NO_FILES
            }
            _ => &[],
        }
    }

    /// The kinds of threads that it starts.
    fn starts(self) -> &'static [Class] {
        match self {
            Class::Start => &Class::ALL,
            Class::Main => &[Class::Protocol],
            Class::Foreman => &[Class::Opener, Class::Host],
            Class::Protocol => &[Class::Lane],
            Class::Opener => {
                &[Class::Iscsi, Class::LookUp, Class::Array, Class::SgKeeper, Class::SgHand]
            }
            Class::SgKeeper => &[Class::SgRing],
            Class::SgHand => &[Class::SgHand],
            _ => &[],
        }
    }

    /// The names of the calls that it may make, for itself and for those that it starts.
    pub fn names(self) -> BTreeSet<&'static str> {
        let calls = self.calls();
        calls.iter().map(|call| call.name.trim_start_matches("SYS_")).collect()
    }

    /// Every call that it may make, for itself and for those that it starts.
    pub(super) fn calls(self) -> Vec<Call> {
        let mut classes = vec![self];
        let mut at = 0;
        while let Some(class) = classes.get(at) {
            let more: Vec<Class> =
                class.starts().iter().copied().filter(|more| !classes.contains(more)).collect();
            classes.extend(more);
            at += 1;
        }
        let own = classes.iter().flat_map(|class| class.own().iter());
        let groups = own.copied().chain([RUNTIME]);
        let threads = Some(THREADS).filter(|_| !self.starts().is_empty());
        groups.chain(threads).chain([self.refused()]).flatten().copied().collect()
    }
}
