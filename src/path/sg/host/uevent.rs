//! What the kernel tells of devices that come, go and change: uevents, as they come from netlink.
//! They are hints. What they mean is read from sysfs afterwards, and a lost one costs nothing but
//! time.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use super::uevent_sys::{self, Received};
use super::{Hctl, files};

/// What one message tells, as far as it concerns paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Uevent {
    /// SCSI devices, or nodes of them, have come or gone.
    Devices,
    /// The kernel has seen a unit attention and tells its name: whoever asked the device, it was
    /// not the guest.
    Attention(Hctl, Attention),
}

/// Unit attentions that the kernel reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attention {
    /// Asymmetric access states have changed.
    Access,
    /// The size has changed.
    Capacity,
    /// Another logical unit may be behind the port.
    Identity,
}

/// The socket.
#[derive(Debug)]
pub struct Listener(OwnedFd);

/// What [`Listener::next`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// A message that concerns paths.
    Event(Uevent),
    /// A message that does not.
    Other,
    /// Messages were lost: only looking tells what has changed.
    Lost,
    /// Nothing more for now.
    Nothing,
}

impl Listener {
    /// Listens from now on.
    pub fn open() -> io::Result<Listener> {
        uevent_sys::open().map(Listener)
    }

    /// The next message. Never waits.
    pub fn next(&self) -> io::Result<Next> {
        let mut buffer = [0; 8192];
        match uevent_sys::receive(&self.0, &mut buffer) {
            Ok(Received { from_kernel: false, .. }) => Ok(Next::Other),
            Ok(Received { whole: false, .. }) => Ok(Next::Lost),
            Ok(Received { len, .. }) => Ok(parse(&buffer[..len]).map_or(Next::Other, Next::Event)),
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => Ok(Next::Lost),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Next::Nothing),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(Next::Other),
            Err(error) => Err(error),
        }
    }
}

impl AsRawFd for Listener {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// Reads a message: `add@/devices/...`, then `KEY=value`, each ended by a zero byte.
pub fn parse(message: &[u8]) -> Option<Uevent> {
    let mut fields = message.split(|byte| *byte == 0);
    // udev's own messages begin otherwise.
    if !fields.next()?.contains(&b'@') {
        return None;
    }
    let (mut action, mut path, mut subsystem, mut attention) = (None, None, None, None);
    for field in fields {
        let field = String::from_utf8_lossy(field);
        match field.split_once('=') {
            Some(("ACTION", value)) => action = Some(value.to_owned()),
            Some(("DEVPATH", value)) => path = Some(value.to_owned()),
            Some(("SUBSYSTEM", value)) => subsystem = Some(value.to_owned()),
            Some(("SDEV_UA", value)) => attention = Some(value.to_owned()),
            _ => {}
        }
    }
    let ours = ["scsi", "scsi_device", "scsi_generic", "bsg", "block"];
    if !ours.contains(&subsystem?.as_str()) {
        return None;
    }
    match (action?.as_str(), attention) {
        ("change", Some(attention)) => {
            let hctl = files::last_name(path?.as_ref())?.parse().ok()?;
            Some(Uevent::Attention(hctl, Attention::named(&attention)?))
        }
        ("add" | "remove" | "bind" | "unbind" | "move", _) => Some(Uevent::Devices),
        _ => None,
    }
}

impl Attention {
    /// By the kernel's word for it.
    fn named(word: &str) -> Option<Attention> {
        Some(match word {
            "ASYMMETRIC_ACCESS_STATE_CHANGED" => Attention::Access,
            "CAPACITY_DATA_HAS_CHANGED" => Attention::Capacity,
            "INQUIRY_DATA_HAS_CHANGED" | "REPORTED_LUNS_DATA_HAS_CHANGED" => Attention::Identity,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADD: &str = "add@/devices/x/target1:0:0/1:0:0:0\0ACTION=add\0DEVPATH=/devices/x/\
                       target1:0:0/1:0:0:0\0SUBSYSTEM=scsi\0DEVTYPE=scsi_device\0SEQNUM=1\0";

    fn change(word: &str) -> String {
        format!(
            "change@/devices/x/1:0:0:7\0ACTION=change\0DEVPATH=/devices/x/1:0:0:7\0\
             SUBSYSTEM=scsi\0SDEV_UA={word}\0SEQNUM=2\0"
        )
    }

    #[test]
    fn parse_hears_of_devices_and_attentions() {
        assert_eq!(parse(ADD.as_bytes()), Some(Uevent::Devices));
        let hctl = "1:0:0:7".parse().unwrap();
        let message = change("ASYMMETRIC_ACCESS_STATE_CHANGED");
        assert_eq!(parse(message.as_bytes()), Some(Uevent::Attention(hctl, Attention::Access)));
        let message = change("REPORTED_LUNS_DATA_HAS_CHANGED");
        assert_eq!(parse(message.as_bytes()), Some(Uevent::Attention(hctl, Attention::Identity)));
    }

    #[test]
    fn parse_leaves_the_rest_alone() {
        let other = ADD.replace("SUBSYSTEM=scsi", "SUBSYSTEM=net");
        let udev = format!("libudev\0{ADD}");
        let quiet = ADD.replace("ACTION=add", "ACTION=change");
        for message in [other.as_str(), &udev, &quiet, &change("MODE_PARAMETERS_CHANGED"), "", "\0"]
        {
            assert_eq!(parse(message.as_bytes()), None, "{message:?}");
        }
        let no_device = change("CAPACITY_DATA_HAS_CHANGED").replace("1:0:0:7", "host1");
        assert_eq!(parse(no_device.as_bytes()), None);
    }

    #[test]
    fn parse_takes_any_bytes() {
        let whole = change("CAPACITY_DATA_HAS_CHANGED").into_bytes();
        for len in 0..whole.len() {
            let _ = parse(&whole[..len]);
            let mut broken = whole.clone();
            broken[len] ^= 0xFF;
            let _ = parse(&broken);
            broken[len] = 0;
            let _ = parse(&broken);
        }
        assert_eq!(parse(&[b'='; 8192]), None);
        assert_eq!(parse(&[0xFF; 8192]), None);
    }

    #[test]
    fn listener_has_nothing_at_first() {
        match Listener::open() {
            // Other programs' devices may come and go meanwhile; what counts is that it ends.
            Ok(listener) => assert!((0..10_000).any(|_| listener.next().unwrap() == Next::Nothing)),
            Err(error) => println!("not run: no netlink socket here: {error}"),
        }
    }
}
