//! The lane's channels, and what the lane knows about paths before the manager does.

use std::os::fd::RawFd;
use std::time::Instant;

use crate::engine::messages::Snapshot;
use crate::ids::{AttemptId, PathId};
use crate::multipath::retry::Problem;
use crate::multipath::select::PathSet;
use crate::path::{Channel, Ended, Task, Transport};

#[derive(Debug)]
struct Port<C> {
    id: PathId,
    channel: C,
    /// Something was submitted since the last flush.
    dirty: bool,
    /// Attempts under way.
    flying: u32,
}

/// Ends that came in together, and the path that each came from.
#[derive(Debug, Default)]
pub struct Batch {
    ended: Vec<Ended>,
    origins: Vec<PathId>,
}

impl Batch {
    /// Takes all of them out; the lists keep their memory.
    pub fn drain(&mut self) -> impl Iterator<Item = (PathId, Ended)> {
        self.origins.drain(..).zip(self.ended.drain(..))
    }

    /// True without any.
    pub fn is_empty(&self) -> bool {
        self.ended.is_empty()
    }
}

/// The channels of one lane.
#[derive(Debug)]
pub struct Paths<C> {
    ports: Vec<Port<C>>,
    /// Paths that failed under this lane's hands, with the number of the report about it: not used
    /// again before a snapshot takes that report into account.
    suspects: Vec<(PathId, u64)>,
    suspected: PathSet,
    reports: u64,
    /// What the manager was told and has not answered to yet: not told again meanwhile.
    told: Vec<(PathId, Problem, u64)>,
    /// Commands that moved: from, to, how many.
    moves: Vec<(PathId, PathId, u64)>,
    /// Paths of the table to which no channel could be opened.
    missing: PathSet,
    wait_fds: Vec<RawFd>,
    wait_fds_version: u64,
}

impl<C: Channel> Paths<C> {
    /// No path yet; `mail` is waited on as well.
    pub fn new(mail: RawFd) -> Self {
        Paths {
            ports: Vec::new(),
            suspects: Vec::new(),
            suspected: PathSet::default(),
            reports: 0,
            told: Vec::new(),
            moves: Vec::new(),
            missing: PathSet::default(),
            wait_fds: vec![mail],
            wait_fds_version: 0,
        }
    }

    /// Opens channels to paths that are new in `snapshot`, and drops those that are gone. One that
    /// still has attempts on it stays until they have ended.
    pub fn adopt<T: Transport<Channel = C>>(&mut self, snapshot: &Snapshot<T>) {
        let before = self.ports.len();
        self.ports.retain(|port| port.flying > 0 || snapshot.transport(port.id).is_some());
        let mut changed = self.ports.len() != before;
        self.missing = PathSet::default();
        for (id, transport) in &snapshot.transports {
            if self.ports.iter().any(|port| port.id == *id) {
                continue;
            }
            match transport.channel() {
                Ok(channel) => {
                    self.ports.push(Port { id: *id, channel, dirty: false, flying: 0 });
                    changed = true;
                }
                Err(error) => {
                    log::warn!("no channel to {id} for a lane: {error}");
                    self.missing.insert(*id);
                }
            }
        }
        if changed {
            self.wait_fds.truncate(1);
            self.wait_fds.extend(self.ports.iter().filter_map(|port| port.channel.ready_fd()));
            self.wait_fds_version += 1;
        }
    }

    /// True while there are paths of the table to which no channel could be opened.
    pub fn has_missing(&self) -> bool {
        !self.missing.is_empty()
    }

    /// True while attempts are under way on a path that `snapshot` no longer has.
    pub fn has_leaving<T>(&self, snapshot: &Snapshot<T>) -> bool {
        self.ports.iter().any(|port| snapshot.transport(port.id).is_none())
    }

    /// Sends.
    pub fn submit(&mut self, path: PathId, attempt: AttemptId, task: Task<'_>, now: Instant) {
        if let Some(port) = self.port(path) {
            port.flying += 1;
            port.dirty = true;
            port.channel.submit(attempt, task, now);
        }
    }

