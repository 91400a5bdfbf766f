//! What is done with an attempt before the kernel has it and after, whichever engine it goes by.

use std::sync::Arc;

use super::bounce_sys::Bounce;
use super::command::{Command, Data, End, Memory};
use super::flight::{Flight, Stage};
use super::kernel::Kernel;
use super::node::Kind;
use super::results;
use super::shared::{Device, Shared};
use crate::path::outbox::lock;
use crate::path::{Failure, Fate, Reach, Residual};

/// Why a device is lost.
pub(super) const GONE: &str = "the host has removed the device";

/// An attempt in the kernel, with the memory that is the kernel's meanwhile.
pub(super) struct Errand {
    flight: Arc<Flight>,
    bounce: Bounce,
    /// The guest's memory goes to the kernel, and the bounce memory is of no use.
    lent: bool,
    timeout_ms: u32,
}

impl Errand {
    /// Makes an attempt that is loading ready for `device`. A recall in that time ends it, and the
    /// memory comes back.
    pub(super) fn load<K: Kernel>(
        flight: Arc<Flight>,
        mut bounce: Bounce,
        shared: &Shared<K>,
        device: &Device<K>,
    ) -> Result<Self, Bounce> {
        let lent = shared.direct && (device.found.kind != Kind::Bsg || is_flat(&flight));
        if !lent {
            bounce.prepare(flight.data_out.len().max(flight.data_in.len()));
            bounce.load(&flight.data_out);
        }
        let errand = Errand { flight, bounce, lent, timeout_ms: shared.timeout_ms };
        if errand.flight.step(Stage::Loading, errand.sent()) {
            return Ok(errand);
        }
        errand.flight.end(Fate::Failed(Failure::Recalled, Reach::NotSent));
        Err(errand.bounce)
    }

    fn sent(&self) -> Stage {
        if self.lent { Stage::SentLent } else { Stage::Sent }
    }

    /// As the kernel gets it. What it points to stays where it is when the errand is moved.
    pub(super) fn command(&self) -> Command<'_> {
        let flight = &self.flight;
        let memory = |segments| match self.lent {
            true => Memory::Lent(segments),
            false => Memory::Own(&self.bounce, segments.len()),
        };
        let data = match (flight.data_out.is_empty(), flight.data_in.is_empty()) {
            (false, _) => Data::Out(memory(&flight.data_out)),
            (true, false) => Data::In(memory(&flight.data_in)),
            (true, true) => Data::None,
        };
        Command { cdb: flight.cdb.bytes(), data, timeout_ms: self.timeout_ms }
    }

    /// Brings the end to whom it concerns; the memory is free again.
    pub(super) fn end<K: Kernel>(
        self,
        shared: &Shared<K>,
        device: &Device<K>,
        end: &End,
    ) -> Bounce {
        let flight = &self.flight;
        let fate = results::fate(end, flight.room());
        if flight.step(self.sent(), Stage::Storing) {
            if let (false, Fate::Answered(answer)) = (self.lent, &fate) {
                let unused = match answer.residual {
                    Residual::Under(bytes) => bytes as usize,
                    Residual::None | Residual::Over(_) => 0,
                };
                let came = flight.data_in.len().saturating_sub(unused);
                self.bounce.store(&flight.data_in, came);
            }
            self.look_at(end, &fate, shared, device);
            flight.end(fate);
        } else {
            self.look_at(end, &fate, shared, device);
            let news = lock(&shared.parked).returned(flight.number(), &fate);
            if let Some(news) = news {
                shared.tell(news);
            }
        }
        self.bounce
    }

    /// What an end says of the path itself.
    fn look_at<K: Kernel>(&self, end: &End, fate: &Fate, shared: &Shared<K>, device: &Device<K>) {
        match (end, fate) {
            (Err(libc::EPERM | libc::EACCES), _) => shared.say_refused(self.flight.cdb.opcode()),
            (Err(libc::ENODEV), _) => shared.lose(device.serial, GONE),
            (_, Fate::Failed(..)) => {
                log::debug!("{}: {}", shared.node.display(), results::name(end));
                if !shared.kernel.is_there(&device.found) {
                    shared.lose(device.serial, GONE);
                }
            }
            _ => {}
        }
    }
}

/// One piece, or none: a bsg node takes no lists.
fn is_flat(flight: &Flight) -> bool {
    flight.data_out.pieces().max(flight.data_in.pieces()) <= 1
}
