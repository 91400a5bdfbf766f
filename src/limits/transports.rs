//! The bounds of the transports: one block for each kind of path.

use std::time::Duration;

use super::{PATHS_MAX, RING_SIZE_MAX, TRANSFER_MAX};

/// Bytes of data that one command of the built-in array may move. Linux sends up to 32 MiB.
pub const EMULATED_TRANSFER_MAX: u32 = 32 << 20;
/// Bytes that one WRITE SAME of the built-in array may cover: what a guest can read back with one
/// command, which with Linux is a bit less than 32 MiB (`iscsi-test-cu` does).
pub const EMULATED_WRITE_SAME_MAX: u32 = 16 << 20;
/// Bytes that one UNMAP of the built-in array may cover: `iscsi-test-cu` takes more than 2^20
/// blocks for an error.
pub const EMULATED_UNMAP_MAX: u64 = 512 << 20;
/// Block descriptors that one UNMAP of the built-in array may bring.
pub const EMULATED_UNMAP_DESCRIPTORS_MAX: u16 = 256;
/// Blocks that one COMPARE AND WRITE of the built-in array may cover.
pub const EMULATED_COMPARE_AND_WRITE_MAX: u8 = 128;
/// Descriptors that one GET LBA STATUS of the built-in array returns.
pub const EMULATED_LBA_STATUS_MAX: usize = 256;
/// Commands that one channel of the built-in array has under way in the kernel and the helper
/// together; one more gets TASK SET FULL.
pub const EMULATED_FLIGHTS_MAX: usize = 1024;
/// How long the lock of an image is waited for that no living process holds: the kernel ends the
/// I/O of one that was killed.
pub const EMULATED_LOCK_PATIENCE: Duration = Duration::from_secs(10);
/// How long an exclusive command of the built-in array (COMPARE AND WRITE) waits for the plain
/// writes under way before it answers BUSY.
pub const EMULATED_EXCLUSIVE_WAIT: Duration = Duration::from_secs(1);
/// Registrations of the built-in array; one more is refused. Twice what one backend needs.
pub const EMULATED_REGISTRATIONS_MAX: usize = 512;
/// Bytes of a PERSISTENT RESERVE OUT parameter list that the built-in array looks at.
pub const EMULATED_RESERVATION_LIST_MAX: usize = 4096;
/// Transport events that a port keeps for the manager; older ones are dropped.
pub const EMULATED_EVENTS_MAX: usize = 64;

/// Bytes of data that one command over iSCSI may move. Linux sends up to 32 MiB.
pub const ISCSI_TRANSFER_MAX: u32 = 32 << 20;
/// The longest CDB that fits into a SCSI Command PDU without additional headers, which libiscsi
/// does not send.
pub const ISCSI_CDB_MAX: usize = 16;
/// Commands that one channel of an iSCSI path has under way; one more ends as the host's fault.
pub const ISCSI_FLIGHTS_MAX: usize = 2048;
/// PDUs that wait inside libiscsi, of which nobody can say whether they were sent; from here on
/// commands wait before it.
pub const ISCSI_UNSENT_MAX: usize = 32;
/// Transport events that an iSCSI path keeps for the manager; older ones are dropped.
pub const ISCSI_EVENTS_MAX: usize = 64;
/// Nothing was heard from the target for so long: it is asked with a NOP-Out...
pub const ISCSI_NOP_AFTER: Duration = Duration::from_millis(1000);
/// ...and when still nothing was heard after that, the session is dropped.
pub const ISCSI_NOP_PATIENCE: Duration = Duration::from_millis(1500);
/// Sent data that the target's host has not acknowledged for so long ends the connection; so does
/// silence with the third of TCP's own probes, one each second.
pub const TCP_USER_TIMEOUT: Duration = Duration::from_millis(2500);
/// From the first try to reach a portal to the end of the login.
pub const ISCSI_LOGIN_TIMEOUT: Duration = Duration::from_secs(3);
/// Portals to which one login lets itself be sent on.
pub const ISCSI_REDIRECTS_MAX: u8 = 4;
/// How long to wait before the second login in a row; the first is tried at once...
pub const ISCSI_LOGIN_BACKOFF: Duration = Duration::from_millis(100);
/// ...and before later ones at most.
pub const ISCSI_LOGIN_BACKOFF_MAX: Duration = Duration::from_secs(5);
/// A session that has lasted so long is followed by a login at once again.
pub const ISCSI_STABLE: Duration = Duration::from_secs(5);
/// How long the end of a path waits for the target's answer to its logout.
pub const ISCSI_LOGOUT_GRACE: Duration = Duration::from_millis(500);
/// After two lanes have sent on one session, its thread reads for so long.
pub const ISCSI_CROWDED: Duration = Duration::from_millis(1000);
/// The longest name, user or secret that libiscsi keeps.
pub const ISCSI_TEXT_MAX: usize = 255;
/// The longest iSCSI name (RFC 7143 4.2.7.2).
pub const ISCSI_NAME_MAX: usize = 223;

