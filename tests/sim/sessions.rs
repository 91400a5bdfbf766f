//! Sessions, as iSCSI has them: all attempts of one end together, and the path logs in again. What
//! the login proves of the session before it is the target's affair.
//!
//! ```text
//!   recall, cut --> drop_session: Down, every attempt ends --> log_in: Up, session + 1
//!                                   |                            |
//!                      late writes of it are on their way        target ends them: Proven{session}
//!                                                                or lets them land: nothing is said
//! ```

use std::time::Duration;

use vhost_user_scsi_mpath::path::{Failure, Fate, Reach, TransportEvent};
use vhost_user_scsi_mpath::scsi::Asc;

use crate::array::Clear;
use crate::fabric::Step;
use crate::scene::Scene;

/// The session of one port.
#[derive(Clone, Copy, Debug)]
pub struct Session {
    /// Its number, from 1; while there is none, that of the last one.
    pub number: u32,
    /// The last session of which the host was told that none of its tasks is left; 0 for none.
    pub proven: u32,
    /// The target ends the tasks of the session before when it lets a new one in.
    pub ends_old_tasks: bool,
    /// The wire is cut: no login gets through.
    pub cut: bool,
    /// The host is about to log in.
    pub logging_in: bool,
}

impl Session {
    /// The first session with a target that does or does not end old tasks.
    pub fn new(ends_old_tasks: bool) -> Self {
        Session { number: 1, proven: 0, ends_old_tasks, cut: false, logging_in: false }
    }
}

/// A write that ended with its outcome unknown.
#[derive(Clone, Copy, Debug)]
pub struct Open {
    /// Over which port it went.
    pub port: usize,
    /// In which session, 0 without one.
    pub session: u32,
    /// It may land until then.
    pub until: Duration,
}

impl Scene {
    /// A new port's session, where its transport has some.
    pub fn begin_session(&mut self) -> Option<Session> {
        let (sessions, ends) = (self.options.sessions, self.options.ends_old_tasks);
        if !self.random.chance(sessions) {
            return None;
        }
        self.counts.sessions += 1;
        Some(Session::new(self.random.chance(ends)))
    }

    /// The session of `port` ends, and all its attempts with it.
    pub fn drop_session(&mut self, port: usize, why: &str) {
        let now = self.now;
        let at = &mut self.ports[port];
        at.link = false;
        at.news.push(TransportEvent::Down(why.to_owned()));
        at.changed(now);
        self.lose_attentions(port);
        for key in self.live_on(port) {
            let attempt = &self.attempts[&key];
            let failure = match attempt.recalled {
                true => Failure::Recalled,
                false => Failure::Disconnected,
            };
            let reach = if attempt.handed { Reach::Unknown } else { Reach::NotSent };
            self.end(key, Fate::Failed(failure, reach));
        }
        self.plan_login(port);
    }

    /// The host tries to log in after a while, if it does not try already.
    pub fn plan_login(&mut self, port: usize) {
        let at = &mut self.ports[port];
        let (there, leaving) = (at.link, at.leaving);
        let Some(session) = at.session.as_mut().filter(|session| !session.cut) else { return };
        if there || leaving || std::mem::replace(&mut session.logging_in, true) {
            return;
        }
        let longest = self.options.login_max;
        let after = Duration::from_micros(100) + self.random.time(Duration::ZERO..longest);
        self.plan(self.now + after, Step::Login(port));
    }

    /// The login arrives, or gets lost.
    pub fn log_in(&mut self, port: usize) {
        let (now, up) = (self.now, self.link_up());
        let at = &mut self.ports[port];
        let lost = at.hangs || at.deaf;
        let Some(session) = at.session.as_mut() else { return };
        session.logging_in = false;
        if session.cut || lost {
            return self.plan_login(port);
        }
        let (old, ends_old_tasks) = (session.number, session.ends_old_tasks);
        session.number += 1;
        if ends_old_tasks {
            self.end_tasks(port, old);
        }
        self.say(|| format!("port {port} logs in, old tasks are ended: {ends_old_tasks}"));
        let at = &mut self.ports[port];
        at.link = true;
        at.raise(Asc::POWER_ON_OR_RESET);
        at.clear = Some(Clear::begun(now));
        at.news.push(up);
        at.changed(now);
        self.counts.sessions += 1;
        self.counts.logins_again += 1;
    }

    /// The target ends what is left of `old` and of the sessions before it, and the host hears it.
    fn end_tasks(&mut self, port: usize, old: u32) {
        let lies = self.options.lies;
        if !lies.login_ends_nothing {
            let ended = |port_of: usize, session: u32| port_of == port && session <= old;
            self.attempts.retain(|_, at| at.live || !ended(at.port, at.session));
        }
        for serial in &self.outstanding {
            if let Some(command) = self.commands.get_mut(serial) {
                command.open.retain(|open| open.port != port || open.session > old);
            }
        }
        let told = if lies.proof_names_the_next { old + 1 } else { old };
        let at = &mut self.ports[port];
        if let Some(session) = &mut at.session {
            session.proven = old;
        }
        at.news.push(TransportEvent::Proven { session: told });
        self.counts.proofs += 1;
    }

    /// True when the host was told that nothing of `session` of `port` is left.
    pub fn is_proven(&self, port: usize, session: u32) -> bool {
        self.ports[port].session.is_some_and(|at| (1..=at.proven).contains(&session))
    }
}
