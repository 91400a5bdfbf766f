//! The io_uring engine: one ring per channel, reads and writes straight on lent memory.
//!
//! Plain settings: DEFER_TASKRUN and SINGLE_ISSUER would bind the ring to the thread that makes
//! it, and a channel may be made in one thread and dropped in another. COOP_TASKRUN was not to be
//! measured. A registered file would outlive the ring by what the kernel takes to end it, and the
//! image's lock with it.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use io_uring::{IoUring, opcode, squeue, types};

use super::channel::Ticket;
use super::execute::Transfer;
use super::reply::Done;
use crate::buffer::Segments;
use crate::limits::EMULATED_FLIGHTS_MAX;

/// Entries of the submission queue; a fuller batch takes more than one system call.
const SUBMISSIONS: u32 = 256;
/// Operations after which a disk gets what there is, without waiting for the rest of a batch: else it
/// has nothing to do while the rest is looked at.
const EARLY: usize = 8;
/// Pieces that the kernel takes in one operation (`UIO_MAXIOV`).
const PIECES_MAX: usize = 1024;

/// What an operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    /// Store to memory.
    Read,
    /// Memory to store.
    Write,
    /// Store to medium.
    Sync,
}

/// An operation that has ended.
pub(super) struct Landed {
    pub(super) ticket: Ticket,
    pub(super) op: Op,
    pub(super) done: Done,
    /// Bytes that had been lent.
    pub(super) room: usize,
    pub(super) result: io::Result<()>,
}

/// An operation in the kernel. Its list of pieces lives here until it lands.
struct Flight {
    ticket: Ticket,
    op: Op,
    transfer: Transfer,
    room: usize,
    moved: usize,
    memory: Segments,
    flying: bool,
}

/// The ring of one channel.
pub(super) struct Ring {
    ring: IoUring,
    file: RawFd,
    flights: Vec<Flight>,
    free: Vec<usize>,
    /// Flights that the submission queue had no room for.
    waiting: Vec<usize>,
    unsubmitted: bool,
    /// Operations that are handed over together.
    batch: usize,
    spare: Segments,
}

impl Ring {
    /// A ring for `file`, which must stay open as long as the ring lives. An error where the
    /// kernel has none or forbids it. Where the page cache is not between, `direct`, the disk is not
    /// kept waiting for a batch.
    pub(super) fn new(file: RawFd, direct: bool) -> io::Result<Self> {
        let ring = IoUring::builder()
            .dontfork()
            .setup_cqsize(EMULATED_FLIGHTS_MAX as u32 * 2)
            .build(SUBMISSIONS)?;
        Ok(Ring {
            ring,
            file,
            flights: Vec::new(),
            free: Vec::new(),
            waiting: Vec::new(),
            unsubmitted: false,
            batch: if direct { EARLY } else { SUBMISSIONS as usize },
            spare: Segments::new(),
        })
    }

    /// Readable while an operation has ended and has not been reaped.
    pub(super) fn fd(&self) -> RawFd {
        self.ring.as_raw_fd()
    }

    /// Operations under way.
    pub(super) fn flying(&self) -> usize {
        self.flights.len() - self.free.len()
    }

    /// The attempts under way.
    pub(super) fn tickets(&self) -> impl Iterator<Item = &Ticket> {
        self.flights.iter().filter(|flight| flight.flying).map(|flight| &flight.ticket)
    }

    /// True when the kernel did not take everything and has to be asked again soon.
    pub(super) fn is_stuck(&self) -> bool {
        self.unsubmitted || !self.waiting.is_empty()
    }

    /// Begins an operation on the first `transfer.bytes` of `memory`. The caller keeps the number
    /// of those flying below its bound.
    pub(super) fn start(&mut self, ticket: Ticket, op: Op, transfer: Transfer, memory: &Segments) {
        let at = self.free.pop().unwrap_or_else(|| {
            self.flights.push(Flight {
                ticket,
                op,
                transfer,
                room: 0,
                moved: 0,
                memory: Segments::new(),
                flying: false,
            });
            self.flights.len() - 1
        });
        let flight = &mut self.flights[at];
        debug_assert!(!flight.flying);
        (flight.ticket, flight.op, flight.transfer) = (ticket, op, transfer);
        (flight.room, flight.moved, flight.flying) = (memory.len(), 0, true);
        flight.memory.assign_range(memory, 0, transfer.bytes);
        self.push(at);
    }

