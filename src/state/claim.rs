//! One backend of a host makes reservations on a logical unit's host devices, and no second one.
//!
//! Over the host's own devices two backends are one initiator: they share the I_T nexus. The array
//! would take the second one's registration for a change of the first one's, and neither guest
//! could fence the other. With iSCSI sessions of their own (each backend has its own ISID) they are
//! two, and nothing is claimed.
//!
//! The claim is a socket in the abstract name space (unix(7)), named after the logical
//! unit. It is there as long as its process, needs no file that is left by a crash and no directory
//! that two services could both write to: `state_dir` and the directory in /run are each service's
//! own, and /run/lock is not everybody's on every system. A lock on the device node was tried in
//! thought: sg, bsg and sd nodes of one device are three files, and `flock` on the disk itself is
//! udev's, which then leaves the disk alone. What it costs: any process of the host can take the
//! name first, and then reservations are refused; and two network name spaces do not see each
//! other. It is a datagram socket, since to a stream socket somebody could connect.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Before the logical unit's name.
const PREFIX: &str = "vhost-user-scsi-mpath/reservations/";
/// Bytes of a name in the abstract name space at most: `sun_path` less the leading zero.
const NAME_MAX: usize = 107;

/// The claim. Dropped, another backend can have it.
#[derive(Debug)]
pub struct Claim {
    /// Nobody ever reads from it: that it has its name says all.
    _socket: UnixDatagram,
}

/// Why there is no claim.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// Somebody has it.
    #[error(
        "another backend makes reservations on this logical unit over this host's devices, and the \
         array cannot tell the two apart: give each guest iscsi:// paths, or another host \
         (ss -xap src @{0} tells which process it is)"
    )]
    Held(String),
    /// The host has none to give.
    #[error("no socket to claim this logical unit with: {0}")]
    Host(#[from] io::Error),
}

impl Claim {
    /// Claims the logical unit called `wwid`.
    pub fn take(wwid: &str) -> Result<Claim, ClaimError> {
        let name = name(wwid);
        let address = SocketAddr::from_abstract_name(&name)?;
        match UnixDatagram::bind_addr(&address) {
            Ok(socket) => Ok(Claim { _socket: socket }),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(ClaimError::Held(name)),
            Err(error) => Err(ClaimError::Host(error)),
        }
    }
}

/// The socket's name. A long one is cut, and its end is told by a hash, so that it stays one.
fn name(wwid: &str) -> String {
    let name = format!("{PREFIX}{wwid}");
    if name.len() <= NAME_MAX {
        return name;
    }
    let hash = format!("#{:016x}", super::hash(&[wwid]));
    let mut end = NAME_MAX - hash.len();
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{hash}", &name[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A name that no other run of the tests uses.
    fn wwid(end: &str) -> String {
        format!("test.{}.{end}", std::process::id())
    }

    #[test]
    fn claim_is_refused_to_a_second_one_while_the_first_is_there() {
        let first = Claim::take(&wwid("a")).unwrap();
        let refused = Claim::take(&wwid("a")).unwrap_err().to_string();
        assert!(refused.contains(&format!("src @{PREFIX}{}", wwid("a"))), "{refused}");
        // Another logical unit is another matter.
        Claim::take(&wwid("b")).unwrap();
        drop(first);
        Claim::take(&wwid("a")).unwrap();
    }

    #[test]
    fn names_that_are_too_long_differ_still() {
        let (a, b) = (wwid(&"ö".repeat(200)), wwid(&format!("{}x", "ö".repeat(200))));
        assert!(name(&a).len() <= NAME_MAX && name(&a) != name(&b));
        let _first = Claim::take(&a).unwrap();
        Claim::take(&b).unwrap();
        assert!(matches!(Claim::take(&a), Err(ClaimError::Held(_))));
    }
}
