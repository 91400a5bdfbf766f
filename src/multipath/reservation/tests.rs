//! Random commands of the guest through several paths, and of two other initiators, with paths that
//! die before, during and after a command; held against an array on which the guest is what it
//! shall see: one initiator on one port.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::*;
use crate::ids::PathId;
use crate::path::emulated::reservations::{Denial, Nexus, Standing as Access, State};
use crate::scsi::reservation::{
    In, InAction, Key, Keys, Out, OutAction, Parameters, Reservation, TransportId, Type,
};
use crate::scsi::{Asc, SenseKey};

const SEEDS: u64 = 4000;
const STEPS: usize = 40;

/// splitmix64.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ mixed >> 31) % end
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

fn nexus(initiator: u64, port: u16) -> Nexus {
    Nexus { initiator: TransportId::Sas { address: initiator }, port }
}

const GUEST: u64 = 1;

/// How a command ends for whoever sent it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Result {
    Good,
    Conflict,
    Illegal(Asc),
}

fn result(
    outcome: std::result::Result<Vec<(Nexus, crate::path::emulated::reservations::Notice)>, Denial>,
) -> Result {
    match outcome {
        Ok(_) => Result::Good,
        Err(Denial::Conflict) => Result::Conflict,
        Err(Denial::ScopeOrType | Denial::ServiceAction) => {
            Result::Illegal(Asc::INVALID_FIELD_IN_CDB)
        }
        Err(Denial::Parameter(_)) => Result::Illegal(Asc::INVALID_FIELD_IN_PARAMETER_LIST),
        Err(Denial::InvalidRelease) => Result::Illegal(Asc::INVALID_RELEASE),
        Err(Denial::NoRoom) => Result::Illegal(Asc::INSUFFICIENT_REGISTRATION_RESOURCES),
    }
}

#[derive(Clone, Debug)]
struct Foreign {
    initiator: u64,
    out: Out,
    given: Parameters,
}

/// Keys by initiator, and the reservation: what everybody can see.
type View = (BTreeMap<(String, bool), Key>, Option<(Key, Type)>);

struct World {
    random: Random,
    machine: Machine,
    array: State,
    /// The same array with the guest on one port.
    ideal: State,
    alive: BTreeMap<PathId, bool>,
    admitted: BTreeSet<PathId>,
    pinned: Option<PathId>,
    held: bool,
    /// Commands whose answer was lost: each may make the guest's generation one too high.
    lost: u32,
    /// Percent of the machine's commands that meet a fault.
    faults: u64,
    /// Percent of the machine's commands before which another initiator is quicker.
    races: u64,
    raced: Option<Foreign>,
    answer: Option<Answer>,
    kept: Option<Record>,
    story: Vec<String>,
}

