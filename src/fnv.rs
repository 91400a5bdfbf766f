//! A hash that names depend on: of sessions, of logical units, of files. A name that was once given
//! must not change with a compiler or a library, so it is written down here.

/// FNV-1a of `bytes`, with 64 bits. `variant` begins it differently: 0 is the hash as published.
pub(crate) fn fnv1a(variant: u64, bytes: impl IntoIterator<Item = u8>) -> u64 {
    bytes.into_iter().fold(0xCBF2_9CE4_8422_2325 ^ variant, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01B3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fnv1a_is_the_published_one() {
        // Test vectors of draft-eastlake-fnv.
        assert_eq!(fnv1a(0, []), 0xCBF2_9CE4_8422_2325);
        assert_eq!(fnv1a(0, *b"a"), 0xAF63_DC4C_8601_EC8C);
        assert_eq!(fnv1a(0, *b"foobar"), 0x8594_4171_F739_67E8);
        assert_ne!(fnv1a(1, *b"a"), fnv1a(0, *b"a"));
    }
}
