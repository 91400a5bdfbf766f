//! A block device as the load's disk: a thread for each command under way, past the page cache.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, Once};
use std::time::{Duration, Instant};

use crate::load::Disk;
use crate::queue::{Command, Completion, Ticket, response};

/// What O_DIRECT asks of a buffer, on any device.
const ALIGNMENT: usize = 4096;

/// A disk that fails does so very often.
static FIRST: Once = Once::new();

struct Request {
    ticket: Ticket,
    command: Command,
    since: Instant,
}

/// An open device with its threads.
pub struct BlockDevice {
    requests: Sender<Request>,
    answers: Receiver<(Ticket, Completion)>,
    next: u64,
}

impl BlockDevice {
    /// Opens `path` for `depth` commands at a time.
    pub fn open(path: &Path, depth: usize) -> Self {
        let mut options = OpenOptions::new();
        options.read(true).write(true).custom_flags(libc::O_DIRECT);
        let file = options.open(path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
        let file = Arc::new(file);
        let (requests, incoming) = channel();
        let (outgoing, answers) = channel();
        let incoming = Arc::new(Mutex::new(incoming));
        for _ in 0..depth {
            let (file, incoming, outgoing) = (file.clone(), incoming.clone(), outgoing.clone());
            std::thread::spawn(move || serve(&file, &incoming, &outgoing));
        }
        BlockDevice { requests, answers, next: 0 }
    }
}

impl Disk for BlockDevice {
    fn submit(&mut self, command: &Command) -> Ticket {
        self.next += 1;
        let ticket = Ticket(self.next);
        let request = Request { ticket, command: command.clone(), since: Instant::now() };
        self.requests.send(request).expect("the threads wait for requests");
        ticket
    }

    fn next(&mut self, timeout: Duration) -> Option<(Ticket, Completion)> {
        self.answers.recv_timeout(timeout).ok()
    }
}

fn serve(
    file: &File,
    incoming: &Mutex<Receiver<Request>>,
    outgoing: &Sender<(Ticket, Completion)>,
) {
    loop {
        let request = incoming.lock().expect("no thread fails with it").recv();
        let Ok(Request { ticket, command, since }) = request else { return };
        let result = execute(file, &command);
        let (response, data) = match result {
            Ok(data) => (response::OK, data),
            Err(error) => {
                FIRST.call_once(|| eprintln!("{:#x}: {error}", command.cdb[0]));
                (response::FAILURE, Vec::new())
            }
        };
        let elapsed = since.elapsed();
        let (sense, residual, data_gpa, used) = (Vec::new(), 0, 0, 0);
        let completion =
            Completion { response, status: 0, sense, residual, data, data_gpa, used, elapsed };
        if outgoing.send((ticket, completion)).is_err() {
            return;
        }
    }
}

/// READ(10) or WRITE(10) by a system call.
fn execute(file: &File, command: &Command) -> io::Result<Vec<u8>> {
    let lba = u32::from_be_bytes([2, 3, 4, 5].map(|at| command.cdb[at]));
    let offset = u64::from(lba) * 512;
    let len = command.data_in.max(command.data_out.len());
    let mut room = vec![0; len + ALIGNMENT];
    let start = room.as_ptr().align_offset(ALIGNMENT);
    let buffer = &mut room[start..start + len];
    if command.data_out.is_empty() {
        file.read_exact_at(buffer, offset)?;
        Ok(buffer.to_vec())
    } else {
        buffer.copy_from_slice(&command.data_out);
        file.write_all_at(buffer, offset)?;
        Ok(Vec::new())
    }
}
