//! The questions a path must answer before it is used, one after the other. A script without I/O:
//! it says what to send, is fed what came back, and ends with a finding.
//!
//! | step | why |
//! |---|---|
//! | TEST UNIT READY | is anybody there? Unit attentions of a new nexus are cleared here |
//! | VPD 83h, where nothing else is asked | does it still lead there? |
//! | INQUIRY, VPD 00h, 83h, 80h and what else is shown to the guest | who is it? |
//! | READ CAPACITY(16) (or (10)) | how large? |
//! | REPORT TARGET PORT GROUPS | may it be used, and is it a good one? One answer tells it of all paths |
//! | REPORT SUPPORTED OPERATION CODES | what does it know? |
//! | READ of one block, where the access state allows it | does the medium answer, and not only the port? |

mod questions;
mod reading;

use std::collections::BTreeMap;

use super::classify::{Class, classify};
use crate::limits::PROBE_UNIT_ATTENTIONS_MAX;
use crate::lun::Facts;
use crate::lun::face::SHOWN_PAGES;
use crate::path::{Answer, Failure, Fate};
use crate::scsi::alua::{self, AccessState, Group, Report};
use crate::scsi::capacity::Capacity;
use crate::scsi::designator::{self, Wwid};
use crate::scsi::inquiry::{Standard, page};
use crate::scsi::{Asc, Status};

use questions::At;
pub use questions::Question;
pub use reading::words;
use reading::{cannot_read, good, read_finding};

/// How a probe ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// It is alive, and this is what it said of itself.
    Alive(Box<Identity>),
    /// It answers; nothing else was asked.
    Ready,
    /// It answers, and it leads to the logical unit of this name; nothing else was asked.
    Named(Wwid),
    /// These are the states of the target port groups; nothing else was asked.
    Groups(Report),
    /// There is no logical unit behind this port, by the array's own word. In words, for people.
    Unmapped(String),
    /// It does not answer, or not as a block device should. In words, for people.
    Dead(String),
    /// Its identity is in doubt: everything must be asked again before it is used.
    Doubtful,
    /// It answers that it is overloaded, again and again: alive, and nothing else is known.
    Loaded,
    /// Access states have changed: the groups should be asked for.
    AccessChanged,
    /// Something else has: everything should be asked again.
    Changed,
    /// It answers, and a block cannot be read. In words, for people.
    Unreadable(String),
}

/// What a path said of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The logical unit behind it.
    pub facts: Facts,
    /// The access state of its port: `Unknown` where the array has none, `None` where it has and
    /// did not tell this time, which is no reason to think worse of the path than before.
    pub access: Option<AccessState>,
    /// All groups, where the array told them.
    pub report: Option<Report>,
}

/// What one feed came to.
#[derive(Debug)]
pub enum Step {
    /// This next.
    Ask(Question),
    /// The end.
    Found(Finding),
}

/// A probe under way.
#[derive(Debug)]
pub struct Probe {
    at: At,
    scope: Scope,
    again: u8,
    attentions: Vec<Asc>,
    /// A unit attention has said that the path may lead elsewhere by now; the questions have begun
    /// anew since, but who uses the path has to know before they are answered.
    doubt: Option<Asc>,
    access: Option<AccessState>,
    inquiry: Option<Standard>,
    pages: BTreeMap<u8, Vec<u8>>,
    wanted: Vec<u8>,
    capacity: Option<Capacity>,
    report: Option<Report>,
    operation_codes: Option<Vec<u8>>,
}

/// How much is asked; the later ones are worth more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Whether it is ready: for a path in use.
    Ready,
    /// The states of the target port groups.
    Groups,
    /// Everything.
    Full,
}

impl Probe {
    /// Asks everything.
    pub fn full() -> Self {
        Probe {
            at: At::Ready,
            scope: Scope::Full,
            again: 0,
            attentions: Vec::new(),
            doubt: None,
            access: None,
            inquiry: None,
            pages: BTreeMap::new(),
            wanted: Vec::new(),
            capacity: None,
            report: None,
            operation_codes: None,
        }
    }

    /// Asks so much.
    pub fn of(scope: Scope) -> Self {
        match scope {
            Scope::Ready => Self::ready(),
            Scope::Groups => Probe { scope, at: At::Groups, ..Self::full() },
            Scope::Full => Self::full(),
        }
    }

    /// Asks only whether the path is ready: for a path in use.
    pub fn ready() -> Self {
        Probe { scope: Scope::Ready, ..Self::full() }
    }

    /// Only reads a block of a unit of this size: for a path in use, to see how long that takes.
    pub fn read(capacity: Capacity) -> Self {
        Probe { at: At::Media, capacity: Some(capacity), ..Self::ready() }
    }

