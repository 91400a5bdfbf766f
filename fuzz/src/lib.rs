//! What the fuzzers run: one function per target, which takes any bytes, and panics where something
//! is not as it must be.
//!
//! Two programs use them: the fuzzers in `fuzz_targets/`, under libFuzzer, and `tests/fuzz`, which
//! replays `inputs/` and mutations of it in a plain `cargo test`.
//!
//! | target | the bytes are | beside "no panic" |
//! |---|---|---|
//! | [`rings`](rings::rings) | guest memory with three rings in it, and what the device does with them | nothing outside of guest memory is lent, a request is answered once, a ring is bounded work |
//! | [`region`](rings::region) | an in-flight region and the ring that it belongs to | what is given back was in the region, once, in order |
//! | [`requests`](wire::requests) | requests of the request and control rings | what is written is no longer than its field |
//! | [`sense`](wire::sense) | sense data, a status and a residual | sense is never longer than its field, a verdict never forgets that a command may have been executed |
//! | [`decision`](decision::decision) | a CDB and how much room there is | no answer is longer than the allocation length or the room; REPORT SUPPORTED OPERATION CODES agrees with what happens |
//! | [`identity`](identity::identity) | INQUIRY data, VPD pages, READ CAPACITY data | what the guest is shown names the same unit and no port, and reads back |
//! | [`groups`](identity::groups) | REPORT TARGET PORT GROUPS data | no more groups than there are bytes for |
//! | [`reservations`](reservations::reservations) | parameter data of PERSISTENT RESERVE IN and OUT | what was read is written as it was read |
//! | [`fencing`](reservations::fencing) | what paths answer to the reservation commands of one initiator | a conversation ends, the guest is answered once |
//! | [`probe`](paths::probe) | the answers of one path to the questions it is asked | the questions end |
//! | [`paths`](paths::paths) | the answers of several paths, reports and times | the LUN keeps its name and its block size, and never shrinks; a path in use has said that it leads there |
//! | [`control`](text::control) | what a control client sends | pieces do not matter, a request ends with its bracket, every answer is one object, and has its request's id |
//! | [`address`](text::address) | a path's address | what is shown leads to the same path, and shows no secret |
//! | [`config`](text::config) | a configuration file | an error is one line that names the file |
//! | [`array`](array::array) | commands for the built-in array | no answer is longer than the room, memory beside it stays as it is |

pub mod array;
pub mod decision;
pub mod identity;
pub mod paths;
pub mod reservations;
pub mod rings;
pub mod text;
pub mod wire;

/// A target: takes any bytes.
pub type Target = fn(&[u8]);

/// All of them, by name.
pub const TARGETS: &[(&str, Target)] = &[
    ("rings", rings::rings),
    ("region", rings::region),
    ("requests", wire::requests),
    ("sense", wire::sense),
    ("decision", decision::decision),
    ("identity", identity::identity),
    ("groups", identity::groups),
    ("reservations", reservations::reservations),
    ("fencing", reservations::fencing),
    ("probe", paths::probe),
    ("paths", paths::paths),
    ("control", text::control),
    ("address", text::address),
    ("config", text::config),
    ("array", array::array),
];

/// Bytes, taken from the front. When there are none left there are zeroes.
pub struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    /// All of `data`.
    pub fn new(data: &'a [u8]) -> Self {
        Bytes(data)
    }

    /// True when there are none left.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next `len`, fewer at the end.
    pub fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// The next `N`.
    pub fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        let taken = self.take(N);
        array[..taken.len()].copy_from_slice(taken);
        array
    }

    /// The next one.
    pub fn u8(&mut self) -> u8 {
        self.array::<1>()[0]
    }

    /// The next two, the least significant first.
    pub fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.array())
    }

    /// The next four.
    pub fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }

    /// A length in the next two, and as many bytes, fewer at the end.
    pub fn piece(&mut self) -> &'a [u8] {
        let len = self.u16();
        self.take(len.into())
    }

    /// What is left.
    pub fn rest(&mut self) -> &'a [u8] {
        self.take(usize::MAX)
    }
}
