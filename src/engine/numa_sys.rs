//! sched_getcpu(3).

/// The processor that this thread runs on; it may run on another one a moment later.
pub fn current_cpu() -> Option<usize> {
    // SAFETY: takes nothing and touches nothing of ours.
    let cpu = unsafe { libc::sched_getcpu() };
    usize::try_from(cpu).ok()
}