    /// How much it asks.
    pub fn scope(&self) -> Scope {
        self.scope
    }

    /// Unit attentions that the guest must hear of, taken by the probe's questions.
    pub fn take_attentions(&mut self) -> Vec<Asc> {
        std::mem::take(&mut self.attentions)
    }

    /// A doubt about the path's identity that came up while it was asked everything.
    pub fn take_doubt(&mut self) -> Option<Asc> {
        self.doubt.take()
    }

    /// Takes the end of the last question, and the data that came with it (as long as the room).
    pub fn feed(&mut self, fate: &Fate, data: &[u8]) -> Step {
        let verdict = classify(fate);
        let answer = match fate {
            Fate::Answered(answer) => answer,
            // The host stumbled over this one question.
            Fate::Failed(Failure::Transient | Failure::HostBusy, _)
                if self.again < PROBE_UNIT_ATTENTIONS_MAX =>
            {
                self.again += 1;
                return self.ask();
            }
            Fate::Failed(failure, _) => {
                return Step::Found(Finding::Dead(format!("{} during a probe", words(*failure))));
            }
        };
        if let Some(step) = self.feed_attention(verdict.class) {
            return step;
        }
        if verdict.class == Class::Unmapped {
            return unmapped("no logical unit behind this port (05h/25h/00h)");
        }
        if let Class::Access(state) = verdict.class {
            self.access = Some(state);
        }
        match self.at {
            At::Ready => self.feed_ready(answer, verdict.class),
            At::Inquiry => self.feed_inquiry(answer, data),
            At::Page(page) => self.feed_page(page, answer, data),
            At::Capacity16 | At::Capacity10 => self.feed_capacity(answer, verdict.class, data),
            At::Groups | At::GroupsPlain => self.feed_groups(answer, data),
            At::OperationCodes => self.feed_operation_codes(answer, data),
            At::Media => self.feed_media(answer, verdict.class),
        }
    }

    /// A unit attention: the question was not answered, it is asked again.
    fn feed_attention(&mut self, class: Class) -> Option<Step> {
        let finding = match (self.scope, class) {
            (Scope::Ready, Class::Load) => Some(Finding::Ready),
            (Scope::Ready | Scope::Groups, Class::Doubt(_)) => Some(Finding::Doubtful),
            (Scope::Ready | Scope::Groups, Class::SizeChanged) => Some(Finding::Changed),
            (Scope::Ready, Class::AccessChanged(_)) => Some(Finding::AccessChanged),
            _ => None,
        };
        if let Some(finding) = finding {
            return Some(Step::Found(finding));
        }
        match class {
            Class::Attention(code) => self.attentions.push(code),
            Class::AccessChanged(_) if self.scope == Scope::Groups => {}
            // What the path said before this may be true no longer: from the beginning.
            Class::Doubt(_) | Class::AccessChanged(_) | Class::SizeChanged => {
                let (again, attentions) = (self.again, std::mem::take(&mut self.attentions));
                let doubt = if let Class::Doubt(code) = class { Some(code) } else { self.doubt };
                *self = Probe { again, attentions, doubt, ..Self::full() };
            }
            Class::Load | Class::Aborted => {}
            _ => return None,
        }
        self.again += 1;
        if self.again > PROBE_UNIT_ATTENTIONS_MAX {
            return Some(match class {
                Class::Load => Step::Found(Finding::Loaded),
                _ => dead("unit attentions without end"),
            });
        }
        Some(self.ask())
    }

    fn feed_ready(&mut self, answer: &Answer, class: Class) -> Step {
        // A reservation of somebody else's is no fault of the path, and a port that is not active
        // answers other questions.
        let alive = matches!(answer.status, Status::GOOD | Status::RESERVATION_CONFLICT)
            || matches!(class, Class::Access(_));
        if !alive {
            let why = answer.sense.as_ref().map_or_else(
                || answer.status.to_string(),
                |sense| format!("{} {sense:?}", answer.status),
            );
            return Step::Found(Finding::Dead(format!("not ready: {why}")));
        }
        if self.scope == Scope::Ready {
            // A path in use that is not active any more has not told so by a unit attention.
            if matches!(class, Class::Access(_)) {
                return Step::Found(Finding::AccessChanged);
            }
            // Not every target tells when another unit takes the place of this one.
            return self.go(At::Page(page::DEVICE_IDENTIFICATION));
        }
        self.go(At::Inquiry)
    }

    fn feed_inquiry(&mut self, answer: &Answer, data: &[u8]) -> Step {
        let standard = good(answer, data).and_then(Standard::parse);
        match standard {
            Some(standard) if standard.qualifier() != 0 => {
                unmapped("no logical unit behind this port (INQUIRY)")
            }
            Some(standard) if standard.device_type() != 0 => dead("not a block device"),
            Some(standard) => {
                self.inquiry = Some(standard);
                self.go(At::Page(page::SUPPORTED))
            }
            None => dead("INQUIRY brought no data"),
        }
    }

