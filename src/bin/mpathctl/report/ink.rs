//! What the pictures share. Sizes are in units of the picture, which the page scales to its width.

use vhost_user_scsi_mpath::control::{LunState, PathState};

use crate::paint::{self, Shade};

/// How wide a picture is that goes from one side of the page to the other.
pub const WIDTH: f64 = 960.0;

/// A coordinate: more digits would only make the file longer.
pub fn px(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").map(str::to_owned).unwrap_or(text)
}

/// The class of what is so good or bad; the style sheet has its colour.
pub fn class(shade: Shade) -> &'static str {
    match shade {
        Shade::Good => "good",
        Shade::Doubtful => "doubtful",
        Shade::Bad => "bad",
    }
}

/// The class of a path's state.
pub fn path(state: PathState) -> &'static str {
    class(paint::path(state))
}

/// The class of the LUN's state.
pub fn lun(state: LunState) -> &'static str {
    class(paint::lun(state))
}

/// At most so many characters: a picture has no room for more, and the table beside it has all.
pub fn clipped(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most.saturating_sub(1)).chain(['…']).collect()
}

/// The same where the end says as much as the beginning: of an address.
pub fn middle_clipped(text: &str, most: usize) -> String {
    let length = text.chars().count();
    if length <= most {
        return text.to_owned();
    }
    let end = most / 2;
    let begin = most - end - 1;
    text.chars().take(begin).chain(['…']).chain(text.chars().skip(length - end)).collect()
}

/// Latencies on a logarithmic scale of whole decades.
#[derive(Clone, Copy, Debug)]
pub struct Decades {
    /// The power of ten, in microseconds, at the bottom.
    low: i32,
    /// The one at the top.
    high: i32,
}

impl Decades {
    /// A scale for these latencies in microseconds, of two decades at least.
    pub fn around(latencies: impl Iterator<Item = u64>) -> Self {
        let (mut low, mut high) = (i32::MAX, i32::MIN);
        for latency in latencies.filter(|latency| *latency > 0) {
            let log = (latency as f64).log10();
            low = low.min(log.floor() as i32);
            high = high.max(log.ceil() as i32);
        }
        let low = if low > high { 1 } else { low };
        Decades { low, high: high.max(low + 2) }
    }

    /// Where a latency is: 0 at the bottom, 1 at the top.
    pub fn place(&self, latency: u64) -> f64 {
        let log = (latency.max(1) as f64).log10();
        ((log - f64::from(self.low)) / f64::from(self.high - self.low)).clamp(0.0, 1.0)
    }

    /// The decades, with a word for each.
    pub fn marks(&self) -> impl Iterator<Item = (u64, String)> {
        (self.low..=self.high).map(|power| {
            let us = 10u64.pow(power.max(0) as u32);
            (us, round(us))
        })
    }
}

/// A round latency in as few letters as there are.
pub fn round(us: u64) -> String {
    match us {
        0..1000 => format!("{us} µs"),
        1000..1_000_000 => format!("{} ms", us / 1000),
        _ => format!("{} s", us / 1_000_000),
    }
}

/// A count in as few letters as there are.
pub fn count(count: u64) -> String {
    match count {
        0..10_000 => count.to_string(),
        10_000..10_000_000 => format!("{}k", count / 1000),
        _ => format!("{}M", count / 1_000_000),
    }
}

/// The line through points; it begins anew where one is missing.
pub fn line(points: impl Iterator<Item = Option<(f64, f64)>>) -> String {
    let mut path = String::new();
    let mut on = false;
    for point in points {
        if let Some((x, y)) = point {
            path += &format!("{}{} {}", if on { 'L' } else { 'M' }, px(x), px(y));
            // A single point would not be seen.
            if !on {
                path += &format!("h{}", px(0.5));
            }
        }
        on = point.is_some();
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decades_hold_what_they_were_made_for() {
        let scale = Decades::around([70, 0, 4_000_000].into_iter());
        let marks: Vec<String> = scale.marks().map(|(_, word)| word).collect();
        assert_eq!(marks, ["10 µs", "100 µs", "1 ms", "10 ms", "100 ms", "1 s", "10 s"]);
        assert_eq!((scale.place(10), scale.place(10_000_000)), (0.0, 1.0));
        assert!((scale.place(10_000) - 0.5).abs() < 1e-9);
        assert_eq!(Decades::around(std::iter::empty()).marks().count(), 3);
        assert_eq!(Decades::around([1].into_iter()).place(0), 0.0);
    }

    #[test]
    fn words_and_lines_are_short() {
        assert_eq!((px(3.0), px(2.46)), ("3".to_owned(), "2.5".to_owned()));
        assert_eq!((clipped("abcdef", 4), clipped("äöü", 3)), ("abc…".into(), "äöü".into()));
        assert_eq!(
            (middle_clipped("abcdefg", 5), middle_clipped("abc", 3)),
            ("ab…fg".into(), "abc".into())
        );
        assert_eq!(
            (count(9999), count(12_345), count(12_345_678)),
            ("9999".into(), "12k".into(), "12M".into())
        );
        let points = [Some((0.0, 1.0)), Some((1.0, 2.0)), None, Some((3.0, 3.0))];
        assert_eq!(line(points.into_iter()), "M0 1h0.5L1 2M3 3h0.5");
    }
}
