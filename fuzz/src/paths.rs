//! Paths whose array answers whatever it likes.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use vhost_user_scsi_mpath::ids::{LaneId, PathId};
use vhost_user_scsi_mpath::limits::PROBE_UNIT_ATTENTIONS_MAX;
use vhost_user_scsi_mpath::lun::Face;
use vhost_user_scsi_mpath::multipath::probe::{Finding, Probe, Question, Step};
use vhost_user_scsi_mpath::multipath::retry::Problem;
use vhost_user_scsi_mpath::multipath::{
    Action, Core, Event, Failback, NoPathRetry, Placement, Policy, Settings,
};
use vhost_user_scsi_mpath::path::{Answer, Failure, Fate, Reach, Residual};
use vhost_user_scsi_mpath::scsi::inquiry::vpd_page;
use vhost_user_scsi_mpath::scsi::{Asc, Sense, SenseKey, Status, opcode};

use super::Bytes;

/// Questions of one probe at most: seven pages and nine others, and unit attentions begin it anew.
const QUESTIONS: usize = 200;
/// Bytes of room for one answer at most.
const ROOM: usize = 1 << 20;

/// An end of a question, and the data that came, as long as the room.
fn end(bytes: &mut Bytes<'_>, question: &Question) -> (Fate, Vec<u8>) {
    assert!(question.room <= ROOM, "{question:?}");
    let mut data = vec![0; question.room];
    let mut put = |from: &[u8]| {
        let len = from.len().min(data.len());
        data[..len].copy_from_slice(&from[..len]);
    };
    let choice = bytes.u8();
    let fate = match choice % 16 {
        // What a good array says, with some bytes that are not as they were.
        0..=7 => {
            let mut truth = truth(question);
            for _ in 0..choice % 16 {
                let (at, value) = (usize::from(bytes.u8()), bytes.u8());
                if let Some(byte) = truth.get_mut(at) {
                    *byte = value;
                }
            }
            put(&truth);
            answered(Status::GOOD, None, Residual::None)
        }
        8 => {
            let raw = bytes.piece();
            put(raw);
            answered(Status::GOOD, None, Residual::None)
        }
        9 => {
            put(&truth(question));
            answered(Status::GOOD, None, Residual::Under(bytes.u16().into()))
        }
        10 => {
            put(&truth(question));
            answered(Status::GOOD, None, Residual::Over(bytes.u32()))
        }
        11 => {
            let sense =
                Sense::fixed(SenseKey::from_low_nibble(bytes.u8()), Asc(bytes.u8(), bytes.u8()));
            answered(Status::CHECK_CONDITION, Some(sense), Residual::None)
        }
        12 => answered(
            Status::CHECK_CONDITION,
            Some(Sense::from_bytes(bytes.piece())),
            Residual::None,
        ),
        13 => answered(Status(bytes.u8()), None, Residual::None),
        14 => Fate::Failed(Failure::Disconnected, Reach::Unknown),
        _ => Fate::Failed(Failure::Transient, Reach::NotSent),
    };
    (fate, data)
}

fn answered(status: Status, sense: Option<Sense>, residual: Residual) -> Fate {
    Fate::Answered(Answer { status, sense: sense.map(Box::new), residual })
}

fn is_attention(fate: &Fate) -> bool {
    let Fate::Answered(answer) = fate else { return false };
    let sense =
        answer.sense.as_ref().and_then(|sense| Some((sense.decode()?, sense.is_deferred())));
    answer.status == Status::CHECK_CONDITION
        && matches!(sense, Some(((SenseKey::UnitAttention, _), false)))
}

