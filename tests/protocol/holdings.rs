//! What a process has: descriptors, mappings, threads, memory of its own.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::backend::Backend;
use crate::queue::PROMPT;

/// What a process has.
#[derive(Clone, Copy, Debug)]
pub struct Holdings {
    pub descriptors: usize,
    pub mappings: usize,
    pub threads: usize,
    /// Memory of its own, without what it shares with its guests.
    pub anonymous_kib: u64,
}

impl Holdings {
    /// With no front end: the last one's end may be on its way.
    pub fn of(backend: &Backend) -> Self {
        let mut qmp = backend.qmp();
        let deadline = Instant::now() + PROMPT;
        while qmp.execute("query-lun", json!({}))["connected"] == true {
            assert!(Instant::now() < deadline, "a front end is still there");
            std::thread::sleep(Duration::from_millis(5));
        }
        Holdings::now(backend)
    }

    /// As they are, whoever is connected.
    pub fn now(backend: &Backend) -> Self {
        let process = backend.process();
        let count = |folder: &str| {
            std::fs::read_dir(format!("/proc/{process}/{folder}")).expect("it runs").count()
        };
        let text = |file: &str| {
            std::fs::read_to_string(format!("/proc/{process}/{file}")).expect("it runs")
        };
        let status = text("status");
        let field = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        let number = field.and_then(|field| field.split_whitespace().next()?.parse().ok());
        Holdings {
            descriptors: count("fd"),
            mappings: text("maps").lines().count(),
            threads: count("task"),
            anonymous_kib: number.expect("proc(5)"),
        }
    }

    /// No more of anything than `before`, and less than a mebibyte of memory.
    ///
    /// Each connection has a thread, and malloc an arena for each thread that meets another one in
    /// its arena, up to eight a processor, of two mappings each. That is a bound; one mapping for
    /// each connection or failure would be more.
    pub fn assert_no_more_than(&self, before: &Holdings) {
        let after = self;
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let arenas = 2 * 8 * processors;
        assert!(after.descriptors <= before.descriptors, "{before:?} {after:?}");
        assert!(after.mappings <= before.mappings + arenas, "{before:?} {after:?}");
        assert!(after.threads <= before.threads, "{before:?} {after:?}");
        assert!(after.anonymous_kib < before.anonymous_kib + 1024, "{before:?} {after:?}");
    }
}
