//! How many lines there may be: neither a guest nor an array can flood the log.
//!
//! Lines of one place in the source about one path or ring are one subject. Each subject has
//! [`LOG_BURST`] lines, until [`LOG_INTERVAL`] has passed since the first of them; the others are
//! counted, and one line tells their number. A guest may have many rings, so lines of one place
//! about all of them have [`LOG_RINGS_BURST`] together. A lock is taken for each line that is wanted, and not
//! held while it is written. What is only for debugging is not limited: somebody asked for it.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use log::{Level, Log, Metadata, Record};

use crate::limits::{LOG_BURST, LOG_INTERVAL, LOG_LIKE_MAX, LOG_RINGS_BURST, LOG_SUBJECTS_MAX};

/// Fields that make lines of one place subjects of their own.
const APART: [&str; 2] = ["path", RING];
const RING: &str = "ring";

/// The subject of lines that found no place of their own.
const OTHERS: u64 = 0;

/// The lines of one subject.
#[derive(Debug)]
struct Window {
    since: Instant,
    lines: u32,
    left_out: u64,
    /// The last line that was written.
    like: Option<Like>,
}

/// A line, as far as the one that counts what is like it repeats it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Like {
    level: Level,
    target: String,
    text: String,
}

/// Counts the lines of all subjects.
#[derive(Debug, Default)]
struct Counter {
    windows: HashMap<u64, Window>,
}

impl Counter {
    /// True when the line may be written; `like` is what it says. `rings` is the subject that it
    /// shares with lines about other rings.
    fn admit(
        &mut self,
        subject: u64,
        rings: Option<u64>,
        now: Instant,
        like: impl Fn() -> Like,
    ) -> bool {
        self.count(subject, LOG_BURST, now, &like)
            && rings.is_none_or(|rings| self.count(rings, LOG_RINGS_BURST, now, &like))
    }

    /// One line more of `subject`; true while there are `most` of them at most.
    fn count(&mut self, subject: u64, most: u32, now: Instant, like: impl Fn() -> Like) -> bool {
        let full = self.windows.len() >= LOG_SUBJECTS_MAX && !self.windows.contains_key(&subject);
        let subject = if full { OTHERS } else { subject };
        let new = || Window { since: now, lines: 0, left_out: 0, like: None };
        let window = self.windows.entry(subject).or_insert_with(new);
        if window.lines >= most {
            window.left_out += 1;
            return false;
        }
        window.lines += 1;
        if window.lines == most {
            window.like = Some(like());
        }
        true
    }

    /// Forgets subjects whose time is over; those of which lines were left out, with their number.
    fn over(&mut self, now: Instant) -> Vec<(u64, Like)> {
        let mut told = Vec::new();
        self.windows.retain(|_, window| {
            let over = now.saturating_duration_since(window.since) >= LOG_INTERVAL;
            if over && let (1.., Some(like)) = (window.left_out, window.like.take()) {
                told.push((window.left_out, like));
            }
            !over
        });
        told
    }

    fn owes(&self) -> bool {
        self.windows.values().any(|window| window.left_out > 0)
    }
}

/// Passes lines on, as long as there are not too many.
pub struct Limited<L> {
    inner: L,
    clock: fn() -> Instant,
    counter: Mutex<Counter>,
    /// Lines were left out and nobody was told their number: [`Log::flush`] costs nothing
    /// otherwise.
    owes: AtomicBool,
}

impl<L: Log> Limited<L> {
    /// No line was written yet.
    pub fn new(inner: L, clock: fn() -> Instant) -> Self {
        let (counter, owes) = (Mutex::default(), AtomicBool::new(false));
        Limited { inner, clock, counter, owes }
    }

    fn counter(&self) -> MutexGuard<'_, Counter> {
        self.counter.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn say_left_out(&self, told: Vec<(u64, Like)>) {
        for (number, Like { level, target, text }) in told {
            let mut record = Record::builder();
            record.level(level).target(&target);
            let words = format_args!("{number} more like this suppressed: {text}");
            self.inner.log(&record.args(words).build());
        }
    }
}

