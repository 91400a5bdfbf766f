//! A memory-backed image, mapped for reading: data goes to the guest's memory by one copy in the
//! lane, without a system call. In random reads of 4 KiB the call was more than half of what a
//! command cost: finding the page takes about as long as copying it.
//!
//! Only pages that are there are read so. To touch one that is not would allocate it, and reading
//! a sparse image would fill the host's memory. Which pages are there is a hint: found out once per
//! region, noted with every write, forgotten with every hole; where it is wrong, a page of zeroes is
//! allocated, and the data is right.
//!
//! Writes do not go this way: a process that is killed in the middle of a copy would leave half a
//! block behind, and the kernel finishes a page. It also keeps two writes of one block apart.
//!
//! Whoever makes the image shorter takes pages from under the mapping, and reading one is a SIGBUS
//! then. The handler puts a page of zeroes there and marks the mapping as failed; the read that
//! stepped on it sees the mark and goes by system call, which says what is wrong, and so does
//! everything after it.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::ptr;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};

use crate::buffer::Segments;

/// Bytes of what is asked for at once: is the page there? A larger real page has many of these.
const PAGE: usize = 4096;
/// Pages in a word of the list.
const WORD: usize = 64;
/// Pages of a region: the kernel is asked once for all of them.
const REGION: usize = 8 * WORD;
/// Mappings of one process at most; images beyond that are read by system calls.
const MAPPINGS_MAX: usize = 64;

/// A mapping that the handler knows.
struct Place {
    /// Zero in a free place, one in a place that is being taken.
    start: AtomicUsize,
    len: AtomicUsize,
    failed: AtomicBool,
}

static PLACES: [Place; MAPPINGS_MAX] = [const {
    Place { start: AtomicUsize::new(0), len: AtomicUsize::new(0), failed: AtomicBool::new(false) }
}; MAPPINGS_MAX];

/// An image in the address space.
#[derive(Debug)]
pub(super) struct Mapped {
    base: *const u8,
    len: usize,
    place: usize,
    /// A bit for each page that is there.
    present: Box<[AtomicU64]>,
    /// A bit for each region that the kernel was asked about.
    asked: Box<[AtomicU64]>,
}

// SAFETY: the mapping is only read, by copies, which any thread may do at any time.
unsafe impl Send for Mapped {}
// SAFETY: as above.
unsafe impl Sync for Mapped {}

