//! Reservations: each service action, type and conflict, and what is kept.

mod conflicts;
mod kept;
mod model;
mod mutants;
mod random;

use super::*;
use crate::scsi::reservation::{
    Capabilities, FullStatus, In, InAction, Keys, Out, OutAction, Parameters, Reservation,
    TransportId, Type,
};
use crate::scsi::reservation::{Key, Registrant};

use OutAction::{
    Clear, Preempt, PreemptAndAbort, Register, RegisterAndIgnoreExistingKey, Release, Reserve,
};
use Type::*;

/// What nobody is registered with.
const NO_KEYS: [u64; 0] = [];
const GOOD: Status = Status::GOOD;
const CONFLICT: Status = Status::RESERVATION_CONFLICT;
const IN_LIST: (SenseKey, Asc) = (ILLEGAL, Asc::INVALID_FIELD_IN_PARAMETER_LIST);
const IN_CDB: (SenseKey, Asc) = (ILLEGAL, Asc::INVALID_FIELD_IN_CDB);
const LENGTH: (SenseKey, Asc) = (ILLEGAL, Asc::PARAMETER_LIST_LENGTH_ERROR);

/// A port as another initiator opens it.
pub(super) fn other_initiator(array: &Arc<Array>, initiator: u64, number: u16) -> Port {
    let initiator = TransportId::Sas { address: initiator };
    Port::from_initiator(array, initiator, number, 1, AccessState::ActiveOptimized).unwrap()
}

/// PERSISTENT RESERVE OUT.
pub(super) fn out(
    disk: &mut Initiator<PortChannel>,
    action: OutAction,
    kind: Option<Type>,
    key: u64,
    action_key: u64,
) -> Answer {
    let parameters =
        Parameters { key: Key(key), action_key: Key(action_key), ..Parameters::default() };
    disk.run(Out::new(action, kind, 24).cdb().bytes(), &parameters.bytes(), 0).0
}

/// A nexus that has taken its first unit attention.
struct Host(Initiator<PortChannel>);

impl Host {
    fn new(array: &Arc<Array>, initiator: u64, number: u16) -> Self {
        Host(initiator_of(&other_initiator(array, initiator, number)))
    }

    fn out(
        &mut self,
        action: OutAction,
        kind: impl Into<Option<Type>>,
        key: u64,
        action_key: u64,
    ) -> Status {
        out(&mut self.0, action, kind.into(), key, action_key).status
    }

    /// PERSISTENT RESERVE OUT with any list, that must end with CHECK CONDITION.
    fn check(&mut self, command: Out, list: &[u8]) -> (SenseKey, Asc) {
        self.0.check(command.cdb().bytes(), list, 0)
    }

    fn register(&mut self, key: u64) {
        assert_eq!(self.out(RegisterAndIgnoreExistingKey, None, 0, key), GOOD);
    }

    /// PERSISTENT RESERVE IN.
    fn ask(&mut self, action: InAction) -> Vec<u8> {
        self.0.good(In { action, allocation: 4096 }.cdb().bytes(), &[], 4096)
    }

    fn keys(&mut self) -> Vec<u64> {
        let keys = Keys::parse(&self.ask(InAction::ReadKeys)).unwrap().keys;
        keys.into_iter().map(|key| key.0).collect()
    }

    fn generation(&mut self) -> u32 {
        Keys::parse(&self.ask(InAction::ReadKeys)).unwrap().generation
    }

    fn held(&mut self) -> Option<(u64, Type)> {
        let held = Reservation::parse(&self.ask(InAction::ReadReservation)).unwrap().held;
        held.map(|held| (held.key.0, held.kind().unwrap()))
    }

    fn full_status(&mut self) -> FullStatus {
        FullStatus::parse(&self.ask(InAction::ReadFullStatus)).unwrap()
    }

    /// The unit attentions that are pending.
    fn told(&mut self) -> Vec<Asc> {
        let mut told = Vec::new();
        loop {
            let (answer, _) = self.0.run(&TUR, &[], 0);
            match answer.sense.and_then(|sense| sense.decode()) {
                Some((SenseKey::UnitAttention, asc)) => told.push(asc),
                _ => return told,
            }
        }
    }
}

