//! One backend: facts, pictures, tables.

use maud::{Markup, html};
use serde_json::Value;
use vhost_user_scsi_mpath::config::wwid::to_multipath;
use vhost_user_scsi_mpath::control::{
    Counters, HedgeStats, PathReport, PathState, ReservationReport,
};

use super::facts::Facts;
use super::{diagram, histogram, ink, timeline};
use crate::{events, human, reservation, tables, why};

/// Events that are shown; the newest say most.
const EVENTS_SHOWN: usize = 100;

/// The section; `at` is its number in the file.
pub fn render(at: usize, name: &str, facts: &Facts, now: u64) -> Markup {
    let state = facts.lun.state;
    html! {
        section class="backend" id={"backend-" (at)} {
            h2 { (name) span class={"badge " (ink::lun(state))} { (state) } }
            (lun(facts, now))
            h3 { "Topology" }
            (diagram::draw(name, &facts.lun, &facts.paths))
            h3 { "Paths" }
            (paths(&facts.paths))
            @for path in facts.paths.iter().filter(|path| path.state != PathState::Up) {
                (explained(path, facts, now))
            }
            h3 { "Persistent reservations" }
            @match &facts.reservation {
                Some(reservation) => (reserved(reservation)),
                None => p class="quiet" { "This version of the backend does not tell of them." },
            }
            h3 { "The last minutes" }
            @match &facts.history {
                Some(history) if history.times.len() > 1 => (timeline::draw(history)),
                Some(_) => p class="quiet" { "The backend has only just been started." },
                None => p class="quiet" { "This version of the backend keeps no history." },
            }
            h3 { "Latency since the start" }
            (histogram::draw(&facts.stats))
            h3 { "Counters since the start" }
            (counters(facts))
            h3 { "Events" }
            @match &facts.history {
                Some(history) if !history.events.is_empty() => (happened(&history.events)),
                Some(_) => p class="quiet" { "Nothing has happened." },
                None => p class="quiet" { "This version of the backend keeps no events." },
            }
            h3 { "Settings" }
            (settings(facts))
        }
    }
}

/// Whether a guest is there.
pub fn guest(facts: &Facts) -> &'static str {
    if facts.lun.connected { "connected" } else { "none" }
}

fn fact(name: &str, value: &str) -> Markup {
    html! { div { dt { (name) } dd { (value) } } }
}

fn lun(facts: &Facts, now: u64) -> Markup {
    let lun = &facts.lun;
    let word = |text: &Option<String>| text.as_deref().unwrap_or("-").trim().to_owned();
    let size = match (lun.blocks, lun.block_size) {
        (Some(blocks), Some(size)) => {
            let bytes = blocks.saturating_mul(u64::from(size));
            format!("{}, {blocks} blocks of {size} bytes", human::size(bytes))
        }
        _ => "-".to_owned(),
    };
    let device = [&lun.vendor, &lun.product, &lun.revision].map(word).join(" ");
    let up = facts.settings.map(|settings| {
        let began = now.saturating_sub(settings.uptime as u64);
        format!("{}, since {}", human::duration(settings.uptime), human::second(began))
    });
    html! {
        dl class="facts" {
            div class="wide" {
                dt { "WWID" }
                dd class="mono" {
                    (word(&lun.wwid))
                    @if let Some(wwid) = &lun.wwid { br; span class="quiet" { (to_multipath(wwid)) } }
                }
            }
            (fact("Device", device.trim()))
            (fact("Serial number", &word(&lun.serial)))
            (fact("Size", &size))
            (fact("Guest", guest(facts)))
            (fact("Commands on a path", &lun.inflight.to_string()))
            (fact("Commands that wait for a path", &lun.queued.to_string()))
            (fact("Backend", &facts.version))
            @if let Some(up) = up { (fact("Running for", &up)) }
            (fact("Control socket", &facts.socket.display().to_string()))
        }
    }
}

fn paths(paths: &[PathReport]) -> Markup {
    let number = |number: Option<u16>| number.map_or_else(|| "-".to_owned(), |one| one.to_string());
    html! {
        div class="scroll" {
            table class="paths" {
                tr {
                    th { "Path" } th { "State" } th { "For" } th { "Access state" } th { "Group, port" }
                    th class="number" { "In flight" } th class="number" { "Latency" }
                    th { "Reason" }
                }
                @for path in paths {
                    tr {
                        td {
                            strong { (path.name) } " "
                            span class="quiet small" {
                                (path.kind) @if let Some(engine) = &path.engine { ", " (engine) }
                            }
                            br;
                            span class="mono quiet" {
                                (path.address)
                                @if let Some(hctl) = &path.hctl { " " (hctl) " " (path.devices.join(" ")) }
                            }
                        }
                        td { span class={"state " (ink::path(path.state))} { (path.state) } }
                        td class="number" { (human::duration(path.since)) }
                        td { (path.access_state) @if path.preferred { " (preferred)" } }
                        td { (number(path.group)) ", " (number(path.relative_port)) }
                        td class="number" { (path.inflight) }
                        td class="number" { (human::latency(path.latency_us)) }
                        // Of a path that is up it says only that.
                        td { @if path.state != PathState::Up { (path.reason) } }
                    }
                }
            }
        }
    }
}

