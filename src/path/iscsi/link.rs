//! The link's states: from a name to a session, and back.
//!
//! ```text
//!   resting --time--> resolving --addresses--> greeting --logged in--> up
//!      ^                  |                     |    ^                 |  \
//!      |                  |                     |    '-- redirected,   |   '--path closed--> leaving
//!      |                  |                     |        next portal   |                        |
//!      '------------------+---------------------+------ lost ----------'                        v
//!                                                                                             over
//! ```

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::driver::Driver;
use super::helm::{is_ending, keeps_too_much};
use super::pulse::{Beat, Pulse};
use super::shim_sys::{Login, Wire};
use crate::limits::{ISCSI_LOGIN_TIMEOUT, ISCSI_LOGOUT_GRACE, ISCSI_REDIRECTS_MAX};
use crate::path::TransportEvent;
use crate::path::address::Secret;

/// How long the thread sleeps where nothing is due.
const NOTHING_DUE: Duration = Duration::from_secs(3600);

/// Sessions are numbered over all paths of the process, from 1: two paths never mean the same one.
static SESSIONS: AtomicU32 = AtomicU32::new(1);

/// Where the link is.
pub(super) enum Link {
    /// Not connected; the next try comes then.
    Resting { until: Instant },
    /// The name is being looked up.
    Resolving { deadline: Instant },
    /// Connecting, then logging in.
    Greeting(Greeting),
    /// Logged in.
    Up(Up),
    /// Logging out.
    Leaving { wire: Wire, until: Instant },
    /// The path is closed.
    Over,
}

/// A login that has begun.
pub(super) struct Greeting {
    wire: Wire,
    portal: SocketAddr,
    /// When it began to connect: the target has nothing of an earlier time for the session to come.
    since: Instant,
    asked_in: bool,
    deadline: Instant,
    redirects: u8,
}

/// A session.
pub(super) struct Up {
    pub(super) wire: Wire,
    pub(super) session: u32,
    pub(super) since: Instant,
    pub(super) pulse: Pulse,
}

impl Link {
    /// The connection, if there is one.
    pub(super) fn wire(&mut self) -> Option<&mut Wire> {
        match self {
            Link::Greeting(Greeting { wire, .. })
            | Link::Up(Up { wire, .. })
            | Link::Leaving { wire, .. } => Some(wire),
            Link::Resting { .. } | Link::Resolving { .. } | Link::Over => None,
        }
    }
}

impl Driver {
    /// Does what is due.
    pub(super) fn step(&mut self, now: Instant) {
        match &mut self.link {
            Link::Resting { until } if *until <= now => self.begin(now),
            Link::Resolving { deadline } if *deadline <= now => {
                let host = self.plan.address.host.clone();
                self.not_logged_in(&format!("{host}: its address is not found in time"), now);
            }
            Link::Greeting(_) => self.greet(now),
            Link::Up(_) => self.keep_up(now),
            Link::Leaving { wire, until } => {
                if *until <= now || wire.flags().logged_out() || wire.flags().dropped() {
                    self.link = Link::Over;
                }
            }
            Link::Resting { .. } | Link::Resolving { .. } | Link::Over => {}
        }
    }

    /// When [`Driver::step`] has something to do by time alone.
    pub(super) fn next_timer(&self, now: Instant) -> Instant {
        match &self.link {
            Link::Resting { until } | Link::Leaving { until, .. } => *until,
            Link::Resolving { deadline } => *deadline,
            Link::Greeting(greeting) => greeting.deadline,
            // What broke under the thread's own hands has to be seen in the next turn.
            Link::Up(up) if is_ending(up, &self.flights) => now,
            Link::Up(up) => match up.pulse.beat(now) {
                Beat::Wait(until) => until,
                Beat::Ask | Beat::Dead => now,
            },
            Link::Over => now + NOTHING_DUE,
        }
    }

    /// A new round: from the name to the addresses.
    fn begin(&mut self, now: Instant) {
        self.rounds += 1;
        let (host, port) = (self.plan.address.host.clone(), self.plan.address.port);
        self.look_up(host, port, now);
    }

    /// Looks `host` up: at once where it is a number, else in the thread for that, since the
    /// system's look-up blocks.
    fn look_up(&mut self, host: String, port: u16, now: Instant) {
        self.link = Link::Resolving { deadline: now + ISCSI_LOGIN_TIMEOUT };
        let round = self.rounds;
        if let Ok(address) = host.parse::<IpAddr>() {
            return self.resolved(round, Ok(vec![SocketAddr::new(address, port)]), now);
        }
        self.look_up.address_of(round, host, port);
    }