fn initiator_of(port: &Port) -> Initiator<PortChannel> {
    super::initiator(port)
}

/// Three nexuses: two ports of one initiator, and another initiator.
fn three() -> (Arc<Array>, Host, Host, Host) {
    let array = array(64);
    let hosts = [(1, 1), (1, 2), (2, 1)].map(|(who, port)| Host::new(&array, who, port));
    let [a, b, c] = hosts;
    (array, a, b, c)
}

/// The three with the keys 1, 1 and 2, as hosts have them.
fn registered() -> (Arc<Array>, Host, Host, Host) {
    let (array, mut a, mut b, mut c) = three();
    a.register(1);
    b.register(1);
    c.register(2);
    (array, a, b, c)
}

#[test]
fn register_belongs_to_one_nexus_and_must_know_its_key() {
    let (_array, mut a, mut b, mut c) = three();
    assert_eq!(a.out(Register, None, 7, 1), CONFLICT, "there is no key yet");
    assert_eq!(a.out(Register, None, 0, 1), GOOD);
    assert_eq!(a.out(Register, None, 0, 1), CONFLICT, "there is one now");
    assert_eq!(b.out(Register, None, 1, 1), CONFLICT, "but not of this port");
    assert_eq!(b.out(Register, None, 0, 1), GOOD);
    assert_eq!(c.out(Register, None, 0, 2), GOOD);
    assert_eq!(c.keys(), [1, 1, 2]);
    assert_eq!(a.out(Register, None, 1, 3), GOOD);
    assert_eq!(c.keys(), [3, 1, 2]);
    assert_eq!(a.out(Register, None, 3, 0), GOOD);
    assert_eq!(a.out(Register, None, 0, 0), GOOD, "nothing to remove is no error");
    assert_eq!(c.keys(), [1, 2]);
}

#[test]
fn register_and_ignore_existing_key_need_not_know_it() {
    let (_array, mut a, _, mut c) = three();
    assert_eq!(a.out(RegisterAndIgnoreExistingKey, None, 9, 1), GOOD);
    assert_eq!(a.out(RegisterAndIgnoreExistingKey, None, 9, 2), GOOD);
    assert_eq!(c.keys(), [2]);
    assert_eq!(a.out(RegisterAndIgnoreExistingKey, None, 9, 0), GOOD);
    assert_eq!(a.out(RegisterAndIgnoreExistingKey, None, 9, 0), GOOD);
    assert_eq!(c.keys(), NO_KEYS);
}

#[test]
fn generation_counts_what_changes_registrations() {
    let (_array, mut a, mut b, mut c) = registered();
    assert_eq!(a.generation(), 3);
    assert_eq!(a.out(Register, None, 9, 3), CONFLICT);
    assert_eq!(a.out(Reserve, WriteExclusive, 1, 0), GOOD);
    assert_eq!(a.out(Release, WriteExclusive, 1, 0), GOOD);
    assert_eq!(a.generation(), 3);
    assert_eq!(a.out(Register, None, 1, 1), GOOD, "the same key again");
    assert_eq!(a.out(Preempt, WriteExclusive, 1, 2), GOOD);
    assert_eq!(a.generation(), 5);
    assert_eq!(c.told(), [Asc::REGISTRATIONS_PREEMPTED]);
    assert_eq!(c.out(Register, None, 0, 0), GOOD);
    assert_eq!(a.generation(), 5, "nothing was done");
    assert_eq!(b.out(Clear, None, 1, 0), GOOD);
    assert_eq!(b.generation(), 6);
}