/// As `mpathctl reservation` shows it.
fn reserved(report: &ReservationReport) -> Markup {
    html! {
        dl class="facts" {
            @for (name, value) in reservation::facts(report) { (fact(name, &value)) }
            @for path in report.paths.iter().filter(|_| report.key.is_some()) {
                (fact(&path.name, path.registration.as_str()))
            }
        }
    }
}

/// What `mpathctl why` says of a path that is not as it should be.
fn explained(path: &PathReport, facts: &Facts, now: u64) -> Markup {
    let why = why::explain(path, &facts.lun, &facts.paths, &facts.stats, now);
    html! { p class={"why " (ink::path(path.state))} { (why.text()) } }
}

fn counters(facts: &Facts) -> Markup {
    let paths = facts.stats.paths.iter().map(|path| (path.name.as_str(), &path.counters));
    let rows = std::iter::once(("The LUN", &facts.stats.lun)).chain(paths);
    let HedgeStats { sent, won, denied, pauses } = facts.stats.hedges;
    html! {
        div class="scroll" {
            table class="counters" {
                tr {
                    th { "" }
                    @for head in ["Reads", "Writes", "Other", "Read", "Written", "Retries", "Failovers", "P50", "P99", "Longest"] {
                        th class="number" { (head) }
                    }
                    th { "Attempts without a good end" }
                }
                @for (name, counters) in rows {
                    tr {
                        td { strong { (name) } }
                        @for count in [counters.reads, counters.writes, counters.other] {
                            td class="number" { (count) }
                        }
                        @for bytes in [counters.read_bytes, counters.write_bytes] {
                            td class="number" { (human::size(bytes)) }
                        }
                        @for count in [counters.retries, counters.failovers] {
                            td class="number" { (count) }
                        }
                        @for share in [0.5, 0.99, 1.0] {
                            td class="number" { (tables::quantile(&counters.latency, share)) }
                        }
                        td { (errors(counters)) }
                    }
                }
            }
        }
        @if facts.stats.hedges != HedgeStats::default() {
            p class="quiet small" {
                "Hedged reads: " (sent) " sent, " (won) " won, " (denied) " denied, " (pauses) " pauses."
            }
        }
    }
}

fn errors(counters: &Counters) -> String {
    let errors = counters.errors.iter().filter(|(_, count)| **count > 0);
    let errors: Vec<String> = errors.map(|(class, count)| format!("{class} {count}")).collect();
    if errors.is_empty() { "none".to_owned() } else { errors.join(", ") }
}

/// The newest first.
fn happened(all: &[Value]) -> Markup {
    let more = all.len().saturating_sub(EVENTS_SHOWN);
    html! {
        div class="scroll" {
            table class="events" {
                tr { th { "Time, newest first" } th { "Event" } th { "" } }
                @for event in all.iter().rev().take(EVENTS_SHOWN) {
                    tr {
                        td class="time mono" { (events::time(event)) }
                        td class="mono" { (event["event"].as_str().unwrap_or("?")) }
                        td { span class={"what " (shade(event))} { (events::what(event)) } }
                    }
                }
            }
        }
        @if more > 0 { p class="quiet small" { (more) " older events are left out." } }
    }
}

/// How good what an event tells is, by the state that it leads to.
fn shade(event: &Value) -> &'static str {
    match event["data"]["to"].as_str().unwrap_or_default() {
        "up" | "healthy" => "good",
        "failed" | "wrong-lun" | "no-path" | "lost" => "bad",
        "shaky" | "blocked" | "disabled" | "draining" | "degraded" => "doubtful",
        _ => "",
    }
}

fn settings(facts: &Facts) -> Markup {
    let lun = &facts.lun;
    let seconds = |seconds: f64| format!("{seconds} s");
    html! {
        dl class="facts settings" {
            (fact("iopolicy", lun.iopolicy.as_str()))
            (fact("no_path_retry", &human::no_path(lun.no_path_retry)))
            (fact("failback", &lun.failback.to_string()))
            @if let Some(settings) = facts.settings {
                (fact("path_timeout", &seconds(settings.path_timeout)))
                (fact("command_deadline", &seconds(settings.command_deadline)))
                (fact("write_quiesce", &seconds(settings.write_quiesce)))
                (fact("explicit_alua", &settings.explicit_alua.to_string()))
                (fact("hedged_reads", &hedged(settings.hedge_budget, settings.hedge_percentile)))
            }
        }
    }
}

fn hedged(budget: Option<f64>, percentile: Option<f64>) -> String {
    match (budget, percentile) {
        (Some(budget), Some(percentile)) => {
            format!("true, hedge_budget {budget}, hedge_percentile {percentile}")
        }
        _ => "false".to_owned(),
    }
}
