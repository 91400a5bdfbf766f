//! A command of the guest's over one path after the other, until it is known what became of it.
//!
//! Where a path dies and nobody knows whether the command was executed, another path is asked what
//! stands; the command is sent again only where that says that it was not executed.

use super::events::{Answer, Command, End};
use super::orders::MOVES_MAX;
use super::script::{Script, Step, counts};
use crate::ids::PathId;
use crate::scsi::reservation::{Keys, Out, Parameters, Reservation};
use crate::scsi::{Asc, SenseKey};

/// What stood before a command, to see whether it was executed.
pub(super) struct Before {
    pub keys: Keys,
    pub reservation: Reservation,
}

/// How the guest's own command ended.
pub(super) enum Outcome {
    /// It was executed, over this path; and that stood before.
    Done(PathId, Before),
    /// The guest is told this, and nothing has changed.
    Answer(Answer),
    /// It was lost with this path, and nobody is left to be asked: it must not be sent again.
    Unknown(PathId),
}

impl Script<'_> {
    pub(super) fn before(&mut self) -> Step<Option<Before>> {
        let Some(keys) = self.keys()? else { return Ok(None) };
        let Some(reservation) = self.reservation()? else { return Ok(None) };
        Ok(Some(Before { keys, reservation }))
    }

    /// The paths that answer, in the order in which the guest's command tries them.
    fn in_order(&self) -> Vec<PathId> {
        let mut paths = self.up();
        if let Some(holder) = self.holder() {
            paths.retain(|path| *path != holder);
            paths.insert(0, holder);
        }
        paths
    }

    /// Sends the guest's command over one path after the other until it is known what became of it.
    pub(super) fn attempt(
        &mut self,
        out: &Out,
        given: &Parameters,
        executed: impl Fn(&Before, &Keys, &Reservation) -> bool,
    ) -> Step<Outcome> {
        for _ in 0..MOVES_MAX {
            self.keep_holder_alive()?;
            let Some(before) = self.before()? else { break };
            // Whatever was begun before must be over before the guest's next registration.
            self.heed_fence(&before.keys);
            let Some(path) = self.in_order().first().copied() else { break };
            if self.holder_is_dead() {
                continue;
            }
            match self.send(path, Command::Out(*out, given.clone()))? {
                End::Good(_) => return Ok(Outcome::Done(path, before)),
                End::Conflict => return Ok(Outcome::Answer(Answer::Conflict)),
                End::Refused(key, code) => return Ok(Outcome::Answer(Answer::Check(key, code))),
                End::Busy => break,
                End::Attention(_) | End::NotExecuted => {}
                End::Lost => {
                    if !out.action.registers() {
                        self.doubt_siblings(path);
                    }
                    let Some(keys) = self.keys()? else { return Ok(Outcome::Unknown(path)) };
                    let Some(reservation) = self.reservation()? else {
                        return Ok(Outcome::Unknown(path));
                    };
                    if executed(&before, &keys, &reservation) {
                        self.counted += u32::from(counts(&Command::Out(*out, given.clone())));
                        return Ok(Outcome::Done(path, before));
                    }
                }
            }
        }
        Ok(Outcome::Answer(Answer::Busy))
    }

    /// The guest's command may have been executed, and no path is there to ask: the guest must look,
    /// and what stands is read when a path is back.
    pub(super) fn lost_from_sight(&mut self) -> Answer {
        self.state.unverified = true;
        Answer::Check(SenseKey::AbortedCommand, Asc::NONE)
    }
}
