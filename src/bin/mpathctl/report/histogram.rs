//! How long commands took, path by path: a bar for each bucket, on logarithmic scales both ways, so
//! that the few slow commands that a guest complains of are seen beside the many fast ones.

use maud::{Markup, html};
use vhost_user_scsi_mpath::control::{Counters, LatencyBucket, StatsReport};

use super::ink::{self, px};
use crate::tables::quantile;

const WIDTH: f64 = 300.0;
const HEIGHT: f64 = 96.0;
const LEFT: f64 = 34.0;
const TOP: f64 = 8.0;
const FOOT: f64 = 18.0;
/// Bars at least, so that a lonely one is not as wide as the picture.
const BARS_MIN: usize = 10;
/// Words below the bars at most.
const WORDS_MAX: usize = 4;

/// A picture for the LUN and for each path that has answered something.
pub fn draw(stats: &StatsReport) -> Markup {
    let paths = stats.paths.iter().map(|path| (path.name.as_str(), &path.counters));
    let all = std::iter::once(("The LUN", &stats.lun)).chain(paths);
    let all: Vec<(&str, &Counters)> = all.filter(|(_, one)| total(&one.latency) > 0).collect();
    if all.is_empty() {
        return html! { p class="quiet" { "No command has been answered yet." } };
    }
    html! {
        div class="pictures" {
            @for (name, counters) in all {
                figure {
                    figcaption { (name) }
                    div class="quiet small" {
                        "half within " (quantile(&counters.latency, 0.5))
                        ", 99% within " (quantile(&counters.latency, 0.99))
                        ", all within " (quantile(&counters.latency, 1.0))
                    }
                    (bars(&counters.latency))
                }
            }
        }
    }
}

fn total(buckets: &[LatencyBucket]) -> u64 {
    buckets.iter().map(|bucket| bucket.count).sum()
}

/// From the first bucket that has something to the last.
fn shown(buckets: &[LatencyBucket]) -> &[LatencyBucket] {
    let first = buckets.iter().position(|bucket| bucket.count > 0).unwrap_or(0);
    let last = buckets.iter().rposition(|bucket| bucket.count > 0).unwrap_or(0);
    let spare = BARS_MIN.saturating_sub(last + 1 - first);
    let begin = first.saturating_sub(spare / 2);
    &buckets[begin..(last + 1).max(begin + BARS_MIN).min(buckets.len())]
}

fn bars(buckets: &[LatencyBucket]) -> Markup {
    let buckets = shown(buckets);
    let most = buckets.iter().map(|bucket| bucket.count).max().unwrap_or(1).max(1);
    let height = |count: u64| (1.0 + count as f64).ln() / (1.0 + most as f64).ln() * HEIGHT;
    let step = (WIDTH - LEFT) / buckets.len() as f64;
    let every = buckets.len().div_ceil(WORDS_MAX);
    let bottom = TOP + HEIGHT;
    html! {
        svg viewBox={"0 0 " (px(WIDTH)) " " (px(bottom + FOOT))} role="img" aria-label="Latency histogram" {
            @for count in [most, (most as f64).sqrt() as u64] {
                line class="grid" x1=(px(LEFT)) x2=(px(WIDTH)) y1=(px(bottom - height(count))) y2=(px(bottom - height(count))) {}
                text class="quiet" text-anchor="end" x=(px(LEFT - 5.0)) y=(px(bottom - height(count) + 4.0)) { (ink::count(count)) }
            }
            line class="grid" x1=(px(LEFT)) x2=(px(WIDTH)) y1=(px(bottom)) y2=(px(bottom)) {}
            @for (at, bucket) in buckets.iter().enumerate() {
                @let x = LEFT + at as f64 * step;
                @if bucket.count > 0 {
                    rect class="bar" x=(px(x + 1.0)) width=(px(step - 2.0)) rx="1"
                        y=(px(bottom - height(bucket.count))) height=(px(height(bucket.count))) {
                        title { (bucket.count) " commands " (bound(bucket)) }
                    }
                }
                @if at % every == every / 2 {
                    text class="quiet" text-anchor="middle" x=(px(x + step / 2.0)) y=(px(bottom + 14.0)) { (word(bucket)) }
                }
            }
        }
    }
}

fn bound(bucket: &LatencyBucket) -> String {
    bucket.le_us.map_or_else(|| "that took longer".to_owned(), |us| format!("up to {us} us"))
}

/// A power of two is near enough to a round number.
fn word(bucket: &LatencyBucket) -> String {
    let Some(us) = bucket.le_us else { return "more".to_owned() };
    match us {
        0..1024 => format!("{us} µs"),
        1024..1_048_576 => format!("{} ms", us / 1024),
        _ => format!("{} s", us / 1_048_576),
    }
}
