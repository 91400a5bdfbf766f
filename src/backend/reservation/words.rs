//! The core's words in those of the state file and of the control socket.

use std::path::PathBuf;

use crate::control::{self, Holder, PathRegistration, ReservationReport, StateKeeping};
use crate::multipath::reservation::{Holding, Record, Registration, Standing};
use crate::state::kept::{key_word, type_word};
use crate::state::{self, Kept};

/// What was kept, as the core has it.
pub fn record(kept: &Kept) -> Record {
    Record {
        key: kept.key,
        coming: kept.coming,
        aptpl: kept.aptpl,
        generation: kept.generation,
        array_generation: kept.array_generation,
        reservation: kept
            .reservation
            .as_ref()
            .map(|held| Holding { kind: held.kind, holder: held.holder.clone() }),
    }
}

/// What is to be kept, as the file has it.
pub fn kept(record: &Record) -> Kept {
    Kept {
        key: record.key,
        coming: record.coming,
        aptpl: record.aptpl,
        generation: record.generation,
        array_generation: record.array_generation,
        reservation: record
            .reservation
            .as_ref()
            .map(|held| state::Holding { kind: held.kind, holder: held.holder.clone() }),
    }
}

/// `query-reservation`: whether state is kept, where, and why reservations are refused; and what
/// stands.
pub fn report(
    wwid: Option<String>,
    (state, state_file, reason): (StateKeeping, Option<PathBuf>, String),
    standing: &Standing,
) -> ReservationReport {
    let Standing { record, paths, others, .. } = standing;
    let held = record.reservation.as_ref();
    let path = |(name, registered): &(String, Registration)| PathRegistration {
        name: name.clone(),
        registration: registration(*registered),
    };
    ReservationReport {
        wwid,
        state,
        state_file,
        reason,
        key: record.key.map(key_word),
        aptpl: record.aptpl,
        generation: record.generation,
        kind: held.map(|held| type_word(held.kind).to_owned()),
        holder: held.map(|_| Holder::Guest),
        holder_path: held.and_then(|held| held.holder.clone()),
        holder_key: held.and(record.key).map(key_word),
        paths: paths.iter().map(path).collect(),
        others: others.iter().copied().map(key_word).collect(),
    }
}

fn registration(registration: Registration) -> control::Registration {
    match registration {
        Registration::None => control::Registration::None,
        Registration::Registered => control::Registration::Registered,
        Registration::Pending => control::Registration::Pending,
        Registration::Fenced => control::Registration::Fenced,
    }
}
