//! The logical unit: one per image and process, shared by all ports that were opened on it.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};

use super::access::Group;
use super::attention::Attention;
use super::engine::Engine;
use super::exclusion::Exclusion;
use super::helper::Helper;
use super::image::ImageGuard;
use super::lock;
use super::mode::Modes;
use super::port::PortState;
use super::reservations::{Keep, Reservations, State};
use super::store::Store;
use super::store_sys;
use crate::path::address::Naa6;
use crate::scsi::Asc;
use crate::scsi::alua::AccessState;

/// A logical unit of the built-in array.
///
/// It owns the store and everything that SAM and SPC keep per logical unit: name, size, mode
/// pages, reservation, port groups. What is per I_T nexus lives in the port. Everything that the
/// hot path looks at is an atomic; the locks guard what changes when a person changes something.
#[derive(Debug)]
pub struct Array {
    name: Naa6,
    product: &'static [u8; 16],
    block_size: u32,
    blocks: AtomicU64,
    /// The longest that the image has been seen to be.
    seen_len: AtomicU64,
    read_only: bool,
    pub(super) store: Store,
    pub(super) modes: Modes,
    pub(super) exclusion: Exclusion,
    pub(super) helper: Helper,
    engine_name: OnceLock<&'static str>,
    ports: Mutex<Vec<Weak<PortState>>>,
    groups: Mutex<BTreeMap<u16, Arc<Group>>>,
    pub(super) reservations: Reservations,
    next_nexus: AtomicU64,
    // Last, so that the image is unlocked when everything else is gone.
    _guard: Option<ImageGuard>,
}

/// What makes a unit of a store.
pub(super) struct Identity {
    pub(super) name: Naa6,
    pub(super) product: &'static [u8; 16],
    pub(super) block_size: u32,
    pub(super) blocks: u64,
    pub(super) read_only: bool,
    pub(super) reservations: Reservations,
}

impl Array {
    pub(super) fn new(store: Store, identity: Identity, guard: Option<ImageGuard>) -> Arc<Self> {
        Arc::new(Array {
            name: identity.name,
            product: identity.product,
            block_size: identity.block_size,
            blocks: AtomicU64::new(identity.blocks),
            seen_len: AtomicU64::new(store.len().unwrap_or(0)),
            read_only: identity.read_only,
            store,
            modes: Modes::default(),
            exclusion: Exclusion::default(),
            helper: Helper::default(),
            engine_name: OnceLock::new(),
            ports: Mutex::default(),
            groups: Mutex::default(),
            reservations: identity.reservations,
            next_nexus: AtomicU64::new(1),
            _guard: guard,
        })
    }

    /// A unit in memory that ends with the last of its ports: for tests and for an oracle. Blocks
    /// have 512 or 4096 bytes.
    pub fn in_memory(bytes: u64, block_size: u32, name: Naa6) -> io::Result<Arc<Self>> {
        if !matches!(block_size, 512 | 4096) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let file = store_sys::memory_file("emulated-array")?;
        file.set_len(bytes)?;
        let blocks = bytes / u64::from(block_size);
        let product = b"VIRTUAL-DISK    ";
        let reservations = Reservations::new(Keep::WithUnit, State::default());
        let identity =
            Identity { name, product, block_size, blocks, read_only: false, reservations };
        Ok(Array::new(Store::file(file), identity, None))
    }

    /// A unit that stores nothing.
    pub(crate) fn null(bytes: u64) -> Arc<Self> {
        // Units of the same size are as good as one: paths to them may be grouped.
        let name = Naa6::derived(format!("null:{bytes}").as_bytes());
        let product = b"NULL-DISK       ";
        let reservations = Reservations::new(Keep::Nowhere, State::default());
        let (block_size, blocks) = (512, bytes / 512);
        let identity =
            Identity { name, product, block_size, blocks, read_only: false, reservations };
        Array::new(Store::Null, identity, None)
    }

    /// The unit's name.
    pub fn wwid(&self) -> Naa6 {
        self.name
    }

