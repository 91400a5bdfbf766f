//! Status codes (SAM-5 5.3.1).

/// A SCSI status byte. Not an enum: an array may send any value, and the guest gets it as it came.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Status(pub u8);

impl Status {
    /// Done.
    pub const GOOD: Status = Status(0x00);
    /// Sense data says what happened.
    pub const CHECK_CONDITION: Status = Status(0x02);
    /// Done, and the condition asked for was met (PRE-FETCH).
    pub const CONDITION_MET: Status = Status(0x04);
    /// Cannot take the command now.
    pub const BUSY: Status = Status(0x08);
    /// A reservation of another initiator forbids it.
    pub const RESERVATION_CONFLICT: Status = Status(0x18);
    /// The logical unit's task set is full.
    pub const TASK_SET_FULL: Status = Status(0x28);
    /// An auto contingent allegiance is active.
    pub const ACA_ACTIVE: Status = Status(0x30);
    /// Aborted by a task of another nexus.
    pub const TASK_ABORTED: Status = Status(0x40);
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match *self {
            Status::GOOD => "GOOD",
            Status::CHECK_CONDITION => "CHECK CONDITION",
            Status::CONDITION_MET => "CONDITION MET",
            Status::BUSY => "BUSY",
            Status::RESERVATION_CONFLICT => "RESERVATION CONFLICT",
            Status::TASK_SET_FULL => "TASK SET FULL",
            Status::ACA_ACTIVE => "ACA ACTIVE",
            Status::TASK_ABORTED => "TASK ABORTED",
            Status(other) => return write!(f, "status {other:02x}h"),
        })
    }
}

impl std::fmt::Debug for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}
