//! The rules of persistent reservations (SPC-5 5.14), without anything around them.

use super::standing::Standing;
use crate::limits::EMULATED_REGISTRATIONS_MAX;
use crate::scsi::Asc;
use crate::scsi::reservation::{
    Capabilities, FullStatus, Held, Key, Keys, Out, OutAction, Parameters, Registrant, Reservation,
    TransportId, Type, TypeMask, parameters,
};

/// An I_T nexus: an initiator port and a target port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Nexus {
    /// The initiator port.
    pub initiator: TransportId,
    /// RELATIVE TARGET PORT IDENTIFIER of the target port.
    pub port: u16,
}

/// Why a PERSISTENT RESERVE OUT changed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denial {
    /// RESERVATION CONFLICT.
    Conflict,
    /// SCOPE or TYPE does not exist.
    ScopeOrType,
    /// The service action is not supported.
    ServiceAction,
    /// The field at this byte of the parameter list is wrong.
    Parameter(u16),
    /// INVALID RELEASE OF PERSISTENT RESERVATION.
    InvalidRelease,
    /// INSUFFICIENT REGISTRATION RESOURCES.
    NoRoom,
}

/// What a nexus is told by a unit attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// CLEAR took its registration.
    ReservationsPreempted,
    /// The reservation that its registration was good for has ended or changed.
    ReservationsReleased,
    /// A PREEMPT took its registration.
    RegistrationsPreempted,
}

impl Notice {
    /// The unit attention's code.
    pub fn asc(self) -> Asc {
        match self {
            Notice::ReservationsPreempted => Asc::RESERVATIONS_PREEMPTED,
            Notice::ReservationsReleased => Asc::RESERVATIONS_RELEASED,
            Notice::RegistrationsPreempted => Asc::REGISTRATIONS_PREEMPTED,
        }
    }
}

/// What was changed: nothing, or what these nexuses are told.
type Outcome = Result<Vec<(Nexus, Notice)>, Denial>;

/// Where SERVICE ACTION RESERVATION KEY stands in the parameter list.
const ACTION_KEY: u16 = 8;

#[derive(Clone, Debug, PartialEq, Eq)]
struct Registration {
    nexus: Nexus,
    key: Key,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Reserved {
    kind: Type,
    /// `None` where each registered nexus is a holder.
    holder: Option<Nexus>,
}

/// Registrations and reservation of a logical unit.
///
/// Nothing here is changed by a request that is denied. A reservation without a registered holder
/// does not exist.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    registrations: Vec<Registration>,
    reserved: Option<Reserved>,
    generation: u32,
    aptpl: bool,
}

impl State {
    /// PERSISTENT RESERVE OUT from a nexus.
    pub fn out(&mut self, from: &Nexus, command: &Out, parameters: &Parameters) -> Outcome {
        let everywhere = command.action.registers() && parameters.all_target_ports;
        if parameters.initiator_ports.is_some() || everywhere {
            return Err(Denial::Parameter(parameters::FLAGS));
        }
        match command.action {
            OutAction::Register => self.register(from, Some(parameters.key), parameters),
            OutAction::RegisterAndIgnoreExistingKey => self.register(from, None, parameters),
            OutAction::Reserve => self.reserve(from, command, parameters.key),
            OutAction::Release => self.release(from, command, parameters.key),
            OutAction::Clear => self.clear(from, parameters.key),
            OutAction::Preempt | OutAction::PreemptAndAbort => {
                self.preempt(from, command, parameters)
            }
            OutAction::RegisterAndMove | OutAction::ReplaceLostReservation => {
                Err(Denial::ServiceAction)
            }
        }
    }

    /// REGISTER, which must know the registered key, and REGISTER AND IGNORE EXISTING KEY (SPC-5
    /// 5.14.7). APTPL is what the last of them said, whichever nexus it came from.
    fn register(&mut self, from: &Nexus, known: Option<Key>, given: &Parameters) -> Outcome {
        let registered = self.key_of(from);
        if known.is_some_and(|known| known != registered.unwrap_or(Key::NONE)) {
            return Err(Denial::Conflict);
        }
        let key = given.action_key;
        let mut notices = Vec::new();
        match registered {
            // There is nothing to remove, so nothing is done that a generation would count.
            None if key.is_none() => return Ok(notices),
            None if self.registrations.len() >= EMULATED_REGISTRATIONS_MAX => {
                return Err(Denial::NoRoom);
            }
            None => self.registrations.push(Registration { nexus: from.clone(), key }),
            Some(_) if key.is_none() => notices = self.unregister(from),
            Some(_) => {
                let own = self.registrations.iter_mut().filter(|one| one.nexus == *from);
                own.for_each(|one| one.key = key);
            }
        }
        self.aptpl = given.aptpl;
        self.generation = self.generation.wrapping_add(1);
        Ok(notices)
    }

