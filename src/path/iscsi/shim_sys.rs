//! The shim around libiscsi (`shim.c`), made safe: the only place that knows C.

use std::ffi::{CStr, CString, c_char, c_int};
use std::io;
use std::os::fd::RawFd;
use std::ptr::{self, NonNull};

use crate::buffer::Segments;
use crate::limits::{ISCSI_TRANSFER_MAX, TCP_USER_TIMEOUT};
use crate::scsi::sense::SENSE_MAX;

/// What has happened to a [`Wire`]; kept in step with `shim.c`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Flags(u32);

impl Flags {
    /// The connection is there.
    pub(super) fn connected(self) -> bool {
        self.0 & 1 != 0
    }
    /// The target has let us in.
    pub(super) fn logged_in(self) -> bool {
        self.0 & 2 != 0
    }
    /// The target has sent us elsewhere: [`Wire::redirect`].
    pub(super) fn redirected(self) -> bool {
        self.0 & 4 != 0
    }
    /// The target has not let us in: [`Wire::note`] says why.
    pub(super) fn refused(self) -> bool {
        self.0 & 8 != 0
    }
    /// The session is over, in good order.
    pub(super) fn logged_out(self) -> bool {
        self.0 & 16 != 0
    }
    /// The connection is gone.
    pub(super) fn dropped(self) -> bool {
        self.0 & 32 != 0
    }
}

/// SCSI_STATUS_CANCELLED: libiscsi's own, as all from here on are.
pub(super) const CANCELLED: u32 = 0x0F00_0000;

/// Who logs in, and where.
pub(super) struct Login<'a> {
    pub(super) initiator: &'a str,
    pub(super) target: &'a str,
    /// User and secret with which we prove who we are.
    pub(super) chap: Option<(&'a str, &'a str)>,
    /// User and secret with which the target does.
    pub(super) mutual: Option<(&'a str, &'a str)>,
    pub(super) isid: (u32, u16),
    pub(super) header_digest: bool,
}

/// The end of a command.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct End {
    pub(super) token: u64,
    /// A SCSI status, or one of libiscsi's own from [`CANCELLED`] on.
    pub(super) status: u32,
    pub(super) residual: u32,
    /// 0 none, 1 under, 2 over.
    pub(super) residual_kind: u8,
    sense_len: u8,
    sense: [u8; SENSE_MAX],
}

impl End {
    /// The sense data that came.
    pub(super) fn sense(&self) -> &[u8] {
        &self.sense[..usize::from(self.sense_len).min(SENSE_MAX)]
    }
}

