//! A memory-backed image, mapped: data goes between it and the guest's memory by one copy in the
//! lane, without a system call. In random reads of 4 KiB the call was more than half of what a
//! command cost: finding the page takes about as long as copying it. In writes it was more.
//!
//! Only pages that are there are read and written so. To touch one that is not would allocate it, and
//! reading a sparse image would fill the host's memory; for a write the kernel says whether there is
//! room. Which pages are there is a hint: found out once per region, noted with every write, forgotten
//! with every hole; where it is wrong, a page of zeroes is allocated, and the data is right.
//!
//! The kernel lets one write at a time into a file. A copy does not know of it, so all writes of a
//! mapped image, by a copy or by a system call, hold the stripes of their pages (`stripes.rs`), and
//! reads look at them: nobody sees half of a block.
//!
//! A process that is killed in the middle of a copy leaves half a block behind, where the kernel would
//! have finished a page. That is a write without an answer, as on a disk that loses its power: the
//! in-flight region has it, and it is sent again before anything else (`docs/robustness.md`).
//!
//! Whoever makes the image shorter takes pages from under the mapping, and touching one is a SIGBUS
//! then, as it is where a hole is written and the host has no memory left. The handler puts a page of
//! our own there and marks the mapping as failed; who stepped on it sees the mark and goes by system
//! call, which says what is wrong, and so does everything after it.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::ptr;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};

use super::stripes::Stripes;
use crate::buffer::Segments;

/// Bytes of what is asked for at once: is the page there? A larger real page has many of these.
const PAGE: usize = 4096;
/// Pages in a word of the list.
const WORD: usize = 64;
/// Pages of a region: the kernel is asked once for all of them.
const REGION: usize = 8 * WORD;
/// Bytes that are copied at once, under their stripes.
const PIECE: usize = 64 << 10;
/// Mappings of one process at most; images beyond that are read and written by system calls.
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
    base: *mut u8,
    len: usize,
    place: usize,
    writable: bool,
    /// Which writes are under way.
    pub(super) stripes: Stripes,
    /// A bit for each page that is there.
    present: Box<[AtomicU64]>,
    /// A bit for each region that the kernel was asked about.
    asked: Box<[AtomicU64]>,
    /// It was logged that the mapping has failed.
    told: AtomicBool,
    /// The guest was told so, by a flush that failed.
    told_guest: AtomicBool,
}

