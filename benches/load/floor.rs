//! What no backend can be faster than where the driver sleeps: a thread that looks at a word and
//! writes an eventfd at once, and one that sleeps until then. One exchange is a command's time
//! without the command.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use vmm_sys_util::eventfd::EventFd;

use crate::sys::readable;
use crate::times::Times;
use std::os::fd::AsRawFd;

const OVER: u64 = u64::MAX;

/// Exchanges for so long.
pub fn run(time: Duration) -> Times {
    let asked = Arc::new(AtomicU64::new(0));
    let answer = Arc::new(EventFd::new(0).expect("an eventfd can be made"));
    let other = thread::spawn({
        let (asked, answer) = (asked.clone(), answer.clone());
        move || {
            let mut seen = 0;
            while seen != OVER {
                let now = asked.load(Ordering::Acquire);
                if now == seen {
                    std::hint::spin_loop();
                    continue;
                }
                seen = now;
                answer.write(1).expect("an eventfd takes a count");
            }
        }
    });
    let (mut times, start, mut number) = (Times::new(), Instant::now(), 0);
    while start.elapsed() < time {
        let sent = Instant::now();
        number += 1;
        asked.store(number, Ordering::Release);
        assert!(readable(answer.as_raw_fd(), Duration::from_secs(20)));
        answer.read().expect("it is readable");
        times.add(sent.elapsed());
    }
    asked.store(OVER, Ordering::Release);
    other.join().expect("the other thread does not fail");
    times
}
