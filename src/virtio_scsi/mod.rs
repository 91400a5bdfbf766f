//! virtio-scsi's wire format (virtio 1.3, 5.6): bytes to types and back, and nothing else.
//!
//! | file | what |
//! |---|---|
//! | [`address`] | the 8-byte LUN field |
//! | [`request`] | the request header and the response |
//! | [`task_management`] | the control queue: task management and asynchronous notification |
//! | [`event`] | the event queue |

pub mod address;
pub mod event;
pub mod request;
pub mod task_management;

pub use address::Address;
pub use event::Event;
pub use request::{RequestHeader, TaskAttribute};
pub use task_management::{ControlRequest, ControlResponse, TaskManagementFunction};
