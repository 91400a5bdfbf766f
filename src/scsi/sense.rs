//! Sense data (SPC-5 4.4): decoding what an array sent, building what we say ourselves.

/// The longest sense data that is kept: virtio-scsi's `sense_size` with QEMU (fixed at 96).
pub const SENSE_MAX: usize = 96;

/// SENSE KEY (SPC-5 4.4.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum SenseKey {
    /// Nothing to report.
    NoSense = 0x0,
    /// Done, after the device recovered from an error.
    RecoveredError = 0x1,
    /// The logical unit cannot be accessed.
    NotReady = 0x2,
    /// A flaw in the medium or the recorded data.
    MediumError = 0x3,
    /// A hardware failure that the device could not recover from.
    HardwareError = 0x4,
    /// The CDB or its parameters are wrong or not supported.
    IllegalRequest = 0x5,
    /// Something changed that this nexus must know before it goes on.
    UnitAttention = 0x6,
    /// The block is protected from this access.
    DataProtect = 0x7,
    /// Blank or non-blank medium where the other was expected.
    BlankCheck = 0x8,
    /// Vendor specific.
    VendorSpecific = 0x9,
    /// A third-party copy was aborted.
    CopyAborted = 0xA,
    /// The device server aborted the command.
    AbortedCommand = 0xB,
    /// Reserved.
    Reserved = 0xC,
    /// A buffered device ran out of room.
    VolumeOverflow = 0xD,
    /// The data did not match what was read from the medium.
    Miscompare = 0xE,
    /// The command completed with something to tell (SPC-4 and later).
    Completed = 0xF,
}

impl SenseKey {
    /// The key in the low nibble of `byte`.
    pub fn from_low_nibble(byte: u8) -> Self {
        use SenseKey::*;
        [
            NoSense,
            RecoveredError,
            NotReady,
            MediumError,
            HardwareError,
            IllegalRequest,
            UnitAttention,
            DataProtect,
            BlankCheck,
            VendorSpecific,
            CopyAborted,
            AbortedCommand,
            Reserved,
            VolumeOverflow,
            Miscompare,
            Completed,
        ][(byte & 0xF) as usize]
    }
}

impl std::fmt::Display for SenseKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            SenseKey::NoSense => "NO SENSE",
            SenseKey::RecoveredError => "RECOVERED ERROR",
            SenseKey::NotReady => "NOT READY",
            SenseKey::MediumError => "MEDIUM ERROR",
            SenseKey::HardwareError => "HARDWARE ERROR",
            SenseKey::IllegalRequest => "ILLEGAL REQUEST",
            SenseKey::UnitAttention => "UNIT ATTENTION",
            SenseKey::DataProtect => "DATA PROTECT",
            SenseKey::BlankCheck => "BLANK CHECK",
            SenseKey::VendorSpecific => "VENDOR SPECIFIC",
            SenseKey::CopyAborted => "COPY ABORTED",
            SenseKey::AbortedCommand => "ABORTED COMMAND",
            SenseKey::Reserved => "RESERVED",
            SenseKey::VolumeOverflow => "VOLUME OVERFLOW",
            SenseKey::Miscompare => "MISCOMPARE",
            SenseKey::Completed => "COMPLETED",
        })
    }
}

/// ADDITIONAL SENSE CODE and its qualifier, as the standards write them: `Asc(0x29, 0x00)`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Asc(pub u8, pub u8);

