//! A histogram of latencies: buckets that are 1/64 of their value wide, so that no measurement
//! allocates or sorts.

use std::time::Duration;

const SUB_BITS: u32 = 6;
const BUCKETS: usize = (64 - SUB_BITS as usize + 1) << SUB_BITS;

/// Latencies, counted.
pub struct Times {
    buckets: Vec<u32>,
    count: u64,
}

impl Times {
    /// None yet.
    pub fn new() -> Self {
        Times { buckets: vec![0; BUCKETS], count: 0 }
    }

    /// One more.
    pub fn add(&mut self, time: Duration) {
        self.buckets[bucket(time.as_nanos() as u64)] += 1;
        self.count += 1;
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// All those of `other` as well.
    pub fn merge(&mut self, other: &Times) {
        self.buckets.iter_mut().zip(&other.buckets).for_each(|(sum, count)| *sum += count);
        self.count += other.count;
    }

    /// The time within which this share of all ended; zero without any.
    pub fn within(&self, share: f64) -> Duration {
        let wanted = (self.count as f64 * share).ceil() as u64;
        let mut sum = 0;
        for (at, count) in self.buckets.iter().enumerate() {
            sum += u64::from(*count);
            if sum >= wanted && sum > 0 {
                return Duration::from_nanos(start(at));
            }
        }
        Duration::ZERO
    }
}

fn bucket(ns: u64) -> usize {
    let shift = (u64::BITS - SUB_BITS - 1).saturating_sub((ns | 1).leading_zeros());
    ((shift as usize) << SUB_BITS) + (ns >> shift) as usize
}

fn start(bucket: usize) -> u64 {
    // A shifted value has its highest bit, and so counts from 64 on.
    let shift = (bucket >> SUB_BITS).saturating_sub(1);
    ((bucket - (shift << SUB_BITS)) as u64) << shift
}
