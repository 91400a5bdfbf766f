//! Chains: what a driver may build, and what it may not.

use std::rc::Rc;

use crate::front::chain::{Chain, ChainError};
use crate::front::memory::Unmapped;
use crate::front::ring::Ring;
use crate::front::testing::{INDIRECT, NEXT, TestMemory, TestRing, WRITE, descriptor};
use crate::limits::{SEGMENTS_MAX, TRANSFER_MAX};

/// The chain, the ring that keeps its memory, and the result.
fn walk_all(ring: &TestRing, head: u16) -> (Chain, Ring, Result<(), ChainError>) {
    let device = Ring::open(ring.layout(), ring.memory.table(), false, 0).unwrap();
    let mut chain = Chain::default();
    let result = chain.walk(&device, true, head);
    (chain, device, result)
}

fn walk(ring: &TestRing, head: u16) -> Result<(), ChainError> {
    walk_all(ring, head).2
}

fn ring() -> (Rc<TestMemory>, TestRing) {
    let memory = TestMemory::new();
    let ring = TestRing::new(&memory, 8);
    (memory, ring)
}

/// An indirect table with these descriptors at head 0.
fn indirect(ring: &TestRing, table: &[[u8; 16]]) {
    let at = ring.memory.store(&table.concat());
    ring.describe(0, at, 16 * table.len() as u32, INDIRECT, 0);
}

#[test]
fn walk_direct_chain_collects_both_directions() {
    let (memory, ring) = ring();
    let (a, b) = (memory.store(&[1, 2, 3]), memory.store(&[4, 5]));
    ring.describe(3, a, 3, NEXT, 1);
    ring.describe(1, b, 2, NEXT, 7);
    ring.describe(7, memory.allocate(16), 16, WRITE, 0);
    let (chain, _device, result) = walk_all(&ring, 3);
    assert_eq!(result, Ok(()));
    assert_eq!(chain.readable.to_vec(), [1, 2, 3, 4, 5]);
    assert_eq!(chain.writable.len(), 16);
}

#[test]
fn walk_indirect_table_longer_than_the_ring_is_followed() {
    let (memory, ring) = ring();
    let buffer = memory.allocate(64);
    let table: Vec<_> =
        (0..100).map(|i| descriptor(buffer, 1, if i < 99 { NEXT } else { 0 }, i + 1)).collect();
    indirect(&ring, &table);
    let (chain, _device, result) = walk_all(&ring, 0);
    assert_eq!(result, Ok(()));
    assert_eq!(chain.readable.len(), 100);
}

#[test]
fn walk_indirect_table_at_an_odd_address_is_followed() {
    let (memory, ring) = ring();
    let table = memory.allocate(64) + 5;
    memory.write(table, &descriptor(memory.store(&[9]), 1, 0, 0));
    ring.describe(0, table, 16, INDIRECT, 0);
    let (chain, _device, result) = walk_all(&ring, 0);
    assert_eq!(result, Ok(()));
    assert_eq!(chain.readable.to_vec(), [9]);
}

#[test]
fn walk_direct_then_indirect_is_followed() {
    let (memory, ring) = ring();
    indirect(&ring, &[descriptor(memory.allocate(8), 8, WRITE, 0)]);
    ring.describe(1, memory.store(&[1]), 1, NEXT, 0);
    let (chain, _device, result) = walk_all(&ring, 1);
    assert_eq!(result, Ok(()));
    assert_eq!((chain.readable.len(), chain.writable.len()), (1, 8));
}

#[test]
fn walk_loop_is_found() {
    let (memory, ring) = ring();
    let buffer = memory.allocate(8);
    ring.describe(0, buffer, 1, NEXT, 1);
    ring.describe(1, buffer, 1, NEXT, 0);
    assert_eq!(walk(&ring, 0), Err(ChainError::Loop));
}

#[test]
fn walk_loop_in_an_indirect_table_is_found() {
    let (memory, ring) = ring();
    let buffer = memory.allocate(8);
    indirect(&ring, &[descriptor(buffer, 1, NEXT, 1), descriptor(buffer, 1, NEXT, 0)]);
    assert_eq!(walk(&ring, 0), Err(ChainError::Loop));
}

