//! **The table of commands.** One row per command says what the virtual LUN does with it, whether
//! it may be sent a second time, and which blocks it touches. Nothing else in the program decides
//! this; REPORT SUPPORTED OPERATION CODES is answered from the same rows.
//!
//! How to read `repeat`, for a command whose attempt failed after it may have been executed:
//!
//! | | the command |
//! |---|---|
//! | [`Repeat::Freely`] | changes nothing: it is sent again at once |
//! | [`Repeat::AfterProof`] | comes to the same when executed twice, if nothing else got between: it is sent again when the first attempt is proven dead or `write_quiesce` has passed, and overlapping commands wait meanwhile |
//! | [`Repeat::Never`] | does not: the guest gets ABORTED COMMAND and decides for itself |
//!
//! A command that is known not to have been executed is always sent again.
//!
//! `makes` is the unit attention that the array has for all other nexuses when it has executed the
//! command. The guest has one nexus: it does not hear of its own doing over the other paths.

use crate::scsi::opcode::{self as op, service_action as sa};
use crate::scsi::reservation::{Out, OutAction};
use crate::scsi::{Asc, Cdb};

/// What the virtual LUN does with a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// Answers it itself, because the answer must not depend on the path.
    Answer(Answered),
    /// Sends it unchanged over the best path.
    Forward,
    /// Sends it unchanged, always over the same path as long as that one is usable: the array
    /// keeps something for the nexus between two such commands.
    Pin,
    /// Asks for it over all paths as one initiator: see [`crate::multipath::reservation`].
    Reserve,
    /// Refuses it as an unsupported command.
    Refuse,
}

/// Commands that the virtual LUN answers itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answered {
    /// INQUIRY.
    Inquiry,
    /// REPORT LUNS.
    ReportLuns,
    /// REQUEST SENSE.
    RequestSense,
    /// READ CAPACITY(10).
    ReadCapacity10,
    /// READ CAPACITY(16).
    ReadCapacity16,
    /// REPORT SUPPORTED OPERATION CODES.
    SupportedOperationCodes,
    /// REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS.
    SupportedTaskManagement,
}

/// May a command be sent again after it may have been executed?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeat {
    /// At once.
    Freely,
    /// When the first attempt is proven dead.
    AfterProof,
    /// Not by us.
    Never,
}

/// Which blocks a command reads or writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// None.
    Nothing,
    /// From `first` on, `count` of them (at least one).
    Blocks {
        /// The first block.
        first: u64,
        /// How many.
        count: u64,
    },
    /// Any, or not told in the CDB.
    Everything,
}

impl Extent {
    /// True when the two have a block in common.
    pub fn overlaps(self, other: Extent) -> bool {
        use Extent::*;
        match (self, other) {
            (Nothing, _) | (_, Nothing) => false,
            (Everything, _) | (_, Everything) => true,
            (Blocks { first: a, count: n }, Blocks { first: b, count: m }) => {
                a < b.saturating_add(m) && b < a.saturating_add(n)
            }
        }
    }
}

/// Where the blocks stand in the CDB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fields {
    Nothing,
    /// 21 bits at byte 1, one byte at 4, where 0 means 256.
    Lba6,
    /// 4 bytes at 2, 2 bytes at 7; 0 means none.
    Lba10,
    /// 4 bytes at 2, 4 bytes at 6.
    Lba12,
    /// 8 bytes at 2, 4 bytes at 10.
    Lba16,
    /// As `Lba10` and `Lba16`, but 0 means to the end (WRITE SAME).
    Same10,
    Same16,
    /// 8 bytes at 2, one byte at 13.
    Compare,
    /// 8 bytes at 2, 2 bytes at 12 (WRITE ATOMIC).
    Atomic,
    Everything,
}

/// One row.
#[derive(Debug, PartialEq, Eq)]
pub struct Row {
    /// OPERATION CODE.
    pub opcode: u8,
    /// SERVICE ACTION, where the row is for one only.
    pub service_action: Option<u8>,
    /// The standard's name.
    pub name: &'static str,
    /// What to do.
    pub route: Route,
    /// May it be sent again?
    pub repeat: Repeat,
    fields: Fields,
    /// What the array tells the other nexuses of it.
    pub makes: Option<Asc>,
}

