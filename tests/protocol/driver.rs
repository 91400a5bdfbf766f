//! The front end: connects, negotiates, and runs the rings, in the order in which QEMU does it.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use vhost::vhost_user::message::{
    VhostUserHeaderFlag, VhostUserInflight, VhostUserProtocolFeatures,
};
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VringConfigData};
use vmm_sys_util::eventfd::EventFd;

use crate::control::{ControlQueue, EventQueue};
use crate::memory::{GuestMemory, LAYOUT};
use crate::queue::Queue;
use crate::ring::Ring;
use crate::sys;

/// Feature bits by name.
pub mod feature {
    pub const HOTPLUG: u64 = 1 << 1;
    pub const CHANGE: u64 = 1 << 2;
    pub const ANY_LAYOUT: u64 = 1 << 27;
    pub const LOG_ALL: u64 = 1 << 26;
    pub const INDIRECT: u64 = 1 << 28;
    pub const EVENT_IDX: u64 = 1 << 29;
    pub const PROTOCOL: u64 = 1 << 30;
    pub const VERSION_1: u64 = 1 << 32;
    pub const PACKED: u64 = 1 << 34;
}

/// Rings before the first request ring: control and event.
pub const FIRST_REQUEST: usize = 2;

/// How long any one message may take. Longer than every deadline of the device.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(15);

/// What a front end brings.
#[derive(Clone)]
pub struct Config {
    /// Feature bits to accept.
    pub features: u64,
    /// Protocol features to accept, where the device offers them.
    pub protocol: VhostUserProtocolFeatures,
    /// Request queues.
    pub queues: usize,
    /// Entries of every ring.
    pub ring_size: u16,
    /// Guest memory, `(address, length)` each.
    pub layout: &'static [(u64, u64)],
    /// Bring the regions one by one with ADD_MEM_REG, as QEMU does where it may.
    pub add_regions: bool,
    /// Set up the control and event rings.
    pub control: bool,
    /// Enable the control ring.
    pub enable_control: bool,
}

impl Default for Config {
    /// A Linux guest under QEMU.
    fn default() -> Self {
        use feature::*;
        Config {
            features: HOTPLUG | CHANGE | INDIRECT | EVENT_IDX | VERSION_1,
            protocol: VhostUserProtocolFeatures::MQ
                | VhostUserProtocolFeatures::LOG_SHMFD
                | VhostUserProtocolFeatures::REPLY_ACK
                | VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS
                | VhostUserProtocolFeatures::RESET_DEVICE
                | VhostUserProtocolFeatures::INFLIGHT_SHMFD,
            queues: 1,
            ring_size: 128,
            layout: LAYOUT,
            add_regions: true,
            control: true,
            enable_control: true,
        }
    }
}

impl Config {
    /// The default with another number of request queues.
    pub fn queues(queues: usize) -> Self {
        Config { queues, ..Config::default() }
    }

    /// The same without an in-flight region: what is not answered is lost.
    pub fn forgetful(queues: usize) -> Self {
        let config = Config::queues(queues);
        Config { protocol: config.protocol - VhostUserProtocolFeatures::INFLIGHT_SHMFD, ..config }
    }
}

/// A connection on which nothing has been said yet but what is offered.
pub struct Session {
    pub frontend: Frontend,
    /// The same connection, for raw messages and to see it end.
    pub stream: UnixStream,
    pub features: u64,
    pub protocol: VhostUserProtocolFeatures,
}

/// Connects, and has every wait on the connection bounded.
pub fn connect(socket: &Path) -> io::Result<UnixStream> {
    let stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(MESSAGE_TIMEOUT))?;
    stream.set_write_timeout(Some(MESSAGE_TIMEOUT))?;
    Ok(stream)
}

impl Session {
    /// Reads what the device at the other end of `stream` offers.
    pub fn open(stream: UnixStream) -> vhost::Result<Self> {
        let clone = stream.try_clone().expect("a descriptor can be cloned");
        let mut frontend = Frontend::from_stream(clone, 1024);
        let features = frontend.get_features()?;
        let protocol = frontend.get_protocol_features()?;
        Ok(Session { frontend, stream, features, protocol })
    }

    /// Accepts protocol features and claims the session.
    pub fn claim(&mut self, protocol: VhostUserProtocolFeatures) -> vhost::Result<()> {
        let accepted = protocol & self.protocol;
        self.frontend.set_protocol_features(accepted)?;
        if accepted.contains(VhostUserProtocolFeatures::REPLY_ACK) {
            self.frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
        }
        if accepted.contains(VhostUserProtocolFeatures::MQ) {
            self.frontend.get_queue_num()?;
        }
        self.frontend.set_owner()
    }

