//! What people hear: one log line per change of state, and the control socket's events.

use std::collections::BTreeSet;

use super::reports::{lun_state, path_state};
use crate::control::Event;
use crate::engine::manager::Notice;
use crate::multipath::groups::{GroupKey, Switch};
use crate::multipath::{News, PathState};

/// Tells the log; returns what the control socket's clients are to hear.
pub fn tell(notice: Notice) -> Option<Event> {
    Some(match notice {
        Notice::News(News::Path { name, from, to, reason }) => {
            let level = match to {
                PathState::Failed | PathState::WrongLun | PathState::Shaky => log::Level::Warn,
                _ => log::Level::Info,
            };
            log::log!(target: STATE, level, "path {name}: {from} -> {to}: {reason}{}", next(to));
            let (from, to) = (path_state(from), path_state(to));
            Event::PathStateChanged { name, from, to, reason }
        }
        Notice::News(News::Lun { from, to }) => {
            let (from, to) = (lun_state(from), lun_state(to));
            log::info!(target: STATE, "LUN: {from} -> {to}");
            Event::LunStateChanged { from, to }
        }
        Notice::News(News::Grown { name, blocks }) => {
            log::info!(
                target: STATE,
                "path {name}: the logical unit has grown to {blocks} blocks; the guest is told \
                 when all usable paths say so"
            );
            return None;
        }
        Notice::News(News::Resized { blocks }) => {
            log::info!(target: STATE, "LUN: it has {blocks} blocks now, and the guest is told so");
            Event::LunResized { blocks }
        }
        Notice::News(News::Groups(Switch { from, to })) => {
            let (from, to) = (names(&from), names(&to));
            log::info!(target: STATE, "LUN: commands go over {to} instead of {from}");
            Event::Failover { from, to, commands: 0 }
        }
        Notice::News(News::Explicit(text)) => {
            log::info!(target: STATE, "LUN: explicit_alua: {text}");
            return None;
        }
        Notice::News(News::Gone) => {
            log::warn!(
                target: STATE,
                "LUN: the array says over every path that there is no such logical unit: commands \
                 fail until one leads to it again"
            );
            return None;
        }
        Notice::Failover { from, to, commands } => {
            log::debug!("{commands} commands went on over {to} instead of {from}");
            Event::Failover { from, to, commands }
        }
        Notice::Frontend(true) => {
            log::info!("a front end has connected");
            Event::FrontendConnected
        }
        Notice::Frontend(false) => {
            log::info!("the front end has gone");
            Event::FrontendDisconnected
        }
    })
}

/// The log target of state changes: shown even where `RUST_LOG` is not set.
pub const STATE: &str = "state";

/// Groups in words.
fn names(groups: &BTreeSet<GroupKey>) -> String {
    groups.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ")
}

/// What happens next, for those who read the line at night.
fn next(state: PathState) -> &'static str {
    match state {
        PathState::Failed => "; it is asked again and comes back by itself when it answers",
        PathState::WrongLun => "; nothing is sent over it",
        PathState::Shaky => "; used only where no other path is up",
        PathState::Disabled => "; until it is reinstated",
        PathState::Draining => "; its last commands may end",
        _ => "",
    }
}
