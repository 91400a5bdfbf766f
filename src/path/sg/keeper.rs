//! Opens the node, and opens it again when the device is gone: with a pause that grows.
//!
//! Names get reused: after every opening the logical unit is asked for its name before anything
//! else is sent. Once the lanes have used a logical unit they never get another over this path.
//! The manager does: its probe says what is there now, and decides.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::bounce_sys::Bounce;
use super::command::{Command, Data, Memory};
use super::ioctl_sys;
use super::kernel::Kernel;
use super::results;
use super::shared::{Device, Link, Shared};
use crate::limits::{SG_REOPEN_BACKOFF, SG_REOPEN_BACKOFF_MAX};
use crate::path::Fate;
use crate::path::outbox::lock;
use crate::scsi::designator::{self, Wwid};
use crate::scsi::{Status, opcode};

/// The page that names the logical unit (SPC-5 7.7.6), and room for it.
const DEVICE_IDENTIFICATION: u8 = 0x83;
const PAGE_ROOM: u16 = 4096;

/// The keeper's life.
pub(super) fn keep<K: Kernel>(shared: &Arc<Shared<K>>) {
    ioctl_sys::block_signals();
    let mut backoff = SG_REOPEN_BACKOFF;
    let mut told = None;
    loop {
        match open(shared) {
            Ok((device, bytes_max)) => {
                (backoff, told) = (SG_REOPEN_BACKOFF, None);
                let device = Arc::new(device);
                shared.install(Arc::clone(&device), bytes_max);
                wait_while_up(shared);
                // Closed here, or by a thread that is still in the kernel: it may take its time.
                drop(device);
            }
            Err(why) => {
                let news = told.as_ref() != Some(&why);
                shared.not_opened(&why, news);
                told = Some(why);
            }
        }
        if !pause(shared, backoff) {
            return;
        }
        backoff = (backoff * 2).min(SG_REOPEN_BACKOFF_MAX);
    }
}

fn open<K: Kernel>(shared: &Shared<K>) -> Result<(Device<K>, u32), String> {
    let (handle, found) = shared.kernel.open(&shared.node).map_err(|error| error.to_string())?;
    let wwid = name(shared, &handle, found.kind)?;
    // Its name was that of the device that was opened, if that is the one that is there.
    if !shared.kernel.is_there(&found) {
        return Err("the host has removed the device".to_owned());
    }
    let bytes_max = shared.kernel.bytes_max(&handle, &found);
    let mut state = lock(&shared.state);
    state.openings += 1;
    Ok((Device { serial: state.openings, handle, found, wwid }, bytes_max))
}

/// What the logical unit calls itself; `None` where it has no name.
fn name<K: Kernel>(
    shared: &Shared<K>,
    handle: &K::Handle,
    kind: super::node::Kind,
) -> Result<Option<Wwid>, String> {
    let [high, low] = PAGE_ROOM.to_be_bytes();
    let cdb = [opcode::INQUIRY, 1, DEVICE_IDENTIFICATION, high, low, 0];
    let mut bounce = Bounce::default();
    bounce.prepare(usize::from(PAGE_ROOM));
    let data = Data::In(Memory::Own(&bounce, usize::from(PAGE_ROOM)));
    let command = Command { cdb: &cdb, data, timeout_ms: shared.timeout_ms };
    let end = shared.kernel.execute(handle, kind, &command);
    match results::fate(&end, u32::from(PAGE_ROOM)) {
        Fate::Answered(answer) if answer.status == Status::GOOD => {
            Ok(designator::wwid(bounce.bytes(usize::from(PAGE_ROOM))))
        }
        Fate::Answered(answer) if answer.status == Status::CHECK_CONDITION => Ok(None),
        Fate::Answered(answer) => Err(format!("it answers INQUIRY with {}", answer.status)),
        Fate::Failed(..) => Err(format!("it does not answer INQUIRY: {}", results::name(&end))),
    }
}

fn wait_while_up<K: Kernel>(shared: &Shared<K>) {
    let mut state = lock(&shared.state);
    while matches!(state.link, Link::Up(_)) {
        state = shared.care.wait(state).unwrap_or_else(PoisonError::into_inner);
    }
}

/// False when the path is closed.
fn pause<K: Kernel>(shared: &Shared<K>, time: Duration) -> bool {
    let state = lock(&shared.state);
    let over = |state: &mut super::shared::State<K>| !matches!(state.link, Link::Over);
    let (state, _) =
        shared.care.wait_timeout_while(state, time, over).unwrap_or_else(PoisonError::into_inner);
    !matches!(state.link, Link::Over)
}
