//! An iSCSI target that lies on order. Behind it is the built-in array, one port for each portal;
//! what it is honest about is true.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use vhost_user_scsi_mpath::buffer::OwnedBuffer;
use vhost_user_scsi_mpath::ids::{AttemptId, Slot};
use vhost_user_scsi_mpath::path::address::Naa6;
use vhost_user_scsi_mpath::path::emulated::{Array, Port, PortChannel};
use vhost_user_scsi_mpath::path::{Channel, Fate, Residual, Task, Transport};
use vhost_user_scsi_mpath::scsi::Cdb;
use vhost_user_scsi_mpath::scsi::alua::AccessState;

/// Bytes of the logical unit.
const SIZE: u64 = 16 << 20;
const HEADER: usize = 48;
/// A header's first byte, without the bit of immediate delivery.
const OPCODE: u8 = 0x3F;
const TARGET: &str = "iqn.2003-01.org.example:liar";
/// Longer data is sent in several PDUs.
const SEGMENT: usize = 65_536;

/// What is said of a command.
#[derive(Clone, Debug, Default)]
pub struct Said {
    pub status: u8,
    pub sense: Vec<u8>,
    pub data: Vec<u8>,
    /// Overflow by so many bytes (positive), or underflow.
    pub residual: i64,
    /// iSCSI's response code: 0 where the command ended at the target.
    pub response: u8,
    /// SenseLength, where it is not the sense's own.
    pub sense_length: Option<u16>,
    /// Where the data are said to belong.
    pub offset: u32,
    /// The task, where it is another.
    pub tag: Option<u32>,
    /// So often.
    pub times: u8,
    /// PDUs before the answer, word for word.
    pub before: Vec<Vec<u8>>,
    /// So much later.
    pub late: Duration,
}

/// Changes what would be said of a command.
pub type Lie = Arc<dyn Fn(&Cdb, &mut Said) + Send + Sync>;

#[derive(Default)]
struct Shared {
    lie: Mutex<Option<Lie>>,
    over: AtomicBool,
}

/// One portal: a port of the array.
pub struct Portal {
    port: u16,
    shared: Arc<Shared>,
}

impl Portal {
    fn open(port: Port) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback is there");
        let shared = Arc::new(Shared::default());
        let number = listener.local_addr().expect("it listens").port();
        let served = shared.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if served.over.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let (port, shared) = (port.clone(), served.clone());
                std::thread::spawn(move || Connection::new(stream, &port, shared).serve());
            }
        });
        Portal { port: number, shared }
    }

    /// A path's address.
    pub fn address(&self) -> String {
        format!("iscsi://127.0.0.1:{}/{TARGET}/0", self.port)
    }

    /// Lies from now on.
    pub fn lie(&self, lie: impl Fn(&Cdb, &mut Said) + Send + Sync + 'static) {
        *self.shared.lie.lock().expect("nobody fails with it") = Some(Arc::new(lie));
    }

    /// Is honest from now on.
    pub fn repent(&self) {
        *self.shared.lie.lock().expect("nobody fails with it") = None;
    }
}

impl Drop for Portal {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
        // The listener looks when somebody comes.
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
    }
}

/// So many portals of one logical unit.
pub fn portals<const N: usize>() -> [Portal; N] {
    let array = Array::in_memory(SIZE, 512, Naa6::local([3; 12])).expect("memory is there");
    let port = |number| Port::on(&array, number, 1, AccessState::ActiveOptimized);
    std::array::from_fn(|at| Portal::open(port(at as u16 + 1).expect("it is free")))
}

/// A PDU's bytes at `at`, as a number.
fn word(pdu: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([pdu[at], pdu[at + 1], pdu[at + 2], pdu[at + 3]])
}

/// A PDU with so much data, whose length its header tells.
fn pdu(opcode: u8, flags: u8, tag: u32, data: &[u8]) -> Vec<u8> {
    let mut pdu = vec![0; HEADER];
    (pdu[0], pdu[1]) = (opcode, flags);
    pdu[5..8].copy_from_slice(&(data.len() as u32).to_be_bytes()[1..]);
    pdu[16..20].copy_from_slice(&tag.to_be_bytes());
    pdu.extend_from_slice(data);
    pdu.resize(pdu.len().next_multiple_of(4), 0);
    pdu
}