/// How often the states of host devices behind paths are read while a guest is attached...
pub const WATCH_INTERVAL: Duration = Duration::from_millis(200);
/// ...and while none is.
pub const WATCH_INTERVAL_IDLE: Duration = Duration::from_secs(1);
/// How often the host is searched for paths without a reason: uevents give one.
pub const RESCAN_INTERVAL: Duration = Duration::from_secs(30);
/// The same where uevents cannot be heard.
pub const RESCAN_INTERVAL_DEAF: Duration = Duration::from_secs(5);
/// How long after a uevent the host is searched: soon, and when udev has made its links and given
/// the nodes their permissions.
pub const RESCAN_AFTER_EVENT: [Duration; 3] =
    [Duration::from_millis(100), Duration::from_secs(1), Duration::from_secs(4)];
/// Paths that are being opened at once.
pub const OPENINGS_MAX: usize = 32;
/// How long a host's own timers may keep commands of a lost link before `--check` warns.
pub const HOST_PATIENCE: Duration = Duration::from_secs(30);

// A blocked path gets no new command 250 ms after it shows: a look, and a little to tell of it.
const _: () = assert!(WATCH_INTERVAL.as_millis() + 50 <= 250);
const _: () = assert!(OPENINGS_MAX <= PATHS_MAX);
/// Bytes of data that one command to a host device may move. Linux sends up to 32 MiB.
pub const SG_TRANSFER_MAX: u32 = 32 << 20;
/// The longest CDB that the kernel's SCSI midlayer carries.
pub const SG_CDB_MAX: usize = 32;
/// Commands that one channel of a host device has under way; one more ends as the host's fault.
pub const SG_FLIGHTS_MAX: usize = 2048;
/// Threads of a host device at most, and so its commands in the kernel at once.
pub const SG_THREADS_MAX: usize = 32;
/// Commands that one thread has in the kernel over io_uring, where a host device takes them so.
pub const SG_RING_DEPTH: usize = 128;
/// Bytes of such a thread's stack.
pub const SG_STACK: usize = 256 << 10;
/// Bounce memory begins at multiples of so many bytes: adapters take it as it is then.
pub const SG_BOUNCE_ALIGN: usize = 4096;
/// Bytes of bounce memory that a thread keeps between commands; what a larger one needed it gives
/// back with the next smaller one.
pub const SG_BOUNCE_KEEP: usize = 1 << 20;
/// The kernel's own time for a command is so much longer than ours: its error handler stops all
/// devices of an adapter, and is called for only where we have given up. With the default the sum
/// is what sd and bsg nodes round up to.
pub const SG_TIMEOUT_MARGIN: Duration = Duration::from_secs(2);
/// A host device is gone: how long to wait before its node is opened again, at first...
pub const SG_REOPEN_BACKOFF: Duration = Duration::from_millis(100);
/// ...and at last.
pub const SG_REOPEN_BACKOFF_MAX: Duration = Duration::from_secs(1);
/// Transport events that a host device keeps for the manager; older ones are dropped.
pub const SG_EVENTS_MAX: usize = 64;

const _: () = assert!(SG_TRANSFER_MAX <= TRANSFER_MAX);
const _: () = assert!(SG_FLIGHTS_MAX >= RING_SIZE_MAX as usize);
const _: () = assert!(SG_BOUNCE_ALIGN.is_power_of_two());
const _: () = assert!(SG_BOUNCE_KEEP.is_multiple_of(SG_BOUNCE_ALIGN));
const _: () = assert!(SG_REOPEN_BACKOFF.as_millis() <= SG_REOPEN_BACKOFF_MAX.as_millis());
const _: () = assert!(ISCSI_TRANSFER_MAX <= TRANSFER_MAX);
const _: () = assert!(ISCSI_FLIGHTS_MAX >= RING_SIZE_MAX as usize);
// A path that dies silently fails in less than three seconds.
const _: () = assert!(ISCSI_NOP_AFTER.as_millis() + ISCSI_NOP_PATIENCE.as_millis() < 3000);
const _: () = assert!(TCP_USER_TIMEOUT.as_millis() < 3000);
const _: () = assert!(EMULATED_REGISTRATIONS_MAX >= 2 * PATHS_MAX);
const _: () = assert!(EMULATED_TRANSFER_MAX <= TRANSFER_MAX);
const _: () = assert!(EMULATED_FLIGHTS_MAX >= RING_SIZE_MAX as usize);