impl Asc {
    /// NO ADDITIONAL SENSE INFORMATION.
    pub const NONE: Asc = Asc(0x00, 0x00);
    /// LOGICAL UNIT NOT READY, ASYMMETRIC ACCESS STATE TRANSITION.
    pub const ALUA_TRANSITION: Asc = Asc(0x04, 0x0A);
    /// LOGICAL UNIT NOT ACCESSIBLE, TARGET PORT IN STANDBY STATE.
    pub const ALUA_STANDBY: Asc = Asc(0x04, 0x0B);
    /// LOGICAL UNIT NOT ACCESSIBLE, TARGET PORT IN UNAVAILABLE STATE.
    pub const ALUA_UNAVAILABLE: Asc = Asc(0x04, 0x0C);
    /// LOGICAL UNIT NOT READY, OFFLINE.
    pub const ALUA_OFFLINE: Asc = Asc(0x04, 0x12);
    /// WRITE ERROR.
    pub const WRITE_ERROR: Asc = Asc(0x0C, 0x00);
    /// UNRECOVERED READ ERROR.
    pub const UNRECOVERED_READ_ERROR: Asc = Asc(0x11, 0x00);
    /// PARAMETER LIST LENGTH ERROR.
    pub const PARAMETER_LIST_LENGTH_ERROR: Asc = Asc(0x1A, 0x00);
    /// MISCOMPARE DURING VERIFY OPERATION.
    pub const MISCOMPARE_DURING_VERIFY: Asc = Asc(0x1D, 0x00);
    /// INVALID COMMAND OPERATION CODE.
    pub const INVALID_OPCODE: Asc = Asc(0x20, 0x00);
    /// LOGICAL BLOCK ADDRESS OUT OF RANGE.
    pub const LBA_OUT_OF_RANGE: Asc = Asc(0x21, 0x00);
    /// INVALID FIELD IN CDB.
    pub const INVALID_FIELD_IN_CDB: Asc = Asc(0x24, 0x00);
    /// LOGICAL UNIT NOT SUPPORTED.
    pub const LUN_NOT_SUPPORTED: Asc = Asc(0x25, 0x00);
    /// INVALID FIELD IN PARAMETER LIST.
    pub const INVALID_FIELD_IN_PARAMETER_LIST: Asc = Asc(0x26, 0x00);
    /// INVALID RELEASE OF PERSISTENT RESERVATION.
    pub const INVALID_RELEASE: Asc = Asc(0x26, 0x04);
    /// WRITE PROTECTED.
    pub const WRITE_PROTECTED: Asc = Asc(0x27, 0x00);
    /// LOGICAL UNIT SOFTWARE WRITE PROTECTED.
    pub const SOFTWARE_WRITE_PROTECTED: Asc = Asc(0x27, 0x02);
    /// SPACE ALLOCATION FAILED WRITE PROTECT.
    pub const SPACE_ALLOCATION_FAILED: Asc = Asc(0x27, 0x07);
    /// POWER ON, RESET, OR BUS DEVICE RESET OCCURRED.
    pub const POWER_ON_OR_RESET: Asc = Asc(0x29, 0x00);
    /// BUS DEVICE RESET FUNCTION OCCURRED.
    pub const BUS_DEVICE_RESET: Asc = Asc(0x29, 0x03);
    /// I_T NEXUS LOSS OCCURRED.
    pub const I_T_NEXUS_LOSS: Asc = Asc(0x29, 0x07);
    /// MODE PARAMETERS CHANGED.
    pub const MODE_PARAMETERS_CHANGED: Asc = Asc(0x2A, 0x01);
    /// LOG PARAMETERS CHANGED.
    pub const LOG_PARAMETERS_CHANGED: Asc = Asc(0x2A, 0x02);
    /// RESERVATIONS PREEMPTED.
    pub const RESERVATIONS_PREEMPTED: Asc = Asc(0x2A, 0x03);
    /// RESERVATIONS RELEASED.
    pub const RESERVATIONS_RELEASED: Asc = Asc(0x2A, 0x04);
    /// REGISTRATIONS PREEMPTED.
    pub const REGISTRATIONS_PREEMPTED: Asc = Asc(0x2A, 0x05);
    /// ASYMMETRIC ACCESS STATE CHANGED.
    pub const ALUA_STATE_CHANGED: Asc = Asc(0x2A, 0x06);
    /// CAPACITY DATA HAS CHANGED.
    pub const CAPACITY_DATA_HAS_CHANGED: Asc = Asc(0x2A, 0x09);
    /// SAVING PARAMETERS NOT SUPPORTED.
    pub const SAVING_PARAMETERS_NOT_SUPPORTED: Asc = Asc(0x39, 0x00);
    /// REPORTED LUNS DATA HAS CHANGED.
    pub const REPORTED_LUNS_CHANGED: Asc = Asc(0x3F, 0x0E);
    /// INQUIRY DATA HAS CHANGED.
    pub const INQUIRY_DATA_CHANGED: Asc = Asc(0x3F, 0x03);
    /// INTERNAL TARGET FAILURE.
    pub const INTERNAL_TARGET_FAILURE: Asc = Asc(0x44, 0x00);
    /// INSUFFICIENT REGISTRATION RESOURCES.
    pub const INSUFFICIENT_REGISTRATION_RESOURCES: Asc = Asc(0x55, 0x04);
    /// COMMAND CLEARED BY DEVICE SERVER is 2Fh/02h; 2Fh/00h is COMMANDS CLEARED BY ANOTHER INITIATOR.
    pub const COMMANDS_CLEARED: Asc = Asc(0x2F, 0x00);
}

impl std::fmt::Display for Asc {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:02X}h/{:02X}h", self.0, self.1)
    }
}

impl std::fmt::Debug for Asc {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

/// Sense data as an array or we ourselves made it: at most [`SENSE_MAX`] bytes, any content.
#[derive(Clone, PartialEq, Eq)]
pub struct Sense {
    bytes: [u8; SENSE_MAX],
    len: u8,
}

impl Sense {
    /// What an array sent; what is longer than [`SENSE_MAX`] is cut, which leaves the key and the
    /// code in place in both formats.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let len = bytes.len().min(SENSE_MAX);
        let mut sense = Sense { bytes: [0; SENSE_MAX], len: len as u8 };
        sense.bytes[..len].copy_from_slice(&bytes[..len]);
        sense
    }

