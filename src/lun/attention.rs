//! Unit attentions: an array has one for each nexus, the guest has one nexus.
//!
//! An event of the logical unit comes once over each path; the guest must hear of it once. The
//! broker keeps, for each code, over which paths it has come since it was passed on: a path that
//! brings it for the first time brings its own copy of the same event, a path that brings it again
//! brings a new event. A path that was down when an event came has lost its copy, and its next
//! event is taken for that copy; the guest hears of it when another path brings it. To know better
//! one would have to know which of a path's reports are older than its new nexus, and a lane's may
//! be late; a resetting of the path's place at its new link told the guest of one event twice.
//!
//! | unit attention | the guest |
//! |---|---|
//! | 29h/any: power on, reset, I_T nexus loss | hears of resets that it asked for, never of ours: the paths' logins and losses are not its nexus's. The path tells again who it is before it is used |
//! | 2Ah/01h mode parameters changed, and every code without a row here | hears of it, once |
//! | 2Ah/06h, 2Ah/07h asymmetric access | never: it sees one port without asymmetric access |
//! | 2Ah/09h capacity data has changed | hears of it, once, when all usable paths tell the new size |
//! | 3Fh/03h INQUIRY data, 3Fh/05h device identifier | never: what it sees of the LUN stays. The path tells again who it is |
//! | 3Fh/0Eh reported LUNs | not the paths' own; hears of one when a LUN that was gone is back |

use std::collections::VecDeque;

use crate::ids::PathId;
use crate::limits::PATHS_MAX;
use crate::scsi::Asc;

/// Codes remembered at most. Arrays have a handful; the oldest makes room.
const CODES_MAX: usize = 16;

/// A set of paths, one bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Paths([u64; PATHS_MAX / 64]);

impl Paths {
    fn insert(&mut self, path: PathId) -> bool {
        let (word, bit) = (usize::from(path.0) / 64 % self.0.len(), 1 << (path.0 % 64));
        let new = self.0[word] & bit == 0;
        self.0[word] |= bit;
        new
    }

    fn remove(&mut self, path: PathId) {
        self.0[usize::from(path.0) / 64 % self.0.len()] &= !(1 << (path.0 % 64));
    }
}

/// Folds the paths' unit attentions into the guest's.
#[derive(Debug, Default)]
pub struct Broker {
    seen: VecDeque<(Asc, Paths)>,
}

impl Broker {
    /// `path` brought `code`. True when this is news for the guest, false for one more path's copy
    /// of what it has been told.
    pub fn arrived(&mut self, path: PathId, code: Asc) -> bool {
        if let Some((_, paths)) = self.seen.iter_mut().find(|(seen, _)| *seen == code) {
            if paths.insert(path) {
                return false;
            }
            *paths = Paths::default();
            paths.insert(path);
            return true;
        }
        if self.seen.len() == CODES_MAX {
            self.seen.pop_front();
        }
        let mut paths = Paths::default();
        paths.insert(path);
        self.seen.push_back((code, paths));
        true
    }

    /// `path` is gone, and its place in the table may be another path's one day. A path that only
    /// failed stays: it has brought its copy, and what it brings when it is back is a new event.
    pub fn removed(&mut self, path: PathId) {
        for (_, paths) in &mut self.seen {
            paths.remove(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENT: Asc = Asc::MODE_PARAMETERS_CHANGED;

    #[test]
    fn arrived_passes_one_event_once() {
        let mut broker = Broker::default();
        assert!(broker.arrived(PathId(0), EVENT));
        assert!(!broker.arrived(PathId(1), EVENT));
        assert!(!broker.arrived(PathId(200), EVENT));
    }

    #[test]
    fn arrived_passes_the_next_event_of_the_same_code() {
        let mut broker = Broker::default();
        assert!(broker.arrived(PathId(0), EVENT));
        assert!(!broker.arrived(PathId(1), EVENT));
        assert!(broker.arrived(PathId(1), EVENT));
        assert!(!broker.arrived(PathId(0), EVENT));
    }

    #[test]
    fn arrived_keeps_codes_apart_and_is_bounded() {
        let mut broker = Broker::default();
        for code in 0..200 {
            assert!(broker.arrived(PathId(0), Asc(0x3F, code)));
        }
        assert!(broker.seen.len() <= CODES_MAX);
    }

    #[test]
    fn removed_path_does_not_make_news_of_its_successors_copy() {
        let mut broker = Broker::default();
        assert!(broker.arrived(PathId(0), EVENT));
        assert!(!broker.arrived(PathId(1), EVENT));
        broker.removed(PathId(1));
        assert!(!broker.arrived(PathId(1), EVENT));
    }
}