impl World {
    fn new(seed: u64, faults: u64, races: u64) -> Self {
        let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0xC0DE);
        let paths = 1 + random.below(4) as u16;
        let mut world = World {
            random,
            machine: Machine::default(),
            array: State::default(),
            ideal: State::default(),
            alive: (1..=paths).map(|id| (PathId(id), false)).collect(),
            admitted: BTreeSet::new(),
            pinned: None,
            held: false,
            lost: 0,
            faults,
            races,
            raced: None,
            answer: None,
            kept: None,
            story: Vec::new(),
        };
        world.tell(Event::Restored(None));
        (1..=paths).for_each(|id| world.bring_up(PathId(id)));
        world
    }

    fn bring_up(&mut self, path: PathId) {
        self.story.push(format!("{path} is up"));
        self.alive.insert(path, true);
        let nexus = Some((TransportId::Sas { address: GUEST }, path.0));
        self.tell(Event::Up { path, name: format!("p{}", path.0), nexus });
    }

    /// Tells the machine, and does all that it wants done.
    fn tell(&mut self, event: Event) {
        let mut actions: VecDeque<Action> = self.machine.apply(event).into();
        while let Some(action) = actions.pop_front() {
            let next = match action {
                Action::Send(path, command) => {
                    let end = self.execute(path, &command);
                    self.story.push(format!("  {path}: {command:?} -> {end:?}"));
                    Event::Ended(end)
                }
                Action::Keep(record) => {
                    self.kept = Some(record);
                    Event::Kept(true)
                }
                Action::Admit(path) => {
                    self.admitted.insert(path);
                    continue;
                }
                Action::Expel(path) => {
                    self.admitted.remove(&path);
                    continue;
                }
                Action::Hold => {
                    assert!(!std::mem::replace(&mut self.held, true), "held twice");
                    continue;
                }
                Action::Resume => {
                    assert!(std::mem::replace(&mut self.held, false), "not held");
                    continue;
                }
                Action::Pin(path) => {
                    self.pinned = path;
                    continue;
                }
                Action::Answer(_, answer) => {
                    assert!(self.answer.replace(answer).is_none(), "answered twice");
                    continue;
                }
                Action::Attention(..) | Action::Fenced(_) => continue,
            };
            actions.extend(self.machine.apply(next));
        }
    }

    fn execute(&mut self, path: PathId, command: &Command) -> End {
        if self.random.chance(self.races) && self.raced.is_none() {
            let foreign = self.foreign();
            self.story.push(format!("  meanwhile {foreign:?}"));
            let from = nexus(foreign.initiator, 1);
            let _ = self.array.out(&from, &foreign.out, &foreign.given);
            self.raced = Some(foreign);
        }
        if !self.alive[&path] {
            return End::NotExecuted;
        }
        let living = self.alive.values().filter(|alive| **alive).count();
        let fault = (living > 1 && self.random.chance(self.faults)).then(|| self.random.below(3));
        if let Some(fault) = fault {
            self.alive.insert(path, false);
            if fault == 0 {
                return End::NotExecuted;
            }
            self.lost += 1;
            if fault == 1 {
                return End::Lost;
            }
        }
        let end = match command {
            Command::In(InAction::ReadKeys) => End::Good(self.array.keys().bytes()),
            Command::In(InAction::ReadReservation) => End::Good(self.array.reservation().bytes()),
            Command::In(InAction::ReadFullStatus) => End::Good(self.array.full_status().bytes()),
            Command::In(InAction::ReportCapabilities) => {
                End::Good(self.array.capabilities(true).bytes().to_vec())
            }
            Command::Out(out, given) => {
                match result(self.array.out(&nexus(GUEST, path.0), out, given)) {
                    Result::Good => End::Good(Vec::new()),
                    Result::Conflict => End::Conflict,
                    Result::Illegal(code) => End::Refused(SenseKey::IllegalRequest, code),
                }
            }
        };
        if fault.is_some() { End::Lost } else { end }
    }

    fn key_in(state: &State, initiator: u64) -> Option<Key> {
        let port = TransportId::Sas { address: initiator };
        let status = state.full_status();
        status.registrants.iter().find(|one| one.initiator_port == port).map(|one| one.key)
    }

    /// Keys 1 to 3 are the guest's, the others have ten times as many.
    fn key_of(&mut self, initiator: u64) -> Key {
        let factor = [1, 10, 100][initiator as usize - 1];
        Key(self.random.below(4) * factor)
    }

    fn command(&mut self, initiator: u64) -> (Out, Parameters) {
        let own = Self::key_in(&self.ideal, initiator).unwrap_or(Key::NONE);
        let key = if self.random.chance(90) { own } else { self.key_of(initiator) };
        let held = self.ideal.reservation().held;
        let kind = match held {
            Some(held) if self.random.chance(60) => held.kind().unwrap(),
            _ => Type::ALL[self.random.below(6) as usize],
        };
        let action = [0, 0, 6, 6, 6, 1, 1, 1, 2, 2, 3, 4, 4, 4, 5][self.random.below(15) as usize];
        let action = OutAction::from_code(action).unwrap();
        let victim = 1 + self.random.below(3);
        let action_key = match action.registers() {
            true => self.key_of(initiator),
            false if self.random.chance(80) => {
                Self::key_in(&self.ideal, victim).unwrap_or(Key::NONE)
            }
            false => self.key_of(victim),
        };
        let aptpl = self.random.chance(30);
        let given = Parameters { key, action_key, aptpl, ..Parameters::default() };
        (Out::new(action, Some(kind), 24), given)
    }

    fn foreign(&mut self) -> Foreign {
        let initiator = 2 + self.random.below(2);
        let (out, given) = self.command(initiator);
        Foreign { initiator, out, given }
    }

    fn step(&mut self) {
        self.raced = None;
        match self.random.below(100) {
            0..55 => self.guest(),
            55..75 => {
                let foreign = self.foreign();
                self.story.push(format!("other: {foreign:?}"));
                let from = nexus(foreign.initiator, 1);
                let real = result(self.array.out(&from, &foreign.out, &foreign.given));
                let ideal = result(self.ideal.out(&from, &foreign.out, &foreign.given));
                assert_eq!(real, ideal, "what another initiator is told");
            }
            75..88 => {
                let ids: Vec<PathId> = self.alive.keys().copied().collect();
                let path = ids[self.random.below(ids.len() as u64) as usize];
                if !self.alive[&path] {
                    self.bring_up(path);
                    let ideal = self.ideal.clone();
                    self.settle(std::slice::from_ref(&ideal));
                }
            }
            _ => {
                let living: Vec<PathId> =
                    self.alive.iter().filter(|(_, up)| **up).map(|(id, _)| *id).collect();
                if self.faults > 0 && living.len() > 1 {
                    let path = living[self.random.below(living.len() as u64) as usize];
                    self.story.push(format!("{path} is down"));
                    self.alive.insert(path, false);
                    self.tell(Event::Down(path));
                    let ideal = self.ideal.clone();
                    self.settle(std::slice::from_ref(&ideal));
                }
            }
        }
        self.check();
    }

    /// What another initiator did meanwhile came before or after what was done: the one that is
    /// seen is what has happened.
    fn settle(&mut self, ends: &[State]) {
        let mut candidates = ends.to_vec();
        if let Some(foreign) = self.raced.take() {
            for state in &mut candidates {
                let _ = state.out(&nexus(foreign.initiator, 1), &foreign.out, &foreign.given);
            }
        }
        let seen = |state: &State| self.others_view(state);
        let real = seen(&self.array);
        let fit = candidates.iter().find(|one| seen(one) == real);
        self.ideal = fit.unwrap_or(&candidates[0]).clone();
    }

    /// The state without our number of copies.
    fn others_view(&self, state: &State) -> View {
        let port = TransportId::Sas { address: GUEST };
        let mut keys = BTreeMap::new();
        for one in state.full_status().registrants {
            let ours = one.initiator_port == port;
            // A path that is down keeps its old registration until it is back.
            let down = one
                .target_port
                .is_some_and(|at| ours && self.alive.get(&PathId(at)).is_some_and(|up| !up));
            if !down || std::ptr::eq(state, &self.ideal) {
                keys.insert((one.initiator_port.to_string(), ours), one.key);
            }
        }
        (keys, state.reservation().held.map(|held| (held.key, held.kind().unwrap())))
    }

    fn guest(&mut self) {
        let (out, given) = self.command(GUEST);
        self.story.push(format!("guest: {out:?} {given:?}"));
        let start = self.ideal.clone();
        self.answer = None;
        self.tell(Event::Asked(Ticket(1), Request::Out(out, given.clone())));
        let told = match self.answer.take().expect("the guest is answered") {
            Answer::Good(_) => Result::Good,
            Answer::Conflict => Result::Conflict,
            Answer::Check(SenseKey::IllegalRequest, code) => Result::Illegal(code),
            other => panic!("{other:?}"),
        };
        let guest = nexus(GUEST, 1);
        let mut first = start.clone();
        let mut fits = Vec::new();
        if result(first.out(&guest, &out, &given)) == told {
            if let Some(foreign) = &self.raced {
                let _ = first.out(&nexus(foreign.initiator, 1), &foreign.out, &foreign.given);
            }
            fits.push(first);
        }
        if let Some(foreign) = self.raced.take() {
            let mut second = start;
            let _ = second.out(&nexus(foreign.initiator, 1), &foreign.out, &foreign.given);
            if result(second.out(&guest, &out, &given)) == told {
                fits.push(second);
            }
        }
        assert!(!fits.is_empty(), "the guest is told {told:?}");
        self.settle(&fits);
    }

    fn ask(&mut self, action: InAction) -> Vec<u8> {
        let (faults, races) = (self.faults, self.races);
        (self.faults, self.races) = (0, 0);
        self.answer = None;
        let asked = In { action, allocation: 4096 };
        self.tell(Event::Asked(Ticket(2), Request::In(asked)));
        (self.faults, self.races) = (faults, races);
        match self.answer.take() {
            Some(Answer::Good(data)) => data,
            other => panic!("{action}: {other:?}"),
        }
    }

    fn check(&mut self) {
        assert!(!self.held && self.machine.standing().under_way.is_none());
        let keys = Keys::parse(&self.ask(InAction::ReadKeys)).unwrap();
        let sorted = |mut keys: Vec<Key>| {
            keys.sort();
            keys
        };
        let ideal = self.ideal.keys();
        assert_eq!(sorted(keys.keys), sorted(ideal.keys), "READ KEYS");
        let ahead = keys.generation.wrapping_sub(ideal.generation);
        // What takes a lost one back is counted as well.
        let most = 2 * self.lost;
        assert!(ahead <= most, "PRGENERATION {} for {}", keys.generation, ideal.generation);
        let held = Reservation::parse(&self.ask(InAction::ReadReservation)).unwrap().held;
        assert_eq!(held, self.ideal.reservation().held, "READ RESERVATION");
        for other in [2, 3] {
            let other = nexus(other, 1);
            assert_eq!(self.array.standing(&other), self.ideal.standing(&other));
        }
        let expected = self.ideal.standing(&nexus(GUEST, 1));
        for path in self.admitted.iter().filter(|path| self.pinned.is_none_or(|pin| pin == **path))
        {
            let now = self.array.standing(&nexus(GUEST, path.0));
            assert!(
                now == expected || (expected == Access::Free && !self.alive[path]),
                "over {path} the guest meets {now:?}, not {expected:?}"
            );
        }
    }
}

fn run(faults: u64, races: u64, seeds: std::ops::Range<u64>) {
    let only = std::env::var("MACHINE_SEED").ok().and_then(|seed| seed.parse().ok());
    for seed in seeds {
        if only.is_some_and(|only: u64| only != seed) {
            continue;
        }
        let mut world = World::new(seed, faults, races);
        let played = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            (0..STEPS).for_each(|_| world.step());
        }));
        if played.is_err() {
            panic!("seed {seed}, {faults} {races}:\n{}", world.story.join("\n"));
        }
    }
}

#[test]
fn guest_on_good_paths_is_one_initiator() {
    run(0, 0, 0..SEEDS);
}

#[test]
fn guest_on_paths_that_die_is_one_initiator() {
    run(8, 0, 0..SEEDS);
}