    /// The look-up has ended.
    pub(super) fn resolved(
        &mut self,
        round: u64,
        portals: io::Result<Vec<SocketAddr>>,
        now: Instant,
    ) {
        if round != self.rounds || !matches!(self.link, Link::Resolving { .. }) {
            return;
        }
        let host = &self.plan.address.host;
        match portals {
            Err(error) => self.not_logged_in(&format!("{host}: {error}"), now),
            // A link-local address with its interface: libiscsi cannot be told of one.
            Ok(portals) if !portals.is_empty() && portals.iter().all(is_scoped) => {
                self.not_logged_in(&format!("{host}: it has a link-local address only"), now);
            }
            Ok(mut portals) => {
                portals.retain(|portal| !is_scoped(portal));
                self.portals = portals.into();
                // Where the last session was first: that is where it can be taken over.
                let last = self.last_portal;
                self.portals.make_contiguous().sort_by_key(|portal| Some(*portal) != last);
                self.try_next(format!("{host}: it has no address"), 0, now);
            }
        }
    }

    /// Goes to the next portal of this round, or gives the round up because of `why`.
    fn try_next(&mut self, why: String, redirects: u8, now: Instant) {
        let Some(portal) = self.portals.pop_front() else { return self.not_logged_in(&why, now) };
        let plan = &self.plan;
        fn pair(pair: &Option<(String, Secret)>) -> Option<(&str, &str)> {
            pair.as_ref().map(|(user, secret)| (user.as_str(), secret.reveal()))
        }
        let login = Login {
            initiator: &plan.initiator,
            target: &plan.address.target,
            chap: pair(&plan.credentials.chap),
            mutual: pair(&plan.credentials.mutual),
            isid: plan.isid,
            header_digest: plan.address.header_digest,
        };
        let mut wire = match Wire::open(&login) {
            Ok(wire) => wire,
            Err(error) => {
                return self.not_logged_in(&format!("no session could be made: {error}"), now);
            }
        };
        if !wire.connect(portal) {
            let why = format!("{portal}: {}", plain(&wire.note()));
            return self.try_next(why, redirects, now);
        }
        self.link = Link::Greeting(Greeting {
            wire,
            portal,
            since: now,
            asked_in: false,
            deadline: now + ISCSI_LOGIN_TIMEOUT,
            redirects,
        });
    }

    fn greet(&mut self, now: Instant) {
        let Link::Greeting(greeting) = &mut self.link else { return };
        let (portal, redirects) = (greeting.portal, greeting.redirects);
        let wire = &mut greeting.wire;
        let flags = wire.flags();
        if flags.logged_in() {
            return self.logged_in(now);
        }
        if flags.redirected() {
            let place = wire.redirect();
            return self.redirected(&place, redirects, now);
        }
        let refused = flags.refused() || flags.dropped();
        if !refused && flags.connected() && !greeting.asked_in {
            greeting.asked_in = true;
            if wire.login() {
                return;
            }
        } else if !refused && now < greeting.deadline {
            return;
        }
        let why = match wire.note() {
            _ if !refused && now >= greeting.deadline => match greeting.asked_in {
                true => "no answer to the login".to_owned(),
                false => "no connection in time".to_owned(),
            },
            note => plain(&note),
        };
        self.try_next(format!("{portal}: {why}"), redirects, now);
    }