struct Connection {
    stream: TcpStream,
    channel: PortChannel,
    shared: Arc<Shared>,
    stat_sn: u32,
    exp_cmd_sn: u32,
    generation: u32,
}

impl Connection {
    fn new(stream: TcpStream, port: &Port, shared: Arc<Shared>) -> Self {
        stream.set_nodelay(true).expect("it is a socket");
        // A test that forgot it does not keep the thread.
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("it is a socket");
        let channel = port.channel().expect("descriptors are there");
        Connection { stream, channel, shared, stat_sn: 1, exp_cmd_sn: 1, generation: 0 }
    }

    /// Until the connection ends.
    fn serve(mut self) {
        while let Ok(asked) = self.read() {
            if self.answer(&asked).is_err() {
                break;
            }
        }
    }

    fn read(&mut self) -> io::Result<Vec<u8>> {
        let mut pdu = vec![0; HEADER];
        self.stream.read_exact(&mut pdu)?;
        let len = (word(&pdu, 4) & 0xFF_FFFF) as usize + 4 * usize::from(pdu[4]);
        pdu.resize(HEADER + len.next_multiple_of(4), 0);
        self.stream.read_exact(&mut pdu[HEADER..])?;
        if pdu[0] & 0x40 == 0 && matches!(pdu[0] & OPCODE, 0x00 | 0x01 | 0x06) {
            self.exp_cmd_sn = word(&pdu, 24).wrapping_add(1);
        }
        Ok(pdu)
    }

    /// Sends a PDU with the connection's numbers in it.
    fn send(&mut self, mut pdu: Vec<u8>, counts: bool) -> io::Result<()> {
        pdu[24..28].copy_from_slice(&self.stat_sn.to_be_bytes());
        pdu[28..32].copy_from_slice(&self.exp_cmd_sn.to_be_bytes());
        pdu[32..36].copy_from_slice(&self.exp_cmd_sn.wrapping_add(64).to_be_bytes());
        self.stat_sn = self.stat_sn.wrapping_add(u32::from(counts));
        self.stream.write_all(&pdu)
    }

