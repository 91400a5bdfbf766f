//! The control queue (virtio 1.3, 5.6.6.2): task management, and asynchronous notification, to
//! which a block device never subscribes.

use super::Address;

/// A task management function (virtio 1.3, 5.6.6.2; SAM-5 7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskManagementFunction {
    /// One command, by its tag.
    AbortTask,
    /// All of this nexus's commands.
    AbortTaskSet,
    /// Needs ACA, which is not supported.
    ClearAca,
    /// All commands of the task set.
    ClearTaskSet,
    /// All commands of the nexus.
    ITNexusReset,
    /// The logical unit is reset.
    LogicalUnitReset,
    /// Is this command there?
    QueryTask,
    /// Is any command there?
    QueryTaskSet,
    /// A subtype that virtio does not know.
    Unknown(u32),
}

/// A request of the control queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlRequest {
    /// A task management function, its address and (for some) a command's tag.
    TaskManagement {
        /// What to do.
        function: TaskManagementFunction,
        /// Where.
        address: Address,
        /// The tag, for ABORT TASK and QUERY TASK.
        tag: u64,
    },
    /// Query or subscribe to asynchronous notification. A block device has no event to offer.
    AsynchronousNotification,
    /// A type that virtio does not know.
    Unknown,
}

/// The answer to a task management function (virtio 1.3, 5.6.6.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ControlResponse {
    /// VIRTIO_SCSI_S_OK, which is also VIRTIO_SCSI_S_FUNCTION_COMPLETE.
    FunctionComplete = 0,
    /// VIRTIO_SCSI_S_BAD_TARGET.
    BadTarget = 3,
    /// VIRTIO_SCSI_S_FAILURE.
    Failure = 9,
    /// VIRTIO_SCSI_S_FUNCTION_SUCCEEDED: the queried task is there.
    FunctionSucceeded = 10,
    /// VIRTIO_SCSI_S_FUNCTION_REJECTED.
    FunctionRejected = 11,
    /// VIRTIO_SCSI_S_INCORRECT_LUN.
    IncorrectLun = 12,
}

/// Bytes of the longest control request (task management: type, subtype, LUN, tag).
pub const REQUEST_MAX: usize = 24;

impl ControlRequest {
    /// Reads the device-readable part, `None` where it is too short for its type.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let le32 = |at: usize| -> Option<u32> {
            Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
        };
        Some(match le32(0)? {
            0 => ControlRequest::TaskManagement {
                function: function(le32(4)?),
                address: Address::parse(bytes.get(8..16)?.try_into().ok()?),
                tag: u64::from_le_bytes(bytes.get(16..24)?.try_into().ok()?),
            },
            1 | 2 => {
                bytes.get(..16)?;
                ControlRequest::AsynchronousNotification
            }
            _ => ControlRequest::Unknown,
        })
    }

    /// The device-writable part for `response`: one byte, or for notifications the four bytes of
    /// `event_actual` (no event is ever offered) and one byte.
    pub fn response(&self, response: ControlResponse) -> ([u8; 5], usize) {
        match self {
            ControlRequest::AsynchronousNotification => ([0, 0, 0, 0, response as u8], 5),
            _ => ([response as u8, 0, 0, 0, 0], 1),
        }
    }
}

fn function(subtype: u32) -> TaskManagementFunction {
    use TaskManagementFunction::*;
    match subtype {
        0 => AbortTask,
        1 => AbortTaskSet,
        2 => ClearAca,
        3 => ClearTaskSet,
        4 => ITNexusReset,
        5 => LogicalUnitReset,
        6 => QueryTask,
        7 => QueryTaskSet,
        other => Unknown(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_task_management() {
        let mut bytes = [0; REQUEST_MAX];
        bytes[4] = 5;
        bytes[8..12].copy_from_slice(&[1, 0, 0x40, 0]);
        bytes[16] = 9;
        assert_eq!(
            ControlRequest::parse(&bytes),
            Some(ControlRequest::TaskManagement {
                function: TaskManagementFunction::LogicalUnitReset,
                address: Address::LogicalUnit { target: 0, lun: 0 },
                tag: 9,
            })
        );
    }

    #[test]
    fn parse_short_request_is_none() {
        for len in 0..REQUEST_MAX {
            assert_eq!(ControlRequest::parse(&[0; REQUEST_MAX][..len]), None);
        }
        assert_eq!(ControlRequest::parse(&[1, 0, 0, 0]), None);
    }

    #[test]
    fn parse_unknown_type_and_subtype() {
        assert_eq!(ControlRequest::parse(&[9, 0, 0, 0]), Some(ControlRequest::Unknown));
        assert_eq!(function(8), TaskManagementFunction::Unknown(8));
    }

    #[test]
    fn response_of_a_notification_offers_no_event() {
        let (bytes, len) =
            ControlRequest::AsynchronousNotification.response(ControlResponse::FunctionComplete);
        assert_eq!((bytes, len), ([0; 5], 5));
    }
}