impl Row {
    /// Which blocks such a command touches, in words.
    pub fn blocks(&self) -> &'static str {
        match self.fields {
            Fields::Nothing => "none",
            Fields::Everything => "any",
            Fields::Same10 | Fields::Same16 => "as the CDB says, 0 is to the end",
            _ => "as the CDB says",
        }
    }

    /// The blocks that `cdb`, a command of this row, touches.
    pub fn extent(&self, cdb: &Cdb) -> Extent {
        let bytes = cdb.padded();
        let (first, count) = match self.fields {
            Fields::Nothing => return Extent::Nothing,
            Fields::Everything => return Extent::Everything,
            Fields::Lba6 => {
                let first = u64::from(cdb.be32(0) & 0x1F_FFFF);
                let count = if bytes[4] == 0 { 256 } else { u64::from(bytes[4]) };
                (first, count)
            }
            Fields::Lba10 => (u64::from(cdb.be32(2)), u64::from(cdb.be16(7))),
            Fields::Lba12 => (u64::from(cdb.be32(2)), u64::from(cdb.be32(6))),
            Fields::Lba16 => (cdb.be64(2), u64::from(cdb.be32(10))),
            Fields::Same10 => (u64::from(cdb.be32(2)), to_the_end(u64::from(cdb.be16(7)))),
            Fields::Same16 => (cdb.be64(2), to_the_end(u64::from(cdb.be32(10)))),
            Fields::Compare => (cdb.be64(2), u64::from(bytes[13])),
            Fields::Atomic => (cdb.be64(2), u64::from(cdb.be16(12))),
        };
        if count == 0 { Extent::Nothing } else { Extent::Blocks { first, count } }
    }
}

fn to_the_end(count: u64) -> u64 {
    if count == 0 { u64::MAX } else { count }
}

macro_rules! commands {
    ($($opcode:ident $(/ $service:ident)?, $name:literal, $route:expr, $repeat:ident, $fields:ident
       $(, $makes:ident)?;)*) => {
        /// Every command that has a name here. What is not listed is [`UNKNOWN`].
        pub const COMMANDS: &[Row] = &[$(Row {
            opcode: op::$opcode,
            service_action: service!($($service)?),
            name: $name,
            route: $route,
            repeat: Repeat::$repeat,
            fields: Fields::$fields,
            makes: makes!($($makes)?),
        },)*];
    };
}

macro_rules! service {
    () => {
        None
    };
    ($service:ident) => {
        Some(sa::$service)
    };
}

macro_rules! makes {
    () => {
        None
    };
    ($code:ident) => {
        Some(Asc::$code)
    };
}

use Answered::*;
use Route::{Answer, Forward, Pin, Refuse, Reserve};

