//! Host SCSI devices: those that come and go by themselves, and how those in use are doing. One
//! thread looks at the host's files, for all of them, and tells the manager's thread.
//!
//! ```text
//!   kernel's uevents --+                      +--> found: opened, and a path from then on
//!   slow timer --------+--> scan: who is it? -+--> gone: the path is removed
//!                                             '--> held by somebody else: one warning
//!   light timer ----------> watched: how is it? ----> blocked, down, back, gone
//! ```
//!
//! A uevent is only a reason to look. So a lost one costs time and nothing else, and neither does
//! a host whose events cannot be heard (a container): there the timer is faster.
//!
//! | file | what |
//! |---|---|
//! | [`scan`] | which devices are paths of this LUN, and which are so no more |
//! | [`watched`] | the devices behind paths |
//! | this one | the thread, and when it looks |

pub mod scan;
pub mod watched;

use std::io;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use vmm_sys_util::eventfd::EventFd;

use self::scan::{Candidate, Rules, Scanner};
use self::watched::Watched;
use super::waiting::Waiting;
use crate::confine::{Class, Foreman};
use crate::engine::mailbox::{Mail, Post, mailbox};
use crate::limits::{
    RESCAN_AFTER_EVENT, RESCAN_INTERVAL, RESCAN_INTERVAL_DEAF, WATCH_INTERVAL, WATCH_INTERVAL_IDLE,
};
use crate::path::sg::host::uevent::{Attention, Listener, Next, Uevent};
use crate::path::sg::host::watch::Condition;
use crate::path::sg::host::{DeviceId, Roots};

/// To the thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToHost {
    /// This path leads over this node.
    Watch {
        /// The path's name.
        path: String,
        /// The node.
        node: PathBuf,
    },
    /// The path is gone.
    Forget(String),
    /// A path that was found could not be opened: it may be offered again, later.
    Declined(DeviceId),
    /// A guest's front end is attached, or not: without one there is less to miss.
    Connected(bool),
}

/// From the thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostNews {
    /// There is a device with the LUN's name, and no path over it.
    Found(Candidate),
    /// A device that was found is no more.
    Gone(DeviceId),
    /// The path's node leads to this device now.
    Leads(String, DeviceId),
    /// The path's device is doing otherwise than before.
    Condition(String, Condition),
    /// What the path's device said of itself may have changed.
    Attention(String, Attention),
}

/// The thread, from outside. It is started by the first path that needs it, or by discovery.
pub struct Host {
    roots: Roots,
    rules: Option<Rules>,
    news: Post<HostNews>,
    stop: EventFd,
    foreman: Foreman,
    thread: Option<Post<ToHost>>,
    connected: bool,
}

impl Host {
    /// What the thread will need; with `rules` it is started at once.
    pub fn new(
        roots: Roots,
        rules: Option<Rules>,
        news: Post<HostNews>,
        stop: EventFd,
        foreman: Foreman,
    ) -> io::Result<Self> {
        let mut host = Host { roots, rules, news, stop, foreman, thread: None, connected: false };
        if host.rules.is_some() {
            host.start()?;
        }
        Ok(host)
    }

    /// A path over a host device.
    pub fn watch(&mut self, path: String, node: PathBuf) {
        if self.thread.is_none()
            && let Err(error) = self.start()
        {
            log::error!(
                path = path.as_str();
                "path {path}: cannot watch {}: {error}", node.display()
            );
        }
        self.tell(ToHost::Watch { path, node });
    }

    /// Something else; nobody needs to hear it who is not there.
    pub fn tell(&mut self, message: ToHost) {
        if let ToHost::Connected(connected) = message {
            self.connected = connected;
        }
        if let Some(thread) = &self.thread {
            thread.send(message);
        }
    }

    fn start(&mut self) -> io::Result<()> {
        let (post, orders) = mailbox()?;
        let mut thread = Thread {
            scanner: Scanner::new(self.roots.clone(), self.rules.clone()),
            watched: Watched::new(self.roots.clone()),
            listener: None,
            orders,
            news: self.news.clone(),
            stop: self.stop.try_clone()?,
            connected: self.connected,
            plan: Plan::default(),
        };
        self.foreman.spawn(Class::Host, "host", move || {
            // Here, where sockets may be made.
            thread.listener = listener();
            thread.run();
        })?;
        self.thread = Some(post);
        Ok(())
    }
}

fn listener() -> Option<Listener> {
    Listener::open()
        .inspect_err(|error| {
            log::warn!(
                "the kernel's uevents cannot be heard: {error}; host devices are looked for every \
                 {} s instead",
                RESCAN_INTERVAL_DEAF.as_secs()
            );
        })
        .ok()
}

/// When the next scans are due.
#[derive(Debug, Default)]
struct Plan {
    /// The slow one.
    slow: Option<Instant>,
    /// After an event: at once, and when udev has had time for its links and permissions.
    after: [Option<Instant>; RESCAN_AFTER_EVENT.len()],
}

