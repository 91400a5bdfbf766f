//! `iscsi://[user[%secret]@]host[:port]/target/lun`, as libiscsi writes it.
//!
//! Behind a `?` may follow `target_user` and `target_password`, with which the target proves who it
//! is, and `header_digest=crc32c`. In the target's name `%XX` stands for the byte XX. A secret is
//! never shown: not by `Display` or `Debug`, and not in the message about an address that is wrong.

use std::fmt;

use super::AddressError;
use crate::limits::{ISCSI_NAME_MAX, ISCSI_TEXT_MAX};

/// Where iSCSI targets listen.
const PORT: u16 = 3260;
/// The last LUN that fits into flat space addressing.
const LUN_MAX: u16 = 0x3FFF;

/// Something that only the two who share it may see.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Keeps `text` from being shown.
    pub fn new(text: impl Into<String>) -> Self {
        Secret(text.into())
    }

    /// The secret itself, for the login.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// One logical unit behind one portal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IscsiAddress {
    /// Name or number of the portal's host; IPv6 without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// The target's iSCSI name.
    pub target: String,
    /// The logical unit.
    pub lun: u16,
    /// With which name we prove who we are.
    pub user: Option<String>,
    /// And with which secret, if the address says it.
    pub secret: Option<Secret>,
    /// With which name the target proves who it is.
    pub target_user: Option<String>,
    /// And with which secret.
    pub target_secret: Option<Secret>,
    /// Headers carry a CRC32C.
    pub header_digest: bool,
}

impl IscsiAddress {
    /// Reads what stands behind `iscsi://`.
    pub(super) fn parse(text: &str) -> Result<Self, AddressError> {
        parse(text).map_err(|reason| AddressError::Iscsi { address: without_secret(text), reason })
    }

    /// `192.0.2.10/0`: host and logical unit.
    pub fn short_name(&self) -> String {
        format!("{}/{}", self.portal(), self.lun)
    }

    /// Host and port, as they are written in an address.
    fn portal(&self) -> String {
        let host =
            if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        if self.port == PORT { host } else { format!("{host}:{}", self.port) }
    }

    /// The portal, target and logical unit alone: what makes two addresses the same path.
    pub fn place(&self) -> String {
        format!("{}/{}/{}", self.portal(), self.target, self.lun)
    }
}

/// The address without any secret.
impl fmt::Display for IscsiAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("iscsi://")?;
        if let Some(user) = &self.user {
            write!(f, "{user}@")?;
        }
        f.write_str(&self.place())?;
        let mut separator = '?';
        if let Some(user) = &self.target_user {
            write!(f, "{separator}target_user={user}")?;
            separator = '&';
        }
        if self.header_digest {
            write!(f, "{separator}header_digest=crc32c")?;
        }
        Ok(())
    }
}

/// An address that may be wrong, for a message: nothing from which a secret could be read.
pub(super) fn without_secret(text: &str) -> String {
    let (before, place) = text.rsplit_once('@').unwrap_or(("", text));
    let scheme = match before.split_once("//") {
        Some((scheme, _)) => format!("{scheme}//...@"),
        None if before.is_empty() => String::new(),
        None => "...@".to_owned(),
    };
    match place.split_once('?') {
        Some((place, _)) => format!("{scheme}{place}?..."),
        None => format!("{scheme}{place}"),
    }
}

fn parse(text: &str) -> Result<IscsiAddress, String> {
    let rest = text.strip_prefix("iscsi://").ok_or("one begins with iscsi://")?;
    let (rest, settings) = rest.split_once('?').unwrap_or((rest, ""));
    let (who, place) = match rest.split_once('@') {
        Some((who, place)) => (Some(who), place),
        None => (None, rest),
    };
    let mut parts = place.split('/');
    let (portal, target, lun) = match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(portal), Some(target), Some(lun), None) => (portal, target, lun),
        _ => return Err("it is iscsi://[user[%secret]@]host[:port]/target/lun".to_owned()),
    };
    let (host, port) = parse_portal(portal)?;
    let (user, secret) = match who.map(|who| who.split_once(['%', ':']).ok_or(who)) {
        None => (None, None),
        Some(Ok((user, secret))) => {
            (Some(word("the user", user)?), Some(hidden("the secret", secret)?))
        }
        Some(Err(user)) => (Some(word("the user", user)?), None),
    };
    let mut address = IscsiAddress {
        host,
        port,
        target: parse_target(target)?,
        lun: lun
            .parse()
            .ok()
            .filter(|lun| *lun <= LUN_MAX)
            .ok_or(format!("the LUN is a number from 0 to {LUN_MAX}"))?,
        user,
        secret,
        target_user: None,
        target_secret: None,
        header_digest: false,
    };
    for setting in settings.split('&').filter(|setting| !setting.is_empty()) {
        let (key, value) = setting.split_once('=').unwrap_or((setting, ""));
        match (key, value) {
            ("target_user", user) => address.target_user = Some(word(key, user)?),
            ("target_password", secret) => address.target_secret = Some(hidden(key, secret)?),
            ("header_digest", "crc32c") => address.header_digest = true,
            ("header_digest", "none") => address.header_digest = false,
            ("header_digest", _) => return Err("header_digest is none or crc32c".to_owned()),
            _ => {
                return Err(
                    "the settings are target_user, target_password and header_digest".to_owned()
                );
            }
        }
    }
    if address.target_user.is_some() && address.user.is_none() {
        return Err(
            "a target proves who it is only to a user: target_user wants user@ as well".to_owned()
        );
    }
    Ok(address)
}

