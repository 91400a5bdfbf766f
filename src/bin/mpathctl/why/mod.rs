//! `why PATH`: one paragraph about one path, from what the backend reports. Pure; who asks the
//! backends is `read`.
//!
//! | file | what |
//! |---|---|
//! | `mod` | the paragraph, put together |
//! | `sentences` | what each state means |

mod sentences;

use serde_json::{Value, json};
use vhost_user_scsi_mpath::config::NoPathRetry;
use vhost_user_scsi_mpath::control::{LunReport, PathReport, PathState, PathStats, StatsReport};

use crate::carriers::carriers;
use crate::human;

/// Columns of the paragraph: it is read in terminals.
const WIDTH: usize = 80;

/// What is to be said about a path, by what it answers.
#[derive(Debug)]
pub struct Why<'a> {
    path: &'a PathReport,
    /// In which state it is, and since when.
    is: String,
    /// Why.
    cause: Option<String>,
    /// What was tried.
    tried: String,
    /// What the rest of the LUN does.
    meanwhile: String,
    /// What comes next by itself.
    next: String,
    /// What an admin can do.
    advice: String,
}

/// Explains one of `paths`. `now` is in seconds since 1970.
pub fn explain<'a>(
    path: &'a PathReport,
    lun: &LunReport,
    paths: &[PathReport],
    stats: &StatsReport,
    now: u64,
) -> Why<'a> {
    let about = sentences::state(path.state);
    let counters = stats.paths.iter().find(|one| one.name == path.name);
    Why {
        path,
        is: is(path, about.is, now),
        cause: cause(path),
        tried: tried(path, counters),
        meanwhile: meanwhile(path, lun, paths),
        next: next(path, about.next),
        advice: about.advice.replace("{path}", &path.name),
    }
}

impl Why<'_> {
    /// The paragraph.
    pub fn text(&self) -> String {
        let parts = [Some(&self.is), self.cause.as_ref(), Some(&self.tried)];
        let parts = parts.into_iter().flatten();
        let parts = parts.chain([&self.meanwhile, &self.next, &self.advice]);
        wrap(&parts.map(String::as_str).collect::<Vec<_>>().join(" "))
    }

    /// The same for programs, its parts apart.
    pub fn json(&self, backend: &str) -> Value {
        json!({
            "backend": backend,
            "name": self.path.name,
            "state": self.path.state,
            "access-state": self.path.access_state,
            "since": self.path.since,
            "reason": self.path.reason,
            "next-check": self.path.next_check,
            "is": self.is,
            "cause": self.cause,
            "tried": self.tried,
            "meanwhile": self.meanwhile,
            "next": self.next,
            "advice": self.advice,
        })
    }
}

fn is(path: &PathReport, is: &str, now: u64) -> String {
    let began = human::second(now.saturating_sub(path.since.max(0.0) as u64));
    let state = path.state;
    let mut text = format!(
        "Path {} {is} ({state} for {}, since {began}).",
        path.name,
        human::duration(path.since)
    );
    if matches!(state, PathState::Up | PathState::Shaky) {
        text += &format!(" Its port {}.", sentences::access(path.access_state));
    }
    text
}

fn cause(path: &PathReport) -> Option<String> {
    let reason = path.reason.trim_end_matches('.');
    (!reason.is_empty()).then(|| format!("The reason: {reason}."))
}

fn tried(path: &PathReport, stats: Option<&PathStats>) -> String {
    let Some(PathStats { counters, .. }) = stats else {
        return "The backend has counted nothing for it.".to_owned();
    };
    let answered = counters.reads + counters.writes + counters.other;
    let mut text = format!("{} were answered over it so far", commands(answered));
    let errors = counters.errors.iter().filter(|(_, count)| **count > 0);
    let errors: Vec<String> = errors.map(|(class, count)| format!("{class} {count}")).collect();
    if !errors.is_empty() {
        text += &format!(", and attempts ended badly ({})", errors.join(", "));
    }
    if counters.failovers > 0 {
        text += &format!("; {} went on over another path", commands(counters.failovers));
    }
    if path.inflight > 0 {
        text += &format!("; {} under way on it now", are(path.inflight));
    }
    text + "."
}

fn meanwhile(path: &PathReport, lun: &LunReport, paths: &[PathReport]) -> String {
    let carriers = carriers(paths);
    let others: Vec<&PathReport> =
        carriers.iter().copied().filter(|one| one.name != path.name).collect();
    let carries = others.len() < carriers.len();
    let state = format!("The LUN is {}", lun.state);
    match (carries, others.is_empty()) {
        (false, false) => format!("{state}: {} its commands.", carry(&others)),
        (true, false) => {
            format!("{state}: this path shares its commands with {}.", names(&others))
        }
        (true, true) => {
            let rest: Vec<PathReport> =
                paths.iter().filter(|one| one.name != path.name).cloned().collect();
            let heirs = self::carriers(&rest);
            let then = if heirs.is_empty() {
                format!("when it fails, no path is left, and {}", without(lun))
            } else {
                format!("when it fails, {} over", take(&heirs))
            };
            format!("{state}: this path alone carries its commands; {then}.")
        }
        (false, true) => {
            let waiting = match lun.queued {
                0 => String::new(),
                queued => format!(" ({} waiting)", are(queued)),
            };
            format!("{state}: no path can carry its commands, and {}{waiting}.", without(lun))
        }
    }
}

/// What happens to commands without a path.
fn without(lun: &LunReport) -> String {
    match lun.no_path_retry {
        NoPathRetry::Queue => "the guest's commands wait until one can".to_owned(),
        NoPathRetry::Fail => "the guest's commands fail at once".to_owned(),
        NoPathRetry::For(time) => {
            format!("the guest's commands wait {} s for one and then fail", time.as_secs_f64())
        }
    }
}

fn next(path: &PathReport, next: &str) -> String {
    let asked = match path.next_check {
        Some(seconds) if seconds > 0.0 => {
            format!("It is asked again in {seconds:.1} s. ")
        }
        Some(_) => "It is being asked at this moment. ".to_owned(),
        None => String::new(),
    };
    format!("{asked}It {next}.")
}

fn commands(count: u64) -> String {
    if count == 1 { "1 command".to_owned() } else { format!("{count} commands") }
}

fn are(count: u64) -> String {
    format!("{} {}", commands(count), if count == 1 { "is" } else { "are" })
}

fn names(paths: &[&PathReport]) -> String {
    let names: Vec<&str> = paths.iter().map(|path| path.name.as_str()).collect();
    match names.as_slice() {
        [rest @ .., last] if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        names => names.concat(),
    }
}

fn carry(paths: &[&PathReport]) -> String {
    format!("{} {}", names(paths), if paths.len() == 1 { "carries" } else { "carry" })
}

fn take(paths: &[&PathReport]) -> String {
    format!("{} {}", names(paths), if paths.len() == 1 { "takes" } else { "take" })
}

/// Lines of at most [`WIDTH`] columns, where words allow it.
fn wrap(text: &str) -> String {
    let mut out = String::new();
    let mut column = 0;
    for word in text.split_whitespace() {
        let width = word.chars().count();
        if column > 0 {
            let fits = column + 1 + width <= WIDTH;
            out.push(if fits { ' ' } else { '\n' });
            column = if fits { column + 1 } else { 0 };
        }
        out += word;
        column += width;
    }
    out.push('\n');
    out
}

#[cfg(test)]
mod tests;
