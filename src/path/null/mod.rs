//! `null:SIZE`: answers every read with zeroes and takes every write, at once.
//!
//! For measuring what everything else costs. It is a port of the built-in array over a unit that
//! stores nothing, so that it is found, named and asked like any disk; units of the same size
//! have the same name, so that several such paths make one LUN.

use std::borrow::Cow;
use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Instant;

use super::address::NullAddress;
use super::emulated::{Array, OpenError, Port, PortChannel};
use super::{Channel, Ended, Task, TransferLimits, Transport, TransportEvent};
use crate::ids::AttemptId;
use crate::scsi::alua::AccessState;

/// A path that stores nothing.
#[derive(Clone, Debug)]
pub struct NullPath {
    port: Port,
}

/// A lane's end of it.
pub struct NullChannel {
    channel: PortChannel,
}

impl NullPath {
    /// Makes the path that `address` names. Each is a port of its own.
    pub fn open(address: &NullAddress) -> Result<Self, OpenError> {
        static NEXT_PORT: AtomicU16 = AtomicU16::new(1);
        let number = NEXT_PORT.fetch_add(1, Ordering::Relaxed).max(1);
        let array: Arc<Array> = Array::null(address.size);
        let port = Port::on(&array, number, 1, AccessState::ActiveOptimized)?;
        Ok(NullPath { port })
    }

    /// The unit behind it.
    pub fn array(&self) -> &Arc<Array> {
        self.port.array()
    }
}

impl Transport for NullPath {
    type Channel = NullChannel;

    fn channel(&self) -> io::Result<NullChannel> {
        Ok(NullChannel { channel: self.port.channel()? })
    }

    fn events(&self) -> Vec<TransportEvent> {
        self.port.events()
    }

    fn limits(&self) -> TransferLimits {
        self.port.limits()
    }

    fn engine(&self) -> Cow<'static, str> {
        "none".into()
    }
}

impl Channel for NullChannel {
    fn submit(&mut self, attempt: AttemptId, task: Task<'_>, now: Instant) {
        self.channel.submit(attempt, task, now);
    }

    fn flush(&mut self) {
        self.channel.flush();
    }

    fn reap(&mut self, now: Instant, ended: &mut Vec<Ended>) {
        self.channel.reap(now, ended);
    }

    fn recall(&mut self, attempt: AttemptId) {
        self.channel.recall(attempt);
    }

    fn ready_fd(&self) -> Option<RawFd> {
        self.channel.ready_fd()
    }

    fn next_timer(&self) -> Option<Instant> {
        self.channel.next_timer()
    }
}
