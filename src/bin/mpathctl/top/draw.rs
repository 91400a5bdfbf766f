//! The model on a screen of any size.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span, Text};
use ratatui::widgets::{Cell, Paragraph, Row, Table, TableState};
use vhost_user_scsi_mpath::config::wwid::to_multipath;
use vhost_user_scsi_mpath::control::{LunReport, PathReport};

use super::model::{Model, Now};
use crate::human;
use crate::paint::{self, Shade};

/// Lines of events at least, where the screen has room for more than the paths.
const EVENTS_MIN: u16 = 4;
/// Columns of a path's name at most.
const NAME_MAX: usize = 24;
/// The heights of a sparkline; the first is for "nothing happened".
const BARS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Draws everything.
pub fn draw(frame: &mut Frame<'_>, model: &Model, colours: bool) {
    let [head, body, foot] =
        Layout::vertical([Constraint::Length(3), Constraint::Min(0), Constraint::Length(1)])
            .areas(frame.area());
    match (model.watched(), &model.now) {
        (None, _) => choose(frame, model, head, body),
        (Some(at), Some(now)) => {
            let rows = now.sample.paths.len() as u16 + 1;
            let events = body.height.saturating_sub(rows).max(EVENTS_MIN.min(body.height / 2));
            let [paths, events] =
                Layout::vertical([Constraint::Min(0), Constraint::Length(events)]).areas(body);
            frame.render_widget(header(&model.backends[at], now, colours), head);
            self::paths(frame, model, now, paths, colours);
            self::events(frame, model, events);
        }
        (Some(at), None) => {
            let text = format!("{}: waiting for the first report", model.backends[at]);
            frame.render_widget(Paragraph::new(text), head);
        }
    }
    frame.render_widget(footer(model), foot);
}

fn choose(frame: &mut Frame<'_>, model: &Model, head: Rect, body: Rect) {
    let text = format!("{} backends run on this host. Which one?", model.backends.len());
    frame.render_widget(Paragraph::new(text).style(Modifier::BOLD), head);
    let rows = model.backends.iter().map(|name| Row::new([name.as_str()]));
    let table = Table::new(rows, [Constraint::Min(0)])
        .row_highlight_style(Modifier::REVERSED)
        .highlight_symbol("> ");
    let mut state = TableState::new().with_selected(model.cursor);
    frame.render_stateful_widget(table, body, &mut state);
}

fn header(name: &str, now: &Now, colours: bool) -> Text<'static> {
    let lun = &now.sample.lun;
    let wwid = lun.wwid.as_deref().map_or_else(|| "(no WWID yet)".to_owned(), to_multipath);
    let state = Span::styled(lun.state.as_str(), style(paint::lun(lun.state), colours));
    let second = vec![
        Span::raw("state="),
        state,
        Span::raw(format!(
            " policy={} no-path={} inflight={} queued={}",
            lun.iopolicy,
            human::no_path(lun.no_path_retry),
            lun.inflight,
            lun.queued,
        )),
    ];
    let third = format!(
        "{} commands/s, {} MB/s, mean latency {}; guest {}",
        rounded(now.total.commands),
        megabytes(now.total.bytes),
        human::latency(now.total.latency_us),
        if lun.connected { "connected" } else { "none" },
    );
    let first = format!("{name} {wwid} {}", size(lun));
    Text::from(vec![
        Line::from(first.trim_end().to_owned()).style(Modifier::BOLD),
        Line::from(second),
        Line::from(third),
    ])
}

fn size(lun: &LunReport) -> String {
    match (lun.blocks, lun.block_size) {
        (Some(blocks), Some(size)) => human::size(blocks.saturating_mul(u64::from(size))),
        _ => String::new(),
    }
}

