//! A front end of our own plays the guest's driver against the built program, without QEMU.
//!
//! ```text
//!   tests:  handshake  lun  hedges  task_management  failover  stop  hostile_chains  hostile_messages
//!           inflight   |     |           |            |     reconnect       |               |
//!               |       |     |           |            |        |          |               |
//!   load      (verified I/O under way)                 +        +          |               |
//!   initiator (SCSI commands by name)                                      |               |
//!   queue, control  (requests, task management, events)                    |               |
//!   driver    (connects, negotiates, runs the rings as QEMU does)   |               |
//!   ring, memory    (split virtqueues in a memfd)  <-----------------------+     wire  <---+
//!        |
//!   backend   (the program, in a directory of its own)   qmp (its control socket)
//! ```
//!
//! Every test starts a program of its own, so that they run side by side; every wait is bounded,
//! and a program that outlives its test's time is killed.

// Everything here is test code, where a panic is a verdict.
#![allow(clippy::unwrap_used)]

mod access;
mod backend;
mod confinement;
mod control;
mod doctor;
mod driver;
mod failover;
mod handshake;
mod hedges;
mod hostile_chains;
mod hostile_messages;
mod idle;
mod inflight;
mod initiator;
mod load;
mod lun;
mod memory;
mod metrics;
mod persistent;
mod qmp;
mod queue;
mod reconnect;
mod report;
mod reservation;
mod ring;
mod service;
mod stop;
mod sys;
mod takeover;
mod task_management;
mod terminal;
mod wire;
