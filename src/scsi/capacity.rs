//! READ CAPACITY (SBC-4 5.20 and 5.21).

/// Bytes of READ CAPACITY(16) parameter data.
pub const LEN_16: usize = 32;

/// Bytes of a logical block at most: no disk has larger ones, and whoever reads one block to see
/// whether the medium answers needs room for it.
pub const BLOCK_SIZE_MAX: u32 = 64 << 10;

/// How large a logical unit is, and in what pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Number of logical blocks.
    pub blocks: u64,
    /// Bytes of a logical block.
    pub block_size: u32,
    /// The rest of the READ CAPACITY(16) data: exponents, LBPME, LBPRZ, alignment.
    flags: [u8; 20],
}

impl Capacity {
    /// `None` for data that is cut, a capacity that is no number, or a block size that is none: less
    /// than 256, more than [`BLOCK_SIZE_MAX`], no power of two. No path with such an answer can be
    /// used.
    pub fn parse_16(bytes: &[u8]) -> Option<Self> {
        let last = u64::from_be_bytes(bytes.get(0..8)?.try_into().ok()?);
        let block_size = u32::from_be_bytes(bytes.get(8..12)?.try_into().ok()?);
        let mut flags = [0; 20];
        let rest = bytes.get(12..bytes.len().min(LEN_16))?;
        flags[..rest.len()].copy_from_slice(rest);
        Self { blocks: 0, block_size, flags }.with_last(last)
    }

    /// As [`Capacity::parse_16`], for arrays that know only READ CAPACITY(10).
    pub fn parse_10(bytes: &[u8]) -> Option<Self> {
        let last = u32::from_be_bytes(bytes.get(0..4)?.try_into().ok()?);
        let block_size = u32::from_be_bytes(bytes.get(4..8)?.try_into().ok()?);
        Self { blocks: 0, block_size, flags: [0; 20] }.with_last(u64::from(last))
    }

    fn with_last(self, last: u64) -> Option<Self> {
        let blocks = last.checked_add(1)?;
        let sane =
            (256..=BLOCK_SIZE_MAX).contains(&self.block_size) && self.block_size.is_power_of_two();
        sane.then_some(Capacity { blocks, ..self })
    }

    /// READ CAPACITY(16) data. Protection information is hidden: virtio-scsi carries it only with
    /// T10_PI.
    pub fn encode_16(&self) -> [u8; LEN_16] {
        const PROT_EN_AND_P_TYPE: u8 = 0x0F;
        let mut bytes = [0; LEN_16];
        bytes[0..8].copy_from_slice(&(self.blocks - 1).to_be_bytes());
        bytes[8..12].copy_from_slice(&self.block_size.to_be_bytes());
        bytes[12..].copy_from_slice(&self.flags);
        bytes[12] &= !PROT_EN_AND_P_TYPE;
        bytes
    }

    /// READ CAPACITY(10) data; FFFFFFFFh sends the guest to READ CAPACITY(16).
    pub fn encode_10(&self) -> [u8; 8] {
        let last = u32::try_from(self.blocks - 1).unwrap_or(u32::MAX);
        let mut bytes = [0; 8];
        bytes[0..4].copy_from_slice(&last.to_be_bytes());
        bytes[4..8].copy_from_slice(&self.block_size.to_be_bytes());
        bytes
    }

    /// Bytes in all.
    pub fn bytes(&self) -> u128 {
        u128::from(self.blocks) * u128::from(self.block_size)
    }

    /// The same with another number of blocks (at least one).
    pub fn with_blocks(self, blocks: u64) -> Self {
        Capacity { blocks: blocks.max(1), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_and_encode_16_keep_provisioning_and_drop_protection() {
        let mut bytes = [0; LEN_16];
        bytes[0..8].copy_from_slice(&0xFFFu64.to_be_bytes());
        bytes[8..12].copy_from_slice(&512u32.to_be_bytes());
        (bytes[12], bytes[14]) = (0x03, 0x80);
        let capacity = Capacity::parse_16(&bytes).unwrap();
        assert_eq!((capacity.blocks, capacity.block_size), (0x1000, 512));
        let shown = capacity.encode_16();
        assert_eq!((shown[12], shown[14]), (0, 0x80));
        assert_eq!(shown[0..12], bytes[0..12]);
    }

    #[test]
    fn encode_10_of_a_large_unit_points_to_16() {
        let mut bytes = [0; LEN_16];
        bytes[0..8].copy_from_slice(&0xFFFF_FFFFu64.to_be_bytes());
        bytes[8..12].copy_from_slice(&512u32.to_be_bytes());
        assert_eq!(Capacity::parse_16(&bytes).unwrap().encode_10()[0..4], [0xFF; 4]);
    }

    #[test]
    fn parse_refuses_nonsense() {
        assert_eq!(Capacity::parse_16(&[0xFF; LEN_16]), None);
        assert_eq!(Capacity::parse_16(&[0; LEN_16]), None);
        assert_eq!(Capacity::parse_10(&[0, 0, 0, 9, 0, 0, 2]), None);
        assert!(Capacity::parse_10(&[0, 0, 0, 9, 0, 0, 2, 0]).is_some());
        assert!(Capacity::parse_10(&[0, 0, 0, 9, 0, 1, 0, 0]).is_some());
        assert_eq!(Capacity::parse_10(&[0, 0, 0, 9, 0, 2, 0, 0]), None, "128 KiB");
        assert_eq!(Capacity::parse_10(&[0, 0, 0, 9, 0x80, 0, 0, 0]), None, "2 GiB");
    }
}
