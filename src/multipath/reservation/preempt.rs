//! PREEMPT, PREEMPT AND ABORT and CLEAR of the guest: what they leave of our own registrations.

use super::attempt::{Before, Outcome};
use super::events::{Action, Answer};
use super::orders::copies;
use super::record::{Holding, Registration};
use super::script::{Script, Step};
use crate::ids::PathId;
use crate::scsi::reservation::{Key, Out, OutAction, Parameters};

impl Script<'_> {
    pub(super) fn order_preempt(&mut self, out: &Out, given: &Parameters) -> Step<Answer> {
        let victim = given.action_key;
        let clears = out.action == OutAction::Clear;
        let own = self.state.record.key;
        let outcome = self.attempt(out, given, |before, keys, now| {
            let all = before.reservation.held.is_some_and(|held| held.is_all_registrants());
            let there = copies(&before.keys, victim) > 0 || (victim.is_none() && all);
            if own != Some(given.key) || !(clears || there) {
                // It could only be refused.
                return false;
            }
            let takes = before.reservation.held.is_some_and(|held| held.key == victim);
            let gone = match (clears, victim) {
                (true, _) => own.is_none_or(|own| copies(keys, own) == 0),
                // The reservation goes to who sent it, and its key stays.
                (false, victim) if takes => {
                    let others = Some(victim) == own || copies(keys, victim) == 0;
                    others && now.held.is_some_and(|held| held.kind() == out.kind())
                }
                (false, victim) => copies(keys, victim) == 0,
            };
            // Who is shut out has shut nobody out after that.
            let stands = clears || Some(victim) == own || copies(keys, given.key) > 0;
            gone && stands && keys.generation != before.keys.generation
        })?;
        let (path, before) = match outcome {
            Outcome::Done(path, before) => (path, before),
            Outcome::Answer(answer) => return Ok(answer),
            Outcome::Unknown(_) => return Ok(self.lost_from_sight()),
        };
        if clears {
            self.forget(Registration::None);
        } else {
            let loses = self.foresee(path, out, victim, &before);
            self.take_stock(path, out, victim, loses)?;
        }
        self.visible = 1;
        Ok(Answer::Good(Vec::new()))
    }

    /// What a PREEMPT of `victim` over `path` has made of what stood before: nobody may be left who
    /// could be asked. True where it has taken registrations of our other paths.
    fn foresee(&mut self, path: PathId, out: &Out, victim: Key, before: &Before) -> bool {
        let held = before.reservation.held;
        // It was executed: so all registrants held what stood then.
        let all = victim.is_none();
        let takes = all || held.is_some_and(|held| !victim.is_none() && held.key == victim);
        let loses = all || Some(victim) == self.state.record.key;
        if loses {
            self.doubt_siblings(path);
        }
        if let (true, Some(kind)) = (takes, out.kind()) {
            let holder = self.name(path).filter(|_| !kind.is_all_registrants());
            self.state.record.reservation = Some(Holding { kind, holder });
        }
        loses
    }

    /// After a PREEMPT of `victim` over `path`: what is left of ours?
    fn take_stock(&mut self, path: PathId, out: &Out, victim: Key, loses: bool) -> Step<()> {
        let Some(key) = self.state.record.key else { return Ok(()) };
        let Some(keys) = self.keys()? else {
            self.state.unverified = true;
            return Ok(());
        };
        let left = copies(&keys, key);
        if left == 0 {
            self.lose_key(key, Registration::None);
            if victim != key {
                self.act(Action::Fenced(key));
            }
            return Ok(());
        }
        if loses {
            self.hold();
            self.restore_siblings(path, key)?;
            self.resume();
        }
        let Some(now) = self.reservation()? else { return Ok(()) };
        self.state.record.reservation = now.held.and_then(|held| {
            let all = held.is_all_registrants();
            let holder = self.name(path).filter(|_| !all);
            // Where the array tells of no type that exists, it was this one that was asked for.
            let kind = held.kind().or(out.kind()).filter(|_| all || held.key == key)?;
            Some(Holding { kind, holder })
        });
        self.keep_holder_alive()
    }
}
