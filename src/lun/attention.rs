//! Unit attentions: an array has one for each nexus, the guest has one nexus.
//!
//! An event of the logical unit comes once over each path; the guest must hear of it once. What a
//! path brings may reach the broker late, after what another path brings of the next event, so no
//! order and no time says which belong together. But a nexus tells of one event once at most
//! (SAM-5 5.14): a path that has brought a code n times knows of n events. The broker counts, for
//! each code and path, and the guest hears of the next event when a path has brought more than it
//! was told: it never hears of more than there were.
//!
//! A path that was down when an event came has lost its copy, and would stay behind: its next event
//! would be taken for that copy, and be lost where no other path brings it. So where a path cannot
//! have a copy of the guest's last event any more, because it has answered a question with GOOD
//! since, or is new, or its nexus is, what is sent over it from then on and meets a unit attention
//! has met a newer event. What was sent before may still bring an old copy, and goes on being
//! counted as before. The next probe clears a path at the latest, and one that was out of use is
//! probed before it is used.
//!
//! A lost link says nothing: the host's own initiator may keep the nexus through it, and the
//! array its copies.
//!
//! Some of the guest's own commands make an event for every nexus but the one that carried them
//! (MODE SELECT: SPC-4 6.11), and the guest has one nexus: it must not hear of its own doing over
//! the other paths. Such a command is counted before it is sent, as an event that the guest was told
//! of and that its path has brought. It counts no longer when it was not executed, or nobody knows:
//! then the guest has not heard that it was, and a copy may be of somebody else's event. While it is
//! under way no GOOD says that a path has no copy.
//!
//! What is left: a path loses a copy in silence, brings the next event before its next probe, and no
//! other path ever brings that one. Nobody can tell that from a late copy. And an array that keeps
//! its unit attentions for the next nexus of the same initiator, against SAM-5 5.14, tells again of
//! an event that the guest has heard of.
//!
//! | unit attention | the guest |
//! |---|---|
//! | 29h/any: power on, reset, I_T nexus loss | hears of resets that it asked for, never of ours: the paths' logins and losses are not its nexus's. The path tells again who it is before it is used |
//! | 2Ah/01h mode parameters changed, and every code without a row here | hears of it, once |
//! | 2Ah/06h, 2Ah/07h asymmetric access | never: it sees one port without asymmetric access |
//! | 2Ah/09h capacity data has changed | hears of it, once, when all usable paths tell the new size |
//! | 3Fh/03h INQUIRY data, 3Fh/05h device identifier | never: what it sees of the LUN stays. The path tells again who it is |
//! | 3Fh/0Eh reported LUNs | not the paths' own; hears of one when a LUN that was gone is back |

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use crate::ids::PathId;
use crate::scsi::Asc;

/// Codes remembered at most. Arrays have a handful; the oldest makes room.
const CODES_MAX: usize = 16;

/// The events that a path is known to know of, by what was sent over it since some time.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    /// `None` for all that was ever sent.
    since: Option<Since>,
    events: u64,
}

/// From when on what is sent over a path meets none of the events that came before.
#[derive(Clone, Copy, Debug)]
struct Since {
    /// Of the lanes' commands: later than the turn in which that was found, which began before.
    commands: Instant,
    /// Of the probe's questions: it asks one after the other, so what an earlier one has found
    /// happened before the next one was asked.
    questions: Instant,
}

/// Two counts of one path: when a new one begins, an old one goes on for what was sent before.
type Counts = [Count; 2];

fn most(counts: &Counts) -> Count {
    if counts[1].events > counts[0].events { counts[1] } else { counts[0] }
}

/// Events of one code.
#[derive(Debug)]
struct Events {
    code: Asc,
    /// So many the guest was told of.
    told: u64,
    /// When the last of them came, at the latest.
    last: Instant,
    paths: BTreeMap<PathId, Counts>,
    /// Commands of the guest's own under way that may make one.
    making: u32,
    /// What was found meanwhile, of each path the latest.
    found: BTreeMap<PathId, (Instant, Since)>,
}

impl Events {
    fn new(code: Asc, now: Instant) -> Self {
        let (paths, found) = (BTreeMap::new(), BTreeMap::new());
        Events { code, told: 0, last: now, paths, making: 0, found }
    }

    /// What is sent over `path` from `since` on meets none of the events from before `asked`.
    fn find(&mut self, path: PathId, asked: Instant, since: Since) {
        if self.making > 0 {
            let latest = self.found.entry(path).or_insert((asked, since));
            if latest.0 < asked {
                *latest = (asked, since);
            }
        } else if self.last < asked {
            self.catch_up(path, since);
        }
    }

