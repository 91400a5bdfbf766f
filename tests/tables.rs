//! `docs/tables.md` is made from the tables in the source, and this test keeps it true.
//! `UPDATE_DOCS=1 cargo test --test tables` writes it.

use std::fmt::Write;
use std::path::Path;

use vhost_user_scsi_mpath::lun::Row;
use vhost_user_scsi_mpath::lun::commands::{COMMANDS, Repeat, Route, UNKNOWN};
use vhost_user_scsi_mpath::multipath::classify::{Class, Executed, SENSES, Verdict, classify};
use vhost_user_scsi_mpath::multipath::hold::Wait;
use vhost_user_scsi_mpath::multipath::retry::{Next, Tries, Where, rule};
use vhost_user_scsi_mpath::path::{Answer, Failure, Fate, Reach, Residual};
use vhost_user_scsi_mpath::scsi::Status;

const INTRODUCTION: &str = "\
# The two tables

Made from the source (`src/lun/commands.rs`, `src/multipath/classify.rs`, `src/multipath/retry.rs`) by a test; do not edit.

## Commands

What the virtual LUN does with each command, and whether it is sent again when nobody knows if it was executed. A command
that is known *not* to have been executed is always sent again.

| sent again? | meaning |
|---|---|
| freely | it changes nothing: at once, over another path |
| after proof | its first attempt must be proven dead, or `write_quiesce` must have passed; commands that touch the same blocks wait meanwhile |
| never | executed twice it would do harm: the guest gets ABORTED COMMAND, once the first attempt cannot be executed any more |

What the array tells all other initiators' nexuses of a command, the guest does not hear over the other paths.

| opcode | command | what is done with it | sent again? | blocks | the others are told |
|---|---|---|---|---|---|
";

const RESULTS: &str = "
## Results

What the end of an attempt means. *Executed* tells of the command, *path* of the path, and the last three columns what
happens next to a command of each kind.

| result | executed? | path | freely | after proof | never |
|---|---|---|---|---|---|
";

fn route(row: &Row) -> &'static str {
    match row.route {
        Route::Answer(_) => "answered here, the same over every path",
        Route::Forward => "sent over the best path",
        Route::Pin => "sent, always over the same path",
        Route::Reserve => {
            "asked for over all paths, as one initiator ([reservations.md](reservations.md))"
        }
        Route::Refuse => "refused: ILLEGAL REQUEST",
    }
}

fn repeat(row: &Row) -> &'static str {
    match (row.route, row.repeat) {
        (Route::Answer(_) | Route::Reserve | Route::Refuse, _) => "-",
        (_, Repeat::Freely) => "freely",
        (_, Repeat::AfterProof) => "after proof",
        (_, Repeat::Never) => "never",
    }
}

fn command(row: &Row) -> String {
    let opcode = match (row.name, row.service_action) {
        (name, _) if name == UNKNOWN.name => "other".to_owned(),
        (_, Some(action)) => format!("{:02X}h/{action:02X}h", row.opcode),
        (_, None) => format!("{:02X}h", row.opcode),
    };
    let (blocks, told) = (row.blocks(), row.makes.map_or("-".to_owned(), |code| code.to_string()));
    format!("| {opcode} | {} | {} | {} | {blocks} | {told} |\n", row.name, route(row), repeat(row))
}

fn executed(executed: Executed) -> &'static str {
    match executed {
        Executed::Yes => "yes",
        Executed::No => "no",
        Executed::Perhaps => "perhaps, and not any more",
        Executed::Unknown => "unknown: it may still be",
        Executed::Parked => "unknown: it may still be, at any time",
    }
}

fn path(class: Class) -> String {
    match class {
        Class::PathFailed(_) | Class::Unmapped => "failed, until a probe succeeds".to_owned(),
        Class::Doubt(_) => "not used before it has told again who it is".to_owned(),
        Class::Access(state) => format!("its port is {state}"),
        Class::AccessChanged(_) => "its access state is read again".to_owned(),
        Class::SizeChanged => "the size is read again".to_owned(),
        Class::Conflict => "stays; registered again where it is alone with it".to_owned(),
        Class::Attention(_) => "stays; the guest hears of the event, once".to_owned(),
        _ => "stays".to_owned(),
    }
}

