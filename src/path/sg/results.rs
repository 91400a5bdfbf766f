//! **The table of the kernel's results**: what the end of an `SG_IO` call says of the command.
//!
//! A call ends in one of three ways, looked at in this order: the call itself fails ([`CALLS`]),
//! the host adapter's driver reports an error ([`HOSTS`]), or the device server has answered.
//!
//! "Was it executed" is answered carefully. An error handler that aborted a command for want of
//! an answer may have done so without reaching the device (a blocked port makes it give up at
//! once), and a code that one driver uses before it sends, another uses after: so most rows say
//! [`Reach::Unknown`], and a write waits for its quiesce time before it goes elsewhere.
//!
//! What never gets here: BUSY and TASK SET FULL, which the kernel sends again itself until the
//! command's time is up; and, where the kernel's ALUA handler is attached, the unit attentions
//! 29/00, 29/04, 2A/01, 2A/06, 2A/07, 3F/03 and 3F/0E, after which it sends the command again.

use super::command::Done;
use crate::path::Failure::{self, Disconnected, HostBusy, Protocol, TimedOut, Transient};
use crate::path::Reach::{self, NotSent, Terminated, Unknown};
use crate::path::{Answer, Fate, Residual};
use crate::scsi::{Sense, Status};

/// What a code means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Means {
    /// No answer.
    Failed(Failure, Reach),
    /// The device server's status counts.
    Answered,
    /// RESERVATION CONFLICT, whatever the status says.
    Conflict,
    /// The status counts, if it says something: else the command ended without an answer.
    Refused,
}

/// A code, what it means, and why.
#[derive(Debug)]
pub(super) struct Row<C: 'static> {
    pub(super) code: C,
    pub(super) name: &'static str,
    pub(super) means: Means,
}

macro_rules! rows {
    ($($code:expr, $name:literal, $means:expr;)*) => {
        &[$(Row { code: $code, name: $name, means: $means },)*]
    };
}

use Means::{Answered, Conflict, Failed, Refused};

/// `host_status`: the kernel's `DID_` codes (`scsi_status.h`).
#[rustfmt::skip]
pub(super) const HOSTS: &[Row<u16>] = rows! {
    0x00, "DID_OK",                  Answered;
    // Device offline or removed; also said of commands that were under way when it went.
    0x01, "DID_NO_CONNECT",          Failed(Disconnected, Unknown);
    0x02, "DID_BUS_BUSY",            Failed(Transient, Unknown);
    // The error handler ended it. It may have been unable to reach the device.
    0x03, "DID_TIME_OUT",            Failed(TimedOut, Unknown);
    // Also what a virtio-scsi host says of an error of the target.
    0x04, "DID_BAD_TARGET",          Failed(Disconnected, Unknown);
    // Somebody's abort or reset was answered.
    0x05, "DID_ABORT",               Failed(Transient, Terminated);
    0x06, "DID_PARITY",              Failed(Transient, Unknown);
    // Everything that a driver has no other word for.
    0x07, "DID_ERROR",               Failed(Transient, Unknown);
    0x08, "DID_RESET",               Failed(Transient, Terminated);
    0x09, "DID_BAD_INTR",            Failed(Transient, Unknown);
    0x0A, "DID_PASSTHROUGH",         Answered;
    0x0B, "DID_SOFT_ERROR",          Failed(Transient, Unknown);
    // The kernel sends these again itself; seen only when the command's time was up.
    0x0C, "DID_IMM_RETRY",           Failed(Transient, Unknown);
    0x0D, "DID_REQUEUE",             Failed(Transient, Unknown);
    // The link went while it was under way.
    0x0E, "DID_TRANSPORT_DISRUPTED", Failed(Disconnected, Unknown);
    // The link stayed away for fast_io_fail_tmo or recovery_tmo; it may have been under way.
    0x0F, "DID_TRANSPORT_FAILFAST",  Failed(Disconnected, Unknown);
    // Kernels of old: words of the target, with its status and sense beside them.
    0x10, "DID_TARGET_FAILURE",      Refused;
    0x11, "DID_NEXUS_FAILURE",       Conflict;
    0x12, "DID_ALLOC_FAILURE",       Refused;
    0x13, "DID_MEDIUM_ERROR",        Refused;
    // Aborted, with success, because the port was marked as marginal.
    0x14, "DID_TRANSPORT_MARGINAL",  Failed(Disconnected, Terminated);
};