impl<L: Log> Log for Limited<L> {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.inner.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if !self.inner.enabled(record.metadata()) {
            return;
        }
        if record.level() > Level::Info {
            return self.inner.log(record);
        }
        let now = (self.clock)();
        let (told, admitted) = {
            let mut counter = self.counter();
            let told = counter.over(now);
            let admitted = counter.admit(subject(record), rings(record), now, || like(record));
            self.owes.store(counter.owes(), Ordering::Relaxed);
            (told, admitted)
        };
        self.say_left_out(told);
        if admitted {
            self.inner.log(record);
        }
    }

    fn flush(&self) {
        if self.owes.load(Ordering::Relaxed) {
            let told = {
                let mut counter = self.counter();
                let told = counter.over((self.clock)());
                self.owes.store(counter.owes(), Ordering::Relaxed);
                told
            };
            self.say_left_out(told);
        }
        self.inner.flush();
    }
}

/// What the line is about.
fn subject(record: &Record<'_>) -> u64 {
    let mut hasher = DefaultHasher::new();
    (record.file(), record.line(), record.target()).hash(&mut hasher);
    for name in APART {
        let value = record.key_values().get(log::kv::Key::from(name));
        value.map(|value| value.to_string()).hash(&mut hasher);
    }
    // Never the number of [`OTHERS`].
    hasher.finish().max(OTHERS + 1)
}

/// What the line is about together with lines about other rings.
fn rings(record: &Record<'_>) -> Option<u64> {
    record.key_values().get(log::kv::Key::from(RING))?;
    let mut hasher = DefaultHasher::new();
    (record.file(), record.line(), record.target(), "all rings").hash(&mut hasher);
    Some(hasher.finish().max(OTHERS + 1))
}

