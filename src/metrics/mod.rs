//! Metrics for monitoring systems: what queries return, in the text that Prometheus reads, printed
//! by `mpathctl metrics` and served by the backend where `[metrics] listen` says so.
//!
//! ```text
//!   GET /metrics --> server --> request (pure) --> three orders to the manager --+
//!                                                                                v
//!   mpathctl metrics --> three queries on each control socket ---------> exposition::render (pure)
//! ```
//!
//! | file | what |
//! |---|---|
//! | [`exposition`] | the text: names, types, help, samples |
//! | `request` | what an HTTP client asked for; pure |
//! | [`server`] | the thread that answers, one client at a time |

pub mod exposition;
mod request;
pub mod server;

pub use exposition::{Format, Snapshot, render};
pub use server::Server;