    fn feed_page(&mut self, page: u8, answer: &Answer, data: &[u8]) -> Step {
        let content = good(answer, data).and_then(|data| {
            let len = 4 + crate::scsi::inquiry::vpd_content(page, data)?.len();
            Some(data[..len].to_vec())
        });
        if self.scope == Scope::Ready {
            let wwid = content.as_deref().and_then(designator::wwid);
            return Step::Found(wwid.map_or(Finding::Ready, Finding::Named));
        }
        if let Some(content) = content {
            if page == page::SUPPORTED {
                let listed = |one: &u8| *one != page::SUPPORTED && content[4..].contains(one);
                self.wanted = SHOWN_PAGES.iter().copied().filter(listed).rev().collect();
            }
            self.pages.insert(page, content);
        }
        match self.wanted.pop() {
            Some(next) => self.go(At::Page(next)),
            None => self.go(At::Capacity16),
        }
    }

    fn feed_capacity(&mut self, answer: &Answer, class: Class, data: &[u8]) -> Step {
        let parse = if self.at == At::Capacity16 { Capacity::parse_16 } else { Capacity::parse_10 };
        match good(answer, data) {
            Some(data) => match parse(data) {
                Some(capacity) => self.capacity = Some(capacity),
                None => return dead("READ CAPACITY told nonsense"),
            },
            // A port that is not active may refuse; another one will tell.
            None if matches!(class, Class::Access(_)) => {}
            None if self.at == At::Capacity16 => return self.go(At::Capacity10),
            None => return dead("READ CAPACITY was refused"),
        }
        match self.inquiry.as_ref().map_or(0, Standard::tpgs) {
            0 => self.go(At::OperationCodes),
            _ => self.go(At::Groups),
        }
    }

    fn feed_groups(&mut self, answer: &Answer, data: &[u8]) -> Step {
        self.report = good(answer, data).and_then(alua::parse_groups);
        if self.report.is_none() && self.at == At::Groups {
            return self.go(At::GroupsPlain);
        }
        if self.scope == Scope::Groups {
            return Step::Found(match self.report.take() {
                Some(report) => Finding::Groups(report),
                // It cannot be asked so: the other questions tell as well.
                None => Finding::Changed,
            });
        }
        if let Some(group) = self.group() {
            self.access = Some(group.state);
        }
        self.go(At::OperationCodes)
    }

    fn feed_operation_codes(&mut self, answer: &Answer, data: &[u8]) -> Step {
        self.operation_codes = good(answer, data).map(<[u8]>::to_vec);
        match self.capacity {
            Some(_) if self.access.unwrap_or_default().allows_media_access() => self.go(At::Media),
            _ => self.found(),
        }
    }

    fn feed_media(&mut self, answer: &Answer, class: Class) -> Step {
        if self.scope == Scope::Ready {
            return Step::Found(read_finding(answer, class));
        }
        match answer.status {
            Status::GOOD | Status::RESERVATION_CONFLICT => self.found(),
            // The state changed while we asked.
            _ if matches!(class, Class::Access(_)) => self.found(),
            _ => Step::Found(Finding::Dead(cannot_read(answer))),
        }
    }

    fn found(&mut self) -> Step {
        let Some(inquiry) = self.inquiry.take() else { return dead("no INQUIRY data") };
        let access = match inquiry.tpgs() {
            0 => Some(self.access.unwrap_or_default()),
            _ => self.access,
        };
        Step::Found(Finding::Alive(Box::new(Identity {
            facts: Facts {
                inquiry,
                pages: std::mem::take(&mut self.pages),
                capacity: self.capacity,
                operation_codes: self.operation_codes.take(),
            },
            access,
            report: self.report.take(),
        })))
    }

    /// The group of the port that answers.
    fn group(&self) -> Option<&Group> {
        let page_83 = self.pages.get(&page::DEVICE_IDENTIFICATION)?;
        let port = designator::port(page_83);
        self.report.as_ref()?.group_of(port.group, port.relative_port)
    }

    /// The question to send now.
    pub fn question(&self) -> Question {
        self.at.question(self.capacity)
    }

    fn go(&mut self, at: At) -> Step {
        self.at = at;
        self.ask()
    }

    fn ask(&self) -> Step {
        Step::Ask(self.question())
    }
}

fn unmapped(why: &str) -> Step {
    Step::Found(Finding::Unmapped(why.to_owned()))
}

fn dead(why: &str) -> Step {
    Step::Found(Finding::Dead(why.to_owned()))
}

#[cfg(test)]
mod tests;
