//! Random commands of three initiators over two ports each, from a seed, held against the model.

use super::model::{Access, End, Model, Mutant, NEXUSES, Order};
use super::*;

/// Commands of a seed.
const COMMANDS: usize = 60;
/// Seeds of a plain `cargo test`.
const SEEDS_DEFAULT: u64 = 3000;

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

/// The array and the model, side by side.
struct World {
    array: Arc<Array>,
    disks: Vec<Initiator<PortChannel>>,
    model: Model,
    random: Random,
    /// What was done, for the failure's text.
    story: Vec<String>,
}

fn open(array: &Arc<Array>, nexus: usize) -> Initiator<PortChannel> {
    let port = other_initiator(array, 1 + nexus as u64 / 2, 1 + (nexus % 2) as u16);
    Initiator::new(port.channel().unwrap())
}

impl World {
    fn new(seed: u64, mutant: Option<Mutant>) -> Self {
        let array = array(64);
        let mut model = Model::new(mutant);
        let disks = (0..NEXUSES).map(|nexus| open(&array, nexus)).collect();
        (0..NEXUSES).for_each(|nexus| model.reopen(nexus));
        let random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0x5EED);
        World { array, disks, model, random, story: Vec::new() }
    }

    /// Sends a command: `None` where a unit attention came, and the model knows of it.
    fn send(
        &mut self,
        nexus: usize,
        cdb: &[u8],
        out: &[u8],
        room: usize,
    ) -> Result<Option<(End, Vec<u8>)>, String> {
        let (answer, data) = self.disks[nexus].run(cdb, out, room);
        let sense = answer.sense.and_then(|sense| sense.decode());
        // INQUIRY, REQUEST SENSE and REPORT LUNS leave them alone; only the first is sent here.
        let pending = &mut self.model.pending[nexus];
        if cdb[0] != 0x12 && !pending.is_empty() {
            return match sense {
                Some((SenseKey::UnitAttention, asc)) if pending.remove(&asc) => Ok(None),
                _ => Err(format!("{:?} {sense:?}, and {pending:?} is pending", answer.status)),
            };
        }
        let end = match (answer.status, sense) {
            (Status::GOOD, _) => End::Good,
            (Status::RESERVATION_CONFLICT, _) => End::Conflict,
            (_, Some((SenseKey::IllegalRequest, asc))) => End::Illegal(asc),
            (status, sense) => return Err(format!("{status:?} {sense:?}")),
        };
        Ok(Some((end, data)))
    }

    /// Sends a command that the model has an opinion of.
    fn compare(
        &mut self,
        nexus: usize,
        cdb: &[u8],
        out: &[u8],
        opinion: impl FnOnce(&mut Model) -> End,
    ) -> Result<(), String> {
        let room = if out.is_empty() { 512 } else { 0 };
        let Some((end, _)) = self.send(nexus, cdb, out, room)? else { return Ok(()) };
        let expected = opinion(&mut self.model);
        if end == expected { Ok(()) } else { Err(format!("{end:?}, not {expected:?}")) }
    }

    fn step(&mut self) -> Result<(), String> {
        let nexus = self.random.below(NEXUSES as u64) as usize;
        match self.random.below(100) {
            0..50 => self.order(nexus),
            50..70 => self.access(nexus),
            70..88 => self.ask(nexus),
            88..96 => {
                let reserve = self.random.chance(50);
                self.story
                    .push(format!("{nexus}: {}", if reserve { "RESERVE" } else { "RELEASE" }));
                let cdb = [if reserve { 0x16 } else { 0x17 }, 0, 0, 0, 0, 0];
                self.compare(nexus, &cdb, &[], |model| model.legacy(nexus, reserve))
            }
            96..99 => {
                self.story.push(format!("{nexus}: opened again"));
                self.disks[nexus] = open(&self.array, nexus);
                self.model.reopen(nexus);
                Ok(())
            }
            _ => {
                self.story.push("the power was gone".to_owned());
                self.array.power_cycle();
                self.model.power_cycle();
                Ok(())
            }
        }
    }

    fn order(&mut self, nexus: usize) -> Result<(), String> {
        let own = self.model.keys[nexus];
        let key = if self.random.chance(85) { own } else { self.random.below(4) };
        let held = self.model.kind;
        let kind = match self.random.below(10) {
            0 => self.random.below(16) as u8,
            1..5 if held != 0 => held,
            _ => [1, 3, 5, 6, 7, 8][self.random.below(6) as usize],
        };
        let action = [0, 0, 6, 6, 6, 1, 1, 2, 2, 3, 4, 4, 4, 5][self.random.below(14) as usize];
        let action_key = self.random.below(4);
        let order = Order { action, kind, key, action_key, aptpl: self.random.chance(30) };
        self.story.push(format!("{nexus}: {order:?}"));
        let action = OutAction::from_code(action).unwrap();
        let command = Out { scope_and_type: kind, ..Out::new(action, None, 24) };
        let parameters = Parameters {
            key: Key(key),
            action_key: Key(action_key),
            aptpl: order.aptpl,
            ..Parameters::default()
        };
        let list = parameters.bytes();
        self.compare(nexus, command.cdb().bytes(), &list, |model| model.order(nexus, order))
    }

    fn access(&mut self, nexus: usize) -> Result<(), String> {
        let (cdb, out, access): (&[u8], usize, Access) = match self.random.below(8) {
            0 => (&TUR, 0, Access::Ready),
            1 => (&[0x12, 0, 0, 0, 36, 0], 0, Access::Always),
            2 => (&[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0], 0, Access::Always),
            3 => (&[0x1A, 0, 0x08, 0, 64, 0], 0, Access::Read),
            4 => (&[0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0], 0, Access::Write),
            5 => (&[0x2A, 0, 0, 0, 0, 1, 0, 0, 1, 0], 512, Access::Write),
            _ => (&[0x28, 0, 0, 0, 0, 1, 0, 0, 1, 0], 0, Access::Read),
        };
        self.story.push(format!("{nexus}: command {:02X}h", cdb[0]));
        self.compare(nexus, cdb, &vec![0; out], |model| model.access(nexus, access))
    }

    /// PERSISTENT RESERVE IN, and what it tells.
    fn ask(&mut self, nexus: usize) -> Result<(), String> {
        let action = InAction::ALL[self.random.below(4) as usize];
        self.story.push(format!("{nexus}: {action}"));
        let command = In { action, allocation: 1024 };
        let Some((end, data)) = self.send(nexus, command.cdb().bytes(), &[], 1024)? else {
            return Ok(());
        };
        let model = &self.model;
        if end != model.ask() {
            return Err(format!("{end:?}, not {:?}", model.ask()));
        }
        if end != End::Good {
            return Ok(());
        }
        let same = match action {
            InAction::ReadKeys => {
                let Keys { generation, keys } = Keys::parse(&data).ok_or("unreadable")?;
                let mut told: Vec<u64> = keys.iter().map(|key| key.0).collect();
                let mut known: Vec<u64> = model.keys.into_iter().filter(|key| *key != 0).collect();
                told.sort_unstable();
                known.sort_unstable();
                told == known && generation == model.generation
            }
            InAction::ReadReservation => {
                let told = Reservation::parse(&data).ok_or("unreadable")?;
                let held =
                    told.held.map_or((0, 0), |held| (held.key.0, held.kind().unwrap().code()));
                let known = if model.kind == 0 { (0, 0) } else { (model.shown_key(), model.kind) };
                held == known && told.generation == model.generation
            }
            InAction::ReportCapabilities => {
                let told = Capabilities::parse(&data).ok_or("unreadable")?;
                told.persist_active == model.aptpl
            }
            InAction::ReadFullStatus => {
                let told = FullStatus::parse(&data).ok_or("unreadable")?;
                same_registrants(model, &told) && told.generation == model.generation
            }
        };
        if same { Ok(()) } else { Err(format!("{:02x?}, and the model is {model:?}", &data[..64])) }
    }
}

