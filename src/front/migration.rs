//! Live migration: the dirty log comes, goes and is replaced while rings run.
//!
//! QEMU sends SET_LOG_BASE, then SET_FEATURES with LOG_ALL, then SET_VRING_ADDR for each ring with
//! the address at which its used ring is marked, and begins to copy memory. To end it, it stops the
//! rings and takes the last bits. Each of these messages is acted on when it returns: no worker
//! writes by the old state any more. How rings stop then is in [`super::stop`].

use std::fs::File;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};

use super::dirty::{DirtyLog, LogError};
use super::memory::GuestMemory;
use super::session::{Result, Session};
use super::worker::Command;
use crate::engine::Lanes;
use crate::ids::RingIndex;

impl<F: Lanes> Session<F> {
    /// SET_LOG_BASE: `bytes` of `file` from `offset` on are the log.
    ///
    /// # Errors
    /// Where it cannot be mapped, or has no bit for a page of guest memory or of a used ring.
    pub fn set_log_base(&mut self, file: File, offset: u64, bytes: u64) -> Result<()> {
        let log = DirtyLog::map(file, offset, bytes)?;
        let used_rings = self.rings.iter().filter_map(|ring| ring.used_end());
        log.check_covers(used_rings.chain([self.memory.end()]).max().unwrap_or(0))?;
        self.log = Some(Arc::new(log));
        self.change_log();
        Ok(())
    }

    /// LOG_ALL came or went. When it goes the log is let go of: it is memory of the front end's, who
    /// brings one whenever it wants to be told.
    pub(super) fn change_log_all(&mut self) -> Result<()> {
        let on = self.features.log_all();
        if on && self.log.is_none() && !self.running().is_empty() {
            return Err(LogError::Missing.into());
        }
        self.change_log();
        if !on {
            self.log = None;
        }
        Ok(())
    }

    /// The log, while what is written is to be marked.
    pub(super) fn active_log(&self) -> Option<Arc<DirtyLog>> {
        self.log.clone().filter(|_| self.features.log_all())
    }

    /// Returns when every worker marks in the log of now, or in none if there is none.
    pub(super) fn change_log(&self) {
        let log = self.active_log();
        self.have_all(|done| Command::Log(log.clone(), done));
    }

    /// Marks the used ring of a running ring at another address, or not any more.
    pub(super) fn change_used_address(&self, at: RingIndex, address: Option<u64>) {
        self.have([at], |done| Command::UsedAddress(at, address, done));
    }

    /// Checks that the log which running rings mark in reaches to the end of `memory`. QEMU brings a
    /// larger log before it brings more memory; a log of an earlier run counts for nothing.
    pub(super) fn check_log_covers(
        &self,
        memory: &GuestMemory,
    ) -> std::result::Result<(), LogError> {
        match self.active_log().filter(|_| !self.running().is_empty()) {
            Some(log) => log.check_covers(memory.end()),
            None => Ok(()),
        }
    }

    /// Has the workers of all running rings obey, and returns when they have.
    pub(super) fn have_all(&self, command: impl Fn(Sender<()>) -> Command) {
        self.have(self.running(), command);
    }

    fn have(
        &self,
        rings: impl IntoIterator<Item = RingIndex>,
        command: impl Fn(Sender<()>) -> Command,
    ) {
        let (done, obeyed) = channel();
        rings.into_iter().for_each(|at| self.tell(at, command(done.clone())));
        drop(done);
        // Ends when all workers have dropped their ends.
        obeyed.iter().for_each(drop);
    }
}
