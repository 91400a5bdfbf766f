//! Every bound and default in one place, with the relations between them checked at compile time.

mod transports;

use std::time::Duration;

pub use transports::*;

/// Virtqueues of a device at most: a vhost-user message names a ring in eight bits.
pub const RINGS_MAX: u16 = 256;
/// Request virtqueues served at most, whatever the configuration asks for.
pub const REQUEST_QUEUES_MAX: u16 = RINGS_MAX - 2;
/// Request virtqueues served by default (QEMU brings one per vCPU).
pub const REQUEST_QUEUES_DEFAULT: u16 = 64;
/// Entries of a virtqueue at most (QEMU's default is 128, its maximum 1024).
pub const RING_SIZE_MAX: u16 = 1024;
/// Memory regions at most (what QEMU and the vhost crate can bring over ADD_MEM_REG).
pub const MEMORY_SLOTS_MAX: u64 = 509;
/// Segments of one request at most: a ring's worth of descriptors, or an indirect table's.
pub const SEGMENTS_MAX: usize = 1024;
/// Bytes of data of one request at most. `residual` is 32 bits wide; Linux sends up to 32 MiB.
pub const TRANSFER_MAX: u32 = 256 << 20;
/// A stop's deadline is shared by all GET_VRING_BASE that follow each other within this time.
pub const STOP_GAP: Duration = Duration::from_secs(1);
/// How long after its deadline a drain may take before the log says what is being waited for.
pub const STOP_MARGIN: Duration = Duration::from_secs(1);
/// How long a lane looks for new requests at most before it sleeps. To wake a driver that sleeps takes
/// 20 to 50 us in a virtual machine, so the 32 us of QEMU's event loop often end just before its next
/// request: that costs more than to look on for it.
pub const BUSY_POLL_DEFAULT: Duration = Duration::from_micros(64);
/// How long it looks after the first sleep that was a short one.
pub const SPIN_FIRST: Duration = Duration::from_micros(4);
/// Looks in vain, one after the other, until a lane leaves it: more than it takes to find the time.
pub const SPIN_VAIN_MAX: u32 = 8;
/// For so many sleeps the first time...
pub const SPIN_REST_FIRST: u32 = 64;
/// ...for twice as many each time, up to this.
pub const SPIN_REST_MOST: u32 = 4096;
/// Log lines of one kind about one path or ring before they are only counted...
pub const LOG_BURST: u32 = 16;
/// ...until this much time has passed since the first of them; then one line tells their number...
pub const LOG_INTERVAL: Duration = Duration::from_secs(10);
/// ...and repeats so many bytes of the last one.
pub const LOG_LIKE_MAX: usize = 300;
/// As [`LOG_BURST`], for all of a guest's rings together.
pub const LOG_RINGS_BURST: u32 = 4 * LOG_BURST;
/// Kinds of lines that are counted apart; what is more shares one burst.
pub const LOG_SUBJECTS_MAX: usize = 1024;
/// How long to wait before the next try where a connection could not be accepted.
pub const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// Paths at most, those included that are being removed.
pub const PATHS_MAX: usize = 256;
/// Times one command is sent before it fails, whatever time is left. Attempts that never left do
/// not count, and a write that awaits its proof is bounded by the command's deadline.
pub const TRIES_MAX: u8 = 16;

/// Seconds until one attempt on one path is given up.
pub const PATH_TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);
/// Seconds of trying per command; stands still while no path exists.
pub const COMMAND_DEADLINE_DEFAULT: Duration = Duration::from_secs(30);
/// Seconds to wait where a write's first attempt cannot be proven dead otherwise.
pub const WRITE_QUIESCE_DEFAULT: Duration = Duration::from_secs(1);
/// Seconds for a device-wide drain.
pub const STOP_DEADLINE_DEFAULT: Duration = Duration::from_secs(5);