    /// The target is elsewhere for now. The next round begins at the configured portal again.
    fn redirected(&mut self, place: &str, redirects: u8, now: Instant) {
        let wrong = format!("redirected to {place:?}");
        // The portal group tag behind the comma says nothing to us.
        let place = place.split(',').next().unwrap_or("");
        let (host, port) = match place.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, port.parse().ok()),
            _ => (place, Some(3260)),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let address = host.parse::<IpAddr>().ok().zip(port.filter(|port| *port > 0));
        match address {
            _ if redirects >= ISCSI_REDIRECTS_MAX => {
                self.not_logged_in(&format!("{wrong}, after too many others"), now);
            }
            Some((address, port)) => {
                self.portals.push_front(SocketAddr::new(address, port));
                self.try_next(wrong, redirects + 1, now);
            }
            None => self.not_logged_in(&format!("{wrong}, which is no address"), now),
        }
    }

    fn logged_in(&mut self, now: Instant) {
        let link = std::mem::replace(&mut self.link, Link::Over);
        let Link::Greeting(Greeting { wire, portal, since, .. }) = link else { return };
        let session = SESSIONS.fetch_add(1, Ordering::Relaxed);
        self.link = Link::Up(Up { wire, session, since: now, pulse: Pulse::new(now) });
        self.portals.clear();
        self.last_portal = Some(portal);
        self.hopeful = false;
        if let Some(session) = self.proofs.logged_in(session, portal) {
            self.tell(TransportEvent::Proven { session });
        }
        self.look_up.card_towards(portal.ip());
        self.tell_up(since);
    }

    /// This round is over without a session.
    fn not_logged_in(&mut self, why: &str, now: Instant) {
        self.link = Link::Resting { until: now + self.backoff.next(None) };
        self.portals.clear();
        self.hopeful = false;
        self.tell_down(why);
        self.fail_waiting();
    }

    fn keep_up(&mut self, now: Instant) {
        self.take_ends();
        let Link::Up(up) = &mut self.link else { return };
        let flags = up.wire.flags();
        if flags.dropped() || flags.logged_out() {
            let why = match up.wire.note() {
                note if flags.logged_out() && note.is_empty() => "logged out".to_owned(),
                note => plain(&note),
            };
            return self.lose(&why, None, now);
        }
        if keeps_too_much(up, &self.flights) {
            return self.lose("libiscsi never ceases to keep commands that have ended", None, now);
        }
        match up.pulse.beat(now) {
            Beat::Wait(_) => {}
            Beat::Ask => {
                self.take_reading_back();
                let Link::Up(up) = &mut self.link else { return };
                if up.wire.unsent() == 0 {
                    up.wire.nop();
                    up.wire.service(libc::POLLOUT);
                }
                // Only what has been asked can be answered. libiscsi's NOP-Outs are not for
                // immediate delivery: none gets through while the target owes answers for all the
                // commands that it takes at once, and how long those may take is for the lanes to
                // judge. When its host is gone, or reads no more, TCP itself tells.
                match up.wire.unsent() {
                    0 => up.pulse.asked(now),
                    _ => up.pulse.put_off(now),
                }
            }
            Beat::Dead => self.lose("the target does not answer a NOP-Out", None, now),
        }
    }

    /// The path is closed: in good order where nothing is under way.
    pub(super) fn leave(&mut self, now: Instant) {
        self.take_reading_back();
        self.fail_waiting();
        if !matches!(self.link, Link::Up(_)) {
            self.link = Link::Over;
            return;
        }
        if self.flights.len() > 0 {
            return self.lose("the path is closed", None, now);
        }
        let link = std::mem::replace(&mut self.link, Link::Over);
        if let Link::Up(Up { mut wire, .. }) = link
            && wire.logout()
        {
            wire.service(libc::POLLOUT);
            self.link = Link::Leaving { wire, until: now + ISCSI_LOGOUT_GRACE };
        }
    }
}

/// libiscsi's words without its own names. It says nothing when the other side has hung up.
fn plain(note: &str) -> String {
    let note = note.strip_prefix("iscsi_service: ").unwrap_or(note);
    // Log messages have the target's name behind them.
    let note = note.split_once(" [").map_or(note, |(note, _)| note).trim_end_matches('.');
    match note {
        "" => "the target closed the connection".to_owned(),
        // As a rule it has been redirected: the port of the address is allowed.
        note if note.contains("Permission denied") => {
            format!("{note}; is the port in confinement.allow_ports?")
        }
        // Its reply gets the number of a command whose data waits to be sent, which is an old one.
        note if note.contains("cmdsn < expcmdsn") => {
            "libiscsi before 1.20 cannot answer the target's NOP-In while a write's data waits to be sent"
                .to_owned()
        }
        note => note.to_owned(),
    }
}

fn is_scoped(portal: &SocketAddr) -> bool {
    matches!(portal, SocketAddr::V6(portal) if portal.scope_id() != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_keeps_what_people_want_to_read() {
        let note = "iscsi_service: socket error Connection refused(111). [iqn.x:y]";
        assert_eq!(plain(note), "socket error Connection refused(111)");
        assert_eq!(plain(""), "the target closed the connection");
        let number = "iscsi_write_to_socket: outqueue[0]->cmdsn < expcmdsn (0000000a < 0000000c)";
        assert!(
            plain(number).starts_with("libiscsi before 1.20 cannot answer the target's NOP-In")
        );
        let refused = plain("Failed to connect to 192.0.2.1: Permission denied(13)");
        assert!(
            refused.ends_with("Permission denied(13); is the port in confinement.allow_ports?")
        );
    }
}