impl Mapped {
    /// Maps all of `file`, which is in memory. `None` where it cannot be: then it is read by
    /// system calls.
    pub(super) fn new(file: &File) -> Option<Self> {
        let len = usize::try_from(file.metadata().ok()?.len()).ok().filter(|len| *len > 0)?;
        let free = |place: &Place| {
            place.start.compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed).is_ok()
        };
        let place = PLACES.iter().position(free)?;
        let (protection, flags) = (libc::PROT_READ, libc::MAP_SHARED | libc::MAP_NORESERVE);
        // SAFETY: a new mapping at an address of the kernel's choice touches no existing memory.
        let base =
            unsafe { libc::mmap(ptr::null_mut(), len, protection, flags, file.as_raw_fd(), 0) };
        if base == libc::MAP_FAILED || !handler_is_installed() {
            if base != libc::MAP_FAILED {
                // SAFETY: it was mapped just now, and nobody knows of it.
                unsafe { libc::munmap(base, len) };
            }
            PLACES[place].start.store(0, Ordering::Release);
            return None;
        }
        PLACES[place].len.store(len, Ordering::Relaxed);
        PLACES[place].failed.store(false, Ordering::Relaxed);
        PLACES[place].start.store(base as usize, Ordering::Release);
        let words = len.div_ceil(PAGE * WORD);
        let asked = words.div_ceil(REGION / WORD).div_ceil(WORD);
        let base = base.cast();
        Some(Mapped { base, len, place, present: zeroed(words), asked: zeroed(asked) })
    }

    /// Copies `len` bytes from `offset` on to the beginning of `into`. False where that has to be
    /// done by a system call; what was copied then is not to be relied on.
    pub(super) fn read(&self, offset: u64, into: &Segments, len: usize) -> bool {
        let Ok(offset) = usize::try_from(offset) else { return false };
        let fits = offset.checked_add(len).is_some_and(|end| end <= self.len);
        if len == 0 || !fits || self.has_failed() || !self.is_present(offset, len) {
            return false;
        }
        // SAFETY: inside the mapping, which lives as long as `self` and is never written by us. A
        // page that has gone is replaced by the handler.
        unsafe { into.fill_from(self.base.wrapping_add(offset), len) };
        // The copy comes first: a page that the handler has replaced meanwhile must not pass.
        fence(Ordering::SeqCst);
        !self.has_failed()
    }

    /// The image has `len` bytes now. One that was cut within a page brings no SIGBUS for the rest of
    /// that page: everything goes by system calls from then on.
    pub(super) fn note_len(&self, len: u64) {
        if len < self.len as u64 {
            PLACES[self.place].failed.store(true, Ordering::SeqCst);
        }
    }

    /// `len` bytes from `offset` on have been written: their pages are there.
    pub(super) fn note_written(&self, offset: u64, len: usize) {
        let Ok(offset) = usize::try_from(offset) else { return };
        for page in self.pages(offset, len) {
            let (word, bit) = (&self.present[page / WORD], 1 << (page % WORD));
            if word.load(Ordering::Relaxed) & bit == 0 {
                word.fetch_or(bit, Ordering::Relaxed);
            }
        }
    }

    /// `len` bytes from `offset` on are about to become a hole.
    pub(super) fn note_hole(&self, offset: u64, len: u64) {
        let (offset, len) = (usize::try_from(offset), usize::try_from(len));
        let (Ok(offset), Ok(len)) = (offset, len) else { return };
        for page in self.pages(offset, len) {
            self.present[page / WORD].fetch_and(!(1 << (page % WORD)), Ordering::Relaxed);
        }
    }

    /// The pages of a range, as far as it is mapped.
    fn pages(&self, offset: usize, len: usize) -> std::ops::Range<usize> {
        let end = offset.saturating_add(len).min(self.len);
        offset.min(end) / PAGE..end.div_ceil(PAGE)
    }

    fn has_failed(&self) -> bool {
        PLACES[self.place].failed.load(Ordering::Relaxed)
    }

    fn is_present(&self, offset: usize, len: usize) -> bool {
        let pages = self.pages(offset, len);
        let there = |page: usize| {
            self.present[page / WORD].load(Ordering::Relaxed) & 1 << (page % WORD) != 0
        };
        pages.clone().all(|page| there(page) || (self.ask(page) && there(page)))
    }

    /// Asks the kernel about the region of `page`. False if that was done before.
    fn ask(&self, page: usize) -> bool {
        let region = page / REGION;
        let (word, bit) = (&self.asked[region / WORD], 1 << (region % WORD));
        if word.load(Ordering::Relaxed) & bit != 0
            || word.fetch_or(bit, Ordering::Relaxed) & bit != 0
        {
            return false;
        }
        let first = region * REGION;
        let bytes = (self.len - first * PAGE).min(REGION * PAGE);
        let mut there = [0_u8; REGION];
        let at = self.base.wrapping_add(first * PAGE).cast_mut().cast();
        // SAFETY: the range is in the mapping and begins with a page; the list has room for a byte
        // for each of its pages, which are no smaller than ours.
        if unsafe { libc::mincore(at, bytes, there.as_mut_ptr()) } != 0 || page_size() != PAGE {
            return false;
        }
        for (page, there) in (first..).zip(there) {
            if there & 1 != 0 {
                self.present[page / WORD].fetch_or(1 << (page % WORD), Ordering::Relaxed);
            }
        }
        true
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        PLACES[self.place].start.store(0, Ordering::Release);
        // SAFETY: `new` has mapped it with this length, and nobody reads it any more.
        unsafe { libc::munmap(self.base.cast_mut().cast(), self.len) };
    }
}

/// Zeroes that take no memory before they are touched, as a loop over the list would.
fn zeroed(words: usize) -> Box<[AtomicU64]> {
    let words = Box::into_raw(vec![0_u64; words].into_boxed_slice());
    // SAFETY: an atomic word has the size, the values and (where this program runs) the alignment
    // of a plain one, and the box is nobody else's.
    unsafe { Box::from_raw(words as *mut [AtomicU64]) }
}

const _: () = assert!(align_of::<AtomicU64>() == align_of::<u64>());

fn page_size() -> usize {
    // SAFETY: no memory is passed.
    usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(0)
}

/// Installs the handler with the first call.
fn handler_is_installed() -> bool {
    static ONCE: Once = Once::new();
    static DONE: AtomicBool = AtomicBool::new(false);
    ONCE.call_once(|| {
        // SAFETY: all-zero bytes are a valid sigaction.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = on_sigbus as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        // SAFETY: the handler has the signature that SA_SIGINFO asks for, and calls nothing that
        // may not be called there.
        let result = unsafe { libc::sigaction(libc::SIGBUS, &action, ptr::null_mut()) };
        DONE.store(result == 0, Ordering::Release);
    });
    DONE.load(Ordering::Acquire)
}