/// What [`HOSTS`] does not name.
const OTHER_HOST: Means = Failed(Protocol, Unknown);

/// `errno` of the call.
#[rustfmt::skip]
pub(super) const CALLS: &[Row<i32>] = rows! {
    // Out of tags, of memory, of the sixteen commands of an open sg node.
    libc::EAGAIN,   "EAGAIN",   Failed(HostBusy, NotSent);
    libc::EBUSY,    "EBUSY",    Failed(HostBusy, NotSent);
    libc::EDOM,     "EDOM",     Failed(HostBusy, NotSent);
    libc::ENOMEM,   "ENOMEM",   Failed(HostBusy, NotSent);
    // A privilege is missing for this operation code, or the node is open for reading only.
    libc::EPERM,    "EPERM",    Failed(Failure::Unsupported, NotSent);
    libc::EACCES,   "EACCES",   Failed(Failure::Unsupported, NotSent);
    // Too long, too large, both directions.
    libc::EINVAL,   "EINVAL",   Failed(Failure::Unsupported, NotSent);
    libc::EIO,      "EIO",      Failed(Failure::Unsupported, NotSent);
    libc::EMSGSIZE, "EMSGSIZE", Failed(Failure::Unsupported, NotSent);
    libc::EOPNOTSUPP, "EOPNOTSUPP", Failed(Failure::Unsupported, NotSent);
    libc::E2BIG,    "E2BIG",    Failed(Failure::Unsupported, NotSent);
    // The device goes away. An sg node says so of commands under way as well.
    libc::ENODEV,   "ENODEV",   Failed(Disconnected, Unknown);
    // Offline after error recovery: asked before anything is sent.
    libc::ENXIO,    "ENXIO",    Failed(Disconnected, NotSent);
};

/// What [`CALLS`] does not name. EINTR is among it: the command would run on unseen, which is why
/// the threads take no signals.
const OTHER_CALL: Means = Failed(Protocol, Unknown);

/// Its row is read together with the status.
const DID_ERROR: u16 = 0x07;

/// `driver_status` of kernels before 5.14: the command's time was up.
const DRIVER_TIMEOUT: u16 = 0x06;

fn means<C: PartialEq>(rows: &[Row<C>], code: C, other: Means) -> Means {
    rows.iter().find(|row| row.code == code).map_or(other, |row| row.means)
}

/// What the end of a call means for a command with `room` bytes of data.
pub(super) fn fate(end: &Result<Done, i32>, room: u32) -> Fate {
    let done = match end {
        Ok(done) => done,
        Err(errno) => {
            return match means(CALLS, *errno, OTHER_CALL) {
                Failed(failure, reach) => Fate::Failed(failure, reach),
                Answered | Conflict | Refused => Fate::Failed(Protocol, Unknown),
            };
        }
    };
    let status = Status(done.status);
    match means(HOSTS, done.host, OTHER_HOST) {
        // With this status beside it, it is the device server's word after all.
        Failed(..) if done.host == DID_ERROR && status == Status::RESERVATION_CONFLICT => {
            answer(done, status, room)
        }
        Conflict => answer(done, Status::RESERVATION_CONFLICT, room),
        Failed(failure, reach) => Fate::Failed(failure, reach),
        Refused if status == Status::GOOD => Fate::Failed(Transient, Terminated),
        Answered if done.driver & 0x0F == DRIVER_TIMEOUT => Fate::Failed(TimedOut, Unknown),
        Answered | Refused => answer(done, status, room),
    }
}