/// The data of a command.
#[derive(Clone, Copy)]
pub(super) enum Data<'a> {
    None,
    In(&'a Segments),
    Out(&'a Segments),
}

#[repr(C)]
struct Settings {
    initiator: *const c_char,
    target: *const c_char,
    user: *const c_char,
    secret: *const c_char,
    target_user: *const c_char,
    target_secret: *const c_char,
    isid_number: u32,
    isid_qualifier: u16,
    header_digest: u8,
    transfer_max: u32,
}

#[repr(C)]
struct Session {
    _opaque: [u8; 0],
}

unsafe extern "C" {
    fn mp_open(settings: *const Settings) -> *mut Session;
    fn mp_connect(session: *mut Session, portal: *const c_char, user_timeout_ms: u32) -> c_int;
    fn mp_login(session: *mut Session) -> c_int;
    fn mp_logout(session: *mut Session) -> c_int;
    fn mp_nop(session: *mut Session) -> c_int;
    fn mp_fd(session: *mut Session) -> c_int;
    fn mp_events(session: *mut Session) -> c_int;
    fn mp_flags(session: *mut Session) -> u32;
    fn mp_note(session: *mut Session) -> *const c_char;
    fn mp_redirect(session: *mut Session) -> *const c_char;
    fn mp_unsent(session: *mut Session) -> u32;
    fn mp_lingering(session: *mut Session) -> u32;
    fn mp_service(session: *mut Session, revents: c_int);
    fn mp_send(session: *mut Session, together: c_int);
    fn mp_command(
        session: *mut Session,
        lun: u16,
        cdb: *const u8,
        cdb_len: u32,
        direction: u32,
        iov: *const libc::iovec,
        pieces: u32,
        length: u32,
        token: u64,
    ) -> c_int;
    fn mp_take(session: *mut Session, end: *mut End) -> c_int;
    fn mp_close(session: *mut Session);
}

/// One connection and one login, used by one thread at a time, and closed by dropping it: with a
/// reset, after which no lent memory is touched any more.
pub(super) struct Wire(NonNull<Session>);

// SAFETY: the session is reached through this pointer alone, and a `Wire` is no `Sync`. libiscsi
// and the shim keep what belongs to a session inside it, and nothing of it in a thread: the shim's
// thread-local word is set and cleared within one call.
unsafe impl Send for Wire {}

/// One call of a function that wants a live session and nothing else.
macro_rules! call {
    ($self:ident, $function:ident $(, $argument:expr)*) => {
        // SAFETY: the session lives as long as the value does, is used by no other thread now, and
        // the function keeps no pointer that it is given.
        unsafe { $function($self.0.as_ptr() $(, $argument)*) }
    };
}

impl Wire {
    /// A session that is not connected yet.
    pub(super) fn open(login: &Login<'_>) -> io::Result<Self> {
        let text = |text: &str| CString::new(text).map_err(io::Error::other);
        let pair = |pair: Option<(&str, &str)>| {
            pair.map(|(user, secret)| Ok::<_, io::Error>((text(user)?, text(secret)?))).transpose()
        };
        let (initiator, target) = (text(login.initiator)?, text(login.target)?);
        let (chap, mutual) = (pair(login.chap)?, pair(login.mutual)?);
        let user = |pair: &Option<(CString, CString)>| {
            pair.as_ref().map_or(ptr::null(), |pair| pair.0.as_ptr())
        };
        let secret = |pair: &Option<(CString, CString)>| {
            pair.as_ref().map_or(ptr::null(), |pair| pair.1.as_ptr())
        };
        let settings = Settings {
            initiator: initiator.as_ptr(),
            target: target.as_ptr(),
            user: user(&chap),
            secret: secret(&chap),
            target_user: user(&mutual),
            target_secret: secret(&mutual),
            isid_number: login.isid.0,
            isid_qualifier: login.isid.1,
            header_digest: login.header_digest.into(),
            transfer_max: ISCSI_TRANSFER_MAX,
        };
        // SAFETY: the settings and the strings they point to live until the call returns; libiscsi
        // copies them.
        let session = unsafe { mp_open(&settings) };
        NonNull::new(session).map(Wire).ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))
    }

    /// Begins to connect. False when that failed at once.
    pub(super) fn connect(&mut self, portal: std::net::SocketAddr) -> bool {
        let Ok(portal) = CString::new(portal.to_string()) else { return false };
        let timeout = TCP_USER_TIMEOUT.as_millis() as u32;
        call!(self, mp_connect, portal.as_ptr(), timeout) == 0
    }

    /// Begins to log in.
    pub(super) fn login(&mut self) -> bool {
        call!(self, mp_login) == 0
    }

    /// Begins to log out.
    pub(super) fn logout(&mut self) -> bool {
        call!(self, mp_logout) == 0
    }

    /// Sends a NOP-Out.
    pub(super) fn nop(&mut self) -> bool {
        call!(self, mp_nop) == 0
    }

    /// What to wait on, and for what.
    pub(super) fn poll_fd(&self) -> libc::pollfd {
        let (fd, events) = (call!(self, mp_fd), call!(self, mp_events));
        libc::pollfd { fd, events: events as i16, revents: 0 }
    }

    /// True while something is queued that the target would take.
    pub(super) fn has_unsent(&self) -> bool {
        self.poll_fd().events & libc::POLLOUT != 0
    }

    /// Sends and receives.
    pub(super) fn service(&mut self, revents: i16) {
        call!(self, mp_service, c_int::from(revents));
    }

    /// Sends what is queued; `together` where that is more than one piece.
    pub(super) fn send(&mut self, together: bool) {
        call!(self, mp_send, c_int::from(together));
    }

    /// What has happened so far.
    pub(super) fn flags(&self) -> Flags {
        Flags(call!(self, mp_flags))
    }

    /// What libiscsi last had to say, or nothing.
    pub(super) fn note(&self) -> String {
        text(call!(self, mp_note))
    }

    /// Where the target sends us.
    pub(super) fn redirect(&self) -> String {
        text(call!(self, mp_redirect))
    }

    /// PDUs that are queued.
    pub(super) fn unsent(&self) -> usize {
        call!(self, mp_unsent) as usize
    }

    /// Commands that have ended while something waited to be sent, maybe of theirs.
    pub(super) fn lingering(&self) -> usize {
        call!(self, mp_lingering) as usize
    }

    /// Queues a command; false when libiscsi does not take it. The data's memory is lent until the
    /// command's end has been taken or the wire is dropped.
    pub(super) fn command(&mut self, lun: u16, cdb: &[u8], data: Data<'_>, token: u64) -> bool {
        let (direction, segments) = match data {
            Data::None => (0, None),
            Data::In(segments) => (1, Some(segments)),
            Data::Out(segments) => (2, Some(segments)),
        };
        let iovecs = segments.map_or(&[][..], Segments::as_iovecs);
        let length = segments.map_or(0, Segments::len) as u32;
        let (cdb_at, cdb_len) = (cdb.as_ptr(), cdb.len() as u32);
        let (iov, pieces) = (iovecs.as_ptr(), iovecs.len() as u32);
        call!(self, mp_command, lun, cdb_at, cdb_len, direction, iov, pieces, length, token) == 0
    }

    /// The next command that has ended.
    pub(super) fn take(&mut self) -> Option<End> {
        let mut end = End {
            token: 0,
            status: 0,
            residual: 0,
            residual_kind: 0,
            sense_len: 0,
            sense: [0; SENSE_MAX],
        };
        (call!(self, mp_take, &mut end) != 0).then_some(end)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        call!(self, mp_close);
    }
}

fn text(at: *const c_char) -> String {
    if at.is_null() {
        return String::new();
    }
    // SAFETY: the shim's and libiscsi's texts end with a zero inside their arrays (the last byte is
    // never written), and stay where they are until the next call, which needs this thread.
    let text = unsafe { CStr::from_ptr(at) }.to_string_lossy();
    // A target may have chosen parts of it.
    text.trim().chars().map(|one| if one.is_control() { ' ' } else { one }).collect()
}

/// Waits until one of `fds` is ready or the time is up.
pub(super) fn wait(fds: &mut [libc::pollfd], timeout_ms: i32) -> io::Result<()> {
    // SAFETY: the slice is as long as it is said to be.
    let ready = unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, timeout_ms) };
    if ready >= 0 {
        return Ok(());
    }
    fds.iter_mut().for_each(|fd| fd.revents = 0);
    match io::Error::last_os_error() {
        error if error.kind() == io::ErrorKind::Interrupted => Ok(()),
        error => Err(error),
    }
}

/// What [`wait`] waits for on a descriptor that is only read.
pub(super) fn readable(fd: RawFd) -> libc::pollfd {
    libc::pollfd { fd, events: libc::POLLIN, revents: 0 }
}
