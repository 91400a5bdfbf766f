//! What is remembered of the guest's persistent reservations: read when the logical unit is known,
//! shown, exported, imported.
//!
//! ```text
//!   waiting --the logical unit is known--> opening --+--> kept <--> written anew
//!                                                    +--> unavailable: the file cannot be used
//! ```
//!
//! Nothing here waits for a disk: [`Keeper`]'s thread does.

mod words;

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::path::PathBuf;
use std::time::Instant;

use crate::control::{Event, OrderResult, Reply, ReplyTo, ReservationReport, StateKeeping};
use crate::engine::mailbox::{Mail, mailbox};
use crate::limits::CLAIM_RETRY;
use crate::logging::STATE;
use crate::multipath::reservation::{self as machine, Record, Standing};
use crate::state::{Claim, Done, Exported, Keeper, Kept, Owner};

/// Why nothing is remembered.
const NO_DIRECTORY: &str = "there is no state_dir (backend.state_dir, or $STATE_DIRECTORY)";
/// Why nothing could be found again.
const NO_IDENTITY: &str =
    "this backend has no identity that lasts (backend.identity, or a socket with a path)";

/// See the module's text.
#[derive(Debug)]
pub struct Reservations {
    /// The thread, and who this backend is; or why nothing is kept.
    keeping: Result<(Keeper, String), &'static str>,
    done: Mail<Done>,
    state: State,
    /// What is being written, in the order of the numbers, and for whom.
    writing: Vec<(u64, Kept, Wanted)>,
    /// What is imported when the guest comes, if no front end goes before.
    expected: Option<Kept>,
    presence: Presence,
    writes: u64,
    /// What the machine is to be told.
    told: Vec<machine::Event>,
    claim: Claiming,
}

#[derive(Debug)]
enum State {
    /// No path has told yet which logical unit it is.
    Waiting,
    /// The file is being read.
    Opening { wwid: String },
    /// It was read, and can be written.
    Kept { wwid: String, file: PathBuf, kept: Kept },
    /// It cannot be used.
    Unavailable { reason: String },
}

/// Who wants something written.
#[derive(Debug)]
enum Wanted {
    /// The machine.
    Machine,
    /// A client, who imports it.
    Client(ReplyTo),
    /// The guest, with whom it has come.
    Arrival,
}

/// What is known of the guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Presence {
    /// Its rings run.
    pub here: bool,
    /// How many front ends have gone so far.
    pub departures: u64,
}

/// Whether this backend is the host's only one on the logical unit, where that counts.
#[derive(Debug)]
enum Claiming {
    /// It does not count: no path is a device of the host.
    Needless,
    Held(#[expect(dead_code, reason = "it counts as long as it is there")] Claim),
    /// Another one is; when to try again.
    Refused {
        reason: String,
        again: Instant,
    },
}

impl Reservations {
    /// For a backend that keeps its state in `directory`, if it does, and that is called `identity`
    /// now and when it is started again, if it has such a name.
    pub fn new(directory: Option<PathBuf>, identity: Option<String>) -> io::Result<Self> {
        let (post, done) = mailbox()?;
        let keeping = match (directory, identity) {
            (None, _) => Err(NO_DIRECTORY),
            (_, None) => Err(NO_IDENTITY),
            (Some(directory), Some(identity)) => {
                Ok((Keeper::start(directory, move |done| post.send(done))?, identity))
            }
        };
        let told = if keeping.is_ok() { Vec::new() } else { vec![machine::Event::Stateless] };
        let (state, claim, writing) = (State::Waiting, Claiming::Needless, Vec::new());
        let (expected, presence) = (None, Presence::default());
        Ok(Reservations {
            keeping,
            done,
            state,
            writing,
            expected,
            presence,
            writes: 0,
            told,
            claim,
        })
    }

    /// One turn. `wwid` is the logical unit's name, as far as it is known; `on_host` says whether a
    /// path is a device of the host. Returns what clients of the control socket are to hear.
    pub fn turn(&mut self, wwid: Option<&str>, on_host: bool, now: Instant) -> Option<Event> {
        if let (State::Waiting, Some(wwid), Ok((keeper, identity))) =
            (&self.state, wwid, &self.keeping)
        {
            let wwid = wwid.to_owned();
            keeper.open(Owner { identity: identity.clone(), wwid: wwid.clone() });
            self.state = State::Opening { wwid };
        }
        let mut changed = None;
        while let Some(done) = self.done.next() {
            if self.take(done) {
                changed = Some(Event::ReservationChanged);
            }
        }
        if let (Some(wwid), true) = (wwid, self.keeping.is_ok()) {
            self.look_after_claim(wwid, on_host, now);
        }
        changed
    }

