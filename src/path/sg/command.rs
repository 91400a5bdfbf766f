//! One command, as the kernel gets it, and its end, as the kernel tells it.

use super::bounce_sys::Bounce;
use crate::buffer::Segments;

/// The most sense data that the kernel keeps (its `SCSI_SENSE_BUFFERSIZE`).
pub(super) const SENSE_ROOM: usize = 96;

/// Where a command's data is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Memory<'a> {
    /// In memory of our own.
    Own(&'a Bounce, usize),
    /// In the guest's.
    Lent(&'a Segments),
}

/// Which way a command's data goes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Data<'a> {
    /// There is none.
    None,
    /// To the device.
    Out(Memory<'a>),
    /// From the device.
    In(Memory<'a>),
}

/// One command.
#[derive(Clone, Copy, Debug)]
pub(super) struct Command<'a> {
    pub(super) cdb: &'a [u8],
    pub(super) data: Data<'a>,
    pub(super) timeout_ms: u32,
}

/// How a command came back: with its end, or with the error of the call that was to send it.
pub(super) type End = Result<Done, i32>;

/// The end of a command.
#[derive(Clone, Debug)]
pub(super) struct Done {
    /// What the host adapter's driver says: one of the kernel's `DID_` codes.
    pub(super) host: u16,
    /// What the kernel says; since 5.14 only whether there is sense data.
    pub(super) driver: u16,
    /// Status byte.
    pub(super) status: u8,
    /// Bytes of the room that were not used; some drivers tell nonsense.
    pub(super) residual: i32,
    pub(super) sense: [u8; SENSE_ROOM],
    pub(super) sense_len: usize,
}

impl Memory<'_> {
    /// Bytes.
    pub(super) fn len(&self) -> usize {
        match self {
            Memory::Own(_, len) => *len,
            Memory::Lent(segments) => segments.len(),
        }
    }

    /// The memory itself, or the list of its pieces.
    pub(super) fn base(&self) -> *mut libc::c_void {
        match self {
            Memory::Own(bounce, _) => bounce.address().cast(),
            Memory::Lent(segments) => match segments.as_iovecs() {
                [piece] => piece.iov_base,
                pieces => pieces.as_ptr().cast_mut().cast(),
            },
        }
    }

    /// Length of that list; 0 where [`Memory::base`] is the memory itself.
    pub(super) fn pieces(&self) -> u16 {
        match self {
            Memory::Lent(segments) if segments.pieces() > 1 => segments.pieces() as u16,
            _ => 0,
        }
    }
}

impl Data<'_> {
    /// Bytes.
    pub(super) fn len(&self) -> u32 {
        match self {
            Data::None => 0,
            Data::Out(memory) | Data::In(memory) => memory.len() as u32,
        }
    }
}
