//! Commands for bsg nodes over io_uring: `IORING_OP_URING_CMD` with `bsg_uring_cmd`, since 7.1.

use std::fs::File;
use std::io;
use std::mem;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use io_uring::{IoUring, cqueue, opcode, squeue, types};

use super::command::{Command, Data, Done, End, SENSE_ROOM};
use super::errand::Errand;
use super::kernel::Ring;
use crate::limits::SG_RING_DEPTH;
use crate::path::waker::Waker;

/// `bsg_uring_cmd` (`<linux/bsg.h>`). Protocol and subprotocol 0 are a SCSI command. There is no
/// flag for the place in the queue: it is the tail.
#[repr(C)]
#[derive(Debug, Default)]
struct BsgUringCmd {
    request: u64,
    request_len: u32,
    protocol: u32,
    subprotocol: u32,
    max_response_len: u32,
    response: u64,
    dout_xferp: u64,
    dout_xfer_len: u32,
    dout_iovec_count: u32,
    din_xferp: u64,
    din_xfer_len: u32,
    din_iovec_count: u32,
    timeout_ms: u32,
    reserved: [u8; 12],
}

/// Bytes of an entry that belong to the command.
const COMMAND_BYTES: usize = 80;
const _: () = assert!(mem::size_of::<BsgUringCmd>() == COMMAND_BYTES);

/// Entries of the submission queue: all commands at once, and the bell.
const SUBMISSIONS: u32 = (SG_RING_DEPTH + 1).next_power_of_two() as u32;
/// What the bell's completion is known by; commands have their place's number.
const BELL: u64 = u64::MAX;
/// The kernel took nothing, for want of memory as a rule: how long to wait before it is asked again.
const RETRY: Duration = Duration::from_millis(1);

/// What the kernel has of one command beside its data.
struct Place {
    sense: Box<[u8; SENSE_ROOM]>,
    errand: Option<Errand>,
}

/// A ring for one open node. The thread that waits on it is the one that begins.
pub(super) struct BsgRing {
    ring: IoUring<squeue::Entry128, cqueue::Entry32>,
    node: File,
    places: Vec<Place>,
    free: Vec<usize>,
    bell: Arc<Waker>,
    /// The kernel watches the bell.
    armed: bool,
}

impl BsgRing {
    /// A ring, where the kernel has them and allows it. Whether the node takes commands over it,
    /// [`Ring::first`] tells.
    pub(super) fn new(node: &File) -> io::Result<Self> {
        let ring = IoUring::builder().dontfork().setup_coop_taskrun().build(SUBMISSIONS)?;
        Ok(BsgRing {
            ring,
            node: node.try_clone()?,
            places: Vec::new(),
            free: Vec::new(),
            bell: Arc::new(Waker::new()?),
            armed: false,
        })
    }

    fn take_place(&mut self) -> usize {
        self.free.pop().unwrap_or_else(|| {
            self.places.push(Place { sense: Box::new([0; SENSE_ROOM]), errand: None });
            self.places.len() - 1
        })
    }

    /// Fills an entry for the command in this place.
    ///
    /// # Safety
    ///
    /// What `command` points to must stay as it is until the completion, or until the ring is gone
    /// without having been entered.
    unsafe fn push(&mut self, at: usize, command: &Command<'_>) {
        let sense = &mut self.places[at].sense;
        sense.fill(0);
        let header = header(command, sense);
        // SAFETY: plain integers without padding, as long as the array.
        let bytes: [u8; COMMAND_BYTES] = unsafe { mem::transmute(header) };
        let node = types::Fd(self.node.as_raw_fd());
        let entry = opcode::UringCmd80::new(node, 0).cmd(bytes).build().user_data(at as u64);
        // SAFETY: the caller's contract; the sense's room is boxed and lives until the completion;
        // the node is open for as long as the ring.
        let pushed = unsafe { self.ring.submission().push(&entry) };
        assert!(
            pushed.is_ok(),
            "the queue has room for the bell and for all that may be under way"
        );
    }

    fn watch_bell(&mut self) {
        if self.armed {
            return;
        }
        let bell = types::Fd(self.bell.as_raw_fd());
        let entry = opcode::PollAdd::new(bell, libc::POLLIN as u32).build().user_data(BELL);
        // SAFETY: the entry points to no memory, and the bell lives as long as the ring.
        self.armed = unsafe { self.ring.submission().push(&entry.into()) }.is_ok();
    }

    /// Takes the completions that are there; false when there is none.
    fn reap(&mut self, ended: &mut Vec<(Errand, End)>) -> bool {
        let mut any = false;
        for completion in self.ring.completion() {
            any = true;
            if completion.user_data() == BELL {
                self.armed = false;
                self.bell.take();
                continue;
            }
            let at = completion.user_data() as usize;
            let Some(place) = self.places.get_mut(at) else {
                debug_assert!(false, "a completion for no place");
                continue;
            };
            if let Some(errand) = place.errand.take() {
                ended.push((errand, decode(&completion, &place.sense)));
                self.free.push(at);
            }
        }
        any
    }
}

impl Ring for BsgRing {
    fn bell(&self) -> &Arc<Waker> {
        &self.bell
    }

    fn first(mut self, command: &Command<'_>) -> Result<(Self, Done), i32> {
        let at = self.take_place();
        // SAFETY: the command is borrowed until this function returns, which is after the
        // completion, or with the end of a ring that has not taken the entry.
        unsafe { self.push(at, command) };
        loop {
            let entered = self.ring.submit_and_wait(1);
            let completion = self.ring.completion().next();
            if let Some(completion) = completion {
                let done = decode(&completion, &self.places[at].sense)?;
                self.free.push(at);
                return Ok((self, done));
            }
            if let Err(error) = entered
                && error.kind() != io::ErrorKind::Interrupted
            {
                if !self.ring.submission().is_empty() {
                    return Err(error.raw_os_error().unwrap_or(libc::EIO));
                }
                std::thread::sleep(RETRY);
            }
        }
    }