/// BUSY and TASK SET FULL on one path: how long to wait before the next try.
pub const BUSY_BACKOFF: Duration = Duration::from_millis(10);
/// BUSY and TASK SET FULL in a row before the guest is told, so that it can slow down.
pub const BUSY_TRIES_MAX: u8 = 4;
/// All paths have been tried without success: how long to wait before the next round.
pub const ROUND_BACKOFF: Duration = Duration::from_millis(100);
/// Ports between two access states: how often the array is asked for the states of its groups.
pub const TRANSITION_POLL: Duration = Duration::from_millis(100);
/// How long an array may take between two access states that does not say so itself.
pub const TRANSITION_TIME_DEFAULT: Duration = Duration::from_secs(60);
/// All paths say that there is no such logical unit: how long they must go on saying so before
/// commands fail, since arrays say so for a moment when a controller takes over.
pub const GONE_CONFIRMATION: Duration = Duration::from_secs(1);
/// The logical unit is gone for so long: the guest's driver is told that it was removed.
pub const GONE_REMOVAL: Duration = Duration::from_secs(30);
/// SET TARGET PORT GROUPS is sent this often at most...
pub const EXPLICIT_INTERVAL: Duration = Duration::from_secs(10);
/// ...not before nobody else has changed the groups for so long...
pub const EXPLICIT_QUIET: Duration = Duration::from_secs(5);
/// ...and not any more when the array has undone it so many times: another host wants the other
/// group, and the two would take it from each other for ever.
pub const EXPLICIT_UNDONE_MAX: u32 = 3;

/// How often a path in use is asked whether it is alive and which unit it leads to, after trouble...
pub const PROBE_INTERVAL_HEALTHY: Duration = Duration::from_secs(2);
/// ...and how often when it has been well for a while. Not every target tells when another unit
/// takes the place of one: until the next question its writes would go there.
pub const PROBE_INTERVAL_HEALTHY_MAX: Duration = Duration::from_secs(5);
/// How often a failed path is asked, at first.
pub const PROBE_INTERVAL_FAILED: Duration = Duration::from_millis(500);
/// How often a failed path is asked, at last.
pub const PROBE_INTERVAL_FAILED_MAX: Duration = Duration::from_secs(5);
/// How long a failed path may take to answer a question, at first. `path_timeout` bounds it too.
pub const PROBE_PATIENCE_FAILED: Duration = Duration::from_secs(1);
/// Unit attentions that one probe clears before it gives the path up.
pub const PROBE_UNIT_ATTENTIONS_MAX: u8 = 8;

/// `service-time`: a command costs as much time as so many bytes of its data.
pub const SERVICE_UNIT_BYTES: u32 = 64 << 10;
/// `service-time`: with so many commands under way a path is expected to take twice as long.
pub const SERVICE_PARALLEL: u32 = 8;
/// `service-time`: an idle path is measured anew, with one command, after so long...
pub const SERVICE_STALE: Duration = Duration::from_secs(1);
/// ...and a moment: a lane looks for such a path no more often, and at some commands only...
pub const SERVICE_LOOK: Duration = Duration::from_millis(50);
/// ...and by one command of so many of a lane at most, so that a slow path does not show in the
/// slowest percent.
pub const SERVICE_PROBE_SHARE: u32 = 256;

const _: () = assert!(SERVICE_UNIT_BYTES.is_multiple_of(SERVICE_PARALLEL));
const _: () = assert!(SERVICE_PROBE_SHARE > 100);

/// Hedged reads: sizes that are measured apart, in bytes; longer reads are not hedged.
pub const HEDGE_SIZES: [usize; 4] = [4 << 10, 16 << 10, 64 << 10, 256 << 10];
/// Memory for hedged reads, in bytes per lane.
pub const HEDGE_POOL_BYTES: usize = 4 << 20;
/// Share of the reads that may be cloned.
pub const HEDGE_BUDGET_DEFAULT: f64 = 0.02;
/// What that may be. One read in ten is more than any array should be asked to do twice.
pub const HEDGE_BUDGET_RANGE: (f64, f64) = (0.001, 0.1);
/// Percentile of the reads' times from which on one is slow.
pub const HEDGE_PERCENTILE_DEFAULT: f64 = 99.0;
/// What that may be.
pub const HEDGE_PERCENTILE_RANGE: (f64, f64) = (50.0, 99.9);
/// Clones that may be sent in a row when the budget was not used for a while.
pub const HEDGE_BURST: u32 = 8;
/// Reads of one size on one path that must have been measured before one of them is slow.
pub const HEDGE_SAMPLES_MIN: u32 = 128;
/// From so many reads on the old ones count half.
pub const HEDGE_WINDOW: u32 = 4096;
/// After so many measurements the times are reckoned anew.
pub const HEDGE_RECKON: u32 = 64;
/// No read is slow before this: a thread is not woken much faster.
pub const HEDGE_AFTER_MIN: Duration = Duration::from_micros(100);
/// After so many clones it is judged whether they help...
pub const HEDGE_JUDGED: u32 = 32;
/// ...which they do when so many of them were first; else...
pub const HEDGE_WINS_MIN: u32 = 4;
/// ...there are none for so long.
pub const HEDGE_PAUSE: Duration = Duration::from_secs(10);

