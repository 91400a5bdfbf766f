//! A lane as seen by the thread that runs it. `front` owns the threads and knows nothing of what a
//! lane does; the simulator is another owner.

use std::os::fd::RawFd;
use std::time::{Duration, Instant};

use super::guest::Guest;
use crate::ids::LaneId;

/// What the owner of a lane should do after a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// Do not sleep: the lane stopped at its batch bound and has more to do.
    pub again: bool,
    /// Wake the lane at this time even if nothing becomes readable.
    pub timer: Option<Instant>,
}

/// The loop body of one lane. All methods are called by the one thread that owns it.
pub trait Driven: Send + 'static {
    /// One turn: reads the mail, takes back what has ended, takes new requests, sends, answers.
    /// Never blocks. Called when a descriptor of [`Driven::wait_fds`] or the ring's kick became
    /// readable, at the time that the last turn asked for, and once after every other call here.
    fn turn<G: Guest>(&mut self, guest: &mut G, now: Instant) -> Turn;

    /// Descriptors to wait on besides the ring's own, level-triggered. The lane reads them empty.
    fn wait_fds(&self) -> &[RawFd];

    /// Counts the changes of [`Driven::wait_fds`].
    fn wait_fds_version(&self) -> u64;

    /// The ring is about to stop: no new request is taken, and every request that was taken is
    /// answered, the last ones at `deadline`. Those that no path has are dealt with at once where
    /// [`Guest::leftovers`] has something better for them than a failure. Called again with another
    /// deadline, the earlier one counts.
    fn drain(&mut self, deadline: Instant);

    /// The control ring is about to stop: the task management functions that were taken are answered
    /// in their time, and those that are left at `deadline` with a failure. Requests go on.
    fn drain_tasks(&mut self, deadline: Instant);

    /// The connection is gone: requests are given up unanswered as soon as no path can touch
    /// their memory any more.
    fn disconnect(&mut self);

    /// True when no request is held and no memory is lent: after [`Driven::drain`] or
    /// [`Driven::disconnect`] the ring and the memory can go.
    fn is_idle(&self) -> bool;

    /// Requests are taken again. Called when a ring starts, before its first turn; where only the
    /// control or the event ring stopped, the lane may hold requests.
    fn resume(&mut self);
}

/// Makes lanes. `front` asks for one when a request ring starts for the first time.
pub trait Lanes: Send + Sync + 'static {
    /// The lane type.
    type Lane: Driven;

    /// A lane for the request ring `2 + id`. Lane 0 serves the control and event rings as well.
    fn lane(&self, id: LaneId) -> std::io::Result<Self::Lane>;

    /// A front end has connected (`true`) or gone (`false`).
    fn connected(&self, connected: bool);

    /// How long a command whose outcome is not known may take to land, once it has been given up.
    fn landing_time(&self) -> Duration {
        Duration::ZERO
    }

    /// Returns when nothing that the lanes of now have sent can be executed any more, or at
    /// `deadline`; true in the first case. Called when a guest is about to go on elsewhere.
    fn await_landing(&self, deadline: Instant) -> bool {
        let _ = deadline;
        true
    }
}
