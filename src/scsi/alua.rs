//! Asymmetric logical unit access: REPORT and SET TARGET PORT GROUPS (SPC-5 5.16, 6.37 and 6.45).

use std::fmt;
use std::time::Duration;

/// ASYMMETRIC ACCESS STATE of a target port group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum AccessState {
    /// Active/optimized.
    ActiveOptimized,
    /// Active/non-optimized.
    ActiveNonOptimized,
    /// Standby.
    Standby,
    /// Unavailable.
    Unavailable,
    /// Logical block dependent: active for some blocks.
    LbaDependent,
    /// Offline.
    Offline,
    /// Between two states.
    Transitioning,
    /// Not told.
    #[default]
    Unknown,
}

impl AccessState {
    /// The state in the low nibble of a descriptor's first byte.
    pub fn from_low_nibble(byte: u8) -> Self {
        match byte & 0xF {
            0x0 => AccessState::ActiveOptimized,
            0x1 => AccessState::ActiveNonOptimized,
            0x2 => AccessState::Standby,
            0x3 => AccessState::Unavailable,
            0x4 => AccessState::LbaDependent,
            0xE => AccessState::Offline,
            0xF => AccessState::Transitioning,
            _ => AccessState::Unknown,
        }
    }

    /// The code in a descriptor; `Unknown` has the first reserved one.
    pub fn code(self) -> u8 {
        match self {
            AccessState::ActiveOptimized => 0x0,
            AccessState::ActiveNonOptimized => 0x1,
            AccessState::Standby => 0x2,
            AccessState::Unavailable => 0x3,
            AccessState::LbaDependent => 0x4,
            AccessState::Unknown => 0x5,
            AccessState::Offline => 0xE,
            AccessState::Transitioning => 0xF,
        }
    }

    /// True where reads and writes are executed.
    pub fn allows_media_access(self) -> bool {
        use AccessState::*;
        matches!(self, ActiveOptimized | ActiveNonOptimized | LbaDependent | Unknown)
    }

    /// True where this is as good as it gets. An array that does not tell has no better path.
    pub fn is_optimized(self) -> bool {
        matches!(self, AccessState::ActiveOptimized | AccessState::Unknown)
    }
}

impl fmt::Display for AccessState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            AccessState::ActiveOptimized => "active/optimized",
            AccessState::ActiveNonOptimized => "active/non-optimized",
            AccessState::Standby => "standby",
            AccessState::Unavailable => "unavailable",
            AccessState::LbaDependent => "lba-dependent",
            AccessState::Offline => "offline",
            AccessState::Transitioning => "transitioning",
            AccessState::Unknown => "unknown",
        })
    }
}

/// One target port group descriptor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// TARGET PORT GROUP.
    pub id: u16,
    /// Its state.
    pub state: AccessState,
    /// PREF: the array would rather be reached here.
    pub preferred: bool,
    /// RELATIVE TARGET PORT IDENTIFIERs of its ports.
    pub ports: Vec<u16>,
}

/// What REPORT TARGET PORT GROUPS told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// All groups.
    pub groups: Vec<Group>,
    /// IMPLICIT TRANSITION TIME: how long a transition may take by the array's own word; `None`
    /// where it gives none.
    pub transition_time: Option<Duration>,
}

impl Report {
    /// The group of a port that says this of itself: by its target port group, else by its number.
    pub fn group_of(&self, group: Option<u16>, relative_port: Option<u16>) -> Option<&Group> {
        self.groups.iter().find(|one| group == Some(one.id)).or_else(|| {
            let port = relative_port?;
            self.groups.iter().find(|one| group.is_none() && one.ports.contains(&port))
        })
    }
}

/// The parameter list of SET TARGET PORT GROUPS that makes `group` active/optimized and leaves the
/// rest to the array.
pub fn make_optimized(group: u16) -> [u8; 8] {
    let [high, low] = group.to_be_bytes();
    [0, 0, 0, 0, AccessState::ActiveOptimized.code(), 0, high, low]
}