fn parse_portal(portal: &str) -> Result<(String, u16), String> {
    let wrong = || "the host is a name, an IPv4 address, or an IPv6 address in brackets".to_owned();
    let (host, port) = match portal.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']').ok_or_else(wrong)?;
            host.parse::<std::net::Ipv6Addr>().map_err(|_| wrong())?;
            (host, port.strip_prefix(':'))
        }
        None => portal.split_once(':').map_or((portal, None), |(host, port)| (host, Some(port))),
    };
    let port = port.map_or(Ok(PORT), str::parse).ok().filter(|port| *port > 0);
    let port = port.ok_or("the port is a number from 1 to 65535")?;
    let plain = |one: char| one.is_ascii_alphanumeric() || matches!(one, '.' | '-' | '_' | ':');
    if host.is_empty() || !host.chars().all(plain) {
        return Err(wrong());
    }
    Ok((host.to_owned(), port))
}

fn parse_target(target: &str) -> Result<String, String> {
    let wrong = || "the target is an iSCSI name, beginning with iqn., eui. or naa.".to_owned();
    let target = super::unescape("", target).map_err(|_| wrong())?;
    let target = String::from_utf8(target).map_err(|_| wrong())?;
    if is_iscsi_name(&target) { Ok(target) } else { Err(wrong()) }
}

/// Could `name` be the name of an initiator or a target (RFC 7143 4.2.7)?
pub fn is_iscsi_name(name: &str) -> bool {
    let kind = ["iqn.", "eui.", "naa."].iter().any(|kind| name.starts_with(kind));
    let plain = |one: char| one.is_alphanumeric() || matches!(one, '.' | '-' | ':' | '_');
    kind && name.len() <= ISCSI_NAME_MAX && name.chars().all(plain)
}

fn word(what: &str, text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > ISCSI_TEXT_MAX || text.contains(char::is_control) {
        return Err(format!("{what} has 1 to {ISCSI_TEXT_MAX} characters"));
    }
    Ok(text.to_owned())
}

fn hidden(what: &str, text: &str) -> Result<Secret, String> {
    word(what, text).map(Secret)
}

#[cfg(test)]
mod tests {
    use super::super::Address;
    use super::*;

    const PLACE: &str = "192.0.2.10/iqn.2003-01.org.example:array/0";

    fn iscsi(text: &str) -> IscsiAddress {
        match Address::parse(text) {
            Ok(Address::Iscsi(address)) => address,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn parse_has_defaults() {
        let address = iscsi(&format!("iscsi://{PLACE}"));
        assert_eq!((address.host.as_str(), address.port, address.lun), ("192.0.2.10", 3260, 0));
        assert_eq!(address.target, "iqn.2003-01.org.example:array");
        assert_eq!((address.user, address.secret, address.header_digest), (None, None, false));
    }

    #[test]
    fn parse_reads_every_part() {
        let address = iscsi(
            "iscsi://me%my/secret@[2001:db8::1]:3261/iqn.x%3Ay/300\
             ?target_user=it&target_password=its&header_digest=crc32c",
        );
        assert_eq!((address.host.as_str(), address.port, address.lun), ("2001:db8::1", 3261, 300));
        assert_eq!(address.target, "iqn.x:y");
        assert_eq!(address.user.as_deref(), Some("me"));
        assert_eq!(address.secret.as_ref().map(Secret::reveal), Some("my/secret"));
        assert_eq!(address.target_user.as_deref(), Some("it"));
        assert_eq!(address.target_secret.as_ref().map(Secret::reveal), Some("its"));
        assert!(address.header_digest);
        assert_eq!(address.short_name(), "[2001:db8::1]:3261/300");
    }

    #[test]
    fn display_reads_back_and_shows_no_secret() {
        let text = format!("iscsi://me%topsecret@{PLACE}?target_user=it&target_password=topsecret");
        let address = iscsi(&text);
        let shown = address.to_string();
        assert_eq!(shown, format!("iscsi://me@{PLACE}?target_user=it"));
        assert_eq!(iscsi(&shown).place(), address.place());
        assert!(!format!("{address:?}").contains("topsecret"));
    }

    #[test]
    fn message_about_a_wrong_address_shows_no_secret() {
        for text in [
            "iscsi://me%topsecret@host",
            "iscsi:/me%topsecret@host/iqn.x/0",
            "ISCSI://me%topsecret@host/iqn.x/0",
            "iscsi://me%top@topsecret@host/iqn.x/0",
            "iscsi://me%topsecret@host/iqn.x/99999",
            "iscsi://host/iqn.x/0?target_password=topsecret&no",
            "me%topsecret@host/iqn.x/0",
            "iscsi://me%topsecret?no@host/iqn.x/0",
        ] {
            let message = Address::parse(text).unwrap_err().to_string();
            assert!(!message.contains("topsecret"), "{message}");
        }
    }

    #[test]
    fn parse_refuses_what_is_no_address() {
        for (place, why) in [
            ("host/iqn.x", "host[:port]/target/lun"),
            ("host/iqn.x/0/1", "host[:port]/target/lun"),
            ("/iqn.x/0", "the host"),
            ("ho st/iqn.x/0", "the host"),
            ("[::g]/iqn.x/0", "the host"),
            ("host:0/iqn.x/0", "the port"),
            ("host/x/0", "the target"),
            ("host/iqn.%0/0", "the target"),
            ("host/iqn.x/-1", "the LUN"),
            ("host/iqn.x/16384", "the LUN"),
            ("@host/iqn.x/0", "the user"),
            ("host/iqn.x/0?x=1", "the settings"),
            ("host/iqn.x/0?header_digest=md5", "header_digest"),
            ("host/iqn.x/0?target_user=it", "wants user@"),
        ] {
            let message = Address::parse(&format!("iscsi://{place}")).unwrap_err().to_string();
            assert!(message.contains(why), "{place}: {message}");
        }
    }
}
