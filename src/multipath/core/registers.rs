//! Paths that are registered before they are used: a guest that is registered with the array is so
//! over each of its paths. Who registers them is [`crate::multipath::reservation`]; here a path that
//! could be used waits for its word.

use std::time::Instant;

use super::Core;
use super::events::Action;
use crate::ids::PathId;
use crate::multipath::state::PathState;

impl Core {
    /// The path has answered everything: it is used, or asks whether it may be.
    pub(super) fn may_be_used(&mut self, id: PathId, good: &'static str, now: Instant) {
        let Some(path) = self.paths.get_mut(&id) else { return };
        if !self.registers {
            let (state, why) = self.welcome(id, good, now);
            return self.change(id, state, &why, now);
        }
        if path.applies.replace(good).is_none() {
            self.actions.push(Action::Admission(id));
        }
    }

    /// A reservation command may be sent over the path: not where it would only wait, nor where
    /// another logical unit would answer. One that is being removed still speaks for itself.
    pub fn may_be_spoken_over(&self, id: PathId) -> bool {
        self.paths.get(&id).is_some_and(|path| {
            let state = path.state;
            !path.held_back
                && (state.is_usable()
                    || matches!(
                        state,
                        PathState::Registering | PathState::Checking | PathState::Draining
                    ))
        })
    }

    pub(super) fn admitted(&mut self, id: PathId, now: Instant) {
        let Some(good) = self.paths.get_mut(&id).and_then(|path| path.applies.take()) else {
            return;
        };
        let (state, why) = self.welcome(id, good, now);
        self.change(id, state, &why, now);
    }

    pub(super) fn registering(&mut self, id: PathId, now: Instant) {
        if self.paths.get(&id).is_some_and(|path| path.applies.is_some()) {
            self.change(id, PathState::Registering, "the guest's reservation key", now);
        }
    }

    /// A path in use is asked everything again; one that waited has failed.
    pub(super) fn expelled(&mut self, id: PathId, now: Instant) {
        let Some(path) = self.paths.get(&id) else { return };
        if path.applies.is_some() {
            self.fail(id, "the guest's reservation key could not be registered", now);
        } else {
            self.doubt(id, "the guest's reservation key has to be registered again", now);
        }
    }

    /// The path has changed its state, from `from`.
    pub(super) fn leaves_use(&mut self, id: PathId, from: PathState) {
        let Some(path) = self.paths.get_mut(&id).filter(|_| self.registers) else { return };
        if path.state == PathState::Draining {
            path.applies = None;
            return self.actions.push(Action::Leaving(id));
        }
        let goes_on = path.state.is_usable() || path.state == PathState::Registering;
        if !goes_on && (path.applies.take().is_some() || from.is_usable()) {
            self.actions.push(Action::Out(id));
        }
    }
}