/// What a good array says: one unit, two groups, one port in each.
fn truth(question: &Question) -> Vec<u8> {
    let cdb = question.cdb.padded();
    match (cdb[0], cdb[1] & 0x1F) {
        (opcode::INQUIRY, 0) => {
            let mut standard = vec![0; 96];
            (standard[4], standard[5]) = (91, 0x10);
            standard[8..36].copy_from_slice(b"ACME    LYING DISK      1.0 ");
            standard
        }
        (opcode::INQUIRY, _) => match cdb[2] {
            0x00 => vpd_page(0x00, &[0x00, 0x80, 0x83, 0xB0]),
            0x80 => vpd_page(0x80, b"serial-1"),
            0x83 => {
                let naa = [&[0x01, 0x03, 0, 16, 0x60], &[0x11; 15][..]].concat();
                let port = [0x01, 0x14, 0, 4, 0, 0, 0, 1, 0x01, 0x15, 0, 4, 0, 0, 0, 1];
                vpd_page(0x83, &[&naa[..], &port].concat())
            }
            page => vpd_page(page, &[0; 60]),
        },
        (opcode::SERVICE_ACTION_IN_16, _) => {
            let mut data = vec![0; 32];
            (data[6], data[7], data[10]) = (0x3F, 0xFF, 2);
            data
        }
        (opcode::READ_CAPACITY_10, _) => vec![0, 0, 0x3F, 0xFF, 0, 0, 2, 0],
        (opcode::MAINTENANCE_IN, 0x0A) => {
            let groups =
                [0, 0x0F, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 1, 0x0F, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2];
            [&[0, 0, 0, 24][..], &groups].concat()
        }
        (opcode::MAINTENANCE_IN, _) => vec![0, 0, 0, 8, 0x28, 0, 0, 0, 0, 0, 0, 10],
        _ => Vec::new(),
    }
}

/// The answers of one path to the questions of a probe.
pub fn probe(data: &[u8]) {
    let mut bytes = Bytes::new(data);
    let mut probe = match bytes.u8() % 3 {
        0 => Probe::ready(),
        _ => Probe::full(),
    };
    let mut question = probe.question();
    let mut attentions = 0;
    for _ in 0..QUESTIONS {
        let (fate, data) = end(&mut bytes, &question);
        attentions += u8::from(is_attention(&fate));
        assert!(attentions <= PROBE_UNIT_ATTENTIONS_MAX + 1, "it goes on asking");
        let _ = probe.is_clear(&fate);
        match probe.feed(&fate, &data) {
            Step::Ask(next) => question = next,
            Step::Found(Finding::Alive(identity)) => {
                if let Some(face) = Face::new(&identity.facts) {
                    assert_eq!(Some(face.wwid), identity.facts.wwid());
                }
                return;
            }
            Step::Found(_) => return,
        }
    }
    panic!("the questions do not end");
}

/// The only lane.
const LANE: LaneId = LaneId(0);

struct World<'a> {
    bytes: Bytes<'a>,
    core: Core,
    now: Instant,
    /// Questions that are not answered yet.
    asked: VecDeque<(PathId, Question)>,
    reports: u64,
    /// Names of paths that were added.
    added: BTreeMap<PathId, String>,
    face: Option<Face>,
    /// Actions of one event at most.
    busiest: usize,
}