    fn push(&mut self, at: usize) {
        let entry = self.flights[at].entry(self.file).user_data(at as u64);
        for _ in 0..2 {
            // SAFETY: the entry's list of pieces is in `flights[at]`, which is neither changed nor
            // freed before its completion has been seen (`reap`, and `Drop` waits for that). The
            // pieces point to lent memory, which the lender keeps until the attempt's end, and
            // that comes after the completion. The file outlives the ring by `new`'s contract.
            if unsafe { self.ring.submission().push(&entry) }.is_ok() {
                self.unsubmitted = true;
                if self.ring.submission().len() >= self.batch {
                    self.submit();
                }
                return;
            }
            self.submit();
        }
        self.waiting.push(at);
    }

    /// Hands everything begun to the kernel.
    pub(super) fn flush(&mut self) {
        if self.unsubmitted {
            self.submit();
        }
        if !self.waiting.is_empty() {
            for at in std::mem::take(&mut self.waiting) {
                self.push(at);
            }
        }
        if self.unsubmitted {
            self.submit();
        }
    }

    fn submit(&mut self) {
        loop {
            match self.ring.submit() {
                Ok(_) => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Short of memory, or too many completions unread: `is_stuck` has us come back.
                Err(error) => {
                    log::debug!("io_uring took no submissions: {error}");
                    return;
                }
            }
        }
        self.unsubmitted = !self.ring.submission().is_empty();
    }

    /// Moves the operations that have ended into `landed`.
    pub(super) fn reap(&mut self, landed: &mut Vec<Landed>) {
        let mut again = Vec::new();
        for completion in self.ring.completion() {
            let at = completion.user_data() as usize;
            // Only our own places are ever put into an entry.
            let Some(flight) = self.flights.get_mut(at).filter(|flight| flight.flying) else {
                debug_assert!(false, "a completion for no flight");
                continue;
            };
            match flight.advance(completion.result(), &mut self.spare) {
                None => again.push(at),
                Some(result) => {
                    flight.flying = false;
                    flight.memory.clear();
                    self.free.push(at);
                    let (ticket, op) = (flight.ticket, flight.op);
                    let (done, room) = (flight.transfer.done, flight.room);
                    landed.push(Landed { ticket, op, done, room, result });
                }
            }
        }
        if !again.is_empty() || self.is_stuck() {
            again.into_iter().for_each(|at| self.push(at));
            self.flush();
        }
    }

    /// Waits until nothing is in the kernel any more.
    pub(super) fn drain(&mut self, landed: &mut Vec<Landed>) {
        while self.flying() > 0 {
            self.flush();
            if self.ring.submit_and_wait(1).is_err() {
                // Interrupted, or short of something; giving up would leave the kernel with
                // memory that its owner takes back.
                std::thread::sleep(Duration::from_millis(1));
            }
            self.reap(landed);
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        self.drain(&mut Vec::new());
    }
}

impl Flight {
    fn entry(&self, file: RawFd) -> squeue::Entry {
        let (file, list) = (types::Fd(file), self.memory.as_iovecs());
        let (base, count) = (list.as_ptr(), list.len().min(PIECES_MAX) as u32);
        let offset = self.transfer.offset + self.moved as u64;
        match self.op {
            Op::Read => opcode::Readv::new(file, base, count).offset(offset).build(),
            Op::Write => {
                let flags = if self.transfer.durable { libc::RWF_DSYNC } else { 0 };
                opcode::Writev::new(file, base, count).offset(offset).rw_flags(flags).build()
            }
            Op::Sync => opcode::Fsync::new(file).flags(types::FsyncFlags::DATASYNC).build(),
        }
    }

    /// Takes one result in; `None` when the operation has to go on with what is left.
    fn advance(&mut self, result: i32, spare: &mut Segments) -> Option<io::Result<()>> {
        match (result, self.op) {
            (error, _) if error == -libc::EINTR || error == -libc::EAGAIN => None,
            (error, _) if error < 0 => Some(Err(io::Error::from_raw_os_error(-error))),
            (_, Op::Sync) => Some(Ok(())),
            (0, _) => Some(Err(io::ErrorKind::UnexpectedEof.into())),
            (moved, _) => {
                let moved = moved as usize;
                self.moved += moved;
                if self.moved >= self.transfer.bytes {
                    return Some(Ok(()));
                }
                spare.assign_range(&self.memory, moved, usize::MAX);
                std::mem::swap(&mut self.memory, spare);
                None
            }
        }
    }
}