#[test]
fn reserve_is_for_one_registered_nexus() {
    let (_array, mut a, mut b, mut c) = three();
    assert_eq!(a.out(Reserve, WriteExclusive, 0, 0), CONFLICT, "not registered");
    a.register(1);
    b.register(1);
    c.register(2);
    assert_eq!(a.out(Reserve, WriteExclusive, 2, 0), CONFLICT, "another one's key");
    assert_eq!(a.held(), None);
    assert_eq!(a.out(Reserve, WriteExclusive, 1, 0), GOOD);
    assert_eq!(a.out(Reserve, WriteExclusive, 1, 0), GOOD, "once more");
    assert_eq!(a.out(Reserve, ExclusiveAccess, 1, 0), CONFLICT, "another type");
    assert_eq!(b.out(Reserve, WriteExclusive, 1, 0), CONFLICT, "another port, the same key");
    assert_eq!(c.out(Reserve, WriteExclusive, 2, 0), CONFLICT);
    assert_eq!(c.held(), Some((1, WriteExclusive)));
    assert_eq!(a.out(Register, None, 1, 5), GOOD);
    assert_eq!(c.held(), Some((5, WriteExclusive)), "the holder has another key");
}

#[test]
fn reserve_takes_types_that_exist() {
    let (_array, mut a, ..) = registered();
    let list = Parameters { key: Key(1), ..Parameters::default() }.bytes();
    for scope_and_type in [0x00, 0x02, 0x04, 0x09, 0x0F, 0x11, 0xF5] {
        let command = Out { scope_and_type, ..Out::new(Reserve, None, 24) };
        assert_eq!(a.check(command, &list), IN_CDB, "{scope_and_type:02x}");
    }
    for kind in Type::ALL {
        assert_eq!(a.out(Reserve, kind, 1, 0), GOOD);
        let key = if kind.is_all_registrants() { 0 } else { 1 };
        assert_eq!(a.held(), Some((key, kind)));
        assert_eq!(a.out(Release, kind, 1, 0), GOOD);
        assert_eq!(a.held(), None);
    }
}

#[test]
fn release_is_the_holders() {
    let (_array, mut a, mut b, mut c) = registered();
    assert_eq!(a.out(Release, WriteExclusive, 1, 0), GOOD, "there is none");
    assert_eq!(a.out(Reserve, WriteExclusive, 1, 0), GOOD);
    assert_eq!(b.out(Release, WriteExclusive, 1, 0), GOOD, "taken, and nothing is done");
    assert_eq!(c.out(Release, WriteExclusive, 1, 0), CONFLICT, "with another one's key");
    assert_eq!(a.held(), Some((1, WriteExclusive)));
    let command = Out::new(Release, Some(ExclusiveAccess), 24);
    let list = Parameters { key: Key(1), ..Parameters::default() }.bytes();
    assert_eq!(a.check(command, &list), (ILLEGAL, Asc::INVALID_RELEASE));
    assert_eq!(a.held(), Some((1, WriteExclusive)));
    assert_eq!(a.out(Release, WriteExclusive, 1, 0), GOOD);
    assert_eq!(a.held(), None);
}

#[test]
fn release_and_unregister_tell_registrants_who_had_access_by_it() {
    for kind in Type::ALL {
        for unregister in [false, true] {
            let (_array, mut a, mut b, mut c) = registered();
            assert_eq!(a.out(Reserve, kind, 1, 0), GOOD);
            let ends = !unregister || !kind.is_all_registrants();
            match unregister {
                true => assert_eq!(a.out(Register, None, 1, 0), GOOD),
                false => assert_eq!(a.out(Release, kind, 1, 0), GOOD),
            }
            assert_eq!(a.told(), [], "{kind}");
            let told = match kind.is_for_registrants() && ends {
                true => vec![Asc::RESERVATIONS_RELEASED],
                false => vec![],
            };
            assert_eq!((b.told(), c.told()), (told.clone(), told), "{kind}");
            assert_eq!(a.held().is_none(), ends, "{kind}");
        }
    }
}

