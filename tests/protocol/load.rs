//! Verified I/O under way while a test breaks things.
//!
//! One closed-loop worker per queue, each on blocks of its own. A slot is 4 KiB; every one of its
//! blocks is stamped with its address, the slot's sequence number and a checksum over both and the
//! filling. One command at a time is under way per slot, so what a read must return is known
//! exactly: the last acknowledged write. A write that arrives late, twice or torn shows in a read
//! after it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::initiator::{read, write};
use crate::queue::{Command, Completion, Layout, Queue, Ticket};

/// Blocks of one slot.
const SLOT: usize = 8;
/// Slots of one worker.
const SLOTS: u32 = 256;
/// Longer than any deadline of the device. A command that takes longer is lost.
const LOST: Duration = Duration::from_secs(20);
/// Errors that are kept word for word.
const ERRORS: usize = 1000;

/// What a worker's commands go to, and come back from in any order.
pub trait Disk: Send + 'static {
    fn submit(&mut self, command: &Command) -> Ticket;
    /// The next answer to any command, `None` when there is none by `timeout`.
    fn next(&mut self, timeout: Duration) -> Option<(Ticket, Completion)>;
}

impl Disk for Queue {
    fn submit(&mut self, command: &Command) -> Ticket {
        Queue::submit(self, command)
    }

    fn next(&mut self, timeout: Duration) -> Option<(Ticket, Completion)> {
        Queue::next(self, timeout)
    }
}

/// What a worker does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mix {
    /// Every worker reads and writes.
    Mixed,
    /// By turns a worker only reads what it has written at first, and one only writes: a path that
    /// dies has reads and writes under way then.
    Apart,
}

/// One command that has ended. What is asked of it depends on who shares this file.
#[allow(dead_code)]
#[derive(Clone, Copy, Debug)]
pub struct Ended {
    pub at: Instant,
    pub elapsed: Duration,
    pub writes: bool,
    pub good: bool,
}

/// What a load has seen.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// In the order of their ends for each worker, one worker after the other.
    pub history: Vec<Ended>,
    pub reads: u64,
    pub writes: u64,
    /// Commands that did not end with GOOD, and data that was not what it must be.
    pub errors: Vec<String>,
    /// The longest time from submission to answer.
    pub longest_read: Duration,
    pub longest_write: Duration,
    /// When each read was answered, and how long it took.
    pub read_times: Vec<(Instant, Duration)>,
    /// The longest time for which the machine let a thread wait that wanted to run: what a busy
    /// machine adds to every bound.
    pub longest_pause: Duration,
}

impl Report {
    fn merge(mut self, other: Report) -> Report {
        self.history.extend(other.history);
        self.reads += other.reads;
        self.writes += other.writes;
        self.errors.extend(other.errors);
        self.read_times.extend(other.read_times);
        self.longest_read = self.longest_read.max(other.longest_read);
        self.longest_write = self.longest_write.max(other.longest_write);
        self
    }

    /// The time within which 99 of 100 reads were answered, of those from `from` to `until`.
    pub fn read_p99(&self, from: Instant, until: Instant) -> Duration {
        let within = self.read_times.iter().filter(|(at, _)| (from..until).contains(at));
        let mut times: Vec<Duration> = within.map(|(_, took)| *took).collect();
        times.sort_unstable();
        *times.get(times.len() * 99 / 100).expect("reads were answered meanwhile")
    }

    /// Fails the test if anything was wrong, or if nothing was done.
    pub fn assert_clean(&self) {
        let first: Vec<_> = self.errors.iter().take(5).collect();
        assert!(self.errors.is_empty(), "{} errors, the first: {first:#?}", self.errors.len());
        assert!(self.reads > 100 && self.writes > 100, "too little was done: {self:?}");
    }
}

/// A load that is under way.
pub struct Load<D = Queue> {
    stop: Arc<AtomicBool>,
    workers: Vec<JoinHandle<(D, Report)>>,
    pulse: JoinHandle<Duration>,
}

impl<D: Disk> Load<D> {
    /// Starts a worker with `depth` commands under way on each of `queues`.
    pub fn start(queues: Vec<D>, depth: usize) -> Self {
        Load::with(queues, depth, Mix::Mixed, LOST, Duration::ZERO)
    }

