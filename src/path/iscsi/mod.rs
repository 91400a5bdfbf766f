//! `iscsi://`: one session in user space, through the system's libiscsi.
//!
//! ```text
//!   lane 0        lane 1       manager     a Channel each (channel.rs)
//!     | at the      | jobs       |         one lock and one wake-up per batch (mailbox.rs)
//!     | helm        +------+-----+
//!     |                    v
//!     |            the path's thread       poll: the mailbox's descriptor, the connection, timers
//!     '--------+-----------'               one at a time, and a lane never waits (helm.rs)
//!              v
//!     the driver (driver.rs)
//!       waiting --> flights (flights.rs)   handed to libiscsi, or certainly not sent
//!       link: resting -> resolving -> greeting -> up -> (resting | leaving)      (link.rs)
//!            |                                    '-- pulse.rs: NOP-Outs
//!            v
//!     Wire (shim_sys.rs, shim.c)           one libiscsi context: one connection, one login
//! ```
//!
//! **One session, one thread, and who serves the connection.** A session per lane would multiply
//! registrations and logins at the array, so a path has one, and a thread that takes it up and down.
//! The thread never blocks but in poll; what it asks of the host, a helper thread answers. At first
//! it alone spoke with the target, and lanes handed over to it: a command cost two wake-ups of a
//! thread more than it has to, 1.6 times what `iscsi-perf` costs. So a lane sends by itself, and one
//! that has the session for itself reads by itself too: `helm.rs` has the rules.
//!
//! **The only way to take a command back is to end the session.** What is queued of a cancelled
//! command goes on pointing at its memory inside libiscsi, and an ABORT TASK says nothing about
//! data on the way. So a recall, like a silent target, resets the connection (`SO_LINGER` with 0:
//! the kernel forgets unsent writes too) and frees the context; from then on nothing touches lent
//! memory. Everything on it ends at once, what had not been handed to libiscsi as
//! [`Reach::NotSent`](crate::path::Reach), the rest as unknown, and the next login follows at once,
//! with the same ISID: the target ends what is left of the old session (RFC 7143 6.3.5). Where it
//! is known to do so before it answers the login (`proof.rs`), that is proof.
//!
//! **Asynchronous messages** are libiscsi's: it answers a request to log out by logging out, and
//! with its reconnect off the session then ends as any other does, and is followed by a new login.
//! An asynchronous SCSI event is ignored; the unit attention behind it comes with the next command.
//!
//! What libiscsi 1.19 hides, and nothing here can change: a SCSI Response with the response code
//! "target failure" and status 0 looks like GOOD, CONDITION MET looks like GOOD, and there are no
//! data digests. It also gives a connection up where the target asks whether it is alive (as LIO does
//! every 15 s) while data of a write waits to be sent; 1.20 does not.
//!
//! | file | what |
//! |---|---|
//! | `identity.rs` | initiator name, ISID, secrets |
//! | `channel.rs` | a lane's end |
//! | `mailbox.rs` | between channels and thread |
//! | `driver.rs` | the thread, and what it shares with lanes |
//! | `helm.rs` | who serves the connection |
//! | `ready.rs` | what a lane waits on |
//! | `link.rs` | resolve, connect, log in, log out |
//! | `look_up.rs` | the helper thread: names, network cards |
//! | `flights.rs` | commands inside libiscsi |
//! | `pulse.rs` | is the target alive; when to log in again |
//! | `proof.rs` | which sessions are proven dead |
//! | `shim_sys.rs`, `shim.c` | libiscsi |

mod channel;
mod driver;
mod flights;
mod helm;
mod identity;
mod link;
mod look_up;
mod mailbox;
mod proof;
mod pulse;
mod ready;
mod shim_sys;

use std::borrow::Cow;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use thiserror::Error;

pub use self::channel::IscsiChannel;
use self::driver::Driver;
use self::helm::Helm;
use self::identity::Credentials;
use self::look_up::LookUp;
use self::mailbox::{Mailbox, Message};
use super::address::IscsiAddress;
use super::any::{IscsiSettings, OpenMode, ReloginIsProof};
use super::{TransferLimits, Transport, TransportEvent};
use crate::confine::{self, Class};
use crate::limits::ISCSI_TRANSFER_MAX;
use crate::scsi::reservation::TransportId;