    /// True when the device has closed the connection by now.
    pub fn stream_closed(&self) -> bool {
        sys::is_closed(self.stream.as_raw_fd(), Duration::ZERO)
    }
}

/// Where a ring is, for whoever starts it: the ring itself may be with another thread.
pub struct RingPlace {
    pub index: usize,
    addresses: VringConfigData,
    available: u64,
    used: u64,
    kick: EventFd,
    call: EventFd,
}

impl RingPlace {
    fn of(index: usize, ring: &Ring) -> Self {
        let clone = |event: &EventFd| event.try_clone().expect("a descriptor can be cloned");
        RingPlace {
            index,
            addresses: ring.addresses(),
            available: ring.available,
            used: ring.used,
            kick: clone(&ring.kick),
            call: clone(&ring.call),
        }
    }

    /// As SET_VRING_ADDR takes it while the ring runs; with the used ring `marked` in the dirty log.
    pub fn addresses(&self, marked: bool) -> VringConfigData {
        let log = marked.then_some(self.used);
        VringConfigData { flags: marked.into(), log_addr: log, ..self.addresses }
    }
}

/// A running device: the connection, the memory and the rings.
pub struct Device {
    pub session: Session,
    pub config: Config,
    pub memory: Arc<GuestMemory>,
    /// The in-flight region, where the device has one.
    pub region: Option<(VhostUserInflight, File)>,
    pub control: Option<ControlQueue>,
    pub events: Option<EventQueue>,
    pub queues: Vec<Queue>,
}

impl Device {
    /// Connects to `socket` and starts the device.
    pub fn start(socket: &Path, config: &Config) -> Self {
        let stream = connect(socket).unwrap_or_else(|error| panic!("{socket:?}: {error}"));
        Device::start_on(stream, config).expect("the device starts")
    }

    /// Starts the device at the other end of `stream`.
    pub fn start_on(stream: UnixStream, config: &Config) -> vhost::Result<Self> {
        let mut session = Session::open(stream)?;
        session.claim(config.protocol)?;
        let memory = GuestMemory::new(config.layout);
        let (control, events, queues) = (None, None, Vec::new());
        let (config, region) = (config.clone(), None);
        let mut device = Device { session, config, memory, region, control, events, queues };
        device.negotiate()?;
        device.bring_memory()?;
        device.start_rings()?;
        Ok(device)
    }

    fn has(&self, feature: VhostUserProtocolFeatures) -> bool {
        self.config.protocol.contains(feature) && self.session.protocol.contains(feature)
    }

    /// SET_MEM_TABLE, or ADD_MEM_REG for each region.
    pub fn bring_memory(&mut self) -> vhost::Result<()> {
        let add =
            self.config.add_regions && self.has(VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS);
        let table = self.memory.table();
        if !add {
            return self.session.frontend.set_mem_table(&table).map(drop);
        }
        for region in &table {
            self.session.frontend.add_mem_region(region)?;
        }
        Ok(())
    }

    /// Connects again, as QEMU does when the device has died under it: `rings` are where they were,
    /// and of each the front end knows no more than what was answered.
    pub fn reconnect(&mut self, socket: &Path, rings: &[RingPlace]) -> vhost::Result<()> {
        self.reconnect_to(socket)?;
        self.run_again(rings)
    }

    fn reconnect_to(&mut self, socket: &Path) -> vhost::Result<()> {
        // A device that lives serves one connection after the other.
        let _ = self.session.stream.shutdown(std::net::Shutdown::Both);
        let stream = connect(socket).unwrap_or_else(|error| panic!("{socket:?}: {error}"));
        self.session = Session::open(stream)?;
        self.session.claim(self.config.protocol)?;
        self.bring_memory()
    }

    /// Starts rings elsewhere that have stopped at these positions.
    pub fn reconnect_at(
        &mut self,
        socket: &Path,
        rings: &[RingPlace],
        positions: &[u32],
    ) -> vhost::Result<()> {
        self.reconnect_to(socket)?;
        self.negotiate()?;
        for (ring, position) in rings.iter().zip(positions) {
            self.session.frontend.set_vring_base(ring.index, *position as u16)?;
            self.session.frontend.set_vring_num(ring.index, ring.addresses.queue_size)?;
            self.session.frontend.set_vring_addr(ring.index, &ring.addresses)?;
            self.session.frontend.set_vring_kick(ring.index, &ring.kick)?;
        }
        self.session.frontend.get_features().map(drop)
    }

    /// Starts rings again that were stopped, where they were.
    pub fn resume(&mut self) -> vhost::Result<()> {
        self.run_again(&self.places())
    }

    /// The same of rings that are with other threads.
    pub fn run_again(&mut self, rings: &[RingPlace]) -> vhost::Result<()> {
        self.negotiate()?;
        self.bring_region()?;
        self.run_rings(rings)
    }

