//! The built program on iSCSI paths to two arrays that the world uses, over a wire of our own.
//!
//! ```text
//!   tests:   access  faults  killed  late_write  login  announced  neighbours  deep  cost  array_tests  proxy_tests
//!               |         |         |        |          |        |        |                  |
//!   scene  (a backend on two paths; verified I/O)                |        |                  |
//!   array  (either target, a proxy before each portal) ----------+--------+                  |
//!   tgtd   lio   herald                                              proxy  <----------------+
//!        |
//!   tests/protocol's front end: the driver, the load, the program, its control socket
//! ```
//!
//! Everything is on loopback. tgtd is a process of each test's own; LIO is a virtual machine that
//! the tests of a run share, a target for each.

// Everything here is test code, where a panic is a verdict.
#![allow(clippy::unwrap_used)]

mod access;
mod announced;
mod array;
mod array_tests;
mod cost;
mod deep;
mod faults;
mod herald;
mod killed;
mod late_write;
mod lio;
mod login;
mod moves;
mod neighbours;
mod proxy;
mod proxy_tests;
mod scene;
mod socket_sys;
mod tgtd;

/// The modules of tests/protocol that are in use here too, though not all that is in them.
macro_rules! shared {
    ($($name:ident: $path:literal,)*) => {
        $(#[allow(dead_code)] #[path = $path] mod $name;)*
    };
}

shared! {
    backend: "../protocol/backend.rs",
    control: "../protocol/control.rs",
    driver: "../protocol/driver.rs",
    initiator: "../protocol/initiator.rs",
    load: "../protocol/load.rs",
    memory: "../protocol/memory.rs",
    qmp: "../protocol/qmp.rs",
    queue: "../protocol/queue.rs",
    ring: "../protocol/ring.rs",
    sys: "../protocol/sys.rs",
}