fn like(record: &Record<'_>) -> Like {
    let mut text = record.args().to_string();
    if text.len() > LOG_LIKE_MAX {
        let end = (0..=LOG_LIKE_MAX).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
        text.push_str("...");
    }
    Like { level: record.level(), target: record.target().to_owned(), text }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::time::Duration;

    use super::*;

    thread_local! {
        static LATER: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    }

    /// Stands still, but for [`LATER`].
    fn clock() -> Instant {
        static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
        *START.get_or_init(Instant::now) + LATER.get()
    }

    #[derive(Default)]
    struct Page(Mutex<Vec<String>>);

    impl Log for Page {
        fn enabled(&self, metadata: &Metadata<'_>) -> bool {
            metadata.target() != "unwanted"
        }

        fn log(&self, record: &Record<'_>) {
            self.0.lock().unwrap().push(record.args().to_string());
        }

        fn flush(&self) {}
    }

    fn page() -> Limited<Page> {
        LATER.set(Duration::ZERO);
        Limited::new(Page::default(), clock)
    }

    fn lines(log: &Limited<Page>) -> Vec<String> {
        std::mem::take(&mut *log.inner.0.lock().unwrap())
    }

    /// One line of the place `line`, about `path`.
    fn say(log: &Limited<Page>, line: u32, path: &str, level: Level, text: &str) {
        let fields = [("path", path)];
        let mut record = Record::builder();
        record.line(Some(line)).level(level).key_values(&fields);
        log.log(&record.args(format_args!("{text}")).build());
    }

    #[test]
    fn flood_becomes_a_burst_and_a_number() {
        let log = page();
        for number in 0..1000 {
            say(&log, 1, "a", Level::Warn, &format!("request {number}"));
        }
        let told = lines(&log);
        assert_eq!(told.len(), LOG_BURST as usize);
        log.flush();
        assert_eq!(lines(&log), [] as [&str; 0], "its time is not over");
        LATER.set(LOG_INTERVAL);
        log.flush();
        let (last, left_out) = (LOG_BURST - 1, 1000 - LOG_BURST);
        assert_eq!(lines(&log), [format!("{left_out} more like this suppressed: request {last}")]);
        log.flush();
        say(&log, 1, "a", Level::Warn, "again");
        assert_eq!(lines(&log), ["again"]);
    }

    #[test]
    fn number_goes_before_the_next_line_where_nobody_flushes() {
        let log = page();
        (0..=LOG_BURST).for_each(|_| say(&log, 1, "a", Level::Error, "no"));
        lines(&log);
        LATER.set(LOG_INTERVAL);
        say(&log, 2, "a", Level::Info, "other");
        assert_eq!(lines(&log), ["1 more like this suppressed: no", "other"]);
    }

    #[test]
    fn flood_about_one_path_leaves_the_others_and_other_lines_alone() {
        let log = page();
        (0..100).for_each(|_| say(&log, 1, "a", Level::Info, "much"));
        lines(&log);
        say(&log, 1, "b", Level::Info, "another path");
        say(&log, 2, "a", Level::Info, "another place");
        assert_eq!(lines(&log), ["another path", "another place"]);
    }

    #[test]
    fn flood_about_many_rings_is_bounded_and_counted() {
        let log = page();
        let say = |line, ring: u64| {
            let fields = [("ring", ring)];
            let mut record = Record::builder();
            record.line(Some(line)).level(Level::Warn).key_values(&fields);
            log.log(&record.args(format_args!("ring {ring}")).build());
        };
        (0..100).for_each(|_| say(1, 0));
        assert_eq!(lines(&log).len(), LOG_BURST as usize, "one ring has its own bound");
        (0..6400).for_each(|number| say(1, 1 + number % 64));
        assert_eq!(lines(&log).len(), (LOG_RINGS_BURST - LOG_BURST) as usize);
        say(2, 9);
        assert_eq!(lines(&log), ["ring 9"], "another place");
        LATER.set(LOG_INTERVAL);
        log.flush();
        let told = lines(&log);
        assert!(told.iter().any(|line| line.ends_with("like this suppressed: ring 0")), "{told:?}");
        assert!(told.len() <= 2 + 64, "{}", told.len());
    }

    #[test]
    fn debugging_is_not_limited_and_unwanted_lines_do_not_count() {
        let log = page();
        (0..100).for_each(|_| say(&log, 1, "a", Level::Debug, "step"));
        assert_eq!(lines(&log).len(), 100);
        for _ in 0..100 {
            log.log(&Record::builder().level(Level::Error).target("unwanted").build());
        }
        assert_eq!((lines(&log).len(), log.counter().windows.len()), (0, 0));
    }

    #[test]
    fn subjects_without_end_share_one_burst_and_little_memory() {
        let log = page();
        let all = LOG_SUBJECTS_MAX as u32 + 1000;
        (0..all).for_each(|line| say(&log, line, "a", Level::Warn, "é"));
        assert_eq!(lines(&log).len(), LOG_SUBJECTS_MAX + LOG_BURST as usize);
        assert_eq!(log.counter().windows.len(), LOG_SUBJECTS_MAX + 1);
        LATER.set(LOG_INTERVAL);
        log.flush();
        assert_eq!(lines(&log).len(), 1);
        assert_eq!(log.counter().windows.len(), 0);
    }

    #[test]
    fn long_line_is_repeated_in_part() {
        let log = page();
        let text = "é".repeat(LOG_LIKE_MAX);
        (0..=LOG_BURST).for_each(|_| say(&log, 1, "a", Level::Warn, &text));
        lines(&log);
        LATER.set(LOG_INTERVAL);
        log.flush();
        let told = lines(&log).concat();
        assert!(told.ends_with("é...") && told.len() < LOG_LIKE_MAX + 64, "{told}");
    }
}