    /// SET_INFLIGHT_FD.
    pub fn bring_region(&mut self) -> vhost::Result<()> {
        let Some((shape, file)) = &self.region else { return Ok(()) };
        self.session.frontend.set_inflight_fd(shape, file.as_raw_fd())
    }

    /// SET_FEATURES, twice as QEMU does it.
    pub fn negotiate(&mut self) -> vhost::Result<()> {
        let accepted = self.config.features | feature::PROTOCOL;
        self.session.frontend.set_features(accepted)?;
        self.session.frontend.set_features(accepted)
    }

    /// Makes new rings and starts them; what was in flight on the old ones is forgotten.
    pub fn start_rings(&mut self) -> vhost::Result<()> {
        let ring = || {
            let event_idx = self.config.features & feature::EVENT_IDX != 0;
            let indirect = self.config.features & feature::INDIRECT != 0;
            Ring::new(&self.memory, self.config.ring_size, event_idx, indirect)
        };
        let control = self.config.control.then(|| ControlQueue { ring: ring() });
        let events = self.config.control.then(|| EventQueue::new(ring()));
        let queues: Vec<Queue> = (0..self.config.queues).map(|_| Queue::new(ring())).collect();
        (self.control, self.events, self.queues) = (control, events, queues);
        if self.has(VhostUserProtocolFeatures::INFLIGHT_SHMFD) {
            let count = (FIRST_REQUEST + self.config.queues) as u16;
            let wanted = VhostUserInflight::new(0, 0, count, self.config.ring_size);
            self.region = Some(self.session.frontend.get_inflight_fd(&wanted)?);
            self.bring_region()?;
        }
        self.run_rings(&self.places())
    }

    /// Where the rings that are set up are.
    pub fn places(&self) -> Vec<RingPlace> {
        self.rings().into_iter().map(|(index, ring)| RingPlace::of(index, ring)).collect()
    }

    fn run_rings(&mut self, rings: &[RingPlace]) -> vhost::Result<()> {
        let frontend = &self.session.frontend;
        for ring in rings {
            let used = self.memory.load(ring.used + 2);
            frontend.set_vring_num(ring.index, ring.addresses.queue_size)?;
            frontend.set_vring_base(ring.index, used)?;
            frontend.set_vring_addr(ring.index, &ring.addresses)?;
            frontend.set_vring_kick(ring.index, &ring.kick)?;
            frontend.set_vring_call(ring.index, &ring.call)?;
        }
        // QEMU enables every ring, also those that the driver has not set up.
        let mut frontend = self.session.frontend.clone();
        for index in 0..FIRST_REQUEST + self.config.queues {
            frontend.set_vring_enable(index, index != 0 || self.config.enable_control)?;
        }
        // A barrier, so that without REPLY_ACK too every message has been acted on.
        self.session.frontend.get_features()?;
        for ring in rings {
            // Made available before the ring had a device: event buffers, and what came meanwhile.
            if self.memory.load(ring.available + 2) != 0 {
                ring.kick.write(1).expect("the kick descriptor takes a count");
            }
        }
        Ok(())
    }

    /// The rings that are set up, by index.
    pub fn rings(&self) -> Vec<(usize, &Ring)> {
        let control = self.control.iter().map(|control| (0, &control.ring));
        let events = self.events.iter().map(|events| (1, &events.ring));
        let queues = self.queues.iter().enumerate();
        let queues = queues.map(|(at, queue)| (FIRST_REQUEST + at, &queue.ring));
        control.chain(events).chain(queues).collect()
    }

    /// GET_VRING_BASE for every ring that is set up, one after the other, as QEMU stops a device.
    /// Returns where each ring stopped.
    pub fn stop(&mut self) -> vhost::Result<Vec<u32>> {
        let rings: Vec<usize> = self.rings().into_iter().map(|(index, _)| index).collect();
        rings.into_iter().map(|index| self.session.frontend.get_vring_base(index)).collect()
    }

    /// The first request queue.
    pub fn queue(&mut self) -> &mut Queue {
        &mut self.queues[0]
    }

    /// The control queue.
    pub fn control(&mut self) -> &mut ControlQueue {
        self.control.as_mut().expect("the config has a control queue")
    }

    /// The event queue.
    pub fn events(&mut self) -> &mut EventQueue {
        self.events.as_mut().expect("the config has an event queue")
    }

    /// True when the device has closed the connection.
    pub fn is_closed(&self, timeout: Duration) -> bool {
        sys::is_closed(self.session.stream.as_raw_fd(), timeout)
    }
}

/// An eventfd for a ring that is not there.
pub fn eventfd() -> EventFd {
    EventFd::new(0).expect("an eventfd can be made")
}