const _: () = assert!(HEDGE_SIZES[HEDGE_SIZES.len() - 1] * 2 <= HEDGE_POOL_BYTES);
const _: () = assert!(HEDGE_WINS_MIN < HEDGE_JUDGED && HEDGE_SAMPLES_MIN < HEDGE_WINDOW);
/// A READ or WRITE that has been under way for so long makes its path suspect...
pub const SUSPECT_AFTER: Duration = Duration::from_millis(300);
/// ...if that is so many times what the path's commands take on average...
pub const SUSPECT_FACTOR: u32 = 4;
/// ...and longer than its data takes on a line of so many bytes in a millisecond.
pub const SUSPECT_BYTES_PER_MS: u64 = 10_000;
/// A suspect path is given up when it has not answered for so long while a sibling did.
pub const SUSPECT_PATIENCE: Duration = Duration::from_millis(400);
/// A sibling that has answered within this time answers.
pub const SUSPECT_SIGN: Duration = Duration::from_millis(200);
/// How often suspects are looked at, and siblings asked that carry nothing.
pub const SUSPECT_LOOK: Duration = Duration::from_millis(50);

/// How often paths are compared with each other while they carry commands...
pub const HEALTH_TICK: Duration = Duration::from_millis(250);
/// ...and at last while they carry none.
pub const HEALTH_TICK_IDLE: Duration = Duration::from_secs(2);
/// A path limps when a block takes so many times as long as over its sibling...
pub const LIMP_FACTOR: u32 = 8;
/// ...and at least so long.
pub const LIMP_FLOOR: Duration = Duration::from_millis(2);
/// Without anything to compare with, commands that take so long make one look.
pub const LIMP_FLOOR_ALONE: Duration = Duration::from_millis(20);
/// Ticks in a row in which a path was slow, before it is tried.
pub const LIMP_TICKS: u8 = 2;
/// Blocks that are read over a path and its sibling to find out whether it limps.
pub const LIMP_READINGS: usize = 3;
/// Reading for so long says enough, however few blocks it were.
pub const LIMP_READING_MAX: Duration = Duration::from_millis(250);
/// A path was found well: how long it is not tried again, at first...
pub const LIMP_REST: Duration = Duration::from_secs(1);
/// ...and at last: a trial costs a few blocks, a limping path costs the guest more.
pub const LIMP_REST_MAX: Duration = Duration::from_secs(8);
/// A path that nobody accused for so long has rested enough.
pub const LIMP_REST_FORGET: Duration = Duration::from_secs(30);
/// A limping path is well again when a block takes at most so many times as long as over its
/// sibling...
pub const LIMP_RECOVERED: u32 = 3;
/// ...so many times in a row.
pub const LIMP_GOOD: u8 = 4;
/// Commands count once per piece of so many bytes when paths are compared.
pub const LIMP_PIECE: u32 = 256 << 10;
/// What was read over a path longer ago than this says nothing of it.
pub const LIMP_READING_AGE: Duration = Duration::from_secs(5);

/// Errors over one path within [`ERROR_WINDOW`] that make it shaky, if no sibling has a quarter.
pub const ERRORS_MAX: u32 = 10;
/// See [`ERRORS_MAX`].
pub const ERROR_WINDOW: Duration = Duration::from_secs(10);
/// A command that took suspiciously long counts as so many errors.
pub const ERRORS_PER_SUSPICION: u32 = 3;
/// How long a path with too many errors is held down at least.
pub const ERROR_HOLD: Duration = Duration::from_secs(10);
/// A path that fails again is held down for so long when it has come back, then twice as long...
pub const HOLD_DOWN: Duration = Duration::from_secs(1);
/// ...and so on, up to this.
pub const HOLD_DOWN_MAX: Duration = Duration::from_secs(60);
/// After so long without a fault the next one is the first again.
pub const HOLD_DOWN_FORGET: Duration = Duration::from_secs(300);

