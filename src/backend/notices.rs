//! What people hear: one log line per change of state, with the reason, and the control socket's
//! events.

use std::collections::BTreeSet;

use super::reports::{lun_state, path_state};
use crate::control::Event;
use crate::engine::manager::Notice;
use crate::logging::{STATE, message_id};
use crate::multipath::groups::{GroupKey, Switch};
use crate::multipath::{News, PathState};

/// Tells the log; returns what the control socket's clients are to hear. `wwid` is the LUN's name,
/// "" until a path has told it.
pub fn tell(notice: Notice, wwid: &str) -> Option<Event> {
    if let Notice::News(News::Path { name, from, to, reason }) = &notice {
        log_path(name, *from, *to, reason, wwid);
    } else {
        log_other(&notice, wwid);
    }
    event(notice)
}

/// What clients of the control socket are told.
fn event(notice: Notice) -> Option<Event> {
    Some(match notice {
        Notice::News(News::Path { name, from, to, reason }) => {
            let (from, to) = (path_state(from), path_state(to));
            Event::PathStateChanged { name, from, to, reason }
        }
        Notice::News(News::Lun { from, to, reason }) => {
            Event::LunStateChanged { from: lun_state(from), to: lun_state(to), reason }
        }
        Notice::News(News::Resized { blocks }) => Event::LunResized { blocks },
        Notice::News(News::Groups(Switch { from, to })) => {
            Event::Failover { from: names(&from), to: names(&to), commands: 0 }
        }
        Notice::Failover { from, to, commands } => Event::Failover { from, to, commands },
        Notice::Frontend(true) => Event::FrontendConnected,
        Notice::Frontend(false) => Event::FrontendDisconnected,
        Notice::Fenced(_) => Event::ReservationChanged,
        Notice::News(News::Grown { .. } | News::Explicit(_) | News::Gone)
        | Notice::ReservationRefused(_) => return None,
    })
}

fn log_path(path: &str, from: PathState, to: PathState, reason: &str, wwid: &str) {
    let level = match to {
        PathState::Failed | PathState::WrongLun | PathState::Shaky => log::Level::Warn,
        _ => log::Level::Info,
    };
    log::log!(
        target: STATE,
        level,
        message_id = message_id::PATH_STATE, wwid, path, from:% = from, to:% = to, reason;
        "path {path}: {from} -> {to}: {reason}{}", next(to)
    );
}

fn log_other(notice: &Notice, wwid: &str) {
    match notice {
        // It has a function of its own.
        Notice::News(News::Path { .. }) => {}
        Notice::News(News::Lun { from, to, reason }) => {
            let (from, to, reason) = (lun_state(*from), lun_state(*to), reason.as_str());
            log::info!(
                target: STATE,
                message_id = message_id::LUN_STATE, wwid, from:% = from, to:% = to, reason;
                "LUN: {from} -> {to}: {reason}"
            );
        }
        Notice::News(News::Grown { name, blocks }) => log::info!(
            target: STATE,
            wwid, path = name.as_str(), blocks = *blocks;
            "path {name}: the logical unit has grown to {blocks} blocks; the guest is told when \
             all usable paths say so"
        ),
        Notice::News(News::Resized { blocks }) => log::info!(
            target: STATE,
            message_id = message_id::RESIZED, wwid, blocks = *blocks;
            "LUN: it has {blocks} blocks now, and the guest is told so"
        ),
        Notice::News(News::Groups(Switch { from, to })) => {
            let (from, to) = (names(from), names(to));
            log::info!(
                target: STATE,
                message_id = message_id::GROUPS, wwid, from = from.as_str(), to = to.as_str();
                "LUN: commands go over {to} instead of {from}"
            );
        }
        Notice::News(News::Explicit(text)) => {
            log::info!(target: STATE, wwid; "LUN: explicit_alua: {text}");
        }
        Notice::News(News::Gone) => log::warn!(
            target: STATE,
            message_id = message_id::GONE, wwid;
            "LUN: the array says over every path that there is no such logical unit: commands \
             fail until one leads to it again"
        ),
        Notice::Failover { from, to, commands } => {
            log::debug!("{commands} commands went on over {to} instead of {from}");
        }
        Notice::ReservationRefused(reason) => log::warn!(
            target: STATE,
            wwid, reason = reason.as_str();
            "LUN: the guest's PERSISTENT RESERVE OUT is refused: {reason}"
        ),
        Notice::Fenced(key) => log::warn!(
            target: STATE,
            wwid, key:% = key;
            "LUN: the guest's reservation key {key} is gone: another initiator took it, or the \
             array has lost it. The guest is not registered any more"
        ),
        Notice::Frontend(true) => log::info!(
            target: STATE,
            message_id = message_id::FRONTEND, wwid, to = "connected";
            "a front end has connected"
        ),
        Notice::Frontend(false) => log::info!(
            target: STATE,
            message_id = message_id::FRONTEND, wwid, to = "gone";
            "the front end has gone"
        ),
    }
}

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
