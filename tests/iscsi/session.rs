//! A path and a channel of it, as a lane has them.

use std::io::Write;
use std::mem;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tempfile::NamedTempFile;
use vhost_user_scsi_mpath::buffer::{OwnedBuffer, Segments};
use vhost_user_scsi_mpath::ids::{AttemptId, Slot};
use vhost_user_scsi_mpath::path::address::Address;
use vhost_user_scsi_mpath::path::any::{IscsiSettings, OpenMode, ReloginIsProof};
use vhost_user_scsi_mpath::path::iscsi::{IscsiChannel, IscsiPath};
use vhost_user_scsi_mpath::path::{Channel, Ended, Fate, Task, Transport, TransportEvent};
use vhost_user_scsi_mpath::scsi::{Cdb, Status};

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(10);

/// What most tests open paths with.
pub fn settings() -> IscsiSettings {
    IscsiSettings {
        initiator_name: "iqn.2003-01.org.example:initiator".to_owned(),
        identity: "test".to_owned(),
        secret_file: None,
        relogin_is_proof: ReloginIsProof::Auto,
    }
}

/// A file with these lines.
pub fn secret_file(lines: &str) -> (NamedTempFile, Option<PathBuf>) {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(lines.as_bytes()).unwrap();
    let path = Some(file.path().to_owned());
    (file, path)
}

/// A path, one channel, and the news so far.
pub struct Session {
    // Before the path, as lanes let go of channels first.
    pub channel: IscsiChannel,
    pub path: IscsiPath,
    news: Vec<TransportEvent>,
    /// Ends that came while a test waited for news.
    ended: Vec<Ended>,
    next: u32,
}

impl Session {
    pub fn open(address: &str, settings: &IscsiSettings) -> Self {
        let Address::Iscsi(address) = address.parse().unwrap() else { panic!("{address}") };
        let path = IscsiPath::open(&address, settings, OpenMode::Serve).unwrap();
        let channel = path.channel().unwrap();
        Session { channel, path, news: Vec::new(), ended: Vec::new(), next: 0 }
    }

    /// Sends a command; its id.
    pub fn submit(&mut self, cdb: &[u8], data_out: &Segments, data_in: &Segments) -> AttemptId {
        self.next += 1;
        let attempt = AttemptId { slot: Slot(self.next as u16), generation: self.next };
        let task = Task { cdb: &Cdb::new(cdb), data_out, data_in };
        self.channel.submit(attempt, task, Instant::now());
        self.channel.flush();
        attempt
    }

    /// Waits for `count` ends.
    pub fn ends(&mut self, count: usize) -> Vec<Ended> {
        let until = Instant::now() + PATIENCE;
        while self.ended.len() < count {
            assert!(Instant::now() < until, "{} of {count} ends", self.ended.len());
            self.look();
            std::thread::sleep(Duration::from_millis(1));
        }
        self.take_ends()
    }

    /// Looks for ends once, as a lane in its turn.
    pub fn look(&mut self) {
        self.channel.reap(Instant::now(), &mut self.ended);
    }

    /// The ends that were seen so far.
    pub fn take_ends(&mut self) -> Vec<Ended> {
        mem::take(&mut self.ended)
    }

    /// Sends a command and waits for its end; again after a unit attention.
    pub fn run(&mut self, cdb: &[u8], data_out: &Segments, data_in: &Segments) -> Fate {
        loop {
            let attempt = self.submit(cdb, data_out, data_in);
            let end = self.ends(1).remove(0);
            assert_eq!(end.attempt, attempt, "an end of something else: {end:?}");
            match &end.fate {
                Fate::Answered(answer) if answer.status == Status::CHECK_CONDITION => {
                    let sense = answer.sense.as_ref().and_then(|sense| sense.decode());
                    if sense.is_some_and(|(key, _)| key as u8 == 6) {
                        continue;
                    }
                    return end.fate;
                }
                _ => return end.fate,
            }
        }
    }

    /// As [`Session::run`], with an answer and its status.
    pub fn status(&mut self, cdb: &[u8], data_out: &Segments, data_in: &Segments) -> Status {
        match self.run(cdb, data_out, data_in) {
            Fate::Answered(answer) => answer.status,
            failed => panic!("{failed:?}"),
        }
    }

    /// TEST UNIT READY answers GOOD.
    pub fn is_ready(&mut self) -> bool {
        self.status(&[0; 6], &Segments::new(), &Segments::new()) == Status::GOOD
    }

    /// Writes `bytes` from block `first` on.
    pub fn write(&mut self, first: u32, bytes: Vec<u8>) {
        let cdb = transfer(0x2A, first, bytes.len());
        let buffer = OwnedBuffer::from_vec(bytes);
        assert_eq!(self.status(&cdb, buffer.segments(), &Segments::new()), Status::GOOD);
    }

    /// Reads `len` bytes from block `first` on.
    pub fn read(&mut self, first: u32, len: usize) -> Vec<u8> {
        let buffer = OwnedBuffer::zeroed(len);
        let cdb = transfer(0x28, first, len);
        assert_eq!(self.status(&cdb, &Segments::new(), buffer.segments()), Status::GOOD);
        buffer.to_vec()
    }

    /// Waits for news that `wanted` takes; how long that took, and the news. Looks for ends as a
    /// lane does, which may be who serves the connection.
    pub fn news<T>(&mut self, wanted: impl Fn(&TransportEvent) -> Option<T>) -> (Duration, T) {
        let begin = Instant::now();
        loop {
            self.look();
            self.news.extend(self.path.events());
            while !self.news.is_empty() {
                if let Some(found) = wanted(&self.news.remove(0)) {
                    return (begin.elapsed(), found);
                }
            }
            assert!(begin.elapsed() < PATIENCE, "the news does not come");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Waits until the link is up.
    pub fn up(&mut self) -> Duration {
        self.news(|news| matches!(news, TransportEvent::Up { .. }).then_some(())).0
    }

    /// Waits until the link is down; how long that took, and why.
    pub fn down(&mut self) -> (Duration, String) {
        self.news(|news| match news {
            TransportEvent::Down(why) => Some(why.clone()),
            _ => None,
        })
    }
}

/// READ(10) or WRITE(10).
pub fn transfer(opcode: u8, first: u32, len: usize) -> [u8; 10] {
    let mut cdb = [0; 10];
    cdb[0] = opcode;
    cdb[2..6].copy_from_slice(&first.to_be_bytes());
    cdb[7..9].copy_from_slice(&((len / 512) as u16).to_be_bytes());
    cdb
}