/// Reads the parameter data of REPORT TARGET PORT GROUPS, with the length-only or the extended
/// header; `None` when not even the header is there. Of a descriptor that is cut off, the ports that
/// came are kept: Linux' own target leaves the extended header's four bytes out of its RETURN DATA
/// LENGTH, and so cuts the last port.
pub fn parse_groups(bytes: &[u8]) -> Option<Report> {
    let told = u32::from_be_bytes(bytes.get(0..4)?.try_into().ok()?) as usize;
    let end = bytes.len().min(told.saturating_add(4));
    let extended = bytes.get(4).is_some_and(|byte| byte & 0x70 == 0x10);
    let seconds = bytes.get(5).filter(|seconds| extended && **seconds != 0);
    let transition_time = seconds.map(|seconds| Duration::from_secs(u64::from(*seconds)));
    let mut rest = bytes.get(if extended { 8 } else { 4 }..end).unwrap_or(&[]);
    let mut groups = Vec::new();
    while let Some(header) = rest.get(..8) {
        let len = 8 + 4 * usize::from(header[7]);
        let ports = &rest[8..len.min(rest.len())];
        groups.push(Group {
            id: u16::from_be_bytes([header[2], header[3]]),
            state: AccessState::from_low_nibble(header[0]),
            preferred: header[0] & 0x80 != 0,
            ports: ports
                .chunks_exact(4)
                .map(|port| u16::from_be_bytes([port[2], port[3]]))
                .collect(),
        });
        rest = rest.get(len..).unwrap_or(&[]);
    }
    Some(Report { groups, transition_time })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptor(first: u8, id: u8, ports: &[u8]) -> Vec<u8> {
        let mut bytes = vec![first, 0x0F, 0, id, 0, 0, 0, ports.len() as u8];
        for port in ports {
            bytes.extend_from_slice(&[0, 0, 0, *port]);
        }
        bytes
    }

    #[test]
    fn parse_groups_reads_both_headers() {
        let body = [descriptor(0x80, 1, &[1, 2]), descriptor(0x02, 2, &[3])].concat();
        let plain = [&(body.len() as u32).to_be_bytes()[..], &body].concat();
        let extended =
            [&(body.len() as u32 + 4).to_be_bytes()[..], &[0x10, 60, 0, 0], &body].concat();
        for (bytes, time) in [(plain, None), (extended, Some(Duration::from_secs(60)))] {
            let Report { groups, transition_time } = parse_groups(&bytes).unwrap();
            assert_eq!(transition_time, time);
            assert_eq!(groups.len(), 2);
            assert_eq!(groups[0].ports, [1, 2]);
            assert!(groups[0].preferred);
            assert_eq!(groups[1].state, AccessState::Standby);
        }
    }

    #[test]
    fn parse_groups_keeps_a_group_whose_last_port_is_cut() {
        let body = [descriptor(0x00, 1, &[1]), descriptor(0x01, 2, &[2, 3])].concat();
        let length = (body.len() as u32).to_be_bytes();
        let bytes = [&length[..], &[0x10, 20, 0, 0], &body].concat();
        let groups = parse_groups(&bytes).unwrap().groups;
        assert_eq!(
            (groups[1].state, &*groups[1].ports),
            (AccessState::ActiveNonOptimized, &[2][..])
        );
    }

    #[test]
    fn group_of_goes_by_the_group_before_the_port() {
        let body = [descriptor(0x00, 1, &[1, 2]), descriptor(0x02, 2, &[3])].concat();
        let bytes = [&(body.len() as u32).to_be_bytes()[..], &body].concat();
        let report = parse_groups(&bytes).unwrap();
        let id = |group, port| report.group_of(group, port).map(|group| group.id);
        assert_eq!(id(Some(2), Some(1)), Some(2));
        assert_eq!(id(None, Some(3)), Some(2));
        assert_eq!(id(Some(9), Some(3)), None, "a group that is not listed is not another one");
        assert_eq!(id(None, None), None);
    }

    #[test]
    fn parse_groups_takes_any_bytes() {
        for len in 0..40 {
            for fill in [0, 0x10, 0xFF] {
                let _ = parse_groups(&vec![fill; len]);
            }
        }
    }
}
