//! A model of reservations, written from the standard's sentences and not from the array's code:
//! six nexuses in a row, numbers for everything, and one step for each command.
//!
//! Each rule that [`Mutant`] names can be broken, to see that the comparison would notice.

use std::collections::BTreeSet;

use crate::scsi::Asc;

/// Nexuses of the model: three initiators, two target ports.
pub(super) const NEXUSES: usize = 6;

/// A rule to break.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mutant {
    RegisterNeedsNoKey,
    EmptyRegisterCounts,
    ReserveCounts,
    GenerationOutlivesPower,
    AptplIsForEver,
    SameKeyHolds,
    ReserveChangesType,
    ReleaseByAnyRegistrant,
    ReleaseOfAnyType,
    ReleaseTellsAlways,
    ReleaseTellsNobody,
    UnregisterKeepsReservation,
    AllRegistrantsEndWithTheirFirst,
    AllRegistrantsShowAKey,
    ClearTellsOfPreemption,
    PreemptSparesItself,
    PreemptSparesSiblings,
    PreemptTellsTheWinner,
    PreemptChangesTypeSilently,
    PreemptTakesNoKey,
    PreemptNeedsNoVictim,
    WriteExclusiveIsForRegistrants,
    ExclusiveAccessLetsReadersIn,
    RegistrantsOnlyShutsOutRegistrants,
    ReserveIgnoresRegistrations,
    ReserveOutlivesItsNexus,
}

/// All of them.
pub(super) const MUTANTS: [Mutant; 26] = {
    use Mutant::*;
    [
        RegisterNeedsNoKey,
        EmptyRegisterCounts,
        ReserveCounts,
        GenerationOutlivesPower,
        AptplIsForEver,
        SameKeyHolds,
        ReserveChangesType,
        ReleaseByAnyRegistrant,
        ReleaseOfAnyType,
        ReleaseTellsAlways,
        ReleaseTellsNobody,
        UnregisterKeepsReservation,
        AllRegistrantsEndWithTheirFirst,
        AllRegistrantsShowAKey,
        ClearTellsOfPreemption,
        PreemptSparesItself,
        PreemptSparesSiblings,
        PreemptTellsTheWinner,
        PreemptChangesTypeSilently,
        PreemptTakesNoKey,
        PreemptNeedsNoVictim,
        WriteExclusiveIsForRegistrants,
        ExclusiveAccessLetsReadersIn,
        RegistrantsOnlyShutsOutRegistrants,
        ReserveIgnoresRegistrations,
        ReserveOutlivesItsNexus,
    ]
};

/// What a command comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Good,
    Conflict,
    /// CHECK CONDITION, ILLEGAL REQUEST with this code.
    Illegal(Asc),
}

/// What a command does, as far as reservations care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// INQUIRY and its like.
    Always,
    /// TEST UNIT READY.
    Ready,
    Read,
    Write,
}

/// PERSISTENT RESERVE OUT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Order {
    pub(super) action: u8,
    pub(super) kind: u8,
    pub(super) key: u64,
    pub(super) action_key: u64,
    pub(super) aptpl: bool,
}

/// The unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Model {
    mutant: Option<Mutant>,
    /// The key of each nexus; 0 without a registration.
    pub(super) keys: [u64; NEXUSES],
    /// The type, 0 without a reservation.
    pub(super) kind: u8,
    /// The holder, where the type is not for all registrants.
    pub(super) holder: usize,
    pub(super) generation: u32,
    pub(super) aptpl: bool,
    /// Who has reserved by RESERVE.
    pub(super) reserved: Option<usize>,
    /// What each nexus has still to be told.
    pub(super) pending: [BTreeSet<Asc>; NEXUSES],
}

impl Model {
    pub(super) fn new(mutant: Option<Mutant>) -> Self {
        Model {
            mutant,
            keys: [0; NEXUSES],
            kind: 0,
            holder: 0,
            generation: 0,
            aptpl: false,
            reserved: None,
            pending: Default::default(),
        }
    }

    fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    fn is_all_registrants(&self) -> bool {
        self.kind == 7 || self.kind == 8
    }

    /// A persistent reservation holder: the nexus that made the reservation or, with an all
    /// registrants type, any registered nexus.
    pub(super) fn holds(&self, nexus: usize) -> bool {
        if self.kind == 0 || self.keys[nexus] == 0 {
            return false;
        }
        let same_key = self.is(Mutant::SameKeyHolds) && self.keys[nexus] == self.keys[self.holder];
        self.is_all_registrants() || self.holder == nexus || same_key
    }

    fn tell(&mut self, nexus: usize, asc: Asc) {
        self.pending[nexus].insert(asc);
    }