#[test]
fn all_registrants_hold_together_until_the_last_one_goes() {
    let (_array, mut a, mut b, mut c) = registered();
    let kind = WriteExclusiveAllRegistrants;
    assert_eq!(a.out(Reserve, kind, 1, 0), GOOD);
    assert_eq!(c.out(Reserve, kind, 2, 0), GOOD, "it is a holder too");
    assert_eq!(c.out(Reserve, WriteExclusive, 2, 0), CONFLICT);
    let holders = c.full_status().registrants;
    assert!(holders.iter().all(|registrant| registrant.holds == Some(kind)));
    assert_eq!(a.out(Register, None, 1, 0), GOOD);
    assert_eq!(b.out(Register, None, 1, 0), GOOD);
    assert_eq!(c.held(), Some((0, kind)));
    assert_eq!(c.out(Register, None, 2, 0), GOOD);
    assert_eq!(c.held(), None);
}

#[test]
fn clear_takes_everything_and_tells_the_others() {
    let (_array, mut a, mut b, mut c) = registered();
    assert_eq!(a.out(Reserve, ExclusiveAccess, 1, 0), GOOD);
    assert_eq!(c.out(Clear, None, 1, 0), CONFLICT);
    assert_eq!(c.out(Clear, None, 2, 0), GOOD, "no holder has to be asked");
    assert_eq!(
        (a.told(), b.told()),
        (vec![Asc::RESERVATIONS_PREEMPTED], vec![Asc::RESERVATIONS_PREEMPTED])
    );
    assert_eq!((c.told(), c.keys(), c.held()), (vec![], vec![], None));
    assert_eq!(c.out(Clear, None, 2, 0), CONFLICT, "its own key is gone too");
}

#[test]
fn preempt_takes_the_reservation_of_the_key_that_holds_it() {
    for action in [Preempt, PreemptAndAbort] {
        let (_array, mut a, mut b, mut c) = registered();
        assert_eq!(a.out(Reserve, WriteExclusiveRegistrantsOnly, 1, 0), GOOD);
        assert_eq!(c.out(action, WriteExclusiveRegistrantsOnly, 2, 9), CONFLICT, "nobody's key");
        assert_eq!(c.out(action, WriteExclusiveRegistrantsOnly, 1, 1), CONFLICT, "not its own");
        assert_eq!(c.out(action, WriteExclusiveRegistrantsOnly, 2, 1), GOOD);
        assert_eq!((c.keys(), c.held()), (vec![2], Some((2, WriteExclusiveRegistrantsOnly))));
        let told = vec![Asc::REGISTRATIONS_PREEMPTED];
        assert_eq!((a.told(), b.told(), c.told()), (told.clone(), told, vec![]));
        assert_eq!(a.out(action, WriteExclusiveRegistrantsOnly, 1, 2), CONFLICT);
    }
}

#[test]
fn preempt_of_ones_own_key_moves_the_reservation() {
    let (_array, mut a, mut b, mut c) = registered();
    assert_eq!(a.out(Reserve, WriteExclusiveRegistrantsOnly, 1, 0), GOOD);
    assert_eq!(b.out(Preempt, ExclusiveAccessRegistrantsOnly, 1, 1), GOOD);
    assert_eq!(b.keys(), [1, 2], "one of two is left: the one that did it");
    let status = b.full_status().registrants;
    assert_eq!((status[0].target_port, status[0].holds.is_some()), (Some(2), true));
    assert_eq!(a.told(), [Asc::REGISTRATIONS_PREEMPTED]);
    assert_eq!(b.told(), []);
    assert_eq!(c.told(), [Asc::RESERVATIONS_RELEASED], "it is another type now");
    assert_eq!(b.out(Preempt, ExclusiveAccessRegistrantsOnly, 1, 1), GOOD);
    assert_eq!((a.told(), c.told()), (vec![], vec![]), "nothing has changed");
}