/// Why a path cannot be opened. What the target says comes later, as the path's state.
#[derive(Debug, Error)]
pub enum IscsiError {
    /// No name to log in with.
    #[error("no initiator name: {0}; set iscsi.initiator_name")]
    NoName(String),
    /// That is none.
    #[error("iscsi.initiator_name {0}: not an iSCSI name, beginning with iqn., eui. or naa.")]
    BadName(String),
    /// The secret cannot be read.
    #[error("iscsi.secret_file {file}: {reason}")]
    SecretFile {
        /// The file.
        file: String,
        /// Why not.
        reason: String,
    },
    /// A user without a secret.
    #[error("{0} has no secret: write user%secret@ in the address, or set iscsi.secret_file")]
    NoSecret(String),
    /// The host lacks something.
    #[error("cannot start its thread: {0}")]
    System(#[from] io::Error),
}

/// What a session logs in with.
#[derive(Debug)]
struct Plan {
    address: IscsiAddress,
    initiator: String,
    isid: (u32, u16),
    credentials: Credentials,
    relogin_is_proof: ReloginIsProof,
}

/// A path over iSCSI. Its thread logs in at once, and out when the path is dropped.
#[derive(Debug)]
pub struct IscsiPath {
    initiator_port: TransportId,
    mailbox: Arc<Mailbox>,
    helm: Arc<Helm>,
    thread: Option<JoinHandle<()>>,
}

impl IscsiPath {
    /// Starts to log in at `address`.
    pub fn open(
        address: &IscsiAddress,
        settings: &IscsiSettings,
        mode: OpenMode,
    ) -> Result<Self, IscsiError> {
        let initiator = identity::initiator_name(&settings.initiator_name)?;
        let plan = Plan {
            isid: identity::isid(&initiator, &settings.identity, &address.place(), mode),
            credentials: Credentials::read(address, settings.secret_file.as_deref())?,
            address: address.clone(),
            initiator,
            relogin_is_proof: settings.relogin_is_proof,
        };
        let isid = Some(identity::isid_bytes(plan.isid));
        let initiator_port = TransportId::Iscsi { name: plan.initiator.clone(), isid };
        let mailbox = Arc::new(Mailbox::new()?);
        let look_up = LookUp::start(&mailbox)?;
        let helm = Arc::new(Helm::new(Driver::new(plan, Arc::clone(&mailbox), look_up)));
        let inside = Arc::clone(&helm);
        let life = move || {
            confine::enter(Class::Iscsi);
            driver::run(&inside);
        };
        let name = format!("iscsi {}", address.short_name());
        // The kernel keeps fifteen bytes of a thread's name.
        let name = name.chars().take(15).collect();
        let thread = std::thread::Builder::new().name(name).spawn(life)?;
        Ok(IscsiPath { initiator_port, mailbox, helm, thread: Some(thread) })
    }
}

impl Transport for IscsiPath {
    type Channel = IscsiChannel;

    fn channel(&self) -> io::Result<IscsiChannel> {
        IscsiChannel::for_lane(&self.mailbox, &self.helm)
    }

    fn probe_channel(&self) -> io::Result<IscsiChannel> {
        IscsiChannel::open(&self.mailbox, None)
    }

    fn events(&self) -> Vec<TransportEvent> {
        self.mailbox.take_events()
    }

    fn limits(&self) -> TransferLimits {
        TransferLimits { bytes_max: Some(ISCSI_TRANSFER_MAX) }
    }

    fn engine(&self) -> Cow<'static, str> {
        "libiscsi".into()
    }

    fn initiator_port(&self) -> Option<TransportId> {
        Some(self.initiator_port.clone())
    }

    fn numa_node(&self) -> Option<u16> {
        self.mailbox.numa_node()
    }
}

/// Logs out and waits for that, for a bounded time: a check leaves no session behind.
impl Drop for IscsiPath {
    fn drop(&mut self) {
        self.mailbox.post(Message::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
