//! A thread and the queues that it drives.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::ring_sys::{FastRing, Tally};
use crate::times::Times;
use crate::work::Work;
use crate::{Options, Wait};

/// Longer than any command may take.
const LOST: Duration = Duration::from_secs(20);
/// Looks at rings that take about as long.
const LOOKS: u64 = 4_000_000_000;

/// When to begin to measure, and when to end.
#[derive(Default)]
pub struct Phase {
    pub measured: AtomicBool,
    pub over: AtomicBool,
}

/// What one queue has seen while it was measured.
pub struct Seen {
    pub times: Times,
    pub tally: Tally,
}

/// One queue, and what is under way in it.
struct Driven {
    ring: FastRing,
    work: Work,
    times: Times,
    /// When the command of each slot was sent.
    sent: Vec<Instant>,
    under_way: u16,
    ended: u64,
    measured: bool,
}

/// The queues of one thread.
pub struct Driver<'a> {
    queues: Vec<Driven>,
    options: &'a Options,
}

impl<'a> Driver<'a> {
    /// Of these queues, on which nothing is under way.
    pub fn new(queues: impl Iterator<Item = (FastRing, Work)>, options: &'a Options) -> Self {
        let driven = |(ring, work)| Driven {
            ring,
            work,
            times: Times::new(),
            sent: vec![Instant::now(); usize::from(options.depth)],
            under_way: 0,
            ended: 0,
            measured: options.commands.is_some(),
        };
        Driver { queues: queues.map(driven).collect(), options }
    }

    /// Keeps `depth` commands under way in each queue until it is over; what each has seen.
    pub fn run(mut self, phase: &Phase) -> Vec<Seen> {
        for queue in &mut self.queues {
            queue.begin(self.options.depth);
        }
        while self.queues.iter().any(|queue| queue.under_way > 0) {
            let waited = match self.options.wait {
                Wait::Poll => self.look(),
                Wait::Sleep => self.queues[0].ring.sleep(LOST),
            };
            assert!(waited, "no answer for {LOST:?}, with commands under way");
            for queue in &mut self.queues {
                queue.take(phase, self.options.commands);
            }
        }
        let seen = |queue: Driven| Seen { times: queue.times, tally: queue.ring.tally };
        self.queues.into_iter().map(seen).collect()
    }

    /// Looks until there is an answer on a ring; false when there is none for a long time.
    fn look(&mut self) -> bool {
        self.queues.iter_mut().for_each(|queue| queue.ring.want_no_notification());
        for _ in 0..LOOKS {
            if self.queues.iter().any(|queue| queue.ring.has_used()) {
                return true;
            }
            std::hint::spin_loop();
        }
        false
    }
}

impl Driven {
    fn begin(&mut self, depth: u16) {
        for slot in 0..depth {
            self.ring.prepare(slot, &self.work.next());
        }
        self.under_way = depth;
        self.ring.publish();
    }

    /// Takes what is answered, and sends as many commands again: until it is over, or until `most`
    /// have been sent.
    fn take(&mut self, phase: &Phase, most: Option<u64>) {
        if !self.measured && phase.measured.load(Ordering::Relaxed) {
            self.measured = true;
            self.ring.tally = Tally::default();
        }
        let over = phase.over.load(Ordering::Relaxed);
        let now = Instant::now();
        while let Some(slot) = self.ring.pop() {
            self.ring.check(slot);
            if self.measured && !over {
                self.times.add(now.saturating_duration_since(self.sent[usize::from(slot)]));
            }
            self.ended += 1;
            if over || most.is_some_and(|most| self.ended + u64::from(self.under_way) > most) {
                self.under_way -= 1;
            } else {
                self.ring.prepare(slot, &self.work.next());
                self.sent[usize::from(slot)] = now;
            }
        }
        self.ring.publish();
    }
}
