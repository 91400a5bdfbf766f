//! Sizes, durations and times as people read them.

use vhost_user_scsi_mpath::config::NoPathRetry;

/// What happens to commands without a path: a number alone would not tell what it counts.
pub fn no_path(retry: NoPathRetry) -> String {
    match retry {
        NoPathRetry::For(time) => format!("{}s", time.as_secs_f64()),
        word => word.to_string(),
    }
}

/// Bytes as `multipath -ll` writes them: powers of 1024 with one letter, one decimal below ten.
pub fn size(bytes: u64) -> String {
    let mut units = ["K", "M", "G", "T", "P"].into_iter();
    if bytes < 1024 {
        return format!("{bytes}B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = units.next().unwrap_or_default();
    while value >= 1024.0 {
        let Some(next) = units.next() else { break };
        value /= 1024.0;
        unit = next;
    }
    if value < 10.0 { format!("{value:.1}{unit}") } else { format!("{value:.0}{unit}") }
}

/// A latency.
pub fn latency(us: Option<u64>) -> String {
    match us {
        None => "-".to_owned(),
        Some(us) if us < 10_000 => format!("{us}us"),
        Some(us) if us < 10_000_000 => format!("{}ms", us / 1000),
        Some(us) => format!("{}s", us / 1_000_000),
    }
}

/// How long something has been so: the two largest units.
pub fn duration(seconds: f64) -> String {
    let seconds = seconds.max(0.0) as u64;
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{minutes}m{:02}s", seconds % 60),
        3600..86_400 => format!("{hours}h{:02}m", minutes % 60),
        _ => format!("{days}d{:02}h", hours % 24),
    }
}

/// [`time`] to the second.
pub fn second(seconds: u64) -> String {
    time(seconds, 0).replace(".000000", "")
}

/// A time since 1970 in UTC (RFC 3339): the same on every host that takes part in a failover.
pub fn time(seconds: u64, microseconds: u64) -> String {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Years begin in March here, so that the leap day comes last; 719,468 days lie between the
    // year 0 and 1970, and 146,097 in each 400 years.
    let day = days + 719_468;
    let (era, day) = (day / 146_097, day % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day_of_month = day - (153 * month + 2) / 5 + 1;
    let (month, next_year) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = era * 400 + year + next_year;
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!(
        "{year:04}-{month:02}-{day_of_month:02}T{hour:02}:{minute:02}:{second:02}.{microseconds:06}Z"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn size_is_as_multipath_writes_it() {
        let cases = [
            (0, "0B"),
            (512, "512B"),
            (1024, "1.0K"),
            (1 << 30, "1.0G"),
            (10 << 30, "10G"),
            (1536 << 30, "1.5T"),
            (u64::MAX, "16384P"),
        ];
        for (bytes, text) in cases {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn no_path_has_a_unit() {
        assert_eq!(no_path(NoPathRetry::Queue), "queue");
        assert_eq!(no_path(NoPathRetry::For(std::time::Duration::from_millis(2500))), "2.5s");
    }

    #[test]
    fn latency_and_duration_have_few_digits() {
        assert_eq!(latency(None), "-");
        assert_eq!(latency(Some(130)), "130us");
        assert_eq!(latency(Some(12_345)), "12ms");
        assert_eq!(latency(Some(12_345_678)), "12s");
        assert_eq!(duration(4.9), "4s");
        assert_eq!(duration(65.0), "1m05s");
        assert_eq!(duration(3700.0), "1h01m");
        assert_eq!(duration(90_000.0), "1d01h");
        assert_eq!(duration(f64::NAN), "0s");
    }

    #[test]
    fn time_knows_leap_years() {
        assert_eq!(time(0, 0), "1970-01-01T00:00:00.000000Z");
        assert_eq!(time(951_782_400, 7), "2000-02-29T00:00:00.000007Z");
        assert_eq!(time(1_709_251_199, 999_999), "2024-02-29T23:59:59.999999Z");
        assert_eq!(time(4_107_542_400, 0), "2100-03-01T00:00:00.000000Z");
    }
}
