//! The built-in array.

use std::time::{Duration, Instant};

use vhost_user_scsi_mpath::buffer::OwnedBuffer;
use vhost_user_scsi_mpath::ids::{AttemptId, Slot};
use vhost_user_scsi_mpath::path::address::Naa6;
use vhost_user_scsi_mpath::path::emulated::{Array, Port, PortChannel};
use vhost_user_scsi_mpath::path::{Channel, Ended, Fate, Residual, Task, Transport};
use vhost_user_scsi_mpath::scsi::alua::AccessState;
use vhost_user_scsi_mpath::scsi::{Cdb, Status};

use super::Bytes;

/// Blocks of the unit.
const BLOCKS: u64 = 64;
/// Bytes beside the room, which nobody may touch.
const BESIDE: usize = 64;
const UNTOUCHED: u8 = 0xEE;
/// No command takes so long.
const PATIENCE: Duration = Duration::from_secs(10);

/// Sends one command over `channel` and checks what came back.
fn run(channel: &mut PortChannel, generation: u32, cdb: &Cdb, out: &[u8], room: usize) {
    let attempt = AttemptId { slot: Slot(0), generation };
    let memory = OwnedBuffer::from_vec(vec![UNTOUCHED; room + BESIDE]);
    let mut data_in = memory.segments().clone();
    data_in.assign_range(memory.segments(), 0, room);
    let data_out = OwnedBuffer::from_vec(out.to_vec());
    let task = Task { cdb, data_out: data_out.segments(), data_in: &data_in };
    channel.submit(attempt, task, Instant::now());
    channel.flush();
    let begin = Instant::now();
    let mut ended: Vec<Ended> = Vec::new();
    while ended.is_empty() {
        channel.reap(Instant::now(), &mut ended);
        assert!(begin.elapsed() < PATIENCE, "{cdb:?} does not end");
    }
    assert_eq!((ended.len(), ended[0].attempt), (1, attempt), "it ends once");
    let bytes = memory.to_vec();
    assert!(bytes[room..].iter().all(|byte| *byte == UNTOUCHED), "{cdb:?}");
    let Fate::Answered(answer) = &ended[0].fate else { return };
    let all = (room + out.len()) as u32;
    if let Residual::Under(unused) = answer.residual {
        assert!(unused <= all, "{cdb:?}: {unused} of {all} bytes");
    }
    assert_eq!(answer.status == Status::CHECK_CONDITION, answer.sense.is_some(), "{cdb:?}");
}

/// Commands, each with its room and its data, over two ports.
pub fn array(data: &[u8]) {
    let mut bytes = Bytes::new(data);
    let block = if bytes.u8() & 1 == 0 { 512 } else { 4096 };
    let name = Naa6::local([7; 12]);
    let array = Array::in_memory(BLOCKS * u64::from(block), block, name).expect("memory is there");
    let port = |number| {
        let port = Port::on(&array, number, 1, AccessState::ActiveOptimized).expect("it is free");
        let channel = port.channel().expect("descriptors are there");
        (port, channel)
    };
    let mut ports = [port(1), port(2)];
    for (_, channel) in &mut ports {
        // The unit attention of a new nexus.
        run(channel, 0, &Cdb::new(&[0; 6]), &[], 0);
    }
    for generation in 1..=16 {
        if bytes.is_empty() {
            break;
        }
        let flags = bytes.u8();
        let cdb = Cdb::from_padded(bytes.array());
        // One direction, as requests have it.
        let (room, out) = match flags & 2 {
            0 => (usize::from(bytes.u16() % 16_384), &[][..]),
            _ => (0, bytes.piece()),
        };
        run(&mut ports[usize::from(flags & 1)].1, generation, &cdb, out, room);
    }
    assert_eq!(array.blocks(), BLOCKS);
}
