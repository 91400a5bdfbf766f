//! Tests of more than one file, against a driver that builds its rings by hand.

mod chains;
mod device;
mod hostile;
mod inflight;
mod migration;
mod requests;
mod ring;
mod sessions;
mod stops;