    /// Asks for an attempt's end.
    pub fn recall(&mut self, path: PathId, attempt: AttemptId) {
        if let Some(port) = self.port(path) {
            port.channel.recall(attempt);
        }
    }

    /// Hands on what was submitted.
    pub fn flush(&mut self) {
        for port in self.ports.iter_mut().filter(|port| port.dirty) {
            port.dirty = false;
            port.channel.flush();
        }
    }

    /// Takes what has ended into `batch`.
    pub fn reap(&mut self, now: Instant, batch: &mut Batch) {
        for port in &mut self.ports {
            let before = batch.ended.len();
            port.channel.reap(now, &mut batch.ended);
            let new = batch.ended.len() - before;
            debug_assert!(new as u32 <= port.flying, "more ends than attempts on {}", port.id);
            port.flying -= (new as u32).min(port.flying);
            batch.origins.extend(std::iter::repeat_n(port.id, new));
        }
    }

    /// When a channel wants to be looked at.
    pub fn next_timer(&self) -> Option<Instant> {
        self.ports.iter().filter_map(|port| port.channel.next_timer()).min()
    }

    /// The number of a report about `path`; `None` when the manager has been told the same and has
    /// not answered to it yet.
    pub fn next_report(&mut self, path: PathId, problem: Problem) -> Option<u64> {
        if self.told.iter().any(|(told, what, _)| (*told, *what) == (path, problem)) {
            return None;
        }
        self.reports += 1;
        self.told.push((path, problem, self.reports));
        Some(self.reports)
    }

    /// Does not use `path` until the manager has taken `report` into account.
    pub fn suspect(&mut self, path: PathId, report: u64) {
        self.suspected.insert(path);
        self.suspects.push((path, report));
    }

    /// True when `path` failed and the manager has not answered to that yet.
    pub fn is_suspect(&self, path: PathId) -> bool {
        self.suspected.contains(path)
    }

    /// The paths that are not used for now.
    pub fn suspects(&self) -> PathSet {
        self.suspected.union(&self.missing)
    }

    /// The manager has taken all reports up to `number` into account.
    pub fn forget_heard(&mut self, number: u64) {
        self.suspects.retain(|(_, report)| *report > number);
        self.told.retain(|(.., report)| *report > number);
        self.suspected = PathSet::default();
        for (path, _) in &self.suspects {
            self.suspected.insert(*path);
        }
    }

    /// A command went on over another path.
    pub fn moved(&mut self, from: PathId, to: PathId) {
        match self.moves.iter_mut().find(|(a, b, _)| (*a, *b) == (from, to)) {
            Some((_, _, count)) => *count += 1,
            None => self.moves.push((from, to, 1)),
        }
    }

    /// The moves since the last call.
    pub fn take_moves(&mut self) -> Vec<(PathId, PathId, u64)> {
        std::mem::take(&mut self.moves)
    }

    /// See [`crate::engine::Driven::wait_fds`].
    pub fn wait_fds(&self) -> &[RawFd] {
        &self.wait_fds
    }

    /// See [`crate::engine::Driven::wait_fds_version`].
    pub fn wait_fds_version(&self) -> u64 {
        self.wait_fds_version
    }

    fn port(&mut self, path: PathId) -> Option<&mut Port<C>> {
        self.ports.iter_mut().find(|port| port.id == path)
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;
    use std::io;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::buffer::Segments;
    use crate::ids::Slot;
    use crate::multipath::{Policy, Table};
    use crate::path::{Failure, Fate, Reach, TransferLimits, TransportEvent};
    use crate::scsi::Cdb;

    /// Holds every attempt until it is recalled; has channels to give, or not.
    #[derive(Default)]
    struct Stuck(AtomicBool);

    #[derive(Default)]
    struct StuckChannel {
        held: Vec<AttemptId>,
        recalled: Vec<AttemptId>,
    }

    impl Transport for Stuck {
        type Channel = StuckChannel;

        fn channel(&self) -> io::Result<StuckChannel> {
            match self.0.load(Ordering::Relaxed) {
                true => Err(io::ErrorKind::OutOfMemory.into()),
                false => Ok(StuckChannel::default()),
            }
        }

        fn events(&self) -> Vec<TransportEvent> {
            Vec::new()
        }

        fn limits(&self) -> TransferLimits {
            TransferLimits { bytes_max: None }
        }

        fn engine(&self) -> Cow<'static, str> {
            "stuck".into()
        }
    }