    /// Why the guest may not reserve now; `None` where it may.
    pub fn refusal(&self) -> Option<String> {
        match (&self.keeping, &self.state, &self.claim) {
            (Err(reason), _, _) => Some((*reason).to_owned()),
            (_, State::Unavailable { reason }, _) => Some(reason.clone()),
            (_, _, Claiming::Refused { reason, .. }) => Some(reason.clone()),
            (_, State::Waiting, _) => Some("no path has told the logical unit's name yet".into()),
            (_, State::Opening { .. }, _) => Some("its state is being read".to_owned()),
            (_, State::Kept { .. }, _) => None,
        }
    }

    /// What the machine is to be told since the last call.
    pub fn take_told(&mut self) -> Vec<machine::Event> {
        std::mem::take(&mut self.told)
    }

    /// Keeps what the machine wants kept; it is told when that is done.
    pub fn keep(&mut self, record: &Record) {
        match (&self.keeping, &self.state) {
            (Ok((keeper, _)), State::Kept { .. }) => {
                self.writes += 1;
                let kept = words::kept(record);
                keeper.write(self.writes, kept.clone());
                self.writing.push((self.writes, kept, Wanted::Machine));
            }
            _ => self.told.push(machine::Event::Kept(false)),
        }
    }

    /// `query-reservation`.
    pub fn report(&self, wwid: Option<String>, standing: &Standing) -> ReservationReport {
        let state_file = match &self.state {
            State::Kept { file, .. } => Some(file.clone()),
            _ => None,
        };
        let state = match (&self.keeping, &self.state) {
            (Err(_), _) => StateKeeping::None,
            (_, State::Waiting | State::Opening { .. }) => StateKeeping::Opening,
            (_, State::Kept { .. }) => StateKeeping::Kept,
            (_, State::Unavailable { .. }) => StateKeeping::Unavailable,
        };
        let reason = self.refusal().unwrap_or_default();
        words::report(wwid, (state, state_file, reason), standing)
    }

    /// `reservation-export`.
    pub fn export(&self) -> OrderResult {
        match &self.state {
            State::Kept { wwid, kept, .. } => {
                let exported = Exported::new(wwid.clone(), kept.clone());
                Ok(Reply::ReservationExported(Box::new(exported)))
            }
            _ => Err(self.refused("nothing can be exported")),
        }
    }

    /// True while a guest is to come with what it has reserved, and until that is on the medium.
    pub fn expects_guest(&self) -> bool {
        let arrives = |(.., wanted): &(u64, Kept, Wanted)| matches!(wanted, Wanted::Arrival);
        self.expected.is_some() || self.writing.iter().any(arrives)
    }

    /// Follows the guest, who is expected or not. What is to come with it is imported when its rings
    /// run, and forgotten when its front end goes before that: then it has stayed where it was.
    pub fn follow(&mut self, presence: Presence) {
        let before = std::mem::replace(&mut self.presence, presence);
        if before.departures != presence.departures && self.expected.take().is_some() {
            log::warn!(
                target: STATE,
                "LUN: a front end has gone before its guest ran: the reservations that were to come \
                 with it are forgotten"
            );
        }
        if presence.here
            && let Some(kept) = self.expected.take()
        {
            self.write(kept, Wanted::Arrival);
        }
    }

    /// `reservation-import`: the answer for `reply`, where there is one at once; else `reply` is
    /// answered when it is on the medium. A guest's own registration is not replaced: its key would be
    /// lost. Of what is to come with a guest only the last counts.
    #[must_use]
    pub fn import(
        &mut self,
        exported: Exported,
        at_arrival: bool,
        reply: ReplyTo,
    ) -> Option<(ReplyTo, OrderResult)> {
        let imported = match self.check_import(exported, at_arrival) {
            Ok(imported) => imported,
            Err(reason) => return Some((reply, Err(reason))),
        };
        self.expected = None;
        if at_arrival {
            self.expected = Some(imported);
            return Some((reply, Ok(Reply::Done)));
        }
        self.write(imported, Wanted::Client(reply));
        None
    }