fn next(verdict: Verdict, repeat: Repeat) -> String {
    if verdict.class == Class::Conflict {
        return "another path, where the guest is registered; else to the guest".to_owned();
    }
    match rule(verdict, repeat, &mut Tries::default()).next {
        Next::Deliver => "to the guest".to_owned(),
        Next::Again { place, after } => {
            let place = match place {
                Where::Same => "same path",
                Where::Elsewhere => "another path",
                Where::Anywhere => "any path",
            };
            after.map_or_else(
                || format!("{place}, at once"),
                |after| format!("{place}, after {} ms", after.as_millis()),
            )
        }
        Next::Prove(Wait::Quiesce) => "again after proof or `write_quiesce`".to_owned(),
        Next::Prove(Wait::Proof) => "again after proof alone".to_owned(),
        Next::Prove(Wait::Nothing) => "again when its blocks are held".to_owned(),
        Next::Abort => "ABORTED COMMAND".to_owned(),
        Next::Unsupported => "ILLEGAL REQUEST".to_owned(),
        Next::Exhausted => "given up".to_owned(),
    }
}

fn result(name: &str, verdict: Verdict) -> String {
    let next = |repeat| next(verdict, repeat);
    format!(
        "| {name} | {} | {} | {} | {} | {} |\n",
        executed(verdict.executed),
        path(verdict.class),
        next(Repeat::Freely),
        next(Repeat::AfterProof),
        next(Repeat::Never)
    )
}

fn statuses() -> String {
    let status = |status: Status| {
        let answer = Answer { status, sense: None, residual: Residual::None };
        result(&status.to_string(), classify(&Fate::Answered(answer)))
    };
    [
        Status::GOOD,
        Status::CONDITION_MET,
        Status::BUSY,
        Status::TASK_SET_FULL,
        Status::RESERVATION_CONFLICT,
        Status::ACA_ACTIVE,
        Status::TASK_ABORTED,
    ]
    .map(status)
    .concat()
}

fn senses() -> String {
    let code = |code: Option<u8>| code.map_or("any".to_owned(), |code| format!("{code:02X}h"));
    let mut text = String::new();
    for row in SENSES {
        let name = format!("{} {}/{}", row.key, code(row.asc), code(row.ascq));
        text += &result(&name, Verdict { class: row.class, executed: row.executed });
    }
    let last_word = Verdict { class: Class::Done, executed: Executed::Yes };
    text += &result("any other sense, and deferred errors", last_word);
    text
}

fn failures() -> String {
    let mut text = String::new();
    for (name, failure) in [
        ("connection lost", Failure::Disconnected),
        ("an error of the host's transport", Failure::Transient),
        ("no answer in time", Failure::Recalled),
        ("protocol error", Failure::Protocol),
    ] {
        for (how, reach) in [
            ("never sent", Reach::NotSent),
            ("proven dead", Reach::Terminated),
            ("no proof", Reach::Unknown),
            ("parked in the host", Reach::Parked),
        ] {
            let verdict = classify(&Fate::Failed(failure, reach));
            text += &result(&format!("{name}, {how}"), verdict);
        }
    }
    for (name, failure) in [
        ("the host lacks memory or tags", Failure::HostBusy),
        ("the transport cannot carry it", Failure::Unsupported),
    ] {
        text += &result(name, classify(&Fate::Failed(failure, Reach::NotSent)));
    }
    text
}

#[test]
fn tables_are_those_of_the_source() {
    let mut text = String::from(INTRODUCTION);
    for row in COMMANDS.iter().chain([&UNKNOWN]) {
        text += &command(row);
    }
    let _ = write!(text, "{RESULTS}{}{}{}", statuses(), senses(), failures());
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/tables.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&file, &text).expect("docs can be written");
    }
    let written = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(written == text, "docs/tables.md is old: UPDATE_DOCS=1 cargo test --test tables");
}
