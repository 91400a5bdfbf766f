//! A vhost-user-scsi backend with SCSI multipath built in.
//!
//! One process presents one virtual LUN to one guest, and sends each of the guest's commands over
//! the best of several paths; when a path fails, it sends the command again over another.
//!
//! ```text
//!  guest                                                                       storage
//!    |  front --> virtio_scsi --> engine ------------------------> path/{emulated,null}
//!    | (rings,    (wire format)   (a lane: 1|          2|           (all host I/O; decides nothing)
//!    |  memory)                    loop)    v           v
//!    |    ^                                lun      multipath
//!    |    |                         (what the guest   (which path, when,
//!    |    |                          may see and do)   once more?)      both pure: no I/O, no clock, no lock
//!    |    +------ completion <--------------+
//!    |        (the only way back; cannot be dropped)
//!    +-- scsi, ids, limits, buffer, confine, socket, fnv, lock_sys: the vocabulary under everything
//!    +-- config, control, logging, metrics, state, stats: at the side; they send events and read snapshots, never reach into lanes or core
//! ```
//!
//! One read, in words: [`front`] pops a chain -> [`virtio_scsi`] parses it -> the lane asks
//! [`lun`] (forward) and [`multipath`] (send on path P) -> [`path`] gets the CDB and the guest's
//! memory -> the end comes back -> [`multipath`] classifies it (done; or once more elsewhere,
//! through the same submit function) -> [`completion`]'s guard is answered and [`front`] publishes.
//! Three outcomes of a submit, and only three: send, hold (a path may return), fail.

pub mod backend;
pub mod buffer;
pub mod completion;
pub mod config;
pub mod confine;
pub mod control;
pub mod engine;
mod fnv;
pub mod front;
pub mod ids;
pub mod limits;
mod lock_sys;
pub mod logging;
pub mod lun;
pub mod metrics;
pub mod multipath;
pub mod path;
pub mod scsi;
pub mod socket;
pub mod state;
pub mod stats;
pub mod systemd;
pub mod virtio_scsi;
