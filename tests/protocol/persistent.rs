//! Persistent reservations of a guest over several ports of the built-in array: it is one initiator.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::backend::{Backend, Setup, directory, path_name};
use crate::driver::Device;
use crate::initiator::{INVALID_OPCODE, pattern, read, write};
use crate::qmp::Qmp;
use crate::queue::{Command, Completion, Queue};

const PORTS: usize = 4;
const KEY: u64 = 0xABC;
const WRITE_EXCLUSIVE: u8 = 1;
const REGISTRANTS_ONLY: u8 = 5;
const CONFLICT: u8 = 0x18;
const INVALID_FIELD_IN_CDB: (u8, u8, u8) = (0x5, 0x24, 0x00);
const INVALID_FIELD_IN_LIST: (u8, u8, u8) = (0x5, 0x26, 0x00);
const LIST_LENGTH: (u8, u8, u8) = (0x5, 0x1A, 0x00);

/// PERSISTENT RESERVE OUT with a list.
fn reserve_out(action: u8, kind: u8, list: Vec<u8>) -> Command {
    let [.., high, low] = (list.len() as u32).to_be_bytes();
    Command::writing(&[0x5F, action, kind, 0, 0, 0, 0, high, low, 0], list)
}

fn list(key: u64, action_key: u64, flags: u8) -> Vec<u8> {
    let mut list = [key.to_be_bytes(), action_key.to_be_bytes(), [0; 8]].concat();
    list[20] = flags;
    list
}

/// REGISTER, from the one key to the other.
pub fn register(old: u64, new: u64) -> Command {
    reserve_out(0, 0, list(old, new, 0))
}

fn reserve(key: u64, kind: u8) -> Command {
    reserve_out(1, kind, list(key, 0, 0))
}

fn release(key: u64, kind: u8) -> Command {
    reserve_out(2, kind, list(key, 0, 0))
}

fn preempt(key: u64, victim: u64, kind: u8) -> Command {
    reserve_out(4, kind, list(key, victim, 0))
}

fn reserve_in(action: u8) -> Command {
    Command::reading(&[0x5E, action, 0, 0, 0, 0, 0, 16, 0, 0], 4096)
}

/// PRGENERATION and the keys.
fn keys(queue: &mut Queue) -> (u32, Vec<u64>) {
    let data = queue.fetch(&reserve_in(0));
    let generation = u32::from_be_bytes(data[..4].try_into().expect("four bytes"));
    let keys = data[8..].chunks_exact(8);
    (generation, keys.map(|key| u64::from_be_bytes(key.try_into().expect("eight"))).collect())
}

/// The holder's key and the type.
fn reservation(queue: &mut Queue) -> Option<(u64, u8)> {
    let data = queue.fetch(&reserve_in(1));
    let held = data.get(8..24)?;
    Some((u64::from_be_bytes(held[..8].try_into().expect("eight")), held[13] & 0xF))
}

fn is_conflict(completion: &Completion) -> bool {
    completion.status == CONFLICT
}

struct Scene {
    guest: Device,
    qmp: Qmp,
    _state: tempfile::TempDir,
    _backend: Backend,
}

impl Scene {
    fn start() -> Self {
        let state = directory();
        let setting = format!("state_dir = \"{}\"\nidentity = \"a\"", state.path().display());
        let backend = Setup::ports(PORTS).backend(&setting).start();
        let mut qmp = backend.qmp();
        // Commands go over all paths, so that each of them shows whether it is registered.
        qmp.execute("set-iopolicy", json!({"iopolicy": "round-robin"}));
        let mut guest = backend.guest(1);
        guest.queue().settle();
        Scene { guest, qmp, _state: state, _backend: backend }
    }

    fn queue(&mut self) -> &mut Queue {
        self.guest.queue()
    }

    fn report(&mut self) -> Value {
        self.qmp.execute("query-reservation", json!({}))
    }

    /// Each path carries some of these.
    fn writes_are_good(&mut self) {
        for lba in 0..4 * PORTS as u32 {
            self.queue().good(&write(lba, pattern(7, 1)));
            self.queue().good(&read(lba, 1));
        }
    }