    /// PRODUCT IDENTIFICATION.
    pub(super) fn product(&self) -> &'static [u8; 16] {
        self.product
    }

    /// Bytes of a logical block.
    pub fn block_size(&self) -> u32 {
        self.block_size
    }

    /// Number of logical blocks.
    pub fn blocks(&self) -> u64 {
        self.blocks.load(Ordering::Relaxed)
    }

    /// Reads what the unit holds, past all ports: the view of an oracle.
    pub fn peek(&self, lba: u64, into: &mut [u8]) -> io::Result<()> {
        let offset =
            lba.checked_mul(u64::from(self.block_size)).ok_or(io::ErrorKind::InvalidInput)?;
        self.store.read_bytes(offset, into)
    }

    /// Changes what the unit holds, past all ports: a hand in the cabinet.
    pub fn poke(&self, lba: u64, from: &[u8]) -> io::Result<()> {
        let offset =
            lba.checked_mul(u64::from(self.block_size)).ok_or(io::ErrorKind::InvalidInput)?;
        self.exclusion.in_turn(|| self.store.write_bytes(offset, from))
    }

    /// True when writes are refused: opened for looking only, or SWP is set (SBC-4 6.5.3).
    pub(super) fn write_refusal(&self) -> Option<Asc> {
        if self.read_only {
            return Some(Asc::WRITE_PROTECTED);
        }
        self.modes.write_protected().then_some(Asc::SOFTWARE_WRITE_PROTECTED)
    }

    /// How transfers go, for `query-paths`.
    pub(super) fn engine_name(&self) -> &'static str {
        self.engine_name.get_or_init(|| Engine::name(&self.store))
    }

    pub(super) fn new_nexus(&self) -> u64 {
        self.next_nexus.fetch_add(1, Ordering::Relaxed)
    }

    /// Adds a port that has been opened.
    pub(super) fn attach(&self, port: &Arc<PortState>) {
        let mut ports = lock(&self.ports);
        ports.retain(|port| port.strong_count() > 0);
        ports.push(Arc::downgrade(port));
        drop(ports);
        self.place_ports();
    }

    /// The ports that are open, in the order of their numbers.
    pub(super) fn ports(&self) -> Vec<Arc<PortState>> {
        let mut ports: Vec<_> = lock(&self.ports).iter().filter_map(Weak::upgrade).collect();
        ports.sort_by_key(|port| port.number);
        ports
    }

    /// The group for a port that says it is in `number` with this state. `Err` with the group's
    /// own state when that is another: one group, one state (SPC-5 5.18.1).
    pub(super) fn group(&self, number: u16, state: AccessState) -> Result<Arc<Group>, AccessState> {
        let mut groups = lock(&self.groups);
        // Groups that only the table still holds have lost their last port.
        groups.retain(|_, group| Arc::strong_count(group) > 1);
        if let Some(group) = groups.get(&number) {
            let same = group.configured == state;
            return if same { Ok(group.clone()) } else { Err(group.configured) };
        }
        let group = Arc::new(Group::new(number, state));
        groups.insert(number, group.clone());
        Ok(group)
    }

    /// The groups that have a port, in the order of their numbers.
    pub(super) fn groups(&self) -> Vec<Arc<Group>> {
        let mut groups: Vec<_> = self.ports().iter().map(|port| port.group.clone()).collect();
        groups.sort_by_key(|group| group.number);
        groups.dedup_by_key(|group| group.number);
        groups.iter().for_each(|group| self.settle_group(group));
        groups
    }

    /// Somebody may have made the image longer, as `truncate` does: then the unit has grown, and
    /// every nexus hears of it. Or shorter, and then what is behind the end cannot be read.
    pub(super) fn notice_growth(&self) {
        let Some(len) = self.store.len() else { return };
        self.store.note_len(len);
        if self.seen_len.fetch_max(len, Ordering::Relaxed) >= len {
            return;
        }
        let blocks = len / u64::from(self.block_size);
        if self.blocks.fetch_max(blocks, Ordering::Relaxed) < blocks {
            self.post(Attention::CapacityChanged, None);
        }
    }

    /// Gives the unit another size, as a storage admin does, and tells every nexus. A larger one
    /// makes the image longer; what a smaller one hides stays in the image.
    pub fn resize(&self, blocks: u64) -> io::Result<()> {
        let bytes = blocks.checked_mul(u64::from(self.block_size));
        if self.read_only || blocks == 0 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.store.grow(bytes.ok_or(io::ErrorKind::InvalidInput)?)?;
        self.seen_len.fetch_max(self.store.len().unwrap_or(0), Ordering::Relaxed);
        if self.blocks.swap(blocks, Ordering::Relaxed) != blocks {
            self.post(Attention::CapacityChanged, None);
        }
        Ok(())
    }

    /// Establishes a unit attention for every nexus except one.
    pub(super) fn post(&self, attention: Attention, except: Option<u64>) {
        for port in self.ports() {
            if Some(port.nexus) != except {
                port.attentions.post(attention);
            }
        }
    }

    /// Takes the power away for a moment: what is not kept is lost, and every nexus hears of it.
    pub fn power_cycle(&self) {
        self.forget_reservations();
        self.modes.power_on();
        self.post(Attention::PowerOn, None);
    }
}
