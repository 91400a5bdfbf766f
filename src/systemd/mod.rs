//! What a service manager and its services say to each other: sd_notify(3), sd_listen_fds(3),
//! sd-daemon(3) and the journal's native protocol, all small and all meant to be spoken without a
//! library. Nothing here is about disks.
//!
//! | file | what |
//! |---|---|
//! | [`notify`] | states that we tell: ready, reloading, stopping, one line for people, signs of life |
//! | [`journal`] | log lines with the fields and the weight that the journal keeps |
//! | [`listen`] | a socket that was made for us before we were started |
//!
//! Without a service manager nobody listens, and none of this costs anything.

mod clock_sys;
pub mod journal;
pub mod listen;
mod listen_sys;
pub mod notify;

use std::ffi::OsString;

/// Reads one variable of the environment.
pub type Variable<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// A variable's text, where it is set and is text.
fn text(variable: Variable<'_>, name: &str) -> Option<String> {
    variable(name)?.into_string().ok()
}
