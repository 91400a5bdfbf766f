//! Paths, LUN and statistics as tables for people.

use vhost_user_scsi_mpath::control::{
    Counters, HedgeStats, LatencyBucket, LunReport, PathReport, PathState, StatsReport,
};

use crate::human;
use crate::paint::{self, Paint, Shade};

/// Rows of cells, as wide as their widest; a cell may have a colour.
#[derive(Default)]
pub struct Table(Vec<Vec<(String, Option<Shade>)>>);

impl Table {
    /// Adds a row.
    pub fn row(&mut self, cells: impl IntoIterator<Item = impl Into<String>>) {
        self.0.push(cells.into_iter().map(|cell| (cell.into(), None)).collect());
    }

    /// Colours a cell of the last row.
    fn shade(&mut self, column: usize, shade: Shade) {
        if let Some(cell) = self.0.last_mut().and_then(|row| row.get_mut(column)) {
            cell.1 = Some(shade);
        }
    }

    /// The rows as text, a line each.
    pub fn render(&self, paint: Paint) -> String {
        let columns = self.0.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = self.0.iter().filter_map(|row| row.get(column));
            cells.map(|(text, _)| text.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut out = String::new();
        for row in &self.0 {
            let mut line = String::new();
            for ((text, shade), width) in row.iter().zip(&widths) {
                let cell = format!("{text:<width$}");
                line += &shade.map_or(cell.clone(), |shade| paint.shade(shade, &cell));
                line += "  ";
            }
            out += line.trim_end();
            out.push('\n');
        }
        out
    }
}

fn number_or_dash<T: ToString>(number: Option<T>) -> String {
    number.map_or_else(|| "-".to_owned(), |number| number.to_string())
}

/// `paths`.
pub fn paths(paths: &[PathReport], paint: Paint) -> String {
    let mut table = Table::default();
    table.row([
        "NAME", "STATE", "ACCESS", "GROUP", "PORT", "INFLIGHT", "LATENCY", "SINCE", "ADDRESS",
        "REASON",
    ]);
    for path in paths {
        let group = number_or_dash(path.group) + if path.preferred { "*" } else { "" };
        let reason = if path.state == PathState::Up { "" } else { path.reason.as_str() };
        table.row([
            path.name.as_str(),
            path.state.as_str(),
            path.access_state.as_str(),
            &group,
            &number_or_dash(path.relative_port),
            &path.inflight.to_string(),
            &human::latency(path.latency_us),
            &human::duration(path.since),
            &path.address,
            reason,
        ]);
        table.shade(1, paint::path(path.state));
    }
    table.render(paint)
}

/// `lun`.
pub fn lun(lun: &LunReport, paint: Paint) -> String {
    let text = |text: &Option<String>| text.as_deref().unwrap_or("-").trim().to_owned();
    let size = match (lun.blocks, lun.block_size) {
        (Some(blocks), Some(size)) => {
            let bytes = blocks.saturating_mul(u64::from(size));
            format!("{} ({blocks} blocks of {size} bytes)", human::size(bytes))
        }
        _ => "-".to_owned(),
    };
    let mut table = Table::default();
    table.row(["wwid", &text(&lun.wwid)]);
    table.row(["vendor", &text(&lun.vendor)]);
    table.row(["product", &text(&lun.product)]);
    table.row(["revision", &text(&lun.revision)]);
    table.row(["serial", &text(&lun.serial)]);
    table.row(["size", &size]);
    table.row(["iopolicy", lun.iopolicy.as_str()]);
    table.row(["no-path-retry", &human::no_path(lun.no_path_retry)]);
    table.row(["failback", &lun.failback.to_string()]);
    table.row(["state", lun.state.as_str()]);
    table.shade(1, paint::lun(lun.state));
    table.row(["inflight", &lun.inflight.to_string()]);
    table.row(["queued", &lun.queued.to_string()]);
    table.row(["guest", if lun.connected { "connected" } else { "none" }]);
    table.render(paint)
}

/// `stats`.
pub fn stats(stats: &StatsReport) -> String {
    let mut table = Table::default();
    table.row([
        "NAME",
        "READS",
        "WRITES",
        "OTHER",
        "READ",
        "WRITTEN",
        "ERRORS",
        "RETRIES",
        "FAILOVERS",
        "P50",
        "P99",
        "MAX",
    ]);
    let paths = stats.paths.iter().map(|path| (path.name.as_str(), &path.counters));
    let all: Vec<(&str, &Counters)> = std::iter::once(("(lun)", &stats.lun)).chain(paths).collect();
    for (name, counters) in &all {
        let at = |share| quantile(&counters.latency, share);
        let errors: u64 = counters.errors.values().sum();
        table.row([
            (*name).to_owned(),
            counters.reads.to_string(),
            counters.writes.to_string(),
            counters.other.to_string(),
            human::size(counters.read_bytes),
            human::size(counters.write_bytes),
            errors.to_string(),
            counters.retries.to_string(),
            counters.failovers.to_string(),
            at(0.5),
            at(0.99),
            at(1.0),
        ]);
    }
    let mut text = table.render(Paint { on: false });
    for (name, counters) in &all {
        let errors = counters.errors.iter().filter(|(_, count)| **count > 0);
        let errors: Vec<String> = errors.map(|(class, count)| format!("{class} {count}")).collect();
        if !errors.is_empty() {
            text += &format!("errors of {name}: {}\n", errors.join(", "));
        }
    }
    let HedgeStats { sent, won, denied, pauses } = stats.hedges;
    if stats.hedges != HedgeStats::default() {
        text +=
            &format!("hedged reads: {sent} sent, {won} won, {denied} denied, {pauses} pauses\n");
    }
    text
}

/// The bound under which that share of the commands stayed; for those in the endless bucket, the
/// bound that they have passed.
pub fn quantile(buckets: &[LatencyBucket], share: f64) -> String {
    let total: u64 = buckets.iter().map(|bucket| bucket.count).sum();
    let rank = ((total as f64 * share).ceil() as u64).clamp(1, total.max(1));
    let (mut below, mut bound) = (0, None);
    for bucket in buckets {
        below += bucket.count;
        match bucket.le_us {
            None if bucket.count > 0 => return format!(">{}", human::latency(bound)),
            None => {}
            le_us if below >= rank => return human::latency(le_us),
            le_us => bound = le_us,
        }
    }
    human::latency(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantile_is_the_bucket_of_that_rank() {
        let bucket = |le_us, count| LatencyBucket { le_us: Some(le_us), count };
        let mut buckets = vec![bucket(64, 98), bucket(128, 1), bucket(256, 0), bucket(4096, 1)];
        assert_eq!(quantile(&buckets, 0.5), "64us");
        assert_eq!(quantile(&buckets, 0.99), "128us");
        assert_eq!(quantile(&buckets, 1.0), "4096us");
        buckets.push(LatencyBucket { le_us: None, count: 9 });
        assert_eq!(quantile(&buckets, 1.0), ">4096us");
        assert_eq!(quantile(&[], 0.5), "-");
    }
}