    /// The same with a mix, and a command is lost only when it has taken longer than `lost`. A
    /// worker rests for `rest` after each command's end, so that a slow machine has time for others.
    pub fn with(queues: Vec<D>, depth: usize, mix: Mix, lost: Duration, rest: Duration) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let until = stop.clone();
        let pulse = std::thread::spawn(move || longest_pause(&until));
        let start = |(at, queue): (usize, D)| {
            let mut worker = Worker::new(queue, at as u32, lost);
            worker.rest = rest;
            worker.only = (mix == Mix::Apart).then_some(at % 2 == 1);
            let stop = stop.clone();
            std::thread::spawn(move || {
                worker.run(depth, &stop);
                (worker.queue, worker.report)
            })
        };
        let workers = queues.into_iter().enumerate().map(start).collect();
        Load { stop, workers, pulse }
    }

    /// Waits for what is under way, reads everything back, and gives back the queues.
    pub fn stop(self) -> (Vec<D>, Report) {
        self.stop.store(true, Ordering::Relaxed);
        let mut report = Report::default();
        let mut queues = Vec::new();
        for worker in self.workers {
            let (queue, part) = worker.join().expect("a worker does not fail");
            queues.push(queue);
            report = report.merge(part);
        }
        report.longest_pause = self.pulse.join().expect("the pulse does not fail");
        (queues, report)
    }
}

/// Sleeps for a moment, again and again until `stop`; by how much it overslept at most.
fn longest_pause(stop: &AtomicBool) -> Duration {
    const MOMENT: Duration = Duration::from_millis(1);
    let mut longest = Duration::ZERO;
    while !stop.load(Ordering::Relaxed) {
        let before = Instant::now();
        std::thread::sleep(MOMENT);
        longest = longest.max(before.elapsed().saturating_sub(MOMENT));
    }
    longest
}

/// A command that is under way.
struct Doing {
    slot: u32,
    /// The sequence number that is being written, `None` for a read.
    writes: Option<u64>,
}

struct Worker<D> {
    queue: D,
    lost: Duration,
    rest: Duration,
    /// Only writes, only reads, or both.
    only: Option<bool>,
    first_lba: u32,
    doing: HashMap<Ticket, Doing>,
    busy: Vec<bool>,
    /// The last acknowledged write of each slot; `None` after one whose outcome is not known.
    written: Vec<Option<u64>>,
    sequence: u64,
    random: u64,
    report: Report,
}

impl<D: Disk> Worker<D> {
    fn new(queue: D, number: u32, lost: Duration) -> Self {
        Worker {
            queue,
            lost,
            rest: Duration::ZERO,
            only: None,
            first_lba: number * SLOTS * SLOT as u32,
            doing: HashMap::new(),
            busy: vec![false; SLOTS as usize],
            // Nothing is known of the image's content before the first write.
            written: vec![None; SLOTS as usize],
            sequence: 0,
            random: 0x9E37_79B9_7F4A_7C15 ^ u64::from(number + 1),
            report: Report::default(),
        }
    }

    fn run(&mut self, depth: usize, stop: &AtomicBool) {
        if self.only == Some(false) {
            for slot in 0..SLOTS {
                self.submit(slot, true);
                while self.doing.len() >= depth {
                    self.finish_one();
                }
            }
        }
        while !stop.load(Ordering::Relaxed) {
            while self.doing.len() < depth {
                self.submit_any();
            }
            self.finish_one();
            if !self.rest.is_zero() {
                std::thread::sleep(self.rest);
            }
        }
        while !self.doing.is_empty() {
            self.finish_one();
        }
        for slot in 0..SLOTS {
            if self.written[slot as usize].is_some() {
                self.submit(slot, false);
            }
            while self.doing.len() >= depth || (slot + 1 == SLOTS && !self.doing.is_empty()) {
                self.finish_one();
            }
        }
    }

