//! A port of the array: a path as the manager sees it, and an I_T nexus as the unit sees it.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, Weak};

use thiserror::Error;

use super::access::Group;
use super::array::Array;
use super::attention::{Attention, Attentions};
use super::channel::PortChannel;
use super::faults::{Fault, FaultError, FaultKind};
use super::faults_state::Faults;
use super::image::{ImageError, OpenMode};
use super::reservations::Nexus;
use super::reservations::standing::Posted;
use super::{lock, registry};
use crate::limits::{EMULATED_EVENTS_MAX, EMULATED_TRANSFER_MAX};
use crate::path::address::EmulatedAddress;
use crate::path::waker::Waker;
use crate::path::{TransferLimits, Transport, TransportEvent};
use crate::scsi::alua::AccessState;
use crate::scsi::reservation::TransportId;

/// The initiator port of every path, unless somebody acts as another: always the same, so that
/// registrations that were kept are its own after a restart.
const INITIATOR: &str = "iqn.2008-11.org.linux-kvm:vhost-user-scsi-mpath";
/// Its ISID, of the random kind (RFC 7143 11.12.5).
const ISID: [u8; 6] = [0x80, 0, 0, 0, 0, 0];

/// One opening of a port. A second opening of the same port has unit attentions of its own, and
/// the registration of the first.
#[derive(Debug)]
pub(super) struct PortState {
    pub(super) array: Arc<Array>,
    /// Names this opening inside the array.
    pub(super) nexus: u64,
    /// The I_T nexus: what registrations belong to, whoever has it open and how often.
    pub(super) identity: Nexus,
    /// What reservations leave to it.
    pub(super) standing: Posted,
    /// RELATIVE TARGET PORT IDENTIFIER.
    pub(super) number: u16,
    pub(super) group: Arc<Group>,
    pub(super) attentions: Attentions,
    pub(super) faults: Faults,
    wakers: Mutex<Vec<Weak<Waker>>>,
    events: Mutex<VecDeque<TransportEvent>>,
}

/// A path to the built-in array. Clones are the same path.
#[derive(Clone, Debug)]
pub struct Port(Arc<PortState>);

/// Why a port cannot be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Something about the image.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The group is there, in another state.
    #[error(
        "port {port}: group={group} is {state} already, not {wanted}; a group has one state, so \
         give the port a group of its own"
    )]
    GroupState {
        /// The port.
        port: u16,
        /// Its group.
        group: u16,
        /// The group's state.
        state: AccessState,
        /// The port's.
        wanted: AccessState,
    },
}

impl Port {
    /// Opens the port that `address` names, and the image unless another port has it open.
    pub fn open(address: &EmulatedAddress, mode: OpenMode) -> Result<Self, OpenError> {
        let array = registry::open(address, mode)?;
        Port::on(&array, address.port, address.group, address.state)
    }

    /// A port on a unit that is there.
    pub fn on(
        array: &Arc<Array>,
        port: u16,
        group: u16,
        wanted: AccessState,
    ) -> Result<Self, OpenError> {
        let initiator = TransportId::Iscsi { name: INITIATOR.to_owned(), isid: Some(ISID) };
        Port::from_initiator(array, initiator, port, group, wanted)
    }

    /// The same, for another initiator: who opens a port like this is another host to the unit.
    pub fn from_initiator(
        array: &Arc<Array>,
        initiator: TransportId,
        port: u16,
        group: u16,
        wanted: AccessState,
    ) -> Result<Self, OpenError> {
        let group = array.group(group, wanted).map_err(|state| OpenError::GroupState {
            port,
            group,
            state,
            wanted,
        })?;
        let nexus = array.new_nexus();
        let state = Arc::new(PortState {
            array: array.clone(),
            nexus,
            identity: Nexus { initiator, port },
            standing: Posted::default(),
            number: port,
            group,
            attentions: Attentions::default(),
            faults: Faults::new(nexus),
            wakers: Mutex::default(),
            events: Mutex::default(),
        });
        // A new nexus finds a unit that has been powered on since it last looked.
        state.attentions.post(Attention::PowerOn);
        array.attach(&state);
        Ok(Port(state))
    }

    /// The logical unit.
    pub fn array(&self) -> &Arc<Array> {
        &self.0.array
    }

    #[cfg(test)]
    pub(super) fn state(&self) -> &Arc<PortState> {
        &self.0
    }

    /// RELATIVE TARGET PORT IDENTIFIER.
    pub fn number(&self) -> u16 {
        self.0.number
    }

    /// Sets a fault, beside those of other kinds. From any thread.
    pub fn inject(&self, fault: Fault) -> Result<(), FaultError> {
        fault.check()?;
        if let FaultKind::Access { state, time } = fault.kind {
            self.0.array.pass_through(&self.0.group, state, time);
            return Ok(());
        }
        if self.0.faults.set(fault) {
            let reason = "a fault cut the link".to_owned();
            self.0.tell(TransportEvent::Down(reason));
        }
        Ok(())
    }

    /// Ends all faults. From any thread.
    pub fn clear_faults(&self) {
        self.0.array.end_passing(&self.0.group);
        if self.0.faults.clear() {
            self.0.tell(TransportEvent::Up { nexus_since: None });
        } else {
            self.0.wake();
        }
    }

    /// Begins the random numbers behind `probability` anew, so that a test can be repeated.
    pub fn seed_faults(&self, seed: u64) {
        self.0.faults.seed(seed);
    }

    /// Changes the access state of the port's whole group, as an array does on its own.
    pub fn set_access_state(&self, state: AccessState) {
        self.0.array.set_group_state(&self.0.group, state);
    }

    /// True while a `disconnect` fault is set.
    pub fn is_disconnected(&self) -> bool {
        self.0.faults.is_down()
    }
}

impl PortState {
    /// Has a channel woken when something changes.
    pub(super) fn add_waker(&self, waker: &Arc<Waker>) {
        let mut wakers = lock(&self.wakers);
        wakers.retain(|waker| waker.strong_count() > 0);
        wakers.push(Arc::downgrade(waker));
    }

    fn wake(&self) {
        lock(&self.wakers).iter().filter_map(Weak::upgrade).for_each(|waker| waker.raise());
    }

    fn tell(&self, event: TransportEvent) {
        let mut events = lock(&self.events);
        if events.len() == EMULATED_EVENTS_MAX {
            events.pop_front();
        }
        events.push_back(event);
        drop(events);
        self.wake();
    }
}

impl Drop for PortState {
    fn drop(&mut self) {
        self.array.lose_nexus(self.nexus);
    }
}

impl Transport for Port {
    type Channel = PortChannel;

    fn channel(&self) -> io::Result<PortChannel> {
        PortChannel::new(self.0.clone())
    }

    fn events(&self) -> Vec<TransportEvent> {
        lock(&self.0.events).drain(..).collect()
    }

    fn limits(&self) -> TransferLimits {
        TransferLimits { bytes_max: Some(EMULATED_TRANSFER_MAX) }
    }

    fn engine(&self) -> Cow<'static, str> {
        self.0.array.engine_name().into()
    }

    fn initiator_port(&self) -> Option<TransportId> {
        Some(self.0.identity.initiator.clone())
    }
}
