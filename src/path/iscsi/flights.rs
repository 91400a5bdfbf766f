//! Commands inside libiscsi, and what their ends mean.

use super::mailbox::{ChannelId, Job};
use super::shim_sys::End;
use crate::ids::AttemptId;
use crate::path::{Answer, Failure, Fate, Reach, Residual};
use crate::scsi::{Sense, Status, opcode};

/// The commands that were handed over, by token. A slot is used again, a token is not (before four
/// thousand million commands have passed).
#[derive(Debug, Default)]
pub(super) struct Flights {
    slots: Vec<(u32, Option<Job>)>,
    free: Vec<u32>,
    serial: u32,
}

impl Flights {
    /// Keeps `job`; its token.
    pub(super) fn insert(&mut self, job: Job) -> u64 {
        let at = self.free.pop().unwrap_or_else(|| {
            self.slots.push((0, None));
            (self.slots.len() - 1) as u32
        });
        self.serial = self.serial.wrapping_add(1);
        self.slots[at as usize] = (self.serial, Some(job));
        u64::from(self.serial) << 32 | u64::from(at)
    }

    /// The job of `token`.
    pub(super) fn get(&self, token: u64) -> Option<&Job> {
        let (serial, job) = self.slots.get(token as u32 as usize)?;
        job.as_ref().filter(|_| u64::from(*serial) == token >> 32)
    }

    /// Takes the job of `token` out.
    pub(super) fn remove(&mut self, token: u64) -> Option<Job> {
        self.get(token)?;
        self.free.push(token as u32);
        self.slots[token as u32 as usize].1.take()
    }

    /// Takes all out.
    pub(super) fn drain(&mut self) -> Vec<Job> {
        self.free.clear();
        self.slots.drain(..).filter_map(|(_, job)| job).collect()
    }

    /// Those under way.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Job> {
        self.slots.iter().filter_map(|(_, job)| job.as_ref())
    }

    pub(super) fn has(&self, channel: ChannelId, attempt: AttemptId) -> bool {
        self.iter().any(|job| (job.channel, job.attempt) == (channel, attempt))
    }

    /// How many were under way at once, at most, on this session.
    pub(super) fn most(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }
}

/// What an end means. libiscsi's own codes stand above all status bytes.
pub(super) fn fate(end: &End, job: &Job) -> Fate {
    let Ok(status) = u8::try_from(end.status) else {
        return Fate::Failed(Failure::Protocol, Reach::Unknown);
    };
    let room = (job.data_in.len() + job.data_out.len()) as u32;
    let sense = end.sense();
    Fate::Answered(Answer {
        status: Status(status),
        sense: (!sense.is_empty()).then(|| Box::new(Sense::from_bytes(sense))),
        residual: match (end.residual_kind, end.residual) {
            (1, bytes) if bytes > 0 => Residual::Under(bytes.min(room)),
            (2, bytes) if bytes > 0 => Residual::Over(bytes),
            _ => Residual::None,
        },
    })
}

/// T10 VENDOR IDENTIFICATION, where `job` was the question for it and `fate` brought it. Lanes
/// answer a guest's INQUIRY themselves, so the memory is the manager's.
pub(super) fn vendor(job: &Job, fate: &Fate) -> Option<[u8; 8]> {
    let Fate::Answered(answer) = fate else { return None };
    let cdb = job.cdb.padded();
    let asked = cdb[0] == opcode::INQUIRY && cdb[1] & 1 == 0;
    let unused = match answer.residual {
        Residual::Under(bytes) => bytes as usize,
        Residual::None | Residual::Over(_) => 0,
    };
    let came = job.data_in.len().saturating_sub(unused) >= 16;
    if !asked || !came || answer.status != Status::GOOD {
        return None;
    }
    let mut vendor = [0; 8];
    job.data_in.read_at(8, &mut vendor);
    Some(vendor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffer::{OwnedBuffer, Segments};
    use crate::ids::Slot;
    use crate::scsi::Cdb;

    fn job(slot: u16, cdb: &[u8], data_in: &Segments) -> Job {
        Job {
            channel: ChannelId(1),
            attempt: AttemptId { slot: Slot(slot), generation: 1 },
            cdb: Cdb::new(cdb),
            data_out: Segments::new(),
            data_in: data_in.clone(),
        }
    }

    #[test]
    fn token_of_an_earlier_command_finds_nothing() {
        let mut flights = Flights::default();
        let first = flights.insert(job(1, &[0; 6], &Segments::new()));
        let second = flights.insert(job(2, &[0; 6], &Segments::new()));
        assert_eq!(flights.remove(first).unwrap().attempt.slot, Slot(1));
        let third = flights.insert(job(3, &[0; 6], &Segments::new()));
        assert!(flights.remove(first).is_none() && flights.get(third).is_some());
        assert_eq!(flights.len(), 2);
        assert_eq!(flights.drain().len(), 2);
        assert!(flights.remove(second).is_none() && flights.len() == 0);
    }

    #[test]
    fn vendor_is_read_from_standard_inquiry_data_alone() {
        let mut data = vec![0; 36];
        data[8..16].copy_from_slice(b"LIO-ORG ");
        let data = OwnedBuffer::from_vec(data);
        let fate = |status, residual| Fate::Answered(Answer { status, sense: None, residual });
        let asked = job(0, &[0x12, 0, 0, 0, 36, 0], data.segments());
        assert_eq!(vendor(&asked, &fate(Status::GOOD, Residual::None)), Some(*b"LIO-ORG "));
        assert_eq!(vendor(&asked, &fate(Status::GOOD, Residual::Under(30))), None);
        assert_eq!(vendor(&asked, &fate(Status::BUSY, Residual::None)), None);
        let page = job(0, &[0x12, 1, 0x80, 0, 36, 0], data.segments());
        assert_eq!(vendor(&page, &fate(Status::GOOD, Residual::None)), None);
    }
}
