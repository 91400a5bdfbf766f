//! A kernel that does as it is told: it blocks, it fails, its device goes and another comes.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, mpsc};
use std::time::{Duration, Instant};

use super::memory_sys::bytes;
use crate::path::sg::command::{Command, Data, Done, End, SENSE_ROOM};
use crate::path::sg::errand::Errand;
use crate::path::sg::kernel::{Kernel, Ring};
use crate::path::sg::node::{Found, Hctl, Kind, NodeError};
use crate::path::waker::Waker;
use crate::scsi::{inquiry, opcode};

/// What the tests turn.
pub struct Knobs {
    pub kind: Kind,
    /// Commands may go over a ring; or they are refused with this `errno`.
    pub ring: Option<Result<(), i32>>,
    /// The device's inode in sysfs; 0 while there is none.
    pub token: u64,
    /// The last byte of its logical unit's name.
    pub name: u8,
    /// Commands with this operation code do not come back.
    pub stuck: Option<u8>,
    /// How they come back, and all others.
    pub end: Result<Done, i32>,
    /// What a read brings.
    pub content: u8,
    /// Commands in the kernel.
    pub inside: usize,
    /// The first byte of the data of each command that has come back, or its operation code.
    pub seen: Vec<u8>,
    pub opened: usize,
    /// Handles that are open now.
    pub open: usize,
}

/// Shared by test and path.
#[derive(Clone)]
pub struct Fake(Arc<(Mutex<Knobs>, Condvar)>);

/// A good end.
pub fn done() -> Done {
    Done { host: 0, driver: 0, status: 0, residual: 0, sense: [0; SENSE_ROOM], sense_len: 0 }
}

impl Fake {
    pub fn new(kind: Kind) -> Self {
        let knobs = Knobs {
            kind,
            ring: None,
            token: 1,
            name: 0xA1,
            stuck: None,
            end: Ok(done()),
            content: 0,
            inside: 0,
            seen: Vec::new(),
            opened: 0,
            open: 0,
        };
        Fake(Arc::new((Mutex::new(knobs), Condvar::new())))
    }

    /// A bsg node that takes commands over a ring.
    pub fn ring() -> Self {
        let fake = Fake::new(Kind::Bsg);
        fake.set(|knobs| knobs.ring = Some(Ok(())));
        fake
    }

    /// One of each kind, and each engine.
    pub fn each() -> [Self; 4] {
        [Fake::new(Kind::Generic), Fake::new(Kind::Disk), Fake::new(Kind::Bsg), Fake::ring()]
    }

    /// What the kernel does with a command of the device that was opened as `token`.
    fn carry(&self, token: u64, command: &Command<'_>) -> End {
        let mut knobs = self.knobs();
        if knobs.token != token {
            return Err(libc::ENODEV);
        }
        if command.cdb[..2] == [opcode::INQUIRY, 1] {
            let naa = [&[1, 3, 0, 16, 0x60], &[knobs.name; 15][..]].concat();
            let page = inquiry::vpd_page(0x83, &naa);
            bytes(&command.data)[..page.len()].copy_from_slice(&page);
            return Ok(done());
        }
        knobs.inside += 1;
        while knobs.stuck == Some(command.cdb[0]) {
            knobs = self.0.1.wait(knobs).unwrap();
        }
        knobs.inside -= 1;
        if let Data::In(_) = command.data {
            bytes(&command.data).fill(knobs.content);
        }
        let first = bytes(&command.data).first().copied().unwrap_or(command.cdb[0]);
        knobs.seen.push(first);
        knobs.end.clone()
    }

    pub fn knobs(&self) -> MutexGuard<'_, Knobs> {
        self.0.0.lock().unwrap()
    }

    pub fn set(&self, change: impl FnOnce(&mut Knobs)) {
        change(&mut self.knobs());
        self.0.1.notify_all();
    }

    /// Waits until `wanted` holds, for as long as a slow machine needs.
    pub fn wait(&self, what: &str, wanted: impl Fn(&Knobs) -> bool) {
        let late = Instant::now() + Duration::from_secs(60);
        while !wanted(&self.knobs()) {
            assert!(Instant::now() < late, "never: {what}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// An open node.
pub struct Handle {
    token: u64,
    fake: Fake,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.fake.set(|knobs| knobs.open -= 1);
    }
}

impl Kernel for Fake {
    type Handle = Handle;
    type Ring = FakeRing;

    fn find(&self, _: &Path) -> Result<Found, NodeError> {
        let knobs = self.knobs();
        if knobs.token == 0 {
            return Err(NodeError::Absent(io::ErrorKind::NotFound.into()));
        }
        Ok(Found {
            kind: knobs.kind,
            hctl: Hctl::parse("1:0:0:0").unwrap(),
            folder: PathBuf::from("1:0:0:0"),
            token: knobs.token,
        })
    }

    fn open(&self, node: &Path) -> Result<(Handle, Found), NodeError> {
        let found = self.find(node)?;
        self.set(|knobs| (knobs.opened, knobs.open) = (knobs.opened + 1, knobs.open + 1));
        Ok((Handle { token: found.token, fake: self.clone() }, found))
    }

    fn is_there(&self, found: &Found) -> bool {
        self.knobs().token == found.token
    }

    fn execute(&self, handle: &Handle, _: Kind, command: &Command<'_>) -> End {
        self.carry(handle.token, command)
    }

    fn ring(&self, handle: &Handle, _: Kind) -> Result<Option<FakeRing>, String> {
        let Some(refusal) = self.knobs().ring else { return Ok(None) };
        let (ended, landed) = mpsc::channel();
        let bell = Arc::new(Waker::new().unwrap());
        let (fake, token) = (self.clone(), handle.token);
        Ok(Some(FakeRing { fake, token, refusal, bell, ended, landed }))
    }

    fn bytes_max(&self, _: &Handle, _: &Found) -> u32 {
        65536
    }
}

/// A ring that has a thread for each errand.
pub struct FakeRing {
    fake: Fake,
    token: u64,
    refusal: Result<(), i32>,
    bell: Arc<Waker>,
    ended: mpsc::Sender<(Errand, End)>,
    landed: mpsc::Receiver<(Errand, End)>,
}

impl Ring for FakeRing {
    fn bell(&self) -> &Arc<Waker> {
        &self.bell
    }

    fn first(self, command: &Command<'_>) -> Result<(Self, Done), i32> {
        self.refusal?;
        let done = self.fake.carry(self.token, command)?;
        Ok((self, done))
    }

    fn begin(&mut self, errand: Errand) {
        let (fake, token, ended) = (self.fake.clone(), self.token, self.ended.clone());
        std::thread::spawn(move || {
            let end = fake.carry(token, &errand.command());
            // The ring is gone only when the test is over.
            let _ = ended.send((errand, end));
        });
    }

    fn wait(&mut self, ended: &mut Vec<(Errand, End)>) {
        while !self.bell.take() && ended.is_empty() {
            std::thread::sleep(Duration::from_millis(1));
            ended.extend(self.landed.try_iter());
        }
    }
}
