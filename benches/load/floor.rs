//! What it takes to wake a driver that sleeps: the time from a thread's write to an eventfd to the
//! moment in which another one is awake that has slept for a while.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use vmm_sys_util::eventfd::EventFd;

use crate::sys::readable;
use crate::times::Times;
use std::os::fd::AsRawFd;

const OVER: u64 = u64::MAX;
/// So long after it was asked the other thread answers, so that the one that waits sleeps.
const PAUSE: Duration = Duration::from_micros(20);

/// Wake-ups for so long.
pub fn run(time: Duration) -> Times {
    let (start, asked, written) = (Instant::now(), AtomicU64::new(0), AtomicU64::new(0));
    let since_start = || start.elapsed().as_nanos() as u64;
    let answer = EventFd::new(0).expect("an eventfd can be made");
    let mut times = Times::new();
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut seen = 0;
            while seen != OVER {
                let now = asked.load(Ordering::Acquire);
                if now == seen {
                    std::hint::spin_loop();
                    continue;
                }
                seen = now;
                let from = Instant::now();
                while from.elapsed() < PAUSE {
                    std::hint::spin_loop();
                }
                written.store(since_start(), Ordering::Release);
                answer.write(1).expect("an eventfd takes a count");
            }
        });
        let mut number = 0;
        while start.elapsed() < time {
            number += 1;
            asked.store(number, Ordering::Release);
            assert!(readable(answer.as_raw_fd(), Duration::from_secs(20)));
            answer.read().expect("it is readable");
            let took = since_start() - written.load(Ordering::Acquire);
            times.add(Duration::from_nanos(took));
        }
        asked.store(OVER, Ordering::Release);
    });
    times
}
