//! The judge of reservations: is there an order of all initiators' commands in which each was
//! answered as one initiator on one port would have been?
//!
//! The guest's command takes effect at one moment between its beginning and its answer, that of
//! another initiator at once. So the referee keeps every unit that there may be now, each a model of
//! SPC-5 with the guest on one port: while the guest's command is under way there are those on which
//! it was executed already, and those on which it was not. Whoever is told something leaves the ones
//! on which he would have been told that. None left: somebody was told what cannot be.
//!
//! The guest is several nexuses in truth, and some of its commands are several of the array's. What
//! another initiator does in the middle of those is a *race*: what was told meanwhile is not judged,
//! and afterwards the guest is whole again, as it was or shut out; a guest that was shut out in the
//! middle stays so.

use std::collections::{BTreeMap, BTreeSet};

use vhost_user_scsi_mpath::scsi::Asc;
use vhost_user_scsi_mpath::scsi::reservation::InAction;

use crate::model::{Access, End, Model, Order};

/// The guest's nexus in the model. Each initiator has two there, and uses the first.
pub const GUEST: usize = 0;

/// What PERSISTENT RESERVE IN shows, PRGENERATION first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum View {
    /// The keys in order.
    Keys(u32, Vec<u64>),
    /// The key and the type.
    Reservation(u32, Option<(u64, u8)>),
}

impl View {
    fn of(model: &Model, action: InAction) -> View {
        if action == InAction::ReadKeys {
            let mut keys: Vec<u64> = model.keys.iter().copied().filter(|key| *key != 0).collect();
            keys.sort_unstable();
            return View::Keys(model.generation, keys);
        }
        let held = (model.kind != 0).then(|| (model.shown_key(), model.kind));
        View::Reservation(model.generation, held)
    }

    /// True where a guest may be told this while `truth` stands. A command of ours whose answer was
    /// lost may be counted as another initiator's, and one that takes it back as well.
    fn fits(&self, truth: &View, lost: u32) -> bool {
        let near = |told: &u32, true_one: &u32| told.wrapping_sub(*true_one) <= 2 * lost;
        match (self, truth) {
            (View::Keys(one, keys), View::Keys(other, others)) => {
                near(one, other) && keys == others
            }
            (View::Reservation(one, held), View::Reservation(other, others)) => {
                near(one, other) && held == others
            }
            _ => false,
        }
    }
}

/// A unit that there may be.
#[derive(Clone, Debug)]
struct Candidate {
    model: Model,
    /// The guest's commands under way that were executed on it, and how they ended; `None` where a
    /// race was in between.
    done: BTreeMap<u64, Option<End>>,
    /// Unit attentions that were made for the guest.
    made: BTreeMap<Asc, u32>,
}

impl Candidate {
    fn order(&mut self, nexus: usize, order: Order) -> End {
        let end = self.model.order(nexus, order);
        for pending in &mut self.model.pending {
            for code in std::mem::take(pending) {
                *self.made.entry(code).or_default() += 1;
            }
        }
        end
    }

    /// On another one like this so many were made.
    fn adopt(&mut self, made: BTreeMap<Asc, u32>) {
        for (code, made) in made {
            let most = self.made.entry(code).or_default();
            *most = made.max(*most);
        }
    }

    fn is_like(&self, other: &Candidate) -> bool {
        self.model == other.model && self.done == other.done
    }
}

/// Another initiator's command in the middle of a conversation of ours.
#[derive(Clone, Debug, Default)]
struct Race {
    /// It took a registration of the guest's.
    hits: bool,
    /// The guest has asked to be registered meanwhile.
    registers: bool,
}

/// See the module's text.
#[derive(Debug)]
pub struct Referee {
    candidates: Vec<Candidate>,
    /// The guest's commands under way, and how many ends were lost before each.
    pending: BTreeMap<u64, (Order, u32)>,
    /// Those of them that nobody waits for any more.
    loose: BTreeSet<u64>,
    /// What each PERSISTENT RESERVE IN under way may show; `None` where that is not judged.
    views: BTreeMap<u64, (InAction, Option<Vec<View>>)>,
    race: Option<Race>,
    /// Commands of ours whose end was lost.
    pub lost: u32,
    /// Unit attentions that the guest was told.
    told: BTreeMap<Asc, u32>,
    /// Those that races may have made.
    excused: u32,
}