    fn catch_up(&mut self, path: PathId, since: Since) {
        let counts = self.paths.entry(path).or_default();
        if most(counts).events < self.told {
            *counts = [most(counts), Count { since: Some(since), events: self.told }];
        }
    }
}

/// What became of a command of the guest's own that makes an event when it is executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Made {
    /// It was not executed, or nobody knows.
    Nothing,
    /// It was, by this time.
    Event(Instant),
}

/// A path has nothing left of the events that came before `asked`.
#[derive(Clone, Copy, Debug)]
struct Clear {
    path: PathId,
    asked: Instant,
    /// The time of the turn in which that was found, which began before.
    found: Instant,
    /// From when on its questions come after that; `None` for later turns.
    questions: Option<Instant>,
}

/// Folds the paths' unit attentions into the guest's.
#[derive(Debug, Default)]
pub struct Broker {
    codes: VecDeque<Events>,
    clear: Vec<Clear>,
}

impl Broker {
    /// `path` brought `code` for a lane's command that was sent at `sent` or later. True when this
    /// is news for the guest, false where it may be one more copy of what it has been told.
    pub fn arrived(&mut self, path: PathId, code: Asc, sent: Instant, now: Instant) -> bool {
        self.count(path, code, now, |since| sent >= since.commands)
    }

    /// As [`Broker::arrived`], for a question of the path's probe, asked at `asked`.
    pub fn asked(&mut self, path: PathId, code: Asc, asked: Instant, now: Instant) -> bool {
        self.count(path, code, now, |since| asked >= since.questions)
    }

    fn count(
        &mut self,
        path: PathId,
        code: Asc,
        now: Instant,
        is_after: impl Fn(Since) -> bool,
    ) -> bool {
        let events = self.events(code, now);
        let counts = events.paths.entry(path).or_default();
        let counting = |count: &&mut Count| count.since.is_none_or(&is_after);
        counts.iter_mut().filter(counting).for_each(|count| count.events += 1);
        if most(counts).events <= events.told {
            return false;
        }
        (events.told, events.last) = (most(counts).events, events.last.max(now));
        true
    }

    fn events(&mut self, code: Asc, now: Instant) -> &mut Events {
        let known = self.codes.iter().position(|events| events.code == code);
        let at = known.unwrap_or_else(|| {
            if self.codes.len() == CODES_MAX {
                self.codes.pop_front();
            }
            self.codes.push_back(Events::new(code, now));
            self.codes.len() - 1
        });
        &mut self.codes[at]
    }

    /// A command of the guest's own that makes an event of `code` is about to be sent over `path`.
    pub fn making(&mut self, path: PathId, code: Asc, now: Instant) {
        let events = self.events(code, now);
        events.making += 1;
        events.told += 1;
        let counts = events.paths.entry(path).or_default();
        counts.iter_mut().for_each(|count| count.events += 1);
    }

    /// That command has ended. True when what other paths have brought meanwhile was not its doing,
    /// and is news for the guest.
    pub fn made(&mut self, path: PathId, code: Asc, made: Made, now: Instant) -> bool {
        let events = self.codes.iter_mut().find(|events| events.code == code);
        let Some(events) = events.filter(|events| events.making > 0) else { return false };
        events.making -= 1;
        match made {
            Made::Nothing => {
                events.told -= 1;
                let counts = events.paths.entry(path).or_default();
                counts.iter_mut().for_each(|count| count.events = count.events.saturating_sub(1));
            }
            Made::Event(last) => events.last = events.last.max(last),
        }
        let known = events.paths.values().map(|counts| most(counts).events).max();
        let is_news = known.is_some_and(|known| known > events.told);
        if is_news {
            (events.told, events.last) = (events.told + 1, events.last.max(now));
        }
        if events.making == 0 {
            for (path, (asked, since)) in std::mem::take(&mut events.found) {
                events.find(path, asked, since);
            }
        }
        is_news
    }

    /// `path` has nothing left of what came before `asked`: a question of that time was answered
    /// with GOOD where a unit attention would have been told.
    pub fn clear(&mut self, path: PathId, asked: Instant, now: Instant) {
        self.clear.push(Clear { path, asked, found: now, questions: Some(now) });
    }

    /// `path` is new. What its nexus had before, where that is older, its first question brings.
    pub fn added(&mut self, path: PathId, now: Instant) {
        self.clear.push(Clear { path, asked: now, found: now, questions: None });
    }

    /// The time is `now`: what was found in an earlier turn happened before.
    pub fn advance(&mut self, now: Instant) {
        while let Some(at) = self.clear.iter().position(|clear| clear.found < now) {
            let Clear { path, asked, questions, .. } = self.clear.swap_remove(at);
            let since = Since { commands: now, questions: questions.unwrap_or(now) };
            self.codes.iter_mut().for_each(|events| events.find(path, asked, since));
        }
    }

