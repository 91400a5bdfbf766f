//! Tests of the array through its ports, with an initiator that does one command at a time.

mod access;
mod blocks;
mod commands;
mod direct;
mod engines;
mod faults;
mod images;
mod memory_sys;
mod reservations;

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Array, Port, PortChannel};
use crate::buffer::OwnedBuffer;
use crate::ids::{AttemptId, Slot};
use crate::path::address::Naa6;
use crate::path::{Answer, Channel, Ended, Fate, Task, Transport};
use crate::scsi::alua::AccessState;
use crate::scsi::{Asc, Cdb, SenseKey, Status};

/// An attempt, with the memory that it was lent.
pub(crate) struct Sent {
    pub(crate) attempt: AttemptId,
    pub(crate) data_out: OwnedBuffer,
    pub(crate) data_in: OwnedBuffer,
}

/// Sends commands over one channel and waits for their ends.
pub(crate) struct Initiator<C: Channel> {
    pub(crate) channel: C,
    generation: u32,
    ended: Vec<Ended>,
}

impl<C: Channel> Initiator<C> {
    pub(crate) fn new(channel: C) -> Self {
        Initiator { channel, generation: 0, ended: Vec::new() }
    }

    /// Begins a command.
    pub(crate) fn send(&mut self, cdb: &[u8], out: &[u8], room: usize) -> Sent {
        self.generation += 1;
        let attempt = AttemptId { slot: Slot(0), generation: self.generation };
        let sent = Sent {
            attempt,
            data_out: OwnedBuffer::from_vec(out.to_vec()),
            // A pattern, to see what was written and what was not.
            data_in: OwnedBuffer::from_vec(vec![0xEE; room]),
        };
        let cdb = Cdb::new(cdb);
        let task = Task {
            cdb: &cdb,
            data_out: sent.data_out.segments(),
            data_in: sent.data_in.segments(),
        };
        self.channel.submit(attempt, task, Instant::now());
        self.channel.flush();
        sent
    }

    /// What has ended, without waiting.
    pub(crate) fn poll(&mut self, attempt: AttemptId) -> Option<Fate> {
        self.channel.reap(Instant::now(), &mut self.ended);
        let at = self.ended.iter().position(|ended| ended.attempt == attempt)?;
        Some(self.ended.swap_remove(at).fate)
    }

    /// Waits for the end as a lane does: on the descriptor and the timer.
    pub(crate) fn wait(&mut self, sent: &Sent) -> Fate {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(fate) = self.poll(sent.attempt) {
                return fate;
            }
            let now = Instant::now();
            assert!(now < deadline, "no end of {:?}", sent.attempt);
            let until = self.channel.next_timer().unwrap_or(deadline).min(deadline);
            let fd = self.channel.ready_fd().expect("every channel here has one");
            let epoll = vmm_sys_util::epoll::Epoll::new().unwrap();
            let event = vmm_sys_util::epoll::EpollEvent::new(vmm_sys_util::epoll::EventSet::IN, 0);
            epoll.ctl(vmm_sys_util::epoll::ControlOperation::Add, fd, event).unwrap();
            let left = until.saturating_duration_since(now).as_micros().div_ceil(1000) as i32;
            let mut events = [vmm_sys_util::epoll::EpollEvent::default()];
            let _ = epoll.wait(left, &mut events);
        }
    }

    /// Runs a command: its answer, and what is in the room for data.
    pub(crate) fn run(&mut self, cdb: &[u8], out: &[u8], room: usize) -> (Answer, Vec<u8>) {
        let sent = self.send(cdb, out, room);
        match self.wait(&sent) {
            Fate::Answered(answer) => (answer, sent.data_in.to_vec()),
            Fate::Failed(failure, reach) => panic!("{failure:?} {reach:?}"),
        }
    }

    /// Runs a command that must end GOOD; its data, as far as it came.
    pub(crate) fn good(&mut self, cdb: &[u8], out: &[u8], room: usize) -> Vec<u8> {
        let (answer, mut data) = self.run(cdb, out, room);
        assert_eq!(answer.status, Status::GOOD, "{cdb:02x?}: {answer:?}");
        if let crate::path::Residual::Under(left) = answer.residual {
            data.truncate(room.saturating_sub(left as usize));
        }
        data
    }

    /// Runs a command that must end with CHECK CONDITION.
    pub(crate) fn check(&mut self, cdb: &[u8], out: &[u8], room: usize) -> (SenseKey, Asc) {
        let (answer, _) = self.run(cdb, out, room);
        assert_eq!(answer.status, Status::CHECK_CONDITION, "{cdb:02x?}");
        answer.sense.as_ref().and_then(|sense| sense.decode()).expect("sense data")
    }

    /// Takes the unit attention of a new nexus.
    pub(crate) fn settle(mut self) -> Self {
        let unit_attention = (SenseKey::UnitAttention, Asc::POWER_ON_OR_RESET);
        assert_eq!(self.check(&TUR, &[], 0), unit_attention);
        self
    }
}

const TUR: [u8; 6] = [0; 6];
const NAME: Naa6 = Naa6::local([0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
const ILLEGAL: SenseKey = SenseKey::IllegalRequest;

/// A unit in memory.
fn array(blocks: u64) -> Arc<Array> {
    Array::in_memory(blocks * 512, 512, NAME).unwrap()
}

fn port(array: &Arc<Array>, number: u16) -> Port {
    Port::on(array, number, 1, AccessState::ActiveOptimized).unwrap()
}

fn initiator(port: &Port) -> Initiator<PortChannel> {
    Initiator::new(port.channel().unwrap()).settle()
}

/// A unit in memory with one port, ready.
fn disk(blocks: u64) -> Initiator<PortChannel> {
    initiator(&port(&array(blocks), 1))
}

/// A CDB with sixteen bytes: operation code, flags, address, length.
fn cdb16(opcode: u8, flags: u8, lba: u64, blocks: u32) -> [u8; 16] {
    let mut cdb = [0; 16];
    (cdb[0], cdb[1]) = (opcode, flags);
    cdb[2..10].copy_from_slice(&lba.to_be_bytes());
    cdb[10..14].copy_from_slice(&blocks.to_be_bytes());
    cdb
}

/// A CDB with ten bytes.
fn cdb10(opcode: u8, flags: u8, lba: u32, blocks: u16) -> [u8; 10] {
    let mut cdb = [0; 10];
    (cdb[0], cdb[1]) = (opcode, flags);
    cdb[2..6].copy_from_slice(&lba.to_be_bytes());
    cdb[7..9].copy_from_slice(&blocks.to_be_bytes());
    cdb
}

/// Bytes that tell their place.
fn pattern(seed: u8, len: usize) -> Vec<u8> {
    (0..len).map(|at| (at / 512) as u8 ^ at as u8 ^ seed).collect()
}