    /// A holder that goes takes the reservation with it (SPC-5 5.14.11.2).
    fn unregister(&mut self, from: &Nexus) -> Vec<(Nexus, Notice)> {
        let held = self.held_by(from);
        self.registrations.retain(|one| one.nexus != *from);
        match held {
            Some(kind) if !kind.is_all_registrants() || self.registrations.is_empty() => {
                self.end(kind, from)
            }
            _ => Vec::new(),
        }
    }

    /// RESERVE (SPC-5 5.14.9).
    fn reserve(&mut self, from: &Nexus, command: &Out, key: Key) -> Outcome {
        let kind = command.kind().ok_or(Denial::ScopeOrType)?;
        self.must_know(from, key)?;
        if self.reserved.is_none() {
            self.reserve_for(from, kind);
        } else if self.held_by(from) != Some(kind) {
            return Err(Denial::Conflict);
        }
        Ok(Vec::new())
    }

    /// RELEASE (SPC-5 5.14.11.1).
    fn release(&mut self, from: &Nexus, command: &Out, key: Key) -> Outcome {
        self.must_know(from, key)?;
        match self.held_by(from) {
            None => Ok(Vec::new()),
            Some(kind) if command.kind() == Some(kind) => Ok(self.end(kind, from)),
            Some(_) => Err(Denial::InvalidRelease),
        }
    }

    /// CLEAR (SPC-5 5.14.11.6).
    fn clear(&mut self, from: &Nexus, key: Key) -> Outcome {
        self.must_know(from, key)?;
        let notices = self.tell_others(from, Notice::ReservationsPreempted);
        self.registrations.clear();
        self.reserved = None;
        self.generation = self.generation.wrapping_add(1);
        Ok(notices)
    }

    /// PREEMPT and PREEMPT AND ABORT (SPC-5 5.14.11.4). What is aborted is not known here.
    fn preempt(&mut self, from: &Nexus, command: &Out, given: &Parameters) -> Outcome {
        self.must_know(from, given.key)?;
        let victim = given.action_key;
        let taken = self.reserved.as_ref().filter(|reserved| match &reserved.holder {
            Some(holder) => self.key_of(holder) == Some(victim),
            None => victim.is_none(),
        });
        let notices = match taken.map(|reserved| reserved.kind) {
            Some(old) => {
                let kind = command.kind().ok_or(Denial::ScopeOrType)?;
                let mut notices = self.remove(from, |one| {
                    one.nexus != *from && (old.is_all_registrants() || one.key == victim)
                });
                if kind != old {
                    notices.extend(self.tell_others(from, Notice::ReservationsReleased));
                }
                self.reserve_for(from, kind);
                notices
            }
            None if victim.is_none() => return Err(Denial::Parameter(ACTION_KEY)),
            None if !self.registrations.iter().any(|one| one.key == victim) => {
                return Err(Denial::Conflict);
            }
            // The preempting nexus itself is not spared.
            None => self.remove(from, |one| one.key == victim),
        };
        if self.registrations.is_empty() {
            self.reserved = None;
        }
        self.generation = self.generation.wrapping_add(1);
        Ok(notices)
    }

    /// Removes registrations, and tells those who lost them.
    fn remove(
        &mut self,
        from: &Nexus,
        lost: impl Fn(&Registration) -> bool,
    ) -> Vec<(Nexus, Notice)> {
        let gone = self.registrations.extract_if(.., |one| lost(one));
        gone.filter(|one| one.nexus != *from)
            .map(|one| (one.nexus, Notice::RegistrationsPreempted))
            .collect()
    }

    /// Ends the reservation. Registered nexuses had access by it where it was for registrants.
    fn end(&mut self, kind: Type, from: &Nexus) -> Vec<(Nexus, Notice)> {
        self.reserved = None;
        match kind.is_for_registrants() {
            true => self.tell_others(from, Notice::ReservationsReleased),
            false => Vec::new(),
        }
    }

    fn tell_others(&self, from: &Nexus, notice: Notice) -> Vec<(Nexus, Notice)> {
        let others = self.registrations.iter().filter(|one| one.nexus != *from);
        others.map(|one| (one.nexus.clone(), notice)).collect()
    }

    fn reserve_for(&mut self, from: &Nexus, kind: Type) {
        let holder = (!kind.is_all_registrants()).then(|| from.clone());
        self.reserved = Some(Reserved { kind, holder });
    }

    fn must_know(&self, from: &Nexus, key: Key) -> Result<(), Denial> {
        if self.key_of(from) == Some(key) { Ok(()) } else { Err(Denial::Conflict) }
    }