    fn answer(&mut self, asked: &[u8]) -> io::Result<()> {
        let tag = word(asked, 16);
        match asked[0] & OPCODE {
            0x00 if tag != u32::MAX => {
                let mut nop = pdu(0x20, 0x80, tag, &[]);
                nop[20..24].fill(0xFF);
                self.send(nop, true)
            }
            0x00 => Ok(()),
            0x01 => self.command(asked),
            0x03 => self.login(asked),
            0x06 => {
                self.send(pdu(0x26, 0x80, tag, &[]), true)?;
                Err(io::ErrorKind::ConnectionAborted.into())
            }
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    fn login(&mut self, asked: &[u8]) -> io::Result<()> {
        self.exp_cmd_sn = word(asked, 24);
        let operational = asked[1] >> 2 & 3 == 1;
        let text: &[u8] = match operational {
            true => {
                b"HeaderDigest=None\0DataDigest=None\0InitialR2T=Yes\0ImmediateData=Yes\0\
                  MaxBurstLength=262144\0FirstBurstLength=65536\0\
                  MaxRecvDataSegmentLength=65536\0"
            }
            false => b"AuthMethod=None\0TargetPortalGroupTag=1\0",
        };
        let mut pdu = pdu(0x23, asked[1], word(asked, 16), text);
        pdu[8..14].copy_from_slice(&asked[8..14]);
        pdu[15] = u8::from(operational);
        self.send(pdu, true)
    }

    fn command(&mut self, asked: &[u8]) -> io::Result<()> {
        let (tag, length) = (word(asked, 16), word(asked, 20) as usize);
        let cdb = Cdb::new(&asked[32..32 + cdb_length(asked[32])]);
        let (reads, writes) = (asked[1] & 0x40 != 0, asked[1] & 0x20 != 0);
        let immediate = (word(asked, 4) & 0xFF_FFFF) as usize;
        let mut out = asked[HEADER..HEADER + immediate].to_vec();
        while writes && out.len() < length {
            let mut r2t = pdu(0x31, 0x80, tag, &[]);
            r2t[20..24].copy_from_slice(&7_u32.to_be_bytes());
            r2t[40..44].copy_from_slice(&(out.len() as u32).to_be_bytes());
            let desired = (length - out.len()).min(SEGMENT) as u32;
            r2t[44..48].copy_from_slice(&desired.to_be_bytes());
            self.send(r2t, false)?;
            loop {
                // Other commands wait: nothing of ours sends so much at once that it would matter.
                let data = self.read()?;
                if data[0] & OPCODE != 0x05 {
                    self.answer(&data)?;
                    continue;
                }
                let len = (word(&data, 4) & 0xFF_FFFF) as usize;
                out.extend_from_slice(&data[HEADER..HEADER + len]);
                if data[1] & 0x80 != 0 {
                    break;
                }
            }
        }
        let mut said = self.truth(&cdb, &out, if reads { length } else { 0 });
        let lie = self.shared.lie.lock().expect("nobody fails with it").clone();
        if let Some(lie) = lie {
            lie(&cdb, &mut said);
        }
        self.say(tag, &said)
    }

    /// What the array says.
    fn truth(&mut self, cdb: &Cdb, out: &[u8], room: usize) -> Said {
        self.generation += 1;
        let attempt = AttemptId { slot: Slot(0), generation: self.generation };
        let (data_out, data_in) = (OwnedBuffer::from_vec(out.to_vec()), OwnedBuffer::zeroed(room));
        let task = Task { cdb, data_out: data_out.segments(), data_in: data_in.segments() };
        self.channel.submit(attempt, task, Instant::now());
        self.channel.flush();
        let mut ended = Vec::new();
        while ended.is_empty() {
            self.channel.reap(Instant::now(), &mut ended);
        }
        let Fate::Answered(answer) = &ended[0].fate else { panic!("the array does not fail") };
        let unused = match answer.residual {
            Residual::Under(unused) => unused as usize,
            _ => 0,
        };
        let mut data = data_in.to_vec();
        data.truncate(room.saturating_sub(unused));
        Said {
            status: answer.status.0,
            sense: answer.sense.as_ref().map_or(Vec::new(), |sense| sense.bytes().to_vec()),
            data,
            residual: -(unused as i64),
            times: 1,
            ..Said::default()
        }
    }

    fn say(&mut self, tag: u32, said: &Said) -> io::Result<()> {
        std::thread::sleep(said.late);
        for pdu in &said.before {
            let mut pdu = pdu.clone();
            if word(&pdu, 16) == 0 {
                pdu[16..20].copy_from_slice(&tag.to_be_bytes());
            }
            self.send(pdu, false)?;
        }
        let tag = said.tag.unwrap_or(tag);
        let mut offset = said.offset;
        for data in said.data.chunks(SEGMENT) {
            let mut data_in = pdu(0x25, 0x80, tag, data);
            data_in[20..24].fill(0xFF);
            data_in[40..44].copy_from_slice(&offset.to_be_bytes());
            offset = offset.wrapping_add(data.len() as u32);
            self.send(data_in, false)?;
        }
        let flag = match said.residual {
            0 => 0,
            1.. => 0x04,
            _ => 0x02,
        };
        let mut sense = Vec::new();
        if !said.sense.is_empty() || said.sense_length.is_some() {
            let length = said.sense_length.unwrap_or(said.sense.len() as u16);
            sense.extend_from_slice(&length.to_be_bytes());
            sense.extend_from_slice(&said.sense);
        }
        let mut response = pdu(0x21, 0x80 | flag, tag, &sense);
        (response[2], response[3]) = (said.response, said.status);
        let residual = said.residual.unsigned_abs() as u32;
        response[44..48].copy_from_slice(&residual.to_be_bytes());
        for _ in 0..said.times {
            self.send(response.clone(), true)?;
        }
        Ok(())
    }
}

fn cdb_length(opcode: u8) -> usize {
    match opcode {
        0x00..=0x1F => 6,
        0x20..=0x5F => 10,
        0xA0..=0xBF => 12,
        _ => 16,
    }
}