#[test]
fn preempt_of_keys_that_hold_nothing_leaves_the_reservation() {
    let (_array, mut a, mut b, mut c) = registered();
    b.register(3);
    assert_eq!(c.out(Reserve, ExclusiveAccess, 2, 0), GOOD);
    // Scope and type are ignored then.
    let command = Out { scope_and_type: 0xFF, ..Out::new(Preempt, None, 24) };
    let list = Parameters { key: Key(1), action_key: Key(3), ..Parameters::default() }.bytes();
    a.0.good(command.cdb().bytes(), &list, 0);
    assert_eq!((a.keys(), a.held()), (vec![1, 2], Some((2, ExclusiveAccess))));
    assert_eq!((b.told(), c.told()), (vec![Asc::REGISTRATIONS_PREEMPTED], vec![]));
    assert_eq!(a.out(Preempt, WriteExclusive, 1, 1), GOOD, "itself");
    assert_eq!((a.keys(), a.told()), (vec![2], vec![]));
}

#[test]
fn preempt_of_no_key_is_for_all_registrants_alone() {
    let (_array, mut a, mut b, mut c) = registered();
    let command = Out::new(Preempt, Some(WriteExclusive), 24);
    let list = Parameters { key: Key(1), ..Parameters::default() }.bytes();
    assert_eq!(a.check(command, &list), IN_LIST);
    assert_eq!(c.out(Reserve, WriteExclusive, 2, 0), GOOD);
    assert_eq!(a.check(command, &list), IN_LIST);
    assert_eq!(c.out(Release, WriteExclusive, 2, 0), GOOD);
    assert_eq!(c.out(Reserve, ExclusiveAccessAllRegistrants, 2, 0), GOOD);
    assert_eq!(a.out(Preempt, WriteExclusive, 1, 2), GOOD);
    assert_eq!(a.held(), Some((0, ExclusiveAccessAllRegistrants)), "a key is no holder");
    assert_eq!(c.told(), [Asc::REGISTRATIONS_PREEMPTED]);
    assert_eq!(a.out(Preempt, WriteExclusive, 1, 0), GOOD);
    assert_eq!((a.keys(), a.held()), (vec![1], Some((1, WriteExclusive))));
    assert_eq!(b.told(), [Asc::REGISTRATIONS_PREEMPTED]);
}

#[test]
fn lists_that_are_wrong_are_refused() {
    let (_array, mut a, ..) = three();
    let list = Parameters { action_key: Key(1), ..Parameters::default() };
    for length in [0, 1, 23, 25, 4096, 4097, u32::MAX] {
        let command = Out::new(Register, None, length);
        assert_eq!(a.check(command, &[0; 4096]), LENGTH, "{length}");
    }
    let command = Out::new(Register, None, 24);
    assert_eq!(a.check(command, &list.bytes()[..23]), LENGTH, "less than the CDB says");
    let everywhere = Parameters { all_target_ports: true, ..list.clone() };
    assert_eq!(a.check(command, &everywhere.bytes()), IN_LIST);
    let others =
        Parameters { initiator_ports: Some(vec![TransportId::Sas { address: 5 }]), ..list };
    let bytes = others.bytes();
    assert_eq!(a.check(Out::new(Register, None, bytes.len() as u32), &bytes), IN_LIST);
    assert_eq!(a.keys(), NO_KEYS);
}

#[test]
fn actions_that_are_not_supported_are_refused_as_reported() {
    let (_array, mut a, ..) = registered();
    for action in [OutAction::RegisterAndMove, OutAction::ReplaceLostReservation] {
        assert_eq!(a.check(Out::new(action, None, 24), &[0; 24]), IN_CDB);
        let ask = [0xA3, 0x0C, 3, 0x5F, 0, action.code(), 0, 0, 0, 64, 0, 0];
        assert_eq!(a.0.good(&ask, &[], 64)[1], 0x01, "{action} is not supported");
    }
    let ask = [0xA3, 0x0C, 2, 0x5F, 0, Preempt.code(), 0, 0, 0, 64, 0, 0];
    let usage = [0, 0x03, 0, 10, 0x5F, 4, 0xFF, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0];
    assert_eq!(a.0.good(&ask, &[], 64), usage);
    let capabilities = Capabilities::parse(&a.ask(InAction::ReportCapabilities)).unwrap();
    assert!(!capabilities.initiator_ports && !capabilities.all_target_ports);
    assert!(!capabilities.replace_lost_reservation && capabilities.compatible_handling);
    assert!(Type::ALL.iter().all(|kind| capabilities.types.unwrap().contains(*kind)));
}

