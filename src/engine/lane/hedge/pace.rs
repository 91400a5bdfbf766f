//! How long reads of about one size take on one path: the percentile from which on one is slow.

use std::time::Duration;

use crate::limits::HEDGE_WINDOW;

/// Four buckets for each doubling, from 1 us to 2^27 us.
const BUCKETS: usize = 4 * 27;

/// A histogram that forgets: from [`HEDGE_WINDOW`] reads on, the old ones count half.
#[derive(Debug)]
pub struct Pace {
    counts: [u32; BUCKETS],
    total: u32,
}

impl Default for Pace {
    fn default() -> Self {
        Pace { counts: [0; BUCKETS], total: 0 }
    }
}

impl Pace {
    /// A read took so long.
    pub fn measured(&mut self, took: Duration) {
        if self.total >= HEDGE_WINDOW {
            self.counts.iter_mut().for_each(|count| *count /= 2);
            self.total = self.counts.iter().sum();
        }
        self.counts[bucket(took)] += 1;
        self.total += 1;
    }

    /// Reads that count.
    pub fn total(&self) -> u32 {
        self.total
    }

    /// Of a thousand reads `permille` took no longer than this.
    pub fn percentile(&self, permille: u32) -> Duration {
        let wanted = (u64::from(self.total) * u64::from(permille)).div_ceil(1000);
        let mut seen = 0;
        let at = self.counts.iter().position(|count| {
            seen += u64::from(*count);
            seen >= wanted
        });
        bucket_end(at.unwrap_or(BUCKETS - 1))
    }
}

/// Up to 4 us each has a bucket of its own; then the two bits after the highest choose.
fn bucket(took: Duration) -> usize {
    let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
    let octave = us.ilog2() as usize;
    if octave < 2 {
        return us as usize - 1;
    }
    let quarter = (us >> (octave - 2)) as usize & 3;
    (4 * (octave - 1) + quarter - 1).min(BUCKETS - 1)
}

/// The first time that is longer than all in the bucket.
fn bucket_end(bucket: usize) -> Duration {
    let at = bucket as u64 + 2;
    if at < 4 {
        return Duration::from_micros(at);
    }
    let (octave, quarter) = (at / 4 + 1, at % 4);
    Duration::from_micros((4 + quarter) << (octave - 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_a_quarter_wide_at_most() {
        let mut last = 0;
        for us in 1..100_000 {
            let took = Duration::from_micros(us);
            let at = bucket(took);
            assert!(at == last || at == last + 1, "{us} us is in {at} after {last}");
            let end = bucket_end(at).as_micros() as u64;
            assert!(us < end && end <= us + us / 4 + 1, "{us} us ends at {end}");
            last = at;
        }
        assert_eq!(bucket(Duration::MAX), BUCKETS - 1);
    }

    #[test]
    fn percentile_follows_what_is_measured() {
        let mut pace = Pace::default();
        for _ in 0..2 {
            (0..990).for_each(|_| pace.measured(Duration::from_micros(100)));
            (0..10).for_each(|_| pace.measured(Duration::from_micros(9000)));
        }
        assert_eq!(pace.percentile(500), Duration::from_micros(112));
        assert_eq!(pace.percentile(990), Duration::from_micros(112));
        assert!(pace.percentile(995) > Duration::from_micros(9000));
        (0..4 * HEDGE_WINDOW).for_each(|_| pace.measured(Duration::from_micros(1000)));
        assert!(pace.percentile(500) > Duration::from_micros(1000));
        assert!(pace.total() <= HEDGE_WINDOW);
    }
}
