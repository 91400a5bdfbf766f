//! The socket that a service manager made and passed, beside the one that is named.

use super::{ConfigError, Listen, Place};
use crate::systemd::listen::Activated;

/// Where to listen, where `activated` was passed. Nothing need name it; what does must name this
/// one, or front ends would wait at the other.
pub(super) fn listen(
    activated: Activated,
    named: Option<Listen>,
    place: Place,
) -> Result<Listen, ConfigError> {
    let Activated { fd, path: Some(path) } = activated else { return Ok(Listen::Fd(activated.fd)) };
    match named {
        Some(Listen::Path(named)) if named != path => Err(ConfigError::Senseless {
            place,
            setting: "backend.socket",
            reason: format!(
                "{} is named, and the service manager listens on {}: leave the setting out, or \
                 give the socket unit that ListenStream=",
                named.display(),
                path.display()
            ),
        }),
        _ => Ok(Listen::Activated { fd, path }),
    }
}