    /// Fixed format, current error (SPC-5 4.4.3).
    pub fn fixed(key: SenseKey, asc: Asc) -> Self {
        let mut sense = Sense { bytes: [0; SENSE_MAX], len: 18 };
        sense.bytes[0] = 0x70;
        sense.bytes[2] = key as u8;
        sense.bytes[7] = 10;
        (sense.bytes[12], sense.bytes[13]) = (asc.0, asc.1);
        sense
    }

    /// Descriptor format, current error (SPC-5 4.4.2), without descriptors.
    pub fn descriptor(key: SenseKey, asc: Asc) -> Self {
        let mut sense = Sense { bytes: [0; SENSE_MAX], len: 8 };
        sense.bytes[0] = 0x72;
        (sense.bytes[1], sense.bytes[2], sense.bytes[3]) = (key as u8, asc.0, asc.1);
        sense
    }

    /// Adds the field pointer that tells where in the CDB (`in_cdb`) or the parameter list the
    /// wrong field begins (SPC-5 4.4.2.4.2). For sense made by [`Sense::fixed`].
    pub fn with_field_pointer(mut self, in_cdb: bool, byte: u16, bit: Option<u8>) -> Self {
        debug_assert_eq!(self.bytes[0], 0x70);
        self.bytes[15] = 0x80 | u8::from(in_cdb) << 6 | bit.map_or(0, |bit| 0x08 | bit & 7);
        self.bytes[16..18].copy_from_slice(&byte.to_be_bytes());
        self
    }

    /// Sets the INFORMATION field (SPC-5 4.4.3). For sense made by [`Sense::fixed`].
    pub fn with_information(mut self, information: u32) -> Self {
        debug_assert_eq!(self.bytes[0] & 0x7F, 0x70);
        self.bytes[0] |= 0x80;
        self.bytes[3..7].copy_from_slice(&information.to_be_bytes());
        self
    }

    /// The bytes as they go to the guest.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len as usize]
    }

    /// Key and code, if the data is long enough and in a format that has them. Fixed format cut
    /// before the code reads as code 00h/00h.
    pub fn decode(&self) -> Option<(SenseKey, Asc)> {
        let bytes = self.bytes();
        match bytes.first()? & 0x7F {
            0x70 | 0x71 => {
                let key = SenseKey::from_low_nibble(*bytes.get(2)?);
                let at = |at| bytes.get(at).copied().unwrap_or(0);
                Some((key, Asc(at(12), at(13))))
            }
            0x72 | 0x73 => {
                let key = SenseKey::from_low_nibble(*bytes.get(1)?);
                let at = |at| bytes.get(at).copied().unwrap_or(0);
                Some((key, Asc(at(2), at(3))))
            }
            _ => None,
        }
    }

    /// True for response codes 71h and 73h: the sense tells of an earlier command, and the command
    /// that got it has not been executed (SPC-5 4.4.7).
    pub fn is_deferred(&self) -> bool {
        matches!(self.bytes().first().map(|byte| byte & 0x7F), Some(0x71 | 0x73))
    }
}

impl std::fmt::Debug for Sense {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.decode() {
            Some((key, asc)) => write!(f, "{key} {asc}"),
            None => write!(f, "{} unreadable sense bytes", self.len),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decode_reads_back_both_formats() {
        let expected = Some((SenseKey::UnitAttention, Asc(0x29, 0x07)));
        assert_eq!(Sense::fixed(SenseKey::UnitAttention, Asc(0x29, 0x07)).decode(), expected);
        assert_eq!(Sense::descriptor(SenseKey::UnitAttention, Asc(0x29, 0x07)).decode(), expected);
    }

    #[test]
    fn decode_takes_any_bytes() {
        for len in 0..=120 {
            for first in 0..=255u8 {
                let mut bytes = vec![0xA5; len];
                if let Some(byte) = bytes.first_mut() {
                    *byte = first;
                }
                let sense = Sense::from_bytes(&bytes);
                assert!(sense.bytes().len() <= SENSE_MAX);
                let _ = sense.decode();
            }
        }
    }

    #[test]
    fn decode_short_fixed_sense_has_no_code() {
        let sense = Sense::from_bytes(&[0x70, 0, 0x05]);
        assert_eq!(sense.decode(), Some((SenseKey::IllegalRequest, Asc::NONE)));
        assert_eq!(Sense::from_bytes(&[0x70, 0]).decode(), None);
    }

    #[test]
    fn is_deferred_knows_the_response_codes() {
        assert!(Sense::from_bytes(&[0x71, 0, 3]).is_deferred());
        assert!(Sense::from_bytes(&[0xF3]).is_deferred());
        assert!(!Sense::fixed(SenseKey::NotReady, Asc::NONE).is_deferred());
    }
}
