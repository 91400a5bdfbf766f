//! What the process may still do when somebody has taken it over: a few system calls for each kind
//! of thread (seccomp), and the files and ports that its configuration names (Landlock).
//!
//! ```text
//!   main: Landlock, then the filter of all kinds together ---- before the first other thread
//!     |
//!     +-- each thread, first of all: enter(Class) ------------- its own filter on top
//!     |
//!     +-- when everything runs: enter(Class::Main) ------------ main's own
//! ```
//!
//! Filters are inherited, and none can be taken off: of several, the strictest answer counts. So a
//! thread that starts others has what they need, which is why those that handle what a guest, an
//! array or the network sends start none: they ask the [`Foreman`].
//!
//! A call that is not allowed is not executed: the kernel sends SIGSYS, whose handler says which
//! call and which thread it was, and the process dies of the signal. Nothing is lost by that but
//! the time of a restart.
//!
//! | file | what |
//! |---|---|
//! | [`class`] | the kinds of threads and **the table of what each may do** |
//! | `calls` | system calls that belong together, by name |
//! | `filter` | from the table to the kernel |
//! | [`fence`] | files and ports |
//! | [`foreman`] | the thread that starts threads for others |
//! | `trap_sys` | SIGSYS, core dumps, the allocator |

mod calls;
pub mod class;
pub mod fence;
mod filter;
pub mod foreman;
#[cfg(test)]
mod tests;
mod trap_sys;

use std::io;
use std::sync::OnceLock;

pub use self::class::Class;
pub use self::foreman::Foreman;

/// What becomes of a system call that is not allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// It is not executed, and the process ends with SIGSYS.
    Kill,
    /// It is executed, and the kernel's log or audit log has a line.
    Log,
}

/// Why there are no filters.
#[derive(Debug, thiserror::Error)]
pub enum ConfineError {
    /// They are not made for this architecture, or the table is wrong.
    #[error("no filter can be made: {0}")]
    Filter(String),
    /// The kernel has none, or whoever started us allows none.
    #[error("the kernel takes no filter: {0}")]
    Kernel(String),
    /// The handler of SIGSYS.
    #[error("SIGSYS cannot be handled: {0}")]
    Handler(io::Error),
}

/// What was asked for; nothing where the process is not confined.
static VIOLATION: OnceLock<Violation> = OnceLock::new();

/// Confines the process to what its threads may do all together. To be called before there is
/// another thread; once. `prefix` goes before the line that a violation writes to stderr.
///
/// # Errors
/// Where the kernel takes no filter. The process is as free as before then.
pub fn start(violation: Violation, prefix: &'static str) -> Result<(), ConfineError> {
    trap_sys::settle_allocator();
    if violation == Violation::Kill {
        trap_sys::handle(prefix).map_err(ConfineError::Handler)?;
    }
    filter::install_without_clone3()?;
    filter::install(Class::Start, violation)?;
    let _ = VIOLATION.set(violation);
    Ok(())
}

/// Confines the calling thread to what `class` may do, where the process is confined. For the first
/// line of a thread.
pub fn enter(class: Class) {
    let Some(violation) = VIOLATION.get() else { return };
    if let Err(error) = filter::install(class, *violation) {
        // What it has inherited is still in force.
        log::error!("a thread ({}) goes on with the filter of all threads: {error}", class.name());
    }
}

/// No core dump, and no other process of the same user that looks into this one: memory has the
/// secrets of CHAP, and the guest's data.
pub fn hide_memory() -> io::Result<()> {
    trap_sys::set_dumpable(false)
}
