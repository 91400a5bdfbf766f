//! Host devices whose commands the kernel keeps back: what is sent waits there and goes out when
//! the device returns. Somebody looks now and then, and tells the engine what he saw.

use std::time::Duration;

use vhost_user_scsi_mpath::ids::LaneId;
use vhost_user_scsi_mpath::multipath::Event;

use crate::faults::Restore;
use crate::plans::Plan;
use crate::scene::{Rule, Scene};
use crate::world::World;

/// How long a change stays unseen at most.
const UNSEEN: Duration = Duration::from_millis(250);

impl World {
    /// The kernel keeps back what is sent over `port`, for so long.
    pub fn block(&mut self, port: usize, length: Duration) {
        {
            let mut scene = self.scene();
            let now = scene.now;
            let at = &mut scene.ports[port];
            // A session of our own has no kernel in between.
            if at.session.is_some() || at.removed || at.kept_back {
                return;
            }
            at.kept_back = true;
            at.changed(now);
        }
        self.plan_look(port);
        self.plan(length, Plan::Restore(Restore::Host(port)));
    }

    /// Somebody looks at `port` soon.
    pub fn plan_look(&mut self, port: usize) {
        let after = self.scene().random.time(Duration::ZERO..UNSEEN);
        self.plan(after, Plan::Look(port));
    }

    /// Somebody looks at `port`, and tells what is new.
    pub fn look(&mut self, port: usize) {
        let now = self.now();
        if !self.scene().ports[port].news.is_empty() {
            // What the transport has to tell is older than what is seen now.
            return self.plan_look(port);
        }
        let (path, kept_back, told, gone) = {
            let at = &self.scene().ports[port];
            // A host that has lost the device has nothing to look at.
            (at.path, at.kept_back, at.blocked_told.is_some(), at.leaving || at.tells && !at.link)
        };
        let Some(path) = path.filter(|_| kept_back != told && !gone) else { return };
        self.scene().ports[port].blocked_told = None;
        let event = match kept_back {
            true => Event::Blocked(path, "the kernel keeps its commands back".into()),
            false => Event::Unblocked(path),
        };
        self.tell_manager(event, now);
        let version = self.manager.hub().snapshot().table.version;
        let mut scene = self.scene();
        scene.ports[port].blocked_told = kept_back.then_some(version);
        let now = scene.now;
        scene.ports[port].changed(now);
    }
}

impl Scene {
    /// The kernel sends what it kept back.
    pub fn unblock(&mut self, port: usize) {
        self.ports[port].kept_back = false;
        for key in self.live_on(port) {
            if self.attempts.get(&key).is_some_and(|attempt| !attempt.handed) {
                self.hand_over(key);
            }
        }
    }

    /// Nobody who has been told sends over a blocked path, not even a question.
    pub fn judge_blocked(&mut self, port: usize, client: LaneId) {
        let Some(told) = self.ports[port].blocked_told else { return };
        let seen = self.view.as_ref().is_none_or(|view| view.table.version >= told);
        if seen {
            let text = format!("{client} sends over port {port}, which it was told is blocked");
            self.broken(Rule::PathIsUsable, text);
        }
    }
}
