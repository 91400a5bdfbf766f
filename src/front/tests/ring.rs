//! The two indexes of a ring, and who is notified when.

use std::rc::Rc;

use crate::front::memory::GuestMemory;
use crate::front::ring::{Layout, Ring, RingError};
use crate::front::testing::{TestMemory, TestRing};
use crate::limits::RING_SIZE_MAX;

fn pair(event_index: bool, start: u16) -> (TestRing, Ring) {
    let memory: Rc<TestMemory> = TestMemory::new();
    let mut driver = TestRing::new(&memory, 4);
    driver.start_at(start);
    let ring = Ring::open(driver.layout(), memory.table(), event_index, start).unwrap();
    (driver, ring)
}

#[test]
fn pop_takes_heads_in_order_and_then_nothing() {
    let (mut driver, mut ring) = pair(false, 0);
    driver.offer(3);
    driver.offer(1);
    assert_eq!(ring.pop(), Ok(Some(3)));
    assert_eq!(ring.pop(), Ok(Some(1)));
    assert_eq!(ring.pop(), Ok(None));
    assert_eq!(ring.base(), 2);
}

#[test]
fn indexes_wrap_at_65536() {
    let (mut driver, mut ring) = pair(true, u16::MAX - 1);
    for round in 0..9 {
        driver.set_used_event(driver.index);
        driver.offer(round % 4);
        assert_eq!(ring.pop(), Ok(Some(round % 4)));
        assert_eq!(ring.pop(), Ok(None));
        ring.push(round % 4, round.into());
        assert!(ring.publish(), "round {round}");
        assert_eq!(driver.take_used(), [(u32::from(round % 4), u32::from(round))]);
    }
    assert_eq!(ring.base(), 7);
}

#[test]
fn pop_of_a_jumping_index_is_refused() {
    let (driver, mut ring) = pair(false, 0);
    driver.set_available_index(5);
    assert_eq!(ring.pop(), Err(RingError::AvailableIndex { from: 0, to: 5 }));
    driver.set_available_index(u16::MAX);
    assert!(ring.pop().is_err(), "an index that goes back");
}

#[test]
fn pop_of_a_head_outside_the_table_is_refused() {
    let (mut driver, mut ring) = pair(false, 0);
    driver.offer(4);
    assert_eq!(ring.pop(), Err(RingError::Head(4)));
}

#[test]
fn push_is_invisible_until_publish() {
    let (mut driver, mut ring) = pair(false, 0);
    ring.push(2, 7);
    ring.push(0, 9);
    assert_eq!(driver.take_used(), []);
    assert!(ring.publish());
    assert_eq!(driver.take_used(), [(2, 7), (0, 9)]);
    assert!(!ring.publish(), "nothing new");
}

#[test]
fn publish_obeys_the_no_interrupt_flag() {
    let (driver, mut ring) = pair(false, 0);
    driver.set_available_flags(1);
    ring.push(0, 0);
    assert!(!ring.publish());
}

#[test]
fn publish_notifies_only_when_it_passes_the_event_index() {
    let (driver, mut ring) = pair(true, 0);
    driver.set_used_event(2);
    let mut notified = Vec::new();
    for head in 0..4 {
        ring.push(head, 0);
        notified.push(ring.publish());
    }
    assert_eq!(notified, [false, false, true, false]);
    driver.set_used_event(5);
    for head in 0..4 {
        ring.push(head, 0);
    }
    assert!(ring.publish(), "a batch that passes it");
}

#[test]
fn arm_with_the_event_index_asks_for_the_next_entry() {
    let (mut driver, mut ring) = pair(true, 0);
    driver.offer(0);
    ring.pop().unwrap();
    assert_eq!(ring.arm(), Ok(false));
    assert_eq!(driver.available_event(), 1);
    driver.offer(1);
    assert_eq!(ring.arm(), Ok(true), "it came before the wish was seen");
}

#[test]
fn arm_without_the_event_index_clears_the_flag() {
    let (driver, mut ring) = pair(false, 0);
    ring.disarm();
    assert_eq!(driver.used_flags(), 1);
    assert_eq!(ring.arm(), Ok(false));
    assert_eq!(driver.used_flags(), 0);
}

#[test]
fn open_goes_on_where_the_used_ring_stands() {
    let memory = TestMemory::new();
    let mut driver = TestRing::new(&memory, 4);
    driver.start_at(10);
    let mut ring = Ring::open(driver.layout(), memory.table(), false, 10).unwrap();
    ring.push(1, 5);
    ring.publish();
    assert_eq!(driver.take_used(), [(1, 5)]);
    assert_eq!(memory.read16(driver.used + 2), 11);
}

#[test]
fn open_outside_memory_or_unaligned_is_refused() {
    let memory = TestMemory::new();
    let layout = TestRing::new(&memory, 4).layout();
    let open = |layout| Ring::open(layout, memory.table(), false, 0).map(drop);
    let used = TestMemory::USER + TestMemory::LEN - 8;
    assert!(matches!(open(Layout { used, ..layout }), Err(RingError::Unmapped(_))));
    let descriptors = layout.descriptors + 8;
    assert_eq!(open(Layout { descriptors, ..layout }), Err(RingError::Alignment(descriptors)));
    let nowhere = Layout::check(&layout, &GuestMemory::default());
    assert!(matches!(nowhere, Err(RingError::Unmapped(_))));
}

#[test]
fn check_size_takes_powers_of_two_up_to_the_bound() {
    assert_eq!(Layout::check_size(128), Ok(128));
    assert_eq!(Layout::check_size(RING_SIZE_MAX.into()), Ok(RING_SIZE_MAX));
    for size in [0, 3, 2048, 65536, 65664, u32::MAX] {
        assert_eq!(Layout::check_size(size), Err(RingError::Size(size)));
    }
}