    fn begin(&mut self, errand: Errand) {
        let at = self.take_place();
        // SAFETY: the errand owns the memory of the command or keeps the attempt whose lent memory
        // it is. Its place has it until the completion (`reap`, and `Drop` waits for that), and
        // what it points to does not move with it.
        unsafe { self.push(at, &errand.command()) };
        self.places[at].errand = Some(errand);
    }

    fn wait(&mut self, ended: &mut Vec<(Errand, End)>) {
        self.watch_bell();
        loop {
            let entered = self.ring.submit_and_wait(1);
            if self.reap(ended) {
                return;
            }
            if let Err(error) = entered
                && error.kind() != io::ErrorKind::Interrupted
            {
                log::debug!("io_uring took no submissions: {error}");
                std::thread::sleep(RETRY);
            }
        }
    }
}

impl Drop for BsgRing {
    fn drop(&mut self) {
        let mut ended = Vec::new();
        while self.places.iter().any(|place| place.errand.is_some()) {
            self.wait(&mut ended);
        }
    }
}

fn header(command: &Command<'_>, sense: &mut [u8; SENSE_ROOM]) -> BsgUringCmd {
    let mut header = BsgUringCmd {
        request: command.cdb.as_ptr() as u64,
        request_len: command.cdb.len() as u32,
        max_response_len: SENSE_ROOM as u32,
        response: sense.as_mut_ptr() as u64,
        timeout_ms: command.timeout_ms,
        ..BsgUringCmd::default()
    };
    match command.data {
        Data::None => {}
        Data::Out(memory) => {
            header.dout_xfer_len = command.data.len();
            header.dout_xferp = memory.base() as u64;
        }
        Data::In(memory) => {
            header.din_xfer_len = command.data.len();
            header.din_xferp = memory.base() as u64;
        }
    }
    header
}

fn decode(completion: &cqueue::Entry32, sense: &[u8; SENSE_ROOM]) -> End {
    match completion.result() {
        0.. => Ok(unpack(completion.big_cqe()[0], sense)),
        errno => Err(-errno),
    }
}

/// `bsg_scsi_res2` (`<linux/bsg.h>`): from the lowest byte on, device status, driver status, host
/// status, bytes of sense data, and the residual in the upper half.
fn unpack(word: u64, sense: &[u8; SENSE_ROOM]) -> Done {
    let [status, driver, host, sense_len, residual @ ..] = word.to_le_bytes();
    Done {
        host: u16::from(host),
        driver: u16::from(driver),
        status,
        residual: i32::from_le_bytes(residual),
        sense: *sense,
        sense_len: usize::from(sense_len).min(SENSE_ROOM),
    }
}

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use super::*;
    use crate::path::sg::bounce_sys::Bounce;
    use crate::path::sg::command::Memory;

    #[test]
    fn layout_is_the_kernels() {
        assert_eq!(offset_of!(BsgUringCmd, max_response_len), 20);
        assert_eq!(offset_of!(BsgUringCmd, response), 24);
        assert_eq!(offset_of!(BsgUringCmd, dout_xferp), 32);
        assert_eq!(offset_of!(BsgUringCmd, din_xferp), 48);
        assert_eq!(offset_of!(BsgUringCmd, timeout_ms), 64);
    }

    #[test]
    fn header_has_one_direction() {
        let (mut bounce, mut sense) = (Bounce::default(), [0; SENSE_ROOM]);
        bounce.prepare(512);
        let memory = Memory::Own(&bounce, 512);
        let mut of =
            |data| header(&Command { cdb: &[0x2A; 10], data, timeout_ms: 7000 }, &mut sense);
        let (out, into, none) = (of(Data::Out(memory)), of(Data::In(memory)), of(Data::None));
        let address = bounce.address() as u64;
        assert_eq!((out.dout_xferp, out.dout_xfer_len, out.din_xfer_len), (address, 512, 0));
        assert_eq!((into.din_xferp, into.din_xfer_len, into.dout_xfer_len), (address, 512, 0));
        assert_eq!((none.dout_xfer_len, none.din_xfer_len, none.timeout_ms), (0, 0, 7000));
        assert_eq!((out.request_len, out.max_response_len), (10, 96));
    }

    /// Words as Linux 7.3 gave them.
    #[test]
    fn unpack_reads_the_kernels_word() {
        let sense = [0x70; SENSE_ROOM];
        let refused = unpack(0x1200_0802, &sense);
        assert_eq!((refused.status, refused.driver, refused.host), (0x02, 0x08, 0));
        assert_eq!((refused.sense_len, refused.residual), (18, 0));
        assert_eq!(unpack(0x8C_0000_0000, &sense).residual, 140);
        let lost = unpack(0xFFFF_FFFF_FF0E_0000, &sense);
        assert_eq!((lost.host, lost.sense_len, lost.residual), (0x0E, SENSE_ROOM, -1));
    }

    /// As everywhere but on a bsg node of Linux 7.1: what is asked says no, and the ring is gone.
    #[test]
    fn node_that_takes_no_commands_says_so() {
        let node = tempfile::tempfile().unwrap();
        let Ok(ring) = BsgRing::new(&node) else { return };
        let command = Command { cdb: &[0; 6], data: Data::None, timeout_ms: 1000 };
        assert_eq!(ring.first(&command).err(), Some(libc::EOPNOTSUPP));
    }
}