    impl Channel for StuckChannel {
        fn submit(&mut self, attempt: AttemptId, _: Task<'_>, _: Instant) {
            self.held.push(attempt);
        }

        fn flush(&mut self) {}

        fn reap(&mut self, _: Instant, ended: &mut Vec<Ended>) {
            let fate = Fate::Failed(Failure::Recalled, Reach::Unknown);
            let end = |attempt| Ended { attempt, fate: fate.clone(), session: 0 };
            ended.extend(self.recalled.drain(..).map(end));
        }

        fn recall(&mut self, attempt: AttemptId) {
            self.held.retain(|held| *held != attempt);
            self.recalled.push(attempt);
        }

        fn ready_fd(&self) -> Option<RawFd> {
            None
        }

        fn next_timer(&self) -> Option<Instant> {
            None
        }
    }

    const PATH: PathId = PathId(3);

    fn snapshot(paths: &[Arc<Stuck>]) -> Snapshot<Stuck> {
        let transports = paths.iter().map(|path| (PATH, Arc::clone(path))).collect();
        Snapshot { table: Arc::new(Table::empty(Policy::Numa)), transports }
    }

    #[test]
    fn adopt_keeps_a_removed_path_until_its_attempts_have_ended() {
        let path = Arc::new(Stuck::default());
        let mut paths = Paths::new(-1);
        paths.adopt(&snapshot(&[path]));
        let attempt = AttemptId { slot: Slot(1), generation: 1 };
        let (cdb, none, now) = (Cdb::new(&[0; 6]), Segments::new(), Instant::now());
        paths.submit(PATH, attempt, Task { cdb: &cdb, data_out: &none, data_in: &none }, now);
        let without = snapshot(&[]);
        paths.adopt(&without);
        assert!(paths.has_leaving(&without));
        paths.recall(PATH, attempt);
        let mut batch = Batch::default();
        paths.reap(now, &mut batch);
        assert_eq!(
            batch.drain().map(|(path, end)| (path, end.attempt)).collect::<Vec<_>>(),
            [(PATH, attempt)]
        );
        paths.adopt(&without);
        assert!(!paths.has_leaving(&without));
    }

    #[test]
    fn adopt_tries_a_path_without_a_channel_again() {
        let path = Arc::new(Stuck::default());
        path.0.store(true, Ordering::Relaxed);
        let mut paths = Paths::new(-1);
        paths.adopt(&snapshot(&[Arc::clone(&path)]));
        assert!(paths.has_missing() && paths.suspects().contains(PATH));
        path.0.store(false, Ordering::Relaxed);
        paths.adopt(&snapshot(&[path]));
        assert!(!paths.has_missing() && !paths.suspects().contains(PATH));
    }

    #[test]
    fn next_report_tells_the_same_once_until_it_is_heard() {
        let mut paths: Paths<StuckChannel> = Paths::new(-1);
        assert_eq!(paths.next_report(PATH, Problem::SizeChanged), Some(1));
        assert_eq!(paths.next_report(PATH, Problem::SizeChanged), None);
        assert_eq!(paths.next_report(PATH, Problem::AccessChanged), Some(2));
        paths.forget_heard(1);
        assert_eq!(paths.next_report(PATH, Problem::SizeChanged), Some(3));
        assert_eq!(paths.next_report(PATH, Problem::AccessChanged), None);
    }
}