impl Referee {
    /// Of a unit on which nobody is registered.
    pub fn new() -> Self {
        let model = Model::new(None);
        let first = Candidate { model, done: BTreeMap::new(), made: BTreeMap::new() };
        Referee {
            candidates: vec![first],
            pending: BTreeMap::new(),
            loose: BTreeSet::new(),
            views: BTreeMap::new(),
            race: None,
            lost: 0,
            told: BTreeMap::new(),
            excused: 0,
        }
    }

    /// One of the units that there may be: what initiators go by.
    pub fn guess(&self) -> &Model {
        &self.candidates[0].model
    }

    /// True where the guest may be allowed this now, and whether it may be refused.
    pub fn may(&self, access: Access) -> (bool, bool) {
        if self.race.is_some() {
            return (true, true);
        }
        let ends = self.candidates.iter().map(|one| one.model.access(GUEST, access));
        let (mut good, mut conflict) = (false, false);
        for end in ends {
            if end == End::Good { good = true } else { conflict = true }
        }
        (good, conflict)
    }

    /// The guest's command begins.
    pub fn begins(&mut self, serial: u64, order: Order) {
        self.pending.insert(serial, (order, self.lost));
        if let Some(race) = &mut self.race {
            race.registers |= registers(&order);
        }
        self.expand();
    }

    /// The guest asks.
    pub fn asks(&mut self, serial: u64, action: InAction) {
        let views = self.race.is_none().then(Vec::new);
        self.views.insert(serial, (action, views));
        self.look();
    }

    /// Another initiator's command was executed, and it was told this; `amid` says that a
    /// conversation of ours has begun to change things, and `hits` that the guest lost registrations.
    pub fn other(
        &mut self,
        nexus: usize,
        order: Order,
        told: End,
        amid: bool,
        hits: bool,
    ) -> Result<(), String> {
        if amid || self.race.is_some() {
            let registers = self.pending.values().any(|(order, _)| registers(order));
            let race = self.race.get_or_insert_with(Race::default);
            (race.hits, race.registers) = (race.hits || hits, race.registers || registers);
            self.excused += 1;
            self.views.values_mut().for_each(|(_, views)| *views = None);
            return Ok(());
        }
        let before = self.describe();
        self.candidates.retain_mut(|one| one.order(nexus, order) == told);
        if self.candidates.is_empty() {
            return Err(format!(
                "{order:?} of initiator {} was told {told:?}: {before}",
                nexus / 2
            ));
        }
        self.expand();
        Ok(())
    }

    /// The guest's command is answered.
    pub fn answered(&mut self, serial: u64, told: End) -> Result<(), String> {
        let Some((order, lost)) = self.pending.remove(&serial) else { return Ok(()) };
        self.loose.remove(&serial);
        if self.race.is_some() {
            for one in &mut self.candidates {
                one.done.remove(&serial);
            }
            return Ok(());
        }
        let before = self.describe();
        // Executed, its end lost, and the guest shut out after that: nobody can know that it was not
        // refused.
        let refused = told == End::Conflict && self.lost > lost;
        self.candidates.retain_mut(|one| {
            let hidden = refused && one.model.keys[GUEST] == 0;
            let fits = |end: Option<End>| hidden || end.is_none_or(|end| end == told);
            one.done.remove(&serial).is_some_and(fits)
        });
        if self.candidates.is_empty() {
            return Err(format!("the guest's {order:?} was told {told:?}: {before}"));
        }
        self.unite();
        Ok(())
    }

    /// The guest is shown this.
    pub fn shown(&mut self, serial: u64, view: &View) -> Result<(), String> {
        match self.views.remove(&serial) {
            Some((_, Some(views))) if !views.iter().any(|one| view.fits(one, self.lost)) => {
                Err(format!("the guest is shown {view:?}, not one of {views:?}"))
            }
            _ => Ok(()),
        }
    }

    /// Nobody waits for this one any more: it is executed or not, until the backend has nothing left
    /// to do.
    pub fn loosen(&mut self, serial: u64) {
        self.views.remove(&serial);
        if self.pending.contains_key(&serial) {
            self.loose.insert(serial);
        }
    }

    /// How many of the guest's commands are under way.
    pub fn under_way(&self) -> usize {
        self.pending.len()
    }

