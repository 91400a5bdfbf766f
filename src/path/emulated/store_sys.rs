//! System calls on the image's file that the standard library does not have.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd};

use crate::buffer::Segments;

/// Pieces that the kernel takes in one call (`UIO_MAXIOV`).
const PIECES_MAX: usize = 1024;

/// Which way the data goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    /// From the file to memory.
    Read,
    /// From memory to the file.
    Write,
}

/// One `preadv2` or `pwritev2`; may move less than all.
pub(super) fn transfer(
    fd: BorrowedFd<'_>,
    direction: Direction,
    offset: u64,
    memory: &Segments,
    durable: bool,
) -> io::Result<usize> {
    let list = memory.as_iovecs();
    let (base, count) = (list.as_ptr(), list.len().min(PIECES_MAX) as libc::c_int);
    let (fd, offset) = (fd.as_raw_fd(), offset as libc::off_t);
    let flags = if durable { libc::RWF_DSYNC } else { 0 };
    let moved = match direction {
        // SAFETY: `base` and `count` describe a live array; its entries point to lent memory,
        // which the lender keeps mapped and writable until the attempt has ended, and the attempt
        // does not end before this call returns.
        Direction::Read => unsafe { libc::preadv2(fd, base, count, offset, flags) },
        // SAFETY: as above.
        Direction::Write => unsafe { libc::pwritev2(fd, base, count, offset, flags) },
    };
    usize::try_from(moved).map_err(|_| io::Error::last_os_error())
}

/// Makes a range read as zeroes without writing it, keeping the file's size.
pub(super) fn zero_range(
    fd: BorrowedFd<'_>,
    offset: u64,
    len: u64,
    deallocate: bool,
) -> io::Result<()> {
    let punch = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    let zero = libc::FALLOC_FL_ZERO_RANGE | libc::FALLOC_FL_KEEP_SIZE;
    // Each stands in for the other: both leave zeroes, and space is a hint.
    let (first, second) = if deallocate { (punch, zero) } else { (zero, punch) };
    let call = |mode| {
        let (offset, len) = (offset as libc::off_t, len as libc::off_t);
        // SAFETY: no memory is passed.
        match unsafe { libc::fallocate(fd.as_raw_fd(), mode, offset, len) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    call(first).or_else(|_| call(second))
}

/// Whether `offset` is allocated, and the next place where that changes (at most `end`). A file
/// system that cannot tell says that everything is.
pub(super) fn allocation(fd: BorrowedFd<'_>, offset: u64, end: u64) -> (bool, u64) {
    let seek = |whence| {
        // SAFETY: no memory is passed. The file's own position moves, which nobody uses: all
        // transfers carry their offset.
        let at = unsafe { libc::lseek(fd.as_raw_fd(), offset as libc::off_t, whence) };
        u64::try_from(at).map_err(|_| io::Error::last_os_error())
    };
    match seek(libc::SEEK_DATA) {
        Ok(data) if data > offset => (false, data.min(end)),
        Ok(_) => (true, seek(libc::SEEK_HOLE).unwrap_or(end).clamp(offset + 1, end)),
        // No data up to the end of the file.
        Err(error) if error.raw_os_error() == Some(libc::ENXIO) => (false, end),
        Err(_) => (true, end),
    }
}

/// True for file systems whose pages are the only copy: nothing there waits for a disk.
pub(super) fn is_memory_backed(fd: BorrowedFd<'_>) -> bool {
    const RAMFS_MAGIC: i64 = 0x8584_58F6;
    let mut stat = std::mem::MaybeUninit::<libc::statfs>::zeroed();
    // SAFETY: the structure is ours, and all-zero bytes are a valid one.
    let stat = unsafe {
        libc::fstatfs(fd.as_raw_fd(), stat.as_mut_ptr());
        stat.assume_init()
    };
    let kind = stat.f_type;
    // A block device's node lives on a memory-backed file system, its blocks do not.
    let mut mode = std::mem::MaybeUninit::<libc::stat>::zeroed();
    // SAFETY: as above.
    let mode = unsafe {
        libc::fstat(fd.as_raw_fd(), mode.as_mut_ptr());
        mode.assume_init().st_mode
    };
    mode & libc::S_IFMT == libc::S_IFREG && [libc::TMPFS_MAGIC, RAMFS_MAGIC].contains(&kind)
}

/// From here on the file is read and written past the page cache.
pub(super) fn set_direct(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: no memory is passed.
    let flags = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) };
    if flags < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: as above.
    match unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags | libc::O_DIRECT) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// What direct I/O on the file wants: the alignment of memory, and of offsets and lengths. Zeroes
/// where there is none; nothing where the kernel does not say.
pub(super) fn direct_alignment(fd: BorrowedFd<'_>) -> Option<(usize, usize)> {
    let mut stat = std::mem::MaybeUninit::<libc::statx>::zeroed();
    let (fd, flags) = (fd.as_raw_fd(), libc::AT_EMPTY_PATH);
    // SAFETY: the name is an empty string, the structure is ours, and all-zero bytes are a valid
    // one.
    let stat = unsafe {
        if libc::statx(fd, c"".as_ptr(), flags, libc::STATX_DIOALIGN, stat.as_mut_ptr()) != 0 {
            return None;
        }
        stat.assume_init()
    };
    let told = stat.stx_mask & libc::STATX_DIOALIGN != 0;
    told.then_some((stat.stx_dio_mem_align as usize, stat.stx_dio_offset_align as usize))
}

/// A file that lives in memory and has no name.
pub(super) fn memory_file(label: &str) -> io::Result<File> {
    let label = std::ffi::CString::new(label).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: `label` is a string that lives across the call.
    let fd = unsafe { libc::memfd_create(label.as_ptr(), libc::MFD_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and nobody else's.
    Ok(unsafe { File::from_raw_fd(fd) })
}