commands! {
    // What the guest asks about the LUN itself: the same whichever path serves.
    INQUIRY,                 "INQUIRY",                     Answer(Inquiry),        Freely, Nothing;
    REPORT_LUNS,             "REPORT LUNS",                 Answer(ReportLuns),     Freely, Nothing;
    REQUEST_SENSE,           "REQUEST SENSE",               Answer(RequestSense),   Freely, Nothing;
    READ_CAPACITY_10,        "READ CAPACITY(10)",           Answer(ReadCapacity10), Freely, Nothing;
    SERVICE_ACTION_IN_16 / READ_CAPACITY_16,
                             "READ CAPACITY(16)",           Answer(ReadCapacity16), Freely, Nothing;
    MAINTENANCE_IN / REPORT_SUPPORTED_OPERATION_CODES,
                             "REPORT SUPPORTED OPERATION CODES",
                                                   Answer(SupportedOperationCodes), Freely, Nothing;
    MAINTENANCE_IN / REPORT_SUPPORTED_TASK_MANAGEMENT_FUNCTIONS,
                             "REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS",
                                                   Answer(SupportedTaskManagement), Freely, Nothing;

    // Reads: nothing changes, so they may be sent as often as it takes.
    TEST_UNIT_READY,         "TEST UNIT READY",             Forward, Freely,     Nothing;
    READ_6,                  "READ(6)",                     Forward, Freely,     Lba6;
    READ_10,                 "READ(10)",                    Forward, Freely,     Lba10;
    READ_12,                 "READ(12)",                    Forward, Freely,     Lba12;
    READ_16,                 "READ(16)",                    Forward, Freely,     Lba16;
    VERIFY_10,               "VERIFY(10)",                  Forward, Freely,     Lba10;
    VERIFY_12,               "VERIFY(12)",                  Forward, Freely,     Lba12;
    VERIFY_16,               "VERIFY(16)",                  Forward, Freely,     Lba16;
    PRE_FETCH_10,            "PRE-FETCH(10)",               Forward, Freely,     Lba10;
    PRE_FETCH_16,            "PRE-FETCH(16)",               Forward, Freely,     Lba16;
    MODE_SENSE_6,            "MODE SENSE(6)",               Forward, Freely,     Nothing;
    MODE_SENSE_10,           "MODE SENSE(10)",              Forward, Freely,     Nothing;
    LOG_SENSE,               "LOG SENSE",                   Forward, Freely,     Nothing;
    READ_DEFECT_DATA_10,     "READ DEFECT DATA(10)",        Forward, Freely,     Nothing;
    READ_DEFECT_DATA_12,     "READ DEFECT DATA(12)",        Forward, Freely,     Nothing;
    SERVICE_ACTION_IN_16 / GET_LBA_STATUS,
                             "GET LBA STATUS",              Forward, Freely,     Everything;
    MAINTENANCE_IN / REPORT_IDENTIFYING_INFORMATION,
                             "REPORT IDENTIFYING INFORMATION", Forward, Freely,  Nothing;
    MAINTENANCE_IN / REPORT_TIMESTAMP,
                             "REPORT TIMESTAMP",            Forward, Freely,     Nothing;

    // Writes: twice is once, but only if nothing else was written between.
    WRITE_6,                 "WRITE(6)",                    Forward, AfterProof, Lba6;
    WRITE_10,                "WRITE(10)",                   Forward, AfterProof, Lba10;
    WRITE_12,                "WRITE(12)",                   Forward, AfterProof, Lba12;
    WRITE_16,                "WRITE(16)",                   Forward, AfterProof, Lba16;
    WRITE_AND_VERIFY_10,     "WRITE AND VERIFY(10)",        Forward, AfterProof, Lba10;
    WRITE_AND_VERIFY_12,     "WRITE AND VERIFY(12)",        Forward, AfterProof, Lba12;
    WRITE_AND_VERIFY_16,     "WRITE AND VERIFY(16)",        Forward, AfterProof, Lba16;
    WRITE_ATOMIC_16,         "WRITE ATOMIC(16)",            Forward, AfterProof, Atomic;
    WRITE_SAME_10,           "WRITE SAME(10)",              Forward, AfterProof, Same10;
    WRITE_SAME_16,           "WRITE SAME(16)",              Forward, AfterProof, Same16;
    UNMAP,                   "UNMAP",                       Forward, AfterProof, Everything;
    // Flushing twice is harmless, and what it must flush has been answered before it was sent.
    SYNCHRONIZE_CACHE_10,    "SYNCHRONIZE CACHE(10)",       Forward, Freely,     Nothing;
    SYNCHRONIZE_CACHE_16,    "SYNCHRONIZE CACHE(16)",       Forward, Freely,     Nothing;

    // Twice is not once: a second COMPARE AND WRITE miscompares against the first one's data.
    COMPARE_AND_WRITE,       "COMPARE AND WRITE",           Forward, Never,      Compare;
    ORWRITE_16,              "ORWRITE(16)",                 Forward, Never,      Lba16;
    FORMAT_UNIT,             "FORMAT UNIT",                 Forward, Never,      Everything;
    SANITIZE,                "SANITIZE",                    Forward, Never,      Everything;
    REASSIGN_BLOCKS,         "REASSIGN BLOCKS",             Forward, Never,      Everything;
    START_STOP_UNIT,         "START STOP UNIT",             Forward, Never,      Nothing;
    MODE_SELECT_6,           "MODE SELECT(6)",              Forward, Never,      Nothing, MODE_PARAMETERS_CHANGED;
    MODE_SELECT_10,          "MODE SELECT(10)",             Forward, Never,      Nothing, MODE_PARAMETERS_CHANGED;
    LOG_SELECT,              "LOG SELECT",                  Forward, Never,      Nothing, LOG_PARAMETERS_CHANGED;
    PREVENT_ALLOW_MEDIUM_REMOVAL,
                             "PREVENT ALLOW MEDIUM REMOVAL", Pin,    Never,      Nothing;

    // The array keeps something for the nexus between these: they stay on one path.
    SEND_DIAGNOSTIC,         "SEND DIAGNOSTIC",             Pin,     Never,      Nothing;
    RECEIVE_DIAGNOSTIC_RESULTS, "RECEIVE DIAGNOSTIC RESULTS", Pin,   Freely,     Nothing;
    WRITE_BUFFER,            "WRITE BUFFER",                Pin,     Never,      Nothing;
    READ_BUFFER_10,          "READ BUFFER(10)",             Pin,     Freely,     Nothing;
    THIRD_PARTY_COPY_OUT,    "third-party copy OUT",        Pin,     Never,      Everything;
    THIRD_PARTY_COPY_IN,     "third-party copy IN",         Pin,     Never,      Nothing;
    SECURITY_PROTOCOL_IN,    "SECURITY PROTOCOL IN",        Pin,     Never,      Nothing;
    SECURITY_PROTOCOL_OUT,   "SECURITY PROTOCOL OUT",       Pin,     Never,      Everything;

    // One port is shown to the guest, so it has no port groups to ask about or to set.
    MAINTENANCE_IN / REPORT_TARGET_PORT_GROUPS,
                             "REPORT TARGET PORT GROUPS",   Refuse,  Freely,     Nothing;
    MAINTENANCE_OUT / SET_TARGET_PORT_GROUPS,
                             "SET TARGET PORT GROUPS",      Refuse,  Never,      Nothing;
    // A registration and a reservation belong to a nexus, and each path is one.
    PERSISTENT_RESERVE_IN,   "PERSISTENT RESERVE IN",       Reserve, Freely,     Nothing;
    PERSISTENT_RESERVE_OUT,  "PERSISTENT RESERVE OUT",      Reserve, Never,      Nothing;
    // SPC-2's reservations cannot be made over one path and used over another.
    RESERVE_6,               "RESERVE(6)",                  Refuse,  Never,      Nothing;
    RESERVE_10,              "RESERVE(10)",                 Refuse,  Never,      Nothing;
    RELEASE_6,               "RELEASE(6)",                  Refuse,  Never,      Nothing;
    RELEASE_10,              "RELEASE(10)",                 Refuse,  Never,      Nothing;
}

