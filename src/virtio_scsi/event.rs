//! The event queue (virtio 1.3, 5.6.6.3).

use crate::scsi::Asc;

/// Bytes of an event buffer's content.
pub const EVENT_LEN: usize = 16;

/// VIRTIO_SCSI_T_EVENTS_MISSED, set in the event that follows a lost one.
const EVENTS_MISSED: u32 = 0x8000_0000;

/// Target 0, LUN 0. Not in the form of a request's address, whose third byte has the flag 40h for
/// flat addressing: Linux (virtscsi_handle_transport_reset) takes the two bytes for the number of
/// the logical unit, finds no number 4000h and forgets the event. QEMU's virtio-scsi leaves the flag
/// out below 256 for this reason.
const LUN_0: [u8; 8] = [1, 0, 0, 0, 0, 0, 0, 0];

/// Something the driver is told without having asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// No event of its own: carries the flag that others were lost.
    NoEvent,
    /// VIRTIO_SCSI_EVT_RESET_RESCAN: a logical unit appeared.
    Rescan,
    /// VIRTIO_SCSI_EVT_RESET_REMOVED: the logical unit is gone.
    Removed,
    /// VIRTIO_SCSI_T_PARAM_CHANGE: a unit attention is due, by this code.
    ParameterChange(Asc),
}

impl Event {
    /// The buffer for this event of target 0, LUN 0.
    pub fn encode(self, missed: bool) -> [u8; EVENT_LEN] {
        let (kind, reason) = match self {
            Event::NoEvent => (0, 0),
            Event::Rescan => (1, 1),
            Event::Removed => (1, 2),
            Event::ParameterChange(Asc(code, qualifier)) => {
                (3, u32::from(code) | u32::from(qualifier) << 8)
            }
        };
        let kind: u32 = if missed { kind | EVENTS_MISSED } else { kind };
        let mut bytes = [0; EVENT_LEN];
        bytes[0..4].copy_from_slice(&kind.to_le_bytes());
        if self != Event::NoEvent {
            bytes[4..12].copy_from_slice(&LUN_0);
        }
        bytes[12..16].copy_from_slice(&reason.to_le_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encode_parameter_change() {
        let bytes = Event::ParameterChange(Asc::CAPACITY_DATA_HAS_CHANGED).encode(false);
        assert_eq!(bytes[0..4], [3, 0, 0, 0]);
        assert_eq!(bytes[4..8], [1, 0, 0, 0], "Linux takes a flag for a part of the number");
        assert_eq!(bytes[12..16], [0x2A, 0x09, 0, 0]);
    }

    #[test]
    fn encode_missed_sets_the_flag() {
        assert_eq!(Event::NoEvent.encode(true)[0..4], [0, 0, 0, 0x80]);
    }
}
