//! Lanes between a guest that wants nothing but writes and paths that answer at once: everything
//! that is between them is what a command costs.

use std::sync::Arc;
use std::time::{Duration, Instant};

use vhost_user_scsi_mpath::buffer::{OwnedBuffer, Segments};
use vhost_user_scsi_mpath::completion::{Outcome, Owed, Response};
use vhost_user_scsi_mpath::engine::{Deadlines, Driven, Guest, Lane, Manager, Request};
use vhost_user_scsi_mpath::ids::{LaneId, RingIndex};
use vhost_user_scsi_mpath::multipath::{Failback, NoPathRetry, Placement, Policy, Settings, Table};
use vhost_user_scsi_mpath::path::address::NullAddress;
use vhost_user_scsi_mpath::path::null::NullPath;
use vhost_user_scsi_mpath::scsi::{Cdb, Status};
use vhost_user_scsi_mpath::virtio_scsi::{
    Address, ControlRequest, ControlResponse, Event, RequestHeader, TaskAttribute,
};

/// Bytes of a command.
pub const BYTES: usize = 4096;
const SIZE: u64 = 1 << 30;
/// As the configuration's defaults have it.
const SECONDS: Duration = Duration::from_secs(5);

/// A guest with a fixed number of requests in each turn.
pub struct Writer {
    data: OwnedBuffer,
    /// Requests that it gives in this turn.
    pub left: u16,
    lba: u32,
    /// Answers that it got.
    pub answered: u64,
}

impl Guest for Writer {
    fn next(&mut self, request: &mut Request) -> Option<Owed> {
        self.left = self.left.checked_sub(1)?;
        self.lba = (self.lba + 8) % (SIZE / 512) as u32;
        let mut cdb = [0x2A, 0, 0, 0, 0, 0, 0, 0, 8, 0];
        cdb[2..6].copy_from_slice(&self.lba.to_be_bytes());
        request.header = Some(RequestHeader {
            address: Address::LogicalUnit { target: 0, lun: 0 },
            tag: u64::from(self.left),
            attribute: TaskAttribute::Simple,
            cdb: Cdb::new(&cdb),
        });
        request.data_out.assign_range(self.data.segments(), 0, BYTES);
        request.data_in.clear();
        request.again = false;
        Some(Owed::new(RingIndex(2), self.left))
    }

    fn complete(&mut self, owed: Owed, outcome: &Outcome, _: &Segments) {
        assert_eq!((outcome.response, outcome.status), (Response::Ok, Status::GOOD));
        owed.settle();
        self.answered += 1;
    }

    fn next_control(&mut self) -> Option<(Owed, ControlRequest)> {
        None
    }

    fn answer_control(&mut self, owed: Owed, _: &ControlRequest, _: ControlResponse) {
        owed.settle();
    }

    fn post_event(&mut self, _: Event) {}

    fn flush(&mut self) {}
}

/// Lanes that serve, and all that they need.
pub struct Scene {
    _manager: Manager<NullPath>,
    lanes: Vec<Lane<NullPath>>,
    /// The guest.
    pub guest: Writer,
    /// The paths, as the lane sees them.
    pub table: Arc<Table>,
    now: Instant,
}

impl Scene {
    /// So many paths, all of them up, and so many lanes. Time passes only where a test lets it.
    pub fn new(paths: usize, lanes: usize) -> Self {
        let now = Instant::now();
        let settings = Settings {
            wwid: None,
            policy: Policy::ServiceTime,
            no_path_retry: NoPathRetry::Queue,
            write_quiesce: Duration::from_secs(1),
            failback: Failback::Immediate,
            explicit_alua: false,
        };
        let deadlines =
            Deadlines { path_timeout: SECONDS, command_deadline: 6 * SECONDS, hedging: None };
        let mut manager = Manager::new(settings, deadlines, now).expect("a mailbox");
        for number in 0..paths {
            let path = NullPath::open(&NullAddress { size: SIZE }).expect("a path");
            let name = format!("null-{number}");
            manager.add(name, Placement::default(), Arc::new(path), now).expect("a channel");
        }
        let lane_at = |at| manager.hub().lane_at(LaneId(at as u16), now).expect("a lane");
        let mut lanes: Vec<_> = (0..lanes).map(lane_at).collect();
        let mut guest = Writer { data: OwnedBuffer::zeroed(BYTES), left: 0, lba: 0, answered: 0 };
        lanes.iter_mut().for_each(Lane::resume);
        for _ in 0..100 {
            manager.turn(now);
            for lane in &mut lanes {
                lane.turn(&mut guest, now);
            }
        }
        let table = Arc::clone(&manager.hub().snapshot().table);
        let usable = table.entries.iter().filter(|entry| entry.is_usable()).count();
        assert_eq!(usable, paths, "all paths are up");
        Scene { _manager: manager, lanes, guest, table, now }
    }

    /// One turn of each lane with `depth` new commands, a few microseconds after the last one.
    pub fn turn(&mut self, depth: u16) {
        for lane in &mut self.lanes {
            self.now += Duration::from_micros(20);
            self.guest.left = depth;
            lane.turn(&mut self.guest, self.now);
            assert_eq!(self.guest.left, 0);
        }
    }
}
