//! PERSISTENT RESERVE IN and OUT, RESERVE and RELEASE: from the bytes to the unit and back.

use crate::limits::EMULATED_RESERVATION_LIST_MAX;
use crate::path::emulated::execute::Call;
use crate::path::emulated::reply::{Done, Refusal, Reply};
use crate::scsi::reservation::{In, ListError, Out, OutAction, Parameters};
use crate::scsi::{Asc, Status};

/// PERSISTENT RESERVE IN (SPC-5 6.16).
pub(in crate::path::emulated) fn persistent_reserve_in(call: &Call<'_>) -> Reply {
    let command = In::parse(call.cdb).ok_or_else(|| Refusal::in_cdb(1))?;
    let data = call.array().persistent_in(command.action)?;
    call.send(&data, usize::from(command.allocation))
}

/// PERSISTENT RESERVE OUT (SPC-5 6.17).
pub(in crate::path::emulated) fn persistent_reserve_out(call: &Call<'_>) -> Reply {
    let command = Out::parse(call.cdb).ok_or_else(|| Refusal::in_cdb(1))?;
    let parameters = parameters(call, &command)?;
    let array = call.array();
    let out = || array.persistent_out(call.port, &command, &parameters);
    match command.action {
        // Ends what is under way. Only writes can be: a read that ends later changes nothing, and
        // everything else is done at once. They are waited for and not taken back from the
        // kernel, and one that has not begun finds itself shut out (`Call::in_turn`).
        OutAction::PreemptAndAbort => {
            array.exclusion.alone(out).unwrap_or(Err(Refusal::Status(Status::BUSY)))?;
        }
        _ => out()?,
    }
    Ok(Done::good(u64::from(command.length)))
}

/// The parameter list, as long as the CDB says.
fn parameters(call: &Call<'_>, command: &Out) -> Result<Parameters, Refusal> {
    let error = || Refusal::illegal(Asc::PARAMETER_LIST_LENGTH_ERROR);
    let length = command.length as usize;
    if length > EMULATED_RESERVATION_LIST_MAX {
        return Err(error());
    }
    let mut list = vec![0; length];
    if call.data_out.read_at(0, &mut list) < length {
        return Err(error());
    }
    Parameters::parse(&list).map_err(|wrong| match wrong {
        ListError::Length => error(),
        ListError::Field(byte) => Refusal::in_parameters(byte),
    })
}

/// RESERVE(6) and (10) (SPC-2 7.21, 7.22), for the whole unit and this nexus.
pub(in crate::path::emulated) fn reserve(call: &Call<'_>) -> Reply {
    no_third_party(call)?;
    call.array().reserve(call.port).map(|()| Done::good(0))
}

/// RELEASE(6) and (10) (SPC-2 7.16, 7.17).
pub(in crate::path::emulated) fn release(call: &Call<'_>) -> Reply {
    no_third_party(call)?;
    call.array().release(call.port).map(|()| Done::good(0))
}

/// Third-party and extent reservations are obsolete.
fn no_third_party(call: &Call<'_>) -> Result<(), Refusal> {
    if call.cdb.padded()[1] & 0x1F != 0 { Err(Refusal::in_cdb(1)) } else { Ok(()) }
}
