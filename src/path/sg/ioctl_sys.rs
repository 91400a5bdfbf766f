//! `SG_IO`, in both of its forms, and what else the kernel is asked about a node.

use std::fs::{File, OpenOptions};
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::command::{Command, Data, Done, SENSE_ROOM};

/// `sg_io_hdr`, the third version of the interface (`<scsi/sg.h>`).
#[repr(C)]
#[derive(Debug)]
struct SgIoV3 {
    interface_id: i32,
    dxfer_direction: i32,
    cmd_len: u8,
    mx_sb_len: u8,
    iovec_count: u16,
    dxfer_len: u32,
    dxferp: *mut libc::c_void,
    cmdp: *const u8,
    sbp: *mut u8,
    timeout: u32,
    flags: u32,
    pack_id: i32,
    usr_ptr: *mut libc::c_void,
    status: u8,
    masked_status: u8,
    msg_status: u8,
    sb_len_wr: u8,
    host_status: u16,
    driver_status: u16,
    resid: i32,
    duration: u32,
    info: u32,
}

/// `sg_io_v4` (`<linux/bsg.h>`).
#[repr(C)]
#[derive(Debug, Default)]
struct SgIoV4 {
    guard: i32,
    protocol: u32,
    subprotocol: u32,
    request_len: u32,
    request: u64,
    request_tag: u64,
    request_attr: u32,
    request_priority: u32,
    request_extra: u32,
    max_response_len: u32,
    response: u64,
    dout_iovec_count: u32,
    dout_xfer_len: u32,
    din_iovec_count: u32,
    din_xfer_len: u32,
    dout_xferp: u64,
    din_xferp: u64,
    timeout: u32,
    flags: u32,
    usr_ptr: u64,
    spare_in: u32,
    driver_status: u32,
    transport_status: u32,
    device_status: u32,
    retry_delay: u32,
    info: u32,
    duration: u32,
    response_len: u32,
    din_resid: i32,
    dout_resid: i32,
    generated_tag: u64,
    spare_out: u32,
    padding: u32,
}

// As the kernel has them on 64 bits, the only width that is built for.
const _: () = assert!(mem::size_of::<SgIoV3>() == 88);
const _: () = assert!(mem::size_of::<SgIoV4>() == 160);

const SG_IO: libc::Ioctl = 0x2285;
const SG_GET_SG_TABLESIZE: libc::Ioctl = 0x227F;
const BLKSECTGET: libc::Ioctl = 0x1267;
const SG_DXFER_NONE: i32 = -1;
const SG_DXFER_TO_DEV: i32 = -2;
const SG_DXFER_FROM_DEV: i32 = -3;
/// Both interfaces put a command at the head of the queue unless told otherwise: the last first.
const Q_AT_TAIL: u32 = 0x10;

/// Opens a node for commands. Does not wait for a device in error recovery, or for who has it open
/// exclusively.
pub(super) fn open(node: &Path) -> io::Result<File> {
    let flags = libc::O_NONBLOCK | libc::O_CLOEXEC;
    OpenOptions::new().read(true).write(true).custom_flags(flags).open(node)
}

/// Sends one command and waits for its end, on an sg or sd node. An error is the call's own.
pub(super) fn execute_v3(fd: BorrowedFd<'_>, command: &Command<'_>) -> Result<Done, i32> {
    let mut sense = [0; SENSE_ROOM];
    let (direction, base, count) = match command.data {
        Data::None => (SG_DXFER_NONE, std::ptr::null_mut(), 0),
        Data::Out(memory) => (SG_DXFER_TO_DEV, memory.base(), memory.pieces()),
        Data::In(memory) => (SG_DXFER_FROM_DEV, memory.base(), memory.pieces()),
    };
    let mut header = SgIoV3 {
        interface_id: i32::from(b'S'),
        dxfer_direction: direction,
        cmd_len: command.cdb.len() as u8,
        mx_sb_len: SENSE_ROOM as u8,
        iovec_count: count,
        dxfer_len: command.data.len(),
        dxferp: base,
        cmdp: command.cdb.as_ptr(),
        sbp: sense.as_mut_ptr(),
        timeout: command.timeout_ms,
        flags: Q_AT_TAIL,
        pack_id: 0,
        usr_ptr: std::ptr::null_mut(),
        status: 0,
        masked_status: 0,
        msg_status: 0,
        sb_len_wr: 0,
        host_status: 0,
        driver_status: 0,
        resid: 0,
        duration: 0,
        info: 0,
    };
    // SAFETY: `header` is the structure that SG_IO takes on these nodes; CDB and sense live until
    // after the call, and the data's memory belongs to the caller or is lent to it until then.
    call(unsafe { libc::ioctl(fd.as_raw_fd(), SG_IO, &raw mut header) })?;
    Ok(Done {
        host: header.host_status,
        driver: header.driver_status,
        status: header.status,
        residual: header.resid,
        sense,
        sense_len: usize::from(header.sb_len_wr).min(SENSE_ROOM),
    })
}

/// Sends one command and waits for its end, on a bsg node, which takes flat memory only.
pub(super) fn execute_v4(fd: BorrowedFd<'_>, command: &Command<'_>) -> Result<Done, i32> {
    let mut sense = [0; SENSE_ROOM];
    let mut header = SgIoV4 {
        guard: i32::from(b'Q'),
        request_len: command.cdb.len() as u32,
        request: command.cdb.as_ptr() as u64,
        max_response_len: SENSE_ROOM as u32,
        response: sense.as_mut_ptr() as u64,
        timeout: command.timeout_ms,
        flags: Q_AT_TAIL,
        ..SgIoV4::default()
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
    // SAFETY: as in `execute_v3`, with the structure that SG_IO takes on bsg nodes.
    call(unsafe { libc::ioctl(fd.as_raw_fd(), SG_IO, &raw mut header) })?;
    Ok(Done {
        host: header.transport_status as u16,
        driver: header.driver_status as u16,
        status: header.device_status as u8,
        residual: match command.data {
            Data::Out(_) => header.dout_resid,
            Data::In(_) | Data::None => header.din_resid,
        },
        sense,
        sense_len: (header.response_len as usize).min(SENSE_ROOM),
    })
}

/// The most bytes and segments of one command, as an sg node tells them.
pub(super) fn sg_limits(fd: BorrowedFd<'_>) -> (Option<u32>, Option<u32>) {
    let ask = |request| {
        let mut value: libc::c_int = 0;
        // SAFETY: both requests store one int, on an sg node.
        let answer = unsafe { libc::ioctl(fd.as_raw_fd(), request, &raw mut value) };
        (answer == 0).then_some(value).and_then(|value| u32::try_from(value).ok())
    };
    (ask(BLKSECTGET), ask(SG_GET_SG_TABLESIZE))
}

/// No signal interrupts a call of this thread from now on. A call on an sg node that a signal
/// interrupts leaves its command running, and is begun again by the kernel: sent twice.
pub(super) fn block_signals() {
    // SAFETY: an all-zero `sigset_t` may be filled, and the filled one is read by the second call.
    unsafe {
        let mut all: libc::sigset_t = mem::zeroed();
        libc::sigfillset(&raw mut all);
        // Of a call that it may not make the thread itself is to tell.
        libc::sigdelset(&raw mut all, libc::SIGSYS);
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const all, std::ptr::null_mut());
    }
}

fn call(answer: libc::c_int) -> Result<(), i32> {
    match answer {
        0.. => Ok(()),
        _ => Err(io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)),
    }
}