/// A page was touched that is not there any more. In an image, zeroes take its place; anywhere else
/// the process ends, by the same access, as it would without this handler.
extern "C" fn on_sigbus(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid siginfo, with an address for this signal.
    let address = unsafe { (*info).si_addr() } as usize;
    // SAFETY: where errno is, for this thread: the code that was interrupted may look at it.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: as above.
    let kept = unsafe { *errno };
    let replaced = PLACES.iter().any(|place| {
        let start = place.start.load(Ordering::Acquire);
        let inside = start > 1 && address.wrapping_sub(start) < place.len.load(Ordering::Relaxed);
        inside && {
            place.failed.store(true, Ordering::SeqCst);
            replace(address)
        }
    });
    if !replaced {
        // SAFETY: async-signal-safe, and the default action needs no handler.
        unsafe { libc::signal(libc::SIGBUS, libc::SIG_DFL) };
    }
    // SAFETY: as above.
    unsafe { *errno = kept };
}

/// Puts zeroes where the page of `address` was.
fn replace(address: usize) -> bool {
    let page = page_size().max(1);
    let at = (address - address % page) as *mut libc::c_void;
    let flags = libc::MAP_FIXED | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: the page belongs to a mapping of an image, which is only read, and whose reader
    // throws away what it reads here. `mmap` and `sysconf` are plain calls into the kernel or none.
    unsafe { libc::mmap(at, page, libc::PROT_READ, flags, -1, 0) == at }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileExt, MetadataExt};

    use super::*;
    use crate::buffer::OwnedBuffer;
    use crate::path::emulated::store_sys::memory_file;

    const LEN: usize = 4 << 20;

    fn image() -> (File, Mapped) {
        let file = memory_file("mapped-test").unwrap();
        file.set_len(LEN as u64).unwrap();
        file.write_all_at(&[7; 2 * PAGE], 0).unwrap();
        let mapped = Mapped::new(&file).unwrap();
        (file, mapped)
    }

    fn read(mapped: &Mapped, offset: usize, len: usize) -> Option<Vec<u8>> {
        let buffer = OwnedBuffer::from_vec(vec![0xA5; len]);
        mapped.read(offset as u64, buffer.segments(), len).then(|| buffer.to_vec())
    }

    #[test]
    fn read_returns_what_is_there_and_what_is_written_later() {
        let (file, mapped) = image();
        assert_eq!(read(&mapped, 512, 2 * PAGE - 512), Some(vec![7; 2 * PAGE - 512]));
        file.write_all_at(&[9; 512], 1024).unwrap();
        assert_eq!(read(&mapped, 1024, 512), Some(vec![9; 512]));
    }

    #[test]
    fn read_of_a_hole_is_left_to_the_kernel_and_allocates_nothing() {
        let (file, mapped) = image();
        let before = file.metadata().unwrap().blocks();
        assert_eq!(read(&mapped, PAGE, 2 * PAGE), None);
        assert_eq!(read(&mapped, LEN - PAGE, PAGE), None);
        assert_eq!(file.metadata().unwrap().blocks(), before);
        file.write_all_at(&[1; PAGE], 2 * PAGE as u64).unwrap();
        mapped.note_written(2 * PAGE as u64, PAGE);
        assert_eq!(read(&mapped, 2 * PAGE, PAGE), Some(vec![1; PAGE]));
        mapped.note_hole(2 * PAGE as u64, PAGE as u64);
        assert_eq!(read(&mapped, 2 * PAGE, PAGE), None);
    }

    #[test]
    fn read_of_an_image_that_was_cut_within_a_page_is_left_to_the_kernel() {
        let (file, mapped) = image();
        file.set_len(PAGE as u64 + 512).unwrap();
        mapped.note_len(file.metadata().unwrap().len());
        assert_eq!(read(&mapped, PAGE + 1024, 512), None);
        let (_file, other) = image();
        other.note_len(2 * LEN as u64);
        assert!(read(&other, 0, PAGE).is_some(), "one that has grown is as good as before");
    }

    #[test]
    fn read_behind_the_end_is_left_to_the_kernel() {
        let (_file, mapped) = image();
        mapped.note_written(0, LEN);
        assert_eq!(read(&mapped, LEN - 512, 1024), None);
        let buffer = OwnedBuffer::zeroed(512);
        assert!(!mapped.read(u64::MAX - 100, buffer.segments(), 512));
    }

    #[test]
    fn read_of_what_was_cut_off_fails_and_the_process_lives() {
        let (file, mapped) = image();
        assert!(read(&mapped, 0, PAGE).is_some());
        file.set_len(PAGE as u64).unwrap();
        assert_eq!(read(&mapped, PAGE, PAGE), None);
        assert_eq!(read(&mapped, 0, PAGE), None, "nothing is read from a mapping that has failed");
        let (_file, other) = image();
        assert!(read(&other, 0, PAGE).is_some(), "another image is as good as before");
    }
}