fn same_registrants(model: &Model, told: &FullStatus) -> bool {
    let mut seen = [0; NEXUSES];
    for registrant in &told.registrants {
        let (TransportId::Sas { address }, Some(port)) =
            (&registrant.initiator_port, registrant.target_port)
        else {
            return false;
        };
        let nexus = (*address as usize - 1) * 2 + usize::from(port) - 1;
        let holds = model.holds(nexus).then_some(model.kind);
        if registrant.holds.map(Type::code) != holds {
            return false;
        }
        seen[nexus] = registrant.key.0;
    }
    seen == model.keys
}

/// What went wrong, with the commands that led to it.
pub(super) fn run(seed: u64, mutant: Option<Mutant>) -> Result<(), String> {
    let mut world = World::new(seed, mutant);
    for _ in 0..COMMANDS {
        if let Err(wrong) = world.step() {
            let story = world.story.join("\n  ");
            return Err(format!("seed {seed}:\n  {story}\n  came to {wrong}"));
        }
    }
    Ok(())
}

/// `RESERVATION_SEEDS=N` runs so many.
#[test]
fn array_and_model_agree() {
    let seeds = std::env::var("RESERVATION_SEEDS").ok().and_then(|seeds| seeds.parse().ok());
    let began = Instant::now();
    let seeds = seeds.unwrap_or(SEEDS_DEFAULT);
    for seed in 0..seeds {
        if let Err(wrong) = run(seed, None) {
            panic!("{wrong}");
        }
    }
    println!("{seeds} seeds in {:?}", began.elapsed());
}