#[test]
fn walk_link_out_of_the_table_is_refused() {
    let (memory, ring) = ring();
    ring.describe(0, memory.allocate(8), 1, NEXT, 8);
    assert_eq!(walk(&ring, 0), Err(ChainError::Index(8)));
    indirect(&ring, &[descriptor(memory.allocate(8), 1, NEXT, 1)]);
    assert_eq!(walk(&ring, 0), Err(ChainError::Index(1)));
}

#[test]
fn walk_wild_address_is_refused() {
    let (_memory, ring) = ring();
    for address in [0, TestMemory::GUEST + TestMemory::LEN - 1, u64::MAX, 1 << 63] {
        ring.describe(0, address, 2, 0, 0);
        let expected = Err(ChainError::Unmapped(Unmapped { address, len: 2 }));
        assert_eq!(walk(&ring, 0), expected);
    }
}

#[test]
fn walk_wild_indirect_table_is_refused() {
    let (_memory, ring) = ring();
    ring.describe(0, u64::MAX - 7, 32, INDIRECT, 0);
    assert!(matches!(walk(&ring, 0), Err(ChainError::Unmapped(_))));
}

#[test]
fn walk_readable_after_writable_is_refused() {
    let (memory, ring) = ring();
    let buffer = memory.allocate(8);
    ring.describe(0, buffer, 8, NEXT | WRITE, 1);
    ring.describe(1, buffer, 8, 0, 0);
    let (chain, _device, result) = walk_all(&ring, 0);
    assert_eq!(result, Err(ChainError::Order));
    assert_eq!(chain.writable.len(), 8, "what came before tells where to answer");
}

#[test]
fn walk_zero_length_descriptors_count_for_nothing() {
    let (memory, ring) = ring();
    ring.describe(0, memory.store(&[7]), 1, NEXT, 1);
    ring.describe(1, 0, 0, NEXT, 2);
    ring.describe(2, memory.allocate(4), 4, WRITE, 0);
    let (chain, _device, result) = walk_all(&ring, 0);
    assert_eq!(result, Ok(()));
    assert_eq!((chain.readable.pieces(), chain.writable.pieces()), (1, 1));
}

#[test]
fn walk_indirect_in_indirect_is_refused() {
    let (memory, ring) = ring();
    indirect(&ring, &[descriptor(memory.allocate(16), 16, INDIRECT, 0)]);
    assert_eq!(walk(&ring, 0), Err(ChainError::IndirectInIndirect));
}

#[test]
fn walk_indirect_with_next_is_refused() {
    let (memory, ring) = ring();
    ring.describe(0, memory.allocate(16), 16, INDIRECT | NEXT, 1);
    assert_eq!(walk(&ring, 0), Err(ChainError::IndirectWithNext));
}

#[test]
fn walk_indirect_of_an_odd_length_is_refused() {
    let (memory, ring) = ring();
    for len in [0, 15, 17, u32::MAX] {
        ring.describe(0, memory.allocate(16), len, INDIRECT, 0);
        assert_eq!(walk(&ring, 0), Err(ChainError::IndirectLength(len)));
    }
}

#[test]
fn walk_indirect_without_the_feature_is_refused() {
    let (memory, ring) = ring();
    ring.describe(0, memory.allocate(16), 16, INDIRECT, 0);
    let device = Ring::open(ring.layout(), memory.table(), false, 0).unwrap();
    let result = Chain::default().walk(&device, false, 0);
    assert_eq!(result, Err(ChainError::IndirectNotNegotiated));
}

#[test]
fn walk_more_data_than_a_transfer_is_refused() {
    let (memory, ring) = ring();
    ring.describe(0, memory.allocate(16), TRANSFER_MAX + 4096, WRITE, 0);
    assert_eq!(walk(&ring, 0), Err(ChainError::TooLong));
}

#[test]
fn walk_more_segments_than_the_bound_is_refused() {
    let (memory, ring) = ring();
    let buffer = memory.allocate(64);
    let table: Vec<_> = (0..2000).map(|i| descriptor(buffer, 1, NEXT, i + 1)).collect();
    indirect(&ring, &table);
    let (chain, _device, result) = walk_all(&ring, 0);
    assert_eq!(result, Err(ChainError::TooManySegments));
    assert!(chain.readable.pieces() <= SEGMENTS_MAX);
}
