//! All host I/O, and no decision: one folder per transport behind one contract.
//!
//! ```text
//!   manager --- open, close --> Transport (one per path, shared)
//!                                   |  channel()
//!            lane 0   lane 1   manager         each has a Channel of its own: no lock between them
//!              |        |        |
//!            submit   submit   submit   (an attempt: CDB + lent memory)
//!              |        |        |
//!             reap <- exactly one Ended per attempt, and after it the memory is not touched
//! ```
//!
//! **The rule of lent memory.** `submit` lends the segments of its [`Task`] to the path. They come
//! back with the attempt's [`Ended`], never otherwise: not by a timeout, not by closing. Who can
//! wait no longer calls [`Channel::recall`], and the path then ends the attempt as soon as it can
//! promise that it will not touch the memory again. What that end proves is its [`Fate`].
//!
//! | transport | folder | what it can prove about a recalled attempt |
//! |---|---|---|
//! | `emulated:` | [`emulated`] | terminated: array and path are one process; unknown where a fault imitates a dead wire |
//! | `iscsi://` | `iscsi` | unknown, with the session; where a login is known to end old tasks, the next one proves all of it dead |
//! | `/dev/...` | [`sg`] | what the kernel has not got yet: not sent; what it has: parked, until it has returned it |
//! | `null:` | [`null`] | nothing to prove: every attempt is answered at once |

pub mod address;
pub mod any;
pub mod emulated;
#[cfg(feature = "iscsi")]
pub mod iscsi;
#[cfg(feature = "iscsi")]
mod nic;
#[cfg(feature = "iscsi")]
mod nic_sys;
pub mod null;
mod outbox;
pub mod sg;
mod waker;

use std::borrow::Cow;
use std::os::fd::RawFd;
use std::time::Instant;

use crate::buffer::Segments;
use crate::ids::AttemptId;
use crate::scsi::reservation::TransportId;
use crate::scsi::{Cdb, Sense, Status};

/// One command for one path. Borrowed: the path copies what it needs of the lists, and uses the
/// memory they point to until the attempt's end.
#[derive(Clone, Copy, Debug)]
pub struct Task<'a> {
    /// The command, unchanged from what the guest sent.
    pub cdb: &'a Cdb,
    /// Data for the device.
    pub data_out: &'a Segments,
    /// Room for data from the device.
    pub data_in: &'a Segments,
}

/// The device server's answer. The command was executed, or refused, as the status says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Status byte.
    pub status: Status,
    /// Sense data, where the device sent some (with CHECK CONDITION, rarely with GOOD).
    pub sense: Option<Box<Sense>>,
    /// Bytes moved, compared with the room lent.
    pub residual: Residual,
}

/// What was left over (SAM-5 5.4.3.1; iSCSI's underflow and overflow).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Residual {
    /// All of the room was used.
    None,
    /// So many bytes of the room were not used.
    Under(u32),
    /// The device had so many bytes more than there was room.
    Over(u32),
}

/// Why a path gave no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Failure {
    /// The link was cut: reset, closed, logged out, removed.
    Disconnected,
    /// The transport itself gave up waiting.
    TimedOut,
    /// We recalled the attempt.
    Recalled,
    /// The host's transport reports an error of this one command; the path itself may be well.
    Transient,
    /// The host lacked a resource (memory, tags); the path itself may be well.
    HostBusy,
    /// The transport cannot carry this command (CDB too long, transfer too large, a privilege is
    /// missing). No path fault: the guest gets ILLEGAL REQUEST.
    Unsupported,
    /// The other side broke the transport's protocol.
    Protocol,
}

/// What is known of a failed attempt's execution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reach {
    /// It never left: the device has not seen and will not see it.
    NotSent,
    /// It may have been executed, and it will not be from now on (a termination proof).
    Terminated,
    /// Nobody knows: it may still be executed.
    Unknown,
    /// It waits in the host and may be executed at any time, however late, until the transport
    /// speaks of its session: see [`TransportEvent::Proven`] and [`TransportEvent::Returned`].
    Parked,
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The device server answered.
    Answered(Answer),
    /// It did not.
    Failed(Failure, Reach),
}

