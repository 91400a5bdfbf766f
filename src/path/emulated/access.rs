//! Target port groups: the ports that share an asymmetric access state, and what changes it. The
//! array itself does (a fault, a person), for a while or for good, or an initiator by SET TARGET
//! PORT GROUPS.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::{Duration, Instant};

use super::array::Array;
use super::attention::Attention;
use super::execute::Call;
use super::lock;
use super::reply::{Done, Refusal, Reply};
use crate::scsi::alua::AccessState;
use crate::scsi::{Asc, SenseKey};

/// STATUS CODE of REPORT TARGET PORT GROUPS: changed by SET TARGET PORT GROUPS.
const EXPLICITLY: u8 = 1;
/// The same: changed by the array itself.
const IMPLICITLY: u8 = 2;

/// A target port group.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) number: u16,
    pub(super) configured: AccessState,
    state: AtomicU8,
    status_code: AtomicU8,
    /// The state is for a while: looked at on the way of every command.
    passing: AtomicBool,
    passes: Mutex<Option<Passing>>,
}

/// A state for a while.
#[derive(Clone, Copy, Debug)]
struct Passing {
    /// The state after it.
    then: AccessState,
    /// Until when; `None` until somebody ends it.
    until: Option<Instant>,
}

impl Group {
    pub(super) fn new(number: u16, state: AccessState) -> Self {
        Group {
            number,
            configured: state,
            state: AtomicU8::new(state.code()),
            status_code: AtomicU8::new(0),
            passing: AtomicBool::new(false),
            passes: Mutex::default(),
        }
    }

    /// The state now.
    pub(super) fn state(&self) -> AccessState {
        AccessState::from_low_nibble(self.state.load(Ordering::Relaxed))
    }

    /// STATUS CODE of REPORT TARGET PORT GROUPS.
    pub(super) fn status_code(&self) -> u8 {
        self.status_code.load(Ordering::Relaxed)
    }

    /// Goes over to `state`; true when that is another one.
    fn enter(&self, state: AccessState, status_code: u8) -> bool {
        let changed = self.state.swap(state.code(), Ordering::Relaxed) != state.code();
        if changed {
            self.status_code.store(status_code, Ordering::Relaxed);
        }
        changed
    }
}

impl Array {
    /// Changes the access state of a group as an array does on its own (implicit ALUA), and tells
    /// every nexus (SPC-5 5.18.2.6).
    pub(super) fn set_group_state(&self, group: &Group, state: AccessState) {
        if group.enter(state, IMPLICITLY) {
            self.post(Attention::StateChanged, None);
        }
    }

    /// The group is in `state` for a while, or until [`Array::end_passing`].
    pub(super) fn pass_through(&self, group: &Group, state: AccessState, time: Option<Duration>) {
        let mut passes = lock(&group.passes);
        let then = passes.map_or_else(|| group.state(), |passing| passing.then);
        *passes = Some(Passing { then, until: time.map(|time| Instant::now() + time) });
        group.passing.store(true, Ordering::Release);
        self.set_group_state(group, state);
    }

    /// The group goes back to the state that it had before.
    pub(super) fn end_passing(&self, group: &Group) {
        if let Some(passing) = lock(&group.passes).take() {
            group.passing.store(false, Ordering::Release);
            self.set_group_state(group, passing.then);
        }
    }

    /// Ends a state whose while is over. Called before anything asks for a group's state.
    pub(super) fn settle_group(&self, group: &Group) {
        if !group.passing.load(Ordering::Acquire) {
            return;
        }
        let until = lock(&group.passes).and_then(|passing| passing.until);
        if until.is_some_and(|until| until <= Instant::now()) {
            self.end_passing(group);
        }
    }
}

/// SET TARGET PORT GROUPS (SPC-5 6.45). Groups that are optimized and not named become
/// non-optimized when another one becomes optimized: a unit belongs to one controller.
pub(super) fn set_target_port_groups(call: &Call<'_>) -> Reply {
    let length = call.cdb.be32(6) as usize;
    let list = call.data_out.to_vec();
    if length == 0 {
        return Ok(Done::good(0));
    }
    if length < 4 || !length.is_multiple_of(4) || list.len() < length {
        return Err(Refusal::illegal(Asc::PARAMETER_LIST_LENGTH_ERROR));
    }
    let groups = call.array().groups();
    let mut wanted = Vec::new();
    for descriptor in list[4..length].chunks_exact(4) {
        let number = u16::from_be_bytes([descriptor[2], descriptor[3]]);
        let state = AccessState::from_low_nibble(descriptor[0]);
        let settable = matches!(
            state,
            AccessState::ActiveOptimized
                | AccessState::ActiveNonOptimized
                | AccessState::Standby
                | AccessState::Unavailable
        );
        match groups.iter().find(|group| group.number == number) {
            Some(group) if settable => wanted.push((group, state)),
            _ => return Err(Refusal::illegal(Asc::INVALID_FIELD_IN_PARAMETER_LIST)),
        }
    }
    if groups.iter().any(|group| group.state() == AccessState::Transitioning) {
        // SET TARGET PORT GROUPS COMMAND FAILED.
        let (key, asc) = (SenseKey::HardwareError, Asc(0x67, 0x0A));
        return Err(Refusal::Check(key, asc, super::reply::Detail::None));
    }
    let optimizes = wanted.iter().any(|(_, state)| *state == AccessState::ActiveOptimized);
    let mut changed = false;
    for group in &groups {
        let named = wanted.iter().find(|(named, _)| named.number == group.number);
        let displaced = optimizes && group.state() == AccessState::ActiveOptimized;
        let state = match named {
            Some((_, state)) => *state,
            None if displaced => AccessState::ActiveNonOptimized,
            None => continue,
        };
        changed |= group.enter(state, EXPLICITLY);
    }
    if changed {
        // Who asked for it knows (SPC-5 5.18.2.6).
        call.array().post(Attention::StateChanged, Some(call.port.nexus));
    }
    Ok(Done::good(0))
}