fn answer(done: &Done, status: Status, room: u32) -> Fate {
    let sense = &done.sense[..done.sense_len.min(done.sense.len())];
    // A bsg node may say that there are so many bytes of sense, and all of them are zeroes.
    let is_sense = sense.first().is_some_and(|first| first & 0x70 == 0x70);
    let sense = is_sense.then(|| Box::new(Sense::from_bytes(sense)));
    let residual = match u32::try_from(done.residual) {
        Ok(bytes) if bytes > 0 => Residual::Under(bytes.min(room)),
        _ => Residual::None,
    };
    Fate::Answered(Answer { status, sense, residual })
}

/// A word for people: which code it was.
pub(super) fn name(end: &Result<Done, i32>) -> String {
    match end {
        Ok(done) => match HOSTS.iter().find(|row| row.code == done.host) {
            Some(row) => row.name.to_owned(),
            None => format!("host status {:#04x}", done.host),
        },
        Err(errno) => std::io::Error::from_raw_os_error(*errno).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::sg::command::SENSE_ROOM;
    use crate::scsi::{Asc, SenseKey};

    fn done(host: u16, status: u8) -> Done {
        let sense = [0; SENSE_ROOM];
        Done { host, driver: 0, status, residual: 0, sense, sense_len: 0 }
    }

    fn answered(status: u8) -> Fate {
        let residual = Residual::None;
        Fate::Answered(Answer { status: Status(status), sense: None, residual })
    }

    /// Every code of the table once more, by hand: what may be sent again at once, and what not.
    #[test]
    fn fate_of_every_host_status() {
        let failed = |failure, reach| Fate::Failed(failure, reach);
        let expected = [
            (0x00, answered(0)),
            (0x01, failed(Disconnected, Unknown)),
            (0x02, failed(Transient, Unknown)),
            (0x03, failed(TimedOut, Unknown)),
            (0x04, failed(Disconnected, Unknown)),
            (0x05, failed(Transient, Terminated)),
            (0x06, failed(Transient, Unknown)),
            (0x07, failed(Transient, Unknown)),
            (0x08, failed(Transient, Terminated)),
            (0x09, failed(Transient, Unknown)),
            (0x0A, answered(0)),
            (0x0B, failed(Transient, Unknown)),
            (0x0C, failed(Transient, Unknown)),
            (0x0D, failed(Transient, Unknown)),
            (0x0E, failed(Disconnected, Unknown)),
            (0x0F, failed(Disconnected, Unknown)),
            (0x10, failed(Transient, Terminated)),
            (0x11, answered(0x18)),
            (0x12, failed(Transient, Terminated)),
            (0x13, failed(Transient, Terminated)),
            (0x14, failed(Disconnected, Terminated)),
        ];
        assert_eq!(expected.len(), HOSTS.len());
        for (host, fate_expected) in expected {
            assert_eq!(fate(&Ok(done(host, 0)), 512), fate_expected, "host status {host:#04x}");
        }
        assert_eq!(fate(&Ok(done(0x55, 0)), 512), failed(Protocol, Unknown));
    }

    #[test]
    fn fate_of_every_errno() {
        let unsupported =
            [libc::EPERM, libc::EACCES, libc::EINVAL, libc::EIO, libc::EMSGSIZE, libc::E2BIG];
        let busy = [libc::EAGAIN, libc::EBUSY, libc::EDOM, libc::ENOMEM];
        let of = |errno| fate(&Err(errno), 512);
        for errno in unsupported.into_iter().chain([libc::EOPNOTSUPP]) {
            assert_eq!(of(errno), Fate::Failed(Failure::Unsupported, NotSent), "{errno}");
        }
        for errno in busy {
            assert_eq!(of(errno), Fate::Failed(HostBusy, NotSent), "{errno}");
        }
        assert_eq!(of(libc::ENODEV), Fate::Failed(Disconnected, Unknown));
        assert_eq!(of(libc::ENXIO), Fate::Failed(Disconnected, NotSent));
        assert_eq!(of(libc::EINTR), Fate::Failed(Protocol, Unknown));
        assert_eq!(unsupported.len() + 1 + busy.len() + 2, CALLS.len());
    }

    #[test]
    fn fate_of_an_answer_is_the_device_servers() {
        for status in [0x00, 0x02, 0x04, 0x08, 0x18, 0x28, 0x30, 0x40] {
            assert_eq!(fate(&Ok(done(0, status)), 512), answered(status));
        }
        // Kernels differ in the host status that they put beside a reservation conflict.
        assert_eq!(fate(&Ok(done(0x07, 0x18)), 512), answered(0x18));
        assert_eq!(fate(&Ok(done(0x11, 0x00)), 512), answered(0x18));
        // And old ones put one beside sense data.
        assert_eq!(fate(&Ok(done(0x13, 0x02)), 512), answered(0x02));
        // An error of the transport is none of the device's, whatever status is left over.
        let lost = Fate::Failed(Disconnected, Unknown);
        assert_eq!(fate(&Ok(done(0x0E, 0x18)), 512), lost);
        let mut timed_out = done(0, 0);
        timed_out.driver = DRIVER_TIMEOUT;
        assert_eq!(fate(&Ok(timed_out), 512), Fate::Failed(TimedOut, Unknown));
    }

    #[test]
    fn fate_brings_sense_and_a_residual_within_the_room() {
        let mut end = done(0, 0x02);
        let sense = Sense::fixed(SenseKey::NotReady, Asc(0x04, 0x0B));
        end.sense[..sense.bytes().len()].copy_from_slice(sense.bytes());
        end.sense_len = sense.bytes().len();
        for (told, residual) in [
            (0, Residual::None),
            (-5, Residual::None),
            (100, Residual::Under(100)),
            (9999, Residual::Under(512)),
        ] {
            end.residual = told;
            let Fate::Answered(answer) = fate(&Ok(end.clone()), 512) else { panic!() };
            assert_eq!(answer.residual, residual);
            assert_eq!(answer.sense.unwrap().decode(), Some((SenseKey::NotReady, Asc(0x04, 0x0B))));
        }
    }

    /// Results that no kernel would make up, from a counter whose bits are mixed.
    #[test]
    fn fate_of_anything_is_bounded_and_claims_nothing() {
        for seed in 0..20_000_u64 {
            let mixed = (seed + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            let bits = (mixed ^ mixed >> 29).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            let end = Done {
                host: (bits % 24) as u16,
                driver: (bits >> 8 & 0x3F) as u16,
                status: (bits >> 16) as u8,
                residual: (bits >> 24) as i32,
                sense: [(bits >> 56) as u8; SENSE_ROOM],
                sense_len: (bits >> 48 & 0x1FF) as usize,
            };
            let room = (bits >> 40 & 0xFFF) as u32;
            let (fate, host) = (fate(&Ok(end.clone()), room), end.host);
            match fate {
                Fate::Answered(answer) => {
                    let residual = answer.residual;
                    assert!(!matches!(residual, Residual::Under(bytes) if bytes > room), "{end:?}");
                    assert!(answer.sense.is_none_or(|sense| sense.bytes().len() <= SENSE_ROOM));
                }
                // No number says that a command which the kernel had was never sent.
                Fate::Failed(_, reach) => assert_ne!(reach, NotSent, "{host:#04x} {end:?}"),
            }
        }
    }

    #[test]
    fn fate_takes_zeroes_for_no_sense() {
        let mut end = done(0, 0);
        end.sense_len = SENSE_ROOM;
        assert_eq!(fate(&Ok(end), 512), answered(0));
    }

    #[test]
    fn name_says_what_the_kernel_said() {
        assert_eq!(name(&Ok(done(0x0F, 0))), "DID_TRANSPORT_FAILFAST");
        assert_eq!(name(&Ok(done(0x55, 0))), "host status 0x55");
        assert!(name(&Err(libc::ENODEV)).contains("No such device"));
    }
}