    /// A unit attention for every registered nexus but this one.
    fn tell_registered(&mut self, except: usize, asc: Asc) {
        for other in (0..NEXUSES).filter(|other| *other != except) {
            if self.keys[other] != 0 {
                self.tell(other, asc);
            }
        }
    }

    /// The key that READ RESERVATION shows.
    pub(super) fn shown_key(&self) -> u64 {
        match self.is_all_registrants() && !self.is(Mutant::AllRegistrantsShowAKey) {
            true => 0,
            false => self.keys[self.holder],
        }
    }

    /// A command that is neither PERSISTENT RESERVE nor RESERVE nor RELEASE.
    pub(super) fn access(&self, nexus: usize, access: Access) -> End {
        if access == Access::Always {
            return End::Good;
        }
        if let Some(holder) = self.reserved {
            return if holder == nexus { End::Good } else { End::Conflict };
        }
        if self.kind == 0 || access == Access::Ready || self.holds(nexus) {
            return End::Good;
        }
        let mut for_registrants = self.kind >= 5;
        if self.is(Mutant::WriteExclusiveIsForRegistrants) && self.kind == 1 {
            for_registrants = true;
        }
        if self.is(Mutant::RegistrantsOnlyShutsOutRegistrants) && self.kind == 6 {
            for_registrants = false;
        }
        if for_registrants && self.keys[nexus] != 0 {
            return End::Good;
        }
        let exclusive_access =
            [3, 6, 8].contains(&self.kind) && !self.is(Mutant::ExclusiveAccessLetsReadersIn);
        match access == Access::Read && !exclusive_access {
            true => End::Good,
            false => End::Conflict,
        }
    }

    /// PERSISTENT RESERVE IN: taken from anybody, but not beside a RESERVE.
    pub(super) fn ask(&self) -> End {
        if self.reserved.is_some() { End::Conflict } else { End::Good }
    }

    /// RESERVE and RELEASE.
    pub(super) fn legacy(&mut self, nexus: usize, reserve: bool) -> End {
        let registered = self.keys.iter().any(|key| *key != 0);
        if registered && !self.is(Mutant::ReserveIgnoresRegistrations) {
            let member = self.kind >= 5 && self.keys[nexus] != 0;
            return if self.holds(nexus) || member { End::Good } else { End::Conflict };
        }
        match (reserve, self.reserved) {
            (true, Some(holder)) if holder != nexus => return End::Conflict,
            (true, _) => self.reserved = Some(nexus),
            (false, Some(holder)) if holder == nexus => self.reserved = None,
            (false, _) => {}
        }
        End::Good
    }

    /// PERSISTENT RESERVE OUT.
    pub(super) fn order(&mut self, nexus: usize, order: Order) -> End {
        if self.reserved.is_some() {
            return End::Conflict;
        }
        match order.action {
            0 | 6 => return self.register(nexus, order),
            // RESERVE looks at its CDB first: a type that does not exist is a wrong CDB.
            1 if !is_type(order.kind) => return End::Illegal(Asc::INVALID_FIELD_IN_CDB),
            _ => {}
        }
        if self.keys[nexus] == 0 || self.keys[nexus] != order.key {
            return End::Conflict;
        }
        match order.action {
            1 => self.reserve(nexus, order.kind),
            2 => self.release(nexus, order.kind),
            3 => self.clear(nexus),
            _ => self.preempt(nexus, order),
        }
    }

    fn register(&mut self, nexus: usize, order: Order) -> End {
        let careless = order.action == 6 || self.is(Mutant::RegisterNeedsNoKey);
        if !careless && self.keys[nexus] != order.key {
            return End::Conflict;
        }
        if self.keys[nexus] == 0 && order.action_key == 0 {
            self.generation += u32::from(self.is(Mutant::EmptyRegisterCounts));
            return End::Good;
        }
        if order.action_key == 0 {
            self.unregister(nexus);
        } else {
            self.keys[nexus] = order.action_key;
        }
        self.aptpl = order.aptpl || (self.aptpl && self.is(Mutant::AptplIsForEver));
        self.generation += 1;
        End::Good
    }

    fn unregister(&mut self, nexus: usize) {
        let held = self.holds(nexus);
        self.keys[nexus] = 0;
        let last = self.keys.iter().all(|key| *key == 0);
        let first = self.is(Mutant::AllRegistrantsEndWithTheirFirst);
        let ends = held && (!self.is_all_registrants() || last || first);
        let kept = self.is(Mutant::UnregisterKeepsReservation) && !last;
        if ends && !kept {
            self.end(nexus);
        }
    }