    fn fail(&mut self, port: usize) {
        let name = path_name(&mut self.qmp, port);
        self.qmp.execute("path-fail", json!({"name": name}));
    }

    /// A path is used as soon as it is registered; it is told when the conversation is over.
    fn wait_registered(&mut self) {
        let patience = Instant::now() + Duration::from_secs(30);
        loop {
            let report = self.report();
            let paths = report["paths"].as_array().expect("a list");
            if paths.iter().all(|path| path["registration"] == "registered") {
                return;
            }
            assert!(Instant::now() < patience, "{report}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn bring_back(&mut self, port: usize) {
        let name = path_name(&mut self.qmp, port);
        self.qmp.execute("path-reinstate", json!({"name": name}));
        let patience = Instant::now() + Duration::from_secs(30);
        loop {
            let paths = self.qmp.execute("query-paths", json!({}));
            let path = paths.as_array().expect("a list").iter().find(|path| path["name"] == name);
            if path.is_some_and(|path| path["state"] == "up") {
                return;
            }
            assert!(Instant::now() < patience, "{name} does not come back: {paths}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

#[test]
fn guest_is_registered_once_over_all_paths() {
    let mut scene = Scene::start();
    let (before, none) = keys(scene.queue());
    assert!(none.is_empty());
    scene.queue().good(&register(0, KEY));
    assert_eq!(keys(scene.queue()), (before + 1, vec![KEY]));
    assert_eq!(reservation(scene.queue()), None);
    let report = scene.report();
    assert_eq!(report["key"], "0xabc", "{report}");
    let paths = report["paths"].as_array().expect("a list");
    assert_eq!(paths.len(), PORTS, "{report}");
    assert!(paths.iter().all(|path| path["registration"] == "registered"), "{report}");
    scene.queue().good(&register(KEY, KEY + 1));
    assert_eq!(keys(scene.queue()), (before + 2, vec![KEY + 1]));
    assert!(is_conflict(&scene.queue().run(&register(KEY, 5))), "that is not its key any more");
    scene.queue().good(&register(KEY + 1, 0));
    assert_eq!(keys(scene.queue()), (before + 3, vec![]));
    // Nothing that the paths told each other's nexuses has come to the guest.
    scene.queue().good(&read(0, 1));
}

#[test]
fn reservation_of_registrants_is_the_guests_over_every_path() {
    let mut scene = Scene::start();
    scene.queue().good(&register(0, KEY));
    scene.queue().good(&reserve(KEY, REGISTRANTS_ONLY));
    assert_eq!(reservation(scene.queue()), Some((KEY, REGISTRANTS_ONLY)));
    scene.writes_are_good();
    scene.queue().good(&reserve(KEY, REGISTRANTS_ONLY));
    assert!(is_conflict(&scene.queue().run(&reserve(KEY, WRITE_EXCLUSIVE))), "another type");
    scene.queue().good(&release(KEY, REGISTRANTS_ONLY));
    assert_eq!(reservation(scene.queue()), None);
    scene.writes_are_good();
}

#[test]
fn commands_go_where_the_holder_is_with_a_type_that_knows_one_nexus() {
    let mut scene = Scene::start();
    scene.queue().good(&register(0, KEY));
    scene.queue().good(&reserve(KEY, WRITE_EXCLUSIVE));
    scene.writes_are_good();
    scene.queue().good(&release(KEY, WRITE_EXCLUSIVE));
    scene.writes_are_good();
}

#[test]
fn reservation_moves_when_its_path_fails_and_the_path_comes_back_registered() {
    let mut scene = Scene::start();
    for kind in [WRITE_EXCLUSIVE, REGISTRANTS_ONLY] {
        scene.queue().good(&register(0, KEY));
        scene.queue().good(&reserve(KEY, kind));
        for port in 1..=PORTS {
            scene.fail(port);
            scene.writes_are_good();
            assert_eq!(reservation(scene.queue()), Some((KEY, kind)));
            assert_eq!(keys(scene.queue()).1, [KEY]);
            scene.bring_back(port);
            scene.writes_are_good();
        }
        scene.wait_registered();
        scene.queue().good(&release(KEY, kind));
        scene.queue().good(&register(KEY, 0));
        assert_eq!(keys(scene.queue()).1, Vec::<u64>::new());
    }
}

#[test]
fn path_that_is_removed_leaves_no_registration_behind() {
    let mut scene = Scene::start();
    scene.queue().good(&register(0, KEY));
    scene.queue().good(&reserve(KEY, WRITE_EXCLUSIVE));
    // The holder's among them.
    for port in 1..PORTS {
        let name = path_name(&mut scene.qmp, port);
        scene.qmp.execute("path-remove", json!({"name": name}));
        scene.writes_are_good();
    }
    let patience = Instant::now() + Duration::from_secs(30);
    while scene.report()["paths"].as_array().expect("a list").len() > 1 {
        assert!(Instant::now() < patience, "{}", scene.report());
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(keys(scene.queue()).1, [KEY], "the last path's, and no other");
    assert_eq!(reservation(scene.queue()), Some((KEY, WRITE_EXCLUSIVE)));
}

#[test]
fn preempting_oneself_keeps_every_path_registered() {
    let mut scene = Scene::start();
    scene.queue().good(&register(0, KEY));
    scene.queue().good(&reserve(KEY, REGISTRANTS_ONLY));
    scene.queue().good(&preempt(KEY, KEY, WRITE_EXCLUSIVE));
    assert_eq!(reservation(scene.queue()), Some((KEY, WRITE_EXCLUSIVE)));
    assert_eq!(keys(scene.queue()).1, [KEY]);
    scene.writes_are_good();
    scene.wait_registered();
    scene.queue().good(&reserve_out(3, 0, list(KEY, 0, 0)));
    assert_eq!((keys(scene.queue()).1, reservation(scene.queue())), (vec![], None));
    assert_eq!(scene.report()["key"], Value::Null);
    scene.writes_are_good();
}

#[test]
fn what_cannot_be_done_is_refused_as_the_standard_says() {
    let mut scene = Scene::start();
    let queue = scene.queue();
    let code = |queue: &mut Queue, command: &Command| queue.run(command).sense_code();
    let unknown = reserve_out(0x1F, 0, list(0, 1, 0));
    assert_eq!(code(queue, &unknown), Some(INVALID_FIELD_IN_CDB));
    assert_eq!(code(queue, &reserve_in(0x1F)), Some(INVALID_FIELD_IN_CDB));
    let moves = reserve_out(7, 0, list(0, 1, 0));
    assert_eq!(code(queue, &moves), Some(INVALID_FIELD_IN_CDB));
    assert_eq!(code(queue, &reserve_out(0, 0, vec![0; 16])), Some(LIST_LENGTH));
    let all_target_ports = reserve_out(0, 0, list(0, 1, 0x04));
    assert_eq!(code(queue, &all_target_ports), Some(INVALID_FIELD_IN_LIST));
    let capabilities = queue.fetch(&reserve_in(2));
    assert_eq!(capabilities[2] & 0x0C, 0, "SIP_C and ATP_C");
    assert_eq!(keys(queue).1, Vec::<u64>::new());
}

/// A backend on two ports of an image in `images`, whose reservations are in `state`.
fn keeping(state: &Path, images: &Path, identity: &str) -> Backend {
    let setting = format!("state_dir = \"{}\"\nidentity = \"{identity}\"", state.display());
    let image = images.join("disk.img");
    let port = |port: usize| format!("emulated:{}?port={port}&size=64M", image.display());
    let setup = Setup::ports(0).backend(&setting);
    setup.option("--path", &port(1)).option("--path", &port(2)).start()
}

#[test]
fn registration_is_taken_up_after_a_restart() {
    let (state, images) = (directory(), directory());
    let start = |identity: &str| keeping(state.path(), images.path(), identity);
    let backend = start("a");
    let mut guest = backend.guest(1);
    guest.queue().settle();
    // APTPL: this array keeps it while nobody has its image open.
    guest.queue().good(&reserve_out(0, 0, list(0, KEY, 1)));
    guest.queue().good(&reserve(KEY, REGISTRANTS_ONLY));
    drop(guest);
    drop(backend);

    let backend = start("a");
    let mut guest = backend.guest(1);
    guest.queue().settle();
    assert_eq!(keys(guest.queue()).1, [KEY]);
    assert_eq!(reservation(guest.queue()), Some((KEY, REGISTRANTS_ONLY)));
    (0..8).for_each(|lba| assert!(guest.queue().run(&write(lba, pattern(1, 1))).is_good()));
    let exported = backend.qmp().execute("reservation-export", json!({}));
    assert_eq!(exported["kept"]["key"], "0xabc");
    drop(guest);
    drop(backend);

    // Another backend, as on another host: it knows of nothing before it is told.
    let backend = start("b");
    let mut qmp = backend.qmp();
    assert_eq!(qmp.execute("query-reservation", json!({}))["key"], Value::Null);
    qmp.execute("reservation-import", json!({"reservation": exported}));
    let mut guest = backend.guest(1);
    guest.queue().settle();
    assert_eq!(reservation(guest.queue()), Some((KEY, REGISTRANTS_ONLY)));
    assert_eq!(keys(guest.queue()).1, [KEY]);
    (0..8).for_each(|lba| assert!(guest.queue().run(&write(lba, pattern(2, 1))).is_good()));
    guest.queue().good(&release(KEY, REGISTRANTS_ONLY));
    guest.queue().good(&register(KEY, 0));
    assert_eq!(keys(guest.queue()).1, Vec::<u64>::new());
}

#[test]
fn import_at_arrival_does_nothing_before_the_guest_comes() {
    let (state, images) = (directory(), directory());
    let start = |identity: &str| keeping(state.path(), images.path(), identity);
    let backend = start("a");
    let mut guest = backend.guest(1);
    guest.queue().settle();
    guest.queue().good(&reserve_out(0, 0, list(0, KEY, 1)));
    guest.queue().good(&reserve(KEY, REGISTRANTS_ONLY));
    let exported = backend.qmp().execute("reservation-export", json!({}));
    drop(guest);
    drop(backend);

    let backend = start("b");
    let mut qmp = backend.qmp();
    let import = json!({"reservation": exported, "at-arrival": true});
    qmp.execute("reservation-import", import.clone());
    std::thread::sleep(Duration::from_millis(200));
    let before = qmp.execute("query-reservation", json!({}));
    assert_eq!(before["key"], Value::Null, "{before}");
    // A front end that goes before its rings run: the guest has stayed where it was.
    drop(crate::driver::Session::open(crate::driver::connect(&backend.socket()).unwrap()));
    qmp.event("FRONTEND_DISCONNECTED", Duration::from_secs(10), |_| true).expect("it has gone");
    let mut stranger = backend.guest(1);
    stranger.queue().settle();
    let after = qmp.execute("query-reservation", json!({}));
    assert_eq!(after["key"], Value::Null, "another guest has got it: {after}");
    let error = qmp.try_execute("reservation-import", import.clone()).unwrap_err();
    assert!(error.contains("a guest is here already"), "{error}");
    drop(stranger);
    qmp.event("FRONTEND_DISCONNECTED", Duration::from_secs(10), |_| true).expect("it has gone");

    qmp.execute("reservation-import", import);
    let mut guest = backend.guest(1);
    guest.queue().settle();
    assert_eq!(reservation(guest.queue()), Some((KEY, REGISTRANTS_ONLY)));
    assert_eq!(keys(guest.queue()).1, [KEY]);
    assert_eq!(qmp.execute("query-reservation", json!({}))["key"], "0xabc");
}

#[test]
fn without_a_place_to_keep_it_nothing_is_registered() {
    let backend = Setup::ports(2).start();
    let mut guest = backend.guest(1);
    guest.queue().settle();
    assert_eq!(guest.queue().run(&register(0, KEY)).sense_code(), Some(INVALID_OPCODE));
    assert_eq!(keys(guest.queue()).1, Vec::<u64>::new());
    let said =
        |line: &String| line.contains("PERSISTENT RESERVE OUT is refused: there is no state_dir");
    let patience = Instant::now() + Duration::from_secs(30);
    while !backend.log().iter().any(said) {
        assert!(Instant::now() < patience, "{:?}", backend.log());
        std::thread::sleep(Duration::from_millis(20));
    }
}