impl Plan {
    /// Something has happened. The first scan comes soon after the first of many events, the later
    /// ones after the last.
    fn event(&mut self, now: Instant) {
        for (at, (due, wait)) in self.after.iter_mut().zip(RESCAN_AFTER_EVENT).enumerate() {
            if at > 0 || due.is_none() {
                *due = Some(now + wait);
            }
        }
    }

    /// True when it is time.
    fn is_due(&mut self, now: Instant, slow: Duration) -> bool {
        let mut is_due = self.slow.is_none_or(|due| due <= now);
        for due in &mut self.after {
            if due.is_some_and(|due| due <= now) {
                *due = None;
                is_due = true;
            }
        }
        if is_due {
            self.slow = Some(now + slow);
        }
        is_due
    }

    fn next(&self) -> Option<Instant> {
        self.after.into_iter().chain([self.slow]).flatten().min()
    }
}

struct Thread {
    scanner: Scanner,
    watched: Watched,
    listener: Option<Listener>,
    orders: Mail<ToHost>,
    news: Post<HostNews>,
    stop: EventFd,
    connected: bool,
    plan: Plan,
}

impl Thread {
    fn run(mut self) {
        if let Err(error) = self.turns() {
            log::error!("host devices are not watched any more: {error}");
        }
    }

    fn turns(&mut self) -> io::Result<()> {
        let mut fds = vec![self.stop.as_raw_fd(), self.orders.as_raw_fd()];
        fds.extend(self.listener.as_ref().map(AsRawFd::as_raw_fd));
        let waiting = Waiting::new(&fds)?;
        let mut look_at = Instant::now();
        loop {
            let now = Instant::now();
            self.take_orders();
            self.listen(now)?;
            let slow = match self.listener {
                Some(_) => RESCAN_INTERVAL,
                None => RESCAN_INTERVAL_DEAF,
            };
            let scans = self.plan.is_due(now, slow);
            if scans {
                let leads = self.watched.resolve();
                let found = self.scanner.scan(&self.watched.devices());
                leads.into_iter().chain(found).for_each(|news| self.news.send(news));
                for (path, held) in self.watched.warnings() {
                    log::error!(
                        path = path.as_str();
                        "path {path} is in use by us and by others: {held}"
                    );
                }
            }
            if scans || look_at <= now {
                self.watched.look().into_iter().for_each(|news| self.news.send(news));
                let busy = if self.connected { WATCH_INTERVAL } else { WATCH_INTERVAL_IDLE };
                look_at = now + busy;
            }
            let look = (!self.watched.is_empty()).then_some(look_at);
            if waiting.wait(self.plan.next().into_iter().chain(look).min())? {
                return Ok(());
            }
        }
    }

    fn take_orders(&mut self) {
        while let Some(order) = self.orders.next() {
            match order {
                ToHost::Watch { path, node } => {
                    let news = self.watched.add(path, node);
                    news.into_iter().for_each(|news| self.news.send(news));
                }
                ToHost::Forget(path) => self.watched.remove(&path),
                ToHost::Declined(device) => self.scanner.declined(device),
                ToHost::Connected(connected) => self.connected = connected,
            }
        }
    }

    /// Takes what the kernel has told.
    fn listen(&mut self, now: Instant) -> io::Result<()> {
        let Some(listener) = &self.listener else { return Ok(()) };
        loop {
            match listener.next()? {
                Next::Event(Uevent::Devices) | Next::Lost => self.plan.event(now),
                Next::Event(Uevent::Attention(hctl, attention)) => {
                    for path in self.watched.at(hctl) {
                        self.news.send(HostNews::Attention(path, attention));
                    }
                }
                Next::Other => {}
                Next::Nothing => return Ok(()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plan_scans_soon_after_the_first_event_and_again_after_the_last() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let slow = Duration::from_secs(30);
        let mut plan = Plan::default();
        assert!(plan.is_due(start, slow), "at the start");
        assert_eq!(plan.next(), Some(start + slow));
        // One event each 10 ms, as when an adapter comes with all its disks.
        let scans: Vec<u64> = (0..2000)
            .filter(|ms| {
                if *ms < 500 && ms % 10 == 0 {
                    plan.event(at(*ms));
                }
                plan.is_due(at(*ms), slow)
            })
            .collect();
        let soon = RESCAN_AFTER_EVENT[0].as_millis() as u64;
        assert_eq!(scans[0], soon);
        assert!(scans.windows(2).all(|pair| pair[1] - pair[0] >= soon), "{scans:?}");
        assert_eq!(*scans.last().unwrap(), 490 + RESCAN_AFTER_EVENT[1].as_millis() as u64);
        assert_eq!(plan.next(), Some(at(490) + RESCAN_AFTER_EVENT[2]));
    }
}
