//! What a process has used, from `/proc`: all of its threads, those in the kernel too.

use std::fs;
use std::time::Duration;

/// Sums over the life of a process.
pub struct Usage {
    /// Processor time.
    pub processor: Duration,
    /// System calls that read or write (proc(5), `io`): transfers, eventfds. Not those that only
    /// wait or submit.
    pub reads_and_writes: u64,
    /// Times that a thread went to sleep.
    pub sleeps: u64,
}

impl Usage {
    /// Of a process up to now.
    pub fn of(process: u32) -> Self {
        let mut usage = Usage { processor: Duration::ZERO, reads_and_writes: 0, sleeps: 0 };
        let io = fs::read_to_string(format!("/proc/{process}/io")).unwrap_or_default();
        usage.reads_and_writes = number(&io, "syscr:") + number(&io, "syscw:");
        let tasks = fs::read_dir(format!("/proc/{process}/task")).expect("the backend runs");
        for task in tasks.flatten() {
            // A thread may end meanwhile.
            let read = |name: &str| fs::read_to_string(task.path().join(name)).unwrap_or_default();
            let ns = read("schedstat");
            let ns = ns.split(' ').next().and_then(|ns| ns.parse().ok()).unwrap_or(0);
            usage.processor += Duration::from_nanos(ns);
            usage.sleeps += number(&read("status"), "voluntary_ctxt_switches:");
        }
        usage
    }

    /// What was used since `before`.
    pub fn since(&self, before: &Usage) -> Usage {
        Usage {
            processor: self.processor.saturating_sub(before.processor),
            reads_and_writes: self.reads_and_writes.saturating_sub(before.reads_and_writes),
            sleeps: self.sleeps.saturating_sub(before.sleeps),
        }
    }
}

/// The number behind a word at the beginning of a line.
fn number(text: &str, word: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(word));
    line.and_then(|rest| rest.trim().parse().ok()).unwrap_or(0)
}
