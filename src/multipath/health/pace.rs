//! How fast a path is, compared with a sibling, and whether it limps.
//!
//! Three steps, since the commands of a guest differ: one path may carry long transfers and random
//! reads while the other carries what is in the array's cache.
//!
//! 1. *Accused* by its commands: their average time is a multiple of the best sibling's, ticks in a
//!    row. This costs nothing and proves nothing.
//! 2. *Tried*: the same block is read over both, a few times. Only what is slow then limps. One that
//!    is well is left alone for a while, each time for longer.
//! 3. *Limping*, until reading that block is fast again, several times in a row. No command of the
//!    guest has to pay for finding that out.

use std::time::{Duration, Instant};

use crate::ids::PathId;
use crate::limits::{
    LIMP_FACTOR, LIMP_FLOOR, LIMP_FLOOR_ALONE, LIMP_GOOD, LIMP_READING_AGE, LIMP_READING_MAX,
    LIMP_READINGS, LIMP_RECOVERED, LIMP_REST, LIMP_REST_FORGET, LIMP_REST_MAX, LIMP_TICKS,
};

/// The pace of one path.
#[derive(Debug, Default)]
pub struct Pace {
    /// How long it took to read a block over it, the last time.
    reading: Option<(Instant, Duration)>,
    /// Ticks in a row in which its commands were slow.
    slow_ticks: u8,
    trial: Option<Trial>,
    /// It was tried and found well: until then it is not tried again.
    rests_until: Option<Instant>,
    rest: Duration,
    limp: Option<Limp>,
}

#[derive(Debug)]
struct Trial {
    sibling: PathId,
    own: Vec<Duration>,
    theirs: Vec<Duration>,
}

#[derive(Debug)]
struct Limp {
    why: String,
    /// How long a block took over the sibling.
    theirs: Duration,
    /// Good readings in a row.
    good: u8,
}

/// How a trial ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Not yet.
    Open,
    /// It is well.
    Well,
    /// It limps: how long a block took over it and over its sibling.
    Limps {
        /// Over this path, at best.
        own: Duration,
        /// Over its sibling, at best.
        theirs: Duration,
    },
}

/// True where `own` is so much slower than `theirs` that a path limps.
pub fn limps(own: Duration, theirs: Duration) -> bool {
    own >= LIMP_FLOOR && own >= theirs * LIMP_FACTOR
}

impl Pace {
    /// A tick is over: its commands took `mean`, those over the best sibling `best`, where there
    /// were any; a policy that avoids slow paths sends few. True when the path should be tried.
    pub fn tick(&mut self, mean: Option<Duration>, best: Option<Duration>, now: Instant) -> bool {
        let Some(mean) = mean else { return false };
        let slow = match best {
            Some(best) => limps(mean, best),
            // Nothing is known of the sibling: perhaps because no policy chooses it.
            None => mean >= LIMP_FLOOR_ALONE,
        };
        self.slow_ticks = if slow { self.slow_ticks.saturating_add(1) } else { 0 };
        let rests = self.rests_until.is_some_and(|until| now < until);
        self.slow_ticks >= LIMP_TICKS && !rests && self.trial.is_none() && self.limp.is_none()
    }

    /// Does the trial want more readings, of this path and of its sibling?
    pub fn wants(&self) -> (bool, bool) {
        self.trial.as_ref().map_or((false, false), |trial| {
            (trial.own.len() < LIMP_READINGS, trial.theirs.len() < LIMP_READINGS)
        })
    }

    /// It is to be tried against `sibling`.
    pub fn accuse(&mut self, sibling: PathId) {
        let (own, theirs) = (Vec::new(), Vec::new());
        self.trial = Some(Trial { sibling, own, theirs });
    }

    /// Against which path it is being tried.
    pub fn tried_against(&self) -> Option<PathId> {
        self.trial.as_ref().map(|trial| trial.sibling)
    }

    /// A block was read over the path.
    pub fn read(&mut self, took: Duration, now: Instant) {
        self.reading = Some((now, took));
        if let Some(trial) = &mut self.trial {
            trial.own.push(took);
        }
    }

    /// A block was read over the sibling that it is being tried against.
    pub fn read_over_sibling(&mut self, took: Duration) {
        if let Some(trial) = &mut self.trial {
            trial.theirs.push(took);
        }
    }

    /// How the trial stands; `waiting` for so long is a block that has not come yet.
    pub fn verdict(&self, waiting: Option<Duration>) -> Outcome {
        let Some(Trial { own, theirs, .. }) = &self.trial else { return Outcome::Open };
        let spent = own.iter().sum::<Duration>() + waiting.unwrap_or_default();
        let enough = own.len() >= LIMP_READINGS || spent >= LIMP_READING_MAX;
        let (own, theirs) = match (own.iter().min().copied().or(waiting), theirs.iter().min()) {
            (Some(own), Some(least)) if enough && theirs.len() >= LIMP_READINGS => (own, *least),
            _ => return Outcome::Open,
        };
        if limps(own, theirs) { Outcome::Limps { own, theirs } } else { Outcome::Well }
    }

    /// Found well, or the trial could not be held: it is left alone for a while.
    pub fn acquit(&mut self, now: Instant) {
        self.trial = None;
        self.slow_ticks = 0;
        if self.rests_until.is_some_and(|until| now > until + LIMP_REST_FORGET) {
            self.rest = Duration::ZERO;
        }
        self.rest = (self.rest * 2).clamp(LIMP_REST, LIMP_REST_MAX);
        self.rests_until = Some(now + self.rest);
    }

