//! The last minutes as a picture: what the LUN carried, and below it each path's latencies and
//! states, all on one axis of time and one scale of latencies.

use maud::{Markup, html};
use vhost_user_scsi_mpath::control::{HistoryReport, PathHistory};

use super::ink::{self, Decades, WIDTH, px};
use crate::human;

/// Room for names and numbers at the left.
const LEFT: f64 = 150.0;
const RIGHT: f64 = 6.0;
const TOP: f64 = 8.0;
const PLOT: f64 = 64.0;
/// The band that shows the state.
const BAND: f64 = 7.0;
const GAP: f64 = 18.0;
const FOOT: f64 = 16.0;
/// The axis shows a minute at least.
const SPAN_MIN: f64 = 60.0;
/// Silence from which on it is drawn, in microseconds. A busy path is between two answers at any
/// time, and a disk may seek for as long as 20 ms.
const STALL_US: u64 = 250_000;

/// The picture, with what its colours mean.
pub fn draw(history: &HistoryReport) -> Markup {
    let axis = Axis::of(&history.times);
    let scale = Decades::around(history.paths.iter().flat_map(latencies));
    // The backend reads one counter after the other: a command that goes over from one path to the
    // next may be seen on neither, but not twice in a row.
    let waited = history.lun.queued.windows(2).any(|two| two.iter().all(|queued| *queued > 0));
    let rows = 1 + usize::from(waited) + history.paths.len();
    let height = TOP + rows as f64 * (PLOT + BAND + GAP) + FOOT;
    let top = |row: usize| TOP + row as f64 * (PLOT + BAND + GAP);
    let first = 1 + usize::from(waited);
    html! {
        div class="legend" {
            span { i class="mean" {} "average of a second" }
            span { i class="longest" {} "longest of a second (its bucket's bound)" }
            span { i class="stall" {} "commands under way, none answered for so long" }
            span { i class="good" {} "up" }
            span { i class="doubtful" {} "checking, shaky, blocked, draining, disabled" }
            span { i class="bad" {} "failed" }
        }
        svg class="timeline" viewBox={"0 0 " (px(WIDTH)) " " (px(height))} role="img" aria-label="Timeline" {
            (axis.marks(TOP, height - FOOT))
            (commands(history, &axis, top(0)))
            @if waited { (queued(history, &axis, top(1))) }
            @for (at, path) in history.paths.iter().enumerate() {
                (latency(path, &axis, &scale, top(first + at)))
            }
        }
    }
}

fn latencies(path: &PathHistory) -> impl Iterator<Item = u64> + '_ {
    let stalls = path.silent_us.iter().flatten().filter(|us| **us >= STALL_US);
    path.longest_us.iter().chain(&path.mean_us).flatten().chain(stalls).copied()
}

/// Where times are.
struct Axis {
    from: f64,
    to: f64,
    places: Vec<f64>,
}

impl Axis {
    fn of(times: &[f64]) -> Self {
        let to = times.last().copied().unwrap_or_default();
        let from = times.first().copied().unwrap_or_default().min(to - SPAN_MIN);
        let mut axis = Axis { from, to, places: Vec::new() };
        axis.places = times.iter().map(|time| axis.place(*time)).collect();
        axis
    }

    fn place(&self, time: f64) -> f64 {
        LEFT + (time - self.from) / (self.to - self.from) * (WIDTH - LEFT - RIGHT)
    }

    /// The beginning and the end of the time that a point tells of.
    fn slot(&self, at: usize) -> (f64, f64) {
        let end = self.places[at];
        let begin = match at {
            0 => end - 1.0,
            at => self.places[at - 1],
        };
        (begin.max(LEFT), end)
    }

    /// Lines at round times, with the clock below them.
    fn marks(&self, top: f64, bottom: f64) -> Markup {
        let span = self.to - self.from;
        let steps = [10.0, 30.0, 60.0, 120.0, 300.0, 600.0];
        let step = steps.into_iter().find(|step| span / step <= 8.0).unwrap_or(3600.0);
        let first = (self.from / step).ceil() * step;
        let count = ((self.to - first) / step).max(0.0) as usize;
        html! {
            @for at in 0..=count {
                @let time = first + at as f64 * step;
                @let x = px(self.place(time));
                line class="grid" x1=(x) x2=(x) y1=(px(top)) y2=(px(bottom)) {}
                text class="quiet" text-anchor="middle" x=(x) y=(px(bottom + 13.0)) { (clock(time)) }
            }
        }
    }
}

/// Of a day, to the second.
fn clock(time: f64) -> String {
    let text = human::second(time.max(0.0) as u64);
    text.get(11..19).unwrap_or(&text).to_owned()
}

fn title(top: f64, name: &str, what: &str) -> Markup {
    html! {
        text class="strong" x="0" y=(px(top + 12.0)) { (ink::clipped(name, 17)) title { (name) } }
        text class="quiet" x="0" y=(px(top + 28.0)) { (what) }
    }
}