    /// xorshift64*: the same commands in every run, up to the order of the answers.
    fn random(&mut self) -> u64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        self.random.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16
    }

    fn submit_any(&mut self) {
        let mut slot = (self.random() % u64::from(SLOTS)) as u32;
        while self.busy[slot as usize] {
            slot = (slot + 1) % SLOTS;
        }
        let writes = self.only.unwrap_or_else(|| self.random().is_multiple_of(2));
        let writes = writes || self.written[slot as usize].is_none();
        self.submit(slot, writes);
    }

    fn submit(&mut self, slot: u32, writes: bool) {
        let lba = self.first_lba + slot * SLOT as u32;
        let (command, writes) = if writes {
            self.sequence += 1;
            (write(lba, stamp(lba, self.sequence)), Some(self.sequence))
        } else {
            (read(lba, SLOT as u16), None)
        };
        let layout = [Layout::Plain, Layout::Pieces(1024), Layout::Odd][slot as usize % 3];
        let ticket = self.queue.submit(&command.cut(layout));
        self.busy[slot as usize] = true;
        self.doing.insert(ticket, Doing { slot, writes });
    }

    fn finish_one(&mut self) {
        let Some((ticket, completion)) = self.queue.next(self.lost) else {
            panic!("{} commands without an answer for {:?}", self.doing.len(), self.lost);
        };
        let doing = self.doing.remove(&ticket).expect("what is answered was asked");
        let slot = doing.slot as usize;
        self.busy[slot] = false;
        self.report.history.push(Ended {
            at: Instant::now(),
            elapsed: completion.elapsed,
            writes: doing.writes.is_some(),
            good: completion.is_good(),
        });
        match doing.writes {
            Some(sequence) => {
                self.report.writes += 1;
                let longest = &mut self.report.longest_write;
                *longest = completion.elapsed.max(*longest);
                self.written[slot] = completion.is_good().then_some(sequence);
            }
            None => {
                self.report.reads += 1;
                let longest = &mut self.report.longest_read;
                *longest = completion.elapsed.max(*longest);
                self.report.read_times.push((Instant::now(), completion.elapsed));
                self.verify(doing.slot, &completion);
            }
        }
        if !completion.is_good() && self.report.errors.len() < ERRORS {
            let lba = self.first_lba + doing.slot * SLOT as u32;
            let Completion { response, status, elapsed, .. } = completion;
            let sense = completion.sense_code();
            let kind = if doing.writes.is_some() { "write" } else { "read" };
            self.report.errors.push(format!(
                "{kind} of {lba}: response {response} status {status:#x} sense {sense:x?} \
                 after {elapsed:?}"
            ));
        }
    }

    fn verify(&mut self, slot: u32, completion: &Completion) {
        let Some(sequence) = self.written[slot as usize] else { return };
        let lba = self.first_lba + slot * SLOT as u32;
        if completion.is_good() && completion.data != stamp(lba, sequence) {
            let found = |block: &[u8]| describe(block);
            let found: Vec<String> = completion.data.chunks(512).map(found).collect();
            let error = format!("read of {lba}: not write {sequence} but {found:?}");
            self.report.errors.push(error);
        }
    }
}

/// The content of a slot at `lba` after write `sequence`.
fn stamp(lba: u32, sequence: u64) -> Vec<u8> {
    let mut data = Vec::with_capacity(SLOT * 512);
    for lba in u64::from(lba)..u64::from(lba) + SLOT as u64 {
        let mut block = [0; 512];
        block[0..8].copy_from_slice(&lba.to_le_bytes());
        block[8..16].copy_from_slice(&sequence.to_le_bytes());
        for (at, byte) in block[16..504].iter_mut().enumerate() {
            *byte = (at as u64 ^ lba ^ (sequence << 3)) as u8;
        }
        let sum = checksum(&block[..504]);
        block[504..].copy_from_slice(&sum.to_le_bytes());
        data.extend_from_slice(&block);
    }
    data
}

/// FNV-1a: enough to tell a torn block from a whole one of another time.
fn checksum(bytes: &[u8]) -> u64 {
    let step = |sum: u64, byte: &u8| (sum ^ u64::from(*byte)).wrapping_mul(0x100_0000_01B3);
    bytes.iter().fold(0xCBF2_9CE4_8422_2325, step)
}

/// What a block that should not be there is.
fn describe(block: &[u8]) -> String {
    let word = |at: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&block[at..at + 8]);
        u64::from_le_bytes(bytes)
    };
    if word(504) != checksum(&block[..504]) {
        return "no stamp".to_owned();
    }
    format!("write {} of {}", word(8), word(0))
}
