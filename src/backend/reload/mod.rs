//! The configuration, read again while the guest goes on: on SIGHUP and on the order `reload`.
//!
//! ```text
//!   SIGHUP, order --> a thread: reads the file, opens new paths --> the manager's thread: apply
//!                     may wait for disks and adapters               never waits; all or nothing
//! ```
//!
//! The file is the truth afterwards, as far as settings can change while the backend runs; those
//! that cannot are named and stay. A file with an error changes nothing, and neither does one with
//! a path that cannot be opened.
//!
//! | file | what |
//! |---|---|
//! | [`plan`] | what is to be done; pure |
//! | [`apply`] | doing it |

mod apply;
mod plan;

use std::io::Read;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use self::plan::{Known, plan};
use super::fence::Bounds;
use super::members::Member;
use super::{BackendError, run};
use crate::config::Config;
use crate::config::reread::CommandLine;
use crate::confine::{Class, Foreman};
use crate::control::{Reply, ReplyTo};
use crate::engine::Manager;
use crate::engine::mailbox::{Mail, Post, mailbox};
use crate::logging::{STATE, message_id};
use crate::multipath::PathState;
use crate::path::any::{AnyPath, OpenOptions};

pub use self::apply::Scene;

/// What the thread has made ready.
#[derive(Debug)]
pub struct Reread {
    config: Config,
    opened: Vec<Member>,
}

/// Readings of the configuration, one at a time.
#[derive(Debug)]
pub struct Reloads {
    /// `None` where there is no file.
    source: Option<CommandLine>,
    /// What is in force, but for what was kept.
    config: Arc<Config>,
    options: OpenOptions,
    bounds: Bounds,
    foreman: Foreman,
    post: Post<Result<Reread, String>>,
    mail: Mail<Result<Reread, String>>,
    /// SIGHUP writes to its other end. Without a file nobody does, and there is none to wait on.
    hangups: Option<UnixStream>,
    under_way: bool,
    /// Who waits for the reading that is under way.
    waiting: Vec<ReplyTo>,
    /// Asked for since it began: it may have read the file before that was written.
    next: Option<Vec<ReplyTo>>,
}

impl Reloads {
    /// None yet. `config` is what the backend was started with.
    pub fn new(
        source: Option<CommandLine>,
        config: &Config,
        options: OpenOptions,
        bounds: Bounds,
        hangups: Option<UnixStream>,
        foreman: Foreman,
    ) -> std::io::Result<Self> {
        if let Some(hangups) = &hangups {
            hangups.set_nonblocking(true)?;
        }
        let (post, mail) = mailbox()?;
        Ok(Reloads {
            source,
            config: Arc::new(config.clone()),
            options,
            bounds,
            foreman,
            post,
            mail,
            hangups,
            under_way: false,
            waiting: Vec::new(),
            next: None,
        })
    }

    /// Descriptors to wait on.
    pub fn wait_fds(&self) -> impl Iterator<Item = RawFd> {
        let hangups = self.hangups.as_ref().map(AsRawFd::as_raw_fd);
        [self.mail.as_raw_fd()].into_iter().chain(hangups)
    }

    /// Has there been a SIGHUP since the last call?
    pub fn hung_up(&mut self) -> bool {
        let Some(hangups) = &mut self.hangups else { return false };
        let mut bytes = [0; 64];
        let mut any = false;
        while hangups.read(&mut bytes).is_ok_and(|count| count > 0) {
            any = true;
        }
        any
    }

    /// True from the first wish until all is done.
    pub fn is_under_way(&self) -> bool {
        self.under_way
    }

    /// Begins a reading, or plans the next.
    pub fn request(
        &mut self,
        reply: Option<ReplyTo>,
        manager: &Manager<AnyPath>,
        members: &[Member],
    ) {
        if self.under_way {
            self.next.get_or_insert_default().extend(reply);
            return;
        }
        self.waiting.extend(reply);
        self.under_way = true;
        self.begin(manager, members);
    }

    fn begin(&mut self, manager: &Manager<AnyPath>, members: &[Member]) {
        let Some(source) = self.source.clone() else {
            let why = "the backend was started without a configuration file";
            return self.post.send(Err(why.to_owned()));
        };
        let (old, known) = (Arc::clone(&self.config), known(manager, members));
        let (options, bounds) = (self.options.clone(), self.bounds.clone());
        let post = self.post.clone();
        let reads = move || {
            post.send(
                read(&source, &old, &known, options, &bounds).map_err(|error| error.to_string()),
            );
        };
        if let Err(error) = self.foreman.spawn(Class::Opener, "reload", reads) {
            self.post.send(Err(format!("no thread to read it: {error}")));
        }
    }

    /// Applies what has been read, tells those who wait, and begins the next if there is one.
    pub fn take(&mut self, scene: &mut Scene<'_>) {
        while let Some(read) = self.mail.next() {
            let result = read.and_then(|reread| {
                let report = apply::apply(&self.config, &reread, scene)?;
                self.config = Arc::new(reread.config);
                Ok(report)
            });
            match &result {
                Ok(report) => log::info!(
                    target: STATE,
                    message_id = message_id::RELOAD, to = "reloaded", reason:% = report;
                    "reload: {report}"
                ),
                Err(error) => log::error!(
                    message_id = message_id::RELOAD, to = "kept", reason:% = error;
                    "reload: {error}; everything stays as it was"
                ),
            }
            for reply in self.waiting.drain(..) {
                reply.answer(result.clone().map(|report| Reply::Reloaded(Box::new(report))));
            }
            self.under_way = false;
            if let Some(next) = self.next.take() {
                self.waiting = next;
                self.under_way = true;
                self.begin(scene.manager, scene.members);
            }
        }
    }
}

/// The paths there are, as a plan wants them.
fn known(manager: &Manager<AnyPath>, members: &[Member]) -> Vec<Known> {
    let leaving = |name: &str| {
        let path = manager.core().path_named(name);
        path.is_none_or(|path| path.state == PathState::Draining)
    };
    let known = |member: &Member| Known {
        name: member.name.clone(),
        address: member.address.clone(),
        leaving: leaving(&member.name),
    };
    members.iter().map(known).collect()
}

/// The thread's part.
fn read(
    source: &CommandLine,
    old: &Config,
    known: &[Known],
    mut options: OpenOptions,
    bounds: &Bounds,
) -> Result<Reread, Box<dyn std::error::Error>> {
    let config = source.reread()?;
    if config.paths.is_empty() && !run::discovers(old) {
        return Err(BackendError::NoPaths.into());
    }
    options.sg.path_timeout = config.lun.path_timeout;
    let plan = plan(old, &config, known)?;
    let open = |(_, config)| Member::open_within(bounds, config, &options);
    let opened = plan.add.iter().map(|(name, config)| (name, config)).map(open);
    let opened = opened.collect::<Result<Vec<_>, _>>()?;
    Ok(Reread { config, opened })
}
