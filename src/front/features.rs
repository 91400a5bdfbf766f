//! What is offered to the driver and to the front end, and why an offer was overstepped.
//!
//! QEMU shows some bits to the guest without asking us and sends back what the guest accepts; so
//! F_CHANGE and ANY_LAYOUT are offered for it to work at all, and the others that can come
//! uninvited are named in the error, with QEMU's option for it.

use thiserror::Error;
use vhost::vhost_user::VhostUserProtocolFeatures;

/// VIRTIO_SCSI_F_HOTPLUG: logical units that come and go are told by events.
pub const HOTPLUG: u64 = 1 << 1;
/// VIRTIO_SCSI_F_CHANGE: changed parameters, such as the capacity, are told by events.
pub const CHANGE: u64 = 1 << 2;
/// VHOST_F_LOG_ALL: between front end and back end only; what is written to guest memory is marked
/// in the dirty log.
pub const LOG_ALL: u64 = 1 << 26;
/// VIRTIO_F_ANY_LAYOUT: requests may be split into buffers anywhere.
pub const ANY_LAYOUT: u64 = 1 << 27;
/// VIRTIO_F_INDIRECT_DESC: a descriptor may name a table of descriptors.
pub const INDIRECT_DESC: u64 = 1 << 28;
/// VIRTIO_F_EVENT_IDX: each side says by index when it wants to be notified.
pub const EVENT_IDX: u64 = 1 << 29;
/// VHOST_USER_F_PROTOCOL_FEATURES: between front end and back end only.
pub const PROTOCOL_FEATURES: u64 = 1 << 30;
/// VIRTIO_F_VERSION_1.
pub const VERSION_1: u64 = 1 << 32;

/// What is offered to driver and front end.
pub const OFFERED: u64 = HOTPLUG
    | CHANGE
    | LOG_ALL
    | ANY_LAYOUT
    | INDIRECT_DESC
    | EVENT_IDX
    | PROTOCOL_FEATURES
    | VERSION_1;

/// What is offered to the front end. CONFIG makes QEMU warn, STATUS makes it send messages that
/// the vhost crate ends the connection for.
pub const PROTOCOL_OFFERED: VhostUserProtocolFeatures = VhostUserProtocolFeatures::MQ
    .union(VhostUserProtocolFeatures::LOG_SHMFD)
    .union(VhostUserProtocolFeatures::REPLY_ACK)
    .union(VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS)
    .union(VhostUserProtocolFeatures::RESET_DEVICE)
    .union(VhostUserProtocolFeatures::INFLIGHT_SHMFD);

/// A feature that was accepted though it was never offered.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum FeatureError {
    /// One of virtio's.
    #[error("{name} (feature bit {0}) was accepted but not offered{hint}", name = name(*.0), hint = hint(*.0))]
    Virtio(u32),
    /// One of vhost-user's.
    #[error("protocol feature bit {0} was accepted but not offered")]
    Protocol(u32),
}

/// Features that were accepted, all of them offered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features(u64);

impl Features {
    /// Checks what SET_FEATURES brought.
    pub fn accept(bits: u64) -> Result<Self, FeatureError> {
        match bits & !OFFERED {
            0 => Ok(Features(bits)),
            unknown => Err(FeatureError::Virtio(unknown.trailing_zeros())),
        }
    }

    /// Are all of `bits` accepted?
    pub fn has(self, bits: u64) -> bool {
        self.0 & bits == bits
    }

    /// Is the event index used on the rings?
    pub fn event_index(self) -> bool {
        self.has(EVENT_IDX)
    }

    /// Is what is written to guest memory marked?
    pub fn log_all(self) -> bool {
        self.has(LOG_ALL)
    }

    /// May descriptors be indirect?
    pub fn indirect(self) -> bool {
        self.has(INDIRECT_DESC)
    }
}

/// Checks what SET_PROTOCOL_FEATURES brought.
pub fn accept_protocol(bits: u64) -> Result<(), FeatureError> {
    match bits & !PROTOCOL_OFFERED.bits() {
        0 => Ok(()),
        unknown => Err(FeatureError::Protocol(unknown.trailing_zeros())),
    }
}

fn name(bit: u32) -> &'static str {
    match bit {
        0 => "INOUT",
        3 => "T10_PI",
        24 => "NOTIFY_ON_EMPTY",
        33 => "ACCESS_PLATFORM",
        34 => "RING_PACKED",
        35 => "IN_ORDER",
        36 => "ORDER_PLATFORM",
        37 => "SR_IOV",
        38 => "NOTIFICATION_DATA",
        40 => "RING_RESET",
        _ => "an unknown feature",
    }
}

fn hint(bit: u32) -> &'static str {
    match bit {
        3 => ": start QEMU without t10_pi=on",
        33 => ": start QEMU without a virtual IOMMU for this device",
        34 => ": start QEMU without packed=on",
        35 => ": start QEMU without in_order=on",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accept_of_a_packed_ring_names_it_and_the_option() {
        let error = Features::accept(VERSION_1 | 1 << 34).unwrap_err();
        assert_eq!(
            error.to_string(),
            "RING_PACKED (feature bit 34) was accepted but not offered: \
             start QEMU without packed=on"
        );
    }

    #[test]
    fn accept_of_what_linux_and_qemu_send_is_granted() {
        let features = Features::accept(0x1_5000_0006 | EVENT_IDX).unwrap();
        assert!(features.event_index() && features.indirect() && features.has(CHANGE | HOTPLUG));
        assert!(!Features::accept(VERSION_1).unwrap().event_index());
    }

    #[test]
    fn accept_protocol_of_status_is_refused() {
        assert_eq!(accept_protocol(PROTOCOL_OFFERED.bits()), Ok(()));
        assert_eq!(accept_protocol(1 << 16), Err(FeatureError::Protocol(16)));
    }
}
