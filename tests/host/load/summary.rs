//! What a load has seen, between the moments that were marked, and over time.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::load::{Ended, Report};

/// Width of a step of the timeline.
const STEP: Duration = Duration::from_millis(50);

/// Seconds since the machine's start, as its scripts see them.
pub fn uptime() -> f64 {
    let text = std::fs::read_to_string("/proc/uptime").expect("/proc can be read");
    text.split(' ').next().and_then(|word| word.parse().ok()).expect("proc(5)")
}

/// The report as JSON; `marks` are the start, what was marked, and the end.
pub fn of(report: &Report, uptime: f64, marks: &[Instant]) -> Value {
    let start = marks[0];
    let mut history = report.history.clone();
    history.sort_by_key(|ended| ended.at);
    let mut phases: Vec<Value> = Vec::new();
    for (at, from) in marks.iter().enumerate() {
        // What ends after the last mark belongs to the last phase.
        let until = marks.get(at + 1);
        if at + 1 == marks.len() && at > 0 {
            break;
        }
        let last = at + 2 >= marks.len();
        let inside = |ended: &&Ended| {
            ended.at >= *from && (last || until.is_none_or(|until| ended.at < *until))
        };
        let inside: Vec<Ended> = history.iter().filter(inside).copied().collect();
        phases.push(json!({
            "from": seconds(*from - start),
            "reads": of_kind(&inside, false),
            "writes": of_kind(&inside, true),
        }));
    }
    json!({
        "uptime": uptime,
        "errors": report.errors.len(),
        "first_errors": report.errors.iter().take(5).collect::<Vec<_>>(),
        "machine": seconds(report.longest_pause),
        "phases": phases,
        "step": seconds(STEP),
        "oldest": oldest(&history, start),
    })
}

fn seconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e4).round() / 1e4
}

fn of_kind(inside: &[Ended], writes: bool) -> Value {
    let of_kind = inside.iter().filter(|ended| ended.writes == writes);
    let mut times: Vec<Duration> = of_kind.map(|ended| ended.elapsed).collect();
    times.sort();
    let at = |share: f64| {
        let index = (times.len() as f64 * share) as usize;
        times.get(index.min(times.len().saturating_sub(1))).map(|time| seconds(*time))
    };
    json!({"count": times.len(), "p50": at(0.5), "p99": at(0.99), "longest": at(1.0)})
}

/// For each step, how long the oldest read and the oldest write that were under way in it had been
/// waited for by then, in seconds.
fn oldest(history: &[Ended], start: Instant) -> Vec<[f64; 2]> {
    let mut steps: Vec<[f64; 2]> = Vec::new();
    let step_of = |at: Duration| (at.as_secs_f64() / STEP.as_secs_f64()) as usize;
    for ended in history.iter().filter(|ended| ended.good) {
        let end = ended.at - start;
        let began = end.saturating_sub(ended.elapsed);
        if steps.len() <= step_of(end) {
            steps.resize(step_of(end) + 1, [0.0; 2]);
        }
        let (first, last) = (step_of(began), step_of(end));
        for (step, oldest) in (first..).zip(&mut steps[first..=last]) {
            let age = seconds((STEP * (step as u32 + 1)).min(end).saturating_sub(began));
            let oldest = &mut oldest[usize::from(ended.writes)];
            *oldest = oldest.max(age);
        }
    }
    steps
}
