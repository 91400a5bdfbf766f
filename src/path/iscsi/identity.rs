//! Who we are at a target: initiator name, ISID, secrets.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::IscsiError;
use crate::fnv::fnv1a;
use crate::path::address::{IscsiAddress, Secret, is_iscsi_name};
use crate::path::any::OpenMode;

const NAME_FILE: &str = "/etc/iscsi/initiatorname.iscsi";
const MACHINE_ID: &str = "/etc/machine-id";
/// Where QEMU's own initiator names come from; the rest tells this program and the machine.
const DERIVED: &str = "iqn.2008-11.org.linux-kvm:vhost-user-scsi-mpath-";

/// The name as configured, or the host's, or one derived from the machine's id.
pub(super) fn initiator_name(configured: &str) -> Result<String, IscsiError> {
    let name = if configured.is_empty() { host_name()? } else { configured.to_owned() };
    if is_iscsi_name(&name) { Ok(name) } else { Err(IscsiError::BadName(name)) }
}

fn host_name() -> Result<String, IscsiError> {
    match fs::read_to_string(NAME_FILE) {
        Ok(text) => {
            if let Some(name) = name_in(&text) {
                return Ok(name);
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => log::warn!("{NAME_FILE}: {error}; the machine's id gives the initiator name"),
    }
    let id = fs::read_to_string(MACHINE_ID);
    let id = id.map_err(|error| IscsiError::NoName(format!("{MACHINE_ID}: {error}")))?;
    match id.trim() {
        "" => Err(IscsiError::NoName(format!("{MACHINE_ID} is empty"))),
        // The id itself is not for others to see (machine-id(5)).
        id => Ok(format!("{DERIVED}{:016x}", hash(&[id]))),
    }
}

/// The line that open-iscsi reads.
fn name_in(text: &str) -> Option<String> {
    let name = |line: &str| Some(line.trim().strip_prefix("InitiatorName=")?.trim().to_owned());
    text.lines().find_map(name).filter(|name| !name.is_empty())
}

/// The 24 and 16 bits of an ISID of the random type. The same for the same backend and path after
/// a restart, so that the target ends what the last process left; another for every other backend
/// and path, and another for each check, which may run beside them.
pub(super) fn isid(initiator: &str, identity: &str, place: &str, mode: OpenMode) -> (u32, u16) {
    let process = std::process::id().to_string();
    let purpose = match mode {
        OpenMode::Serve => ["serve", ""],
        OpenMode::Check => ["check", process.as_str()],
    };
    let hash = hash(&[initiator, identity, place, purpose[0], purpose[1]]);
    ((hash >> 16) as u32 & 0xFF_FFFF, hash as u16)
}

/// The ISID of the random type (RFC 7143 11.12.5) with these bits.
pub(super) fn isid_bytes((number, qualifier): (u32, u16)) -> [u8; 6] {
    let ([_, a, b, c], [d, e]) = (number.to_be_bytes(), qualifier.to_be_bytes());
    [0x80, a, b, c, d, e]
}

/// FNV-1a, then mixed so that every bit depends on every byte.
fn hash(parts: &[&str]) -> u64 {
    let mut hash = fnv1a(0, parts.iter().flat_map(|part| part.bytes().chain([0])));
    hash = (hash ^ hash >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    hash = (hash ^ hash >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    hash ^ hash >> 31
}

/// Users and secrets for CHAP: ours, and the target's.
#[derive(Debug, Default)]
pub(super) struct Credentials {
    pub(super) chap: Option<(String, Secret)>,
    pub(super) mutual: Option<(String, Secret)>,
}

impl Credentials {
    /// From the address, and where it names a user without a secret, from the file: our secret in
    /// its first line, the target's in its second.
    pub(super) fn read(address: &IscsiAddress, file: Option<&Path>) -> Result<Self, IscsiError> {
        let Some(user) = &address.user else { return Ok(Credentials::default()) };
        let missing = address.secret.is_none()
            || (address.target_user.is_some() && address.target_secret.is_none());
        let mut lines = match file {
            Some(file) if missing => secrets(file)?,
            _ => Vec::new(),
        }
        .into_iter();
        let (first, second) = (lines.next(), lines.next());
        let secret = address.secret.clone().or(first);
        let secret = secret.ok_or_else(|| IscsiError::NoSecret(format!("user {user}")))?;
        let mutual = match &address.target_user {
            None => None,
            Some(target) => {
                let secret = address.target_secret.clone().or(second);
                let no_secret = || IscsiError::NoSecret(format!("target_user {target}"));
                Some((target.clone(), secret.ok_or_else(no_secret)?))
            }
        };
        Ok(Credentials { chap: Some((user.clone(), secret)), mutual })
    }
}

fn secrets(file: &Path) -> Result<Vec<Secret>, IscsiError> {
    let failed =
        |reason: String| IscsiError::SecretFile { file: file.display().to_string(), reason };
    let metadata = fs::metadata(file).map_err(|error| failed(error.to_string()))?;
    if metadata.permissions().mode() & 0o007 != 0 {
        log::warn!("iscsi.secret_file {}: everybody may read it", file.display());
    }
    let text = fs::read_to_string(file).map_err(|error| failed(error.to_string()))?;
    let lines: Vec<Secret> = text
        .lines()
        .map(|line| line.trim_end_matches('\r'))
        .take_while(|line| !line.is_empty())
        .map(Secret::new)
        .collect();
    if lines.is_empty() { Err(failed("its first line is empty".to_owned())) } else { Ok(lines) }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::path::address::Address;

    #[test]
    fn isid_has_its_type_and_its_bits_in_order() {
        assert_eq!(isid_bytes((0xDE_017F, 0x4FC3)), [0x80, 0xDE, 0x01, 0x7F, 0x4F, 0xC3]);
    }

    #[test]
    fn isid_is_the_same_after_a_restart_and_differs_between_backends_paths_and_checks() {
        let base = isid("iqn.x:a", "/run/lun0.sock", "host/iqn.y/0", OpenMode::Serve);
        // Known to targets: it must never change.
        assert_eq!(base, isid("iqn.x:a", "/run/lun0.sock", "host/iqn.y/0", OpenMode::Serve));
        assert!(base.0 < 1 << 24);
        for other in [
            isid("iqn.x:b", "/run/lun0.sock", "host/iqn.y/0", OpenMode::Serve),
            isid("iqn.x:a", "/run/lun1.sock", "host/iqn.y/0", OpenMode::Serve),
            isid("iqn.x:a", "/run/lun0.sock", "host/iqn.y/1", OpenMode::Serve),
            isid("iqn.x:a", "/run/lun0.sockh", "ost/iqn.y/0", OpenMode::Serve),
            isid("iqn.x:a", "/run/lun0.sock", "host/iqn.y/0", OpenMode::Check),
        ] {
            assert_ne!(base, other);
        }
    }

    #[test]
    fn hash_never_changes() {
        assert_eq!(hash(&["abc", "d"]), 0x7A99_273D_B257_1F34);
        assert_ne!(hash(&["abc", "d"]), hash(&["ab", "cd"]));
    }

    #[test]
    fn name_is_read_as_open_iscsi_writes_it() {
        let text =
            "## DO NOT EDIT\nGenerateName=no\n InitiatorName=iqn.1993-08.org.debian:01:ab \n";
        assert_eq!(name_in(text).as_deref(), Some("iqn.1993-08.org.debian:01:ab"));
        assert_eq!(name_in("InitiatorName=\n"), None);
        assert!(matches!(initiator_name("host"), Err(IscsiError::BadName(_))));
        assert_eq!(initiator_name("iqn.x:y").unwrap(), "iqn.x:y");
    }

    fn address(text: &str) -> IscsiAddress {
        match text.parse() {
            Ok(Address::Iscsi(address)) => address,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn secrets_come_from_the_address_or_the_file() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        writeln!(file, "first\nsecond\n\nthird").unwrap();
        let read = |text: &str, file: Option<&Path>| {
            let read = Credentials::read(&address(text), file);
            let shown = |pair: Option<(String, Secret)>| {
                pair.map(|(user, secret)| format!("{user}={}", secret.reveal()))
            };
            read.map(|read| (shown(read.chap), shown(read.mutual)))
                .map_err(|error| error.to_string())
        };
        let path = Some(file.path());
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(read("iscsi://h/iqn.x/0", path), Ok((None, None)));
        assert_eq!(read("iscsi://u%own@h/iqn.x/0", path), Ok((text("u=own"), None)));
        assert_eq!(read("iscsi://u@h/iqn.x/0", path), Ok((text("u=first"), None)));
        let both = Ok((text("u=first"), text("t=second")));
        assert_eq!(read("iscsi://u@h/iqn.x/0?target_user=t", path), both);
        assert!(read("iscsi://u@h/iqn.x/0", None).unwrap_err().contains("user u has no secret"));
        let nowhere = read("iscsi://u@h/iqn.x/0", Some(Path::new("/nowhere")));
        assert!(nowhere.unwrap_err().contains("iscsi.secret_file /nowhere"));
    }
}
