//! A relay before a portal that knows PDUs, and says between two of them what no target of ours
//! says by itself.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// Bytes of a PDU's header, without digests.
pub const HEADER: usize = 48;
/// A header's first byte, without the bit of immediate delivery.
const OPCODE: u8 = 0x3f;
const NOP_IN: u8 = 0x20;
const NOP_OUT: u8 = 0x00;
pub const LOGIN_RESPONSE: u8 = 0x23;
const LOGOUT_REQUEST: u8 = 0x06;
const DATA_IN: u8 = 0x25;
const R2T: u8 = 0x31;
const ASYNC_MESSAGE: u8 = 0x32;
/// Tag of a PDU that answers nothing.
const NO_TAG: [u8; 4] = [0xff; 4];
/// Target transfer tag of the herald's own pings.
const PING: [u8; 4] = *b"ping";

/// What a target announces: RFC 7143, 11.9.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// It wants the connection logged out of, within a second.
    Logout = 1,
    /// It drops the connection.
    Drop = 2,
}

/// One PDU as it is on the wire.
pub fn read_pdu(mut from: &TcpStream) -> io::Result<Vec<u8>> {
    let mut pdu = vec![0; HEADER];
    from.read_exact(&mut pdu)?;
    let words = usize::from(pdu[4]);
    let data = u32::from_be_bytes([0, pdu[5], pdu[6], pdu[7]]) as usize;
    pdu.resize(HEADER + 4 * words + data.next_multiple_of(4), 0);
    from.read_exact(&mut pdu[HEADER..])?;
    Ok(pdu)
}

/// The initiator's end of a connection. Whoever writes to it writes whole PDUs.
struct Ear {
    client: TcpStream,
    /// The last header that had a StatSN of its own.
    header: Vec<u8>,
}

#[derive(Default)]
struct Heard {
    /// By connection, in the order in which they came.
    ears: Vec<Arc<Mutex<Ear>>>,
    logouts: usize,
    replies: usize,
}

/// The relay. Its threads end with their connections.
pub struct Herald {
    address: SocketAddr,
    heard: Arc<Mutex<Heard>>,
}

impl Herald {
    pub fn before(target: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let heard = Arc::new(Mutex::new(Heard::default()));
        let hears = heard.clone();
        std::thread::spawn(move || {
            for client in listener.incoming() {
                relay(client.unwrap(), target, &hears);
            }
        });
        Herald { address, heard }
    }

    /// Where to connect to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Logout requests that initiators have sent.
    pub fn logouts(&self) -> usize {
        self.heard.lock().unwrap().logouts
    }

    /// Answers to [`Herald::ping`].
    pub fn replies(&self) -> usize {
        self.heard.lock().unwrap().replies
    }

    /// Announces `event` on the newest connection, and does what it says.
    pub fn announce(&self, event: Event) {
        let ear = self.heard.lock().unwrap().ears.last().unwrap().clone();
        let ear = ear.lock().unwrap();
        let mut pdu = ear.unasked(ASYNC_MESSAGE);
        pdu[36] = event as u8;
        if event == Event::Logout {
            pdu[43] = 1;
        }
        (&ear.client).write_all(&pdu).unwrap();
        if event == Event::Drop {
            ear.client.shutdown(Shutdown::Both).unwrap();
        }
    }

    /// Asks the initiator on the newest connection whether it is alive, where it has logged in and
    /// been answered. The reply ends here.
    pub fn ping(&self) {
        let ear = self.heard.lock().unwrap().ears.last().unwrap().clone();
        let ear = ear.lock().unwrap();
        if matches!(ear.header[0] & OPCODE, 0 | LOGIN_RESPONSE) {
            return;
        }
        let mut pdu = ear.unasked(NOP_IN);
        pdu[20..24].copy_from_slice(&PING);
        // The connection may just have gone.
        let _ = (&ear.client).write_all(&pdu);
    }
}

impl Ear {
    /// A PDU that answers nothing.
    fn unasked(&self, opcode: u8) -> [u8; HEADER] {
        let mut pdu = [0; HEADER];
        (pdu[0], pdu[1]) = (opcode, 0x80);
        pdu[16..20].copy_from_slice(&NO_TAG);
        // StatSN, ExpCmdSN, MaxCmdSN. The target will use the StatSN for its next answer, and need
        // not know of this one: an initiator does not count what has no tag.
        pdu[24..36].copy_from_slice(&self.header[24..36]);
        let number = u32::from_be_bytes(pdu[24..28].try_into().unwrap());
        pdu[24..28].copy_from_slice(&number.wrapping_add(1).to_be_bytes());
        pdu
    }
}

fn relay(client: TcpStream, target: SocketAddr, heard: &Arc<Mutex<Heard>>) {
    let Ok(target) = TcpStream::connect(target) else { return };
    for stream in [&client, &target] {
        stream.set_nodelay(true).unwrap();
    }
    let ear = Ear { client: client.try_clone().unwrap(), header: vec![0; HEADER] };
    let ear = Arc::new(Mutex::new(ear));
    heard.lock().unwrap().ears.push(ear.clone());
    let (portal, hears) = (target.try_clone().unwrap(), heard.clone());
    std::thread::spawn(move || {
        while let Ok(pdu) = read_pdu(&client) {
            if pdu[0] & OPCODE == NOP_OUT && pdu[20..24] == PING {
                hears.lock().unwrap().replies += 1;
                continue;
            }
            hears.lock().unwrap().logouts += usize::from(pdu[0] & OPCODE == LOGOUT_REQUEST);
            if (&portal).write_all(&pdu).is_err() {
                break;
            }
        }
        // It may be gone for longer.
        let _ = portal.shutdown(Shutdown::Both);
    });
    std::thread::spawn(move || {
        while let Ok(pdu) = read_pdu(&target) {
            let mut ear = ear.lock().unwrap();
            let opcode = pdu[0] & OPCODE;
            // Data has one only together with the status.
            if opcode != R2T && (opcode != DATA_IN || pdu[1] & 1 != 0) {
                ear.header = pdu[..HEADER].to_vec();
            }
            if (&ear.client).write_all(&pdu).is_err() {
                break;
            }
        }
        let _ = ear.lock().unwrap().client.shutdown(Shutdown::Both);
    });
}