// SAFETY: the mapping is only read and written by copies of raw bytes, to which no reference exists;
// any thread may do that at any time, and those that change bytes hold their stripes.
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
        let map = |protection| {
            let (flags, fd) = (libc::MAP_SHARED | libc::MAP_NORESERVE, file.as_raw_fd());
            // SAFETY: a new mapping at an address of the kernel's choice touches no existing memory.
            unsafe { libc::mmap(ptr::null_mut(), len, protection, flags, fd, 0) }
        };
        // One that is opened to be looked at, or sealed, cannot be written.
        let mut base = map(libc::PROT_READ | libc::PROT_WRITE);
        let writable = base != libc::MAP_FAILED;
        if !writable {
            base = map(libc::PROT_READ);
        }
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
        let (present, asked, stripes) = (zeroed(words), zeroed(asked), Stripes::default());
        let (told, told_guest) = (AtomicBool::new(false), AtomicBool::new(false));
        Some(Mapped { base, len, place, writable, stripes, present, asked, told, told_guest })
    }

    /// Copies `len` bytes from `offset` on to the beginning of `into`. False where that has to be
    /// done by a system call; what was copied then is not to be relied on.
    pub(super) fn read(&self, offset: u64, into: &Segments, len: usize) -> bool {
        let Some(from) = self.range(offset, len) else { return false };
        for (done, take) in pieces(len) {
            self.stripes.read(offset + done as u64, take, || {
                // SAFETY: inside the mapping, which lives as long as `self`. A page that has gone
                // is replaced by the handler.
                unsafe { into.write_from(done, from.wrapping_add(done), take) };
            });
        }
        self.was_whole()
    }

    /// Copies the first `len` bytes of `from` to `offset`. False where that has to be done by a
    /// system call; what was copied then is of no account, since that writes it again.
    pub(super) fn write(&self, offset: u64, from: &Segments, len: usize) -> bool {
        let Some(to) = self.range(offset, len).filter(|_| self.writable) else { return false };
        for (done, take) in pieces(len) {
            self.stripes.write(offset + done as u64, take, || {
                // SAFETY: as in `read`; nobody else writes there while the stripes are held.
                unsafe { from.read_into(done, to.wrapping_add(done), take) };
            });
        }
        self.was_whole()
    }

    /// Where a range is, if all of its pages are there.
    fn range(&self, offset: u64, len: usize) -> Option<*mut u8> {
        let offset = usize::try_from(offset).ok()?;
        let fits = offset.checked_add(len).is_some_and(|end| end <= self.len);
        if self.has_failed() {
            self.tell();
            return None;
        }
        if len == 0 || !fits || !self.is_present(offset, len) {
            return None;
        }
        Some(self.base.wrapping_add(offset))
    }

    /// To be asked after a copy: a page that the handler has replaced meanwhile must not pass.
    fn was_whole(&self) -> bool {
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

    /// The image has `len` bytes now: is what was copied to it still there?
    pub(super) fn is_whole(&self, len: u64) -> bool {
        self.note_len(len);
        !self.has_failed()
    }

    /// True for one caller, who tells the guest that what was copied may be lost. Once is enough, as
    /// with a disk that tells of a write that failed later: nothing is copied any more.
    pub(super) fn is_to_tell_guest(&self) -> bool {
        !self.told_guest.swap(true, Ordering::Relaxed)
    }

    #[cold]
    fn tell(&self) {
        if !self.told.swap(true, Ordering::Relaxed) {
            log::warn!(
                "the mapping of the image has failed: it is read and written by system calls from now \
                 on"
            );
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
        let at = self.base.wrapping_add(first * PAGE).cast();
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
        // SAFETY: `new` has mapped it with this length, and nobody uses it any more.
        unsafe { libc::munmap(self.base.cast(), self.len) };
    }
}

/// The parts of a copy of `len` bytes: where they begin, and how long they are.
fn pieces(len: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..len).step_by(PIECE).map(move |done| (done, (len - done).min(PIECE)))
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

/// A page was touched that is not there any more. In an image, one of ours takes its place; anywhere else
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

/// Puts a page of our own where the page of `address` was: zeroes for who reads, and somewhere to
/// write for who writes, so that the same access does not fail again.
fn replace(address: usize) -> bool {
    let page = page_size().max(1);
    let at = (address - address % page) as *mut libc::c_void;
    let flags = libc::MAP_FIXED | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: the page belongs to a mapping of an image. Who reads it throws away what it reads here,
    // and who writes it writes it again by a system call. `mmap` and `sysconf` are plain calls into
    // the kernel or none.
    unsafe { libc::mmap(at, page, protection, flags, -1, 0) == at }
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

    fn write(mapped: &Mapped, offset: usize, bytes: &[u8]) -> bool {
        let buffer = OwnedBuffer::from_vec(bytes.to_vec());
        mapped.write(offset as u64, buffer.segments(), bytes.len())
    }

    #[test]
    fn write_is_in_the_file_and_leaves_what_is_beside_it() {
        let (file, mapped) = image();
        assert!(write(&mapped, 512, &[3; 512]));
        let mut there = [0; 2048];
        file.read_exact_at(&mut there, 0).unwrap();
        assert_eq!(there.chunks(512).map(|block| block[0]).collect::<Vec<_>>(), [7, 3, 7, 7]);
        // More than is copied at once, in pieces that do not end where ours do.
        let data: Vec<u8> = (0..LEN / 2).map(|at| (at / 512) as u8 ^ at as u8).collect();
        file.write_all_at(&vec![1; LEN], 0).unwrap();
        mapped.note_written(0, LEN);
        assert!(write(&mapped, 4096, &data));
        let mut there = vec![0; LEN];
        file.read_exact_at(&mut there, 0).unwrap();
        assert!(there[4096..4096 + data.len()] == data && read(&mapped, 0, LEN) == Some(there));
    }

    #[test]
    fn write_of_a_hole_and_behind_the_end_is_left_to_the_kernel() {
        let (file, mapped) = image();
        let before = file.metadata().unwrap().blocks();
        assert!(!write(&mapped, PAGE, &[1; 2 * PAGE]));
        assert_eq!(file.metadata().unwrap().blocks(), before);
        mapped.note_written(0, LEN);
        assert!(!write(&mapped, LEN - 512, &[1; 1024]));
        assert_eq!(file.metadata().unwrap().len(), LEN as u64);
    }

    #[test]
    fn write_of_a_file_that_may_only_be_read_is_left_to_the_kernel() {
        let (file, _) = image();
        let name = format!("/proc/self/fd/{}", file.as_raw_fd());
        let mapped = Mapped::new(&File::open(name).unwrap()).unwrap();
        assert_eq!(read(&mapped, 0, 512), Some(vec![7; 512]));
        assert!(!write(&mapped, 0, &[1; 512]));
        assert_eq!(read(&mapped, 0, 512), Some(vec![7; 512]));
    }

    #[test]
    fn write_of_what_was_cut_off_fails_and_the_process_lives() {
        let (file, mapped) = image();
        assert!(write(&mapped, PAGE, &[1; PAGE]));
        file.set_len(PAGE as u64).unwrap();
        assert!(!write(&mapped, PAGE, &[1; PAGE]));
        assert!(!write(&mapped, 0, &[1; PAGE]), "nothing is written to a mapping that has failed");
        assert_eq!(file.metadata().unwrap().len(), PAGE as u64);
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