    /// The commands that nobody waits for now.
    pub fn loose(&self) -> Vec<u64> {
        self.loose.iter().copied().collect()
    }

    /// A unit attention that the guest is told: one of another's making, and each once. Where nobody
    /// knows whether a command of ours was executed, it is told rather than lost.
    pub fn tells(&mut self, code: Asc) -> bool {
        let told = self.told.entry(code).or_default();
        *told += 1;
        let made = |one: &Candidate| one.made.get(&code).copied().unwrap_or_default();
        *told
            <= self.candidates.iter().map(made).max().unwrap_or_default() + self.excused + self.lost
    }

    /// The backend has nothing left to do, nor of `over`; and this is what the array has, with our
    /// nexuses for one. `None` where nobody can say that now.
    pub fn rests(&mut self, over: &[u64], truth: Option<&Model>) -> Result<(), String> {
        for serial in over {
            self.pending.remove(serial);
            self.loose.remove(serial);
            for one in &mut self.candidates {
                one.done.remove(serial);
            }
        }
        let Some(truth) = truth else {
            self.unite();
            return Ok(());
        };
        if let Some(race) = self.race.take() {
            if race.hits && !race.registers && truth.keys[GUEST] != 0 {
                return Err(format!("the guest was shut out, and is registered: {truth:?}"));
            }
            let made = self.candidates[0].made.clone();
            self.begin_anew(truth, &made);
            return Ok(());
        }
        let before = self.describe();
        let same = |one: &Candidate| {
            let model = &one.model;
            let holder = model.kind == 0 || [7, 8].contains(&model.kind);
            model.keys == truth.keys
                && model.kind == truth.kind
                && (holder || model.holder == truth.holder)
        };
        self.candidates.retain(same);
        if self.candidates.is_empty() {
            return Err(format!("the array has {truth:?}, not {before}"));
        }
        self.expand();
        Ok(())
    }

    /// After a race: each command under way was executed in it, or was not.
    fn begin_anew(&mut self, truth: &Model, made: &BTreeMap<Asc, u32>) {
        let mut done = vec![BTreeMap::new()];
        for serial in self.pending.keys() {
            let mut with = done.clone();
            with.iter_mut().for_each(|done| _ = done.insert(*serial, None));
            done.extend(with);
        }
        let unit = |done| Candidate { model: truth.clone(), done, made: made.clone() };
        self.candidates = done.into_iter().map(unit).collect();
        self.expand();
    }

    /// Each command under way may have been executed by now.
    fn expand(&mut self) {
        let mut at = 0;
        while at < self.candidates.len() {
            for (serial, (order, _)) in &self.pending {
                if self.candidates[at].done.contains_key(serial) {
                    continue;
                }
                let mut next = self.candidates[at].clone();
                let end = next.order(GUEST, *order);
                next.done.insert(*serial, Some(end));
                match self.candidates.iter_mut().find(|one| one.is_like(&next)) {
                    Some(one) => one.adopt(next.made),
                    None => self.candidates.push(next),
                }
            }
            at += 1;
        }
        self.unite();
    }

    /// Two that are alike are one.
    fn unite(&mut self) {
        let mut united: Vec<Candidate> = Vec::new();
        for one in self.candidates.drain(..) {
            match united.iter_mut().find(|other| other.is_like(&one)) {
                None => united.push(one),
                Some(other) => other.adopt(one.made),
            }
        }
        self.candidates = united;
        self.look();
    }

    /// What is to be seen now may be shown to whoever asks now.
    fn look(&mut self) {
        for (action, views) in self.views.values_mut() {
            let Some(views) = views else { continue };
            for one in &self.candidates {
                let view = View::of(&one.model, *action);
                if !views.contains(&view) {
                    views.push(view);
                }
            }
        }
    }

    fn describe(&self) -> String {
        let one = |one: &Candidate| format!("{:?} after {:?}", brief(&one.model), one.done);
        self.candidates.iter().map(one).collect::<Vec<_>>().join(" or ")
    }
}

/// Keys, the type, and who holds.
fn brief(model: &Model) -> (Vec<u64>, u8, usize) {
    (model.keys.iter().step_by(2).copied().collect(), model.kind, model.holder / 2)
}

/// True for a command after which the guest is registered, if it is executed.
fn registers(order: &Order) -> bool {
    matches!(order.action, 0 | 6) && order.action_key != 0
}
