//! One connection: what the front end has set up so far, and the stopping and starting of rings.
//!
//! ```text
//!   SET_VRING_NUM, _BASE, _ADDR        SET_VRING_KICK                GET_VRING_BASE
//!        set up  ------------------->  running (enabled or not)  ------------------->  set up
//! ```
//!
//! With PROTOCOL_FEATURES a ring that runs takes no requests until SET_VRING_ENABLE; without, it
//! takes them at once. How rings are enabled is in [`super::enable`], how they stop in
//! [`super::stop`], how what they write is marked in [`super::migration`].

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use thiserror::Error;

use super::FrontConfig;
use super::dirty::{DirtyLog, LogError};
use super::enable::Wish;
use super::features::{self, FeatureError, Features, PROTOCOL_FEATURES};
use super::inflight::{self, RegionError, Shape};
use super::memory::{GuestMemory, MemoryError, Region};
use super::queue::RingStart;
use super::ring::{Layout, RingError};
use super::socket_sys::set_nonblocking;
use super::stop::StopWindow;
use super::worker::Command;
use super::workers::Workers;
use crate::engine::Lanes;
use crate::ids::RingIndex;

/// Why a front end's message is refused, which ends the connection.
#[derive(Debug, Error)]
pub enum SessionError {
    /// A ring that is not configured.
    #[error("the front end brings ring {0}, but request_queues allows {1} rings only")]
    NoSuchRing(u32, u16),
    /// A feature that was not offered.
    #[error("{0}")]
    Feature(#[from] FeatureError),
    /// A memory table that makes no sense.
    #[error("{0}")]
    Memory(#[from] MemoryError),
    /// A dirty log that makes no sense.
    #[error("{0}")]
    Log(#[from] LogError),
    /// An in-flight region that makes no sense.
    #[error("{0}")]
    Inflight(#[from] RegionError),
    /// A ring that makes no sense.
    #[error("ring {}: {source}", ring.0)]
    Ring {
        /// Which one.
        ring: RingIndex,
        /// Why.
        source: RingError,
    },
    /// An index that does not fit 16 bits.
    #[error("ring {}: {base} is no index into a ring", ring.0)]
    Base {
        /// Which ring.
        ring: RingIndex,
        /// What was sent.
        base: u32,
    },
    /// The flag that asks the device to poll.
    #[error("ring {}: polling instead of a kick descriptor is not supported", .0.0)]
    Polling(RingIndex),
    /// A running ring cannot move.
    #[error("ring {}: it was changed while it runs", .0.0)]
    Running(RingIndex),
    /// A descriptor of no use.
    #[error("ring {}: its descriptor cannot be used: {source}", ring.0)]
    Descriptor {
        /// Which ring.
        ring: RingIndex,
        /// Why.
        source: io::Error,
    },
    /// No lane for a ring.
    #[error("ring {}: no lane can serve it: {source}", ring.0)]
    Lane {
        /// Which ring.
        ring: RingIndex,
        /// Why.
        source: io::Error,
    },
}

pub(super) type Result<T> = std::result::Result<T, SessionError>;

/// What is known of a ring.
#[derive(Debug, Default)]
pub(super) struct RingSetUp {
    size: u16,
    pub(super) base: u16,
    addresses: Option<Layout>,
    /// Where writes to the used ring are marked, if they are.
    used_address: Option<u64>,
    kick: Option<File>,
    call: Option<Arc<File>>,
    err: Option<Arc<File>>,
    pub(super) enabled: bool,
    pub(super) running: bool,
}

impl RingSetUp {
    /// Where the used ring ends, by the address at which it is marked.
    pub(super) fn used_end(&self) -> Option<u64> {
        let len = self.addresses.map_or(0, |layout| layout.used_len());
        Some(self.used_address?.saturating_add(len))
    }

    /// As before any message, but for what QEMU sends once per connection.
    pub(super) fn reset(&mut self) {
        let (call, err) = (self.call.take(), self.err.take());
        *self = RingSetUp { call, err, ..RingSetUp::default() };
    }
}

/// One connection. Used by the protocol thread alone.
#[derive(Debug)]
pub struct Session<F> {
    pub(super) workers: Workers<F>,
    pub(super) stop_deadline: Duration,
    queue_num: u16,
    pub(super) features: Features,
    pub(super) memory: Arc<GuestMemory>,
    /// Where what is written is marked while LOG_ALL is accepted.
    pub(super) log: Option<Arc<DirtyLog>>,
    /// Where the rings that start from now on write down what is in flight.
    pub(super) region: Option<inflight::Region>,
    pub(super) rings: Vec<RingSetUp>,
    pub(super) stop: Option<StopWindow>,
    /// The control ring is enabled, or will be.
    pub(super) wish: Option<Wish>,
}

impl<F: Lanes> Session<F> {
    /// A front end has connected. The workers are lent to the connection.
    pub fn new(workers: Workers<F>, config: &FrontConfig) -> Self {
        let mut rings = Vec::new();
        rings.resize_with(config.rings().into(), RingSetUp::default);
        workers.lanes().connected(true);
        Session {
            workers,
            stop_deadline: config.stop_deadline,
            queue_num: config.queue_num(),
            features: Features::default(),
            memory: Arc::default(),
            log: None,
            region: None,
            rings,
            stop: None,
            wish: None,
        }
    }

    /// The connection has ended. With a deadline the requests are answered first, as when each
    /// ring had been stopped; without, nobody is there to hear the answers.
    pub fn end(mut self, deadline: Option<Instant>) -> Workers<F> {
        match deadline {
            Some(deadline) => self.stop_all(deadline),
            None => {
                for at in self.running() {
                    self.tell(at, Command::Disconnect);
                }
            }
        }
        self.workers.lanes().connected(false);
        self.workers
    }

    /// What GET_QUEUE_NUM answers.
    pub fn queue_num(&self) -> u64 {
        self.queue_num.into()
    }

    /// SET_FEATURES. QEMU sends it twice per start; running rings keep what they started with, but
    /// for LOG_ALL.
    pub fn set_features(&mut self, bits: u64) -> Result<()> {
        let before = std::mem::replace(&mut self.features, Features::accept(bits)?);
        if before.log_all() != self.features.log_all() {
            self.change_log_all()?;
        }
        Ok(())
    }

    /// SET_PROTOCOL_FEATURES.
    pub fn set_protocol_features(&mut self, bits: u64) -> Result<()> {
        Ok(features::accept_protocol(bits)?)
    }

    /// SET_MEM_TABLE.
    pub fn set_memory(&mut self, regions: Vec<Region>) -> Result<()> {
        self.change_memory(GuestMemory::new(regions)?)
    }

    /// ADD_MEM_REG.
    pub fn add_region(&mut self, region: Region) -> Result<()> {
        self.change_memory(self.memory.with(region)?)
    }

    /// REM_MEM_REG.
    pub fn remove_region(&mut self, guest: u64, user: u64, len: u64) -> Result<()> {
        self.change_memory(self.memory.without(guest, user, len)?)
    }

    /// Returns when no worker takes requests by the old table. Requests in flight keep it.
    fn change_memory(&mut self, memory: GuestMemory) -> Result<()> {
        self.check_log_covers(&memory)?;
        self.memory = Arc::new(memory);
        self.have_all(|done| Command::Memory(self.memory.clone(), done));
        Ok(())
    }

    /// GET_INFLIGHT_FD: a new region, and its size. It is not used before it comes back.
    pub fn make_region(&self, rings: u16, ring_size: u16) -> Result<(u64, File)> {
        let shape = Shape::new(rings, ring_size)?;
        Ok((shape.bytes() as u64, shape.make()?))
    }

    /// SET_INFLIGHT_FD: `bytes` of `file` from `offset` on are the region. Rings that run keep the
    /// one that they were started with.
    pub fn set_region(
        &mut self,
        rings: u16,
        ring_size: u16,
        file: File,
        offset: u64,
        bytes: u64,
    ) -> Result<()> {
        let shape = Shape::new(rings, ring_size)?;
        self.region = Some(inflight::Region::map(shape, file, offset, bytes)?);
        Ok(())
    }

    pub(super) fn ring(&mut self, index: u32) -> Result<(RingIndex, &mut RingSetUp)> {
        let rings = self.rings.len() as u16;
        match self.rings.get_mut(index as usize) {
            Some(ring) => Ok((RingIndex(index as u16), ring)),
            None => Err(SessionError::NoSuchRing(index, rings)),
        }
    }

    fn stopped_ring(&mut self, index: u32) -> Result<(RingIndex, &mut RingSetUp)> {
        match self.ring(index)? {
            (at, ring) if ring.running => Err(SessionError::Running(at)),
            found => Ok(found),
        }
    }

    /// SET_VRING_NUM.
    pub fn set_ring_size(&mut self, index: u32, size: u32) -> Result<()> {
        let (at, ring) = self.stopped_ring(index)?;
        ring.size =
            Layout::check_size(size).map_err(|source| SessionError::Ring { ring: at, source })?;
        Ok(())
    }

    /// SET_VRING_BASE.
    pub fn set_ring_base(&mut self, index: u32, base: u32) -> Result<()> {
        let (at, ring) = self.stopped_ring(index)?;
        ring.base = u16::try_from(base).map_err(|_| SessionError::Base { ring: at, base })?;
        Ok(())
    }

    /// SET_VRING_ADDR, by the front end's own addresses, and the guest-physical one at which the used
    /// ring is marked, if it is. A running ring may be told again where it is, and how it is marked.
    pub fn set_ring_addresses(
        &mut self,
        index: u32,
        descriptors: u64,
        available: u64,
        used: u64,
        used_address: Option<u64>,
    ) -> Result<()> {
        let memory = self.memory.clone();
        let (at, ring) = self.ring(index)?;
        let layout = Layout { size: ring.size, descriptors, available, used };
        if ring.running && ring.addresses != Some(layout) {
            return Err(SessionError::Running(at));
        }
        layout.check(&memory).map_err(|source| SessionError::Ring { ring: at, source })?;
        ring.addresses = Some(layout);
        let before = std::mem::replace(&mut ring.used_address, used_address);
        if ring.running && before != used_address {
            self.change_used_address(at, used_address);
        }
        Ok(())
    }

    /// SET_VRING_KICK, which starts the ring if everything else is there.
    pub fn set_ring_kick(&mut self, index: u32, kick: Option<File>) -> Result<()> {
        let (at, ring) = self.ring(index)?;
        let kick = kick.ok_or(SessionError::Polling(at))?;
        set_nonblocking(&kick).map_err(|source| SessionError::Descriptor { ring: at, source })?;
        if ring.running {
            self.tell(at, Command::Kick(at, kick));
            return Ok(());
        }
        ring.kick = Some(kick);
        self.start(at)
    }

    /// SET_VRING_CALL. Without a descriptor the driver polls. QEMU changes it while the ring runs.
    pub fn set_ring_call(&mut self, index: u32, call: Option<File>) -> Result<()> {
        let (at, call) = self.shared_descriptor(index, call)?;
        self.rings[usize::from(at.0)].call = call.clone();
        if self.rings[usize::from(at.0)].running {
            self.tell(at, Command::Call(at, call));
        }
        Ok(())
    }

    /// SET_VRING_ERR.
    pub fn set_ring_err(&mut self, index: u32, err: Option<File>) -> Result<()> {
        let (at, err) = self.shared_descriptor(index, err)?;
        self.rings[usize::from(at.0)].err = err.clone();
        if self.rings[usize::from(at.0)].running {
            self.tell(at, Command::Err(at, err));
        }
        Ok(())
    }

    fn shared_descriptor(
        &mut self,
        index: u32,
        file: Option<File>,
    ) -> Result<(RingIndex, Option<Arc<File>>)> {
        let (at, _) = self.ring(index)?;
        if let Some(file) = &file {
            // It may be no eventfd at all: writing to it must never block a worker.
            set_nonblocking(file)
                .map_err(|source| SessionError::Descriptor { ring: at, source })?;
        }
        Ok((at, file.map(Arc::new)))
    }

    /// Starts a ring if everything that it needs is there.
    pub(super) fn start(&mut self, at: RingIndex) -> Result<()> {
        let (memory, features, log) = (self.memory.clone(), self.features, self.active_log());
        let setup = &mut self.rings[usize::from(at.0)];
        let Some(addresses) = setup.addresses else { return Ok(()) };
        // The size may have been set after the addresses.
        let layout = Layout { size: setup.size, ..addresses };
        layout.check(&memory).map_err(|source| SessionError::Ring { ring: at, source })?;
        let record = self.region.as_ref().map(|region| region.record(at, layout.size));
        let record = record.transpose()?;
        let Some(kick) = setup.kick.take() else { return Ok(()) };
        let start = Box::new(RingStart {
            index: at,
            layout,
            base: setup.base,
            features,
            memory,
            log,
            used_address: setup.used_address,
            record,
            enabled: match at {
                _ if !features.has(PROTOCOL_FEATURES) => true,
                RingIndex::CONTROL => false,
                _ => setup.enabled,
            },
            kick,
            call: setup.call.clone(),
            err: setup.err.clone(),
        });
        setup.addresses = Some(layout);
        setup.running = true;
        self.stop = None;
        let worker = self.workers.get_or_start(at);
        let worker = worker.map_err(|source| SessionError::Lane { ring: at, source })?;
        worker.line().send(Command::Start(start));
        self.enable_control();
        Ok(())
    }

    pub(super) fn running(&self) -> Vec<RingIndex> {
        let running = |(at, ring): (usize, &RingSetUp)| ring.running.then_some(at as u16);
        self.rings.iter().enumerate().filter_map(running).map(RingIndex).collect()
    }

    pub(super) fn tell(&self, at: RingIndex, command: Command) {
        if let Some(worker) = self.workers.get(at) {
            worker.line().send(command);
        }
    }
}