#[test]
fn persistent_reserve_in_has_its_bytes() {
    let (_array, mut a, mut b, _) = three();
    assert_eq!(a.ask(InAction::ReadKeys), [0; 8]);
    assert_eq!(a.ask(InAction::ReadReservation), [0; 8]);
    assert_eq!(a.ask(InAction::ReadFullStatus), [0; 8]);
    assert_eq!(a.ask(InAction::ReportCapabilities), [0, 8, 0x11, 0xB0, 0xEA, 0x01, 0, 0]);
    b.register(0x1234);
    assert_eq!(b.out(Reserve, ExclusiveAccess, 0x1234, 0), GOOD);
    #[rustfmt::skip]
    let status = [
        0, 0, 0, 1, 0, 0, 0, 48,
        0, 0, 0, 0, 0, 0, 0x12, 0x34, 0, 0, 0, 0, 0x01, 0x03, 0, 0, 0, 0, 0, 2, 0, 0, 0, 24,
        0x06, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ];
    assert_eq!(a.ask(InAction::ReadFullStatus), status);
    let held = [0, 0, 0, 1, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0x12, 0x34, 0, 0, 0, 0, 0, 3, 0, 0];
    assert_eq!(a.ask(InAction::ReadReservation), held);
    let cut = In { action: InAction::ReadKeys, allocation: 10 }.cdb();
    assert_eq!(a.0.good(cut.bytes(), &[], 64), [0, 0, 0, 1, 0, 0, 0, 8, 0, 0]);
}

#[test]
fn own_paths_are_one_initiator() {
    let array = array(8);
    let mut disk = initiator_of(&port(&array, 3));
    assert_eq!(out(&mut disk, Register, None, 0, 1).status, GOOD);
    let registrants = Host(disk).full_status().registrants;
    let [Registrant { target_port: Some(3), initiator_port, .. }] = &registrants[..] else {
        panic!("{registrants:?}")
    };
    let name = "iqn.2008-11.org.linux-kvm:vhost-user-scsi-mpath,i,0x800000000000";
    assert_eq!(initiator_port.to_string(), name);
}

#[test]
fn registrations_outlive_the_opening_of_their_port() {
    let (array, mut a, mut b, c) = registered();
    assert_eq!(a.out(Reserve, ExclusiveAccess, 1, 0), GOOD);
    drop((a, c));
    assert_eq!((b.keys(), b.held()), (vec![1, 1, 2], Some((1, ExclusiveAccess))));
    let mut a = Host::new(&array, 1, 1);
    a.0.good(&cdb10(0x28, 0, 0, 1), &[], 512);
    assert_eq!(a.out(Release, ExclusiveAccess, 1, 0), GOOD);
    // Two openings of one nexus are one registrant.
    let mut again = Host::new(&array, 1, 1);
    assert_eq!(again.out(Register, None, 1, 4), GOOD);
    assert_eq!(a.out(Reserve, ExclusiveAccess, 4, 0), GOOD);
    again.0.good(&cdb10(0x28, 0, 0, 1), &[], 512);
}

#[test]
fn registrations_have_a_bound() {
    use crate::limits::EMULATED_REGISTRATIONS_MAX;
    use crate::path::emulated::reservations::{Denial, Nexus, State};
    let mut state = State::default();
    let nexus = |at: usize| Nexus { initiator: TransportId::Sas { address: at as u64 }, port: 1 };
    let command = Out::new(Register, None, 24);
    let parameters = Parameters { action_key: Key(1), ..Parameters::default() };
    for at in 0..EMULATED_REGISTRATIONS_MAX {
        assert_eq!(state.out(&nexus(at), &command, &parameters), Ok(vec![]));
    }
    let one_more = state.out(&nexus(EMULATED_REGISTRATIONS_MAX), &command, &parameters);
    assert_eq!(one_more, Err(Denial::NoRoom));
    assert_eq!(state.keys().generation, EMULATED_REGISTRATIONS_MAX as u32);
}