impl World<'_> {
    fn apply(&mut self, event: Event) {
        let actions = self.core.apply(event, self.now);
        self.busiest = self.busiest.max(actions.len());
        for action in actions {
            match action {
                Action::Ask(path, question) => {
                    assert!(self.asked.iter().all(|(asked, _)| *asked != path), "one at a time");
                    self.asked.push_back((path, question));
                }
                Action::Close(path) => {
                    assert!(self.asked.iter().all(|(asked, _)| *asked != path));
                    self.added.remove(&path);
                }
                Action::Publish(table) => {
                    let version = table.version;
                    if let Some(face) = &table.face {
                        self.keeps_its_face(face);
                    }
                    assert!(table.has_usable() <= table.face.is_some(), "used before it is known");
                    self.apply_later(Event::Honoured(LANE, version));
                }
                _ => {}
            }
        }
    }

    fn apply_later(&mut self, event: Event) {
        // A lane's word comes with its next turn, which is soon; it may lead to one table more.
        let actions = self.core.apply(event, self.now);
        for action in actions {
            match action {
                Action::Publish(table) => {
                    if let Some(face) = &table.face {
                        self.keeps_its_face(face);
                    }
                }
                Action::Ask(path, question) => self.asked.push_back((path, question)),
                Action::Close(path) => _ = self.added.remove(&path),
                _ => {}
            }
        }
    }

    /// What the guest was told once stays: no path can change it.
    fn keeps_its_face(&mut self, face: &Face) {
        if let Some(known) = &self.face {
            assert_eq!((&known.wwid, &known.serial), (&face.wwid, &face.serial));
            assert_eq!(known.capacity.block_size, face.capacity.block_size);
            assert!(known.capacity.blocks <= face.capacity.blocks, "it shrinks");
            assert_eq!(known.inquiry(), face.inquiry());
        }
        self.face = Some(face.clone());
    }

    /// A path that is used has said that it leads to the LUN.
    fn leads_there(&self) {
        for path in self.core.paths().filter(|path| path.is_usable()) {
            let face = self.core.face().expect("it is known before a path is used");
            assert_eq!(path.wwid.as_ref(), Some(&face.wwid), "{}", path.name);
            assert!(path.blocks.is_none_or(|own| own >= face.capacity.blocks), "{}", path.name);
        }
    }

    fn answer(&mut self) {
        if let Some((path, question)) = self.asked.pop_front() {
            let (fate, data) = end(&mut self.bytes, &question);
            self.apply(Event::Answered { path, fate, data });
        }
    }

    fn report(&mut self, path: PathId) {
        let problem = match self.bytes.u8() % 8 {
            0 => Problem::Failed(Failure::Disconnected),
            1 => Problem::Unmapped,
            2 => Problem::AccessChanged,
            3 => Problem::Doubt(Asc::REPORTED_LUNS_CHANGED),
            4 => Problem::SizeChanged,
            5 => Problem::Overdue,
            6 => Problem::Conflicted,
            _ => {
                let code = Asc(self.bytes.u8(), self.bytes.u8());
                return self.apply(Event::Attention { path, code, sent: self.now });
            }
        };
        self.reports += 1;
        self.apply(Event::Reported { lane: LANE, number: self.reports, path, problem });
    }

    fn add(&mut self) {
        if let Some(path) = self.core.free_id().filter(|path| path.0 < 4) {
            let name = format!("p{}", path.0);
            self.added.insert(path, name.clone());
            let (placement, bytes_max) = (Placement::default(), None);
            self.apply(Event::Added { path, name, placement, bytes_max, hides_attentions: false });
        }
    }
}

/// Several paths: their answers, what lanes report of them, and time.
pub fn paths(data: &[u8]) {
    let mut bytes = Bytes::new(data);
    let now = Instant::now();
    let no_path_retry =
        [NoPathRetry::Queue, NoPathRetry::Fail, NoPathRetry::For(Duration::from_secs(5))];
    let choice = usize::from(bytes.u8());
    let settings = Settings {
        wwid: None,
        policy: Policy::RoundRobin,
        no_path_retry: no_path_retry[choice % 3],
        write_quiesce: Duration::from_secs(1),
        failback: Failback::Immediate,
        explicit_alua: choice & 0x80 != 0,
    };
    let core = Core::new(settings, now);
    let mut world = World {
        bytes,
        core,
        now,
        asked: VecDeque::new(),
        reports: 0,
        added: BTreeMap::new(),
        face: None,
        busiest: 0,
    };
    world.apply(Event::LaneUp(LANE));
    world.add();
    world.add();
    for _ in 0..256 {
        if world.bytes.is_empty() {
            break;
        }
        let step = world.bytes.u8();
        let path = PathId((step / 16 % 4).into());
        match step % 16 {
            0..=7 => world.answer(),
            8 => world.report(path),
            9 => world.apply(Event::LinkDown(path, "gone".to_owned())),
            10 => {
                let since = (step & 0x80 != 0).then_some(world.now);
                world.apply(Event::LinkUp(path, since));
            }
            11 => world.add(),
            12 if step >= 0xC0 => world.apply(Event::Remove(path)),
            12 => world.apply(Event::Disable(path)),
            13 => world.apply(Event::Reinstate(path)),
            14 => world.apply(Event::Doubted(path, "a doubt".to_owned())),
            _ => {
                // From milliseconds to a minute.
                let millis = 1_u64 << (world.bytes.u8() % 17);
                let due = world.core.next_timer();
                let then = world.now + Duration::from_millis(millis);
                world.now = due.map_or(then, |due| due.max(world.now).min(then));
                world.apply(Event::Tick);
            }
        }
        world.leads_there();
        assert!(world.asked.len() <= 4);
    }
    assert!(world.busiest < 200, "{} actions for one event", world.busiest);
}