/// A command without a row: the array may know it, we do not. It goes over one path, may touch
/// anything, and is never sent a second time blindly.
pub const UNKNOWN: Row = Row {
    opcode: 0xFF,
    service_action: None,
    name: "unknown command",
    route: Pin,
    repeat: Repeat::Never,
    fields: Fields::Everything,
    makes: None,
};

const UNKNOWN_AT: u8 = u8::MAX;

/// For each operation code the first of its rows: one step on the hot path instead of a search.
static FIRST_ROW: [u8; 256] = first_rows();

const fn first_rows() -> [u8; 256] {
    let mut first = [UNKNOWN_AT; 256];
    let mut at = COMMANDS.len();
    while at > 0 {
        at -= 1;
        first[COMMANDS[at].opcode as usize] = at as u8;
    }
    first
}

const _: () = assert!(COMMANDS.len() < UNKNOWN_AT as usize);

/// The row for `cdb`.
pub fn row(cdb: &Cdb) -> &'static Row {
    let first = FIRST_ROW[usize::from(cdb.opcode())];
    if first == UNKNOWN_AT {
        return &UNKNOWN;
    }
    let candidate = &COMMANDS[usize::from(first)];
    match candidate.service_action {
        None => candidate,
        Some(_) => row_of_service_action(cdb),
    }
}

/// True where the guest is told that the command is not supported.
pub fn is_refused(cdb: &Cdb) -> bool {
    let moves = Out::parse(cdb).is_some_and(|out| {
        matches!(out.action, OutAction::RegisterAndMove | OutAction::ReplaceLostReservation)
    });
    moves || row(cdb).route == Route::Refuse
}

