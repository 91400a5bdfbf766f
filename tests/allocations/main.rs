//! In the steady state a command allocates nothing, from the request to the answer.

mod counting_sys;
#[allow(dead_code, reason = "the counting of instructions needs more of it")]
#[path = "../../benches/core/scene.rs"]
mod scene;

use counting_sys::allocations;
use scene::Scene;

#[test]
fn commands_allocate_nothing() {
    for (paths, lanes) in [(1, 1), (2, 1), (16, 1), (2, 2)] {
        let mut scene = Scene::new(paths, lanes);
        // Lists grow to the size that this load needs.
        (0..50).for_each(|_| scene.turn(32));
        let counted = allocations(|| (0..100).for_each(|_| scene.turn(32)));
        assert_eq!(scene.guest.answered, lanes as u64 * 150 * 32);
        assert_eq!(counted, 0, "allocations of 3200 commands in {lanes} lanes over {paths} paths");
    }
}

#[test]
fn allocations_are_counted() {
    assert_eq!(allocations(|| drop(std::hint::black_box(vec![1_u8; 100]))), 1);
}
