//! Colours: only where a person looks.

use vhost_user_scsi_mpath::control::{LunState, PathState};

/// Whether there are colours.
#[derive(Clone, Copy, Debug)]
pub struct Paint {
    /// There are.
    pub on: bool,
}

/// How good something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shade {
    /// As it should be.
    Good,
    /// Worth a look.
    Doubtful,
    /// Broken.
    Bad,
}

impl Paint {
    /// The text in its colour. Padding goes into the text beforehand: colours have no width.
    pub fn shade(self, shade: Shade, text: &str) -> String {
        let code = match shade {
            Shade::Good => 32,
            Shade::Doubtful => 33,
            Shade::Bad => 31,
        };
        if self.on { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// The text in bold.
    pub fn bold(self, text: &str) -> String {
        if self.on { format!("\x1b[1m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// How good a path's state is.
pub fn path(state: PathState) -> Shade {
    match state {
        PathState::Up => Shade::Good,
        PathState::Failed | PathState::WrongLun => Shade::Bad,
        PathState::Checking
        | PathState::Registering
        | PathState::Shaky
        | PathState::Blocked
        | PathState::Draining
        | PathState::Disabled => Shade::Doubtful,
    }
}

/// How good the LUN's state is.
pub fn lun(state: LunState) -> Shade {
    match state {
        LunState::Healthy => Shade::Good,
        LunState::Degraded => Shade::Doubtful,
        LunState::NoPath | LunState::Lost => Shade::Bad,
    }
}
