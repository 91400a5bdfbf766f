//! The document: what is the matter, at a glance, and a section for each backend.

use maud::{DOCTYPE, Markup, PreEscaped, html};
use vhost_user_scsi_mpath::control::{LunState, PathReport, PathState};

use super::facts::Facts;
use super::{Report, ink, section};
use crate::human;
use crate::paint::{self, Shade};

const STYLE: &str = include_str!("style.css");
/// Whoever opens the file is promised that nothing is fetched and nothing runs, even if something
/// got past the escaping.
const POLICY: &str = include_str!("policy.txt");

/// The whole file.
pub fn render(report: &Report) -> String {
    let host = report.host.name();
    let time = human::second(report.now);
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(POLICY.trim());
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { "Storage paths of " (host) ", " (time) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                main {
                    header {
                        h1 { "Storage paths of " (host) }
                        div class="quiet" { (time) " · " (machine(report)) }
                    }
                    (verdict(report))
                    @if report.backends.len() > 1 { (overview(report)) }
                    @for (at, (name, facts)) in report.backends.iter().enumerate() {
                        @match facts {
                            Ok(facts) => (section::render(at, name, facts, report.now)),
                            Err(why) => (silent(at, name, why)),
                        }
                    }
                    footer {
                        "Made by mpathctl " (env!("CARGO_PKG_VERSION")) ". This file fetches nothing and runs \
                         nothing. Times are UTC. Addresses are shown without their secrets."
                    }
                }
            }
        }
    }
    .into_string()
}

fn machine(report: &Report) -> String {
    let host = &report.host;
    let processors = host.processors.map(|count| match count {
        1 => "1 processor".to_owned(),
        count => format!("{count} processors"),
    });
    let kernel = host.kernel.as_ref().map(|kernel| format!("Linux {kernel}"));
    let parts = [host.system.clone(), kernel, processors];
    parts.into_iter().flatten().collect::<Vec<_>>().join(" · ")
}

/// What is the matter, in a sentence for each thing.
fn verdict(report: &Report) -> Markup {
    let shade =
        report.backends.iter().map(|(_, facts)| shade(facts)).max_by_key(|shade| match shade {
            Shade::Good => 0,
            Shade::Doubtful => 1,
            Shade::Bad => 2,
        });
    let count = report.backends.len();
    html! {
        div class={"verdict " (ink::class(shade.unwrap_or(Shade::Good)))} {
            @if report.backends.iter().all(|(_, facts)| facts.as_ref().is_ok_and(is_good)) {
                strong { "Everything is as it should be." } " "
                @if count == 1 { "The LUN is" } @else { "All " (count) " LUNs are" }
                " healthy, and every path is up."
            } @else {
                strong { "Something needs a look." }
                ul {
                    @for (at, (name, facts)) in report.backends.iter().enumerate() {
                        @match facts {
                            Err(_) => li { a href={"#backend-" (at)} { (name) } " does not answer." },
                            Ok(facts) if is_good(facts) => {},
                            Ok(facts) => li {
                                a href={"#backend-" (at)} { (name) } " is " (facts.lun.state) "."
                                @for path in troubled(&facts.paths) {
                                    " " strong { (path.name) } " has been " (path.state) " for "
                                    (human::duration(path.since))
                                    @if !path.reason.is_empty() { " (" (path.reason) ")" }
                                    "."
                                }
                            },
                        }
                    }
                }
            }
        }
    }
}

fn shade(facts: &Result<Facts, String>) -> Shade {
    match facts {
        Ok(facts) if is_good(facts) => Shade::Good,
        Ok(facts) => match paint::lun(facts.lun.state) {
            Shade::Good => Shade::Doubtful,
            worse => worse,
        },
        Err(_) => Shade::Bad,
    }
}

fn is_good(facts: &Facts) -> bool {
    facts.lun.state == LunState::Healthy && troubled(&facts.paths).next().is_none()
}

fn troubled(paths: &[PathReport]) -> impl Iterator<Item = &PathReport> {
    paths.iter().filter(|path| path.state != PathState::Up)
}

fn overview(report: &Report) -> Markup {
    html! {
        div class="scroll" {
            table class="overview" {
                tr { th { "Backend" } th { "State" } th { "Paths up" } th { "LUN" } th { "Guest" } }
                @for (at, (name, facts)) in report.backends.iter().enumerate() {
                    tr {
                        td { a href={"#backend-" (at)} { (name) } }
                        @match facts {
                            Ok(facts) => {
                                td { span class={"state " (ink::lun(facts.lun.state))} { (facts.lun.state) } }
                                td {
                                    (facts.paths.len() - troubled(&facts.paths).count())
                                    " of " (facts.paths.len())
                                }
                                td class="mono" { (facts.lun.wwid.as_deref().unwrap_or("-")) }
                                td { (section::guest(facts)) }
                            },
                            Err(_) => {
                                td { span class="state bad" { "no answer" } }
                                td { "-" } td { "-" } td { "-" }
                            },
                        }
                    }
                }
            }
        }
    }
}

fn silent(at: usize, name: &str, why: &str) -> Markup {
    html! {
        section class="backend" id={"backend-" (at)} {
            h2 { (name) span class="badge bad" { "no answer" } }
            p { (why) }
        }
    }
}