    /// The nexus of `path` is a new one, and began at `begun` or later: it has no copy of what the
    /// guest was told of before, and nothing that was sent before goes over it.
    pub fn renewed(&mut self, path: PathId, begun: Instant) {
        let since = Since { commands: begun, questions: begun };
        self.codes.iter_mut().for_each(|events| events.find(path, begun, since));
    }

    /// `path` is gone, and its place in the table may be another path's one day. A path that only
    /// failed stays: it has brought its copy, and what it brings when it is back is a new event.
    pub fn removed(&mut self, path: PathId) {
        self.clear.retain(|clear| clear.path != path);
        for events in &mut self.codes {
            events.paths.remove(&path);
            events.found.remove(&path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const EVENT: Asc = Asc::MODE_PARAMETERS_CHANGED;

    /// A broker and its clock, which goes on by a second with each step.
    struct Desk {
        broker: Broker,
        start: Instant,
        now: Instant,
    }

    impl Desk {
        fn new() -> Self {
            let now = Instant::now();
            Desk { broker: Broker::default(), start: now, now }
        }

        fn step(&mut self) -> Instant {
            self.now += Duration::from_secs(1);
            self.broker.advance(self.now);
            self.now
        }

        fn at(&self, second: u64) -> Instant {
            self.start + Duration::from_secs(second)
        }

        /// A command that was sent just now brings the event.
        fn brings(&mut self, path: u16) -> bool {
            let now = self.step();
            self.broker.arrived(PathId(path), EVENT, now, now)
        }

        /// As [`Desk::brings`], for one that was sent at `second`.
        fn brings_late(&mut self, path: u16, second: u64) -> bool {
            let (now, sent) = (self.step(), self.at(second));
            self.broker.arrived(PathId(path), EVENT, sent, now)
        }

        /// A question is asked and answered with GOOD; returns the second in which it was asked.
        fn is_clear(&mut self, path: u16) -> u64 {
            let asked = self.step();
            let now = self.step();
            self.broker.clear(PathId(path), asked, now);
            asked.duration_since(self.start).as_secs()
        }
    }

    #[test]
    fn arrived_passes_one_event_once() {
        let mut desk = Desk::new();
        assert_eq!([0, 1, 200].map(|path| desk.brings(path)), [true, false, false]);
    }

    #[test]
    fn arrived_passes_the_next_event_of_the_same_code() {
        let mut desk = Desk::new();
        assert_eq!([0, 1, 1, 0].map(|path| desk.brings(path)), [true, false, true, false]);
    }

    #[test]
    fn arrived_passes_two_events_twice_when_all_that_one_path_brings_is_late() {
        let mut desk = Desk::new();
        assert_eq!([0, 0, 1, 1].map(|path| desk.brings(path)), [true, true, false, false]);
        assert_eq!([1, 0].map(|path| desk.brings(path)), [true, false]);
    }

    #[test]
    fn arrived_passes_an_event_of_a_path_that_has_lost_the_one_before() {
        let mut desk = Desk::new();
        assert!(desk.brings(0));
        desk.is_clear(1);
        assert!(desk.brings(1), "the copy of the first event is gone");
        assert!(!desk.brings(0));
        assert!(desk.brings(0) && !desk.brings(1));
    }

    #[test]
    fn arrived_takes_what_was_sent_before_a_clear_answer_for_a_copy() {
        let mut desk = Desk::new();
        assert!(desk.brings(0));
        let asked = desk.is_clear(1);
        assert!(!desk.brings_late(1, asked), "nobody knows which came first");
        assert!(desk.brings(1));
        assert!(!desk.brings(0));
    }

    #[test]
    fn arrived_counts_what_was_sent_before_a_clear_answer_with_what_came_before() {
        let mut desk = Desk::new();
        assert!(desk.brings(0));
        let asked = desk.is_clear(1);
        assert!(!desk.brings_late(1, asked), "the copy");
        assert!(desk.brings_late(1, asked), "another event");
    }

    #[test]
    fn asked_in_the_turn_of_a_clear_answer_brings_news() {
        let mut desk = Desk::new();
        assert!(desk.brings(0));
        let (asked, found) = (desk.step(), desk.step());
        desk.broker.clear(PathId(1), asked, found);
        let now = desk.step();
        assert!(desk.broker.asked(PathId(1), EVENT, found, now), "the next question");
        assert!(!desk.brings(0), "its copy");
        assert!(desk.brings(0) && !desk.brings(1));
    }

    #[test]
    fn first_question_to_a_new_path_brings_what_is_older() {
        let mut desk = Desk::new();
        assert!(desk.brings(0));
        let added = desk.step();
        desk.broker.added(PathId(1), added);
        let now = desk.step();
        assert!(!desk.broker.asked(PathId(1), EVENT, added, now), "a copy that it had before");
        assert!(desk.brings(1), "the next event");
    }

    #[test]
    fn clear_answer_to_an_older_question_says_nothing_of_an_event() {
        let mut desk = Desk::new();
        let asked = desk.step();
        assert!(desk.brings(0));
        let now = desk.step();
        desk.broker.clear(PathId(1), asked, now);
        assert!(!desk.brings(1));
    }

    #[test]
    fn clear_answer_is_older_than_the_turn_in_which_it_was_found() {
        let mut desk = Desk::new();
        assert!(desk.brings(0));
        let (asked, now) = (desk.step(), desk.step());
        desk.broker.clear(PathId(1), asked, now);
        desk.broker.advance(now);
        assert!(!desk.broker.arrived(PathId(1), EVENT, now, now), "it may have been sent before");
    }

    #[test]
    fn new_nexus_brings_what_came_since_it_began() {
        let mut desk = Desk::new();
        assert!(desk.brings(0));
        let begun = desk.step();
        desk.step();
        desk.broker.renewed(PathId(1), begun);
        assert!(!desk.brings_late(1, 1), "a copy that came over the nexus before");
        assert!(desk.brings_late(1, 2), "the first that the new one brings");
        assert!(!desk.brings(0), "its copy");
    }

    #[test]
    fn new_nexus_that_is_older_than_an_event_may_bring_its_copy() {
        let mut desk = Desk::new();
        let begun = desk.step();
        assert!(desk.brings(0));
        desk.broker.renewed(PathId(1), begun);
        assert!(!desk.brings(1));
    }

    #[test]
    fn guests_own_command_is_no_news_over_the_other_paths() {
        let mut desk = Desk::new();
        let now = desk.step();
        desk.broker.making(PathId(0), EVENT, now);
        assert!(!desk.brings(1), "before the command has ended");
        let ended = desk.step();
        assert!(!desk.broker.made(PathId(0), EVENT, Made::Event(ended), ended));
        assert!(!desk.brings(2));
        assert_eq!([0, 1, 2].map(|path| desk.brings(path)), [true, false, false], "another's");
    }

    #[test]
    fn guests_own_command_that_was_not_executed_has_made_nothing() {
        let mut desk = Desk::new();
        let now = desk.step();
        desk.broker.making(PathId(0), EVENT, now);
        assert!(!desk.brings(1), "who knows");
        let now = desk.step();
        assert!(desk.broker.made(PathId(0), EVENT, Made::Nothing, now), "another's after all");
        assert!(!desk.brings(0), "its copy");
        desk.broker.making(PathId(0), EVENT, now);
        assert!(!desk.broker.made(PathId(0), EVENT, Made::Nothing, now));
        assert!(desk.brings(1) && !desk.brings(0));
    }

    #[test]
    fn clear_answer_while_the_guests_own_command_is_under_way_says_nothing_of_it() {
        let mut desk = Desk::new();
        let now = desk.step();
        desk.broker.making(PathId(0), EVENT, now);
        desk.is_clear(1);
        let ended = desk.step();
        assert!(!desk.broker.made(PathId(0), EVENT, Made::Event(ended), ended));
        assert!(!desk.brings(1), "it came after the answer");
        desk.is_clear(2);
        assert!(desk.brings(2), "this one did not have one");
    }

    #[test]
    fn new_nexus_after_the_guests_own_command_has_no_copy_of_it() {
        let mut desk = Desk::new();
        let now = desk.step();
        desk.broker.making(PathId(0), EVENT, now);
        let (ended, begun) = (desk.step(), desk.step());
        desk.broker.renewed(PathId(1), begun);
        let now = desk.step();
        assert!(!desk.broker.made(PathId(0), EVENT, Made::Event(ended), now));
        assert!(desk.brings(1), "another's");
    }

    #[test]
    fn arrived_keeps_codes_apart_and_is_bounded() {
        let (mut broker, now) = (Broker::default(), Instant::now());
        for code in 0..200 {
            assert!(broker.arrived(PathId(0), Asc(0x3F, code), now, now));
        }
        assert!(broker.codes.len() <= CODES_MAX);
    }

    #[test]
    fn removed_path_does_not_make_news_of_its_successors_copy() {
        let mut desk = Desk::new();
        assert_eq!([0, 1].map(|path| desk.brings(path)), [true, false]);
        desk.broker.removed(PathId(1));
        assert!(!desk.brings(1));
    }
}