    /// The reservation is released, and registrants are told where the type was made for them.
    fn end(&mut self, nexus: usize) {
        let tells = (self.kind >= 5 || self.is(Mutant::ReleaseTellsAlways))
            && !self.is(Mutant::ReleaseTellsNobody);
        self.kind = 0;
        if tells {
            self.tell_registered(nexus, Asc::RESERVATIONS_RELEASED);
        }
    }

    fn reserve(&mut self, nexus: usize, kind: u8) -> End {
        if self.kind != 0 {
            let same = self.kind == kind || self.is(Mutant::ReserveChangesType);
            if !(self.holds(nexus) && same) {
                return End::Conflict;
            }
        } else {
            self.holder = nexus;
        }
        self.kind = kind;
        self.generation += u32::from(self.is(Mutant::ReserveCounts));
        End::Good
    }

    fn release(&mut self, nexus: usize, kind: u8) -> End {
        let any = self.kind != 0 && self.is(Mutant::ReleaseByAnyRegistrant);
        if !self.holds(nexus) && !any {
            return End::Good;
        }
        if self.kind != kind && !self.is(Mutant::ReleaseOfAnyType) {
            return End::Illegal(Asc::INVALID_RELEASE);
        }
        self.end(nexus);
        End::Good
    }

    fn clear(&mut self, nexus: usize) -> End {
        let asc = match self.is(Mutant::ClearTellsOfPreemption) {
            true => Asc::REGISTRATIONS_PREEMPTED,
            false => Asc::RESERVATIONS_PREEMPTED,
        };
        self.tell_registered(nexus, asc);
        self.keys = [0; NEXUSES];
        self.kind = 0;
        self.generation += 1;
        End::Good
    }

    fn preempt(&mut self, nexus: usize, order: Order) -> End {
        let victim = order.action_key;
        let holders = match self.kind {
            0 => false,
            7 | 8 => victim == 0,
            _ => self.keys[self.holder] == victim,
        };
        if holders {
            if !is_type(order.kind) {
                return End::Illegal(Asc::INVALID_FIELD_IN_CDB);
            }
            return self.preempt_holders(nexus, order);
        }
        if victim == 0 && !self.is(Mutant::PreemptTakesNoKey) {
            return End::Illegal(Asc::INVALID_FIELD_IN_PARAMETER_LIST);
        }
        if !self.keys.contains(&victim) && !self.is(Mutant::PreemptNeedsNoVictim) {
            return End::Conflict;
        }
        for lost in 0..NEXUSES {
            let spared = lost == nexus && self.is(Mutant::PreemptSparesItself);
            if self.keys[lost] != 0 && self.keys[lost] == victim && !spared {
                self.lose(lost, nexus);
            }
        }
        if self.keys.iter().all(|key| *key == 0) {
            self.kind = 0;
        }
        self.generation += 1;
        End::Good
    }

    fn preempt_holders(&mut self, nexus: usize, order: Order) -> End {
        let sibling = |lost: usize| lost / 2 == nexus / 2;
        for lost in (0..NEXUSES).filter(|lost| *lost != nexus) {
            let spared = sibling(lost) && self.is(Mutant::PreemptSparesSiblings);
            let hit = self.is_all_registrants() || self.keys[lost] == order.action_key;
            if self.keys[lost] != 0 && hit && !spared {
                self.lose(lost, nexus);
            }
        }
        if self.kind != order.kind && !self.is(Mutant::PreemptChangesTypeSilently) {
            self.tell_registered(nexus, Asc::RESERVATIONS_RELEASED);
        }
        self.kind = order.kind;
        self.holder = nexus;
        self.generation += 1;
        End::Good
    }

    fn lose(&mut self, lost: usize, winner: usize) {
        self.keys[lost] = 0;
        if lost != winner || self.is(Mutant::PreemptTellsTheWinner) {
            self.tell(lost, Asc::REGISTRATIONS_PREEMPTED);
        }
    }

    /// The nexus was lost and is back.
    pub(super) fn reopen(&mut self, nexus: usize) {
        self.pending[nexus] = BTreeSet::from([Asc::POWER_ON_OR_RESET]);
        if self.reserved == Some(nexus) && !self.is(Mutant::ReserveOutlivesItsNexus) {
            self.reserved = None;
        }
    }

    /// The power was lost and is back.
    pub(super) fn power_cycle(&mut self) {
        self.pending.fill(BTreeSet::from([Asc::POWER_ON_OR_RESET]));
        self.reserved = None;
        if !self.is(Mutant::GenerationOutlivesPower) {
            self.generation = 0;
        }
        if !self.aptpl {
            self.keys = [0; NEXUSES];
            self.kind = 0;
        }
        self.aptpl &= self.keys.iter().any(|key| *key != 0);
    }
}

fn is_type(kind: u8) -> bool {
    [1, 3, 5, 6, 7, 8].contains(&kind)
}