/// A line across, and its value at the left.
fn rule(y: f64, word: &str) -> Markup {
    html! {
        line class="grid" x1=(px(LEFT)) x2=(px(WIDTH - RIGHT)) y1=(px(y)) y2=(px(y)) {}
        text class="quiet" text-anchor="end" x=(px(LEFT - 6.0)) y=(px(y + 4.0)) { (word) }
    }
}

/// Bars for numbers, those of neighbours side by side.
fn bars(
    axis: &Axis,
    bottom: f64,
    class: &str,
    heights: impl Iterator<Item = Option<f64>>,
) -> Markup {
    let mut path = String::new();
    for (at, height) in heights.enumerate() {
        if let Some(height) = height.filter(|height| *height > 0.0) {
            let (begin, end) = axis.slot(at);
            let width = end - begin;
            path += &format!(
                "M{} {}v-{}h{}v{}z",
                px(begin),
                px(bottom),
                px(height),
                px(width),
                px(height)
            );
        }
    }
    html! { path class=(class) d=(path) {} }
}

fn commands(history: &HistoryReport, axis: &Axis, top: f64) -> Markup {
    let sum = |at: usize| -> u64 {
        history.paths.iter().filter_map(|path| path.commands.get(at).copied().flatten()).sum()
    };
    let rate = |at: usize| sum(at) as f64 / history.interval.max(0.001);
    let rates: Vec<f64> = (0..history.times.len()).map(rate).collect();
    let most = rates.iter().copied().fold(1.0, f64::max);
    let bottom = top + PLOT;
    let states = history.lun.state.iter().map(|state| Some((ink::lun(*state), state.as_str())));
    html! {
        (title(top, "The LUN", "commands a second"))
        (rule(top, &ink::count(most as u64)))
        (rule(bottom, "0"))
        (bars(axis, bottom, "area", rates.iter().map(|rate| Some(rate / most * PLOT))))
        path class="mean" d=(ink::line(axis.places.iter().zip(&rates).map(|(x, rate)| Some((*x, bottom - rate / most * PLOT))))) {}
        (band(axis, bottom, states))
    }
}

fn queued(history: &HistoryReport, axis: &Axis, top: f64) -> Markup {
    let most = history.lun.queued.iter().copied().max().unwrap_or(1).max(1);
    let bottom = top + PLOT;
    let height = |queued: &u64| Some(*queued as f64 / most as f64 * PLOT);
    html! {
        (title(top, "Waiting", "for any path"))
        (rule(top, &ink::count(most)))
        (rule(bottom, "0"))
        (bars(axis, bottom, "stall", history.lun.queued.iter().map(height)))
    }
}

fn latency(path: &PathHistory, axis: &Axis, scale: &Decades, top: f64) -> Markup {
    let bottom = top + PLOT;
    let height = |us: u64| scale.place(us) * PLOT;
    let longest = path.longest_us.iter().map(|us| us.map(height));
    let stalls = path.silent_us.iter().map(|us| us.filter(|us| *us >= STALL_US).map(height));
    let means = axis.places.iter().zip(&path.mean_us);
    let means = means.map(|(x, us)| us.map(|us| (*x, bottom - height(us))));
    let states =
        path.state.iter().map(|state| state.map(|state| (ink::path(state), state.as_str())));
    // Words for every decade would touch each other.
    let marks: Vec<(u64, String)> = scale.marks().collect();
    let every = marks.len().div_ceil(4);
    html! {
        (title(top, &path.name, "latency"))
        @for (at, (us, word)) in marks.iter().enumerate() {
            (rule(bottom - height(*us), if at % every == 0 { word } else { "" }))
        }
        (bars(axis, bottom, "longest", longest))
        (bars(axis, bottom, "stall", stalls))
        path class="mean" d=(ink::line(means)) {}
        (band(axis, bottom, states))
    }
}

/// The class and the word of a state.
type State<'a> = (&'a str, &'a str);

/// States as a band below a plot, one piece for as long as a state lasted.
fn band<'a>(axis: &Axis, bottom: f64, states: impl Iterator<Item = Option<State<'a>>>) -> Markup {
    let mut pieces: Vec<(Option<State<'_>>, f64, f64)> = Vec::new();
    for (at, state) in states.enumerate() {
        let (begin, end) = axis.slot(at);
        match pieces.last_mut() {
            Some((last, _, until)) if *last == state => *until = end,
            _ => pieces.push((state, begin, end)),
        }
    }
    html! {
        @for (state, begin, end) in pieces {
            @if let Some((class, word)) = state {
                rect class={(class) " fill"} x=(px(begin)) y=(px(bottom + 2.0)) height=(px(BAND - 2.0))
                    width=(px((end - begin).max(1.0))) { title { (word) } }
            }
        }
    }
}
