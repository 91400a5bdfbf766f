//! A target that lets everybody in and does with commands what a test wants, with a command window
//! of the test's: what no real target can be made to do at the right moment.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::target::TARGET;

const HEADER: usize = 48;
const NOP_OUT: u8 = 0x00;
const COMMAND: u8 = 0x01;
const LOGIN: u8 = 0x03;
const DATA_OUT: u8 = 0x05;
const NOP_IN: u8 = 0x20;
const RESPONSE: u8 = 0x21;
const LOGIN_RESPONSE: u8 = 0x23;
const R2T: u8 = 0x31;
/// The highest bit of the second byte.
const FINAL: u8 = 0x80;
const NO_TAG: [u8; 4] = [0xFF; 4];

/// What is done with a command.
#[derive(Clone, Copy)]
enum Manner {
    Hold,
    Answer(Duration),
    AskAndAnswer,
}

/// A target for one session.
pub struct Puppet {
    port: u16,
    state: Arc<State>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct State {
    connection: Mutex<Option<(TcpStream, Numbers)>>,
    /// Tags of the commands that have come and were not answered.
    held: Mutex<Vec<[u8; 4]>>,
    nops: AtomicUsize,
    over: AtomicBool,
}

/// What the target counts.
#[derive(Default)]
struct Numbers {
    stat_sn: u32,
    exp_cmd_sn: u32,
    max_cmd_sn: u32,
}

impl Puppet {
    /// One that takes `window` commands at a time, and holds them until [`Puppet::answer_all`].
    pub fn start(window: u32) -> Self {
        Puppet::with(window, Manner::Hold)
    }

    /// One that answers each command when it has slept for `delay`, and then reads the next.
    pub fn prompt(window: u32, delay: Duration) -> Self {
        Puppet::with(window, Manner::Answer(delay))
    }

    /// One that asks for data of each command and answers it in the same breath.
    pub fn hasty(window: u32) -> Self {
        Puppet::with(window, Manner::AskAndAnswer)
    }

    fn with(window: u32, manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::<State>::default();
        let inside = Arc::clone(&state);
        let thread = std::thread::spawn(move || {
            let (connection, _) = listener.accept().unwrap();
            inside.serve(connection, window, manner);
        });
        Puppet { port, state, thread: Some(thread) }
    }

    pub fn address(&self) -> String {
        format!("iscsi://127.0.0.1:{}/{TARGET}/1", self.port)
    }

    /// Commands that are held.
    pub fn held(&self) -> usize {
        self.state.held.lock().unwrap().len()
    }

    /// NOP-Outs that were answered.
    pub fn nops(&self) -> usize {
        self.state.nops.load(Ordering::Relaxed)
    }

