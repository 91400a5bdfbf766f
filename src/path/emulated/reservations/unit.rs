//! The unit's reservations: one lock for all that belongs together, and telling whom it concerns.

use std::sync::{Arc, Mutex};

use super::keep::Keep;
use super::standing::Standing;
use super::{Denial, Nexus, Notice, State};
use crate::path::emulated::array::Array;
use crate::path::emulated::attention::Attention;
use crate::path::emulated::lock;
use crate::path::emulated::port::PortState;
use crate::path::emulated::reply::{Detail, Refusal};
use crate::scsi::reservation::{InAction, Out, Parameters};
use crate::scsi::{Asc, SenseKey, Status};

/// Reservations of a unit.
#[derive(Debug)]
pub(in crate::path::emulated) struct Reservations {
    keep: Keep,
    now: Mutex<Now>,
}

#[derive(Debug, Default)]
struct Now {
    persistent: State,
    /// The nexus that has reserved the unit by RESERVE. Not together with registrations.
    reserved_by: Option<u64>,
}

impl Reservations {
    /// Of a unit that has just been powered on.
    pub(in crate::path::emulated) fn new(keep: Keep, persistent: State) -> Self {
        Reservations { keep, now: Mutex::new(Now { persistent, reserved_by: None }) }
    }

    /// True where what lasts is in a file.
    pub(in crate::path::emulated) fn are_in_a_file(&self) -> bool {
        matches!(self.keep, Keep::File(_))
    }
}

impl Now {
    fn standing(&self, port: &PortState) -> Standing {
        match self.reserved_by {
            Some(nexus) if nexus != port.nexus => Standing::Reserved,
            _ => self.persistent.standing(&port.identity),
        }
    }
}

impl Array {
    /// Has something changed, and then each port its standing. What is told to a nexus is told
    /// when the change is there for it to see.
    fn change_reservations<T>(
        &self,
        change: impl FnOnce(&Reservations, &mut Now) -> Result<(T, Vec<(Nexus, Notice)>), Refusal>,
    ) -> Result<T, Refusal> {
        // Declared first to be dropped last: a port that ends here gives back what it reserved,
        // and needs the lock for it.
        let ports: Vec<Arc<PortState>>;
        let mut now = lock(&self.reservations.now);
        let (result, notices) = change(&self.reservations, &mut now)?;
        ports = self.ports();
        for port in &ports {
            port.standing.set(now.standing(port));
            for (_, notice) in notices.iter().filter(|(to, _)| *to == port.identity) {
                port.attentions.post(Attention::from(*notice));
            }
        }
        drop(now);
        Ok(result)
    }

    /// PERSISTENT RESERVE OUT.
    pub(super) fn persistent_out(
        &self,
        port: &PortState,
        command: &Out,
        parameters: &Parameters,
    ) -> Result<(), Refusal> {
        self.change_reservations(|reservations, now| {
            if now.reserved_by.is_some() {
                return Err(Refusal::Status(Status::RESERVATION_CONFLICT));
            }
            if command.action.registers() && parameters.aptpl && !reservations.keep.can() {
                let flags = crate::scsi::reservation::parameters::FLAGS;
                return Err(Refusal::in_parameters(flags));
            }
            let mut next = now.persistent.clone();
            let notices = next.out(&port.identity, command, parameters)?;
            reservations.keep.store(&now.persistent, &next).map_err(|error| {
                log::warn!("the reservations of {} cannot be kept: {error}", self.wwid());
                let (key, asc) = (SenseKey::HardwareError, Asc::INTERNAL_TARGET_FAILURE);
                Refusal::Check(key, asc, Detail::None)
            })?;
            now.persistent = next;
            Ok(((), notices))
        })
    }

    /// The parameter data of PERSISTENT RESERVE IN.
    pub(super) fn persistent_in(&self, action: InAction) -> Result<Vec<u8>, Refusal> {
        let now = lock(&self.reservations.now);
        if now.reserved_by.is_some() {
            // SPC-2 5.5.1: whoever asks.
            return Err(Refusal::Status(Status::RESERVATION_CONFLICT));
        }
        let state = &now.persistent;
        Ok(match action {
            InAction::ReadKeys => state.keys().bytes(),
            InAction::ReadReservation => state.reservation().bytes(),
            InAction::ReportCapabilities => {
                state.capabilities(self.reservations.keep.can()).bytes().to_vec()
            }
            InAction::ReadFullStatus => state.full_status().bytes(),
        })
    }

    /// RESERVE (SPC-2 7.21).
    pub(super) fn reserve(&self, port: &PortState) -> Result<(), Refusal> {
        self.change_reservations(|_, now| {
            if let Some(answer) = now.persistent.legacy(&port.identity) {
                answer?;
            } else if *now.reserved_by.get_or_insert(port.nexus) != port.nexus {
                return Err(Refusal::Status(Status::RESERVATION_CONFLICT));
            }
            Ok(((), Vec::new()))
        })
    }

    /// RELEASE (SPC-2 7.16): no error for a nexus that holds nothing.
    pub(super) fn release(&self, port: &PortState) -> Result<(), Refusal> {
        self.change_reservations(|_, now| {
            match now.persistent.legacy(&port.identity) {
                Some(answer) => answer?,
                None => now.reserved_by = now.reserved_by.filter(|nexus| *nexus != port.nexus),
            }
            Ok(((), Vec::new()))
        })
    }

    /// A nexus is lost, and with it what it reserved by RESERVE (SPC-2 5.5.1). Registrations stay.
    pub(in crate::path::emulated) fn lose_nexus(&self, nexus: u64) {
        self.update_reservations(|now| {
            now.reserved_by = now.reserved_by.filter(|holder| *holder != nexus);
        });
    }

    /// A new port has to have its standing.
    pub(in crate::path::emulated) fn place_ports(&self) {
        self.update_reservations(|_| ());
    }

    /// The power was gone for a moment.
    pub(in crate::path::emulated) fn forget_reservations(&self) {
        self.update_reservations(|now| {
            now.persistent.power_cycle();
            now.reserved_by = None;
        });
    }

    fn update_reservations(&self, update: impl FnOnce(&mut Now)) {
        let updated = self.change_reservations(|_, now| {
            update(now);
            Ok(((), Vec::new()))
        });
        debug_assert!(updated.is_ok());
    }
}

impl From<Denial> for Refusal {
    fn from(denial: Denial) -> Self {
        match denial {
            Denial::Conflict => Refusal::Status(Status::RESERVATION_CONFLICT),
            Denial::ServiceAction => Refusal::in_cdb(1),
            Denial::ScopeOrType => Refusal::in_cdb(2),
            Denial::Parameter(byte) => Refusal::in_parameters(byte),
            Denial::InvalidRelease => Refusal::illegal(Asc::INVALID_RELEASE),
            Denial::NoRoom => Refusal::illegal(Asc::INSUFFICIENT_REGISTRATION_RESOURCES),
        }
    }
}
