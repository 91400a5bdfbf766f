//! Two or three initiators, random reservation commands, random faults of the guest's paths; see
//! [`crate::referee`] for what is asked of the answers.

use std::collections::BTreeSet;
use std::time::Duration;

use vhost_user_scsi_mpath::completion::Response;
use vhost_user_scsi_mpath::ids::LaneId;
use vhost_user_scsi_mpath::multipath::reservation::{Event, Standing};
use vhost_user_scsi_mpath::scsi::Status;
use vhost_user_scsi_mpath::scsi::reservation::{InAction, Type};

use crate::cluster::{A_MOMENT, any_order};
use crate::command::{Command, Op};
use crate::faults::{Fault, Restore};
use crate::model::Order;
use crate::ms;
use crate::options::{Lies, Options};
use crate::plans::Plan;
use crate::referee::GUEST;
use crate::run::run;
use crate::scenarios::{GOOD, world};
use crate::scene::{Rule, Scene};
use crate::world::World;

/// Reservation commands of the guest's under way at most.
const ORDERS_MAX: usize = 2;

impl World {
    /// Where there are other initiators, paths are registered before they are used.
    pub fn register(&mut self) {
        if self.scene().cluster.is_some() {
            let now = self.now();
            self.manager.register_paths(now);
            self.manager.reservation(Event::Restored(None), now);
        }
    }

    /// The record is on the medium.
    pub fn kept(&mut self) {
        let now = self.now();
        self.manager.reservation(Event::Kept(true), now);
        self.manager_due.set(None);
        self.look_after_reservations(&[]);
    }

    /// Commands of the guest's that nobody waits for, at the beginning of a turn of the manager's.
    pub fn loose_orders(&self) -> Vec<u64> {
        self.scene().cluster.as_ref().map_or(Vec::new(), |cluster| cluster.referee.loose())
    }

    fn is_amid(&self) -> bool {
        let standing = self.manager.standing();
        let (under_way, key) = (standing.under_way.is_some(), standing.record.key);
        let scene = self.scene();
        let cluster = scene.cluster.as_ref();
        cluster.is_some_and(|cluster| under_way && cluster.amid || cluster.is_torn(key))
    }

    /// After a turn of the manager's; `loose` are the commands that it has heard of for sure and that
    /// nobody waits for.
    pub fn look_after_reservations(&mut self, loose: &[u64]) {
        if self.scene().cluster.is_none() {
            return;
        }
        for _ in self.manager.take_keeps() {
            let after = {
                let mut scene = self.scene();
                let max = scene.options.keep_max;
                scene.random.time(Duration::ZERO..max)
            };
            self.plan(after, Plan::Kept);
        }
        let Standing { under_way: None, record, .. } = self.manager.standing() else { return };
        let usable = |id| self.manager.core().paths().any(|path| path.id == id && path.is_usable());
        let ports: BTreeSet<u8> = {
            let scene = self.scene();
            let ports = scene.ports.iter().filter(|port| !port.removed);
            let ports = ports.filter(|port| port.path.is_some_and(usable));
            ports.map(|port| port.number).collect()
        };
        let mut scene = self.shared.lock();
        let Some(cluster) = &mut scene.cluster else { return };
        cluster.amid = false;
        let mut truth = cluster.as_one(&ports);
        if let Some(truth) = &mut truth {
            truth.generation = record.guest_generation(truth.generation);
        }
        let torn = !ports.is_empty() && truth.is_none();
        let judged = match torn {
            true => Err(format!("the guest is not one over ports {ports:?}")),
            false => {
                let whole = !ports.is_empty() && !cluster.is_torn(record.key);
                cluster.referee.rests(loose, truth.as_ref().filter(|_| whole))
            }
        };
        scene.hold_against(judged);
    }

    /// Another initiator's turn has come. In the middle of what the backend does it mostly waits.
    pub fn other(&mut self) {
        let amid = self.is_amid();
        let acts = {
            let mut scene = self.scene();
            let often = scene.options.amid;
            !amid || scene.random.chance(often)
        };
        if !acts {
            return self.plan(A_MOMENT, Plan::Other);
        }
        self.scene().other_initiator(amid);
        self.plan_next(Plan::Other);
    }
}

impl Scene {
    /// The guest has as many reservation commands under way as it ever has: each of them doubles what
    /// there may be.
    pub fn has_orders(&self) -> bool {
        let orders = self.cluster.as_ref().map_or(0, |cluster| cluster.referee.under_way());
        orders >= ORDERS_MAX
    }