/// The end of one attempt. From here on the path does not touch the memory lent for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Which attempt.
    pub attempt: AttemptId,
    /// What became of it.
    pub fate: Fate,
    /// The transport's session that carried it, for [`TransportEvent::Proven`]; 0 where the
    /// transport has no sessions, or none carried it.
    pub session: u32,
}

/// A lane's own end of a path. One thread uses it; nothing in it blocks.
pub trait Channel: Send + 'static {
    /// Starts an attempt. Called on the hot path, once per command and try. The attempt's end
    /// comes from [`Channel::reap`] even when it failed at once. An attempt id is never submitted
    /// while an earlier attempt with the same id has not ended.
    fn submit(&mut self, attempt: AttemptId, task: Task<'_>, now: Instant);

    /// Hands all that was submitted since the last call to the kernel or the path's thread, with
    /// one system call where one is needed. Called once per batch.
    fn flush(&mut self);

    /// Moves the ends that have come in into `ended`. Called once per turn of the lane's loop.
    fn reap(&mut self, now: Instant, ended: &mut Vec<Ended>);

    /// Asks for the attempt's end as soon as its memory can be given back. The end comes from
    /// [`Channel::reap`]: [`Failure::Recalled`], or what had happened before. An attempt that has
    /// ended already, or an unknown one, is ignored.
    fn recall(&mut self, attempt: AttemptId);

    /// A descriptor that becomes readable when [`Channel::reap`] may have something, if there is
    /// one. The same for the channel's whole life.
    fn ready_fd(&self) -> Option<RawFd>;

    /// When [`Channel::reap`] should be called even if nothing became readable.
    fn next_timer(&self) -> Option<Instant>;
}

/// The shared side of a path: made by opening its address, used by the manager.
pub trait Transport: Send + Sync + 'static {
    /// What a lane gets.
    type Channel: Channel;

    /// A new channel for one thread. Called by each lane when it first sees the path, and by the
    /// manager. Fails only for want of a host resource.
    fn channel(&self) -> std::io::Result<Self::Channel>;

    /// A new channel for the manager, whose questions find out who is behind the path: it may be
    /// there where the lanes' are not, because the logical unit has become another.
    fn probe_channel(&self) -> std::io::Result<Self::Channel> {
        self.channel()
    }

    /// What happened on the transport since the last call, for the manager.
    fn events(&self) -> Vec<TransportEvent>;

    /// The largest data transfer that one command may have, as far as it is known now.
    fn limits(&self) -> TransferLimits;

    /// True where unit attentions may be kept from us on the way: then silence says nothing, and
    /// who is behind the path is asked again and again.
    fn hides_attentions(&self) -> bool {
        false
    }

    /// How commands are sent, in one word or two: the `engine` of `query-paths`.
    fn engine(&self) -> Cow<'static, str>;

    /// The name of the host's end of the path (SPC-5 7.6.4), as the array tells it in READ FULL
    /// STATUS, where that is known here.
    fn initiator_port(&self) -> Option<TransportId> {
        None
    }

    /// The memory node of the host's end of the path, where it has one that is known. Asked when
    /// the path is added and after each [`TransportEvent::Up`]; must not wait for anything.
    fn numa_node(&self) -> Option<u16> {
        None
    }
}

/// News from a transport that no attempt carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TransportEvent {
    /// The link is gone; commands will fail until it is back.
    Down(String),
    /// The link is there (again): worth probing now.
    Up {
        /// Where its I_T nexus is a new one (SAM-5 4.6): when that began, at the earliest. What was
        /// sent before went over another, and the array keeps nothing of that time for it. `None`
        /// where the nexus may have outlived the link.
        nexus_since: Option<Instant>,
    },
    /// No attempt of this session or of an earlier one of the path will be executed from now on,
    /// whatever their ends said: a termination proof that came later than the ends.
    Proven {
        /// The last session that it speaks of.
        session: u32,
    },
    /// No attempt of this session or of an earlier one of the path waits in the host any more.
    /// What was sent of them may still land within the time that any lost write has.
    Returned {
        /// The last session that it speaks of.
        session: u32,
    },
}

/// Bounds of one command on one path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransferLimits {
    /// Bytes of data, `None` without a bound.
    pub bytes_max: Option<u32>,
}