fn paths(frame: &mut Frame<'_>, model: &Model, now: &Now, area: Rect, colours: bool) {
    let longest = now.sample.paths.iter().map(|path| path.name.chars().count()).max();
    let name = longest.unwrap_or(0).clamp(4, NAME_MAX) as u16;
    let widths = [name, 11, 13, 5, 4, 7, 7, 7];
    let used: u16 = widths.iter().map(|width| width + 1).sum();
    let spark = area.width.saturating_sub(used);
    let highest = model.history.values().flatten().copied().max().unwrap_or(0);
    let rows = now.sample.paths.iter().enumerate().map(|(at, path)| {
        let rates = &now.rates[at];
        let bars = sparkline(model, &path.name, highest, usize::from(spark));
        let shade = style(paint::path(path.state), colours);
        Row::new([
            Cell::from(path.name.clone()),
            Cell::from(path.state.as_str()).style(shade),
            Cell::from(access(path)),
            Cell::from(format!("{:>4.0}%", now.share(at) * 100.0)),
            Cell::from(format!("{:>4}", path.inflight)),
            Cell::from(format!("{:>7}", rounded(rates.commands))),
            Cell::from(format!("{:>7}", megabytes(rates.bytes))),
            Cell::from(format!("{:>7}", human::latency(rates.latency_us))),
            Cell::from(bars),
        ])
    });
    let head = ["PATH", "STATE", "ACCESS", "SHARE", "INFL", "   IOPS", "   MB/s", "LATENCY", ""];
    let table = Table::new(rows, widths.into_iter().chain([spark]).map(Constraint::Length))
        .header(Row::new(head).style(Modifier::BOLD))
        .row_highlight_style(Modifier::REVERSED);
    let mut state = TableState::new().with_selected(model.cursor);
    frame.render_stateful_widget(table, area, &mut state);
}

/// The access state without what is the same for all that work.
fn access(path: &PathReport) -> &'static str {
    let word = path.access_state.as_str();
    word.strip_prefix("active/").unwrap_or(word)
}

/// The last latencies as bars, all paths on one scale.
fn sparkline(model: &Model, name: &str, highest: u64, width: usize) -> String {
    let Some(history) = model.history.get(name) else { return String::new() };
    let skip = history.len().saturating_sub(width);
    let bar = |latency: &u64| match *latency {
        0 => BARS[0],
        some => BARS[(some * 8).div_ceil(highest.max(1)).clamp(1, 8) as usize],
    };
    history.iter().skip(skip).map(bar).collect()
}

fn events(frame: &mut Frame<'_>, model: &Model, area: Rect) {
    let room = usize::from(area.height.saturating_sub(1));
    let skip = model.events.len().saturating_sub(room);
    let mut lines = vec![Line::from("EVENTS").style(Modifier::BOLD)];
    lines.extend(model.events.iter().skip(skip).map(|line| Line::from(line.as_str())));
    frame.render_widget(Paragraph::new(lines), area);
}

fn footer(model: &Model) -> Paragraph<'static> {
    let keys = match model.watched() {
        None => "enter: watch it  q: quit",
        Some(_) if model.backends.len() > 1 => {
            "f: fail  r: reinstate  p: policy  esc: other backends  q: quit"
        }
        Some(_) => "f: fail  r: reinstate  p: policy  q: quit",
    };
    match &model.question {
        Some((question, _)) => Paragraph::new(format!("{question} y/n")).style(Modifier::BOLD),
        None if model.word.is_empty() => Paragraph::new(keys),
        None => Paragraph::new(format!("{keys}  | {}", model.word)),
    }
}

fn style(shade: Shade, colours: bool) -> Style {
    let colour = match shade {
        Shade::Good => Color::Green,
        Shade::Doubtful => Color::Yellow,
        Shade::Bad => Color::Red,
    };
    if colours { Style::new().fg(colour) } else { Style::new() }
}

fn rounded(number: f64) -> String {
    format!("{number:.0}")
}

fn megabytes(bytes: f64) -> String {
    format!("{:.1}", bytes / 1e6)
}
