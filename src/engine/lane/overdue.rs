//! What a lane sees of a path that works: commands that take suspiciously long, and errors that are
//! no failure. The lane goes on using the path; what follows is the core's affair.

use std::time::Duration;

use super::Lane;
use crate::ids::{PathId, Slot};
use crate::limits::{SUSPECT_AFTER, SUSPECT_BYTES_PER_MS, SUSPECT_FACTOR};
use crate::multipath::Load;
use crate::multipath::classify::Class;
use crate::multipath::retry::Problem;
use crate::path::{Fate, Transport};
use crate::scsi::{SenseKey, opcode};

impl<T: Transport> Lane<T> {
    /// A command has been on `path` for `age`: once per attempt the manager hears that this is
    /// suspicious. Only of reads and writes is it known how long they should take.
    pub(super) fn look_at_age(&mut self, slot: Slot, path: PathId, age: Duration) {
        if age < SUSPECT_AFTER {
            return;
        }
        let command = &mut self.commands[slot];
        let Some(header) = command.request.header.filter(|_| !command.overdue) else { return };
        let code = header.cdb.opcode();
        let load = self.snapshot.table.entry(path).map(|entry| &*entry.load);
        let limit = suspicious_after(load, command.request.room());
        if age >= limit && (opcode::is_read(code) || opcode::is_write(code)) {
            command.overdue = true;
            self.report(path, Problem::Overdue);
        }
    }
}

/// How long a read or write of `bytes` may take on a path that carries `load` before that is
/// suspicious.
pub(super) fn suspicious_after(load: Option<&Load>, bytes: u32) -> Duration {
    let usual = load.and_then(Load::latency).unwrap_or_default();
    let data = Duration::from_millis(u64::from(bytes) / SUSPECT_BYTES_PER_MS);
    (usual * SUSPECT_FACTOR).max(data).max(SUSPECT_AFTER)
}

/// Counts an end that says something bad of a path which did not fail.
pub(super) fn note_errors(load: &Load, class: Class, fate: &Fate) {
    match (class, fate) {
        (Class::Aborted, _) => load.aborted(),
        (Class::Done, Fate::Answered(answer)) => {
            let sense = answer.sense.as_ref().and_then(|sense| sense.decode());
            if let Some((SenseKey::MediumError | SenseKey::HardwareError, _)) = sense {
                load.unreadable();
            }
        }
        _ => {}
    }
}