    /// It limps: a block takes `own` over it, and `theirs` over the path called `sibling`.
    pub fn limp(&mut self, own: Duration, theirs: Duration, sibling: &str) {
        let why = format!("limping: a block takes {}, {} over {sibling}", Ms(own), Ms(theirs));
        self.trial = None;
        (self.slow_ticks, self.rest) = (0, Duration::ZERO);
        self.limp = Some(Limp { why, theirs, good: 0 });
    }

    /// True while it limps.
    pub fn is_limping(&self) -> bool {
        self.limp.is_some()
    }

    /// A block was read over the limping path, and took `theirs` over a healthy one lately. True
    /// when the path is well again.
    pub fn recovers(&mut self, took: Duration, theirs: Option<Duration>) -> bool {
        let Some(limp) = &mut self.limp else { return false };
        limp.theirs = theirs.unwrap_or(limp.theirs);
        let good = took <= (limp.theirs * LIMP_RECOVERED).max(LIMP_FLOOR);
        limp.good = if good { limp.good + 1 } else { 0 };
        let well = limp.good >= LIMP_GOOD;
        if well {
            self.limp = None;
        }
        well
    }

    /// How long it took to read a block over the path, if that was lately.
    pub fn reading(&self, now: Instant) -> Option<Duration> {
        let (at, took) = self.reading?;
        (now.saturating_duration_since(at) <= LIMP_READING_AGE).then_some(took)
    }

    /// Why it is to be the last resort, in words.
    pub fn complaint(&self) -> Option<String> {
        self.limp.as_ref().map(|limp| limp.why.clone())
    }

    /// It is out of use. That it limps is not forgotten.
    pub fn left(&mut self) {
        self.trial = None;
        self.slow_ticks = 0;
    }
}

/// A time as people read it.
struct Ms(Duration);

impl std::fmt::Display for Ms {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ms = self.0.as_secs_f64() * 1000.0;
        if ms < 10.0 { write!(f, "{ms:.1} ms") } else { write!(f, "{ms:.0} ms") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIBLING: PathId = PathId(1);

    fn us(us: u64) -> Duration {
        Duration::from_micros(us)
    }

    fn accused(pace: &mut Pace, mean: u64, best: Option<u64>, now: Instant) -> bool {
        (0..LIMP_TICKS).fold(false, |_, _| pace.tick(Some(us(mean)), best.map(us), now))
    }

    fn tried(own: &[u64], theirs: &[u64], waiting: Option<u64>) -> Outcome {
        let mut pace = Pace::default();
        pace.accuse(SIBLING);
        own.iter().for_each(|took| pace.read(us(*took), Instant::now()));
        theirs.iter().for_each(|took| pace.read_over_sibling(us(*took)));
        pace.verdict(waiting.map(us))
    }

    #[test]
    fn tick_accuses_only_what_is_many_times_slower_for_a_while() {
        let now = Instant::now();
        for (mean, best, expected) in [
            (200_000, Some(2000), true),
            (10_000, Some(100), true),
            (8000, Some(2000), false),
            (4000, Some(1000), false),
            (1900, Some(10), false),
            (19_000, None, false),
            (30_000, None, true),
        ] {
            let mut pace = Pace::default();
            assert!(!pace.tick(Some(us(mean)), best.map(us), now), "one tick is not enough");
            let mut pace = Pace::default();
            assert_eq!(accused(&mut pace, mean, best, now), expected, "{mean} {best:?}");
        }
        let mut pace = Pace::default();
        pace.tick(Some(us(200_000)), Some(us(1000)), now);
        pace.tick(Some(us(1000)), Some(us(1000)), now);
        assert!(!pace.tick(Some(us(200_000)), Some(us(1000)), now), "in a row");
    }

    #[test]
    fn trial_needs_readings_over_both() {
        assert_eq!(tried(&[9000; 2], &[100; 3], None), Outcome::Open);
        assert_eq!(tried(&[9000; 3], &[100; 2], None), Outcome::Open);
        let limps = Outcome::Limps { own: us(9000), theirs: us(90) };
        assert_eq!(tried(&[9500, 9000, 9900], &[100, 90, 100], None), limps);
        // One fast reading speaks for the path, one slow one not against the sibling.
        assert_eq!(tried(&[9500, 300, 9900], &[100; 3], None), Outcome::Well);
        assert_eq!(tried(&[4000; 3], &[1000; 3], None), Outcome::Well);
        // Nobody waits for three readings of a second each.
        assert_eq!(tried(&[], &[100; 3], Some(240_000)), Outcome::Open);
        let limps = Outcome::Limps { own: us(260_000), theirs: us(100) };
        assert_eq!(tried(&[], &[100; 3], Some(260_000)), limps);
    }

    #[test]
    fn acquitted_path_is_left_alone_for_longer_each_time() {
        let (mut pace, mut now) = (Pace::default(), Instant::now());
        for (pause, rest) in [(0, 1), (0, 2), (0, 4), (0, 8), (0, 8), (31, 1)] {
            now += Duration::from_secs(pause);
            assert!(accused(&mut pace, 9000, Some(100), now));
            pace.accuse(SIBLING);
            pace.acquit(now);
            now += Duration::from_secs(rest);
            assert!(!accused(&mut pace, 9000, Some(100), now - us(1)));
        }
    }

    #[test]
    fn limping_path_recovers_after_good_readings_in_a_row() {
        let mut pace = Pace::default();
        pace.limp(us(204_000), us(400), "b");
        let why = "limping: a block takes 204 ms, 0.4 ms over b";
        assert_eq!(pace.complaint().as_deref(), Some(why));
        let mut readings = vec![1000; usize::from(LIMP_GOOD) - 1];
        readings.push(50_000);
        readings.extend([1500; LIMP_GOOD as usize - 1]);
        assert!(readings.iter().all(|took| !pace.recovers(us(*took), Some(us(500)))));
        assert!(pace.recovers(us(1500), None) && !pace.is_limping());
    }
}
