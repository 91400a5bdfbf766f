//! Opens the node, and opens it again when the device is gone: with a pause that grows.
//!
//! Names get reused: after every opening the logical unit is asked for its name before anything
//! else is sent. Once the lanes have used a logical unit they never get another over this path.
//! The manager does: its probe says what is there now, and decides.

use std::io;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::bounce_sys::Bounce;
use super::command::{Command, Data, End, Memory};
use super::errand::GONE;
use super::ioctl_sys;
use super::kernel::{Engine, Kernel, Ring};
use super::node::Kind;
use super::results;
use super::rider;
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
    let (mut told, mut said) = (None, None);
    loop {
        match open(shared) {
            Ok((device, ring, bytes_max)) => {
                (backoff, told) = (SG_REOPEN_BACKOFF, None);
                say_engine(shared, &device, &mut said);
                let device = Arc::new(device);
                shared.install(Arc::clone(&device), bytes_max);
                if let Some(Err(error)) = ring.map(|ring| rider::hire(shared, &device, ring)) {
                    shared.lose(device.serial, &format!("cannot start its thread: {error}"));
                }
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

/// An open device, the ring to it if that is its engine, and the most bytes of a command.
type Opened<K> = (Device<K>, Option<<K as Kernel>::Ring>, u32);

/// The unit's name is the first question, and what the kernel says to that decides on the engine.
fn open<K: Kernel>(shared: &Shared<K>) -> Result<Opened<K>, String> {
    let (handle, found) = shared.kernel.open(&shared.node).map_err(|error| error.to_string())?;
    let (engine, asked) = match shared.kernel.ring(&handle, found.kind) {
        Ok(Some(ring)) => match ask(shared, |command| ring.first(command)) {
            (Ok((ring, done)), page) => (Engine::Ring, Some((ring, done, page))),
            (Err(errno), _) => {
                (Engine::Threads(Some(io::Error::from_raw_os_error(errno).to_string())), None)
            }
        },
        Ok(None) => (Engine::Threads(None), None),
        Err(why) => (Engine::Threads(Some(why)), None),
    };
    let (ring, end, page) = match asked {
        Some((ring, done, page)) => (Some(ring), Ok(done), page),
        None => {
            let execute =
                |command: &Command<'_>| shared.kernel.execute(&handle, found.kind, command);
            let (end, page) = ask(shared, execute);
            (None, end, page)
        }
    };
    let wwid = name(&end, &page)?;
    // Its name was that of the device that was opened, if that is the one that is there.
    if !shared.kernel.is_there(&found) {
        return Err(GONE.to_owned());
    }
    let bytes_max = shared.kernel.bytes_max(&handle, &found);
    let mut state = lock(&shared.state);
    state.openings += 1;
    Ok((Device { serial: state.openings, handle, found, engine, wwid }, ring, bytes_max))
}

/// Asks a logical unit for the page with its name.
fn ask<K: Kernel, R>(shared: &Shared<K>, execute: impl FnOnce(&Command<'_>) -> R) -> (R, Bounce) {
    let [high, low] = PAGE_ROOM.to_be_bytes();
    let cdb = [opcode::INQUIRY, 1, DEVICE_IDENTIFICATION, high, low, 0];
    let mut bounce = Bounce::default();
    bounce.prepare(usize::from(PAGE_ROOM));
    let data = Data::In(Memory::Own(&bounce, usize::from(PAGE_ROOM)));
    let answer = execute(&Command { cdb: &cdb, data, timeout_ms: shared.timeout_ms });
    (answer, bounce)
}

/// What the logical unit calls itself; `None` where it has no name.
fn name(end: &End, page: &Bounce) -> Result<Option<Wwid>, String> {
    match results::fate(end, u32::from(PAGE_ROOM)) {
        Fate::Answered(answer) if answer.status == Status::GOOD => {
            Ok(designator::wwid(page.bytes(usize::from(PAGE_ROOM))))
        }
        Fate::Answered(answer) if answer.status == Status::CHECK_CONDITION => Ok(None),
        Fate::Answered(answer) => Err(format!("it answers INQUIRY with {}", answer.status)),
        Fate::Failed(..) => Err(format!("it does not answer INQUIRY: {}", results::name(end))),
    }
}

/// One line, when it is another engine than at the opening before.
fn say_engine<K: Kernel>(shared: &Shared<K>, device: &Device<K>, said: &mut Option<Engine>) {
    if device.found.kind == Kind::Bsg && said.as_ref() != Some(&device.engine) {
        let threads = lock(&shared.state).threads;
        let engine = device.engine.describe(device.found.kind, threads);
        log::info!("{}: its commands go by {engine}", shared.node.display());
        *said = Some(device.engine.clone());
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