/// Requests that a lane takes in one turn, so that ends and mail are not kept waiting.
pub const TURN_REQUESTS_MAX: usize = 256;
/// Times that a lane sends and takes ends in one turn: a failover may need a few.
pub const TURN_EXCHANGES_MAX: usize = 8;
/// Messages that the manager has not read from which on lanes take no new requests: there are
/// commands of the guest's, and answers of an array, each of which makes one.
pub const MAIL_UNREAD_MAX: usize = 4096;
/// How long a lane waits then, before it looks again.
pub const MAIL_PAUSE: Duration = Duration::from_millis(1);
/// How often a lane looks whether one of its commands has been under way for too long.
pub const DEADLINE_SCAN: Duration = Duration::from_millis(20);

/// A lane could not open a channel to a path: how long to wait before the next try.
pub const CHANNEL_BACKOFF: Duration = Duration::from_secs(1);
/// Under `no_path_retry = "fail"` commands wait so long for a path that the host's transport has
/// just blocked: a switch that is started anew blocks all of them for a moment, and multipathd's
/// `fast_io_fail_tmo` gives a port as long.
pub const BLOCKED_HOPE: Duration = Duration::from_secs(5);
/// Doubts about a path's identity in a row that are followed up at once; then it has to wait.
pub const DOUBTS_MAX: u32 = 4;
/// Doubts are in a row when they come within this time of each other.
pub const DOUBT_WINDOW: Duration = Duration::from_secs(10);

/// Without a usable path a service manager is told after so long that the backend is ready: it
/// listens, and the host's boot must not wait for an array.
pub const READY_PATIENCE: Duration = Duration::from_secs(10);

/// Another backend of the host reserves over the same host devices: how long to wait before it is
/// looked again whether it has gone.
pub const CLAIM_RETRY: Duration = Duration::from_secs(1);

/// Clients of the control socket at once.
pub const CONTROL_CLIENTS_MAX: usize = 32;
/// Bytes of one line from a control client.
pub const CONTROL_LINE_MAX: usize = 64 << 10;
/// Bytes waiting for a control client that does not read; then it is disconnected.
pub const CONTROL_BACKLOG_MAX: usize = 1 << 20;

/// Bytes of answers waiting for a control client from which on its commands wait as well.
pub const CONTROL_OUTPUT_SOFT_MAX: usize = 64 << 10;
/// Events between the threads that send them and the control thread; more are lost, and counted.
pub const CONTROL_EVENTS_MAX: usize = 1024;
/// Control commands given to the manager and not yet answered.
pub const CONTROL_ORDERS_MAX: usize = 64;
/// No descriptor left for another control client: how long to wait before trying again.
pub const CONTROL_ACCEPT_BACKOFF: Duration = Duration::from_secs(1);
/// The control thread is to end: how long it waits for answers to orders that are under way.
pub const CONTROL_STOP_GRACE: Duration = Duration::from_millis(500);
/// Bytes of one line from a backend, as far as its clients accept it.
pub const CONTROL_REPLY_MAX: usize = 16 << 20;
/// How long a client waits for a backend's answer.
pub const CONTROL_REPLY_TIMEOUT: Duration = Duration::from_secs(10);

/// How often the history gets a point.
pub const HISTORY_INTERVAL: Duration = Duration::from_secs(1);
/// Points that it keeps of the LUN and of each path: ten minutes.
pub const HISTORY_POINTS_MAX: usize = 600;
/// Events that it keeps.
pub const HISTORY_EVENTS_MAX: usize = 256;

/// Bytes of a metrics client's header at most.
pub const METRICS_HEADER_MAX: usize = 8 << 10;
/// A metrics client's time, from its connection to the last byte of the answer; they are served one
/// after the other.
pub const METRICS_CLIENT_TIMEOUT: Duration = Duration::from_secs(2);

/// How often `mpathctl top` asks the backend.
pub const TOP_INTERVAL: Duration = Duration::from_secs(1);
/// How long `mpathctl top` waits for a key before it looks for reports.
pub const TOP_KEY_PATIENCE: Duration = Duration::from_millis(100);
/// Events that `mpathctl top` keeps.
pub const TOP_EVENTS_MAX: usize = 200;
/// Latencies of each path that `mpathctl top` keeps for its sparklines.
pub const TOP_HISTORY_MAX: usize = 300;

