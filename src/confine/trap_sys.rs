//! What is done when a thread makes a call that it may not make, and what a core dump would show.

use std::io;
use std::mem;
use std::ptr;
use std::sync::OnceLock;

/// Before the line, so that the journal knows its weight.
static PREFIX: OnceLock<&'static str> = OnceLock::new();

/// `siginfo_t` as the kernel fills it for SIGSYS (`<asm-generic/siginfo.h>`, `_sigsys`).
#[repr(C)]
struct SigSys {
    signo: libc::c_int,
    errno: libc::c_int,
    code: libc::c_int,
    _alignment: libc::c_int,
    call_addr: *mut libc::c_void,
    syscall: libc::c_int,
    arch: libc::c_uint,
}

/// Handles SIGSYS from now on: a line, and the end by the same signal.
pub(super) fn handle(prefix: &'static str) -> io::Result<()> {
    let _ = PREFIX.set(prefix);
    // SAFETY: all zeroes is a valid `sigaction`; the handler has the signature that SA_SIGINFO
    // asks for, and does only what a signal handler may.
    let done = unsafe {
        let mut action: libc::sigaction = mem::zeroed();
        action.sa_sigaction = on_sigsys as *const () as usize;
        // Reset and not blocked: raised once more, it ends the process.
        action.sa_flags = libc::SA_SIGINFO | libc::SA_RESETHAND | libc::SA_NODEFER;
        libc::sigaction(libc::SIGSYS, &raw const action, ptr::null_mut())
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

extern "C" fn on_sigsys(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel passes a pointer to what it has filled, for this signal in this form.
    let number = unsafe { (*info.cast::<SigSys>()).syscall };
    let mut name = [0u8; 16];
    // SAFETY: PR_GET_NAME writes at most sixteen bytes, with a zero at the end.
    unsafe { libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr()) };
    let mut line = Line { bytes: [0; 240], len: 0 };
    line.add(PREFIX.get().map_or(b"", |prefix| prefix.as_bytes()));
    line.add(b"vhost-user-scsi-mpath: thread ");
    let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
    line.add(&name[..end]);
    line.add(b" made system call ");
    line.add_number(number.unsigned_abs());
    line.add(b", which it may not make; the process ends (confinement.seccomp)\n");
    // SAFETY: the bytes are ours; write and raise are for signal handlers (signal-safety(7)).
    unsafe {
        libc::write(libc::STDERR_FILENO, line.bytes.as_ptr().cast(), line.len);
        libc::raise(libc::SIGSYS);
    }
}

/// A line made without memory from elsewhere.
struct Line {
    bytes: [u8; 240],
    len: usize,
}

impl Line {
    fn add(&mut self, more: &[u8]) {
        for byte in more {
            if let Some(place) = self.bytes.get_mut(self.len) {
                *place = *byte;
                self.len += 1;
            }
        }
    }

    fn add_number(&mut self, mut number: u32) {
        let (mut digits, mut at) = ([0u8; 10], 10);
        while at == 10 || number > 0 {
            at -= 1;
            digits[at] = b'0' + (number % 10) as u8;
            number /= 10;
        }
        self.add(&digits[at..]);
    }
}

/// How many arenas the C library's allocator may have. It finds that out when it has some and wants
/// another, in whichever thread that is, by reading a file: so it is told before, and the same.
#[cfg(target_env = "gnu")]
pub(super) fn settle_allocator() {
    const ARENAS_PER_PROCESSOR: usize = 8;
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let arenas = (processors * ARENAS_PER_PROCESSOR).min(i32::MAX as usize) as libc::c_int;
    // SAFETY: no memory is passed.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, arenas) };
}

/// Others' allocators ask for nothing.
#[cfg(not(target_env = "gnu"))]
pub(super) fn settle_allocator() {}

/// Whether the process may be dumped, and looked into by others of the same user.
pub(super) fn set_dumpable(dumpable: bool) -> io::Result<()> {
    // SAFETY: no memory is passed.
    let done =
        unsafe { libc::prctl(libc::PR_SET_DUMPABLE, libc::c_ulong::from(dumpable), 0, 0, 0) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Whether it may.
#[cfg(test)]
pub(super) fn is_dumpable() -> bool {
    // SAFETY: no memory is passed.
    unsafe { libc::prctl(libc::PR_GET_DUMPABLE, 0, 0, 0, 0) != 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_is_cut_where_it_is_full_and_has_its_numbers() {
        let mut line = Line { bytes: [0; 240], len: 0 };
        line.add_number(0);
        line.add(b" ");
        line.add_number(4_294_967_295);
        assert_eq!(&line.bytes[..line.len], b"0 4294967295");
        line.add(&[b'x'; 400]);
        assert_eq!(line.len, 240);
    }
}