    /// GOOD for all that is held; each answer makes room for one command more.
    pub fn answer_all(&self) {
        for tag in std::mem::take(&mut *self.state.held.lock().unwrap()) {
            self.state.send(RESPONSE, &tag, 1);
        }
    }
}

impl Drop for Puppet {
    fn drop(&mut self) {
        self.state.over.store(true, Ordering::Relaxed);
        // A connection that is gone without a word would be read for ever.
        if let Some((connection, _)) = &*self.state.connection.lock().unwrap() {
            let _ = connection.shutdown(Shutdown::Both);
        }
        if let Some(thread) = self.thread.take()
            && !std::thread::panicking()
        {
            thread.join().unwrap();
        }
    }
}

impl State {
    /// Until the initiator hangs up, or the test is over.
    fn serve(&self, connection: TcpStream, window: u32, manner: Manner) {
        let mut input = connection.try_clone().unwrap();
        let mut connection = Some(connection);
        let mut header = [0; HEADER];
        while !self.over.load(Ordering::Relaxed) && input.read_exact(&mut header).is_ok() {
            let length = u32::from_be_bytes([0, header[5], header[6], header[7]]) as usize;
            let mut data = vec![0; length.next_multiple_of(4)];
            if input.read_exact(&mut data).is_err() {
                return;
            }
            let tag: [u8; 4] = header[16..20].try_into().unwrap();
            let cmd_sn = u32::from_be_bytes(header[24..28].try_into().unwrap());
            match header[0] & 0x3F {
                LOGIN => {
                    if let Some(connection) = connection.take() {
                        let numbers = Numbers {
                            stat_sn: 1,
                            exp_cmd_sn: cmd_sn,
                            max_cmd_sn: cmd_sn + window - 1,
                        };
                        *self.connection.lock().unwrap() = Some((connection, numbers));
                    }
                    self.let_in(&header);
                }
                NOP_OUT => {
                    self.took(cmd_sn);
                    self.nops.fetch_add(1, Ordering::Relaxed);
                    self.send(NOP_IN, &tag, 1);
                }
                COMMAND => {
                    self.took(cmd_sn);
                    match manner {
                        Manner::Hold => self.held.lock().unwrap().push(tag),
                        Manner::Answer(delay) => {
                            std::thread::sleep(delay);
                            self.send(RESPONSE, &tag, 1);
                        }
                        Manner::AskAndAnswer => {
                            self.ask(&tag);
                            self.send(RESPONSE, &tag, 1);
                        }
                    }
                }
                DATA_OUT => {}
                // A logout: the initiator hangs up where none is answered.
                _ => return,
            }
        }
    }

    fn took(&self, cmd_sn: u32) {
        if let Some((_, numbers)) = &mut *self.connection.lock().unwrap() {
            numbers.exp_cmd_sn = cmd_sn + 1;
        }
    }

    /// Agrees to everything (RFC 7143 11.13).
    fn let_in(&self, request: &[u8; HEADER]) {
        self.write(|numbers| {
            let mut answer = numbers.header(LOGIN_RESPONSE, &request[16..20]);
            answer[1] = request[1];
            answer[8..14].copy_from_slice(&request[8..14]);
            answer[15] = 1;
            answer
        });
    }

    /// An answer without data that makes `room` for commands.
    fn send(&self, opcode: u8, tag: &[u8], room: u32) {
        self.write(|numbers| {
            numbers.max_cmd_sn += room;
            let mut answer = numbers.header(opcode, tag);
            answer[1] = FINAL;
            if opcode == NOP_IN {
                answer[20..24].copy_from_slice(&NO_TAG);
            }
            answer
        });
    }

    /// All the data that was not sent with the command (RFC 7143 11.8).
    fn ask(&self, tag: &[u8]) {
        self.write(|numbers| {
            let mut ask = numbers.header(R2T, tag);
            // It does not count.
            numbers.stat_sn -= 1;
            ask[1] = FINAL;
            ask[20..24].copy_from_slice(&1_u32.to_be_bytes());
            ask[40..44].copy_from_slice(&8192_u32.to_be_bytes());
            ask[44..48].copy_from_slice(&(65536_u32 - 8192).to_be_bytes());
            ask
        });
    }

    fn write(&self, pdu: impl FnOnce(&mut Numbers) -> [u8; HEADER]) {
        if let Some((connection, numbers)) = &mut *self.connection.lock().unwrap() {
            // It may have hung up.
            let _ = connection.write_all(&pdu(numbers));
        }
    }
}

impl Numbers {
    fn header(&mut self, opcode: u8, tag: &[u8]) -> [u8; HEADER] {
        let mut header = [0; HEADER];
        header[0] = opcode;
        header[16..20].copy_from_slice(tag);
        header[24..28].copy_from_slice(&self.stat_sn.to_be_bytes());
        header[28..32].copy_from_slice(&self.exp_cmd_sn.to_be_bytes());
        header[32..36].copy_from_slice(&self.max_cmd_sn.to_be_bytes());
        self.stat_sn += 1;
        header
    }
}