fn row_of_service_action(cdb: &Cdb) -> &'static Row {
    let wanted = cdb.service_action();
    COMMANDS
        .iter()
        .filter(|row| row.opcode == cdb.opcode())
        .find(|row| row.service_action.map(u16::from) == wanted)
        .unwrap_or(&UNKNOWN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(bytes: &[u8]) -> Extent {
        let cdb = Cdb::new(bytes);
        row(&cdb).extent(&cdb)
    }

    #[test]
    fn row_finds_every_listed_command() {
        for expected in COMMANDS {
            let mut bytes = [0; 16];
            bytes[0] = expected.opcode;
            bytes[1] = expected.service_action.unwrap_or(0);
            assert_eq!(row(&Cdb::new(&bytes)), expected);
        }
    }

    #[test]
    fn row_of_anything_else_is_unknown_and_never_repeated() {
        for bytes in [[0xC1, 0], [0x9E, 0x1F], [0x7F, 0], [0xA3, 0x1F], [0xFF, 0]] {
            assert_eq!(row(&Cdb::new(&bytes)), &UNKNOWN);
        }
        assert_eq!(UNKNOWN.repeat, Repeat::Never);
        assert_eq!(extent(&[0xC1]), Extent::Everything);
    }

    #[test]
    fn commands_that_write_are_not_repeated_freely() {
        for row in COMMANDS.iter().filter(|row| row.name.contains("WRITE")) {
            assert_ne!(row.repeat, Repeat::Freely, "{}", row.name);
        }
    }

    #[test]
    fn commands_that_are_not_the_same_twice_are_never_repeated() {
        // Opcode, service action: COMPARE AND WRITE, ORWRITE, FORMAT UNIT, SANITIZE, MODE SELECT,
        // and MODE SELECT(10) go anywhere; EXTENDED COPY, POPULATE TOKEN, WRITE USING TOKEN,
        // RECEIVE ROD TOKEN INFORMATION, WRITE LONG, a 32-byte command and a vendor's stay on one
        // path, since the array keeps something for the nexus or may.
        for (bytes, route) in [
            ([0x89, 0], Forward),
            ([0x8B, 0], Forward),
            ([0x04, 0], Forward),
            ([0x48, 1], Forward),
            ([0x15, 0x10], Forward),
            ([0x55, 0x10], Forward),
            ([0x83, 0x00], Pin),
            ([0x83, 0x01], Pin),
            ([0x83, 0x10], Pin),
            ([0x83, 0x11], Pin),
            ([0x84, 0x07], Pin),
            ([0x3F, 0], Pin),
            ([0x7F, 0], Pin),
            ([0xC1, 0], Pin),
        ] {
            let row = row(&Cdb::new(&bytes));
            assert_eq!(
                (row.repeat, row.route),
                (Repeat::Never, route),
                "{bytes:02x?} {}",
                row.name
            );
        }
    }

    #[test]
    fn commands_that_are_repeated_after_proof_hold_blocks() {
        for row in COMMANDS.iter().filter(|row| row.repeat == Repeat::AfterProof) {
            assert_ne!(row.fields, Fields::Nothing, "{}", row.name);
        }
    }

    #[test]
    fn extent_reads_each_layout() {
        let blocks = |first, count| Extent::Blocks { first, count };
        assert_eq!(extent(&[0x08, 0xE1, 2, 3, 0, 0]), blocks(0x01_0203, 256));
        assert_eq!(extent(&[0x2A, 0, 0, 0, 1, 0, 0, 0, 8, 0]), blocks(256, 8));
        assert_eq!(extent(&[0x28, 0, 0, 0, 1, 0, 0, 0, 0, 0]), Extent::Nothing);
        assert_eq!(extent(&[0xAA, 0, 0, 0, 1, 0, 0, 0, 0, 8, 0, 0]), blocks(256, 8));
        let mut bytes = [0; 16];
        (bytes[0], bytes[9], bytes[13]) = (0x8A, 5, 8);
        assert_eq!(extent(&bytes), blocks(5, 8));
        bytes[0] = 0x89;
        assert_eq!(extent(&bytes), blocks(5, 8));
        (bytes[0], bytes[13]) = (0x93, 0);
        assert_eq!(extent(&bytes), blocks(5, u64::MAX));
        assert_eq!(extent(&[0x42]), Extent::Everything);
    }

    #[test]
    fn overlaps_is_exact_at_the_borders() {
        let blocks = |first, count| Extent::Blocks { first, count };
        assert!(!blocks(0, 8).overlaps(blocks(8, 1)));
        assert!(blocks(0, 9).overlaps(blocks(8, 1)));
        assert!(!blocks(4, 1).overlaps(blocks(5, u64::MAX)));
        assert!(blocks(9, 1).overlaps(blocks(5, u64::MAX)));
        assert!(Extent::Everything.overlaps(blocks(0, 1)));
        assert!(!Extent::Everything.overlaps(Extent::Nothing));
    }
}
