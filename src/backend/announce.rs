//! What a service manager is told: that we are ready, how the paths are, that we live.
//!
//! The signs of life come from the manager's own loop, so that a manager that hangs is noticed
//! even while commands that need no decision still go through.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::reports::lun_state;
use crate::engine::Manager;
use crate::limits::READY_PATIENCE;
use crate::logging::STATE;
use crate::multipath::path::Path;
use crate::multipath::words::paths_in_words;
use crate::path::any::AnyPath;
use crate::systemd::notify::Notifier;

/// What is told, and when.
#[derive(Debug)]
pub struct Announcer {
    /// `None` without a service manager.
    notifier: Option<Arc<Notifier>>,
    started: Instant,
    ready: bool,
    reloading: bool,
    /// Something may have changed since the last status.
    changed: bool,
    status: String,
    /// When the next sign of life is due, and how long until the one after it.
    life: Option<(Instant, Duration)>,
}

impl Announcer {
    /// Nothing has been told yet.
    pub fn new(notifier: Option<Arc<Notifier>>, now: Instant) -> Self {
        // Twice as often as it is waited for, as sd_watchdog_enabled(3) advises.
        let life = notifier.as_ref().and_then(|notifier| notifier.watchdog);
        let life = life.map(|patience| (now, patience / 2));
        Announcer {
            notifier,
            started: now,
            ready: false,
            reloading: false,
            changed: true,
            status: String::new(),
            life,
        }
    }

    /// Something that the status line tells may have changed.
    pub fn changed(&mut self) {
        self.changed = true;
    }

    /// A reload has begun, or all that were asked for are done.
    pub fn reloading(&mut self, reloading: bool) {
        if let (true, Some(notifier)) = (self.ready && reloading != self.reloading, &self.notifier)
        {
            if reloading { notifier.reloading() } else { notifier.ready() }
        }
        self.reloading = reloading;
    }

    /// Tells what is to be told. `agreed`: the paths are known to lead to one logical unit, or
    /// nobody waits for that any more.
    pub fn turn(&mut self, manager: &Manager<AnyPath>, agreed: bool, now: Instant) {
        let Some(notifier) = &self.notifier else { return };
        if std::mem::take(&mut self.changed) {
            let status = status(manager);
            if status != self.status {
                notifier.status(&status);
                self.status = status;
            }
        }
        if !self.ready {
            let up = manager.core().paths().any(Path::is_usable);
            let late = now >= self.started + READY_PATIENCE;
            if late && !up {
                log::warn!(target: STATE, "no path is up yet; front ends can connect and wait");
            }
            self.ready = late || (up && agreed);
            if self.ready {
                notifier.ready();
            }
        }
        if let Some((due, pause)) = &mut self.life
            && *due <= now
        {
            notifier.alive();
            *due = now + *pause;
        }
    }

    /// When [`Announcer::turn`] has something to do even if nothing happens.
    pub fn next_timer(&self) -> Option<Instant> {
        self.notifier.as_ref()?;
        let ready = (!self.ready).then(|| self.started + READY_PATIENCE);
        ready.into_iter().chain(self.life.map(|(due, _)| due)).min()
    }
}

/// LUN and paths in one line.
fn status(manager: &Manager<AnyPath>) -> String {
    let guest = if manager.is_connected() { "guest connected" } else { "no guest" };
    let core = manager.core();
    let paths: Vec<&Path> = core.paths().collect();
    format!("{}, {guest}: {}", lun_state(core.lun_state()), paths_in_words(&paths))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::run;
    use crate::config::Config;

    #[test]
    fn backend_without_a_path_is_ready_after_a_while_and_gives_signs_of_life() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("notify");
        let service_manager = std::os::unix::net::UnixDatagram::bind(&socket).unwrap();
        service_manager.set_nonblocking(true).unwrap();
        let variable = |name: &str| match name {
            "NOTIFY_SOCKET" => Some(socket.clone().into_os_string()),
            "WATCHDOG_USEC" => Some("20000000".into()),
            _ => None,
        };
        let told = || {
            let mut bytes = [0; 256];
            let one = std::iter::from_fn(|| {
                service_manager.recv(&mut bytes).ok().map(|size| bytes[..size].to_vec())
            });
            one.map(|one| String::from_utf8(one).unwrap()).collect::<Vec<_>>()
        };
        let notifier = Notifier::from_environment(&variable, 7).unwrap().map(Arc::new);
        let (config, start) = (Config::default(), Instant::now());
        let manager = Manager::new(run::settings(&config), run::deadlines(&config), start).unwrap();
        let mut announcer = Announcer::new(notifier, start);
        announcer.turn(&manager, true, start);
        assert_eq!(told(), ["STATUS=no-path, no guest: no paths", "WATCHDOG=1"]);
        assert_eq!(announcer.next_timer(), Some(start + READY_PATIENCE));
        // A reload before the backend is ready must not make it so.
        announcer.reloading(true);
        announcer.reloading(false);
        announcer.changed();
        announcer.turn(&manager, true, start + READY_PATIENCE / 2);
        assert_eq!(told(), [] as [&str; 0]);
        announcer.turn(&manager, true, start + READY_PATIENCE);
        assert_eq!(told(), ["READY=1", "WATCHDOG=1"]);
        announcer.turn(&manager, true, start + READY_PATIENCE + Duration::from_secs(1));
        assert_eq!(told(), [] as [&str; 0]);
        assert_eq!(announcer.next_timer(), Some(start + 2 * READY_PATIENCE));
    }
}