/// Bytes of a multipath.conf that is imported.
pub const IMPORT_FILE_MAX: u64 = 1 << 20;

/// What a duration in the configuration may be, in seconds.
pub const STOP_DEADLINE_RANGE: (f64, f64) = (0.1, 600.0);
/// The same for `command_deadline`.
pub const COMMAND_DEADLINE_RANGE: (f64, f64) = (1.0, 3600.0);
/// The same for `path_timeout`.
pub const PATH_TIMEOUT_RANGE: (f64, f64) = (0.1, 600.0);
/// The same for `write_quiesce`; 0 trusts that no array and no wire delays a write.
pub const WRITE_QUIESCE_RANGE: (f64, f64) = (0.0, 60.0);
/// The same for `no_path_retry` (a week) and `failback`; 0 is "fail" and "immediate".
pub const POLICY_SECONDS_RANGE: (f64, f64) = (0.0, 604_800.0);
/// Bounds of `busy_poll_us`, in microseconds.
pub const BUSY_POLL_US_RANGE: (f64, f64) = (0.0, 1000.0);

const _: () = assert!(TOP_KEY_PATIENCE.as_millis() < TOP_INTERVAL.as_millis());
const _: () = assert!(CONTROL_LINE_MAX <= CONTROL_BACKLOG_MAX);
const _: () = assert!(CONTROL_OUTPUT_SOFT_MAX < CONTROL_BACKLOG_MAX);
const _: () = assert!(CONTROL_BACKLOG_MAX <= CONTROL_REPLY_MAX);
const _: () = assert!(CONTROL_CLIENTS_MAX <= CONTROL_ORDERS_MAX);

const _: () = assert!(REQUEST_QUEUES_DEFAULT <= REQUEST_QUEUES_MAX);
const _: () = assert!(PATH_TIMEOUT_DEFAULT.as_millis() < COMMAND_DEADLINE_DEFAULT.as_millis());
const _: () = assert!(WRITE_QUIESCE_DEFAULT.as_millis() < COMMAND_DEADLINE_DEFAULT.as_millis());
const _: () = assert!(TRANSITION_POLL.as_millis() < PROBE_INTERVAL_FAILED.as_millis());
const _: () = assert!(GONE_CONFIRMATION.as_millis() >= 2 * PROBE_INTERVAL_FAILED.as_millis());
const _: () = assert!(GONE_CONFIRMATION.as_millis() < GONE_REMOVAL.as_millis());
const _: () = assert!(EXPLICIT_QUIET.as_millis() <= EXPLICIT_INTERVAL.as_millis());
const _: () = assert!(PROBE_INTERVAL_FAILED.as_millis() < PROBE_INTERVAL_FAILED_MAX.as_millis());
const _: () = assert!(PATHS_MAX + RINGS_MAX as usize <= LOG_SUBJECTS_MAX);
const _: () = assert!((RING_SIZE_MAX as usize) <= SEGMENTS_MAX);
const _: () = assert!(PROBE_INTERVAL_HEALTHY.as_millis() < PROBE_INTERVAL_HEALTHY_MAX.as_millis());
// A read on a path that dies silently goes on elsewhere in less than a second.
const _: () = assert!(
    SUSPECT_AFTER.as_millis()
        + DEADLINE_SCAN.as_millis()
        + SUSPECT_PATIENCE.as_millis()
        + 2 * SUSPECT_LOOK.as_millis()
        < 1000
);
const _: () = assert!(2 * SUSPECT_LOOK.as_millis() < SUSPECT_SIGN.as_millis());
const _: () = assert!(SUSPECT_SIGN.as_millis() <= SUSPECT_PATIENCE.as_millis());
// An array that pauses for longer than it takes to give a path up costs no path; an attempt that
// nobody vouches for ends by its own time limit.
const _: () = assert!(SUSPECT_AFTER.as_millis() < PATH_TIMEOUT_DEFAULT.as_millis());
const _: () = assert!(LIMP_RECOVERED < LIMP_FACTOR);
const _: () = assert!(LIMP_REST.as_millis() < LIMP_REST_MAX.as_millis());
const _: () = assert!(HOLD_DOWN_MAX.as_millis() < HOLD_DOWN_FORGET.as_millis());
const _: () = assert!(HEALTH_TICK.as_millis() < HEALTH_TICK_IDLE.as_millis());