    fn check_import(&self, exported: Exported, at_arrival: bool) -> Result<Kept, String> {
        let (Ok(_), State::Kept { wwid, kept, .. }, None) =
            (&self.keeping, &self.state, self.refusal())
        else {
            return Err(self.refused("nothing can be imported"));
        };
        let imported =
            exported.of(wwid).map_err(|problem| format!("what is to be imported: {problem}"))?;
        // What is being written is what it will meet.
        let standing = self.writing.last().map_or(kept, |(_, last, _)| last);
        if standing.key.is_some() && standing.key != imported.key {
            return Err(
                "the guest is registered here with another key; nothing is imported".to_owned()
            );
        }
        if at_arrival && self.presence.here {
            return Err("a guest is here already; nothing is imported".to_owned());
        }
        Ok(imported)
    }

    fn write(&mut self, kept: Kept, wanted: Wanted) {
        if let Ok((keeper, _)) = &self.keeping {
            self.writes += 1;
            keeper.write(self.writes, kept.clone());
            self.writing.push((self.writes, kept, wanted));
        }
    }

    /// Where an answer of the thread is seen.
    pub fn wait_fd(&self) -> RawFd {
        self.done.as_raw_fd()
    }

    /// When the next turn is due, if nothing happens before.
    pub fn next_timer(&self) -> Option<Instant> {
        match &self.claim {
            Claiming::Refused { again, .. } => Some(*again),
            _ => None,
        }
    }

    fn refused(&self, what: &str) -> String {
        format!("{what}: {}", self.refusal().unwrap_or_default())
    }

    /// True where what [`Reservations::report`] tells has changed.
    fn take(&mut self, done: Done) -> bool {
        match done {
            Done::Opened(opened) => {
                let State::Opening { wwid } = &self.state else { return false };
                self.state = match opened {
                    Ok((file, kept)) => {
                        self.told.push(machine::Event::Restored(kept.as_ref().map(words::record)));
                        let (wwid, kept) = (wwid.clone(), kept.unwrap_or_default());
                        State::Kept { wwid, file, kept }
                    }
                    Err(error) => {
                        self.told.push(machine::Event::Stateless);
                        let reason = error.to_string();
                        log::error!(target: STATE, "LUN: reservations are refused: {reason}");
                        State::Unavailable { reason }
                    }
                };
                true
            }
            Done::Written(number, written) => {
                let at = self.writing.iter().position(|(waits, ..)| *waits == number);
                let Some((_, what, wanted)) = at.map(|at| self.writing.remove(at)) else {
                    return false;
                };
                let done = written.is_ok();
                match wanted {
                    Wanted::Client(reply) => {
                        if done {
                            self.told.push(machine::Event::Imported(words::record(&what)));
                        }
                        let answer = written.map(|()| Reply::Done);
                        reply.answer(answer.map_err(|error| error.to_string()));
                    }
                    Wanted::Arrival => {
                        if let Err(error) = written {
                            log::error!(
                                target: STATE,
                                "LUN: what the guest has reserved is taken over, and forgotten at \
                                 the next start: {error}"
                            );
                        }
                        self.told.push(machine::Event::Imported(words::record(&what)));
                    }
                    Wanted::Machine => {
                        if let Err(error) = written {
                            log::error!(
                                target: STATE,
                                "LUN: the guest's reservation command fails: {error}"
                            );
                        }
                        self.told.push(machine::Event::Kept(done));
                    }
                }
                if let (true, State::Kept { kept, .. }) = (done, &mut self.state) {
                    *kept = what;
                }
                done
            }
        }
    }

    fn look_after_claim(&mut self, wwid: &str, on_host: bool, now: Instant) {
        match &self.claim {
            _ if !on_host => self.claim = Claiming::Needless,
            Claiming::Held(_) => {}
            Claiming::Refused { again, .. } if now < *again => {}
            _ => {
                let first = !matches!(self.claim, Claiming::Refused { .. });
                self.claim = match Claim::take(wwid) {
                    Ok(claim) => Claiming::Held(claim),
                    Err(error) => {
                        let reason = error.to_string();
                        if first {
                            log::warn!(target: STATE, "LUN: reservations are refused: {reason}");
                        }
                        Claiming::Refused { reason, again: now + CLAIM_RETRY }
                    }
                };
            }
        }
    }
}

#[cfg(test)]
mod tests;