    /// What a reservation command of the guest's asks for.
    pub fn fill_in(&mut self, command: &mut Command) {
        let Some(cluster) = &self.cluster else { return };
        if command.op == Op::ReserveOut {
            command.order(any_order(&mut self.random, cluster.referee.guess(), GUEST));
        }
        if command.op == Op::ReserveIn {
            let asked = [InAction::ReadKeys, InAction::ReadReservation];
            command.asks(self.random.pick(&asked));
        }
    }
}

/// A world in which the guest is registered and has a reservation of this type.
fn reserved(kind: Type) -> World {
    let mut world = world(|options| options.initiators = 1);
    let register = Order { action: 0, kind: 0, key: 0, action_key: 1, aptpl: false };
    let reserve = Order { action: 1, kind: kind.code(), key: 1, action_key: 0, aptpl: false };
    for order in [register, reserve] {
        let serial = world.scene().send_order(LaneId(0), order);
        world.run_for(ms(100));
        assert_eq!(world.outcome(serial), GOOD);
    }
    world
}

#[test]
fn reservation_leaves_a_port_that_stands_by() {
    let mut world = reserved(Type::WriteExclusive);
    let write = |world: &mut World| {
        let serial = world.send(0, Op::Write, (3, 2));
        world.run_for(Duration::from_secs(8));
        world.outcome(serial)
    };
    for port in [0, 1] {
        world.break_port(Fault::Standby, port, Duration::from_secs(60));
        assert_eq!(write(&mut world), GOOD, "port {port} stands by, the other does not");
        world.restore(Restore::Access(port));
        assert_eq!(write(&mut world), GOOD);
    }
    world.ends_well();
}

#[test]
fn guest_that_is_shut_out_writes_nothing() {
    let mut world = reserved(Type::WriteExclusiveRegistrantsOnly);
    let other = |action, action_key| Order { action, kind: 5, key: 10, action_key, aptpl: false };
    world.scene().other_sends(2, Order { key: 0, ..other(0, 10) }, false);
    world.scene().other_sends(2, other(5, 1), false);
    let conflict = Some((Response::Ok, Status::RESERVATION_CONFLICT));
    let attention = Some((Response::Ok, Status::CHECK_CONDITION));
    let outcomes: Vec<_> = (0..4)
        .map(|_| {
            let serial = world.send(0, Op::Write, (3, 2));
            world.run_for(ms(200));
            world.outcome(serial)
        })
        .collect();
    // It is told why, once.
    let told = outcomes.iter().filter(|outcome| **outcome == attention).count();
    let refused = outcomes.iter().filter(|outcome| **outcome == conflict).count();
    assert_eq!((told, refused), (1, 3), "{outcomes:?}");
    world.break_port(Fault::Cut, 0, ms(300));
    world.run_for(Duration::from_secs(8));
    let serial = world.send(0, Op::Write, (3, 2));
    world.run_for(ms(200));
    assert_eq!(world.outcome(serial), conflict, "a path that comes back does not let it in");
    world.ends_well();
}

#[test]
fn all_initiators_see_one_unit() {
    crate::seeds(Options::cluster, "initiators::replay_initiators", 1);
}

/// A cluster in which only `lie` is wrong is found out by the referee.
fn is_noticed(lie: fn(&mut Lies)) {
    let noticed = (1..=20).any(|seed| {
        let mut options =
            Options { fault_every: Duration::ZERO, amid: 0, ..Options::cluster(seed) };
        lie(&mut options.lies);
        let result = run(seed, options, false);
        result.is_err_and(|violation| violation.rule == Rule::OneInitiator)
    });
    assert!(noticed, "nobody noticed");
}

#[test]
fn array_that_lets_everybody_in_is_noticed() {
    is_noticed(|lies| lies.lets_all_in = true);
}

#[test]
fn registration_that_was_not_made_is_noticed() {
    is_noticed(|lies| lies.registers_in_words = true);
}

#[test]
fn guest_that_is_shut_out_in_words_only_is_noticed() {
    is_noticed(|lies| lies.spares_the_guest = true);
}

/// Runs the seed that SIM_SEED names and says everything that happens.
#[test]
fn replay_initiators() {
    crate::replay_seed(Options::cluster);
}
