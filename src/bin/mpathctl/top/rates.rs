//! From two reports to what happened between them.

use std::time::Duration;

use vhost_user_scsi_mpath::control::Counters;

/// What went over a path, or to a LUN, lately.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rates {
    /// Commands in a second.
    pub commands: f64,
    /// Bytes in a second, both ways.
    pub bytes: f64,
    /// Mean latency in microseconds, rounded up, for an answer took some time; none where no command was answered.
    pub latency_us: Option<u64>,
}

impl Rates {
    /// Between `before` and `after`, `passed` apart. A path that was removed and added again has
    /// begun anew: then nothing is known.
    pub fn between(before: &Counters, after: &Counters, passed: Duration) -> Rates {
        let seconds = passed.as_secs_f64();
        let count = |one: &Counters| one.reads + one.writes + one.other;
        let bytes = |one: &Counters| one.read_bytes + one.write_bytes;
        if seconds <= 0.0 || count(after) < count(before) {
            return Rates::default();
        }
        let commands = count(after) - count(before);
        let time = after.latency_sum_us.saturating_sub(before.latency_sum_us);
        Rates {
            commands: commands as f64 / seconds,
            bytes: bytes(after).saturating_sub(bytes(before)) as f64 / seconds,
            latency_us: (commands > 0).then(|| time.div_ceil(commands).max(1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_what_happened_in_between() {
        let before = Counters { reads: 100, read_bytes: 4096, ..Counters::default() };
        let after = Counters {
            reads: 300,
            writes: 200,
            read_bytes: 8192,
            write_bytes: 4096,
            latency_sum_us: 80_000,
            ..Counters::default()
        };
        let rates = Rates::between(&before, &after, Duration::from_secs(2));
        assert_eq!(rates, Rates { commands: 200.0, bytes: 4096.0, latency_us: Some(200) });
        assert_eq!(Rates::between(&after, &before, Duration::from_secs(2)), Rates::default());
        assert_eq!(Rates::between(&before, &after, Duration::ZERO), Rates::default());
        let quick = Counters { latency_sum_us: 0, ..after.clone() };
        let quick = Rates::between(&before, &quick, Duration::from_secs(2));
        assert_eq!(quick.latency_us, Some(1), "less than a microsecond is not nothing");
        let idle = Rates::between(&after, &after, Duration::from_secs(2));
        assert_eq!(idle.latency_us, None);
    }
}
