//! One command instead of a load, and what came of it.

use serde_json::{Value, json};

use crate::queue::{Command, Queue};

/// Sends the command of the hexadecimal `cdb`, with `data_out` or with room for `data_in` bytes.
pub fn run(queue: &mut Queue, cdb: &str, data_out: &str, data_in: usize) -> Value {
    let cdb = bytes(cdb);
    let command = match (data_out, data_in) {
        ("", 0) => Command::bare(&cdb),
        ("", room) => Command::reading(&cdb, room),
        (data, _) => Command::writing(&cdb, bytes(data)),
    };
    let done = queue.run(&command);
    let came = done.data.len().saturating_sub(done.residual as usize);
    let sense = done.sense_code();
    json!({
        "response": done.response,
        "status": done.status,
        "sense": sense.map(|(key, code, qualifier)| format!("{key:x}/{code:02x}/{qualifier:02x}")),
        "data": done.data[..came].iter().map(|byte| format!("{byte:02x}")).collect::<String>(),
    })
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.chars().map(|c| c.to_digit(16).expect("hexadecimal") as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}