    fn key_of(&self, nexus: &Nexus) -> Option<Key> {
        self.registrations.iter().find(|one| one.nexus == *nexus).map(|one| one.key)
    }

    /// The type of the reservation that this nexus holds, alone or with others.
    fn held_by(&self, nexus: &Nexus) -> Option<Type> {
        let reserved = self.reserved.as_ref()?;
        let holds = match &reserved.holder {
            Some(holder) => holder == nexus,
            None => self.key_of(nexus).is_some(),
        };
        holds.then_some(reserved.kind)
    }

    /// What a nexus may do.
    pub fn standing(&self, nexus: &Nexus) -> Standing {
        let Some(reserved) = &self.reserved else { return Standing::Free };
        let by_registration = reserved.kind.is_for_registrants() && self.key_of(nexus).is_some();
        if by_registration || self.held_by(nexus).is_some() {
            return Standing::Free;
        }
        match reserved.kind.is_exclusive_access() {
            true => Standing::ExclusiveAccess,
            false => Standing::WriteExclusive,
        }
    }

    /// What RESERVE and RELEASE of SPC-2 come to with CRH (SPC-5 5.14.3): nothing where the nexus
    /// has by this reservation what it asks for, a conflict for others, and `None` where nobody
    /// is registered: then SPC-2 says.
    pub fn legacy(&self, nexus: &Nexus) -> Option<Result<(), Denial>> {
        if self.registrations.is_empty() {
            return None;
        }
        let has_access = self.reserved.is_some() && self.standing(nexus) == Standing::Free;
        Some(if has_access { Ok(()) } else { Err(Denial::Conflict) })
    }

    /// READ KEYS.
    pub fn keys(&self) -> Keys {
        let keys = self.registrations.iter().map(|one| one.key).collect();
        Keys { generation: self.generation, keys }
    }

    /// READ RESERVATION.
    pub fn reservation(&self) -> Reservation {
        let held = self.reserved.as_ref().map(|reserved| {
            let key = reserved.holder.as_ref().and_then(|holder| self.key_of(holder));
            Held::new(key.unwrap_or(Key::NONE), reserved.kind)
        });
        Reservation { generation: self.generation, held }
    }

    /// REPORT CAPABILITIES of a device server with these rules; `persist` where there is a place
    /// for what APTPL keeps.
    pub fn capabilities(&self, persist: bool) -> Capabilities {
        /// TEST UNIT READY is taken under every reservation; MODE SENSE and the like under the
        /// Write Exclusive types.
        const ALLOW_COMMANDS: u8 = 0b011;
        Capabilities {
            compatible_handling: true,
            persist,
            persist_active: self.aptpl,
            allow_commands: ALLOW_COMMANDS,
            types: Some(TypeMask::of(&Type::ALL)),
            ..Capabilities::default()
        }
    }

    /// READ FULL STATUS.
    pub fn full_status(&self) -> FullStatus {
        let registrant = |one: &Registration| Registrant {
            key: one.key,
            holds: self.held_by(&one.nexus),
            target_port: Some(one.nexus.port),
            initiator_port: one.nexus.initiator.clone(),
        };
        let registrants = self.registrations.iter().map(registrant).collect();
        FullStatus { generation: self.generation, registrants }
    }

    /// What is lost with the power: everything but the generation where APTPL says so, and the
    /// generation always (SPC-5 6.16.2).
    pub fn power_cycle(&mut self) {
        *self = self.kept().and_then(State::restored).unwrap_or_default();
    }

    /// What APTPL keeps; `None` where there is nothing to keep.
    pub fn kept(&self) -> Option<FullStatus> {
        let something = self.aptpl && !self.registrations.is_empty();
        something.then(|| FullStatus { generation: 0, ..self.full_status() })
    }

    /// The state that was kept. `None` where no array can have kept it.
    pub fn restored(kept: FullStatus) -> Option<Self> {
        let mut state = State { aptpl: true, ..State::default() };
        for registrant in kept.registrants {
            let Registrant { key, holds, target_port, initiator_port } = registrant;
            let nexus = Nexus { initiator: initiator_port, port: target_port? };
            if key.is_none() || state.key_of(&nexus).is_some() {
                return None;
            }
            match (holds, &state.reserved) {
                (Some(kind), None) => state.reserve_for(&nexus, kind),
                (Some(kind), Some(same)) if same.kind == kind && same.holder.is_none() => {}
                (Some(_), Some(_)) => return None,
                (None, _) => {}
            }
            state.registrations.push(Registration { nexus, key });
        }
        let full = state.registrations.len() > EMULATED_REGISTRATIONS_MAX;
        (!full && !state.registrations.is_empty()).then_some(state)
    }
}
