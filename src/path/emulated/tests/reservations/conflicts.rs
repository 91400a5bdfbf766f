//! Which command is refused under which reservation, and RESERVE and RELEASE.

use super::*;

/// A command that needs little.
struct Probe {
    name: &'static str,
    cdb: &'static [u8],
    out: usize,
    /// Refused to those whom a Write Exclusive and an Exclusive Access type shuts out, and while
    /// another nexus has reserved by RESERVE.
    refused: [bool; 3],
}

const fn probe(name: &'static str, cdb: &'static [u8], out: usize, refused: [bool; 3]) -> Probe {
    Probe { name, cdb, out, refused }
}

const NEVER: [bool; 3] = [false; 3];
const BY_RESERVE: [bool; 3] = [false, false, true];
const LOOKS: [bool; 3] = [false, true, true];
const CHANGES: [bool; 3] = [true; 3];

/// From SPC-5 table 62, SBC-4 table 13 and SPC-2 table 10.
const PROBES: &[Probe] = &[
    probe("TEST UNIT READY", &TUR, 0, BY_RESERVE),
    probe("REQUEST SENSE", &[3, 0, 0, 0, 18, 0], 0, NEVER),
    probe("INQUIRY", &[0x12, 0, 0, 0, 36, 0], 0, NEVER),
    probe("REPORT LUNS", &[0xA0, 0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0], 0, NEVER),
    probe("LOG SENSE", &[0x4D, 0, 0x40, 0, 0, 0, 0, 0, 8, 0], 0, NEVER),
    probe("READ CAPACITY(10)", &[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0], 0, NEVER),
    probe("READ CAPACITY(16)", &[0x9E, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0], 0, NEVER),
    probe("REPORT TARGET PORT GROUPS", &[0xA3, 0x0A, 0, 0, 0, 0, 0, 0, 0, 64, 0, 0], 0, NEVER),
    probe("START STOP UNIT, start", &[0x1B, 0, 0, 0, 1, 0], 0, NEVER),
    probe("PREVENT ALLOW, allow", &[0x1E, 0, 0, 0, 0, 0], 0, NEVER),
    probe("READ(6)", &[0x08, 0, 0, 0, 1, 0], 0, LOOKS),
    probe("READ(10)", &[0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0], 0, LOOKS),
    probe("READ(12)", &[0xA8, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0], 0, LOOKS),
    probe("READ(16)", &[0x88, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0], 0, LOOKS),
    probe("VERIFY(10)", &[0x2F, 0, 0, 0, 0, 0, 0, 0, 1, 0], 0, LOOKS),
    probe("PRE-FETCH(10)", &[0x34, 0, 0, 0, 0, 0, 0, 0, 1, 0], 0, LOOKS),
    probe("READ DEFECT DATA(10)", &[0x37, 0, 0, 0, 0, 0, 0, 0, 8, 0], 0, LOOKS),
    probe("GET LBA STATUS", &[0x9E, 0x12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 24, 0, 0], 0, LOOKS),
    probe("MODE SENSE(6)", &[0x1A, 0, 0x3F, 0, 255, 0], 0, LOOKS),
    probe("MODE SENSE(10)", &[0x5A, 0, 0x3F, 0, 0, 0, 0, 0, 255, 0], 0, LOOKS),
    probe(
        "REPORT SUPPORTED OPERATION CODES",
        &[0xA3, 0x0C, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0],
        0,
        LOOKS,
    ),
    probe("REPORT SUPPORTED TMFS", &[0xA3, 0x0D, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0], 0, LOOKS),
    probe("MODE SELECT(6)", &[0x15, 0x10, 0, 0, 0, 0], 0, CHANGES),
    probe("MODE SELECT(10)", &[0x55, 0x10, 0, 0, 0, 0, 0, 0, 0, 0], 0, CHANGES),
    probe("START STOP UNIT, stop", &[0x1B, 0, 0, 0, 0, 0], 0, CHANGES),
    probe("START STOP UNIT, standby", &[0x1B, 0, 0, 0, 0x31, 0], 0, CHANGES),
    probe("PREVENT ALLOW, prevent", &[0x1E, 0, 0, 0, 1, 0], 0, CHANGES),
    probe("SET TARGET PORT GROUPS", &[0xA4, 0x0A, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 0, CHANGES),
    probe("SYNCHRONIZE CACHE(10)", &[0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0], 0, CHANGES),
    probe(
        "SYNCHRONIZE CACHE(16)",
        &[0x91, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        0,
        CHANGES,
    ),
    probe("WRITE(6)", &[0x0A, 0, 0, 0, 1, 0], 512, CHANGES),
    probe("WRITE(10)", &[0x2A, 0, 0, 0, 0, 0, 0, 0, 1, 0], 512, CHANGES),
    probe("WRITE(12)", &[0xAA, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0], 512, CHANGES),
    probe("WRITE(16)", &[0x8A, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0], 512, CHANGES),
    probe("WRITE AND VERIFY(10)", &[0x2E, 0, 0, 0, 0, 0, 0, 0, 1, 0], 512, CHANGES),
    probe("WRITE SAME(10)", &[0x41, 0, 0, 0, 0, 0, 0, 0, 1, 0], 512, CHANGES),
    probe("WRITE SAME(16)", &[0x93, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0], 512, CHANGES),
    probe("UNMAP", &[0x42, 0, 0, 0, 0, 0, 0, 0, 8, 0], 8, CHANGES),
    probe("COMPARE AND WRITE", &[0x89, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0], 1024, CHANGES),
    probe("ORWRITE(16)", &[0x8B, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0], 512, CHANGES),
];

impl Probe {
    fn is_refused(&self, host: &mut Host) -> bool {
        let room = if self.out == 0 { 512 } else { 0 };
        let (answer, _) = host.0.run(self.cdb, &vec![0; self.out], room);
        let fine = matches!(answer.status, Status::GOOD | Status::CONDITION_MET);
        assert!(fine || answer.status == CONFLICT, "{}: {answer:?}", self.name);
        !fine
    }
}

#[test]
fn probes_are_every_command_but_those_with_rules_of_their_own() {
    use crate::path::emulated::table::COMMANDS;
    let (_array, mut a, ..) = three();
    for probe in PROBES {
        assert!(!probe.is_refused(&mut a), "{}", probe.name);
    }
    // The long forms that have no probe stand beside a short one in the table.
    let long = [0x8E, 0x8F, 0x90, 0xAE, 0xAF, 0xB7];
    for command in &COMMANDS {
        let own = matches!(command.opcode(), 0x16 | 0x17 | 0x56 | 0x57 | 0x5E | 0x5F);
        let probed = PROBES.iter().any(|probe| probe.cdb[0] == command.opcode());
        assert!(own || probed || long.contains(&command.opcode()), "{:02x}", command.opcode());
    }
}

#[test]
fn each_type_shuts_out_whom_it_should() {
    for kind in Type::ALL {
        let (array, mut holder, mut registrant, mut host) = registered();
        let mut stranger = Host::new(&array, 3, 2);
        assert_eq!(holder.out(Reserve, kind, 1, 0), GOOD);
        for probe in PROBES {
            let [write_exclusive, exclusive_access, _] = probe.refused;
            let refused =
                if kind.is_exclusive_access() { exclusive_access } else { write_exclusive };
            let name = format!("{} under {kind}", probe.name);
            assert!(!probe.is_refused(&mut holder), "{name}, holder");
            let others = refused && !kind.is_for_registrants();
            assert_eq!(probe.is_refused(&mut registrant), others, "{name}, sibling");
            assert_eq!(probe.is_refused(&mut host), others, "{name}, registrant");
            assert_eq!(probe.is_refused(&mut stranger), refused, "{name}, stranger");
        }
        assert_eq!(stranger.held().map(|held| held.1), Some(kind), "PERSISTENT RESERVE IN");
        for action in [Reserve, Release, Clear, Preempt, PreemptAndAbort] {
            assert_eq!(stranger.out(action, kind, 0, 1), CONFLICT, "{action} under {kind}");
        }
        assert_eq!(stranger.out(Register, None, 0, 9), GOOD);
    }
}

#[test]
fn a_refused_write_changes_nothing() {
    let (array, mut a, _, mut c) = registered();
    assert_eq!(a.out(Reserve, WriteExclusive, 1, 0), GOOD);
    a.0.good(&cdb10(0x2A, 0, 5, 1), &[7; 512], 0);
    let (answer, _) = c.0.run(&cdb10(0x2A, 0, 5, 1), &[9; 512], 0);
    assert_eq!(answer.status, CONFLICT);
    let mut block = [0; 512];
    array.peek(5, &mut block).unwrap();
    assert_eq!(block, [7; 512]);
}

#[test]
fn unit_attention_comes_before_the_conflict() {
    let (_array, mut a, mut b, mut c) = registered();
    assert_eq!(a.out(Reserve, ExclusiveAccessRegistrantsOnly, 1, 0), GOOD);
    assert_eq!(c.out(PreemptAndAbort, ExclusiveAccessRegistrantsOnly, 2, 1), GOOD);
    let read = cdb10(0x28, 0, 0, 1);
    for fenced in [&mut a, &mut b] {
        let told = (SenseKey::UnitAttention, Asc::REGISTRATIONS_PREEMPTED);
        assert_eq!(fenced.0.check(&read, &[], 512), told);
        assert_eq!(fenced.0.run(&read, &[], 512).0.status, CONFLICT);
    }
}

const RESERVE: [&[u8]; 2] = [&[0x16, 0, 0, 0, 0, 0], &[0x56, 0, 0, 0, 0, 0, 0, 0, 0, 0]];
const RELEASE: [&[u8]; 2] = [&[0x17, 0, 0, 0, 0, 0], &[0x57, 0, 0, 0, 0, 0, 0, 0, 0, 0]];

impl Host {
    fn status(&mut self, cdb: &[u8]) -> Status {
        self.0.run(cdb, &[], 0).0.status
    }
}

#[test]
fn reserve_shuts_out_every_other_nexus() {
    for (reserve, release) in RESERVE.into_iter().zip(RELEASE) {
        let (_array, mut a, mut b, mut c) = three();
        assert_eq!(a.status(reserve), GOOD);
        assert_eq!(a.status(reserve), GOOD);
        for probe in PROBES {
            assert!(!probe.is_refused(&mut a), "{}", probe.name);
            for other in [&mut b, &mut c] {
                assert_eq!(probe.is_refused(other), probe.refused[2], "{}", probe.name);
            }
        }
        assert_eq!(c.status(reserve), CONFLICT);
        assert_eq!(c.status(release), GOOD, "taken, and nothing is done");
        assert_eq!(c.status(&TUR), CONFLICT);
        assert_eq!(a.status(release), GOOD);
        assert_eq!(c.status(reserve), GOOD);
        drop(c);
        assert_eq!(a.status(&TUR), GOOD, "who is gone holds nothing");
        assert_eq!(a.0.check(&[reserve[0], 1, 0, 0, 0, 0, 0, 0, 0, 0], &[], 0), IN_CDB);
    }
}

#[test]
fn the_two_kinds_of_reservation_do_not_mix() {
    let (_array, mut a, mut b, _) = three();
    assert_eq!(a.status(RESERVE[0]), GOOD);
    for host in [&mut a, &mut b] {
        assert_eq!(host.out(Register, None, 0, 1), CONFLICT, "whoever asks");
        let ask = In { action: InAction::ReadKeys, allocation: 8 }.cdb();
        assert_eq!(host.0.run(ask.bytes(), &[], 8).0.status, CONFLICT);
    }
    assert_eq!(a.status(RELEASE[0]), GOOD);
    a.register(1);
    for cdb in RESERVE.into_iter().chain(RELEASE) {
        assert_eq!((a.status(cdb), b.status(cdb)), (CONFLICT, CONFLICT));
    }
}

#[test]
fn reserve_of_a_nexus_that_has_access_does_nothing() {
    for kind in Type::ALL {
        let (array, mut holder, mut registrant, _) = registered();
        let mut stranger = Host::new(&array, 3, 1);
        assert_eq!(holder.out(Reserve, kind, 1, 0), GOOD);
        let has_access = if kind.is_for_registrants() { GOOD } else { CONFLICT };
        for cdb in RESERVE.into_iter().chain(RELEASE) {
            assert_eq!(holder.status(cdb), GOOD, "{kind}");
            assert_eq!(registrant.status(cdb), has_access, "{kind}");
            assert_eq!(stranger.status(cdb), CONFLICT, "{kind}");
        }
        assert_eq!(stranger.held().map(|held| held.1), Some(kind));
    }
}
